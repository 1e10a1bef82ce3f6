//! What the program may do to a connection, and how a connection ends here.

use super::{Connection, KeepaliveState, Owner, State};
use crate::error::TcpError;
use crate::socket::{Keepalive, TcpStatus};
use crate::tcp::Shared;
use crate::tcp::reply::reset_header;
use crate::tcp::timers::NEVER;
use crate::time::Instant;
use core::time::Duration;

impl Connection {
    /// See `Engine::tcp_status`.
    pub(crate) fn status(&self, shared: &Shared) -> TcpStatus {
        match self.state {
            _ if self.error.is_some() => TcpStatus::Failed(self.error.unwrap_or(TcpError::Reset)),
            State::SynSent | State::SynReceived => TcpStatus::Connecting,
            State::TimeWait | State::Closed if self.receive.unread() == 0 => TcpStatus::Closed,
            _ => TcpStatus::Open {
                readable: self.receive.unread() > 0 || self.receive.is_finished(),
                writable: !self.fin_queued && (self.send.len() as usize) < self.send_limit(shared),
            },
        }
    }

    /// See `Engine::tcp_is_flushed`.
    pub(crate) fn is_flushed(&self) -> bool {
        self.error.is_none()
            && !matches!(self.state, State::SynSent | State::SynReceived)
            && self.una == self.stream_end()
    }

    /// See `Engine::tcp_read`.
    pub(crate) fn read(
        &mut self,
        now: Instant,
        max: usize,
        sink: &mut dyn FnMut(&[u8]),
        shared: &mut Shared,
    ) -> Result<Option<usize>, TcpError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if max == 0 {
            return Ok(Some(0));
        }
        if self.receive.unread() > 0 {
            let count = self.receive.read(max, sink, &mut shared.memory);
            self.active_at = now;
            self.note_freed(now, count as u32);
            self.tune_receive_window(now, count, shared);
            self.offer_window(shared);
            return Ok(Some(count));
        }
        let at_end = self.receive.is_finished() || self.is_over();
        Ok(at_end.then_some(0))
    }

    /// See `Engine::tcp_write`.
    pub(crate) fn write(
        &mut self,
        now: Instant,
        data: &[u8],
        shared: &mut Shared,
    ) -> Result<Option<usize>, TcpError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.fin_queued || self.is_over() {
            return Err(TcpError::WriteShutDown);
        }
        if data.is_empty() {
            return Ok(Some(0));
        }
        let (limit, most) = (self.send_limit(shared), shared.settings.send_bytes);
        self.note_holding(now);
        let count = self.send.append(data, limit, most, &mut shared.memory);
        if count > 0 {
            self.active_at = now;
        }
        if count < data.len() {
            self.is_writer_waiting = true;
        }
        Ok((count > 0).then_some(count))
    }

    /// A write was refused: whether for want of memory, and for the first time since there was some.
    pub(crate) fn starve(&mut self, shared: &Shared) -> bool {
        let is_share_full = self.send.len() as usize >= self.send_limit(shared);
        !is_share_full && !core::mem::replace(&mut self.is_starved, true)
    }

    /// See `Engine::tcp_shutdown`.
    pub(crate) fn shutdown(&mut self) -> Result<(), TcpError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if !self.is_over() {
            self.fin_queued = true;
        }
        Ok(())
    }

    /// See `Engine::tcp_release`.
    pub(crate) fn release(&mut self, now: Instant, shared: &mut Shared) {
        let has_unread = self.receive.unread() > 0;
        self.owner = Owner::Nobody;
        self.keepalive = None;
        self.keepalive_at = NEVER;
        match self.state {
            State::TimeWait | State::Closed => self.receive.clear(&mut shared.memory),
            // RFC 9293 §3.10.4: nothing was promised, nothing is to be told.
            State::SynSent => self.end(None, shared),
            // Data that was acknowledged and never read: the peer must not believe that it was
            // (RFC 2525 §2.17). In SYN-RECEIVED the SYN still holds its place in the sequence.
            State::SynReceived => self.abort(None, shared),
            _ if has_unread => self.abort(None, shared),
            _ => {
                self.receive.clear(&mut shared.memory);
                self.fin_queued = true;
                self.silent_since = now;
                self.limit_fin_wait_2(now, shared);
            }
        }
    }

    /// A released connection does not wait for the peer's FIN for ever (RFC 1122 §4.2.2.13).
    pub(super) fn limit_fin_wait_2(&mut self, now: Instant, shared: &Shared) {
        if self.state == State::FinWait2 && self.owner == Owner::Nobody {
            self.linger_at = now + shared.settings.fin_wait_2;
        }
    }

    /// Ends the connection here and tells the peer by RST.
    pub(crate) fn abort(&mut self, error: Option<TcpError>, shared: &mut Shared) {
        if self.is_open() || self.state == State::SynReceived {
            let header = reset_header(&self.tuple, self.max, Some(self.receive.acknowledge()));
            shared.replies.push(self.tuple, header, &mut shared.counters);
            shared.counters.tcp_aborted += 1;
        }
        self.end(error, shared);
    }

    /// Ends the connection here; the peer is told nothing.
    pub(crate) fn end(&mut self, error: Option<TcpError>, shared: &mut Shared) {
        if self.is_over() {
            return;
        }
        self.state = State::Closed;
        self.error = error;
        self.send.clear(&mut shared.memory);
        self.drop_recovery(shared);
        // "All segment queues should be flushed" (RFC 9293 §3.10.7.4, on RST).
        if error.is_some() || self.owner == Owner::Nobody {
            self.receive.clear(&mut shared.memory);
        }
        self.stop_timers();
    }

    /// Frees what the buffers hold.
    pub(crate) fn clear(&mut self, shared: &mut Shared) {
        self.send.clear(&mut shared.memory);
        self.receive.clear(&mut shared.memory);
    }

    fn stop_timers(&mut self) {
        self.loss_at = NEVER;
        self.retransmit_at = NEVER;
        self.ack_at = NEVER;
        self.keepalive_at = NEVER;
        self.linger_at = NEVER;
    }

    /// See `Engine::tcp_set_nodelay`.
    pub(crate) fn set_nodelay(&mut self, nodelay: bool) {
        self.nodelay = nodelay;
    }

    /// See `Engine::tcp_set_user_timeout`.
    pub(crate) fn set_user_timeout(
        &mut self,
        now: Instant,
        timeout: Option<Duration>,
        shared: &Shared,
    ) {
        let ms = timeout.map_or(0, |timeout| timeout.as_millis().max(1));
        self.user_timeout_ms = u32::try_from(ms).unwrap_or(u32::MAX);
        if self.retransmit_at != NEVER && self.is_open() {
            // Whatever timer runs must not outlast it, nor end with the old one.
            self.retransmit_at = self.retransmit_at.min(self.gives_up_at(shared)).max(now);
        }
    }

    /// See `Engine::tcp_set_keepalive`.
    pub(crate) fn set_keepalive(&mut self, now: Instant, config: Option<Keepalive>) {
        self.keepalive = config.map(|config| Box::new(KeepaliveState { config, probes_sent: 0 }));
        self.keepalive_at = match config {
            Some(config) if !self.is_over() => now + config.idle,
            _ => NEVER,
        };
    }
}
