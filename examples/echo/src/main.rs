//! Echo: sends back what it receives, over TCP and over UDP (RFC 862).
//!
//! ```text
//! fata run examples/echo -t virtio --publish 7007:7 --publish udp:7007:7
//! printf 'hello\n' | nc -N 127.0.0.1 7007
//! ```
#![forbid(unsafe_code)]

use fata::device::Keepalive;
use fata::{Stack, TcpListener, TcpStream, UdpSocket};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// When a silent client is asked whether it is still there: one that vanished is gone in two minutes,
/// and does not hold its connection for ever.
const KEEPALIVE: Keepalive =
    Keepalive { idle: Duration::from_secs(60), interval: Duration::from_secs(15), probes: 4 };

/// How long a client may owe an answer to what it was sent.
const USER_TIMEOUT: Duration = Duration::from_secs(60);

/// Sends back what it receives.
#[derive(fata::Devices)]
struct Devices {
    /// The network that is answered.
    service: Stack,
    /// Port, for TCP and for UDP.
    #[fata(arg, default = 7)]
    port: u16,
}

#[fata::main]
async fn main(devices: Devices) -> io::Result<()> {
    let listener = devices.service.tcp_listen(devices.port).await?;
    let socket = devices.service.udp_bind(devices.port).await?;
    println!("listening on port {}", devices.port);
    // Whichever fails first ends the program.
    tokio::try_join!(serve_tcp(listener), serve_udp(socket))?;
    Ok(())
}

async fn serve_tcp(listener: TcpListener) -> io::Result<()> {
    loop {
        let (stream, peer) = listener.accept().await?;
        // Each connection is a task of its own; one that fails is the peer's affair.
        tokio::spawn(async move {
            if let Err(error) = echo(stream, peer).await {
                tracing::debug!("{peer}: {error}");
            }
        });
    }
}

async fn echo(mut stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
    stream.set_keepalive(Some(KEEPALIVE))?;
    stream.set_user_timeout(Some(USER_TIMEOUT))?;
    let mut buffer = vec![0; 16 * 1024];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer).await? {
            // The peer has sent everything. Our direction closes when the stream is dropped.
            0 => break,
            len => {
                stream.write_all(&buffer[..len]).await?;
                total += len;
            }
        }
    }
    stream.shutdown().await?;
    tracing::debug!("{peer}: {total} bytes");
    Ok(())
}

async fn serve_udp(socket: UdpSocket) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let (len, peer) = socket.recv_from(&mut buffer).await?;
        // A datagram that cannot be sent back is lost, as datagrams may be.
        if let Err(error) = socket.send_to(&buffer[..len], peer).await {
            tracing::debug!("{peer}: {error}");
        }
    }
}
