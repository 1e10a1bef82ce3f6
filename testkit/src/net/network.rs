//! [`Network`]: a switch, and a link to each of its ports.

use super::capture::Capture;
use super::dice::Dice;
use super::impairments::{LaneCounters, Link, Lost, SwitchCounters};
use super::lane::{Fate, Lane};
use core::fmt;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

/// Stations that a switch remembers; past it, frames for those that it does not know are flooded.
/// What small switches have.
const STATIONS_MAX: usize = 8192;

/// How long a switch remembers a station that is silent (IEEE 802.1D-2004, table 7-5: the
/// recommended ageing time).
const AGEING_TIME: Duration = Duration::from_secs(300);

/// Where a host is plugged in: the ports' numbers are 0, 1, 2 and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub usize);

/// Answers, for a router, a frame that is larger than a link's MTU, the second argument: with a
/// frame to the sender, such as [`fragmentation_needed`](super::fragmentation_needed)'s.
pub type MtuAnswer = Box<dyn FnMut(&[u8], usize) -> Option<Vec<u8>> + Send>;

/// A learning switch in memory with a link to each port, sans-io.
///
/// Frames go in with [`send`](Network::send). Call [`handle_timeout`](Network::handle_timeout) when
/// [`poll_timeout`](Network::poll_timeout) says, and drain [`poll_delivery`](Network::poll_delivery)
/// after each of both. Times are since the beginning, and never go back. The seed, the links and
/// what is sent when decide all that happens.
pub struct Network {
    dice: Dice,
    ports: Vec<Port>,
    stations: BTreeMap<[u8; 6], Station>,
    /// Links that are to be turned on or off, in order.
    schedule: BTreeMap<(Duration, u64), (PortId, bool)>,
    scheduled: u64,
    deliveries: VecDeque<(PortId, Vec<u8>)>,
    mtu_answer: Option<MtuAnswer>,
    counters: SwitchCounters,
}

#[derive(Debug)]
struct Port {
    name: String,
    to_network: Lane,
    from_network: Lane,
    /// The part of a torn network that the port is in.
    part: usize,
    captures: Vec<Capture>,
}

#[derive(Clone, Copy, Debug)]
struct Station {
    port: usize,
    heard: Duration,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("ports", &self.ports)
            .field("stations", &self.stations)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl Network {
    /// A switch without ports, whose chances `seed` decides.
    pub fn new(seed: u64) -> Network {
        Network {
            dice: Dice::new(seed),
            ports: Vec::new(),
            stations: BTreeMap::new(),
            schedule: BTreeMap::new(),
            scheduled: 0,
            deliveries: VecDeque::new(),
            mtu_answer: None,
            counters: SwitchCounters::default(),
        }
    }

    /// Adds a port with a link that is on.
    ///
    /// # Panics
    /// If a number of `link` makes no sense.
    pub fn attach(&mut self, name: &str, link: Link) -> PortId {
        let number = self.ports.len();
        let dice = self.dice.split(number as u64);
        self.ports.push(Port {
            name: name.to_string(),
            to_network: Lane::new(link.to_network, &dice.split(0)),
            from_network: Lane::new(link.from_network, &dice.split(1)),
            part: 0,
            captures: Vec::new(),
        });
        PortId(number)
    }

    fn port(&mut self, port: PortId) -> &mut Port {
        let count = self.ports.len();
        self.ports.get_mut(port.0).unwrap_or_else(|| panic!("port {} of {count}", port.0))
    }

    /// The name that the port was given.
    pub fn name(&self, port: PortId) -> &str {
        self.ports.get(port.0).map_or("", |port| &port.name)
    }

    /// Changes a link for frames that are sent from here on.
    ///
    /// # Panics
    /// If a number of `link` makes no sense.
    pub fn set_link(&mut self, port: PortId, link: Link) {
        let port = self.port(port);
        port.to_network.set_impairments(link.to_network);
        port.from_network.set_impairments(link.from_network);
    }

    /// The link as it is.
    pub fn link(&mut self, port: PortId) -> Link {
        let port = self.port(port);
        Link {
            to_network: port.to_network.impairments().clone(),
            from_network: port.from_network.impairments().clone(),
        }
    }

    /// Turns a link on or off. What is underway on a link that is off is lost.
    pub fn set_up(&mut self, port: PortId, is_up: bool) {
        let port = self.port(port);
        port.to_network.set_up(is_up);
        port.from_network.set_up(is_up);
    }

    /// Turns a link on or off when it is `at`.
    pub fn set_up_at(&mut self, at: Duration, port: PortId, is_up: bool) {
        self.scheduled += 1;
        self.schedule.insert((at, self.scheduled), (port, is_up));
    }

    /// Tears the network: ports reach each other only if they are in the same one of `parts`. Those
    /// that are in none are together in one more.
    pub fn partition(&mut self, parts: &[&[PortId]]) {
        self.heal();
        for (number, part) in parts.iter().enumerate() {
            part.iter().for_each(|port| self.port(*port).part = number + 1);
        }
    }

    /// Makes the network whole again.
    pub fn heal(&mut self) {
        self.ports.iter_mut().for_each(|port| port.part = 0);
    }

    /// Lets somebody answer frames that are larger than a link's MTU; without, they are dropped
    /// silently.
    pub fn set_mtu_answer(&mut self, answer: Option<MtuAnswer>) {
        self.mtu_answer = answer;
    }

    pub(crate) fn add_capture(&mut self, port: PortId, capture: Capture) {
        self.port(port).captures.push(capture);
    }

    /// What the port's link did: to frames of the host's, and to frames for it.
    pub fn link_counters(&self, port: PortId) -> [LaneCounters; 2] {
        self.ports.get(port.0).map_or_else(Default::default, |port| {
            [port.to_network.counters(), port.from_network.counters()]
        })
    }

    /// What the switch did.
    pub fn counters(&self) -> SwitchCounters {
        self.counters
    }

    /// The host at `port` sends a frame. What the links do at once, they do.
    pub fn send(&mut self, now: Duration, port: PortId, frame: &[u8]) {
        self.handle_timeout(now);
        let from = self.port(port);
        let fate = from.to_network.send(now, frame);
        from.captures.iter_mut().for_each(|capture| capture.sent(now, frame, fate));
        if fate.lost == Some(Lost::Mtu) {
            let mtu = from.to_network.impairments().mtu;
            self.answer_large(now, frame, mtu);
        }
        self.handle_timeout(now);
    }

    /// When something happens next.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let lanes = self.ports.iter().flat_map(|port| [&port.to_network, &port.from_network]);
        let scheduled = self.schedule.keys().next().map(|(at, _)| *at);
        lanes.filter_map(Lane::poll_timeout).chain(scheduled).min()
    }

    /// Lets everything happen that is due, in its order.
    pub fn handle_timeout(&mut self, now: Duration) {
        while let Some(at) = self.poll_timeout().filter(|at| *at <= now) {
            // Links change before frames arrive.
            if let Some(entry) = self.schedule.first_entry().filter(|entry| entry.key().0 <= at) {
                let (port, is_up) = entry.remove();
                self.set_up(port, is_up);
                continue;
            }
            for number in 0..self.ports.len() {
                if let Some(frame) = self.ports[number].to_network.poll_arrival(at) {
                    self.switch(at, number, &frame);
                }
            }
            for (number, port) in self.ports.iter_mut().enumerate() {
                if let Some((frame, is_corrupted)) = port.from_network.poll_arrival_told(at) {
                    let captures = port.captures.iter_mut();
                    captures.for_each(|capture| capture.arrived(at, &frame, is_corrupted));
                    self.deliveries.push_back((PortId(number), frame));
                }
            }
        }
    }

    /// The next frame that has arrived at a host.
    pub fn poll_delivery(&mut self) -> Option<(PortId, Vec<u8>)> {
        self.deliveries.pop_front()
    }

    /// Sends a frame that came from the port `from` where it belongs.
    fn switch(&mut self, now: Duration, from: usize, frame: &[u8]) {
        let (Some(destination), Some(source)) = (address(frame, 0), address(frame, 6)) else {
            self.counters.malformed += 1;
            return;
        };
        // No station is a group.
        if source[0] & 1 == 0 {
            self.learn(now, from, source);
        }
        self.forward(now, Some(from), destination, frame);
    }

    fn learn(&mut self, now: Duration, port: usize, station: [u8; 6]) {
        if let Some(known) = self.stations.get_mut(&station) {
            self.counters.learned += u64::from(known.port != port);
            *known = Station { port, heard: now };
            return;
        }
        if self.stations.len() >= STATIONS_MAX {
            // Those that have gone make room.
            self.stations.retain(|_, station| now - station.heard < AGEING_TIME);
        }
        if self.stations.len() >= STATIONS_MAX {
            self.counters.table_full += 1;
            return;
        }
        self.counters.learned += 1;
        self.stations.insert(station, Station { port, heard: now });
    }

    fn forward(&mut self, now: Duration, from: Option<usize>, to: [u8; 6], frame: &[u8]) {
        let station = self.stations.get(&to).filter(|known| now - known.heard < AGEING_TIME);
        match station.map(|station| station.port) {
            Some(port) if Some(port) == from => self.counters.filtered += 1,
            Some(port) => {
                self.counters.forwarded += 1;
                self.send_from(now, from, port, frame);
            }
            None => {
                self.counters.flooded += 1;
                for port in (0..self.ports.len()).filter(|port| Some(*port) != from) {
                    self.send_from(now, from, port, frame);
                }
            }
        }
    }

    fn send_from(&mut self, now: Duration, from: Option<usize>, to: usize, frame: &[u8]) {
        let part = from.map(|from| self.ports[from].part);
        let port = &mut self.ports[to];
        let fate = if part.is_none_or(|part| part == port.part) {
            port.from_network.send(now, frame)
        } else {
            self.counters.lost_partition += 1;
            Fate { lost: Some(Lost::Partition), ..Fate::default() }
        };
        if fate.lost.is_some() {
            port.captures.iter_mut().for_each(|capture| capture.lost(fate));
        }
        // Answers are not answered.
        if fate.lost == Some(Lost::Mtu) && from.is_some() {
            let mtu = port.from_network.impairments().mtu;
            self.answer_large(now, frame, mtu);
        }
    }

    /// Lets the router, if there is one, answer a frame that is too large.
    fn answer_large(&mut self, now: Duration, frame: &[u8], mtu: Option<usize>) {
        let (Some(handler), Some(mtu)) = (&mut self.mtu_answer, mtu) else { return };
        let Some(answer) = handler(frame, mtu) else { return };
        if let Some(to) = address(&answer, 0) {
            self.forward(now, None, to, &answer);
        }
    }
}

fn address(frame: &[u8], at: usize) -> Option<[u8; 6]> {
    // The whole Ethernet header must be there.
    frame.get(..14)?.get(at..at + 6)?.try_into().ok()
}
