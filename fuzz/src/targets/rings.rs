//! Xen's rings, with an adversary in the shared page: `io/ring.h` itself, and rings of bytes.

use crate::{Input, Shared};
use fata_xenbus::Memory;
use fata_xenbus::ring::bytes::{Layout, Reader, Writer};
use fata_xenbus::ring::core::{BackRing, FrontRing};
use std::collections::VecDeque;

const SLOT: usize = 12;

fn entry(number: u32) -> [u8; SLOT] {
    let mut entry = [0; SLOT];
    entry[..4].copy_from_slice(&number.to_le_bytes());
    entry[8..].copy_from_slice(&(!number).to_le_bytes());
    entry
}

/// Both ends of a ring in one page. As long as nobody scribbles, each request and each response
/// arrives once and in order, and who sleeps is woken; afterwards, no panic, and no end counts more
/// than the ring holds.
pub fn core(input: &mut Input<'_>) {
    let memory = Shared::new([128, 256, 4096][input.below(3)]);
    let mut front = FrontRing::<_, SLOT>::new(memory.clone());
    let slots = front.slots();
    // Before a backend comes, the frontend may have written anything.
    let mut is_honest = input.flag();
    if !is_honest {
        (0..4).for_each(|word| memory.scribble(4 * word, input.u32()));
    }
    let mut back = BackRing::<_, SLOT>::attach(memory.clone());
    let (mut made, mut taken, mut answered, mut got) = (0u32, 0u32, 0u32, 0u32);
    let (mut front_sleeps_until, mut back_sleeps_until) = (None, None);
    while !input.is_empty() {
        match input.below(8) {
            0 => {
                for _ in 0..front.free().min(input.u8().into()) {
                    front.push(&entry(made));
                    made = made.wrapping_add(1);
                }
            }
            1 => {
                let published = front.unpublished() > 0;
                let notify = front.publish();
                if let Some(at) = back_sleeps_until.filter(|at| published && made >= *at) {
                    assert!(notify || !is_honest, "the backend sleeps until {at} of {made}");
                    back_sleeps_until = None;
                }
            }
            2 => {
                for _ in 0..input.u8() {
                    let request = back.take::<SLOT>();
                    assert!(request.is_ok() || !is_honest);
                    let Ok(Some(request)) = request else { break };
                    assert!(request == entry(taken) || !is_honest);
                    taken = taken.wrapping_add(1);
                    back_sleeps_until = None;
                }
            }
            3 => {
                for _ in 0..back.unanswered().min(input.u8().into()) {
                    back.push(&entry(answered));
                    answered = answered.wrapping_add(1);
                }
            }
            4 => {
                let notify = back.publish();
                if let Some(at) = front_sleeps_until.filter(|at| answered >= *at) {
                    // It may have been told already, by an earlier publication.
                    front_sleeps_until = None;
                    assert!(notify || !is_honest, "the frontend sleeps until {at} of {answered}");
                }
            }
            5 => {
                let outstanding = front.outstanding();
                for count in 0.. {
                    let response = front.take::<SLOT>();
                    assert!(response.is_ok() || !is_honest);
                    let Ok(Some((slot, response))) = response else { break };
                    assert!(count < outstanding && slot < slots);
                    assert!(response == entry(got) || !is_honest);
                    got = got.wrapping_add(1);
                    front_sleeps_until = None;
                }
            }
            6 => {
                if let Ok(true) = back.may_sleep(1) {
                    back_sleeps_until = Some(taken.wrapping_add(1));
                }
                if front.outstanding() > 0
                    && let Ok(true) = front.may_sleep(1)
                {
                    front_sleeps_until = Some(got.wrapping_add(1));
                }
            }
            _ => {
                is_honest = false;
                scribble(input, &memory, &[(0, made), (8, answered)]);
            }
        }
        assert!(front.outstanding() <= slots && front.unpublished() <= front.outstanding());
        assert!(back.unanswered() <= slots);
        for known in [front.responses(), back.requests()] {
            assert!(known.map_or(!is_honest, |known| known <= slots));
        }
    }
}

/// The adversary writes: mostly one of `counts` (an offset, and what honestly stands there), at once
/// or between two loads.
fn scribble(input: &mut Input<'_>, memory: &Shared, counts: &[(usize, u32)]) {
    let choice = input.below(counts.len() + 1);
    let (at, word) = match counts.get(choice) {
        Some(&(at, honest)) => (at, input.near(honest)),
        None => (usize::from(input.u16()), input.u32()),
    };
    match input.below(4) {
        0 | 1 => memory.scribble(at, word),
        loads => memory.trap(loads as u32 - 1, at, word),
    }
}

/// A ring of bytes (the console's, XenStore's, a small one) with both ends: in order and whole until
/// somebody scribbles; then no panic, and no more than the ring holds.
pub fn bytes(input: &mut Input<'_>) {
    let layouts = [
        Layout { prod: 0, cons: 4, data: 8, size: 64 },
        Layout::CONSOLE_OUT,
        Layout::CONSOLE_IN,
        Layout::XENSTORE_REQUESTS,
    ];
    let layout = layouts[input.below(layouts.len())];
    let memory = Shared::new(4096);
    let start = input.near(u32::MAX);
    memory.store_u32(layout.prod, start);
    memory.store_u32(layout.cons, start);
    let mut is_honest = true;
    if input.below(8) == 7 {
        is_honest = false;
        scribble(input, &memory, &[(layout.prod, start), (layout.cons, start)]);
    }
    let mut writer = Writer::attach(&memory, layout);
    let mut reader = Reader::attach(&memory, layout);
    let size = layout.size as usize;
    let (mut model, mut next) = (VecDeque::new(), 0u8);
    let (mut prod, mut cons) = (start, start);
    while !input.is_empty() {
        match input.below(5) {
            0 | 1 => {
                let bytes: Vec<u8> =
                    (0..input.len(3000)).map(|at| next.wrapping_add(at as u8)).collect();
                match writer.write(&memory, &memory, &bytes) {
                    Ok(written) => {
                        assert!(written <= size.min(bytes.len()));
                        assert!(!is_honest || written == bytes.len().min(size - model.len()));
                        next = next.wrapping_add(written as u8);
                        prod = prod.wrapping_add(written as u32);
                        model.extend(&bytes[..written]);
                    }
                    Err(error) => assert!(!is_honest, "{error}"),
                }
            }
            2 | 3 => {
                let mut bytes = vec![0; input.len(3000)];
                match reader.read(&memory, &memory, &mut bytes) {
                    Ok(read) => {
                        assert!(read <= size.min(bytes.len()));
                        cons = cons.wrapping_add(read as u32);
                        let expected: Vec<u8> = model.drain(..read.min(model.len())).collect();
                        assert!(!is_honest || bytes[..read] == expected);
                        assert!(!is_honest || read == bytes.len() || model.is_empty());
                    }
                    Err(error) => assert!(!is_honest, "{error}"),
                }
            }
            _ => {
                is_honest = false;
                scribble(input, &memory, &[(layout.prod, prod), (layout.cons, cons)]);
            }
        }
        for known in [writer.space(&memory), reader.available(&memory)] {
            assert!(known.map_or(!is_honest, |known| known <= size));
        }
        assert!(reader.known() <= size);
    }
}
