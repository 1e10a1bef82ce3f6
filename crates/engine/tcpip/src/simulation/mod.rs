//! A link between two ends, in virtual time, for tests: it delays, loses, duplicates and reorders
//! what it carries, all from one seed, and ends whatever the two ends do.
//!
//! It is generic over the ends, so that the same harness runs two [`Tcp`](crate::tcp::Tcp)s over IP
//! payloads and two [`Engine`](crate::Engine)s over frames.

use crate::time::Instant;
use core::time::Duration;
use std::collections::BinaryHeap;

/// One end of a link: anything sans-io.
pub(crate) trait End {
    /// What the link carries.
    type Packet: Clone;

    fn receive(&mut self, now: Instant, packet: Self::Packet);
    fn transmit(&mut self, now: Instant) -> Option<Self::Packet>;
    fn handle_timeout(&mut self, now: Instant);
    fn poll_timeout(&self) -> Option<Instant>;
    /// Called after every step: asserts whatever must always hold.
    fn check(&self, _now: Instant) {}
}

/// Numbers from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if that is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.roll() % bound }
    }

    /// True in `percent` of a hundred cases.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What a link does to packets. Percentages are of packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    pub(crate) delay: Duration,
    pub(crate) loss: u64,
    pub(crate) duplication: u64,
    /// This many are delayed by up to `jitter` more.
    pub(crate) reordering: u64,
    pub(crate) jitter: Duration,
}

impl Faults {
    /// A link that only takes `delay`.
    pub(crate) const fn none(delay: Duration) -> Faults {
        Faults { delay, loss: 0, duplication: 0, reordering: 0, jitter: Duration::ZERO }
    }
}

struct InFlight<P> {
    arrives: Instant,
    /// Breaks ties: what was sent earlier arrives earlier.
    number: u64,
    to: usize,
    packet: P,
}

impl<P> PartialEq for InFlight<P> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl<P> Eq for InFlight<P> {}
impl<P> PartialOrd for InFlight<P> {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<P> Ord for InFlight<P> {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        // The heap gives the greatest first; the earliest is wanted.
        (other.arrives, other.number).cmp(&(self.arrives, self.number))
    }
}

/// Two ends and the link between them.
pub(crate) struct Pair<E: End> {
    pub(crate) ends: [E; 2],
    pub(crate) now: Instant,
    pub(crate) faults: Faults,
    pub(crate) dice: Dice,
    in_flight: BinaryHeap<InFlight<E::Packet>>,
    sent: u64,
    /// Decides about single packets by their number, before the dice: true loses it.
    pub(crate) loses: Option<Box<dyn Fn(u64) -> bool>>,
}

impl<E: End> Pair<E> {
    pub(crate) fn new(ends: [E; 2], faults: Faults, seed: u64) -> Self {
        Pair {
            ends,
            now: Instant::from_millis(1),
            faults,
            dice: Dice(seed),
            in_flight: BinaryHeap::new(),
            sent: 0,
            loses: None,
        }
    }

    /// Packets sent so far, by both ends.
    pub(crate) const fn sent(&self) -> u64 {
        self.sent
    }

    /// Takes what both ends have to send onto the link.
    pub(crate) fn drain(&mut self) {
        for from in 0..2 {
            let mut count = 0;
            while let Some(packet) = self.ends[from].transmit(self.now) {
                count += 1;
                assert!(count < 100_000, "an end does not stop sending at {:?}", self.now);
                self.carry(1 - from, packet);
            }
            self.ends[from].check(self.now);
        }
    }

    fn carry(&mut self, to: usize, packet: E::Packet) {
        let number = self.sent;
        self.sent += 1;
        let is_lost = self.loses.as_ref().is_some_and(|loses| loses(number));
        if is_lost || self.dice.percent(self.faults.loss) {
            return;
        }
        let copies = 1 + u64::from(self.dice.percent(self.faults.duplication));
        for _ in 0..copies {
            let mut arrives = self.now + self.faults.delay;
            if self.dice.percent(self.faults.reordering) {
                let jitter_ns = self.faults.jitter.as_nanos() as u64;
                arrives = arrives + Duration::from_nanos(self.dice.below(jitter_ns));
            }
            self.in_flight.push(InFlight { arrives, number, to, packet: packet.clone() });
        }
    }

    /// When something happens next, if anything.
    pub(crate) fn next(&self) -> Option<Instant> {
        let arrival = self.in_flight.peek().map(|packet| packet.arrives);
        let timeouts = self.ends.iter().map(End::poll_timeout);
        timeouts.chain([arrival]).flatten().min()
    }

    /// Lets the next thing happen: everything that is due then. False if there is none, or none
    /// before `until`; then it is `until`.
    pub(crate) fn step(&mut self, until: Instant) -> bool {
        self.drain();
        let Some(next) = self.next().filter(|&next| next <= until) else {
            self.now = self.now.max(until);
            return false;
        };
        self.now = self.now.max(next);
        while self.in_flight.peek().is_some_and(|packet| packet.arrives <= self.now) {
            let Some(packet) = self.in_flight.pop() else { break };
            self.ends[packet.to].receive(self.now, packet.packet);
        }
        for end in &mut self.ends {
            if end.poll_timeout().is_some_and(|deadline| deadline <= self.now) {
                end.handle_timeout(self.now);
                // A deadline that stays although it has come would be a busy loop.
                assert!(end.poll_timeout().is_none_or(|deadline| deadline > self.now));
            }
        }
        self.drain();
        true
    }

    /// Lets `duration` pass.
    pub(crate) fn run(&mut self, duration: Duration) {
        let until = self.now + duration;
        while self.step(until) {}
    }
}
