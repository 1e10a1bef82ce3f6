//! Sealing: from the linker's ELF to the image, which holds what is loaded and nothing else.
//!
//! The result is the ELF header, the program headers and the segments' bytes at their old offsets;
//! section headers, symbols and debug information are gone, and the gaps between segments are
//! zero. It is a function of its input alone: the same program gives the same image, bit for bit.

use object::LittleEndian;
use object::elf::{FileHeader64, PT_GNU_STACK, ProgramHeader64};
use object::read::elf::ProgramHeader as _;

use super::Problem;
use super::elf::Elf;

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
    Ok(image)
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
