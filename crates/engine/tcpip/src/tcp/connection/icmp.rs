//! What ICMP errors do to a connection (RFC 5927, RFC 9293 §3.9.2.2).

use super::{Connection, State};
use crate::error::{TcpError, Unreachable};
use crate::icmp::IcmpError;
use crate::tcp::timers::NEVER;
use crate::tcp::{Seq, Shared};

/// The least path MTU that an ICMP error can lower to, in bytes: below it, forged errors would cost
/// more than honest ones are worth. IP fragments what does not fit such a path.
const PATH_MTU_MIN: u16 = 552;

impl Connection {
    /// An ICMP error about a segment of ours that starts at `sequence` (RFC 5927, RFC 9293
    /// §3.9.2.2).
    pub(crate) fn on_icmp_error(&mut self, error: IcmpError, sequence: Seq, shared: &mut Shared) {
        // RFC 5927 §4.1: only about something that is in flight.
        let is_in_flight = sequence.at_or_after(self.una) && sequence.before(self.max);
        if !is_in_flight || self.is_over() {
            shared.counters.dropped_icmp_unmatched += 1;
            return;
        }
        let unreachable = match error {
            IcmpError::FragmentationNeeded { mtu } => return self.lower_mss(mtu, shared),
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

    /// The path takes less than we thought (RFC 1191 §3.1, RFC 5927 §7.2).
    fn lower_mss(&mut self, mtu: u16, shared: &mut Shared) {
        // A router of before RFC 1191 names no size; 576 always was the next plateau for us.
        let mtu = if mtu == 0 { 576 } else { mtu.max(PATH_MTU_MIN) };
        let headers = if self.tuple.remote.is_ipv4() { 40 } else { 60 };
        let mss = mtu - headers;
        if mss >= self.mss {
            return;
        }
        self.mss = mss;
        shared.counters.tcp_path_mtu_lowered += 1;
        if self.is_open() {
            // What is in flight was lost to size, not to congestion: send it again at once.
            if self.has_sack {
                self.lose_all();
            } else {
                self.next = self.una;
                self.retransmit_due = true;
            }
            self.timed_at = NEVER;
        }
    }
}
