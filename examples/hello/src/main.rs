//! Hello: a program that logs, waits, and runs two tasks at a time.
//!
//! `fata run examples/hello` runs it as a process, `fata run examples/hello -t virtio` as a machine.
#![forbid(unsafe_code)]

use std::time::Duration;
use tokio::time::{interval, sleep};

#[fata::main]
async fn main() {
    tracing::info!("hello from {}", fata::system::TARGET);

    // A task costs a few hundred bytes, not a stack: there is one CPU, and `await` is where it
    // turns to somebody else.
    let ticker = tokio::spawn(async {
        let mut ticks = interval(Duration::from_millis(100));
        for count in 1..=3 {
            ticks.tick().await;
            tracing::info!(count, "tick");
        }
    });

    // While both wait, the machine is halted until the next deadline.
    sleep(Duration::from_millis(150)).await;
    tracing::info!("150 ms have passed");

    // A panic ends its task, and nobody else.
    if let Err(error) = ticker.await {
        tracing::error!("the ticker failed: {error}");
    }
    println!("goodbye");
}
