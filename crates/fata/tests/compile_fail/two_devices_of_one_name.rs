//! Two devices of one name could not be told apart on a command line.

#[derive(fata::Devices)]
struct Devices {
    data: fata::Block,
    #[fata(name = "data")]
    more: fata::Block,
}

fn main() {}
