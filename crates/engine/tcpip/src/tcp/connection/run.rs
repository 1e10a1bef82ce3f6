//! Full segments of new data, one behind the other: the first is planned, and with it how many may
//! follow it at the same moment. These need a number, a payload and a place in the flight; whatever
//! else there is to decide or to note stays as the first one left it.

use super::{Connection, State};
use crate::tcp::{Seq, Settings};
use crate::time::Instant;

impl Connection {
    /// Length of the payload of each segment of a run.
    pub(crate) fn run_payload_len(&self) -> usize {
        self.payload_max() as usize
    }

    /// How many full segments [`plan`](Self::plan) would send, one after the other, behind the
    /// full segment of new data that was just sent, all at the same moment and with the same header
    /// but for the number: as long as nothing else happens to the connection.
    ///
    /// Those at which something ends are not among them: the data (it is pushed, or FIN goes along),
    /// or a loss or its probe.
    pub(crate) fn run_segments(&self, settings: &Settings) -> u32 {
        let mss = self.payload_max();
        let unsent = self.data_end().since(self.next);
        let is_plain = unsent > mss
            && matches!(self.state, State::Established | State::CloseWait)
            && self.next == self.max
            // The timer of the tail loss probe is another while one segment is in flight alone.
            && self.flight() > mss
            && self.is_flight_plain()
            && !self.is_repairing()
            && self.duplicate_acks == 0
            && self.acks_due == 0
            && !self.retransmit_due
            && !self.tail_probe_due
            && self.receive.sack_count(self.sack_blocks_max()) == 0
            && settings.large_segment_bytes(&self.tuple) == 0;
        if !is_plain {
            return 0;
        }
        let peer_room = (self.una + self.window).since(self.next);
        let path_room = self.congestion.window().saturating_sub(self.flight());
        // A segment that ends the data is none of them.
        (unsent - 1).min(peer_room).min(path_room) / mss
    }

    /// Sends the next segment of a run, whose payload is as long as the buffer: its number.
    pub(crate) fn transmit_next(
        &mut self,
        now: Instant,
        payload: &mut [u8],
        is_last: bool,
        settings: &Settings,
    ) -> Seq {
        let sequence = self.next;
        let end = sequence + payload.len() as u32;
        self.send.copy(sequence.since(self.una), payload);
        if let Some(recovery) = &mut self.recovery {
            recovery.flight.send(now, sequence, end);
        }
        (self.next, self.max) = (end, end);
        if is_last {
            self.note_flight(settings);
        } else {
            self.note_peak(self.flight());
        }
        sequence
    }
}
