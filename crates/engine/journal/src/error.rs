//! What can go wrong, and who is to blame.

use crate::Side;
use core::fmt;

/// Why a command failed. The machine is as it was before, and the command may be given again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The disk's sectors have a size for which there is no ring.
    SectorSize {
        /// Bytes of a sector.
        sector_bytes: usize,
    },
    /// The pages that were asked for are no power of two, too small or too large.
    PageSize {
        /// Bytes of a page.
        page_bytes: usize,
        /// Bytes of the disk's sectors, which a page consists of.
        sector_bytes: usize,
    },
    /// The disk has too few sectors for a ring, or for the ring that it holds.
    TooSmall {
        /// How many are needed.
        needed: u64,
        /// How many there are.
        found: u64,
    },
    /// There is something on the disk, and it is no ring.
    Foreign {
        /// Where.
        sector: u64,
        /// The first bytes of it.
        found: [u8; 16],
    },
    /// There is nothing on the disk.
    Blank,
    /// The ring was made by a later version of this crate.
    Future {
        /// The version of its format.
        found: u32,
        /// The latest that this one knows.
        known: u32,
    },
    /// What a sector holds is wrong: torn, lost, changed, or written by an end that lies.
    Corrupt {
        /// The first sector of what was read.
        sector: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An end's header says what cannot be.
    Misbehaved {
        /// Whose header.
        side: Side,
        /// Its first sector.
        sector: u64,
        /// What it says wrong.
        what: &'static str,
    },
    /// This end's header is not what this end wrote: somebody else has attached in its place.
    Usurped {
        /// Which end.
        side: Side,
        /// The first sector of its header.
        sector: u64,
    },
    /// The ring's positions have come to the last one. Make a new ring.
    Exhausted,
    /// The disk failed; the text is its own.
    Disk(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::SectorSize { sector_bytes } => write!(
                f,
                "the disk has sectors of {sector_bytes} bytes; a ring needs a power of two from \
                 512 to 65536"
            ),
            Error::PageSize { page_bytes, sector_bytes } => write!(
                f,
                "pages of {page_bytes} bytes do not fit a disk with sectors of {sector_bytes}: \
                 choose a power of two from that to 65536"
            ),
            Error::TooSmall { needed, found } => {
                write!(f, "the disk has {found} sectors, and the ring needs {needed}: enlarge it")
            }
            Error::Foreign { sector, found } => write!(
                f,
                "sector {sector} holds something that is no ring (\"{}\"…): create the ring with \
                 Existing::Replace if it may be lost",
                found.escape_ascii()
            ),
            Error::Blank => write!(f, "the disk holds no ring: create one"),
            Error::Future { found, known } => write!(
                f,
                "the ring has version {found} of the format, and this program knows {known} and \
                 older: use a newer program"
            ),
            Error::Corrupt { sector, what } => write!(f, "sector {sector} is corrupt: {what}"),
            Error::Misbehaved { side, sector, what } => {
                write!(f, "the {side}'s header in sector {sector} cannot be right: {what}")
            }
            Error::Usurped { side, sector } => write!(
                f,
                "the {side}'s header in sector {sector} was written by somebody else: a ring has \
                 one {side}"
            ),
            Error::Exhausted => write!(f, "the ring's positions are used up: create a new ring"),
            Error::Disk(text) => write!(f, "the disk failed: {text}"),
        }
    }
}

impl std::error::Error for Error {}

/// Why a command was not begun. It is the program that has to do something else first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// A command is under way: wait for its event.
    Busy,
    /// Attach first.
    NotAttached,
    /// Detach first.
    Attached,
    /// There is nothing to publish.
    Nothing,
    /// There are items that were pushed and are not published.
    Unpublished,
    /// There are items that were fetched and are not popped.
    NotPopped,
    /// The consumer has suspended the ring.
    Suspended,
    /// The producer has not acknowledged the last suspension or resumption yet: fetch until it has.
    NotAcknowledged,
    /// The position is not one that was popped since the last one.
    NotPassed,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refused::Busy => "a command is under way",
            Refused::NotAttached => "not attached to a ring",
            Refused::Attached => "attached to a ring already",
            Refused::Nothing => "there is nothing to publish",
            Refused::Unpublished => "items were pushed and are not published",
            Refused::NotPopped => "items were fetched and are not popped",
            Refused::Suspended => "the consumer has suspended the ring",
            Refused::NotAcknowledged => {
                "the producer has not acknowledged the last suspension or resumption"
            }
            Refused::NotPassed => "no item that was popped ends there",
        })
    }
}

impl std::error::Error for Refused {}
