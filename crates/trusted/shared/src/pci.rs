//! What a driver may ask of one PCI function.
//!
//! The machine walks the buses, places the BARs and owns the interrupt vectors; a driver gets a
//! [`Function`] and can reach nothing but that function.

use crate::interrupt::Line;
use crate::registers::Registers;
use alloc::vec::Vec;
use core::fmt;

/// Who a function says it is (PCI Local Bus 3.0, section 6.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID, configuration offset 0x00.
    pub vendor: u16,
    /// Device ID, offset 0x02.
    pub device: u16,
    /// Revision ID, offset 0x08.
    pub revision: u8,
    /// Class code, offset 0x09: base class, subclass, programming interface, in that order from the
    /// high byte of 24 bits down.
    pub class: u32,
    /// Subsystem ID, offset 0x2e.
    pub subsystem_id: u16,
}

/// Where a function sits. Shown as `00:04.0`, as everybody shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// Bus, 0 to 255.
    pub bus: u8,
    /// Device on the bus, 0 to 31.
    pub device: u8,
    /// Function of the device, 0 to 7.
    pub function: u8,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{:x}", self.bus, self.device, self.function)
    }
}

/// Why the machine could not do what a driver asked of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PciError {
    /// The function has no memory BAR of this index (0 to 5), or it is an I/O BAR.
    NoMemoryBar {
        /// Index of the BAR.
        index: u8,
    },
    /// The BAR has no address, or one that the machine cannot map.
    Unmappable {
        /// Index of the BAR.
        index: u8,
        /// Where it lies.
        address: u64,
        /// Its size in bytes.
        len: u64,
    },
    /// The function has no MSI-X capability, or one that does not make sense.
    NoMsix,
    /// The function's MSI-X table has fewer entries than were asked for.
    TooFewVectors {
        /// How many were asked for.
        wanted: u16,
        /// How many there are.
        available: u16,
    },
    /// The machine has no interrupt vectors left.
    OutOfVectors,
}

impl fmt::Display for PciError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PciError::NoMemoryBar { index } => write!(f, "BAR {index} is no memory BAR"),
            PciError::Unmappable { index, address, len } => {
                write!(f, "BAR {index} ({len:#x} bytes at {address:#x}) cannot be mapped")
            }
            PciError::NoMsix => write!(f, "the function has no usable MSI-X capability"),
            PciError::TooFewVectors { wanted, available } => {
                write!(f, "{wanted} MSI-X vectors are needed and the function has {available}")
            }
            PciError::OutOfVectors => write!(f, "the machine has no interrupt vectors left"),
        }
    }
}

impl core::error::Error for PciError {}

/// One PCI function.
///
/// Offsets are byte offsets into the function's configuration space; accesses must be aligned to
/// their width. A read past the space gives all ones, as on a bus where nobody answers.
pub trait Function: Send {
    /// Who the function says it is.
    fn identity(&self) -> Identity;

    /// Where the function sits.
    fn address(&self) -> Address;

    /// Reads one byte of configuration space.
    fn read_config_u8(&self, offset: u16) -> u8;
    /// Reads two bytes of configuration space.
    fn read_config_u16(&self, offset: u16) -> u16;
    /// Reads four bytes of configuration space.
    fn read_config_u32(&self, offset: u16) -> u32;
    /// Writes one byte of configuration space.
    fn write_config_u8(&mut self, offset: u16, value: u8);
    /// Writes two bytes of configuration space.
    fn write_config_u16(&mut self, offset: u16, value: u16);
    /// Writes four bytes of configuration space.
    fn write_config_u32(&mut self, offset: u16, value: u32);

    /// The registers behind memory BAR `index` (0 to 5), all of them.
    ///
    /// # Errors
    /// [`PciError::NoMemoryBar`] and [`PciError::Unmappable`].
    fn map_bar(&mut self, index: u8) -> Result<Registers, PciError>;

    /// Points the first `vectors` entries of the MSI-X table at lines of their own, unmasks them
    /// and switches the function to MSI-X. Entry `n` fires line `n`. To be called once.
    ///
    /// # Errors
    /// [`PciError::NoMsix`], [`PciError::TooFewVectors`] and [`PciError::OutOfVectors`]; nothing
    /// has changed then.
    fn enable_msix(&mut self, vectors: u16) -> Result<Vec<Line>, PciError>;

    /// Lets the function answer to its memory BARs and master the bus (DMA).
    fn enable(&mut self);
}
