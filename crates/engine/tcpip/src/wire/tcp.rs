//! TCP segments (RFC 9293 §3.1; options of RFC 9293 §3.2, RFC 7323, RFC 2018 and RFC 2883).
//!
//! [`Segment::parse`] never panics and takes nothing for granted: a data offset outside the segment
//! is an error, a malformed option ends the list of options, and an option that means nothing to
//! us is skipped. Checksums are not looked at here: the IP layer verifies those that arrive, and
//! fills or offloads those that leave, because only it knows the pseudo-header and the device.

use crate::tcp::Seq;
use core::fmt;
use core::num::NonZeroU16;
use core::ops::BitOr;

/// Length of a header without options, in bytes.
pub(crate) const HEADER_LEN: usize = 20;

/// Length of a timestamps option with the padding that aligns it (RFC 7323 Appendix A), in bytes.
pub(crate) const TIMESTAMPS_LEN: usize = 12;

/// What such an option begins with.
pub(crate) const TIMESTAMPS_HEAD: [u8; 4] = [KIND_NOP, KIND_NOP, KIND_TIMESTAMPS, 10];

/// The largest window shift that means anything (RFC 7323 §2.3).
pub(crate) const WINDOW_SHIFT_MAX: u8 = 14;

const KIND_END: u8 = 0;
const KIND_NOP: u8 = 1;
const KIND_MSS: u8 = 2;
const KIND_WINDOW_SCALE: u8 = 3;
const KIND_SACK_PERMITTED: u8 = 4;
const KIND_SACK: u8 = 5;
const KIND_TIMESTAMPS: u8 = 8;

/// The control bits. The four reserved bits beside them are ignored on arrival and sent as zero
/// (RFC 9293 §3.1).
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Flags(pub(crate) u8);

impl Flags {
    pub(crate) const FIN: Flags = Flags(0x01);
    pub(crate) const SYN: Flags = Flags(0x02);
    pub(crate) const RST: Flags = Flags(0x04);
    pub(crate) const PSH: Flags = Flags(0x08);
    pub(crate) const ACK: Flags = Flags(0x10);

    /// Whether every bit of `other` is set.
    pub(crate) const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// `self` with `other`'s bits too, if `condition` holds.
    pub(crate) const fn with_if(self, other: Flags, condition: bool) -> Flags {
        if condition { Flags(self.0 | other.0) } else { self }
    }
}

impl BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = [(0x02, 'S'), (0x01, 'F'), (0x04, 'R'), (0x08, 'P'), (0x10, '.')];
        for (bit, letter) in letters.into_iter().chain([(0x20, 'U'), (0x40, 'E'), (0x80, 'W')]) {
            if self.0 & bit != 0 {
                write!(f, "{letter}")?;
            }
        }
        Ok(())
    }
}

/// A timestamps option (RFC 7323 §3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timestamps {
    /// TSval: the sender's clock.
    pub(crate) value: u32,
    /// TSecr: the last clock value that the sender took from us; meaningful only beside ACK.
    pub(crate) echo: u32,
}

/// Blocks of one SACK option, at most: forty bytes of options hold no more (RFC 2018 §3).
pub(crate) const SACK_BLOCKS_MAX: usize = 4;

/// The blocks of a SACK option (RFC 2018 §3): sequence numbers from the first up to, not including,
/// the second. From a peer they are allegations.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SackBlocks {
    len: u8,
    blocks: [(Seq, Seq); SACK_BLOCKS_MAX],
}

impl SackBlocks {
    /// The blocks, the newest first.
    pub(crate) fn as_slice(&self) -> &[(Seq, Seq)] {
        &self.blocks[..usize::from(self.len).min(SACK_BLOCKS_MAX)]
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a block; one that is too many is left out.
    pub(crate) fn push(&mut self, block: (Seq, Seq)) {
        if let Some(place) = self.blocks.get_mut(usize::from(self.len)) {
            *place = block;
            self.len += 1;
        }
    }

    /// Length on the wire of an option with so many blocks, padding included, in bytes.
    pub(crate) const fn wire_len(blocks: usize) -> usize {
        if blocks == 0 { 0 } else { 4 + 8 * blocks }
    }

    fn parse(value: &[u8]) -> Option<SackBlocks> {
        let (blocks, rest) = value.as_chunks::<8>();
        if blocks.is_empty() || blocks.len() > SACK_BLOCKS_MAX || !rest.is_empty() {
            return None;
        }
        let mut parsed = SackBlocks::default();
        for &[a, b, c, d, e, f, g, h] in blocks {
            let start = Seq(u32::from_be_bytes([a, b, c, d]));
            parsed.push((start, Seq(u32::from_be_bytes([e, f, g, h]))));
        }
        Some(parsed)
    }
}

impl fmt::Debug for SackBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice().iter().map(|block| (block.0.0, block.1.0))).finish()
    }
}

/// The options that this engine understands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// The largest segment that the sender wants to receive; only beside SYN.
    pub(crate) mss: Option<u16>,
    /// The shift of the sender's window field, at most [`WINDOW_SHIFT_MAX`]; only beside SYN.
    pub(crate) window_shift: Option<u8>,
    /// Whether the sender takes selective acknowledgments; only beside SYN.
    pub(crate) sack_permitted: bool,
    /// The sender's clock and its echo of ours.
    pub(crate) timestamps: Option<Timestamps>,
    /// What has arrived ahead of a gap, or twice.
    pub(crate) sack: SackBlocks,
}

impl Options {
    /// Length of these options on the wire, padding included, in bytes.
    pub(crate) const fn len(&self) -> usize {
        let mss = if self.mss.is_some() { 4 } else { 0 };
        let window_shift = if self.window_shift.is_some() { 4 } else { 0 };
        let sack_permitted = if self.sack_permitted { 4 } else { 0 };
        let timestamps = if self.timestamps.is_some() { TIMESTAMPS_LEN } else { 0 };
        let sack = SackBlocks::wire_len(self.sack.len as usize);
        mss + window_shift + sack_permitted + timestamps + sack
    }

    fn parse(mut bytes: &[u8]) -> Options {
        let mut options = Options::default();
        // What nearly every segment of a connection with timestamps carries.
        if let [KIND_NOP, KIND_NOP, KIND_TIMESTAMPS, 10, clocks @ ..] = bytes
            && clocks.len() == 8
        {
            options.timestamps = parse_timestamps(clocks);
            return options;
        }
        // Each turn consumes at least one byte, so forty bytes end in at most forty turns.
        loop {
            bytes = match bytes {
                [] | [KIND_END, ..] => return options,
                [KIND_NOP, rest @ ..] => rest,
                // A length that is too small or points past the end makes the rest meaningless.
                &[kind, len, ..] if len >= 2 && usize::from(len) <= bytes.len() => {
                    let (option, rest) = bytes.split_at(usize::from(len));
                    options.read(kind, &option[2..]);
                    rest
                }
                _ => return options,
            };
        }
    }

    /// Takes one option if its kind is known and its length is right; else leaves all as it was.
    fn read(&mut self, kind: u8, value: &[u8]) {
        match (kind, value) {
            (KIND_MSS, &[high, low]) => self.mss = Some(u16::from_be_bytes([high, low])),
            // "If a shift count larger than 14 is received, use 14" (RFC 7323 §2.3).
            (KIND_WINDOW_SCALE, &[shift]) => self.window_shift = Some(shift.min(WINDOW_SHIFT_MAX)),
            (KIND_SACK_PERMITTED, []) => self.sack_permitted = true,
            (KIND_SACK, blocks) => self.sack = SackBlocks::parse(blocks).unwrap_or(self.sack),
            (KIND_TIMESTAMPS, clocks) => {
                self.timestamps = parse_timestamps(clocks).or(self.timestamps);
            }
            _ => {}
        }
    }

    /// Writes the options, each padded to a multiple of four bytes.
    fn emit(&self, buffer: &mut [u8]) {
        let mut rest = buffer;
        let mut put = |bytes: &[u8]| {
            let (head, tail) = core::mem::take(&mut rest).split_at_mut(bytes.len());
            head.copy_from_slice(bytes);
            rest = tail;
        };
        if let Some(mss) = self.mss {
            let [high, low] = mss.to_be_bytes();
            put(&[KIND_MSS, 4, high, low]);
        }
        if self.sack_permitted {
            put(&[KIND_NOP, KIND_NOP, KIND_SACK_PERMITTED, 2]);
        }
        if let Some(timestamps) = self.timestamps {
            put(&TIMESTAMPS_HEAD);
            put(&timestamps.value.to_be_bytes());
            put(&timestamps.echo.to_be_bytes());
        }
        if let Some(shift) = self.window_shift {
            put(&[KIND_NOP, KIND_WINDOW_SCALE, 3, shift]);
        }
        if !self.sack.is_empty() {
            put(&[KIND_NOP, KIND_NOP, KIND_SACK, 2 + 8 * self.sack.len]);
            for (start, end) in self.sack.as_slice() {
                put(&start.0.to_be_bytes());
                put(&end.0.to_be_bytes());
            }
        }
    }
}

fn parse_timestamps(clocks: &[u8]) -> Option<Timestamps> {
    let &[a, b, c, d, e, f, g, h] = clocks else { return None };
    Some(Timestamps {
        value: u32::from_be_bytes([a, b, c, d]),
        echo: u32::from_be_bytes([e, f, g, h]),
    })
}

/// Everything in a header that a segment's sender chooses, but for the checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) sequence: Seq,
    /// Meaningless unless ACK is set; then sent as zero.
    pub(crate) acknowledgment: Seq,
    pub(crate) flags: Flags,
    /// As it is on the wire: not scaled.
    pub(crate) window: u16,
    pub(crate) options: Options,
}

impl Header {
    /// Length of the header with its options, in bytes.
    pub(crate) const fn len(&self) -> usize {
        HEADER_LEN + self.options.len()
    }

    /// Writes the header to the start of `buffer` with a zero checksum; returns its length.
    ///
    /// # Panics
    /// If `buffer` is shorter than [`Header::len`].
    pub(crate) fn emit(&self, buffer: &mut [u8]) -> usize {
        let header = &mut buffer[..self.len()];
        let len = header.len();
        let acknowledgment = if self.flags.has(Flags::ACK) { self.acknowledgment.0 } else { 0 };
        header[0..2].copy_from_slice(&self.source_port.to_be_bytes());
        header[2..4].copy_from_slice(&self.destination_port.to_be_bytes());
        header[4..8].copy_from_slice(&self.sequence.0.to_be_bytes());
        header[8..12].copy_from_slice(&acknowledgment.to_be_bytes());
        header[12] = ((len / 4) << 4) as u8;
        header[13] = self.flags.0;
        header[14..16].copy_from_slice(&self.window.to_be_bytes());
        // The checksum, which the IP layer fills, and the urgent pointer, which we never use
        // (RFC 6093 §5).
        header[16..20].fill(0);
        self.options.emit(&mut header[HEADER_LEN..]);
        len
    }
}

/// A segment that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment<'a> {
    pub(crate) header: Header,
    /// It is several segments in one: the payload of each, but for the last.
    pub(crate) mss: Option<NonZeroU16>,
    /// Urgent data lies in line: the urgent pointer is ignored (RFC 6093 §5).
    pub(crate) payload: &'a [u8],
}

/// Why bytes are not a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParseError {
    /// Fewer than twenty bytes.
    Truncated,
    /// A data offset below five words or beyond the end.
    DataOffset,
}

impl<'a> Segment<'a> {
    /// Reads a segment: TCP header and payload, without the IP header.
    ///
    /// # Errors
    /// If the bytes cannot hold the header that they claim.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Segment<'a>, ParseError> {
        let (fixed, _) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(ParseError::Truncated)?;
        let header_len = usize::from(fixed[12] >> 4) * 4;
        if header_len < HEADER_LEN || header_len > bytes.len() {
            return Err(ParseError::DataOffset);
        }
        let (header, payload) = bytes.split_at(header_len);
        let half = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
        let word = |at: usize| {
            u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
        };
        Ok(Segment {
            header: Header {
                source_port: half(0),
                destination_port: half(2),
                sequence: Seq(word(4)),
                acknowledgment: Seq(word(8)),
                flags: Flags(fixed[13]),
                window: half(14),
                options: Options::parse(&header[HEADER_LEN..]),
            },
            mss: None,
            payload,
        })
    }

    /// How many segments were sent.
    pub(crate) fn count(&self) -> u32 {
        let mss = self.mss.map_or(u32::MAX, |mss| u32::from(mss.get()));
        (self.payload.len() as u32).div_ceil(mss).max(1)
    }

    /// SEG.LEN: how many sequence numbers the segment takes, SYN and FIN included.
    pub(crate) fn sequence_len(&self) -> u32 {
        self.payload.len() as u32
            + u32::from(self.header.flags.has(Flags::SYN))
            + u32::from(self.header.flags.has(Flags::FIN))
    }
}

/// The start of one of our own segments, quoted in an ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quote {
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) sequence: Seq,
}

impl Quote {
    /// Reads the eight bytes that every ICMP error must quote (RFC 792); `None` if there are fewer.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Quote> {
        let (quoted, _) = bytes.split_first_chunk::<8>()?;
        let [a, b, c, d, e, f, g, h] = *quoted;
        Some(Quote {
            source_port: u16::from_be_bytes([a, b]),
            destination_port: u16::from_be_bytes([c, d]),
            sequence: Seq(u32::from_be_bytes([e, f, g, h])),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_options() -> impl Strategy<Value = Options> {
        (
            any::<Option<u16>>(),
            proptest::option::of(0..=WINDOW_SHIFT_MAX),
            any::<bool>(),
            any::<Option<(u32, u32)>>(),
            proptest::collection::vec(any::<(u32, u32)>(), 0..=SACK_BLOCKS_MAX),
        )
            .prop_map(|(mss, window_shift, sack_permitted, clocks, blocks)| {
                let mut options = Options {
                    mss,
                    window_shift,
                    sack_permitted,
                    timestamps: clocks.map(|(value, echo)| Timestamps { value, echo }),
                    sack: SackBlocks::default(),
                };
                // As many as fit into forty bytes.
                for (start, end) in blocks {
                    let mut more = options;
                    more.sack.push((Seq(start), Seq(end)));
                    if more.len() <= 40 {
                        options = more;
                    }
                }
                options
            })
    }

    fn any_header() -> impl Strategy<Value = Header> {
        (any::<(u16, u16, u32, u32, u8, u16)>(), any_options()).prop_map(
            |(
                (source_port, destination_port, sequence, acknowledgment, flags, window),
                options,
            )| {
                let flags = Flags(flags);
                Header {
                    source_port,
                    destination_port,
                    sequence: Seq(sequence),
                    acknowledgment: Seq(if flags.has(Flags::ACK) { acknowledgment } else { 0 }),
                    flags,
                    window,
                    options,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn parse_undoes_emit(header in any_header(), payload: Vec<u8>) {
            let mut bytes = vec![0xff; header.len()];
            prop_assert_eq!(header.emit(&mut bytes), header.len());
            bytes.extend_from_slice(&payload);
            prop_assert_eq!(Segment::parse(&bytes), Ok(Segment { header, mss: None, payload: &payload }));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            if let Ok(segment) = Segment::parse(&bytes) {
                prop_assert!(segment.payload.len() + HEADER_LEN <= bytes.len());
            }
            let _ = Quote::parse(&bytes);
        }

        #[test]
        fn arbitrary_options_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 60..80), words in 5u8..16) {
            bytes[12] = words << 4;
            let segment = Segment::parse(&bytes).expect("the data offset is inside");
            prop_assert_eq!(segment.payload.len(), bytes.len() - usize::from(words) * 4);
            prop_assert!(segment.header.options.window_shift.unwrap_or(0) <= WINDOW_SHIFT_MAX);
        }
    }

    fn options_of(options: &[u8]) -> Options {
        assert_eq!(options.len() % 4, 0);
        let mut bytes = vec![0; HEADER_LEN];
        bytes.extend_from_slice(options);
        bytes[12] = ((bytes.len() / 4) << 4) as u8;
        Segment::parse(&bytes).expect("the data offset is inside").header.options
    }

    /// T01.
    #[test]
    fn data_offset_outside_the_segment_is_refused() {
        for len in 0..64 {
            for words in 0..16u8 {
                let mut bytes = vec![0; len];
                if let Some(byte) = bytes.get_mut(12) {
                    *byte = words << 4;
                }
                let expected = if len < HEADER_LEN {
                    Err(ParseError::Truncated)
                } else if words < 5 || usize::from(words) * 4 > len {
                    Err(ParseError::DataOffset)
                } else {
                    Ok(len - usize::from(words) * 4)
                };
                assert_eq!(Segment::parse(&bytes).map(|s| s.payload.len()), expected);
            }
        }
    }

    /// T01.
    #[test]
    fn malformed_option_ends_the_list_and_keeps_what_came_before() {
        let kept = Options { mss: Some(1460), ..Options::default() };
        for bad_len in [0, 1, 5, 255] {
            assert_eq!(options_of(&[2, 4, 5, 180, 3, bad_len, 7, 0]), kept, "length {bad_len}");
        }
        assert_eq!(options_of(&[2, 4, 5, 180, 1, 1, 1, 3]), kept, "kind without length");
    }

    #[test]
    fn unknown_options_and_wrong_lengths_are_skipped() {
        let options = options_of(&[253, 4, 9, 9, 2, 3, 5, 3, 3, 7, 1, 0]);
        assert_eq!(options, Options { window_shift: Some(7), ..Options::default() });
    }

    #[test]
    fn sack_option_of_a_wrong_length_is_skipped() {
        let good = options_of(&[1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 9]);
        assert_eq!(good.sack.as_slice(), [(Seq(1), Seq(9))]);
        for len in [2, 3, 9, 11, 12] {
            let mut bytes = vec![1, 1, 5, len];
            bytes.resize(4 + 12, 0);
            assert!(options_of(&bytes).sack.is_empty(), "length {len}");
        }
    }

    /// T04.
    #[test]
    fn window_shift_above_fourteen_is_fourteen() {
        for (sent, taken) in [(0, 0), (7, 7), (14, 14), (15, 14), (255, 14)] {
            assert_eq!(options_of(&[1, 3, 3, sent]).window_shift, Some(taken));
        }
    }

    /// T11.
    #[test]
    fn reserved_bits_are_ignored() {
        let mut bytes = [0; HEADER_LEN];
        bytes[12] = 0x5f;
        assert!(Segment::parse(&bytes).is_ok());
    }
}
