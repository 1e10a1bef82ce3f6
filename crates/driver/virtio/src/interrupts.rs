//! [`Interrupts`]: from a device's lines to the tasks that wait for its queues.
//!
//! A device may have a line per queue (MSI-X) or one for everything (MMIO), while each queue has
//! somebody of its own who waits. In between sits a waker of ours per line: it acknowledges the
//! interrupt where that is needed and wakes those whom the line may concern.

use crate::transport::{Routes, mmio::register};
use atomic_waker::AtomicWaker;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Waker};
use fata_shared::interrupt::Line;
use fata_shared::registers::Registers;
use std::sync::{Arc, Weak};
use std::task::Wake;

/// Bit of virtio-mmio's InterruptStatus: a used buffer (virtio 1.2, section 4.2.2).
const STATUS_USED: u32 = 1;
/// Bit of virtio-mmio's InterruptStatus: the configuration changed.
const STATUS_CONFIG: u32 = 2;

/// The interrupts of one device.
pub(crate) struct Interrupts {
    /// Line 0 is for configuration changes; then one per queue, or none: all are line 0.
    lines: Vec<Line>,
    /// Our waker for each line.
    line_wakers: Vec<Waker>,
    acknowledge: Option<Registers>,
    /// Who waits for each queue.
    waiting: Vec<AtomicWaker>,
    /// The configuration (or the device's health) may have changed.
    attention: AtomicBool,
}

struct LineWaker {
    interrupts: Weak<Interrupts>,
    line: usize,
}

impl Wake for LineWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(interrupts) = self.interrupts.upgrade() {
            interrupts.lines[self.line].take_fired();
            interrupts.fired(self.line, None);
        }
    }
}

impl Interrupts {
    pub(crate) fn new(routes: Routes, queues: u16) -> Arc<Self> {
        Arc::new_cyclic(|interrupts| Interrupts {
            line_wakers: (0..routes.lines.len())
                .map(|line| {
                    Waker::from(Arc::new(LineWaker { interrupts: interrupts.clone(), line }))
                })
                .collect(),
            lines: routes.lines,
            acknowledge: routes.acknowledge,
            waiting: (0..queues).map(|_| AtomicWaker::new()).collect(),
            attention: AtomicBool::new(false),
        })
    }

    /// Stores who is to be woken when `queue`'s interrupt comes. The caller must look at the queue
    /// once more afterwards: an interrupt that came before is taken here, without waking him.
    pub(crate) fn wait(&self, queue: u16, waker: &Waker) {
        self.waiting[usize::from(queue)].register(waker);
        self.listen(0, queue);
        if self.lines.len() > 1 {
            self.listen(1 + usize::from(queue), queue);
        }
    }

    fn listen(&self, line: usize, queue: u16) {
        let mut cx = Context::from_waker(&self.line_wakers[line]);
        while self.lines[line].poll_fired(&mut cx).is_ready() {
            self.fired(line, Some(queue));
        }
    }

    /// A line fired: acknowledges it and wakes whom it may concern, but not `except`.
    fn fired(&self, line: usize, except: Option<u16>) {
        match &self.acknowledge {
            Some(registers) => {
                let status = registers.read_u32(register::INTERRUPT_STATUS);
                let known = status & (STATUS_USED | STATUS_CONFIG);
                if known != 0 {
                    // Before the queue is looked at: the device may raise the line again at once.
                    registers.write_u32(register::INTERRUPT_ACK, known);
                }
                if status & STATUS_CONFIG != 0 {
                    self.attention.store(true, Ordering::Release);
                }
            }
            None if line == 0 => self.attention.store(true, Ordering::Release),
            None => {}
        }
        for (queue, waiting) in self.waiting.iter().enumerate() {
            let concerned = line == 0 || line == 1 + queue;
            if concerned && except.is_none_or(|except| usize::from(except) != queue) {
                waiting.wake();
            }
        }
    }

    /// True if the configuration or the device's health may have changed since this was last asked.
    pub(crate) fn take_attention(&self) -> bool {
        self.attention.load(Ordering::Relaxed) && self.attention.swap(false, Ordering::Acquire)
    }
}
