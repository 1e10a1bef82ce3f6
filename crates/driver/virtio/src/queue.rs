//! [`VirtQueue`]: the engine of `fata-virtq` in shared memory, with its doorbell and interrupt.

use crate::interrupts::Interrupts;
use crate::transport::Doorbell;
use core::task::Waker;
use fata_shared::dma::{DeviceAddress, DmaRegion};
use fata_virtq::{AddError, DeviceMisbehaved, Layout, Queue, RingMemory, Segment, Used};
use std::sync::Arc;

/// Shared memory as the engine sees it.
pub(crate) struct Ring(DmaRegion);

impl Ring {
    pub(crate) fn new(layout: Layout) -> Self {
        Ring(DmaRegion::new(layout.len()))
    }

    pub(crate) fn region(&self) -> &DmaRegion {
        &self.0
    }
}

impl RingMemory for Ring {
    type Address = DeviceAddress;

    fn load_u16(&self, offset: usize) -> u16 {
        self.0.load_u16(offset)
    }
    fn load_u32(&self, offset: usize) -> u32 {
        self.0.load_u32(offset)
    }
    fn store_u16(&self, offset: usize, value: u16) {
        self.0.store_u16(offset, value);
    }
    fn store_u32(&self, offset: usize, value: u32) {
        self.0.store_u32(offset, value);
    }
    fn store_address(&self, offset: usize, address: DeviceAddress) {
        self.0.store_u64(offset, address.to_bits());
    }
}

/// A queue of a running device.
pub(crate) struct VirtQueue<T> {
    queue: Queue<Ring, T>,
    doorbell: Doorbell,
    interrupts: Arc<Interrupts>,
    index: u16,
    event_index: bool,
    /// Interrupts are wanted by flag, so that they go on until they are switched off.
    armed: bool,
}

impl<T> VirtQueue<T> {
    pub(crate) fn new(
        queue: Queue<Ring, T>,
        event_index: bool,
        doorbell: Doorbell,
        interrupts: Arc<Interrupts>,
        index: u16,
    ) -> Self {
        VirtQueue { queue, doorbell, interrupts, index, event_index, armed: false }
    }

    pub(crate) fn size(&self) -> u16 {
        self.queue.size()
    }

    pub(crate) fn outstanding(&self) -> u16 {
        self.queue.outstanding()
    }

    /// Offers a chain; the device hears of it at the next [`notify`](Self::notify).
    pub(crate) fn add(
        &mut self,
        readable: &[Segment<DeviceAddress>],
        writable: &[Segment<DeviceAddress>],
        token: T,
    ) -> Result<(), AddError<T>> {
        self.queue.add(readable, writable, token)
    }

    /// Tells the device about all chains offered since the last call, if it wants to hear.
    pub(crate) fn notify(&mut self) {
        if self.queue.needs_notification() {
            self.doorbell.ring();
        }
    }

    pub(crate) fn take_used(&mut self) -> Result<Option<Used<T>>, DeviceMisbehaved> {
        let used = self.queue.take_used()?;
        // With event index the wish is for one interrupt and needs no withdrawal.
        if self.armed && !self.event_index && used.is_some() {
            self.armed = false;
            self.queue.disable_interrupts();
        }
        Ok(used)
    }

    /// Asks that `waker` be woken when the device has given `count` chains more back. False if it
    /// did already: take them, do not sleep.
    #[must_use]
    pub(crate) fn may_sleep(&mut self, waker: &Waker, count: u16) -> bool {
        self.interrupts.wait(self.index, waker);
        self.armed = true;
        !self.queue.enable_interrupts_after(count)
    }

    /// Takes the queue apart. The tokens are those of the chains that the device had; `quiet` says
    /// that it was reset and confirmed it, so that its memory may be freed.
    pub(crate) fn dismantle(self, quiet: bool) -> Vec<T> {
        let (Ring(memory), tokens) = self.queue.dismantle();
        if quiet {
            memory.reclaim();
        }
        tokens
    }
}
