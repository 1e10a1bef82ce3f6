use super::*;
use fata_hypercall::simulation::World;
use fata_hypercall::{Access, CopyData, CopyOperation, DomainId, GrantRef, Hypervisor};
use proptest::prelude::*;

const FRAME_MAX: usize = 65_535;
const UNITS: usize = 64;

struct Bench {
    outbox: Outbox,
    backend: Hypervisor,
    front: DomainId,
}

fn bench(frame_bytes_max: usize) -> Bench {
    let world = World::new();
    let (front, backend) = (world.domain(DomainId(1)), world.domain(DomainId(0)));
    let pages = Outbox::pages_needed(UNITS, frame_bytes_max);
    let pages = front.grant(DomainId(0), pages, Access::ReadOnly).unwrap();
    let outbox = Outbox::new(pages, UNITS, frame_bytes_max);
    Bench { outbox, backend, front: DomainId(1) }
}

impl Bench {
    /// Sends a frame full of `mark`; its requests.
    fn send(&mut self, len: usize, mark: u8) -> Option<Vec<TxRequest>> {
        self.outbox.room()?[..len].fill(mark);
        let mut requests = Vec::new();
        self.outbox.send(len, tx_flags::CSUM_BLANK, 0, |request| requests.push(request));
        Some(requests)
    }

    /// What the backend reads of a frame.
    fn read(&self, requests: &[TxRequest]) -> Vec<u8> {
        let total = usize::from(requests[0].size);
        let rest: usize = requests[1..].iter().map(|request| usize::from(request.size)).sum();
        let mut frame = vec![0; total];
        let mut at = 0;
        for (index, request) in requests.iter().enumerate() {
            let len = if index == 0 { total - rest } else { usize::from(request.size) };
            assert!(usize::from(request.offset) + len <= PAGE_BYTES, "within its page");
            let more = request.flags & tx_flags::MORE_DATA != 0;
            assert_eq!(more, index + 1 < requests.len());
            let mut operation = [CopyOperation {
                remote: self.front,
                grant: GrantRef(request.gref),
                offset: request.offset,
                data: CopyData::Into(&mut frame[at..at + len]),
                status: 1,
            }];
            self.backend.copy(&mut operation).unwrap();
            assert_eq!(operation[0].status, 0);
            at += len;
        }
        assert_eq!(at, total);
        frame
    }

    fn answer(&mut self, id: u16, status: i16) -> Result<bool, AnswerError> {
        self.outbox.answer(TxResponse { id, status })
    }
}

#[test]
fn a_frame_is_cut_at_pages_and_the_first_says_how_long_it_is() {
    let mut bench = bench(FRAME_MAX);
    let one = bench.send(1514, 1).unwrap();
    assert_eq!((one.len(), one[0].size, one[0].offset), (1, 1514, 0));
    assert_eq!(one[0].flags, tx_flags::CSUM_BLANK);
    // It begins in the middle of a page, so it takes one more.
    let long = bench.send(65_535, 2).unwrap();
    assert_eq!((long.len(), long[0].size, long[0].offset), (17, 65_535, 2048));
    assert!((long.len() as u32) < bench.outbox.slots_max());
    assert_eq!(bench.read(&long), vec![2; 65_535]);
    assert_eq!(bench.read(&one), vec![1; 1514]);
}

#[test]
fn units_come_back_in_the_order_in_which_they_were_taken() {
    let mut bench = bench(FRAME_MAX);
    let mut ids = Vec::new();
    while let Some(requests) = bench.send(1514, 3) {
        ids.push(requests[0].id);
    }
    assert_eq!(ids.len(), UNITS, "a frame may begin in every unit, and end in the tail");
    let first = ids.remove(0);
    for id in ids {
        assert_eq!(bench.answer(id, status::OKAY), Ok(true));
        assert!(bench.send(60, 4).is_none(), "the oldest is still out");
    }
    assert_eq!(bench.answer(first, status::ERROR), Ok(false), "and was not taken");
    assert!(bench.send(60, 4).is_some());
}

#[test]
fn answers_that_cannot_be_are_refused_by_name() {
    let mut bench = bench(1514);
    let id = bench.send(60, 1).unwrap()[0].id;
    for wild in [id + 1, 256, u16::MAX] {
        assert_eq!(bench.answer(wild, 0), Err(AnswerError::Id(wild)));
    }
    assert_eq!(bench.answer(id, status::NULL), Err(AnswerError::Null));
    assert_eq!(bench.answer(id, 0), Ok(true));
    let twice = bench.answer(id, 0).unwrap_err();
    assert_eq!(twice, AnswerError::Id(id));
    assert!(twice.to_string().contains("not outstanding"));
    bench.outbox.room().unwrap();
    bench.outbox.send(60, tx_flags::EXTRA_INFO, 1, |_| {});
    assert_eq!(bench.answer(9, status::NULL), Ok(true), "an extra's id says nothing");
    assert!(bench.answer(9, status::NULL).unwrap_err().to_string().contains("extra"));
}

proptest! {
    /// Frames of any length, answered in any order: each reads as it was written for as long as it
    /// is out, and in the end all room is there again.
    #[test]
    fn frames_under_way_are_not_written_over(
        longest in prop_oneof![Just(FRAME_MAX), Just(1514usize), Just(9014)],
        steps in prop::collection::vec((any::<bool>(), 0usize..100_000, any::<usize>()), 1..400),
    ) {
        let mut bench = bench(longest);
        let mut out: Vec<(u8, Vec<TxRequest>)> = Vec::new();
        let mut unanswered: Vec<u16> = Vec::new();
        for (number, (send, len, pick)) in steps.into_iter().enumerate() {
            if send && bench.outbox.free_ids.len() >= bench.outbox.slots_max() as usize {
                // Mostly short ones.
                let len = if len % 3 == 0 { len % (longest - 13) } else { len % 1501 } + 14;
                let mark = number as u8;
                if let Some(requests) = bench.send(len, mark) {
                    unanswered.extend(requests.iter().map(|request| request.id));
                    out.push((mark, requests));
                }
            } else if !unanswered.is_empty() {
                let id = unanswered.swap_remove(pick % unanswered.len());
                prop_assert_eq!(bench.answer(id, status::OKAY), Ok(true));
            }
            out.retain(|(_, requests)| {
                requests.iter().all(|request| unanswered.contains(&request.id))
            });
            for (mark, requests) in &out {
                let frame = bench.read(requests);
                prop_assert!(frame.iter().all(|byte| byte == mark), "it was written over");
            }
        }
        for id in unanswered {
            bench.answer(id, status::OKAY).unwrap();
        }
        prop_assert_eq!(bench.outbox.used, 0);
        prop_assert_eq!(bench.outbox.free_ids.len(), IDS);
        prop_assert!(bench.outbox.room().is_some());
    }
}
