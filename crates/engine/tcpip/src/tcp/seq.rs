//! Sequence numbers: points on a circle of 2^32 (RFC 9293 §3.4).
//!
//! "Before" and "after" mean something only for two numbers that are less than 2^31 apart, so
//! [`Seq`] has no `Ord`: nothing may sort by it or keep it in a tree. Every window and buffer here
//! is far below 2^30, and every comparison is against a number that the same connection holds.

use core::ops::{Add, AddAssign, Sub};

/// A sequence or acknowledgment number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Seq(pub(crate) u32);

impl Seq {
    /// Whether `self` is strictly before `other`.
    pub(crate) const fn before(self, other: Seq) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    /// Whether `self` is strictly after `other`.
    pub(crate) const fn after(self, other: Seq) -> bool {
        other.before(self)
    }

    /// Whether `self` is `other` or before it.
    pub(crate) const fn at_or_before(self, other: Seq) -> bool {
        !other.before(self)
    }

    /// Whether `self` is `other` or after it.
    pub(crate) const fn at_or_after(self, other: Seq) -> bool {
        !self.before(other)
    }

    /// The later of the two.
    pub(crate) const fn max(self, other: Seq) -> Seq {
        if self.before(other) { other } else { self }
    }

    /// The earlier of the two.
    pub(crate) const fn min(self, other: Seq) -> Seq {
        if self.before(other) { self } else { other }
    }

    /// How many numbers lie from `earlier` up to `self`; zero if `self` is before it.
    pub(crate) const fn since(self, earlier: Seq) -> u32 {
        if self.before(earlier) { 0 } else { self.0.wrapping_sub(earlier.0) }
    }
}

impl Add<u32> for Seq {
    type Output = Seq;
    fn add(self, count: u32) -> Seq {
        Seq(self.0.wrapping_add(count))
    }
}

impl AddAssign<u32> for Seq {
    fn add_assign(&mut self, count: u32) {
        *self = *self + count;
    }
}

impl Sub<u32> for Seq {
    type Output = Seq;
    fn sub(self, count: u32) -> Seq {
        Seq(self.0.wrapping_sub(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn order_survives_the_wrap() {
        let last = Seq(u32::MAX);
        assert!(last.before(last + 1) && (last + 1).after(last));
        assert_eq!((last + 1).since(last), 1);
        assert_eq!(last.since(last + 1), 0);
        assert_eq!(last.max(Seq(3)), Seq(3));
        assert_eq!(last.min(Seq(3)), last);
    }

    proptest! {
        #[test]
        fn order_agrees_with_distance(base: u32, step in 1u32..(1 << 31)) {
            let (earlier, later) = (Seq(base), Seq(base) + step);
            prop_assert!(earlier.before(later) && later.after(earlier));
            prop_assert!(earlier.at_or_before(later) && later.at_or_after(earlier));
            prop_assert!(!later.before(earlier) && !earlier.at_or_after(later));
            prop_assert_eq!(later.since(earlier), step);
            prop_assert_eq!(later - step, earlier);
        }
    }
}
