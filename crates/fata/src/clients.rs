//! [`Clients`]: the interfaces of others, whom a program serves.

use crate::Interface;
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;

/// The other ends of a network that this program provides: for a router, a firewall, a driver
/// domain.
///
/// On Xen, every guest whose configuration names this one as its network backend
/// (`vif = ["backend=NAME"]`) becomes a client, comes back as a new one after it was restarted, and
/// its frames are copied by netback. In QEMU the clients are the network cards that the manifest's
/// other devices leave over, on Unix the TAP interfaces that `--NAME.taps` lists; those never end.
pub struct Clients {
    source: Box<dyn Source>,
}

/// One client.
pub struct Client {
    /// Who it is, for people: `domain 3, interface 0`.
    pub name: String,
    /// Our end of its cable: what we transmit, it receives.
    pub interface: Interface,
}

/// Where clients come from.
pub(crate) trait Source: Send {
    /// The next client, when it has connected; `None` when no more will come.
    fn accept(&mut self) -> Pin<Box<dyn Future<Output = Option<Client>> + Send + '_>>;
}

impl Clients {
    pub(crate) fn new(source: impl Source + 'static) -> Self {
        Clients { source: Box::new(source) }
    }

    /// Waits for the next client. `None` when no more will come, as where clients are a list.
    ///
    /// Nothing is lost when the future is dropped before it is done.
    pub async fn accept(&mut self) -> Option<Client> {
        self.source.accept().await
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clients")
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.name)
    }
}

/// Clients that were all there from the beginning.
#[cfg_attr(fata_target = "xen", expect(dead_code, reason = "on Xen clients come and go"))]
pub(crate) struct Listed(pub(crate) VecDeque<Client>);

impl Source for Listed {
    fn accept(&mut self) -> Pin<Box<dyn Future<Output = Option<Client>> + Send + '_>> {
        Box::pin(std::future::ready(self.0.pop_front()))
    }
}
