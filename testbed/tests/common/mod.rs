//! A guest that is as small as a guest can be.

#![allow(dead_code, reason = "every test uses some of it")]

/// An end for [`bare_program`]: an undefined instruction (ud2), and nobody to handle it.
pub(crate) const DIE: &[u8] = &[0x0f, 0x0b];

/// An end for [`bare_program`]: it waits for ever (pause; jmp back to it).
pub(crate) const STAY: &[u8] = &[0xf3, 0x90, 0xeb, 0xfc];

/// A program of 32-bit instructions as an ELF file with a PVH entry: it says `text` through port
/// 0xe9, and then executes `end`.
pub(crate) fn bare_program(text: &str, end: &[u8]) -> Vec<u8> {
    const ADDRESS: u32 = 0x10_0000;
    let mut code = Vec::new();
    for byte in text.bytes() {
        code.extend([0xb0, byte, 0xe6, 0xe9]); // mov al, byte; out 0xe9, al
    }
    code.extend(end);
    let headers = 52 + 2 * 32;
    let note_at = headers + u32::try_from(code.len()).unwrap();
    let mut note: Vec<u8> = Vec::new();
    for word in [4_u32, 4, 18] {
        note.extend(word.to_le_bytes()); // name's and value's size, XEN_ELFNOTE_PHYS32_ENTRY
    }
    note.extend(b"Xen\0");
    note.extend((ADDRESS + headers).to_le_bytes());
    let note_size = u32::try_from(note.len()).unwrap();
    let size = note_at + note_size;

    let mut elf = Vec::new();
    elf.extend(b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0");
    for half in [2_u16, 3] {
        elf.extend(half.to_le_bytes()); // an executable, for the 80386
    }
    for word in [1, ADDRESS + headers, 52, 0, 0] {
        elf.extend(word.to_le_bytes()); // version, entry, segments' place, sections', flags
    }
    for half in [52_u16, 32, 2, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    for segment in [
        [1, 0, ADDRESS, ADDRESS, size, size, 5, 4096], // PT_LOAD
        [4, note_at, ADDRESS + note_at, ADDRESS + note_at, note_size, note_size, 4, 4], // PT_NOTE
    ] {
        for word in segment {
            elf.extend(word.to_le_bytes());
        }
    }
    elf.extend(code);
    elf.extend(note);
    elf
}
