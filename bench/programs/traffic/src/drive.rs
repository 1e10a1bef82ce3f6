//! The end that measures.

use crate::{CHUNK_BYTES, Devices, counters_json};
use fata::{Channel, Stack, TcpStream};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// How long the server may take to boot and to listen.
const SERVER_PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn run(devices: &Devices) -> io::Result<()> {
    let stack = &devices.service;
    let span = Duration::from_secs(devices.seconds.into());
    for _ in 0..devices.rounds {
        for test in devices.tests.split(',').filter(|test| !test.is_empty()) {
            let before = fata::system::counters();
            let result = if let Some(test) = test.strip_prefix("channel-") {
                let missing = || io::Error::other("no channel is attached");
                let channel = devices.neighbour.as_ref().ok_or_else(missing)?;
                over_channel(channel, test, span).await
            } else {
                let missing = || io::Error::other("--target=ADDRESS is needed");
                over_tcp(stack, devices.target.ok_or_else(missing)?, test, span).await
            };
            match result {
                Ok(members) => {
                    println!("{{\"test\":\"{test}\"{members}{}}}", counters_json(&before));
                }
                Err(error) => println!("{{\"test\":\"{test}\",\"error\":\"{error}\"}}"),
            }
        }
    }
    println!("done");
    Ok(())
}

async fn connect(stack: &Stack, address: Ipv4Addr, port: u16) -> io::Result<TcpStream> {
    let start = Instant::now();
    loop {
        match stack.tcp_connect(SocketAddr::from((address, port))).await {
            Ok(stream) => return Ok(stream),
            Err(error) if start.elapsed() > SERVER_PATIENCE => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn over_tcp(
    stack: &Stack,
    target: Ipv4Addr,
    test: &str,
    span: Duration,
) -> io::Result<String> {
    match test {
        "send" => send(connect(stack, target, 5001).await?, span).await,
        "receive" => receive(connect(stack, target, 5002).await?, span).await,
        "requests" => {
            let stream = connect(stack, target, 5003).await?;
            stream.set_nodelay(true)?;
            requests(stream, span).await
        }
        "connections" => connections(stack, target, span).await,
        other => Err(io::Error::other(format!("no test is called {other}"))),
    }
}

async fn over_channel(channel: &Channel, test: &str, span: Duration) -> io::Result<String> {
    let mut stream = channel.connect().await?;
    match test {
        "send" => {
            stream.write_all(b"s").await?;
            send_chunks(stream, span).await
        }
        "requests" => {
            stream.write_all(b"r").await?;
            requests(stream, span).await
        }
        other => Err(io::Error::other(format!("no test is called channel-{other}"))),
    }
}

fn rate(bytes: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    let mbit = bytes as f64 * 8.0 / 1e6 / seconds;
    format!(",\"bytes\":{bytes},\"seconds\":{seconds:.3},\"mbit_per_s\":{mbit:.1}")
}

/// Writes for `span`, and stops the clock when the server says that all of it arrived.
async fn send(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    span: Duration,
) -> io::Result<String> {
    let buffer = vec![0xa5; CHUNK_BYTES];
    let start = Instant::now();
    let mut total: u64 = 0;
    while start.elapsed() < span {
        total += stream.write(&buffer).await? as u64;
    }
    stream.shutdown().await?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).await?;
    compare(total, u64::from_le_bytes(answer))?;
    Ok(rate(total, start.elapsed()))
}

fn compare(sent: u64, arrived: u64) -> io::Result<()> {
    let wrong = || io::Error::other(format!("{sent} bytes were sent and {arrived} arrived"));
    if sent == arrived { Ok(()) } else { Err(wrong()) }
}

/// The same where one direction cannot be closed alone, as on vchan: in chunks, of which the first
/// byte says whether it is the last.
async fn send_chunks(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    span: Duration,
) -> io::Result<String> {
    let mut chunk = vec![1; CHUNK_BYTES];
    let start = Instant::now();
    let mut total: u64 = 0;
    while chunk[0] == 1 {
        chunk[0] = u8::from(start.elapsed() < span);
        stream.write_all(&chunk).await?;
        total += chunk.len() as u64;
    }
    stream.flush().await?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).await?;
    compare(total, u64::from_le_bytes(answer))?;
    Ok(rate(total, start.elapsed()))
}

async fn receive(mut stream: TcpStream, span: Duration) -> io::Result<String> {
    let start = Instant::now();
    stream.write_u8(span.as_secs() as u8).await?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut total: u64 = 0;
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            len => total += len as u64,
        }
    }
    Ok(rate(total, start.elapsed()))
}

/// One byte there and back, over and over; the median and the 99th percentile with the rate.
async fn requests(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    span: Duration,
) -> io::Result<String> {
    let mut micros: Vec<u32> = Vec::new();
    let start = Instant::now();
    let mut byte = [0x17];
    while start.elapsed() < span {
        let asked = Instant::now();
        stream.write_all(&byte).await?;
        stream.flush().await?;
        stream.read_exact(&mut byte).await?;
        micros.push(asked.elapsed().as_micros().min(u32::MAX.into()) as u32);
    }
    let seconds = start.elapsed().as_secs_f64();
    micros.sort_unstable();
    let at = |part: usize| micros.get((micros.len() * part / 100).min(micros.len() - 1));
    Ok(format!(
        ",\"requests\":{},\"per_s\":{:.1},\"median_us\":{},\"p99_us\":{}",
        micros.len(),
        micros.len() as f64 / seconds,
        at(50).copied().unwrap_or(0),
        at(99).copied().unwrap_or(0),
    ))
}

async fn connections(stack: &Stack, target: Ipv4Addr, span: Duration) -> io::Result<String> {
    drop(connect(stack, target, 5004).await?);
    let start = Instant::now();
    let mut count: u64 = 0;
    let mut byte = [0];
    while start.elapsed() < span {
        let mut stream = stack.tcp_connect(SocketAddr::from((target, 5004))).await?;
        // The server closes first, so the waiting of closed connections is its affair.
        while stream.read(&mut byte).await? > 0 {}
        count += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(format!(",\"connections\":{count},\"per_s\":{:.1}", count as f64 / seconds))
}
