//! What always holds between two calls; the tests and the fuzz targets ask after every step.

use super::{Connection, State};
use crate::tcp::Settings;
use crate::tcp::timers::NEVER;

impl Connection {
    /// Asserts the invariants of one connection, which `is_ready` for its turn or not.
    pub(crate) fn check(&self, settings: &Settings, is_ready: bool) {
        assert!(self.una.at_or_before(self.next) && self.next.at_or_before(self.max));
        if !self.is_over() {
            assert!(self.max.at_or_before(self.stream_end()));
        }
        let sendable = self.plan(settings).is_some();
        assert!(!sendable || is_ready, "something to send, but not in the ready list");
        // (a) Whatever is in flight, or waits for the peer, has a timer.
        let is_waiting = match self.state {
            State::SynSent | State::SynReceived => true,
            State::TimeWait | State::Closed => false,
            _ => self.una != self.stream_end(),
        };
        assert!(
            !is_waiting || sendable || self.retransmit_at != NEVER,
            "{:?}: una {:?} max {:?} end {:?} window {} and no timer",
            self.state,
            self.una,
            self.max,
            self.stream_end(),
            self.window,
        );
        if self.is_over() {
            assert_eq!(self.deadline(), NEVER, "a timer outlives its connection");
        } else {
            assert!(self.unacknowledged == 0 || self.acks_due > 0 || self.ack_at != NEVER);
        }
        match &self.recovery {
            Some(recovery) => recovery.flight.check(self.una, self.max),
            None => assert!(
                !self.has_sack || !self.is_open() || self.una == self.max,
                "nothing is known of what is in flight"
            ),
        }
        assert!(self.loss_at == NEVER || self.recovery.is_some());
        // What was promised can be kept.
        let promised = self.edge.since(self.receive.acknowledge()) + self.receive.unread();
        assert!(self.is_over() || promised <= self.receive_limit.max(settings.syn_window()));
        assert!(self.receive_limit as usize <= settings.receive_bytes);
        // (c) What is held stays under its caps.
        assert!(self.send.capacity() <= settings.send_bytes);
        assert!(self.receive.capacity() <= settings.receive_bytes);
        assert!(self.receive.range_count() <= settings.out_of_order_ranges);
    }

    /// State, for traces.
    #[cfg(test)]
    pub(crate) const fn name(&self) -> State {
        self.state
    }

    /// The congestion window in bytes, for traces.
    #[cfg(test)]
    pub(crate) fn congestion_window(&self) -> u32 {
        self.congestion.window()
    }
}
