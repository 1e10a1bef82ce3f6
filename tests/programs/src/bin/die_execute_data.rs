//! Dies of a jump into the heap: data is not executable.
#[fata::main]
async fn main() {
    println!("about to fault");
    let code = vec![0xc3_u8; 16]; // `ret`
    // SAFETY: there is none; the heap is not executable, and this is what the test is about.
    let function: fn() = unsafe { std::mem::transmute(code.as_ptr()) };
    std::hint::black_box(function)();
    println!("data is executable");
}
