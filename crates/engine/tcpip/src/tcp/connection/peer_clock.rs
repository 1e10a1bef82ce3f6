//! [`PeerClock`]: what the peer's timestamps say: TS.Recent, which is echoed, and PAWS, which drops
//! old duplicates (RFC 7323 §4.3 and §5).
//!
//! RFC 7323 §5.3 drops every segment whose timestamp is before TS.Recent. On a path that reorders
//! that is too much: a retransmission that overtakes what was sent before it moves TS.Recent, and
//! what it has overtaken is dropped although it was never received; it is sent again, overtakes
//! others, and the sender, who sees one real loss after the other, reduces its window each time.
//! Linux forgives one tick of the clock for that.
//!
//! What PAWS is for is numbers that have gone round: an old duplicate whose number lies in the
//! window, 4 GiB later. So a segment is old if its timestamp is before that of a segment which
//! arrived between one and two *generations* ago. A generation is so few bytes that the numbers of
//! whatever was sent since then are still different, and so little time that the timestamps are.

use crate::tcp::Seq;
use crate::time::Instant;

/// Bytes of a generation: so many that a path of 10 Gbit/s and 200 ms has none on its way that are
/// older. Three of them, after which a floor is the past at the latest, and a few windows leave three
/// gibibytes until a number comes again, in which the peer's clock ticks (at least once in two: RFC
/// 7323 §5.4).
const GENERATION_BYTES: u32 = 1 << 28;

/// Seconds of a generation: longer than the RTO gets, so that a path has no segment on its way that
/// is older; far shorter than the 24.8 days after which a clock of milliseconds has gone half round.
const GENERATION_S: u32 = 64;

/// Seconds after which TS.Recent says nothing (RFC 7323 §5.5: 24 days), counted from the begin of the
/// generation that it is of.
const VALID_S: u32 = 24 * 24 * 60 * 60;

/// See the [module](self). Seconds count from the engine's time 0, and wrap after 136 years.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerClock {
    /// TS.Recent.
    recent: u32,
    /// What is before this is old.
    floor: u32,
    /// TS.Recent, RCV.NXT and the time when this generation began. TS.Recent was last taken within
    /// [`GENERATION_S`] of it, or another would have begun.
    begin: u32,
    begin_next: Seq,
    begin_at_s: u32,
}

const fn seconds(now: Instant) -> u32 {
    (now.as_nanos() / 1_000_000_000) as u32
}

impl PeerClock {
    /// The clock that the peer's SYN has shown, behind which RCV.NXT is `next`.
    pub(super) const fn new(now: Instant, value: u32, next: Seq) -> Self {
        let begin_at_s = seconds(now);
        PeerClock { recent: value, floor: value, begin: value, begin_next: next, begin_at_s }
    }

    /// TS.Recent.
    pub(super) const fn recent(&self) -> u32 {
        self.recent
    }

    /// Whether a segment with this timestamp is an old duplicate (RFC 7323 §5.3, R1).
    pub(super) fn is_old(&self, now: Instant, value: u32) -> bool {
        Seq(value).before(Seq(self.floor)) && self.is_valid(now)
    }

    fn is_valid(&self, now: Instant) -> bool {
        seconds(now).wrapping_sub(self.begin_at_s) < VALID_S
    }

    /// Takes the timestamp of a segment that is not old, at the left edge of the window, which is
    /// `next` (RFC 7323 §4.3).
    pub(super) fn take(&mut self, now: Instant, value: u32, next: Seq) {
        if Seq(value).before(Seq(self.recent)) && self.is_valid(now) {
            return;
        }
        let now_s = seconds(now);
        let lasted_s = now_s.wrapping_sub(self.begin_at_s);
        let lasted_bytes = next.since(self.begin_next);
        if lasted_s >= GENERATION_S || lasted_bytes >= GENERATION_BYTES {
            let is_near = lasted_s < 2 * GENERATION_S && lasted_bytes < 2 * GENERATION_BYTES;
            self.floor = if is_near { self.begin } else { value };
            (self.begin, self.begin_next, self.begin_at_s) = (value, next, now_s);
        }
        self.recent = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(milliseconds: u64) -> Instant {
        Instant::from_millis(milliseconds)
    }

    #[test]
    fn what_a_retransmission_overtook_is_not_old() {
        let mut clock = PeerClock::new(at(0), 1000, Seq(0));
        clock.take(at(500), 1500, Seq(10_000));
        assert!(!clock.is_old(at(501), 1480));
        assert!(clock.is_old(at(501), 999));
        // It is no measure for the echo.
        clock.take(at(501), 1480, Seq(11_000));
        assert_eq!(clock.recent(), 1500);
    }

    /// Time, and bytes that arrive at its end.
    type Step = (u64, u32);

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let pause_ms = prop_oneof![0..5u64, 0..5000u64, 0..200_000u64];
        let bytes = prop_oneof![0..100_000u32, 0..100_000_000u32];
        proptest::collection::vec((pause_ms, bytes), 1..300)
    }

    proptest! {
        /// A peer whose clock ticks each millisecond or each second, but once in 2 GiB at least (RFC
        /// 7323 §5.4), at any rate and with pauses: what bears a number that comes again is old.
        #[test]
        fn what_bears_a_number_twice_is_old(
            first: u32,
            tick_ms in prop_oneof![Just(1u64), Just(1000)],
            steps in steps(),
        ) {
            const WINDOW: u64 = 4 << 20;
            let value = |ms: u64| first.wrapping_add((ms / tick_ms) as u32);
            let mut clock = PeerClock::new(at(0), value(0), Seq(first));
            let (mut ms, mut bytes, mut in_tick) = (0u64, 0u64, 0u64);
            let mut sent = vec![(ms, bytes)];
            for (pause_ms, more) in steps {
                let before = value(ms);
                ms += pause_ms;
                in_tick += u64::from(more);
                if value(ms) == before && in_tick > 1 << 31 {
                    ms += tick_ms;
                }
                if value(ms) != before {
                    in_tick = u64::from(more);
                }
                bytes += u64::from(more);
                prop_assert!(!clock.is_old(at(ms), value(ms)));
                clock.take(at(ms), value(ms), Seq(first.wrapping_add(bytes as u32)));
                prop_assert_eq!(clock.recent(), value(ms));
                for &(sent_ms, sent_bytes) in &sent {
                    if bytes - sent_bytes > (1 << 32) - 2 * WINDOW {
                        prop_assert!(clock.is_old(at(ms), value(sent_ms)), "{} of {}", sent_ms, ms);
                    }
                }
                sent.push((ms, bytes));
            }
        }

        #[test]
        fn nothing_of_the_last_generation_is_old(first: u32, steps in steps()) {
            let value = |ms: u64| first.wrapping_add(ms as u32);
            let mut clock = PeerClock::new(at(0), value(0), Seq(first));
            let (mut ms, mut bytes) = (0u64, 0u64);
            let mut sent = vec![(ms, bytes)];
            for (pause_ms, more) in steps {
                ms += pause_ms % 1000;
                bytes += u64::from(more % (1 << 24));
                clock.take(at(ms), value(ms), Seq(first.wrapping_add(bytes as u32)));
                for &(sent_ms, sent_bytes) in sent.iter().rev() {
                    let (age_ms, age) = (ms - sent_ms, bytes - sent_bytes);
                    if age_ms < 62_000 && age < u64::from(GENERATION_BYTES) {
                        prop_assert!(!clock.is_old(at(ms), value(sent_ms)));
                    }
                }
                sent.push((ms, bytes));
            }
        }
    }
}
