//! Runs of places in a row, given out and taken back.

use alloc::vec::Vec;
use core::ops::Range;

/// Which places of `0..count` are free: ranges that are sorted and do not touch.
///
/// First fit: mappings are a few pages each and live long, so the list is short.
#[derive(Debug)]
pub(crate) struct Runs {
    free: Vec<Range<usize>>,
}

impl Runs {
    /// All places of `range` are free.
    pub(crate) fn new(range: Range<usize>) -> Self {
        let free = if range.is_empty() { Vec::new() } else { alloc::vec![range] };
        Runs { free }
    }

    /// The first of `count` places in a row, which are now taken; `None` if there are none so long.
    pub(crate) fn take(&mut self, count: usize) -> Option<usize> {
        let index = self.free.iter().position(|run| run.len() >= count).filter(|_| count > 0)?;
        let run = &mut self.free[index];
        let first = run.start;
        run.start += count;
        if run.start == run.end {
            self.free.remove(index);
        }
        Some(first)
    }

    /// Gives back places that [`Runs::take`] gave.
    pub(crate) fn give(&mut self, taken: Range<usize>) {
        if taken.is_empty() {
            return;
        }
        let index = self.free.partition_point(|run| run.end < taken.start);
        let joins = |run: &Range<usize>| run.start <= taken.end && taken.start <= run.end;
        let mut new = taken.clone();
        let last = self.free[index..].iter().take_while(|run| joins(run)).count() + index;
        for run in &self.free[index..last] {
            debug_assert!(run.end == taken.start || run.start == taken.end, "given back twice");
            new = new.start.min(run.start)..new.end.max(run.end);
        }
        self.free.splice(index..last, [new]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_given_back_joins_its_neighbours() {
        let mut runs = Runs::new(10..20);
        let [a, b, c] = [4, 4, 2].map(|count| runs.take(count).unwrap());
        assert_eq!((a, b, c), (10, 14, 18));
        assert_eq!(runs.take(1), None);
        runs.give(a..a + 4);
        runs.give(c..c + 2);
        assert_eq!(runs.take(5), None);
        runs.give(b..b + 4);
        assert_eq!((runs.take(10), runs.take(1)), (Some(10), None));
        runs.give(10..20);
        assert_eq!(runs.take(0), None);
    }

    proptest! {
        /// Against a table of places, the simplest thing that could be right.
        #[test]
        fn nothing_is_given_out_twice_or_lost(
            steps in prop::collection::vec((0usize..6, any::<prop::sample::Index>()), 1..60)
        ) {
            let mut taken: Vec<Range<usize>> = Vec::new();
            let mut is_taken = [false; 40];
            let mut runs = Runs::new(0..40);
            for (count, which) in steps {
                if count == 0 && !taken.is_empty() {
                    let run = taken.swap_remove(which.index(taken.len()));
                    is_taken[run.clone()].fill(false);
                    runs.give(run);
                    continue;
                }
                let fits = is_taken.windows(count.max(1)).any(|run| !run.contains(&true));
                let first = runs.take(count);
                prop_assert_eq!(first.is_some(), fits && count > 0);
                if let Some(first) = first {
                    prop_assert!(!is_taken[first..first + count].contains(&true));
                    is_taken[first..first + count].fill(true);
                    taken.push(first..first + count);
                }
            }
        }
    }
}
