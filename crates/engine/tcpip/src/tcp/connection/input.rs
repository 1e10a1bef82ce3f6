//! What a connection does with a segment that arrives (RFC 9293 §3.10.7.3 and §3.10.7.4, in their
//! order, with RFC 5961 against blind attacks and RFC 7323 for timestamps).

use super::stretch;
use super::{Connection, Owner, State};
use crate::error::TcpError;
use crate::tcp::isn::timestamp_clock;
use crate::tcp::receive_buffer::Arrival;
use crate::tcp::reply::may_answer;
use crate::tcp::timers::NEVER;
use crate::tcp::{Seq, Shared};
use crate::time::Instant;
use crate::wire::tcp::{Flags, Header, Segment};
use core::num::NonZeroU16;
use core::time::Duration;

/// Challenge ACKs: at most so many in each interval, per connection, so that their number tells
/// nothing about other connections (RFC 5961 §7, CVE-2016-5696).
const CHALLENGES_MAX: u8 = 10;
const CHALLENGE_INTERVAL: Duration = Duration::from_secs(5);

/// Delayed ACK. RFC 9293 §3.8.6.3 allows less than 500 ms; this is below every stack's least RTO.
const ACK_DELAY: Duration = Duration::from_millis(40);

/// ACKs owed at once for segments out of order; a burst of more tells the sender nothing new.
const ACKS_DUE_MAX: u8 = 16;

/// An echoed timestamp that is older is nonsense.
const ROUND_TRIP_MAX_MS: u32 = 10 * 60 * 1000;

impl Connection {
    /// Takes a segment for this connection.
    pub(crate) fn on_segment(&mut self, now: Instant, segment: &Segment<'_>, shared: &mut Shared) {
        match self.state {
            State::SynSent => self.on_segment_syn_sent(now, segment, shared),
            State::TimeWait | State::Closed => {}
            _ => self.on_segment_synchronized(now, segment, shared),
        }
        if self.keepalive_at != NEVER {
            self.on_sign_of_life(now);
        }
    }

    /// The peer is there: the wait for the next keepalive begins anew.
    pub(super) fn on_sign_of_life(&mut self, now: Instant) {
        if let Some(keepalive) = &mut self.keepalive {
            keepalive.probes_sent = 0;
            self.keepalive_at = now + keepalive.config.idle;
        }
    }

    /// RFC 9293 §3.10.7.3.
    fn on_segment_syn_sent(&mut self, now: Instant, segment: &Segment<'_>, shared: &mut Shared) {
        let header = &segment.header;
        let flags = header.flags;
        if flags.has(Flags::ACK) {
            let is_acceptable = header.acknowledgment.after(self.iss)
                && header.acknowledgment.at_or_before(self.max);
            if !is_acceptable {
                shared.replies.reset(now, self.tuple, segment, &mut shared.counters);
                return;
            }
            if flags.has(Flags::RST) {
                shared.counters.tcp_resets_received += 1;
                return self.end(Some(TcpError::Refused), shared);
            }
        }
        if flags.has(Flags::RST) || !flags.has(Flags::SYN) {
            return;
        }
        let irs = header.sequence;
        self.receive = crate::tcp::receive_buffer::ReceiveBuffer::new(irs + 1, Default::default());
        self.last_ack_sent = irs + 1;
        // The window field of our SYN was never scaled, and the peer goes by it until our next.
        self.edge = irs + 1 + shared.settings.syn_window();
        self.take_options(now, &header.options);
        // The window in a segment with SYN is never scaled (RFC 7323 §2.2).
        self.window = header.window.into();
        self.window_max = self.window;
        self.window_seq = irs;
        self.window_ack = header.acknowledgment;
        if !flags.has(Flags::ACK) {
            // Simultaneous open: our SYN again, now with ACK (RFC 9293 §3.5).
            self.state = State::SynReceived;
            self.syn_due = true;
            self.window_ack = self.iss;
            return;
        }
        self.on_new_ack(now, header, shared);
        self.establish(shared);
        let data = Segment { header: Header { sequence: irs + 1, ..*header }, ..*segment };
        self.on_data(now, &data, shared);
        self.acks_due = self.acks_due.max(1);
    }

    /// RFC 9293 §3.10.7.4.
    fn on_segment_synchronized(
        &mut self,
        now: Instant,
        arrived: &Segment<'_>,
        shared: &mut Shared,
    ) {
        let mut segment = *arrived;
        let flags = segment.header.flags;
        let expected = self.receive.acknowledge();
        // In a simultaneous open the peer's SYN-ACK repeats the SYN that we had: only its ACK is
        // new (RFC 9293 §3.5, figure 8).
        if self.state == State::SynReceived
            && flags.has(Flags::SYN | Flags::ACK)
            && segment.header.sequence + 1 == expected
        {
            segment.header.sequence = expected;
            segment.header.flags = Flags(flags.0 & !Flags::SYN.0);
        }
        let header = &segment.header;
        let flags = header.flags;
        if !self.are_timestamps_good(now, &segment, shared) {
            return;
        }
        if !self.is_acceptable(header.sequence, segment.sequence_len()) {
            shared.counters.tcp_unacceptable += 1;
            return self.answer_unacceptable(now, &segment, shared);
        }
        if flags.has(Flags::RST) {
            return self.on_reset(now, header.sequence == expected, shared);
        }
        // RFC 5961 §4.2: a SYN never resets, wherever it is.
        if flags.has(Flags::SYN) {
            return self.challenge(now, shared);
        }
        if !flags.has(Flags::ACK) {
            return;
        }
        if !self.on_ack(now, &segment, shared) {
            return;
        }
        self.on_data(now, &segment, shared);
    }

    /// PAWS (RFC 7323 §5.3). Answers, if need be, a segment that fails.
    fn are_timestamps_good(
        &mut self,
        now: Instant,
        segment: &Segment<'_>,
        shared: &mut Shared,
    ) -> bool {
        let flags = segment.header.flags;
        if !self.has_timestamps || flags.has(Flags::RST) {
            return true;
        }
        let Some(timestamps) = segment.header.options.timestamps else {
            // RFC 7323 §3.2. A SYN gets its challenge all the same: a peer that has restarted may
            // not offer timestamps any more.
            shared.counters.tcp_timestamp_missing += u64::from(!flags.has(Flags::SYN));
            return flags.has(Flags::SYN);
        };
        if self.peer_clock.is_old(now, timestamps.value) {
            shared.counters.tcp_timestamp_old += 1;
            self.answer_unacceptable(now, segment, shared);
            return false;
        }
        true
    }

    /// Whether a segment overlaps the receive window, or is about its edges (RFC 9293 §3.10.7.4,
    /// first check).
    fn is_acceptable(&self, sequence: Seq, len: u32) -> bool {
        let next = self.receive.acknowledge();
        if len == 0 {
            // A peer that has filled the window acknowledges from its right edge.
            return sequence.at_or_after(next) && sequence.at_or_before(self.edge.max(next));
        }
        if self.edge.at_or_before(next) {
            // The window is closed. ACK, RST and FIN of a segment that starts where it should
            // still count; its data will not fit.
            return sequence == next;
        }
        sequence.before(self.edge) && (sequence + len).after(next)
    }

    /// Tells a peer that sent something outside of the window where the window is.
    fn answer_unacceptable(&mut self, now: Instant, segment: &Segment<'_>, shared: &mut Shared) {
        let flags = segment.header.flags;
        if flags.has(Flags::RST) {
        } else if flags.has(Flags::SYN) {
            self.challenge(now, shared);
        } else if segment.sequence_len() > 0 {
            // Data or FIN that we have already, or have no room for: the peer must learn it now.
            let (start, len) = (segment.header.sequence, segment.payload.len() as u32);
            self.receive.note_duplicate(start, (start + len).min(self.receive.acknowledge()));
            self.acknowledge_each(1);
        } else if may_answer(&mut self.answered_at, now) {
            self.acknowledge_at_once();
        } else {
            shared.counters.tcp_challenges_limited += 1;
        }
    }

    /// Owes an ACK more for each of `segments` now: the sender counts them. One is enough for a
    /// sender that reads in it which have arrived.
    fn acknowledge_each(&mut self, segments: u32) {
        if self.has_sack {
            return self.acknowledge_at_once();
        }
        self.acks_due = (u32::from(self.acks_due) + segments).min(ACKS_DUE_MAX.into()) as u8;
    }

    /// Owes an ACK now.
    fn acknowledge_at_once(&mut self) {
        self.acks_due = self.acks_due.max(1);
    }

    /// Sends a challenge ACK, within the limit (RFC 5961 §3.2, §4.2, §5.2, §7).
    fn challenge(&mut self, now: Instant, shared: &mut Shared) {
        if now.saturating_since(self.challenge_start) >= CHALLENGE_INTERVAL {
            self.challenge_start = now;
            self.challenges = 0;
        }
        if self.challenges < CHALLENGES_MAX {
            self.challenges += 1;
            self.acknowledge_at_once();
            shared.counters.tcp_challenges_sent += 1;
        } else {
            shared.counters.tcp_challenges_limited += 1;
        }
    }

    /// A RST in the window. Only one at exactly RCV.NXT counts (RFC 5961 §3.2).
    fn on_reset(&mut self, now: Instant, is_exact: bool, shared: &mut Shared) {
        if !is_exact {
            return self.challenge(now, shared);
        }
        shared.counters.tcp_resets_received += 1;
        let all_delivered = self.una == self.data_end() || self.fin_acked;
        let error = match self.state {
            State::SynReceived => Some(TcpError::Refused),
            // Both directions have ended, only the last ACK is missing.
            State::Closing | State::LastAck if all_delivered => None,
            _ => Some(TcpError::Reset),
        };
        self.end(error, shared);
    }

    /// The ACK field. False if the segment is to be dropped.
    fn on_ack(&mut self, now: Instant, segment: &Segment<'_>, shared: &mut Shared) -> bool {
        let header = &segment.header;
        let ack = header.acknowledgment;
        if self.state == State::SynReceived {
            if !(ack.after(self.una) && ack.at_or_before(self.max)) {
                shared.replies.reset(now, self.tuple, segment, &mut shared.counters);
                return false;
            }
        } else if ack.after(self.max) || ack.before(self.una - self.window_max) {
            // RFC 5961 §5.2.
            self.challenge(now, shared);
            return false;
        }
        self.take_timestamp(now, header);
        let window = u32::from(header.window) << self.window_shift;
        if ack.after(self.una) {
            let is_handshake = self.state == State::SynReceived;
            self.on_new_ack(now, header, shared);
            if is_handshake {
                self.establish(shared);
            }
        } else if self.has_sack {
            if !header.options.sack.is_empty() || ack == self.una {
                self.on_delivery(now, header, 0, self.flight(), shared);
            }
        } else if ack == self.una
            && segment.sequence_len() == 0
            && window == self.window
            && self.max != self.una
        {
            // RFC 5681 §2: nothing else makes a duplicate.
            self.on_duplicate_ack(shared);
        }
        self.take_window(now, header, window);
        if !self.is_over() && self.fin_acked {
            self.on_fin_acked(now, shared);
        }
        !self.is_over()
    }

    /// Remembers the peer's clock (RFC 7323 §4.3).
    fn take_timestamp(&mut self, now: Instant, header: &Header) {
        if let Some(timestamps) = header.options.timestamps.filter(|_| self.has_timestamps)
            && header.sequence.at_or_before(self.last_ack_sent)
        {
            self.peer_clock.take(now, timestamps.value, self.receive.acknowledge());
        }
    }

    /// Takes the peer's window, unless an older segment overtook a newer (RFC 9293 §3.10.7.4).
    fn take_window(&mut self, now: Instant, header: &Header, window: u32) {
        let (seq, ack) = (header.sequence, header.acknowledgment);
        let is_newer = self.window_seq.before(seq)
            || (self.window_seq == seq && self.window_ack.at_or_before(ack));
        if is_newer {
            self.window = window;
            self.window_max = self.window_max.max(window);
            self.window_seq = seq;
            self.window_ack = ack;
        }
        self.on_window(now);
    }

    /// The peer has said what its window is.
    pub(super) fn on_window(&mut self, now: Instant) {
        if self.window > 0 {
            self.probes = 0;
        } else if self.owner != Owner::Nobody {
            // "A TCP receiver may keep its window closed for ever", as long as it answers (RFC
            // 9293 §3.8.6.1, MUST-37); but not for a connection that nobody cares about.
            self.silent_since = now;
        }
    }

    /// An ACK that covers something new.
    fn on_new_ack(&mut self, now: Instant, header: &Header, shared: &mut Shared) {
        let ack = header.acknowledgment;
        let acked = ack.since(self.una);
        let fin_acked = self.fin_queued && !self.fin_acked && ack == self.stream_end();
        let syn_acked = self.is_opening();
        let data = acked - u32::from(fin_acked) - u32::from(syn_acked);
        let in_flight = self.flight();
        self.una = ack;
        self.next = self.next.max(ack);
        self.fin_acked |= fin_acked;
        self.send.acknowledge(data, &mut shared.memory);
        self.silent_since = now;
        self.active_at = now;
        self.note_freed(now, data);
        self.measure_round_trip(now, header);
        if syn_acked {
            self.retransmit_at = NEVER;
        } else if self.has_sack {
            self.on_delivery(now, header, acked, in_flight, shared);
        } else {
            self.recover_or_grow(now, acked, in_flight, shared);
        }
        self.tell_writer(shared);
    }

    /// A measurement by the segment that is timed; or, if none is because something was sent
    /// twice, by the timestamp (RFC 6298 §3, RFC 7323 §4).
    fn measure_round_trip(&mut self, now: Instant, header: &Header) {
        if self.timed_at != NEVER {
            if self.una.at_or_after(self.timed_end) {
                self.rtt.measure(now.saturating_since(self.timed_at));
                self.timed_at = NEVER;
            }
        } else if let Some(timestamps) = header.options.timestamps.filter(|_| self.has_timestamps) {
            let clock = timestamp_clock(self.timestamp_offset, now);
            let elapsed_ms = clock.wrapping_sub(timestamps.echo);
            if elapsed_ms < ROUND_TRIP_MAX_MS {
                self.rtt.measure(Duration::from_millis(elapsed_ms.into()));
            }
        }
    }

    /// Wakes a writer when half of the buffer is free, and anyone who waits for the last ACK.
    fn tell_writer(&mut self, shared: &Shared) {
        let len = self.send.len() as usize;
        if len == 0 || (self.is_writer_waiting && len <= self.send_limit(shared) / 2) {
            self.is_writer_waiting = false;
            self.changes.writable = true;
        }
    }

    /// Our FIN, and so all before it, is acknowledged.
    fn on_fin_acked(&mut self, now: Instant, shared: &mut Shared) {
        match self.state {
            State::FinWait1 => {
                self.state = State::FinWait2;
                self.limit_fin_wait_2(now, shared);
            }
            State::Closing => self.finish(State::TimeWait, shared),
            State::LastAck => self.finish(State::Closed, shared),
            _ => {}
        }
    }

    /// Both directions have ended in order.
    fn finish(&mut self, state: State, shared: &mut Shared) {
        self.end(None, shared);
        self.state = state;
    }

    /// Payload and FIN of an acceptable segment.
    fn on_data(&mut self, now: Instant, segment: &Segment<'_>, shared: &mut Shared) {
        let has_fin = segment.header.flags.has(Flags::FIN);
        if segment.payload.is_empty() && !has_fin {
            return;
        }
        if !matches!(self.state, State::Established | State::FinWait1 | State::FinWait2) {
            // The peer's FIN has come: there is nothing after it (RFC 9293 §3.10.7.4).
            return;
        }
        let next = self.receive.acknowledge();
        let start = segment.header.sequence;
        let end = start + segment.payload.len() as u32;
        let skip = (next.since(start) as usize).min(segment.payload.len());
        let cut = (end.since(self.edge) as usize).min(segment.payload.len() - skip);
        let payload = &segment.payload[skip..segment.payload.len() - cut];
        if self.owner == Owner::Nobody && !payload.is_empty() {
            // Nobody will ever read this (RFC 1122 §4.2.2.13).
            shared.counters.tcp_data_after_release += 1;
            return self.abort(None, shared);
        }
        let had_gap = self.receive.has_gap();
        let mut in_order = false;
        if !payload.is_empty() {
            in_order = self.take_payload(now, start.max(next), payload, shared);
        }
        self.receive.note_duplicate(start, end.min(next));
        // A FIN whose segment did not fit comes again, after what was cut off before it.
        if has_fin && end.at_or_before(self.edge.max(next)) && end.at_or_after(next) {
            self.receive.set_fin(end, &mut shared.memory);
        }
        if self.receive.is_finished() {
            self.acknowledge_at_once();
            self.changes.readable = true;
            match self.state {
                State::Established => self.state = State::CloseWait,
                State::FinWait1 => self.state = State::Closing,
                State::FinWait2 => self.finish(State::TimeWait, shared),
                _ => {}
            }
        } else if !in_order {
            self.stretch.on_gap();
            // RFC 5681 §4.2: at once for each segment ahead of a gap.
            self.acknowledge_each(segment.count());
        } else if had_gap || self.receive.has_gap() || skip + cut > 0 || has_fin {
            // And when a gap is filled, in part or whole.
            self.acknowledge_at_once();
        } else {
            let largest = segment.mss.map_or(u16::MAX, NonZeroU16::get);
            self.acknowledge_soon(now, segment.payload.len() as u32, largest);
        }
    }

    /// Stores a payload; whether RCV.NXT moved.
    fn take_payload(
        &mut self,
        now: Instant,
        start: Seq,
        payload: &[u8],
        shared: &mut Shared,
    ) -> bool {
        let settings = &shared.settings;
        let (bytes_max, ranges_max) = (settings.receive_bytes, settings.out_of_order_ranges);
        self.note_holding(now);
        match self.receive.insert(start, payload, bytes_max, ranges_max, &mut shared.memory) {
            Arrival::InOrder => {
                self.active_at = now;
                self.changes.readable = true;
                true
            }
            Arrival::OutOfOrder => {
                shared.counters.tcp_out_of_order += 1;
                false
            }
            Arrival::Refused => {
                shared.counters.dropped_tcp_no_room += 1;
                false
            }
        }
    }

    /// Delays the ACK of `len` bytes in segments of `largest` at most, unless two full segments wait
    /// for it (RFC 9293 §3.8.6.3, SHLD-18, MUST-58), or what the [stretch](Stretch) makes of them.
    pub(super) fn acknowledge_soon(&mut self, now: Instant, len: u32, largest: u16) {
        self.segment_max = self.segment_max.max(len.min(largest.into()) as u16);
        self.unacknowledged = self.unacknowledged.saturating_add(len);
        let two_segments = 2 * u32::from(self.segment_max);
        let window = self.edge.since(self.receive.acknowledge());
        if self.unacknowledged >= self.stretch.due(two_segments, window) {
            self.stretch.on_met(self.unacknowledged / u32::from(self.segment_max.max(1)));
            self.acknowledge_at_once();
        } else {
            let delay = if self.unacknowledged < two_segments { ACK_DELAY } else { stretch::DELAY };
            self.ack_at = self.ack_at.min(now + delay);
        }
    }
}
