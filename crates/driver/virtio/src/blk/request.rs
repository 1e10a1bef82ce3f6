//! [`Request`]: what a caller asks for, as a row of pieces that the device can do.
//!
//! On the ring a piece is `header | data | status` (virtio 1.2, section 5.2.6). Header and status
//! lie in the request's cell of shared memory; the data is the caller's own buffer, lent.

use super::config::Limits;
use fata_device::{BlockError, SectorBuffer};
use fata_shared::dma::{DeviceAddress, DmaBuffer, DmaRegion, LentBuffer};
use fata_virtq::Segment;

/// Bytes of shared memory that a request needs.
pub(super) const CELL_LEN: usize = 64;
/// In a cell, the header: `{ type: u32, reserved: u32, sector: u64 }`.
const CELL_HEADER: usize = 0;
const HEADER_LEN: u32 = 16;
/// In a cell, what to discard: `{ sector: u64, num_sectors: u32, flags: u32 }`.
const CELL_DISCARD: usize = 16;
const DISCARD_LEN: u32 = 16;
/// In a cell, the byte in which the device says how it went.
const CELL_STATUS: usize = 32;

/// Request types (section 5.2.6).
const T_IN: u32 = 0;
const T_OUT: u32 = 1;
const T_FLUSH: u32 = 4;
const T_GET_ID: u32 = 8;
const T_DISCARD: u32 = 11;

/// Values of the status byte.
const S_OK: u8 = 0;
const S_IOERR: u8 = 1;
const S_UNSUPP: u8 = 2;
/// What stands there before: a device that wrote nothing is caught by it.
const S_UNTOUCHED: u8 = 0xff;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    Flush,
    /// Discard so many sectors of 512 bytes.
    Discard {
        sectors: u64,
    },
    /// Read the serial number.
    Identify,
}

/// A request and how far it has come. While it is in a slot the device may have its buffer.
pub(super) struct Request {
    kind: Kind,
    /// Where the next piece begins, in sectors of 512 bytes.
    sector: u64,
    data: Option<LentBuffer>,
    /// Data of earlier pieces, in bytes.
    done: usize,
    /// Data of the piece that is with the device: bytes, or sectors to discard.
    piece: u64,
    limits: Limits,
}

/// The chain of a piece.
pub(super) struct Chain {
    pub(super) readable: Vec<Segment<DeviceAddress>>,
    pub(super) writable: Vec<Segment<DeviceAddress>>,
}

impl Request {
    pub(super) fn new(
        kind: Kind,
        sector: u64,
        data: Option<SectorBuffer>,
        limits: &Limits,
    ) -> Self {
        let data = data.and_then(|buffer| {
            let (storage, part) = buffer.into_vec();
            DmaBuffer::from_part(storage, part).map(DmaBuffer::lend)
        });
        Request { kind, sector, data, done: 0, piece: 0, limits: *limits }
    }

    /// Writes the header of the next piece into `cell` and says what its chain is.
    pub(super) fn prepare(&mut self, memory: &DmaRegion, cell: usize) -> Chain {
        let kind = match self.kind {
            Kind::Read => T_IN,
            Kind::Write => T_OUT,
            Kind::Flush => T_FLUSH,
            Kind::Discard { .. } => T_DISCARD,
            Kind::Identify => T_GET_ID,
        };
        // Section 5.2.6.1: of a flush, a discard and an identification the header's sector is 0.
        let positioned = matches!(self.kind, Kind::Read | Kind::Write);
        memory.store_u32(cell + CELL_HEADER, kind);
        memory.store_u32(cell + CELL_HEADER + 4, 0);
        memory.store_u64(cell + CELL_HEADER + 8, if positioned { self.sector } else { 0 });
        memory.store_u8(cell + CELL_STATUS, S_UNTOUCHED);

        let header = Segment { address: memory.address(cell + CELL_HEADER), len: HEADER_LEN };
        let mut chain = Chain { readable: vec![header], writable: Vec::new() };
        match self.kind {
            Kind::Read | Kind::Identify => self.add_data(&mut chain.writable),
            Kind::Write => self.add_data(&mut chain.readable),
            Kind::Flush => self.piece = 0,
            Kind::Discard { sectors } => {
                let piece =
                    (sectors - self.done as u64).min(self.limits.discard_sectors_max.into());
                self.piece = piece;
                memory.store_u64(cell + CELL_DISCARD, self.sector);
                memory.store_u32(cell + CELL_DISCARD + 8, piece as u32);
                memory.store_u32(cell + CELL_DISCARD + 12, 0);
                let address = memory.address(cell + CELL_DISCARD);
                chain.readable.push(Segment { address, len: DISCARD_LEN });
            }
        }
        let status = Segment { address: memory.address(cell + CELL_STATUS), len: 1 };
        chain.writable.push(status);
        chain
    }

    /// Adds the segments of the next piece of data.
    fn add_data(&mut self, segments: &mut Vec<Segment<DeviceAddress>>) {
        let Some(data) = &self.data else { return };
        let end = data.len().min(self.done + self.limits.piece_bytes_max as usize);
        let mut at = self.done;
        while at < end {
            let len = (end - at).min(self.limits.segment_bytes_max as usize);
            let Some(address) = data.address_at(at) else { break };
            segments.push(Segment { address, len: len as u32 });
            at += len;
        }
        self.piece = (end - self.done) as u64;
    }

    /// The device gave a piece back and says that it wrote so many bytes. True if that was the
    /// last piece.
    pub(super) fn finish_piece(
        &mut self,
        memory: &DmaRegion,
        cell: usize,
        written: u32,
    ) -> Result<bool, BlockError> {
        match memory.load_u8(cell + CELL_STATUS) {
            S_OK => {}
            S_IOERR => return Err(BlockError::Medium),
            S_UNSUPP => {
                return Err(BlockError::Unsupported(match self.kind {
                    Kind::Read => "reading",
                    Kind::Write => "writing",
                    Kind::Flush => "flushing",
                    Kind::Discard { .. } => "discard",
                    Kind::Identify => "telling its serial number",
                }));
            }
            S_UNTOUCHED => {
                let rule = "a request was given back without a status";
                return Err(BlockError::Misbehaved(rule.into()));
            }
            status => {
                let rule = format!("a request was given back with status {status}");
                return Err(BlockError::Misbehaved(rule));
            }
        }
        // Data that was read and its status; less, and some of the buffer was never written.
        if self.kind == Kind::Read && u64::from(written) < self.piece + 1 {
            let (had, wanted) = (written.saturating_sub(1), self.piece);
            let rule = format!("a read of {wanted} bytes succeeded with only {had} written");
            return Err(BlockError::Misbehaved(rule));
        }
        self.done += self.piece as usize;
        match self.kind {
            Kind::Read | Kind::Write => {
                self.sector += self.piece / super::config::SECTOR_BYTES;
                Ok(self.done >= self.data.as_ref().map_or(0, LentBuffer::len))
            }
            Kind::Discard { sectors } => {
                self.sector += self.piece;
                Ok(self.done as u64 >= sectors)
            }
            Kind::Flush | Kind::Identify => Ok(true),
        }
    }

    /// Takes the buffer back: the device must not have it any more.
    pub(super) fn into_buffer(self) -> Option<SectorBuffer> {
        let (storage, part) = self.data?.take_back().into_parts();
        SectorBuffer::from_vec(storage, part)
    }
}
