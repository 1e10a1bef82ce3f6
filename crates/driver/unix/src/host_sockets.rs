//! [`HostSockets`]: the host's TCP and UDP as a device.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;
use fata_device::{BoxFuture, ByteStream, DatagramSocket, Keepalive, Listener, Sockets};
use socket2::{SockRef, TcpKeepalive};
use std::io::{self, ErrorKind, IoSlice};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV6};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// The sockets of the host that the process runs on. To be used inside a tokio runtime whose I/O
/// is enabled.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostSockets(());

impl HostSockets {
    /// The host's sockets.
    pub const fn new() -> Self {
        HostSockets(())
    }
}

impl Sockets for HostSockets {
    fn tcp_listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener = TcpListener::bind(address)
                .await
                .map_err(|error| bind_error(error, "listen for TCP connections on", address))?;
            Ok(Box::new(HostListener(listener)) as Box<dyn Listener>)
        })
    }

    fn tcp_connect(&self, remote: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn ByteStream>>> {
        Box::pin(async move {
            let stream = TcpStream::connect(remote).await.map_err(|error| {
                io::Error::new(error.kind(), format!("cannot connect to {remote}: {error}"))
            })?;
            Ok(Box::new(HostStream(stream)) as Box<dyn ByteStream>)
        })
    }

    fn udp_bind(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn DatagramSocket>>> {
        Box::pin(async move {
            let socket = UdpSocket::bind(address)
                .await
                .map_err(|error| bind_error(error, "open a UDP socket on", address))?;
            Ok(Box::new(HostDatagramSocket(socket)) as Box<dyn DatagramSocket>)
        })
    }

    /// Those of `/etc/resolv.conf`, as it stands now; without one, as resolv.conf(5) has it, the one
    /// on this host.
    fn name_servers(&self) -> Vec<SocketAddr> {
        let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let servers = name_servers(&text);
        if servers.is_empty() { vec![(Ipv4Addr::LOCALHOST, DNS_PORT).into()] } else { servers }
    }
}

/// The port of name servers.
const DNS_PORT: u16 = 53;

/// The lines `nameserver ADDRESS` of a resolv.conf(5). Others say how names are completed and how
/// servers are asked, which is the resolver's business.
fn name_servers(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|it| *it == "nameserver").and_then(|_| words.next())?;
        // A link-local address may name its interface (RFC 4007 §11).
        match address.split_once('%') {
            None => Some(SocketAddr::new(address.parse().ok()?, DNS_PORT)),
            Some((address, zone)) => {
                let scope = zone.parse().ok()?;
                Some(SocketAddrV6::new(address.parse().ok()?, DNS_PORT, 0, scope).into())
            }
        }
    };
    text.lines().filter_map(server).collect()
}

/// Names the address, and says what to do about it.
fn bind_error(error: io::Error, what: &str, address: SocketAddr) -> io::Error {
    let advice = match error.kind() {
        ErrorKind::AddrInUse => "; stop the program that has it, or choose another port",
        ErrorKind::AddrNotAvailable => "; this host has no such address",
        ErrorKind::PermissionDenied if address.port() < 1024 => {
            "; ports below 1024 are for root or CAP_NET_BIND_SERVICE: choose a higher one"
        }
        _ => "",
    };
    io::Error::new(error.kind(), format!("cannot {what} {address}: {error}{advice}"))
}

struct HostListener(TcpListener);

impl Listener for HostListener {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn poll_accept(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(Box<dyn ByteStream>, SocketAddr)>> {
        loop {
            match ready!(self.0.poll_accept(cx)) {
                Ok((stream, peer)) => return Poll::Ready(Ok((Box::new(HostStream(stream)), peer))),
                // The peer went away while its connection waited in the backlog: its affair, not
                // the listener's.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

struct HostStream(TcpStream);

impl ByteStream for HostStream {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.peer_addr()
    }

    fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.0.set_nodelay(nodelay)
    }

    fn set_keepalive(&self, keepalive: Option<Keepalive>) -> io::Result<()> {
        let socket = SockRef::from(&self.0);
        match keepalive {
            None => socket.set_keepalive(false),
            Some(Keepalive { idle, interval, probes }) => socket.set_tcp_keepalive(
                &TcpKeepalive::new()
                    .with_time(idle)
                    .with_interval(interval)
                    .with_retries(u32::from(probes)),
            ),
        }
    }

    fn set_user_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        // The host counts milliseconds, and takes 0 for none.
        let timeout = timeout.map(|timeout| timeout.max(Duration::from_millis(1)));
        SockRef::from(&self.0).set_tcp_user_timeout(timeout)
    }
}

impl AsyncRead for HostStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for HostStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

struct HostDatagramSocket(UdpSocket);

impl DatagramSocket for HostDatagramSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        payload: &[u8],
        destination: SocketAddr,
    ) -> Poll<io::Result<()>> {
        // A datagram goes whole or not at all, so the length that the host returns says nothing.
        self.0.poll_send_to(cx, payload, destination).map_ok(|_| ()).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot send {} bytes to {destination}: {error}", payload.len()),
            )
        })
    }

    fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut buffer = ReadBuf::new(buffer);
        let source = ready!(self.0.poll_recv_from(cx, &mut buffer))?;
        Poll::Ready(Ok((buffer.filled().len(), source)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const LOOPBACK: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[tokio::test]
    async fn a_stream_carries_bytes_and_closes_each_direction_by_itself() {
        let sockets = HostSockets::new();
        let listener = sockets.tcp_listen(LOOPBACK).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, server) =
            tokio::join!(sockets.tcp_connect(address), poll_fn(|cx| listener.poll_accept(cx)));
        let (mut client, (mut server, peer)) = (client.unwrap(), server.unwrap());
        assert_eq!(client.local_addr().unwrap(), peer);
        assert_eq!(client.peer_addr().unwrap(), address);

        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = Vec::new();
        server.read_to_end(&mut question).await.unwrap();
        assert_eq!(question, b"question");
        server.write_all(b"answer").await.unwrap();
        drop(server);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"answer");
    }

    #[tokio::test]
    async fn keepalive_reaches_the_host() {
        let listener = TcpListener::bind(LOOPBACK).await.unwrap();
        let stream = HostStream(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
        let keepalive =
            Keepalive { idle: Duration::from_secs(7), interval: Duration::from_secs(3), probes: 4 };
        stream.set_keepalive(Some(keepalive)).unwrap();
        {
            let socket = SockRef::from(&stream.0);
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), keepalive.idle);
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), keepalive.interval);
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
        }
        stream.set_keepalive(None).unwrap();
        assert!(!SockRef::from(&stream.0).keepalive().unwrap());
    }

    #[tokio::test]
    async fn a_user_timeout_reaches_the_host() {
        let listener = TcpListener::bind(LOOPBACK).await.unwrap();
        let stream = HostStream(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
        let told = || SockRef::from(&stream.0).tcp_user_timeout().unwrap();
        stream.set_user_timeout(Some(Duration::from_secs(7))).unwrap();
        assert_eq!(told(), Some(Duration::from_secs(7)));
        stream.set_user_timeout(Some(Duration::from_micros(1))).unwrap();
        assert_eq!(told(), Some(Duration::from_millis(1)), "the least, not the default");
        stream.set_user_timeout(None).unwrap();
        assert_eq!(told(), None);
    }

    #[tokio::test]
    async fn errors_name_the_address() {
        let sockets = HostSockets::new();
        let listener = sockets.tcp_listen(LOOPBACK).await.unwrap();
        let address = listener.local_addr().unwrap();
        let error = sockets.tcp_listen(address).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        drop(listener);
        let error = sockets.tcp_connect(address).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        // 203.0.113.0/24 is for documentation (RFC 5737): no host has such an address.
        let error = sockets.udp_bind("203.0.113.1:0".parse().unwrap()).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
        assert!(error.to_string().contains("203.0.113.1"), "{error}");
    }

    #[tokio::test]
    async fn datagrams_go_whole() {
        let sockets = HostSockets::new();
        let left = sockets.udp_bind(LOOPBACK).await.unwrap();
        let right = sockets.udp_bind(LOOPBACK).await.unwrap();
        let destination = right.local_addr().unwrap();
        poll_fn(|cx| left.poll_send_to(cx, b"four", destination)).await.unwrap();
        poll_fn(|cx| left.poll_send_to(cx, b"", destination)).await.unwrap();
        let mut buffer = [0; 3];
        let source = left.local_addr().unwrap();
        let received = poll_fn(|cx| right.poll_recv_from(cx, &mut buffer)).await.unwrap();
        assert_eq!((received, &buffer), ((3, source), b"fou"), "what does not fit is lost");
        let received = poll_fn(|cx| right.poll_recv_from(cx, &mut buffer)).await.unwrap();
        assert_eq!(received, (0, source), "an empty datagram is a datagram");
        let too_long = vec![0; 70_000];
        let error = poll_fn(|cx| left.poll_send_to(cx, &too_long, destination)).await.unwrap_err();
        assert!(error.to_string().contains("70000 bytes"), "{error}");
    }

    #[test]
    fn name_servers_are_read_from_the_hosts_configuration() {
        let text = "# nameserver 192.0.2.9\nsearch example.test\nnameserver 192.0.2.1 # first\n\
                    \tnameserver\t2001:db8::1\nnameserver fe80::1%7\nnameserver\nnameserver x\n";
        let servers: Vec<String> = name_servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%7]:53"]);
        assert!(name_servers("").is_empty());
        assert!(!HostSockets::new().name_servers().is_empty());
    }
}
