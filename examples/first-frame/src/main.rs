//! First frame: connects the moment it starts, without waiting for anything.
//!
//! In 2015 a program like this one hung on Xen: the driver sent its first frame, an ARP request,
//! before the backend listened, and nobody ever saw it. A second's sleep hid the mistake, and so did
//! DHCP, which asks again. `docs/start-of-day.md` tells the story.
//!
//! ```text
//! fata run examples/first-frame -t xen -- --target=10.0.2.10:1 \
//!     --service.address=10.0.2.60/24 --service.gateway=10.0.2.2
//! ```
#![forbid(unsafe_code)]

use fata::Stack;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Connects at once, and says how many frames that took.
#[derive(fata::Devices)]
struct Devices {
    /// The network, with a static address.
    service: Stack,
    /// Whom to connect to. That it refuses is an answer too.
    #[fata(arg)]
    target: SocketAddr,
}

/// Less than the second after which a lost request or SYN is sent again: an answer within it is an
/// answer to the first.
const PATIENCE: Duration = Duration::from_millis(900);

#[fata::main]
async fn main(devices: Devices) -> io::Result<()> {
    let start = Instant::now();
    let answer = devices.service.tcp_connect_timeout(devices.target, PATIENCE).await;
    let micros = start.elapsed().as_micros();
    let counters = devices.service.counters();
    match answer {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        Err(error) => {
            println!("the first frame was lost: {error}; {} sent", counters.frames_sent);
            return Err(error);
        }
    }
    println!(
        "answered after {micros} us: {} ARP requests, {} retransmissions",
        counters.arp_requests_sent, counters.tcp_retransmits
    );
    Ok(())
}
