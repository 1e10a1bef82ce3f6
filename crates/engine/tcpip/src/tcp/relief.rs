//! Who gives way when others are refused what all connections share.

use super::Tcp;
use crate::error::TcpError;
use crate::time::Instant;
use core::time::Duration;

/// When memory is short, a connection that has given back next to nothing of its own for so long may
/// have to go.
const STALLED_AFTER: Duration = Duration::from_secs(10);

/// How often, at most, such a connection is looked for: it takes a look at all of them.
const RELIEF_INTERVAL: Duration = Duration::from_secs(1);

impl Tcp {
    /// A range of out-of-order data was refused: the connection that has most of them gives up half.
    /// It may have got them when there was room for all, and hold them for ever.
    pub(super) fn relieve_ranges(&mut self, now: Instant) {
        let is_too_soon =
            self.ranges_relieved_at.is_some_and(|at| now.saturating_since(at) < RELIEF_INTERVAL);
        if is_too_soon {
            return;
        }
        self.ranges_relieved_at = Some(now);
        let hoarder = self.connections.iter().max_by_key(|(_, c)| c.range_count());
        if let Some(index) = hoarder.map(|(index, _)| index)
            && let Some(connection) = self.connections.get_mut(index)
        {
            let shed = connection.shed_ranges(&mut self.shared);
            self.shared.counters.tcp_out_of_order_shed += shed as u64;
        }
    }

    /// Memory was refused: resets the connection that has held some for longest without giving a
    /// part of it back (`Connection::freed_at`), if that is long. Peers that never read, or a byte
    /// now and then, or programs that never do, must not keep everybody else out (RFC 6429 §4; the
    /// attack is known as sockstress). It looks at rates, because a window that is not closed is no
    /// sign of honesty (RFC 9293 §3.8.6.1 protects only who answers probes); but nobody is looked at
    /// who takes memory that nobody else asks for.
    pub(super) fn relieve(&mut self, now: Instant) {
        let is_too_soon =
            self.relieved_at.is_some_and(|at| now.saturating_since(at) < RELIEF_INTERVAL);
        if is_too_soon {
            return;
        }
        self.relieved_at = Some(now);
        let stalled = self
            .connections
            .iter()
            .filter(|(_, c)| c.held_bytes() > 0)
            .filter(|(_, c)| now.saturating_since(c.freed_at) >= STALLED_AFTER)
            .min_by_key(|(_, c)| (c.freed_at, core::cmp::Reverse(c.held_bytes())))
            .map(|(index, _)| index);
        if let Some(index) = stalled
            && let Some(connection) = self.connections.get_mut(index)
        {
            self.shared.counters.tcp_reset_for_memory += 1;
            connection.abort(Some(TcpError::OutOfMemory), &mut self.shared);
            self.settle(now, index);
        }
    }
}
