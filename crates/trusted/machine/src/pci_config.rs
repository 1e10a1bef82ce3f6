//! PCI configuration space: capabilities and base addresses, as pure reading.
//!
//! What a function says about itself is an allegation: a capability list may be a loop, a BAR may
//! have no size, an MSI-X table may claim to lie outside its BAR. Every walk here is bounded, and
//! every answer is checked. PCI Local Bus 3.0, sections 6.2.5 (BARs), 6.7 (capabilities), 6.8.2
//! (MSI-X).

/// Four bytes of a function's configuration space, by aligned byte offset; all ones where nobody
/// answers.
pub trait Config {
    /// Reads four bytes at `offset`, a multiple of 4 below 256.
    fn read(&self, offset: u8) -> u32;
    /// Writes four bytes.
    fn write(&mut self, offset: u8, value: u32);
}

/// The offset of the command (low half) and status (high half) registers.
pub const COMMAND: u8 = 0x04;
/// Command bit 0: answers to I/O ports.
pub const COMMAND_IO: u32 = 1;
/// Command bit 1: answers to memory.
pub const COMMAND_MEMORY: u32 = 1 << 1;
/// Command bit 2: may use DMA, and send MSI-X messages.
pub const COMMAND_MASTER: u32 = 1 << 2;
/// Command bit 10: does not use its interrupt wire.
pub const COMMAND_NO_WIRE: u32 = 1 << 10;
/// Status bit 4 (in the upper half): there is a list of capabilities.
const STATUS_CAPABILITIES: u32 = 1 << 20;
const CAPABILITIES_POINTER: u8 = 0x34;
const FIRST_BAR: u8 = 0x10;
/// A list of 4-byte entries in 192 bytes cannot be longer without being a loop.
const CAPABILITIES_MAX: usize = 48;
/// The capability of MSI-X.
const CAPABILITY_MSIX: u8 = 0x11;

/// The offset of the first capability with this id.
pub fn capability(config: &impl Config, id: u8) -> Option<u8> {
    if config.read(COMMAND) & STATUS_CAPABILITIES == 0 {
        return None;
    }
    let mut offset = config.read(CAPABILITIES_POINTER) as u8 & !3;
    for _ in 0..CAPABILITIES_MAX {
        if offset < 0x40 {
            return None;
        }
        let header = config.read(offset);
        if header as u8 == id {
            return Some(offset);
        }
        offset = (header >> 8) as u8 & !3;
    }
    None
}

/// A memory window of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Its physical address; 0 when nobody placed it.
    pub address: u64,
    /// Its size in bytes, a power of two.
    pub bytes: u64,
}

/// What memory BAR `index` is. `None` for an I/O BAR, an absent one, or the upper half of another.
///
/// Finding the size writes all ones and the old value back; the function must not answer to memory
/// meanwhile, so that is switched off and on again.
pub fn memory_bar(config: &mut impl Config, index: u8) -> Option<Bar> {
    if index > 5 || is_upper_half(config, index) {
        return None;
    }
    let offset = FIRST_BAR + 4 * index;
    let low = config.read(offset);
    let is_64_bit = low & 0b110 == 0b100;
    if low & 1 != 0 || low & 0b110 == 0b010 || is_64_bit && index == 5 {
        return None;
    }
    let command = config.read(COMMAND) & 0xffff;
    config.write(COMMAND, command & !(COMMAND_IO | COMMAND_MEMORY));
    let low_mask = probe(config, offset, low) & !0xf;
    let (high, high_mask) = if is_64_bit {
        let high = config.read(offset + 4);
        (high, probe(config, offset + 4, high))
    } else {
        (0, u32::MAX)
    };
    config.write(COMMAND, command);
    let mask = u64::from(high_mask) << 32 | u64::from(low_mask);
    let address = u64::from(high) << 32 | u64::from(low & !0xf);
    let bytes = (!mask).wrapping_add(1);
    let sane = low_mask != 0 && bytes.is_power_of_two() || is_64_bit && bytes.is_power_of_two();
    sane.then_some(Bar { address, bytes })
}

fn probe(config: &mut impl Config, offset: u8, old: u32) -> u32 {
    config.write(offset, u32::MAX);
    let mask = config.read(offset);
    config.write(offset, old);
    mask
}

/// Whether BAR `index` is the second word of a 64-bit one.
fn is_upper_half(config: &impl Config, index: u8) -> bool {
    let mut at = 0;
    while at < index {
        let low = config.read(FIRST_BAR + 4 * at);
        at += if low & 0b111 == 0b100 { 2 } else { 1 };
    }
    at != index
}

/// Where a function's MSI-X table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msix {
    /// Offset of the capability.
    pub capability: u8,
    /// How many vectors there are: 1 to 2048.
    pub vectors: u16,
    /// The BAR that the table is in.
    pub bar: u8,
    /// Byte offset of the table in the BAR.
    pub offset: u32,
}

impl Msix {
    /// Bytes of one entry of the table.
    pub const ENTRY_BYTES: u32 = 16;
    /// Bit 31 of the capability's first word: MSI-X is on.
    pub const ENABLE: u32 = 1 << 31;
    /// Bit 30: all vectors are masked.
    pub const MASK_ALL: u32 = 1 << 30;

    /// What the function says; `None` without the capability, or when it names no BAR.
    pub fn read(config: &impl Config) -> Option<Msix> {
        let capability = capability(config, CAPABILITY_MSIX).filter(|&at| at <= 0xf4)?;
        let control = config.read(capability) >> 16;
        let table = config.read(capability + 4);
        let bar = (table & 7) as u8;
        let vectors = (control & 0x7ff) as u16 + 1;
        (bar <= 5).then_some(Msix { capability, vectors, bar, offset: table & !7 })
    }

    /// Whether the whole table lies in a BAR of `bytes`.
    pub fn fits(&self, bytes: u64) -> bool {
        let end = u64::from(self.offset) + u64::from(self.vectors) * u64::from(Self::ENTRY_BYTES);
        end <= bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A function with the given words, and masks of what a write changes in BARs.
    struct Model {
        words: [u32; 64],
        masks: [u32; 6],
    }

    impl Config for Model {
        fn read(&self, offset: u8) -> u32 {
            self.words[usize::from(offset) / 4]
        }
        fn write(&mut self, offset: u8, value: u32) {
            let word = usize::from(offset) / 4;
            match word {
                1 => self.words[1] = self.words[1] & 0xffff_0000 | value & 0xffff,
                4..10 => {
                    let mask = self.masks[word - 4];
                    self.words[word] = self.words[word] & !mask | value & mask;
                }
                _ => {}
            }
        }
    }

    /// QEMU's virtio-net-pci: BAR 1 is 4 KiB of MSI-X, BAR 4 is 16 KiB, 64 bits, above 4 GiB.
    fn virtio_net() -> Model {
        let mut model = Model { words: [0; 64], masks: [0; 6] };
        model.words[0] = 0x1041_1af4;
        model.words[1] = 0x0010_0003;
        (model.words[5], model.masks[1]) = (0xfebd_1000, 0xffff_f000);
        (model.words[8], model.masks[4]) = (0x0000_000c, 0xffff_c000);
        (model.words[9], model.masks[5]) = (0x0000_0008, 0xffff_ffff);
        model.words[0x34 / 4] = 0x98;
        model.words[0x98 / 4] = 0x0003_8411;
        model.words[0x9c / 4] = 0x0000_0801;
        model.words[0x84 / 4] = 0x0014_0009;
        model
    }

    #[test]
    fn bars_have_addresses_and_sizes_and_are_left_as_they_were() {
        let mut model = virtio_net();
        assert_eq!(memory_bar(&mut model, 1), Some(Bar { address: 0xfebd_1000, bytes: 0x1000 }));
        assert_eq!(memory_bar(&mut model, 4), Some(Bar { address: 8 << 32, bytes: 0x4000 }));
        assert_eq!(memory_bar(&mut model, 5), None, "the upper half of BAR 4");
        assert_eq!(memory_bar(&mut model, 0), None);
        assert_eq!(memory_bar(&mut model, 6), None);
        assert_eq!(model.words, virtio_net().words);
    }

    #[test]
    fn msix_is_found_in_the_list() {
        let msix = Msix::read(&virtio_net()).unwrap();
        assert_eq!(msix, Msix { capability: 0x98, vectors: 4, bar: 1, offset: 0x800 });
        assert!(msix.fits(0x1000));
        assert!(!msix.fits(0x800));
        assert_eq!(capability(&virtio_net(), 9), Some(0x84));
        assert_eq!(capability(&virtio_net(), 5), None);
    }

    #[test]
    fn a_list_that_is_a_loop_ends() {
        let mut model = virtio_net();
        model.words[0x84 / 4] = 0x0000_9809;
        assert_eq!(capability(&model, 5), None);
    }

    proptest! {
        #[test]
        fn arbitrary_spaces_never_panic(
            words in prop::collection::vec(any::<u32>(), 64),
            masks in prop::collection::vec(any::<u32>(), 6),
        ) {
            let words = words.try_into().unwrap();
            let mut model = Model { words, masks: masks.try_into().unwrap() };
            for index in 0..=6 {
                if let Some(bar) = memory_bar(&mut model, index) {
                    prop_assert!(bar.bytes.is_power_of_two());
                }
            }
            if let Some(msix) = Msix::read(&model) {
                prop_assert!(msix.vectors >= 1 && msix.bar <= 5);
            }
        }
    }
}
