//! Network interfaces of both ends, each a [`Nic`](fata_device::Nic): [`Netfront`], what a guest
//! uses, and [`Netback`], what serves another guest's netfront.
//!
//! The entries and the rules of the rings are `fata_xenbus::ring`'s; here are the pages, the event
//! channels and the hypercalls. What costs on Xen is to leave the guest: a notification, an
//! interrupt, a copy or a grant is a hypercall or worse, each as dear as a thousand bytes copied. So
//! grants are made once and kept, copies go to Xen in batches, and nobody is notified who is awake.

mod back;
mod channel;
mod counters;
mod front;
mod link;
#[cfg(test)]
mod pair;

pub use back::{BackSettings, FrontendNic, NetBackends, Netback, NetbackOptions};
pub use counters::NetCounters;
pub use front::{FrontSettings, NetSlot, Netfront, NetfrontOptions};

use fata_device::{Checksum, IpFamily, Segmentation};
use fata_xenbus::ring::net::{Gso, GsoFamily};

/// The Ethernet header: two addresses and a type.
const ETHERNET_HEADER_BYTES: usize = 14;
/// The MTU of Ethernet, where nothing else is said.
const MTU_DEFAULT: usize = 1500;
/// The least MTU that IPv4 allows (RFC 791).
const MTU_MIN: usize = 68;
const PAGE_BYTES: usize = fata_xenbus::ring::net::PAGE_BYTES;

fn segmentation(gso: Gso) -> Segmentation {
    let family = match gso.family {
        GsoFamily::TcpV4 => IpFamily::V4,
        GsoFamily::TcpV6 => IpFamily::V6,
    };
    Segmentation { family, mss: gso.size }
}

fn gso(segmentation: Segmentation) -> Gso {
    let family = match segmentation.family {
        IpFamily::V4 => GsoFamily::TcpV4,
        IpFamily::V6 => GsoFamily::TcpV6,
    };
    Gso { family, size: segmentation.mss }
}

/// What two flags say of a checksum.
fn checksum(blank: bool, validated: bool) -> Checksum {
    match (blank, validated) {
        (true, _) => Checksum::Blank,
        (false, true) => Checksum::Verified,
        (false, false) => Checksum::Unverified,
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod whole;
