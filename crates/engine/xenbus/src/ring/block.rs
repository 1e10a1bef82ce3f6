//! Entries of a block device's ring (Xen's `io/blkif.h`), in the layout of x86-64
//! (`protocol` = `x86_64-abi`), and what both ends may say with them.
//!
//! A request names sectors of the disk and the frontend's pages by grant reference. Up to eleven
//! pages stand in the request itself; with `feature-max-indirect-segments` up to 4096 stand in pages
//! of their own, which the request names. [`Request::decode`] gives a request whose every field was
//! checked as far as it can be without the disk: what remains to the backend is whether the sectors
//! exist and whether the references are worth anything.
//!
//! All sectors here are of 512 bytes, whatever the disk's own are: `sector_number`, `first_sect`,
//! `last_sect`, and the key `sectors` (as in Linux's two ends, and the header since 2024).

mod back;
mod front;

pub use back::Back;
pub use front::{Front, FrontError};

use core::fmt;

/// Size of a slot of the ring: the greatest request.
pub const SLOT_BYTES: usize = 112;
/// Size of a response.
pub const RESPONSE_BYTES: usize = 16;
/// The unit in which requests count.
pub const SECTOR_BYTES: u64 = 512;
/// Sectors in a page.
pub const PAGE_SECTORS: u8 = 8;
/// Segments that stand in a request itself (`BLKIF_MAX_SEGMENTS_PER_REQUEST`).
pub const DIRECT_SEGMENTS_MAX: usize = 11;
/// Pages of segments that an indirect request names (`BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST`).
pub const INDIRECT_PAGES_MAX: usize = 8;
/// Segments in such a page.
pub const INDIRECT_PAGE_SEGMENTS: usize = 4096 / Segment::BYTES;

const OPERATION: usize = 0;
const NR_SEGMENTS: usize = 1;
const INDIRECT_OPERATION: usize = 1;
const DISCARD_FLAG: usize = 1;
const INDIRECT_NR_SEGMENTS: usize = 2;
const ID: usize = 8;
const SECTOR_NUMBER: usize = 16;
const SEGMENTS: usize = 24;
const NR_SECTORS: usize = 24;
const INDIRECT_GREFS: usize = 28;

/// `BLKIF_OP_INDIRECT`.
const INDIRECT: u8 = 6;

/// What is asked of the disk (`BLKIF_OP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Operation {
    /// Reads sectors into the pages.
    Read = 0,
    /// Writes the pages to sectors.
    Write = 1,
    /// Writes, after all requests before it and before all behind it, durably. May be without data.
    WriteBarrier = 2,
    /// Makes all writes that were answered durable. May be without data.
    FlushDiskcache = 3,
    /// Says that sectors hold nothing of value.
    Discard = 5,
}

impl Operation {
    /// From the byte on the wire.
    pub const fn from_wire(operation: u8) -> Option<Self> {
        Some(match operation {
            0 => Operation::Read,
            1 => Operation::Write,
            2 => Operation::WriteBarrier,
            3 => Operation::FlushDiskcache,
            5 => Operation::Discard,
            _ => return None,
        })
    }
}

/// Sectors of one page of the frontend's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// The page (`gref`).
    pub gref: u32,
    /// The first sector of it, at most `last_sect`.
    pub first_sect: u8,
    /// The last sector of it, at most 7.
    pub last_sect: u8,
}

impl Segment {
    /// Size on the wire.
    pub const BYTES: usize = 8;

    /// The segment as it stands in a request or in an indirect page.
    pub const fn encode(&self) -> [u8; Self::BYTES] {
        let gref = self.gref.to_le_bytes();
        [gref[0], gref[1], gref[2], gref[3], self.first_sect, self.last_sect, 0, 0]
    }

    /// Reads a segment.
    ///
    /// # Errors
    /// [`RequestError::SegmentSectors`].
    pub const fn decode(bytes: &[u8; Self::BYTES]) -> Result<Self, RequestError> {
        let [a, b, c, d, first_sect, last_sect, _, _] = *bytes;
        if first_sect > last_sect || last_sect >= PAGE_SECTORS {
            return Err(RequestError::SegmentSectors { first_sect, last_sect });
        }
        Ok(Segment { gref: u32::from_le_bytes([a, b, c, d]), first_sect, last_sect })
    }

    /// Bytes from the beginning of the page to the first that belongs to the segment.
    pub const fn offset(&self) -> usize {
        self.first_sect as usize * SECTOR_BYTES as usize
    }

    /// Bytes in the segment; at least 512 and at most 4096.
    pub const fn len(&self) -> usize {
        (self.last_sect as usize + 1 - self.first_sect as usize) * SECTOR_BYTES as usize
    }

    /// Never: a segment has at least a sector.
    pub const fn is_empty(&self) -> bool {
        false
    }
}

/// The segments that stand in a request itself: at most eleven.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct DirectSegments {
    segments: [Segment; DIRECT_SEGMENTS_MAX],
    count: u8,
}

impl DirectSegments {
    /// These segments; `None` if they are too many.
    pub fn new(segments: &[Segment]) -> Option<Self> {
        let mut direct = DirectSegments::default();
        direct.segments.get_mut(..segments.len())?.copy_from_slice(segments);
        direct.count = segments.len() as u8;
        Some(direct)
    }

    /// The segments.
    pub fn as_slice(&self) -> &[Segment] {
        &self.segments[..usize::from(self.count)]
    }
}

impl fmt::Debug for DirectSegments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}

/// A request without its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// One that names its pages itself.
    Direct {
        /// Anything but a discard.
        operation: Operation,
        /// The first sector.
        sector_number: u64,
        /// The pages. Reads and writes have at least one.
        segments: DirectSegments,
    },
    /// One whose pages are named in other pages.
    Indirect {
        /// A read or a write.
        operation: Operation,
        /// The first sector.
        sector_number: u64,
        /// How many segments stand in the pages: at least 1, and no more than fit.
        nr_segments: u16,
        /// References to the pages of segments; those that are not needed are 0.
        indirect_grefs: [u32; INDIRECT_PAGES_MAX],
    },
    /// A discard.
    Discard {
        /// The first sector.
        sector_number: u64,
        /// How many.
        nr_sectors: u64,
        /// The sectors must be unreadable afterwards (`BLKIF_DISCARD_SECURE`).
        secure: bool,
    },
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// There is no such operation, or it cannot be indirect.
    Operation(u8),
    /// More segments than a request of its kind can have.
    TooManySegments(u16),
    /// A read or a write of nothing.
    NoSegments,
    /// A segment that is not inside its page.
    SegmentSectors {
        /// Its first sector.
        first_sect: u8,
        /// Its last.
        last_sect: u8,
    },
}

impl RequestError {
    /// The answer to such a request.
    pub const fn status(&self) -> Status {
        match self {
            RequestError::Operation(_) => Status::NotSupported,
            _ => Status::Error,
        }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::Operation(operation) => write!(f, "unknown operation {operation}"),
            RequestError::TooManySegments(count) => write!(f, "{count} segments are too many"),
            RequestError::NoSegments => write!(f, "a read or write without segments"),
            RequestError::SegmentSectors { first_sect, last_sect } => {
                write!(f, "sectors {first_sect} to {last_sect} are not sectors of a page")
            }
        }
    }
}

impl core::error::Error for RequestError {}

impl Request {
    /// The operation, for the response and for the frontend's books.
    pub const fn operation(&self) -> Operation {
        match self {
            Request::Direct { operation, .. } | Request::Indirect { operation, .. } => *operation,
            Request::Discard { .. } => Operation::Discard,
        }
    }

    /// The operation as it stands in the first byte.
    const fn wire_operation(&self) -> u8 {
        match self {
            Request::Indirect { .. } => INDIRECT,
            _ => self.operation() as u8,
        }
    }

    /// Pages of segments that an indirect request with so many segments names.
    pub const fn indirect_pages(nr_segments: u16) -> usize {
        (nr_segments as usize).div_ceil(INDIRECT_PAGE_SEGMENTS)
    }

    /// The request in a slot. `handle` is the device's number in the frontend.
    pub fn encode(&self, id: u64, handle: u16) -> [u8; SLOT_BYTES] {
        let mut slot = [0; SLOT_BYTES];
        slot[OPERATION] = self.wire_operation();
        put(&mut slot, ID, id.to_le_bytes());
        let sector_number = match self {
            Request::Direct { sector_number, segments, .. } => {
                slot[NR_SEGMENTS] = segments.count;
                put(&mut slot, 2, handle.to_le_bytes());
                for (at, segment) in segments.as_slice().iter().enumerate() {
                    put(&mut slot, SEGMENTS + at * Segment::BYTES, segment.encode());
                }
                sector_number
            }
            Request::Indirect { operation, sector_number, nr_segments, indirect_grefs } => {
                slot[INDIRECT_OPERATION] = *operation as u8;
                put(&mut slot, INDIRECT_NR_SEGMENTS, nr_segments.to_le_bytes());
                put(&mut slot, 24, handle.to_le_bytes());
                for (at, gref) in indirect_grefs.iter().enumerate() {
                    put(&mut slot, INDIRECT_GREFS + 4 * at, gref.to_le_bytes());
                }
                sector_number
            }
            Request::Discard { sector_number, nr_sectors, secure } => {
                slot[DISCARD_FLAG] = u8::from(*secure);
                put(&mut slot, 2, handle.to_le_bytes());
                put(&mut slot, NR_SECTORS, nr_sectors.to_le_bytes());
                sector_number
            }
        };
        put(&mut slot, SECTOR_NUMBER, sector_number.to_le_bytes());
        slot
    }

    /// Reads a slot: the request's id and operation byte, which a response repeats whatever the
    /// request is worth, and the request. Of an indirect request the operation is the one inside:
    /// Linux's frontend closes a disk that answers anything else.
    pub fn decode(slot: &[u8; SLOT_BYTES]) -> (u64, u8, Result<Request, RequestError>) {
        let operation = match slot[OPERATION] {
            INDIRECT => slot[INDIRECT_OPERATION],
            operation => operation,
        };
        (u64::from_le_bytes(get(slot, ID)), operation, Self::decode_body(slot))
    }

    fn decode_body(slot: &[u8; SLOT_BYTES]) -> Result<Request, RequestError> {
        let sector_number = u64::from_le_bytes(get(slot, SECTOR_NUMBER));
        if slot[OPERATION] == INDIRECT {
            return Self::decode_indirect(slot, sector_number);
        }
        let operation = Operation::from_wire(slot[OPERATION])
            .ok_or(RequestError::Operation(slot[OPERATION]))?;
        if operation == Operation::Discard {
            let nr_sectors = u64::from_le_bytes(get(slot, NR_SECTORS));
            let secure = slot[DISCARD_FLAG] & 1 != 0;
            return Ok(Request::Discard { sector_number, nr_sectors, secure });
        }
        let count = slot[NR_SEGMENTS];
        if usize::from(count) > DIRECT_SEGMENTS_MAX {
            return Err(RequestError::TooManySegments(count.into()));
        }
        if count == 0 && matches!(operation, Operation::Read | Operation::Write) {
            return Err(RequestError::NoSegments);
        }
        let mut segments = DirectSegments { count, ..DirectSegments::default() };
        let wire = slot[SEGMENTS..].as_chunks::<{ Segment::BYTES }>().0;
        for (segment, bytes) in segments.segments.iter_mut().zip(&wire[..usize::from(count)]) {
            *segment = Segment::decode(bytes)?;
        }
        Ok(Request::Direct { operation, sector_number, segments })
    }

    fn decode_indirect(slot: &[u8; SLOT_BYTES], sector_number: u64) -> Result<Self, RequestError> {
        let operation = match Operation::from_wire(slot[INDIRECT_OPERATION]) {
            Some(operation @ (Operation::Read | Operation::Write)) => operation,
            _ => return Err(RequestError::Operation(slot[INDIRECT_OPERATION])),
        };
        let nr_segments = u16::from_le_bytes(get(slot, INDIRECT_NR_SEGMENTS));
        if nr_segments == 0 {
            return Err(RequestError::NoSegments);
        }
        let pages = Self::indirect_pages(nr_segments);
        if pages > INDIRECT_PAGES_MAX {
            return Err(RequestError::TooManySegments(nr_segments));
        }
        let mut indirect_grefs = [0; INDIRECT_PAGES_MAX];
        for (at, gref) in indirect_grefs[..pages].iter_mut().enumerate() {
            *gref = u32::from_le_bytes(get(slot, INDIRECT_GREFS + 4 * at));
        }
        Ok(Request::Indirect { operation, sector_number, nr_segments, indirect_grefs })
    }
}

/// What became of a request (`BLKIF_RSP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It was done.
    Okay,
    /// It failed. Also whatever a backend says that no header knows.
    Error,
    /// The backend does not have the operation.
    NotSupported,
}

/// An answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// The id of the request.
    pub id: u64,
    /// The operation byte of the request.
    pub operation: u8,
    /// What became of it.
    pub status: Status,
}

impl Response {
    /// The response in a slot.
    pub fn encode(&self) -> [u8; RESPONSE_BYTES] {
        let status: i16 = match self.status {
            Status::Okay => 0,
            Status::Error => -1,
            Status::NotSupported => -2,
        };
        let mut slot = [0; RESPONSE_BYTES];
        put(&mut slot, 0, self.id.to_le_bytes());
        slot[8] = self.operation;
        put(&mut slot, 10, status.to_le_bytes());
        slot
    }

    /// Reads a slot.
    pub fn decode(slot: &[u8; RESPONSE_BYTES]) -> Self {
        let status = match i16::from_le_bytes(get(slot, 10)) {
            0 => Status::Okay,
            -2 => Status::NotSupported,
            _ => Status::Error,
        };
        Response { id: u64::from_le_bytes(get(slot, 0)), operation: slot[8], status }
    }
}

fn put<const N: usize>(slot: &mut [u8], at: usize, bytes: [u8; N]) {
    slot[at..at + N].copy_from_slice(&bytes);
}

fn get<const N: usize>(slot: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&slot[at..at + N]);
    bytes
}

#[cfg(test)]
mod tests;
