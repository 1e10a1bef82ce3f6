//! The Internet checksum (RFC 1071): the complement of the one's complement sum of 16-bit words.
//!
//! It is the one thing that the stack does to every byte of every segment when the device does not,
//! so it takes many words at a time: the sum is the same whatever the width of the words, as long
//! as all carries come back in at the end (§2(C)), and the same in either byte order up to a swap
//! of the result (§2(B)).

use fearless_simd::{Level, dispatch, prelude::*};
use std::net::IpAddr;

/// A sum in progress over bytes that come in pieces of any length.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    /// One's complement sum so far, of big-endian words; at most 16 bits.
    folded: u16,
    /// The bytes so far are of an odd number: the next one is the low half of a word.
    odd: bool,
}

/// Bytes that are summed at once: what the widest registers hold.
const BLOCK: usize = 64;

/// Blocks of the longest IP packet, and few enough that their sum fits into 32 bits.
const BLOCKS_MAX: usize = 1024;

/// The one's complement sum of two 16-bit numbers.
fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}

/// The sum of the 16-bit words, in the machine's order, of at most [`BLOCKS_MAX`] blocks.
fn sum_blocks(blocks: &[[u8; BLOCK]]) -> u32 {
    dispatch!(Level::new(), simd => sum_blocks_with(simd, blocks))
}

/// The same, with the registers of a processor that has `S`.
#[inline(always)]
fn sum_blocks_with<S: Simd>(simd: S, blocks: &[[u8; BLOCK]]) -> u32 {
    simd.vectorize(
        #[inline(always)]
        || {
            // Of each lane the sum of its words of four, which wraps, and that of their upper halves,
            // which does not: the first without the second, where they belong, is the sum of the lower
            // halves, and does not either.
            let mut all = [S::u32s::splat(simd, 0); 2];
            let mut upper = all;
            for block in blocks {
                for (index, bytes) in block.chunks_exact(S::u8s::LEN).enumerate() {
                    let words: S::u32s = S::u8s::from_slice(simd, bytes).bitcast();
                    // Two, so that an addition need not wait for the one before.
                    all[index % 2] += words;
                    upper[index % 2] += words >> 16;
                }
            }
            let sum = |[a, b]: [S::u32s; 2]| {
                (a + b).as_slice().iter().fold(0u32, |sum, lane| sum.wrapping_add(*lane))
            };
            let (all, upper) = (sum(all), sum(upper));
            all.wrapping_sub(upper << 16).wrapping_add(upper)
        },
    )
}

/// The one's complement sum of two 64-bit numbers.
const fn add_wide(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u64
}

/// The one's complement sum of `bytes` as big-endian words, padded with a zero byte.
fn sum_words(bytes: &[u8]) -> u16 {
    let (blocks, rest) = bytes.as_chunks();
    let mut sum = 0;
    for blocks in blocks.chunks(BLOCKS_MAX) {
        sum = add_wide(sum, sum_blocks(blocks).into());
    }
    let (words, rest) = rest.as_chunks();
    for word in words {
        sum = add_wide(sum, u64::from_ne_bytes(*word));
    }
    if !rest.is_empty() {
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(rest) {
            *to = *from;
        }
        sum = add_wide(sum, u64::from_ne_bytes(word));
    }
    // Fold to 16 bits: the sum modulo 2^16 - 1, never 0 for a sum that is not 0.
    sum = (sum >> 32) + (sum & 0xffff_ffff);
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    u16::from_be(sum as u16)
}

impl Sum {
    /// The sum of the pseudo-header of TCP and UDP over IPv4 (RFC 9293 §3.1) or of anything over
    /// IPv6 (RFC 8200 §8.1). Both addresses are of one family.
    pub(crate) fn of_pseudo_header(
        source: impl Into<IpAddr>,
        destination: impl Into<IpAddr>,
        protocol: u8,
        len: usize,
    ) -> Sum {
        // In one's complement words of any width sum to the same.
        let words = |address: IpAddr| match address {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                [96, 64, 32, 0].iter().map(|shift| u64::from((bits >> shift) as u32)).sum()
            }
        };
        let wide = words(source.into()) + words(destination.into());
        let mut folded = wide + u64::from(protocol) + (len as u64 & 0xffff_ffff);
        while folded > 0xffff {
            folded = (folded >> 16) + (folded & 0xffff);
        }
        Sum { folded: folded as u16, odd: false }
    }

    /// The sum with `bytes` appended.
    #[must_use]
    pub(crate) fn then(self, bytes: &[u8]) -> Sum {
        let piece = sum_words(bytes);
        let piece = if self.odd { piece.swap_bytes() } else { piece };
        Sum { folded: add(self.folded, piece), odd: self.odd ^ (bytes.len() % 2 == 1) }
    }

    /// The sum with a word appended; the bytes so far are of an even number.
    #[must_use]
    pub(crate) fn then_word(self, word: u16) -> Sum {
        debug_assert!(!self.odd);
        Sum { folded: add(self.folded, word), odd: false }
    }

    /// The sum itself: what a device that finishes the checksum expects in the field.
    pub(crate) const fn partial(self) -> u16 {
        self.folded
    }

    /// The checksum: the sum's complement.
    pub(crate) const fn finish(self) -> u16 {
        !self.folded
    }

    /// True if the bytes contain their own correct checksum.
    pub(crate) const fn is_valid(self) -> bool {
        self.folded == 0xffff
    }
}

/// The checksum of `bytes`.
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    Sum::default().then(bytes).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// The definition, word by word.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum: u32 = 0;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            sum = (sum >> 16) + (sum & 0xffff);
        }
        !(sum as u16)
    }

    #[test]
    fn the_example_of_rfc_1071_section_3() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::default().then(&bytes).partial(), 0xddf2);
    }

    /// Pitfall L02.
    #[test]
    fn more_than_64_kib_of_ones_overflow_nothing() {
        for len in [65_534, 65_535, 65_536, 131_071, 200_000] {
            let bytes = vec![0xff; len];
            assert_eq!(checksum(&bytes), naive(&bytes), "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn equals_the_definition_however_the_bytes_are_split(
            bytes in proptest::collection::vec(any::<u8>(), 0..3000),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..5),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let mut sum = Sum::default();
            let mut from = 0;
            for cut in cuts {
                sum = sum.then(&bytes[from..cut]);
                from = cut;
            }
            sum = sum.then(&bytes[from..]);
            prop_assert_eq!(sum.finish(), naive(&bytes));
        }

        #[test]
        fn the_pseudo_header_counts_as_its_bytes(
            source: u32, destination: u32, protocol: u8, len in 0usize..65_536,
        ) {
            let (source, destination) = (Ipv4Addr::from_bits(source), Ipv4Addr::from_bits(destination));
            let mut bytes = Vec::new();
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
            bytes.extend([0, protocol]);
            bytes.extend((len as u16).to_be_bytes());
            let sum = Sum::of_pseudo_header(source, destination, protocol, len);
            prop_assert_eq!(sum.finish(), naive(&bytes));
        }

        #[test]
        fn the_pseudo_header_of_ipv6_counts_as_its_bytes(
            source: u128, destination: u128, protocol: u8, len in 0usize..70_000,
        ) {
            let (source, destination) = (Ipv6Addr::from(source), Ipv6Addr::from(destination));
            let mut bytes = Vec::new();
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
            bytes.extend((len as u32).to_be_bytes());
            bytes.extend([0, 0, 0, protocol]);
            let sum = Sum::of_pseudo_header(source, destination, protocol, len);
            prop_assert_eq!(sum.finish(), naive(&bytes));
        }
    }
}
