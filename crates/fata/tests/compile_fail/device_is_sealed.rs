//! A device is what a target's wiring can open; a program cannot add a kind.

struct Toaster;

impl fata::Device for Toaster {
    const KIND: fata::wiring::DeviceKind = fata::wiring::DeviceKind::Block;

    fn take(_: &mut fata::wiring::Wiring, _: &'static str) -> Result<Self, fata::wiring::WiringError> {
        Ok(Toaster)
    }
}

fn main() {}
