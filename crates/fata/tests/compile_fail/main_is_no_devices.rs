//! `main` takes a struct that derives `fata::Devices`.

#[fata::main]
async fn main(port: u16) {
    let _ = port;
}
