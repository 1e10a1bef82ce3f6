//! Devices come out of a wiring, and a program has none.

fn open() -> fata::Stack {
    let mut wiring = fata::wiring::Wiring { program: &<fata::wiring::NoDevices as fata::Devices>::PROGRAM };
    let _ = <fata::Stack as fata::Device>::take(&mut wiring, "service");
    unreachable!()
}

fn main() {}
