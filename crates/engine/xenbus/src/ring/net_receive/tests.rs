use super::*;
use crate::ring::net::GsoFamily;
use alloc::string::ToString;
use proptest::prelude::*;
use rx_flags::{CSUM_BLANK, EXTRA_INFO, MORE_DATA};

const ALL: GsoFamilies = GsoFamilies { tcpv4: true, tcpv6: false };

fn data(bytes: i16, flags: u16) -> [u8; RX_SLOT_BYTES] {
    RxResponse { id: 5, offset: 0, flags, status: bytes }.encode()
}

fn gso(family: GsoFamily, more: bool) -> [u8; RX_SLOT_BYTES] {
    Extra { info: ExtraInfo::Gso(Gso { family, size: 1448 }), more }.encode()
}

fn packet(slots: &[[u8; RX_SLOT_BYTES]]) -> Result<ReceivedPacket, ReceiveError> {
    let mut assembler = ReceiveAssembler::new(ALL);
    let mut last = None;
    for slot in slots {
        assert_eq!(last, None, "the packet ended before");
        last = assembler.feed(5, slot)?.1;
    }
    Ok(last.expect("the packet's last slot"))
}

#[test]
fn a_packet_of_one_slot_and_one_of_many() {
    let one = packet(&[data(60, CSUM_BLANK)]).unwrap();
    let expected = ReceivedPacket { bytes: 60, slots: 1, flags: CSUM_BLANK, gso: None, fit: true };
    assert_eq!(one, expected);

    let flags = MORE_DATA | EXTRA_INFO | CSUM_BLANK;
    let slots =
        [data(4096, flags), gso(GsoFamily::TcpV4, false), data(4096, MORE_DATA), data(8, 0)];
    let many = packet(&slots).unwrap();
    assert_eq!((many.bytes, many.slots, many.fit), (8200, 4, true));
    assert_eq!(many.gso, Some(Gso { family: GsoFamily::TcpV4, size: 1448 }));
}

#[test]
fn data_is_put_behind_what_came_before() {
    let mut assembler = ReceiveAssembler::new(ALL);
    let (first, _) = assembler.feed(5, &data(100, MORE_DATA)).unwrap();
    assert_eq!(first, ReceiveSlot::Data { offset: 0, bytes: 100, at: 0 });
    let second = RxResponse { id: 6, offset: 40, flags: 0, status: 20 }.encode();
    let (second, packet) = assembler.feed(6, &second).unwrap();
    assert_eq!(second, ReceiveSlot::Data { offset: 40, bytes: 20, at: 100 });
    assert_eq!(packet.unwrap().bytes, 120);
}

#[test]
fn packets_that_are_not_fit_are_passed_over() {
    let fit = |slots: &[_]| packet(slots).unwrap().fit;
    assert!(!fit(&[data(-1, 0)]), "the backend reports an error");
    assert!(!fit(&[data(100, MORE_DATA), data(-2, MORE_DATA), data(100, 0)]));
    assert!(!fit(&[data(100, EXTRA_INFO), gso(GsoFamily::TcpV6, false)]), "not agreed");
    let hash = Extra { info: ExtraInfo::Hash, more: false }.encode();
    assert!(!fit(&[data(100, EXTRA_INFO), hash]));
    let mut long = [data(4096, MORE_DATA); 17];
    long[16] = data(0, 0);
    assert!(!fit(&long), "65,536 bytes are one too many");
    long[0] = data(4095, MORE_DATA);
    assert!(fit(&long));
}

#[test]
fn lies_are_errors_by_name() {
    assert_eq!(
        ReceiveAssembler::new(ALL).feed(4, &data(60, 0)),
        Err(ReceiveError::Id { id: 5, requested: 4 })
    );
    let beyond = RxResponse { id: 5, offset: 1, flags: 0, status: 4096 }.encode();
    let error = packet(&[beyond]).unwrap_err();
    assert_eq!(error.to_string(), "the backend's 4096 bytes at 1 go beyond their page");
    assert_eq!(packet(&[data(0, MORE_DATA); 65]), Err(ReceiveError::Endless));
    let mut extras = [gso(GsoFamily::TcpV4, true); 7];
    extras[0] = data(60, EXTRA_INFO);
    assert_eq!(packet(&extras), Err(ReceiveError::EndlessExtras));
    let unknown = [data(60, EXTRA_INFO), [7; RX_SLOT_BYTES]];
    assert_eq!(packet(&unknown), Err(ReceiveError::ExtraType(7)));
    assert_eq!(packet(&[data(60, rx_flags::GSO_PREFIX)]), Err(ReceiveError::GsoPrefix));
}

proptest! {
    /// Any responses: no panic, packets have an end, and what is to be copied lies within the page
    /// and the packet, without a gap.
    #[test]
    fn any_responses_are_survived(
        slots in prop::collection::vec((any::<[u8; 8]>(), 0..16u8, any::<bool>()), 1..200),
    ) {
        let mut assembler = ReceiveAssembler::new(ALL);
        let (mut within, mut filled) = (0, 0);
        for (mut slot, flags, tame) in slots {
            if tame {
                slot = [5, 0, 0, 0, flags, 0, slot[6], slot[7] & 0x8f];
            }
            within += 1;
            prop_assert!(within <= DATA_SLOTS_MAX + EXTRAS_MAX + 1);
            match assembler.feed(5, &slot) {
                Ok((slot, packet)) => {
                    if let ReceiveSlot::Data { offset, bytes, at } = slot {
                        prop_assert!(offset + bytes <= 4096 && at + bytes <= PACKET_BYTES_MAX);
                        prop_assert_eq!(at, filled);
                        filled += bytes;
                    }
                    if let Some(packet) = packet {
                        prop_assert_eq!((packet.bytes, packet.slots), (filled, within));
                        (within, filled) = (0, 0);
                    }
                }
                Err(_) => {
                    assembler = ReceiveAssembler::new(ALL);
                    (within, filled) = (0, 0);
                }
            }
        }
    }
}
