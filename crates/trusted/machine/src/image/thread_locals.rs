//! The thread-locals of the one thread.
//!
//! x86-64 uses variant II of ELF TLS: the FS base is the thread pointer, the block lies right below
//! it, and the word it points to holds the pointer itself.

use super::cpu;
use super::layout;
use crate::elf::{self, PT_TLS, ProgramHeader};
use alloc::alloc::{Layout, alloc_zeroed};

/// What is above the thread pointer: glibc's `tcbhead_t` up to the stack protector's canary at 0x28,
/// which C objects read there, and then some.
const CONTROL_BLOCK_BYTES: usize = 64;

/// Makes the block from the image's template and points FS at it. `None` without memory.
pub(crate) fn init(canary: u64) -> Option<()> {
    const FS_BASE: u32 = 0xc000_0100;
    let empty = ProgramHeader { kind: PT_TLS, alignment: 1, ..ProgramHeader::default() };
    let template = layout::program_headers().iter().find(|header| header.kind == PT_TLS);
    let template = template.unwrap_or(&empty);
    let offset = elf::tls_offset(template) as usize;
    let alignment = (template.alignment as usize).max(64);
    // The thread pointer itself must be aligned, so what is below it is rounded up a second time.
    let below = offset.next_multiple_of(alignment);
    let layout = Layout::from_size_align(below + CONTROL_BLOCK_BYTES, alignment).ok()?;
    // SAFETY: the layout has a size.
    let block = unsafe { alloc_zeroed(layout) };
    if block.is_null() {
        return None;
    }
    // SAFETY: the block is as large as the sum of what is written; the template is the image's own
    // `.tdata`; the FS base is used by nothing but thread-locals.
    unsafe {
        let pointer = block.add(below);
        let initial = template.address as *const u8;
        let bytes = template.file_bytes as usize;
        core::ptr::copy_nonoverlapping(initial, pointer.sub(offset), bytes);
        pointer.cast::<u64>().write(pointer as u64);
        pointer.add(0x28).cast::<u64>().write(canary);
        cpu::write_msr(FS_BASE, pointer as u64);
    }
    Some(())
}
