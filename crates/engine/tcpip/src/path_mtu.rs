//! What the paths to destinations take, as far as it is less than the link does (RFC 1191, RFC
//! 8201): learned from routers' errors about packets that we sent, forgotten after ten minutes, and
//! bounded in number, because errors can be forged.

use crate::secret::Key;
use crate::time::Instant;
use core::time::Duration;
use std::collections::HashMap;
use std::net::IpAddr;

/// How long what an error says is believed (RFC 8201 §5.3, RFC 1191 §6.3).
const AGE_MAX: Duration = Duration::from_secs(600);

/// The least that an error about IPv4 can lower a path's MTU to, in bytes (RFC 5927 §7.2 leaves the
/// number to us): below it, forged errors would cost more than honest ones are worth.
pub(crate) const IPV4_MIN: usize = 552;

/// See the module.
pub(crate) struct PathMtus {
    /// MTU in bytes, and until when it is believed.
    entries: HashMap<IpAddr, (usize, Instant), Key>,
    entries_max: usize,
    /// When the first of them is forgotten, or earlier.
    forget_at: Option<Instant>,
}

impl PathMtus {
    pub(crate) fn new(entries_max: usize, key: Key) -> Self {
        PathMtus { entries: HashMap::with_hasher(key), entries_max, forget_at: None }
    }

    /// The MTU of the path to `destination`, in bytes, if it is less than the link's `link_mtu`.
    pub(crate) fn get(&self, now: Instant, destination: IpAddr, link_mtu: usize) -> usize {
        match self.entries.get(&destination) {
            Some((mtu, until)) if *until > now => (*mtu).min(link_mtu),
            _ => link_mtu,
        }
    }

    /// A router says that packets to `destination` may have `mtu` bytes. Never raises it. True if it
    /// is news.
    pub(crate) fn lower(
        &mut self,
        now: Instant,
        destination: IpAddr,
        mtu: usize,
        link_mtu: usize,
    ) -> bool {
        if mtu >= self.get(now, destination, link_mtu) || self.entries_max == 0 {
            return false;
        }
        if self.entries.len() >= self.entries_max && !self.entries.contains_key(&destination) {
            let oldest = self.entries.iter().min_by_key(|(_, (_, until))| *until);
            if let Some(oldest) = oldest.map(|(destination, _)| *destination) {
                self.entries.remove(&oldest);
            }
        }
        let until = now + AGE_MAX;
        self.entries.insert(destination, (mtu, until));
        self.forget_at.get_or_insert(until);
        true
    }

    pub(crate) const fn poll_timeout(&self) -> Option<Instant> {
        self.forget_at
    }

    /// Forgets what is not believed any more.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.forget_at.is_some_and(|at| at <= now) {
            self.entries.retain(|_, (_, until)| *until > now);
            self.forget_at = self.entries.values().map(|(_, until)| *until).min();
        }
    }

    /// Number of destinations.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::{Keys, Purpose};
    use std::net::Ipv6Addr;

    fn mtus(max: usize) -> PathMtus {
        PathMtus::new(max, Keys::new([1; 32]).key(Purpose::PathMtuTable))
    }

    fn host(number: u16) -> IpAddr {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number).into()
    }

    /// Pitfall P02.
    #[test]
    fn errors_lower_and_never_raise_and_are_forgotten_after_ten_minutes() {
        let mut mtus = mtus(4);
        let at = |seconds: u64| Instant::from_millis(seconds * 1000);
        assert!(mtus.lower(at(0), host(1), 1400, 1500));
        assert!(!mtus.lower(at(1), host(1), 1450, 1500));
        assert!(!mtus.lower(at(1), host(2), 9000, 1500));
        assert_eq!(mtus.get(at(599), host(1), 1500), 1400);
        assert_eq!(mtus.get(at(599), host(1), 1300), 1300, "the link itself may take less");
        assert_eq!(mtus.get(at(600), host(1), 1500), 1500);
        assert_eq!(mtus.get(at(0), host(2), 1500), 1500);
    }

    #[test]
    fn what_is_not_believed_any_more_takes_no_place() {
        let mut mtus = mtus(4);
        let at = |seconds: u64| Instant::from_millis(seconds * 1000);
        assert_eq!(mtus.poll_timeout(), None);
        mtus.lower(at(0), host(1), 1400, 1500);
        mtus.lower(at(10), host(2), 1400, 1500);
        mtus.lower(at(20), host(1), 1300, 1500);
        assert_eq!(mtus.poll_timeout(), Some(at(600)));
        mtus.handle_timeout(at(600));
        assert_eq!((mtus.len(), mtus.poll_timeout()), (2, Some(at(610))));
        mtus.handle_timeout(at(610));
        assert_eq!((mtus.len(), mtus.poll_timeout()), (1, Some(at(620))));
        mtus.handle_timeout(at(620));
        assert_eq!((mtus.len(), mtus.poll_timeout()), (0, None));
    }

    /// Pitfall P05.
    #[test]
    fn forged_errors_fill_no_more_than_the_table() {
        let mut mtus = mtus(16);
        for number in 0..10_000 {
            mtus.lower(Instant::from_millis(u64::from(number)), host(number), 1300, 1500);
            assert!(mtus.len() <= 16);
        }
        assert_eq!(mtus.get(Instant::from_millis(9_999), host(9_999), 1500), 1300);
    }
}
