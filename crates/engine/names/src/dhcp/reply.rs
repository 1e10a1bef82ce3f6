//! [`Reply`]: a message, and where it goes.

use super::config::{Config, Pool};
use super::wire::{HTYPE_ETHERNET, Kind, Message, option};
use core::net::Ipv4Addr;

/// Where a reply goes (RFC 2131 §4.1). Ports are the protocol's: [`SERVER_PORT`](super::SERVER_PORT)
/// for a relay, else [`CLIENT_PORT`](super::CLIENT_PORT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To a relay, which passes it on.
    Relay(Ipv4Addr),
    /// To a client that has this address.
    Client(Ipv4Addr),
    /// To a client that does not have this address yet, and so does not answer ARP for it: to its
    /// hardware address.
    Link {
        /// The address in the IP header.
        address: Ipv4Addr,
        /// The address in the Ethernet header.
        mac: [u8; 6],
    },
    /// To everybody on the link.
    Broadcast,
}

/// A message to a client or its relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The UDP payload.
    pub bytes: Vec<u8>,
    /// Where it goes.
    pub destination: Destination,
}

/// Where a reply to `request` goes that gives it `yours`.
fn destination(request: &Message, kind: Kind, yours: Ipv4Addr) -> Destination {
    if !request.giaddr.is_unspecified() {
        return Destination::Relay(request.giaddr);
    }
    if kind == Kind::Nak {
        return Destination::Broadcast;
    }
    if !request.ciaddr.is_unspecified() {
        return Destination::Client(request.ciaddr);
    }
    match <[u8; 6]>::try_from(request.chaddr()) {
        Ok(mac)
            if request.htype == HTYPE_ETHERNET
                && !request.wants_broadcast()
                && mac[0] & 1 == 0
                && mac != [0; 6] =>
        {
            Destination::Link { address: yours, mac }
        }
        _ => Destination::Broadcast,
    }
}

/// Makes a reply to `request` that gives the address `yours` (unspecified: none) of `pool`.
pub(super) fn reply(
    config: &Config,
    pool: &Pool,
    request: &Message,
    kind: Kind,
    yours: Ipv4Addr,
) -> Reply {
    let mut options = vec![(option::SERVER, config.server.octets().to_vec())];
    if kind != Kind::Nak {
        if !yours.is_unspecified() {
            let seconds = config.lease.as_secs() as u32;
            let rebinding = (u64::from(seconds) * 7 / 8) as u32;
            let times = [
                (option::LEASE_TIME, seconds),
                (option::RENEWAL_TIME, seconds / 2),
                (option::REBINDING_TIME, rebinding),
            ];
            options.extend(times.map(|(code, time)| (code, time.to_be_bytes().to_vec())));
        }
        // What the client asked for, or all that there is if it did not say (RFC 2131 §4.3.1). The
        // mask before the router (RFC 2132 §3.3).
        let asked = &request.asked_for;
        let has = what_there_is(config, pool);
        options.extend(
            has.into_iter()
                .filter(|(code, _)| asked.as_ref().is_none_or(|codes| codes.contains(code))),
        );
    }
    // RFC 6842: the identifier comes back. RFC 3046 §2.2: so does what the relay added, at the end.
    let relay = request.relay_information.as_ref().filter(|_| !request.giaddr.is_unspecified());
    for (code, data) in
        [(option::CLIENT_ID, request.client_id.as_ref()), (option::RELAY_INFORMATION, relay)]
    {
        options.extend(data.map(|data| (code, data.clone())));
    }
    let bytes = request.answer(kind, yours, &options);
    Reply { bytes, destination: destination(request, kind, yours) }
}

/// What a client of the pool may know, as options.
fn what_there_is(config: &Config, pool: &Pool) -> Vec<(u8, Vec<u8>)> {
    let mut all = vec![(option::SUBNET_MASK, pool.mask().to_be_bytes().to_vec())];
    all.extend(pool.router.map(|router| (option::ROUTER, router.octets().to_vec())));
    if !config.dns.is_empty() {
        all.push((option::DNS, config.dns.iter().flat_map(|server| server.octets()).collect()));
    }
    all.extend(config.domain.as_ref().map(|name| (option::DOMAIN, name.as_bytes().to_vec())));
    all
}
