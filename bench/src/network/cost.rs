//! What a segment costs: in time, and in instructions.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::fata::Fata;
use crate::host::Host;
use crate::link::Link;
use crate::plot::{Plot, Series};
use crate::smol::Smoltcp;
use crate::table::Report;

/// Bytes of buffer in each direction of a connection that carries a stream.
const BULK_BUFFER_BYTES: usize = 256 * 1024;
/// The same where there are many connections: smoltcp holds them all the time.
const SMALL_BUFFER_BYTES: usize = 4096;
/// Bytes of a stream that is timed.
const BULK_BYTES: u64 = 256 << 20;
/// Numbers of connections of the curve.
const CONNECTIONS: [usize; 5] = [1, 10, 100, 1000, 10_000];
/// smoltcp's instructions are counted up to so many connections; beyond, valgrind needs hours for the
/// handshakes.
const COUNTED_MAX: usize = 100;
/// Parts that are counted by themselves, both hosts together: what they are, and the function that
/// valgrind counts in. smoltcp only queues what it is given, and does the work of receiving when it is
/// asked what to send.
const PARTS: [(&str, &str); 2] = [("sending", "*host_sends*"), ("receiving", "*host_receives*")];

/// A stream of [`BULK_BYTES`].
pub(crate) fn bulk(rounds: u32, report: &mut Report) -> Result<()> {
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        rates[0].push(stream::<Fata>());
        rates[1].push(stream::<Smoltcp>());
    }
    let [ours, theirs] = rates;
    report.add("one stream, both hosts on one processor", "MB/s", true, ours, theirs);
    // A segment of 1,460 bytes, or of 1,448 beside timestamps: what a data segment of the stream
    // costs, with the ACKs that it causes.
    let segments = |bytes: u64| bytes as f64 / 1448.0;
    let (short, long) = (8 << 20, 24 << 20);
    for (part, function) in PARTS {
        let mut costs = [Vec::new(), Vec::new()];
        for (index, stack) in ["fata", "smoltcp"].into_iter().enumerate() {
            let less = instructions(stack, "bulk", 1, short, Some(function))?;
            let more = instructions(stack, "bulk", 1, long, Some(function))?;
            costs[index].push(more.saturating_sub(less) as f64 / segments(long - short));
        }
        let [ours, theirs] = costs;
        let name = format!("instructions a data segment with its share of ACKs: {part}");
        report.add(&name, "", false, ours, theirs);
    }
    Ok(())
}

/// Megabytes per second of one stream.
fn stream<H: Host>() -> f64 {
    let mut link = Link::<H>::new(1, BULK_BUFFER_BYTES);
    let pairs = link.open(1);
    link.bulk(pairs[0], BULK_BYTES / 16);
    let start = Instant::now();
    link.bulk(pairs[0], BULK_BYTES);
    BULK_BYTES as f64 / 1e6 / start.elapsed().as_secs_f64()
}

/// What a segment of a request or its answer costs on one connection, beside others that are idle.
pub(crate) fn connections(rounds: u32, report: &mut Report) -> Result<Plot> {
    let mut curves = [Vec::new(), Vec::new()];
    let mut counted = Vec::new();
    for connections in CONNECTIONS {
        let ours = segment_nanos::<Fata>(connections, rounds);
        let theirs = segment_nanos::<Smoltcp>(connections, rounds);
        for (curve, values) in curves.iter_mut().zip([&ours, &theirs]) {
            let least = values.iter().copied().fold(f64::MAX, f64::min);
            curve.push((connections as f64, least));
        }
        let name = format!("time a segment, {connections} connections");
        report.add(&name, "ns", false, ours, theirs);
        let count = |stack| -> Result<f64> {
            let less = instructions(stack, "requests", connections, 1000, None)?;
            let more = instructions(stack, "requests", connections, 3000, None)?;
            // Two segments a request.
            Ok(more.saturating_sub(less) as f64 / 4000.0)
        };
        let ours = count("fata")?;
        counted.push(ours);
        let theirs = if connections <= COUNTED_MAX { vec![count("smoltcp")?] } else { Vec::new() };
        let name = format!("instructions a segment, {connections} connections");
        report.add(&name, "", false, vec![ours], theirs);
    }
    if let (Some(first), Some(last)) = (counted.first(), counted.last()) {
        let growth = vec![last / first];
        let name = format!("instructions beside {}, as a multiple of 1", CONNECTIONS[4]);
        report.add(&name, "", false, growth, Vec::new());
    }
    let [ours, theirs] = curves;
    Ok(Plot {
        title: "Time a segment costs, by the number of established connections",
        x: "connections",
        y: "ns a segment, both hosts",
        series: vec![
            Series { name: Fata::NAME, points: ours },
            Series { name: Smoltcp::NAME, points: theirs },
        ],
    })
}

/// Nanoseconds a segment, both hosts, one value for each round.
fn segment_nanos<H: Host>(connections: usize, rounds: u32) -> Vec<f64> {
    let mut link = Link::<H>::new(connections, SMALL_BUFFER_BYTES);
    let pairs = link.open(connections);
    let mut values = Vec::new();
    // smoltcp takes a millisecond for a segment beside ten thousand.
    let requests = if connections >= 1000 { 500 } else { 20_000 };
    for _ in 0..rounds {
        let (frames, start) = (link.frames, Instant::now());
        link.requests(pairs[0], requests);
        let nanos = start.elapsed().as_nanos() as f64;
        values.push(nanos / (link.frames - frames) as f64);
    }
    values
}

/// What is counted: run by valgrind.
pub(crate) fn once<H: Host>(what: &str, connections: usize, count: u64) -> Result<()> {
    match what {
        "bulk" => {
            let mut link = Link::<H>::new(1, BULK_BUFFER_BYTES);
            let pairs = link.open(1);
            link.bulk(pairs[0], count);
        }
        "requests" => {
            let mut link = Link::<H>::new(connections, SMALL_BUFFER_BYTES);
            let pairs = link.open(connections);
            link.requests(pairs[0], count);
        }
        other => bail!("nothing is called {other}"),
    }
    Ok(())
}

/// The instructions of a run of this program under valgrind; only those in `function` and in what it
/// calls, if one is named.
fn instructions(
    stack: &str,
    what: &str,
    connections: usize,
    count: u64,
    function: Option<&str>,
) -> Result<u64> {
    let program = std::env::current_exe().context("where this program is")?;
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    if let Some(function) = function {
        command.arg(format!("--toggle-collect={function}"));
    }
    command.arg(program).args(["--once", stack, what]);
    command.args([connections.to_string(), count.to_string()]);
    let output =
        command.output().context("valgrind does not run; on Debian: apt-get install valgrind")?;
    let text = String::from_utf8_lossy(&output.stderr);
    let total = text.lines().find_map(|line| line.split_once("== Collected :"));
    let total = total.and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
    total.with_context(|| format!("valgrind counted nothing ({}): {text}", output.status))
}
