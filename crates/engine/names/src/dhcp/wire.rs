//! A client's message as far as a server reads it, and what a server writes (RFC 2131 §2, RFC 2132,
//! RFC 3396).

use core::net::Ipv4Addr;
use std::collections::BTreeMap;

const OP_REQUEST: u8 = 1;
const OP_REPLY: u8 = 2;
pub(super) const HTYPE_ETHERNET: u8 = 1;
const FLAG_BROADCAST: u16 = 1 << 15;
const COOKIE: [u8; 4] = [99, 130, 83, 99];

/// RFC 1542 §4.1.1: what went through more relays than that is going round in circles.
const HOPS_MAX: u8 = 16;

/// The shortest message: that of BOOTP, which some clients insist on (RFC 1542 §2.1).
const LEN_MIN: usize = 300;

/// Where the fields stand.
const CHADDR: core::ops::Range<usize> = 28..44;
const SNAME: core::ops::Range<usize> = 44..108;
const FILE: core::ops::Range<usize> = 108..236;
const OPTIONS_AT: usize = 240;

/// Options (RFC 2132, RFC 3046).
pub(super) mod option {
    pub(in super::super) const SUBNET_MASK: u8 = 1;
    pub(in super::super) const ROUTER: u8 = 3;
    pub(in super::super) const DNS: u8 = 6;
    pub(in super::super) const DOMAIN: u8 = 15;
    pub(in super::super) const REQUESTED_ADDRESS: u8 = 50;
    pub(in super::super) const LEASE_TIME: u8 = 51;
    pub(in super::super) const OVERLOAD: u8 = 52;
    pub(in super::super) const MESSAGE_TYPE: u8 = 53;
    pub(in super::super) const SERVER: u8 = 54;
    pub(in super::super) const ASKED_FOR: u8 = 55;
    pub(in super::super) const RENEWAL_TIME: u8 = 58;
    pub(in super::super) const REBINDING_TIME: u8 = 59;
    pub(in super::super) const CLIENT_ID: u8 = 61;
    pub(in super::super) const RELAY_INFORMATION: u8 = 82;
}

/// A message's type (RFC 2132 §9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Decline = 4,
    Ack = 5,
    Nak = 6,
    Release = 7,
    Inform = 8,
}

impl Kind {
    /// That of a message of a client's.
    fn of_client(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Kind::Discover,
            3 => Kind::Request,
            4 => Kind::Decline,
            7 => Kind::Release,
            8 => Kind::Inform,
            _ => return None,
        })
    }
}

/// A client's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) htype: u8,
    hlen: u8,
    chaddr: [u8; 16],
    xid: [u8; 4],
    flags: u16,
    /// The address that the client has.
    pub(super) ciaddr: Ipv4Addr,
    /// The relay; unspecified if there is none.
    pub(super) giaddr: Ipv4Addr,
    /// The address that it would like.
    pub(super) requested: Option<Ipv4Addr>,
    /// The server that it means.
    pub(super) server: Option<Ipv4Addr>,
    /// Codes of the options that it wants.
    pub(super) asked_for: Option<Vec<u8>>,
    /// Its identifier, its kind in front.
    pub(super) client_id: Option<Vec<u8>>,
    /// What the relay added.
    pub(super) relay_information: Option<Vec<u8>>,
}

impl Message {
    /// Reads a message; `None` if it is none, or not a client's.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let fixed = bytes.get(..OPTIONS_AT)?;
        let address =
            |at: usize| Ipv4Addr::new(fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]);
        let chaddr: [u8; 16] = fixed[CHADDR].try_into().ok()?;
        let (op, htype, hlen, hops) = (fixed[0], fixed[1], fixed[2], fixed[3]);
        let is_sound = op == OP_REQUEST
            && usize::from(hlen) <= chaddr.len()
            && hops <= HOPS_MAX
            && fixed[OPTIONS_AT - COOKIE.len()..] == COOKIE;
        if !is_sound {
            return None;
        }
        let mut options = options(bytes)?;
        let mut take = |code: u8| options.remove(&code);
        let as_address = |bytes: Vec<u8>| <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from);
        let [kind] = <[u8; 1]>::try_from(take(option::MESSAGE_TYPE)?).ok()?;
        Some(Message {
            kind: Kind::of_client(kind)?,
            htype,
            hlen,
            chaddr,
            xid: [fixed[4], fixed[5], fixed[6], fixed[7]],
            flags: u16::from_be_bytes([fixed[10], fixed[11]]),
            ciaddr: address(12),
            giaddr: address(24),
            requested: take(option::REQUESTED_ADDRESS).and_then(as_address),
            server: take(option::SERVER).and_then(as_address),
            asked_for: take(option::ASKED_FOR),
            client_id: take(option::CLIENT_ID),
            relay_information: take(option::RELAY_INFORMATION),
        })
    }

    /// The client's hardware address.
    pub(super) fn chaddr(&self) -> &[u8] {
        &self.chaddr[..usize::from(self.hlen)]
    }

    /// The client cannot take unicast yet.
    pub(super) fn wants_broadcast(&self) -> bool {
        self.flags & FLAG_BROADCAST != 0
    }

    /// Writes an answer that gives the address `yours`. `options` are pairs of code and data.
    pub(super) fn answer(&self, kind: Kind, yours: Ipv4Addr, options: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let is_nak = kind == Kind::Nak;
        // RFC 2131 §4.3.2: the client has no address that its relay could send a refusal to.
        let is_broadcast = is_nak && !self.giaddr.is_unspecified();
        let flags = if is_broadcast { self.flags | FLAG_BROADCAST } else { self.flags };
        let ciaddr = if is_nak { Ipv4Addr::UNSPECIFIED } else { self.ciaddr };
        let mut bytes = vec![OP_REPLY, self.htype, self.hlen, 0];
        bytes.extend(self.xid);
        bytes.extend([0, 0]);
        bytes.extend(flags.to_be_bytes());
        for address in [ciaddr, yours, Ipv4Addr::UNSPECIFIED, self.giaddr] {
            bytes.extend(address.octets());
        }
        bytes.extend(self.chaddr);
        bytes.resize(FILE.end, 0);
        bytes.extend(COOKIE);
        bytes.extend([option::MESSAGE_TYPE, 1, kind as u8]);
        for (code, data) in options {
            // RFC 3396 §5: what is longer goes in pieces.
            for piece in data.chunks(usize::from(u8::MAX)) {
                bytes.extend([*code, piece.len() as u8]);
                bytes.extend(piece);
            }
        }
        bytes.push(255);
        if bytes.len() < LEN_MIN {
            bytes.resize(LEN_MIN, 0);
        }
        bytes
    }
}

/// All options by code, those in pieces put together (RFC 3396), from all the fields that have some
/// (RFC 2132 §9.3). `None` if one does not end. As large as the message at most.
fn options(bytes: &[u8]) -> Option<BTreeMap<u8, Vec<u8>>> {
    let mut all = BTreeMap::new();
    collect(&bytes[OPTIONS_AT..], &mut all)?;
    let overload = match all.get(&option::OVERLOAD).map(Vec::as_slice) {
        Some([which]) => *which,
        _ => 0,
    };
    if overload & 1 != 0 {
        collect(&bytes[FILE], &mut all)?;
    }
    if overload & 2 != 0 {
        collect(&bytes[SNAME], &mut all)?;
    }
    Some(all)
}

fn collect(mut rest: &[u8], all: &mut BTreeMap<u8, Vec<u8>>) -> Option<()> {
    loop {
        // An end is missing often enough (RFC 2131 §4.1 wants one).
        let Some((code, after)) = rest.split_first() else { return Some(()) };
        match code {
            0 => rest = after,
            255 => return Some(()),
            code => {
                let (len, after) = after.split_first()?;
                let data = after.get(..usize::from(*len))?;
                all.entry(*code).or_default().extend(data);
                rest = &after[usize::from(*len)..];
            }
        }
    }
}
