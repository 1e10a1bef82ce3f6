//! What an idle connection holds.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use fata_tcpip::{Engine, FrameChecksum, Instant, Limits};

use crate::fata;
use crate::host::FRAME_BYTES_MAX;
use crate::link::{CLIENT, SERVER};
use crate::table::Report;

/// Connections that are opened.
const CONNECTIONS: usize = 100_000;
/// The server listens on so many ports: a client has some 16,000 for each.
const PORTS: usize = 10;

fn host(address: Ipv4Addr) -> Engine {
    let limits = Limits {
        tcp_connections: CONNECTIONS,
        tcp_accept_backlog: CONNECTIONS,
        ..Limits::default()
    };
    fata::engine(address, limits)
}

/// Resident memory of this process, in bytes.
fn resident_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.context("no VmRSS in /proc/self/status")? * 1024)
}

/// Measures in a process of its own, whose memory nothing else has used before.
pub(crate) fn measure(report: &mut Report) -> Result<()> {
    let program = std::env::current_exe().context("where this program is")?;
    let output = Command::new(program)
        .args(["--once", "fata", "idle", "0", "0"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start a process of our own")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let held = text.trim().parse().with_context(|| format!("no figure: {text}"))?;
    let name = format!("memory of an idle connection, of {CONNECTIONS}");
    report.add(&name, "bytes", false, vec![held], Vec::new());
    Ok(())
}

/// Opens [`CONNECTIONS`], sends a byte each way on each of them, asks the host's kernel what that
/// took, and prints it. Both ends are in this process, so each counts.
pub(crate) fn once() -> Result<()> {
    let before = resident_bytes()?;
    let (mut client, mut server) = (host(CLIENT), host(SERVER));
    let mut now = Instant::from_millis(1);
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let ports = 8000..8000 + PORTS as u16;
    let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let listeners: Vec<_> = ports
        .clone()
        .map(|port| server.tcp_listen(any(port), CONNECTIONS).expect("a free port"))
        .collect();
    for number in 0..CONNECTIONS {
        let which = number % PORTS;
        let remote = SocketAddr::from((SERVER, ports.start + which as u16));
        let outgoing = client.tcp_connect(now, remote).context("connecting")?;
        settle(&mut client, &mut server, now, &mut buffer);
        let incoming = server.tcp_accept(now, listeners[which]).context("accepting")?.connection;
        client.tcp_write(now, outgoing, b"?").context("writing")?;
        settle(&mut client, &mut server, now, &mut buffer);
        server.tcp_read(now, incoming, &mut [0; 8]).context("reading")?;
        server.tcp_write(now, incoming, b"!").context("writing")?;
        settle(&mut client, &mut server, now, &mut buffer);
        client.tcp_read(now, outgoing, &mut [0; 8]).context("reading")?;
        now = Instant::from_nanos(now.as_nanos() + 100_000);
        pass(&mut client, &mut server, now, &mut buffer);
    }
    for _ in 0..1000 {
        now = Instant::from_nanos(now.as_nanos() + 10_000_000);
        pass(&mut client, &mut server, now, &mut buffer);
    }
    let open = client.counters().tcp_connections.min(server.counters().tcp_connections);
    anyhow::ensure!(open == CONNECTIONS as u64, "only {open} connections are open");
    let held = resident_bytes()?.saturating_sub(before) as f64 / (2 * CONNECTIONS) as f64;
    println!("{held:.0}");
    Ok(())
}

fn pass(client: &mut Engine, server: &mut Engine, now: Instant, buffer: &mut [u8]) {
    for engine in [&mut *client, &mut *server] {
        if engine.poll_timeout().is_some_and(|deadline| deadline <= now) {
            engine.handle_timeout(now);
        }
        while engine.poll_event().is_some() {}
    }
    settle(client, server, now, buffer);
}

fn settle(client: &mut Engine, server: &mut Engine, now: Instant, buffer: &mut [u8]) {
    loop {
        let mut is_idle = true;
        for _ in 0..2 {
            while let Some(sent) = client.poll_transmit(now, buffer) {
                server.handle_frame(now, &buffer[..sent.len], FrameChecksum::Unverified);
                is_idle = false;
            }
            core::mem::swap(client, server);
        }
        if is_idle {
            return;
        }
    }
}
