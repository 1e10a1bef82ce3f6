//! The list of sockets: what Linux's `ss` shows.

use super::Tcp;
use crate::time::Instant;
use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;

/// The states of RFC 9293 §3.3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "RFC 9293 §3.3.2 describes each")]
pub enum SocketState {
    Listen,
    SynSent,
    SynReceived,
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
    /// Over, but the program holds it still.
    Closed,
}

impl SocketState {
    /// The state's name in the RFC.
    pub const fn name(self) -> &'static str {
        match self {
            SocketState::Listen => "LISTEN",
            SocketState::SynSent => "SYN-SENT",
            SocketState::SynReceived => "SYN-RECEIVED",
            SocketState::Established => "ESTABLISHED",
            SocketState::FinWait1 => "FIN-WAIT-1",
            SocketState::FinWait2 => "FIN-WAIT-2",
            SocketState::CloseWait => "CLOSE-WAIT",
            SocketState::Closing => "CLOSING",
            SocketState::LastAck => "LAST-ACK",
            SocketState::TimeWait => "TIME-WAIT",
            SocketState::Closed => "CLOSED",
        }
    }
}

impl fmt::Display for SocketState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Who holds a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SocketOwner {
    /// The program.
    Program,
    /// A listener: the program has not accepted it yet.
    Listener,
    /// Nobody: it was released, and closes by itself.
    Nobody,
}

impl SocketOwner {
    /// In a word.
    pub const fn name(self) -> &'static str {
        match self {
            SocketOwner::Program => "program",
            SocketOwner::Listener => "listener",
            SocketOwner::Nobody => "nobody",
        }
    }
}

/// A TCP socket as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketInfo {
    /// Its state.
    pub state: SocketState,
    /// Its own address.
    pub local: SocketAddr,
    /// The peer's; `None` for a listening socket.
    pub remote: Option<SocketAddr>,
    /// Who holds it.
    pub owner: SocketOwner,
    /// Bytes received in order that the program has not read; of a listening socket, connections
    /// that wait to be accepted.
    pub receive_queue: usize,
    /// Bytes written that the peer has not acknowledged; of a listening socket, connections that may
    /// wait to be accepted.
    pub send_queue: usize,
    /// How long the connection has existed; `None` for a listening socket and in TIME-WAIT.
    pub age: Option<Duration>,
    /// How it fares; `None` without a whole connection.
    pub traffic: Option<Traffic>,
}

/// How a connection fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes sent and not acknowledged, SYN and FIN counted.
    pub in_flight_bytes: u32,
    /// cwnd.
    pub congestion_window_bytes: u32,
    /// The window that the peer offers.
    pub send_window_bytes: u32,
    /// The largest segment that may be sent, options included, in bytes.
    pub mss: u16,
    /// SRTT; `None` before the first measurement.
    pub smoothed_round_trip: Option<Duration>,
    /// RTO, with backoff.
    pub retransmission_timeout: Duration,
    /// How often the retransmission timer has expired since the last measurement.
    pub timeouts: u8,
    /// Segments sent again since the connection began.
    pub retransmits: u32,
    /// How long no byte has moved, in either direction or to the program.
    pub idle: Duration,
}

impl Tcp {
    /// At most `max` sockets as they stand: listening sockets, connections, handshakes, TIME-WAIT.
    pub(crate) fn sockets(&self, now: Instant, max: usize) -> Vec<SocketInfo> {
        let bare = |state, local, remote, owner| SocketInfo {
            state,
            local,
            remote,
            owner,
            receive_queue: 0,
            send_queue: 0,
            age: None,
            traffic: None,
        };
        let listeners = self.listeners.iter().map(|listener| SocketInfo {
            receive_queue: listener.queue.len(),
            send_queue: listener.backlog,
            ..bare(SocketState::Listen, listener.local, None, SocketOwner::Program)
        });
        let connections = self.connections.iter().map(|(_, connection)| connection.info(now));
        let half_opens = self.half_opens.iter().map(|(_, entry)| {
            let (local, remote) = (entry.tuple.local_addr(), entry.tuple.remote_addr());
            SocketInfo {
                age: Some(now.saturating_since(entry.began)),
                ..bare(SocketState::SynReceived, local, Some(remote), SocketOwner::Listener)
            }
        });
        let time_waits = self.time_waits.iter().map(|(_, entry)| {
            let (local, remote) = (entry.tuple.local_addr(), entry.tuple.remote_addr());
            bare(SocketState::TimeWait, local, Some(remote), SocketOwner::Nobody)
        });
        listeners.chain(connections).chain(half_opens).chain(time_waits).take(max).collect()
    }
}
