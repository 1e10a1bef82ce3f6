//! What is lost and when it is sent again, with a peer that tells what has arrived: RACK-TLP (RFC
//! 8985) over the ranges of [`Flight`], proportional rate reduction (RFC 9937), and undoing what was
//! done for a loss that was none (RFC 3522, RFC 3708).
//!
//! ```text
//!            something lost                       all of then acknowledged
//!   open ────────────────────► recovering ─────────────────────────────────► open
//!     │                            │                                          ▲
//!     └────── RTO ─► after a timeout ◄── RTO          … or undone ────────────┘
//! ```
//!
//! Peers without SACK get NewReno's way ([`super::duplicates`]).

use super::Connection;
use crate::tcp::congestion::{Ack, Congestion, Reduction};
use crate::tcp::flight::{Flight, Sent};
use crate::tcp::isn::timestamp_clock;
use crate::tcp::receive_buffer::Range;
use crate::tcp::timers::NEVER;
use crate::tcp::{Seq, Shared};
use crate::time::Instant;
use crate::wire::tcp::Header;
use core::time::Duration;

/// How long a peer may delay the ACK of a single segment (TLP.max_ack_delay of RFC 8985 §7.2, which
/// takes what RFC 5681 calls typical, and Linux as well).
const PEER_ACK_DELAY: Duration = Duration::from_millis(200);

/// PTO without a measurement (RFC 8985 §7.2).
const PROBE_TIMEOUT_UNMEASURED: Duration = Duration::from_secs(1);

/// PTO is not less: neither hosts nor their timers are that exact (Linux adds as much).
const PROBE_TIMEOUT_MIN: Duration = Duration::from_millis(2);

/// Spare ones that are kept for the next connection that sends.
const SPARE_MAX: usize = 64;

/// What a connection needs to know only while something is in flight.
#[derive(Default)]
pub(crate) struct Recovery {
    pub(super) flight: Flight,
    /// The course of the recovery.
    reduction: Reduction,
    /// How to take it back.
    undo: Option<Undo>,
}

/// Ranges that were sent again and are remembered, in which neighbours are one. What needs more is
/// not undone.
const RESENT_RANGES_MAX: usize = 32;

/// How it was before a loss that may have been none.
struct Undo {
    congestion: Congestion,
    /// What was sent again since.
    resent: Vec<Range>,
    /// Bytes of it that the peer has not reported to have had already.
    resent_bytes: u32,
    /// Our timestamp clock when something was first sent again.
    resent_clock: Option<u32>,
    /// It was the timer that told of the loss, and not what arrived.
    is_of_timeout: bool,
    /// Since the recovery is over: when this is acknowledged, a duplicate would have been reported.
    until: Option<Seq>,
}

/// A tail loss probe (RFC 8985 §7.3).
#[derive(Clone, Copy)]
pub(super) struct Tail {
    /// TLP.end_seq: SND.NXT after the probe.
    end: Seq,
    /// TLP.is_retrans.
    is_retransmission: bool,
}

/// Spare [`Recovery`]s, so that a request costs no trip to the allocator.
#[derive(Default)]
pub(crate) struct Recoveries {
    #[expect(clippy::vec_box, reason = "they go into connections as they are")]
    spare: Vec<Box<Recovery>>,
}

impl Recoveries {
    fn take(&mut self) -> Box<Recovery> {
        self.spare.pop().unwrap_or_default()
    }

    fn give(&mut self, mut recovery: Box<Recovery>) {
        if self.spare.len() < SPARE_MAX {
            recovery.flight.clear();
            recovery.undo = None;
            self.spare.push(recovery);
        }
    }
}

/// What [`Connection::loss_at`] is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LossTimer {
    /// What is late may be lost by then.
    Reorder,
    /// Nothing came back: the last segment may be lost, and nobody would tell.
    Tail,
}

impl Connection {
    /// The bytes that are on their way, for all we know (RFC 6675 §4, SetPipe).
    pub(super) fn in_flight(&self) -> u32 {
        let flight = self.flight();
        match &self.recovery {
            Some(recovery) => {
                flight.saturating_sub(recovery.flight.sacked() + recovery.flight.lost())
            }
            None => flight,
        }
    }

    /// Nothing is lost, and nothing has arrived ahead of a gap, as far as the peer has told.
    pub(super) fn is_flight_plain(&self) -> bool {
        self.recovery.as_ref().is_none_or(|recovery| recovery.flight.is_plain())
    }

    /// Something is lost and not sent again yet.
    pub(super) fn has_lost(&self) -> bool {
        self.recovery.as_ref().is_some_and(|recovery| recovery.flight.lost() > 0)
    }

    /// What is lost and not sent again yet, the first of it.
    pub(super) fn first_lost(&self) -> Option<Range> {
        self.recovery.as_ref()?.flight.first_lost()
    }

    /// After a timeout, or in a recovery: what was in flight then is not all acknowledged.
    pub(super) fn is_repairing(&self) -> bool {
        self.is_recovering || self.una.before(self.recover)
    }

    /// Notes that [`start`, `end`) leaves now; `is_again` if it is not the first time.
    pub(super) fn note_sent(
        &mut self,
        now: Instant,
        (start, end): Range,
        is_again: bool,
        shared: &mut Shared,
    ) {
        if !self.has_sack || start == end {
            return;
        }
        let is_probe = core::mem::take(&mut self.tail_probe_due);
        let max = self.max.max(end);
        let clock = timestamp_clock(self.timestamp_offset, now);
        let recovery = self.recovery.get_or_insert_with(|| shared.recoveries.take());
        if self.is_recovering {
            recovery.reduction.on_sent(end.since(start));
        }
        if is_again {
            recovery.flight.send_again(now, start, end);
            if let Some(undo) = &mut recovery.undo {
                undo.note((start, end), clock);
            }
        } else {
            recovery.flight.send(now, start, end);
        }
        if is_probe {
            self.tail = Some(Tail { end: max, is_retransmission: is_again });
            shared.counters.tcp_tail_probes += 1;
            self.loss_at = NEVER;
            // The probe is answered, or the timer starts from it (RFC 8985 §7.3).
            self.retransmit_at = NEVER;
        } else if start == self.una {
            // A whole round trip for its answer.
            self.retransmit_at = NEVER;
        }
    }

    /// Starts the timer of the tail loss probe, if there may be one (RFC 8985 §7.2).
    pub(super) fn arm_tail_probe(&mut self, now: Instant) {
        let Some(recovery) = &self.recovery else { return };
        let may_probe = recovery.flight.is_plain()
            && self.tail.is_none()
            && !self.is_repairing()
            && self.rtt.backoff() == 0
            && self.una != self.max;
        if !may_probe {
            if self.loss_timer == LossTimer::Tail {
                self.loss_at = NEVER;
            }
            return;
        }
        let mut timeout = match self.rtt.smoothed() {
            Some(smoothed) => (2 * smoothed).max(PROBE_TIMEOUT_MIN),
            None => PROBE_TIMEOUT_UNMEASURED,
        };
        if self.flight() <= self.payload_max() {
            timeout += PEER_ACK_DELAY;
        }
        self.loss_timer = LossTimer::Tail;
        self.loss_at = (now + timeout).min(self.retransmit_at);
    }

    /// What the timer was for is due.
    pub(super) fn on_loss_timeout(&mut self, now: Instant, shared: &mut Shared) {
        self.loss_at = NEVER;
        match self.loss_timer {
            LossTimer::Reorder => {
                self.detect_losses(now, 0, false, shared);
            }
            LossTimer::Tail => {
                self.tail_probe_due = true;
                if !self.can_send_data(&shared.settings) {
                    // Nothing new may go: the last segment again.
                    self.retransmit_due = true;
                }
                // If the RTO is due as well, the probe goes in its stead.
                self.retransmit_at = NEVER;
                self.arm_retransmit(now, shared);
            }
        }
    }

    /// An ACK, of `acked` new bytes, of which `flight_before` were in flight; and what it says has
    /// arrived ahead of a gap or twice. SND.UNA is up to date.
    pub(super) fn on_delivery(
        &mut self,
        now: Instant,
        header: &Header,
        acked: u32,
        flight_before: u32,
        shared: &mut Shared,
    ) {
        let (una, max) = (self.una, self.max);
        let was_recovering = self.is_recovering;
        let blocks = header.options.sack.as_slice();
        let duplicate = duplicate(blocks, header.acknowledgment, una - self.window_max);
        self.on_tail_ack(header, acked, duplicate, shared);
        let Some(mut recovery) = self.recovery.take() else { return };
        let echo = header.options.timestamps.filter(|_| self.has_timestamps).map(|t| Seq(t.echo));
        let offset = self.timestamp_offset;
        let (rack, mut sample) = (&mut self.rack, None);
        let mut deliver = |sent: &Sent, is_acknowledged: bool| {
            let is_older =
                echo.is_some_and(|echo| echo.before(Seq(timestamp_clock(offset, sent.at))));
            // For what lies ahead of a gap, the echo is what came before the gap, and proves nothing.
            if sent.again && is_acknowledged && is_older {
                rack.on_overtaken(sent.end);
            }
            rack.deliver(now, sent, is_older);
            if !sent.again {
                sample = Some(now.saturating_since(sent.at));
            }
        };
        let mut delivered = recovery.flight.acknowledge(una, |sent| deliver(sent, true));
        for &(start, end) in blocks.get(usize::from(duplicate.is_some())..).unwrap_or_default() {
            // The peer may say anything: believed is what can be true (RFC 2018 §3), and what is
            // news.
            if start.after(una) && start.before(end) && end.at_or_before(max) {
                match recovery.flight.sack((start, end), |sent| deliver(sent, false)) {
                    Some(bytes) => delivered += bytes,
                    None => shared.counters.tcp_sack_limited += 1,
                }
            } else if end.after(max) || start.at_or_after(end) {
                shared.counters.tcp_sack_invalid += 1;
            }
        }
        if let Some(duplicate) = duplicate {
            shared.counters.tcp_duplicates_reported += 1;
            self.rack.on_duplicate(una, max);
            if let Some(undo) = &mut recovery.undo
                && undo.on_duplicate(duplicate)
                && !undo.is_of_timeout
            {
                // It was sent again because of what had arrived ahead of it.
                self.rack.on_overtaken(duplicate.1);
            }
        }
        let echo_older = |undo: &Undo| {
            let clock = undo.resent_clock.map(Seq);
            acked > 0 && echo.zip(clock).is_some_and(|(echo, clock)| echo.before(clock))
        };
        let is_spurious =
            recovery.undo.as_ref().is_some_and(|undo| {
                // All that was sent again had arrived (RFC 3708), or the first ACK answers what was sent
                // before (RFC 3522).
                !undo.resent.is_empty() && (undo.resent_bytes == 0 || echo_older(undo))
            }) && (!self.is_recovering || una.at_or_after(self.recover) || duplicate.is_some());
        self.recovery = Some(recovery);
        if is_spurious {
            self.undo_recovery(shared);
        }
        if una.at_or_after(self.recover) {
            self.end_recovery();
        }
        let is_safe = acked > 0;
        if !self.is_flight_plain() || self.is_recovering {
            self.detect_losses(now, delivered, is_safe, shared);
        } else if self.loss_timer == LossTimer::Reorder {
            self.loss_at = NEVER;
        }
        if !was_recovering && !self.is_recovering && acked > 0 {
            self.congestion.on_ack(&Ack {
                now,
                acked,
                flight_peak: self.flight_peak.max(flight_before),
                mss: self.payload_max(),
                una,
                max,
                round_trip: sample,
                smoothed: self.rtt.smoothed().unwrap_or_default(),
            });
        }
        if una == max {
            self.retransmit_at = NEVER;
            self.drop_recovery(shared);
        } else if acked > 0 {
            self.arm_retransmit(now, shared);
        }
        self.arm_tail_probe(now);
    }

    /// An ACK while a tail loss probe may be in flight (RFC 8985 §7.4.2).
    fn on_tail_ack(
        &mut self,
        header: &Header,
        acked: u32,
        duplicate: Option<Range>,
        shared: &mut Shared,
    ) {
        if core::mem::take(&mut self.tail_probe_due) {
            // It answers before it was asked.
            self.retransmit_due = false;
        }
        let Some(tail) = self.tail.filter(|tail| header.acknowledgment.at_or_after(tail.end))
        else {
            return;
        };
        let is_bare = acked == 0 && header.options.sack.is_empty();
        if !tail.is_retransmission || is_bare || duplicate.is_some_and(|d| d.1 == tail.end) {
            // Both copies have arrived, or there was only one.
            self.tail = None;
        } else if header.acknowledgment.after(tail.end) {
            // The probe filled a hole that nobody would have told of: a loss all the same.
            self.tail = None;
            let (flight, mss) = (self.flight().max(self.flight_peak), self.payload_max());
            self.congestion.on_loss(flight, mss);
            let window = self.congestion.threshold().min(self.congestion.window());
            self.congestion.set_window(window, mss);
            shared.counters.tcp_tail_losses += 1;
        }
    }

    /// Looks for losses, and goes on with the recovery from them: `delivered` bytes have arrived.
    fn detect_losses(&mut self, now: Instant, delivered: u32, is_safe: bool, shared: &mut Shared) {
        let mss = self.payload_max();
        let smoothed = self.rtt.smoothed().unwrap_or(self.rack.round_trip());
        let (una, max) = (self.una, self.max);
        let Some(recovery) = &mut self.recovery else { return };
        let before = recovery.flight.lost();
        let is_repairing = self.is_recovering || una.before(self.recover);
        let later = self.rack.detect(now, &mut recovery.flight, is_repairing, smoothed, mss);
        self.loss_timer = LossTimer::Reorder;
        self.loss_at = later.unwrap_or(NEVER);
        let is_more_lost = recovery.flight.lost() > before;
        let flight = max.since(una);
        if is_more_lost && !is_repairing {
            recovery.undo = Some(Undo::new(&self.congestion, false));
            self.tail = None;
            // As it was before this ACK, without what had arrived before (RFC 9937 §6.1).
            recovery.reduction = Reduction::new(flight - recovery.flight.sacked() + delivered);
            self.is_recovering = true;
            self.recover = max;
            self.congestion.on_loss(flight, mss);
            shared.counters.tcp_fast_retransmits += 1;
        }
        if self.is_recovering && (delivered > 0 || is_more_lost) {
            let in_flight = flight - recovery.flight.sacked() - recovery.flight.lost();
            let threshold = self.congestion.threshold();
            let is_safe = is_safe && !is_more_lost;
            let window = recovery.reduction.on_ack(delivered, in_flight, threshold, mss, is_safe);
            self.congestion.set_window(window, mss);
        }
    }

    /// What was in flight when the recovery began is acknowledged.
    fn end_recovery(&mut self) {
        if self.is_recovering {
            self.is_recovering = false;
            let (window, mss) = (self.congestion.threshold(), self.payload_max());
            self.congestion.set_window(window, mss);
            self.rack.on_recovered();
        }
        let (una, max) = (self.una, self.max);
        if let Some(undo) = self.recovery.as_mut().and_then(|recovery| recovery.undo.as_mut())
            && una.at_or_after(*undo.until.get_or_insert(max))
            && let Some(recovery) = &mut self.recovery
        {
            recovery.undo = None;
        }
        self.follow_recover();
    }

    /// Keeps `recover` near, so that it never seems to be ahead when the numbers have gone half of
    /// their circle (pitfall T08).
    pub(super) fn follow_recover(&mut self) {
        self.recover = self.recover.max(self.una - 1);
        self.rack.follow(self.una);
    }

    /// Nothing was lost: the window as it was, and what was to be sent again is on its way.
    fn undo_recovery(&mut self, shared: &mut Shared) {
        let Some(recovery) = &mut self.recovery else { return };
        let Some(undo) = recovery.undo.take() else { return };
        recovery.flight.find_lost();
        self.congestion.undo(&undo.congestion);
        self.is_recovering = false;
        self.retransmit_due = false;
        self.recover = self.una - 1;
        shared.counters.tcp_recoveries_undone += 1;
    }

    /// The retransmission timer expired (RFC 6298 §5, RFC 8985 §6.3).
    pub(super) fn on_timeout_with_sack(&mut self, now: Instant, shared: &mut Shared) {
        let (una, mss) = (self.una, self.payload_max());
        let is_again = self.is_repairing() || self.rtt.backoff() > 0;
        let smoothed = self.rtt.smoothed().unwrap_or_default();
        let Some(recovery) = &mut self.recovery else { return };
        if !is_again || recovery.undo.is_none() {
            recovery.undo = (!is_again).then(|| Undo::new(&self.congestion, true));
        }
        self.tail = None;
        if recovery.flight.is_first_sacked() {
            recovery.flight.renege();
            shared.counters.tcp_sack_reneged += 1;
        }
        self.rack.on_timeout(now, una, &mut recovery.flight, smoothed / 4);
        let flight = self.max.since(una);
        self.congestion.on_timeout(flight, mss, is_again);
        self.is_recovering = false;
        self.recover = self.max;
        self.loss_at = NEVER;
        self.tail_probe_due = false;
        self.retransmit_due = true;
    }

    /// What is in flight was lost to its size (RFC 8201 §5.4): all of it again, and the window
    /// stays.
    pub(super) fn lose_all(&mut self) {
        if let Some(recovery) = &mut self.recovery {
            recovery.flight.lose(|_| true);
        }
        self.tail = None;
        self.loss_at = NEVER;
        self.retransmit_due = true;
    }

    /// Nothing is in flight any more.
    pub(super) fn drop_recovery(&mut self, shared: &mut Shared) {
        if let Some(recovery) = self.recovery.take() {
            shared.recoveries.give(recovery);
        }
        self.loss_at = NEVER;
        self.tail_probe_due = false;
        self.retransmit_due = false;
    }
}

impl Undo {
    fn new(congestion: &Congestion, is_of_timeout: bool) -> Self {
        Undo {
            congestion: *congestion,
            resent: Vec::new(),
            resent_bytes: 0,
            resent_clock: None,
            is_of_timeout,
            until: None,
        }
    }

    /// [`start`, `end`) is sent again, when our timestamp clock says `clock`.
    fn note(&mut self, (start, end): Range, clock: u32) {
        self.resent_clock.get_or_insert(clock);
        self.resent_bytes = self.resent_bytes.saturating_add(end.since(start));
        let count = self.resent.len();
        match self.resent.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ if count < RESENT_RANGES_MAX => self.resent.push((start, end)),
            _ => {}
        }
    }

    /// The peer has got something twice. A network may have doubled it: it counts only if it was
    /// sent again. Returns whether it was.
    fn on_duplicate(&mut self, (start, end): Range) -> bool {
        let was_resent =
            self.resent.iter().any(|&(from, to)| from.at_or_before(start) && end.at_or_before(to));
        if was_resent {
            self.resent_bytes = self.resent_bytes.saturating_sub(end.since(start));
        }
        was_resent
    }
}

/// Whether the first block reports a duplicate (RFC 2883 §5): it lies below the ACK, but not below
/// `oldest`, or inside of the second.
fn duplicate(blocks: &[Range], ack: Seq, oldest: Seq) -> Option<Range> {
    let &(start, end) = blocks.first()?;
    if start.at_or_after(end) {
        return None;
    }
    let is_below = end.at_or_before(ack) && start.at_or_after(oldest);
    let is_inside =
        blocks.get(1).is_some_and(|&(from, to)| from.at_or_before(start) && end.at_or_before(to));
    (is_below || is_inside).then_some((start, end))
}
