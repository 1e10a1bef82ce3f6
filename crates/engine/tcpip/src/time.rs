//! The engine's time: a monotonic count of nanoseconds that the caller hands in.

use core::ops::{Add, Sub};
use core::time::Duration;

/// A point in time: nanoseconds since a moment of the caller's choice. Never goes back. Wraps
/// after 584 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The moment of the caller's choice.
    pub const ZERO: Instant = Instant(0);

    /// `nanoseconds` after [`Instant::ZERO`].
    pub const fn from_nanos(nanoseconds: u64) -> Self {
        Instant(nanoseconds)
    }

    /// `milliseconds` after [`Instant::ZERO`].
    pub const fn from_millis(milliseconds: u64) -> Self {
        Instant(milliseconds * 1_000_000)
    }

    /// Nanoseconds since [`Instant::ZERO`].
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time since `earlier`; zero if `earlier` is later.
    pub const fn saturating_since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, duration: Duration) -> Instant {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(nanoseconds))
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;
    fn sub(self, earlier: Instant) -> Duration {
        self.saturating_since(earlier)
    }
}
