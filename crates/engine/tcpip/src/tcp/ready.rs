//! Connections that have something to send, in the order of their turns.

use std::collections::VecDeque;

/// A queue of slots, each in it at most once; so it is never longer than the table of connections,
/// however many come and go while nobody takes what they send.
#[derive(Default)]
pub(crate) struct Ready {
    queue: VecDeque<u32>,
    is_queued: Vec<bool>,
}

impl Ready {
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Number of connections that wait.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether a slot waits for its turn.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn contains(&self, index: u32) -> bool {
        self.is_queued.get(index as usize).is_some_and(|&queued| queued)
    }

    /// Adds a slot at the end, unless it waits already.
    pub(crate) fn push(&mut self, index: u32) {
        let slot = index as usize;
        if slot >= self.is_queued.len() {
            self.is_queued.resize(slot + 1, false);
        }
        if !core::mem::replace(&mut self.is_queued[slot], true) {
            self.queue.push_back(index);
        }
    }

    /// It is this slot's turn now, although others wait.
    #[cfg(test)]
    pub(crate) fn prefer(&mut self, index: u32) {
        self.push(index);
        self.queue.retain(|queued| *queued != index);
        self.queue.push_front(index);
    }

    /// Takes the slot whose turn it is. Its connection may have nothing to send any more, or be
    /// gone, or another.
    pub(crate) fn pop(&mut self) -> Option<u32> {
        let index = self.queue.pop_front()?;
        self.is_queued[index as usize] = false;
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_waits_once_and_in_order() {
        let mut ready = Ready::default();
        for index in [3, 1, 3, 3, 0, 1] {
            ready.push(index);
        }
        assert!(ready.contains(3) && !ready.contains(2) && !ready.contains(99));
        assert_eq!([ready.pop(), ready.pop()], [Some(3), Some(1)]);
        ready.push(3);
        assert_eq!([ready.pop(), ready.pop(), ready.pop()], [Some(0), Some(3), None]);
        assert!(ready.is_empty());
    }
}
