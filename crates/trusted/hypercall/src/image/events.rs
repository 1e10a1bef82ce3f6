//! Event channels: ports, their lines, and what happens at an upcall.
//!
//! Xen's two-level ABI: a bit for each of 4096 ports, a selector with a bit for each word of them.
//! An event sets both and, if the selector's bit was not set, interrupts. The interrupt's handler
//! acknowledges and nothing more; [`deliver`] looks at the bits later, where ordinary code may run. It
//! need not wait for the interrupt at all: a program that never sleeps asks with one load.

use super::call::{
    AllocUnbound, BindInterdomain, BindVirq, Close, Operation as _, SELF, Send, Status, Unmask,
};
use super::shared_info::{self, PORT_WORDS, PORTS_MAX};
use super::timer;
use crate::lock::Lock;
use crate::{DomainId, HypercallError, Port};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use fata_shared::interrupt::Line;

/// The lines of the ports that are ours.
static LINES: Lock<Vec<Option<Line>>> = Lock::new(Vec::new());
static UPCALLS: AtomicU64 = AtomicU64::new(0);

/// `EVTCHNSTAT_interdomain`: bound, with another end.
const STATUS_INTERDOMAIN: u32 = 2;

pub(super) fn allocate_unbound(remote: DomainId) -> Result<(Port, Line), HypercallError> {
    let mut call = AllocUnbound { domain: SELF, remote: remote.0, ..AllocUnbound::default() };
    call.run()?;
    open(Port(call.port))
}

pub(super) fn bind_interdomain(
    remote: DomainId,
    port: Port,
) -> Result<(Port, Line), HypercallError> {
    let mut call =
        BindInterdomain { remote: remote.0, remote_port: port.0, ..BindInterdomain::default() };
    call.run()?;
    // Xen marks a port that is bound as pending, so the line fires without our doing.
    open(Port(call.port))
}

/// Binds an interrupt of Xen's own for the only processor; nobody waits for a line of it.
pub(super) fn bind_virq(virq: u32) -> Result<Port, HypercallError> {
    let mut call = BindVirq { virq, ..BindVirq::default() };
    call.run()?;
    Unmask { port: call.port }.run()?;
    Ok(Port(call.port))
}

/// Gives a port that exists a line, and lets its events through.
pub(super) fn open(port: Port) -> Result<(Port, Line), HypercallError> {
    let index = port.0 as usize;
    assert!(index < PORTS_MAX, "Xen gave port {port}, which its own table has no place for");
    let line = Line::new();
    LINES.with(|lines| {
        if lines.len() <= index {
            lines.resize(index + 1, None);
        }
        lines[index] = Some(line.clone());
    });
    // By a call and not by clearing the bit: what is pending already must be selected too.
    if let Err(error) = (Unmask { port: port.0 }).run() {
        close(port);
        return Err(error);
    }
    Ok((port, line))
}

pub(super) fn notify(port: Port) {
    // Refused when there is no other end, and then there is nobody to notify.
    let _ = Send { port: port.0 }.run();
}

pub(super) fn status(port: Port) -> Result<Status, HypercallError> {
    let mut call = Status { domain: SELF, port: port.0, ..Status::default() };
    call.run()?;
    Ok(call)
}

pub(super) fn is_connected(port: Port) -> bool {
    status(port).is_ok_and(|status| status.status == STATUS_INTERDOMAIN)
}

pub(super) fn close(port: Port) {
    let (word, bit) = (port.0 as usize / 64, 1 << (port.0 % 64));
    shared_info::mask_word(word).fetch_or(bit, Ordering::Relaxed);
    let _ = Close { port: port.0 }.run();
    shared_info::pending_word(word).fetch_and(!bit, Ordering::Relaxed);
    // Taken out under the lock, dropped outside: it may hold a waker, which is anybody's.
    let _line = LINES.with(|lines| lines.get_mut(port.0 as usize).and_then(Option::take));
}

/// How many ports have a line.
pub(super) fn open_ports() -> usize {
    LINES.with(|lines| lines.iter().flatten().count())
}

/// Forgets every line: the ports are gone.
pub(super) fn forget_all() {
    let _lines = LINES.with(core::mem::take);
}

pub(super) fn upcalls() -> u64 {
    UPCALLS.load(Ordering::Relaxed)
}

/// Whether [`deliver`] has something to do: one load.
#[inline]
pub fn is_pending() -> bool {
    shared_info::is_event_pending()
}

/// Fires the line of every port whose event is pending. To be called outside interrupt context, for
/// wakers run in it.
pub fn deliver() {
    UPCALLS.store(UPCALLS.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    let mut words = shared_info::take_selector();
    while words != 0 {
        let word = words.trailing_zeros() as usize % PORT_WORDS;
        words &= words - 1;
        let unmasked = !shared_info::mask_word(word).load(Ordering::Relaxed);
        let pending = shared_info::pending_word(word);
        let mut bits = pending.load(Ordering::Relaxed) & unmasked;
        // Before the lines fire: an event that comes while a task runs is a new one. All in one
        // instruction, which is a full barrier: what the other end stored before is seen.
        pending.fetch_and(!bits, Ordering::SeqCst);
        while bits != 0 {
            let port = word * 64 + bits.trailing_zeros() as usize;
            bits &= bits - 1;
            timer::note_event(Port(port as u32));
            // Cloned: a waker may open and close ports.
            if let Some(line) = LINES.with(|lines| lines.get(port).cloned().flatten()) {
                line.fire();
            }
        }
    }
}
