//! [`Counters`].

/// What a server did, since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages that came.
    pub received: u64,
    /// Addresses offered.
    pub offers: u64,
    /// Addresses given, or given for longer.
    pub acks: u64,
    /// Requests for what cannot be.
    pub naks: u64,
    /// Clients that found their address taken.
    pub declines: u64,
    /// Clients that gave their address back.
    pub releases: u64,
    /// Clients with an address of their own that asked for the rest.
    pub informs: u64,
    /// Clients that got no offer because no address was free.
    pub dropped_exhausted: u64,
    /// Clients without a lease that came too many at once.
    pub dropped_rate: u64,
    /// Messages that are none, or not a client's.
    pub dropped_malformed: u64,
    /// Messages whose client identifier is longer than 135 bytes.
    pub dropped_client_id: u64,
    /// Messages from a subnet that no pool serves.
    pub dropped_foreign: u64,
    /// Requests that name another server, or a lease that is not known here.
    pub dropped_not_ours: u64,
}

impl Counters {
    /// Each counter with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("received", self.received),
            ("offers", self.offers),
            ("acks", self.acks),
            ("naks", self.naks),
            ("declines", self.declines),
            ("releases", self.releases),
            ("informs", self.informs),
            ("dropped_exhausted", self.dropped_exhausted),
            ("dropped_rate", self.dropped_rate),
            ("dropped_malformed", self.dropped_malformed),
            ("dropped_client_id", self.dropped_client_id),
            ("dropped_foreign", self.dropped_foreign),
            ("dropped_not_ours", self.dropped_not_ours),
        ]
        .into_iter()
    }
}
