//! The console's ring, and the port that Xen itself listens to.
//!
//! A program's text goes to the ring (`xencons_interface`, public/io/console.h), from which a daemon
//! in domain 0 takes it; `xl console` shows it. The machine's own words, a crash report above all, go
//! there and, byte by byte, to I/O port 0xe9, which Xen prints to its log with `guest_loglvl=all`, so
//! that they are seen even if the daemon is not there.
//!
//! There is no driver in here, so that it works at any moment: the ring is filled, the daemon
//! notified, and if the ring is full the machine waits for a moment. A daemon that does not read
//! costs it that moment once, and then text, not time.

use super::super::cpu::out_u8;
use super::clock;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use fata_hypercall::Port;
use fata_hypercall::image::{self, SpecialPlace};

/// Xen's debug port (`XEN_HVM_DEBUGCONS_IOPORT`).
const DEBUG_PORT: u16 = 0xe9;

// xencons_interface: in[1024], out[2048], in_cons, in_prod, out_cons, out_prod.
const OUT: usize = 1024;
const OUT_BYTES: usize = 2048;
const OUT_CONSUMED: usize = 3080;
const OUT_PRODUCED: usize = 3084;

/// How long a full ring is waited for: 300 ms. The daemon lets a domain that prints a lot wait for the
/// rest of 200 ms (its `RATE_LIMIT_PERIOD`), and that must lose nothing; past it, losing text is better
/// than losing the machine.
const FULL_WAITS_MAX: u32 = 1_500;
/// How long the end of the machine waits for the daemon to read the last words: 500 ms.
const DRAIN_WAITS_MAX: u32 = 2_500;
const WAIT_NANOS: u64 = 200_000;

/// The ring's page; 0 when there is none.
static RING: AtomicUsize = AtomicUsize::new(0);
static PORT: AtomicU32 = AtomicU32::new(0);
/// The daemon's index when it was last waited for in vain, plus one; 0 if it was not. While it
/// stands there, nobody waits again.
static STALLED: AtomicU64 = AtomicU64::new(0);
static DROPPED_BYTES: AtomicU64 = AtomicU64::new(0);

/// Bytes that were not written because nobody read the console.
pub fn dropped_bytes() -> u64 {
    DROPPED_BYTES.load(Ordering::Relaxed)
}

/// Xen's port needs no setup.
pub(crate) fn init() {}

/// From now on text goes to the ring, whose page is mapped.
pub(super) fn open(place: SpecialPlace) {
    PORT.store(place.port.0, Ordering::Relaxed);
    STALLED.store(0, Ordering::Relaxed);
    RING.store(place.address as usize, Ordering::Relaxed);
}

/// From now on it does not: the ring is gone.
pub(super) fn close() {
    RING.store(0, Ordering::Relaxed);
}

fn word(ring: usize, offset: usize) -> &'static AtomicU32 {
    // SAFETY: the page is mapped and nobody's (`Board::pages`), the offset is that of an aligned
    // field, and the daemon in the other domain reads and writes it as one word.
    unsafe { AtomicU32::from_ptr(core::ptr::with_exposed_provenance_mut(ring + offset)) }
}

/// Writes the machine's own words: to the ring and to Xen.
pub(crate) fn write(bytes: &[u8]) {
    write_debug_port(bytes);
    write_ring(bytes);
}

/// Writes a program's bytes: to the driver's console if it takes them, else to the ring that is the
/// same console, else to Xen.
pub(crate) fn write_program(bytes: &[u8], to_sink: impl FnOnce() -> bool) {
    if to_sink() || write_ring(bytes) {
        return;
    }
    write_debug_port(bytes);
}

fn write_debug_port(bytes: &[u8]) {
    for &byte in bytes {
        // SAFETY: Xen's own port; whoever else is there sees a byte on a port that nothing uses.
        unsafe { out_u8(DEBUG_PORT, byte) }
    }
}

/// Writes to the ring, a line's end as a terminal wants it; false when there is no ring.
fn write_ring(bytes: &[u8]) -> bool {
    let ring = RING.load(Ordering::Relaxed);
    if ring == 0 {
        return false;
    }
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(text) => {
                fill(ring, text);
                fill(ring, b"\r\n");
            }
            None => fill(ring, line),
        }
    }
    image::notify(Port(PORT.load(Ordering::Relaxed)));
    true
}

/// Puts bytes into the ring, or drops what there is no room for.
fn fill(ring: usize, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // Ours, but read back: a driver may have written meanwhile.
        let produced = word(ring, OUT_PRODUCED).load(Ordering::Relaxed);
        let room = room(ring, produced);
        if room == 0 {
            DROPPED_BYTES.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            return;
        }
        let (now, later) = bytes.split_at(room.min(bytes.len()));
        for (index, &byte) in now.iter().enumerate() {
            let at = produced.wrapping_add(index as u32) as usize % OUT_BYTES;
            let place = core::ptr::with_exposed_provenance_mut::<u8>(ring + OUT + at);
            // SAFETY: a byte of the ring's page, see `word`; nobody has a reference to it.
            unsafe { place.write_volatile(byte) };
        }
        // After the bytes: from here on the daemon may read them.
        fence(Ordering::Release);
        word(ring, OUT_PRODUCED).store(produced.wrapping_add(now.len() as u32), Ordering::Release);
        bytes = later;
    }
}

/// How many bytes have room, after a wait if there is none; 0 if there is still none.
fn room(ring: usize, produced: u32) -> usize {
    for wait in 0..=FULL_WAITS_MAX {
        let consumed = word(ring, OUT_CONSUMED).load(Ordering::Acquire);
        // An index that makes no sense leaves no room.
        let used = produced.wrapping_sub(consumed) as usize;
        if used < OUT_BYTES {
            STALLED.store(0, Ordering::Relaxed);
            return OUT_BYTES - used;
        }
        let here = u64::from(consumed) + 1;
        if STALLED.load(Ordering::Relaxed) == here {
            return 0;
        }
        if wait == FULL_WAITS_MAX {
            STALLED.store(here, Ordering::Relaxed);
            return 0;
        }
        image::notify(Port(PORT.load(Ordering::Relaxed)));
        pause();
    }
    0
}

/// Waits until the daemon has read everything, for a while.
pub(super) fn drain() {
    let ring = RING.load(Ordering::Relaxed);
    if ring == 0 {
        return;
    }
    for _ in 0..DRAIN_WAITS_MAX {
        let produced = word(ring, OUT_PRODUCED).load(Ordering::Relaxed);
        if word(ring, OUT_CONSUMED).load(Ordering::Acquire) == produced {
            return;
        }
        pause();
    }
}

/// Lets the daemon's domain run.
fn pause() {
    match clock::timer_nanos() {
        None => image::yield_now(),
        Some(now) => image::pause_until(now.saturating_add(WAIT_NANOS)),
    }
}
