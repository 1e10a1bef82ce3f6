use super::*;
use crate::ring::net::GsoFamily;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use proptest::prelude::*;

const ALL: GsoFamilies = GsoFamilies { tcpv4: true, tcpv6: true };

fn request(id: u16, size: u16, flags: u16) -> [u8; TX_SLOT_BYTES] {
    TxRequest { gref: 100 + u32::from(id), offset: 0, flags, id, size }.encode()
}

fn gso(size: u16, more: bool) -> [u8; TX_SLOT_BYTES] {
    let info = ExtraInfo::Gso(Gso { family: GsoFamily::TcpV4, size });
    Extra { info, more }.encode_tx()
}

/// Feeds slots of which only the last ends a packet.
fn packet(slots: &[[u8; TX_SLOT_BYTES]]) -> Result<TransmitPacket, TransmitError> {
    let mut assembler = TransmitAssembler::new(ALL);
    let (last, before) = slots.split_last().unwrap();
    for slot in before {
        assert_eq!(assembler.feed(slot)?, None);
        assert!(assembler.is_within_packet());
    }
    let packet = *assembler.feed(last)?.expect("the packet's last slot");
    assert!(!assembler.is_within_packet());
    Ok(packet)
}

use tx_flags::{CSUM_BLANK, EXTRA_INFO, MORE_DATA};

#[test]
fn one_slot_is_a_packet() {
    let packet = packet(&[request(7, 60, CSUM_BLANK)]).unwrap();
    assert_eq!((packet.bytes(), packet.extras(), packet.fault()), (60, 0, None));
    assert_eq!(packet.requests()[0].id, 7);
    assert_eq!(packet.flags(), CSUM_BLANK);
}

#[test]
fn the_first_size_is_the_whole_packets() {
    let slots = [request(1, 5000, MORE_DATA), request(2, 4000, MORE_DATA), request(3, 900, 0)];
    let packet = packet(&slots).unwrap();
    let sizes: Vec<_> = packet.requests().iter().map(|request| request.size).collect();
    assert_eq!(sizes, [100, 4000, 900]);
    assert_eq!((packet.bytes(), packet.fault()), (5000, None));
}

#[test]
fn extras_stand_between_the_first_and_the_second() {
    let flags = MORE_DATA | EXTRA_INFO | CSUM_BLANK;
    let packet = packet(&[request(1, 8000, flags), gso(1448, false), request(2, 4000, 0)]).unwrap();
    assert_eq!(packet.gso(), Some(Gso { family: GsoFamily::TcpV4, size: 1448 }));
    assert_eq!((packet.requests().len(), packet.extras(), packet.fault()), (2, 1, None));
}

#[test]
fn packets_that_end_but_are_not_fit_have_a_fault() {
    let fault = |slots: &[_]| packet(slots).unwrap().fault();
    assert_eq!(fault(&[request(1, 13, 0)]), Some(PacketFault::Short));
    assert_eq!(fault(&[request(1, 100, MORE_DATA), request(2, 101, 0)]), Some(PacketFault::Sizes));
    assert_eq!(fault(&[request(1, 99, EXTRA_INFO), gso(9, false)]), Some(PacketFault::Gso));
    let blank = EXTRA_INFO | CSUM_BLANK;
    assert_eq!(fault(&[request(1, 99, blank), gso(9, false)]), None);
    assert_eq!(fault(&[request(1, 99, blank), gso(0, false)]), Some(PacketFault::Gso));
    let twice = [request(1, 99, blank), gso(9, true), gso(9, false)];
    assert_eq!(fault(&twice), Some(PacketFault::Gso));
    let hash = Extra { info: ExtraInfo::Hash, more: false }.encode_tx();
    assert_eq!(fault(&[request(1, 99, EXTRA_INFO), hash]), Some(PacketFault::Extra));
    let mut slots = Vec::from([request(0, 4000, MORE_DATA); 19]);
    slots[1..].fill(request(1, 10, MORE_DATA));
    slots[18] = request(18, 10, 0);
    assert_eq!(fault(&slots), Some(PacketFault::Slots));
    let mut assembler = TransmitAssembler::new(GsoFamilies::default());
    assembler.feed(&request(1, 99, blank)).unwrap();
    let refused = assembler.feed(&gso(9, false)).unwrap().unwrap();
    assert_eq!(refused.fault(), Some(PacketFault::Gso), "it was not agreed");
}

#[test]
fn what_nobody_could_go_on_after_is_an_error_by_name() {
    let mut beyond = TxRequest::decode(&request(1, 4000, 0));
    beyond.offset = 97;
    let error = packet(&[beyond.encode()]).unwrap_err();
    assert_eq!(error, TransmitError::BeyondPage { offset: 97, size: 4000 });
    assert!(error.to_string().contains("4000 bytes at 97"));
    assert!(packet(&[request(1, 5000, MORE_DATA), beyond.encode()]).is_err());
    // The first's own part, which is known only at the end.
    let slots = [request(1, 5000, MORE_DATA), request(2, 100, 0)];
    assert_eq!(packet(&slots), Err(TransmitError::BeyondPage { offset: 0, size: 4900 }));

    let endless = [request(1, 4000, MORE_DATA); 21];
    assert_eq!(packet(&endless), Err(TransmitError::Endless));
    let mut extras = Vec::from([gso(9, true); 7]);
    extras[0] = request(1, 99, EXTRA_INFO);
    assert_eq!(packet(&extras), Err(TransmitError::EndlessExtras));
    let slots = [request(1, 99, EXTRA_INFO), [9; TX_SLOT_BYTES]];
    let error = packet(&slots).unwrap_err();
    assert_eq!(error, TransmitError::ExtraType(9));
    assert!(format!("{error}").contains("unknown type 9"));
}

proptest! {
    /// Any slots: no panic, packets have an end, and one without a fault adds up.
    #[test]
    fn any_slots_are_survived(
        slots in prop::collection::vec((any::<[u8; 12]>(), 0..16u16, any::<bool>()), 1..100),
    ) {
        let mut assembler = TransmitAssembler::new(ALL);
        let mut within = 0;
        for (mut slot, flags, tame) in slots {
            if tame {
                slot[4..8].copy_from_slice(&[0, 0, flags as u8, 0]);
                slot[11] &= 3;
            }
            within += 1;
            prop_assert!(within <= DATA_SLOTS_FATAL + EXTRAS_MAX + 1);
            match assembler.feed(&slot) {
                Ok(None) => {}
                Ok(Some(packet)) => {
                    prop_assert_eq!(packet.requests().len() + packet.extras(), within);
                    within = 0;
                    if packet.fault().is_none() {
                        let sum = packet.requests().iter().map(|one| usize::from(one.size)).sum();
                        prop_assert_eq!(packet.bytes(), sum);
                        for one in packet.requests() {
                            prop_assert!(usize::from(one.offset) + usize::from(one.size) <= 4096);
                        }
                    }
                }
                Err(_) => {
                    assembler = TransmitAssembler::new(ALL);
                    within = 0;
                }
            }
        }
    }
}
