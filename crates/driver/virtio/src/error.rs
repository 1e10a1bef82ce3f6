//! [`ProbeError`]: why a device was found and cannot be used.

use core::fmt;
use fata_shared::pci::PciError;

/// Why a device cannot be used. The device was reset, or was never touched.
///
/// The text says what is wrong with the device; whoever probes knows where it sits and says that.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProbeError {
    /// The registers do not begin with virtio-mmio's magic value (virtio 1.2, section 4.2.2).
    NotVirtio {
        /// What stands there.
        magic: u32,
    },
    /// A legacy virtio-mmio device: the virtio of before 2016, which this driver does not speak.
    LegacyMmio {
        /// The version register; 2 is the modern interface.
        version: u32,
    },
    /// A PCI device without the capabilities of the modern interface, or that does not offer
    /// `VIRTIO_F_VERSION_1`.
    LegacyDevice,
    /// A virtio device of a type that there is no driver for.
    UnsupportedType {
        /// The device ID (virtio 1.2, section 5).
        id: u32,
    },
    /// A PCI capability of the modern interface is missing, or points to nothing usable (section
    /// 4.1.4); the text says which.
    BadCapability(&'static str),
    /// The machine could not give what the driver needs of the PCI function.
    Pci(PciError),
    /// The device does not take a vector for one of its queues (section 4.1.4.3).
    VectorRefused {
        /// Which queue; `None`: configuration changes.
        queue: Option<u16>,
    },
    /// The device does not offer something that the driver cannot do without.
    MissingFeature(&'static str),
    /// The device does not accept the features that the driver chose from those it offers.
    FeaturesRefused {
        /// The device offers `VIRTIO_F_ACCESS_PLATFORM`: it may insist on an IOMMU.
        access_platform: bool,
    },
    /// A queue that the device must have is not there, or is too small.
    NoQueue {
        /// Which.
        queue: u16,
    },
    /// The device's configuration makes no sense; the text says what of it.
    BadConfiguration(String),
    /// The device did not confirm its reset.
    ResetFailed,
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProbeError::NotVirtio { magic } => {
                write!(f, "no virtio-mmio device: its magic value is {magic:#010x}")
            }
            ProbeError::LegacyMmio { version } => write!(
                f,
                "a legacy virtio-mmio device (version {version}, not 2): start QEMU with \
                 -global virtio-mmio.force-legacy=false"
            ),
            ProbeError::LegacyDevice => write!(
                f,
                "a legacy virtio device: start QEMU with disable-legacy=on,disable-modern=off"
            ),
            ProbeError::UnsupportedType { id } => {
                write!(f, "there is no driver for virtio devices of type {id}")
            }
            ProbeError::BadCapability(which) => {
                write!(f, "the {which} capability is missing or points to nothing usable")
            }
            ProbeError::Pci(error) => error.fmt(f),
            ProbeError::VectorRefused { queue: Some(queue) } => {
                write!(f, "the device takes no interrupt vector for queue {queue}")
            }
            ProbeError::VectorRefused { queue: None } => {
                write!(f, "the device takes no interrupt vector for configuration changes")
            }
            ProbeError::MissingFeature(feature) => {
                write!(f, "the device does not offer {feature}, which is needed")
            }
            ProbeError::FeaturesRefused { access_platform: false } => {
                write!(f, "the device refuses features that it offers")
            }
            ProbeError::FeaturesRefused { access_platform: true } => write!(
                f,
                "the device refuses to work without an IOMMU: start QEMU without iommu_platform=on"
            ),
            ProbeError::NoQueue { queue } => {
                write!(f, "the device has no queue {queue}, or one that is too small")
            }
            ProbeError::BadConfiguration(what) => {
                write!(f, "the device's configuration makes no sense: {what}")
            }
            ProbeError::ResetFailed => write!(f, "the device does not confirm its reset"),
        }
    }
}

impl std::error::Error for ProbeError {}

impl From<PciError> for ProbeError {
    fn from(error: PciError) -> Self {
        ProbeError::Pci(error)
    }
}
