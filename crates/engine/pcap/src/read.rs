//! Reading pcapng and pcap.

use crate::{
    BYTE_ORDER_MAGIC, Direction, ENHANCED_PACKET, INTERFACE_DESCRIPTION, OPTION_COMMENT,
    OPTION_EPB_DROPCOUNT, OPTION_EPB_FLAGS, OPTION_IF_NAME, OPTION_IF_TSOFFSET, OPTION_IF_TSRESOL,
    SECTION_HEADER, SIMPLE_PACKET,
};
use core::fmt;

/// The magic numbers of pcap files with timestamps in microseconds and in nanoseconds.
const PCAP_MICROS: u32 = 0xa1b2_c3d4;
const PCAP_NANOS: u32 = 0xa1b2_3c4d;

const PCAP_HEADER_BYTES: usize = 24;
const PCAP_RECORD_HEADER_BYTES: usize = 16;

/// A block's type and its two lengths.
const BLOCK_BYTES_MIN: usize = 12;

/// Why a capture cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadError {
    /// Where the block or record begins that is wrong, in bytes from the file's start.
    pub offset: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the capture is broken at byte {}: {}", self.offset, self.what)
    }
}

impl std::error::Error for ReadError {}

/// An interface that a capture was made at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface<'a> {
    /// `if_name`; empty if the file has none, or one that is not UTF-8.
    pub name: &'a str,
    /// What its frames are: [`LINK_TYPE_ETHERNET`](crate::LINK_TYPE_ETHERNET), or another of the
    /// registry's.
    pub link_type: u16,
    unit: Unit,
    /// Added to every timestamp, in seconds.
    offset_seconds: i64,
}

/// The unit of timestamps (`if_tsresol`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// 10 to the minus so much, in seconds.
    Decimal(u8),
    /// 2 to the minus so much.
    Binary(u8),
}

impl Unit {
    fn nanos(self, units: u64) -> i128 {
        const SECOND_NANOS: u128 = 1_000_000_000;
        let units = u128::from(units);
        let nanos = match self {
            // 10^38 is the largest power of ten in 128 bits; finer units than that count nothing.
            Unit::Decimal(exponent) => match 10_u128.checked_pow(exponent.into()) {
                Some(per_second) => units * SECOND_NANOS / per_second,
                None => 0,
            },
            Unit::Binary(exponent) => {
                (units * SECOND_NANOS).checked_shr(exponent.into()).unwrap_or(0)
            }
        };
        i128::try_from(nanos).unwrap_or(i128::MAX)
    }
}

impl Interface<'_> {
    fn nanos(&self, units: u64) -> u64 {
        let nanos = self.unit.nanos(units) + i128::from(self.offset_seconds) * 1_000_000_000;
        u64::try_from(nanos.max(0)).unwrap_or(u64::MAX)
    }
}

/// A frame of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// When it passed, in nanoseconds after the epoch. 0 where the file does not say.
    pub at_nanos: u64,
    /// The interface's place in [`Reader::interfaces`].
    pub interface: usize,
    /// What was kept of it.
    pub bytes: &'a [u8],
    /// Its length on the wire.
    pub original_len: u32,
    /// Which way it went, if the file says so.
    pub direction: Option<Direction>,
    /// The comment beside it; empty without one, or with one that is not UTF-8.
    pub comment: &'a str,
    /// Frames that were lost since the one before.
    pub dropped_before: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    PcapNg,
    Pcap,
}

/// Reads a capture from memory, frame by frame. The bytes are an allegation: whatever they are,
/// reading ends, with an error that says where, and holds no more than one [`Interface`] for every
/// dozen of them.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    format: Format,
    is_big_endian: bool,
    /// The current section's.
    interfaces: Vec<Interface<'a>>,
}

impl<'a> Reader<'a> {
    /// Begins to read a file's content.
    ///
    /// # Errors
    /// [`ReadError`] if it is neither pcapng nor pcap.
    pub fn new(bytes: &'a [u8]) -> Result<Reader<'a>, ReadError> {
        let fail = |what| Err(ReadError { offset: 0, what });
        let Some(magic) = bytes.first_chunk::<4>() else { return fail("it is too short") };
        let mut reader = Reader {
            bytes,
            at: 0,
            format: Format::PcapNg,
            is_big_endian: false,
            interfaces: Vec::new(),
        };
        if u32::from_le_bytes(*magic) == SECTION_HEADER {
            return Ok(reader);
        }
        let exponent = [u32::from_le_bytes(*magic), u32::from_be_bytes(*magic)]
            .iter()
            .position(|magic| matches!(*magic, PCAP_MICROS | PCAP_NANOS));
        let Some(order) = exponent else {
            return fail("it begins neither as pcapng nor as pcap does");
        };
        reader.format = Format::Pcap;
        reader.is_big_endian = order == 1;
        let Some(header) = bytes.get(..PCAP_HEADER_BYTES) else {
            return fail("the file's header is cut short");
        };
        let micros = reader.u32(header, 0) == PCAP_MICROS;
        // The upper bits say whether frames end in an FCS; the lower ones what they are.
        let link_type = reader.u32(header, 20) as u16;
        let unit = Unit::Decimal(if micros { 6 } else { 9 });
        reader.interfaces.push(Interface { name: "", link_type, unit, offset_seconds: 0 });
        reader.at = PCAP_HEADER_BYTES;
        Ok(reader)
    }

    /// The interfaces that the current section has described so far; in pcap, the one there is.
    pub fn interfaces(&self) -> &[Interface<'a>] {
        &self.interfaces
    }

    /// The next frame; `None` at the end. Blocks of kinds that we do not know are passed over.
    ///
    /// # Errors
    /// [`ReadError`] if the file breaks off in the middle of a block, or contradicts itself. From
    /// then on always the same one.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'a>>, ReadError> {
        match self.format {
            Format::Pcap => self.next_record(),
            Format::PcapNg => loop {
                if self.at >= self.bytes.len() {
                    return Ok(None);
                }
                let start = self.at;
                let (frame, next) = self.block(start)?;
                self.at = next;
                if frame.is_some() {
                    return Ok(frame);
                }
            },
        }
    }

    fn u16(&self, bytes: &[u8], at: usize) -> u16 {
        let bytes =
            bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
        if self.is_big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    fn u32(&self, bytes: &[u8], at: usize) -> u32 {
        let bytes =
            bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
        if self.is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    fn u64(&self, bytes: &[u8], at: usize) -> u64 {
        let bytes =
            bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
        if self.is_big_endian { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) }
    }

    fn next_record(&mut self) -> Result<Option<Frame<'a>>, ReadError> {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return Ok(None);
        }
        let fail = |what| ReadError { offset: self.at, what };
        let header = rest
            .get(..PCAP_RECORD_HEADER_BYTES)
            .ok_or_else(|| fail("a record's header is cut short"))?;
        let (seconds, fraction) = (self.u32(header, 0), self.u32(header, 4));
        let (kept, original_len) = (self.u32(header, 8) as usize, self.u32(header, 12));
        let end = PCAP_RECORD_HEADER_BYTES.checked_add(kept);
        let bytes = end
            .and_then(|end| rest.get(PCAP_RECORD_HEADER_BYTES..end))
            .ok_or_else(|| fail("a frame is cut short"))?;
        let fraction_nanos =
            self.interfaces.first().map_or(0, |interface| interface.nanos(fraction.into()));
        self.at += PCAP_RECORD_HEADER_BYTES + kept;
        Ok(Some(Frame {
            at_nanos: u64::from(seconds) * 1_000_000_000 + fraction_nanos,
            interface: 0,
            bytes,
            original_len,
            direction: None,
            comment: "",
            dropped_before: 0,
        }))
    }

    /// Reads the block at `start`: the frame in it, if there is one, and where the next begins.
    fn block(&mut self, start: usize) -> Result<(Option<Frame<'a>>, usize), ReadError> {
        let fail = |what| ReadError { offset: start, what };
        let rest = &self.bytes[start..];
        let cut = || fail("a block is cut short");
        let head = rest.get(..BLOCK_BYTES_MIN).ok_or_else(cut)?;
        let kind = self.u32(head, 0);
        if kind == SECTION_HEADER {
            // Its length has the byte order that only its third word tells.
            self.is_big_endian = match self.u32(head, 8) {
                BYTE_ORDER_MAGIC => self.is_big_endian,
                swapped if swapped == BYTE_ORDER_MAGIC.swap_bytes() => !self.is_big_endian,
                _ => return Err(fail("a section header without its magic number")),
            };
            self.interfaces.clear();
        }
        let len = self.u32(head, 4) as usize;
        if len < BLOCK_BYTES_MIN || !len.is_multiple_of(4) {
            return Err(fail("a block's length is impossible"));
        }
        let block = rest.get(..len).ok_or_else(cut)?;
        if self.u32(block, len - 4) as usize != len {
            return Err(fail("a block's two lengths differ"));
        }
        let body = &block[8..len - 4];
        let frame = match kind {
            SECTION_HEADER => {
                if body.len() < 16 || self.u16(body, 4) != 1 {
                    return Err(fail("the section is of a version that we do not know"));
                }
                None
            }
            INTERFACE_DESCRIPTION => {
                let interface =
                    self.interface(body).ok_or_else(|| fail("an interface is cut short"))?;
                self.interfaces.push(interface);
                None
            }
            ENHANCED_PACKET => Some(self.enhanced(body).map_err(fail)?),
            SIMPLE_PACKET => Some(self.simple(body).map_err(fail)?),
            _ => None,
        };
        Ok((frame, start + len))
    }

    fn interface(&self, body: &'a [u8]) -> Option<Interface<'a>> {
        let options = body.get(8..)?;
        let mut interface = Interface {
            name: "",
            link_type: self.u16(body, 0),
            unit: Unit::Decimal(6),
            offset_seconds: 0,
        };
        for (code, value) in self.options(options) {
            match (code, value) {
                (OPTION_IF_NAME, name) => {
                    interface.name = core::str::from_utf8(name).unwrap_or_default();
                }
                (OPTION_IF_TSRESOL, &[exponent, ..]) => {
                    interface.unit = if exponent & 0x80 == 0 {
                        Unit::Decimal(exponent)
                    } else {
                        Unit::Binary(exponent & 0x7f)
                    };
                }
                (OPTION_IF_TSOFFSET, value) if value.len() == 8 => {
                    interface.offset_seconds = self.u64(value, 0).cast_signed();
                }
                _ => {}
            }
        }
        Some(interface)
    }

    fn enhanced(&self, body: &'a [u8]) -> Result<Frame<'a>, &'static str> {
        const HEADER_BYTES: usize = 20;
        if body.len() < HEADER_BYTES {
            return Err("a packet's header is cut short");
        }
        let number = self.u32(body, 0) as usize;
        let interface =
            self.interfaces.get(number).ok_or("a packet of an interface that is not described")?;
        let units = u64::from(self.u32(body, 4)) << 32 | u64::from(self.u32(body, 8));
        let end = HEADER_BYTES.saturating_add(self.u32(body, 12) as usize);
        let bytes = body.get(HEADER_BYTES..end).ok_or("a packet is longer than its block")?;
        let mut frame = Frame {
            at_nanos: interface.nanos(units),
            interface: number,
            bytes,
            original_len: self.u32(body, 16),
            direction: None,
            comment: "",
            dropped_before: 0,
        };
        // The padding is inside of the block, whose length is a multiple of four.
        let options = body.get(end.next_multiple_of(4)..).unwrap_or_default();
        for (code, value) in self.options(options) {
            match code {
                OPTION_EPB_FLAGS => {
                    frame.direction = match self.u32(value, 0) & 3 {
                        1 => Some(Direction::Inbound),
                        2 => Some(Direction::Outbound),
                        _ => None,
                    };
                }
                OPTION_EPB_DROPCOUNT => frame.dropped_before = self.u64(value, 0),
                OPTION_COMMENT => frame.comment = core::str::from_utf8(value).unwrap_or_default(),
                _ => {}
            }
        }
        Ok(frame)
    }

    /// A packet of the first interface, without a time.
    fn simple(&self, body: &'a [u8]) -> Result<Frame<'a>, &'static str> {
        if body.len() < 4 {
            return Err("a packet's header is cut short");
        }
        if self.interfaces.is_empty() {
            return Err("a packet of an interface that is not described");
        }
        let original_len = self.u32(body, 0);
        let kept = (original_len as usize).min(body.len() - 4);
        Ok(Frame {
            at_nanos: 0,
            interface: 0,
            bytes: &body[4..4 + kept],
            original_len,
            direction: None,
            comment: "",
            dropped_before: 0,
        })
    }

    /// The options in `bytes`, up to the end of options or one that is cut short.
    fn options(&self, bytes: &'a [u8]) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut rest = bytes;
        core::iter::from_fn(move || {
            let head = rest.get(..4)?;
            let (code, len) = (self.u16(head, 0), usize::from(self.u16(head, 2)));
            if code == 0 {
                return None;
            }
            let value = rest.get(4..4 + len)?;
            rest = rest.get(4 + len.next_multiple_of(4)..).unwrap_or_default();
            Some((code, value))
        })
    }
}
