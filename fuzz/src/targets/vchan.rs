//! A vchan, with an adversary in the interface's page.

use crate::{Input, Shared};
use fata_xenbus::vchan::{Description, Endpoint, Orders, Progress, Side, format, is_offered};
use std::collections::VecDeque;

/// One direction: what was written and not read yet.
#[derive(Default)]
struct Stream {
    written: VecDeque<u8>,
    next: u8,
}

/// Both ends over one page. Until somebody scribbles, bytes arrive in order, once, and an end that
/// waits is notified; afterwards, no panic, and no more at once than the ring holds.
pub fn run(input: &mut Input<'_>) {
    let (left, right) = [(10, 11), (11, 10), (10, 12), (12, 11), (12, 12)][input.below(5)];
    let orders = Orders::new(left, right).expect("they are possible");
    let interface = Shared::new(4096);
    let (left_pages, right_pages) = orders.pages();
    format(&interface, orders, &vec![7; left_pages], &vec![8; right_pages]);
    if input.below(4) == 3 {
        // A server that lies from the beginning: its description is refused, or can be mapped.
        for _ in 0..1 + input.below(4) {
            interface.scribble(input.below(32), input.u32());
        }
        let _ = is_offered(&interface);
        if let Ok(Description { orders, left, right }) = Description::read(&interface) {
            assert_eq!((left.len(), right.len()), orders.pages());
            assert!(left.len() + right.len() <= 512);
        }
        format(&interface, orders, &vec![7; left_pages], &vec![8; right_pages]);
    }
    let ring = |pages: usize| (pages > 0).then(|| Shared::new(4096 * pages));
    let (left, right) = (ring(left_pages), ring(right_pages));
    let new = |side| Endpoint::new(side, orders, interface.clone(), left.clone(), right.clone());
    let mut ends = [new(Side::Server), new(Side::Client)];
    let (left_bytes, right_bytes) = orders.bytes();
    let sizes = [right_bytes, left_bytes];
    // What each end writes; whether it sleeps until there is data, or room; whether it has left.
    let mut streams = [Stream::default(), Stream::default()];
    let (mut awaits_data, mut awaits_room) = ([false, false], [false, false]);
    let mut gone = [false, false];
    let mut is_honest = true;
    while !input.is_empty() {
        let me = input.below(2);
        let other = 1 - me;
        match input.below(8) {
            0..3 => {
                let next = streams[me].next;
                let bytes: Vec<u8> =
                    (0..1 + input.len(5000)).map(|at| next.wrapping_add(at as u8)).collect();
                match ends[me].write(&bytes) {
                    Ok(Progress::Bytes { count, notify }) => {
                        assert!((1..=bytes.len().min(sizes[me])).contains(&count));
                        assert!(!is_honest || !gone[other]);
                        streams[me].next = next.wrapping_add(count as u8);
                        streams[me].written.extend(&bytes[..count]);
                        assert!(!is_honest || streams[me].written.len() <= sizes[me]);
                        awaits_room[me] = false;
                        assert!(!is_honest || notify || !awaits_data[other], "it sleeps on");
                        awaits_data[other] &= !notify;
                    }
                    Ok(Progress::Wait) => {
                        assert!(!is_honest || streams[me].written.len() == sizes[me]);
                        awaits_room[me] = true;
                    }
                    Ok(Progress::Gone) => assert!(!is_honest || gone[other]),
                    Err(error) => assert!(!is_honest, "{error}"),
                }
            }
            3..6 => {
                let mut bytes = vec![0; 1 + input.len(5000)];
                let stream = &mut streams[other].written;
                match ends[me].read(&mut bytes) {
                    Ok(Progress::Bytes { count, notify }) => {
                        assert!((1..=bytes.len().min(sizes[other])).contains(&count));
                        let expected: Vec<u8> = stream.drain(..count.min(stream.len())).collect();
                        assert!(!is_honest || bytes[..count] == expected);
                        awaits_data[me] = false;
                        awaits_room[other] &= !notify;
                    }
                    Ok(Progress::Wait) => {
                        assert!(!is_honest || stream.is_empty());
                        // On the way here, more than half of the ring became free.
                        assert!(!is_honest || !awaits_room[other], "it sleeps on");
                        awaits_data[me] = true;
                    }
                    Ok(Progress::Gone) => {
                        assert!(!is_honest || (gone[other] && stream.is_empty()));
                    }
                    Err(error) => assert!(!is_honest, "{error}"),
                }
            }
            6 if input.below(8) == 7 => {
                ends[me].leave();
                gone[me] = true;
                // Who leaves notifies, always.
                (awaits_data[other], awaits_room[other]) = (false, false);
            }
            6 => {
                let _ = (ends[me].has_met(), ends[me].is_peer_gone());
            }
            _ => {
                is_honest = false;
                let at = input.below(32);
                let word = input.near(u32::from(streams[me].next));
                match input.below(4) {
                    0 | 1 => interface.scribble(at, word),
                    loads => interface.trap(loads as u32 - 1, at, word),
                }
            }
        }
    }
}
