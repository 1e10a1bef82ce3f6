//! Devices that should be refused, and how they are told so.

use crate::model::front::PciFront;
use crate::model::kinds::{NetKind, RngKind};
use crate::model::{Bus, Model, Spec, probe};
use crate::{Device, Options, ProbeError};
use fata_shared::interrupt::Line;
use fata_shared::pci::{Function, PciError};
use fata_shared::registers::Registers;
use fata_shared::simulation::RegisterModel;
use proptest::prelude::*;
use std::sync::{Arc, Mutex};

/// Registers that hold these words and ignore what is written.
struct Words(Vec<u32>);

impl RegisterModel for Words {
    fn read(&self, offset: usize, _width: usize) -> u64 {
        self.0.get(offset / 4).copied().unwrap_or(0).into()
    }
    fn write(&self, _offset: usize, _width: usize, _value: u64) {}
}

fn words(words: &[u32], len: usize) -> Result<Option<Device>, ProbeError> {
    crate::mmio::probe(Registers::simulated(Arc::new(Words(words.to_vec())), len), Line::new())
}

fn rng(change: impl FnOnce(&mut Spec), bus: Bus) -> Result<Option<Device>, ProbeError> {
    let mut spec = RngKind::spec();
    change(&mut spec);
    let model = Model::new(RngKind::default(), spec);
    probe(&model, bus, &Options::default())
}

const VIRT: u32 = 0x7472_6976;

#[test]
fn an_empty_slot_is_none_whatever_its_version() {
    assert!(words(&[VIRT, 2, 0], 0x200).unwrap().is_none());
    assert!(words(&[VIRT, 1, 0], 0x200).unwrap().is_none());
}

#[test]
fn what_is_not_virtio_or_legacy_is_refused_with_words() {
    assert_eq!(words(&[0x1234, 2, 1], 0x200).unwrap_err(), ProbeError::NotVirtio { magic: 0x1234 });
    let legacy = words(&[VIRT, 1, 1], 0x200).unwrap_err();
    assert_eq!(legacy, ProbeError::LegacyMmio { version: 1 });
    assert!(legacy.to_string().contains("force-legacy=false"));
    assert!(matches!(words(&[VIRT, 2, 1], 0x80), Err(ProbeError::BadConfiguration(_))));
}

#[test]
fn a_device_that_cannot_work_is_reset_and_refused() {
    for bus in [Bus::Mmio, Bus::Pci] {
        assert!(rng(|_| {}, bus).unwrap().is_some());
        assert_eq!(rng(|spec| spec.features = 0, bus).unwrap_err(), ProbeError::LegacyDevice);
        let refused = ProbeError::FeaturesRefused { access_platform: false };
        assert_eq!(rng(|spec| spec.refuse_features = true, bus).unwrap_err(), refused);
        let iommu = rng(
            |spec| {
                spec.refuse_features = true;
                spec.features |= 1 << 33;
            },
            bus,
        );
        assert_eq!(iommu.unwrap_err(), ProbeError::FeaturesRefused { access_platform: true });
        let none = rng(|spec| spec.queue_sizes[0] = 0, bus);
        assert_eq!(none.unwrap_err(), ProbeError::NoQueue { queue: 0 });
        let other = rng(|spec| spec.device_id = 26, bus);
        assert_eq!(other.unwrap_err(), ProbeError::UnsupportedType { id: 26 });
    }
}

#[test]
fn a_reset_that_never_ends_is_given_up() {
    let mut spec = RngKind::spec();
    spec.never_resets = true;
    let model = Model::new(RngKind::default(), spec);
    model.inner().status = 1;
    let error = probe(&model, Bus::Mmio, &Options::default()).unwrap_err();
    assert_eq!(error, ProbeError::ResetFailed);
}

#[test]
fn vectors_are_shared_when_there_are_too_few_and_needed_at_all() {
    let mut spec = NetKind::spec();
    spec.vectors = 1;
    let model = Model::new(NetKind::default(), spec);
    assert!(probe(&model, Bus::Pci, &Options::default()).unwrap().is_some());
    let none = rng(|spec| spec.vectors = 0, Bus::Pci);
    assert_eq!(none.unwrap_err(), ProbeError::Pci(PciError::NoMsix));
}

#[test]
fn a_doorbell_outside_its_window_is_refused() {
    let error = rng(|spec| spec.notify_len = 1, Bus::Pci).unwrap_err();
    assert_eq!(error, ProbeError::BadCapability("notification"));
}

fn function(change: impl FnOnce(&mut [u8; 256])) -> Box<dyn Function> {
    let mut function = PciFront::new(Model::new(RngKind::default(), RngKind::spec()));
    change(&mut function.config);
    Box::new(function)
}

/// Registers that are plain memory, over and over the same bytes at first.
struct Plain(Mutex<Vec<u8>>);

impl RegisterModel for Plain {
    fn read(&self, offset: usize, width: usize) -> u64 {
        let bytes = self.0.lock().unwrap();
        (0..width).rev().fold(0, |value, at| value << 8 | u64::from(bytes[offset + at]))
    }
    fn write(&self, offset: usize, width: usize, value: u64) {
        let mut bytes = self.0.lock().unwrap();
        bytes[offset..offset + width].copy_from_slice(&value.to_le_bytes()[..width]);
    }
}

/// As [`function`], with a BAR of plain memory: capabilities that lie lead the driver anywhere.
fn function_over(bar: &[u8], change: impl FnOnce(&mut [u8; 256])) -> Box<dyn Function> {
    let mut function = PciFront::new(Model::new(NetKind::default(), NetKind::spec()));
    let bytes: Vec<u8> = bar.iter().copied().cycle().take(0x3000).collect();
    function.other_bar = Some(Registers::simulated(Arc::new(Plain(Mutex::new(bytes))), 0x3000));
    change(&mut function.config);
    Box::new(function)
}

#[test]
fn capabilities_that_lead_nowhere_are_refused() {
    let told = |change: &dyn Fn(&mut [u8; 256])| {
        crate::pci::probe(function(|config| change(config))).unwrap_err()
    };
    assert_eq!(told(&|config| config[0x06] = 0), ProbeError::LegacyDevice);
    assert_eq!(told(&|config| config[0x34] = 0), ProbeError::LegacyDevice);
    // The list is a ring of one that is not understood.
    assert_eq!(
        told(&|config| {
            config[0x40] = 5;
            config[0x41] = 0x40;
        }),
        ProbeError::LegacyDevice
    );
    let common = ProbeError::BadCapability("common configuration");
    assert_eq!(told(&|config| config[0x4c] = 8), common, "too short");
    assert_eq!(told(&|config| config[0x4b] = 0xff), common, "past the BAR");
    assert_eq!(told(&|config| config[0x41] = 0), ProbeError::BadCapability("notification"));
    let bar = told(&|config| config[0x44] = 2);
    assert_eq!(bar, ProbeError::Pci(PciError::NoMemoryBar { index: 2 }));
    assert_eq!(told(&|config| config[0x44] = 6), ProbeError::LegacyDevice, "a reserved BAR");
}

proptest! {
    #[test]
    fn any_configuration_space_is_survived(
        bytes in prop::collection::vec(any::<u8>(), 256),
        bar in prop::collection::vec(any::<u8>(), 1..64),
    ) {
        let function = function_over(&bar, |config| {
            config.copy_from_slice(&bytes);
            config[0x06] |= 1 << 4;
        });
        let _ = crate::pci::probe(function);
    }

    #[test]
    fn near_misses_of_a_configuration_space_are_survived(
        changes in prop::collection::vec((0usize..256, any::<u8>()), 0..6),
        bar in prop::collection::vec(any::<u8>(), 1..64),
    ) {
        let function = function_over(&bar, |config| {
            for (at, value) in changes {
                config[at] = value;
            }
        });
        let _ = crate::pci::probe(function);
    }

    #[test]
    fn any_mmio_registers_are_survived(
        kind in 0u32..6,
        mut values in prop::collection::vec(any::<u32>(), 0x80),
        ready_to_reset: bool,
    ) {
        values[0] = VIRT;
        values[1] = 2;
        values[2] = kind;
        if ready_to_reset {
            values[0x70 / 4] = 0;
        } else {
            // So that giving up on the reset does not take the whole patience each time.
            values[0x08 / 4] = 0;
        }
        let _ = words(&values, 0x200);
    }
}
