//! Dies of a fault whose handler cannot be reached: every gate but the double fault's is gone.
use std::arch::asm;

/// A pseudo-descriptor, as `sidt` writes and `lidt` reads it.
#[repr(C, packed)]
struct Descriptor {
    limit: u16,
    base: u64,
}

const DOUBLE_FAULT_VECTOR: usize = 8;
const GATE_BYTES: usize = 16;

#[fata::main]
async fn main() {
    println!("about to fault twice");
    let mut table = vec![0_u64; 256 * GATE_BYTES / 8];
    let mut current = Descriptor { limit: 0, base: 0 };
    // SAFETY: there is none in breaking the interrupt table; this is what the test is about.
    unsafe {
        asm!("cli", "sidt [{}]", in(reg) &mut current);
        let gates = current.base as *const u64;
        for word in DOUBLE_FAULT_VECTOR * 2..DOUBLE_FAULT_VECTOR * 2 + 2 {
            table[word] = gates.add(word).read();
        }
        let broken = Descriptor { limit: 4095, base: table.as_ptr() as u64 };
        asm!("lidt [{}]", "ud2", in(reg) &broken);
    }
}
