//! Clocks and sleeping, under their C names.

use super::errno::EINVAL;
use crate::image::{idle, time};
use core::ffi::{c_int, c_long};

/// `struct timespec`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Timespec {
    seconds: i64,
    nanos: c_long,
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

impl Timespec {
    fn from_nanos(nanos: u64) -> Self {
        Timespec {
            seconds: (nanos / NANOS_PER_SECOND) as i64,
            nanos: (nanos % NANOS_PER_SECOND) as c_long,
        }
    }

    /// Nanoseconds, at most what 64 bits hold (584 years); `None` when it is no time.
    pub(super) fn to_nanos(self) -> Option<u64> {
        let nanos = u64::try_from(self.nanos).ok().filter(|&nanos| nanos < NANOS_PER_SECOND)?;
        let seconds = u64::try_from(self.seconds).ok()?;
        Some(seconds.saturating_mul(NANOS_PER_SECOND).saturating_add(nanos))
    }
}

/// The time of a clock: the wall clock for `CLOCK_REALTIME` and its coarse kin, the monotonic one
/// for the others, which here all count from entry, are never stepped, and never stop.
fn now(clock: c_int) -> Option<u64> {
    const REALTIME: c_int = 0;
    const REALTIME_COARSE: c_int = 5;
    const REALTIME_ALARM: c_int = 8;
    const TAI: c_int = 11;
    match clock {
        REALTIME | REALTIME_COARSE | REALTIME_ALARM | TAI => {
            // Without a wall clock it is 1970, as on a Linux without one.
            Some(time::wall().map_or_else(time::monotonic_nanos, |wall| wall.as_nanos() as u64))
        }
        // MONOTONIC, PROCESS_CPUTIME, THREAD_CPUTIME, MONOTONIC_RAW, MONOTONIC_COARSE, BOOTTIME.
        1..=4 | 6 | 7 | 9 => Some(time::monotonic_nanos()),
        _ => None,
    }
}

/// The time of a clock.
///
/// # Safety
/// C's: `place` is writable.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: c_int, place: *mut Timespec) -> c_int {
    let Some(nanos) = now(clock) else { return EINVAL.fail() };
    // SAFETY: the caller's promise.
    unsafe { place.write(Timespec::from_nanos(nanos)) };
    0
}

/// How fine the clocks are: a nanosecond is as good as any answer.
///
/// # Safety
/// C's: `place` is null or writable.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_getres(clock: c_int, place: *mut Timespec) -> c_int {
    if now(clock).is_none() {
        return EINVAL.fail();
    }
    if !place.is_null() {
        // SAFETY: the caller's promise.
        unsafe { place.write(Timespec::from_nanos(1)) };
    }
    0
}

/// Seconds and microseconds of the wall clock.
///
/// # Safety
/// C's: `place` is null or writable.
#[unsafe(no_mangle)]
unsafe extern "C" fn gettimeofday(place: *mut Timespec, _zone: *mut u8) -> c_int {
    let time = Timespec::from_nanos(now(0).unwrap_or(0));
    if !place.is_null() {
        // SAFETY: the caller's promise; `struct timeval` has the same shape, in microseconds.
        unsafe { place.write(Timespec { nanos: time.nanos / 1000, ..time }) };
    }
    0
}

/// Halts the machine (the only thread is the one that asks) for a time, but for devices' wakers.
///
/// # Safety
/// C's: `request` is readable.
#[unsafe(no_mangle)]
unsafe extern "C" fn nanosleep(request: *const Timespec, _remain: *mut Timespec) -> c_int {
    // SAFETY: the caller's promise.
    let Some(nanos) = unsafe { request.read() }.to_nanos() else { return EINVAL.fail() };
    let _ = idle::sleep_while(|| true, Some(time::monotonic_nanos().saturating_add(nanos)));
    0
}

/// [`nanosleep`] by a chosen clock, and with `TIMER_ABSTIME` (1) until a time instead of for one.
/// Returns the error number, as POSIX says.
///
/// # Safety
/// C's: `request` is readable.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_nanosleep(
    clock: c_int,
    flags: c_int,
    request: *const Timespec,
    _remain: *mut Timespec,
) -> c_int {
    // SAFETY: the caller's promise.
    let request = unsafe { request.read() }.to_nanos();
    let (Some(nanos), Some(clock_now)) = (request, now(clock)) else { return EINVAL.number() };
    let left = if flags & 1 != 0 { nanos.saturating_sub(clock_now) } else { nanos };
    let _ = idle::sleep_while(|| true, Some(time::monotonic_nanos().saturating_add(left)));
    0
}
