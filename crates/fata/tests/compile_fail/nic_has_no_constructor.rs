//! A program that is generic over the device traits cannot open a device by itself.

fn open<N: fata::device::Nic>() -> N {
    N::open("interface")
}

fn main() {}
