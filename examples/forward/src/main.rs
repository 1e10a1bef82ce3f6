//! Forward: a cable with a meter. What one interface receives, the other sends.
//!
//! Between two TAP interfaces of this computer, as a process and as a machine:
//!
//! ```text
//! fata run examples/forward -- --left.tap=tap0 --right.tap=tap1
//! fata run examples/forward -t virtio --net left:tap=tap0 --net right:tap=tap1
//! ```
#![forbid(unsafe_code)]

use fata::Interface;
use fata::forward::{Forwarder, PortCounters};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Moves frames between two interfaces, both ways, and prints the rates.
#[derive(fata::Devices)]
struct Devices {
    /// One interface.
    left: Interface,
    /// The other one.
    right: Interface,
    /// Seconds between two lines of rates; 0 for none.
    #[fata(arg, default = 10)]
    interval: u64,
}

#[fata::main]
async fn main(devices: Devices) -> io::Result<()> {
    let Devices { left, right, interval } = devices;
    println!("forwarding between {left:?} and {right:?}");
    let forwarder = Forwarder::new(left, right);
    let [left, right] = forwarder.counters();
    if interval > 0 {
        tokio::spawn(meter(left, right, Duration::from_secs(interval)));
    }
    let error = forwarder.await;
    Err(io::Error::other(error))
}

/// Prints what went through since the last line, if anything did.
async fn meter(left: Arc<PortCounters>, right: Arc<PortCounters>, interval: Duration) {
    let (mut before, mut at) = ([Way::default(); 2], Instant::now());
    loop {
        tokio::time::sleep(interval).await;
        let now = [Way::of(&left, &right), Way::of(&right, &left)];
        let seconds = at.elapsed().as_secs_f64();
        if now != before {
            let rates = [0, 1].map(|way| Rate(now[way].since(before[way]), seconds));
            println!("left to right: {}; right to left: {}", rates[0], rates[1]);
        }
        (before, at) = (now, Instant::now());
    }
}

/// What went one way.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Way {
    frames: u64,
    bytes: u64,
    dropped: u64,
}

impl Way {
    fn of(from: &PortCounters, to: &PortCounters) -> Way {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Way {
            frames: count(&from.frames_in),
            bytes: count(&from.bytes_in),
            dropped: count(&to.dropped_backlog)
                + count(&to.dropped_too_long)
                + count(&to.dropped_malformed),
        }
    }

    fn since(self, before: Way) -> Way {
        Way {
            frames: self.frames - before.frames,
            bytes: self.bytes - before.bytes,
            dropped: self.dropped - before.dropped,
        }
    }
}

/// A way, in so many seconds.
struct Rate(Way, f64);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rate(way, seconds) = self;
        let frames = way.frames as f64 / seconds;
        let mbits = way.bytes as f64 * 8.0 / seconds / 1e6;
        write!(f, "{frames:.0} frames/s, {mbits:.2} Mbit/s, {} dropped", way.dropped)
    }
}
