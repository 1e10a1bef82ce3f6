//! One flag that ends everything.
//!
//! Every wait of the benchmark is a loop that looks at this flag, so that Ctrl-C unwinds the stack in the ordinary
//! way and each guest and namespace is ended by its owner's `Drop`. A second Ctrl-C ends the process at once;
//! nothing outlives that either, because guests die with their parent and a namespace dies with its holder.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// How long a wait sleeps before it looks at the flag and its condition again.
pub(crate) const STEP: Duration = Duration::from_millis(5);

/// The exit status after Ctrl-C, as shells report it: 128 + SIGINT.
pub(crate) const EXIT_STATUS: u8 = 130;

fn flag() -> &'static Arc<AtomicBool> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    FLAG.get_or_init(|| Arc::new(AtomicBool::new(false)))
}

/// Routes SIGINT, SIGTERM and SIGHUP to the flag.
pub(crate) fn install() -> Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // In this order: the shutdown looks at the flag before this very signal has raised it.
        signal_hook::flag::register_conditional_shutdown(
            signal,
            i32::from(EXIT_STATUS),
            Arc::clone(flag()),
        )
        .and_then(|_| signal_hook::flag::register(signal, Arc::clone(flag())))
        .with_context(|| format!("cannot handle signal {signal}"))?;
    }
    Ok(())
}

/// Whether somebody asked for the end.
pub(crate) fn requested() -> bool {
    flag().load(Ordering::Relaxed)
}

/// An error once somebody asked for the end.
pub(crate) fn check() -> Result<()> {
    if requested() {
        bail!("interrupted");
    }
    Ok(())
}

/// Sleeps, but not past an interruption.
pub(crate) fn sleep(duration: Duration) -> Result<()> {
    let end = Instant::now() + duration;
    loop {
        check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(STEP));
    }
}
