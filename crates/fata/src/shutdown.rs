//! The host's request to end.
//!
//! A host asks a guest to switch itself off (`xl shutdown`). A program that has something to finish
//! waits for [`requested`]; one that does not is ended as if its `main` had returned.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// How long a program that waits for the request may take to end once it came. Toolstacks wait
/// a minute or more before they end a guest by force.
const PATIENCE: Duration = Duration::from_secs(30);

static REQUESTED: AtomicBool = AtomicBool::new(false);
static LISTENERS: AtomicUsize = AtomicUsize::new(0);
static ARRIVAL: Notify = Notify::const_new();

/// Waits until the host asks the program to end. Whoever has called this is given 30 s to end
/// afterwards; a program that has not is ended at once.
pub(crate) async fn requested() {
    LISTENERS.fetch_add(1, Ordering::Relaxed);
    arrival().await;
}

async fn arrival() {
    loop {
        // Made before the look, so that a request between the two is not missed.
        let arrival = ARRIVAL.notified();
        if REQUESTED.load(Ordering::Acquire) {
            return;
        }
        arrival.await;
    }
}

/// The host asked.
#[cfg_attr(not(fata_target = "xen"), expect(dead_code, reason = "only Xen asks"))]
pub(crate) fn request() {
    REQUESTED.store(true, Ordering::Release);
    ARRIVAL.notify_waiters();
}

/// Waits until the program must end, whether it wants to or not.
pub(crate) async fn enforced() {
    arrival().await;
    if LISTENERS.load(Ordering::Relaxed) > 0 {
        tokio::time::sleep(PATIENCE).await;
        tracing::warn!("the host asked the program to end 30 s ago; it is ended now");
    }
}
