//! One direction of a link: each impairment, and that the seed decides all of them.

use super::super::*;
use core::time::Duration;
use proptest::prelude::*;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn us(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

fn lane(impairments: Impairments) -> Lane {
    Lane::new(impairments, &Dice::new(7))
}

/// A frame of so many bytes that has a number in it.
fn frame(number: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![0; len];
    frame[14..18].copy_from_slice(&number.to_be_bytes());
    frame
}

fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[14..18].try_into().unwrap())
}

/// Everything that is underway, with the times at which it arrives.
fn arrivals(lane: &mut Lane) -> Vec<(Duration, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some(at) = lane.poll_timeout() {
        if let Some(before) = at.checked_sub(Duration::from_nanos(1)) {
            assert_eq!(lane.poll_arrival(before), None);
        }
        all.extend(lane.poll_arrival(at).map(|frame| (at, frame)));
    }
    all
}

/// Sends so many frames of 114 bytes (100 on the link), one each 100 µs, and says which arrived.
fn sends(lane: &mut Lane, count: u32) -> Vec<u32> {
    for at in 0..count {
        lane.send(us(100) * at, &frame(at, 114));
    }
    let arrived = arrivals(lane);
    arrived.iter().map(|(_, frame)| number(frame)).collect()
}

#[test]
fn without_impairments_all_arrives_at_once_and_in_order() {
    let mut lane = lane(Impairments::default());
    assert_eq!(lane.send(ms(5), &frame(1, 60)), Fate::default());
    lane.send(ms(5), &frame(2, 60));
    assert_eq!(lane.poll_arrival(ms(4)), None);
    assert_eq!(lane.poll_arrival(ms(5)), Some(frame(1, 60)));
    assert_eq!(lane.poll_arrival(ms(5)), Some(frame(2, 60)));
    assert_eq!(lane.poll_timeout(), None);
}

#[test]
fn a_rate_spaces_frames_and_a_full_queue_drops_the_last() {
    let rate_bits_per_second = Some(8_000_000); // a byte each microsecond
    let queue_bytes = 3000;
    let mut lane = lane(Impairments {
        rate_bits_per_second,
        queue_bytes,
        latency: ms(3),
        ..Default::default()
    });
    let fates: Vec<_> = (0..6).map(|at| lane.send(ms(0), &frame(at, 1014)).lost).collect();
    // One is being sent, with none before it; then 1000, 2000 and 3000 bytes wait.
    assert_eq!(fates, [None, None, None, Some(Lost::Queue), Some(Lost::Queue), Some(Lost::Queue)]);
    let times: Vec<_> = arrivals(&mut lane).into_iter().map(|(at, _)| at).collect();
    assert_eq!(times, [ms(4), ms(5), ms(6)]);
    assert_eq!((lane.counters().lost_queue, lane.counters().queue_bytes_max), (3, 2000));
    // Later, the queue is empty again.
    assert_eq!(lane.send(ms(10), &frame(9, 1014)).lost, None);
    assert_eq!(lane.poll_timeout(), Some(ms(14)));
}

#[test]
fn jitter_alone_never_reorders() {
    let mut lane = lane(Impairments { latency: ms(10), jitter: ms(5), ..Default::default() });
    let sent: Vec<u32> = (0..500).collect();
    assert_eq!(sends(&mut lane, 500), sent);
    let mut lane = super::super::Lane::new(
        Impairments { latency: ms(10), jitter: ms(5), ..Default::default() },
        &Dice::new(1),
    );
    lane.send(ms(0), &frame(0, 60));
    let at = lane.poll_timeout().unwrap();
    assert!(at >= ms(10) && at < ms(15) && at != ms(10), "{at:?}");
}

#[test]
fn uniform_loss_is_as_frequent_as_it_says() {
    let mut lane = lane(Impairments { loss: 0.03, ..Default::default() });
    let arrived = sends(&mut lane, 20_000).len() as u64;
    let counters = lane.counters();
    assert_eq!(arrived + counters.lost_chance, 20_000);
    assert!((500..700).contains(&counters.lost_chance), "{}", counters.lost_chance);
    assert_eq!((counters.frames_sent, counters.frames_arrived), (20_000, arrived));
    assert_eq!(counters.bytes_arrived, arrived * 114);
}

#[test]
fn bursts_lose_neighbours() {
    let bursts = Bursts { begin: 0.01, end: 0.25, loss: 1.0 };
    let mut lane = lane(Impairments { bursts: Some(bursts), ..Default::default() });
    let arrived = sends(&mut lane, 20_000);
    let lost = lane.counters().lost_burst;
    // 0.01 / (0.01 + 0.25) of the time is bad.
    assert!((600..950).contains(&lost), "{lost}");
    let gaps = arrived.windows(2).filter(|pair| pair[1] > pair[0] + 1).count() as u64;
    let mean = lost as f64 / gaps as f64;
    assert!((3.4..4.6).contains(&mean), "a burst has four frames on average, not {mean}");
}

#[test]
fn a_second_is_silent_after_each_megabyte() {
    let silence = Some(Silence::SECOND_PER_MEGABYTE);
    let mut lane = lane(Impairments { silence, ..Default::default() });
    // 1000 bytes each millisecond: a megabyte is there after a second.
    let lost: Vec<u32> = (0..4500)
        .filter(|at| lane.send(ms(u64::from(*at)), &frame(*at, 1000)).lost == Some(Lost::Silence))
        .collect();
    let wanted: Vec<u32> = (1000..1999).chain(2999..3998).collect();
    assert_eq!(lost, wanted);
    assert_eq!(lane.counters().lost_silence, lost.len() as u64);
}

/// A TCP segment with so much payload.
fn segment(flags: u8, payload: usize) -> Vec<u8> {
    let mut frame = vec![0; 14 + 20 + 20 + payload];
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&(40 + payload as u16).to_be_bytes());
    frame[23] = 6;
    frame[14 + 20 + 12] = 5 << 4;
    frame[14 + 20 + 13] = flags;
    frame
}

#[test]
fn only_pure_acknowledgements_are_lost_as_such() {
    let mut lane = lane(Impairments { ack_loss: 1.0, ..Default::default() });
    let mut fate = |frame: &[u8]| lane.send(ms(0), frame).lost;
    assert_eq!(fate(&segment(0x10, 0)), Some(Lost::Ack));
    // Padding to Ethernet's 60 bytes is no payload.
    assert_eq!(fate(&[segment(0x10, 0), vec![0; 6]].concat()), Some(Lost::Ack));
    for (flags, payload) in [(0x10, 1), (0x12, 0), (0x11, 0), (0x14, 0), (0x02, 0), (0x18, 5)] {
        assert_eq!(fate(&segment(flags, payload)), None, "{flags:#x}, {payload} bytes");
    }
    assert_eq!(fate(&frame(1, 60)), None);
    assert_eq!(lane.counters().lost_ack, 2);
}

#[test]
fn duplicates_arrive_twice() {
    let mut lane = lane(Impairments { duplication: 0.1, ..Default::default() });
    let arrived = sends(&mut lane, 2000);
    let doubled = arrived.windows(2).filter(|pair| pair[0] == pair[1]).count() as u64;
    assert_eq!(doubled, lane.counters().duplicated);
    assert!((150..250).contains(&doubled), "{doubled}");
}

#[test]
fn reordered_frames_are_overtaken_by_those_of_the_extra_time() {
    let reordering_delay = us(350);
    let mut lane = lane(Impairments {
        reordering: 0.05,
        reordering_delay,
        latency: ms(1),
        ..Default::default()
    });
    let arrived = sends(&mut lane, 2000);
    let mut overtaken = 0;
    for (position, frame) in arrived.iter().enumerate() {
        let moved = position as i64 - i64::from(*frame);
        assert!((-4..=4).contains(&moved), "frame {frame} came at place {position}");
        overtaken += u64::from(moved > 0);
    }
    let reordered = lane.counters().reordered;
    assert!((70..140).contains(&reordered) && overtaken > reordered / 2, "{reordered} {overtaken}");
}

#[test]
fn corruption_flips_one_bit() {
    let mut lane = lane(Impairments { corruption: 1.0, ..Default::default() });
    let mut places = std::collections::BTreeSet::new();
    for at in 0..1000 {
        let sent = frame(at, 64);
        assert!(lane.send(ms(0), &sent).is_corrupted);
        let arrived = lane.poll_arrival(ms(0)).unwrap();
        let flipped: Vec<_> =
            sent.iter().zip(&arrived).map(|(a, b)| (a ^ b).count_ones()).collect();
        assert_eq!(flipped.iter().sum::<u32>(), 1);
        places.insert(flipped.iter().position(|count| *count == 1));
    }
    assert_eq!(places.len(), 64, "everywhere in the frame");
    assert_eq!(lane.counters().corrupted, 1000);
}

#[test]
fn trailing_bytes_come_behind_the_frame() {
    let mut lane = lane(Impairments { trailing_bytes_max: 9, ..Default::default() });
    let mut lengths = [0; 10];
    for at in 0..1000 {
        let sent = frame(at, 64);
        let fate = lane.send(ms(0), &sent);
        let arrived = lane.poll_arrival(ms(0)).unwrap();
        assert_eq!(arrived[..64], sent);
        assert_eq!(arrived.len() - 64, fate.trailing_bytes);
        lengths[fate.trailing_bytes] += 1;
    }
    assert!(lengths.iter().all(|count| *count > 50), "{lengths:?}");
    assert_eq!(lane.counters().trailing, 1000 - lengths[0]);
}

#[test]
fn the_mtu_counts_from_the_ip_header() {
    let mut lane = lane(Impairments { mtu: Some(1400), ..Default::default() });
    assert_eq!(lane.send(ms(0), &frame(0, 1414)).lost, None);
    assert_eq!(lane.send(ms(0), &frame(0, 1415)).lost, Some(Lost::Mtu));
    assert_eq!(lane.counters().lost_mtu, 1);
}

#[test]
fn a_lane_that_is_off_takes_nothing_and_loses_what_is_underway() {
    let mut lane = lane(Impairments::latency(ms(10)));
    lane.send(ms(0), &frame(0, 60));
    lane.set_up(false);
    assert_eq!(lane.send(ms(1), &frame(1, 60)).lost, Some(Lost::LinkDown));
    assert_eq!(lane.poll_arrival(ms(10)), None);
    lane.set_up(true);
    lane.send(ms(11), &frame(2, 60));
    assert_eq!(lane.poll_arrival(ms(21)), Some(frame(2, 60)));
    assert_eq!(lane.counters().lost_link_down, 2);
}

#[test]
fn frames_underway_are_bounded() {
    let mut lane =
        lane(Impairments { in_flight_frames_max: 10, latency: ms(10), ..Default::default() });
    let lost = (0..15).filter(|at| lane.send(ms(0), &frame(*at, 60)).lost.is_some()).count();
    assert_eq!((lost, lane.counters().lost_in_flight), (5, 5));
    assert_eq!(arrivals(&mut lane).len(), 10);
    assert_eq!(lane.send(ms(10), &frame(0, 60)).lost, None);
}

#[test]
fn numbers_that_make_no_sense_are_named() {
    let refused = |impairments: Impairments, name: &str| {
        let error = impairments.check().unwrap_err();
        assert!(error.contains(name), "{error}");
    };
    refused(Impairments { loss: 1.5, ..Default::default() }, "loss is 1.5");
    refused(Impairments { corruption: f64::NAN, ..Default::default() }, "corruption");
    refused(Impairments { rate_bits_per_second: Some(0), ..Default::default() }, "1 bit/s");
    let bursts = Some(Bursts { begin: -0.1, end: 0.5, loss: 1.0 });
    refused(Impairments { bursts, ..Default::default() }, "bursts' beginning");
    let silence = Some(Silence { every_bytes: 0, lasts: ms(1) });
    refused(Impairments { silence, ..Default::default() }, "silence");
    assert_eq!(Impairments::default().check(), Ok(()));
}

prop_compose! {
    fn any_impairments()(
        (latency, jitter, reordering_delay) in (0..50_u64, 0..20_u64, 0..20_u64),
        rate in proptest::option::of(10_000..100_000_000_u64),
        (loss, ack_loss, duplication) in (0.0..0.5, 0.0..0.5, 0.0..0.5),
        (reordering, corruption) in (0.0..0.5, 0.0..0.5),
        bursts in proptest::option::of((0.0..0.2, 0.1..1.0, 0.0..1.0)),
        silence in proptest::bool::ANY,
        trailing_bytes_max in 0..9_usize,
        mtu in proptest::option::of(68..2000_usize),
    ) -> Impairments {
        Impairments {
            latency: ms(latency),
            jitter: ms(jitter),
            reordering_delay: ms(reordering_delay),
            rate_bits_per_second: rate,
            loss,
            ack_loss,
            duplication,
            reordering,
            corruption,
            bursts: bursts.map(|(begin, end, loss)| Bursts { begin, end, loss }),
            silence: silence.then_some(Silence { every_bytes: 10_000, lasts: ms(30) }),
            trailing_bytes_max,
            mtu,
            in_flight_frames_max: 50,
            ..Impairments::default()
        }
    }
}

proptest! {
    /// Whatever the link does: the same seed does it again, every frame is accounted for, and time
    /// does not go back.
    #[test]
    fn the_seed_decides_all_and_every_frame_is_accounted_for(
        impairments in any_impairments(),
        seed: u64,
        frames in proptest::collection::vec((0..3_u64, 18..1600_usize), 1..200),
    ) {
        let run = || {
            let mut lane = Lane::new(impairments.clone(), &Dice::new(seed));
            let (mut now, mut log, mut fates) = (ms(0), Vec::new(), Vec::new());
            for (index, (pause, len)) in frames.iter().enumerate() {
                now += ms(*pause);
                while let Some(at) = lane.poll_timeout().filter(|at| *at <= now) {
                    log.extend(lane.poll_arrival(at).map(|frame| (at, frame)));
                }
                fates.push(lane.send(now, &frame(index as u32, *len)));
            }
            log.extend(arrivals(&mut lane));
            (log, fates, lane.counters())
        };
        let (log, fates, counters) = run();
        prop_assert_eq!(&run(), &(log.clone(), fates.clone(), counters));
        let lost = fates.iter().filter(|fate| fate.lost.is_some()).count() as u64;
        let listed: u64 =
            counters.iter().filter(|(name, _)| name.starts_with("lost_")).map(|(_, count)| count).sum();
        prop_assert_eq!(lost, listed);
        prop_assert_eq!(log.len() as u64, counters.frames_arrived);
        let expected = counters.frames_sent - lost + counters.duplicated;
        prop_assert_eq!(counters.frames_arrived, expected);
        prop_assert!(log.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    }

    /// Another impairment's dice are its own.
    #[test]
    fn which_frames_are_lost_does_not_depend_on_other_impairments(other in any_impairments(), seed: u64) {
        let lost = |impairments: Impairments| {
            let mut lane = Lane::new(impairments, &Dice::new(seed));
            let is_lost = |at: u32| lane.send(us(1) * at, &frame(at, 60)).lost == Some(Lost::Chance);
            (0..40).map(is_lost).collect::<Vec<_>>()
        };
        let alone = lost(Impairments { loss: 0.2, ..Default::default() });
        let in_company = lost(Impairments {
            loss: 0.2,
            ack_loss: 0.0,
            bursts: None,
            silence: None,
            rate_bits_per_second: None,
            mtu: None,
            in_flight_frames_max: 1000,
            ..other
        });
        let alike = alone.iter().zip(&in_company).filter(|(a, b)| a == b).count();
        prop_assert_eq!(alike, 40);
    }
}
