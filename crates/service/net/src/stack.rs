//! [`Stack`]: what a program opens sockets on.

use crate::driver::Driver;
use crate::error;
use crate::readiness::Readiness;
use crate::resolve::{self, Resolver};
use crate::shared::Shared;
use crate::tcp_listener::TcpListener;
use crate::tcp_stream::TcpStream;
use crate::udp_socket::UdpSocket;
use core::fmt;
use core::task::Poll;
use core::time::Duration;
use fata_device::{Nic, Sockets};
use fata_tcpip::{
    AddressConfig, ConfigError, Counters, Engine, Instant, Ipv6Config, Lease, Limits, MacAddress,
    SocketInfo, StaticRoute,
};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;

/// How long connecting and sending wait for the stack's address: half a minute, in which a DHCP
/// client asks four times (RFC 2131, section 4.1: after 4, 8 and 16 seconds).
const ADDRESS_WAIT: Duration = Duration::from_secs(30);

/// How often [`Stack::drain`] looks: about a round trip on a local network.
const DRAIN_LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// What a stack over a network interface is told once, at its start.
#[derive(Clone)]
pub struct Config {
    /// Where the IPv4 address comes from. Default: DHCP.
    pub address: AddressConfig,
    /// How IPv6 is spoken. Default: with addresses of what routers advertise. What the interface
    /// takes off the stack is filled in from the interface.
    pub ipv6: Ipv6Config,
    /// Ways beside the interface's own subnets and routers. Default: none.
    pub routes: Vec<StaticRoute>,
    /// Randomness from a cryptographic generator, other at each start.
    pub secret: [u8; 32],
    /// Ceilings of what peers and programs can make the stack hold.
    pub limits: Limits,
}

impl Config {
    /// DHCP, IPv6 from routers, and the default limits. `secret` comes from a cryptographic
    /// generator and is another one at each start: sequence numbers and ports are guessable for
    /// whoever knows it.
    pub fn new(secret: [u8; 32]) -> Self {
        Config {
            address: AddressConfig::Dhcp { hostname: None },
            ipv6: Ipv6Config::default(),
            routes: Vec::new(),
            secret,
            limits: Limits::default(),
        }
    }
}

impl fmt::Debug for Config {
    /// All but the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("address", &self.address)
            .field("ipv6", &self.ipv6)
            .field("routes", &self.routes)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Where to listen: a port, on every address of the stack, or an address and a port.
///
/// Port 0 stands for any free one. An unspecified address (`0.0.0.0`, `::`) stands for every
/// address of the stack, of both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindAddress {
    /// `None`: every address of the stack.
    ip: Option<IpAddr>,
    port: u16,
}

impl From<u16> for BindAddress {
    fn from(port: u16) -> Self {
        BindAddress { ip: None, port }
    }
}

impl From<SocketAddr> for BindAddress {
    fn from(address: SocketAddr) -> Self {
        let ip = Some(address.ip()).filter(|ip| !ip.is_unspecified());
        BindAddress { ip, port: address.port() }
    }
}

impl From<SocketAddrV4> for BindAddress {
    fn from(address: SocketAddrV4) -> Self {
        SocketAddr::V4(address).into()
    }
}

impl From<SocketAddrV6> for BindAddress {
    fn from(address: SocketAddrV6) -> Self {
        SocketAddr::V6(address).into()
    }
}

impl<I: Into<IpAddr>> From<(I, u16)> for BindAddress {
    fn from((ip, port): (I, u16)) -> Self {
        SocketAddr::new(ip.into(), port).into()
    }
}

/// A TCP and UDP service: Fata's own stack over a network interface, or the host's sockets. The
/// program cannot tell which. Clones are the same stack.
#[derive(Clone)]
pub struct Stack(Kind, Arc<Resolver>);

#[derive(Clone)]
enum Kind {
    Engine { shared: Arc<Shared>, address: Arc<Readiness> },
    Sockets { sockets: Arc<dyn Sockets>, bind: IpAddr },
}

impl Stack {
    /// Fata's own stack over `nic`. The [`Driver`] must be spawned: without it nothing is sent or
    /// received.
    ///
    /// # Errors
    /// [`ConfigError`], naming the setting.
    pub fn over_nic(nic: Box<dyn Nic>, config: Config) -> Result<(Stack, Driver), ConfigError> {
        let offloads = nic.offloads();
        let config = fata_tcpip::Config {
            mac: MacAddress(nic.mac().0),
            mtu: nic.mtu(),
            address: config.address,
            ipv6: Ipv6Config {
                transmit_checksum_offload: offloads.transmit_checksum_ipv6,
                segmented_frame_bytes_max: if offloads.segmentation_ipv6 {
                    offloads.segmented_frame_bytes_max
                } else {
                    0
                },
                ..config.ipv6
            },
            routes: config.routes,
            secret: config.secret,
            transmit_checksum_offload: offloads.transmit_checksum,
            segmented_frame_bytes_max: if offloads.segmentation_ipv4 {
                offloads.segmented_frame_bytes_max
            } else {
                0
            },
            limits: config.limits,
        };
        let epoch = tokio::time::Instant::now();
        let engine = Engine::new(config, fata_tcpip::Instant::ZERO)?;
        let address = Arc::new(Readiness::default());
        let shared = Arc::new(Shared::new(engine, epoch, Arc::clone(&address)));
        let driver = Driver::new(Arc::clone(&shared), nic);
        Ok((Stack(Kind::Engine { shared, address }, Arc::default()), driver))
    }

    /// A service that exists already, such as the Unix host's. The stack's address is `bind`;
    /// unspecified, it is every address of the host.
    pub fn over_sockets(sockets: Arc<dyn Sockets>, bind: IpAddr) -> Stack {
        Stack(Kind::Sockets { sockets, bind }, Arc::default())
    }

    /// Waits until the stack has an address: at once if it is static and IPv4's, after the first
    /// lease with DHCP; without IPv4, until an address of IPv6 is known to be no one else's.
    ///
    /// # Errors
    /// `NetworkDown` if the network interface failed.
    pub async fn ready(&self) -> io::Result<IpAddr> {
        match &self.0 {
            Kind::Engine { shared, address } => {
                address
                    .wait(|| {
                        let state = shared.lock();
                        match (state.check(), state.engine.address()) {
                            (Err(error), _) => Poll::Ready(Err(error)),
                            (Ok(()), Some(address)) => Poll::Ready(Ok(address)),
                            (Ok(()), None) => Poll::Pending,
                        }
                    })
                    .await
            }
            Kind::Sockets { bind, .. } => Ok(*bind),
        }
    }

    /// Waits while a way to `destination` may still come of what was asked: an address from a DHCP
    /// server, or a router.
    async fn await_way(&self, destination: IpAddr) -> io::Result<()> {
        self.wait_while(|engine, now| engine.awaits_way(now, destination)).await
    }

    /// Waits while a name server may still come of what was asked.
    async fn await_name_server(&self) -> io::Result<()> {
        // Somewhere outside, in either family.
        let outside = [
            IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        ];
        self.wait_while(|engine, now| {
            engine.dns().is_empty()
                && outside.iter().any(|address| engine.awaits_way(now, *address))
        })
        .await
    }

    /// Waits while the engine awaits something, but not for ever.
    async fn wait_while(&self, awaits: impl Fn(&Engine, Instant) -> bool) -> io::Result<()> {
        let Kind::Engine { shared, address } = &self.0 else { return Ok(()) };
        let way = address.wait(|| {
            let now = shared.now();
            let state = shared.lock();
            match state.check() {
                Err(error) => Poll::Ready(Err(error)),
                Ok(()) if awaits(&state.engine, now) => Poll::Pending,
                Ok(()) => Poll::Ready(Ok(())),
            }
        });
        match tokio::time::timeout(ADDRESS_WAIT, way).await {
            Ok(result) => result,
            Err(_) => Err(io::Error::new(
                ErrorKind::NetworkDown,
                format!(
                    "the stack has had no address for {} s: no DHCP server answers",
                    ADDRESS_WAIT.as_secs()
                ),
            )),
        }
    }

    /// The stack's address, once it has one.
    pub fn address(&self) -> Option<IpAddr> {
        match &self.0 {
            Kind::Engine { shared, .. } => shared.lock().engine.address(),
            Kind::Sockets { bind, .. } => Some(*bind),
        }
    }

    /// The IPv6 addresses that the stack uses, with the lengths of their prefixes. Empty over the
    /// host's sockets.
    pub fn ipv6_addresses(&self) -> Vec<(Ipv6Addr, u8)> {
        match &self.0 {
            Kind::Engine { shared, .. } => shared.lock().engine.ipv6_addresses(),
            Kind::Sockets { .. } => Vec::new(),
        }
    }

    /// The name servers that the configuration, a DHCP server and IPv6's routers name. Empty over
    /// the host's sockets.
    pub fn dns(&self) -> Vec<IpAddr> {
        match &self.0 {
            Kind::Engine { shared, .. } => shared.lock().engine.dns(),
            Kind::Sockets { .. } => Vec::new(),
        }
    }

    /// The stack's IPv4 address and what came with it. `None` without an address, and over the host's
    /// sockets.
    pub fn lease(&self) -> Option<Lease> {
        match &self.0 {
            Kind::Engine { shared, .. } => shared.lock().engine.lease(),
            Kind::Sockets { .. } => None,
        }
    }

    /// What the stack counted since its start. All zero over the host's sockets, where the host
    /// counts.
    pub fn counters(&self) -> Counters {
        match &self.0 {
            Kind::Engine { shared, .. } => shared.lock().engine.counters(),
            Kind::Sockets { .. } => Counters::default(),
        }
    }

    /// TCP's sockets as they stand, at most `max` of them: listening sockets, connections, handshakes
    /// of clients, TIME-WAIT. None over the host's sockets, where `ss` shows them.
    pub fn connections(&self, max: usize) -> Vec<SocketInfo> {
        match &self.0 {
            Kind::Engine { shared, .. } => {
                shared.act(|state, now| state.engine.tcp_sockets(now, max))
            }
            Kind::Sockets { .. } => Vec::new(),
        }
    }

    /// Listens for TCP connections on a port (`443`) or an address and a port. Does not wait for
    /// the stack's address.
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`, `PermissionDenied` …, each naming the address.
    pub async fn tcp_listen(&self, address: impl Into<BindAddress>) -> io::Result<TcpListener> {
        let address = address.into();
        match &self.0 {
            Kind::Engine { shared, .. } => {
                TcpListener::over_engine(shared, socket_address(address, UNSPECIFIED))
            }
            Kind::Sockets { sockets, bind } => {
                let listener = sockets.tcp_listen(socket_address(address, *bind)).await?;
                Ok(TcpListener::over_sockets(listener))
            }
        }
    }

    /// Connects to `remote`, after waiting for the stack's address if need be. Dropping the future
    /// gives the attempt up.
    ///
    /// # Errors
    /// `ConnectionRefused`, `TimedOut` (when TCP itself gives up, after minutes),
    /// `HostUnreachable`, `NetworkUnreachable`, `NetworkDown` …, each naming `remote`.
    pub async fn tcp_connect(&self, remote: impl Into<SocketAddr>) -> io::Result<TcpStream> {
        let remote = remote.into();
        match &self.0 {
            Kind::Engine { shared, .. } => {
                self.await_way(remote.ip())
                    .await
                    .map_err(|why| error::cannot_connect(why.kind(), remote, why))?;
                TcpStream::connect(shared, remote).await
            }
            Kind::Sockets { sockets, .. } => {
                Ok(TcpStream::over_sockets(sockets.tcp_connect(remote).await?))
            }
        }
    }

    /// [`tcp_connect`](Stack::tcp_connect) that gives up after `timeout`, with `TimedOut`.
    ///
    /// # Errors
    /// As `tcp_connect`.
    pub async fn tcp_connect_timeout(
        &self,
        remote: impl Into<SocketAddr>,
        timeout: Duration,
    ) -> io::Result<TcpStream> {
        let remote = remote.into();
        match tokio::time::timeout(timeout, self.tcp_connect(remote)).await {
            Ok(result) => result,
            Err(_) => Err(error::cannot_connect(
                ErrorKind::TimedOut,
                remote,
                format_args!("no answer within {timeout:?}"),
            )),
        }
    }

    /// Opens a UDP socket on a port or an address and a port. Does not wait for the stack's
    /// address.
    ///
    /// # Errors
    /// As [`tcp_listen`](Stack::tcp_listen).
    pub async fn udp_bind(&self, address: impl Into<BindAddress>) -> io::Result<UdpSocket> {
        let address = address.into();
        match &self.0 {
            Kind::Engine { shared, .. } => {
                UdpSocket::over_engine(self.clone(), shared, socket_address(address, UNSPECIFIED))
            }
            Kind::Sockets { sockets, bind } => {
                let socket = sockets.udp_bind(socket_address(address, *bind)).await?;
                Ok(UdpSocket::over_sockets(socket))
            }
        }
    }

    /// Notes that `address`, a neighbour's, is at `mac`, so that datagrams go there without asking
    /// for it: for a DHCP server, whose clients do not answer for the address that they are being
    /// given (RFC 2131 §4.1). The entry grows old like any other.
    ///
    /// # Errors
    /// `InvalidInput` if it cannot be a neighbour's, or nothing can be noted; `Unsupported` over the
    /// host's sockets, whose table is the host's.
    pub fn set_neighbour(&self, address: IpAddr, mac: fata_device::MacAddress) -> io::Result<()> {
        let Kind::Engine { shared, .. } = &self.0 else {
            let why = "the host's neighbours are the host's";
            return Err(io::Error::new(ErrorKind::Unsupported, why));
        };
        let is_noted = shared.act(|state, now| {
            state.check()?;
            Ok::<_, io::Error>(state.engine.set_neighbour(now, address, MacAddress(mac.0)))
        })?;
        if is_noted {
            return Ok(());
        }
        let why = format!("{address} at {mac} cannot be a neighbour");
        Err(io::Error::new(ErrorKind::InvalidInput, why))
    }

    /// Waits until the peers have acknowledged what was written, for `patience` at most, and says
    /// whether they have.
    ///
    /// For the end of a program: closing a stream leaves the rest to the stack, and the stack ends
    /// with the program. The host's sockets need no waiting. Data that the program has not read
    /// counts too, so drop the streams first.
    pub async fn drain(&self, patience: Duration) -> bool {
        let Kind::Engine { shared, .. } = &self.0 else { return true };
        let drained = async {
            loop {
                {
                    let state = shared.lock();
                    if state.check().is_err() {
                        return false;
                    }
                    if state.engine.counters().tcp_buffered_bytes == 0 {
                        return true;
                    }
                }
                tokio::time::sleep(DRAIN_LOOK_INTERVAL).await;
            }
        };
        tokio::time::timeout(patience, drained).await.unwrap_or(false)
    }

    pub(crate) fn resolver(&self) -> &Resolver {
        &self.1
    }

    /// The name servers to ask: those that came with the address, which is waited for, or the
    /// host's. At least one.
    pub(crate) async fn name_servers(&self) -> io::Result<Vec<SocketAddr>> {
        self.await_name_server().await?;
        let mut servers: Vec<SocketAddr> = match &self.0 {
            Kind::Engine { .. } => self.dns().into_iter().map(resolve::server).collect(),
            Kind::Sockets { sockets, .. } => sockets.name_servers(),
        };
        servers.retain(|server| !server.ip().is_unspecified());
        if servers.is_empty() {
            let why = "no name server is known: neither DHCP nor the configuration names one";
            return Err(io::Error::new(ErrorKind::NetworkDown, why));
        }
        Ok(servers)
    }

    /// A UDP socket on any port, from which `remote` can be reached.
    pub(crate) async fn udp_bind_towards(&self, remote: SocketAddr) -> io::Result<UdpSocket> {
        match &self.0 {
            // A host's unspecified address is of one family.
            Kind::Sockets { sockets, bind } if bind.is_unspecified() && remote.is_ipv6() => {
                let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
                Ok(UdpSocket::over_sockets(sockets.udp_bind(any).await?))
            }
            _ => self.udp_bind(0).await,
        }
    }

    /// Waits for the stack's address before sending to `destination`.
    pub(crate) async fn ready_to_send(&self, destination: SocketAddr) -> io::Result<()> {
        self.await_way(destination.ip()).await.map_err(|why| {
            io::Error::new(why.kind(), format!("cannot send to {destination}: {why}"))
        })
    }
}

/// Every address of a stack over the engine.
const UNSPECIFIED: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

fn socket_address(address: BindAddress, default: IpAddr) -> SocketAddr {
    SocketAddr::new(address.ip.unwrap_or(default), address.port)
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Engine { .. } => write!(f, "Stack(over a network interface)"),
            Kind::Sockets { bind, .. } => write!(f, "Stack(over the host's sockets on {bind})"),
        }
    }
}
