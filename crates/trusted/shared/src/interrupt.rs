//! [`Line`]: an interrupt as a driver sees it.
//!
//! Drivers run no code in interrupt context. The handler only notes which lines fired; the machine
//! calls [`Line::fire`] later, where ordinary code may run (its delivery point), and that wakes the
//! task. So a line is a flag and a waker, and the order in which they are touched decides that no
//! wake-up is ever lost.

use alloc::sync::Arc;
use atomic_waker::AtomicWaker;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll};

/// An interrupt line. Clones are the same line: the machine keeps one and fires it, a driver keeps
/// one and waits for it.
#[derive(Clone, Debug, Default)]
pub struct Line {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    fired: AtomicBool,
    waker: AtomicWaker,
}

impl Line {
    /// A line that has not fired.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that the interrupt came, and wakes the task that waits for it.
    ///
    /// To be called outside interrupt context, because a waker is arbitrary code. Firing a line
    /// that has fired already changes nothing: interrupts carry no count.
    pub fn fire(&self) {
        // Release: what the device had written when the interrupt came is seen by who takes the flag.
        self.shared.fired.store(true, Ordering::Release);
        self.shared.waker.wake();
    }

    /// `Ready` if the line fired since this was last asked; clears the flag. Otherwise stores the
    /// task's waker (in place of an earlier one) and wakes it at the next [`fire`](Line::fire).
    pub fn poll_fired(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.take_fired() {
            return Poll::Ready(());
        }
        self.shared.waker.register(cx.waker());
        // Again, for a `fire` that came between the look and the registration woke nobody.
        if self.take_fired() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// True if the line fired since this was last asked; clears the flag.
    pub fn take_fired(&self) -> bool {
        // A load first: it is much cheaper than a swap, and nearly always says no.
        self.shared.fired.load(Ordering::Relaxed)
            && self.shared.fired.swap(false, Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::task::Wake;
    use core::sync::atomic::AtomicUsize;
    use core::task::Waker;

    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_waiting_task_is_woken_once_and_finds_the_line_fired() {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        let line = Line::new();
        assert_eq!(line.poll_fired(&mut cx), Poll::Pending);
        line.clone().fire();
        line.fire();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(line.poll_fired(&mut cx), Poll::Ready(()));
        assert_eq!(line.poll_fired(&mut cx), Poll::Pending);
    }

    #[test]
    fn an_interrupt_before_the_first_wait_is_not_lost() {
        let line = Line::new();
        line.fire();
        assert!(line.take_fired());
        assert!(!line.take_fired());
    }
}
