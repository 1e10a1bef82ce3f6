//! Virtio devices that run in the process of a test, written from the specification and not from
//! the drivers: registers in front ([`front`]), a device type behind ([`kinds`]), the device's side of
//! the queues in between. The drivers run over them unchanged.
//!
//! A model does what it was asked at once but fires lines only in [`Model::deliver`], as a machine
//! does. It can be made to lie.

pub(crate) mod front;
pub(crate) mod kinds;
mod ring;

pub(crate) use front::{Bus, probe};
pub(crate) use ring::{Chain, Element, Rings};

use fata_shared::interrupt::Line;
use kinds::Kind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Changes what the device writes into a used element.
pub(crate) type Lie = Box<dyn FnMut(Element) -> Element + Send>;

/// What a model is, before it is told anything.
pub(crate) struct Spec {
    pub(crate) device_id: u32,
    pub(crate) features: u64,
    pub(crate) config: Vec<u8>,
    pub(crate) queue_sizes: Vec<u16>,
    /// Status FEATURES_OK is never shown.
    pub(crate) refuse_features: bool,
    /// The status never reads 0 again once it was something else.
    pub(crate) never_resets: bool,
    /// The configuration's generation changes at each look.
    pub(crate) restless: bool,
    /// MSI-X vectors of the PCI function.
    pub(crate) vectors: u16,
    /// The size of a PCI function's notification window.
    pub(crate) notify_len: u32,
}

impl Spec {
    pub(crate) fn new(device_id: u32, features: u64, config: Vec<u8>, queues: &[u16]) -> Self {
        Spec {
            device_id,
            features: features | 1 << 32 | 1 << 29,
            config,
            queue_sizes: queues.to_vec(),
            refuse_features: false,
            never_resets: false,
            restless: false,
            vectors: 8,
            notify_len: 0x100,
        }
    }
}

/// What the tests look at and turn.
pub(crate) struct Inner<K> {
    pub(crate) kind: K,
    pub(crate) spec: Spec,
    pub(crate) status: u8,
    pub(crate) accepted: u64,
    pub(crate) rings: Rings,
    /// Chains are handled when the driver notifies; otherwise when the test says so.
    pub(crate) paused: bool,
    pub(crate) resets: u32,
    /// How often the interrupt status was read: drivers should need it seldom.
    pub(crate) interrupt_status_reads: u32,
    interrupt_status: u32,
    selects: [u32; 3],
    generation: u32,
    lines: Vec<Line>,
    /// Vector of configuration changes, then of each queue; MMIO: all 0.
    vectors: Vec<u16>,
    pending: Vec<bool>,
}

/// A device in this process. Clones are the same device.
pub(crate) struct Model<K>(Arc<Mutex<Inner<K>>>);

impl<K> Clone for Model<K> {
    fn clone(&self) -> Self {
        Model(self.0.clone())
    }
}

impl<K: Kind> Model<K> {
    pub(crate) fn new(kind: K, spec: Spec) -> Self {
        let queues = spec.queue_sizes.len();
        let rings = Rings::new(&spec.queue_sizes);
        Model(Arc::new(Mutex::new(Inner {
            kind,
            spec,
            status: 0,
            accepted: 0,
            rings,
            paused: false,
            resets: 0,
            interrupt_status_reads: 0,
            interrupt_status: 0,
            selects: [0; 3],
            generation: 0,
            lines: Vec::new(),
            vectors: vec![0; queues + 1],
            pending: Vec::new(),
        })))
    }

    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner<K>> {
        // A test that panicked here says more than the poison that it leaves.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Handles all that is available in every queue.
    pub(crate) fn work(&self) {
        let mut inner = self.inner();
        for queue in 0..inner.spec.queue_sizes.len() {
            inner.handle(queue);
        }
    }

    /// Fires the lines whose interrupts are pending, as the machine does at its delivery point.
    pub(crate) fn deliver(&self) -> bool {
        let mut inner = self.inner();
        let fired: Vec<Line> = inner
            .lines
            .iter()
            .zip(&inner.pending)
            .filter(|(_, pending)| **pending)
            .map(|(line, _)| line.clone())
            .collect();
        inner.pending.fill(false);
        drop(inner);
        fired.iter().for_each(Line::fire);
        !fired.is_empty()
    }

    /// Works and delivers for ever: to be spawned beside a test.
    pub(crate) async fn run(self) {
        loop {
            self.work();
            self.deliver();
            tokio::task::yield_now().await;
        }
    }

    /// Tells a lie in each used element from now on.
    pub(crate) fn lie(&self, lie: impl FnMut(Element) -> Element + Send + 'static) {
        self.inner().rings.lie = Some(Box::new(lie));
    }

    /// Says that the configuration changed, or the device's health.
    pub(crate) fn change(&self, status: u8) {
        let mut inner = self.inner();
        inner.status |= status;
        inner.interrupt_status |= 2;
        inner.raise(0);
    }

    /// Lets the device act by itself.
    pub(crate) fn act<T>(&self, act: impl FnOnce(&mut K, &mut Rings) -> T) -> T {
        let mut inner = self.inner();
        let Inner { kind, rings, .. } = &mut *inner;
        let result = act(kind, rings);
        inner.interrupt_all();
        result
    }
}

impl<K: Kind> Inner<K> {
    /// Handles all that is available in a queue, and asks to be notified of more.
    fn handle(&mut self, queue: usize) {
        if self.paused || self.status & 4 == 0 || self.status & 128 != 0 {
            return;
        }
        let Inner { kind, rings, accepted, .. } = self;
        kind.negotiated(*accepted);
        while rings.fetch(queue) {
            kind.serve(queue, rings);
        }
        self.interrupt_all();
    }

    fn interrupt_all(&mut self) {
        for queue in 0..self.spec.queue_sizes.len() {
            if self.rings.wants_interrupt(queue) {
                self.interrupt_status |= 1;
                self.raise(1 + queue);
            }
        }
    }

    fn raise(&mut self, source: usize) {
        let vector = usize::from(self.vectors[source]);
        if let Some(pending) = self.pending.get_mut(vector) {
            *pending = true;
        }
    }

    fn set_status(&mut self, status: u8) {
        if status == 0 {
            self.resets += 1;
            if self.spec.never_resets && self.status != 0 {
                return;
            }
            let sizes = self.spec.queue_sizes.clone();
            self.rings = Rings::new(&sizes);
            self.accepted = 0;
            self.interrupt_status = 0;
            self.kind.reset();
        }
        self.status = status;
        if self.spec.refuse_features {
            self.status &= !8;
        }
        if self.status & 8 != 0 {
            assert_eq!(self.accepted & !self.spec.features, 0, "accepts what was not offered");
            self.rings.event_index = self.accepted & 1 << 29 != 0;
        }
    }

    fn generation(&mut self) -> u32 {
        self.generation += u32::from(self.spec.restless);
        self.generation
    }

    fn read_config(&self, offset: usize, width: usize) -> u64 {
        let mut bytes = [0; 8];
        for (at, byte) in bytes.iter_mut().enumerate().take(width) {
            *byte = self.spec.config.get(offset + at).copied().unwrap_or(0xff);
        }
        u64::from_le_bytes(bytes)
    }
}
