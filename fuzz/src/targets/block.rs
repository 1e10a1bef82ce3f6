//! A block device's ring, with either end an adversary's.

use crate::{Input, Shared};
use fata_xenbus::ring::block::{
    Back, DIRECT_SEGMENTS_MAX, DirectSegments, Front, INDIRECT_PAGE_SEGMENTS, INDIRECT_PAGES_MAX,
    Operation, Request, Response, SLOT_BYTES, Segment, Status,
};
use std::collections::BTreeMap;

const STATUSES: [Status; 3] = [Status::Okay, Status::Error, Status::NotSupported];

/// Header of a ring: `req_prod`, `req_event`, `rsp_prod`, `rsp_event`, and what is unused.
const HEADER_BYTES: usize = 64;

fn request(input: &mut Input<'_>) -> Request {
    let operations =
        [Operation::Read, Operation::Write, Operation::WriteBarrier, Operation::FlushDiskcache];
    let operation = operations[input.below(operations.len())];
    let sector_number = input.u64();
    match input.below(3) {
        0 => {
            let count = 1 + input.below(DIRECT_SEGMENTS_MAX);
            let segment = |input: &mut Input<'_>| {
                let last_sect = input.u8() & 7;
                Segment { gref: input.u32(), first_sect: input.u8() % (last_sect + 1), last_sect }
            };
            let segments: Vec<_> = (0..count).map(|_| segment(input)).collect();
            let segments = DirectSegments::new(&segments).expect("eleven at most");
            Request::Direct { operation, sector_number, segments }
        }
        1 => {
            let most = (INDIRECT_PAGES_MAX * INDIRECT_PAGE_SEGMENTS) as u16;
            let nr_segments = 1 + input.u16() % most;
            let pages = Request::indirect_pages(nr_segments);
            let mut indirect_grefs = [0; INDIRECT_PAGES_MAX];
            indirect_grefs[..pages].fill_with(|| input.u32());
            let operation = operations[input.below(2)];
            Request::Indirect { operation, sector_number, nr_segments, indirect_grefs }
        }
        _ => Request::Discard { sector_number, nr_sectors: input.u64(), secure: input.flag() },
    }
}

/// A frontend, the true backend, and a second backend that lies in the same page. A token comes back
/// once; until somebody scribbles, what was asked arrives as it was asked.
pub fn run(input: &mut Input<'_>) {
    let memory = Shared::new(4096 << input.below(3));
    let mut front = Front::new(memory.clone(), 768);
    let mut back = Back::attach(memory.clone());
    let capacity = usize::from(front.capacity());
    assert_eq!(back.capacity(), front.capacity().into());
    let mut is_honest = true;
    let mut failed = false;
    let mut in_flight = BTreeMap::new();
    let mut at_backend = Vec::new();
    let (mut made, mut answered) = (0u32, 0u32);
    // Requests as the backend must see them.
    let mut asked = std::collections::VecDeque::new();
    while !input.is_empty() {
        match input.below(8) {
            0 | 1 if front.free() > 0 && !failed => {
                let request = request(input);
                let token = front.push(&request);
                assert!(usize::from(token) < capacity);
                assert!(in_flight.insert(token, request).is_none(), "a token that is in use");
                asked.push_back(request);
                made = made.wrapping_add(1);
                check_codec(&request);
            }
            2 => {
                front.publish();
            }
            3 | 4 => match back.take() {
                Ok(Some((id, operation, request))) => {
                    let expected = asked.pop_front();
                    assert!(!is_honest || request == Ok(expected.expect("nothing was asked")));
                    at_backend.push((id, operation));
                }
                Ok(None) => {}
                Err(error) => assert!(!is_honest, "{error}"),
            },
            5 if !at_backend.is_empty() => {
                let (id, operation) =
                    at_backend.swap_remove(input.below(at_backend.len().min(256)));
                back.answer(id, operation, STATUSES[input.below(3)]);
                answered = answered.wrapping_add(1);
                if input.flag() {
                    back.publish();
                }
            }
            6 if !failed => match front.take() {
                Ok(Some((token, _))) => {
                    assert!(in_flight.remove(&token).is_some(), "a token that is not in flight");
                }
                Ok(None) => {}
                // Final: the disk is closed.
                Err(error) => {
                    assert!(!is_honest, "{error}");
                    failed = true;
                }
            },
            7 => {
                is_honest = false;
                let slot = HEADER_BYTES + SLOT_BYTES * input.below(capacity.min(256));
                let at = match input.below(4) {
                    0 => 0,
                    1 => 8,
                    2 => slot,
                    _ => slot + input.below(SLOT_BYTES),
                };
                let honest = match at {
                    0 => made,
                    8 => answered,
                    // The id of a response.
                    _ => u32::from(input.u8()) | u32::from(input.u8()) << 16,
                };
                let word = input.near(honest);
                match input.below(4) {
                    0 | 1 => memory.scribble(at, word),
                    loads => memory.trap(loads as u32 - 1, at, word),
                }
                if input.flag() {
                    // A whole slot, as a lying frontend fills it.
                    let mut bytes = [0; SLOT_BYTES];
                    let lie = input.bytes(SLOT_BYTES);
                    bytes[..lie.len()].copy_from_slice(lie);
                    memory.write(slot, &bytes);
                    check_lie(&bytes);
                }
            }
            _ => {
                let _ = (front.may_sleep(), back.may_sleep());
            }
        }
        assert_eq!(usize::from(front.free()) + in_flight.len(), capacity);
    }
}

/// What was encoded is decoded.
fn check_codec(request: &Request) {
    let (id, operation, decoded) = Request::decode(&request.encode(7, 768));
    assert_eq!((id, operation, decoded), (7, request.operation() as u8, Ok(*request)));
}

/// Whatever a slot holds: a request that is taken keeps to its bounds.
fn check_lie(slot: &[u8; SLOT_BYTES]) {
    let (_, _, request) = Request::decode(slot);
    match request {
        Ok(Request::Direct { operation, segments, .. }) => {
            let segments = segments.as_slice();
            assert!(segments.len() <= DIRECT_SEGMENTS_MAX);
            assert!(
                !segments.is_empty() || !matches!(operation, Operation::Read | Operation::Write)
            );
            for segment in segments {
                assert!(segment.offset() + segment.len() <= 4096 && segment.len() >= 512);
                assert_eq!(Segment::decode(&segment.encode()), Ok(*segment));
            }
        }
        Ok(request @ Request::Indirect { nr_segments, .. }) => {
            assert!(Request::indirect_pages(nr_segments) <= INDIRECT_PAGES_MAX && nr_segments > 0);
            assert!(matches!(request.operation(), Operation::Read | Operation::Write));
        }
        Ok(Request::Discard { .. }) => {}
        Err(error) => assert_ne!(error.status(), Status::Okay),
    }
    if let Some(response) = slot.first_chunk() {
        let response = Response::decode(response);
        assert_eq!(Response::decode(&response.encode()), response);
    }
}
