//! The one-shot timer of the only processor, which Xen fires as an event (`VIRQ_TIMER`).

use super::call;
use super::events;
use super::shared_info;
use crate::{HypercallError, Port};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// `VIRQ_TIMER`.
const VIRQ: u32 = 0;
/// How much later than asked the timer may fire if that spares setting it: less than setting takes.
const SLACK_NANOS: u64 = 1_000;

static PORT: AtomicU32 = AtomicU32::new(0);
/// The system time that the timer is set to; 0 when it is not, or has fired.
static ARMED: AtomicU64 = AtomicU64::new(0);

/// Binds the timer's event, in a domain where there is none yet.
pub(super) fn bind() -> Result<(), HypercallError> {
    let port = events::bind_virq(VIRQ)?;
    PORT.store(port.0, Ordering::Relaxed);
    ARMED.store(0, Ordering::Relaxed);
    Ok(())
}

/// Notes that a port's event came.
pub(super) fn note_event(port: Port) {
    if port.0 == PORT.load(Ordering::Relaxed) {
        ARMED.store(0, Ordering::Relaxed);
    }
}

/// Asks for an event when Xen's system time reaches `system_nanos`, at once if it has. There is one
/// timer, and it may fire too early: one that is set to an earlier time stays, so that most sleeps,
/// which end before their deadline, cost no call. Whoever sleeps looks at the clock anyway.
///
/// # Errors
/// Xen's refusal, which there is no reason for once it has worked.
pub fn arm_timer(system_nanos: u64) -> Result<(), HypercallError> {
    // Whether it has fired is known by its event and not by the clock: Xen's own reading of it may
    // be ahead of the one that it gives to guests.
    let armed = ARMED.load(Ordering::Relaxed);
    if armed != 0 && armed <= system_nanos.saturating_add(SLACK_NANOS) {
        return Ok(());
    }
    call::set_timer(system_nanos)?;
    ARMED.store(system_nanos.max(1), Ordering::Relaxed);
    Ok(())
}

/// Whether Xen's own time has passed `system_nanos`; the timer is set to it meanwhile.
///
/// Seen by the timer itself: one that is set to a time that has passed fires before the call returns.
/// (There is a flag with which Xen refuses such a time, and since version 4.17 it means nothing.)
pub fn has_passed(system_nanos: u64) -> bool {
    let port = PORT.load(Ordering::Relaxed);
    let (word, bit) = (port as usize / 64, 1 << (port % 64));
    let pending = shared_info::pending_word(word);
    // What it was set to before must not fire in between.
    call::stop_timer();
    pending.fetch_and(!bit, Ordering::SeqCst);
    ARMED.store(0, Ordering::Relaxed);
    call::set_timer(system_nanos).is_ok() && pending.load(Ordering::SeqCst) & bit != 0
}
