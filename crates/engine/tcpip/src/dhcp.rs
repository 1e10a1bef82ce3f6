//! The DHCP client (RFC 2131 §4.4): asks for an address, keeps it, and gives it up in time.
//!
//! ```text
//! Waiting ──► Selecting ──► Requesting ──► Bound ──T1──► Renewing ──T2──► Rebinding
//!    ▲   OFFER ───┘   ACK ──┘   │            ▲               │ACK            │ACK │
//!    └──────────NAK, silence────┘            └───────────────┴───────────────┘    │
//!    ▲───────────────────────────NAK, expiry, conflict────────────────────────────┘
//! ```
//!
//! Two of its choices: the first DISCOVER goes out at once (RFC 2131 §4.4.1 asks for a random delay
//! against a whole site that powers up together; a machine that boots in milliseconds to answer a
//! request would spend all its time there), and an address is used as soon as the server confirms
//! it, while the ARP probe for it is on its way; if another host answers, the engine drops the
//! address and the client declines it.

use crate::config::{Lease, MacAddress, check_addresses, is_host_address};
use crate::counters::Counters;
use crate::secret::{Keys, Purpose, Random};
use crate::time::Instant;
use crate::wire::dhcp::{MessageType, Reply, Request};
use core::time::Duration;
use std::net::Ipv4Addr;

/// Least time between the starts of two attempts: a server that always refuses, or an address that
/// is always taken, must not make a storm (RFC 2131 §3.1(5) asks for 10 s after a DECLINE).
const ATTEMPT_INTERVAL: Duration = Duration::from_secs(10);
/// Delay before the first repetition; doubles up to sixteen times that (RFC 2131 §4.1).
const RETRY_FIRST: Duration = Duration::from_secs(4);
/// REQUESTs for an offer before the client starts anew: about a minute (RFC 2131 §3.1(5)).
const REQUESTS_MAX: u32 = 4;
/// Least time between two REQUESTs for a renewal (RFC 2131 §4.4.5).
const RENEW_INTERVAL_MIN: Duration = Duration::from_secs(60);
/// A lease for ever.
const LEASE_INFINITE: u32 = u32::MAX;

/// What happened to the interface's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The server gave it, or confirmed it.
    Bound(Lease),
    /// It must not be used any more.
    Lost,
}

/// A message to send from the client's port to the server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) payload: Vec<u8>,
}

/// An address that a server gave.
#[derive(Clone, Debug)]
struct Held {
    lease: Lease,
    server: Ipv4Addr,
    /// When to ask any server (T2); `None` for a lease for ever.
    rebind_at: Option<Instant>,
    expires_at: Option<Instant>,
}

#[derive(Debug)]
enum State {
    /// For the next attempt.
    Waiting,
    /// DISCOVER was sent `sent` times.
    Selecting { sent: u32 },
    /// REQUEST for an offer was sent `sent` times, the first at `sent_at`.
    Requesting { address: Ipv4Addr, server: Ipv4Addr, sent: u32, sent_at: Option<Instant> },
    /// The address is ours.
    Bound(Held),
    /// REQUEST was last sent at `sent_at`, to the server alone or (`rebinding`) to all.
    Renewing { held: Held, rebinding: bool, sent_at: Option<Instant> },
    /// The address is another host's: tell the server, then wait.
    Declining { address: Ipv4Addr, server: Ipv4Addr },
}

/// The client of one interface.
pub(crate) struct Client {
    mac: MacAddress,
    host_name: Option<String>,
    message_len_max: u16,
    state: State,
    transaction: u32,
    /// A message is due, and goes out with the next `poll_transmit`.
    is_send_due: bool,
    /// When to send again, or do the next thing.
    deadline: Option<Instant>,
    attempt_started: Option<Instant>,
    transactions: Random,
    jitter: Random,
}

impl Client {
    pub(crate) fn new(
        mac: MacAddress,
        host_name: Option<String>,
        mtu: usize,
        keys: &Keys,
        now: Instant,
    ) -> Self {
        Client {
            mac,
            host_name,
            // RFC 2132 §9.10: at least 576. No server needs more than a frame's worth.
            message_len_max: mtu.clamp(576, 1500) as u16,
            state: State::Waiting,
            transaction: 0,
            is_send_due: false,
            deadline: Some(now),
            attempt_started: None,
            transactions: keys.random(Purpose::DhcpTransaction),
            jitter: keys.random(Purpose::DhcpJitter),
        }
    }

    /// True if the interface has no address yet, so that a server's reply may come to any.
    pub(crate) fn is_unbound(&self) -> bool {
        !matches!(self.state, State::Bound(_) | State::Renewing { .. })
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let expires_at = match &self.state {
            State::Bound(held) | State::Renewing { held, .. } => held.expires_at,
            _ => None,
        };
        // What is due to be sent waits for the device, not for the time.
        let next = self.deadline.filter(|_| !self.is_send_due);
        [next, expires_at].into_iter().flatten().min()
    }

    /// Starts an attempt, not sooner than `ATTEMPT_INTERVAL` after the last one.
    fn start_over(&mut self, now: Instant) {
        let until = match self.attempt_started {
            Some(started) => now.max(started + ATTEMPT_INTERVAL),
            None => now,
        };
        self.state = State::Waiting;
        self.is_send_due = false;
        self.deadline = Some(until);
    }

    /// The delay after the `sent`th message: 4, 8, 16, 32, 64, 64 … seconds, each a second more or
    /// less (RFC 2131 §4.1).
    fn retry_delay(&mut self, sent: u32) -> Duration {
        let base = RETRY_FIRST * (1 << sent.saturating_sub(1).min(4));
        base + Duration::from_millis(u64::from(self.jitter.below(2001))) - Duration::from_secs(1)
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        counters: &mut Counters,
    ) -> Option<Change> {
        if let State::Bound(held) | State::Renewing { held, .. } = &self.state
            && held.expires_at.is_some_and(|at| at <= now)
        {
            // RFC 2131 §4.4.5: stop using the address at once.
            counters.dhcp_leases_expired += 1;
            self.start_over(now);
            return Some(Change::Lost);
        }
        if self.is_send_due || self.deadline.is_none_or(|at| at > now) {
            return None;
        }
        match &mut self.state {
            State::Waiting => {
                self.attempt_started = Some(now);
                self.transaction = self.transactions.next_u32();
                self.state = State::Selecting { sent: 0 };
                self.is_send_due = true;
            }
            State::Requesting { sent, .. } if *sent >= REQUESTS_MAX => self.start_over(now),
            State::Selecting { .. } | State::Requesting { .. } => self.is_send_due = true,
            State::Bound(held) => {
                let held = held.clone();
                self.state = State::Renewing { held, rebinding: false, sent_at: None };
                self.is_send_due = true;
            }
            State::Renewing { held, rebinding, .. } => {
                *rebinding = held.rebind_at.is_some_and(|at| at <= now);
                self.is_send_due = true;
            }
            State::Declining { .. } => {}
        }
        None
    }

    /// Another host has the address.
    pub(crate) fn handle_conflict(
        &mut self,
        now: Instant,
        counters: &mut Counters,
    ) -> Option<Change> {
        let (State::Bound(held) | State::Renewing { held, .. }) = &self.state else { return None };
        self.state = State::Declining { address: held.lease.address, server: held.server };
        self.is_send_due = true;
        self.deadline = None;
        self.attempt_started = Some(now);
        counters.dhcp_declined += 1;
        Some(Change::Lost)
    }

    /// Takes a datagram from the server's port to the client's.
    pub(crate) fn handle_message(
        &mut self,
        now: Instant,
        payload: &[u8],
        counters: &mut Counters,
    ) -> Option<Change> {
        let outcome = Reply::parse(payload)
            .filter(|reply| reply.transaction == self.transaction && reply.client == self.mac)
            .and_then(|reply| self.handle_reply(now, &reply));
        match outcome {
            Some(change) => {
                counters.dhcp_received += 1;
                change
            }
            None => {
                counters.dropped_dhcp += 1;
                None
            }
        }
    }

    /// Acts on a reply to our transaction; `None` if it is not one that we wait for.
    fn handle_reply(&mut self, now: Instant, reply: &Reply) -> Option<Option<Change>> {
        match (&mut self.state, reply.message_type) {
            (State::Selecting { sent }, MessageType::Offer) if *sent > 0 => {
                let server = reply.server.filter(|server| is_host_address(*server))?;
                read_lease(reply)?;
                let address = reply.address;
                self.state = State::Requesting { address, server, sent: 0, sent_at: None };
                self.is_send_due = true;
                Some(None)
            }
            // RFC 2131 §4.4.1: only the chosen server's answer counts.
            (State::Requesting { server, .. }, MessageType::Nak)
                if reply.server == Some(*server) =>
            {
                self.start_over(now);
                Some(None)
            }
            (
                State::Requesting { address, server, sent_at: Some(sent_at), .. },
                MessageType::Ack,
            ) if reply.server == Some(*server) && reply.address == *address => {
                let (server, sent_at) = (*server, *sent_at);
                self.bind(reply, server, sent_at)
            }
            (State::Renewing { held, rebinding, sent_at: Some(sent_at) }, kind) => {
                // Renewing asks one server; rebinding any, and the one that answers is adopted.
                let server = reply.server.unwrap_or(held.server);
                if (!*rebinding && server != held.server) || !is_host_address(server) {
                    return None;
                }
                match kind {
                    MessageType::Ack if reply.address == held.lease.address => {
                        let sent_at = *sent_at;
                        self.bind(reply, server, sent_at)
                    }
                    MessageType::Nak => {
                        self.start_over(now);
                        Some(Some(Change::Lost))
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Takes the lease of an ACK to a REQUEST that was sent at `sent_at`, from which it counts (RFC
    /// 2131 §4.4.5).
    fn bind(
        &mut self,
        reply: &Reply,
        server: Ipv4Addr,
        sent_at: Instant,
    ) -> Option<Option<Change>> {
        let lease = read_lease(reply)?;
        let seconds = reply.lease_time?;
        let (mut renew_at, mut rebind_at, mut expires_at) = (None, None, None);
        if seconds != LEASE_INFINITE {
            let whole = Duration::from_secs(u64::from(seconds));
            let (t1, t2) = timers(whole, reply.renewal_time, reply.rebinding_time);
            renew_at = Some(sent_at + t1);
            rebind_at = Some(sent_at + t2);
            expires_at = Some(sent_at + whole);
        }
        self.state = State::Bound(Held { lease: lease.clone(), server, rebind_at, expires_at });
        self.is_send_due = false;
        self.deadline = renew_at;
        Some(Some(Change::Bound(lease)))
    }

    /// Takes the message that is due, and counts its time from now: the device has a buffer for it.
    pub(crate) fn poll_transmit(
        &mut self,
        now: Instant,
        counters: &mut Counters,
    ) -> Option<Message> {
        if !core::mem::take(&mut self.is_send_due) {
            return None;
        }
        let started = self.attempt_started.unwrap_or(now);
        let seconds = now.saturating_since(started).as_secs().min(0xffff) as u16;
        if let State::Renewing { sent_at: Some(_), .. } = self.state {
            // Each REQUEST of a renewal is a transaction of its own, so that it is known which one
            // is answered, and from when the lease counts.
            self.transaction = self.transactions.next_u32();
        }
        let mut request = Request {
            message_type: MessageType::Request,
            transaction: self.transaction,
            seconds,
            client: self.mac,
            address: None,
            requested: None,
            server: None,
            host_name: None,
            message_len_max: self.message_len_max,
        };
        let (mut source, mut destination) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
        let mut sent_so_far = None;
        match &mut self.state {
            State::Waiting | State::Bound(_) => return None,
            State::Selecting { sent } => {
                request.message_type = MessageType::Discover;
                *sent = sent.saturating_add(1);
                sent_so_far = Some(*sent);
            }
            State::Requesting { address, server, sent, sent_at } => {
                request.requested = Some(*address);
                request.server = Some(*server);
                *sent += 1;
                sent_at.get_or_insert(now);
                sent_so_far = Some(*sent);
            }
            State::Renewing { held, rebinding, sent_at } => {
                // RFC 2131 §4.3.2: the address in `ciaddr`, no option 50 and 54.
                request.address = Some(held.lease.address);
                request.seconds = 0;
                source = held.lease.address;
                if !*rebinding {
                    destination = held.server;
                }
                *sent_at = Some(now);
                // RFC 2131 §4.4.5: again after half of the time that remains.
                let end = if *rebinding { held.expires_at } else { held.rebind_at };
                let end = end.unwrap_or(now);
                let half = end.saturating_since(now) / 2;
                let again = now + half.max(RENEW_INTERVAL_MIN);
                // The turn to the other servers comes when it comes.
                self.deadline = Some(if *rebinding { again } else { again.min(end.max(now)) });
                if !*rebinding && end <= now {
                    self.deadline = Some(now + RENEW_INTERVAL_MIN);
                }
            }
            State::Declining { address, server } => {
                request.message_type = MessageType::Decline;
                request.requested = Some(*address);
                request.server = Some(*server);
                request.seconds = 0;
            }
        }
        request.host_name = self.host_name.as_deref();
        let payload = request.to_bytes();
        counters.dhcp_sent += 1;
        if let Some(sent) = sent_so_far {
            self.deadline = Some(now + self.retry_delay(sent));
        }
        if let State::Declining { .. } = self.state {
            self.attempt_started = Some(now);
            self.start_over(now);
        }
        Some(Message { source, destination, payload })
    }
}

/// T1 and T2 of a lease of length `whole`, made to make sense: 0 < T1 < T2 < lease (RFC 2131
/// §4.4.5, which has the defaults).
fn timers(whole: Duration, t1: Option<u32>, t2: Option<u32>) -> (Duration, Duration) {
    let given = |seconds: Option<u32>| {
        seconds
            .map(|seconds| Duration::from_secs(u64::from(seconds)))
            .filter(|time| !time.is_zero())
    };
    let t2 = given(t2).filter(|t2| *t2 < whole).unwrap_or(whole * 7 / 8);
    let t1 = given(t1).filter(|t1| *t1 < t2).unwrap_or_else(|| (whole / 2).min(t2 * 4 / 7));
    (t1, t2)
}

/// The lease of an OFFER or ACK; `None` if no host can have its address, or it ends at once.
fn read_lease(reply: &Reply) -> Option<Lease> {
    if reply.lease_time? == 0 {
        return None;
    }
    let mask = reply.subnet_mask.unwrap_or_else(|| classful_mask(reply.address)).to_bits();
    // Ones, then zeros.
    if mask.leading_ones() + mask.trailing_zeros() < 32 || mask == 0 {
        return None;
    }
    let mut lease = Lease {
        address: reply.address,
        prefix_len: mask.leading_ones() as u8,
        gateway: None,
        dns: reply.name_servers.iter().copied().filter(|server| is_host_address(*server)).collect(),
    };
    check_addresses(&lease).ok()?;
    for router in &reply.routers {
        lease.gateway = Some(*router);
        if check_addresses(&lease).is_ok() {
            return Some(lease);
        }
    }
    // A router that cannot be reached is none.
    lease.gateway = None;
    Some(lease)
}

/// The mask of an address whose server names none (RFC 950 §2.1).
fn classful_mask(address: Ipv4Addr) -> Ipv4Addr {
    match address.octets()[0] {
        0..=127 => Ipv4Addr::new(255, 0, 0, 0),
        128..=191 => Ipv4Addr::new(255, 255, 0, 0),
        _ => Ipv4Addr::new(255, 255, 255, 0),
    }
}

#[cfg(test)]
mod tests;
