//! Selective acknowledgments that we send (RFC 2018, RFC 2883).

use super::script::*;
use crate::config::Limits;
use crate::wire::tcp::SackBlocks;

/// A connection on which SACK was agreed on.
fn agreed(host: &mut Host) -> &mut Host {
    host.established_with(seg("S").mss(MSS as u16).sack_ok())
}

/// Bytes `from..to` of the peer's stream, which begins at number 1.
fn bytes(from: u32, to: u32) -> Seg {
    seg(".").seq(1 + from).ack(1).stream(from as usize, (to - from) as usize)
}

/// An ACK of the bytes before `to`, with blocks of bytes.
fn ack(to: u32, blocks: &[(u32, u32)]) -> Seg {
    let blocks: Vec<_> = blocks.iter().map(|&(start, end)| (1 + start, 1 + end)).collect();
    seg(".").seq(1).ack(1 + to).sack(&blocks)
}

/// RFC 2018 §2: offered in every SYN, permitted only to who offered it.
#[test]
fn sack_is_agreed_on_by_both_or_by_none() {
    with_isns(|mut host| {
        host.connect();
        assert!(host.next_sent().header.options.sack_permitted);
        host.rx(seg("S.").seq(0).ack(1).mss(1460).sack_ok()).expect(seg(".").seq(1).ack(1));
        host.rx(bytes(10, 20)).expect(ack(0, &[(10, 20)])).nothing();
    });
    with_isns(|mut host| {
        host.connect().next_sent();
        host.rx(seg("S.").seq(0).ack(1).mss(1460)).expect(seg(".").seq(1).ack(1));
        host.rx(bytes(10, 20)).expect(ack(0, &[])).nothing();
    });
    with_isns(|mut host| {
        host.established().rx(bytes(10, 20)).expect(ack(0, &[])).nothing();
        host.rx(bytes(10, 20)).expect(ack(0, &[])).nothing();
    });
    // Pitfall T06, S03: a simultaneous open, and the same SYN-ACK each time.
    with_isns(|mut host| {
        host.connect().next_sent();
        host.rx(seg("S").seq(0).mss(1460).sack_ok());
        assert!(host.next_sent().header.options.sack_permitted);
        host.after(1000);
        assert!(host.next_sent().header.options.sack_permitted);
        host.rx(seg(".").seq(1).ack(1).sack(&[])).rx(bytes(10, 20));
        host.expect(ack(0, &[(10, 20)])).nothing();
    });
}

/// Pitfall R16: the block of the newest segment is first, and then those that changed before.
#[test]
fn blocks_are_newest_first() {
    with_isns(|mut host| {
        agreed(&mut host).rx(bytes(200, 300)).expect(ack(0, &[(200, 300)]));
        host.rx(bytes(600, 700)).expect(ack(0, &[(600, 700), (200, 300)]));
        host.rx(bytes(400, 500)).expect(ack(0, &[(400, 500), (600, 700), (200, 300)]));
        host.rx(bytes(300, 350)).expect(ack(0, &[(200, 350), (400, 500), (600, 700)]));
        host.rx(bytes(800, 900));
        host.expect(ack(0, &[(800, 900), (200, 350), (400, 500), (600, 700)]));
        // Four fit, without timestamps; the one that changed longest ago is left out.
        host.rx(bytes(1000, 1100));
        host.expect(ack(0, &[(1000, 1100), (800, 900), (200, 350), (400, 500)]));
        // Merged ones are one.
        host.rx(bytes(350, 400));
        host.expect(ack(0, &[(200, 500), (1000, 1100), (800, 900), (600, 700)]));
        host.rx(bytes(0, 200)).expect(ack(500, &[(1000, 1100), (800, 900), (600, 700)]));
        host.rx(bytes(500, 1000)).expect(ack(1100, &[(600, 700)])).nothing();
        host.rx(bytes(1100, 1200)).nothing().after(40).expect(ack(1200, &[])).nothing();
    });
}

/// Pitfall P06: three blocks beside timestamps, and data that goes with them is shorter by them.
#[test]
fn blocks_take_their_room_from_data() {
    with_isns(|mut host| {
        host.established_with(seg("S").mss(1460).ts(1000, 0).sack_ok());
        for start in [100, 300, 500, 700] {
            let mut island = bytes(start, start + 50);
            island.ts = Some((1000, 0));
            host.rx(island);
        }
        let last = host.out.pop_back().expect("an ACK").header;
        assert_eq!(last.options.sack.as_slice().len(), 3);
        assert_eq!(last.len(), 20 + 12 + SackBlocks::wire_len(3));
        host.out.clear();
        host.write_stream(0, 3000);
        let sent = host.next_sent();
        assert_eq!(sent.header.len() + sent.payload.len(), 1480, "the whole MTU");
        assert_eq!(sent.payload.len(), 1420);
    });
}

/// Pitfall P06: also in segments that the device cuts.
#[test]
fn blocks_take_their_room_from_each_segment_of_a_large_one() {
    let mut host = Host::new().with_large(65_515);
    agreed(&mut host).rx(bytes(100, 200)).expect(ack(0, &[(100, 200)]));
    host.write_stream(0, 14_000);
    let sent = host.next_sent();
    assert_eq!(sent.mss, Some(1460 - 12));
    assert!(sent.payload.len().is_multiple_of(1448) && sent.payload.len() > 1448);
    assert_eq!(sent.header.options.sack.as_slice().len(), 1);
}

/// RFC 2883 §4.1: each duplicate is reported once, first.
#[test]
fn duplicates_are_reported_first_and_once() {
    with_isns(|mut host| {
        agreed(&mut host).rx(bytes(0, 500)).nothing().rx(bytes(500, 1000));
        host.pass(40).out.clear();
        // Whole and below the ACK.
        host.rx(bytes(0, 500)).expect(ack(1000, &[(0, 500)])).nothing();
        // In part.
        host.rx(bytes(900, 1100)).expect(ack(1100, &[(900, 1000)])).nothing();
        // Ahead of a gap: then the block that it lies in.
        host.rx(bytes(1500, 1600)).expect(ack(1100, &[(1500, 1600)]));
        host.rx(bytes(1600, 1700)).expect(ack(1100, &[(1500, 1700)]));
        host.rx(bytes(1550, 1650)).expect(ack(1100, &[(1550, 1650), (1500, 1700)])).nothing();
        host.rx(bytes(1800, 1900)).expect(ack(1100, &[(1800, 1900), (1500, 1700)])).nothing();
    });
}

/// What ranges have arrived, byte by byte.
fn ranges(arrived: &[bool]) -> Vec<(u32, u32)> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while let Some(start) = (at..arrived.len()).find(|&byte| arrived[byte]) {
        at = (start..arrived.len()).find(|&byte| !arrived[byte]).unwrap_or(arrived.len());
        ranges.push((start as u32, at as u32));
    }
    ranges
}

/// Pitfalls R10, R16; tcp-testsuite `overlapping-*`: islands 200–300, 400–500 and 600–700, then
/// one segment between any two of these places: the exact ACK and list, and every byte once.
#[test]
fn any_overlap_gets_the_exact_list() {
    let places = [0, 1, 100, 199, 200, 201, 250, 299, 300, 301, 350, 399, 400, 450, 500, 501, 599]
        .into_iter()
        .chain([600, 601, 650, 699, 700, 701, 800]);
    let places: Vec<u32> = places.collect();
    for (index, &from) in places.iter().enumerate() {
        for &to in &places[index + 1..] {
            let mut host = Host::with(Limits::default(), MTU, u32::MAX - 350, u32::MAX);
            agreed(&mut host);
            let mut arrived = vec![false; 900];
            for island in [200, 400, 600] {
                host.rx(bytes(island, island + 100));
                arrived[island as usize..island as usize + 100].fill(true);
            }
            host.pass(40).out.clear();
            // The first part of the segment that had arrived.
            let old = (from..to).find(|&byte| arrived[byte as usize]);
            let duplicate = old.map(|old| {
                let end = (old..to).find(|&byte| !arrived[byte as usize]).unwrap_or(to);
                (old, end)
            });
            arrived[from as usize..to as usize].fill(true);
            let all = ranges(&arrived);
            let acked = all.first().filter(|range| range.0 == 0).map_or(0, |range| range.1);
            let ahead: Vec<_> = all.iter().copied().filter(|range| range.0 > 0).collect();
            // The changed one first, then those of before, newest first.
            let changed = ahead.iter().copied().find(|r| r.0 <= from && from < r.1);
            let changed = changed.filter(|range| range.1 > acked);
            let mut expected: Vec<(u32, u32)> = duplicate.into_iter().chain(changed).collect();
            let rest = ahead.iter().rev().filter(|&&range| Some(range) != changed);
            expected.extend(rest);
            expected.truncate(4);
            host.rx(bytes(from, to));
            if acked == 0 || !ahead.is_empty() || duplicate.is_some() {
                host.expect(ack(acked, &expected)).nothing();
            }
            // Fill everything: each byte once.
            host.rx(bytes(0, 900)).pass(40).out.clear();
            host.read(&stream(0, 900)).would_block();
        }
    }
}

/// tcp-testsuite `reordering-*`: five growing segments in all orders, and FIN after the fifth first.
#[test]
fn five_segments_arrive_in_every_order() {
    let starts = [0u32, 1, 3, 7, 15, 31];
    let mut orders = vec![vec![]];
    for item in 0..5usize {
        orders = orders
            .into_iter()
            .flat_map(|order: Vec<usize>| {
                (0..=order.len()).map(move |at| {
                    let mut longer = order.clone();
                    longer.insert(at, item);
                    longer
                })
            })
            .collect();
    }
    assert_eq!(orders.len(), 120);
    for order in orders {
        for has_fin in [false, true] {
            let mut host = Host::with(Limits::default(), MTU, u32::MAX - 10, 7);
            agreed(&mut host);
            let mut arrived = vec![false; 32];
            if has_fin {
                host.rx(seg("F.").seq(32).ack(1)).expect(ack(0, &[])).nothing();
            }
            for &item in &order {
                let (from, to) = (starts[item], starts[item + 1]);
                let had_gap = ranges(&arrived).iter().any(|range| range.0 > 0) || has_fin;
                arrived[from as usize..to as usize].fill(true);
                host.rx(bytes(from, to));
                let all = ranges(&arrived);
                let acked = all.first().filter(|range| range.0 == 0).map_or(0, |range| range.1);
                let is_end = has_fin && acked == 31;
                let ahead = all.iter().filter(|range| range.0 > 0).count();
                if had_gap || ahead > 0 {
                    let sent = host.next_sent().header;
                    let expected = host.peer_isn + 1 + acked + u32::from(is_end);
                    assert_eq!(sent.acknowledgment, expected, "{order:?}");
                    let blocks = sent.options.sack.as_slice();
                    assert_eq!(blocks.len(), ahead.min(4));
                    if from > acked {
                        let newest = all.iter().find(|range| range.0 <= from && to <= range.1);
                        let (start, end) = *newest.expect("it has arrived");
                        let isn = host.peer_isn + 1;
                        assert_eq!(blocks[0], (isn + start, isn + end), "{order:?}");
                    }
                }
                host.pass(40).out.clear();
            }
            host.read(&stream(0, 31));
            if has_fin {
                host.read_end();
            } else {
                host.would_block();
            }
        }
    }
}

/// Pitfall C03: without memory for handshakes, SACK comes back in the timestamp.
#[test]
fn cookies_bring_sack_back() {
    for offers in [false, true] {
        let limits = Limits { tcp_half_open: 0, ..Limits::default() };
        let mut host = Host::with_limits(limits);
        let mut syn = seg("S").mss(1460).ts(1000, 0).shift(7);
        syn.sack_permitted = offers;
        host.listen().rx(syn);
        let syn_ack = host.next_sent().header;
        assert_eq!(syn_ack.options.sack_permitted, offers);
        let clock = syn_ack.options.timestamps.expect("agreed on").value;
        host.rx(seg(".").seq(1).ack(1).ts(1001, clock)).accept();
        assert_eq!(host.counters().tcp_cookies_accepted, 1);
        let mut island = bytes(10, 20);
        island.ts = Some((1002, clock));
        host.rx(island).expect(ack(0, if offers { &[(10, 20)] } else { &[] })).nothing();
    }
}

/// An IP packet of 68 bytes, which every link carries, has room for one block beside timestamps.
#[test]
fn blocks_leave_out_what_does_not_fit_into_the_smallest_mtu() {
    let mut host = Host::with(Limits::default(), 68, 0, 0);
    agreed(&mut host).rx(bytes(20, 30)).expect(ack(0, &[(20, 30)]));
    host.rx(bytes(40, 50)).expect(ack(0, &[(40, 50), (20, 30)]));
    host.rx(bytes(60, 70)).expect(ack(0, &[(60, 70), (40, 50)]));

    let mut host = Host::with(Limits::default(), 68, 0, 0);
    host.established_with(seg("S").mss(MSS as u16).sack_ok().ts(1, 0));
    let late = |from, to| bytes(from, to).ts(2, 0);
    for (start, end) in [(20, 30), (40, 50), (60, 70)] {
        host.rx(late(start, end));
        let options = host.next_sent().header.options;
        assert_eq!(options.sack.as_slice().len(), 1);
        assert!(options.timestamps.is_some());
    }
    // Data beside it is one byte at least.
    host.write(b"some words");
    host.next_sent();
}
