//! Channel: two neighbours on one host, without a network between them.
//!
//! On Xen the channel is vchan: two rings in memory that one guest shares with the other. As
//! processes, it is a Unix socket:
//!
//! ```text
//! fata run examples/channel -- --neighbour.path=/tmp/channel &
//! fata run examples/channel -- --neighbour.path=/tmp/channel --say=hello
//! ```
#![forbid(unsafe_code)]

use fata::Channel;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Echoes to a neighbour, or talks to one that does.
#[derive(fata::Devices)]
struct Devices {
    /// The way to the neighbour.
    neighbour: Channel,
    /// What to say to a neighbour that echoes. Without it, this one echoes.
    #[fata(arg)]
    say: Option<String>,
}

#[fata::main]
async fn main(devices: Devices) -> io::Result<()> {
    match devices.say {
        Some(words) => talk(&devices.neighbour, &words).await,
        None => echo(&devices.neighbour).await,
    }
}

async fn echo(neighbour: &Channel) -> io::Result<()> {
    println!("waiting for a neighbour");
    let mut stream = neighbour.accept().await?;
    let (mut buffer, mut total) = (vec![0; 4096], 0);
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            len => {
                stream.write_all(&buffer[..len]).await?;
                total += len;
            }
        }
    }
    println!("echoed {total} bytes");
    Ok(())
}

async fn talk(neighbour: &Channel, words: &str) -> io::Result<()> {
    let mut stream = neighbour.connect().await?;
    stream.write_all(words.as_bytes()).await?;
    let mut answer = vec![0; words.len()];
    stream.read_exact(&mut answer).await?;
    stream.shutdown().await?;
    println!("the neighbour answers: {}", String::from_utf8_lossy(&answer));
    Ok(())
}
