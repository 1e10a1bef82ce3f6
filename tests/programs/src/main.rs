//! A program that ends in every way that a program can end; the tests boot it.
//!
//! One program and not one for each way, because each would be linked anew.

#[cfg(fata_target = "virtio")]
mod symbols;
mod ways;

use std::process::ExitCode;

/// Ends in the way that it is told.
#[derive(fata::Devices)]
struct Devices {
    /// How to end: see `ways`.
    #[fata(arg)]
    way: String,
    /// With `--way=exit`: the exit code.
    #[fata(arg, default = 0)]
    code: u8,
}

#[fata::main]
async fn main(devices: Devices) -> ExitCode {
    println!("about to end: {}", devices.way);
    match devices.way.as_str() {
        "exit" => return ExitCode::from(devices.code),
        "panic" => ways::panic(),
        "page-fault" => ways::page_fault(),
        "write-to-code" => ways::write_to_code(),
        "execute-data" => ways::execute_data(),
        "stack-overflow" => ways::stack_overflow(),
        "out-of-memory" => ways::out_of_memory(),
        "double-fault" => ways::double_fault(),
        "task-panic" => ways::task_panic().await,
        #[cfg(fata_target = "virtio")]
        "symbols" => symbols::run(),
        "std-backtrace" => ways::std_backtrace().await,
        other => println!("no such way: {other}"),
    }
    ExitCode::SUCCESS
}
