//! A netfront and a netback in one process, over the simulated hypervisor. For tests.

use super::back::{BackDevice, BackRings, BackSettings, Netback, NetbackOptions};
use super::counters::NetCounters;
use super::front::{FrontDevice, FrontRings, FrontSettings, Netfront, NetfrontOptions};
use core::sync::atomic::Ordering;
use core::task::{Context, Poll, Waker};
use fata_device::contract::Wire;
use fata_device::{MacAddress, Nic, NicError, Received, Transmit};
use fata_hypercall::simulation::World;
use fata_hypercall::{DomainId, Hypervisor};
use fata_xenbus::ring::net::GsoFamilies;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

pub(super) const FRONT: DomainId = DomainId(5);
pub(super) const BACK: DomainId = DomainId(2);
pub(super) const MAC: MacAddress = MacAddress([0, 0x16, 0x3e, 1, 2, 3]);

/// What the two ends can do, and whether they split the event channels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec {
    pub(super) front: NetfrontOptions,
    pub(super) back: NetbackOptions,
    pub(super) settings: FrontSettings,
    pub(super) asked: BackSettings,
    pub(super) split: bool,
}

impl Spec {
    /// Everything.
    pub(super) fn full() -> Self {
        let both = GsoFamilies { tcpv4: true, tcpv6: true };
        Spec {
            front: NetfrontOptions::default(),
            back: NetbackOptions::default(),
            settings: FrontSettings {
                mac: MAC,
                mtu: 1500,
                scatter_gather: true,
                segmentation: both,
                checksum_ipv6: true,
            },
            asked: BackSettings {
                frontend: FRONT,
                scatter_gather: true,
                segmentation: both,
                checksum: true,
                checksum_ipv6: true,
            },
            split: true,
        }
    }

    /// Nothing that is not in the oldest of drivers.
    pub(super) fn plain() -> Self {
        Spec {
            settings: FrontSettings::plain(MAC),
            asked: BackSettings::plain(FRONT),
            split: false,
            ..Spec::full()
        }
    }

    pub(super) fn mtu(mut self, mtu: usize) -> Self {
        self.settings.mtu = mtu;
        self.back.mtu = mtu;
        self
    }
}

pub(super) struct Pair {
    pub(super) front_hypervisor: Hypervisor,
    pub(super) back_hypervisor: Hypervisor,
    pub(super) front_device: FrontDevice,
    pub(super) back_device: BackDevice,
    pub(super) front: Netfront,
    pub(super) back: Netback,
}

/// The frontend's rings, attached by nobody yet.
pub(super) fn front_rings(
    hypervisor: &Hypervisor,
    device: &FrontDevice,
    split: bool,
) -> FrontRings {
    FrontRings::new(hypervisor, BACK, split, device).expect("rings")
}

pub(super) fn attach(hypervisor: &Hypervisor, rings: &FrontRings) -> BackRings {
    BackRings::attach(hypervisor, FRONT, rings.refs(), rings.ports()).expect("attached")
}

pub(super) fn pair(spec: &Spec) -> Pair {
    let world = World::new();
    let (front_hypervisor, back_hypervisor) = (world.domain(FRONT), world.domain(BACK));
    let mut front_device = FrontDevice::new(spec.front);
    let mut back_device = BackDevice::new(spec.back);
    let rings = front_rings(&front_hypervisor, &front_device, spec.split);
    let attached = attach(&back_hypervisor, &rings);
    let back = back_device.connect(attached, spec.asked);
    let front = front_device.connect(rings, spec.settings).expect("connected").expect("the first");
    Pair { front_hypervisor, back_hypervisor, front_device, back_device, front, back }
}

/// A frame as it was received.
pub(super) type Got = (Vec<u8>, Received);

pub(super) fn receive(nic: &mut impl Nic) -> Poll<Result<Got, NicError>> {
    let mut got = None;
    let mut cx = Context::from_waker(Waker::noop());
    nic.poll_receive(&mut cx, &mut |frame, received| got = Some((frame.to_vec(), received)))
        .map(|result| result.map(|()| got.expect("consume was called")))
}

pub(super) fn received(nic: &mut impl Nic) -> Got {
    match receive(nic) {
        Poll::Ready(Ok(got)) => got,
        other => panic!("no frame: {other:?}"),
    }
}

/// Queues a frame, without a flush.
pub(super) fn queue(
    nic: &mut impl Nic,
    frame: &[u8],
    transmit: Transmit,
) -> Poll<Result<bool, NicError>> {
    let mut cx = Context::from_waker(Waker::noop());
    nic.poll_transmit(&mut cx, &mut |buffer| {
        buffer[..frame.len()].copy_from_slice(frame);
        Some(transmit)
    })
}

pub(super) fn send(nic: &mut impl Nic, frame: &[u8]) -> Poll<Result<bool, NicError>> {
    let queued = queue(nic, frame, Transmit::complete(frame.len()));
    let _ = nic.flush();
    queued
}

/// A frame whose bytes tell its number.
pub(super) fn frame(number: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 7 + at / 251 + number * 31) as u8).collect()
}

/// The value of the counter of this name.
pub(super) fn counted(counters: &NetCounters, name: &str) -> u64 {
    counters.iter().find(|(each, _)| *each == name).expect("a counter").1
}

/// The other end of a device under test, which works in a task of its own.
#[derive(Clone, Default)]
pub(super) struct NicWire(Arc<Mutex<Frames>>);

#[derive(Default)]
struct Frames {
    to_send: VecDeque<Vec<u8>>,
    received: VecDeque<Vec<u8>>,
    waker: Option<Waker>,
}

impl NicWire {
    /// A wire whose other end is `nic`. Call within a runtime.
    pub(super) fn to(mut nic: impl Nic) -> (Self, tokio::task::JoinHandle<()>) {
        let wire = NicWire::default();
        let frames = wire.0.clone();
        let task = tokio::spawn(core::future::poll_fn(move |cx| {
            let mut frames = frames.lock().unwrap();
            frames.waker = Some(cx.waker().clone());
            let Frames { to_send, received, .. } = &mut *frames;
            while !to_send.is_empty() {
                let sent = nic.poll_transmit(cx, &mut |buffer| {
                    let frame = to_send.pop_front()?;
                    buffer[..frame.len()].copy_from_slice(&frame);
                    Some(Transmit::complete(frame.len()))
                });
                match sent {
                    Poll::Ready(Ok(sent)) => assert!(sent),
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => break,
                }
            }
            loop {
                let got = nic.poll_receive(cx, &mut |frame, _| received.push_back(frame.to_vec()));
                match got {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => break,
                }
            }
            nic.flush().map_or(Poll::Ready(()), |()| Poll::Pending)
        }));
        (wire, task)
    }
}

impl Wire for NicWire {
    fn send(&mut self, frame: &[u8]) {
        let mut frames = self.0.lock().unwrap();
        frames.to_send.push_back(frame.to_vec());
        if let Some(waker) = frames.waker.take() {
            waker.wake();
        }
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        self.0.lock().unwrap().received.pop_front()
    }
}

/// Notifications that an end sent.
pub(super) fn notifications(counters: &NetCounters) -> u64 {
    counters.notifications.load(Ordering::Relaxed)
}
