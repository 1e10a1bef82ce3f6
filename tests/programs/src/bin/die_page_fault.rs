//! Dies of a read through a null pointer.
#[inline(never)]
fn read_nothing(address: usize) -> u8 {
    // SAFETY: there is none; page zero is not mapped, and this is what the test is about.
    unsafe { std::ptr::with_exposed_provenance::<u8>(address).read_volatile() }
}

#[fata::main]
async fn main() {
    println!("about to fault");
    println!("{}", read_nothing(std::hint::black_box(0)));
}
