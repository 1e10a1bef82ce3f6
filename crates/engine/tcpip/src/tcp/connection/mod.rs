//! One connection: the transmission control block of RFC 9293 §3.3.1 and what the program may do
//! to it.
//!
//! What arrives is handled in `input.rs` (what was expected in `expected.rs`, ICMP errors in
//! `icmp.rs`, timestamps in `peer_clock.rs`), what leaves is made in
//! `output.rs` (what follows it at once, in `run.rs`), what is lost is found in `recovery.rs` (or, without SACK, in `duplicates.rs`), what
//! is due happens in `timeout.rs`, how much may be buffered is decided in `tuning.rs`, what the
//! program asks for is done in `calls.rs`. None of them
//! knows of tables: after each call the façade ([`super::Tcp`]) looks at what has changed and keeps
//! demultiplexer, timers, ready list and events in step, in one place ([`super::Tcp::settle`]).
//!
//! Half-open passive connections and those in TIME-WAIT are not here: they have smaller
//! representations ([`super::half_open`], [`super::time_wait`]).

mod calls;
mod duplicates;
mod expected;
mod icmp;
mod input;
#[cfg(any(test, feature = "fuzzing"))]
mod invariants;
mod output;
mod path_mtu;
mod peer_clock;
mod recovery;
mod report;
mod run;
mod stretch;
mod timeout;
mod tuning;

pub(crate) use expected::Expected;
pub(crate) use output::Written;
pub(crate) use recovery::Recoveries;

use crate::config::CongestionControl;
use crate::error::{TcpError, Unreachable};
use crate::socket::{Keepalive, ListenerId};
use crate::tcp::congestion::Congestion;
use crate::tcp::memory::Ring;
use crate::tcp::rack::Rack;
use crate::tcp::receive_buffer::ReceiveBuffer;
use crate::tcp::rtt::Rtt;
use crate::tcp::send_buffer::SendBuffer;
use crate::tcp::timers::NEVER;
use crate::tcp::{Seq, Settings, Shared, Tuple};
use crate::time::Instant;
use crate::wire::tcp::{HEADER_LEN, Options, SACK_BLOCKS_MAX, SackBlocks, TIMESTAMPS_LEN};
use core::time::Duration;
use peer_clock::PeerClock;
use recovery::{LossTimer, Recovery, Tail};
use stretch::Stretch;

/// The states of RFC 9293 §3.3.2 in which a whole connection exists. A connection gets to
/// `TimeWait` or `Closed` last; it then only keeps what the program has not read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    SynSent,
    /// By a simultaneous open only.
    SynReceived,
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
    Closed,
}

/// Who holds the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The program, by its id.
    Program,
    /// A listener's queue: the program has not accepted it yet.
    Queue(ListenerId),
    /// Nobody: it was released, and closes by itself.
    Nobody,
}

/// What the program should be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) connected: bool,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

/// What a passive handshake agreed on.
pub(crate) struct Handshake {
    pub(crate) tuple: Tuple,
    pub(crate) hash: u32,
    pub(crate) listener: ListenerId,
    /// The number of our SYN and of the peer's.
    pub(crate) iss: Seq,
    pub(crate) irs: Seq,
    /// The peer's MSS.
    pub(crate) mss: u16,
    /// The shift of the peer's window, if shifts were agreed on.
    pub(crate) window_shift: Option<u8>,
    /// Selective acknowledgments were agreed on.
    pub(crate) sack_permitted: bool,
    /// The peer's clock, if timestamps were agreed on.
    pub(crate) timestamp: Option<u32>,
    /// Origin of our clock.
    pub(crate) timestamp_offset: u32,
    /// Window field of the SYN-ACK, in bytes.
    pub(crate) receive_window: u32,
    /// From SYN-ACK to ACK, if the SYN-ACK was sent once.
    pub(crate) round_trip: Option<Duration>,
    /// The SYN-ACK had to be sent again.
    pub(crate) was_lost: bool,
}

/// A keepalive that is switched on. Boxed, because most connections have none.
struct KeepaliveState {
    config: Keepalive,
    /// Probes sent since the peer was last heard.
    probes_sent: u32,
}

/// The transmission control block.
///
/// Sequence numbers: `una <= next <= max`, and `max` is at most the end of the stream (the data in
/// `send` and, once queued, FIN). After a timeout `next` goes back to `una` and `max` stays.
pub(crate) struct Connection {
    pub(crate) tuple: Tuple,
    /// The tuple's hash in the demultiplexer.
    pub(crate) hash: u32,
    pub(crate) state: State,
    pub(crate) owner: Owner,
    /// In the demultiplexer: segments find it.
    pub(crate) is_attached: bool,
    pub(crate) changes: Changes,
    /// Why the connection failed.
    pub(crate) error: Option<TcpError>,
    /// What ICMP last said; the reason if the connection then times out (RFC 9293 §3.9.2.2).
    soft_error: Option<Unreachable>,

    /// ISS.
    iss: Seq,
    /// SND.UNA.
    una: Seq,
    /// What is sent next; behind `max` while lost data is sent again.
    next: Seq,
    /// SND.NXT: the end of all that was ever sent.
    max: Seq,
    /// SND.WND in bytes.
    window: u32,
    /// The largest window that the peer ever offered.
    window_max: u32,
    /// SND.WL1, SND.WL2: the segment that `window` is from.
    window_seq: Seq,
    window_ack: Seq,
    /// The shift of the peer's window field.
    window_shift: u8,
    /// The largest segment that may be sent, options included.
    mss: u16,
    /// If that is less than at first.
    narrow: Option<Box<path_mtu::Narrow>>,
    send: SendBuffer,
    /// The program has no more to write: FIN follows the data.
    fin_queued: bool,
    fin_acked: bool,
    nodelay: bool,
    /// The program was refused room in `send` and waits.
    is_writer_waiting: bool,
    /// The program was refused memory, and is in the list of those to tell when there is some.
    pub(crate) is_starved: bool,

    /// Send SYN or SYN-ACK.
    syn_due: bool,
    /// Send the segment at `una` again.
    retransmit_due: bool,
    /// Send a segment that asks the peer for an ACK: a window probe or a keepalive.
    probe_due: bool,
    /// Send what the window takes, however small (RFC 9293 §3.8.6.2.1, the override timeout).
    override_due: bool,
    /// The timer of the SYN has expired.
    was_syn_lost: bool,

    congestion: Congestion,
    rtt: Rtt,
    /// What the times of arrivals say; with SACK only.
    rack: Rack,
    /// Everything about what is in flight; with SACK, and only while something is.
    recovery: Option<Box<Recovery>>,
    /// When to look for losses again, and why.
    loss_at: Instant,
    loss_timer: LossTimer,
    /// Send a tail loss probe; and the one that is in flight.
    tail_probe_due: bool,
    tail: Option<Tail>,
    /// Consecutive duplicate ACKs.
    duplicate_acks: u8,
    /// In fast recovery until `recover` is acknowledged. Without that, but before it: after a
    /// timeout.
    is_recovering: bool,
    recover: Seq,
    /// This recovery has seen a partial ACK.
    had_partial_ack: bool,
    /// Most bytes in flight in the round trip that ends with the ACK of `round_end`.
    flight_peak: u32,
    round_end: Seq,
    /// The segment up to `timed_end` is timed since `timed_at`, unless that is [`NEVER`].
    timed_end: Seq,
    timed_at: Instant,
    /// Window probes since the window closed.
    probes: u8,
    /// When something that takes sequence numbers was last sent.
    sent_at: Instant,
    /// Since when the peer owes an answer; the user timeout counts from here.
    silent_since: Instant,
    /// When bytes last moved, in either direction or to the program.
    pub(crate) active_at: Instant,
    /// When it had last given back a [part](Connection::PART_FREED) of the memory that it holds, or
    /// began to hold some; and bytes to give back until it has again.
    pub(crate) freed_at: Instant,
    freed_due: u32,
    /// When it was made.
    opened_at: Instant,
    /// Segments that were sent again.
    retransmits: u32,

    receive: ReceiveBuffer,
    /// The right edge of the window that was offered. Never goes back (RFC 9293 §3.8.6, SHLD-14).
    edge: Seq,
    /// The shift of our window field.
    receive_shift: u8,
    /// How far the window opens at most; grows with the rate at which the program reads.
    receive_limit: u32,
    /// Bytes that the program has read since `tuned_at`.
    read_since: u32,
    tuned_at: Instant,
    /// ACKs to send at once. More than one only if segments came out of order: the sender counts
    /// the duplicates.
    acks_due: u8,
    /// Bytes that were received and not acknowledged.
    unacknowledged: u32,
    /// How much of that there may be.
    stretch: Stretch,
    /// The peer's largest segment so far.
    segment_max: u16,
    last_ack_sent: Seq,

    /// Selective acknowledgments were agreed on (RFC 2018 §2).
    has_sack: bool,
    /// Timestamps were agreed on.
    has_timestamps: bool,
    timestamp_offset: u32,
    peer_clock: PeerClock,

    /// Challenge ACKs since `challenge_start` (RFC 5961 §7).
    challenges: u8,
    challenge_start: Instant,
    /// When an unacceptable segment without data was last answered.
    answered_at: Instant,

    /// Retransmission timer while something is in flight, persist timer while not.
    retransmit_at: Instant,
    /// Delayed ACK.
    ack_at: Instant,
    keepalive_at: Instant,
    /// The end of FIN-WAIT-2 for a connection that nobody holds.
    linger_at: Instant,
    keepalive: Option<Box<KeepaliveState>>,
    /// The program's own user timeout in milliseconds; 0 for the one of all connections.
    user_timeout_ms: u32,
}

/// The least MSS that we believe, in bytes: else a peer could make us send forty bytes of header
/// for each byte of data (CVE-2019-11479). Every host can take 576-byte datagrams (RFC 1122
/// §3.3.2), so nobody needs less.
pub(crate) const PEER_MSS_MIN: u16 = 216;

/// What a peer takes that does not say (RFC 9293 §3.7.1, MUST-15).
pub(crate) const fn default_mss(tuple: &Tuple) -> u16 {
    if tuple.remote.is_ipv4() { 536 } else { 1220 }
}

impl Connection {
    /// A connection that this end opens (RFC 9293 §3.10.1).
    pub(crate) fn open(
        now: Instant,
        tuple: Tuple,
        hash: u32,
        iss: Seq,
        timestamp_offset: u32,
        shared: &Shared,
    ) -> Self {
        let mss = shared.settings.mss(&tuple);
        let mut connection = Connection::new(now, tuple, hash, iss, Seq(0), mss);
        connection.timestamp_offset = timestamp_offset;
        connection.receive_shift = shared.settings.window_shift;
        connection.receive_limit = shared.settings.receive_bytes_initial as u32;
        connection.syn_due = true;
        connection
    }

    /// A connection that a peer has opened: the handshake is complete. Its last segment is yet to
    /// be given to [`on_segment`](Self::on_segment).
    pub(crate) fn accept(now: Instant, handshake: &Handshake, shared: &Shared) -> Self {
        let (tuple, iss, irs) = (handshake.tuple, handshake.iss, handshake.irs);
        let mss = shared.settings.mss(&tuple);
        let mut connection = Connection::new(now, tuple, handshake.hash, iss, irs + 1, mss);
        connection.owner = Owner::Queue(handshake.listener);
        connection.timestamp_offset = handshake.timestamp_offset;
        connection.receive_shift = shared.settings.window_shift;
        connection.receive_limit = shared.settings.receive_bytes_initial as u32;
        connection.edge = irs + 1 + handshake.receive_window;
        // Our SYN is acknowledged: that is what completed the handshake.
        connection.una = iss + 1;
        connection.next = iss + 1;
        connection.max = iss + 1;
        connection.take_options(
            now,
            &Options {
                mss: Some(handshake.mss),
                window_shift: handshake.window_shift,
                sack_permitted: handshake.sack_permitted,
                timestamps: handshake
                    .timestamp
                    .map(|value| crate::wire::tcp::Timestamps { value, echo: 0 }),
                ..Options::default()
            },
        );
        connection.was_syn_lost = handshake.was_lost;
        if let Some(round_trip) = handshake.round_trip {
            connection.rtt.measure(round_trip);
        }
        connection.window_seq = irs;
        connection.window_ack = iss;
        connection.establish(shared);
        connection
    }

    fn new(now: Instant, tuple: Tuple, hash: u32, iss: Seq, receive_next: Seq, mss: u16) -> Self {
        Connection {
            tuple,
            hash,
            state: State::SynSent,
            owner: Owner::Program,
            is_attached: true,
            changes: Changes::default(),
            error: None,
            soft_error: None,
            iss,
            una: iss,
            next: iss,
            max: iss,
            window: 0,
            window_max: 0,
            window_seq: Seq(0),
            window_ack: Seq(0),
            window_shift: 0,
            mss,
            narrow: None,
            send: SendBuffer::default(),
            fin_queued: false,
            fin_acked: false,
            nodelay: false,
            is_writer_waiting: false,
            is_starved: false,
            syn_due: false,
            retransmit_due: false,
            probe_due: false,
            override_due: false,
            was_syn_lost: false,
            // The handshake's end makes the one that is used.
            congestion: Congestion::new(CongestionControl::NewReno, mss.into()),
            rtt: Rtt::new(),
            rack: Rack::new(iss, None),
            recovery: None,
            loss_at: NEVER,
            loss_timer: LossTimer::Tail,
            tail_probe_due: false,
            tail: None,
            duplicate_acks: 0,
            is_recovering: false,
            recover: iss,
            had_partial_ack: false,
            flight_peak: 0,
            round_end: iss,
            timed_end: iss,
            timed_at: NEVER,
            probes: 0,
            sent_at: now,
            silent_since: now,
            active_at: now,
            freed_at: now,
            freed_due: 1,
            opened_at: now,
            retransmits: 0,
            receive: ReceiveBuffer::new(receive_next, Ring::default()),
            edge: receive_next,
            receive_shift: 0,
            receive_limit: 0,
            read_since: 0,
            tuned_at: now,
            acks_due: 0,
            unacknowledged: 0,
            segment_max: 0,
            last_ack_sent: receive_next,
            has_sack: false,
            has_timestamps: false,
            timestamp_offset: 0,
            peer_clock: PeerClock::new(now, 0, receive_next),
            challenges: 0,
            challenge_start: now,
            answered_at: Instant::ZERO,
            retransmit_at: NEVER,
            ack_at: NEVER,
            stretch: Stretch::NONE,
            keepalive_at: NEVER,
            linger_at: NEVER,
            keepalive: None,
            user_timeout_ms: 0,
        }
    }

    /// Takes what the peer's SYN says.
    fn take_options(&mut self, now: Instant, options: &Options) {
        let peer_mss = options.mss.unwrap_or(default_mss(&self.tuple)).max(PEER_MSS_MIN);
        self.mss = self.mss.min(peer_mss);
        // Either both shift or nobody does (RFC 7323 §2.2).
        match options.window_shift {
            Some(shift) => self.window_shift = shift,
            None => self.receive_shift = 0,
        }
        self.has_sack = options.sack_permitted;
        if let Some(timestamps) = options.timestamps {
            self.has_timestamps = true;
            self.peer_clock = PeerClock::new(now, timestamps.value, self.receive.acknowledge());
        }
    }

    /// Both SYNs are acknowledged: data may flow.
    fn establish(&mut self, shared: &Shared) {
        self.state = State::Established;
        self.syn_due = false;
        self.changes.connected = true;
        self.changes.writable = true;
        self.congestion = Congestion::new(shared.settings.congestion, self.payload_max());
        self.rack = Rack::new(self.una, self.rtt.smoothed());
        self.recover = self.iss;
        self.flight_peak = 0;
        self.round_end = self.una;
        if self.was_syn_lost {
            self.rtt.syn_was_lost();
            self.congestion.on_syn_loss(self.payload_max());
        }
    }

    /// The largest payload of one segment.
    fn payload_max(&self) -> u32 {
        let options = if self.has_timestamps { TIMESTAMPS_LEN as u32 } else { 0 };
        (u32::from(self.mss) - options).max(1)
    }

    /// How many SACK blocks fit into a segment, beside timestamps and one byte of payload: where
    /// the MTU is the smallest that there is, not even as many as into its options.
    fn sack_blocks_max(&self) -> usize {
        let most = match (self.has_sack, self.has_timestamps) {
            (false, _) => 0,
            (true, true) => SACK_BLOCKS_MAX - 1,
            (true, false) => SACK_BLOCKS_MAX,
        };
        let fits = |blocks: &usize| SackBlocks::wire_len(*blocks) < self.payload_max() as usize;
        (0..=most).rev().find(fits).unwrap_or(0)
    }

    /// The largest payload of the next segment, beside the SACK blocks that it would carry
    /// (pitfall P06).
    fn payload_room(&self) -> u32 {
        let blocks = self.receive.sack_count(self.sack_blocks_max());
        self.payload_max().saturating_sub(SackBlocks::wire_len(blocks) as u32).max(1)
    }

    /// The largest payload that the device takes at once: whole segments, for it to cut.
    ///
    /// At most a quarter of what may be in flight. A peer may take such a frame as one arrival, so
    /// that four in flight are the least with which the loss of one makes three duplicate ACKs;
    /// and ACKs of the others let the next ones out.
    fn burst_max(&self, settings: &Settings) -> u32 {
        let mss = self.payload_room();
        let options = usize::from(self.mss) - mss as usize;
        let room = settings.large_segment_bytes(&self.tuple).saturating_sub(HEADER_LEN + options);
        let limit = self.send_limit_unless_short(settings) as u32;
        let flight_max = self.congestion.window().min(self.window).min(limit);
        let most = (room as u32).min(flight_max / 4);
        (most - most % mss).max(mss)
    }

    /// The sequence number after the last byte that the program wrote.
    fn data_end(&self) -> Seq {
        // SYN takes a number. (That SND.UNA is ISS says nothing: four gigabytes later it is again.)
        self.una + u32::from(self.is_opening()) + self.send.len()
    }

    /// The sequence number after all that there is to send, FIN included.
    fn stream_end(&self) -> Seq {
        if self.fin_acked { self.una } else { self.data_end() + u32::from(self.fin_queued) }
    }

    /// Bytes and flags in flight.
    fn flight(&self) -> u32 {
        self.max.since(self.una)
    }

    /// Our SYN is not acknowledged.
    const fn is_opening(&self) -> bool {
        matches!(self.state, State::SynSent | State::SynReceived)
    }

    /// The handshake is complete and the connection is not gone.
    pub(crate) const fn is_open(&self) -> bool {
        !matches!(self.state, State::SynSent | State::SynReceived | State::TimeWait | State::Closed)
    }

    /// Nothing more will be sent or received.
    pub(crate) const fn is_over(&self) -> bool {
        matches!(self.state, State::TimeWait | State::Closed)
    }

    /// Bytes of memory in its buffers.
    pub(crate) const fn held_bytes(&self) -> usize {
        self.send.capacity() + self.receive.capacity()
    }

    /// Ranges of what has arrived ahead of a gap.
    pub(crate) const fn range_count(&self) -> usize {
        self.receive.range_count()
    }

    /// Gives up the farther half of them; returns how many these were.
    pub(crate) fn shed_ranges(&mut self, shared: &mut Shared) -> usize {
        self.receive.shed(&mut shared.memory)
    }

    /// The part of its memory that a connection must give back in [`crate::tcp::relief`] while
    /// others are refused any: a byte now and then is no progress. With a full buffer of 1 MiB that is
    /// 1.6 kB/s, less than any path of today makes of an honest transfer; with one of 2 KiB it is 3
    /// bytes a second, less than somebody types.
    const PART_FREED: usize = 64;

    /// Before memory is taken: it is held from now on, unless some was before.
    fn note_holding(&mut self, now: Instant) {
        if self.held_bytes() == 0 {
            (self.freed_at, self.freed_due) = (now, 1);
        }
    }

    /// The peer has acknowledged, or the program has read, `count` bytes of those that were held.
    fn note_freed(&mut self, now: Instant, count: u32) {
        match self.freed_due.checked_sub(count) {
            None | Some(0) => {
                let part = self.held_bytes().div_ceil(Self::PART_FREED) as u32;
                (self.freed_at, self.freed_due) = (now, part.max(1));
            }
            Some(due) => self.freed_due = due,
        }
    }

    /// What stays of it in TIME-WAIT.
    pub(crate) fn time_wait(&self) -> crate::tcp::time_wait::TimeWait {
        crate::tcp::time_wait::TimeWait::new(
            self.tuple,
            self.hash,
            self.max,
            self.receive.acknowledge(),
            self.has_timestamps.then_some((self.timestamp_offset, self.peer_clock.recent())),
        )
    }

    /// Whether an ACK is owed.
    pub(crate) const fn owes_ack(&self) -> bool {
        self.acks_due > 0
    }
}
