//! A guest that does what the tests tell it.
#![forbid(unsafe_code)]

#[cfg(fata_target = "xen")]
mod liar;
#[cfg(not(fata_target = "xen"))]
mod liar {
    pub(crate) async fn lie(victim: u16) -> std::io::Result<()> {
        Err(std::io::Error::other(format!("domain {victim} cannot be lied to from here")))
    }
}

use fata::device::SectorBuffer;
use fata::{Block, Channel, ChannelStream, Stack, TcpStream};
use std::io;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

/// Does one of a few jobs.
#[derive(fata::Devices)]
struct Devices {
    /// For `keep`: where it is asked.
    service: Option<Stack>,
    /// For `keep`: where it keeps what it is given.
    data: Option<Block>,
    /// For `accept` and `connect`: the other end.
    neighbour: Option<Channel>,
    /// For `accept`: another one.
    second: Option<Channel>,
    /// What to do: keep, console, accept, connect, lie.
    #[fata(arg)]
    job: String,
    /// For `lie`: the domain that is lied to.
    #[fata(arg, default = 0)]
    victim: u16,
}

#[fata::main]
async fn main(devices: Devices) -> io::Result<()> {
    let missing = || io::Error::other("a device is missing");
    match devices.job.as_str() {
        "keep" => {
            let disk = devices.data.ok_or_else(missing)?;
            keep(devices.service.ok_or_else(missing)?, disk).await
        }
        "console" => console().await,
        "accept" => {
            let neighbours = [("the first", devices.neighbour), ("the second", devices.second)];
            let mut ends = Vec::new();
            for (name, neighbour) in neighbours {
                if let Some(neighbour) = neighbour {
                    ends.push(tokio::spawn(accept(name, neighbour)));
                }
            }
            for end in ends {
                end.await??;
            }
            Ok(())
        }
        "connect" => {
            let neighbour = devices.neighbour.ok_or_else(missing)?;
            loop {
                println!("looking for a neighbour");
                hold("the neighbour", neighbour.connect().await?).await;
            }
        }
        "lie" => liar::lie(devices.victim).await,
        other => Err(io::Error::other(format!("no such job: {other}"))),
    }
}

/// Answers on port 7, a line a connection: `put WORD` writes the word to the disk, `get` tells it.
async fn keep(network: Stack, disk: Block) -> io::Result<()> {
    let listener = network.tcp_listen(7).await?;
    println!("keeping on port 7");
    loop {
        let (stream, _) = listener.accept().await?;
        if let Err(error) = answer(stream, &disk).await {
            println!("not answered: {error}");
        }
    }
}

async fn answer(mut stream: TcpStream, disk: &Block) -> io::Result<()> {
    let mut line = String::new();
    BufReader::new(&mut stream).read_line(&mut line).await?;
    let sector_bytes = disk.geometry().sector_bytes;
    let text = match line.trim_end().split_once(' ') {
        Some(("put", word)) => {
            let mut sector = vec![0; sector_bytes];
            let len = word.len().min(sector_bytes);
            sector[..len].copy_from_slice(&word.as_bytes()[..len]);
            disk.write(0, SectorBuffer::copy_of(&sector)).await.map_err(io::Error::other)?;
            disk.flush().await.map_err(io::Error::other)?;
            "kept".to_owned()
        }
        _ => {
            let sector = disk.read(0, 1).await.map_err(io::Error::other)?;
            String::from_utf8_lossy(&sector).trim_end_matches('\0').to_owned()
        }
    };
    stream.write_all(format!("{text}\n").as_bytes()).await?;
    stream.shutdown().await
}

/// Says what is typed, until that is `end`.
async fn console() -> io::Result<()> {
    let mut lines = BufReader::new(fata::system::console_input()?).lines();
    println!("say something");
    while let Some(line) = lines.next_line().await? {
        println!("you said {line:?}");
        if line == "end" {
            break;
        }
    }
    println!("that is all");
    Ok(())
}

/// Serves one neighbour after the other.
async fn accept(name: &str, neighbour: Channel) -> io::Result<()> {
    loop {
        println!("waiting for {name}");
        hold(name, neighbour.accept().await?).await;
    }
}

/// Greets, and reads until the stream ends, in whichever way.
async fn hold(name: &str, mut stream: ChannelStream) {
    let ended = async {
        stream.write_all(b"hello").await?;
        let mut greeting = [0; 5];
        stream.read_exact(&mut greeting).await?;
        println!("{name} says {}", String::from_utf8_lossy(&greeting));
        let mut bytes = [0; 64];
        while stream.read(&mut bytes).await? > 0 {}
        io::Result::Ok(())
    };
    match ended.await {
        Ok(()) => println!("{name} has gone"),
        Err(error) => println!("{name} has gone: {error}"),
    }
}
