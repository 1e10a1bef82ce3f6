//! What a connection does when time has passed.
//!
//! Two invariants hold between calls, and the tests assert them after every step: whatever is in
//! flight, or cannot be sent because the peer's window is closed, has a timer
//! ([`Connection::arm_persist`]); and a timer that expires sends something or ends the connection.

use super::{Connection, Owner, State};
use crate::error::TcpError;
use crate::tcp::Shared;
use crate::tcp::timers::NEVER;
use crate::time::Instant;
use core::time::Duration;

/// The greatest interval between window probes.
const PROBE_INTERVAL_MAX: Duration = Duration::from_secs(60);

impl Connection {
    /// When [`on_timeout`](Self::on_timeout) is due.
    pub(crate) fn deadline(&self) -> Instant {
        let soonest = self.retransmit_at.min(self.loss_at).min(self.ack_at);
        soonest.min(self.keepalive_at).min(self.linger_at)
    }

    /// Starts the retransmission timer anew (RFC 6298 §5).
    pub(super) fn arm_retransmit(&mut self, now: Instant, shared: &Shared) {
        self.retransmit_at = (now + self.rtt.timeout()).min(self.gives_up_at(shared));
    }

    /// Starts the persist timer if there is something to send, nothing in flight and no room in the
    /// peer's window (RFC 9293 §3.8.6.1). Called after whatever could have changed that.
    pub(crate) fn arm_persist(&mut self, now: Instant, shared: &Shared) {
        if self.retransmit_at == NEVER
            && self.is_open()
            && self.una == self.max
            && self.una != self.stream_end()
            && self.plan(&shared.settings).is_none()
        {
            self.silent_since = now;
            self.retransmit_at = (now + self.probe_interval()).min(self.gives_up_at(shared));
        }
    }

    /// The RTO, doubled for each probe that has not opened the window.
    fn probe_interval(&self) -> Duration {
        let doublings = u32::from(self.probes.min(16));
        self.rtt.timeout().saturating_mul(1 << doublings).min(PROBE_INTERVAL_MAX)
    }

    /// The user timeout: R2 of RFC 9293 §3.8.3.
    pub(super) fn gives_up_at(&self, shared: &Shared) -> Instant {
        let timeout = match self.state {
            State::SynSent | State::SynReceived => shared.settings.connect_timeout,
            _ if self.user_timeout_ms > 0 => Duration::from_millis(self.user_timeout_ms.into()),
            _ => shared.settings.user_timeout,
        };
        self.silent_since + timeout
    }

    /// Does what is due at `now`.
    pub(crate) fn on_timeout(&mut self, now: Instant, shared: &mut Shared) {
        if self.linger_at <= now {
            return self.end(None, shared);
        }
        if self.ack_at <= now {
            self.ack_at = NEVER;
            self.acks_due = self.acks_due.max(1);
            self.stretch.on_expired();
        }
        if self.loss_at <= now {
            self.on_loss_timeout(now, shared);
        }
        if self.retransmit_at <= now {
            self.retransmit_at = NEVER;
            self.on_retransmit_timeout(now, shared);
        }
        if self.keepalive_at <= now {
            self.on_keepalive_timeout(now, shared);
        }
    }

    fn on_retransmit_timeout(&mut self, now: Instant, shared: &mut Shared) {
        if now >= self.gives_up_at(shared) {
            shared.counters.tcp_timeouts += 1;
            let error = self.soft_error.map_or(TcpError::TimedOut, TcpError::Unreachable);
            return self.abort(Some(error), shared);
        }
        if self.is_open() && self.una != self.max {
            self.suspect_size(now, shared);
        }
        match self.state {
            State::SynSent | State::SynReceived => {
                self.syn_due = true;
                self.was_syn_lost = true;
                self.timed_at = NEVER;
                self.rtt.back_off();
                shared.counters.tcp_retransmits += 1;
                self.retransmits = self.retransmits.saturating_add(1);
                self.arm_retransmit(now, shared);
            }
            _ if self.una != self.max && self.has_sack => {
                self.on_timeout_with_sack(now, shared);
                self.timed_at = NEVER;
                self.rtt.back_off();
                shared.counters.tcp_retransmit_timeouts += 1;
                self.arm_retransmit(now, shared);
            }
            _ if self.una != self.max => {
                let again = self.rtt.backoff() > 0;
                self.congestion.on_timeout(self.flight(), self.payload_max(), again);
                self.is_recovering = false;
                self.recover = self.max;
                self.duplicate_acks = 0;
                self.next = self.una;
                self.retransmit_due = true;
                self.timed_at = NEVER;
                self.rtt.back_off();
                shared.counters.tcp_retransmit_timeouts += 1;
                self.arm_retransmit(now, shared);
            }
            _ => {
                if self.window > 0 {
                    self.override_due = true;
                }
                // If there is a little room, data asks as well as a probe does.
                self.probe_due = self.plan(&shared.settings).is_none();
                self.probes = self.probes.saturating_add(1);
                self.retransmit_at = (now + self.probe_interval()).min(self.gives_up_at(shared));
            }
        }
    }

    /// RFC 9293 §3.8.4.
    fn on_keepalive_timeout(&mut self, now: Instant, shared: &mut Shared) {
        let is_asking_anyway = self.retransmit_at != NEVER;
        let Some(keepalive) = &mut self.keepalive else {
            self.keepalive_at = NEVER;
            return;
        };
        if is_asking_anyway || !matches!(self.owner, Owner::Program) {
            keepalive.probes_sent = 0;
            self.keepalive_at = now + keepalive.config.idle.max(KEEPALIVE_MIN);
        } else if keepalive.probes_sent >= keepalive.config.probes.max(1) {
            shared.counters.tcp_timeouts += 1;
            self.abort(Some(TcpError::TimedOut), shared);
        } else {
            keepalive.probes_sent += 1;
            self.keepalive_at = now + keepalive.config.interval.max(KEEPALIVE_MIN);
            self.probe_due = true;
        }
    }
}

/// No keepalive interval is shorter, whatever the program says: time must pass between two.
const KEEPALIVE_MIN: Duration = Duration::from_millis(1);
