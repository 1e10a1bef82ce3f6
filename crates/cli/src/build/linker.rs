//! The linker of an image: the computer's own, once std's symboliser is out of reach.
//!
//! std carries a reader of DWARF, a decompressor and a demangler (215 KB with their unwind tables, a
//! third of `hello`) to give the frames of a backtrace their names. It reads them from
//! `/proc/self/exe`, which no image has, so in an image it can find nothing: it is the host that
//! names frames, from the unstripped program. Stable Rust has no switch to leave it out, and code
//! that is called cannot be dropped.
//!
//! So the call goes. rustc starts this tool as the linker, under the name [`NAME`]; in the object
//! that link-time optimisation made, every reference to the start of a function in [`UNREACHED`] is
//! pointed at the machine's `fata_absent`, which returns zero; then the real linker runs, and its
//! collection of unreferenced sections does the rest, unwind tables included. Nothing is cut out of
//! a program by hand: whatever is still referenced (by a function of an application that uses gimli
//! itself, say) is linked as ever. A standard library whose functions have other names gives a
//! bigger image, and no other one.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use object::LittleEndian as LE;
use object::elf::{
    FileHeader64, R_X86_64_32, R_X86_64_32S, R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32, SHF_ALLOC,
    SHF_EXECINSTR, SHT_SYMTAB, STT_FUNC, STT_SECTION,
};
use object::read::elf::{FileHeader as _, Rela as _, SectionHeader as _, Sym as _};

use crate::failure::Exit;

/// The name under which the tool is the linker; the number grows with [`unreach`]'s changes, so
/// that cargo links anew.
pub(crate) const NAME: &str = "fata-linker-1";

/// How the names begin, demangled, of the functions that are not called in an image. Each may
/// return zero and do nothing by its own contract:
const UNREACHED: [&str; 2] = [
    // fn(impl FnOnce(&mut Cache)): its caller learns of symbols through the closure, and takes that
    // it is not called for "no symbol".
    "<std::backtrace_rs::symbolize::gimli::Cache>::with_global::<",
    // fn(&SymbolName, &mut Formatter) -> fmt::Result: zero is Ok. Without the one above there is no
    // symbol and no name; this is what keeps the demangler linked.
    "<std::backtrace_rs::symbolize::SymbolName as core::fmt::Display>::fmt",
];

/// cargo's variable for the linker of [`super::recipe::RUST_TARGET`].
const LINKER_VARIABLE: &str = "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER";

/// The machine's function that stands for them: `xor eax, eax; ret`.
const ABSENT: &str = "fata_absent";

/// If rustc started this process as a linker, becomes one; returns only otherwise.
pub(crate) fn become_linker() {
    let mut words = std::env::args_os();
    let own_name = words.next().unwrap_or_default();
    if Path::new(&own_name).file_name() != Some(OsStr::new(NAME)) {
        return;
    }
    let words: Vec<OsString> = words.collect();
    for object in words.iter().filter(|word| word.as_encoded_bytes().ends_with(b".rcgu.o")) {
        // An object that cannot be read or understood is the linker's to complain of.
        let Ok(mut bytes) = std::fs::read(object) else { continue };
        if unreach(&mut bytes) > 0
            && let Err(error) = std::fs::write(object, &bytes)
        {
            failure(&format!("cannot write {}: {error}", object.display()));
        }
    }
    // What cargo itself would have started.
    let linker = std::env::var_os(LINKER_VARIABLE).unwrap_or_else(|| "cc".into());
    let error = Command::new(&linker).args(words).exec();
    failure(&format!("cannot start the linker {}: {error}", linker.display()));
}

fn failure(what: &str) -> ! {
    // rustc shows what a failed linker says.
    eprintln!("{what}");
    std::process::exit(i32::from(Exit::Internal.code()))
}

/// Points the references to [`UNREACHED`] functions in an object at [`ABSENT`]; how many it were.
fn unreach(object: &mut [u8]) -> usize {
    let changes = references(object).unwrap_or_default();
    for change in &changes {
        if let Some(place) = object.get_mut(change.symbol_at..change.symbol_at + 4) {
            place.copy_from_slice(&change.symbol.to_le_bytes());
        }
    }
    changes.len()
}

/// A relocation that is to name another symbol.
struct Change {
    /// Where in the file its symbol's index is: the upper half of `r_info` (ELF64, figure 4-10).
    symbol_at: usize,
    /// The index that belongs there.
    symbol: u32,
}

/// The references to change; `None` if the object has no [`ABSENT`], or is no object of ours.
fn references(data: &[u8]) -> Option<Vec<Change>> {
    let header = FileHeader64::<LE>::parse(data).ok()?;
    let sections = header.sections(LE, data).ok()?;
    let symbols = sections.symbols(LE, data, SHT_SYMTAB).ok()?;
    let name_of = |symbol: &object::elf::Sym64<LE>| symbol.name(LE, symbols.strings()).ok();

    let absent = symbols.enumerate().find(|(_, symbol)| name_of(symbol) == Some(ABSENT.as_bytes()));
    let absent = u32::try_from(absent?.0.0).ok()?;
    let mut unreached = Vec::new();
    for (index, symbol) in symbols.enumerate() {
        if symbol.st_type() == STT_FUNC
            // In a section of its own, so that a section and an addend say which function is meant.
            && symbol.st_value(LE) == 0
            && let Some(section) = symbols.symbol_section(LE, symbol, index).ok()?
            && name_of(symbol).is_some_and(is_unreached)
        {
            unreached.push(section);
        }
    }

    let mut changes = Vec::new();
    for section in sections.iter() {
        let Ok(Some((relocations, _))) = section.rela(LE, data) else { continue };
        let holder_index = section.info_link(LE);
        let holder = sections.section(holder_index).ok()?;
        let flags = holder.sh_flags(LE);
        // Debug information and unwind tables describe a function and do not call it; the linker
        // drops what they say of a section that it drops.
        let described = sections.section_name(LE, holder).ok()? == b".eh_frame";
        if !flags.contains(SHF_ALLOC) || described || unreached.contains(&holder_index) {
            continue;
        }
        let table_at = usize::try_from(section.sh_offset(LE)).ok()?;
        for (position, relocation) in relocations.iter().enumerate() {
            let Some(index) = relocation.symbol(LE, false) else { continue };
            let symbol = symbols.symbol(index).ok()?;
            let names_function = matches!(symbol.st_type(), STT_FUNC | STT_SECTION)
                && symbol.st_value(LE) == 0
                && symbols
                    .symbol_section(LE, symbol, index)
                    .ok()?
                    .is_some_and(|section| unreached.contains(&section));
            let start = match relocation.r_type(LE, false) {
                // A call, or its address taken relative to an instruction: from the field's end.
                R_X86_64_PC32 | R_X86_64_PLT32 if flags.contains(SHF_EXECINSTR) => -4,
                R_X86_64_64 | R_X86_64_32 | R_X86_64_32S => 0,
                _ => continue,
            };
            if names_function && relocation.r_addend(LE) == start {
                let entry_at = table_at + position * size_of_val(relocation);
                changes.push(Change { symbol_at: entry_at + 12, symbol: absent });
            }
        }
    }
    Some(changes)
}

fn is_unreached(mangled: &[u8]) -> bool {
    // Demangling a name takes a while, and there are thousands.
    const CRATE: &[u8] = b"12backtrace_rs9symbolize";
    mangled.windows(CRATE.len()).any(|window| window == CRATE)
        && std::str::from_utf8(mangled).is_ok_and(|mangled| {
            let name = format!("{:#}", rustc_demangle::demangle(mangled));
            UNREACHED.iter().any(|beginning| name.starts_with(beginning))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::elf::{R_X86_64_GOTPCREL, RelocationType};
    use object::write::{Object, Relocation, SectionId, Symbol, SymbolId, SymbolSection};
    use object::{
        Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags,
        SymbolKind, SymbolScope,
    };
    use proptest::prelude::*;

    const WITH_GLOBAL: &str = "_RINvMs0_NtNtNtCsjrHSEGnQ3l9_3std12backtrace_rs9symbolize5gimliNtB6_\
                               5Cache11with_globalNCNvB6_7resolves_0EBc_";
    const NAME_FMT: &str = "_RNvXs2_NtNtCsjrHSEGnQ3l9_3std12backtrace_rs9symbolizeNtB5_10SymbolName\
                            NtNtCsgEmfK2I1SDS_4core3fmt7Display3fmt";
    /// The same method of a crate `app`, and a sibling of std's.
    const OTHERS: [&str; 2] = [
        "_RINvMs0_NtNtNtCsjrHSEGnQ3l9_3app12backtrace_rs9symbolize5gimliNtB6_5Cache11with_globalNC\
         NvB6_7resolves_0EBc_",
        "_RNvMs_NtNtNtCsjrHSEGnQ3l9_3std12backtrace_rs9symbolize5gimliNtB4_7Context3new",
    ];

    /// An object as rustc makes them: a section for each function.
    struct Sample(Object<'static>);

    impl Sample {
        fn new() -> Self {
            Sample(Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little))
        }

        fn section(&mut self, name: &str, kind: SectionKind) -> SectionId {
            let section = self.0.add_section(Vec::new(), name.into(), kind);
            self.0.append_section_data(section, &[0; 64], 16);
            section
        }

        fn function(&mut self, name: &str) -> (SectionId, SymbolId) {
            let section = self.section(&format!(".text.{name}"), SectionKind::Text);
            let symbol = self.0.add_symbol(Symbol {
                name: name.into(),
                value: 0,
                size: 64,
                kind: SymbolKind::Text,
                scope: SymbolScope::Compilation,
                weak: false,
                section: SymbolSection::Section(section),
                flags: SymbolFlags::None,
            });
            (section, symbol)
        }

        fn refer(&mut self, from: SectionId, to: SymbolId, r_type: RelocationType, addend: i64) {
            let flags = RelocationFlags::Elf { r_type };
            let relocation = Relocation { offset: 8, symbol: to, addend, flags };
            self.0.add_relocation(from, relocation).unwrap();
        }

        /// How many references to `to` of each kind that there is are changed.
        fn changed_to(to: &str) -> [usize; 4] {
            let mut counts = [0; 4];
            for (kind, count) in counts.iter_mut().enumerate() {
                let mut sample = Sample::new();
                sample.function(ABSENT);
                let (caller, _) = sample.function("caller");
                let vtable = sample.section(".data.rel.ro.vtable", SectionKind::ReadOnlyData);
                let (own, symbol) = sample.function(to);
                let by_section = sample.0.section_symbol(own);
                match kind {
                    0 => sample.refer(caller, symbol, R_X86_64_PLT32, -4),
                    1 => sample.refer(caller, by_section, R_X86_64_PLT32, -4),
                    2 => sample.refer(caller, by_section, R_X86_64_32S, 0),
                    _ => sample.refer(vtable, by_section, R_X86_64_64, 0),
                }
                *count = unreach(&mut sample.0.write().unwrap());
            }
            counts
        }
    }

    #[test]
    fn every_way_to_refer_to_a_functions_start_is_changed() {
        assert_eq!(Sample::changed_to(WITH_GLOBAL), [1; 4]);
        assert_eq!(Sample::changed_to(NAME_FMT), [1; 4]);
    }

    #[test]
    fn functions_of_other_crates_and_other_functions_of_std_are_let_be() {
        for other in OTHERS {
            assert_eq!(Sample::changed_to(other), [0; 4], "{other}");
        }
    }

    #[test]
    fn the_changed_reference_names_the_machines_function_and_nothing_else_changes() {
        let mut sample = Sample::new();
        sample.function(ABSENT);
        let (caller, _) = sample.function("caller");
        let (_, symbol) = sample.function(WITH_GLOBAL);
        sample.refer(caller, symbol, R_X86_64_PLT32, -4);
        let before = sample.0.write().unwrap();
        let mut after = before.clone();
        assert_eq!(unreach(&mut after), 1);
        assert_eq!(unreach(&mut after), 0, "a second run of the linker finds nothing to do");

        let different: Vec<usize> =
            (0..before.len()).filter(|&at| before[at] != after[at]).collect();
        let change = &references(&before).unwrap()[0];
        assert!(different.iter().all(|at| (change.symbol_at..change.symbol_at + 4).contains(at)));
        let header = FileHeader64::<LE>::parse(&*after).unwrap();
        let sections = header.sections(LE, &*after).unwrap();
        let symbols = sections.symbols(LE, &*after, SHT_SYMTAB).unwrap();
        let named = symbols.symbol(object::SymbolIndex(change.symbol as usize)).unwrap();
        assert_eq!(named.name(LE, symbols.strings()), Ok(ABSENT.as_bytes()));
    }

    #[test]
    fn what_describes_or_lies_inside_a_function_is_let_be() {
        let mut sample = Sample::new();
        sample.function(ABSENT);
        let (caller, _) = sample.function("caller");
        let frames = sample.section(".eh_frame", SectionKind::ReadOnlyData);
        let lines = sample.section(".debug_line", SectionKind::Debug);
        let (own, symbol) = sample.function(WITH_GLOBAL);
        sample.refer(frames, symbol, R_X86_64_PC32, 0);
        sample.refer(frames, symbol, R_X86_64_64, 0);
        sample.refer(lines, symbol, R_X86_64_64, 0);
        sample.refer(own, symbol, R_X86_64_PLT32, -4); // it calls itself
        sample.refer(caller, symbol, R_X86_64_32, 0x1a); // a jump table's line
        sample.refer(caller, symbol, R_X86_64_GOTPCREL, -4);
        assert_eq!(unreach(&mut sample.0.write().unwrap()), 0);
    }

    #[test]
    fn an_object_without_the_machine_is_let_be() {
        let mut sample = Sample::new();
        let (caller, _) = sample.function("caller");
        let (_, symbol) = sample.function(WITH_GLOBAL);
        sample.refer(caller, symbol, R_X86_64_PLT32, -4);
        assert_eq!(unreach(&mut sample.0.write().unwrap()), 0);
    }

    fn sample_bytes() -> Vec<u8> {
        let mut sample = Sample::new();
        sample.function(ABSENT);
        let (caller, _) = sample.function("caller");
        let (_, symbol) = sample.function(WITH_GLOBAL);
        sample.refer(caller, symbol, R_X86_64_PLT32, -4);
        sample.0.write().unwrap()
    }

    proptest! {
        #[test]
        fn a_broken_object_never_panics(
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..40),
            length in any::<prop::sample::Index>(),
            cut: bool,
        ) {
            let mut bytes = sample_bytes();
            for (at, value) in damage {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if cut {
                bytes.truncate(length.index(bytes.len()));
            }
            unreach(&mut bytes);
        }
    }
}
