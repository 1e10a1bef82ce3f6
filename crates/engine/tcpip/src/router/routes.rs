//! [`Routes`]: which way a destination is.

use super::{Port, RouterError};
use std::net::Ipv4Addr;

/// Most static routes: a lookup walks through them.
pub(super) const ROUTES_MAX: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Route {
    network: u32,
    prefix_len: u8,
    gateway: Ipv4Addr,
}

fn mask(prefix_len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix_len)).unwrap_or(0)
}

/// Static routes, longest prefix first.
#[derive(Default)]
pub(super) struct Routes(Vec<Route>);

/// Where a destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    /// The port it is behind.
    pub(super) port: usize,
    /// The neighbour to send to: the destination, or a gateway.
    pub(super) next: Ipv4Addr,
}

/// The port in whose subnet `address` is.
fn connected(ports: &[Option<Port>], address: Ipv4Addr) -> Option<Hop> {
    let is_here =
        |port: &Option<Port>| port.as_ref().is_some_and(|port| port.subnet.is_on_link(address));
    ports.iter().position(is_here).map(|port| Hop { port, next: address })
}

impl Routes {
    pub(super) fn add(
        &mut self,
        network: Ipv4Addr,
        prefix_len: u8,
        gateway: Ipv4Addr,
    ) -> Result<(), RouterError> {
        if prefix_len > 32 || network.to_bits() & !mask(prefix_len) != 0 {
            return Err(RouterError::Route { network, prefix_len });
        }
        self.remove(network, prefix_len);
        if self.0.len() >= ROUTES_MAX {
            return Err(RouterError::TooManyRoutes);
        }
        let at = self.0.partition_point(|route| route.prefix_len > prefix_len);
        self.0.insert(at, Route { network: network.to_bits(), prefix_len, gateway });
        Ok(())
    }

    pub(super) fn remove(&mut self, network: Ipv4Addr, prefix_len: u8) -> bool {
        let before = self.0.len();
        self.0.retain(|route| (route.network, route.prefix_len) != (network.to_bits(), prefix_len));
        self.0.len() < before
    }

    /// The way to `destination`: its own link, or by the route with the longest prefix whose
    /// gateway is on a link.
    pub(super) fn lookup(&self, ports: &[Option<Port>], destination: Ipv4Addr) -> Option<Hop> {
        connected(ports, destination).or_else(|| {
            let leads_there =
                |route: &&Route| destination.to_bits() & mask(route.prefix_len) == route.network;
            self.0.iter().filter(leads_there).find_map(|route| connected(ports, route.gateway))
        })
    }
}
