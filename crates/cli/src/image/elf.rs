//! A bounded reader of ELF files: segments and notes, nothing else.
//!
//! The `object` crate decodes the records; what matters to us about their relations is checked
//! here once (every segment lies within the file, sizes do not wrap), so that the rest of the tool
//! may index without looking again.

use object::LittleEndian;
use object::elf::{EM_X86_64, ET_DYN, ET_EXEC, FileHeader64, PF_R, PF_W, PF_X, PT_LOAD};
use object::read::elf::{FileHeader as _, NoteIterator, ProgramHeader as _, SectionHeader as _};

use super::Problem;

type Header = FileHeader64<LittleEndian>;

/// More segments than any linker makes of one program; ours makes about eight.
const SEGMENTS_MAX: usize = 64;

/// A segment that is loaded into memory (PT_LOAD).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Virtual address; in our images also the physical one.
    pub(crate) address: u64,
    /// Where its bytes begin in the file.
    pub(crate) offset: u64,
    /// How many bytes the file holds of it.
    pub(crate) file_bytes: u64,
    /// How many bytes it takes in memory; those past `file_bytes` are zero.
    pub(crate) memory_bytes: u64,
    /// May be read.
    pub(crate) read: bool,
    /// May be written.
    pub(crate) write: bool,
    /// May be executed.
    pub(crate) execute: bool,
}

/// A checked ELF file.
pub(crate) struct Elf<'data> {
    data: &'data [u8],
    header: &'data Header,
    segments: Vec<Segment>,
}

impl<'data> Elf<'data> {
    /// Checks the header and every program header against the file's length.
    pub(crate) fn parse(data: &'data [u8]) -> Result<Self, Problem> {
        if data.is_empty() {
            return Err(Problem { foreign: true, what: "the file is empty".into() });
        }
        if !data.starts_with(b"\x7fELF") {
            let what = "not an image: not even an ELF file".into();
            return Err(Problem { foreign: true, what });
        }
        let header = Header::parse(data).map_err(|_| {
            if data.len() < size_of::<Header>() {
                return truncated("its header", size_of::<Header>() as u64, data.len());
            }
            Problem { foreign: true, what: "an ELF, but not a 64-bit one for x86-64".into() }
        })?;
        let machine = header.e_machine.get(LittleEndian);
        if !header.is_little_endian() || machine != EM_X86_64 {
            let what = "an ELF for another processor; images are for x86-64".into();
            return Err(Problem { foreign: true, what });
        }
        if !matches!(header.e_type.get(LittleEndian), ET_EXEC | ET_DYN) {
            let what = "an ELF, but not a program (an object file or a core dump)".into();
            return Err(Problem { foreign: true, what });
        }
        let mut elf = Self { data, header, segments: Vec::new() };
        elf.check_segments()?;
        Ok(elf)
    }

    fn check_segments(&mut self) -> Result<(), Problem> {
        let headers = self.program_headers()?;
        if headers.len() > SEGMENTS_MAX {
            return Err(Problem::corrupt(format!("{} segments", headers.len())));
        }
        for (index, header) in headers.iter().enumerate() {
            let (offset, file_bytes) = header.file_range(LittleEndian);
            let address = header.p_vaddr(LittleEndian);
            let memory_bytes = header.p_memsz(LittleEndian);
            let file_end = offset.checked_add(file_bytes).ok_or_else(|| {
                Problem::corrupt(format!("segment {index} wraps around the file"))
            })?;
            if file_end > self.data.len() as u64 {
                return Err(truncated(&format!("segment {index}"), file_end, self.data.len()));
            }
            if header.p_type(LittleEndian) != PT_LOAD {
                continue;
            }
            if file_bytes > memory_bytes || address.checked_add(memory_bytes).is_none() {
                return Err(Problem::corrupt(format!("segment {index} has impossible sizes")));
            }
            let flags = header.p_flags(LittleEndian);
            self.segments.push(Segment {
                address,
                offset,
                file_bytes,
                memory_bytes,
                read: flags.contains(PF_R),
                write: flags.contains(PF_W),
                execute: flags.contains(PF_X),
            });
        }
        if self.segments.is_empty() {
            return Err(Problem::corrupt("nothing in it is loaded into memory"));
        }
        Ok(())
    }

    /// The file's header.
    pub(crate) fn header(&self) -> &'data Header {
        self.header
    }

    /// All program headers.
    pub(crate) fn program_headers(
        &self,
    ) -> Result<&'data [object::elf::ProgramHeader64<LittleEndian>], Problem> {
        let start = self.header.e_phoff.get(LittleEndian);
        let count = u64::from(self.header.e_phnum.get(LittleEndian));
        let size = size_of::<object::elf::ProgramHeader64<LittleEndian>>() as u64;
        let end = start.saturating_add(count * size);
        if end > self.data.len() as u64 {
            return Err(truncated("its table of segments", end, self.data.len()));
        }
        self.header
            .program_headers(LittleEndian, self.data)
            .map_err(|error| Problem::corrupt(format!("its table of segments: {error}")))
    }

    /// What is loaded into memory.
    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The description of the note with this owner and type. Two of them are an error: which one
    /// counts would be anybody's guess.
    pub(crate) fn note(&self, owner: &str, kind: u32) -> Result<Option<&'data [u8]>, Problem> {
        let mut found = None;
        for header in self.program_headers()? {
            let notes = header
                .notes(LittleEndian, self.data)
                .map_err(|error| Problem::corrupt(format!("its notes: {error}")))?;
            if let Some(notes) = notes {
                search(notes, owner, kind, &mut found)?;
            }
        }
        // A linker without our script may leave a note section out of the PT_NOTE segments.
        if found.is_none()
            && self.header.e_shoff.get(LittleEndian) != 0
            && let Ok(sections) = self.header.sections(LittleEndian, self.data)
        {
            for section in sections.iter() {
                if let Ok(Some(notes)) = section.notes(LittleEndian, self.data) {
                    search(notes, owner, kind, &mut found)?;
                }
            }
        }
        Ok(found)
    }
}

/// Looks through `notes`, and refuses a second note of the kind.
fn search<'data>(
    mut notes: NoteIterator<'data, Header>,
    owner: &str,
    kind: u32,
    found: &mut Option<&'data [u8]>,
) -> Result<(), Problem> {
    // Every note takes at least its 12-byte header, so the iteration ends with the segment.
    loop {
        match notes.next() {
            Ok(None) => return Ok(()),
            Ok(Some(note)) => {
                if note.name() != owner.as_bytes() || note.n_type(LittleEndian).0 != kind {
                    continue;
                }
                match found.replace(note.desc()) {
                    // The same bytes may be reached by two segments.
                    Some(first) if first.as_ptr() != note.desc().as_ptr() => {
                        return Err(Problem::corrupt(format!("two notes {owner}/{kind}")));
                    }
                    _ => {}
                }
            }
            Err(error) => return Err(Problem::corrupt(format!("its notes: {error}"))),
        }
    }
}

fn truncated(what: &str, needed: u64, length: usize) -> Problem {
    let what = format!("truncated image: {what} reaches to byte {needed}, the file has {length}");
    Problem { foreign: false, what }
}
