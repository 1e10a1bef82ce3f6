//! The machine is a guest of Xen (`type = "pvh"`): a processor, memory, and the hypervisor. No port
//! answers, there is no APIC to set up, no timer chip and no bus.
//!
//! What there is instead: events, which set bits in a page that Xen shares with us and interrupt when
//! the processor sleeps; a timer that sends one; a clock in the same page; a ring for the console.
//! `fata_hypercall` has all of it, and this is where it is fitted to the machine.

mod clock;
pub mod console;
pub(crate) mod power;

pub(crate) use clock::Clocks;
pub(crate) use console as port;

use super::cell::OneCpu;
use super::console::say;
use super::{cpu, memory, tables, thread_locals, time};
use crate::command_line::CommandLine;
use crate::memory_map::{MemoryMap, PAGE_SIZE, Region};
use core::arch::global_asm;
use fata_hypercall::{Hypervisor, image};

/// The vector with which Xen says that events are pending: the lowest that is free.
const UPCALL_VECTOR: u8 = 32;

global_asm!(include_str!("upcall.s"), shared_info = sym image::SHARED_INFO);

unsafe extern "C" {
    static fata_upcall_stub: u8;
    safe fn fata_upcall_sleep();
}

/// Sleeps until an event, or returns at once if one is pending, with interrupts off.
pub(crate) fn sleep_until_interrupt() {
    fata_upcall_sleep();
}

/// Where the handler of a vector starts, and the number of its stack.
///
/// The stack is the interrupted one, because the handler may be entered twice in a row (see
/// `upcall.s`), and on a stack of its own the second entry would overwrite what the first returns to.
/// It may be, because only the sleep is ever interrupted, and that has no red zone.
pub(crate) fn interrupt_handler(vector: u8) -> Option<(u64, u8)> {
    (vector == UPCALL_VECTOR).then_some((&raw const fata_upcall_stub as u64, 0))
}

static HYPERVISOR: OneCpu<Option<Hypervisor>> = OneCpu::new(None);

/// The hypervisor, for drivers.
pub fn hypervisor() -> Hypervisor {
    let hypervisor = HYPERVISOR.with(|place| place.clone());
    hypervisor.expect("set before the program starts")
}

/// What is learnt before there is a heap. Valid when all zeroes.
pub(crate) struct Board {
    /// XenStore's page and the console's.
    pages: [Region; 2],
    count: usize,
}

impl Board {
    /// Sees that this is Xen, opens the console, and keeps the tools' pages out of RAM.
    pub(crate) fn early(&mut self, _rsdp: u64, ram: &mut MemoryMap) -> Result<(), &'static str> {
        if !is_xen() {
            return Err("this image is for Xen, and this is not Xen");
        }
        image::init_calls();
        let console = image::console_place();
        if let Some(place) = console {
            console::open(place);
        }
        for place in [console, image::store_place()].into_iter().flatten() {
            let page = Region::new(place.address, place.address + PAGE_SIZE);
            self.pages[self.count] = page;
            self.count += 1;
            ram.remove(page);
        }
        Ok(())
    }

    /// Pages outside RAM that are mapped as data from the start.
    pub(crate) fn pages(&self) -> &[Region] {
        &self.pages[..self.count]
    }

    /// Starts events, grants, the timer and the clock.
    pub(crate) fn start(&self) -> Result<Clocks, &'static str> {
        let window = window().ok_or("there are no addresses for what other domains share")?;
        if !tables::map_data(window) {
            return Err("memory is too small for the tables of what other domains share");
        }
        // SAFETY: the window lies above all RAM, below the processor's limit, is mapped now and named
        // nowhere else. The vector's handler is `fata_upcall_stub`. The special pages are mapped from
        // the start (`pages`) and not in the RAM that the heap gets. All memory is mapped one to one,
        // there is one flow of control, and this runs once.
        let started =
            unsafe { image::start(window.start as usize, UPCALL_VECTOR, around_suspension) };
        let hypervisor = started.map_err(|error| {
            say!("{error}");
            "Xen does not give this domain what it needs"
        })?;
        HYPERVISOR.with(|place| *place = Some(hypervisor));
        Clocks::find()
    }
}

/// Where other domains' pages and Xen's own are put: above 4 GiB and above all RAM, where a guest
/// without devices of its own has nothing.
fn window() -> Option<Region> {
    let start = memory::end().max(4 << 30).checked_next_multiple_of(1 << 30)?;
    let end = start + (image::WINDOW_PAGES as u64 * PAGE_SIZE).next_multiple_of(2 << 20);
    let bits = match cpu::cpuid(0x8000_0000).eax {
        0x8000_0008.. => cpu::cpuid(0x8000_0008).eax & 0xff,
        _ => 36,
    };
    (end <= 1 << bits.clamp(32, 47)).then_some(Region::new(start, end))
}

/// Whether Xen signs one of the hypervisors' leaves. With `viridian` set its own come after those of
/// Hyper-V (public/arch-x86/cpuid.h).
fn is_xen() -> bool {
    (0x4000_0000..0x4001_0000)
        .step_by(0x100)
        .filter_map(|base| Some((base, cpu::hypervisor(base)?)))
        .any(|(base, (signature, highest))| &signature == b"XenVMMXenVMM" && highest >= base + 2)
}

/// Suspends, and sets right afterwards what is the machine's: time, and the console.
fn around_suspension(suspend: &mut dyn FnMut() -> bool) {
    let before = time::monotonic_nanos();
    console::close();
    let is_new_domain = suspend();
    if is_new_domain && let Ok(clocks) = Clocks::find_again() {
        time::resume(clocks, before);
    }
    if let Some(place) = image::console_place()
        && tables::map_data(Region::new(place.address, place.address + PAGE_SIZE))
    {
        console::open(place);
    }
}

/// The command line names nothing that is the machine's.
pub(crate) fn set_command_line(_line: &CommandLine) {}

/// Fires the lines of the events that are pending. One load when there are none.
#[inline]
pub(crate) fn deliver_interrupts() -> bool {
    if !image::is_pending() {
        return false;
    }
    thread_locals::as_delivery(deliver);
    true
}

extern "C" fn deliver() {
    image::deliver();
}
