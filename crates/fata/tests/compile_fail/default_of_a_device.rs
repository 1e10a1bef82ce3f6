//! Only arguments have defaults, and a default is a literal.

#[derive(fata::Devices)]
struct Devices {
    #[fata(default = 3)]
    data: fata::Block,
}

#[derive(fata::Devices)]
struct Other {
    #[fata(arg, default = 1 + 2)]
    count: u32,
}

fn main() {}
