//! Threads: there is one.
//!
//! `std`'s locks, condition variables and parking are futexes; a futex wait is where this machine goes
//! idle. Everything that would start a second thread fails with `EAGAIN`, as it does on a Linux that
//! has reached its limit.

use super::errno::{EAGAIN, EDEADLK, EINVAL, ENOSYS, ESRCH, ETIMEDOUT};
use super::time::Timespec;
use crate::image::idle::{self, Woken};
use crate::image::time;
use core::ffi::{c_int, c_long, c_void};
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

const SYS_SCHED_YIELD: c_long = 24;
const SYS_GETPID: c_long = 39;
const SYS_GETTID: c_long = 186;
const SYS_FUTEX: c_long = 202;
const SYS_GETRANDOM: c_long = 318;

/// Linux's system calls by number, for those who have no function for them: futexes, random numbers,
/// and who one is. All others are `ENOSYS`.
///
/// # Safety
/// As for the call that `number` names.
#[unsafe(no_mangle)]
unsafe extern "C" fn syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    _e: usize,
    f: usize,
) -> c_long {
    match number {
        // SAFETY: the caller's promise.
        SYS_FUTEX => c_long::from(unsafe {
            futex(a as *const AtomicU32, b as c_int, c as u32, d as *const Timespec, f as u32)
        }),
        // SAFETY: the caller's promise.
        SYS_GETRANDOM => unsafe { super::process::getrandom(a as *mut u8, b, c as u32) as c_long },
        SYS_SCHED_YIELD => c_long::from(sched_yield()),
        SYS_GETPID | SYS_GETTID => 1,
        _ => c_long::from(ENOSYS.fail()),
    }
}

/// The two futex operations that matter: wait while the word holds a value, and wake.
///
/// # Safety
/// `word` is a live, aligned word; `timeout` is null or readable.
unsafe fn futex(
    word: *const AtomicU32,
    operation: c_int,
    value: u32,
    timeout: *const Timespec,
    bits: u32,
) -> c_int {
    const WAIT: c_int = 0;
    const WAKE: c_int = 1;
    const WAIT_BITSET: c_int = 9;
    const WAKE_BITSET: c_int = 10;
    const CLOCK_REALTIME: c_int = 256;
    const COMMAND_MASK: c_int = 127;
    let command = operation & COMMAND_MASK;
    if command == WAKE || command == WAKE_BITSET {
        // Nobody else can be asleep: the only thread is awake, it is here.
        return 0;
    }
    if command != WAIT && command != WAIT_BITSET || command == WAIT_BITSET && bits == 0 {
        return ENOSYS.fail();
    }
    // SAFETY: the caller's promise.
    let timeout = match unsafe { timeout.as_ref() }.map(|timeout| timeout.to_nanos()) {
        None => None,
        Some(Some(nanos)) => Some(nanos),
        Some(None) => return EINVAL.fail(),
    };
    // WAIT counts from now; WAIT_BITSET names a time, of the wall clock if so flagged.
    let deadline = timeout.map(|nanos| match command {
        WAIT => time::monotonic_nanos().saturating_add(nanos),
        _ if operation & CLOCK_REALTIME == 0 => nanos,
        _ => {
            let wall = time::wall().map_or(0, |wall| wall.as_nanos() as u64);
            time::monotonic_nanos().saturating_add(nanos.saturating_sub(wall))
        }
    });
    // SAFETY: the caller's promise: the word lives while somebody waits on it.
    let word = unsafe { &*word };
    if word.load(Ordering::Relaxed) != value {
        return EAGAIN.fail();
    }
    match idle::sleep_while(|| word.load(Ordering::Acquire) == value, deadline) {
        Woken::Changed => 0,
        Woken::Deadline => ETIMEDOUT.fail(),
    }
}

/// Lets interrupts be delivered: a spinning program's device tasks may then be woken.
#[unsafe(no_mangle)]
extern "C" fn sched_yield() -> c_int {
    idle::deliver_interrupts();
    0
}

/// This machine has one processor. Gives the bytes of the mask that were written, as the kernel's
/// call does through glibc: 0.
///
/// # Safety
/// C's: `mask` is writable for `bytes`.
#[unsafe(no_mangle)]
unsafe extern "C" fn sched_getaffinity(_pid: c_int, bytes: usize, mask: *mut u8) -> c_int {
    if bytes == 0 {
        return EINVAL.fail();
    }
    // SAFETY: the caller's promise.
    unsafe {
        mask.write_bytes(0, bytes);
        mask.write(1);
    }
    0
}

/// The one thread.
#[unsafe(no_mangle)]
extern "C" fn pthread_self() -> usize {
    1
}

/// Attributes are accepted and mean nothing: no thread will have them.
#[unsafe(no_mangle)]
extern "C" fn pthread_attr_init(_attributes: *mut c_void) -> c_int {
    0
}

/// See [`pthread_attr_init`].
#[unsafe(no_mangle)]
extern "C" fn pthread_attr_destroy(_attributes: *mut c_void) -> c_int {
    0
}

/// See [`pthread_attr_init`].
#[unsafe(no_mangle)]
extern "C" fn pthread_attr_setstacksize(_attributes: *mut c_void, _bytes: usize) -> c_int {
    0
}

/// See [`pthread_attr_init`].
#[unsafe(no_mangle)]
extern "C" fn pthread_attr_setguardsize(_attributes: *mut c_void, _bytes: usize) -> c_int {
    0
}

/// See [`pthread_attr_init`].
///
/// # Safety
/// C's: `bytes` is writable.
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_attr_getguardsize(
    _attributes: *const c_void,
    bytes: *mut usize,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { bytes.write(4096) };
    0
}

/// Where the stack is; asked for with [`pthread_getattr_np`].
///
/// # Safety
/// C's: both places are writable.
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_attr_getstack(
    _attributes: *const c_void,
    start: *mut *mut c_void,
    bytes: *mut usize,
) -> c_int {
    let stack = crate::image::main_stack();
    // SAFETY: the caller's promise.
    unsafe {
        start.write(stack.start as *mut c_void);
        bytes.write(stack.len() as usize);
    }
    0
}

/// The attributes of the one thread: its stack is what [`pthread_attr_getstack`] says.
#[unsafe(no_mangle)]
extern "C" fn pthread_getattr_np(thread: usize, _attributes: *mut c_void) -> c_int {
    if thread == pthread_self() { 0 } else { ESRCH.number() }
}

/// No second thread: `EAGAIN`, which `std::thread::Builder::spawn` returns as an error.
#[unsafe(no_mangle)]
extern "C" fn pthread_create(
    _thread: *mut usize,
    _attributes: *const c_void,
    _start: *const c_void,
    _argument: *mut c_void,
) -> c_int {
    EAGAIN.number()
}

/// There is no other thread to wait for, and waiting for oneself would never end.
#[unsafe(no_mangle)]
extern "C" fn pthread_join(thread: usize, _result: *mut *mut c_void) -> c_int {
    if thread == pthread_self() { EDEADLK.number() } else { ESRCH.number() }
}

/// Nothing to let go.
#[unsafe(no_mangle)]
extern "C" fn pthread_detach(thread: usize) -> c_int {
    if thread == pthread_self() { 0 } else { ESRCH.number() }
}

/// Names are taken and forgotten.
#[unsafe(no_mangle)]
extern "C" fn pthread_setname_np(_thread: usize, _name: *const u8) -> c_int {
    0
}

/// How many keys there can be: POSIX's least, twice what Linux programs were seen to use here.
const KEYS_MAX: usize = 128;
static VALUES: [AtomicPtr<c_void>; KEYS_MAX] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; KEYS_MAX];
/// The next key; 0 is never one, because `std` takes it for "not made yet".
static NEXT_KEY: AtomicU32 = AtomicU32::new(1);

/// A key for a value of each thread's. Destructors are not run: the one thread ends with the machine.
/// `EAGAIN` when there are no keys left.
///
/// # Safety
/// C's: `place` is writable.
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_key_create(place: *mut u32, _destructor: *const c_void) -> c_int {
    let key = NEXT_KEY.load(Ordering::Relaxed);
    if key as usize >= KEYS_MAX {
        return EAGAIN.number();
    }
    NEXT_KEY.store(key + 1, Ordering::Relaxed);
    // SAFETY: the caller's promise.
    unsafe { place.write(key) };
    0
}

/// Keys are not used again.
#[unsafe(no_mangle)]
extern "C" fn pthread_key_delete(key: u32) -> c_int {
    pthread_setspecific(key, core::ptr::null_mut())
}

/// Sets the value of a key.
#[unsafe(no_mangle)]
extern "C" fn pthread_setspecific(key: u32, value: *mut c_void) -> c_int {
    match VALUES.get(key as usize) {
        Some(place) if key > 0 && key < NEXT_KEY.load(Ordering::Relaxed) => {
            place.store(value, Ordering::Relaxed);
            0
        }
        _ => EINVAL.number(),
    }
}

/// The value of a key; null for one that was not made.
#[unsafe(no_mangle)]
extern "C" fn pthread_getspecific(key: u32) -> *mut c_void {
    VALUES.get(key as usize).map_or(core::ptr::null_mut(), |place| place.load(Ordering::Relaxed))
}

/// Runs a function once: `*once` is 0 before and 2 after, as in glibc.
///
/// # Safety
/// C's: `once` is a `pthread_once_t`.
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_once(once: *mut c_int, function: extern "C" fn()) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        if once.read() == 0 {
            once.write(2);
            function();
        }
    }
    0
}

/// With one thread a mutex is always free: libgcc's unwinder is who uses it.
#[unsafe(no_mangle)]
extern "C" fn pthread_mutex_lock(_mutex: *mut c_void) -> c_int {
    0
}

/// See [`pthread_mutex_lock`].
#[unsafe(no_mangle)]
extern "C" fn pthread_mutex_unlock(_mutex: *mut c_void) -> c_int {
    0
}

/// Destructors of thread-locals are accepted and not run: the one thread ends with the machine, and
/// what its thread-locals hold ends with it.
#[unsafe(no_mangle)]
extern "C" fn __cxa_thread_atexit_impl(
    _destructor: *const c_void,
    _object: *mut c_void,
    _dso: *const c_void,
) -> c_int {
    0
}
