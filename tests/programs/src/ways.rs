//! The ways to end. Each does what no program should; that is what the tests are about.

use std::arch::asm;
use std::hint::black_box;
use std::time::Duration;

/// An index that is out of bounds.
pub fn panic() {
    let values = [1, 2];
    println!("{}", values[black_box(3)]);
}

/// A read through a null pointer.
pub fn page_fault() {
    println!("{}", read_nothing(black_box(0)));
}

#[inline(never)]
fn read_nothing(address: usize) -> u8 {
    // SAFETY: there is none; page zero is not mapped.
    unsafe { std::ptr::with_exposed_provenance::<u8>(address).read_volatile() }
}

/// A write to code: pages are writable or executable, never both.
pub fn write_to_code() {
    overwrite(|value| println!("{value}"));
    println!("code is writable");
}

#[inline(never)]
fn overwrite(function: fn(usize)) {
    // SAFETY: there is none; code is not writable.
    unsafe { (function as *mut u8).write_volatile(0xc3) }
}

/// A jump into the heap: data is not executable.
pub fn execute_data() {
    let code = Box::new([0xc3_u8; 16]); // `ret`
    // SAFETY: there is none; the heap is not executable.
    let function: fn() = unsafe { std::mem::transmute(code.as_ptr()) };
    black_box(function)();
    println!("data is executable");
}

/// A recursion without end.
pub fn stack_overflow() {
    println!("{}", deeper(black_box(0)));
}

#[expect(unconditional_recursion, reason = "a recursion without end")]
#[inline(never)]
fn deeper(depth: u64) -> u64 {
    let room = black_box([depth; 64]);
    deeper(depth + 1) + room[5]
}

/// More memory than the machine has.
pub fn out_of_memory() {
    let mut kept = Vec::new();
    loop {
        kept.push(black_box(vec![1_u8; 1 << 20]));
    }
}

/// A pseudo-descriptor, as `sidt` writes and `lidt` reads it (Intel SDM volume 3, figure 3-11).
#[repr(C, packed)]
struct Descriptor {
    limit: u16,
    base: u64,
}

/// A fault whose handler cannot be reached: every gate but the double fault's is gone.
pub fn double_fault() {
    const DOUBLE_FAULT_VECTOR: usize = 8;
    const WORDS_PER_GATE: usize = 2;
    let mut table = vec![0_u64; 256 * WORDS_PER_GATE];
    let mut current = Descriptor { limit: 0, base: 0 };
    // SAFETY: there is none in breaking the interrupt table.
    unsafe {
        asm!("cli", "sidt [{}]", in(reg) &mut current);
        let gates = current.base as *const u64;
        for word in 0..WORDS_PER_GATE {
            let index = DOUBLE_FAULT_VECTOR * WORDS_PER_GATE + word;
            table[index] = gates.add(index).read();
        }
        let broken = Descriptor { limit: 4095, base: table.as_ptr() as u64 };
        asm!("lidt [{}]", "ud2", in(reg) &broken);
    }
}

/// A task panics; the others go on.
pub async fn task_panic() {
    let other = tokio::spawn(async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        "the other task is alive"
    });
    let failed = tokio::spawn(async { panic!("this task is meant to panic") }).await;
    println!("panicked: {}", failed.is_err_and(|error| error.is_panic()));
    println!("{}", other.await.unwrap_or("lost"));
}

/// Backtraces by std's own means: one that is asked for, and that of std's panic hook.
pub async fn std_backtrace() {
    println!("{}", std::backtrace::Backtrace::force_capture());
    println!("captured");
    drop(std::panic::take_hook()); // now std's own is in force
    let failed = tokio::spawn(async { panic!("std's hook tells of this") }).await;
    println!("panicked: {}", failed.is_err_and(|error| error.is_panic()));
}
