//! Dies of a panic in `main`.
fn fail(values: &[u32]) -> u32 {
    values[std::hint::black_box(3)]
}

#[fata::main]
async fn main() {
    println!("about to panic");
    println!("{}", fail(&[1, 2]));
}
