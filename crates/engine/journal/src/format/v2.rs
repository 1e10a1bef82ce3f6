//! Our format: everything is checked, and nothing that was acknowledged is written over.
//!
//! ```text
//! page 0     the ring              0 magic, 16 bytes   16 u32 version, 2     20 u32 bytes of a page
//!                                 24 u64 data pages    32 u64 identity       60 u32 checksum
//! page 1, 2  producer's header     0 u64 identity       8 u64 generation     16 u64 position
//! page 3, 4  consumer's header    24 u8 side, 1 or 2   25 u8 suspension      60 u32 checksum
//! page 5…    data                  0 u32 checksum       4 u32 bytes in use    8 u64 identity
//!                                 16 u64 page's number since the ring was made
//!                                 24 items, one after the other
//! ```
//!
//! Numbers are little-endian; what is not named is 0. The checksums are CRC-32C: that of the ring
//! and of a header covers its first 60 bytes, that of a data page all of it but itself.
//!
//! A header of generation *n* is written to the first of its end's two pages if *n* is even, to the
//! second if it is odd, so the header before it is still there when the write is cut off. Whoever
//! reads takes the later one of those that are whole.
//!
//! A publication begins on a page of its own. An item is as in [`v1`](super::v1), and goes on behind
//! the header of the next page if it does not fit. In a page that is not full, the publication ends.

use super::{Header, Headers, ITEM_ALIGNMENT, Layout, bytes_at};
use crate::checksum::crc32c;
use crate::{Error, Side};

const MAGIC: &[u8; 16] = b"fata shared ring";
const VERSION: u32 = 2;
pub(crate) const HEADER_PAGES: u64 = 5;
pub(crate) const PAGE_HEADER_BYTES: usize = 24;
/// What no disk writes at once is no use as a page, and is held in memory.
pub(crate) const PAGE_BYTES_MAX: usize = 65_536;

/// Where the checksum of the ring and of headers lies, and what it covers.
const CHECKSUM_OFFSET: usize = 60;

/// Which bytes of a new ring's pages are not always the same: the identity and the checksum.
pub(crate) const RING_VARIES: [core::ops::Range<usize>; 2] = [32..40, 60..64];
/// The same of a new header.
pub(crate) const HEADER_VARIES: [core::ops::Range<usize>; 2] = [0..8, 60..64];

/// What page 0 says.
pub(crate) struct Ring {
    pub(crate) page_bytes: usize,
    pub(crate) page_count: u64,
    pub(crate) identity: u64,
}

pub(crate) fn encode_ring(page: &mut [u8], layout: &Layout) {
    page[..16].copy_from_slice(MAGIC);
    page[16..20].copy_from_slice(&VERSION.to_le_bytes());
    page[20..24].copy_from_slice(&(layout.page_bytes as u32).to_le_bytes());
    page[24..32].copy_from_slice(&layout.page_count.to_le_bytes());
    page[32..40].copy_from_slice(&layout.identity.to_le_bytes());
    write_checksum(page);
}

/// Reads page 0, or the first sector of it.
pub(crate) fn decode_ring(sector: &[u8]) -> Result<Ring, Error> {
    if !sector.starts_with(MAGIC) {
        if sector.iter().all(|byte| *byte == 0) {
            return Err(Error::Blank);
        }
        return Err(Error::Foreign { sector: 0, found: bytes_at(sector, 0) });
    }
    // Before the checksum, which may lie elsewhere in another version.
    let found = u32::from_le_bytes(bytes_at(sector, 16));
    if found > VERSION {
        return Err(Error::Future { found, known: VERSION });
    }
    let corrupt = |what| Err(Error::Corrupt { sector: 0, what });
    if found != VERSION {
        return corrupt("there is no such version of the format");
    }
    if !checksum_is_right(sector) {
        return corrupt("the checksum of the ring's description is wrong");
    }
    let page_count = u64::from_le_bytes(bytes_at(sector, 24));
    if page_count == 0 {
        return corrupt("the ring has no pages");
    }
    Ok(Ring {
        page_bytes: u32::from_le_bytes(bytes_at(sector, 20)) as usize,
        page_count,
        identity: u64::from_le_bytes(bytes_at(sector, 32)),
    })
}

/// The page of a header of this generation.
pub(crate) fn header_page(side: Side, generation: u64) -> u64 {
    let first = match side {
        Side::Producer => 1,
        Side::Consumer => 3,
    };
    first + generation % 2
}

fn number_of(side: Side) -> u8 {
    match side {
        Side::Producer => 1,
        Side::Consumer => 2,
    }
}

pub(crate) fn encode_header(page: &mut [u8], side: Side, header: Header, identity: u64) {
    page[..8].copy_from_slice(&identity.to_le_bytes());
    page[8..16].copy_from_slice(&header.generation.to_le_bytes());
    page[16..24].copy_from_slice(&header.position.to_le_bytes());
    page[24] = number_of(side);
    page[25] = u8::from(header.is_suspended);
    write_checksum(page);
}

pub(crate) fn decode_headers(layout: &Layout, bytes: &[u8]) -> Result<Headers, Error> {
    let mut damaged = 0;
    let mut decode = |side| {
        let [first, second] = [0, 1].map(|place| {
            let page = header_page(side, place);
            let page = &bytes[(page as usize - 1) * layout.page_bytes..][..layout.page_bytes];
            decode_header(page, side, place, layout.identity)
        });
        damaged += u32::from(first.is_err()) + u32::from(second.is_err());
        match (first, second) {
            (Ok(first), Ok(second)) if second.generation > first.generation => Ok(second),
            (Ok(header), _) | (Err(_), Ok(header)) => Ok(header),
            (Err(what), Err(_)) => {
                Err(Error::Corrupt { sector: layout.sector_of_header(side, 0), what })
            }
        }
    };
    let (producer, consumer) = (decode(Side::Producer)?, decode(Side::Consumer)?);
    Ok(Headers { producer, consumer, damaged })
}

fn decode_header(
    page: &[u8],
    side: Side,
    place: u64,
    identity: u64,
) -> Result<Header, &'static str> {
    if !checksum_is_right(page) {
        return Err("both copies of the header are damaged");
    }
    let generation = u64::from_le_bytes(bytes_at(page, 8));
    // A header that is whole and lies here by mistake was written elsewhere.
    if u64::from_le_bytes(bytes_at(page, 0)) != identity
        || page[24] != number_of(side)
        || generation % 2 != place
        || page[25] > 1
    {
        return Err("the header belongs to another ring or another place");
    }
    let position = u64::from_le_bytes(bytes_at(page, 16));
    Ok(Header { generation, position, is_suspended: page[25] == 1 })
}

/// Completes a data page whose items are in place.
pub(crate) fn seal(page: &mut [u8], number: u64, used: usize, identity: u64) {
    page[4..8].copy_from_slice(&(used as u32).to_le_bytes());
    page[8..16].copy_from_slice(&identity.to_le_bytes());
    page[16..24].copy_from_slice(&number.to_le_bytes());
    let checksum = crc32c(&page[4..]);
    page[..4].copy_from_slice(&checksum.to_le_bytes());
}

/// How many bytes of a data page are in use.
pub(crate) fn open(page: &[u8], number: u64, identity: u64) -> Result<usize, &'static str> {
    if u32::from_le_bytes(bytes_at(page, 0)) != crc32c(&page[4..]) {
        return Err("the page's checksum is wrong");
    }
    if u64::from_le_bytes(bytes_at(page, 8)) != identity {
        return Err("the page belongs to another ring");
    }
    if u64::from_le_bytes(bytes_at(page, 16)) != number {
        return Err("the page is an older one, or belongs elsewhere");
    }
    let used = u32::from_le_bytes(bytes_at(page, 4)) as usize;
    if !(PAGE_HEADER_BYTES..=page.len()).contains(&used) || !used.is_multiple_of(ITEM_ALIGNMENT) {
        return Err("the page's length in use is impossible");
    }
    Ok(used)
}

fn write_checksum(page: &mut [u8]) {
    let checksum = crc32c(&page[..CHECKSUM_OFFSET]);
    page[CHECKSUM_OFFSET..CHECKSUM_OFFSET + 4].copy_from_slice(&checksum.to_le_bytes());
}

fn checksum_is_right(page: &[u8]) -> bool {
    u32::from_le_bytes(bytes_at(page, CHECKSUM_OFFSET)) == crc32c(&page[..CHECKSUM_OFFSET])
}
