//! Router: others reach the network through it.
//!
//! On Xen the uplink is netfront, and the clients are the guests whose `vif` names this one as its
//! backend: each gets a subnet of its own, and comes back as a new client when it was restarted.
//! Elsewhere the clients are network cards, or TAP interfaces:
//!
//! ```text
//! fata run examples/router -- --uplink.tap=tap0 --clients.taps=tap1,tap2 --address=192.0.2.2/24
//! fata run examples/router -t virtio --net uplink:tap=tap0 --net clients:tap=tap1 -- --address=192.0.2.2/24
//! ```
//!
//! There is no NAT: whoever is to answer the clients needs a route to `--network`.
#![forbid(unsafe_code)]

use fata::router::{Router, RouterConfig};
use fata::{Argument, Clients, Interface};
use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use tokio::task::JoinSet;

/// Routes IPv4 between its clients and the network.
#[derive(fata::Devices)]
struct Devices {
    /// The way to the network.
    uplink: Interface,
    /// Those who reach it through us.
    clients: Clients,
    /// The router's address on the uplink, and the length of its prefix.
    #[fata(arg)]
    address: Subnet,
    /// The router on the uplink that knows the way to everything else.
    #[fata(arg)]
    gateway: Option<Ipv4Addr>,
    /// What the clients' subnets are taken from: for 10.77.0.0 the first is 10.77.1.0/24, in which
    /// the router is 10.77.1.1.
    #[fata(arg, default = "10.77.0.0")]
    network: Ipv4Addr,
}

/// An address with the length of its prefix.
#[derive(Clone, Copy, Debug)]
struct Subnet {
    address: Ipv4Addr,
    prefix_len: u8,
}

impl Argument for Subnet {
    const TYPE: &'static str = "subnet";

    fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(address, prefix_len)| {
            Some(Subnet { address: address.parse().ok()?, prefix_len: prefix_len.parse().ok()? })
        });
        parts.ok_or_else(|| "expected an address and a prefix such as 192.0.2.2/24".to_string())
    }
}

/// Length of the prefix of a client's subnet.
const CLIENT_PREFIX_LEN: u8 = 24;

/// The router's address in a client's subnet.
fn client_address(network: Ipv4Addr, subnet: u8) -> Ipv4Addr {
    let [first, second, ..] = network.octets();
    Ipv4Addr::new(first, second, subnet, 1)
}

#[fata::main]
async fn main(devices: Devices) -> io::Result<()> {
    let Devices { uplink, mut clients, address, gateway, network } = devices;
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(io::Error::other)?;
    let (router, driver) = Router::new(RouterConfig::new(secret));
    tokio::spawn(driver);
    let uplink =
        router.attach(uplink, address.address, address.prefix_len).map_err(io::Error::other)?;
    if let Some(gateway) = gateway {
        router.add_route(Ipv4Addr::UNSPECIFIED, 0, gateway).map_err(io::Error::other)?;
    }
    println!("the uplink is {}/{}", address.address, address.prefix_len);

    let uplink = uplink.gone();
    tokio::pin!(uplink);
    // Subnets that no client has. A client that comes back finds its own again, if it is alone.
    let mut free: BTreeSet<u8> = (1..=255).collect();
    let mut served = JoinSet::new();
    let mut is_open = true;
    loop {
        tokio::select! {
            error = &mut uplink => return Err(io::Error::other(error)),
            client = clients.accept(), if is_open && !free.is_empty() => {
                let Some(client) = client else {
                    is_open = false;
                    continue;
                };
                let Some(subnet) = free.pop_first() else { continue };
                let ours = client_address(network, subnet);
                match router.attach(client.interface, ours, CLIENT_PREFIX_LEN) {
                    Ok(port) => {
                        println!("{} has the gateway {ours}/{CLIENT_PREFIX_LEN}", client.name);
                        served.spawn(async move { (client.name, subnet, port.gone().await) });
                    }
                    Err(error) => {
                        println!("{} is not served: {error}", client.name);
                        free.insert(subnet);
                    }
                }
            }
            Some(ended) = served.join_next() => {
                let Ok((name, subnet, error)) = ended else { continue };
                println!("{name} is gone: {error}");
                free.insert(subnet);
            }
        }
    }
}
