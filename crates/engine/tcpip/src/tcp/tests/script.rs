//! The host under test and the script's side of a trace.

use crate::config::Limits;
use crate::error::TcpError;
use crate::event::Event;
use crate::icmp::IcmpError;
use crate::secret::Keys;
use crate::socket::{ListenerId, TcpId, TcpStatus};
use crate::tcp::connection::State;
use crate::tcp::{SegmentOut, Seq, Tcp};
use crate::time::Instant;
use crate::wire::tcp::{Flags, Header, Options, SackBlocks, Segment, Timestamps};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::num::NonZeroU16;
use core::time::Duration;
use std::collections::VecDeque;

pub(super) const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
pub(super) const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
pub(super) const PORT: u16 = 80;
pub(super) const PEER_PORT: u16 = 40_000;
pub(super) const MTU: usize = 1500;
/// MSS without and with timestamps.
pub(super) const MSS: usize = 1460;

/// Initial sequence numbers that wrap at once, soon, and in the middle of the sign.
pub(super) const ISNS: [u32; 5] = [0, 1, (1 << 31) - 1, u32::MAX - 1499, u32::MAX];

/// A segment of a trace. Numbers are relative to the initial ones; `None` means "do not care" for
/// what is expected, and a sensible default for what is sent.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Seg {
    pub(super) flags: u8,
    pub(super) seq: u32,
    pub(super) ack: Option<u32>,
    pub(super) window: Option<u16>,
    pub(super) mss: Option<u16>,
    pub(super) shift: Option<u8>,
    pub(super) ts: Option<(u32, u32)>,
    pub(super) sack_permitted: bool,
    /// Expected: exactly these blocks, if any are given.
    pub(super) sack: Option<Vec<(u32, u32)>>,
    pub(super) data: Vec<u8>,
    pub(super) remote_port: Option<u16>,
}

impl core::fmt::Debug for Seg {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Seg { flags, seq, ack, window, sack, data, .. } = self;
        write!(f, "{:?} seq {seq} ack {ack:?} win {window:?} ", Flags(*flags))?;
        write!(f, "sack {sack:?} len {}", data.len())
    }
}

/// A segment by tcpdump's letters: S, F, R, P and `.` for ACK.
pub(super) fn seg(flags: &str) -> Seg {
    let bit = |letter| match letter {
        'F' => 1,
        'S' => 2,
        'R' => 4,
        'P' => 8,
        '.' => 0x10,
        'U' => 0x20,
        _ => panic!("no flag {letter}"),
    };
    Seg { flags: flags.chars().map(bit).sum(), ..Seg::default() }
}

impl Seg {
    pub(super) fn seq(self, seq: u32) -> Seg {
        Seg { seq, ..self }
    }
    pub(super) fn ack(self, ack: u32) -> Seg {
        Seg { ack: Some(ack), ..self }
    }
    pub(super) fn win(self, window: u16) -> Seg {
        Seg { window: Some(window), ..self }
    }
    pub(super) fn mss(self, mss: u16) -> Seg {
        Seg { mss: Some(mss), ..self }
    }
    pub(super) fn shift(self, shift: u8) -> Seg {
        Seg { shift: Some(shift), ..self }
    }
    pub(super) fn ts(self, value: u32, echo: u32) -> Seg {
        Seg { ts: Some((value, echo)), ..self }
    }
    /// SACK is permitted.
    pub(super) fn sack_ok(self) -> Seg {
        Seg { sack_permitted: true, ..self }
    }
    /// SACK blocks, in numbers of the stream that they are about.
    pub(super) fn sack(self, blocks: &[(u32, u32)]) -> Seg {
        Seg { sack: Some(blocks.to_vec()), ..self }
    }
    pub(super) fn data(self, data: &[u8]) -> Seg {
        Seg { data: data.to_vec(), ..self }
    }
    /// The `len` bytes of the test stream from `offset` on.
    pub(super) fn stream(self, offset: usize, len: usize) -> Seg {
        Seg { data: stream(offset, len), ..self }
    }
    pub(super) fn port(self, port: u16) -> Seg {
        Seg { remote_port: Some(port), ..self }
    }
}

/// A piece of an endless stream in which every place looks different.
pub(super) fn stream(offset: usize, len: usize) -> Vec<u8> {
    (offset..offset + len).map(|at| ((at * 31) ^ (at >> 8) ^ (at >> 13)) as u8).collect()
}

/// What left the host.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) at: Instant,
    pub(super) header: Header,
    pub(super) payload: Vec<u8>,
    /// The device cuts it into segments with so much payload.
    pub(super) mss: Option<u16>,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
}

/// The host under test and what the script knows of it.
pub(super) struct Host {
    pub(super) tcp: Tcp,
    pub(super) now: Instant,
    pub(super) out: VecDeque<Sent>,
    pub(super) events: Vec<Event>,
    /// The peer's and the host's initial numbers; the latter once a SYN of the host was seen.
    pub(super) peer_isn: Seq,
    pub(super) host_isn: Option<Seq>,
    pub(super) listener: Option<ListenerId>,
    pub(super) conn: Option<TcpId>,
    /// The host's port: of the listener, or what `connect` picked.
    pub(super) port: u16,
    limits: Limits,
}

/// Runs a trace with every pair of initial numbers.
pub(super) fn with_isns(trace: impl Fn(Host)) {
    for peer in ISNS {
        for host in ISNS {
            trace(Host::with(Limits::default(), MTU, peer, host));
        }
    }
}

impl Host {
    pub(super) fn new() -> Host {
        Host::with(Limits::default(), MTU, 1_000_000, 5_000_000)
    }

    pub(super) fn with_limits(limits: Limits) -> Host {
        Host::with(limits, MTU, u32::MAX - 1499, u32::MAX - 1499)
    }

    pub(super) fn with(limits: Limits, mtu: usize, peer_isn: u32, host_isn: u32) -> Host {
        let mut tcp = Tcp::new(&limits, Keys::new([42; 32]), mtu, 0);
        tcp.origins.fixed = Some(Seq(host_isn));
        Host {
            tcp,
            now: Instant::from_millis(1_000_000),
            out: VecDeque::new(),
            events: Vec::new(),
            peer_isn: Seq(peer_isn),
            host_isn: None,
            listener: None,
            conn: None,
            port: PORT,
            limits,
        }
    }

    /// The counters and gauges.
    pub(super) fn counters(&self) -> crate::Counters {
        self.tcp.counters()
    }

    // ---- time ----

    /// Goes on to `ms` after the current moment. Everything that was sent until now must have been
    /// expected, and what is sent on the way is sent at the end: anything earlier fails.
    pub(super) fn after(&mut self, ms: u64) -> &mut Host {
        self.nothing();
        let until = self.now + Duration::from_millis(ms);
        self.run_until(until);
        if let Some(sent) = self.out.iter().find(|sent| sent.at < until) {
            let early = until.saturating_since(sent.at);
            panic!("sent {early:?} too early: {}", self.show(sent));
        }
        self
    }

    /// Lets `ms` pass, whatever is sent.
    pub(super) fn pass(&mut self, ms: u64) -> &mut Host {
        self.run_until(self.now + Duration::from_millis(ms));
        self
    }

    /// Jumps from deadline to deadline; each must come to something.
    fn run_until(&mut self, until: Instant) {
        while let Some(deadline) = self.tcp.poll_timeout().filter(|&deadline| deadline <= until) {
            assert!(deadline >= self.now, "a deadline in the past");
            self.now = deadline;
            self.tcp.handle_timeout(self.now);
            assert!(self.tcp.poll_timeout().is_none_or(|next| next > self.now));
            self.drain();
        }
        self.now = until;
    }

    // ---- segments in ----

    fn encode(&self, seg: &Seg) -> Vec<u8> {
        let host_isn = self.host_isn.unwrap_or(Seq(0));
        let is_acked = seg.flags & 0x10 != 0;
        let mut sack = SackBlocks::default();
        for &(start, end) in seg.sack.iter().flatten() {
            sack.push((host_isn + start, host_isn + end));
        }
        let header = Header {
            source_port: seg.remote_port.unwrap_or(PEER_PORT),
            destination_port: self.port,
            sequence: self.peer_isn + seg.seq,
            acknowledgment: if is_acked { host_isn + seg.ack.unwrap_or(1) } else { Seq(0) },
            flags: Flags(seg.flags),
            window: seg.window.unwrap_or(65_535),
            options: Options {
                mss: seg.mss,
                window_shift: seg.shift,
                sack_permitted: seg.sack_permitted,
                sack,
                timestamps: seg.ts.map(|(value, echo)| Timestamps { value, echo }),
            },
        };
        let mut bytes = vec![0; header.len()];
        header.emit(&mut bytes);
        bytes.extend_from_slice(&seg.data);
        bytes
    }

    /// A segment of the peer arrives.
    pub(super) fn rx(&mut self, seg: Seg) -> &mut Host {
        let bytes = self.encode(&seg);
        self.rx_bytes(PEER, &bytes)
    }

    pub(super) fn rx_from(&mut self, source: IpAddr, seg: Seg) -> &mut Host {
        let bytes = self.encode(&seg);
        self.rx_bytes(source, &bytes)
    }

    pub(super) fn rx_bytes(&mut self, source: IpAddr, bytes: &[u8]) -> &mut Host {
        self.tcp.handle_segment(self.now, source, HOST, bytes, None);
        self.drain();
        self
    }

    /// Several segments of the peer arrive in one, with `mss` bytes of payload each.
    pub(super) fn rx_large(&mut self, seg: Seg, mss: u16) -> &mut Host {
        let bytes = self.encode(&seg);
        self.tcp.handle_segment(self.now, PEER, HOST, &bytes, NonZeroU16::new(mss));
        self.drain();
        self
    }

    /// The device cuts segments of up to `bytes`, TCP header included.
    pub(super) fn with_large(mut self, bytes: usize) -> Host {
        self.tcp.shared.settings.large_segment_bytes = bytes;
        self
    }

    /// A segment arrives, and nothing is looked at: for floods.
    pub(super) fn rx_quietly(&mut self, source: IpAddr, seg: Seg) {
        let bytes = self.encode(&seg);
        self.tcp.handle_segment(self.now, source, HOST, &bytes, None);
    }

    /// Whatever was sent is RST.
    pub(super) fn nothing_but_resets(&mut self) {
        assert!(self.out.drain(..).all(|sent| sent.header.flags.has(Flags::RST)));
    }

    /// An ICMP error quotes the host's segment at `seq`.
    pub(super) fn rx_icmp(&mut self, error: IcmpError, seq: u32) -> &mut Host {
        let sequence = self.host_isn.unwrap_or_default() + seq;
        let mut quote = self.port.to_be_bytes().to_vec();
        quote.extend(PEER_PORT.to_be_bytes());
        quote.extend(sequence.0.to_be_bytes());
        self.tcp.handle_icmp_error(self.now, error, HOST, PEER, &quote);
        self.drain();
        self
    }

    // ---- segments out ----

    /// Takes what the host sends, and checks what must always hold.
    pub(super) fn drain(&mut self) {
        let mut buffer = vec![0xee; MTU.max(65_535) - 20];
        while let Some(SegmentOut { source, destination, len, mss, .. }) =
            self.tcp.poll_transmit(self.now, &mut buffer)
        {
            let segment = Segment::parse(&buffer[..len]).expect("what we send is well formed");
            if segment.header.flags.has(Flags::SYN) && destination == PEER {
                self.host_isn = Some(segment.header.sequence);
            }
            self.out.push_back(Sent {
                at: self.now,
                header: segment.header,
                payload: segment.payload.to_vec(),
                mss: mss.map(NonZeroU16::get),
                source,
                destination,
            });
            assert!(self.out.len() < 200_000, "the host does not stop sending");
        }
        while let Some(event) = self.tcp.poll_event() {
            self.events.push(event);
        }
        self.tcp.check(&self.limits);
    }

    fn show(&self, sent: &Sent) -> String {
        let header = &sent.header;
        let isn = self.host_isn.unwrap_or_default();
        format!(
            "{:?} seq {} ack {} win {} len {} {:?}",
            header.flags,
            header.sequence.0.wrapping_sub(isn.0),
            header.acknowledgment.0.wrapping_sub(self.peer_isn.0),
            header.window,
            sent.payload.len(),
            header.options,
        )
    }

    /// The next segment that was sent.
    pub(super) fn next_sent(&mut self) -> Sent {
        self.out.pop_front().expect("nothing was sent")
    }

    /// The host has sent this next. PSH counts only if it is asked for; options and window only
    /// if they are given.
    pub(super) fn expect(&mut self, expected: Seg) -> &mut Host {
        let Some(sent) = self.out.pop_front() else {
            panic!("expected {expected:?}, but nothing was sent");
        };
        let shown = self.show(&sent);
        let header = sent.header;
        let mask = if expected.flags & 8 != 0 { 0xff } else { 0xf7 };
        let isn = if header.flags.has(Flags::RST) && self.host_isn.is_none() {
            Seq(0)
        } else {
            self.host_isn.unwrap_or_default()
        };
        assert_eq!(header.flags.0 & mask, expected.flags & mask, "flags of {shown}");
        assert_eq!(header.sequence, isn + expected.seq, "seq of {shown}");
        assert_eq!((header.source_port, sent.source), (self.port, HOST), "source of {shown}");
        let remote_port = expected.remote_port.unwrap_or(PEER_PORT);
        assert_eq!((header.destination_port, sent.destination), (remote_port, PEER), "{shown}");
        if let Some(ack) = expected.ack {
            assert_eq!(header.acknowledgment, self.peer_isn + ack, "ack of {shown}");
        }
        if let Some(window) = expected.window {
            assert_eq!(header.window, window, "window of {shown}");
        }
        if expected.mss.is_some() {
            assert_eq!(header.options.mss, expected.mss, "MSS of {shown}");
        }
        if expected.shift.is_some() {
            assert_eq!(header.options.window_shift, expected.shift, "shift of {shown}");
        }
        if let Some(expected) = &expected.sack {
            let relative = |seq: Seq| seq.0.wrapping_sub(self.peer_isn.0);
            let blocks = header.options.sack.as_slice().iter();
            let sack: Vec<_> =
                blocks.map(|&(start, end)| (relative(start), relative(end))).collect();
            assert_eq!(&sack, expected, "SACK of {shown}");
        }
        assert_eq!(sent.payload.len(), expected.data.len(), "length of {shown}");
        assert_eq!(sent.payload, expected.data, "payload of {shown}");
        self
    }

    /// The host has sent nothing else.
    pub(super) fn nothing(&mut self) -> &mut Host {
        if let Some(sent) = self.out.front() {
            panic!("sent although nothing was expected: {}", self.show(sent));
        }
        self
    }

    // ---- the program ----

    pub(super) fn listen(&mut self) -> &mut Host {
        self.listen_with(8)
    }

    pub(super) fn listen_with(&mut self, backlog: usize) -> &mut Host {
        let local = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT);
        self.listener = Some(self.tcp.listen(local, backlog).expect("the port is free"));
        self
    }

    pub(super) fn accept(&mut self) -> &mut Host {
        let listener = self.listener.expect("listening");
        let accepted = self.tcp.accept(self.now, listener).expect("a connection waits");
        self.conn = Some(accepted.connection);
        self
    }

    pub(super) fn try_accept(&mut self) -> Option<TcpId> {
        let listener = self.listener.expect("listening");
        self.tcp.accept(self.now, listener).map(|accepted| accepted.connection)
    }

    pub(super) fn connect(&mut self) -> &mut Host {
        let remote = SocketAddr::new(PEER, PEER_PORT);
        let id = self.tcp.connect(self.now, HOST, remote).expect("there are ports");
        let (local, _) = self.tcp.addresses(id).expect("it exists");
        self.port = local.port();
        self.conn = Some(id);
        self.drain();
        self
    }

    pub(super) fn id(&self) -> TcpId {
        self.conn.expect("a connection")
    }

    /// Writes all of `data`.
    pub(super) fn write(&mut self, data: &[u8]) -> &mut Host {
        assert_eq!(self.tcp.write(self.now, self.id(), data), Ok(Some(data.len())));
        self.drain();
        self
    }

    /// Writes `len` bytes of the test stream from `offset` on.
    pub(super) fn write_stream(&mut self, offset: usize, len: usize) -> &mut Host {
        self.write(&stream(offset, len))
    }

    /// Reads everything there is: `data`.
    pub(super) fn read(&mut self, data: &[u8]) -> &mut Host {
        let mut buffer = vec![0; data.len() + 1];
        let count = match self.tcp.read(self.now, self.id(), &mut buffer) {
            Ok(Some(count)) => count,
            other => panic!("expected {} bytes, got {other:?}", data.len()),
        };
        self.drain();
        assert_eq!(&buffer[..count], data);
        self
    }

    /// Reads at most `len` bytes.
    pub(super) fn read_some(&mut self, len: usize) -> Vec<u8> {
        let mut buffer = vec![0; len];
        let count = self.tcp.read(self.now, self.id(), &mut buffer).expect("no error");
        self.drain();
        buffer.truncate(count.expect("there is data"));
        buffer
    }

    pub(super) fn would_block(&mut self) -> &mut Host {
        assert_eq!(self.tcp.read(self.now, self.id(), &mut [0; 9]), Ok(None));
        self
    }

    pub(super) fn read_end(&mut self) -> &mut Host {
        assert_eq!(self.tcp.read(self.now, self.id(), &mut [0; 9]), Ok(Some(0)));
        self
    }

    pub(super) fn read_error(&mut self, error: TcpError) -> &mut Host {
        assert_eq!(self.tcp.read(self.now, self.id(), &mut [0; 9]), Err(error));
        self
    }

    pub(super) fn shutdown(&mut self) -> &mut Host {
        assert_eq!(self.tcp.shutdown(self.now, self.id()), Ok(()));
        self.drain();
        self
    }

    pub(super) fn release(&mut self) -> &mut Host {
        self.tcp.release(self.now, self.id());
        self.drain();
        self
    }

    pub(super) fn abort(&mut self) -> &mut Host {
        self.tcp.abort(self.now, self.id());
        self.drain();
        self
    }

    pub(super) fn nodelay(&mut self) -> &mut Host {
        self.tcp.set_nodelay(self.id(), true);
        self.drain();
        self
    }

    pub(super) fn status(&self) -> TcpStatus {
        self.tcp.status(self.id())
    }

    pub(super) fn state(&self) -> State {
        self.tcp.connections.get(self.id().index() as u32).expect("it exists").name()
    }

    pub(super) fn congestion_window(&self) -> u32 {
        self.tcp.connections.get(self.id().index() as u32).expect("it exists").congestion_window()
    }

    pub(super) fn had_event(&mut self, wanted: Event) -> bool {
        let before = self.events.len();
        self.events.retain(|&event| event != wanted);
        self.events.len() < before
    }

    /// Nothing is left: no connection, timer, entry or byte.
    pub(super) fn is_empty(&mut self) -> &mut Host {
        self.nothing();
        assert_empty(&self.tcp);
        self
    }

    // ---- ways into states ----

    /// A connection that the peer has opened, without any option, and that was accepted. The next
    /// numbers are 1 on both sides.
    pub(super) fn established(&mut self) -> &mut Host {
        self.established_with(seg("S").mss(MSS as u16))
    }

    /// As [`established`](Self::established), with the peer's SYN.
    pub(super) fn established_with(&mut self, syn: Seg) -> &mut Host {
        let ts = syn.ts.map(|(value, _)| value);
        let shift = syn.shift;
        let sack_permitted = syn.sack_permitted;
        self.listen().rx(syn);
        let syn_ack = self.next_sent();
        assert_eq!(syn_ack.header.flags, Flags::SYN | Flags::ACK);
        assert_eq!(syn_ack.header.options.sack_permitted, sack_permitted);
        let mut ack = seg(".").seq(1).ack(1);
        if shift.is_some() {
            ack.window = Some(65_535 >> shift.unwrap_or(0).min(14));
        }
        ack.ts = ts.zip(syn_ack.header.options.timestamps).map(|(ts, ours)| (ts, ours.value));
        self.rx(ack).nothing().accept()
    }

    /// A connection in a state, by the shortest trace. The host has sent FIN as number 1 if it has,
    /// the peer too.
    pub(super) fn in_state(&mut self, state: State) -> &mut Host {
        match state {
            State::SynSent => {
                self.connect();
                self.next_sent();
            }
            State::SynReceived => {
                self.connect();
                self.next_sent();
                self.rx(seg("S").seq(0));
                self.next_sent();
            }
            State::Established => {
                self.established();
            }
            State::FinWait1 => {
                self.established().shutdown().expect(seg("F.").seq(1).ack(1));
            }
            State::FinWait2 => {
                self.in_state(State::FinWait1).rx(seg(".").seq(1).ack(2)).nothing();
            }
            State::CloseWait => {
                self.established().rx(seg("F.").seq(1).ack(1)).expect(seg(".").seq(1).ack(2));
            }
            State::Closing => {
                self.in_state(State::FinWait1)
                    .rx(seg("F.").seq(1).ack(1))
                    .expect(seg(".").seq(2).ack(2));
            }
            State::LastAck => {
                self.in_state(State::CloseWait).shutdown().expect(seg("F.").seq(1).ack(2));
            }
            State::TimeWait => {
                self.in_state(State::FinWait2)
                    .rx(seg("F.").seq(1).ack(2))
                    .expect(seg(".").seq(2).ack(2));
            }
            State::Closed => {}
        }
        if state != State::Closed {
            assert_eq!(self.state(), state);
        }
        self.nothing()
    }
}

/// The states in which a connection exists and both sides have agreed on numbers.
pub(super) const SYNCHRONIZED: [State; 6] = [
    State::Established,
    State::FinWait1,
    State::FinWait2,
    State::CloseWait,
    State::Closing,
    State::LastAck,
];

/// Asserts that nothing is left of any connection.
pub(crate) fn assert_empty(tcp: &Tcp) {
    assert_eq!(tcp.connections.len(), 0, "connections");
    assert_eq!(tcp.half_opens.len(), 0, "half-open entries");
    assert_eq!(tcp.time_waits.len(), 0, "TIME-WAIT entries");
    assert_eq!(tcp.demux.len(), 0, "demultiplexer");
    assert_eq!(tcp.poll_timeout(), None, "timers");
    assert_eq!((tcp.shared.memory.bytes(), tcp.shared.memory.ranges()), (0, 0), "memory");
}
