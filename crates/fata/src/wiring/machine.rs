//! What the targets that are machines have in common.

use fata_machine::{backtrace, idle, time};
use std::io;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// How long a device's interrupt waits at most while the program keeps the CPU busy.
const BACKSTOP_MIN: Duration = Duration::from_millis(1);
/// How long it waits at most when the program begins to: sixteen wake-ups a second, a thousandth of
/// a core under emulation, are what this costs an idle machine.
const BACKSTOP_MAX: Duration = Duration::from_millis(64);

/// The first thing that a program does: from here on a panic says where it was.
pub(super) fn enter() {
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("fata: {panic}");
        backtrace::print();
    }));
    if std::env::var("FATA_BOOT_TIMES").is_ok() {
        println!("fata: main after {} us", time::since_entry_nanos() / 1000);
    }
}

/// One thread, one scheduler.
pub(super) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_time().build()
}

/// Delivers interrupts while the CPU is busy.
///
/// Interrupts are delivered when the machine goes idle and when it leaves idleness. A program that
/// always has something to do would keep devices waiting for ever; so this task looks, every
/// millisecond as long as it never finds that the machine was idle meanwhile, and otherwise less and
/// less often, so that an idle machine stays idle.
pub(super) async fn backstop() {
    let mut pause = BACKSTOP_MIN;
    loop {
        let seen = idle::times_idle();
        tokio::time::sleep(pause).await;
        idle::deliver_interrupts();
        // Its own sleep makes an idle machine idle once more; so, on such a machine, it backs off.
        let was_idle = idle::times_idle() != seen;
        pause = if was_idle { (pause * 2).min(BACKSTOP_MAX) } else { BACKSTOP_MIN };
    }
}
