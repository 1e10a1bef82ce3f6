//! Ends with the exit code that it is given.
use std::process::ExitCode;

/// Ends with the code that it is given.
#[derive(fata::Devices)]
struct Devices {
    /// The exit code.
    #[fata(arg)]
    code: u8,
}

#[fata::main]
async fn main(devices: Devices) -> ExitCode {
    ExitCode::from(devices.code)
}
