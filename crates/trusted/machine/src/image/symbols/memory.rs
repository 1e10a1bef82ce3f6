//! Moving and comparing bytes, and the heap under its C names.
//!
//! The compiler emits calls of `memcpy`, `memmove`, `memset` and `memcmp` by itself, for any copy it
//! likes; a Rust loop here could be recognised as a copy and become a call of itself. So these are
//! assembly. They move 16 bytes at a time with SSE2, which every x86-64 has: on hardware that is about
//! as fast as `rep movsb` for the sizes that matter. What overlaps or is left over at an end is loaded
//! before anything is stored, so that no byte is looked at after it was changed, and there is no loop
//! over single bytes.
//!
//! QEMU's emulation keeps such a register in memory, writes it there in two halves and reads it as a
//! whole, for which the real processor's stores have to arrive first: half of the time of a stream.
//! There, long moves go through ordinary registers. (It does `rep movsb` byte by byte.)

use super::errno::{EINVAL, ENOMEM};
use crate::image::cpu;
use alloc::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc as rust_realloc};
use core::arch::naked_asm;
use core::ffi::{c_int, c_void};
use core::ptr::null_mut;

/// Copies `bytes` from `from` to `to`; they may overlap.
///
/// # Safety
/// C's: both are valid for `bytes`.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memmove(to: *mut c_void, from: *const c_void, bytes: usize) -> *mut c_void {
    naked_asm!(
        "mov rax, rdi",
        "cmp rdx, 16",
        "jb 4f",
        "cmp rdx, 32",
        "ja 2f",
        // 16 to 32: two halves that may share bytes.
        "movups xmm0, [rsi]",
        "movups xmm1, [rsi + rdx - 16]",
        "movups [rdi], xmm0",
        "movups [rdi + rdx - 16], xmm1",
        "ret",
        "2:",
        "cmp rdx, 64",
        "ja 3f",
        // 33 to 64.
        "movups xmm0, [rsi]",
        "movups xmm1, [rsi + 16]",
        "movups xmm2, [rsi + rdx - 32]",
        "movups xmm3, [rsi + rdx - 16]",
        "movups [rdi], xmm0",
        "movups [rdi + 16], xmm1",
        "movups [rdi + rdx - 32], xmm2",
        "movups [rdi + rdx - 16], xmm3",
        "ret",
        "3:",
        "mov rcx, rdi",
        "sub rcx, rsi",
        "cmp rcx, rdx",
        "jb 5f",
        // Upwards: the last 64 bytes are loaded first and stored last.
        "movups xmm4, [rsi + rdx - 64]",
        "movups xmm5, [rsi + rdx - 48]",
        "movups xmm6, [rsi + rdx - 32]",
        "movups xmm7, [rsi + rdx - 16]",
        "lea rcx, [rdi + rdx - 64]",
        "sub rsi, rdi",
        "cmp byte ptr [rip + {is_emulated}], 0",
        "jne 10f",
        ".balign 16",
        "6:",
        "movups xmm0, [rdi + rsi]",
        "movups xmm1, [rdi + rsi + 16]",
        "movups xmm2, [rdi + rsi + 32]",
        "movups xmm3, [rdi + rsi + 48]",
        "movups [rdi], xmm0",
        "movups [rdi + 16], xmm1",
        "movups [rdi + 32], xmm2",
        "movups [rdi + 48], xmm3",
        "add rdi, 64",
        "cmp rdi, rcx",
        "jb 6b",
        "12:",
        "movups [rcx], xmm4",
        "movups [rcx + 16], xmm5",
        "movups [rcx + 32], xmm6",
        "movups [rcx + 48], xmm7",
        "ret",
        // Downwards, when the target begins inside the source: the first 64 bytes likewise.
        "5:",
        "movups xmm4, [rsi]",
        "movups xmm5, [rsi + 16]",
        "movups xmm6, [rsi + 32]",
        "movups xmm7, [rsi + 48]",
        "lea rcx, [rdi + rdx]",
        "lea r8, [rdi + 64]",
        "sub rsi, rdi",
        "cmp byte ptr [rip + {is_emulated}], 0",
        "jne 11f",
        ".balign 16",
        "7:",
        "movups xmm0, [rcx + rsi - 16]",
        "movups xmm1, [rcx + rsi - 32]",
        "movups xmm2, [rcx + rsi - 48]",
        "movups xmm3, [rcx + rsi - 64]",
        "movups [rcx - 16], xmm0",
        "movups [rcx - 32], xmm1",
        "movups [rcx - 48], xmm2",
        "movups [rcx - 64], xmm3",
        "sub rcx, 64",
        "cmp rcx, r8",
        "ja 7b",
        "13:",
        "movups [rdi], xmm4",
        "movups [rdi + 16], xmm5",
        "movups [rdi + 32], xmm6",
        "movups [rdi + 48], xmm7",
        "ret",
        // Below 16: 8 to 15, 4 to 7, 1 to 3, none.
        "4:",
        "cmp edx, 8",
        "jb 8f",
        "mov rcx, [rsi]",
        "mov r8, [rsi + rdx - 8]",
        "mov [rdi], rcx",
        "mov [rdi + rdx - 8], r8",
        "ret",
        "8:",
        "cmp edx, 4",
        "jb 9f",
        "mov ecx, [rsi]",
        "mov r8d, [rsi + rdx - 4]",
        "mov [rdi], ecx",
        "mov [rdi + rdx - 4], r8d",
        "ret",
        "9:",
        "test edx, edx",
        "jz 22f",
        "movzx ecx, byte ptr [rsi]",
        "movzx r8d, byte ptr [rsi + rdx - 1]",
        "mov r9, rdx",
        "shr r9, 1",
        "movzx esi, byte ptr [rsi + r9]",
        "mov [rdi + r9], sil",
        "mov [rdi], cl",
        "mov [rdi + rdx - 1], r8b",
        "22:",
        "ret",
        // The loops at 6 and 7, in words of eight.
        ".balign 16",
        "10:",
        "mov rdx, [rdi + rsi]",
        "mov r8, [rdi + rsi + 8]",
        "mov r9, [rdi + rsi + 16]",
        "mov r10, [rdi + rsi + 24]",
        "mov [rdi], rdx",
        "mov [rdi + 8], r8",
        "mov [rdi + 16], r9",
        "mov [rdi + 24], r10",
        "mov rdx, [rdi + rsi + 32]",
        "mov r8, [rdi + rsi + 40]",
        "mov r9, [rdi + rsi + 48]",
        "mov r10, [rdi + rsi + 56]",
        "mov [rdi + 32], rdx",
        "mov [rdi + 40], r8",
        "mov [rdi + 48], r9",
        "mov [rdi + 56], r10",
        "add rdi, 64",
        "cmp rdi, rcx",
        "jb 10b",
        "jmp 12b",
        ".balign 16",
        "11:",
        "mov rdx, [rcx + rsi - 8]",
        "mov r11, [rcx + rsi - 16]",
        "mov r9, [rcx + rsi - 24]",
        "mov r10, [rcx + rsi - 32]",
        "mov [rcx - 8], rdx",
        "mov [rcx - 16], r11",
        "mov [rcx - 24], r9",
        "mov [rcx - 32], r10",
        "mov rdx, [rcx + rsi - 40]",
        "mov r11, [rcx + rsi - 48]",
        "mov r9, [rcx + rsi - 56]",
        "mov r10, [rcx + rsi - 64]",
        "mov [rcx - 40], rdx",
        "mov [rcx - 48], r11",
        "mov [rcx - 56], r9",
        "mov [rcx - 64], r10",
        "sub rcx, 64",
        "cmp rcx, r8",
        "ja 11b",
        "jmp 13b",
        is_emulated = sym cpu::IS_EMULATED,
    )
}

/// Copies `bytes` from `from` to `to`. The same as [`memmove`]: the one comparison that it costs buys
/// that a mistaken overlap is not memory corruption.
///
/// # Safety
/// C's: both are valid for `bytes`.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memcpy(to: *mut c_void, from: *const c_void, bytes: usize) -> *mut c_void {
    naked_asm!("jmp {memmove}", memmove = sym memmove)
}

/// Fills `bytes` at `to` with `value`.
///
/// # Safety
/// C's: `to` is valid for `bytes`.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memset(to: *mut c_void, value: c_int, bytes: usize) -> *mut c_void {
    naked_asm!(
        "mov rax, rdi",
        "movzx esi, sil",
        "mov rcx, 0x0101010101010101",
        "imul rsi, rcx",
        "cmp rdx, 16",
        "jb 4f",
        "movq xmm0, rsi",
        "punpcklqdq xmm0, xmm0",
        "lea rcx, [rdi + rdx]",
        "cmp rdx, 64",
        "jbe 3f",
        // Whole groups of 64 upwards, then the last 64 from the end.
        "lea r8, [rcx - 64]",
        ".balign 16",
        "2:",
        "movups [rdi], xmm0",
        "movups [rdi + 16], xmm0",
        "movups [rdi + 32], xmm0",
        "movups [rdi + 48], xmm0",
        "add rdi, 64",
        "cmp rdi, r8",
        "jb 2b",
        "movups [rcx - 64], xmm0",
        "movups [rcx - 48], xmm0",
        "movups [rcx - 32], xmm0",
        "movups [rcx - 16], xmm0",
        "ret",
        "3:",
        "movups [rdi], xmm0",
        "movups [rcx - 16], xmm0",
        "cmp rdx, 32",
        "jbe 22f",
        "movups [rdi + 16], xmm0",
        "movups [rcx - 32], xmm0",
        "22:",
        "ret",
        "4:",
        "cmp edx, 8",
        "jb 5f",
        "mov [rdi], rsi",
        "mov [rdi + rdx - 8], rsi",
        "ret",
        "5:",
        "cmp edx, 4",
        "jb 6f",
        "mov [rdi], esi",
        "mov [rdi + rdx - 4], esi",
        "ret",
        "6:",
        "test edx, edx",
        "jz 22b",
        "mov [rdi], sil",
        "mov [rdi + rdx - 1], sil",
        "shr edx, 1",
        "mov [rdi + rdx], sil",
        "ret",
    )
}

/// Compares as unsigned bytes: the sign of the first difference.
///
/// # Safety
/// C's: both are valid for `bytes`.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memcmp(a: *const c_void, b: *const c_void, bytes: usize) -> c_int {
    naked_asm!(
        "cmp rdx, 16",
        "jb 4f",
        // The last 16 bytes are looked at last, wherever they begin.
        "lea r8, [rdx - 16]",
        "xor ecx, ecx",
        "2:",
        "movups xmm0, [rdi + rcx]",
        "movups xmm1, [rsi + rcx]",
        "pcmpeqb xmm0, xmm1",
        "pmovmskb eax, xmm0",
        "xor eax, 0xffff",
        "jnz 3f",
        "cmp rcx, r8",
        "je 22f",
        "add rcx, 16",
        "cmp rcx, r8",
        "cmova rcx, r8",
        "jmp 2b",
        "3:",
        "bsf eax, eax",
        "add rcx, rax",
        "movzx eax, byte ptr [rdi + rcx]",
        "movzx edx, byte ptr [rsi + rcx]",
        "sub eax, edx",
        "ret",
        "22:",
        "xor eax, eax",
        "ret",
        // Below 16: as big-endian numbers, which order as the bytes do.
        "4:",
        "cmp edx, 8",
        "jb 6f",
        "mov rax, [rdi]",
        "mov rcx, [rsi]",
        "cmp rax, rcx",
        "jne 5f",
        "mov rax, [rdi + rdx - 8]",
        "mov rcx, [rsi + rdx - 8]",
        "cmp rax, rcx",
        "je 22b",
        "5:",
        "bswap rax",
        "bswap rcx",
        "cmp rax, rcx",
        "sbb eax, eax",
        "or eax, 1",
        "ret",
        "6:",
        "cmp edx, 4",
        "jb 8f",
        "mov eax, [rdi]",
        "mov ecx, [rsi]",
        "cmp eax, ecx",
        "jne 7f",
        "mov eax, [rdi + rdx - 4]",
        "mov ecx, [rsi + rdx - 4]",
        "cmp eax, ecx",
        "je 22b",
        "7:",
        "bswap eax",
        "bswap ecx",
        "cmp eax, ecx",
        "sbb eax, eax",
        "or eax, 1",
        "ret",
        "8:",
        "test edx, edx",
        "jz 22b",
        "movzx eax, byte ptr [rdi]",
        "movzx ecx, byte ptr [rsi]",
        "sub eax, ecx",
        "jnz 9f",
        "inc rdi",
        "inc rsi",
        "dec edx",
        "jmp 8b",
        "9:",
        "ret",
    )
}

/// Whether two pieces of memory differ: the same as [`memcmp`].
///
/// # Safety
/// C's: both are valid for `bytes`.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn bcmp(a: *const c_void, b: *const c_void, bytes: usize) -> c_int {
    naked_asm!("jmp {memcmp}", memcmp = sym memcmp)
}

/// What `malloc` keeps below the memory that it gives: how large and how aligned it is.
#[derive(Clone, Copy)]
struct Header {
    bytes: usize,
    alignment: usize,
}

/// `max_align_t` of x86-64, and the size of [`Header`].
const ALIGNMENT: usize = 16;

impl Header {
    /// The whole block: the header, padded to the alignment, and the memory.
    fn layout(self) -> Option<Layout> {
        let bytes = self.bytes.checked_add(self.alignment)?;
        Layout::from_size_align(bytes, self.alignment).ok()
    }

    /// The header below what `malloc` gave, and the block's start.
    ///
    /// # Safety
    /// `memory` came from [`allocate`] and was not freed.
    unsafe fn of(memory: *mut c_void) -> (Header, *mut u8) {
        // SAFETY: `allocate` wrote it there.
        let header = unsafe { memory.cast::<Header>().sub(1).read() };
        // SAFETY: the memory begins `alignment` bytes into its block.
        (header, unsafe { memory.cast::<u8>().sub(header.alignment) })
    }
}

fn allocate(bytes: usize, alignment: usize, zeroed: bool) -> *mut c_void {
    let header = Header { bytes, alignment: alignment.max(ALIGNMENT) };
    let block = match header.layout() {
        // SAFETY: the layout has a size: there is the header.
        Some(layout) if zeroed => unsafe { alloc_zeroed(layout) },
        // SAFETY: as above.
        Some(layout) => unsafe { alloc(layout) },
        None => null_mut(),
    };
    if block.is_null() {
        ENOMEM.fail();
        return null_mut();
    }
    // SAFETY: the block is `alignment` (at least a header) longer than `bytes`.
    unsafe {
        let memory = block.add(header.alignment);
        memory.cast::<Header>().sub(1).write(header);
        memory.cast()
    }
}

/// Memory from the heap, aligned to 16; null and `ENOMEM` when there is none.
#[unsafe(no_mangle)]
extern "C" fn malloc(bytes: usize) -> *mut c_void {
    allocate(bytes, ALIGNMENT, false)
}

/// Zeroed memory for `count` things of `bytes`; null and `ENOMEM` when there is none or the product
/// overflows.
#[unsafe(no_mangle)]
extern "C" fn calloc(count: usize, bytes: usize) -> *mut c_void {
    allocate(count.saturating_mul(bytes), ALIGNMENT, true)
}

/// Memory of another size with the old content; null and `ENOMEM`, the old left alone, when there is
/// none.
///
/// # Safety
/// C's: `memory` is null or came from this family and was not freed.
#[unsafe(no_mangle)]
unsafe extern "C" fn realloc(memory: *mut c_void, bytes: usize) -> *mut c_void {
    if memory.is_null() {
        return malloc(bytes);
    }
    // SAFETY: the caller's promise.
    let (header, block) = unsafe { Header::of(memory) };
    let new = Header { bytes, ..header };
    let (Some(old_layout), Some(new_layout)) = (header.layout(), new.layout()) else {
        ENOMEM.fail();
        return null_mut();
    };
    // SAFETY: the block was allocated with this layout, and the new size is a layout's.
    let block = unsafe { rust_realloc(block, old_layout, new_layout.size()) };
    if block.is_null() {
        ENOMEM.fail();
        return null_mut();
    }
    // SAFETY: the block keeps its alignment, hence the place of its header.
    unsafe {
        let memory = block.add(new.alignment);
        memory.cast::<Header>().sub(1).write(new);
        memory.cast()
    }
}

/// Gives memory back.
///
/// # Safety
/// C's: `memory` is null or came from this family and was not freed.
#[unsafe(no_mangle)]
unsafe extern "C" fn free(memory: *mut c_void) {
    if memory.is_null() {
        return;
    }
    // SAFETY: the caller's promise.
    let (header, block) = unsafe { Header::of(memory) };
    if let Some(layout) = header.layout() {
        // SAFETY: the block was allocated with this layout.
        unsafe { dealloc(block, layout) }
    }
}

/// Memory with an alignment, into `*place`; `EINVAL` or `ENOMEM` is returned.
///
/// # Safety
/// C's: `place` is writable.
#[unsafe(no_mangle)]
unsafe extern "C" fn posix_memalign(
    place: *mut *mut c_void,
    alignment: usize,
    bytes: usize,
) -> c_int {
    if !alignment.is_power_of_two() || alignment < size_of::<usize>() {
        return EINVAL.number();
    }
    let memory = allocate(bytes, alignment, false);
    if memory.is_null() {
        return ENOMEM.number();
    }
    // SAFETY: the caller's promise.
    unsafe { place.write(memory) };
    0
}

/// Memory with an alignment; null with `EINVAL` or `ENOMEM`.
#[unsafe(no_mangle)]
extern "C" fn aligned_alloc(alignment: usize, bytes: usize) -> *mut c_void {
    if !alignment.is_power_of_two() {
        EINVAL.fail();
        return null_mut();
    }
    allocate(bytes, alignment, false)
}

const PROT_EXEC: c_int = 4;
const MAP_FIXED: c_int = 0x10;
const MAP_ANONYMOUS: c_int = 0x20;
const MAP_FAILED: *mut c_void = usize::MAX as *mut c_void;
const PAGE_BYTES: usize = 4096;

fn pages(bytes: usize) -> Option<Layout> {
    let bytes = bytes.checked_next_multiple_of(PAGE_BYTES).filter(|&bytes| bytes > 0)?;
    Layout::from_size_align(bytes, PAGE_BYTES).ok()
}

/// Whole zeroed pages from the heap, when that is what is asked for (`MAP_ANONYMOUS`, anywhere, not
/// executable). Files cannot be mapped (`EBADF`), addresses not chosen and code not
/// made (`EPERM`). Protection is not changed: all data of an image is readable and writable.
#[unsafe(no_mangle)]
extern "C" fn mmap64(
    _address: *mut c_void,
    bytes: usize,
    protection: c_int,
    flags: c_int,
    _descriptor: c_int,
    _offset: i64,
) -> *mut c_void {
    let refused = if flags & MAP_ANONYMOUS == 0 {
        Some(super::errno::EBADF)
    } else if flags & MAP_FIXED != 0 || protection & PROT_EXEC != 0 {
        Some(super::errno::EPERM)
    } else {
        None
    };
    let (None, Some(layout)) = (refused, pages(bytes)) else {
        refused.unwrap_or(EINVAL).fail();
        return MAP_FAILED;
    };
    // SAFETY: `pages` gives no layout without a size.
    let memory = unsafe { alloc_zeroed(layout) };
    if memory.is_null() {
        ENOMEM.fail();
        return MAP_FAILED;
    }
    memory.cast()
}

/// As [`mmap64`]: the names differ only where a file's offset has 32 bits.
#[unsafe(no_mangle)]
extern "C" fn mmap(
    address: *mut c_void,
    bytes: usize,
    protection: c_int,
    flags: c_int,
    descriptor: c_int,
    offset: i64,
) -> *mut c_void {
    mmap64(address, bytes, protection, flags, descriptor, offset)
}

/// Gives whole mappings back.
///
/// # Safety
/// `memory` and `bytes` are those of one whole mapping: a part of one cannot be given back here.
#[unsafe(no_mangle)]
unsafe extern "C" fn munmap(memory: *mut c_void, bytes: usize) -> c_int {
    let Some(layout) = pages(bytes).filter(|_| (memory as usize).is_multiple_of(PAGE_BYTES)) else {
        return EINVAL.fail();
    };
    // SAFETY: the caller's promise, and `mmap64` used the same layout.
    unsafe { dealloc(memory.cast(), layout) };
    0
}

/// Rights of pages are fixed when the image starts: `ENOSYS`.
#[unsafe(no_mangle)]
extern "C" fn mprotect(_memory: *mut c_void, _bytes: usize, _protection: c_int) -> c_int {
    super::errno::ENOSYS.fail()
}

/// Advice is taken as read.
#[unsafe(no_mangle)]
extern "C" fn madvise(_memory: *mut c_void, _bytes: usize, _advice: c_int) -> c_int {
    0
}

/// Memory is never swapped out, so it is locked already.
#[unsafe(no_mangle)]
extern "C" fn mlock(_memory: *const c_void, _bytes: usize) -> c_int {
    0
}

/// See [`mlock`].
#[unsafe(no_mangle)]
extern "C" fn munlock(_memory: *const c_void, _bytes: usize) -> c_int {
    0
}
