//! [`Interface`]: a network interface as programs hold it.

use core::task::{Context, Poll};
use fata_device::{MacAddress, Nic, NicError, Offloads, Received, Transmit};
use std::fmt;

/// A network interface that moves whole Ethernet frames: for programs that are a switch, a router
/// or a firewall. Programs that want TCP or UDP take a [`Stack`](crate::Stack) instead.
///
/// Its methods are those of the trait [`fata_device::Nic`], which says who owns which buffer and
/// who wakes whom. On Xen it is netfront, in QEMU a virtio card, on Unix a TAP interface.
pub struct Interface {
    nic: Box<dyn Nic>,
}

impl Interface {
    /// Wraps a driver; for wirings and tests, which are who can have one.
    pub fn new(nic: impl Nic) -> Self {
        Interface { nic: Box::new(nic) }
    }
}

impl Nic for Interface {
    fn mac(&self) -> MacAddress {
        self.nic.mac()
    }

    fn mtu(&self) -> usize {
        self.nic.mtu()
    }

    fn offloads(&self) -> Offloads {
        self.nic.offloads()
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        consume: &mut dyn FnMut(&mut [u8], Received),
    ) -> Poll<Result<(), NicError>> {
        self.nic.poll_receive(cx, consume)
    }

    fn poll_transmit(
        &mut self,
        cx: &mut Context<'_>,
        fill: &mut dyn FnMut(&mut [u8]) -> Option<Transmit>,
    ) -> Poll<Result<bool, NicError>> {
        self.nic.poll_transmit(cx, fill)
    }

    fn flush(&mut self) -> Result<(), NicError> {
        self.nic.flush()
    }
}

impl fmt::Debug for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Interface({})", self.mac())
    }
}
