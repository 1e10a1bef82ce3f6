//! Configured ways: the longest prefix wins, and of several with the same prefix the first whose
//! router answers (RFC 1122 §3.3.1.4).

use crate::config::StaticRoute;
use crate::time::Instant;
use core::time::Duration;
use std::net::IpAddr;

/// How long a router that did not answer is used only if there is no other.
const FAILED_FOR: Duration = Duration::from_secs(60);
/// Silent routers that are remembered; more than anybody has.
const FAILED_MAX: usize = 16;

/// See the module.
pub(crate) struct Routes {
    /// Longest prefix first, else in the order of the configuration.
    list: Vec<StaticRoute>,
    failed: Vec<(IpAddr, Instant)>,
}

/// True if `route` leads to `destination`.
fn leads_to(route: &StaticRoute, destination: IpAddr) -> bool {
    let len = u32::from(route.prefix_len);
    match (route.destination, destination) {
        (IpAddr::V4(prefix), IpAddr::V4(address)) => {
            (prefix.to_bits() ^ address.to_bits()).leading_zeros() >= len.min(32)
        }
        (IpAddr::V6(prefix), IpAddr::V6(address)) => {
            (prefix.to_bits() ^ address.to_bits()).leading_zeros() >= len.min(128)
        }
        _ => false,
    }
}

impl Routes {
    pub(crate) fn new(mut list: Vec<StaticRoute>) -> Self {
        list.sort_by_key(|route| core::cmp::Reverse(route.prefix_len));
        Routes { list, failed: Vec::new() }
    }

    /// A router does not answer.
    pub(crate) fn note_failure(&mut self, now: Instant, gateway: IpAddr) {
        self.failed
            .retain(|(failed, at)| *failed != gateway && now.saturating_since(*at) < FAILED_FOR);
        if self.failed.len() >= FAILED_MAX {
            self.failed.remove(0);
        }
        self.failed.push((gateway, now));
    }

    /// When `gateway` was last found silent, if not long ago.
    fn failure(&self, now: Instant, gateway: IpAddr) -> Option<Instant> {
        let failed = self.failed.iter().find(|(failed, _)| *failed == gateway);
        failed.map(|(_, at)| *at).filter(|at| now.saturating_since(*at) < FAILED_FOR)
    }

    /// The router to `destination`. `default` is one for everything, before the configured ones.
    pub(crate) fn lookup(
        &self,
        now: Instant,
        destination: IpAddr,
        default: Option<IpAddr>,
        is_on_link: impl Fn(IpAddr) -> bool,
    ) -> Option<IpAddr> {
        let configured = self
            .list
            .iter()
            .filter(|route| leads_to(route, destination) && is_on_link(route.gateway))
            .map(|route| (route.prefix_len, route.gateway));
        let default = default.map(|gateway| (0, gateway));
        let ranked = default.into_iter().chain(configured).map(|(prefix_len, gateway)| {
            let failure = self.failure(now, gateway);
            // Of those that are all silent, the one that was found so first.
            ((prefix_len, failure.is_none(), core::cmp::Reverse(failure)), gateway)
        });
        // The first of equals.
        let best = ranked.reduce(|best, other| if other.0 > best.0 { other } else { best });
        best.map(|(_, gateway)| gateway)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(destination: &str, prefix_len: u8, gateway: &str) -> StaticRoute {
        let (destination, gateway) = (destination.parse().unwrap(), gateway.parse().unwrap());
        StaticRoute { destination, prefix_len, gateway }
    }

    #[test]
    fn the_longest_prefix_wins_in_each_family() {
        let routes = Routes::new(vec![
            route("10.0.0.0", 8, "192.0.2.1"),
            route("10.1.0.0", 16, "192.0.2.2"),
            route("2001:db8::", 32, "fe80::1"),
            route("::", 0, "fe80::2"),
        ]);
        let to = |destination: &str, default: Option<&str>| {
            let default = default.map(|default| default.parse().unwrap());
            let found =
                routes.lookup(Instant::ZERO, destination.parse().unwrap(), default, |_| true);
            found.map(|gateway| gateway.to_string())
        };
        assert_eq!(to("10.2.3.4", None).unwrap(), "192.0.2.1");
        assert_eq!(to("10.1.3.4", None).unwrap(), "192.0.2.2");
        assert_eq!(to("11.1.3.4", None), None);
        assert_eq!(to("11.1.3.4", Some("192.0.2.9")).unwrap(), "192.0.2.9");
        assert_eq!(to("2001:db8:5::1", Some("fe80::9")).unwrap(), "fe80::1");
        assert_eq!(to("2001:db9::1", Some("fe80::9")).unwrap(), "fe80::9");
        assert_eq!(to("2001:db9::1", None).unwrap(), "fe80::2");
    }

    #[test]
    fn a_router_off_the_link_leads_nowhere_and_a_silent_one_comes_last() {
        let mut routes =
            Routes::new(vec![route("0.0.0.0", 0, "192.0.2.1"), route("0.0.0.0", 0, "192.0.2.2")]);
        let of = |host| IpAddr::from([192, 0, 2, host]);
        let destination = IpAddr::from([203, 0, 113, 1]);
        let at = |seconds: u64| Instant::from_millis(seconds * 1000);
        let lookup = |routes: &Routes, now| routes.lookup(now, destination, None, |_| true);
        assert_eq!(routes.lookup(at(1), destination, None, |_| false), None);
        assert_eq!(lookup(&routes, at(1)), Some(of(1)));
        routes.note_failure(at(1), of(1));
        assert_eq!(lookup(&routes, at(2)), Some(of(2)));
        routes.note_failure(at(5), of(2));
        assert_eq!(lookup(&routes, at(6)), Some(of(1)), "the one that had longest to recover");
        assert_eq!(lookup(&routes, at(61)), Some(of(1)), "forgiven");
    }
}
