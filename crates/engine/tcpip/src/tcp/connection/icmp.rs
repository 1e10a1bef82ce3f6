//! What ICMP errors do to a connection (RFC 5927, RFC 9293 §3.9.2.2).

use super::{Connection, State};
use crate::error::{TcpError, Unreachable};
use crate::icmp::IcmpError;
use crate::tcp::{Seq, Shared};
use crate::time::Instant;

impl Connection {
    /// An ICMP error about a segment of ours that starts at `sequence` (RFC 5927, RFC 9293
    /// §3.9.2.2).
    pub(crate) fn on_icmp_error(
        &mut self,
        now: Instant,
        error: IcmpError,
        sequence: Seq,
        shared: &mut Shared,
    ) {
        // RFC 5927 §4.1: only about something that is in flight.
        let is_in_flight = sequence.at_or_after(self.una) && sequence.before(self.max);
        if !is_in_flight || self.is_over() {
            shared.counters.dropped_icmp_unmatched += 1;
            return;
        }
        let unreachable = match error {
            IcmpError::FragmentationNeeded { mtu } => return self.on_too_big(now, mtu, shared),
            IcmpError::NetworkUnreachable => Unreachable::Network,
            IcmpError::HostUnreachable => Unreachable::Host,
            IcmpError::NeighbourUnreachable => Unreachable::Neighbour,
            IcmpError::ProtocolUnreachable => Unreachable::Protocol,
            IcmpError::PortUnreachable => Unreachable::Port,
            IcmpError::Prohibited => Unreachable::Prohibited,
            IcmpError::TimeExceeded | IcmpError::ParameterProblem => return,
        };
        self.soft_error = Some(unreachable);
        // Hard errors end a handshake, and nothing else: an attacker could forge them for a
        // connection that lives (RFC 5927 §5.2).
        let is_hard = matches!(
            error,
            IcmpError::PortUnreachable | IcmpError::ProtocolUnreachable | IcmpError::Prohibited
        );
        if is_hard && self.state == State::SynSent {
            let error = match unreachable {
                Unreachable::Port => TcpError::Refused,
                other => TcpError::Unreachable(other),
            };
            self.end(Some(error), shared);
        }
    }

    /// How far the connection has got in both directions: what is acknowledged, ours and theirs.
    pub(crate) fn progress(&self) -> (Seq, Seq) {
        (self.una, self.receive.acknowledge())
    }

    /// How often in a row the retransmission timer has expired.
    pub(crate) fn unanswered(&self) -> u32 {
        self.rtt.backoff().into()
    }

    /// Segments have at most `mss` bytes, because the path to the peer is known to take no more.
    pub(crate) fn limit_to_path(&mut self, mss: u16) {
        self.mss = self.mss.min(mss);
    }
}
