//! Files: there are three descriptors, and no file system.
//!
//! Standard output and error are the console; standard input is at its end. Whatever would open
//! something fails with `ENOENT`, whatever needs an open file with `EBADF`, so that `std::fs` gives
//! ordinary errors. Sockets are `fata::Stack`'s, so `socket` is `EAFNOSUPPORT`.

use super::errno::{EAFNOSUPPORT, EBADF, EINVAL, ENOENT, ENOSYS, ENOTTY, ERANGE, ESPIPE};
use crate::image::console;
use core::ffi::{c_char, c_int, c_void};

const STDIN: c_int = 0;
const STDOUT: c_int = 1;
const STDERR: c_int = 2;

fn is_open(descriptor: c_int) -> bool {
    (STDIN..=STDERR).contains(&descriptor)
}

/// Writes to the console.
///
/// # Safety
/// C's: `buffer` is readable for `bytes`.
#[unsafe(no_mangle)]
unsafe extern "C" fn write(descriptor: c_int, buffer: *const u8, bytes: usize) -> isize {
    if descriptor != STDOUT && descriptor != STDERR {
        return EBADF.fail() as isize;
    }
    if bytes > 0 {
        // SAFETY: the caller's promise.
        console::write(unsafe { core::slice::from_raw_parts(buffer, bytes) });
    }
    bytes as isize
}

/// `struct iovec`.
#[repr(C)]
struct IoVec {
    base: *const u8,
    bytes: usize,
}

/// Writes pieces to the console.
///
/// # Safety
/// C's: `pieces` are `count` readable pieces.
#[unsafe(no_mangle)]
unsafe extern "C" fn writev(descriptor: c_int, pieces: *const IoVec, count: c_int) -> isize {
    let mut written = 0;
    for index in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: the caller's promise.
        let piece = unsafe { &*pieces.add(index) };
        // SAFETY: as above.
        match unsafe { write(descriptor, piece.base, piece.bytes) } {
            -1 => return -1,
            bytes => written += bytes,
        }
    }
    written
}

/// Standard input is at its end.
#[unsafe(no_mangle)]
extern "C" fn read(descriptor: c_int, _buffer: *mut u8, _bytes: usize) -> isize {
    if descriptor == STDIN { 0 } else { EBADF.fail() as isize }
}

/// See [`read`].
#[unsafe(no_mangle)]
extern "C" fn readv(descriptor: c_int, _pieces: *const c_void, _count: c_int) -> isize {
    read(descriptor, core::ptr::null_mut(), 0)
}

/// Closing a standard descriptor does nothing: the console stays.
#[unsafe(no_mangle)]
extern "C" fn close(descriptor: c_int) -> c_int {
    if is_open(descriptor) { 0 } else { EBADF.fail() }
}

/// The standard descriptors are open and are no terminals; nothing else is there. Ready for writing
/// (and reading, which is at its end) at once.
///
/// # Safety
/// C's: `descriptors` are `count` of `struct pollfd`.
#[unsafe(no_mangle)]
unsafe extern "C" fn poll(descriptors: *mut PollFd, count: u64, _timeout: c_int) -> c_int {
    const POLLNVAL: i16 = 0x20;
    const POLLIN: i16 = 1;
    const POLLOUT: i16 = 4;
    let mut ready = 0;
    for index in 0..count as usize {
        // SAFETY: the caller's promise.
        let descriptor = unsafe { &mut *descriptors.add(index) };
        descriptor.happened = match descriptor.descriptor {
            negative if negative < 0 => 0,
            open if is_open(open) => descriptor.wanted & (POLLIN | POLLOUT),
            _ => POLLNVAL,
        };
        ready += c_int::from(descriptor.happened != 0);
    }
    ready
}

/// `struct pollfd`.
#[repr(C)]
struct PollFd {
    descriptor: c_int,
    wanted: i16,
    happened: i16,
}

/// The console is no terminal: programs then write without colours.
#[unsafe(no_mangle)]
extern "C" fn isatty(descriptor: c_int) -> c_int {
    if is_open(descriptor) { ENOTTY } else { EBADF }.fail();
    0
}

/// Nothing can be asked of the console.
#[unsafe(no_mangle)]
extern "C" fn ioctl(descriptor: c_int, _request: u64, _argument: usize) -> c_int {
    if is_open(descriptor) { ENOTTY } else { EBADF }.fail()
}

/// `F_GETFD` and `F_GETFL` of a standard descriptor give no flags; nothing else can be asked.
#[unsafe(no_mangle)]
extern "C" fn fcntl(descriptor: c_int, command: c_int, _argument: usize) -> c_int {
    const F_GETFD: c_int = 1;
    const F_GETFL: c_int = 3;
    match (is_open(descriptor), command) {
        (false, _) => EBADF.fail(),
        (true, F_GETFD) => 0,
        (true, F_GETFL) => 2,
        (true, _) => EINVAL.fail(),
    }
}

/// The console has no position.
#[unsafe(no_mangle)]
extern "C" fn lseek64(descriptor: c_int, _offset: i64, _whence: c_int) -> i64 {
    i64::from(if is_open(descriptor) { ESPIPE } else { EBADF }.fail())
}

/// The working directory does not exist. Null, as C wants.
#[unsafe(no_mangle)]
extern "C" fn getcwd(_buffer: *mut c_char, bytes: usize) -> *mut c_char {
    if bytes == 0 { EINVAL } else { ENOENT }.fail();
    core::ptr::null_mut()
}

/// No path exists. Null, as C wants.
#[unsafe(no_mangle)]
extern "C" fn realpath(_path: *const c_char, _resolved: *mut c_char) -> *mut c_char {
    ENOENT.fail();
    core::ptr::null_mut()
}

/// No directory exists. Null, as C wants.
#[unsafe(no_mangle)]
extern "C" fn opendir(_path: *const c_char) -> *mut c_void {
    ENOENT.fail();
    core::ptr::null_mut()
}

/// No directory is open. Null, as C wants.
#[unsafe(no_mangle)]
extern "C" fn fdopendir(_descriptor: c_int) -> *mut c_void {
    EBADF.fail();
    core::ptr::null_mut()
}

/// No directory is open, so there is no next entry. Null, as C wants.
#[unsafe(no_mangle)]
extern "C" fn readdir64(_directory: *mut c_void) -> *mut c_void {
    EBADF.fail();
    core::ptr::null_mut()
}

/// `EAI_FAIL`: names are resolved by the program's own stack, not by C.
const EAI_FAIL: c_int = -4;

/// No name is resolved here.
#[unsafe(no_mangle)]
extern "C" fn getaddrinfo(
    _node: *const c_char,
    _service: *const c_char,
    _hints: *const c_void,
    _results: *mut *mut c_void,
) -> c_int {
    EAI_FAIL
}

/// Nothing to free: there are no results.
#[unsafe(no_mangle)]
extern "C" fn freeaddrinfo(_results: *mut c_void) {}

/// The words for the one error of [`getaddrinfo`].
#[unsafe(no_mangle)]
extern "C" fn gai_strerror(_error: c_int) -> *const c_char {
    c"names are not resolved by this machine: use the program's own network stack".as_ptr()
}

/// There is no resolver to start again.
#[unsafe(no_mangle)]
extern "C" fn __res_init() -> c_int {
    0
}

/// The host's name: `fata`.
///
/// # Safety
/// C's: `buffer` is writable for `bytes`.
#[unsafe(no_mangle)]
unsafe extern "C" fn gethostname(buffer: *mut u8, bytes: usize) -> c_int {
    let name = b"fata\0";
    if bytes < name.len() {
        return ERANGE.fail();
    }
    // SAFETY: the caller's promise.
    unsafe { core::ptr::copy_nonoverlapping(name.as_ptr(), buffer, name.len()) };
    0
}

/// Defines functions that fail with one error number, whatever they are given: in C's calling
/// convention an argument that is not looked at need not be declared.
macro_rules! fails {
    ($($(#[$doc:meta])* $name:ident: $errno:ident;)*) => {$(
        $(#[$doc])*
        #[unsafe(no_mangle)]
        extern "C" fn $name() -> isize {
            $errno.fail() as isize
        }
    )*};
}

fails! {
    /// No file exists.
    open: ENOENT;
    /// No file exists.
    open64: ENOENT;
    /// No file exists.
    openat: ENOENT;
    /// No file exists.
    openat64: ENOENT;
    /// No file exists.
    stat64: ENOENT;
    /// No file exists.
    lstat64: ENOENT;
    /// No file exists.
    fstatat64: ENOENT;
    /// Nothing is known about the console.
    fstat64: EBADF;
    /// No link exists.
    readlink: ENOENT;
    /// No file exists.
    access: ENOENT;
    /// No file exists.
    unlink: ENOENT;
    /// No file exists.
    rename: ENOENT;
    /// No directory exists to make one in.
    mkdir: ENOENT;
    /// No directory exists.
    rmdir: ENOENT;
    /// No file exists.
    chmod: ENOENT;
    /// No descriptor is a file.
    fchmod: EBADF;
    /// No descriptor is a file.
    fsync: EBADF;
    /// No descriptor is a file.
    fdatasync: EBADF;
    /// No descriptor is a file.
    ftruncate64: EBADF;
    /// No descriptor is a file.
    pread64: EBADF;
    /// No descriptor is a file.
    pwrite64: EBADF;
    /// No descriptor is a file.
    flock: EBADF;
    /// No file exists.
    chdir: ENOENT;
    /// No file exists.
    chown: ENOENT;
    /// No file exists.
    lchown: ENOENT;
    /// No file exists.
    chroot: ENOENT;
    /// No file exists.
    linkat: ENOENT;
    /// No file exists.
    symlink: ENOENT;
    /// No file exists.
    unlinkat: ENOENT;
    /// No file exists.
    mkfifo: ENOENT;
    /// No file exists.
    utimensat: ENOENT;
    /// No descriptor is a file.
    fchown: EBADF;
    /// No descriptor is a file.
    futimens: EBADF;
    /// No descriptor is a file.
    preadv: EBADF;
    /// No descriptor is a file.
    pwritev: EBADF;
    /// No descriptor is a file.
    sendfile64: EBADF;
    /// No descriptor is a file.
    splice: EBADF;
    /// No directory is open.
    dirfd: EBADF;
    /// No directory is open.
    closedir: EBADF;
    /// No descriptor is a file.
    ftruncate: EBADF;
    /// No descriptor is a file.
    fchdir: EBADF;
    /// No descriptor is a file.
    fallocate64: EBADF;
    /// No descriptors can be made.
    dup: ENOSYS;
    /// No descriptors can be made.
    dup2: ENOSYS;
    /// No descriptors can be made.
    pipe2: ENOSYS;
    /// No descriptors can be made.
    eventfd: ENOSYS;
    /// No descriptors can be made: tokio's I/O driver is not for this machine.
    epoll_create1: ENOSYS;
    /// There is none.
    epoll_ctl: EBADF;
    /// There is none.
    epoll_wait: EBADF;
    /// Sockets are `fata::Stack`'s.
    socket: EAFNOSUPPORT;
    /// No descriptors can be made; `std::process` asks for these.
    socketpair: ENOSYS;
    /// No descriptor is a socket.
    bind: EBADF;
    /// No descriptor is a socket.
    listen: EBADF;
    /// No descriptor is a socket.
    accept: EBADF;
    /// No descriptor is a socket.
    accept4: EBADF;
    /// No descriptor is a socket.
    connect: EBADF;
    /// No descriptor is a socket.
    shutdown: EBADF;
    /// No descriptor is a socket.
    send: EBADF;
    /// No descriptor is a socket.
    recv: EBADF;
    /// No descriptor is a socket.
    sendto: EBADF;
    /// No descriptor is a socket.
    recvfrom: EBADF;
    /// No descriptor is a socket.
    sendmsg: EBADF;
    /// No descriptor is a socket.
    recvmsg: EBADF;
    /// No descriptor is a socket.
    getsockname: EBADF;
    /// No descriptor is a socket.
    getpeername: EBADF;
    /// No descriptor is a socket.
    getsockopt: EBADF;
    /// No descriptor is a socket.
    setsockopt: EBADF;
}
