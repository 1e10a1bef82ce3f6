//! The process: its end, its random numbers, its signals (none), its facts.

use super::errno::{EAGAIN, ECHILD, EINVAL, ENOSYS, EPERM, ESRCH};
use crate::exit_code;
use crate::image::console::say;
use crate::image::{backtrace, entropy, heap, power};
use core::ffi::{CStr, c_char, c_int, c_long, c_void};

/// Ends the machine with a code.
#[unsafe(no_mangle)]
extern "C" fn exit(code: c_int) -> ! {
    power::exit(code as u8)
}

/// Ends the machine with a code.
#[unsafe(no_mangle)]
extern "C" fn _exit(code: c_int) -> ! {
    power::exit(code as u8)
}

/// Ends the machine with a report: memory ran out, if a failed allocation was the heap's last act
/// (`std` calls this after saying so), else a panic that could not unwind, or the program's own wish.
#[unsafe(no_mangle)]
extern "C" fn abort() -> ! {
    let code = match heap::failed_bytes() {
        Some(bytes) => {
            let free = crate::image::memory::free_bytes();
            say!("out of memory: {bytes} bytes were asked for, {free} are free in pieces");
            exit_code::OUT_OF_MEMORY
        }
        None => {
            say!("the program aborted");
            exit_code::PANIC
        }
    };
    backtrace::print();
    power::die(code)
}

/// Functions to call at exit are accepted and not called: the machine is switched off.
#[unsafe(no_mangle)]
extern "C" fn atexit(_function: *const c_void) -> c_int {
    0
}

const GRND_NONBLOCK: u32 = 1;

/// Random numbers from the generator (see `entropy`). Unseeded: `EAGAIN` with `GRND_NONBLOCK`, and
/// otherwise the end of the machine, in words; with `GRND_INSECURE` too, for numbers that may be
/// guessed are what it would give.
///
/// # Safety
/// C's: `buffer` is writable for `bytes`.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn getrandom(buffer: *mut u8, bytes: usize, flags: u32) -> isize {
    if bytes == 0 {
        return 0;
    }
    // SAFETY: the caller's promise; zeroed, so that it may be a slice of `u8`.
    let buffer = unsafe {
        buffer.write_bytes(0, bytes);
        core::slice::from_raw_parts_mut(buffer, bytes)
    };
    if entropy::fill(buffer) {
        return bytes as isize;
    }
    if flags & GRND_NONBLOCK != 0 {
        return EAGAIN.fail() as isize;
    }
    say!("random numbers were asked for and there is no entropy:");
    say!("  the processor has neither RDSEED nor RDRAND, and no virtio-rng device has given any;");
    say!("  add one (QEMU: -device virtio-rng-device) or choose another CPU (QEMU: -cpu max)");
    backtrace::print();
    power::die(exit_code::NO_ENTROPY)
}

/// Facts about the system.
#[unsafe(no_mangle)]
extern "C" fn sysconf(name: c_int) -> c_long {
    const PAGE_SIZE: c_int = 30;
    const CLOCK_TICKS: c_int = 2;
    const GETPW_SIZE: c_int = 70;
    const PROCESSORS_CONFIGURED: c_int = 83;
    const PROCESSORS_ONLINE: c_int = 84;
    const PHYSICAL_PAGES: c_int = 85;
    const AVAILABLE_PAGES: c_int = 86;
    match name {
        PAGE_SIZE => 4096,
        CLOCK_TICKS => 100,
        GETPW_SIZE => 1024,
        PROCESSORS_CONFIGURED | PROCESSORS_ONLINE => 1,
        PHYSICAL_PAGES => (crate::image::memory::total_bytes() / 4096) as c_long,
        AVAILABLE_PAGES => (crate::image::memory::free_bytes() / 4096) as c_long,
        _ => c_long::from(EINVAL.fail()),
    }
}

/// What the kernel told the process: nothing that is asked for here but the page size.
#[unsafe(no_mangle)]
extern "C" fn getauxval(kind: u64) -> u64 {
    const AT_PAGESZ: u64 = 6;
    if kind == AT_PAGESZ { 4096 } else { 0 }
}

/// `SIG_IGN`: there are no signals, so every one is ignored.
const IGNORED: usize = 1;

/// Signals do not exist, so setting what one does changes nothing; asked, every one is ignored. So
/// `std` leaves stack overflow to the machine, which reports it by itself.
///
/// # Safety
/// C's: `old` is null or a writable `struct sigaction`.
#[unsafe(no_mangle)]
unsafe extern "C" fn sigaction(_signal: c_int, _new: *const c_void, old: *mut c_void) -> c_int {
    /// Bytes of glibc's `struct sigaction` on x86-64.
    const SIGACTION_BYTES: usize = 152;
    if !old.is_null() {
        // SAFETY: the caller's promise; the handler is the first field.
        unsafe {
            old.cast::<u8>().write_bytes(0, SIGACTION_BYTES);
            old.cast::<usize>().write(IGNORED);
        }
    }
    0
}

/// See [`sigaction`].
#[unsafe(no_mangle)]
extern "C" fn signal(_signal: c_int, _handler: usize) -> usize {
    IGNORED
}

/// A stack for signals that do not come.
#[unsafe(no_mangle)]
extern "C" fn sigaltstack(_new: *const c_void, _old: *mut c_void) -> c_int {
    ENOSYS.fail()
}

/// Process 1, as the first of a system is.
#[unsafe(no_mangle)]
extern "C" fn getpid() -> c_int {
    1
}

/// Thread 1 of process 1.
#[unsafe(no_mangle)]
extern "C" fn gettid() -> c_int {
    1
}

/// User 0, who is everybody here.
#[unsafe(no_mangle)]
extern "C" fn getuid() -> u32 {
    0
}

/// See [`getuid`].
#[unsafe(no_mangle)]
extern "C" fn geteuid() -> u32 {
    0
}

/// No other program can be started.
#[unsafe(no_mangle)]
extern "C" fn fork() -> c_int {
    ENOSYS.fail()
}

/// No other program can be started. Returns the error number, as POSIX says.
#[unsafe(no_mangle)]
extern "C" fn posix_spawnp() -> c_int {
    ENOSYS.number()
}

/// No other program can be started.
#[unsafe(no_mangle)]
extern "C" fn execvp(_file: *const c_char, _arguments: *const *const c_char) -> c_int {
    ENOSYS.fail()
}

/// Defines functions that say yes and do nothing: what they prepare is refused when it is asked for.
macro_rules! accepts {
    ($($name:ident)*) => {$(
        /// Accepted: what it prepares ([`posix_spawnp`], or a signal) is refused or never comes.
        #[unsafe(no_mangle)]
        extern "C" fn $name() -> c_int {
            0
        }
    )*};
}

accepts! {
    posix_spawnattr_init posix_spawnattr_destroy posix_spawnattr_setflags
    posix_spawnattr_setpgroup posix_spawnattr_setsigdefault posix_spawnattr_setsigmask
    posix_spawn_file_actions_init posix_spawn_file_actions_destroy
    posix_spawn_file_actions_adddup2
    sigemptyset sigaddset pthread_sigmask sigprocmask
}

/// Defines functions that would change who one is: `EPERM`.
macro_rules! forbids {
    ($($name:ident)*) => {$(
        /// There are no other users, groups or sessions to change to.
        #[unsafe(no_mangle)]
        extern "C" fn $name() -> c_int {
            EPERM.fail()
        }
    )*};
}

forbids! { setuid setgid setgroups setsid setpgid }

/// No process is there to be signalled.
#[unsafe(no_mangle)]
extern "C" fn kill(_process: c_int, _signal: c_int) -> c_int {
    ESRCH.fail()
}

/// Nobody started process 1.
#[unsafe(no_mangle)]
extern "C" fn getppid() -> c_int {
    0
}

/// Group 0.
#[unsafe(no_mangle)]
extern "C" fn getgid() -> u32 {
    0
}

/// See [`getgid`].
#[unsafe(no_mangle)]
extern "C" fn getegid() -> u32 {
    0
}

/// Users have no entries: nothing is found, which is no error.
///
/// # Safety
/// C's: `result` is writable.
#[unsafe(no_mangle)]
unsafe extern "C" fn getpwuid_r(
    _user: u32,
    _entry: *mut c_void,
    _buffer: *mut c_char,
    _bytes: usize,
    result: *mut *mut c_void,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { result.write(core::ptr::null_mut()) };
    0
}

/// No glibc: a version below all, so that `std` expects nothing of it.
#[unsafe(no_mangle)]
extern "C" fn gnu_get_libc_version() -> *const c_char {
    c"0.0".as_ptr()
}

/// There are no children.
#[unsafe(no_mangle)]
extern "C" fn waitid(_kind: c_int, _id: u32, _info: *mut c_void, _options: c_int) -> c_int {
    ECHILD.fail()
}

/// There are no children.
#[unsafe(no_mangle)]
extern "C" fn waitpid(_process: c_int, _status: *mut c_int, _options: c_int) -> c_int {
    ECHILD.fail()
}

/// Looks up `getrandom`, which the crate of that name asks for in this way to run on old systems
/// too. Anything else: null, which callers take for "this system has it not".
///
/// # Safety
/// `name` must be a C string.
#[unsafe(no_mangle)]
unsafe extern "C" fn dlsym(_handle: *mut c_void, name: *const c_char) -> *mut c_void {
    // SAFETY: the caller passes a C string.
    match unsafe { CStr::from_ptr(name) }.to_bytes() {
        b"getrandom" => getrandom as *mut c_void,
        _ => core::ptr::null_mut(),
    }
}

/// Waits for a signal: none comes, so this is for ever, asleep.
#[unsafe(no_mangle)]
extern "C" fn pause() -> c_int {
    loop {
        let _ = crate::image::idle::sleep_while(|| true, None);
    }
}
