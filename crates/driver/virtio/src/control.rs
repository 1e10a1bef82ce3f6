//! [`Control`]: the life of a device that all types share (virtio 1.2, section 3.1): reset, features,
//! queues, running, reset.

use crate::error::ProbeError;
use crate::interrupts::Interrupts;
use crate::queue::{Ring, VirtQueue};
use crate::transport::Transport;
use fata_shared::registers::Registers;
use fata_virtq::{Layout, Queue};
use std::sync::Arc;

/// Status bits (section 2.1).
pub(crate) mod status {
    pub(crate) const ACKNOWLEDGE: u8 = 1;
    pub(crate) const DRIVER: u8 = 2;
    pub(crate) const DRIVER_OK: u8 = 4;
    pub(crate) const FEATURES_OK: u8 = 8;
    pub(crate) const NEEDS_RESET: u8 = 64;
    pub(crate) const FAILED: u8 = 128;
}

/// Feature bits that belong to no device type (section 6).
pub(crate) mod feature {
    pub(crate) const EVENT_IDX: u64 = 1 << 29;
    pub(crate) const VERSION_1: u64 = 1 << 32;
    pub(crate) const ACCESS_PLATFORM: u64 = 1 << 33;
}

/// How often the status is read until a reset is given up. A device that resets at once needs one;
/// under emulation a read takes a microsecond or less, so this is the better part of a second.
const RESET_READS_MAX: u32 = 500_000;

/// How often the configuration is read until its generation stays the same (section 2.5.3).
const CONFIG_READS_MAX: u32 = 16;

/// A device between its first reset and its last.
pub(crate) struct Control {
    transport: Box<dyn Transport>,
    features: u64,
    interrupts: Arc<Interrupts>,
}

impl Control {
    /// Resets the device, agrees on the features of `wanted` (and the event index) that it offers,
    /// and routes the interrupts of `queues` queues: steps 1 to 6 of section 3.1.1.
    pub(crate) fn start(
        transport: Box<dyn Transport>,
        wanted: u64,
        queues: u16,
    ) -> Result<Self, ProbeError> {
        Self::start_choosing(transport, |_| wanted, queues)
    }

    /// [`start`](Self::start) with features that are wanted only beside others: `wanted` is told
    /// what the device offers.
    pub(crate) fn start_choosing(
        mut transport: Box<dyn Transport>,
        wanted: impl FnOnce(u64) -> u64,
        queues: u16,
    ) -> Result<Self, ProbeError> {
        if !reset(transport.as_ref()) {
            return Err(ProbeError::ResetFailed);
        }
        match agree(transport.as_mut(), wanted, queues) {
            Ok((features, interrupts)) => Ok(Control { transport, features, interrupts }),
            Err(error) => {
                transport.set_status(status::FAILED);
                reset(transport.as_ref());
                Err(error)
            }
        }
    }

    /// True if the feature was agreed on.
    pub(crate) fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    pub(crate) fn interrupts(&self) -> &Arc<Interrupts> {
        &self.interrupts
    }

    /// Reads the device type's configuration such that all of it is from one moment.
    pub(crate) fn read_config<T>(&self, read: impl Fn(&Registers) -> T) -> Result<T, ProbeError> {
        for _ in 0..CONFIG_READS_MAX {
            let before = self.transport.config_generation();
            let value = read(self.transport.config());
            if self.transport.config_generation() == before {
                return Ok(value);
            }
        }
        Err(ProbeError::BadConfiguration(format!(
            "it changed each of the {CONFIG_READS_MAX} times it was read"
        )))
    }

    /// Length of the device type's configuration in bytes.
    pub(crate) fn config_len(&self) -> usize {
        self.transport.config().len()
    }

    /// The largest size of a queue that the device has, a power of two and at most `wanted` rounded
    /// up to one; at least `least`.
    pub(crate) fn queue_size(
        &self,
        queue: u16,
        least: u16,
        wanted: u16,
    ) -> Result<u16, ProbeError> {
        let offered = self.transport.queue_size_max(queue).min(fata_virtq::SIZE_MAX);
        // Section 4.1.5.1.3: on PCI too the size may be lowered, to any power of two.
        let offered = if offered == 0 { 0 } else { 1 << offered.ilog2() };
        let size = wanted.clamp(1, fata_virtq::SIZE_MAX).next_power_of_two().min(offered);
        if size < least { Err(ProbeError::NoQueue { queue }) } else { Ok(size) }
    }

    /// Makes a queue of `size` descriptors and tells the device of it: step 7.
    pub(crate) fn queue<T>(&mut self, queue: u16, size: u16) -> Result<VirtQueue<T>, ProbeError> {
        let layout = Layout::new(size).ok_or(ProbeError::NoQueue { queue })?;
        let event_index = self.has(feature::EVENT_IDX);
        let engine = Queue::new(Ring::new(layout), layout, event_index);
        let doorbell = self.transport.enable_queue(queue, layout, engine.memory().region())?;
        let interrupts = self.interrupts.clone();
        Ok(VirtQueue::new(engine, event_index, doorbell, interrupts, queue))
    }

    /// The device may work: step 8.
    pub(crate) fn run(&self) {
        self.transport.set_status(
            status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK,
        );
    }

    /// What the device says of its health, if it is ill. To be asked when
    /// [`Interrupts::take_attention`] says so: it reads a register.
    pub(crate) fn illness(&self) -> Option<Illness> {
        match self.transport.status() {
            // All ones is what a bus answers when nobody is there; no device sets all bits.
            0xff => Some(Illness::Gone),
            status if status & status::NEEDS_RESET != 0 => Some(Illness::NeedsReset),
            _ => None,
        }
    }

    /// Resets the device. True if it confirmed: then it does not touch memory any more (section
    /// 2.4).
    pub(crate) fn reset(&self) -> bool {
        reset(self.transport.as_ref())
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // A driver that closed in order has done this already; for one that failed half-way.
        self.transport.set_status(0);
    }
}

/// Why a device that broke no rule cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Illness {
    /// Nobody answers.
    Gone,
    /// It says that it met an error and must be reset (section 2.1.1).
    NeedsReset,
}

impl Illness {
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Illness::Gone => "its registers do not answer",
            Illness::NeedsReset => "it met an error of its own and asks to be reset",
        }
    }
}

fn reset(transport: &dyn Transport) -> bool {
    transport.set_status(0);
    // Sections 4.1.4.3.2 and 4.2.2: it is done when the status reads 0.
    (0..RESET_READS_MAX).any(|_| transport.status() == 0)
}

fn agree(
    transport: &mut dyn Transport,
    wanted: impl FnOnce(u64) -> u64,
    queues: u16,
) -> Result<(u64, Arc<Interrupts>), ProbeError> {
    transport.set_status(status::ACKNOWLEDGE);
    transport.set_status(status::ACKNOWLEDGE | status::DRIVER);
    let offered = transport.offered_features();
    if offered & feature::VERSION_1 == 0 {
        return Err(ProbeError::LegacyDevice);
    }
    let features = offered & (wanted(offered) | feature::VERSION_1 | feature::EVENT_IDX);
    transport.accept_features(features);
    let chosen = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
    transport.set_status(chosen);
    if transport.status() & status::FEATURES_OK == 0 {
        let access_platform = offered & feature::ACCESS_PLATFORM != 0;
        return Err(ProbeError::FeaturesRefused { access_platform });
    }
    let interrupts = Interrupts::new(transport.route_interrupts(queues)?, queues);
    Ok((features, interrupts))
}
