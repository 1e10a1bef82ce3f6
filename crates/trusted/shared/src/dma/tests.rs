use super::*;
use crate::simulation;

#[test]
fn a_region_is_zeroed_aligned_and_seen_by_the_device() {
    let region = DmaRegion::new(5000);
    assert_eq!(region.len(), 8192);
    let address = region.address(0).to_bits();
    assert_eq!(address % PAGE_BYTES as u64, 0);
    region.store_u32(4, 0x0403_0201);
    assert_eq!(region.load_u16(6), 0x0403);
    let mut seen = [9; 8];
    simulation::read(address, &mut seen).unwrap();
    assert_eq!(seen, [0, 0, 0, 0, 1, 2, 3, 4]);
    simulation::write(region.address(8190).to_bits(), &[7, 8]).unwrap();
    assert_eq!(region.load_u8(8191), 8);
    let mut copy = [0; 2];
    region.copy_out(8190, &mut copy);
    assert_eq!(copy, [7, 8]);
    region.reclaim();
    assert!(simulation::read(address, &mut seen).is_err());
}

#[test]
#[should_panic(expected = "outside a region of 4096 bytes")]
fn an_access_past_a_region_is_a_bug_of_the_driver() {
    DmaRegion::new(1).load_u32(4094);
}

#[test]
#[should_panic(expected = "outside a region of 4096 bytes")]
fn an_offset_that_wraps_around_is_caught() {
    DmaRegion::new(1).copy_in(usize::MAX, &[1, 2]);
}

#[test]
fn a_buffer_changes_hands() {
    let mut buffer = DmaBuffer::from_part((0..10).collect(), 2..6).unwrap();
    buffer[3] = 50;
    let address = {
        let lent = buffer.lend();
        let address = lent.address().to_bits();
        assert_eq!(lent.address_at(3).unwrap().to_bits(), address + 3);
        assert!(lent.address_at(4).is_none());
        let mut seen = [0; 4];
        simulation::read(address, &mut seen).unwrap();
        assert_eq!(seen, [2, 3, 4, 50]);
        assert!(simulation::write(address, &[0; 5]).is_err(), "past the end");
        assert!(simulation::write(address - 1, &[0; 2]).is_err(), "before the start");
        simulation::write(address, &[99]).unwrap();
        buffer = lent.take_back();
        address
    };
    assert!(simulation::write(address, &[1]).is_err(), "not the device's any more");
    assert_eq!(&buffer[..], [99, 3, 4, 50]);
    let (storage, part) = buffer.into_parts();
    assert_eq!((storage.len(), part), (10, 2..6));
}

#[test]
fn a_part_that_is_not_there_is_refused() {
    assert!(DmaBuffer::from_part(alloc::vec![0; 4], 2..5).is_none());
    assert!(DmaBuffer::from_part(alloc::vec![0; 4], 4..4).unwrap().is_empty());
}

#[test]
fn what_a_device_may_still_write_is_quarantined() {
    // Other tests quarantine too, so only lower bounds are certain.
    let before = quarantined_bytes();
    let lent = DmaBuffer::zeroed(100).lend();
    let address = lent.address().to_bits();
    drop(lent);
    simulation::write(address, &[1; 100]).unwrap();

    let region = DmaRegion::new(1);
    let shared = region.address(0).to_bits();
    drop(region);
    simulation::write(shared, &[1; 100]).unwrap();
    assert!(quarantined_bytes() >= before + 100 + PAGE_BYTES);
}
