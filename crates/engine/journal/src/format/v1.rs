//! Dave Scott's format, "mirage shared-block-device 1.0".
//!
//! ```text
//! sector 0   the magic, 30 bytes; written last when a ring is made
//! sector 1   producer: u64 position, u8 suspension acknowledged (1) or not (2); text at byte 128
//! sector 2   consumer: u64 position, u8 suspension wanted (1) or not (2); text at byte 128
//! sector 3…  data
//! ```
//!
//! All numbers are little-endian. The text is for people. An item is a u32 length, the payload, and
//! zeroes up to a multiple of 4. It goes on in the next sector where it does not fit, and an item of
//! the next publication begins in the sector where the last one ends: so that sector is read before
//! it is written.

use super::{Header, Headers, Layout, bytes_at};
use crate::{Error, Side};

pub(crate) const MAGIC: &[u8] = b"mirage shared-block-device 1.0";
pub(crate) const PRODUCER_SECTOR: u64 = 1;
pub(crate) const CONSUMER_SECTOR: u64 = 2;
pub(crate) const HEADER_SECTORS: u64 = 3;

const SUSPENDED: u8 = 1;
const RUNNING: u8 = 2;
const TEXT_OFFSET: usize = 128;
/// The text never leaves the first 512 bytes, whatever the size of a sector.
const TEXT_BYTES_MAX: usize = 512 - TEXT_OFFSET;

pub(crate) fn decode_headers(layout: &Layout, bytes: &[u8]) -> Result<Headers, Error> {
    let decode = |side| {
        let sector = layout.sector_of_header(side, 0);
        let bytes = &bytes[(sector - PRODUCER_SECTOR) as usize * layout.page_bytes..];
        let is_suspended = match bytes[8] {
            SUSPENDED => true,
            RUNNING => false,
            _ => {
                let what = "a header's flag is neither 1 nor 2";
                return Err(Error::Corrupt { sector, what });
            }
        };
        Ok(Header { generation: 0, position: u64::from_le_bytes(bytes_at(bytes, 0)), is_suspended })
    };
    Ok(Headers { producer: decode(Side::Producer)?, consumer: decode(Side::Consumer)?, damaged: 0 })
}

/// What a new ring has in both headers' sectors: no text yet.
pub(crate) fn encode_first_header(sector: &mut [u8]) {
    sector[8] = RUNNING;
}

pub(crate) fn encode_header(sector: &mut [u8], side: Side, header: Header) {
    let Header { position, is_suspended, .. } = header;
    sector[..8].copy_from_slice(&position.to_le_bytes());
    sector[8] = if is_suspended { SUSPENDED } else { RUNNING };
    let flag = match side {
        Side::Producer => "suspend_ack",
        Side::Consumer => "suspend",
    };
    let text = format!("unknown used by fata; {side} = {position}; {flag} = {is_suspended}");
    let len = text.len().min(TEXT_BYTES_MAX);
    sector[TEXT_OFFSET..TEXT_OFFSET + len].copy_from_slice(&text.as_bytes()[..len]);
}
