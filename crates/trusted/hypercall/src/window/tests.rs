use super::*;
use proptest::prelude::*;

#[repr(align(4096))]
#[expect(dead_code, reason = "seen through windows alone")]
struct Page([u8; PAGE_BYTES]);

/// Two pages that follow each other, and the same two the other way round.
fn memories(pages: &mut [Page; 2]) -> (Memory, Memory) {
    let base = NonNull::from(&mut *pages).cast::<u8>();
    // SAFETY: the test's pages outlive both values and are not looked at meanwhile.
    unsafe {
        let second = base.add(PAGE_BYTES);
        (Memory::contiguous(base, 2 * PAGE_BYTES), Memory::scattered(vec![second, base], true))
    }
}

fn pages() -> Box<[Page; 2]> {
    Box::new([Page([0; PAGE_BYTES]), Page([0; PAGE_BYTES])])
}

#[test]
fn accesses_are_little_endian_and_of_their_width() {
    let mut pages = pages();
    let (memory, turned) = memories(&mut pages);
    memory.store_u32(4, 0x0403_0201);
    assert_eq!(memory.load_u8(4), 1);
    assert_eq!(memory.load_u16(6), 0x0403);
    assert_eq!(memory.load_u64(0), 0x0403_0201_0000_0000);
    assert_eq!(turned.load_u32(PAGE_BYTES + 4), 0x0403_0201);
}

#[test]
#[should_panic(expected = "outside a window of 8192 bytes")]
fn an_offset_outside_the_window_panics() {
    memories(&mut pages()).0.load_u32(2 * PAGE_BYTES - 2);
}

#[test]
#[should_panic(expected = "outside a window")]
fn an_offset_that_wraps_panics() {
    memories(&mut pages()).0.copy_in(usize::MAX, &[1, 2]);
}

#[test]
#[should_panic(expected = "not aligned")]
fn a_crooked_offset_panics() {
    memories(&mut pages()).0.load_u32(2);
}

proptest! {
    #[test]
    fn copies_move_exactly_their_bytes(
        offset in 0usize..2 * PAGE_BYTES, len in 0usize..3000, skew in 0usize..16, turn: bool,
    ) {
        let len = len.min(2 * PAGE_BYTES - offset);
        let mut pages = pages();
        let (straight, turned) = memories(&mut pages);
        let memory = if turn { &turned } else { &straight };
        let bytes: Vec<u8> = (0..len + skew).map(|n| (n * 7 + 1) as u8).collect();
        memory.copy_in(offset, &bytes[skew..]);
        let mut back = vec![0xee; len + 2 * skew];
        memory.copy_out(offset, &mut back[skew..skew + len]);
        prop_assert_eq!(&back[skew..skew + len], &bytes[skew..]);
        prop_assert!(back[..skew].iter().chain(&back[skew + len..]).all(|byte| *byte == 0xee));
        for at in (0..2 * PAGE_BYTES).filter(|at| !(offset..offset + len).contains(at)) {
            prop_assert_eq!(memory.load_u8(at), 0);
        }
    }
}
