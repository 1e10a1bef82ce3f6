//! [`World`]: whole programs on a network in memory.

use super::capture::{self, Capture, Recording, Sink};
use super::clock::{Clock, Idleness, noting};
use super::impairments::{LaneCounters, Link, SwitchCounters};
use super::network::{MtuAnswer, Network, PortId};
use super::nic::{NicOptions, SimulatedNic};
use core::fmt;
use core::future::Future;
use core::net::Ipv4Addr;
use core::task::Waker;
use core::time::Duration;
use fata_device::{MacAddress, NicError};
use fata_net::{AddressConfig, Config, Ipv6Config, Stack};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Names the seed of every world, in place of the one in the test.
pub const SEED: &str = "FATA_SEED";

/// After so much virtual time a program has hung: longer than any protocol's timer, so it is where
/// time goes when nothing else is left to happen.
const PROGRAM_LASTS_MAX: Duration = Duration::from_secs(90 * 24 * 3600);

/// A network in memory with whole programs on it, in virtual time, from one seed. Clones are the
/// same world.
///
/// Hosts are plugged into one learning switch, each with a link of its own. The addresses of hosts
/// are 192.0.2.1, 192.0.2.2 and so on, unless they are told otherwise.
#[derive(Clone, Debug)]
pub struct World {
    shared: Arc<Shared>,
}

/// What the cards, the handles and the clock of a world share.
pub(crate) struct Shared {
    state: Mutex<State>,
    pub(crate) epoch: Instant,
    seed: u64,
}

struct State {
    network: Network,
    ends: Vec<End>,
    clock: Option<Waker>,
    /// When the clock will look by itself.
    clock_looks: Option<Duration>,
}

/// The card's side of a port.
#[derive(Debug, Default)]
pub(crate) struct End {
    pub(crate) received: VecDeque<Vec<u8>>,
    pub(crate) receiver: Option<Waker>,
    pub(crate) sender: Option<Waker>,
    /// Times that the driver asked for a frame.
    pub(crate) turns: u64,
    ring_frames: usize,
    broken: Option<NicError>,
    lost_ring: u64,
    sent_frames: u64,
    sent_batches: u64,
}

impl End {
    pub(crate) fn check(&self) -> Result<(), NicError> {
        self.broken.clone().map_or(Ok(()), Err)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock fails the test anyway; others need not add theirs.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn now(&self) -> Duration {
        Instant::now().saturating_duration_since(self.epoch)
    }

    /// Lets `act` work on the card's side of a port.
    pub(crate) fn end<R>(&self, port: PortId, act: impl FnOnce(&mut End) -> R) -> R {
        act(&mut self.lock().ends[port.0])
    }

    /// Lets `act` work on the network, hands over what arrived at once, and wakes whom it concerns.
    fn act<R>(&self, act: impl FnOnce(&mut State, Duration) -> R) -> R {
        let now = self.now();
        let mut woken = Vec::new();
        let result = {
            let mut state = self.lock();
            let result = act(&mut state, now);
            state.hand_over(&mut woken);
            // The clock has to look earlier than it meant to.
            let next = state.network.poll_timeout();
            if next.is_some_and(|next| state.clock_looks.is_none_or(|looks| next < looks)) {
                woken.extend(state.clock.take());
            }
            result
        };
        woken.into_iter().for_each(Waker::wake);
        result
    }

    /// Sends what the card at `port` has.
    pub(crate) fn send(&self, port: PortId, frames: &mut Vec<Vec<u8>>) {
        let sender = self.act(|state, now| {
            let end = &mut state.ends[port.0];
            end.sent_frames += frames.len() as u64;
            end.sent_batches += 1;
            let sender = end.sender.take();
            frames.drain(..).for_each(|frame| state.network.send(now, port, &frame));
            sender
        });
        if let Some(sender) = sender {
            sender.wake();
        }
    }

    /// A turn of the clock, whose waker is `clock`: lets happen what is due, and says when to look
    /// again.
    pub(crate) fn turn(&self, clock: &Waker) -> Option<Duration> {
        self.act(|state, now| {
            state.network.handle_timeout(now);
            state.clock = Some(clock.clone());
            state.clock_looks = state.network.poll_timeout();
            state.clock_looks
        })
    }
}

impl State {
    fn hand_over(&mut self, woken: &mut Vec<Waker>) {
        while let Some((port, frame)) = self.network.poll_delivery() {
            let end = &mut self.ends[port.0];
            if end.received.len() >= end.ring_frames {
                end.lost_ring += 1;
            } else {
                end.received.push_back(frame);
                woken.extend(end.receiver.take());
            }
        }
    }
}

/// Says how a run that panicked is repeated.
struct ReplayLine(u64);

impl Drop for ReplayLine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let package = std::env::var("CARGO_PKG_NAME").unwrap_or_default();
            eprintln!("{}", replay_line(self.0, &package, std::thread::current().name()));
        }
    }
}

/// The line that repeats a run, for people to copy.
fn replay_line(seed: u64, package: &str, test: Option<&str>) -> String {
    let package = if package.is_empty() { String::new() } else { format!(" -p {package}") };
    let test = test.map_or(String::new(), |test| format!(" {test} -- --exact"));
    format!(
        "The world's seed was {seed}. To see this again:\n  {SEED}={seed} cargo test{package}{test}"
    )
}

/// The seed that the environment names, if it does.
fn seed_from_environment() -> Option<u64> {
    let text = std::env::var(SEED).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{SEED}={text}: a seed is a number of 64 bits")))
}

impl World {
    /// Runs `program` in a new world that `seed` decides, on a runtime of its own whose time is
    /// virtual, to the nanosecond for what the network does and in milliseconds for tokio's timers.
    ///
    /// If the environment has [`FATA_SEED`](SEED), that is the seed. When the program panics, the
    /// seed is printed with the line that runs it again.
    ///
    /// # Panics
    /// If `program` does, or has not ended after ninety days: it waits for what will never come.
    pub fn run<F: Future>(seed: u64, program: impl FnOnce(World) -> F) -> F::Output {
        let seed = seed_from_environment().unwrap_or(seed);
        let _line = ReplayLine(seed);
        let idleness = Arc::new(Idleness::default());
        let hook = idleness.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .on_thread_park(move || hook.nothing_to_do())
            .build()
            .expect("a runtime without I/O needs nothing of the host");
        runtime.block_on(noting(idleness.clone(), async {
            let world = World::with(seed, Some(idleness));
            match tokio::time::timeout(PROGRAM_LASTS_MAX, program(world)).await {
                Ok(output) => output,
                Err(_) => panic!("the program hangs: ninety days have passed, and it goes on"),
            }
        }))
    }

    /// [`run`](World::run) for each of `seeds`; only for the environment's, if it names one.
    pub fn run_each<F: Future>(
        seeds: impl IntoIterator<Item = u64>,
        mut program: impl FnMut(World) -> F,
    ) {
        if let Some(seed) = seed_from_environment() {
            World::run(seed, program);
            return;
        }
        for seed in seeds {
            World::run(seed, &mut program);
        }
    }

    /// A world in the caller's runtime, whose time it has: where that is paused, the network's
    /// events are in whole milliseconds. Prefer [`run`](World::run).
    ///
    /// # Panics
    /// Outside of a tokio runtime whose time is enabled.
    pub fn new(seed: u64) -> World {
        World::with(seed_from_environment().unwrap_or(seed), None)
    }

    fn with(seed: u64, idleness: Option<Arc<Idleness>>) -> World {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                network: Network::new(seed),
                ends: Vec::new(),
                clock: None,
                clock_looks: None,
            }),
            epoch: Instant::now(),
            seed,
        });
        tokio::spawn(Clock::new(shared.clone(), idleness));
        World { shared }
    }

    /// What decides all chances.
    pub fn seed(&self) -> u64 {
        self.shared.seed
    }

    /// How old the world is.
    pub fn now(&self) -> Duration {
        self.shared.now()
    }

    /// Describes a host called `name`; [`start`](HostBuilder::start) makes it.
    pub fn host(&self, name: &str) -> HostBuilder<'_> {
        HostBuilder {
            world: self,
            name: name.to_string(),
            address: None,
            gateway: None,
            link: Link::default(),
            nic: NicOptions::default(),
            adjust: Box::new(|config| config),
        }
    }

    /// A card on a new port called `name`, for whoever has a stack of its own, or none.
    ///
    /// # Panics
    /// If a number of `link` or `options` makes no sense.
    pub fn nic(&self, name: &str, link: Link, options: NicOptions) -> (SimulatedNic, Port) {
        let id = self.shared.act(|state, _| {
            let end = End { ring_frames: options.receive_ring_frames, ..End::default() };
            state.ends.push(end);
            state.network.attach(name, link)
        });
        let port = Port { shared: self.shared.clone(), id };
        if let Some(path) = capture::asked_for(self.shared.seed, name) {
            port.capture_into(capture::file_sink(path));
        }
        (SimulatedNic::new(self.shared.clone(), id, options), port)
    }

    /// Tears the network: hosts reach each other only if they are in the same one of `parts`. Those
    /// in none are together in one more.
    pub fn partition(&self, parts: &[&[&Port]]) {
        let parts: Vec<Vec<PortId>> =
            parts.iter().map(|part| part.iter().map(|port| port.id).collect()).collect();
        let parts: Vec<&[PortId]> = parts.iter().map(Vec::as_slice).collect();
        self.shared.act(|state, _| state.network.partition(&parts));
    }

    /// Makes the network whole again.
    pub fn heal(&self) {
        self.shared.act(|state, _| state.network.heal());
    }

    /// Lets somebody answer frames that are larger than a link's MTU, as a router would; without,
    /// they vanish.
    pub fn set_mtu_answer(&self, answer: Option<MtuAnswer>) {
        self.shared.act(|state, _| state.network.set_mtu_answer(answer));
    }

    /// What the switch did.
    pub fn counters(&self) -> SwitchCounters {
        self.shared.lock().network.counters()
    }
}

/// A host in the making.
#[must_use = "a host that is not started is not there"]
pub struct HostBuilder<'a> {
    world: &'a World,
    name: String,
    address: Option<(Ipv4Addr, u8)>,
    gateway: Option<Ipv4Addr>,
    link: Link,
    nic: NicOptions,
    adjust: Box<dyn FnOnce(Config) -> Config + 'a>,
}

impl fmt::Debug for HostBuilder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<'a> HostBuilder<'a> {
    /// Its address, and the length of its subnet's prefix.
    pub fn address(mut self, address: Ipv4Addr, prefix_len: u8) -> Self {
        self.address = Some((address, prefix_len));
        self
    }

    /// Its router.
    pub fn gateway(mut self, gateway: Ipv4Addr) -> Self {
        self.gateway = Some(gateway);
        self
    }

    /// Its link; without, one that does nothing to frames.
    pub fn link(mut self, link: Link) -> Self {
        self.link = link;
        self
    }

    /// Its card.
    pub fn nic(mut self, options: NicOptions) -> Self {
        self.nic = options;
        self
    }

    /// Its card's address.
    pub fn mac(mut self, mac: MacAddress) -> Self {
        self.nic.mac = Some(mac);
        self
    }

    /// Changes its stack's configuration: limits, or DHCP in place of an address.
    pub fn config(mut self, adjust: impl FnOnce(Config) -> Config + 'a) -> Self {
        self.adjust = Box::new(adjust);
        self
    }

    /// Plugs it in, and starts its stack.
    ///
    /// # Panics
    /// If a number of the link, the card or the configuration makes no sense.
    pub fn start(self) -> Host {
        let (nic, port) = self.world.nic(&self.name, self.link, self.nic);
        let number = port.id.0 as u32;
        let default = Ipv4Addr::from_bits(Ipv4Addr::new(192, 0, 2, 1).to_bits() + number);
        let (address, prefix_len) = self.address.unwrap_or((default, 24));
        let gateway = self.gateway;
        let mut secret = [0; 32];
        secret[..8].copy_from_slice(&self.world.seed().to_be_bytes());
        secret[8..12].copy_from_slice(&number.to_be_bytes());
        let config = Config {
            address: AddressConfig::Static { address, prefix_len, gateway, dns: Vec::new() },
            // It asks and reports by itself; worlds that want it say so, the others can count.
            ipv6: Ipv6Config::off(),
            ..Config::new(secret)
        };
        let (stack, driver) = Stack::over_nic(Box::new(nic), (self.adjust)(config))
            .unwrap_or_else(|error| panic!("the host {}: {error}", self.name));
        Host { stack, address, port, driver: tokio::spawn(driver) }
    }
}

/// A host with a stack. Dropping it leaves it running: its sockets and the stack's clones are what
/// a program holds. Aborting `driver` is how a host dies.
#[derive(Debug)]
pub struct Host {
    /// What programs open sockets on: [`fata::Stack`](fata_net::Stack).
    pub stack: Stack,
    /// Its address, unless the configuration says DHCP.
    pub address: Ipv4Addr,
    /// Where it is plugged in.
    pub port: Port,
    /// The task that moves its frames.
    pub driver: JoinHandle<NicError>,
}

/// Where a host is plugged in. Clones are the same port.
#[derive(Clone, Debug)]
pub struct Port {
    shared: Arc<Shared>,
    id: PortId,
}

impl Port {
    /// Changes the link for frames that are sent from here on.
    ///
    /// # Panics
    /// If a number of `link` makes no sense.
    pub fn set_link(&self, link: Link) {
        self.shared.act(|state, _| state.network.set_link(self.id, link));
    }

    /// The link as it is.
    pub fn link(&self) -> Link {
        self.shared.lock().network.link(self.id)
    }

    /// Turns the link on or off, now.
    pub fn set_up(&self, is_up: bool) {
        self.shared.act(|state, _| state.network.set_up(self.id, is_up));
    }

    /// Turns the link on or off when the world is `at`.
    pub fn set_up_at(&self, at: Duration, is_up: bool) {
        self.shared.act(|state, _| state.network.set_up_at(at, self.id, is_up));
    }

    /// Breaks the card: every later call of its driver fails, with this reason.
    pub fn unplug(&self, why: &str) {
        let wakers = self.shared.end(self.id, |end| {
            end.broken = Some(NicError::Disconnected(why.to_string()));
            [end.receiver.take(), end.sender.take()]
        });
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// What the link did to frames of the host's.
    pub fn to_network(&self) -> LaneCounters {
        let [counters, _] = self.shared.lock().network.link_counters(self.id);
        counters
    }

    /// What the link did to frames for the host.
    pub fn from_network(&self) -> LaneCounters {
        let [_, counters] = self.shared.lock().network.link_counters(self.id);
        counters
    }

    /// Frames that arrived and were lost because the stack had left no room for them.
    pub fn lost_ring(&self) -> u64 {
        self.shared.end(self.id, |end| end.lost_ring)
    }

    /// Frames that the card sent, and in how many batches.
    pub fn sent(&self) -> (u64, u64) {
        self.shared.end(self.id, |end| (end.sent_frames, end.sent_batches))
    }

    /// Times that the driver asked the card for a frame.
    pub fn turns(&self) -> u64 {
        self.shared.end(self.id, |end| end.turns)
    }

    /// Records what passes the port from here on.
    pub fn record(&self) -> Recording {
        let recording = Recording::default();
        self.capture_into(recording.sink());
        recording
    }

    fn capture_into(&self, sink: Sink) {
        let mut state = self.shared.lock();
        let name = state.network.name(self.id).to_string();
        state.network.add_capture(self.id, Capture::new(&name, sink));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_repeats_a_run_can_be_pasted() {
        assert_eq!(
            replay_line(7, "fata-net", Some("tests::a_link_flaps")),
            "The world's seed was 7. To see this again:\n  \
             FATA_SEED=7 cargo test -p fata-net tests::a_link_flaps -- --exact"
        );
        assert!(replay_line(7, "", None).ends_with("FATA_SEED=7 cargo test"));
    }
}
