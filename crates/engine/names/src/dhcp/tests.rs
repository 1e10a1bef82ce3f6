//! The server, message by message, with the time explicit.

use super::*;
use core::net::Ipv4Addr;
use core::time::Duration;
use dhcproto::v4::relay::{RelayAgentInformation, RelayInfo};
use dhcproto::v4::{
    DhcpOption, Flags, HType, Message, MessageType, Opcode, OptionCode, UnknownOption,
};
use dhcproto::{Decodable, Decoder, Encodable, Encoder};
use proptest::prelude::*;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const RELAY: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// 10.0.0.100 to 10.0.0.`last`, and behind a relay 10.9.0.10 to 10.9.0.19.
fn config(last: u8) -> Config {
    let pool = Pool { first: ip(100), last: ip(last), prefix_len: 24, router: Some(ip(254)) };
    let remote = Pool {
        first: Ipv4Addr::new(10, 9, 0, 10),
        last: Ipv4Addr::new(10, 9, 0, 19),
        prefix_len: 16,
        router: Some(RELAY),
    };
    let mut config = Config::new(SERVER, pool);
    config.pools.push(remote);
    config.dns = vec![ip(53), Ipv4Addr::new(192, 0, 2, 53)];
    config.domain = Some("example.test".to_string());
    config
}

fn mac(number: u16) -> [u8; 6] {
    let [high, low] = number.to_be_bytes();
    [2, 0, 0, 0, high, low]
}

/// The server under test and its time.
struct Bench {
    server: Server,
    now: Duration,
}

impl Bench {
    fn new() -> Self {
        Bench::with(config(199))
    }

    fn with(config: Config) -> Self {
        Bench { server: Server::new(config, [1, 2]).unwrap(), now: secs(1000) }
    }

    fn send(&mut self, message: &Message) -> Option<(Message, Destination)> {
        let mut bytes = Vec::new();
        message.encode(&mut Encoder::new(&mut bytes)).unwrap();
        let reply = self.server.handle(self.now, &bytes)?;
        assert!(reply.bytes.len() >= 300, "RFC 1542 §2.1");
        let decoded = Message::decode(&mut Decoder::new(&reply.bytes)).unwrap();
        assert_eq!(decoded.opcode(), Opcode::BootReply);
        assert_eq!((decoded.xid(), decoded.chaddr()), (message.xid(), message.chaddr()));
        assert_eq!(
            decoded.opts().get(OptionCode::ServerIdentifier),
            Some(&DhcpOption::ServerIdentifier(SERVER))
        );
        Some((decoded, reply.destination))
    }

    /// What is offered to a client.
    fn offered(&mut self, number: u16) -> Option<Ipv4Addr> {
        let (offer, _) = self.send(&message(number, MessageType::Discover))?;
        assert_eq!(offer.opts().msg_type(), Some(MessageType::Offer));
        Some(offer.yiaddr())
    }

    /// Asks for an offered address; the kind of the answer.
    fn select(&mut self, number: u16, address: Ipv4Addr) -> Option<MessageType> {
        let (answer, _) = self.send(&selecting(number, address))?;
        answer.opts().msg_type()
    }

    /// A client's whole way to a lease.
    fn bind(&mut self, number: u16) -> Ipv4Addr {
        let address = self.offered(number).expect("an offer");
        assert_eq!(self.select(number, address), Some(MessageType::Ack));
        address
    }

    fn leased(&self) -> Vec<Ipv4Addr> {
        self.server.leases(self.now).map(|lease| lease.address).collect()
    }
}

fn message(number: u16, kind: MessageType) -> Message {
    let mut message = Message::new_with_id(7 + u32::from(number), ANY, ANY, ANY, ANY, &mac(number));
    message.opts_mut().insert(DhcpOption::MessageType(kind));
    message
}

fn with(mut message: Message, option: DhcpOption) -> Message {
    message.opts_mut().insert(option);
    message
}

fn selecting(number: u16, address: Ipv4Addr) -> Message {
    let request = message(number, MessageType::Request);
    let request = with(request, DhcpOption::RequestedIpAddress(address));
    with(request, DhcpOption::ServerIdentifier(SERVER))
}

fn rebooting(number: u16, address: Ipv4Addr) -> Message {
    with(message(number, MessageType::Request), DhcpOption::RequestedIpAddress(address))
}

fn renewing(number: u16, address: Ipv4Addr) -> Message {
    let mut request = message(number, MessageType::Request);
    request.set_ciaddr(address);
    request
}

fn kind(answer: Option<(Message, Destination)>) -> Option<MessageType> {
    answer?.0.opts().msg_type()
}

#[test]
fn a_client_is_offered_an_address_and_gets_it_with_all_that_goes_with_it() {
    let mut bench = Bench::new();
    let (offer, destination) = bench.send(&message(1, MessageType::Discover)).unwrap();
    let address = offer.yiaddr();
    assert!((ip(100)..=ip(199)).contains(&address));
    assert_eq!(destination, Destination::Link { address, mac: mac(1) });
    assert!(bench.leased().is_empty(), "an offer is no lease");
    let (ack, destination) = bench.send(&selecting(1, address)).unwrap();
    assert_eq!((ack.opts().msg_type(), ack.yiaddr()), (Some(MessageType::Ack), address));
    assert_eq!(destination, Destination::Link { address, mac: mac(1) });
    for option in [
        DhcpOption::AddressLeaseTime(3600),
        DhcpOption::Renewal(1800),
        DhcpOption::Rebinding(3150),
        DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)),
        DhcpOption::Router(vec![ip(254)]),
        DhcpOption::DomainNameServer(vec![ip(53), Ipv4Addr::new(192, 0, 2, 53)]),
        DhcpOption::DomainName("example.test".to_string()),
    ] {
        assert_eq!(ack.opts().get(OptionCode::from(&option)), Some(&option));
        assert_eq!(offer.opts().get(OptionCode::from(&option)), Some(&option));
    }
    assert_eq!(bench.leased(), [address]);
    assert_eq!(bench.server.leases(bench.now).next().unwrap().left, secs(3600));
}

#[test]
fn what_was_asked_for_is_sent_and_nothing_else() {
    let mut bench = Bench::new();
    let discover = with(
        message(1, MessageType::Discover),
        DhcpOption::ParameterRequestList(vec![OptionCode::Router, OptionCode::NtpServers]),
    );
    let (offer, _) = bench.send(&discover).unwrap();
    let mut codes: Vec<u8> = offer.opts().iter().map(|(code, _)| u8::from(*code)).collect();
    codes.sort_unstable();
    assert_eq!(codes, [3, 51, 53, 54, 58, 59]);
}

#[test]
fn replies_go_where_the_client_can_hear_them() {
    let mut bench = Bench::new();
    // It cannot take unicast yet.
    let mut discover = message(1, MessageType::Discover);
    discover.set_flags(Flags::default().set_broadcast());
    let (offer, destination) = bench.send(&discover).unwrap();
    assert_eq!(destination, Destination::Broadcast);
    assert!(offer.flags().broadcast());
    // It has its address already.
    let address = bench.bind(2);
    let (_, destination) = bench.send(&renewing(2, address)).unwrap();
    assert_eq!(destination, Destination::Client(address));
    // It has a group's address, none, or one that is no Ethernet's.
    for hardware in [&[3, 0, 0, 0, 0, 9][..], &[0; 6], &[2, 0, 0, 0, 0, 9, 9, 9]] {
        let mut discover = message(3, MessageType::Discover);
        discover.set_chaddr(hardware);
        assert_eq!(bench.send(&discover).unwrap().1, Destination::Broadcast, "{hardware:?}");
    }
    let mut discover = message(4, MessageType::Discover);
    discover.set_htype(HType::IEEE802);
    assert_eq!(bench.send(&discover).unwrap().1, Destination::Broadcast);
    // A refusal is for everybody's ears: the client may have any address.
    let (_, destination) = bench.send(&selecting(5, Ipv4Addr::new(192, 168, 0, 5))).unwrap();
    assert_eq!(destination, Destination::Broadcast);
}

#[test]
fn a_relays_client_gets_an_address_of_its_own_subnet_by_way_of_the_relay() {
    let mut bench = Bench::new();
    let information = {
        let mut information = RelayAgentInformation::default();
        information.insert(RelayInfo::AgentCircuitId(vec![1, 2, 3]));
        DhcpOption::RelayAgentInformation(information)
    };
    let mut discover = with(message(1, MessageType::Discover), information.clone());
    discover.set_giaddr(RELAY).set_hops(1);
    let (offer, destination) = bench.send(&discover).unwrap();
    assert_eq!(destination, Destination::Relay(RELAY));
    assert_eq!(offer.giaddr(), RELAY);
    assert_eq!(offer.yiaddr().octets()[..2], [10, 9]);
    let mask = offer.opts().get(OptionCode::SubnetMask);
    assert_eq!(mask, Some(&DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 0, 0))));
    let router = offer.opts().get(OptionCode::Router);
    assert_eq!(router, Some(&DhcpOption::Router(vec![RELAY])));
    // RFC 3046 §2.2: what the relay added comes back as it was.
    assert_eq!(offer.opts().get(OptionCode::RelayAgentInformation), Some(&information));
    // A refusal goes there too, and asks for a broadcast (RFC 2131 §4.3.2).
    let mut request = selecting(1, ip(150));
    request.set_giaddr(RELAY);
    let (nak, destination) = bench.send(&request).unwrap();
    assert_eq!(nak.opts().msg_type(), Some(MessageType::Nak));
    assert!(nak.flags().broadcast());
    assert_eq!(destination, Destination::Relay(RELAY));
    // A relay of a subnet that nobody configured.
    discover.set_giaddr(Ipv4Addr::new(10, 8, 0, 1));
    assert!(bench.send(&discover).is_none());
    assert_eq!(bench.server.counters().dropped_foreign, 1);
}

#[test]
fn a_client_is_offered_one_address_however_often_it_asks_and_what_it_had_before() {
    let mut bench = Bench::new();
    let first = bench.offered(1).unwrap();
    for _ in 0..50 {
        assert_eq!(bench.offered(1), Some(first));
    }
    assert_eq!(bench.server.sizes(), (1, 1));
    assert_eq!(bench.bind(1), first);
    // Long after its lease has ended.
    bench.now += secs(100_000);
    assert!(bench.leased().is_empty());
    assert_eq!(bench.bind(1), first);
    // And after it gave it back.
    let mut release = message(1, MessageType::Release);
    release.set_ciaddr(first);
    assert!(bench.send(&release).is_none());
    assert_eq!((bench.leased().len(), bench.server.counters().releases), (0, 1));
    assert_eq!(bench.bind(1), first);
}

#[test]
fn a_client_that_asks_for_a_free_address_of_the_pool_is_offered_it() {
    let mut bench = Bench::new();
    let wish =
        |address| with(message(9, MessageType::Discover), DhcpOption::RequestedIpAddress(address));
    assert_eq!(bench.send(&wish(ip(177))).unwrap().0.yiaddr(), ip(177));
    bench.now += secs(60);
    let taken = bench.bind(1);
    for address in [taken, ip(99), ip(200), SERVER, Ipv4Addr::new(8, 8, 8, 8)] {
        let mut other = wish(address);
        other.set_chaddr(&mac(10));
        let offered = bench.send(&other).unwrap().0.yiaddr();
        assert_ne!(offered, address);
        assert!((ip(100)..=ip(199)).contains(&offered));
    }
}

#[test]
fn an_identifier_counts_for_more_than_the_hardware_address_and_comes_back() {
    let mut bench = Bench::new();
    let id = DhcpOption::ClientIdentifier(vec![255, 1, 2, 3, 4]);
    let (offer, _) = bench.send(&with(message(1, MessageType::Discover), id.clone())).unwrap();
    assert_eq!(offer.opts().get(OptionCode::ClientIdentifier), Some(&id), "RFC 6842");
    let (again, _) = bench.send(&with(message(2, MessageType::Discover), id)).unwrap();
    assert_eq!(again.yiaddr(), offer.yiaddr(), "the same client with another card");
    assert_ne!(bench.offered(1), Some(offer.yiaddr()), "another client");
    // An identifier that looks like a hardware address is none.
    let lookalike = DhcpOption::ClientIdentifier([&[1][..], &mac(1)].concat());
    let bound = bench.bind(1);
    let (offer, _) = bench.send(&with(message(3, MessageType::Discover), lookalike)).unwrap();
    assert_ne!(offer.yiaddr(), bound);
}

#[test]
fn an_identifier_has_two_to_135_bytes() {
    let mut bench = Bench::new();
    let discover = |number, len: usize| {
        let id = vec![7; len];
        with(message(number, MessageType::Discover), DhcpOption::ClientIdentifier(id))
    };
    let longest = bench.send(&discover(1, 135)).unwrap().0.yiaddr();
    assert_eq!(bench.send(&discover(2, 135)).unwrap().0.yiaddr(), longest, "the identifier counts");
    for len in [136, 255, 1000] {
        assert!(bench.send(&discover(3, len)).is_none(), "{len}");
    }
    assert_eq!(bench.server.counters().dropped_client_id, 3);
    assert_eq!(bench.server.sizes(), (1, 1));
    // RFC 2132 §9.14: MUST be two at least; of such a client the hardware address counts.
    let short = bench.send(&discover(4, 1)).unwrap().0.yiaddr();
    assert_eq!(bench.offered(4), Some(short));
}

#[test]
fn two_clients_never_have_one_address() {
    let mut bench = Bench::new();
    // Two messages each: no more than strangers may send.
    let addresses: Vec<_> = (0..100)
        .map(|number| {
            bench.now += Duration::from_millis(20);
            bench.bind(number)
        })
        .collect();
    let mut unique = addresses.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), 100);
    bench.now += secs(10);
    // The pool is empty; whoever has an address keeps it.
    bench.now += secs(60);
    assert_eq!(bench.offered(100), None);
    assert_eq!(bench.server.counters().dropped_exhausted, 1);
    for number in 0..100 {
        assert_eq!(
            kind(bench.send(&renewing(number, addresses[number as usize]))),
            Some(MessageType::Ack)
        );
    }
    assert_eq!(bench.select(100, addresses[0]), Some(MessageType::Nak));
    assert_eq!(kind(bench.send(&renewing(100, addresses[0]))), Some(MessageType::Nak));
    assert_eq!(bench.server.sizes(), (100, 100));
    // When leases have ended, the one that ended first goes first.
    bench.now += secs(1);
    assert_eq!(kind(bench.send(&renewing(0, addresses[0]))), Some(MessageType::Ack));
    bench.now += secs(3600);
    let next = bench.offered(100).unwrap();
    assert!(addresses[1..].contains(&next), "the one whose lease ended last stays its own");
}

#[test]
fn a_lease_is_renewed_and_ends_when_it_is_not() {
    let mut bench = Bench::new();
    let address = bench.bind(1);
    for _ in 0..10 {
        bench.now += secs(1800);
        let (ack, destination) = bench.send(&renewing(1, address)).unwrap();
        assert_eq!((ack.opts().msg_type(), ack.yiaddr()), (Some(MessageType::Ack), address));
        assert_eq!((ack.ciaddr(), destination), (address, Destination::Client(address)));
    }
    bench.now += secs(3599);
    assert_eq!(bench.leased(), [address]);
    bench.now += secs(1);
    assert!(bench.leased().is_empty());
    // Somebody else asks for it, and gets it; then the first one hears no.
    assert_eq!(bench.select(2, address), Some(MessageType::Ack));
    assert_eq!(kind(bench.send(&renewing(1, address))), Some(MessageType::Nak));
}

#[test]
fn a_client_that_boots_again_is_told_whether_its_address_is_still_right() {
    let mut bench = Bench::new();
    let address = bench.bind(1);
    assert_eq!(kind(bench.send(&rebooting(1, address))), Some(MessageType::Ack));
    let other = if address == ip(150) { ip(151) } else { ip(150) };
    assert_eq!(kind(bench.send(&rebooting(1, other))), Some(MessageType::Nak));
    // Of another network: nobody here can use it.
    let foreign = Ipv4Addr::new(192, 168, 7, 7);
    assert_eq!(kind(bench.send(&rebooting(2, foreign))), Some(MessageType::Nak));
    // Unknown here, perhaps known to another server: RFC 2131 §4.3.2 says MUST remain silent.
    assert!(bench.send(&rebooting(3, other)).is_none());
    assert_eq!(bench.server.counters().dropped_not_ours, 1);
}

#[test]
fn a_server_that_was_restarted_takes_renewing_clients_at_their_word() {
    let address = Bench::new().bind(1);
    let mut bench = Bench::new();
    assert_eq!(kind(bench.send(&renewing(1, address))), Some(MessageType::Ack));
    assert_eq!(bench.leased(), [address]);
    assert_eq!(kind(bench.send(&renewing(2, ip(99)))), Some(MessageType::Nak), "not the pool's");
}

#[test]
fn a_client_that_takes_another_servers_offer_frees_ours() {
    let mut bench = Bench::with(config(100));
    assert_eq!(bench.offered(1), Some(ip(100)));
    assert_eq!(bench.offered(2), None);
    let elsewhere = with(
        with(message(1, MessageType::Request), DhcpOption::RequestedIpAddress(ip(9))),
        DhcpOption::ServerIdentifier(ip(2)),
    );
    assert!(bench.send(&elsewhere).is_none());
    assert_eq!(bench.offered(2), Some(ip(100)));
    // But no lease: anybody can say that.
    bench.bind(2);
    let mut forged = elsewhere;
    forged.set_chaddr(&mac(2));
    assert!(bench.send(&forged).is_none());
    assert_eq!(bench.leased(), [ip(100)]);
}

#[test]
fn a_declined_address_is_not_given_for_a_while() {
    let mut bench = Bench::new();
    let address = bench.bind(1);
    // Not by somebody who does not have it.
    let decline = |number| {
        with(message(number, MessageType::Decline), DhcpOption::RequestedIpAddress(address))
    };
    assert!(bench.send(&decline(2)).is_none());
    assert_eq!(bench.leased(), [address]);
    assert!(bench.send(&decline(1)).is_none());
    assert_eq!((bench.leased().len(), bench.server.counters().declines), (0, 1));
    assert_ne!(bench.bind(1), address);
    assert_eq!(bench.select(3, address), Some(MessageType::Nak));
    bench.now += secs(601);
    assert_eq!(bench.select(3, address), Some(MessageType::Ack));
}

#[test]
fn declining_everything_leaves_most_of_the_pool() {
    let mut bench = Bench::new();
    for number in 0..1000 {
        let Some(address) = bench.offered(number) else { panic!("{number}: no offer") };
        assert_eq!(bench.select(number, address), Some(MessageType::Ack));
        bench.send(&with(
            message(number, MessageType::Decline),
            DhcpOption::RequestedIpAddress(address),
        ));
        bench.now += Duration::from_millis(50);
    }
    // A quarter of all addresses, those of the relay's pool included.
    assert_eq!(bench.server.counters().declines, 1000);
    let (entries, clients) = bench.server.sizes();
    assert!(entries <= 110 && clients <= 110, "{entries} {clients}");
}

#[test]
fn a_client_with_an_address_of_its_own_gets_the_rest() {
    let mut bench = Bench::new();
    let mut inform = message(1, MessageType::Inform);
    inform.set_ciaddr(ip(20));
    let (ack, destination) = bench.send(&inform).unwrap();
    assert_eq!(ack.opts().msg_type(), Some(MessageType::Ack));
    assert_eq!(destination, Destination::Client(ip(20)));
    // RFC 2131 §4.3.5: no address, no lease time.
    assert_eq!(ack.yiaddr(), ANY);
    assert_eq!(ack.opts().get(OptionCode::AddressLeaseTime), None);
    assert!(ack.opts().get(OptionCode::DomainNameServer).is_some());
    assert!(bench.leased().is_empty());
    inform.set_ciaddr(Ipv4Addr::new(8, 8, 8, 8));
    assert!(bench.send(&inform).is_none());
    inform.set_ciaddr(ANY);
    assert!(bench.send(&inform).is_none());
}

#[test]
fn a_thousand_invented_clients_keep_nobody_out() {
    let mut bench = Bench::new();
    let known = bench.bind(1);
    // They come within a second, and take nothing.
    for number in 1000..2000 {
        bench.offered(number);
        bench.now += Duration::from_millis(1);
    }
    let counters = bench.server.counters();
    assert!(counters.dropped_rate > 750, "{counters:?}");
    let (entries, clients) = bench.server.sizes();
    assert!(entries <= 100 && clients <= 100, "{entries} {clients}");
    // Who has a lease renews it, boots with it, and is offered it.
    assert_eq!(kind(bench.send(&renewing(1, known))), Some(MessageType::Ack));
    assert_eq!(kind(bench.send(&rebooting(1, known))), Some(MessageType::Ack));
    assert_eq!(bench.offered(1), Some(known));
    // Who comes when the flood goes on slowly enough gets one too: offers that nobody takes make
    // way, long before they end by themselves.
    for number in 2000..2400 {
        bench.offered(number);
        bench.now += Duration::from_millis(20);
    }
    let address = bench.offered(2).expect("an offer, though all addresses were offered");
    assert_eq!(bench.select(2, address), Some(MessageType::Ack));
    assert_eq!(bench.leased().len(), 2);
}

#[test]
fn an_offer_holds_its_address_only_for_a_moment() {
    let mut bench = Bench::with(config(100));
    assert_eq!(bench.offered(1), Some(ip(100)));
    bench.now += Duration::from_millis(900);
    assert_eq!(bench.offered(2), None, "its client has had no time to take it");
    bench.now += Duration::from_millis(200);
    assert_eq!(bench.offered(2), Some(ip(100)));
    assert_eq!(bench.select(1, ip(100)), Some(MessageType::Nak));
    // A lease is another matter.
    assert_eq!(bench.select(2, ip(100)), Some(MessageType::Ack));
    bench.now += secs(3599);
    assert_eq!(bench.offered(1), None);
}

#[test]
fn what_is_no_clients_message_is_counted() {
    let mut bench = Bench::new();
    let mut bytes = Vec::new();
    message(1, MessageType::Discover).encode(&mut Encoder::new(&mut bytes)).unwrap();
    for (at, value) in [(0, 2), (2, 17), (2, 255), (3, 17), (236, 0)] {
        let mut bad = bytes.clone();
        bad[at] = value;
        assert_eq!(bench.server.handle(bench.now, &bad), None, "byte {at}");
    }
    for len in 0..240 {
        assert_eq!(bench.server.handle(bench.now, &bytes[..len]), None);
    }
    assert_eq!(bench.server.counters().dropped_malformed, 245);
    for kind in [MessageType::Offer, MessageType::Ack, MessageType::Nak] {
        assert!(bench.send(&message(1, kind)).is_none());
    }
    // A request that says nothing.
    assert!(bench.send(&message(1, MessageType::Request)).is_none());
    assert_eq!(bench.server.counters().dropped_malformed, 249);
    // Options that nobody knows do no harm.
    let unknown = UnknownOption::new(OptionCode::from(224), vec![1; 200]);
    let discover = with(message(1, MessageType::Discover), DhcpOption::Unknown(unknown));
    assert!(bench.send(&discover).is_some());
}

#[test]
fn options_in_pieces_and_in_other_fields_are_put_together() {
    let mut bytes = Vec::new();
    let discover = message(1, MessageType::Discover);
    discover.encode(&mut Encoder::new(&mut bytes)).unwrap();
    bytes.truncate(240);
    // RFC 3396, RFC 2132 §9.3: the identifier is split, and what is asked for stands in `file`, the
    // wish in `sname`.
    bytes.extend([53, 1, 1, 0, 0, 61, 3, 255, 1, 2, 61, 2, 3, 4, 52, 1, 3, 255]);
    bytes[108..114].copy_from_slice(&[55, 2, 3, 51, 255, 9]);
    bytes[44..51].copy_from_slice(&[50, 4, 10, 0, 0, 142, 255]);
    let mut bench = Bench::new();
    let reply = bench.server.handle(bench.now, &bytes).unwrap();
    let offer = Message::decode(&mut Decoder::new(&reply.bytes)).unwrap();
    assert_eq!(offer.yiaddr(), ip(142));
    let id = DhcpOption::ClientIdentifier(vec![255, 1, 2, 3, 4]);
    assert_eq!(offer.opts().get(OptionCode::ClientIdentifier), Some(&id));
    assert!(offer.opts().get(OptionCode::Router).is_some());
    assert!(offer.opts().get(OptionCode::SubnetMask).is_none());
    // Options that do not end.
    for len in [241, 242, 246, 247] {
        assert_eq!(bench.server.handle(bench.now, &bytes[..len]), None, "{len}");
    }
}

#[test]
fn a_configuration_that_cannot_be_names_its_fault() {
    let fault = |change: &dyn Fn(&mut Config)| {
        let mut config = config(199);
        change(&mut config);
        Server::new(config, [0, 0]).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert_eq!(fault(&|_| ()), "");
    assert!(fault(&|config| config.pools.clear()).contains("0 addresses"));
    assert!(fault(&|config| config.pools[0].last = ip(99)).contains("ends before"));
    assert!(fault(&|config| config.pools[0].last = ip(255)).contains("broadcast"));
    assert!(fault(&|config| config.pools[0].last = Ipv4Addr::new(10, 0, 1, 9)).contains("leaves"));
    assert!(fault(&|config| config.pools[0].prefix_len = 0).contains("1 to 30"));
    assert!(fault(&|config| config.server = ip(150)).contains("own address"));
    assert!(fault(&|config| config.pools[0].router = Some(ip(150))).contains("router"));
    assert!(fault(&|config| config.pools[1] = config.pools[0].clone()).contains("same subnet"));
    assert!(fault(&|config| config.dns = vec![ip(53); 9]).contains("9 name servers"));
    assert!(fault(&|config| config.domain = Some(String::new())).contains("domain"));
    assert!(fault(&|config| config.lease = secs(9)).contains("a lease of 9 s"));
    let wide = |config: &mut Config| {
        config.pools[1].first = Ipv4Addr::new(10, 9, 1, 0);
        config.pools[1].last = Ipv4Addr::new(10, 9, 200, 0);
    };
    assert!(fault(&wide).contains("1 to 16384"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn arbitrary_bytes_do_no_harm(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        sound in any::<bool>(),
    ) {
        let mut bytes = bytes;
        if sound && bytes.len() >= 240 {
            bytes[0] = 1;
            bytes[2] %= 17;
            bytes[3] = 0;
            bytes[236..240].copy_from_slice(&[99, 130, 83, 99]);
        }
        let mut bench = Bench::new();
        if let Some(reply) = bench.server.handle(bench.now, &bytes) {
            Message::decode(&mut Decoder::new(&reply.bytes)).unwrap();
        }
    }

    /// Any clients, doing anything in any order: nobody has two addresses, no address two owners,
    /// and what is remembered stays within the pools.
    #[test]
    fn whatever_clients_do_an_address_has_one_owner(
        steps in proptest::collection::vec((0_u16..12, 0_u8..7, 98_u8..110, 0_u64..900), 1..200),
    ) {
        let mut config = config(107);
        config.lease = secs(600);
        let mut bench = Bench::with(config);
        let mut owners: std::collections::HashMap<Ipv4Addr, (u16, Duration)> = Default::default();
        for (number, action, last, pause) in steps {
            bench.now += secs(pause) / 10;
            let address = ip(last);
            let message = match action {
                0 => message(number, MessageType::Discover),
                1 => selecting(number, address),
                2 => renewing(number, address),
                3 => rebooting(number, address),
                4 => with(message(number, MessageType::Decline), DhcpOption::RequestedIpAddress(address)),
                5 => {
                    let mut release = message(number, MessageType::Release);
                    release.set_ciaddr(address);
                    release
                }
                _ => {
                    let Some(address) = bench.offered(number) else { continue };
                    selecting(number, address)
                }
            };
            let is_request = message.opts().msg_type() == Some(MessageType::Request);
            let before = bench.server.counters();
            let answer = bench.send(&message);
            let after = bench.server.counters();
            if after.releases > before.releases || after.declines > before.declines {
                owners.remove(&address);
            }
            if is_request && let Some((ack, _)) = answer
                && ack.opts().msg_type() == Some(MessageType::Ack)
            {
                let now = bench.now;
                let held = owners.get(&ack.yiaddr()).filter(|(_, until)| *until > now);
                prop_assert!(held.is_none_or(|(owner, _)| *owner == number), "{held:?} {number}");
                // Its earlier address, if it had another, is given up by taking this one.
                owners.retain(|_, (owner, _)| *owner != number);
                owners.insert(ack.yiaddr(), (number, now + secs(600)));
            }
            let (entries, clients) = bench.server.sizes();
            prop_assert!(entries <= 18 && clients <= 18);
        }
    }
}
