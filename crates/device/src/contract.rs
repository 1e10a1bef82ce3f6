//! The contracts as tests: each suite takes a device and fails, naming the sentence, if the device
//! breaks its trait's contract. Run on every backend.
//!
//! A suite runs under any executor: it sleeps only where the device sleeps, and reads no clock.

mod block;
mod nic;

pub use block::{block, block_read_only};
pub use nic::{Wire, nic};

use core::future::poll_fn;
use core::task::Poll;

/// Lets other tasks run once.
async fn yield_once() {
    let mut yielded = false;
    poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
