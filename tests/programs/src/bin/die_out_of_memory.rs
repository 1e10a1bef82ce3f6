//! Dies of asking for more memory than the machine has.
#[fata::main]
async fn main() {
    println!("about to run out");
    let mut kept = Vec::new();
    loop {
        kept.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
}
