//! Dies of a recursion without end.
#[expect(unconditional_recursion, reason = "this is what the test is about")]
#[inline(never)]
fn deeper(depth: u64) -> u64 {
    let room = std::hint::black_box([depth; 64]);
    deeper(depth + 1) + room[5]
}

#[fata::main]
async fn main() {
    println!("about to overflow");
    println!("{}", deeper(std::hint::black_box(0)));
}
