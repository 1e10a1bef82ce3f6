//! Exceptions and interrupts.
//!
//! The rule that makes everything above simple: **no Rust code runs in interrupt context**. A
//! handler notes that there was an interrupt and acknowledges it; what it means is looked up later, in
//! ordinary code ([`super::idle::deliver_interrupts`]). Interrupts are
//! enabled only there and while the processor sleeps, so they never interrupt a program between two
//! of its own instructions.
//!
//! An exception is the end of the program. Its handler prints what happened and where, on a stack of
//! its own, and switches the machine off. Intel SDM volume 3, chapter 6; IST: 6.14.5.

use super::backtrace;
use super::cell::OneCpu;
use super::console::say;
use super::layout::{Layout, Stack};
use super::{board, cpu, power};
use crate::exit_code;
use crate::memory_map::Region;
use core::arch::{asm, global_asm};
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

global_asm!(include_str!("traps.s"), exception = sym exception);

unsafe extern "C" {
    static fata_exception_stubs: u8;
}

/// Bytes of a stub in `traps.s`.
const STUB_BYTES: u64 = 16;

/// The interrupt stack for interrupts.
#[cfg(fata_target = "virtio")]
pub(crate) const INTERRUPT_STACK: u8 = 3;

const DOUBLE_FAULT: u64 = 8;
const PAGE_FAULT: u64 = 14;

const CODE_SELECTOR: u16 = 0x08;
const DATA_SELECTOR: u16 = 0x10;
const TASK_SELECTOR: u16 = 0x18;

/// The 64-bit task state segment: here only the stacks of the gates.
#[repr(C, packed(4))]
struct TaskState {
    reserved_0: u32,
    privilege_stacks: [u64; 3],
    reserved_1: u64,
    interrupt_stacks: [u64; 7],
    reserved_2: [u16; 5],
    io_map_base: u16,
}

const _: () = assert!(size_of::<TaskState>() == 104);

/// An entry of the interrupt descriptor table.
#[derive(Clone, Copy)]
#[repr(C)]
struct Gate {
    offset_low: u16,
    selector: u16,
    stack: u8,
    kind: u8,
    offset_middle: u16,
    offset_high: u32,
    reserved: u32,
}

impl Gate {
    const ABSENT: Gate = Gate {
        offset_low: 0,
        selector: 0,
        stack: 0,
        kind: 0,
        offset_middle: 0,
        offset_high: 0,
        reserved: 0,
    };

    /// An interrupt gate (interrupts off inside) to `handler` on the `stack`-th interrupt stack; on
    /// the interrupted one for 0.
    fn new(handler: u64, stack: u8) -> Self {
        Gate {
            offset_low: handler as u16,
            selector: CODE_SELECTOR,
            stack,
            kind: 0x8e,
            offset_middle: (handler >> 16) as u16,
            offset_high: (handler >> 32) as u32,
            reserved: 0,
        }
    }
}

/// What the processor reads while it delivers. Filled once, then left alone for ever.
struct Descriptors {
    segments: [u64; 5],
    task: TaskState,
    gates: [Gate; 256],
    main_guard: Region,
}

static DESCRIPTORS: OneCpu<Descriptors> = OneCpu::new(Descriptors {
    // Null, 64-bit code, data; then two words for the task state segment.
    segments: [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0, 0],
    task: TaskState {
        reserved_0: 0,
        privilege_stacks: [0; 3],
        reserved_1: 0,
        interrupt_stacks: [0; 7],
        reserved_2: [0; 5],
        io_map_base: 104,
    },
    gates: [Gate::ABSENT; 256],
    main_guard: Region { start: 0, end: 0 },
});

/// The operand of `lgdt` and `lidt`.
#[repr(C, packed)]
struct TablePointer {
    limit: u16,
    address: u64,
}

/// Installs the tables. Until the page tables of `layout` are in use its stacks are plain memory.
pub(crate) fn init(layout: &Layout) {
    DESCRIPTORS.with(|descriptors| {
        let top = |stack: Stack| stack.stack.end;
        let Layout { double_fault, exception, interrupt, .. } = *layout;
        descriptors.task.interrupt_stacks =
            [top(double_fault), top(exception), top(interrupt), 0, 0, 0, 0];
        descriptors.main_guard = layout.main.guard;
        // An available 64-bit TSS (Intel SDM volume 3, figure 7-4).
        let task = &raw const descriptors.task as u64;
        let limit = size_of::<TaskState>() as u64 - 1;
        descriptors.segments[3] =
            limit | (task & 0xff_ffff) << 16 | 0x89 << 40 | (task >> 24 & 0xff) << 56;
        descriptors.segments[4] = task >> 32;
        for (vector, gate) in descriptors.gates.iter_mut().enumerate() {
            *gate = gate_for(vector as u64);
        }
        load(descriptors);
    });
}

fn gate_for(vector: u64) -> Gate {
    let exceptions = &raw const fata_exception_stubs as u64;
    match vector {
        DOUBLE_FAULT => Gate::new(exceptions + vector * STUB_BYTES, 1),
        0..32 => Gate::new(exceptions + vector * STUB_BYTES, 2),
        _ => board::interrupt_handler(vector as u8)
            .map_or(Gate::ABSENT, |(at, stack)| Gate::new(at, stack)),
    }
}

fn load(descriptors: &Descriptors) {
    let segments = TablePointer {
        limit: size_of_val(&descriptors.segments) as u16 - 1,
        address: &raw const descriptors.segments as u64,
    };
    let gates = TablePointer {
        limit: size_of_val(&descriptors.gates) as u16 - 1,
        address: &raw const descriptors.gates as u64,
    };
    // SAFETY: both tables are statics, complete, and never written again (but for the busy bit of
    // the task segment, which `ltr` sets). The selectors name the same kinds of segment as the boot's
    // table did, so the code that runs sees no change.
    unsafe {
        asm!(
            "lgdt [{segments}]",
            "lidt [{gates}]",
            "push {code}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "retfq",
            "2:",
            "mov ds, {data:e}",
            "mov es, {data:e}",
            "mov ss, {data:e}",
            "ltr {task:x}",
            segments = in(reg) &segments,
            gates = in(reg) &gates,
            code = const CODE_SELECTOR as u64,
            data = in(reg) u32::from(DATA_SELECTOR),
            task = in(reg) TASK_SELECTOR,
            scratch = out(reg) _,
        );
    }
}

/// The interrupted state, as `traps.s` and the processor push it.
#[repr(C)]
struct Frame {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rdi: u64,
    rsi: u64,
    rbp: u64,
    rbx: u64,
    rdx: u64,
    rcx: u64,
    rax: u64,
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// Every exception ends here, on its own stack.
extern "C" fn exception(frame: &Frame) -> ! {
    static DYING: AtomicBool = AtomicBool::new(false);
    if DYING.swap(true, Ordering::Relaxed) {
        // The report itself faulted; what it printed so far must do.
        say!("another exception ({}) at {:#x} during the report", frame.vector, frame.rip);
        power::die(exit_code::EXCEPTION);
    }
    let (code, what) = classify(frame);
    say!("{what}");
    backtrace::report(frame.rip, frame.rbp, frame.rsp);
    power::die(code)
}

fn classify(frame: &Frame) -> (u8, Death) {
    let address = cpu::fault_address();
    let guard = DESCRIPTORS.try_with(|descriptors| descriptors.main_guard);
    let in_guard = guard.is_some_and(|guard| guard.contains(address));
    let death = Death { vector: frame.vector, error: frame.error, rip: frame.rip, address };
    match frame.vector {
        PAGE_FAULT if in_guard => (exit_code::STACK_OVERFLOW, death.overflow()),
        PAGE_FAULT => (exit_code::PAGE_FAULT, death),
        DOUBLE_FAULT => (exit_code::DOUBLE_FAULT, death),
        _ => (exit_code::EXCEPTION, death),
    }
}

/// What happened, in words.
struct Death {
    vector: u64,
    error: u64,
    rip: u64,
    address: u64,
}

impl Death {
    const OVERFLOW: u64 = u64::MAX;

    fn overflow(self) -> Self {
        Death { vector: Self::OVERFLOW, ..self }
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Death { vector, error, rip, address } = *self;
        match vector {
            Self::OVERFLOW => {
                write!(f, "stack overflow at {rip:#x} (the main stack ran into its guard page)")
            }
            // Error code: Intel SDM volume 3, figure 4-12.
            PAGE_FAULT => {
                let action = match error {
                    error if error & 1 << 4 != 0 => "executing",
                    error if error & 1 << 1 != 0 => "writing",
                    _ => "reading",
                };
                let why = match (error & 1 != 0, address) {
                    (true, _) => "the page forbids it",
                    (false, 0..4096) => "null pointer?",
                    _ => "nothing is there",
                };
                write!(f, "page fault {action} {address:#x} at {rip:#x} ({why})")
            }
            DOUBLE_FAULT => {
                write!(f, "double fault at {rip:#x} (an exception could not be delivered)")
            }
            13 => write!(f, "general protection fault at {rip:#x} (error code {error:#x})"),
            _ => {
                let name = match vector {
                    0 => "division error",
                    1 => "debug exception",
                    2 => "non-maskable interrupt",
                    3 => "breakpoint",
                    6 => "invalid instruction (an abort or an unreachable place?)",
                    7 => "vector instruction that is switched off",
                    16 => "x87 floating-point error",
                    17 => "misaligned access",
                    18 => "machine check (broken hardware)",
                    19 => "vector floating-point error",
                    _ => "exception",
                };
                write!(f, "{name}, vector {vector}, at {rip:#x} (error code {error:#x})")
            }
        }
    }
}
