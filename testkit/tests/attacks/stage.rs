//! Where every attack takes place: a server that is attacked, an honest client that sends and fetches
//! half a mebibyte meanwhile, and the attacker, all on one switch.
//!
//! The same day is lived twice from one seed, without the attack and with it. An attack states its
//! price, and each number in a price is one of the victim's limits or follows from a rule of an RFC:
//!
//! - frames that the victim sends because of it, until three hours later;
//! - what the victim holds because of it, gauge by gauge: one that is not named does not rise;
//! - turns of the victim's driver beyond those that frames make;
//! - the part of its goodput that is left to the honest transfer, in percent.
//!
//! In the end every gauge stands where it stands without the attack, and another honest client is
//! served.

use crate::forge::{self, Segment};
use crate::sight::{Sight, Tap};
use fata_device::MacAddress;
use fata_net::{AddressConfig, Config, Counters, Ipv6Config, Limits, Stack, TcpStream};
use fata_testkit::net::{Dice, Host, Impairments, Link, NicOptions, Port, SimulatedNic, World};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

/// The service that everybody uses.
pub(crate) const PORT: u16 = 80;
/// A service that never accepts.
pub(crate) const IDLE_PORT: u16 = 81;
/// A socket that nobody reads.
pub(crate) const DATAGRAM_PORT: u16 = 53;

pub(crate) const VICTIM: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The attacker's own address.
pub(crate) const ATTACKER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 66);
/// The way to everybody else leads through the attacker, so that answers to strangers are sent.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
pub(crate) const VICTIM_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
pub(crate) const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

pub(crate) const VICTIM_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
pub(crate) const CLIENT_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
pub(crate) const ATTACKER_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x66]);

/// What the honest client sends, and as much it fetches.
pub(crate) const TRANSFER_BYTES: usize = 512 * 1024;
/// Without this, nothing is sent.
pub(crate) const REQUEST: &[u8; 4] = b"GIVE";
/// How long an attack lasts at least, and at most: it goes on until the honest transfer has ended.
const TICKS_MIN: u64 = 700;
const TICKS_MAX: u64 = 3000;
/// How long the server waits for everybody, in seconds: longer than a half-open connection (63 s)
/// and an incomplete datagram (`reassembly_timeout`, 60 s) last.
const PROGRAM_STAYS_S: u64 = 100;
/// Longer than everything lasts that is remembered: TIME-WAIT, the user timeout, the two hours of
/// RFC 4862 §5.5.3.
const AFTERMATH: Duration = Duration::from_secs(3 * 3600);
const SEED: u64 = 1;

/// Somebody who is not there, beyond the gateway.
pub(crate) fn stranger(number: u64) -> IpAddr {
    Ipv4Addr::from_bits(0x0b00_0000 + number as u32).into()
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What an attack may cost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Price {
    /// Frames that the victim sends, whatever the attack sends.
    pub(crate) answers: u64,
    /// And for each second that the attack lasts, the first burst counted as one.
    pub(crate) answers_per_second: u64,
    /// And for each frame of the attack.
    pub(crate) answers_per_frame: u64,
    /// How far gauges may rise.
    pub(crate) holds: Vec<(&'static str, u64)>,
    /// Turns of the driver beside those that frames make: what is due at some time.
    pub(crate) timers: u64,
}

/// An attack.
pub(crate) struct Siege<'a> {
    /// The honest transfer is over IPv6.
    pub(crate) is_ipv6: bool,
    /// The honest client connects before the attack begins, not in its midst.
    pub(crate) is_client_first: bool,
    /// The victim's.
    pub(crate) limits: Limits,
    pub(crate) price: Price,
    /// The honest transfer's goodput in percent of what it is without the attack, at least.
    pub(crate) share_percent: u64,
    /// A millisecond of it.
    pub(crate) act: &'a mut dyn FnMut(&mut Scene<'_>),
}

impl<'a> Siege<'a> {
    /// One that may cost nothing. The honest transfer lasts for 25 round trips of its path; when
    /// acknowledgements come at other moments its slow start may end earlier, or queues be other:
    /// three round trips.
    pub(crate) fn new(act: &'a mut dyn FnMut(&mut Scene<'_>)) -> Self {
        Siege {
            is_ipv6: false,
            is_client_first: false,
            limits: limits(),
            price: Price::default(),
            share_percent: 85,
            act,
        }
    }
}

/// Limits with which the buffers of one connection are small beside what an attack can take.
pub(crate) fn limits() -> Limits {
    Limits {
        tcp_receive_bytes: CONNECTION_BYTES / 2,
        tcp_receive_bytes_initial: CONNECTION_BYTES / 2,
        tcp_send_bytes: CONNECTION_BYTES / 2,
        tcp_send_bytes_initial: CONNECTION_BYTES / 2,
        ..Limits::default()
    }
}

/// What one connection's buffers hold at most: `tcp_receive_bytes` and `tcp_send_bytes` of
/// [`limits`].
pub(crate) const CONNECTION_BYTES: usize = 256 * 1024;

/// What the attacker knows, hears and sends in a millisecond.
pub(crate) struct Scene<'a> {
    pub(crate) dice: &'a mut Dice,
    /// The honest transfer is over.
    is_over: bool,
    /// The number of the next frame.
    pub(crate) number: u64,
    /// What the victim has sent to the attacker, and through it to strangers.
    pub(crate) heard: Vec<(IpAddr, Segment)>,
    /// Connections of the honest client, by the service's port.
    pub(crate) sights: BTreeMap<u16, Sight>,
    frames: Vec<Vec<u8>>,
}

impl Scene<'_> {
    /// Sends a frame as it is.
    pub(crate) fn frame(&mut self, frame: Vec<u8>) {
        self.number += 1;
        self.frames.push(frame);
    }

    /// Sends an IP packet to the victim.
    pub(crate) fn packet(&mut self, packet: &[u8]) {
        let kind = if packet[0] >> 4 == 4 { forge::IPV4 } else { forge::IPV6 };
        self.frame(forge::ethernet(VICTIM_MAC, ATTACKER_MAC, kind, packet));
    }

    /// The connection of the honest transfer, while it is there.
    pub(crate) fn honest(&self) -> Option<Sight> {
        let sight = self.sights.get(&PORT).copied();
        sight.filter(|sight| sight.is_established && !self.is_over)
    }
}

/// What became of a day.
pub(crate) struct Day {
    /// How long the honest transfer took.
    pub(crate) took: Duration,
    pub(crate) counters: Counters,
    /// The highest that each gauge stood.
    peaks: BTreeMap<&'static str, u64>,
    /// Where each stood in the end.
    ends: BTreeMap<&'static str, u64>,
    frames_sent: u64,
    polls: u64,
    attack_frames: u64,
    ticks: u64,
    /// Segments that the honest client sent again.
    retransmits: u64,
}

/// Counters that say how things stand now.
const GAUGES: [&str; 16] = [
    "neighbours",
    "neighbour_parked_bytes",
    "ipv6_addresses",
    "ipv6_routers",
    "ipv6_prefixes",
    "path_mtus",
    "reassembly_datagrams",
    "reassembly_bytes",
    "udp_sockets",
    "udp_queued_bytes",
    "tcp_connections",
    "tcp_half_open",
    "tcp_time_wait",
    "tcp_listeners",
    "tcp_buffered_bytes",
    "tcp_out_of_order_ranges",
];

fn gauges(counters: &Counters) -> BTreeMap<&'static str, u64> {
    let found: BTreeMap<_, _> = counters.iter().filter(|(name, _)| GAUGES.contains(name)).collect();
    assert_eq!(found.len(), GAUGES.len(), "a gauge has another name now");
    found
}

/// Bytes that show one lost, doubled or out of place.
fn pattern() -> Vec<u8> {
    (0..TRANSFER_BYTES).map(|at| (at ^ at >> 8 ^ at >> 15) as u8).collect()
}

/// Sends the pattern to whoever asks, takes what comes, and says in a last byte whether that was the
/// pattern.
async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.read_exact(&mut [0; REQUEST.len()]).await?;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let receive = async {
        let mut received = Vec::new();
        // One who sends more than was agreed on is not listened to.
        (&mut reader).take(TRANSFER_BYTES as u64 + 1).read_to_end(&mut received).await?;
        Ok(received)
    };
    let send = async { writer.write_all(&pattern()).await };
    let (received, ()) = tokio::try_join!(receive, send)?;
    writer.write_all(&[u8::from(received == pattern())]).await?;
    writer.shutdown().await
}

/// Serves everybody until it is aborted, and with it all connections.
async fn server(stack: Stack) {
    let listener = stack.tcp_listen(PORT).await.unwrap();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.unwrap();
                connections.spawn(serve(stream));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// The honest transfer; panics unless every byte arrives, in both directions.
async fn transfer(world: World, stack: Stack, server: SocketAddr) -> Duration {
    let began = world.now();
    let stream = stack.tcp_connect(server).await.expect("the honest client gets in");
    let (mut reader, mut writer) = tokio::io::split(stream);
    let send = async {
        writer.write_all(REQUEST).await?;
        writer.write_all(&pattern()).await?;
        writer.shutdown().await
    };
    let mut received = Vec::new();
    let result = tokio::try_join!(send, reader.read_to_end(&mut received));
    result.expect("the honest connection survives");
    assert_eq!(received.pop(), Some(1), "the server got what was sent");
    assert!(received == pattern(), "{} bytes arrived", received.len());
    world.now() - began
}

/// The attacker's card.
struct Attacker {
    nic: SimulatedNic,
    heard: Vec<Vec<u8>>,
}

impl Attacker {
    /// Sends frames, and takes what has arrived.
    fn exchange(&mut self, frames: Vec<Vec<u8>>) {
        use fata_device::{Nic, Transmit};
        let mut cx = Context::from_waker(Waker::noop());
        for frame in frames {
            let sent = self.nic.poll_transmit(&mut cx, &mut |buffer| {
                buffer[..frame.len()].copy_from_slice(&frame);
                Some(Transmit { len: frame.len(), partial_checksum: None, segmentation: None })
            });
            assert!(matches!(sent, Poll::Ready(Ok(true))), "a millisecond has 256 frames at most");
        }
        self.nic.flush().unwrap();
        let heard = &mut self.heard;
        while let Poll::Ready(arrived) =
            self.nic.poll_receive(&mut cx, &mut |frame, _| heard.push(frame.to_vec()))
        {
            arrived.unwrap();
        }
    }

    /// Takes what was heard: answers to ARP requests for the attacker's addresses, and segments.
    fn listen(&mut self) -> (Vec<Vec<u8>>, Vec<(IpAddr, Segment)>) {
        let (mut answers, mut segments) = (Vec::new(), Vec::new());
        for frame in self.heard.drain(..) {
            if forge::word(&frame, 12) == Some(forge::ARP) && frame[20..22] == [0, 1] {
                let target = Ipv4Addr::from(<[u8; 4]>::try_from(&frame[38..42]).unwrap());
                if [ATTACKER, GATEWAY].contains(&target) {
                    let packet = forge::arp(2, (ATTACKER_MAC, target), (VICTIM_MAC, VICTIM));
                    answers.push(forge::ethernet(VICTIM_MAC, ATTACKER_MAC, forge::ARP, &packet));
                }
            } else if frame[..6] == ATTACKER_MAC.0
                && let Some((_, to, segment)) = Segment::of_frame(&frame)
            {
                segments.push((to, segment));
            }
        }
        (answers, segments)
    }
}

fn ipv6_config(address: Ipv6Addr) -> Ipv6Config {
    let stable_secret = Some([7; 32]);
    Ipv6Config { addresses: vec![(address, 64)], stable_secret, ..Ipv6Config::default() }
}

/// An honest client behind a link of 20 Mbit/s and 10 ms, where somebody can look on.
fn client(world: &World, is_ipv6: bool) -> (Stack, Arc<Mutex<BTreeMap<u16, Sight>>>) {
    let link = Link::symmetric(Impairments {
        latency: ms(5),
        rate_bits_per_second: Some(20_000_000),
        queue_bytes: 256 * 1024,
        ..Impairments::default()
    });
    let options = NicOptions { mac: Some(CLIENT_MAC), ..NicOptions::default() };
    let (nic, _) = world.nic("client", link, options);
    let sights = Arc::new(Mutex::new(BTreeMap::new()));
    let ipv6 = if is_ipv6 { ipv6_config(CLIENT_V6) } else { Ipv6Config::off() };
    let address =
        AddressConfig::Static { address: CLIENT, prefix_len: 24, gateway: None, dns: Vec::new() };
    let config = Config { address, ipv6, ..Config::new([9; 32]) };
    let tap = Tap::new(Box::new(nic), Arc::clone(&sights));
    let (stack, driver) = Stack::over_nic(Box::new(tap), config).unwrap();
    tokio::spawn(driver);
    (stack, sights)
}

/// Turns of the driver: each asks for a frame once more than it gets one, unless it gets a batch.
fn polls(port: &Port) -> u64 {
    port.turns() - port.from_network().frames_arrived
}

/// The peaks of the gauges so far.
fn look(victim: &Host, peaks: &mut BTreeMap<&'static str, u64>) {
    for (name, value) in gauges(&victim.stack.counters()) {
        let peak = peaks.entry(name).or_default();
        *peak = value.max(*peak);
    }
}

async fn live(world: World, siege: &mut Siege<'_>, is_besieged: bool) -> Day {
    let victim = world
        .host("victim")
        .address(VICTIM, 24)
        .gateway(GATEWAY)
        .mac(VICTIM_MAC)
        .config(|config| Config {
            ipv6: if siege.is_ipv6 { ipv6_config(VICTIM_V6) } else { Ipv6Config::off() },
            limits: siege.limits.clone(),
            ..config
        })
        .start();
    let (client, sights) = client(&world, siege.is_ipv6);
    let options = NicOptions { mac: Some(ATTACKER_MAC), ..NicOptions::default() };
    let (nic, _port) = world.nic("attacker", Link::default(), options);
    let mut attacker = Attacker { nic, heard: Vec::new() };
    let serving = tokio::spawn(server(victim.stack.clone()));
    let idle = victim.stack.tcp_listen(IDLE_PORT).await.unwrap();
    let unread = victim.stack.udp_bind(DATAGRAM_PORT).await.unwrap();
    // Until addresses are known to be nobody else's, and were announced; and the gateway and
    // the attacker are known.
    for somebody in [stranger(0), ATTACKER.into()] {
        unread.send_to(b"", (somebody, 9).into()).await.unwrap();
    }
    for _ in 0..50 {
        tokio::time::sleep(ms(100)).await;
        attacker.exchange(Vec::new());
        let (answers, _) = attacker.listen();
        attacker.exchange(answers);
    }

    let ip: IpAddr = if siege.is_ipv6 { VICTIM_V6.into() } else { VICTIM.into() };
    let start = || {
        let (world, client) = (world.clone(), client.clone());
        tokio::spawn(transfer(world, client, (ip, PORT).into()))
    };
    // A connection that is idle.
    let bystander = client.tcp_connect((ip, IDLE_PORT)).await.unwrap();
    let mut honest = None;
    if siege.is_client_first {
        honest = Some(start());
        tokio::time::sleep(ms(50)).await;
    }
    let mut dice = Dice::new(world.seed());
    let (mut peaks, mut attack_frames, mut ticks) = (BTreeMap::new(), 0, 0);
    while ticks < TICKS_MIN || !honest.as_ref().is_some_and(|honest| honest.is_finished()) {
        assert!(ticks < TICKS_MAX, "the honest transfer starves: {:#?}", victim.stack.counters());
        if ticks == 100 && honest.is_none() {
            honest = Some(start());
        }
        let (mut frames, heard) = attacker.listen();
        if is_besieged {
            let sights = sights.lock().unwrap().clone();
            let number = attack_frames;
            let is_over = honest.as_ref().is_some_and(|honest| honest.is_finished());
            let mut scene = Scene { dice: &mut dice, is_over, number, heard, sights, frames };
            (siege.act)(&mut scene);
            attack_frames = scene.number;
            frames = scene.frames;
        }
        attacker.exchange(frames);
        // The victim's driver takes 64 frames in a turn; look on while it does.
        for _ in 0..6 {
            tokio::task::yield_now().await;
            look(&victim, &mut peaks);
        }
        tokio::time::sleep(ms(1)).await;
        look(&victim, &mut peaks);
        ticks += 1;
    }
    let took = honest.unwrap().await.expect("the honest transfer ends well");
    assert_eq!(victim.port.lost_ring(), 0, "the victim's driver keeps up");

    // The attacker is silent from here on, but stays. The program gives up who is still there.
    for _ in 0..PROGRAM_STAYS_S {
        tokio::time::sleep(ms(1000)).await;
        let (answers, _) = attacker.listen();
        attacker.exchange(answers);
        look(&victim, &mut peaks);
    }
    drop((unread, idle, bystander));
    serving.abort();
    tokio::time::sleep(AFTERMATH).await;
    attacker.exchange(Vec::new());
    let counters = victim.stack.counters();
    let day = Day {
        retransmits: client.counters().tcp_retransmits,
        took,
        peaks,
        ends: gauges(&counters),
        frames_sent: counters.frames_sent,
        polls: polls(&victim.port),
        counters,
        attack_frames,
        ticks,
    };
    let serving = tokio::spawn(server(victim.stack.clone()));
    transfer(world.clone(), client, (ip, PORT).into()).await;
    serving.abort();
    day
}

/// Lives the day without and with the attack, and holds the difference against the price.
///
/// # Panics
/// If it costs more.
pub(crate) fn besiege(mut siege: Siege<'_>) -> Day {
    let calm = World::run(SEED, |world| live(world, &mut siege, false));
    let day = World::run(SEED, |world| live(world, &mut siege, true));
    let (price, counters) = (&siege.price, &day.counters);
    assert!(day.attack_frames >= 1000, "an attack of {} frames is none", day.attack_frames);

    let seconds = day.ticks.div_ceil(1000) + 1;
    let allowed = price.answers
        + price.answers_per_second * seconds
        + price.answers_per_frame * day.attack_frames;
    let answers = day.frames_sent.saturating_sub(calm.frames_sent);
    println!(
        "{} frames in {} ms: {answers} answers of {allowed}; {} polls, calm {}; {} % ({:?}, {:?})",
        day.attack_frames,
        day.ticks,
        day.polls,
        calm.polls,
        calm.took.as_micros() * 100 / day.took.as_micros(),
        calm.took,
        day.took,
    );
    for (name, peak) in &day.peaks {
        if *peak != calm.peaks[name] || day.ends[name] != calm.ends[name] {
            println!(
                "  {name}: {} → {peak}, {} → {}",
                calm.peaks[name], calm.ends[name], day.ends[name]
            );
        }
    }
    assert!(answers <= allowed, "{answers} answers, not {allowed}: {counters:#?}");

    for (name, peak) in &day.peaks {
        let allowed =
            price.holds.iter().find(|(held, _)| held == name).map_or(0, |(_, most)| *most);
        // How the honest connection's own buffers are filled depends on who comes between.
        let calm = match *name {
            "tcp_buffered_bytes" => CONNECTION_BYTES as u64,
            _ => calm.peaks[name],
        };
        assert!(*peak <= calm + allowed, "{name} rises from {calm} to {peak}: {counters:#?}");
    }
    // A millisecond of the attack makes two turns: one that takes it, one that finds no more. So
    // does every answer at most.
    let allowed = calm.polls + 2 * (day.ticks + answers) + price.timers;
    assert!(day.polls <= allowed, "{} turns, not {allowed}: {counters:#?}", day.polls);

    let share = calm.took.as_micros() * 100 / day.took.as_micros();
    let (usual, took) = (calm.took, day.took);
    assert!(
        share >= siege.share_percent.into(),
        "the transfer took {took:?} instead of {usual:?}: {counters:#?}"
    );
    // Nothing that the honest client sends is lost: neither dropped nor held against him.
    assert_eq!(day.retransmits, calm.retransmits, "{counters:#?}");
    for (name, end) in &day.ends {
        // A cache: who has introduced himself is remembered until the place is needed.
        if *name != "neighbours" {
            assert_eq!(*end, calm.ends[name], "{name} in the end: {counters:#?}");
        }
    }
    day
}
