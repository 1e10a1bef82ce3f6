//! The client alone, against a server that the test plays.

use super::*;
use crate::wire::dhcp::{TestRequest, test_reply};
use proptest::prelude::*;
use std::collections::HashSet;

const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const OTHER_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);
const DISCOVER: u8 = MessageType::Discover as u8;
const REQUEST: u8 = MessageType::Request as u8;
const DECLINE: u8 = MessageType::Decline as u8;
const OFFER: u8 = MessageType::Offer as u8;
const ACK: u8 = MessageType::Ack as u8;
const NAK: u8 = MessageType::Nak as u8;

/// The client, its time, and what it did.
struct World {
    client: Client,
    now: Instant,
    counters: Counters,
    changes: Vec<Change>,
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl World {
    fn new() -> World {
        let now = Instant::from_millis(5000);
        let keys = Keys::new([3; 32]);
        let client = Client::new(MAC, Some("web".into()), 1500, &keys, now);
        World { client, now, counters: Counters::default(), changes: Vec::new() }
    }

    /// Lets time pass; returns what was sent, when, from where and to where.
    fn advance(&mut self, duration: Duration) -> Vec<(Instant, Message, TestRequest)> {
        let end = self.now + duration;
        let mut sent = Vec::new();
        loop {
            while let Some(message) = self.client.poll_transmit(self.now, &mut self.counters) {
                let request = Request::parse_for_test(&message.payload).unwrap();
                sent.push((self.now, message, request));
                assert!(sent.len() < 10_000, "a storm");
            }
            match self.client.poll_timeout().filter(|deadline| *deadline <= end) {
                Some(deadline) => {
                    self.now = self.now.max(deadline);
                    let before = format!("{:?}", self.client.state);
                    let change = self.client.handle_timeout(self.now, &mut self.counters);
                    let is_idle = change.is_none()
                        && !self.client.is_send_due
                        && before == format!("{:?}", self.client.state)
                        && self.client.poll_timeout() == Some(deadline);
                    assert!(!is_idle, "a deadline at which nothing happens: {before}");
                    self.changes.extend(change);
                }
                None => break,
            }
        }
        self.now = end;
        sent
    }

    /// The one message that the client sends now.
    fn sends_now(&mut self) -> (Message, TestRequest) {
        let mut sent = self.advance(secs(0));
        assert_eq!(sent.len(), 1, "{sent:?}");
        let (_, message, request) = sent.remove(0);
        (message, request)
    }

    fn reply(&mut self, bytes: &[u8]) {
        let change = self.client.handle_message(self.now, bytes, &mut self.counters);
        self.changes.extend(change);
    }

    /// DISCOVER, OFFER, REQUEST, ACK with a lease of so many seconds.
    fn bind(&mut self, lease: u32) {
        let (_, discover) = self.sends_now();
        self.reply(&Reply::new(OFFER, discover.transaction).lease(lease).bytes());
        let (_, request) = self.sends_now();
        self.reply(&Reply::new(ACK, request.transaction).lease(lease).bytes());
        assert!(matches!(self.changes.pop(), Some(Change::Bound(_))));
    }
}

/// A server's message.
struct Reply {
    kind: u8,
    transaction: u32,
    client: MacAddress,
    address: Ipv4Addr,
    server: Option<Ipv4Addr>,
    lease: Option<u32>,
    t1: Option<u32>,
    t2: Option<u32>,
    mask: Option<Ipv4Addr>,
    routers: Vec<Ipv4Addr>,
    name_servers: Vec<Ipv4Addr>,
}

impl Reply {
    fn new(kind: u8, transaction: u32) -> Reply {
        Reply {
            kind,
            transaction,
            client: MAC,
            address: ADDRESS,
            server: Some(SERVER),
            lease: Some(3600),
            t1: None,
            t2: None,
            mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
            routers: vec![SERVER],
            name_servers: vec![SERVER],
        }
    }

    fn lease(self, seconds: u32) -> Reply {
        Reply { lease: Some(seconds), ..self }
    }

    fn bytes(&self) -> Vec<u8> {
        let number = |number: Option<u32>| number.map(|number| number.to_be_bytes().to_vec());
        let list = |list: &[Ipv4Addr]| {
            (!list.is_empty()).then(|| list.iter().flat_map(Ipv4Addr::octets).collect())
        };
        let options: Vec<(u8, Option<Vec<u8>>)> = vec![
            (53, Some(vec![self.kind])),
            (54, self.server.map(|server| server.octets().to_vec())),
            (51, number(self.lease)),
            (58, number(self.t1)),
            (59, number(self.t2)),
            (1, self.mask.map(|mask| mask.octets().to_vec())),
            (3, list(&self.routers)),
            (6, list(&self.name_servers)),
        ];
        let options: Vec<(u8, &[u8])> =
            options.iter().filter_map(|(code, value)| Some((*code, value.as_deref()?))).collect();
        test_reply(self.transaction, self.client, self.address, &options)
    }
}

#[test]
fn four_messages_bring_an_address() {
    let mut world = World::new();
    let (message, discover) = world.sends_now();
    assert_eq!(discover.message_type, DISCOVER);
    assert_eq!(discover.host_name, b"web");
    assert_eq!((message.source, message.destination), (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST));
    world.reply(&Reply::new(OFFER, discover.transaction).bytes());
    let (message, request) = world.sends_now();
    assert_eq!(message.destination, Ipv4Addr::BROADCAST);
    assert_eq!(request.message_type, REQUEST);
    assert_eq!(request.transaction, discover.transaction);
    assert_eq!((request.requested, request.server), (Some(ADDRESS), Some(SERVER)));
    world.reply(&Reply::new(ACK, request.transaction).bytes());
    let lease =
        Lease { address: ADDRESS, prefix_len: 24, gateway: Some(SERVER), dns: vec![SERVER] };
    assert_eq!(world.changes, [Change::Bound(lease)]);
    assert!(world.advance(secs(1799)).is_empty());
    assert_eq!((world.counters.dhcp_sent, world.counters.dhcp_received), (2, 2));
}

#[test]
fn without_a_server_the_client_asks_ever_more_seldom() {
    let mut world = World::new();
    let sent = world.advance(secs(600));
    assert!((12..=14).contains(&sent.len()), "{} messages", sent.len());
    let waits: Vec<Duration> = sent.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    for (wait, base) in waits.iter().zip([4, 8, 16, 32, 64, 64, 64]) {
        assert!(*wait >= secs(base - 1) && *wait <= secs(base + 1), "{wait:?} for {base} s");
    }
    assert!(waits.iter().collect::<HashSet<_>>().len() > 4, "no jitter");
    assert!(sent.iter().all(|(_, _, request)| request.transaction == sent[0].2.transaction));
    assert_eq!(sent[3].2.seconds, (sent[3].0 - sent[0].0).as_secs() as u16);
}

#[test]
fn a_request_that_nobody_answers_is_repeated_then_everything_begins_anew() {
    let mut world = World::new();
    let (_, discover) = world.sends_now();
    world.reply(&Reply::new(OFFER, discover.transaction).bytes());
    let sent = world.advance(secs(65));
    let kinds: Vec<u8> = sent.iter().take(5).map(|(_, _, request)| request.message_type).collect();
    assert_eq!(kinds, [REQUEST, REQUEST, REQUEST, REQUEST, DISCOVER]);
    assert_ne!(sent[4].2.transaction, discover.transaction);
}

#[test]
fn a_server_that_always_refuses_is_asked_every_ten_seconds() {
    let mut world = World::new();
    let mut discovers = 0;
    for _ in 0..1000 {
        for (_, _, request) in world.advance(Duration::from_millis(100)) {
            let kind = if request.message_type == DISCOVER { OFFER } else { NAK };
            discovers += u32::from(request.message_type == DISCOVER);
            world.reply(&Reply::new(kind, request.transaction).bytes());
        }
    }
    assert!((9..=11).contains(&discovers), "{discovers} in 100 s");
    assert!(world.changes.is_empty());
}

#[test]
fn replies_for_others_or_from_others_are_not_taken() {
    let mut world = World::new();
    let (_, discover) = world.sends_now();
    let transaction = discover.transaction;
    let other_mac = MacAddress([2, 0, 0, 0, 0, 9]);
    for bad in [
        Reply::new(OFFER, transaction ^ 1),
        Reply { client: other_mac, ..Reply::new(OFFER, transaction) },
        Reply { server: None, ..Reply::new(OFFER, transaction) },
        Reply { lease: None, ..Reply::new(OFFER, transaction) },
        Reply::new(OFFER, transaction).lease(0),
        Reply { address: Ipv4Addr::new(10, 0, 0, 255), ..Reply::new(OFFER, transaction) },
        Reply { address: Ipv4Addr::LOCALHOST, ..Reply::new(OFFER, transaction) },
        Reply { address: Ipv4Addr::new(224, 0, 0, 1), ..Reply::new(OFFER, transaction) },
        Reply { mask: Some(Ipv4Addr::new(255, 0, 255, 0)), ..Reply::new(OFFER, transaction) },
        Reply { mask: Some(Ipv4Addr::UNSPECIFIED), ..Reply::new(OFFER, transaction) },
        Reply::new(ACK, transaction),
        Reply::new(NAK, transaction),
    ] {
        world.reply(&bad.bytes());
        assert!(world.advance(secs(0)).is_empty());
    }
    assert_eq!(world.counters.dropped_dhcp, 12);
    world.reply(&Reply::new(OFFER, transaction).bytes());
    world.sends_now();
    for bad in [
        Reply { server: Some(OTHER_SERVER), ..Reply::new(ACK, transaction) },
        Reply { server: None, ..Reply::new(ACK, transaction) },
        Reply { server: Some(OTHER_SERVER), ..Reply::new(NAK, transaction) },
        Reply { address: OTHER_SERVER, ..Reply::new(ACK, transaction) },
        Reply { server: Some(OTHER_SERVER), ..Reply::new(OFFER, transaction) },
    ] {
        world.reply(&bad.bytes());
    }
    assert!(world.changes.is_empty());
    world.reply(&Reply::new(ACK, transaction).bytes());
    assert_eq!(world.changes.len(), 1);
    // Once bound, strays change nothing.
    world.reply(&Reply::new(NAK, transaction).bytes());
    world.reply(&Reply { address: OTHER_SERVER, ..Reply::new(ACK, transaction) }.bytes());
    assert_eq!(world.changes.len(), 1);
}

#[test]
fn a_lease_is_renewed_at_half_time_by_unicast_to_the_server_that_gave_it() {
    let mut world = World::new();
    world.bind(3600);
    let sent = world.advance(secs(1800));
    assert_eq!(sent.len(), 1);
    let (_, message, request) = &sent[0];
    assert_eq!((message.source, message.destination), (ADDRESS, SERVER));
    assert_eq!((request.message_type, request.address), (REQUEST, ADDRESS));
    assert_eq!((request.requested, request.server), (None, None));
    world.reply(&Reply::new(ACK, request.transaction).bytes());
    assert!(matches!(world.changes[..], [Change::Bound(_)]));
    assert!(world.advance(secs(1799)).is_empty(), "renewed for another hour");
}

#[test]
fn renewing_rebinding_and_expiry_come_in_time_and_the_server_that_answers_is_adopted() {
    let mut world = World::new();
    world.bind(3600);
    let start = world.now;
    let sent = world.advance(secs(3590));
    let renewing: Vec<_> =
        sent.iter().filter(|(_, message, _)| message.destination == SERVER).collect();
    let rebinding: Vec<_> =
        sent.iter().filter(|(_, message, _)| message.destination == Ipv4Addr::BROADCAST).collect();
    assert!(renewing.iter().all(|(at, ..)| *at < start + secs(3150)));
    assert!(rebinding.iter().all(|(at, ..)| *at >= start + secs(3150)));
    assert!((3..=7).contains(&renewing.len()) && (2..=5).contains(&rebinding.len()));
    assert!(rebinding.iter().all(|(_, message, _)| message.source == ADDRESS));
    // No two REQUESTs sooner than a minute after each other, but for the change of audience.
    for group in [&renewing, &rebinding] {
        assert!(group.windows(2).all(|pair| pair[1].0 - pair[0].0 >= secs(60)));
    }
    // The answer to an old one does not count, the one to the last does, whoever sends it.
    let last = rebinding.last().unwrap().2.transaction;
    let old = renewing[0].2.transaction;
    world.reply(&Reply { server: Some(OTHER_SERVER), ..Reply::new(ACK, old) }.bytes());
    assert!(world.changes.is_empty());
    world.reply(&Reply { server: Some(OTHER_SERVER), ..Reply::new(ACK, last) }.bytes());
    assert!(matches!(world.changes[..], [Change::Bound(_)]));
    let sent = world.advance(secs(1800));
    assert_eq!(sent[0].1.destination, OTHER_SERVER);
}

#[test]
fn at_its_end_the_address_is_given_up() {
    let mut world = World::new();
    world.bind(3600);
    world.advance(secs(3599));
    assert!(world.changes.is_empty());
    let sent = world.advance(secs(1));
    assert_eq!(world.changes, [Change::Lost]);
    assert_eq!(sent.last().unwrap().2.message_type, DISCOVER);
    assert_eq!(world.counters.dhcp_leases_expired, 1);
}

#[test]
fn a_refusal_while_renewing_ends_the_lease() {
    let mut world = World::new();
    world.bind(3600);
    let sent = world.advance(secs(1800));
    let transaction = sent[0].2.transaction;
    world.reply(&Reply { server: Some(OTHER_SERVER), ..Reply::new(NAK, transaction) }.bytes());
    assert!(world.changes.is_empty(), "of another server");
    world.reply(&Reply::new(NAK, transaction).bytes());
    assert_eq!(world.changes, [Change::Lost]);
}

#[test]
fn the_lease_counts_from_the_request() {
    let mut world = World::new();
    let (_, discover) = world.sends_now();
    world.reply(&Reply::new(OFFER, discover.transaction).lease(100).bytes());
    world.sends_now();
    world.advance(secs(2));
    world.reply(&Reply::new(ACK, discover.transaction).lease(100).bytes());
    world.changes.clear();
    world.advance(Duration::from_millis(97_900));
    assert!(world.changes.is_empty());
    world.advance(Duration::from_millis(100));
    assert_eq!(world.changes, [Change::Lost]);
}

#[test]
fn senseless_times_neither_panic_nor_storm() {
    let values = [None, Some(0), Some(1), Some(60), Some(u32::MAX)];
    for lease in [1, 60, u32::MAX] {
        for t1 in values {
            for t2 in values {
                let mut world = World::new();
                let (_, discover) = world.sends_now();
                world.reply(&Reply::new(OFFER, discover.transaction).bytes());
                world.sends_now();
                let ack = Reply { t1, t2, ..Reply::new(ACK, discover.transaction) }.lease(lease);
                world.reply(&ack.bytes());
                assert_eq!(world.changes.len(), 1, "{lease} {t1:?} {t2:?}");
                let sent = world.advance(secs(59));
                assert!(sent.len() <= 8, "{} messages: {lease} {t1:?} {t2:?}", sent.len());
                if lease == u32::MAX {
                    assert!(sent.is_empty() && world.client.poll_timeout().is_none());
                } else {
                    world.advance(secs(2));
                    assert_eq!(world.changes.get(1), Some(&Change::Lost));
                }
            }
        }
    }
}

#[test]
fn of_the_lists_only_what_can_be_used_is_taken() {
    let mut world = World::new();
    let (_, discover) = world.sends_now();
    let offer = Reply {
        routers: vec![Ipv4Addr::new(192, 168, 9, 9), ADDRESS, SERVER],
        name_servers: vec![Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST, Ipv4Addr::new(9, 9, 9, 9)],
        ..Reply::new(OFFER, discover.transaction)
    };
    world.reply(&offer.bytes());
    world.sends_now();
    world.reply(&Reply { kind: ACK, ..offer }.bytes());
    let Some(Change::Bound(lease)) = world.changes.pop() else { panic!("not bound") };
    assert_eq!(lease.gateway, Some(SERVER));
    assert_eq!(lease.dns, [Ipv4Addr::new(9, 9, 9, 9)]);
}

#[test]
fn a_router_outside_of_the_subnet_is_taken_only_with_a_prefix_of_32_bits() {
    for (mask, gateway) in [([255; 4], Some(OTHER_SERVER)), ([255, 255, 255, 252], None)] {
        let mut world = World::new();
        let (_, discover) = world.sends_now();
        let transaction = discover.transaction;
        let reply = |kind| Reply {
            mask: Some(mask.into()),
            routers: vec![OTHER_SERVER],
            ..Reply::new(kind, transaction)
        };
        world.reply(&reply(OFFER).bytes());
        world.sends_now();
        world.reply(&reply(ACK).bytes());
        let Some(Change::Bound(lease)) = world.changes.pop() else { panic!("not bound") };
        assert_eq!(lease.gateway, gateway);
    }
}

#[test]
fn an_address_that_another_host_has_is_declined_and_ten_seconds_pass() {
    let mut world = World::new();
    world.bind(3600);
    let change = world.client.handle_conflict(world.now, &mut world.counters);
    assert_eq!(change, Some(Change::Lost));
    let (message, decline) = world.sends_now();
    assert_eq!(message.destination, Ipv4Addr::BROADCAST);
    assert_eq!(decline.message_type, DECLINE);
    assert_eq!((decline.requested, decline.server), (Some(ADDRESS), Some(SERVER)));
    assert!(world.advance(Duration::from_millis(9999)).is_empty());
    let (_, discover) = world.sends_next(Duration::from_millis(1));
    assert_eq!(discover.message_type, DISCOVER);
}

impl World {
    fn sends_next(&mut self, within: Duration) -> (Message, TestRequest) {
        let mut sent = self.advance(within);
        assert_eq!(sent.len(), 1);
        let (_, message, request) = sent.remove(0);
        (message, request)
    }
}

#[test]
fn transactions_of_two_machines_have_nothing_in_common() {
    let transactions = |secret: u8| {
        let keys = Keys::new([secret; 32]);
        let mut client = Client::new(MAC, None, 1500, &keys, Instant::ZERO);
        let mut counters = Counters::default();
        (0..20)
            .map(|attempt| {
                let now = Instant::from_millis(attempt * 100_000);
                client.start_over(now);
                client.handle_timeout(now, &mut counters);
                client.poll_transmit(now, &mut counters);
                client.transaction
            })
            .collect::<HashSet<u32>>()
    };
    let (first, second) = (transactions(1), transactions(2));
    assert_eq!((first.len(), second.len()), (20, 20));
    assert!(first.is_disjoint(&second));
}

#[test]
fn a_device_that_is_not_ready_delays_the_message_and_its_timer() {
    let mut world = World::new();
    world.client.handle_timeout(world.now, &mut world.counters);
    // The device takes nothing for a minute.
    world.now = world.now + secs(60);
    world.client.handle_timeout(world.now, &mut world.counters);
    let (_, discover) = world.sends_now();
    assert_eq!(discover.message_type, DISCOVER);
    assert!(world.advance(secs(2)).is_empty());
}

proptest! {
    /// Whatever a server says and whenever: no panic, no storm, and the address that is in use is
    /// always one that a server gave and whose time is not up.
    #[test]
    fn no_server_makes_the_client_misbehave(
        steps in prop::collection::vec(
            (0u8..4, any::<bool>(), any::<bool>(), 0u32..5000, any::<[u8; 6]>(), 0u64..4_000_000),
            1..60,
        ),
    ) {
        let mut world = World::new();
        let mut sent = 0;
        for (kind, is_ours, other_server, lease, noise, wait) in steps {
            let transaction = world.client.transaction ^ u32::from(!is_ours);
            let times = |byte: u8| (byte & 1 == 1).then(|| u32::from(byte) * 20);
            let reply = Reply {
                server: Some(if other_server { OTHER_SERVER } else { SERVER }),
                t1: times(noise[0]),
                t2: times(noise[1]),
                mask: (noise[2] < 250).then(|| Ipv4Addr::from_bits(!(u32::from(noise[3] | 15)))),
                ..Reply::new([OFFER, ACK, NAK, 9][usize::from(kind)], transaction)
            };
            world.reply(&reply.lease(lease).bytes());
            // Seconds most of the time, an hour now and then.
            let wait = Duration::from_millis(if noise[4] < 200 { wait % 3000 } else { wait });
            sent += world.advance(wait).len() as u64;
        }
        let elapsed = world.now - Instant::from_millis(5000);
        prop_assert!(sent <= 130 + elapsed.as_secs() * 4 / 10, "{sent} in {elapsed:?}");
        let mut is_bound = false;
        for change in &world.changes {
            match change {
                Change::Bound(lease) => {
                    prop_assert_eq!(lease.address, ADDRESS);
                    is_bound = true;
                }
                Change::Lost => {
                    prop_assert!(is_bound, "an address is lost that was not had");
                    is_bound = false;
                }
            }
        }
        prop_assert_eq!(is_bound, !world.client.is_unbound());
    }
}
