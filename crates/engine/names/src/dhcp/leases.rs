//! [`Leases`]: who has which address until when.

use super::config::Pool;
use core::hash::Hasher;
use core::net::Ipv4Addr;
use core::time::Duration;
use siphasher::sip::SipHasher13;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How long an offer is good for in any case: a client that wants it asks for it at once.
const OFFER_LIFE_MIN: Duration = Duration::from_secs(1);

/// By what a client is known: its identifier (option 61) or its hardware address, with its kind in
/// front (RFC 2131 §4.2). Both tables share it: strangers choose its length.
pub(super) type Client = Arc<[u8]>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Waits for its client's request.
    Offered,
    Bound,
    /// Given back. Its client gets it again as long as nobody else needs it.
    Released,
    /// Its client says that somebody else uses it.
    Declined,
}

#[derive(Debug)]
struct Entry {
    client: Client,
    state: State,
    /// From then on the address is free.
    until: Duration,
}

/// A lease, as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// The client's identifier or hardware address, with its kind in front.
    pub client: Vec<u8>,
    /// How long it has left.
    pub left: Duration,
}

/// All addresses that were ever given. No more than the pools have: what nobody needs any more is
/// remembered for its client until another one needs it.
pub(super) struct Leases {
    key: [u64; 2],
    entries: BTreeMap<Ipv4Addr, Entry>,
    by_client: BTreeMap<Client, Ipv4Addr>,
}

impl Leases {
    pub(super) fn new(key: [u64; 2]) -> Self {
        Leases { key, entries: BTreeMap::new(), by_client: BTreeMap::new() }
    }

    /// The address that a client has, had or was offered.
    pub(super) fn of(&self, client: &Client) -> Option<Ipv4Addr> {
        self.by_client.get(client).copied()
    }

    /// The address that a client has a lease of.
    pub(super) fn bound(&self, now: Duration, client: &Client) -> Option<Ipv4Addr> {
        let address = self.of(client)?;
        let entry = self.entries.get(&address)?;
        (entry.state == State::Bound && entry.until > now).then_some(address)
    }

    /// True if `client` may have `address`: nobody else has it.
    pub(super) fn is_free_for(&self, now: Duration, address: Ipv4Addr, client: &Client) -> bool {
        match self.entries.get(&address) {
            None => true,
            Some(entry) if entry.state == State::Declined => entry.until <= now,
            Some(entry) => entry.client == *client || entry.until <= now,
        }
    }

    /// An address of `pool` that is free; the one that the client would get again, if nobody takes
    /// it meanwhile: who asks a hundred times is offered one address, not a hundred.
    ///
    /// When none is, an offer that its client has had time to take makes way: then whoever invents
    /// clients and takes nothing keeps nobody out.
    pub(super) fn find(
        &self,
        now: Duration,
        pool: &Pool,
        client: &Client,
        offer_hold: Duration,
    ) -> Option<Ipv4Addr> {
        let mut hasher = SipHasher13::new_with_keys(self.key[0], self.key[1]);
        hasher.write(client);
        let len = pool.len();
        let start = (hasher.finish() % u64::from(len)) as u32;
        let addresses =
            (0..len).map(|step| Ipv4Addr::from_bits(pool.first.to_bits() + (start + step) % len));
        // Rather one that was never given than one whose owner may come back; of these the one that
        // was left first.
        let mut oldest: Option<(Duration, Ipv4Addr)> = None;
        let neglected_until = now + offer_hold.saturating_sub(OFFER_LIFE_MIN);
        for address in addresses {
            match self.entries.get(&address) {
                None => return Some(address),
                Some(entry)
                    if entry.until <= now
                        || entry.state == State::Offered && entry.until <= neglected_until =>
                {
                    if oldest.is_none_or(|(until, _)| entry.until < until) {
                        oldest = Some((entry.until, address));
                    }
                }
                Some(_) => {}
            }
        }
        oldest.map(|(_, address)| address)
    }

    /// Notes what an address is, and forgets what its client had before.
    pub(super) fn set(
        &mut self,
        address: Ipv4Addr,
        client: &Client,
        state: State,
        until: Duration,
    ) {
        if let Some(old) = self.of(client).filter(|old| *old != address) {
            self.entries.remove(&old);
        }
        // The one that is kept already, so that there are not two.
        let known = self.by_client.get_key_value(client).map(|(known, _)| Client::clone(known));
        let client = known.unwrap_or_else(|| Client::clone(client));
        let entry = Entry { client: Client::clone(&client), state, until };
        if let Some(old) = self.entries.insert(address, entry)
            && old.client != client
            && self.by_client.get(&old.client) == Some(&address)
        {
            self.by_client.remove(&old.client);
        }
        self.by_client.insert(client, address);
    }

    /// Withdraws what is offered to a client, who takes another server's.
    pub(super) fn withdraw(&mut self, client: &Client) {
        let offered = self.of(client).filter(|address| {
            self.entries.get(address).is_some_and(|entry| entry.state == State::Offered)
        });
        if let Some(address) = offered {
            self.entries.remove(&address);
            self.by_client.remove(client);
        }
    }

    /// Takes an address from its client: it is somebody else's, who does not ask us.
    pub(super) fn decline(&mut self, address: Ipv4Addr, client: &Client, until: Duration) {
        self.by_client.remove(client);
        let entry = Entry { client: Client::default(), state: State::Declined, until };
        self.entries.insert(address, entry);
    }

    /// Addresses that nobody may have though nobody has them.
    pub(super) fn declined(&self, now: Duration) -> usize {
        let is_declined = |entry: &&Entry| entry.state == State::Declined && entry.until > now;
        self.entries.values().filter(is_declined).count()
    }

    /// What is leased.
    pub(super) fn iter(&self, now: Duration) -> impl Iterator<Item = Lease> {
        self.entries
            .iter()
            .filter(move |(_, entry)| entry.state == State::Bound && entry.until > now)
            .map(move |(address, entry)| Lease {
                address: *address,
                client: entry.client.to_vec(),
                left: entry.until - now,
            })
    }

    /// Addresses and clients that are remembered.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.entries.len(), self.by_client.len())
    }
}
