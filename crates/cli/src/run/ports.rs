//! Ports of this computer: are they free, and if not, who has them?
//!
//! Asked before QEMU starts, because QEMU says only "could not set up host forwarding rule".

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::path::Path;

use crate::failure::{Exit, Failure, Result};
use crate::run::request::{Protocol, Publish};

/// Checks that the port is free; replaces port 0 by a free one.
///
/// The port is let go again, so that QEMU can take it: between the two somebody else could, which
/// QEMU then reports.
pub(crate) fn reserve(publish: &mut Publish) -> Result<()> {
    let address = SocketAddrV4::new(publish.address, publish.host);
    let bound = match publish.protocol {
        Protocol::Tcp => TcpListener::bind(address).and_then(|socket| socket.local_addr()),
        Protocol::Udp => UdpSocket::bind(address).and_then(|socket| socket.local_addr()),
    };
    match bound {
        Ok(address) => {
            publish.host = address.port();
            Ok(())
        }
        Err(error) => Err(explain(publish, &error)),
    }
}

fn explain(publish: &Publish, error: &std::io::Error) -> Failure {
    let port = publish.host;
    let taken = |what: String| Failure::new(Exit::Resource, what);
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            let by = holder(publish).map_or_else(String::new, |holder| format!(" by {holder}"));
            let free = port.checked_add(1).filter(|next| *next > 1024).unwrap_or(8080);
            taken(format!("port {port} ({publish}) is in use{by}"))
                .help(format!("publish another: {free}:{0}, or 0:{0} for any", publish.guest))
        }
        std::io::ErrorKind::PermissionDenied => {
            taken(format!("port {port} ({publish}) needs the right to use ports below 1024"))
                .help(format!("publish one above: --publish 8{port:03}:{}", publish.guest))
        }
        std::io::ErrorKind::AddrNotAvailable => {
            taken(format!("{} is no address of this computer", publish.address))
                .help("`ip address` lists them; 0.0.0.0 stands for all")
        }
        _ => taken(format!("port {port} ({publish}) cannot be used: {error}")),
    }
}

/// The process that has the port, as far as this user may see.
fn holder(publish: &Publish) -> Option<String> {
    let table = match publish.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let inode = ["", "6"].iter().find_map(|version| {
        let text = std::fs::read_to_string(format!("/proc/net/{table}{version}")).ok()?;
        socket_inode(&text, publish)
    })?;
    let wanted = format!("socket:[{inode}]");
    let processes = std::fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|process| {
        let pid = process.file_name().to_str()?.parse::<u32>().ok()?;
        let has_it = std::fs::read_dir(process.path().join("fd"))
            .ok()?
            .flatten()
            .any(|fd| std::fs::read_link(fd.path()).is_ok_and(|link| link == Path::new(&wanted)));
        has_it.then(|| {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            format!("{} (process {pid})", crate::ui::printable(name.trim()))
        })
    })
}

/// The inode of the socket that listens on the port, in the format of /proc/net/tcp (proc(5)).
fn socket_inode(table: &str, publish: &Publish) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (address, port) = fields.get(1)?.split_once(':')?;
        if u16::from_str_radix(port, 16).ok()? != publish.host {
            return None;
        }
        // 0A is TCP_LISTEN; a UDP socket has no such state.
        if publish.protocol == Protocol::Tcp && *fields.get(3)? != "0A" {
            return None;
        }
        // IPv4 addresses are hexadecimal in the host's byte order; IPv6 ones are taken as "any".
        if address.len() == 8 {
            let bits = u32::from_str_radix(address, 16).ok()?;
            let address = Ipv4Addr::from(bits.to_le_bytes());
            let meets = address == publish.address
                || address.is_unspecified()
                || publish.address.is_unspecified();
            if !meets {
                return None;
            }
        }
        fields.get(9)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_taken_port_is_named_with_its_holder() {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        let mut publish: Publish = format!("{port}:80").parse().unwrap();
        let failure = reserve(&mut publish).unwrap_err();
        assert_eq!(failure.exit, Exit::Resource);
        assert!(failure.what.contains(&port.to_string()), "{failure}");
        let own = format!("(process {})", std::process::id());
        assert!(failure.what.contains(&own), "{failure}");
        drop(socket);
    }

    #[test]
    fn port_zero_becomes_a_free_one() {
        for text in ["0:80", "udp:0:53"] {
            let mut publish: Publish = text.parse().unwrap();
            reserve(&mut publish).unwrap();
            assert_ne!(publish.host, 0);
        }
    }

    #[test]
    fn an_address_of_others_is_refused() {
        // TEST-NET-1 (RFC 5737) is nobody's address.
        let mut publish: Publish = "192.0.2.1:8080:80".parse().unwrap();
        let failure = reserve(&mut publish).unwrap_err();
        assert!(failure.what.contains("no address of this computer"), "{failure}");
    }

    proptest! {
        #[test]
        fn tables_of_any_content_never_panic(text in "[0-9A-F: \n]{0,200}") {
            let publish: Publish = "80:80".parse().unwrap();
            let _ = socket_inode(&text, &publish);
        }
    }
}
