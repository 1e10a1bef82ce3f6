//! From the first line of a program to its last.

use super::arguments::{Arguments, WiringError};
use super::spec::{Devices, Program};
use super::{Wiring, help, target};
use crate::shutdown;
use std::future::poll_fn;
use std::pin::pin;
use std::process::{ExitCode, Termination};
use std::task::Poll;
use std::time::Duration;

/// Exit code of a program whose command line is wrong (as clap's).
const EXIT_USAGE: u8 = 2;
/// Exit code of a program whose devices are missing (sysexits' EX_UNAVAILABLE).
const EXIT_DEVICE: u8 = 69;

/// How long the end of a program waits for its peers to acknowledge what it wrote: ten
/// retransmission timeouts of a quick path.
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);

/// What `#[fata::main]` knows of the program beside its types.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// The package's name.
    pub package: &'static str,
    /// Install a `tracing` subscriber that writes to the console.
    pub log: bool,
}

/// Starts the machine or the process, builds the devices, runs `main` to its end.
///
/// Called by `#[fata::main]`, once.
pub fn run<D, F, R>(start: Start, main: F) -> ExitCode
where
    D: Devices,
    F: AsyncFnOnce(D) -> R,
    R: Termination,
{
    let entry = target::enter();
    if start.log {
        crate::log::install();
    }
    let runtime = match target::runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{}: tokio's runtime does not start: {error}", start.package);
            return ExitCode::FAILURE;
        }
    };
    const { assert!(D::PROGRAM.devices.len() <= 64, "at most 64 devices") };
    let program: &'static Program = const { &D::PROGRAM };
    runtime.block_on(async {
        match wire::<D>(&start, program, entry).await {
            Ok(Some((devices, stacks))) => {
                let code = until_shutdown(main(devices)).await;
                // What the program wrote last is still on its way.
                for stack in stacks {
                    stack.drain(DRAIN_PATIENCE).await;
                }
                code
            }
            Ok(None) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{}: {error}", start.package);
                let device = matches!(error, WiringError::Device { .. });
                if !device {
                    eprintln!("`--help` lists the arguments.");
                }
                ExitCode::from(if device { EXIT_DEVICE } else { EXIT_USAGE })
            }
        }
    })
}

/// The program's own end, or success when the host asked for it.
async fn until_shutdown<R: Termination>(program: impl Future<Output = R>) -> ExitCode {
    let mut program = pin!(program);
    let mut enforced = pin!(shutdown::enforced());
    poll_fn(|cx| match program.as_mut().poll(cx) {
        Poll::Ready(outcome) => Poll::Ready(outcome.report()),
        Poll::Pending => enforced.as_mut().poll(cx).map(|()| ExitCode::SUCCESS),
    })
    .await
}

/// Builds the devices; `None` if there was only help to print.
async fn wire<D: Devices>(
    start: &Start,
    program: &'static Program,
    entry: target::Entry,
) -> Result<Option<(D, Vec<crate::Stack>)>, WiringError> {
    let settings: Vec<(String, &str)> = program
        .devices
        .iter()
        .flat_map(|device| {
            let of_kind = target::settings(device.kind);
            of_kind.iter().map(|(setting, help)| (format!("{}.{setting}", device.name), *help))
        })
        .collect();
    let names: Vec<String> = settings.iter().map(|(name, _)| name.clone()).collect();
    let arguments = Arguments::parse(std::env::args().skip(1), program, &names)?;
    if arguments.help {
        print!("{}", help::text(start.package, program, &settings));
        return Ok(None);
    }
    let target = target::Target::new(entry, program).await?;
    let mut wiring = Wiring { program, arguments, target, stacks: Vec::new() };
    let devices = D::take(&mut wiring).await?;
    Ok(Some((devices, wiring.stacks)))
}
