//! The way from the boot loader to `main`.

use super::board::{self, Board};
use super::console::say;
use super::layout::{self, Layout};
use super::{cpu, entropy, heap, memory, power, tables, thread_locals, time, traps};
use crate::command_line::{self, CommandLine};
use crate::memory_map::{MemoryMap, Region};
use alloc::ffi::CString;
use alloc::vec::Vec;
use core::arch::global_asm;
use core::ffi::{c_char, c_int};

global_asm!(
    include_str!("boot.s"),
    entry_tsc = sym time::ENTRY_TICKS,
    early = sym early,
    boot = sym boot,
);

/// `hvm_start_info` (Xen, public/arch-x86/hvm/start_info.h), version 1.
#[repr(C)]
#[derive(Clone, Copy)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    module_count: u32,
    modules: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

const _: () = assert!(size_of::<StartInfo>() == 56);

/// `hvm_memmap_table_entry`.
#[repr(C)]
#[derive(Clone, Copy)]
struct MemoryMapEntry {
    address: u64,
    bytes: u64,
    kind: u32,
    reserved: u32,
}

const MAGIC: u32 = 0x336e_c578;
/// The kind of entry that is RAM (E820's number).
const KIND_RAM: u32 = 1;
/// How many entries are believed; E820 itself had 128.
const MEMORY_MAP_ENTRIES_MAX: u32 = 256;
/// What `boot.s` maps, and with that the end of where a loader may put what it hands over.
pub(super) const BOOT_MAPPED_END: u64 = 4 << 30;

/// What `early` leaves for `boot`, in memory that the heap gets afterwards. Everything the loader
/// handed over is copied here first, because it lies in RAM that is about to be used.
struct Handover {
    command_line: [u8; command_line::LENGTH_MAX + 1],
    command_line_bytes: usize,
    ram: MemoryMap,
    board: Board,
    rest: Region,
}

#[unsafe(link_section = ".bss.fata_boot_scratch")]
static mut HANDOVER: core::mem::MaybeUninit<Handover> = core::mem::MaybeUninit::zeroed();

/// The handover.
///
/// # Safety
/// No other reference to it may be alive, and its memory must not be the heap's yet.
unsafe fn handover() -> &'static mut Handover {
    let place = &raw mut HANDOVER;
    // SAFETY: the caller's promise; it is zeroed, which every field may be.
    unsafe { (*place).assume_init_mut() }
}

/// A structure that the loader left at `address`.
fn read<T: Copy>(address: u64) -> Option<T> {
    let end = address.checked_add(size_of::<T>() as u64)?;
    // SAFETY: mapped, as above; `T` is one of the two structures here, of integers.
    (address > 0 && end <= BOOT_MAPPED_END)
        .then(|| unsafe { (address as *const T).read_unaligned() })
}

/// The first Rust code: no heap, no thread-locals (so nothing here may panic), the boot's page tables
/// and stack. Gives the top of the program's stack.
unsafe extern "C" fn early(start_info: u64) -> u64 {
    board::port::init();
    // SAFETY: nobody else knows of it yet.
    let handover = unsafe { handover() };
    let info = match read::<StartInfo>(start_info) {
        Some(info) if info.magic == MAGIC && info.version >= 1 => info,
        _ => power::refuse(format_args!("the loader gave no hvm_start_info of version 1")),
    };
    copy_command_line(info.command_line, handover);
    let count = info.memory_map_entries.min(MEMORY_MAP_ENTRIES_MAX);
    let entries = (0..u64::from(count)).filter_map(|index| {
        let at = info.memory_map.checked_add(index * size_of::<MemoryMapEntry>() as u64)?;
        let entry = read::<MemoryMapEntry>(at)?;
        Some((entry.address, entry.bytes, entry.kind == KIND_RAM))
    });
    handover.ram = MemoryMap::from_entries(entries);
    if let Err(why) = handover.board.early(info.rsdp, &mut handover.ram) {
        power::refuse(format_args!("{why}"));
    }
    let Some(layout) = Layout::new(&handover.ram) else {
        let (have, need) = (handover.ram.total_bytes() >> 10, (layout::image().end >> 10) + 512);
        power::refuse(format_args!(
            "memory is too small: {have} KiB, and the image with its stacks needs {need} KiB"
        ))
    };
    layout::set_main_stack(layout.main.stack);
    traps::init(&layout);
    cpu::enable_features();
    match tables::init(&handover.ram, &layout, handover.board.pages()) {
        Ok(rest) => handover.rest = rest,
        Err(error) => power::refuse(format_args!("the page tables cannot be made: {error:?}")),
    }
    layout.main.stack.end
}

/// Copies the loader's command line, or says that it is too long.
fn copy_command_line(address: u64, handover: &mut Handover) {
    if address == 0 {
        return;
    }
    for (index, place) in handover.command_line.iter_mut().enumerate() {
        match read::<u8>(address + index as u64) {
            None | Some(0) => return handover.command_line_bytes = index,
            Some(byte) => *place = byte,
        }
    }
    power::refuse(format_args!("{}", command_line::CommandLineError::TooLong))
}

/// On the program's stack, under the lasting page tables: everything else, then `main`.
unsafe extern "C" fn boot() -> ! {
    // SAFETY: `early` filled it and is gone; the reference ends before the heap gets the memory.
    let handover = unsafe { handover() };
    memory::set_ram(&handover.ram);
    claim_heap(&handover.ram, handover.rest);
    // Not random yet; overwritten below once there is a generator. No Rust code uses it.
    if thread_locals::init(cpu::ticks()).is_none() {
        power::refuse(format_args!("memory is too small for the program's thread-locals"));
    }
    let clocks = match handover.board.start() {
        Ok(clocks) => clocks,
        Err(why) => power::refuse(format_args!("{why}")),
    };
    if let Err(why) = time::init(clocks) {
        power::refuse(format_args!("no clock: {why}"));
    }
    entropy::init();
    let line = &handover.command_line[..handover.command_line_bytes];
    let line = match CommandLine::parse(line) {
        Ok(line) => line,
        Err(error) => power::refuse(format_args!("{error}")),
    };
    let dropped = handover.ram.dropped_bytes();
    if dropped > 0 {
        say!("{} KiB of memory are in too many pieces and not used", dropped >> 10);
    }
    board::set_command_line(&line);
    // SAFETY: nothing refers to the boot's tables, stack or handover any more.
    unsafe { heap::claim(layout::boot_scratch()) };
    run(line)
}

/// Gives the heap every page of RAM that is not the image, a stack, a guard, a table, or page zero.
fn claim_heap(ram: &MemoryMap, rest: Region) {
    let mut free = ram.clone();
    free.remove(Region::new(0, crate::memory_map::PAGE_SIZE));
    free.remove(Region::new(layout::image().start, rest.start));
    // The region that everything else is in comes first: talc keeps its own tables at its start.
    let first = free.region_of(rest.start);
    let others = free.regions().iter().copied().filter(|region| Some(*region) != first);
    for region in first.into_iter().chain(others) {
        // SAFETY: `tables::init` mapped all RAM as data, and the plan has no other user for it.
        unsafe { heap::claim(region) };
    }
}

type Constructor = extern "C" fn(c_int, *const *const c_char, *const *const c_char);

unsafe extern "C" {
    /// What rustc makes of the program's `fn main()`.
    fn main(argc: c_int, argv: *const *const c_char, envp: *const *const c_char) -> c_int;
    static __init_array_start: Constructor;
    static __init_array_end: Constructor;
}

/// Runs constructors and `main` as a C start-up would, and ends the machine with what it returns.
fn run(line: CommandLine) -> ! {
    // The parser refused zero bytes, so no word is lost here.
    let arguments = core::iter::once("fata".into()).chain(line.arguments);
    let arguments: Vec<CString> = arguments.flat_map(CString::new).collect();
    let mut argv: Vec<*const c_char> = arguments.iter().map(|word| word.as_ptr()).collect();
    argv.push(core::ptr::null());
    super::symbols::environment::set(line.environment);
    let envp = super::symbols::environment::pointer();
    let (argc, argv_pointer) = (arguments.len() as c_int, argv.as_ptr());
    let (first, end) = (&raw const __init_array_start, &raw const __init_array_end);
    let count = (end as usize - first as usize) / size_of::<Constructor>();
    for index in 0..count {
        // SAFETY: the linker gathered the image's constructors between the two symbols; glibc gives
        // them these arguments, and std's own, which keeps them for `env::args`, expects that.
        unsafe { (*first.add(index))(argc, argv_pointer, envp) }
    }
    // SAFETY: the arguments are as C wants them and live as long as the machine.
    let code = unsafe { main(argc, argv_pointer, envp) };
    power::exit(code as u8)
}
