//! `errno` and its values (Linux, asm-generic/errno-base.h and errno.h).

use core::ffi::{c_char, c_int};
use core::sync::atomic::{AtomicI32, Ordering};

/// A C error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Errno(c_int, &'static str);

pub(super) const EPERM: Errno = Errno(1, "operation not permitted");
pub(super) const ENOENT: Errno = Errno(2, "no such file or directory: this machine has none");
pub(super) const ESRCH: Errno = Errno(3, "no such process");
pub(super) const EBADF: Errno = Errno(9, "bad file descriptor");
pub(super) const ECHILD: Errno = Errno(10, "no child processes");
pub(super) const EAGAIN: Errno =
    Errno(11, "resource temporarily unavailable: this machine has one thread");
pub(super) const ENOMEM: Errno = Errno(12, "out of memory");
pub(super) const EINVAL: Errno = Errno(22, "invalid argument");
pub(super) const ENOTTY: Errno = Errno(25, "not a terminal");
pub(super) const ESPIPE: Errno = Errno(29, "illegal seek");
pub(super) const ERANGE: Errno = Errno(34, "result too large");
pub(super) const EDEADLK: Errno = Errno(35, "resource deadlock would occur");
pub(super) const ENOSYS: Errno = Errno(38, "function not implemented on this machine");
pub(super) const EAFNOSUPPORT: Errno =
    Errno(97, "address family not supported: sockets are fata::Stack's");
pub(super) const ETIMEDOUT: Errno = Errno(110, "timed out");

const ALL: [Errno; 15] = [
    EPERM,
    ENOENT,
    ESRCH,
    EBADF,
    ECHILD,
    EAGAIN,
    ENOMEM,
    EINVAL,
    ENOTTY,
    ESPIPE,
    ERANGE,
    EDEADLK,
    ENOSYS,
    EAFNOSUPPORT,
    ETIMEDOUT,
];

static ERRNO: AtomicI32 = AtomicI32::new(0);

impl Errno {
    /// The number itself, as the pthread functions return it.
    pub(super) const fn number(self) -> c_int {
        self.0
    }

    /// Sets `errno`; -1, for the caller to return.
    pub(super) fn fail(self) -> c_int {
        ERRNO.store(self.0, Ordering::Relaxed);
        -1
    }
}

/// Where `errno` is. One thread, one `errno`.
#[unsafe(no_mangle)]
extern "C" fn __errno_location() -> *mut c_int {
    ERRNO.as_ptr()
}

/// `strerror_r` as POSIX has it: the words for an error number, cut to the buffer.
///
/// # Safety
/// `buffer` must be writable for `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn __xpg_strerror_r(number: c_int, buffer: *mut c_char, len: usize) -> c_int {
    let known = ALL.iter().find(|errno| errno.0 == number);
    let words = known.map_or("unknown error", |errno| errno.1);
    let Some(room) = len.checked_sub(1) else { return ERANGE.number() };
    let bytes = words.len().min(room);
    // SAFETY: `bytes + 1 <= len`, and the caller says that so much is writable.
    unsafe {
        core::ptr::copy_nonoverlapping(words.as_ptr(), buffer.cast(), bytes);
        buffer.add(bytes).write(0);
    }
    if bytes < words.len() { ERANGE.number() } else { 0 }
}
