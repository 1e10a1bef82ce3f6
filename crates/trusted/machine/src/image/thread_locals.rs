//! The thread-locals: the program's, and those of whoever delivers interrupts.
//!
//! x86-64 uses variant II of ELF TLS: the FS base is the thread pointer, the block lies right below
//! it, and the word it points to holds the pointer itself.
//!
//! Wakers run while the program waits inside [`super::idle`]. Elsewhere another thread would call
//! them, and programs rely on it: tokio's scheduler asks a thread-local whether a wake-up comes from
//! its own thread, and if so spares itself the unparking, because its own thread cannot be parked.
//! So delivery has a block of thread-locals of its own: to everything that it calls it is another
//! thread, one that runs only while the program's stands still. A waker is `Send` and `Sync`, so being
//! called there is what its type allows.

use super::cpu;
use super::layout;
use crate::elf::{self, PT_TLS, ProgramHeader};
use alloc::alloc::{Layout, alloc_zeroed};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What is above the thread pointer: glibc's `tcbhead_t` up to the stack protector's canary at 0x28,
/// which C objects read there, and then some.
const CONTROL_BLOCK_BYTES: usize = 64;

const FS_BASE: u32 = 0xc000_0100;

static PROGRAM: AtomicU64 = AtomicU64::new(0);
static DELIVERY: AtomicU64 = AtomicU64::new(0);
static DELIVERING: AtomicBool = AtomicBool::new(false);

/// Makes both blocks and becomes the program's thread. `None` without memory.
pub(crate) fn init(canary: u64) -> Option<()> {
    PROGRAM.store(make(canary)?, Ordering::Relaxed);
    DELIVERY.store(make(canary)?, Ordering::Relaxed);
    become_thread(&PROGRAM);
    Some(())
}

/// Runs `deliver` as the thread that delivers interrupts; not at all within itself. It is
/// `extern "C"`, so that a panic of a waker's stops there, and ends the machine, instead of unwinding
/// into the other thread.
pub(crate) fn as_delivery(deliver: extern "C" fn()) {
    if DELIVERING.swap(true, Ordering::Relaxed) {
        return;
    }
    become_thread(&DELIVERY);
    deliver();
    become_thread(&PROGRAM);
    DELIVERING.store(false, Ordering::Relaxed);
}

/// Whether [`as_delivery`] is running.
pub(crate) fn is_delivering() -> bool {
    DELIVERING.load(Ordering::Relaxed)
}

fn become_thread(pointer: &AtomicU64) {
    // SAFETY: the pointer is that of a block that `make` made and that is never freed. No reference
    // to a thread-local of this thread is in use by whoever calls: it gets its old ones back.
    unsafe { cpu::write_msr(FS_BASE, pointer.load(Ordering::Relaxed)) }
}

/// Makes a block from the image's template; its thread pointer.
fn make(canary: u64) -> Option<u64> {
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
    // `.tdata`.
    unsafe {
        let pointer = block.add(below);
        let initial = template.address as *const u8;
        let bytes = template.file_bytes as usize;
        core::ptr::copy_nonoverlapping(initial, pointer.sub(offset), bytes);
        pointer.cast::<u64>().write(pointer as u64);
        pointer.add(0x28).cast::<u64>().write(canary);
        Some(pointer as u64)
    }
}
