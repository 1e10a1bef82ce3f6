//! [`Run`]: segments that follow one another, about which TCP decides once.

use super::{Seq, Tcp};
use crate::time::Instant;

/// Bytes of the segments of a run, at most: a turn is no longer than with a device that segments.
const RUN_BYTES_MAX: u32 = 65_536;

/// The same while other connections wait for their turn.
const RUN_BYTES_SHARED_MAX: u32 = 16_384;

/// Full segments that may follow one that was sent, as long as nothing happens to any connection and
/// no time passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    index: u32,
    now: Instant,
    /// What [`Tcp::settled`] was.
    settled: u64,
    segments_left: u32,
    pub(crate) payload_len: usize,
}

impl Tcp {
    /// What may follow the segment with `payload_len` bytes that a connection has just sent.
    pub(super) fn run(&self, now: Instant, index: u32, payload_len: usize) -> Option<Run> {
        let connection = self.connections.get(index)?;
        // A full one has no other options than those that follow it: one that told of a duplicate
        // has as much less payload.
        if payload_len != connection.run_payload_len() || !self.shared.replies.is_empty() {
            return None;
        }
        let bytes_max = if self.ready.len() > 1 { RUN_BYTES_SHARED_MAX } else { RUN_BYTES_MAX };
        let segments = connection.run_segments(&self.shared.settings);
        let segments_left = segments.min(bytes_max / payload_len as u32);
        let settled = self.settled;
        (segments_left > 0).then_some(Run { index, now, settled, segments_left, payload_len })
    }

    /// Sends the next segment of a run: writes its payload, and returns its number; `None` if the run
    /// is over. `payload` is as long as the run says.
    pub(crate) fn continue_run(
        &mut self,
        now: Instant,
        run: &mut Run,
        payload: &mut [u8],
    ) -> Option<Seq> {
        if run.segments_left == 0 || run.settled != self.settled || run.now != now {
            return None;
        }
        let connection = self.connections.get_mut(run.index)?;
        run.segments_left -= 1;
        self.shared.counters.tcp_segments_sent += 1;
        let is_last = run.segments_left == 0;
        Some(connection.transmit_next(now, payload, is_last, &self.shared.settings))
    }

    /// Whether the next segment is the run's; then it is that connection's turn on the long way, too.
    #[cfg(test)]
    pub(crate) fn leave_run(&mut self, now: Instant, run: &Run) -> bool {
        let goes_on = run.segments_left > 0 && run.settled == self.settled && run.now == now;
        if goes_on {
            self.ready.prefer(run.index);
        }
        goes_on
    }

    /// What is left of a run, of which one segment took the long way. Its connection waits for its next
    /// turn, as behind the run's first segment, even if it has no more to send.
    #[cfg(test)]
    pub(crate) fn enter_run(&mut self, run: Run) -> Run {
        self.ready.push(run.index);
        Run { segments_left: run.segments_left - 1, settled: self.settled, ..run }
    }
}
