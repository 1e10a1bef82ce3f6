//! A persistent queue between one producer and one consumer that share a disk, and a journal over
//! it: as state machines that do no I/O.
//!
//! The ring is Dave Scott's shared-block-ring (2013-2015), whose format [`Version::V1`] reads and
//! writes, and a format with what that one lacks, [`Version::V2`]: checksums, generations, two
//! places for each header. The two ends may be two guests over one disk, two processes over one
//! file, or the two halves of a [`Journal`].
//!
//! ```text
//!           push, publish                                    fetch, pop, advance
//!   program ────────────► Producer                  Consumer ────────────► program
//!                            │ header, pages           ▲ │ header
//!                            ▼                         │ ▼
//!   disk   ┌──────┬───────┬───────┬───────┬───────┬────────────────────────────────┐
//!     V2   │ ring │ producer's    │ consumer's    │ data: page (position / size)   │
//!          │      │  0   │   1    │  0   │   1    │       mod the number of pages  │
//!          └──────┴───────┴───────┴───────┴───────┴────────────────────────────────┘
//!   page     0      1       2       3       4       5 …
//! ```
//!
//! Every machine works in the same way ([`Machine`]): a command plans requests; `poll_request` gives
//! them out, one at a time, and `handle_completion` takes what became of each; then `poll_event`
//! says how the command ended. A command that failed may be given again.
//!
//! ```
//! use fata_journal::*;
//!
//! // What a program does with requests; here the disk is memory.
//! let (disk, mut memory) = (Disk { sector_bytes: 512, sector_count: 64 }, vec![0; 64 * 512]);
//! let mut run = |machine: &mut dyn Machine| {
//!     while let Some(request) = machine.poll_request() {
//!         machine.handle_completion(match request {
//!             Request::Read { sector, count } => {
//!                 let start = sector as usize * 512;
//!                 Completion::Read(memory[start..start + count * 512].to_vec())
//!             }
//!             Request::Write { sector, data } => {
//!                 memory[sector as usize * 512..][..data.len()].copy_from_slice(&data);
//!                 Completion::Done
//!             }
//!             Request::Flush => Completion::Done,
//!         });
//!     }
//! };
//! let shape = Shape::V2 { page_bytes: 512, identity: 0x5eed };
//! let mut create = Create::new(disk, shape, Existing::Keep);
//! run(&mut create);
//! assert_eq!(create.poll_outcome(), Some(Ok(Created::New)));
//!
//! let mut producer = Producer::new(disk, Config::default());
//! producer.attach()?;
//! run(&mut producer);
//! producer.push(b"a message").unwrap();
//! producer.publish()?;
//! run(&mut producer);
//!
//! let mut consumer = Consumer::new(disk, Config::default());
//! consumer.attach()?;
//! run(&mut consumer);
//! consumer.fetch()?;
//! run(&mut consumer);
//! let item = consumer.pop().expect("an item");
//! assert_eq!(item.payload, b"a message");
//! consumer.advance(item.end)?;
//! run(&mut consumer);
//! # Ok::<(), Refused>(())
//! ```
//!
//! # What holds
//!
//! - What [`ProducerEvent::Published`] acknowledges survives a loss of power, whole and in order;
//!   what it does not is there whole after one, or not at all: it becomes visible by the producer's
//!   header alone, which is written when everything before it has been flushed.
//! - What is free for the producer has been consumed for good: the consumer acknowledges
//!   ([`ConsumerEvent::Advanced`]) when its header has been flushed, and neither end believes a
//!   header of the other before it has flushed it.
//! - With [`Version::V2`] a data page that is torn, or that the disk lost, changed or wrote
//!   elsewhere, is noticed when it is read. A header that is none any more is passed over for the one
//!   before it, and counted: after a loss of power that is one whose writing was cut off. With
//!   [`Version::V1`] nothing is noticed: that format asks for a disk that writes each sector whole or
//!   not at all.
//! - What the disk says, and so what the other end wrote, is an allegation: it is checked, and what
//!   is wrong is an [`Error`] that names the sector. Memory stays within [`Config`].
#![forbid(unsafe_code)]

mod checksum;
mod consumer;
mod create;
mod endpoint;
mod error;
mod format;
mod journal;
mod producer;

pub use consumer::{Consumer, ConsumerCounters, ConsumerEvent, Item};
pub use create::{Create, Created, Existing, Shape};
pub use error::{Error, Refused};
pub use format::Version;
pub use journal::{Journal, JournalCounters, JournalEvent, PushRefused, RetryPolicy};
pub use producer::{Producer, ProducerCounters, ProducerEvent, PushError};

use core::fmt;

/// The size of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Bytes of a sector: a power of two from 512 to 65,536.
    pub sector_bytes: usize,
    /// How many sectors there are.
    pub sector_count: u64,
}

/// What a machine asks of the disk. It asks for one thing at a time, so there is no order to keep
/// but one: what is asked later takes effect later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Read so many sectors.
    Read {
        /// The first of them.
        sector: u64,
        /// At least 1.
        count: usize,
    },
    /// Write whole sectors.
    Write {
        /// The first of them.
        sector: u64,
        /// A whole, positive number of sectors.
        data: Vec<u8>,
    },
    /// Make everything that has been written survive a loss of power: what this process wrote and,
    /// where the disk is shared, what has been read of the other's.
    Flush,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completion {
    /// The sectors that were read.
    Read(Vec<u8>),
    /// The write or the flush is done.
    Done,
    /// It failed, and the text says why. Each sector of a failed write may hold the old or the new,
    /// and after a failed flush nothing is known about the writes before it.
    Failed(String),
}

/// A machine that asks a disk. Whoever runs it gives each request to the disk, in order, and what
/// became of it back, and nothing else.
pub trait Machine {
    /// The next request. `None` if the machine waits for a completion, or for a command.
    fn poll_request(&mut self) -> Option<Request>;

    /// What became of the request that [`poll_request`](Machine::poll_request) gave last. Ignored
    /// if there is none.
    fn handle_completion(&mut self, completion: Completion);
}

/// One end of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Who adds items.
    Producer,
    /// Who takes them.
    Consumer,
}

impl Side {
    pub(crate) fn other(self) -> Side {
        match self {
            Side::Producer => Side::Consumer,
            Side::Consumer => Side::Producer,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Producer => "producer",
            Side::Consumer => "consumer",
        })
    }
}

/// A place in the ring's stream of bytes: it only grows, and never wraps. An item's is where it
/// ends, so who has come to that place or further has passed the item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub(crate) u64);

impl Position {
    /// The place, in bytes.
    pub const fn to_u64(self) -> u64 {
        self.0
    }
}

/// What an end may hold in memory. A ring may be as large as a disk; these do not grow with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Bytes of an item's payload, at most. Default 1 MiB: an item is held whole by both ends. A
    /// longer one is refused by the producer ([`PushError::TooLarge`]), and an error for the
    /// consumer ([`Error::Corrupt`]), so both ends must agree.
    pub item_bytes_max: usize,
    /// Bytes of pages that the producer gathers for one publication, at most; one item is always
    /// taken. Default 1 MiB: enough for a disk to be busy writing, and twice this is held while one
    /// batch is written and another gathered. At the ceiling: [`PushError::BatchFull`].
    pub batch_bytes_max: usize,
    /// Bytes of pages that the consumer reads at once, at most; one page is always read. Default
    /// 256 KiB. What it holds is at most this, and one item that is not complete.
    pub fetch_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config { item_bytes_max: 1 << 20, batch_bytes_max: 1 << 20, fetch_bytes_max: 256 << 10 }
    }
}

#[cfg(test)]
mod tests;
