//! Writing pcapng.

use crate::{
    BYTE_ORDER_MAGIC, Direction, ENHANCED_PACKET, FRAME_BYTES_MAX, INTERFACE_DESCRIPTION,
    LINK_TYPE_ETHERNET, OPTION_COMMENT, OPTION_EPB_DROPCOUNT, OPTION_EPB_FLAGS, OPTION_IF_NAME,
    OPTION_IF_TSRESOL, OPTION_SHB_USERAPPL, SECTION_HEADER,
};

/// Bytes of a text that a block keeps; longer ones are cut. An option's length has 16 bits.
const TEXT_BYTES_MAX: usize = 1024;

/// An interface of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InterfaceId(u32);

/// What a capture says of a frame beside its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// Shown beside the frame (`opt_comment`); none if empty.
    pub comment: String,
    /// Frames that this interface did not see, since the one before (`epb_dropcount`).
    pub dropped_before: u64,
}

/// Makes the blocks of a pcapng file, little-endian, with timestamps in nanoseconds.
///
/// Every method appends whole blocks to `out`, so a file that ends after any of them is a capture
/// that can be read.
#[derive(Debug)]
pub struct Writer {
    interfaces: u32,
}

impl Writer {
    /// Begins a file with its section header. `application` is who writes it.
    pub fn new(out: &mut Vec<u8>, application: &str) -> Writer {
        let block = Block::begin(out, SECTION_HEADER);
        block.out.extend_from_slice(&BYTE_ORDER_MAGIC.to_le_bytes());
        // Version 1.0; the section's length is not said, as it is not known yet.
        block.out.extend_from_slice(&[1, 0, 0, 0]);
        block.out.extend_from_slice(&u64::MAX.to_le_bytes());
        block.option(OPTION_SHB_USERAPPL, text(application)).end();
        Writer { interfaces: 0 }
    }

    /// Describes an Ethernet interface. Frames may name it from here on.
    pub fn interface(&mut self, out: &mut Vec<u8>, name: &str) -> InterfaceId {
        let block = Block::begin(out, INTERFACE_DESCRIPTION);
        block.out.extend_from_slice(&LINK_TYPE_ETHERNET.to_le_bytes());
        block.out.extend_from_slice(&[0, 0]);
        block.out.extend_from_slice(&(FRAME_BYTES_MAX as u32).to_le_bytes());
        // 10^-9 s.
        block.option(OPTION_IF_NAME, text(name)).option(OPTION_IF_TSRESOL, &[9]).end();
        let id = InterfaceId(self.interfaces);
        self.interfaces += 1;
        id
    }

    /// Adds a frame, without FCS, that passed `interface` at `at_nanos` after the epoch. Of one
    /// longer than [`FRAME_BYTES_MAX`] the beginning is kept.
    pub fn frame(
        &mut self,
        out: &mut Vec<u8>,
        interface: InterfaceId,
        at_nanos: u64,
        frame: &[u8],
        direction: Direction,
        note: &Note,
    ) {
        let kept = &frame[..frame.len().min(FRAME_BYTES_MAX)];
        let mut block = Block::begin(out, ENHANCED_PACKET);
        for number in [
            interface.0,
            (at_nanos >> 32) as u32,
            at_nanos as u32,
            kept.len() as u32,
            u32::try_from(frame.len()).unwrap_or(u32::MAX),
        ] {
            block.out.extend_from_slice(&number.to_le_bytes());
        }
        block.out.extend_from_slice(kept);
        block.pad();
        let direction: u32 = match direction {
            Direction::Inbound => 1,
            Direction::Outbound => 2,
        };
        let mut block = block.option(OPTION_EPB_FLAGS, &direction.to_le_bytes());
        if note.dropped_before > 0 {
            block = block.option(OPTION_EPB_DROPCOUNT, &note.dropped_before.to_le_bytes());
        }
        if !note.comment.is_empty() {
            block = block.option(OPTION_COMMENT, text(&note.comment));
        }
        block.end();
    }
}

/// The beginning of `text` that fits, whole characters of it.
fn text(text: &str) -> &[u8] {
    let fits = (0..=TEXT_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at));
    text.as_bytes().get(..fits.unwrap_or(0)).unwrap_or(text.as_bytes())
}

/// A block in the making: its length is written twice, when it is known.
struct Block<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Block<'a> {
    fn begin(out: &'a mut Vec<u8>, kind: u32) -> Self {
        let start = out.len();
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        Block { out, start }
    }

    fn option(mut self, code: u16, value: &[u8]) -> Self {
        self.out.extend_from_slice(&code.to_le_bytes());
        self.out.extend_from_slice(&(value.len() as u16).to_le_bytes());
        self.out.extend_from_slice(value);
        self.pad();
        self
    }

    /// Pads to the 32 bits that everything in a block is aligned to. `out` may hold other things
    /// before it.
    fn pad(&mut self) {
        let len = (self.out.len() - self.start).next_multiple_of(4);
        self.out.resize(self.start + len, 0);
    }

    fn end(self) {
        // opt_endofopt.
        self.out.extend_from_slice(&[0; 4]);
        let len = ((self.out.len() - self.start + 4) as u32).to_le_bytes();
        self.out.extend_from_slice(&len);
        self.out[self.start + 4..self.start + 8].copy_from_slice(&len);
    }
}
