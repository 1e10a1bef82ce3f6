//! Deadlines of many objects, the earliest first.
//!
//! A heap in which every object knows its place, so that a deadline can be moved or cancelled: an
//! object without a deadline is not in it, and idle connections cost nothing. A change costs
//! O(log n) of the deadlines that are set; the deadlines reported are always exact, so the machine
//! never wakes for a timer that was cancelled.

use crate::time::Instant;

/// A deadline that never comes.
pub(crate) const NEVER: Instant = Instant::from_nanos(u64::MAX);

/// Not in the heap.
const ABSENT: u32 = u32::MAX;

/// At most one deadline for each object, which is named by a dense index.
#[derive(Default)]
pub(crate) struct Timers {
    heap: Vec<(Instant, u32)>,
    /// Where each object is in `heap`, or [`ABSENT`].
    positions: Vec<u32>,
}

impl Timers {
    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.first().map(|&(deadline, _)| deadline)
    }

    /// Number of deadlines that are set.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// The object whose deadline is earliest, if it has come. Its deadline stays set until the
    /// caller sets another.
    pub(crate) fn due(&self, now: Instant) -> Option<u32> {
        self.heap.first().filter(|&&(deadline, _)| deadline <= now).map(|&(_, index)| index)
    }

    /// Sets, moves or (with [`NEVER`]) cancels an object's deadline.
    pub(crate) fn set(&mut self, index: u32, deadline: Instant) {
        let slot = index as usize;
        if slot >= self.positions.len() {
            if deadline == NEVER {
                return;
            }
            self.positions.resize(slot + 1, ABSENT);
        }
        match (self.positions[slot], deadline) {
            (ABSENT, NEVER) => {}
            (ABSENT, _) => {
                self.heap.push((deadline, index));
                self.sift_up(self.heap.len() - 1);
            }
            (at, NEVER) => self.remove(at as usize),
            (at, _) => {
                let at = at as usize;
                let old = core::mem::replace(&mut self.heap[at].0, deadline);
                if deadline < old {
                    self.sift_up(at);
                } else if deadline > old {
                    self.sift_down(at);
                }
            }
        }
    }

    fn remove(&mut self, at: usize) {
        let (_, index) = self.heap.swap_remove(at);
        self.positions[index as usize] = ABSENT;
        if at < self.heap.len() {
            self.sift_up(at);
            self.sift_down(self.positions[self.heap[at].1 as usize].max(at as u32) as usize);
        }
    }

    fn place(&mut self, at: usize, entry: (Instant, u32)) {
        self.heap[at] = entry;
        self.positions[entry.1 as usize] = at as u32;
    }

    fn sift_up(&mut self, mut at: usize) {
        let entry = self.heap[at];
        while at > 0 {
            let parent = (at - 1) / 2;
            if self.heap[parent].0 <= entry.0 {
                break;
            }
            self.place(at, self.heap[parent]);
            at = parent;
        }
        self.place(at, entry);
    }

    fn sift_down(&mut self, mut at: usize) {
        let entry = self.heap[at];
        loop {
            let mut child = 2 * at + 1;
            if child >= self.heap.len() {
                break;
            }
            if child + 1 < self.heap.len() && self.heap[child + 1].0 < self.heap[child].0 {
                child += 1;
            }
            if entry.0 <= self.heap[child].0 {
                break;
            }
            self.place(at, self.heap[child]);
            at = child;
        }
        self.place(at, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn behaves_like_a_sorted_map(steps in proptest::collection::vec((0u32..32, any::<Option<u16>>()), 0..300)) {
            let (mut timers, mut model) = (Timers::default(), BTreeMap::new());
            for (index, deadline) in steps {
                let deadline = deadline.map_or(NEVER, |at| Instant::from_nanos(at.into()));
                timers.set(index, deadline);
                if deadline == NEVER {
                    model.remove(&index);
                } else {
                    model.insert(index, deadline);
                }
                prop_assert_eq!(timers.len(), model.len());
                prop_assert_eq!(timers.next(), model.values().min().copied());
            }
            let mut last = Instant::ZERO;
            while let Some(index) = timers.due(NEVER) {
                let deadline = model.remove(&index).expect("only what was set comes due");
                prop_assert!(deadline >= last);
                last = deadline;
                timers.set(index, NEVER);
            }
            prop_assert!(model.is_empty());
        }
    }

    #[test]
    fn nothing_is_due_before_its_time() {
        let mut timers = Timers::default();
        timers.set(4, Instant::from_millis(10));
        assert_eq!(timers.due(Instant::from_nanos(9_999_999)), None);
        assert_eq!(timers.due(Instant::from_millis(10)), Some(4));
    }
}
