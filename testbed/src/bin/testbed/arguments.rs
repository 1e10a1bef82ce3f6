//! The command line, as clap reads it.

use std::net::SocketAddrV4;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use fata_testbed::{Accelerator, Disk, DiskSource, Vif};

/// A real Xen host in QEMU, made of Debian's packages, and guests for it.
#[derive(Debug, Parser)]
#[command(name = "testbed", version, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// The host's name
    #[arg(short, long, global = true, default_value = "xen")]
    pub(crate) name: String,

    /// Print results as JSON, a value a line
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Say nothing about what is being done
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make and boot a host, and leave it running
    Up(Up),
    /// Run a guest to its end, its console here; on a host of its own when none is up
    Run(Box<Run>),
    /// Run a shell command in dom0
    Exec(Exec),
    /// Show what a guest that runs has said on its console, and what it says from now on; what is
    /// typed here is typed there
    Console {
        /// The guest's name
        guest: String,
    },
    /// Lead a port of this computer to a guest, as long as the host runs
    Publish {
        /// The address here; port 0 means a free one
        #[arg(value_name = "HOST:PORT")]
        host: SocketAddrV4,
        /// The guest's address
        #[arg(value_name = "GUEST:PORT")]
        guest: SocketAddrV4,
        /// UDP instead of TCP
        #[arg(long)]
        udp: bool,
    },
    /// Print Xen's own log: its messages, dom0's, and what guests wrote to port 0xe9
    Log,
    /// List the hosts that are up, and their guests
    Status,
    /// End a host
    Down,
}

/// Options of a host.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Memory of the host in MiB; dom0 and Xen take 484 of it
    #[arg(long, default_value_t = 1280, value_parser = clap::value_parser!(u32).range(640..))]
    pub(crate) host_memory: u32,

    /// Processors of the host; dom0 uses one
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=32))]
    pub(crate) processors: u32,

    /// Emulate (tcg), use nested hardware virtualisation (kvm), or what works (auto)
    #[arg(long, default_value = "auto", value_parser = accelerator)]
    pub(crate) accel: Accelerator,

    /// A TAP interface of this computer that becomes a port of dom0's bridge
    #[arg(long, value_name = "INTERFACE")]
    pub(crate) tap: Option<String>,

    /// The QEMU to start
    #[arg(long, default_value = "qemu-system-x86_64", value_name = "PROGRAM")]
    pub(crate) qemu: PathBuf,
}

/// A guest to run.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Its kernel: an ELF file with a PVH entry
    pub(crate) image: PathBuf,

    /// Its command line
    #[arg(long, default_value = "", value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) cmdline: String,

    /// Its name; one that is free without it
    #[arg(long)]
    pub(crate) guest: Option<String>,

    /// Its initial RAM file system
    #[arg(long, value_name = "FILE")]
    pub(crate) ramdisk: Option<PathBuf>,

    /// Its memory in MiB
    #[arg(long, default_value_t = 32)]
    pub(crate) memory: u64,

    /// A network interface: bridge=NAME or backend=GUEST, and mac=…, mtu=…, script=…, with commas
    /// between; "bridge=xenbr0" when it is empty. Can be given several times
    #[arg(long, value_name = "SPEC", value_parser = vif, num_args = 0..=1, default_missing_value = "")]
    pub(crate) net: Vec<Vif>,

    /// A disk: VDEV=FILE, and ",ro" for one that is only read; VDEV=GUEST:NAME for one that
    /// another guest serves. Can be given several times
    #[arg(long, value_name = "SPEC", value_parser = disk)]
    pub(crate) disk: Vec<Disk>,

    /// It may serve devices to other guests
    #[arg(long)]
    pub(crate) driver_domain: bool,

    /// Ports of this computer that lead to it: HOST:PORT-GUEST:PORT. Can be given several times
    #[arg(long, value_name = "SPEC", value_parser = publish)]
    pub(crate) publish: Vec<(SocketAddrV4, SocketAddrV4)>,

    /// Destroy it after so many seconds; the exit status is then 79
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    pub(crate) timeout: f64,

    #[command(flatten)]
    pub(crate) host: Up,
}

/// A command for dom0.
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Kill it after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    pub(crate) timeout: f64,

    /// The command, for busybox's shell
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

fn accelerator(text: &str) -> Result<Accelerator, String> {
    match text {
        "auto" => Ok(Accelerator::Auto),
        "tcg" => Ok(Accelerator::Tcg),
        "kvm" => Ok(Accelerator::Kvm),
        _ => Err("auto, tcg or kvm".into()),
    }
}

fn publish(text: &str) -> Result<(SocketAddrV4, SocketAddrV4), String> {
    let (host, guest) = text.split_once('-').ok_or("HOST:PORT-GUEST:PORT is needed")?;
    let address = |text: &str| text.parse().map_err(|_| format!("{text:?} is not ADDRESS:PORT"));
    Ok((address(host)?, address(guest)?))
}

fn vif(text: &str) -> Result<Vif, String> {
    let mut vif = Vif::bridge(fata_testbed::BRIDGE);
    for word in text.split(',').filter(|word| !word.is_empty()) {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("{word:?} has no value"))?;
        match key {
            "bridge" => vif.link = fata_testbed::VifLink::Bridge(value.into()),
            "backend" => vif.link = fata_testbed::VifLink::Backend(value.into()),
            "mac" => vif.mac = Some(mac(value)?),
            "mtu" => vif.mtu = Some(value.parse().map_err(|_| format!("{value:?} is no MTU"))?),
            "script" => vif.script = Some(value.into()),
            _ => return Err(format!("{key:?} is none of bridge, backend, mac, mtu, script")),
        }
    }
    Ok(vif)
}

fn mac(text: &str) -> Result<[u8; 6], String> {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).ok().filter(|_| byte.len() == 2))
        .collect();
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| format!("{text:?} is no Ethernet address, as 00:16:3e:00:00:01 is"))
}

fn disk(text: &str) -> Result<Disk, String> {
    let (vdev, rest) = text.split_once('=').ok_or("VDEV=FILE is needed")?;
    let (rest, read_only) = match rest.strip_suffix(",ro") {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    let source = match rest.split_once(':') {
        Some((domain, target)) if fata_testbed::check_name(domain).is_ok() => {
            DiskSource::Backend { domain: domain.into(), target: target.into() }
        }
        _ => DiskSource::File(rest.into()),
    };
    Ok(Disk { vdev: vdev.into(), source, read_only })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }

    #[test]
    fn specifications_are_read() {
        let read = vif("backend=router,mac=00:16:3e:00:00:0a,mtu=1400").unwrap();
        assert_eq!(read.link, fata_testbed::VifLink::Backend("router".into()));
        assert_eq!((read.mac, read.mtu), (Some([0, 0x16, 0x3e, 0, 0, 10]), Some(1400)));
        assert_eq!(vif("").unwrap(), Vif::bridge("xenbr0"));
        assert!(vif("mac=1:2").is_err() && vif("nic=x").is_err());
        let read = disk("xvda=/a/b.img,ro").unwrap();
        assert!(read.read_only && read.source == DiskSource::File("/a/b.img".into()));
        let served = DiskSource::Backend { domain: "disks".into(), target: "one".into() };
        assert_eq!(disk("xvdb=disks:one").unwrap().source, served);
        assert!(disk("xvda").is_err());
        assert!(publish("127.0.0.1:0-10.0.2.50:80").is_ok() && publish("x").is_err());
    }
}
