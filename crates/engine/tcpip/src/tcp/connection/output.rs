//! What a connection sends next, and the window that it offers.
//!
//! [`Connection::plan`] says what to send without changing anything; so "has something to send" and
//! "sends it" cannot disagree. [`Connection::transmit`] writes it and commits.

use super::{Connection, State};
use crate::tcp::isn::timestamp_clock;
use crate::tcp::timers::NEVER;
use crate::tcp::{Seq, Settings, Shared};
use crate::time::Instant;
use crate::wire::tcp::{Flags, Header, Options, Timestamps};
use core::num::NonZeroU16;

/// While memory is short, a window opens no further than this, in bytes.
const WINDOW_WHEN_SHORT: u32 = 4096;

/// What is sent next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// SYN, or in SYN-RECEIVED SYN-ACK.
    Syn,
    /// `len` bytes from `sequence`, and FIN. More than one segment if the device cuts them.
    Data { sequence: Seq, len: u32, fin: bool },
    /// A segment just below the window, which every peer answers.
    Probe,
    /// A pure ACK.
    Ack,
}

/// What [`Connection::transmit`] wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// Length in bytes, header included.
    pub(crate) len: usize,
    /// Bytes of payload among them.
    pub(crate) payload_len: usize,
    /// How many segments it is.
    pub(crate) segments: u32,
    /// If they are several: the payload of each, but for the last.
    pub(crate) mss: Option<NonZeroU16>,
}

impl Connection {
    /// What is sent next, if anything.
    pub(crate) fn plan(&self, settings: &Settings) -> Option<Plan> {
        match self.state {
            State::SynSent | State::SynReceived => {
                let is_due =
                    self.syn_due || (self.state == State::SynReceived && self.acks_due > 0);
                is_due.then_some(Plan::Syn)
            }
            State::TimeWait | State::Closed => None,
            _ => self
                .plan_retransmission()
                .or_else(|| self.plan_lost())
                .or_else(|| self.plan_data(settings))
                .or_else(|| self.probe_due.then_some(Plan::Probe))
                .or_else(|| (self.acks_due > 0).then_some(Plan::Ack)),
        }
    }

    /// The segment that is to go again at once: the first that is not acknowledged; or, with SACK,
    /// the first that is lost, or to probe for a lost end, the last. Neither window counts: it takes
    /// the place of one that is gone, and a peer that has closed its window answers it.
    fn plan_retransmission(&self) -> Option<Plan> {
        if !self.retransmit_due || self.una == self.max {
            return None;
        }
        if !self.has_sack {
            return Some(self.plan_again((self.una, self.max)));
        }
        if let Some(lost) = self.first_lost() {
            return Some(self.plan_again(lost));
        }
        let len = self.max.since(self.una).min(self.payload_room());
        Some(self.plan_again((self.max - len, self.max)))
    }

    /// The first segment that is lost, as far as the congestion window allows.
    fn plan_lost(&self) -> Option<Plan> {
        let lost = self.first_lost()?;
        let plan = self.plan_again(lost);
        let Plan::Data { len, .. } = plan else { return None };
        let in_flight = self.in_flight();
        let may_go = in_flight == 0 || in_flight.saturating_add(len) <= self.congestion.window();
        may_go.then_some(plan)
    }

    /// The first segment of a range that was sent before.
    fn plan_again(&self, (start, end): (Seq, Seq)) -> Plan {
        let data_end = self.data_end();
        let len = data_end.min(end).since(start).min(self.payload_room());
        let fin = self.fin_queued
            && !self.fin_acked
            && start + len == data_end
            && end.after(data_end)
            && self.max.after(data_end);
        Plan::Data { sequence: start, len, fin }
    }

    /// Whether data may go that never went.
    pub(super) fn can_send_data(&self, settings: &Settings) -> bool {
        self.plan_data(settings).is_some()
    }

    /// What follows, as far as both windows allow and silly window avoidance (RFC 9293
    /// §3.8.6.2.1) and Nagle's algorithm (§3.7.4) see fit.
    fn plan_data(&self, settings: &Settings) -> Option<Plan> {
        let data_end = self.data_end();
        let fin_unsent = self.fin_queued && !self.fin_acked && self.next.at_or_before(data_end);
        let unsent = data_end.since(self.next);
        // What is lost goes first.
        if (unsent == 0 && !fin_unsent) || self.has_lost() {
            return None;
        }
        let mss = self.payload_room();
        let burst = if unsent > mss { self.burst_max(settings) } else { mss };
        let peer_room = (self.una + self.window).since(self.next);
        let in_flight = if self.has_sack { self.in_flight() } else { self.next.since(self.una) };
        let mut path_room = self.path_window().saturating_sub(in_flight);
        if self.tail_probe_due {
            // A probe goes whatever the congestion window says (RFC 8985 §7.3).
            path_room = path_room.max(mss);
        }
        let mut len = unsent.min(burst).min(peer_room).min(path_room);
        if burst > mss && len < burst.min(unsent) && self.awaits_ack() {
            return None;
        }
        if len > mss && !(len == unsent && (self.nodelay || fin_unsent)) {
            // The end of it is a small segment after others, which Nagle's algorithm and silly
            // window avoidance judge by itself.
            len -= len % mss;
        }
        let is_all = len == unsent;
        let fin = fin_unsent && is_all && peer_room > len && path_room > 0;
        if len == 0 && !fin {
            return None;
        }
        let is_idle = self.next == self.una;
        let is_worthwhile = len >= mss
            || fin
            // What was sent before is sent again in whatever pieces.
            || self.next.before(self.max)
            || (is_all && (is_idle || self.nodelay))
            || len >= (self.window_max / 2).max(1)
            || self.override_due
            || self.tail_probe_due;
        is_worthwhile.then_some(Plan::Data { sequence: self.next, len, fin })
    }

    /// Whether an ACK is about to make room for a larger frame: then a small one now would halve what
    /// the device can do at once, and its ACK would make room for just as small a one, for ever.
    ///
    /// Without loss, and where the device cuts, a frame that a window would make small waits; since
    /// frames are no more than a quarter of the window, three quarters of it are in flight
    /// meanwhile. (Linux: `tcp_tso_should_defer`.)
    fn awaits_ack(&self) -> bool {
        self.una != self.next
            && self.next == self.max
            && !self.is_repairing()
            && self.is_flight_plain()
            && self.duplicate_acks == 0
            && !self.override_due
            && !self.tail_probe_due
    }

    /// The congestion window; with limited transmit for the first two duplicate ACKs (RFC 3042).
    fn path_window(&self) -> u32 {
        let extra = match self.duplicate_acks {
            1 | 2 if !self.is_recovering => u32::from(self.duplicate_acks) * self.payload_max(),
            _ => 0,
        };
        self.congestion.window().saturating_add(extra)
    }

    /// Writes the next segment to the start of `buffer`, which has room for the largest; `None` if
    /// there is nothing to send.
    pub(crate) fn transmit(
        &mut self,
        now: Instant,
        buffer: &mut [u8],
        shared: &mut Shared,
    ) -> Option<Written> {
        self.restart_after_idle(now);
        self.retry_size(now);
        let plan = self.plan(&shared.settings)?;
        let payload = if let Plan::Data { len, .. } = plan { len } else { 0 };
        let room = self.payload_room();
        let segments = payload.div_ceil(room).max(1);
        let mss = NonZeroU16::new(room.min(u16::MAX.into()) as u16).filter(|_| segments > 1);
        let len = match plan {
            Plan::Syn => self.transmit_syn(now, buffer, shared),
            Plan::Data { sequence, len, fin } => {
                self.transmit_data(now, sequence, len, fin, buffer, shared)
            }
            Plan::Probe => {
                self.probe_due = false;
                shared.counters.tcp_probes_sent += 1;
                // The peer may drop it without a look at its ACK: one that is owed stays owed.
                self.acks_due = self.acks_due.max(u8::from(self.ack_at != NEVER));
                let header = self.header(now, self.una - 1, Flags::ACK, shared);
                header.emit(buffer)
            }
            Plan::Ack => {
                let due = self.acks_due;
                // SND.NXT, not where a retransmission has got to: the peer would take a number
                // below its window for an old duplicate.
                let header = self.header(now, self.max, Flags::ACK, shared);
                self.acks_due = due - 1;
                shared.counters.tcp_pure_acks_sent += 1;
                header.emit(buffer)
            }
        };
        Some(Written { len, payload_len: payload as usize, segments, mss })
    }

    /// After a pause the window says nothing about the path any more (RFC 5681 §4.1).
    fn restart_after_idle(&mut self, now: Instant) {
        if self.is_open()
            && self.una == self.max
            && now.saturating_since(self.sent_at) > self.rtt.timeout()
        {
            self.congestion.on_idle(self.payload_max());
        }
    }

    fn transmit_syn(&mut self, now: Instant, buffer: &mut [u8], shared: &mut Shared) -> usize {
        let is_answer = self.state == State::SynReceived;
        let clock = timestamp_clock(self.timestamp_offset, now);
        let header = Header {
            source_port: self.tuple.local_port,
            destination_port: self.tuple.remote_port,
            sequence: self.iss,
            acknowledgment: self.receive.acknowledge(),
            flags: Flags::SYN.with_if(Flags::ACK, is_answer),
            // Never scaled in a segment with SYN (RFC 7323 §2.2).
            window: shared.settings.syn_window() as u16,
            options: Options {
                mss: Some(shared.settings.mss(&self.tuple)),
                // An answer offers what was agreed on; the same each time (pitfall of a SYN that
                // changes when it is sent again).
                window_shift: (!is_answer || self.receive_shift > 0 || self.window_shift > 0)
                    .then_some(shared.settings.window_shift),
                sack_permitted: !is_answer || self.has_sack,
                timestamps: (!is_answer || self.has_timestamps)
                    .then_some(Timestamps { value: clock, echo: self.peer_clock.recent() }),
                ..Options::default()
            },
        };
        self.syn_due = false;
        self.acks_due = 0;
        if self.max == self.iss {
            self.max = self.iss + 1;
            self.next = self.max;
            self.timed_end = self.max;
            self.timed_at = now;
            self.silent_since = now;
        }
        if self.retransmit_at == NEVER {
            self.arm_retransmit(now, shared);
        }
        self.sent_at = now;
        header.emit(buffer)
    }

    fn transmit_data(
        &mut self,
        now: Instant,
        sequence: Seq,
        len: u32,
        fin: bool,
        buffer: &mut [u8],
        shared: &mut Shared,
    ) -> usize {
        let data_end = self.data_end();
        let end = sequence + len;
        // PSH says that the program has written no more for now (RFC 9293 §3.9.1.2).
        let flags =
            Flags::ACK.with_if(Flags::PSH, len > 0 && end == data_end).with_if(Flags::FIN, fin);
        // Data brings the ACK along, unless duplicates are owed: those count only without data.
        let due = self.acks_due;
        let header = self.header(now, sequence, flags, shared);
        self.acks_due = if due > 1 { due } else { 0 };
        let header_len = header.emit(buffer);
        let payload = &mut buffer[header_len..header_len + len as usize];
        self.send.copy(sequence.since(self.una), payload);
        let end = end + u32::from(fin);
        let is_again = sequence.before(self.max);
        if is_again {
            // Karn's algorithm: what was sent twice cannot be timed.
            self.timed_at = NEVER;
            let segments = len.div_ceil(self.payload_max()).max(1);
            shared.counters.tcp_retransmits += u64::from(segments);
            self.retransmits = self.retransmits.saturating_add(segments);
        } else if self.timed_at == NEVER {
            self.timed_end = end;
            self.timed_at = now;
        }
        if sequence == self.una || self.has_sack {
            self.retransmit_due = false;
        }
        if self.una == self.max {
            // The timer was for window probes, if it was set.
            self.silent_since = now;
            self.retransmit_at = NEVER;
        }
        self.note_sent(now, (sequence, end), is_again, shared);
        self.next = self.next.max(end);
        self.max = self.max.max(end);
        if self.retransmit_at == NEVER {
            self.arm_retransmit(now, shared);
        }
        self.note_flight(&shared.settings);
        if self.has_sack && !is_again {
            self.arm_tail_probe(now);
        }
        self.override_due = false;
        self.probe_due = false;
        self.sent_at = now;
        if fin {
            self.state = match self.state {
                State::Established => State::FinWait1,
                State::CloseWait => State::LastAck,
                state => state,
            };
        }
        header_len + len as usize
    }

    /// Keeps the peak of the bytes in flight, per round trip. Room that is only too small for the
    /// next frame counts as used: it is the window that limits, and not the program.
    pub(super) fn note_flight(&mut self, settings: &Settings) {
        let mut flight = self.flight();
        let window = self.congestion.window();
        if self.data_end().after(self.next) && window < flight + self.burst_max(settings) {
            flight = flight.max(window);
        }
        self.note_peak(flight);
    }

    /// Keeps the peak of the bytes in flight, which are `flight` now.
    pub(super) fn note_peak(&mut self, flight: u32) {
        if self.una.at_or_after(self.round_end) || flight > self.flight_peak {
            self.flight_peak = flight;
            self.round_end = self.max;
        }
    }

    /// The ACK of the peer's FIN that a connection leaves behind as it enters TIME-WAIT.
    pub(crate) fn last_ack(&mut self, now: Instant, shared: &Shared) -> Header {
        self.acks_due = 0;
        self.header(now, self.max, Flags::ACK, shared)
    }

    /// The header of a segment with ACK. What it acknowledges counts as acknowledged.
    fn header(&mut self, now: Instant, sequence: Seq, flags: Flags, shared: &Shared) -> Header {
        let acknowledgment = self.receive.acknowledge();
        let window = self.advertise(shared);
        let sack = self.receive.take_sack(self.sack_blocks_max());
        self.last_ack_sent = acknowledgment;
        self.unacknowledged = 0;
        self.ack_at = NEVER;
        Header {
            source_port: self.tuple.local_port,
            destination_port: self.tuple.remote_port,
            sequence,
            acknowledgment,
            flags,
            window,
            options: Options {
                timestamps: self.has_timestamps.then(|| Timestamps {
                    value: timestamp_clock(self.timestamp_offset, now),
                    echo: self.peer_clock.recent(),
                }),
                sack,
                ..Options::default()
            },
        }
    }

    /// Bytes that there is room for beyond RCV.NXT.
    fn free(&self) -> u32 {
        self.receive_limit.saturating_sub(self.receive.unread())
    }

    /// The right edge that could be offered now.
    fn edge_possible(&self, shared: &Shared) -> Seq {
        let next = self.receive.acknowledge();
        let free = self.free();
        // Room for the rounding of `advertise`: a little for each of many ACKs.
        let rounding = (1 << self.receive_shift) - 1;
        let spare = (64 * rounding).min(self.receive_limit / 16);
        let mut room = free.saturating_sub(spare).min(65_535 << self.receive_shift);
        if shared.memory.is_short() {
            room = room.min(WINDOW_WHEN_SHORT.saturating_sub(self.receive.unread()));
        }
        self.edge.max(next + room)
    }

    /// The least by which the window opens (RFC 9293 §3.8.6.2.2).
    fn opening_min(&self) -> u32 {
        (self.receive_limit / 2).min(self.mss.into())
    }

    /// The window field of the next segment; moves the right edge there.
    fn advertise(&mut self, shared: &Shared) -> u16 {
        let next = self.receive.acknowledge();
        let possible = self.edge_possible(shared);
        if possible.since(self.edge) >= self.opening_min() {
            self.edge = possible;
        }
        let window = self.edge.since(next);
        let unit = 1 << self.receive_shift;
        // Rounded up, so that the edge does not move back for the peer; unless what that promises
        // could not be kept. Then it seems to move back by less than a unit, and what was promised
        // before is taken all the same (RFC 7323 §2.4).
        let rounded_up = window.div_ceil(unit);
        let is_kept = rounded_up.saturating_mul(unit) <= self.free();
        let field = if is_kept { rounded_up } else { window / unit }.min(65_535);
        self.edge = self.edge.max(next + (field << self.receive_shift));
        field as u16
    }

    /// The program has read: tells the peer if its window has become much larger, that is, at
    /// least twice what it knows of (RFC 9293 §3.8.6.2.2).
    pub(super) fn offer_window(&mut self, shared: &Shared) {
        if self.receive.is_finished() || !self.is_open() {
            return;
        }
        let next = self.receive.acknowledge();
        let possible = self.edge_possible(shared);
        let (known, now_free) = (self.edge.since(next), possible.since(next));
        if self.ack_at != NEVER && known >= 2 * u32::from(self.mss) {
            // An ACK goes soon, and until then the peer has room enough.
            return;
        }
        if possible.since(self.edge) >= self.opening_min() && now_free >= 2 * known {
            self.acks_due = self.acks_due.max(1);
        }
    }
}
