//! The network rings' entries, and what both assemblers make of any sequence of them.

use crate::Input;
use fata_xenbus::ring::net::{
    DATA_SLOTS_MAX, Extra, GsoFamilies, PACKET_BYTES_MAX, PAGE_BYTES, RxRequest, RxResponse,
    TxRequest, TxResponse,
};
use fata_xenbus::ring::net_receive::{self, ReceiveAssembler, ReceiveSlot};
use fata_xenbus::ring::net_transmit::{DATA_SLOTS_FATAL, EXTRAS_MAX, TransmitAssembler};

fn families(input: &mut Input<'_>) -> GsoFamilies {
    GsoFamilies { tcpv4: input.flag(), tcpv6: input.flag() }
}

fn entry<const N: usize>(input: &mut Input<'_>) -> [u8; N] {
    let mut entry = [0; N];
    let bytes = input.bytes(N);
    entry[..bytes.len()].copy_from_slice(bytes);
    entry
}

/// What a frontend may write on its transmit ring: packets end, and one without a fault adds up.
pub fn transmit(input: &mut Input<'_>) {
    let families = families(input);
    let mut assembler = TransmitAssembler::new(families);
    let mut slots = 0;
    while !input.is_empty() {
        let mut slot: [u8; 12] = entry(input);
        assert_eq!(TxRequest::decode(&slot).encode(), slot);
        let [a, b, c, d, ..] = slot;
        assert_eq!(TxResponse::decode(&[a, b, c, d]).encode(), [a, b, c, d]);
        // Half of them with sizes and places that can be.
        if slot[7] & 0x80 != 0 {
            slot[5] &= 0x07;
            slot[11] &= 0x0f;
        }
        slots += 1;
        match assembler.feed(&slot) {
            // The slot after the longest packet's last is the one that is refused.
            Ok(None) => {
                assert!(assembler.is_within_packet());
                assert!(slots <= DATA_SLOTS_FATAL + EXTRAS_MAX, "a packet without end");
            }
            Ok(Some(packet)) => {
                assert_eq!(packet.requests().len() + packet.extras(), slots, "a slot is lost");
                slots = 0;
                if packet.fault().is_some() {
                    continue;
                }
                let bytes = packet.requests().iter().map(|part| usize::from(part.size)).sum();
                assert_eq!(packet.bytes(), bytes);
                assert!(packet.requests().len() <= DATA_SLOTS_MAX && bytes <= PACKET_BYTES_MAX);
                for part in packet.requests() {
                    assert!(usize::from(part.offset) + usize::from(part.size) <= PAGE_BYTES);
                }
                if let Some(gso) = packet.gso() {
                    assert!(families.has(gso.family) && gso.size > 0);
                }
            }
            Err(_) => {
                assembler = TransmitAssembler::new(families);
                slots = 0;
            }
        }
    }
}

/// What a backend may write on the receive ring: packets end, their parts lie one behind the other,
/// and are as long as the whole.
pub fn receive(input: &mut Input<'_>) {
    let families = families(input);
    let mut assembler = ReceiveAssembler::new(families);
    let (mut slots, mut bytes) = (0, 0);
    while !input.is_empty() {
        let mut slot: [u8; 8] = entry(input);
        assert_eq!(RxResponse::decode(&slot).encode(), slot);
        let request = RxRequest::decode(&slot);
        assert_eq!(RxRequest::decode(&request.encode()), request);
        if let Ok(extra) = Extra::decode(&slot) {
            assert_eq!(Extra::decode(&extra.encode()), Ok(extra));
        }
        if slot[5] & 0x80 != 0 {
            (slot[1], slot[3]) = (0, slot[3] & 0x07);
            slot[7] &= 0x87;
        }
        // Whose request it was: mostly that of the response.
        let requested = match input.below(16) {
            15 => input.u16(),
            _ => RxResponse::decode(&slot).id,
        };
        slots += 1;
        match assembler.feed(requested, &slot) {
            Ok((held, packet)) => {
                assert!(slots <= net_receive::DATA_SLOTS_MAX + EXTRAS_MAX, "a packet without end");
                if let ReceiveSlot::Data { offset, bytes: part, at } = held {
                    assert!(offset + part <= PAGE_BYTES && at == bytes);
                    bytes += part;
                    assert!(bytes <= PACKET_BYTES_MAX);
                }
                if let Some(packet) = packet {
                    assert_eq!(packet.slots, slots, "a slot is lost");
                    assert!(!packet.fit || packet.bytes == bytes);
                    let may = packet.gso.is_none_or(|gso| families.has(gso.family));
                    assert!(!packet.fit || may);
                    (slots, bytes) = (0, 0);
                }
            }
            Err(_) => {
                assembler = ReceiveAssembler::new(families);
                (slots, bytes) = (0, 0);
            }
        }
    }
}
