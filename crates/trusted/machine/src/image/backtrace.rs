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
pub(crate) fn report(instruction: u64, frame_pointer: u64) {
    let mut addresses = [0; FRAMES_MAX];
    addresses[0] = instruction as usize;
    let count = 1 + walk(frame_pointer, &mut addresses[1..]);
    list(&addresses[..count]);
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
    let (stack, text) = (layout::main_stack(), layout::text());
    let mut frame = frame_pointer;
    let mut count = 0;
    while count < addresses.len() {
        let in_stack = stack.contains(frame) && frame.is_multiple_of(8) && frame + 16 <= stack.end;
        if !in_stack {
            break;
        }
        // SAFETY: both words lie on the main stack, which is mapped and never freed.
        let (caller, address) =
            unsafe { ((frame as *const u64).read(), (frame as *const u64).add(1).read()) };
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
