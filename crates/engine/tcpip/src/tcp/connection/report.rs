//! What is told of a connection to whoever lists them.

use super::{Connection, Owner, State};
use crate::tcp::report::{SocketInfo, SocketOwner, SocketState, Traffic};
use crate::time::Instant;

impl Connection {
    /// The connection as it stands.
    pub(crate) fn info(&self, now: Instant) -> SocketInfo {
        SocketInfo {
            state: match self.state {
                State::SynSent => SocketState::SynSent,
                State::SynReceived => SocketState::SynReceived,
                State::Established => SocketState::Established,
                State::FinWait1 => SocketState::FinWait1,
                State::FinWait2 => SocketState::FinWait2,
                State::CloseWait => SocketState::CloseWait,
                State::Closing => SocketState::Closing,
                State::LastAck => SocketState::LastAck,
                // What stays in TIME-WAIT is an entry of its own.
                State::TimeWait | State::Closed => SocketState::Closed,
            },
            local: self.tuple.local_addr(),
            remote: Some(self.tuple.remote_addr()),
            owner: match self.owner {
                Owner::Program => SocketOwner::Program,
                Owner::Queue(_) => SocketOwner::Listener,
                Owner::Nobody => SocketOwner::Nobody,
            },
            receive_queue: self.receive.unread() as usize,
            send_queue: self.send.len() as usize,
            age: Some(now.saturating_since(self.opened_at)),
            traffic: Some(Traffic {
                in_flight_bytes: self.flight(),
                congestion_window_bytes: self.congestion.window(),
                send_window_bytes: self.window,
                mss: self.mss,
                smoothed_round_trip: self.rtt.smoothed(),
                retransmission_timeout: self.rtt.timeout(),
                timeouts: self.rtt.backoff(),
                retransmits: self.retransmits,
                idle: now.saturating_since(self.active_at),
            }),
        }
    }
}
