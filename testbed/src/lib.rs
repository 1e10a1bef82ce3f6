//! A real Xen host that anyone can run.
//!
//! Drivers for a hypervisor are proven on that hypervisor, and hardly anybody has a Xen host at
//! hand. So this crate makes one: a QEMU, emulating if need be, in which Debian's Xen boots with
//! Debian's kernel as its dom0. The packages are fetched by the apt that is there, unpacked, and
//! kept in a cache; nothing is installed, and nobody has to be root.
//!
//! ```no_run
//! use fata_testbed::{Guest, Options, Testbed, Vif};
//! use std::time::Duration;
//!
//! let testbed = Testbed::start(&Options::default(), &mut |step| eprintln!("{step}"))?;
//! let mut guest = Guest::new("hello", "hello.xen");
//! guest.vifs.push(Vif::bridge(fata_testbed::BRIDGE));
//! let domain = testbed.create(&guest)?;
//! let ended = domain.wait(Duration::from_secs(30))?;
//! println!("{}", String::from_utf8_lossy(&domain.console()));
//! # Ok::<(), fata_testbed::Error>(())
//! ```
//!
//! # The network
//!
//! dom0 has a bridge, [`BRIDGE`], with the address [`DOM0_ADDRESS`]. Its ports are the guests'
//! interfaces and a network card of QEMU's, behind which is the outer network: QEMU's user network
//! (10.0.2.0/24, gateway [`GATEWAY`], name server 10.0.2.3, DHCP from 10.0.2.15), into which
//! [`Testbed::publish`] leads ports of this computer; or a TAP interface of the caller's.
//!
//! # Guests
//!
//! A [`Guest`] comes and goes while the host runs, any number side by side. What it says on its
//! console is a stream ([`Domain::console_reader`]); what it says before it has one, on port 0xe9,
//! is in Xen's log ([`Domain::early_output`]). When it ends it is kept until all of that was read,
//! then destroyed: nothing that it said is lost, however it ended.

#![forbid(unsafe_code)]

mod accelerator;
mod cache;
mod capture;
mod check;
mod console;
mod console_file;
mod control;
mod cpio;
mod disks;
mod domain;
mod error;
mod files;
mod guest;
mod host;
mod linux;
mod packages;
mod places;
mod process;
mod publish;
mod qmp;
mod snapshot;
mod system;
mod tools;

pub use accelerator::Accelerator;
pub use capture::{TCPDUMP_LISTENS, TCPDUMP_WORDS, frames_lost};
pub use console::Console;
pub use control::Output;
pub use domain::{ConsoleReader, Domain, Ended, Reason};
pub use error::{Error, Kind, Result};
pub use guest::{
    AtEnd, COMMAND_LINE_BYTES_MAX, ConfigError, Disk, DiskSource, Dom0Paths, Guest, NAME_BYTES_MAX,
    Vif, VifLink, check_name, config_text,
};
pub use host::{BRIDGE, DOM0_ADDRESS, GATEWAY, Options, Testbed, interrupt};
pub use linux::Linux;
pub use publish::{Protocol, Published};
