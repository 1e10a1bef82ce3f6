//! A program that is generic over the device traits cannot open a device by itself.

fn open<B: fata::device::Block>() -> B {
    B::open("disk")
}

fn main() {}
