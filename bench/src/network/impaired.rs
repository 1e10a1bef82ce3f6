//! A stream over a bad link, in virtual time: what arrives, beside smoltcp and beside what the
//! literature and Linux lead one to expect.

use std::time::Duration;

use anyhow::{Result, ensure};
use fata_testkit::net::{Dice, Impairments, Lane};

use crate::fata::Fata;
use crate::host::{Connection, FRAME_BYTES_MAX, Host};
use crate::link::{CLIENT, SERVER};
use crate::smol::Smoltcp;
use crate::table::Report;

/// The link's rate.
const BITS_PER_SECOND: u64 = 100_000_000;
/// Seeds, each a run; the mean counts.
const SEEDS: [u64; 3] = [1, 2, 3];
/// A stream lasts so long.
const SECONDS: u64 = 40;

/// What a link does beside its rate and its round trip.
struct Case {
    round_trip_ms: f64,
    /// What the row is called.
    name: &'static str,
    loss: f64,
    reordering: (f64, u64),
    duplication: f64,
    /// Megabits per second that are good enough: what Linux reaches, less a margin.
    accept: f64,
}

const fn lossy(round_trip_ms: f64, name: &'static str, loss: f64, accept: f64) -> Case {
    Case { round_trip_ms, name, loss, reordering: (0.0, 0), duplication: 0.0, accept }
}

const fn reordered(
    round_trip_ms: f64,
    name: &'static str,
    share: f64,
    delay_ms: u64,
    accept: f64,
) -> Case {
    let reordering = (share, delay_ms);
    Case { round_trip_ms, name, loss: 0.0, reordering, duplication: 0.0, accept }
}

const fn duplicated(round_trip_ms: f64, name: &'static str, duplication: f64, accept: f64) -> Case {
    Case { round_trip_ms, name, loss: 0.0, reordering: (0.0, 0), duplication, accept }
}

/// Rows for 10 and 100 ms are those that were measured of Linux 6.18 with CUBIC, and what of it is
/// good enough; for 1 ms the bound is 1.22/√p segments per round trip (Mathis et al., 1997), at most
/// the link's rate, and three quarters of it are good enough.
const CASES: &[Case] = &[
    lossy(1.0, "loss 0", 0.0, 95.0),
    lossy(1.0, "loss 0.1 %", 0.001, 72.0),
    lossy(1.0, "loss 1 %", 0.01, 72.0),
    lossy(1.0, "loss 3 %", 0.03, 40.0),
    lossy(1.0, "loss 5 %", 0.05, 20.0),
    lossy(10.0, "loss 0", 0.0, 95.0),
    lossy(10.0, "loss 0.1 %", 0.001, 34.0),
    lossy(10.0, "loss 1 %", 0.01, 9.0),
    lossy(10.0, "loss 3 %", 0.03, 3.8),
    lossy(10.0, "loss 5 %", 0.05, 2.5),
    lossy(100.0, "loss 0", 0.0, 90.0),
    lossy(100.0, "loss 0.1 %", 0.001, 4.5),
    lossy(100.0, "loss 1 %", 0.01, 1.0),
    lossy(100.0, "loss 3 %", 0.03, 0.50),
    lossy(100.0, "loss 5 %", 0.05, 0.38),
    reordered(10.0, "reordering 1 %, 1 ms", 0.01, 1, 90.0),
    reordered(10.0, "reordering 5 %, 5 ms", 0.05, 5, 90.0),
    reordered(10.0, "reordering 25 %, 2 ms", 0.25, 2, 90.0),
    reordered(100.0, "reordering 1 %, 10 ms", 0.01, 10, 80.0),
    reordered(100.0, "reordering 5 %, 50 ms", 0.05, 50, 20.0),
    duplicated(10.0, "duplicates 1 %", 0.01, 95.0),
    duplicated(10.0, "duplicates 5 %", 0.05, 90.0),
];

/// Every case, with both stacks.
pub(crate) fn measure(report: &mut Report) -> Result<()> {
    for case in CASES {
        let mut rates = [Vec::new(), Vec::new()];
        for seed in SEEDS {
            rates[0].push(run::<Fata>(case, seed)?);
            rates[1].push(run::<Smoltcp>(case, seed)?);
        }
        let [ours, theirs] = rates;
        let mean = ours.iter().sum::<f64>() / ours.len() as f64;
        let verdict = if mean >= case.accept { "met" } else { "short" };
        let name = format!(
            "round trip {} ms, {} (at least {}: {verdict})",
            case.round_trip_ms, case.name, case.accept
        );
        report.add(&name, "Mbit/s", true, ours, theirs);
    }
    Ok(())
}

/// Megabits per second that arrived.
fn run<H: Host>(case: &Case, seed: u64) -> Result<f64> {
    let one_way = Duration::from_secs_f64(case.round_trip_ms / 2000.0);
    let delay_product = (BITS_PER_SECOND as f64 / 8000.0 * case.round_trip_ms) as usize;
    let clean = Impairments {
        latency: one_way,
        rate_bits_per_second: Some(BITS_PER_SECOND),
        queue_bytes: delay_product.max(150_000),
        ..Impairments::default()
    };
    let bad = Impairments {
        loss: case.loss,
        duplication: case.duplication,
        reordering: case.reordering.0,
        reordering_delay: Duration::from_millis(case.reordering.1),
        ..clean.clone()
    };
    // Twice what is in flight, and what may queue.
    let buffer_bytes = (3 * delay_product).max(1 << 20).next_power_of_two();
    let dice = Dice::new(seed);
    let mut path = Path {
        client: H::new(CLIENT, 1, buffer_bytes),
        server: H::new(SERVER, 1, buffer_bytes),
        lanes: [Lane::new(clean.clone(), &dice.split(0)), Lane::new(clean, &dice.split(1))],
        now: Duration::from_millis(1),
        frame: vec![0; FRAME_BYTES_MAX],
    };
    path.server.listen();
    let (client, server) = path.connect()?;
    // The handshake is over: from here on the data's direction is bad.
    path.lanes[0].set_impairments(bad);
    path.stream(client, server)
}

struct Path<H> {
    client: H,
    server: H,
    /// From the client to the server, and back.
    lanes: [Lane; 2],
    now: Duration,
    frame: Vec<u8>,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl<H: Host> Path<H> {
    fn connect(&mut self) -> Result<(Connection, Connection)> {
        let client = self.client.connect(nanos(self.now), SERVER);
        for _ in 0..10_000 {
            self.step();
            if let Some(server) = self.server.accept(nanos(self.now)) {
                return Ok((client, server));
            }
        }
        anyhow::bail!("{}: no connection", H::NAME)
    }

    fn stream(&mut self, client: Connection, server: Connection) -> Result<f64> {
        let chunk = vec![0x5a; 256 * 1024];
        let mut buffer = vec![0; 256 * 1024];
        let start = self.now;
        let end = start + Duration::from_secs(SECONDS);
        let mut arrived: u64 = 0;
        while self.now < end {
            while self.client.write(nanos(self.now), client, &chunk) > 0 {}
            self.step();
            loop {
                match self.server.read(nanos(self.now), server, &mut buffer) {
                    0 => break,
                    len => arrived += len as u64,
                }
            }
        }
        ensure!(arrived > 0, "{}: nothing arrived", H::NAME);
        Ok(arrived as f64 * 8.0 / 1e6 / (self.now - start).as_secs_f64())
    }

    /// Sends what there is to send, then lets the next thing happen.
    fn step(&mut self) {
        let now = nanos(self.now);
        for (host, lane) in [&mut self.client, &mut self.server].into_iter().zip(&mut self.lanes) {
            while let Some(len) = host.transmit(now, &mut self.frame) {
                lane.send(self.now, &self.frame[..len]);
            }
        }
        let deadlines = [self.client.poll_timeout(now), self.server.poll_timeout(now)];
        let deadlines = deadlines.into_iter().flatten().map(Duration::from_nanos);
        let arrivals = self.lanes.iter().filter_map(Lane::poll_timeout);
        // Without anything to wait for, the program's next write is in a millisecond.
        let next = deadlines.chain(arrivals).min();
        let next = next.unwrap_or(self.now + Duration::from_millis(1));
        self.now = self.now.max(next);
        let now = nanos(self.now);
        for (host, lane) in [&mut self.server, &mut self.client].into_iter().zip(&mut self.lanes) {
            while let Some(frame) = lane.poll_arrival(self.now) {
                host.receive(now, &frame);
            }
            if host.poll_timeout(now).is_some_and(|deadline| deadline <= now) {
                host.handle_timeout(now);
            }
        }
    }
}
