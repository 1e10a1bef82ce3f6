//! The little of ACPI that a virtual machine needs: where the interrupt controllers are, where the
//! power-management timer is, and how to switch off.
//!
//! Tables are input from outside. They are read through [`Memory`], which refuses what is not
//! readable; lengths are bounded and checksums verified before anything in a table is believed, and
//! a table that does not make sense is as good as absent. ACPI specification 6.5, sections 5.2.5
//! (RSDP), 5.2.7 and 5.2.8 (RSDT, XSDT), 5.2.9 (FADT), 5.2.12 (MADT).

/// Reads physical memory.
pub trait Memory {
    /// Fills `bytes` from `address`; false when that memory cannot be read.
    fn read(&self, address: u64, bytes: &mut [u8]) -> bool;
}

/// How many I/O APICs are kept. QEMU's microvm has two; a big server one for each root complex.
pub const IO_APICS_MAX: usize = 8;

/// The longest table that is read: a MADT of 256 processors takes 4 KiB.
const TABLE_BYTES_MAX: usize = 16 * 1024;

/// An I/O APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct IoApic {
    /// Physical address of its registers.
    pub address: u64,
    /// The global system interrupt of its first pin.
    pub gsi_base: u32,
}

/// What the tables say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Platform {
    io_apics: [IoApic; IO_APICS_MAX],
    io_apic_count: usize,
    /// I/O port of the power-management timer (3.579545 MHz).
    pub pm_timer_port: Option<u16>,
    /// I/O port of PM1a_CNT, through which the machine is switched off.
    pub pm1a_control_port: Option<u16>,
}

impl Platform {
    /// The I/O APICs, in the order of the table.
    pub fn io_apics(&self) -> &[IoApic] {
        &self.io_apics[..self.io_apic_count]
    }

    /// What the tables from the root pointer at `rsdp` on say. Whatever is absent or broken is left
    /// out.
    pub fn read(memory: &impl Memory, rsdp: u64, scratch: &mut [u8; SCRATCH_BYTES]) -> Self {
        let mut platform = Platform::default();
        let Some((root, entry_bytes)) = root_table(memory, rsdp) else { return platform };
        let (root_bytes, scratch) = scratch.split_at_mut(SCRATCH_BYTES / 2);
        let Some(root) = table(memory, root, root_bytes) else { return platform };
        for entry in root[36..].chunks_exact(entry_bytes) {
            let mut address = [0; 8];
            address[..entry_bytes].copy_from_slice(entry);
            match table(memory, u64::from_le_bytes(address), scratch) {
                Some(madt) if madt.starts_with(b"APIC") => platform.take_madt(madt),
                Some(fadt) if fadt.starts_with(b"FACP") => platform.take_fadt(fadt),
                _ => {}
            }
        }
        platform
    }

    fn take_madt(&mut self, madt: &[u8]) {
        let mut entries = madt.get(44..).unwrap_or(&[]);
        while let [kind, len, ..] = *entries {
            let Some(entry) = entries.get(..usize::from(len)).filter(|entry| entry.len() >= 2)
            else {
                return;
            };
            if let (1, Some(address), Some(gsi_base)) = (kind, u32_at(entry, 4), u32_at(entry, 8))
                && self.io_apic_count < IO_APICS_MAX
            {
                self.io_apics[self.io_apic_count] = IoApic { address: address.into(), gsi_base };
                self.io_apic_count += 1;
            }
            entries = &entries[usize::from(len)..];
        }
    }

    fn take_fadt(&mut self, fadt: &[u8]) {
        let port = |at| u32_at(fadt, at).and_then(|port| u16::try_from(port).ok());
        self.pm1a_control_port = port(64).filter(|&port| port != 0);
        self.pm_timer_port = port(76).filter(|&port| port != 0);
    }
}

/// Bytes of scratch memory for [`Platform::read`]: the root table and one other.
pub const SCRATCH_BYTES: usize = 2 * TABLE_BYTES_MAX;

/// The root table's address and the bytes of each of its entries.
fn root_table(memory: &impl Memory, rsdp: u64) -> Option<(u64, usize)> {
    let mut bytes = [0; 36];
    if rsdp == 0 || !memory.read(rsdp, &mut bytes) || !bytes.starts_with(b"RSD PTR ") {
        return None;
    }
    if sum(&bytes[..20]) != 0 {
        return None;
    }
    let xsdt = u64::from_le_bytes(bytes[24..32].try_into().ok()?);
    if bytes[15] >= 2 && sum(&bytes) == 0 && xsdt != 0 {
        return Some((xsdt, 8));
    }
    Some((u64::from(u32_at(&bytes, 16)?), 4))
}

/// A whole table, when its length is sane and its checksum right.
fn table<'a>(memory: &impl Memory, address: u64, scratch: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut header = [0; 36];
    if address == 0 || !memory.read(address, &mut header) {
        return None;
    }
    let bytes = scratch.get_mut(..u32_at(&header, 4)? as usize)?;
    let whole = bytes.len() >= header.len() && memory.read(address, bytes) && sum(bytes) == 0;
    whole.then_some(bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, &byte| sum.wrapping_add(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Bytes(Vec<u8>);

    impl Memory for Bytes {
        fn read(&self, address: u64, bytes: &mut [u8]) -> bool {
            let start = address as usize;
            match self.0.get(start..start.saturating_add(bytes.len())) {
                Some(found) => {
                    bytes.copy_from_slice(found);
                    true
                }
                None => false,
            }
        }
    }

    fn seal(table: &mut [u8], checksum_at: usize) {
        table[checksum_at] = 0;
        table[checksum_at] = 0u8.wrapping_sub(sum(table));
    }

    fn sdt(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let mut table = vec![0; 36];
        table[..4].copy_from_slice(signature);
        table.extend(body);
        let len = table.len() as u32;
        table[4..8].copy_from_slice(&len.to_le_bytes());
        seal(&mut table, 9);
        table
    }

    /// RSDP at 16, root table at 64, MADT at 512, FADT at 768.
    fn machine(revision: u8) -> Bytes {
        let mut memory = vec![0; 4096];
        let mut rsdp = [0; 36];
        rsdp[..8].copy_from_slice(b"RSD PTR ");
        rsdp[15] = revision;
        rsdp[16..20].copy_from_slice(&64u32.to_le_bytes());
        seal(&mut rsdp[..20], 8);
        if revision >= 2 {
            rsdp[24..32].copy_from_slice(&64u64.to_le_bytes());
            seal(&mut rsdp, 32);
        }
        memory[16..52].copy_from_slice(&rsdp);
        let root = if revision >= 2 {
            sdt(b"XSDT", &[512u64.to_le_bytes(), 768u64.to_le_bytes()].concat())
        } else {
            sdt(b"RSDT", &[512u32.to_le_bytes(), 768u32.to_le_bytes()].concat())
        };
        memory[64..64 + root.len()].copy_from_slice(&root);
        let mut madt = 0xfee0_0000u32.to_le_bytes().to_vec();
        madt.extend([0; 4]);
        madt.extend([0, 8, 0, 0, 1, 0, 0, 0]);
        for (address, gsi) in [(0xfec0_0000u32, 0u32), (0xfec1_0000, 24)] {
            madt.extend([1, 12, 0, 0]);
            madt.extend(address.to_le_bytes());
            madt.extend(gsi.to_le_bytes());
        }
        let madt = sdt(b"APIC", &madt);
        memory[512..512 + madt.len()].copy_from_slice(&madt);
        let mut fadt = vec![0; 80];
        fadt[64 - 36..68 - 36].copy_from_slice(&0x604u32.to_le_bytes());
        fadt[76 - 36..80 - 36].copy_from_slice(&0x608u32.to_le_bytes());
        let fadt = sdt(b"FACP", &fadt);
        memory[768..768 + fadt.len()].copy_from_slice(&fadt);
        Bytes(memory)
    }

    fn read(memory: &Bytes, rsdp: u64) -> Platform {
        Platform::read(memory, rsdp, &mut [0; SCRATCH_BYTES])
    }

    #[test]
    fn both_revisions_give_the_controllers_and_the_ports() {
        for revision in [0, 2] {
            let platform = read(&machine(revision), 16);
            let expected = [
                IoApic { address: 0xfec0_0000, gsi_base: 0 },
                IoApic { address: 0xfec1_0000, gsi_base: 24 },
            ];
            assert_eq!(platform.io_apics(), expected);
            assert_eq!(platform.pm1a_control_port, Some(0x604));
            assert_eq!(platform.pm_timer_port, Some(0x608));
        }
    }

    #[test]
    fn no_pointer_or_a_wrong_sum_means_nothing_is_known() {
        assert_eq!(read(&machine(2), 0), Platform::default());
        assert_eq!(read(&machine(2), 4090), Platform::default());
        let mut memory = machine(0);
        memory.0[20] ^= 1;
        assert_eq!(read(&memory, 16), Platform::default());
        let mut memory = machine(2);
        memory.0[520] ^= 1;
        assert_eq!(read(&memory, 16).io_apics(), []);
        assert_eq!(read(&memory, 16).pm_timer_port, Some(0x608));
    }

    #[test]
    fn entries_of_length_zero_end_the_table() {
        let mut platform = Platform::default();
        platform.take_madt(&[0; 64]);
        assert_eq!(platform.io_apics(), []);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn damaged_tables_never_panic(at in 0usize..900, value: u8, revision in 0u8..3) {
            let mut memory = machine(revision);
            memory.0[at] = value;
            let _ = read(&memory, 16);
        }

        #[test]
        fn arbitrary_tables_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut platform = Platform::default();
            platform.take_madt(&bytes);
            platform.take_fadt(&bytes);
        }
    }
}
