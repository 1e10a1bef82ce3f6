//! The image's own program headers, read at run time.
//!
//! The linker says in them what is code, what is data, where the template of the thread-locals lies
//! and how it is aligned, and where the notes are. Reading them is better than a linker symbol for
//! each: they are what `fata describe` and the loader saw, and they cannot disagree with the link.
//! Format: System V ABI, "Program Header".

/// `PT_LOAD`: a piece of the image in memory.
pub const PT_LOAD: u32 = 1;
/// `PT_NOTE`: notes.
pub const PT_NOTE: u32 = 4;
/// `PT_TLS`: the template of the thread-locals.
pub const PT_TLS: u32 = 7;
/// `PF_X`: may be executed.
pub const PF_X: u32 = 1;
/// `PF_W`: may be written.
pub const PF_W: u32 = 2;

/// `Elf64_Phdr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ProgramHeader {
    /// What the segment is: one of the `PT_` constants.
    pub kind: u32,
    /// Its rights: `PF_` bits.
    pub flags: u32,
    /// Where it is in the file.
    pub offset: u64,
    /// Where it is in memory.
    pub address: u64,
    /// The same; unused.
    pub physical_address: u64,
    /// Bytes in the file.
    pub file_bytes: u64,
    /// Bytes in memory; what the file does not hold is zero.
    pub memory_bytes: u64,
    /// A power of two.
    pub alignment: u64,
}

/// The description of the first note of the given owner and type in a segment of notes, as the ELF
/// specification lays them out: three 4-byte lengths and type, name, description, each padded to 4.
pub fn note<'a>(notes: &'a [u8], owner: &[u8], kind: u32) -> Option<&'a [u8]> {
    let mut rest = notes;
    loop {
        let word = |at: usize| Some(u32::from_le_bytes(rest.get(at..at + 4)?.try_into().ok()?));
        let (name_bytes, description_bytes) = (word(0)? as usize, word(4)? as usize);
        let this_kind = word(8)?;
        let name = rest.get(12..)?.get(..name_bytes)?;
        let at = 12usize.checked_add(name_bytes)?.checked_next_multiple_of(4)?;
        let description = rest.get(at..)?.get(..description_bytes)?;
        if this_kind == kind && name.strip_suffix(b"\0") == Some(owner) {
            return Some(description);
        }
        rest = rest.get(at.checked_add(description_bytes)?.checked_next_multiple_of(4)?..)?;
    }
}

/// How far below the thread pointer the thread-locals' template is copied: on x86-64 (variant II of
/// Drepper's "ELF Handling For Thread-Local Storage") the block ends at the thread pointer, and its
/// size is rounded to its own alignment and to nothing else.
pub const fn tls_offset(template: &ProgramHeader) -> u64 {
    let alignment = if template.alignment == 0 { 1 } else { template.alignment };
    template.memory_bytes.next_multiple_of(alignment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(owner: &[u8], kind: u32, description: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((owner.len() as u32 + 1).to_le_bytes());
        bytes.extend((description.len() as u32).to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(owner);
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(description);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn the_build_id_is_found_behind_another_note() {
        let mut notes = encode(b"Xen", 18, &[0, 0, 16, 0]);
        notes.extend(encode(b"GNU", 3, b"twenty bytes of hash"));
        assert_eq!(note(&notes, b"GNU", 3), Some(&b"twenty bytes of hash"[..]));
        assert_eq!(note(&notes, b"GNU", 4), None);
        assert_eq!(note(&notes[..30], b"GNU", 3), None);
    }

    #[test]
    fn thread_locals_are_rounded_to_their_own_alignment() {
        let template = |memory_bytes, alignment| ProgramHeader {
            memory_bytes,
            alignment,
            ..ProgramHeader::default()
        };
        assert_eq!(tls_offset(&template(0x51, 8)), 0x58);
        assert_eq!(tls_offset(&template(0x51, 64)), 0x80);
        assert_eq!(tls_offset(&template(0x51, 0)), 0x51);
    }

    proptest! {
        #[test]
        fn any_note_comes_back(
            owner in "[A-Za-z]{1,9}", kind: u32, text in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let notes = encode(owner.as_bytes(), kind, &text);
            prop_assert_eq!(note(&notes, owner.as_bytes(), kind), Some(&text[..]));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            note(&bytes, b"GNU", 3);
        }
    }
}
