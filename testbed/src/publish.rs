//! Ports of this computer that lead to a guest, when QEMU's user network is the outer network.

use std::net::{SocketAddrV4, TcpListener, UdpSocket};
use std::path::PathBuf;

use crate::error::{Error, Kind, Result};
use crate::host::Testbed;
use crate::qmp;

/// What is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP connections.
    Tcp,
    /// UDP datagrams.
    Udp,
}

/// A port of this computer that leads to a guest, until this is dropped.
#[derive(Debug)]
pub struct Published {
    protocol: Protocol,
    host: SocketAddrV4,
    socket: PathBuf,
    kept: bool,
}

/// How often a free port is looked for, when any will do and others are faster.
const TRIES: u32 = 20;

impl Testbed {
    /// Leads `host`, an address of this computer, to `guest`, an address on the bridge. Port 0 of
    /// this computer is a free one: see [`Published::host`].
    ///
    /// # Errors
    /// When the port is taken, or the outer network is a TAP interface, where guests have
    /// addresses of their own.
    pub fn publish(
        &self,
        protocol: Protocol,
        host: SocketAddrV4,
        guest: SocketAddrV4,
    ) -> Result<Published> {
        if let Some(tap) = &self.host.record.tap {
            let what = format!("{guest} cannot be published: the outer network is {tap}");
            return Err(Error::new(Kind::Usage, what).help(format!("use {guest} itself")));
        }
        let socket = self.host.state.join("qmp");
        let mut refusal = String::new();
        for _ in 0..if host.port() == 0 { TRIES } else { 1 } {
            let host = if host.port() == 0 { free(protocol, host)? } else { host };
            let rule = rule(protocol, host);
            refusal = qmp::monitor(&socket, &format!("hostfwd_add outside {rule}-{guest}"))?;
            if refusal.is_empty() {
                return Ok(Published { protocol, host, socket, kept: false });
            }
        }
        let what = format!("{host} cannot be published: QEMU says {refusal:?}");
        Err(Error::new(Kind::Resource, what).help("is the port taken? port 0 means a free one"))
    }
}

impl Published {
    /// The address of this computer.
    pub fn host(&self) -> SocketAddrV4 {
        self.host
    }

    /// Leaves it there as long as the host runs.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        if !self.kept {
            let rule = rule(self.protocol, self.host);
            // When the host is gone, so is the port.
            let _ = qmp::monitor(&self.socket, &format!("hostfwd_remove outside {rule}"));
        }
    }
}

/// QEMU's words for one side of a forwarding.
fn rule(protocol: Protocol, host: SocketAddrV4) -> String {
    let protocol = match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    format!("{protocol}:{}:{}", host.ip(), host.port())
}

/// A port that nobody has at this moment.
fn free(protocol: Protocol, host: SocketAddrV4) -> Result<SocketAddrV4> {
    let bound = match protocol {
        Protocol::Tcp => TcpListener::bind(host).and_then(|listener| listener.local_addr()),
        Protocol::Udp => UdpSocket::bind(host).and_then(|socket| socket.local_addr()),
    };
    let address =
        bound.map_err(|error| Error::io(format!("find a free port of {host}"), &error))?;
    Ok(SocketAddrV4::new(*host.ip(), address.port()))
}
