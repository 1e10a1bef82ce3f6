//! [`Server`]: what is done with each message (RFC 2131 §4.3).

use super::config::{Config, ConfigError, Pool};
use super::counters::Counters;
use super::leases::{Client, Lease, Leases, State};
use super::reply::{Reply, reply};
use super::wire::{Kind, Message};
use core::net::Ipv4Addr;
use core::time::Duration;

/// Part of the pools that clients can make unusable by saying that somebody else uses it.
const DECLINED_SHARE: u32 = 4;

/// The shortest identifier of a client, in bytes (RFC 2132 §9.14). Of a client with a shorter one
/// the hardware address counts.
const CLIENT_ID_MIN: usize = 2;

/// The longest identifier of a client, in bytes: its kind, four bytes for the interface, a DUID (RFC
/// 4361 §6.1), which has a type of two bytes and 128 at most (RFC 8415 §11.1). The option could bring
/// a kilobyte in pieces (RFC 3396), and it is kept as long as nobody else needs the address.
const CLIENT_ID_MAX: usize = 1 + 4 + 2 + 128;

/// A server of addresses. Its leases are in memory: after a restart it takes clients that renew at
/// their word, as long as nobody else has their address.
pub struct Server {
    config: Config,
    leases: Leases,
    counters: Counters,
    /// The time by which all answers to strangers would have been earned (GCRA).
    strangers_earned_at: Duration,
}

impl Server {
    /// A server that starts. `key` is secret and another one at each start: it decides who is given
    /// which address.
    ///
    /// # Errors
    /// [`ConfigError`], naming the setting.
    pub fn new(config: Config, key: [u64; 2]) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Server {
            config,
            leases: Leases::new(key),
            counters: Counters::default(),
            strangers_earned_at: Duration::ZERO,
        })
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What is leased, in the order of the addresses.
    pub fn leases(&self, now: Duration) -> impl Iterator<Item = Lease> {
        self.leases.iter(now)
    }

    /// Takes a message to the server's port, and answers it if it gets an answer.
    pub fn handle(&mut self, now: Duration, bytes: &[u8]) -> Option<Reply> {
        self.counters.received += 1;
        let Some(message) = Message::parse(bytes) else {
            self.counters.dropped_malformed += 1;
            return None;
        };
        let link = match (message.giaddr, message.ciaddr) {
            (relay, _) if !relay.is_unspecified() => relay,
            // A client behind a router that renews speaks for itself.
            (_, own) if !own.is_unspecified() => own,
            _ => self.config.server,
        };
        let Some(pool) = self.config.pools.iter().position(|pool| pool.is_on_link(link)) else {
            self.counters.dropped_foreign += 1;
            return None;
        };
        let Some(client) = client(&message) else {
            self.counters.dropped_client_id += 1;
            return None;
        };
        if self.leases.bound(now, &client).is_none() && !self.admit_stranger(now) {
            self.counters.dropped_rate += 1;
            return None;
        }
        match message.kind {
            Kind::Discover => self.discover(now, &message, client, pool),
            Kind::Request => self.request(now, &message, client, pool),
            Kind::Decline => self.decline(now, &message, &client),
            Kind::Release => self.release(now, &message, &client),
            Kind::Inform => self.inform(&message, pool),
            // Servers' messages, which do not come this far.
            Kind::Offer | Kind::Ack | Kind::Nak => None,
        }
    }

    /// Counts a message of a client that has no lease.
    fn admit_stranger(&mut self, now: Duration) -> bool {
        let interval = Duration::from_secs(1) / self.config.strangers_per_second.max(1);
        let earned_at = self.strangers_earned_at.max(now) + interval;
        let is_admitted = earned_at <= now + Duration::from_secs(1);
        if is_admitted {
            self.strangers_earned_at = earned_at;
        }
        is_admitted
    }

    fn reply(&self, pool: usize, request: &Message, kind: Kind, yours: Ipv4Addr) -> Option<Reply> {
        let pool = self.config.pools.get(pool)?;
        Some(reply(&self.config, pool, request, kind, yours))
    }

    /// RFC 2131 §4.3.1: the client's own address, else the one that it had, else the one that it
    /// asks for, else another.
    fn discover(
        &mut self,
        now: Duration,
        message: &Message,
        client: Client,
        index: usize,
    ) -> Option<Reply> {
        let pool: &Pool = &self.config.pools[index];
        let may_have =
            |it: &Ipv4Addr| pool.contains(*it) && self.leases.is_free_for(now, *it, &client);
        let address = self
            .leases
            .of(&client)
            .filter(may_have)
            .or_else(|| message.requested.filter(may_have))
            .or_else(|| self.leases.find(now, pool, &client, self.config.offer_hold));
        let Some(address) = address else {
            self.counters.dropped_exhausted += 1;
            return None;
        };
        // A lease that it has stays one, whatever becomes of the offer.
        if self.leases.bound(now, &client).is_none() {
            let until = now + self.config.offer_hold;
            self.leases.set(address, &client, State::Offered, until);
        }
        self.counters.offers += 1;
        self.reply(index, message, Kind::Offer, address)
    }

    /// RFC 2131 §4.3.2.
    fn request(
        &mut self,
        now: Duration,
        message: &Message,
        client: Client,
        index: usize,
    ) -> Option<Reply> {
        let known = self.leases.of(&client);
        let (address, must_be_known) = match (message.server, message.requested, message.ciaddr) {
            // SELECTING.
            (Some(server), _, _) if server != self.config.server => {
                self.leases.withdraw(&client);
                self.counters.dropped_not_ours += 1;
                return None;
            }
            (Some(_), Some(address), _) => (address, false),
            // INIT-REBOOT.
            (None, Some(address), own) if own.is_unspecified() => (address, true),
            // RENEWING, REBINDING.
            (None, None, own) if !own.is_unspecified() => (own, false),
            _ => {
                self.counters.dropped_malformed += 1;
                return None;
            }
        };
        let pool = &self.config.pools[index];
        let is_possible = pool.contains(address) && self.leases.is_free_for(now, address, &client);
        // Another server's client may be speaking: what is not known is passed over in silence,
        // unless the address cannot be right for anybody here.
        if must_be_known && known.is_none() && pool.is_on_link(address) {
            self.counters.dropped_not_ours += 1;
            return None;
        }
        let is_its_own = !must_be_known || known == Some(address);
        if !is_possible || !is_its_own {
            self.counters.naks += 1;
            return self.reply(index, message, Kind::Nak, Ipv4Addr::UNSPECIFIED);
        }
        self.leases.set(address, &client, State::Bound, now + self.config.lease);
        self.counters.acks += 1;
        self.reply(index, message, Kind::Ack, address)
    }

    /// RFC 2131 §4.3.3.
    fn decline(&mut self, now: Duration, message: &Message, client: &Client) -> Option<Reply> {
        let address = message.requested.filter(|it| self.leases.of(client) == Some(*it));
        let Some(address) = address else {
            self.counters.dropped_not_ours += 1;
            return None;
        };
        self.counters.declines += 1;
        let total: u32 = self.config.pools.iter().map(Pool::len).sum();
        let is_too_many = self.leases.declined(now) >= (total / DECLINED_SHARE) as usize;
        let hold = if is_too_many { Duration::ZERO } else { self.config.decline_hold };
        self.leases.decline(address, client, now + hold);
        None
    }

    /// RFC 2131 §4.3.4: remembers whom it belonged to.
    fn release(&mut self, now: Duration, message: &Message, client: &Client) -> Option<Reply> {
        if self.leases.bound(now, client) == Some(message.ciaddr) {
            self.counters.releases += 1;
            self.leases.set(message.ciaddr, client, State::Released, now);
        } else {
            self.counters.dropped_not_ours += 1;
        }
        None
    }

    /// RFC 2131 §4.3.5.
    fn inform(&mut self, message: &Message, index: usize) -> Option<Reply> {
        if message.ciaddr.is_unspecified() {
            self.counters.dropped_malformed += 1;
            return None;
        }
        self.counters.informs += 1;
        self.reply(index, message, Kind::Ack, Ipv4Addr::UNSPECIFIED)
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        self.leases.sizes()
    }
}

/// By what a client is known (RFC 2131 §4.2); `None` if its identifier is longer than any may be.
fn client(message: &Message) -> Option<Client> {
    Some(match &message.client_id {
        Some(id) if id.len() > CLIENT_ID_MAX => return None,
        // 0 is no kind of hardware: an identifier is never taken for an address.
        Some(id) if id.len() >= CLIENT_ID_MIN => [&[0], &id[..]].concat().into(),
        _ => [&[message.htype], message.chaddr()].concat().into(),
    })
}
