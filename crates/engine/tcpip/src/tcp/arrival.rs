//! Where a segment goes that arrives: to a connection, a handshake, a TIME-WAIT entry, a listener,
//! or nowhere.

use super::connection::{Connection, Expected, Handshake, Owner, PEER_MSS_MIN, default_mss};
use super::cookie::Offer;
use super::demux::Target;
use super::half_open::{HalfOpen, TRIES_MAX};
use super::isn::timestamp_clock;
use super::reply::may_answer;
use super::{Seq, Tcp, Tuple};
use crate::event::Event;
use crate::socket::{ListenerId, TcpId};
use crate::time::Instant;
use crate::wire::tcp::{Flags, Header, Options, Segment, Timestamps};
use core::net::IpAddr;
use core::num::NonZeroU16;

impl Tcp {
    /// Takes a segment, or with `mss` several in one. Its checksum was verified, and both addresses
    /// are hosts'. True if it shows that the peer receives what we send (RFC 4861 §7.3.1).
    pub(crate) fn handle_segment(
        &mut self,
        now: Instant,
        source: IpAddr,
        destination: IpAddr,
        segment: &[u8],
        mss: Option<NonZeroU16>,
    ) -> bool {
        let Ok(mut segment) = Segment::parse(segment) else {
            self.shared.counters.tcp_segments_received += 1;
            self.shared.counters.dropped_tcp_malformed += 1;
            return false;
        };
        segment.mss = mss;
        let count = segment.count();
        self.shared.counters.tcp_segments_received += u64::from(count);
        self.shared.counters.tcp_large_frames_received += u64::from(count > 1);
        let tuple = Tuple {
            local: destination,
            remote: source,
            local_port: segment.header.destination_port,
            remote_port: segment.header.source_port,
        };
        if tuple.local_port == 0 || tuple.remote_port == 0 {
            self.shared.counters.dropped_tcp_malformed += 1;
            return false;
        }
        let (hash, target) = self.find(&tuple);
        match target {
            Some(Target::Connection(index)) => {
                let mut has_progress = false;
                if let Some(connection) = self.connections.get_mut(index) {
                    let before = connection.progress();
                    let is_only_receiving = connection.is_only_receiving();
                    connection.on_segment(now, &segment, &mut self.shared);
                    has_progress = connection.progress() != before;
                    if is_only_receiving && has_progress {
                        let generation = self.connections.generation(index).unwrap_or_default();
                        self.receiver = Some(TcpId::new(index, generation));
                    }
                }
                self.settle(now, index);
                return has_progress;
            }
            Some(Target::HalfOpen(index)) => self.on_half_open(now, index, &segment),
            Some(Target::TimeWait(index)) => self.on_time_wait(now, index, &segment),
            None => self.on_unmatched(now, tuple, hash, &segment),
        }
        false
    }

    /// Reads a segment, if it is the one that a connection expects; the caller has checked that both
    /// addresses and both ports are the connection's.
    pub(crate) fn expects<'a>(&self, id: TcpId, segment: &'a [u8]) -> Option<Expected<'a>> {
        let index = self.connections.check(id.index(), id.generation())?;
        self.connections.get(index)?.expects(segment)
    }

    /// Takes a segment that was expected, and whose checksum was verified since. False if there is no
    /// memory for it: nothing has happened.
    pub(crate) fn take_expected(
        &mut self,
        now: Instant,
        id: TcpId,
        expected: Expected<'_>,
    ) -> bool {
        let index = id.index() as u32;
        let Some(connection) = self.connections.get_mut(index) else { return false };
        let deadline = connection.deadline();
        if !connection.take_expected(now, expected, &mut self.shared) {
            return false;
        }
        self.shared.counters.tcp_segments_received += 1;
        // What `settle` would find: an ACK that is owed now or later, and something to read.
        self.settled += 1;
        if connection.deadline() != deadline {
            self.timers.set(index, connection.deadline());
        }
        let changes = core::mem::take(&mut connection.changes);
        if changes.readable && connection.owner == Owner::Program {
            self.events.push(Event::TcpReadable(id));
        }
        if connection.owes_ack() {
            self.ready.push(index);
        }
        true
    }

    /// A segment of no connection: for a listener (RFC 9293 §3.10.7.2) or for nobody (§3.10.7.1).
    fn on_unmatched(&mut self, now: Instant, tuple: Tuple, hash: u32, segment: &Segment<'_>) {
        let flags = segment.header.flags;
        if flags.has(Flags::RST) {
            return;
        }
        let Some(listener) = self.listeners.find(tuple.local, tuple.local_port) else {
            self.shared.counters.dropped_tcp_no_port += 1;
            return self.shared.replies.reset(now, tuple, segment, &mut self.shared.counters);
        };
        if flags.has(Flags::ACK) {
            return self.on_cookie(now, tuple, hash, listener, segment);
        }
        // SYN with FIN is no honest opening; what has neither means nothing here.
        if flags.has(Flags::SYN) && !flags.has(Flags::FIN) {
            self.on_syn(now, tuple, hash, listener, segment, None);
        } else {
            self.shared.counters.dropped_tcp_flags += 1;
        }
    }

    /// A SYN for a listener. `replaced` is the TIME-WAIT entry of an earlier connection, which goes,
    /// and its numbers, after which the new ones begin. False if the SYN is not answered: then
    /// nothing has happened.
    fn on_syn(
        &mut self,
        now: Instant,
        tuple: Tuple,
        hash: u32,
        listener_id: ListenerId,
        segment: &Segment<'_>,
        replaced: Option<(u32, Seq)>,
    ) -> bool {
        let floor = replaced.map(|(_, floor)| floor);
        let header = &segment.header;
        // Half of the table for one listener, so that a flood of one leaves the others theirs.
        let per_listener_max = self.limits.half_open.div_ceil(2);
        let Some(listener) = self.listeners.get(listener_id) else { return false };
        let is_full = self.half_opens.len() >= self.limits.half_open
            || listener.half_open >= per_listener_max;
        if self.connections.len() >= self.limits.connections {
            self.shared.counters.tcp_connections_refused += 1;
            return false;
        }
        let mut iss = self.origins.sequence(&tuple, now);
        if let Some(floor) = floor
            && !iss.after(floor)
        {
            // The old connection sent faster than the clock ticks; its numbers must not come again
            // (RFC 9293 §3.4.3).
            iss = floor + 1;
        }
        let mut entry = HalfOpen {
            tuple,
            hash,
            listener: listener_id,
            iss,
            irs: header.sequence,
            mss: header.options.mss.unwrap_or(default_mss(&tuple)).max(PEER_MSS_MIN),
            window_shift: header.options.window_shift,
            sack_permitted: header.options.sack_permitted,
            timestamp: header.options.timestamps.map(|timestamps| timestamps.value),
            timestamp_offset: self.origins.timestamp(&tuple),
            tries: 1,
            began: now,
            answered_at: Instant::ZERO,
        };
        let reply = if is_full {
            entry.iss = self.cookies.make(now, &tuple, entry.irs, entry.mss);
            // A cookie cannot be moved above the old numbers. So the old connection waits on; the
            // client tries again, and the next period's cookies are others.
            if floor.is_some_and(|floor| !entry.iss.after(floor)) {
                self.shared.counters.tcp_time_wait_kept += 1;
                return false;
            }
            self.forget_replaced(replaced);
            let clock = timestamp_clock(entry.timestamp_offset, now);
            let (window_shift, sack_permitted) = (entry.window_shift, entry.sack_permitted);
            let value = Offer { window_shift, sack_permitted }.encode(clock);
            if entry.timestamp.is_none() {
                // There is nowhere to keep them.
                entry.window_shift = None;
                entry.sack_permitted = false;
            }
            self.shared.counters.tcp_cookies_sent += 1;
            entry.syn_ack_with_timestamp(value, &self.shared.settings)
        } else {
            self.forget_replaced(replaced);
            let reply = entry.syn_ack(now, &self.shared.settings);
            if let Some(listener) = self.listeners.get_mut(listener_id) {
                listener.half_open += 1;
            }
            let index = self.half_opens.insert(entry, now);
            self.demux.insert(hash, Target::HalfOpen(index));
            reply
        };
        self.shared.replies.push(tuple, reply, &mut self.shared.counters);
        true
    }

    /// A new connection takes the place of one in TIME-WAIT (RFC 6191).
    fn forget_replaced(&mut self, replaced: Option<(u32, Seq)>) {
        if let Some((index, _)) = replaced {
            self.remove_time_wait(index);
            self.shared.counters.tcp_time_wait_reused += 1;
        }
    }

    /// An ACK for a listener: the end of a handshake that was not remembered, or nothing.
    fn on_cookie(
        &mut self,
        now: Instant,
        tuple: Tuple,
        hash: u32,
        listener: ListenerId,
        segment: &Segment<'_>,
    ) {
        let header = &segment.header;
        let (iss, irs) = (header.acknowledgment - 1, header.sequence - 1);
        let cookie = match header.flags.has(Flags::SYN) {
            false => self.cookies.check(now, &tuple, irs, iss),
            true => None,
        };
        let Some(cookie) = cookie else {
            self.shared.counters.dropped_tcp_no_port += 1;
            return self.shared.replies.reset(now, tuple, segment, &mut self.shared.counters);
        };
        let timestamps = header.options.timestamps;
        let offer = timestamps.map(|timestamps| Offer::decode(timestamps.echo)).unwrap_or_default();
        let handshake = Handshake {
            tuple,
            hash,
            listener,
            iss,
            irs,
            mss: cookie.mss,
            window_shift: offer.window_shift,
            sack_permitted: offer.sack_permitted,
            timestamp: timestamps.map(|timestamps| timestamps.value),
            timestamp_offset: self.origins.timestamp(&tuple),
            receive_window: self.shared.settings.syn_window(),
            round_trip: None,
            was_lost: false,
        };
        if self.accept_handshake(now, &handshake, None, segment) {
            self.shared.counters.tcp_cookies_accepted += 1;
        }
    }

    /// A segment for a handshake: SYN-RECEIVED of RFC 9293 §3.10.7.4, for the passive side.
    fn on_half_open(&mut self, now: Instant, index: u32, segment: &Segment<'_>) {
        let Some(entry) = self.half_opens.get(index) else { return };
        let (tuple, header) = (entry.tuple, &segment.header);
        let flags = header.flags;
        let next = entry.irs + 1;
        if flags.has(Flags::SYN) && !flags.has(Flags::RST) && header.sequence == entry.irs {
            // The client has not heard us: the same answer again, from the same entry.
            let syn_ack = entry.syn_ack(now, &self.shared.settings);
            self.shared.counters.tcp_duplicate_syns += 1;
            return self.shared.replies.push_limited(
                now,
                tuple,
                syn_ack,
                &mut self.shared.counters,
            );
        }
        let edge = next + self.shared.settings.syn_window();
        let len = segment.sequence_len();
        let is_acceptable = if len == 0 {
            header.sequence.at_or_after(next) && header.sequence.at_or_before(edge)
        } else {
            header.sequence.before(edge) && (header.sequence + len).after(next)
        };
        let is_old = match (entry.timestamp, header.options.timestamps) {
            (Some(recent), Some(timestamps)) => Seq(timestamps.value).before(Seq(recent)),
            _ => false,
        };
        if flags.has(Flags::RST) {
            if header.sequence == next {
                self.shared.counters.tcp_resets_received += 1;
                self.remove_half_open(index);
            } else if is_acceptable {
                self.challenge_half_open(now, index);
            }
            return;
        }
        if !is_acceptable || is_old || flags.has(Flags::SYN) {
            return self.challenge_half_open(now, index);
        }
        if !flags.has(Flags::ACK) {
            return;
        }
        if header.acknowledgment != entry.iss + 1 {
            return self.shared.replies.reset(now, tuple, segment, &mut self.shared.counters);
        }
        let was_lost = entry.tries > 1;
        let handshake = Handshake {
            tuple,
            hash: entry.hash,
            listener: entry.listener,
            iss: entry.iss,
            irs: entry.irs,
            mss: entry.mss,
            window_shift: entry.window_shift,
            sack_permitted: entry.sack_permitted,
            timestamp: entry.timestamp,
            timestamp_offset: entry.timestamp_offset,
            receive_window: self.shared.settings.syn_window(),
            round_trip: (!was_lost).then(|| now.saturating_since(entry.began)),
            was_lost,
        };
        self.accept_handshake(now, &handshake, Some(index), segment);
    }

    /// A doubtful segment for a handshake gets an ACK that shows where it stands (RFC 5961 §3.2), now
    /// and then: the other end may be in TIME-WAIT, and answer it.
    fn challenge_half_open(&mut self, now: Instant, index: u32) {
        if let Some(entry) = self.half_opens.get_mut(index) {
            if !may_answer(&mut entry.answered_at, now) {
                self.shared.counters.tcp_challenges_limited += 1;
                return;
            }
            let ack = entry.challenge(now, &self.shared.settings);
            let (shared, tuple) = (&mut self.shared, entry.tuple);
            shared.counters.tcp_challenges_sent += 1;
            shared.replies.push_limited(now, tuple, ack, &mut shared.counters);
        }
    }

    /// A handshake is complete: makes the connection, queues it at its listener and gives it the
    /// segment. False if there is no room: then nothing has happened, and the client, which does
    /// not see its data acknowledged, tries again later.
    fn accept_handshake(
        &mut self,
        now: Instant,
        handshake: &Handshake,
        half_open: Option<u32>,
        segment: &Segment<'_>,
    ) -> bool {
        let Some(listener) = self.listeners.get(handshake.listener) else { return false };
        if listener.queue.len() >= listener.backlog {
            self.shared.counters.tcp_accept_queue_full += 1;
            return false;
        }
        if self.connections.len() >= self.limits.connections {
            self.shared.counters.tcp_connections_refused += 1;
            return false;
        }
        if let Some(index) = half_open {
            self.remove_half_open(index);
        }
        let mut connection = Connection::accept(now, handshake, &self.shared);
        connection.limit_to_path(self.shared.path_mss(now, &handshake.tuple));
        let (index, generation) = self.connections.insert(Box::new(connection));
        self.demux.insert(handshake.hash, Target::Connection(index));
        if let Some(listener) = self.listeners.get_mut(handshake.listener) {
            listener.queue.push_back(TcpId::new(index, generation));
        }
        self.shared.counters.tcp_opened_passive += 1;
        self.events.push(Event::Acceptable(handshake.listener));
        if let Some(connection) = self.connections.get_mut(index) {
            connection.on_segment(now, segment, &mut self.shared);
        }
        self.settle(now, index);
        true
    }

    /// Sends the SYN-ACK again, or gives the client up.
    pub(super) fn on_half_open_timeout(&mut self, now: Instant, index: u32) {
        let Some(entry) = self.half_opens.get_mut(index) else {
            return self.half_opens.timers.set(index, super::timers::NEVER);
        };
        if entry.tries >= TRIES_MAX {
            self.shared.counters.tcp_half_open_timeouts += 1;
            self.remove_half_open(index);
            return;
        }
        entry.tries += 1;
        let (deadline, tuple) = (entry.deadline(now), entry.tuple);
        let syn_ack = entry.syn_ack(now, &self.shared.settings);
        self.half_opens.timers.set(index, deadline);
        self.shared.counters.tcp_retransmits += 1;
        self.shared.replies.push(tuple, syn_ack, &mut self.shared.counters);
    }

    /// A segment for a connection that is over (RFC 9293 §3.10.7.4, TIME-WAIT).
    fn on_time_wait(&mut self, now: Instant, index: u32, segment: &Segment<'_>) {
        let Some(entry) = self.time_waits.get_mut(index) else { return };
        let (header, flags) = (&segment.header, segment.header.flags);
        // A RST does not end TIME-WAIT early (RFC 1337 §3, fix F1).
        if flags.has(Flags::RST) {
            return;
        }
        if flags.has(Flags::SYN) && !flags.has(Flags::ACK | Flags::FIN) && !flags.has(Flags::ACK) {
            // A new connection, if its numbers or its clock (RFC 6191 §2) are above all of the old.
            let is_new = match (entry.timestamps, header.options.timestamps) {
                (Some((_, recent)), Some(timestamps)) => {
                    Seq(timestamps.value).after(Seq(recent))
                        || (timestamps.value == recent && header.sequence.after(entry.receive_next))
                }
                _ => header.sequence.after(entry.receive_next),
            };
            let listener = self.listeners.find(entry.tuple.local, entry.tuple.local_port);
            let has_room = self.half_opens.len() < self.limits.half_open;
            if let Some(listener) = listener
                && is_new
                && has_room
                && !flags.has(Flags::FIN)
            {
                let (tuple, hash, floor) = (entry.tuple, entry.hash, entry.send_next);
                if self.on_syn(now, tuple, hash, listener, segment, Some((index, floor))) {
                    return;
                }
            }
        } else if !flags.has(Flags::ACK) {
            return;
        }
        let Some(entry) = self.time_waits.get_mut(index) else { return };
        let is_expected = header.sequence == entry.receive_next && segment.sequence_len() == 0;
        if is_expected && !flags.has(Flags::SYN) {
            return;
        }
        // Data and FIN must be answered each time; the rest may be an answer itself.
        let is_answer = segment.sequence_len() == 0 || flags.has(Flags::SYN);
        if is_answer && !may_answer(&mut entry.answered_at, now) {
            self.shared.counters.tcp_challenges_limited += 1;
            return;
        }
        let is_fin_again =
            flags.has(Flags::FIN) && header.sequence + segment.sequence_len() == entry.receive_next;
        let ack = Header {
            source_port: entry.tuple.local_port,
            destination_port: entry.tuple.remote_port,
            sequence: entry.send_next,
            acknowledgment: entry.receive_next,
            flags: Flags::ACK,
            window: 0,
            options: Options {
                timestamps: entry.timestamps.map(|(offset, recent)| Timestamps {
                    value: timestamp_clock(offset, now),
                    echo: recent,
                }),
                ..Options::default()
            },
        };
        let tuple = entry.tuple;
        self.shared.replies.push_limited(now, tuple, ack, &mut self.shared.counters);
        if is_fin_again {
            // Our last ACK was lost: another wait, for the one that goes now.
            self.time_waits.restart(index, now + self.limits.time_wait_duration);
        }
    }
}
