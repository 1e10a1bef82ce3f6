//! C strings, and searching bytes.
//!
//! Assembly where a Rust loop could be recognised as the very function and become a call of itself.

use core::arch::naked_asm;
use core::ffi::{c_char, c_int, c_void};

/// Bytes before the terminating zero.
///
/// # Safety
/// C's: `text` is a C string.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn strlen(text: *const c_char) -> usize {
    // 16 aligned bytes at a time: an aligned load never reaches into another page than its first
    // byte, so reading past the zero is harmless.
    naked_asm!(
        "mov rax, rdi",
        "and rax, -16",
        "pxor xmm0, xmm0",
        "movdqa xmm1, [rax]",
        "pcmpeqb xmm1, xmm0",
        "pmovmskb edx, xmm1",
        // What lies before the text does not count.
        "mov ecx, edi",
        "and ecx, 15",
        "shr edx, cl",
        "shl edx, cl",
        "2:",
        "test edx, edx",
        "jnz 3f",
        "add rax, 16",
        "movdqa xmm1, [rax]",
        "pcmpeqb xmm1, xmm0",
        "pmovmskb edx, xmm1",
        "jmp 2b",
        "3:",
        "bsf edx, edx",
        "add rax, rdx",
        "sub rax, rdi",
        "ret",
    )
}

/// The first `value` in `bytes` bytes, or null.
///
/// # Safety
/// C's: `memory` is valid for `bytes`.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memchr(memory: *const c_void, value: c_int, bytes: usize) -> *mut c_void {
    naked_asm!(
        "movd xmm0, esi",
        "punpcklbw xmm0, xmm0",
        "pshuflw xmm0, xmm0, 0",
        "punpcklqdq xmm0, xmm0",
        "lea rcx, [rdi + rdx]",
        "2:",
        "lea rax, [rdi + 16]",
        "cmp rax, rcx",
        "ja 4f",
        "movups xmm1, [rdi]",
        "pcmpeqb xmm1, xmm0",
        "pmovmskb edx, xmm1",
        "test edx, edx",
        "jnz 3f",
        "mov rdi, rax",
        "jmp 2b",
        "3:",
        "bsf edx, edx",
        "lea rax, [rdi + rdx]",
        "ret",
        "4:",
        "cmp rdi, rcx",
        "jae 5f",
        "cmp byte ptr [rdi], sil",
        "je 6f",
        "inc rdi",
        "jmp 4b",
        "5:",
        "xor eax, eax",
        "ret",
        "6:",
        "mov rax, rdi",
        "ret",
    )
}

/// The last `value` in `bytes` bytes, or null.
///
/// # Safety
/// C's: `memory` is valid for `bytes`.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memrchr(memory: *const c_void, value: c_int, bytes: usize) -> *mut c_void {
    naked_asm!(
        "lea rax, [rdi + rdx]",
        "2:",
        "cmp rax, rdi",
        "je 3f",
        "dec rax",
        "cmp byte ptr [rax], sil",
        "jne 2b",
        "ret",
        "3:",
        "xor eax, eax",
        "ret",
    )
}

/// Bytes before the terminating zero, at most `bytes_max`.
///
/// # Safety
/// C's: `text` is a C string, or valid for `bytes_max`.
#[unsafe(no_mangle)]
unsafe extern "C" fn strnlen(text: *const c_char, bytes_max: usize) -> usize {
    // SAFETY: the caller's promise; `memchr` looks at bytes in order and stops at the first zero,
    // but for the 16 that it loads at once, which are within `bytes_max`.
    let end = unsafe { memchr(text.cast(), 0, bytes_max) };
    if end.is_null() { bytes_max } else { end as usize - text as usize }
}
