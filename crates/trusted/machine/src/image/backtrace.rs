//! Who called whom, from the frame pointers.
//!
//! An image is built with frame pointers, so a frame is two words: the caller's frame and the return
//! address. The words are not trusted (the stack may be what broke): a frame must lie on the main
//! stack, above the one before, and return into the code. What is printed are addresses and the
//! build id; the host finds the names, so that the image need not carry them.

use super::console::say;
use super::{cpu, layout};
use core::fmt;

/// The most frames that a report shows.
const FRAMES_MAX: usize = 64;

/// Fills `addresses` with the return addresses of the callers, the nearest first; how many there
/// were.
#[inline(never)]
pub fn capture(addresses: &mut [usize]) -> usize {
    walk(cpu::frame_pointer(), addresses)
}

/// Prints the callers to the console, in the form that `fata` resolves.
#[inline(never)]
pub fn print() {
    let mut addresses = [0; FRAMES_MAX];
    let count = walk(cpu::frame_pointer(), &mut addresses);
    list(&addresses[..count]);
}

/// Prints where `instruction` is and who called it: the end of a crash report.
pub(crate) fn report(instruction: u64, frame_pointer: u64, stack_pointer: u64) {
    let mut addresses = [0; FRAMES_MAX];
    addresses[0] = instruction as usize;
    let mut count = 1;
    if !layout::text().contains(instruction) {
        // A call through a wrong pointer: there is no frame yet, only the return address.
        if let Some(address) = word_on_stack(stack_pointer) {
            addresses[count] = address as usize;
            count += 1;
        }
    }
    count += walk(frame_pointer, &mut addresses[count..]);
    list(&addresses[..count]);
}

/// The word at an address of the main stack.
fn word_on_stack(address: u64) -> Option<u64> {
    let stack = layout::main_stack();
    let fits = stack.contains(address) && address.is_multiple_of(8) && address + 8 <= stack.end;
    // SAFETY: the word lies on the main stack, which is mapped and never freed.
    fits.then(|| unsafe { (address as *const u64).read() })
}

fn list(addresses: &[usize]) {
    say!("backtrace of build {}", BuildId(layout::build_id()));
    for (index, address) in addresses.iter().enumerate() {
        say!("  #{index} {address:#018x}");
    }
}

struct BuildId(Option<&'static [u8]>);

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(id) => id.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            None => f.write_str("unknown"),
        }
    }
}

fn walk(frame_pointer: u64, addresses: &mut [usize]) -> usize {
    let text = layout::text();
    let mut frame = frame_pointer;
    let mut count = 0;
    while count < addresses.len() {
        let words = (word_on_stack(frame), word_on_stack(frame.wrapping_add(8)));
        let (Some(caller), Some(address)) = words else { break };
        if !text.contains(address) {
            break;
        }
        addresses[count] = address as usize;
        count += 1;
        if caller <= frame {
            break;
        }
        frame = caller;
    }
    count
}
