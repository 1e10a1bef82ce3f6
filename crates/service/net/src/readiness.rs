//! [`Readiness`]: tasks that wait for one thing, and are all told when to try again.

use core::task::{Poll, Waker};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Wake;
use tokio::sync::Notify;

/// The tasks that wait for a socket that several tasks may share (`&self`).
///
/// It is a [`Waker`] itself: what knows only how to remember one waker (a slot of the stack's
/// table, a socket of the host) remembers this one, and wakes everybody.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    /// Tasks in [`wait`](Readiness::wait); each leaves the list when its future is dropped.
    notify: Notify,
    /// The task that last called a `poll_` method.
    polled: Mutex<Option<Waker>>,
}

impl Readiness {
    /// Asks `attempt` again after each wake-up until it is ready.
    pub(crate) async fn wait<T>(&self, mut attempt: impl FnMut() -> Poll<T>) -> T {
        loop {
            // On the list before the attempt, so that a wake-up between the attempt and the
            // waiting is not lost.
            let mut notified = core::pin::pin!(self.notify.notified());
            notified.as_mut().enable();
            if let Poll::Ready(value) = attempt() {
                return value;
            }
            notified.await;
        }
    }

    /// Remembers the waker of a `poll_` method, in place of the last one.
    pub(crate) fn remember(&self, waker: &Waker) {
        let mut polled = self.polled.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *polled {
            Some(last) => last.clone_from(waker),
            None => *polled = Some(waker.clone()),
        }
    }
}

impl Wake for Readiness {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.notify.notify_waiters();
        let polled = self.polled.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = polled {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_wait_are_woken_and_a_wake_up_during_the_attempt_counts() {
        let readiness = Arc::new(Readiness::default());
        let open = Cell::new(false);
        let attempt = || if open.get() { Poll::Ready(()) } else { Poll::Pending };
        let ends = async {
            tokio::task::yield_now().await;
            open.set(true);
            Waker::from(Arc::clone(&readiness)).wake();
        };
        tokio::join!(readiness.wait(attempt), readiness.wait(attempt), ends);

        let tries = Cell::new(0);
        readiness
            .wait(|| {
                tries.set(tries.get() + 1);
                Waker::from(Arc::clone(&readiness)).wake();
                if tries.get() == 2 { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
    }

    #[test]
    fn the_last_task_that_polled_is_woken_once() {
        let readiness = Arc::new(Readiness::default());
        let (first, last) = (Arc::new(Count::default()), Arc::new(Count::default()));
        readiness.remember(&Waker::from(Arc::clone(&first)));
        readiness.remember(&Waker::from(Arc::clone(&last)));
        let waker = Waker::from(readiness);
        waker.wake_by_ref();
        waker.wake_by_ref();
        let counts = [&first, &last].map(|count| count.0.load(Ordering::Relaxed));
        assert_eq!(counts, [0, 1]);
    }
}
