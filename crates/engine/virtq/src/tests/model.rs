//! A device that follows the rules, in every interleaving: all that was offered arrives as it was
//! offered, all comes back once, and nobody sleeps through what concerns him.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Act {
    /// Add a chain of so many readable and writable segments of this length.
    Add { readable: usize, writable: usize, len: u32 },
    /// The driver ends its batch: notifies the device if it must.
    EndBatch,
    /// The device looks without being told.
    DevicePolls,
    /// The device gives one of its chains back.
    GiveBack { at: usize, written: u32 },
    /// The device interrupts if it must.
    EndGiving,
    /// The driver takes all there is and goes to sleep until so many more are there.
    Sleep { after: u16 },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        5 => (0usize..3, 0usize..4, 1u32..2000)
            .prop_map(|(readable, writable, len)| Act::Add { readable, writable, len }),
        2 => Just(Act::EndBatch),
        1 => Just(Act::DevicePolls),
        4 => (any::<usize>(), any::<u32>()).prop_map(|(at, written)| Act::GiveBack { at, written }),
        2 => Just(Act::EndGiving),
        2 => (1u16..5).prop_map(|after| Act::Sleep { after }),
    ]
}

type Offered = (Vec<(u64, u32, bool)>, u32);

proptest! {
    #[test]
    fn a_device_that_follows_the_rules(
        event_index: bool,
        size in (0u32..5).prop_map(|power| 1u16 << power),
        acts in prop::collection::vec(act(), 0..300),
    ) {
        let (mut queue, mut device) = pair::<usize>(size, event_index);
        let mut offered: Vec<Offered> = Vec::new();
        let mut given: VecDeque<(usize, u32)> = VecDeque::new();
        let mut driver_sleeps = None;
        device.sleep();

        for act in acts {
            match act {
                Act::Add { readable, writable, len } => {
                    let token = offered.len();
                    let start = (token as u64) << 32;
                    let segments: Vec<_> = (0..readable + writable)
                        .map(|at| segment(start + at as u64, len))
                        .collect();
                    let (reads, writes) = segments.split_at(readable);
                    let fits = segments.len() <= usize::from(queue.free());
                    let result = queue.add(reads, writes, token);
                    if segments.is_empty() || segments.len() > usize::from(size) {
                        prop_assert_eq!(result.unwrap_err().reason, Rejected::Malformed);
                    } else if !fits {
                        prop_assert_eq!(result.unwrap_err().reason, Rejected::Full);
                    } else {
                        result.unwrap();
                        let seen = segments
                            .iter()
                            .enumerate()
                            .map(|(at, segment)| (segment.address, segment.len, at >= readable))
                            .collect();
                        offered.push((seen, len * writable as u32));
                    }
                }
                Act::EndBatch => {
                    if queue.needs_notification() {
                        device.sleep();
                    }
                    let awake = device.u16(device.layout.available_idx()) == device.taken;
                    prop_assert!(awake, "chains are available and the device sleeps");
                }
                Act::DevicePolls => {
                    device.take();
                    // A device that polls says so by not asking; here it goes back to sleep.
                    device.sleep();
                }
                Act::GiveBack { at, written } => {
                    if !device.held.is_empty() {
                        let at = at % device.held.len();
                        let chain = device.held[at].clone();
                        let token = (chain.segments[0].0 >> 32) as usize;
                        prop_assert_eq!(&chain.segments, &offered[token].0);
                        let written = written % (chain.writable() + 1);
                        device.give_back(at, written);
                        given.push_back((token, written));
                    }
                }
                Act::EndGiving => {
                    if device.interrupts() {
                        driver_sleeps = None;
                    }
                    if let Some(wanted) = driver_sleeps {
                        prop_assert!(given.len() < wanted, "the driver sleeps through its work");
                    }
                }
                Act::Sleep { after } => {
                    loop {
                        while let Some(used) = queue.take_used().unwrap() {
                            prop_assert_eq!(Some((used.token, used.written)), given.pop_front());
                        }
                        if !queue.enable_interrupts_after(after) {
                            break;
                        }
                    }
                    prop_assert!(given.is_empty());
                    if queue.outstanding() > 0 {
                        let wanted = if event_index { after.min(queue.outstanding()) } else { 1 };
                        driver_sleeps = Some(usize::from(wanted));
                    }
                }
            }
        }
    }
}
