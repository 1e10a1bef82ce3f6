//! Sealing: from the linker's ELF to the image, which holds what is loaded and nothing else.
//!
//! The result is the ELF header, the program headers and the segments' bytes at their old offsets;
//! section headers, symbols and debug information are gone, and the gaps between segments are
//! zero. It is a function of its input alone: the same program gives the same image, bit for bit.
//!
//! Behind the last segment stands the seal: a word that says so and a hash of all that precedes it,
//! so that a file which was damaged on its way is refused instead of booted. It guards against
//! accidents; against malice, sign the file.

use object::LittleEndian;
use object::elf::{FileHeader64, PT_GNU_STACK, ProgramHeader64};
use object::read::elf::ProgramHeader as _;

use super::Problem;
use super::elf::Elf;
use crate::digest::fnv1a;

/// What the seal begins with.
const SEAL: &[u8; 8] = b"fataseal";
/// The word, and the hash in little-endian order.
const SEAL_BYTES: usize = 16;

/// The sealed form of the program in `unstripped`.
pub(crate) fn seal(unstripped: &[u8]) -> Result<Vec<u8>, Problem> {
    let elf = Elf::parse(unstripped)?;
    if let Some(segment) = elf.segments().iter().find(|segment| segment.write && segment.execute) {
        let address = segment.address;
        return Err(Problem::corrupt(format!(
            "the segment at {address:#x} is writable and executable, which no image may have"
        )));
    }
    let headers = elf.program_headers()?;
    let header_end = size_of::<FileHeader64<LittleEndian>>();
    let table_start = as_index(elf.header().e_phoff.get(LittleEndian));
    let table_end = table_start + size_of_val(headers);
    let kept = headers.iter().map(range).filter(|range| !range.is_empty());
    let end = kept.clone().map(|range| range.end).max().unwrap_or(0).max(table_end).max(header_end);

    let mut image = vec![0; end];
    for range in kept.chain([0..header_end, table_start..table_end]) {
        image[range.clone()].copy_from_slice(&unstripped[range]);
    }
    forget_sections(&mut image);
    let hash = fnv1a(&image);
    image.extend(SEAL);
    image.extend(hash.to_le_bytes());
    Ok(image)
}

/// Checks the seal at the end of `image`. A file without one passes: another tool may have written
/// it, and what is missing of it, its headers tell.
pub(crate) fn check(image: &[u8]) -> Result<(), Problem> {
    let Some((sealed, seal)) = image.split_last_chunk::<SEAL_BYTES>() else { return Ok(()) };
    match seal.strip_prefix(SEAL) {
        Some(hash) if hash != fnv1a(sealed).to_le_bytes() => Err(Problem::corrupt(
            "its bytes are not those that were sealed: it was damaged after it was built",
        )),
        _ => Ok(()),
    }
}

/// A checked offset as an index: [`Elf::parse`] has seen that it lies within the file.
fn as_index(offset: u64) -> usize {
    usize::try_from(offset).expect("the file is in memory, so its offsets fit")
}

fn range(header: &ProgramHeader64<LittleEndian>) -> std::ops::Range<usize> {
    if header.p_type(LittleEndian) == PT_GNU_STACK {
        return 0..0;
    }
    let (offset, bytes) = header.file_range(LittleEndian);
    as_index(offset)..as_index(offset + bytes)
}

/// Zeroes e_shoff, e_shentsize, e_shnum and e_shstrndx.
fn forget_sections(image: &mut [u8]) {
    const E_SHOFF: std::ops::Range<usize> = 0x28..0x30;
    const E_SHENTSIZE_TO_E_SHSTRNDX: std::ops::Range<usize> = 0x3a..0x40;
    image[E_SHOFF].fill(0);
    image[E_SHENTSIZE_TO_E_SHSTRNDX].fill(0);
}

/// Bytes of the file that each kind of segment takes: code, constants, data.
pub(crate) fn bytes_by_kind(elf_segments: &[super::elf::Segment]) -> [(&'static str, u64); 3] {
    let sum = |wanted: fn(&super::elf::Segment) -> bool| {
        elf_segments.iter().filter(|s| wanted(s)).map(|s| s.memory_bytes).sum()
    };
    [
        ("code", sum(|s| s.execute)),
        ("constants", sum(|s| !s.execute && !s.write)),
        ("data", sum(|s| s.write)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_notices_every_damaged_byte() {
        let mut image = b"what was built".to_vec();
        let hash = fnv1a(&image);
        image.extend(SEAL);
        image.extend(hash.to_le_bytes());
        assert_eq!(check(&image), Ok(()));
        for index in 0..image.len() - SEAL_BYTES {
            let mut damaged = image.clone();
            damaged[index] ^= 1;
            assert!(check(&damaged).is_err(), "byte {index}");
        }
    }

    #[test]
    fn a_file_without_a_seal_is_nobodys_fault() {
        assert_eq!(check(b""), Ok(()));
        assert_eq!(check(&[0; 100]), Ok(()));
    }
}
