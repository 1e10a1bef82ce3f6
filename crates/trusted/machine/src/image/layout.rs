//! Where everything lies: the image, the stacks behind their guards, the page tables, the heap.
//!
//! ```text
//! __image_start   constants | code | data        (rights by the image's program headers)
//! __image_end     guard | double-fault stack
//!                 guard | exception stack
//!                 guard | interrupt stack
//!                 guard | main stack
//!                 page tables
//!                 heap, with every other page of RAM
//! ```

use crate::elf::{self, PT_NOTE, ProgramHeader};
use crate::memory_map::{MemoryMap, PAGE_SIZE, Region};
use core::sync::atomic::{AtomicU64, Ordering};

unsafe extern "C" {
    static __ehdr_start: u8;
    static __image_start: u8;
    static __image_end: u8;
    static __boot_scratch_start: u8;
    static __boot_scratch_end: u8;
    static __text_start: u8;
    static __text_end: u8;
}

fn between(start: &'static u8, end: &'static u8) -> Region {
    Region::new(&raw const *start as u64, &raw const *end as u64)
}

/// Every page of the image.
pub(crate) fn image() -> Region {
    // SAFETY: the linker script defines both; only their addresses are used.
    unsafe { between(&__image_start, &__image_end) }
}

/// The part of the image that is needed only until the machine stands.
pub(crate) fn boot_scratch() -> Region {
    // SAFETY: as in `image`.
    unsafe { between(&__boot_scratch_start, &__boot_scratch_end) }
}

/// The code.
pub(crate) fn text() -> Region {
    // SAFETY: as in `image`.
    unsafe { between(&__text_start, &__text_end) }
}

/// The image's program headers: the linker script loads them with the constants.
pub(crate) fn program_headers() -> &'static [ProgramHeader] {
    let header = &raw const __ehdr_start;
    // SAFETY: the linker script puts FILEHDR and PHDRS into the first segment, which is mapped,
    // constant and lives for ever; offset and count are the ELF64 header's (System V ABI, figure 4-3).
    unsafe {
        let offset = header.add(32).cast::<u64>().read_unaligned() as usize;
        let count = usize::from(header.add(56).cast::<u16>().read_unaligned());
        core::slice::from_raw_parts(header.add(offset).cast(), count)
    }
}

/// The build id that the linker wrote into the image: what the host looks symbols up by.
pub fn build_id() -> Option<&'static [u8]> {
    const NT_GNU_BUILD_ID: u32 = 3;
    program_headers().iter().filter(|header| header.kind == PT_NOTE).find_map(|header| {
        // SAFETY: the segment is part of the constants: mapped, never written.
        let notes = unsafe {
            core::slice::from_raw_parts(header.address as *const u8, header.file_bytes as usize)
        };
        elf::note(notes, b"GNU", NT_GNU_BUILD_ID)
    })
}

/// A stack and the absent page below it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stack {
    /// The page that is not mapped: running into it is a stack overflow.
    pub(crate) guard: Region,
    /// The stack itself; it grows down from the end.
    pub(crate) stack: Region,
}

impl Stack {
    fn after(start: u64, bytes: u64) -> Self {
        let guard = Region::new(start, start + PAGE_SIZE);
        Stack { guard, stack: Region::new(guard.end, guard.end + bytes) }
    }
}

/// The plan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// For a fault in the delivery of another.
    pub(crate) double_fault: Stack,
    /// For every other exception; a crash report is formatted on it.
    pub(crate) exception: Stack,
    /// For interrupts, whose handler pushes eight words.
    pub(crate) interrupt: Stack,
    /// For the program.
    pub(crate) main: Stack,
    /// What follows them in their region of RAM: page tables are taken from its start.
    pub(crate) rest: Region,
}

/// The program's stack is a sixteenth of memory, within these bounds. Linux gives a main thread
/// 8 MiB and a spawned one 2 MiB, of which a tokio service touches under 100 KiB; here memory is
/// given, not promised, so the least machine (8 MiB) has a stack of 512 KiB.
const MAIN_STACK_BYTES_MIN: u64 = 256 << 10;
const MAIN_STACK_BYTES_MAX: u64 = 2 << 20;
const EXCEPTION_STACK_BYTES: u64 = 16 << 10;
const INTERRUPT_STACK_BYTES: u64 = PAGE_SIZE;

impl Layout {
    /// Plans the memory after the image; `None` when there is too little.
    pub(crate) fn new(ram: &MemoryMap) -> Option<Layout> {
        let image = image();
        let region = ram.region_of(image.start).filter(|region| image.end <= region.end)?;
        let main_bytes = (ram.total_bytes() / 16).clamp(MAIN_STACK_BYTES_MIN, MAIN_STACK_BYTES_MAX);
        let double_fault = Stack::after(image.end, EXCEPTION_STACK_BYTES);
        let exception = Stack::after(double_fault.stack.end, EXCEPTION_STACK_BYTES);
        let interrupt = Stack::after(exception.stack.end, INTERRUPT_STACK_BYTES);
        let main = Stack::after(interrupt.stack.end, main_bytes / PAGE_SIZE * PAGE_SIZE);
        let rest = Region::new(main.stack.end, region.end);
        (main.stack.end < region.end).then_some(Layout {
            double_fault,
            exception,
            interrupt,
            main,
            rest,
        })
    }

    /// The stacks, lowest first.
    pub(crate) fn stacks(&self) -> [Stack; 4] {
        [self.double_fault, self.exception, self.interrupt, self.main]
    }
}

static MAIN_STACK: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// Notes where the program's stack is.
pub(crate) fn set_main_stack(stack: Region) {
    MAIN_STACK[0].store(stack.start, Ordering::Relaxed);
    MAIN_STACK[1].store(stack.end, Ordering::Relaxed);
}

/// The program's stack; empty before it is known.
pub(crate) fn main_stack() -> Region {
    let [start, end] = &MAIN_STACK;
    Region::new(start.load(Ordering::Relaxed), end.load(Ordering::Relaxed))
}
