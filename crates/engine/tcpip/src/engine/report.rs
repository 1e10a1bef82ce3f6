//! What a program may ask about all that there is.

use super::Engine;
use crate::tcp::SocketInfo;
use crate::time::Instant;

impl Engine {
    /// TCP's sockets as they stand, at most `max`: listening sockets, connections, handshakes of
    /// clients, and TIME-WAIT. Costs as much as it gives.
    pub fn tcp_sockets(&self, now: Instant, max: usize) -> Vec<SocketInfo> {
        self.tcp.sockets(now, max)
    }
}
