//! What time says about losses: RACK (RFC 8985).
//!
//! Of what has arrived, the segment that was sent last sets the pace: whatever was sent before it,
//! and should have arrived by now even if the path reorders somewhat, is lost. So a loss is noticed
//! a round trip after it happened, whatever was lost: the last segments of a response, or one that
//! was sent again.

use crate::tcp::Seq;
use crate::tcp::flight::{Flight, Sent};
use crate::time::Instant;
use core::time::Duration;

/// How long a least round-trip time is believed, in seconds: paths change (RFC 8985 §6.2 step 1
/// leaves the window open; Linux takes as long).
const MIN_RTT_VALID_S: u32 = 300;

/// How many recoveries a widened reordering window outlives the last duplicate (RFC 8985 §6.2 step
/// 4).
const WIDENED_RECOVERIES: u8 = 16;

/// The reordering window in quarters of the least round-trip time, at most: SRTT bounds it as well.
const WINDOW_QUARTERS_MAX: u8 = 64;

/// Arrived segments that mean a loss as long as the path has never reordered (RFC 8985 §6.2 step
/// 4, DupThresh of RFC 5681).
const DUPLICATES_FOR_LOSS: u32 = 3;

/// One connection's state. It outlives what is in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rack {
    /// RACK.xmit_ts and RACK.end_seq: of what has arrived, what was sent last.
    sent_at: Instant,
    end: Seq,
    /// RACK.fack: the end of all that has ever arrived.
    farthest: Seq,
    /// RACK.rtt.
    round_trip_us: u32,
    /// RACK.min_RTT, nothing before the first measurement; and when it was measured.
    min_rtt_us: u32,
    min_rtt_at_s: u32,
    /// RACK.dsack_round: until this is acknowledged, another duplicate tells nothing new.
    duplicates_until: Option<Seq>,
    /// RACK.reo_wnd_mult and RACK.reo_wnd_persist.
    window_quarters: u8,
    recoveries_left: u8,
    /// RACK.reordering_seen.
    reorders: bool,
}

impl Rack {
    /// A connection whose data begins at `start`, and whose handshake took a round trip of so long.
    pub(crate) fn new(start: Seq, round_trip: Option<Duration>) -> Self {
        let round_trip_us = round_trip.map_or(0, |round_trip| round_trip.as_micros());
        Rack {
            sent_at: Instant::ZERO,
            end: start,
            farthest: start,
            round_trip_us: 0,
            min_rtt_us: u32::try_from(round_trip_us).unwrap_or(u32::MAX),
            // The first measurement takes its place if it is less, and any in five minutes.
            min_rtt_at_s: 0,
            duplicates_until: None,
            window_quarters: 1,
            recoveries_left: 0,
            reorders: false,
        }
    }

    /// The last round-trip time that was measured.
    pub(crate) const fn round_trip(&self) -> Duration {
        Duration::from_micros(self.round_trip_us as u64)
    }

    /// The path is known to reorder.
    #[cfg(test)]
    pub(crate) const fn reorders(&self) -> bool {
        self.reorders
    }

    /// `sent` has arrived (RFC 8985 §6.2, steps 1 to 3). `is_echo_older`: the ACK's timestamp says
    /// that it answers what was sent before.
    pub(crate) fn deliver(&mut self, now: Instant, sent: &Sent, is_echo_older: bool) {
        let round_trip = now.saturating_since(sent.at);
        let round_trip_us = u32::try_from(round_trip.as_micros()).unwrap_or(u32::MAX);
        if sent.again {
            // Perhaps the first copy arrived, and was only late.
            if is_echo_older || round_trip_us < self.min_rtt_us {
                return;
            }
        } else {
            self.on_overtaken(sent.end);
            self.farthest = self.farthest.max(sent.end);
            let now_s = (now.as_nanos() / 1_000_000_000) as u32;
            if self.min_rtt_us == 0
                || round_trip_us <= self.min_rtt_us
                || now_s.wrapping_sub(self.min_rtt_at_s) > MIN_RTT_VALID_S
            {
                (self.min_rtt_us, self.min_rtt_at_s) = (round_trip_us.max(1), now_s);
            }
        }
        self.round_trip_us = round_trip_us;
        if (sent.at, true) > (self.sent_at, self.end.at_or_after(sent.end)) {
            (self.sent_at, self.end) = (sent.at, sent.end);
        }
    }

    /// What ends at `end` arrived when it was sent first. If that was behind what was sent later, the
    /// path reorders (RFC 8985 §6.2, step 3). That it was taken for lost meanwhile, and sent again,
    /// must not hide it: else three segments ahead of a gap would stay a loss on such a path, whatever
    /// the duplicates tell.
    pub(crate) fn on_overtaken(&mut self, end: Seq) {
        self.reorders |= end.before(self.farthest);
    }

    /// Something arrived twice: what was sent again was late and not lost, so wait longer (RFC 8985
    /// §6.2, step 4). Once a round trip, of which `max` is the end.
    pub(crate) fn on_duplicate(&mut self, una: Seq, max: Seq) {
        if self.duplicates_until.is_none_or(|until| una.at_or_after(until)) {
            self.duplicates_until = Some(max);
            self.window_quarters = (self.window_quarters + 1).min(WINDOW_QUARTERS_MAX);
            self.recoveries_left = WIDENED_RECOVERIES;
        }
    }

    /// Everything before `una` is acknowledged: forgets numbers that lie behind.
    pub(crate) fn follow(&mut self, una: Seq) {
        if self.duplicates_until.is_some_and(|until| una.at_or_after(until)) {
            self.duplicates_until = None;
        }
    }

    /// A recovery is over.
    pub(crate) const fn on_recovered(&mut self) {
        self.recoveries_left = self.recoveries_left.saturating_sub(1);
        if self.recoveries_left == 0 {
            self.window_quarters = 1;
        }
    }

    /// RACK.reo_wnd: how much later than what was sent after it a segment may arrive.
    fn window(&self, flight: &Flight, is_recovering: bool, srtt: Duration, mss: u32) -> Duration {
        let is_many = flight.sacked() >= DUPLICATES_FOR_LOSS * mss
            || u32::from(flight.sacked_ranges()) >= DUPLICATES_FOR_LOSS;
        if !self.reorders && (is_recovering || is_many) {
            return Duration::ZERO;
        }
        let quarter = Duration::from_micros(u64::from(self.min_rtt_us) / 4);
        (quarter * u32::from(self.window_quarters)).min(srtt)
    }

    /// Declares lost what should have arrived by now (RFC 8985 §6.2, step 5). Returns when to look
    /// again for what is late but may still come, if anything is.
    pub(crate) fn detect(
        &self,
        now: Instant,
        flight: &mut Flight,
        is_recovering: bool,
        srtt: Duration,
        mss: u32,
    ) -> Option<Instant> {
        let patience = self.round_trip() + self.window(flight, is_recovering, srtt, mss);
        let mut latest = None;
        flight.lose(|sent| {
            let is_earlier = sent.at < self.sent_at
                || (sent.at == self.sent_at && sent.end.at_or_before(self.end));
            if !is_earlier {
                return false;
            }
            let due = sent.at + patience;
            if due <= now {
                return true;
            }
            latest = latest.max(Some(due));
            false
        });
        latest
    }

    /// The retransmission timer expired: what is first, and whatever was sent long enough ago, is
    /// lost (RFC 8985 §6.3).
    pub(crate) fn on_timeout(
        &self,
        now: Instant,
        una: Seq,
        flight: &mut Flight,
        patience: Duration,
    ) {
        let patience = self.round_trip() + patience;
        flight.lose(|sent| sent.start == una || sent.at + patience <= now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    fn ms(milliseconds: u64) -> Instant {
        Instant::from_millis(milliseconds)
    }

    /// Ten segments, one each millisecond from 1000 on, numbered from 0; the path takes 100 ms.
    fn ten() -> (Rack, Flight) {
        let mut flight = Flight::default();
        for at in 0..10u32 {
            flight.send(ms(1000 + u64::from(at)), Seq(at * MSS), Seq((at + 1) * MSS));
        }
        (Rack::new(Seq(0), None), flight)
    }

    fn sack(rack: &mut Rack, flight: &mut Flight, now: Instant, segment: u32) {
        let block = (Seq(segment * MSS), Seq((segment + 1) * MSS));
        flight.sack(block, |sent| rack.deliver(now, sent, false)).expect("there is room");
    }

    fn detect(rack: &Rack, flight: &mut Flight, now: Instant) -> Option<Instant> {
        rack.detect(now, flight, false, Duration::from_millis(100), MSS)
    }

    /// Pitfall Q10: a quarter of the least round trip is waited.
    #[test]
    fn one_that_overtook_is_waited_for() {
        let (mut rack, mut flight) = ten();
        sack(&mut rack, &mut flight, ms(1101), 1);
        assert_eq!(detect(&rack, &mut flight, ms(1101)), Some(ms(1125)));
        assert_eq!(flight.lost(), 0);
        assert_eq!(detect(&rack, &mut flight, ms(1125)), None);
        assert_eq!(flight.first_lost(), Some((Seq(0), Seq(MSS))));
        assert_eq!(flight.lost(), MSS);
    }

    /// RFC 8985 §6.2 step 4: three that have arrived are as good as time, on a path that has not
    /// reordered.
    #[test]
    fn three_that_overtook_are_a_loss() {
        let (mut rack, mut flight) = ten();
        for segment in 1..=2 {
            sack(&mut rack, &mut flight, ms(1100 + u64::from(segment)), segment);
            detect(&rack, &mut flight, ms(1100 + u64::from(segment)));
            assert_eq!(flight.lost(), 0);
        }
        sack(&mut rack, &mut flight, ms(1103), 3);
        assert_eq!(detect(&rack, &mut flight, ms(1103)), None);
        assert_eq!(flight.lost(), MSS);
        // But not once it has: then time decides.
        let (mut rack, mut flight) = ten();
        sack(&mut rack, &mut flight, ms(1102), 2);
        sack(&mut rack, &mut flight, ms(1103), 1);
        assert!(rack.reorders());
        (3..8).for_each(|segment| sack(&mut rack, &mut flight, ms(1107), segment));
        assert_eq!(detect(&rack, &mut flight, ms(1107)), Some(ms(1125)));
        assert_eq!(flight.lost(), 0);
    }

    #[test]
    fn each_round_trip_with_duplicates_widens_the_window_and_recoveries_narrow_it() {
        let (mut rack, mut flight) = ten();
        sack(&mut rack, &mut flight, ms(1101), 1);
        rack.on_duplicate(Seq(0), Seq(10_000));
        rack.on_duplicate(Seq(5000), Seq(10_000));
        assert_eq!(detect(&rack, &mut flight, ms(1101)), Some(ms(1150)));
        rack.on_duplicate(Seq(10_000), Seq(20_000));
        assert_eq!(detect(&rack, &mut flight, ms(1101)), Some(ms(1175)));
        (0..16).for_each(|_| rack.on_recovered());
        assert_eq!(detect(&rack, &mut flight, ms(1101)), Some(ms(1125)));
        // However many there are, SRTT bounds it.
        (0..1000u32).for_each(|at| rack.on_duplicate(Seq(20_000 + at), Seq(20_001 + at)));
        assert_eq!(detect(&rack, &mut flight, ms(1101)), Some(ms(1200)));
    }

    /// A copy whose ACK comes sooner than any before answers the first one.
    #[test]
    fn an_answer_that_is_too_quick_is_not_to_the_copy() {
        let (mut rack, mut flight) = ten();
        sack(&mut rack, &mut flight, ms(1101), 1);
        flight.send_again(ms(1130), Seq(0), Seq(MSS));
        let before = rack;
        flight.acknowledge(Seq(MSS), |sent| rack.deliver(ms(1140), sent, false));
        assert_eq!(rack.sent_at, before.sent_at);
        assert_eq!(rack.round_trip(), before.round_trip());
    }

    #[test]
    fn a_lost_copy_is_lost_a_round_trip_later() {
        let (mut rack, mut flight) = ten();
        (1..=3).for_each(|segment| sack(&mut rack, &mut flight, ms(1103), segment));
        detect(&rack, &mut flight, ms(1103));
        flight.send_again(ms(1103), Seq(0), Seq(MSS));
        flight.send(ms(1104), Seq(10 * MSS), Seq(11 * MSS));
        sack(&mut rack, &mut flight, ms(1204), 10);
        rack.detect(ms(1204), &mut flight, true, Duration::from_millis(100), MSS);
        assert_eq!(flight.first_lost(), Some((Seq(0), Seq(MSS))));
    }
}
