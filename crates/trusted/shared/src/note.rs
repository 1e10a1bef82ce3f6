//! The ELF note that carries a program's manifest.
//!
//! Here, and not beside the macros that use it, because naming a link section is an unsafe
//! attribute: two statics in one section can break whoever reads it as a table. Nothing reads this
//! section in the image; the tools that do check every length (`fata describe`).

/// An ELF note (System V ABI, "Note Section") with the name "Fata" and type 1, whose descriptor is
/// the manifest as UTF-8 JSON.
///
/// `LEN` is the descriptor's length in bytes; the alignment pads it to four bytes, as notes must be.
#[repr(C, align(4))]
pub struct Note<const LEN: usize> {
    name_len: u32,
    descriptor_len: u32,
    kind: u32,
    name: [u8; 8],
    descriptor: [u8; LEN],
}

impl<const LEN: usize> Note<LEN> {
    /// The note with all of `parts`, one after the other, as its descriptor. Their
    /// [`total_len`] must be `LEN`, or the program does not compile.
    pub const fn new(parts: &[&str]) -> Self {
        Note {
            name_len: 5, // "Fata" and its NUL; the padding does not count
            descriptor_len: LEN as u32,
            kind: 1,
            name: *b"Fata\0\0\0\0",
            descriptor: concatenate(parts),
        }
    }
}

/// Length of all parts together, in bytes.
pub const fn total_len(parts: &[&str]) -> usize {
    let (mut total, mut index) = (0, 0);
    while index < parts.len() {
        total += parts[index].len();
        index += 1;
    }
    total
}

const fn concatenate<const LEN: usize>(parts: &[&str]) -> [u8; LEN] {
    let mut out = [0; LEN];
    let (mut at, mut index) = (0, 0);
    while index < parts.len() {
        let part = parts[index].as_bytes();
        let mut byte = 0;
        while byte < part.len() {
            out[at] = part[byte];
            at += 1;
            byte += 1;
        }
        index += 1;
    }
    assert!(at == LEN, "LEN is the parts' total length");
    out
}

/// Puts a manifest, given in fragments (`&[&str]`, a constant expression), into the section
/// `.note.fata` of the program. Once in a program.
#[macro_export]
macro_rules! manifest_note {
    ($parts:expr) => {
        const _: () = {
            const PARTS: &[&str] = $parts;
            const LEN: usize = $crate::note::total_len(PARTS);
            // SAFETY: nothing in the program reads this section, so what lies in it cannot break
            // the program; `Note` has a note's layout for those who read it from outside.
            #[used]
            #[unsafe(link_section = ".note.fata")]
            static NOTE: $crate::note::Note<LEN> = $crate::note::Note::new(PARTS);
        };
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_joined_in_order_and_padded_to_four_bytes() {
        const PARTS: &[&str] = &["ab", "", "cde"];
        const NOTE: Note<{ total_len(PARTS) }> = Note::new(PARTS);
        assert_eq!(&NOTE.descriptor, b"abcde");
        assert_eq!((NOTE.name_len, NOTE.descriptor_len, NOTE.kind), (5, 5, 1));
        assert_eq!(&NOTE.name, b"Fata\0\0\0\0");
        assert_eq!(size_of_val(&NOTE), 20 + 8);
    }
}
