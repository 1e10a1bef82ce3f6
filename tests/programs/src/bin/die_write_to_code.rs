//! Dies of a write to its own code: pages are writable or executable, never both.
#[inline(never)]
fn overwrite(function: fn(usize)) {
    // SAFETY: there is none; code is not writable, and this is what the test is about.
    unsafe { (function as *mut u8).write_volatile(0xc3) }
}

#[fata::main]
async fn main() {
    println!("about to fault");
    overwrite(|value| println!("{value}"));
    println!("code is writable");
}
