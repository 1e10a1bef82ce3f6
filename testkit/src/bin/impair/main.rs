//! A bad link between two TAP interfaces, in real time.
//!
//! ```text
//! ip tuntap add dev left mode tap && ip tuntap add dev right mode tap
//! cargo run --release -p fata-testkit --bin impair -- --left.tap left --right.tap right --delay 25ms --loss 1%
//! ```
//!
//! It is the same link that the simulated world has ([`Lane`]); so Linux's TCP and ours meet over
//! what a test meets. Where the two interfaces are to be in different network namespaces, move one
//! after this program has opened it, when it has said `ready`.
#![forbid(unsafe_code)]

mod arguments;
mod timer;

use arguments::Arguments;
use fata_device::{Nic, NicError, Received, Transmit};
use fata_pcap::{Direction, InterfaceId, Note, Writer};
use fata_testkit::net::{Dice, Fate, Lane};
use fata_unix::Tap;
use std::collections::VecDeque;
use std::fs::File;
use std::future::poll_fn;
use std::io::{BufWriter, Write};
use std::process::ExitCode;
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};
use timer::Timer;
use tokio::signal::unix::{SignalKind, signal};

/// Frames that one turn takes from an interface.
const BATCH_FRAMES: usize = 64;

/// Frames that wait for an interface whose host takes none; past it they are lost. What a TAP
/// interface itself queues (`TUN_READQ_SIZE`).
const WAITING_FRAMES_MAX: usize = 500;

/// The names of the two sides.
const SIDES: [&str; 2] = ["left", "right"];

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            print!("{}", arguments::help());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("impair: {error}\n`--help` lists the options.");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(run(&arguments)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("impair: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<(), String> {
    let mut bridge = Bridge::open(arguments)?;
    let say = |error: std::io::Error| error.to_string();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(say)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(say)?;
    println!("ready");
    std::io::stdout().flush().map_err(say)?;
    let ended = async {
        match arguments.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    let result = tokio::select! {
        error = poll_fn(|cx| bridge.poll(cx)) => Err(error.to_string()),
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        () = ended => Ok(()),
    };
    bridge.finish(arguments.json)?;
    result
}

/// What is captured, of both sides in one file.
struct Captured {
    writer: Writer,
    sides: [InterfaceId; 2],
    file: BufWriter<File>,
    blocks: Vec<u8>,
    /// Why the file could not be written, once it could not.
    failed: Option<String>,
}

impl Captured {
    fn frame(&mut self, side: usize, frame: &[u8], direction: Direction, comment: String) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let at = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        let note = Note { comment, dropped_before: 0 };
        self.blocks.clear();
        self.writer.frame(&mut self.blocks, self.sides[side], at, frame, direction, &note);
        self.write();
    }

    fn write(&mut self) {
        if let Err(error) = self.file.write_all(&self.blocks) {
            self.failed.get_or_insert_with(|| format!("the capture cannot be written: {error}"));
        }
    }
}

/// Two interfaces and what is between them.
struct Bridge {
    taps: [Tap; 2],
    /// From the side of the same number to the other.
    lanes: [Lane; 2],
    /// Frames that have arrived, by the side that they go to.
    waiting: [VecDeque<Vec<u8>>; 2],
    lost_waiting: [u64; 2],
    began: Instant,
    timer: Timer,
    captured: Option<Captured>,
}

impl Bridge {
    fn open(arguments: &Arguments) -> Result<Bridge, String> {
        let open =
            |side: usize| Tap::open(&arguments.taps[side]).map_err(|error| error.to_string());
        let dice = Dice::new(arguments.seed);
        let lane =
            |side: usize| Lane::new(arguments.impairments[side].clone(), &dice.split(side as u64));
        let captured = match &arguments.pcap {
            None => None,
            Some(path) => {
                let file = File::create(path)
                    .map_err(|error| format!("the capture {}: {error}", path.display()))?;
                let mut blocks = Vec::new();
                let mut writer = Writer::new(&mut blocks, "impair");
                let sides = SIDES.map(|side| writer.interface(&mut blocks, side));
                let file = BufWriter::new(file);
                let mut captured = Captured { writer, sides, file, blocks, failed: None };
                captured.write();
                Some(captured)
            }
        };
        Ok(Bridge {
            taps: [open(0)?, open(1)?],
            lanes: [lane(0), lane(1)],
            waiting: Default::default(),
            lost_waiting: [0; 2],
            began: Instant::now(),
            timer: Timer::new().map_err(|error| format!("a timer: {error}"))?,
            captured,
        })
    }

    /// Ready when an interface fails.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<NicError> {
        match self.turn(cx) {
            Err(error) => return Poll::Ready(error),
            Ok(true) => {
                // Again, after whatever else there is: a signal, for one.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Ok(false) => {}
        }
        let next = self.lanes.iter().filter_map(Lane::poll_timeout).min();
        if let Some(next) = next {
            let wait = next.saturating_sub(self.began.elapsed());
            if self.timer.poll(cx, wait).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    /// Moves a batch of frames; false if there was none to move.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<bool, NicError> {
        let mut moved = false;
        for side in 0..2 {
            for _ in 0..BATCH_FRAMES {
                let now = self.began.elapsed();
                let (lane, captured) = (&mut self.lanes[side], &mut self.captured);
                let polled = self.taps[side].poll_receive(cx, &mut |frame, _: Received| {
                    let fate: Fate = lane.send(now, frame);
                    if let Some(captured) = captured {
                        captured.frame(side, frame, Direction::Inbound, fate.to_string());
                    }
                })?;
                if polled.is_pending() {
                    break;
                }
                moved = true;
            }
        }
        let now = self.began.elapsed();
        for side in 0..2 {
            let to = 1 - side;
            while let Some(frame) = self.lanes[side].poll_arrival(now) {
                moved = true;
                if self.waiting[to].len() >= WAITING_FRAMES_MAX {
                    self.lost_waiting[to] += 1;
                } else {
                    self.waiting[to].push_back(frame);
                }
            }
            self.send(to, cx)?;
        }
        Ok(moved)
    }

    /// Gives an interface what waits for it.
    fn send(&mut self, side: usize, cx: &mut Context<'_>) -> Result<(), NicError> {
        let (waiting, captured) = (&mut self.waiting[side], &mut self.captured);
        while let Some(frame) = waiting.front() {
            let polled = self.taps[side].poll_transmit(cx, &mut |buffer| {
                // What the link added may be more than the interface takes.
                let len = frame.len().min(buffer.len());
                buffer[..len].copy_from_slice(&frame[..len]);
                Some(Transmit::complete(len))
            })?;
            if polled.is_pending() {
                return Ok(());
            }
            if let Some(captured) = captured {
                captured.frame(side, frame, Direction::Outbound, String::new());
            }
            waiting.pop_front();
        }
        self.taps[side].flush()
    }

    /// Prints what happened, and closes the capture.
    fn finish(self, json: bool) -> Result<(), String> {
        let counters = |side: usize| {
            let lost = ("lost_waiting", self.lost_waiting[1 - side]);
            self.lanes[side].counters().iter().chain([lost]).collect::<Vec<_>>()
        };
        let names = ["to_right", "to_left"];
        if json {
            let sides = [0, 1].map(|side| {
                let numbers: Vec<String> = counters(side)
                    .into_iter()
                    .map(|(name, count)| format!("\"{name}\":{count}"))
                    .collect();
                format!("\"{}\":{{{}}}", names[side], numbers.join(","))
            });
            println!("{{{}}}", sides.join(","));
        } else {
            for side in [0, 1] {
                for (name, count) in counters(side).into_iter().filter(|(_, count)| *count > 0) {
                    println!("{}.{name} {count}", names[side]);
                }
            }
        }
        let Some(mut captured) = self.captured else { return Ok(()) };
        let flushed = captured.file.flush();
        match (captured.failed, flushed) {
            (Some(error), _) => Err(error),
            (None, Err(error)) => Err(format!("the capture cannot be written: {error}")),
            (None, Ok(())) => Ok(()),
        }
    }
}
