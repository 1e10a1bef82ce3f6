//! The world's clock: lets the network's events happen when they are due.
//!
//! tokio's paused time goes on by itself when every task waits, but in whole milliseconds: its
//! timers know nothing finer. A frame of 1,500 bytes takes 120 µs on a link of 100 Mbit/s. So in a
//! world with a runtime of its own ([`World::run`](super::World::run)) the clock is told whenever
//! the runtime has nothing to do, and moves the time within the millisecond itself: to the next
//! frame, or to the next whole millisecond, where tokio's timers are. In between there are none, so
//! nothing is passed over.

use super::world::Shared;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Wake;
use tokio::time::Sleep;

/// What tokio's timers count in.
const TICK: Duration = Duration::from_millis(1);

/// What the runtime and the clock tell each other.
#[derive(Debug, Default)]
pub(crate) struct Idleness {
    /// The clock waits for the runtime to be idle.
    is_wanted: AtomicBool,
    /// The runtime was idle when it was last asked.
    is_idle: AtomicBool,
    /// The program itself was woken; the runtime does not count it among its tasks.
    is_program_woken: AtomicBool,
    clock: Mutex<Option<Waker>>,
}

impl Idleness {
    /// Called when the runtime is about to wait.
    pub(crate) fn nothing_to_do(&self) {
        let program_waits = !self.is_program_woken.load(Ordering::Relaxed);
        if program_waits && self.is_wanted.swap(false, Ordering::Relaxed) {
            self.is_idle.store(true, Ordering::Relaxed);
            let clock = self.clock.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
            if let Some(clock) = clock {
                clock.wake();
            }
        }
    }
}

/// The program's waker, which leaves a note.
struct Noted {
    idleness: Arc<Idleness>,
    inner: Waker,
}

impl Wake for Noted {
    fn wake(self: Arc<Self>) {
        self.idleness.is_program_woken.store(true, Ordering::Relaxed);
        self.inner.wake_by_ref();
    }
}

/// `time`, rounded down to what tokio's timers count in.
fn whole_ticks(time: Duration) -> Duration {
    time - Duration::from_nanos(u64::from(time.subsec_nanos()) % TICK.as_nanos() as u64)
}

/// Runs `program` so that its wakings are noted.
pub(crate) async fn noting<F: Future>(idleness: Arc<Idleness>, program: F) -> F::Output {
    let mut program = core::pin::pin!(program);
    core::future::poll_fn(|cx| {
        idleness.is_program_woken.store(false, Ordering::Relaxed);
        let waker =
            Waker::from(Arc::new(Noted { idleness: idleness.clone(), inner: cx.waker().clone() }));
        program.as_mut().poll(&mut Context::from_waker(&waker))
    })
    .await
}

/// The task that lets things happen. Ends never; goes with the runtime.
pub(crate) struct Clock {
    shared: Arc<Shared>,
    /// Present in a world that has a runtime of its own.
    idleness: Option<Arc<Idleness>>,
    sleep: Option<Pin<Box<Sleep>>>,
    advance: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Clock {
    pub(crate) fn new(shared: Arc<Shared>, idleness: Option<Arc<Idleness>>) -> Self {
        Clock { shared, idleness, sleep: None, advance: None }
    }

    /// Sleeps until it is `at`; true if it is.
    fn sleep_until(&mut self, cx: &mut Context<'_>, at: Duration) -> bool {
        let deadline = self.shared.epoch + at;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().poll(cx).is_ready()
    }
}

impl Future for Clock {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let clock = &mut *self;
        // Whatever was asked before is asked again, if it still matters.
        let mut is_idle = clock.idleness.as_ref().is_some_and(|idleness| {
            idleness.is_wanted.store(false, Ordering::Relaxed);
            idleness.is_idle.swap(false, Ordering::Relaxed)
        });
        loop {
            if let Some(advance) = &mut clock.advance {
                if advance.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                clock.advance = None;
            }
            let next = clock.shared.turn(cx.waker());
            let now = clock.shared.now();
            let Some(idleness) = &clock.idleness else {
                match next {
                    Some(next) if clock.sleep_until(cx, next) => continue,
                    _ => return Poll::Pending,
                }
            };
            // Whole milliseconds: where tokio's timers may be.
            let this_tick = whole_ticks(now);
            let next_tick = this_tick + TICK;
            let target = match next {
                Some(next) if next <= next_tick => next,
                _ if this_tick < now => next_tick,
                None => return Poll::Pending,
                Some(next) => {
                    if clock.sleep_until(cx, whole_ticks(next)) {
                        continue;
                    }
                    return Poll::Pending;
                }
            };
            if !std::mem::take(&mut is_idle) {
                *idleness.clock.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) =
                    Some(cx.waker().clone());
                idleness.is_wanted.store(true, Ordering::Relaxed);
                return Poll::Pending;
            }
            let distance = target.saturating_sub(now);
            clock.advance = Some(Box::pin(tokio::time::advance(distance)));
        }
    }
}
