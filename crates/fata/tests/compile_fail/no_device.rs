//! A field that is neither a device nor marked as an argument.

#[derive(fata::Devices)]
struct Devices {
    service: fata::Stack,
    greeting: String,
}

fn main() {}
