//! Drivers for Xen's devices, both ends of each.
//!
//! Everything begins with [`Xen::start`], which connects to XenStore, the tree of keys in which
//! domains find each other's devices. From there:
//!
//! | room | what it is |
//! |---|---|
//! | [`block`] | blkfront and blkback: disks |
//! | [`net`] | netfront and netback: interfaces |
//! | [`store`] | XenStore: read, write, list, watch, transactions |
//! | [`vchan`] | streams of bytes to other guests |
//! | [`console`] | the console that `xl console` shows |
//! | [`control`] | what the host asks of the guest: to end, to suspend, to need less memory |
//! | [`net`] | network interfaces, both ends |
//! | [`block`] | disks, both ends |
//! | [`vchan`] | streams of bytes to a neighbour |
//! | `xenbus` | carries out the handshakes of all devices |
//!
//! The rules of what is said between domains are `fata_xenbus`'s, the hypervisor is
//! `fata_hypercall`'s; here one meets the other.
#![forbid(unsafe_code)]

pub mod block;
pub mod console;
pub mod control;
mod error;
pub mod memory;
pub mod net;
#[cfg(test)]
mod simulation;
pub mod store;
pub mod vchan;
mod xenbus;

pub use block::{Blkfront, BlockBackends, BlockSlot};
pub use console::Console;
pub use control::{Balloon, ShutdownRequest, ShutdownRequests};
pub use error::XenError;
pub use net::{NetBackends, NetSlot, Netback, Netfront};
pub use store::{Store, Transaction, Watch};
pub use vchan::{Vchan, VchanOptions};

use core::fmt;
use core::future::Future;
use fata_hypercall::{Hypervisor, Suspended};
use std::sync::{Arc, Mutex, PoisonError};

/// A guest of Xen's. Clones are the same guest.
#[derive(Clone)]
pub struct Xen {
    inner: Arc<Inner>,
}

struct Inner {
    hypervisor: Hypervisor,
    store: Store,
    /// The console, once it was asked for.
    console: Mutex<Option<Console>>,
}

impl Xen {
    /// Connects to XenStore. The future is to be spawned as a task: it hands out XenStore's answers,
    /// and nothing that waits for one goes on without it.
    ///
    /// # Errors
    /// [`XenError::NoPage`]: the tools gave this guest no XenStore, or it was taken before.
    pub fn start(
        hypervisor: Hypervisor,
    ) -> Result<(Xen, impl Future<Output = ()> + Send + use<>), XenError> {
        let (page, event) = hypervisor.store_page().ok_or(XenError::NoPage("XenStore"))?;
        let store = Store::new(page, event);
        let task = store.clone().serve();
        let inner = Inner { hypervisor, store, console: Mutex::new(None) };
        Ok((Xen { inner: Arc::new(inner) }, task))
    }

    /// XenStore.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The hypervisor.
    pub fn hypervisor(&self) -> &Hypervisor {
        &self.inner.hypervisor
    }

    /// The console. The future is to be spawned as a task: it passes on what did not fit at once.
    /// Without it, output beyond the ring's 2048 bytes waits for the next write, and nobody who
    /// waits for input is woken.
    ///
    /// # Errors
    /// [`XenError::NoPage`]: the tools gave this guest no console, or it was taken before.
    pub fn console(&self) -> Result<(Console, impl Future<Output = ()> + Send + use<>), XenError> {
        let page = self.inner.hypervisor.console_page();
        let (page, event) = page.ok_or(XenError::NoPage("the console"))?;
        let console = Console::new(page, event);
        *self.lock_console() = Some(console.clone());
        let task = console.clone().serve();
        Ok((console, task))
    }

    /// Suspends the machine, as [`ShutdownRequest::Suspend`] asks, and returns when it goes on. In
    /// this order: devices give up their rings; nothing new is asked of XenStore and all is
    /// answered; the machine stops; it goes on, perhaps on another host; XenStore and the console
    /// are connected to again; every device begins its handshake anew.
    ///
    /// # Errors
    /// XenStore does not answer, something is open that is no device of this crate's, or Xen
    /// refuses: the machine was not suspended. Devices connect again all the same.
    pub async fn suspend(&self) -> Result<Suspended, XenError> {
        let suspend = || {
            let outcome = self.inner.hypervisor.suspend();
            let connection = outcome.is_ok().then(|| self.inner.hypervisor.store_page());
            if outcome.is_ok()
                && let Some(console) = &*self.lock_console()
            {
                console.reconnect(self.inner.hypervisor.console_page());
            }
            (outcome, connection)
        };
        Ok(self.inner.store.around_suspension(suspend).await??)
    }

    fn lock_console(&self) -> std::sync::MutexGuard<'_, Option<Console>> {
        self.inner.console.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Xen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Xen").field("hypervisor", &self.inner.hypervisor).finish_non_exhaustive()
    }
}
