//! The end that answers.

use crate::{CHUNK_BYTES, Devices, SECONDS_MAX, counters_json};
use fata::{Channel, TcpListener, TcpStream};
use std::io;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub(crate) async fn run(devices: &Devices) -> io::Result<()> {
    let stack = &devices.service;
    tokio::spawn(each(stack.tcp_listen(5001).await?, sink));
    tokio::spawn(each(stack.tcp_listen(5002).await?, source));
    tokio::spawn(each(stack.tcp_listen(5003).await?, echo));
    tokio::spawn(each(stack.tcp_listen(5004).await?, async |_: TcpStream| Ok(())));
    println!("listening on ports 5001 to 5004");
    match devices.neighbour.clone() {
        Some(channel) => serve_channel(channel).await,
        None => std::future::pending().await,
    }
}

/// Serves every connection of `listener` in a task of its own.
async fn each<F: Future<Output = io::Result<()>> + Send + 'static>(
    listener: TcpListener,
    serve: impl Fn(TcpStream) -> F,
) {
    while let Ok((stream, peer)) = listener.accept().await {
        let served = serve(stream);
        tokio::spawn(async move {
            if let Err(error) = served.await {
                println!("{peer}: {error}");
            }
        });
    }
}

/// Reads to the end, then says how much it was.
async fn sink(mut stream: TcpStream) -> io::Result<()> {
    let (before, start) = (fata::system::counters(), Instant::now());
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut total: u64 = 0;
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            len => total += len as u64,
        }
    }
    report("sink", total, start, &before);
    stream.write_all(&total.to_le_bytes()).await?;
    stream.shutdown().await
}

fn report(server: &str, bytes: u64, start: Instant, before: &[(&'static str, u64)]) {
    let (seconds, counters) = (start.elapsed().as_secs_f64(), counters_json(before));
    println!("{{\"server\":\"{server}\",\"bytes\":{bytes},\"seconds\":{seconds:.3}{counters}}}");
}

/// Writes for as many seconds as the first byte says.
async fn source(mut stream: TcpStream) -> io::Result<()> {
    let before = fata::system::counters();
    let wanted = Duration::from_secs(stream.read_u8().await?.min(SECONDS_MAX).into());
    let buffer = vec![0x5a; CHUNK_BYTES];
    let start = Instant::now();
    let mut total: u64 = 0;
    while start.elapsed() < wanted {
        total += stream.write(&buffer).await? as u64;
    }
    stream.shutdown().await?;
    report("source", total, start, &before);
    Ok(())
}

async fn echo(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    echo_bytes(stream).await
}

async fn echo_bytes(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            len => stream.write_all(&buffer[..len]).await?,
        }
        stream.flush().await?;
    }
}

/// Reads chunks to the one that says it is the last.
async fn sink_chunks(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let (before, start) = (fata::system::counters(), Instant::now());
    let mut chunk = vec![1; CHUNK_BYTES];
    let mut total: u64 = 0;
    while chunk[0] == 1 {
        stream.read_exact(&mut chunk).await?;
        total += chunk.len() as u64;
    }
    report("channel-sink", total, start, &before);
    stream.write_all(&total.to_le_bytes()).await?;
    stream.flush().await
}

/// The channel carries one connection after another; the first byte of each says which test it is.
async fn serve_channel(channel: Channel) -> io::Result<()> {
    loop {
        let mut stream = channel.accept().await?;
        let served = match stream.read_u8().await {
            Ok(b's') => sink_chunks(stream).await,
            Ok(b'r') => echo_bytes(stream).await,
            Ok(other) => Err(io::Error::other(format!("the channel asks for test {other:#x}"))),
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            println!("channel: {error}");
        }
    }
}
