//! Two whole stacks on a link whose every whim is the script's: what arrives is what was sent, in
//! order, once, or an error says why.

use crate::Input;
use crate::frames;
use core::time::Duration;
use fata_tcpip::{
    AddressConfig, Config, Engine, FrameChecksum, Instant, Ipv6Config, Limits, ListenerId,
    MacAddress, TcpId, TcpStatus, fuzzing,
    segment::{Cutter, finish_checksum},
};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;

const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
const ADDRESSES_6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
];
const PORT: u16 = 80;

/// Bytes in either direction, at most.
const STREAM_BYTES_MAX: usize = 60_000;

/// What both hosts speak.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

/// The bytes of a stream.
fn byte(at: usize) -> u8 {
    (at ^ (at >> 8)) as u8
}

/// A frame on the link, and the payload of its segments if it is several.
type OnLink = (Vec<u8>, Option<NonZeroU16>);

struct Node {
    engine: Engine,
    limits: Limits,
    mtu: usize,
    /// The link takes large frames as they are; otherwise they are cut.
    takes_large: bool,
    listener: Option<ListenerId>,
    connection: Option<TcpId>,
    /// Bytes that the program has written, and read.
    written: usize,
    read: usize,
    is_shut: bool,
    saw_end: bool,
    has_failed: bool,
    buffer: Vec<u8>,
}

impl Node {
    fn new(input: &mut Input<'_>, which: usize, family: Family) -> Node {
        let mut limits = Limits {
            tcp_receive_bytes: [4096, 2048, 65_535][input.below(3)],
            tcp_send_bytes: [8192, 2048, 40_000][input.below(3)],
            ..Limits::default()
        };
        limits.tcp_out_of_order_ranges = 1 + input.below(8);
        // IPv6 has links of 1,280 bytes and more.
        let least = if family == Family::V4 { 296 } else { 1280 };
        let mtu = [1500, least, 9000][input.below(3)];
        let large = [0, 65_549][input.below(2)];
        let (address, ipv6) = match family {
            Family::V4 => {
                let (address, prefix_len) = (ADDRESSES[which], 24);
                let (gateway, dns) = (None, vec![]);
                (AddressConfig::Static { address, prefix_len, gateway, dns }, Ipv6Config::off())
            }
            Family::V6 => {
                let addresses = vec![(ADDRESSES_6[which], 64)];
                let ipv6 = Ipv6Config {
                    addresses,
                    transmit_checksum_offload: large > 0,
                    segmented_frame_bytes_max: large,
                    ..Ipv6Config::default()
                };
                (AddressConfig::Off, ipv6)
            }
        };
        let config = Config {
            mac: MacAddress([2, 0, 0, 0, 0, which as u8]),
            mtu,
            address,
            ipv6,
            routes: vec![],
            secret: [which as u8; 32],
            transmit_checksum_offload: large > 0,
            segmented_frame_bytes_max: large,
            limits: limits.clone(),
        };
        let engine = Engine::new(config, Instant::ZERO).expect("a configuration that can be");
        Node {
            engine,
            limits,
            mtu,
            takes_large: input.flag(),
            listener: None,
            connection: None,
            written: 0,
            read: 0,
            is_shut: false,
            saw_end: false,
            has_failed: false,
            buffer: vec![0; 65_549],
        }
    }

    /// What the engine has to send now.
    fn transmit(&mut self, now: Instant) -> Option<Vec<OnLink>> {
        let transmit = self.engine.poll_transmit(now, &mut self.buffer)?;
        let mut frame = self.buffer[..transmit.len].to_vec();
        if let Some(mss) = transmit.mss.filter(|_| !self.takes_large) {
            let mut cutter = Cutter::new(&frame, mss).expect("TCP");
            let mut buffer = vec![0; cutter.frame_bytes_max()];
            let mut cut = Vec::new();
            while let Some(piece) = cutter.write_next(&frame, &mut buffer, false) {
                frames::check(&buffer[..piece.len], self.mtu);
                cut.push((buffer[..piece.len].to_vec(), None));
            }
            return Some(cut);
        }
        if transmit.partial_checksum.is_some() {
            finish_checksum(&mut frame).expect("TCP or UDP");
        }
        frames::check(&frame, if transmit.mss.is_some() { 65_535 } else { self.mtu });
        Some(vec![(frame, transmit.mss)])
    }

    /// What the program learns.
    fn look(&mut self, now: Instant) {
        while self.engine.poll_event().is_some() {}
        if let (Some(listener), None) = (self.listener, self.connection) {
            let accepted = self.engine.tcp_accept(now, listener);
            self.connection = accepted.map(|accepted| accepted.connection);
        }
        if let Some(id) = self.connection {
            self.has_failed |= matches!(self.engine.tcp_status(id), TcpStatus::Failed(_));
        }
        fuzzing::check_engine(&self.engine, &self.limits);
    }

    fn write(&mut self, now: Instant, len: usize) {
        let Some(id) = self.connection.filter(|_| !self.is_shut) else { return };
        let len = len.min(STREAM_BYTES_MAX - self.written);
        let data: Vec<u8> = (self.written..self.written + len).map(byte).collect();
        if let Ok(Some(count)) = self.engine.tcp_write(now, id, &data) {
            self.written += count;
        }
    }

    /// Reads, and compares with what `written` bytes of the other end are.
    fn read(&mut self, now: Instant, len: usize, written: usize, is_shut: bool) {
        let Some(id) = self.connection.filter(|_| len > 0) else { return };
        let mut buffer = vec![0; len];
        let Ok(Some(count)) = self.engine.tcp_read(now, id, &mut buffer) else { return };
        for (at, value) in buffer[..count].iter().enumerate() {
            assert_eq!(*value, byte(self.read + at), "byte {} is another", self.read + at);
        }
        self.read += count;
        assert!(self.read <= written, "more than was written");
        if count == 0 {
            assert!(is_shut && self.read == written, "the end, after {} of {written}", self.read);
            self.saw_end = true;
        }
    }

    fn shut(&mut self, now: Instant) {
        if let Some(id) = self.connection {
            self.is_shut |= self.engine.tcp_shutdown(now, id).is_ok();
        }
    }
}

struct Pair {
    nodes: [Node; 2],
    now: Instant,
    /// Frames on their way to a node.
    link: [VecDeque<OnLink>; 2],
}

/// Frames that may be under way to one end; what comes then is lost.
const LINK_FRAMES_MAX: usize = 200;

/// See the module.
pub fn run(input: &mut Input<'_>) {
    play(input, Family::V4);
}

/// The same over IPv6.
pub fn run_6(input: &mut Input<'_>) {
    play(input, Family::V6);
}

/// Returns what each host has read.
fn play(input: &mut Input<'_>, family: Family) -> [usize; 2] {
    let nodes = [Node::new(input, 0, family), Node::new(input, 1, family)];
    let now = Instant::from_millis(20_000);
    let mut pair = Pair { nodes, now, link: [VecDeque::new(), VecDeque::new()] };
    if family == Family::V6 {
        // Nobody else has these addresses (RFC 4862 §5.4): until then there are none.
        pair.wait(Duration::from_secs(10));
        pair.link.iter_mut().for_each(VecDeque::clear);
    }
    let remote: IpAddr = match family {
        Family::V4 => ADDRESSES[1].into(),
        Family::V6 => ADDRESSES_6[1].into(),
    };
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    let listener = pair.nodes[1].engine.tcp_listen(any, 2).expect("the first");
    pair.nodes[1].listener = Some(listener);
    let remote = SocketAddr::from((remote, PORT));
    let connection = pair.nodes[0].engine.tcp_connect(pair.now, remote).expect("the first");
    pair.nodes[0].connection = Some(connection);
    pair.settle();
    while !input.is_empty() {
        pair.step(input);
        pair.settle();
    }
    pair.end();
    pair.nodes.map(|node| node.read)
}

impl Pair {
    fn step(&mut self, input: &mut Input<'_>) {
        let kind = input.below(12);
        let which = input.below(2);
        let written = self.nodes[1 - which].written;
        let is_shut = self.nodes[1 - which].is_shut;
        let link = &mut self.link[which];
        let now = self.now;
        match kind {
            0 => self.nodes[which].write(now, input.len(20_000)),
            1 => self.nodes[which].read(now, input.len(20_000), written, is_shut),
            2 if input.below(4) == 3 => self.nodes[which].shut(now),
            // All that is under way arrives.
            2 | 3 => {
                while let Some(frame) = self.link[which].pop_front() {
                    self.deliver(which, &frame);
                }
            }
            // The next frame arrives, or one behind it.
            4 => {
                if let Some(frame) = link.pop_front() {
                    self.deliver(which, &frame);
                }
            }
            5 if !link.is_empty() => {
                let at = input.below(link.len().min(256));
                if let Some(frame) = link.remove(at) {
                    self.deliver(which, &frame);
                }
            }
            // It is lost, or comes twice.
            6 => drop(link.pop_front()),
            7 => {
                if let Some(frame) = link.front().cloned() {
                    self.deliver(which, &frame);
                }
            }
            // A byte of it is damaged: what sums find in any case, if it is behind Ethernet's header.
            8 => {
                if let Some((mut frame, mss)) = link.pop_front() {
                    let at = 14 + usize::from(input.u16()) % (frame.len() - 14);
                    frame[at] ^= 1 << input.below(8);
                    self.deliver(which, &(frame, mss));
                }
            }
            9 => self.wait(Duration::from_millis(u64::from(input.u8()))),
            10 => self.wait(Duration::from_millis(u64::from(input.u8()) * 50)),
            _ => {
                if let Some(id) = self.nodes[which].connection {
                    self.nodes[which].engine.tcp_set_nodelay(id, input.flag());
                }
            }
        }
    }

    fn deliver(&mut self, to: usize, (frame, mss): &OnLink) {
        let node = &mut self.nodes[to];
        node.engine.handle_large_frame(self.now, frame, FrameChecksum::Unverified, *mss);
        self.settle();
    }

    /// Takes what both ends have to send onto the link.
    fn settle(&mut self) {
        for from in 0..2 {
            let mut count = 0;
            while let Some(frames) = self.nodes[from].transmit(self.now) {
                count += 1;
                assert!(count < 2000, "an end does not stop sending");
                self.link[1 - from].extend(frames);
                self.link[1 - from].truncate(LINK_FRAMES_MAX);
            }
            self.nodes[from].look(self.now);
        }
    }

    /// Lets time pass, from one deadline to the next.
    fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let deadlines = self.nodes.iter().filter_map(|node| node.engine.poll_timeout());
            let Some(next) = deadlines.min().filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            for node in &mut self.nodes {
                node.engine.handle_timeout(self.now);
                let next = node.engine.poll_timeout();
                assert!(next.is_none_or(|next| next > self.now), "a deadline that stays");
            }
            self.settle();
        }
        self.now = end;
    }

    /// The link is good from now on, and both programs read to the end: everything arrives, unless
    /// a connection has failed.
    fn end(&mut self) {
        for _ in 0..5000 {
            for which in 0..2 {
                while let Some(frame) = self.link[which].pop_front() {
                    self.deliver(which, &frame);
                }
                let now = self.now;
                let (written, is_shut) =
                    (self.nodes[1 - which].written, self.nodes[1 - which].is_shut);
                self.nodes[which].read(now, 5000, written, is_shut);
                self.nodes[which].shut(now);
            }
            self.settle();
            if self.nodes.iter().any(|node| node.has_failed) {
                return;
            }
            if self.nodes.iter().all(|node| node.saw_end) {
                assert_eq!(self.nodes[0].read, self.nodes[1].written);
                assert_eq!(self.nodes[1].read, self.nodes[0].written);
                return;
            }
            // Then to the next deadline, unless something is under way, or to be read.
            let deadlines = self.nodes.iter().filter_map(|node| node.engine.poll_timeout());
            let next = deadlines.min().unwrap_or(self.now);
            if self.link.iter().all(VecDeque::is_empty) {
                let idle = next.saturating_since(self.now);
                self.wait(idle.max(Duration::from_millis(1)));
            }
        }
        let state = |node: &Node| (node.written, node.read, node.is_shut, node.saw_end);
        panic!("they never end: {:?} {:?}", state(&self.nodes[0]), state(&self.nodes[1]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both hosts' settings, all nought but the MTU; then both write 100 bytes, twice, and all that is
    /// under way arrives in between.
    #[test]
    fn what_is_written_is_read_over_both_families() {
        for (family, mtu) in [(Family::V4, 0), (Family::V4, 1), (Family::V6, 0), (Family::V6, 1)] {
            let host = [0, 0, 0, mtu, 0, 0];
            let arrive = [3, 1, 3, 0, 3, 1, 3, 0];
            let write = [0, 0, 100, 0, 1, 100];
            let script =
                [&host[..], &host, &arrive, &arrive, &write, &arrive, &write, &arrive].concat();
            assert_eq!(play(&mut Input::new(&script), family), [200, 200], "{mtu}");
        }
    }
}
