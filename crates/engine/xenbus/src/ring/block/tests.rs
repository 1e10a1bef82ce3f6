use super::*;
use crate::Memory;
use crate::ring::core::{BackRing, RingError, slot_count};
use crate::ring::simulation::SharedMemory;
use proptest::prelude::*;
use std::string::ToString;
use std::vec::Vec;

const OFFSET_RSP_PROD: usize = 8;

fn segment() -> impl Strategy<Value = Segment> {
    (any::<u32>(), 0_u8..8, 0_u8..8).prop_map(|(gref, a, b)| Segment {
        gref,
        first_sect: a.min(b),
        last_sect: a.max(b),
    })
}

fn request() -> impl Strategy<Value = Request> {
    use Operation::{FlushDiskcache, Read, Write, WriteBarrier};
    let data = prop::sample::select(&[Read, Write][..]);
    let other = prop::sample::select(&[WriteBarrier, FlushDiskcache][..]);
    let direct = |least| {
        prop::collection::vec(segment(), least..=DIRECT_SEGMENTS_MAX)
            .prop_map(|segments| DirectSegments::new(&segments).unwrap())
    };
    prop_oneof![
        (data.clone(), any::<u64>(), direct(1)).prop_map(|(operation, sector_number, segments)| {
            Request::Direct { operation, sector_number, segments }
        }),
        (other, any::<u64>(), direct(0)).prop_map(|(operation, sector_number, segments)| {
            Request::Direct { operation, sector_number, segments }
        }),
        (data, any::<u64>(), 1_u16..=4096, any::<[u32; INDIRECT_PAGES_MAX]>()).prop_map(
            |(operation, sector_number, nr_segments, mut indirect_grefs)| {
                indirect_grefs[Request::indirect_pages(nr_segments)..].fill(0);
                Request::Indirect { operation, sector_number, nr_segments, indirect_grefs }
            }
        ),
        (any::<u64>(), any::<u64>(), any::<bool>()).prop_map(
            |(sector_number, nr_sectors, secure)| Request::Discard {
                sector_number,
                nr_sectors,
                secure
            }
        ),
    ]
}

fn read_of(segments: &[Segment]) -> Request {
    let segments = DirectSegments::new(segments).unwrap();
    Request::Direct { operation: Operation::Read, sector_number: 7, segments }
}

const PAGE: Segment = Segment { gref: 9, first_sect: 0, last_sect: 7 };

#[test]
fn a_page_has_32_slots_as_the_header_computes() {
    assert_eq!(slot_count(4096, SLOT_BYTES), 32);
    assert_eq!(slot_count(2 * 4096, SLOT_BYTES), 64);
    assert_eq!(slot_count(16 * 4096, SLOT_BYTES), 512);
}

/// Against the layout of the C structures on x86-64, byte by byte.
#[test]
fn a_direct_write_lies_as_blkif_request() {
    let segments =
        DirectSegments::new(&[Segment { gref: 0x0403_0201, first_sect: 2, last_sect: 5 }]);
    let request = Request::Direct {
        operation: Operation::Write,
        sector_number: 0x1817_1615_1413_1211,
        segments: segments.unwrap(),
    };
    let slot = request.encode(0x0807_0605_0403_0201, 0xca02);
    let mut expected = Vec::from([1, 1, 0x02, 0xca, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    expected.extend([0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 1, 2, 3, 4, 2, 5, 0, 0]);
    expected.resize(SLOT_BYTES, 0);
    assert_eq!(slot[..], expected[..]);
}

#[test]
fn an_indirect_read_lies_as_blkif_request_indirect() {
    let mut indirect_grefs = [0; INDIRECT_PAGES_MAX];
    indirect_grefs[0] = 0x0d0c_0b0a;
    let request = Request::Indirect {
        operation: Operation::Read,
        sector_number: 3,
        nr_segments: 0x0102,
        indirect_grefs,
    };
    let slot = request.encode(5, 0xca02);
    let mut expected = Vec::from([6, 0, 2, 1, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([3, 0, 0, 0, 0, 0, 0, 0, 0x02, 0xca, 0, 0, 0x0a, 0x0b, 0x0c, 0x0d]);
    expected.resize(SLOT_BYTES, 0);
    assert_eq!(slot[..], expected[..]);
}

#[test]
fn a_discard_lies_as_blkif_request_discard() {
    let slot = Request::Discard { sector_number: 3, nr_sectors: 8, secure: false }.encode(5, 1);
    let mut expected = Vec::from([5, 0, 1, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([3, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0]);
    expected.resize(SLOT_BYTES, 0);
    assert_eq!(slot[..], expected[..]);
}

#[test]
fn a_request_that_is_wrong_in_itself_is_refused_with_its_id() {
    let good = read_of(&[PAGE]).encode(0xabc, 0);
    let spoiled: [(usize, u8, RequestError); 7] = [
        (OPERATION, 4, RequestError::Operation(4)),
        (OPERATION, 7, RequestError::Operation(7)),
        (NR_SEGMENTS, 12, RequestError::TooManySegments(12)),
        (NR_SEGMENTS, 255, RequestError::TooManySegments(255)),
        (NR_SEGMENTS, 0, RequestError::NoSegments),
        (SEGMENTS + 5, 8, RequestError::SegmentSectors { first_sect: 0, last_sect: 8 }),
        (SEGMENTS + 4, 200, RequestError::SegmentSectors { first_sect: 200, last_sect: 7 }),
    ];
    for (at, byte, error) in spoiled {
        let mut slot = good;
        slot[at] = byte;
        let (id, _, request) = Request::decode(&slot);
        assert_eq!((id, request), (0xabc, Err(error)));
        assert!(!error.to_string().is_empty());
    }
    let indirect = |operation, nr_segments| {
        let request = Request::Indirect {
            operation: Operation::Read,
            sector_number: 0,
            nr_segments,
            indirect_grefs: [1; INDIRECT_PAGES_MAX],
        };
        let mut slot = request.encode(1, 0);
        slot[INDIRECT_OPERATION] = operation;
        Request::decode(&slot).2
    };
    assert_eq!(indirect(6, 1), Err(RequestError::Operation(6)), "indirect in indirect");
    assert_eq!(indirect(5, 1), Err(RequestError::Operation(5)));
    assert_eq!(indirect(0, 0), Err(RequestError::NoSegments));
    assert_eq!(indirect(0, 4097), Err(RequestError::TooManySegments(4097)));
    assert!(indirect(0, 4096).is_ok());
}

fn ends() -> (SharedMemory, Front<SharedMemory>, Back<SharedMemory>) {
    let memory = SharedMemory::new(4096);
    let front = Front::new(memory.clone(), 51712);
    let back = Back::attach(memory.clone());
    (memory, front, back)
}

#[test]
fn requests_are_answered_in_any_order() {
    let (_, mut front, mut back) = ends();
    let tokens: Vec<u16> = (0..32).map(|_| front.push(&read_of(&[PAGE]))).collect();
    assert_eq!(front.free(), 0);
    assert!(front.publish(), "the backend sleeps");
    let mut taken = Vec::new();
    while let Some((id, operation, request)) = back.take().unwrap() {
        assert_eq!(request, Ok(read_of(&[PAGE])));
        taken.push((id, operation));
    }
    for (id, operation) in taken.iter().rev() {
        back.answer(*id, *operation, Status::Okay);
    }
    assert!(back.publish(), "the frontend sleeps");
    for token in tokens.iter().rev() {
        assert_eq!(front.take(), Ok(Some((*token, Status::Okay))));
    }
    assert_eq!(front.take(), Ok(None));
    assert_eq!(front.free(), 32);
    assert_eq!(front.may_sleep(), Ok(true));
    assert_eq!(back.may_sleep(), Ok(true));
}

#[test]
fn an_answer_to_what_was_not_asked_is_a_named_error() {
    // Two requests are in flight: whatever the backend says of them, no index gives it away.
    let with = |answers: &[(u64, u8)]| {
        let (_, mut front, mut back) = ends();
        front.push(&read_of(&[PAGE]));
        front.push(&read_of(&[PAGE]));
        front.publish();
        for (id, operation) in answers {
            assert!(back.take().unwrap().expect("two requests").2.is_ok());
            back.answer(*id, *operation, Status::Okay);
        }
        back.publish();
        let mut last = front.take();
        for _ in 1..answers.len() {
            last = front.take();
        }
        last
    };
    let first = 1 << 16;
    assert_eq!(with(&[(first, 0)]), Ok(Some((0, Status::Okay))));
    assert_eq!(with(&[(first, 1)]), Err(FrontError::Operation { asked: 0, answered: 1 }));
    assert_eq!(with(&[(first + 2, 0)]), Err(FrontError::Id(first + 2)), "never made");
    assert_eq!(with(&[(first + 40, 0)]), Err(FrontError::Id(first + 40)), "no such place");
    assert_eq!(with(&[(0, 0)]), Err(FrontError::Id(0)), "from a former life");
    assert_eq!(with(&[(u64::MAX, 0)]), Err(FrontError::Id(u64::MAX)));
    assert_eq!(with(&[(first, 0), (first, 0)]), Err(FrontError::Id(first)), "twice");
    let said = FrontError::Id(first).to_string();
    assert!(said.starts_with("the backend answered"), "{said}");
}

/// As Linux's blkback does; and as a reader of the header might.
#[test]
fn an_indirect_request_may_be_answered_with_either_operation() {
    let request = Request::Indirect {
        operation: Operation::Write,
        sector_number: 0,
        nr_segments: 12,
        indirect_grefs: [0; INDIRECT_PAGES_MAX],
    };
    for (answer, is_good) in [(1, true), (INDIRECT, true), (0, false)] {
        let (_, mut front, mut back) = ends();
        let token = front.push(&request);
        front.publish();
        let (id, operation, _) = back.take().unwrap().expect("a request");
        assert_eq!(operation, 1, "the one inside is to be answered");
        back.answer(id, answer, Status::Okay);
        back.publish();
        let wrong = FrontError::Operation { asked: 1, answered: answer };
        let expected = if is_good { Ok(Some((token, Status::Okay))) } else { Err(wrong) };
        assert_eq!(front.take(), expected);
    }
}

#[test]
fn a_backend_that_answers_too_much_is_a_named_error() {
    let (memory, mut front, _) = ends();
    front.push(&read_of(&[PAGE]));
    front.publish();
    memory.store_u32(OFFSET_RSP_PROD, 2);
    assert!(matches!(front.take(), Err(FrontError::Ring(RingError::ResponseIndex { .. }))));
}

proptest! {
    #[test]
    fn a_request_is_read_as_it_was_written(request in request(), id: u64, handle: u16) {
        let (read_id, operation, read) = Request::decode(&request.encode(id, handle));
        prop_assert_eq!((read_id, read), (id, Ok(request)));
        prop_assert_eq!(operation, request.operation() as u8);
    }

    #[test]
    fn a_response_is_read_as_it_was_written(
        id: u64,
        operation: u8,
        status in prop::sample::select(&[Status::Okay, Status::Error, Status::NotSupported][..]),
    ) {
        let response = Response { id, operation, status };
        prop_assert_eq!(Response::decode(&response.encode()), response);
    }

    /// Whatever stands in a slot, a request that is accepted has only segments inside their pages.
    #[test]
    fn arbitrary_slots_are_requests_in_bounds_or_errors(
        bytes in prop::collection::vec(any::<u8>(), SLOT_BYTES),
        operation in 0_u8..8,
        count in 0_u8..14,
    ) {
        let mut slot: [u8; SLOT_BYTES] = bytes.try_into().unwrap();
        slot[OPERATION] = operation;
        slot[NR_SEGMENTS] = count;
        match Request::decode(&slot).2 {
            Ok(Request::Direct { segments, .. }) => {
                for segment in segments.as_slice() {
                    prop_assert!(segment.offset() + segment.len() <= 4096);
                    prop_assert!(segment.len() >= 512);
                }
            }
            Ok(Request::Indirect { nr_segments, .. }) => {
                prop_assert!(Request::indirect_pages(nr_segments) <= INDIRECT_PAGES_MAX);
            }
            Ok(Request::Discard { .. }) | Err(_) => {}
        }
    }

    /// A backend that writes anything at all into its slots: tokens come back at most once each.
    #[test]
    fn a_lying_backend_cannot_invent_outcomes(
        asked in 1_usize..=32,
        answers in prop::collection::vec((any::<u16>(), 0_u64..3, 0_u8..2), 1..32),
    ) {
        let memory = SharedMemory::new(4096);
        let mut front = Front::new(memory.clone(), 0);
        let mut back = BackRing::<_, SLOT_BYTES>::attach(memory);
        for _ in 0..asked {
            front.push(&read_of(&[PAGE]));
        }
        front.publish();
        let mut seen = Vec::new();
        for (place, uses, operation) in answers.into_iter().take(asked) {
            back.take::<SLOT_BYTES>().unwrap().expect("asked");
            let id = uses << 16 | u64::from(place % 40);
            back.push(&Response { id, operation, status: Status::Okay }.encode());
            back.publish();
            match front.take() {
                Ok(Some((token, _))) => {
                    prop_assert!(usize::from(token) < asked && !seen.contains(&token));
                    seen.push(token);
                }
                Ok(None) => prop_assert!(false, "an answer was published"),
                Err(_) => break,
            }
        }
    }
}
