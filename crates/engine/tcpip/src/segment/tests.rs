use super::*;
use proptest::prelude::*;

/// The Internet checksum's sum, word by word.
fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// What is summed for a transport checksum, by RFC 9293 §3.1 and RFC 8200 §8.1.
fn summed(is_ipv4: bool, ip: &[u8], protocol: u8, segment: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if is_ipv4 {
        bytes.extend(&ip[12..20]);
        bytes.extend([0, protocol]);
        bytes.extend((segment.len() as u16).to_be_bytes());
    } else {
        bytes.extend(&ip[8..40]);
        bytes.extend((segment.len() as u32).to_be_bytes());
        bytes.extend([0, 0, 0, protocol]);
    }
    bytes.extend(segment);
    bytes
}

/// A frame with `transport` in it, after `extensions` words of options or 8-byte extensions.
fn frame(is_ipv4: bool, protocol: u8, extensions: usize, transport: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    if is_ipv4 {
        frame.extend([0x08, 0x00, 0x45 + extensions as u8, 0]);
        frame.extend((20 + 4 * extensions as u16 + transport.len() as u16).to_be_bytes());
        frame.extend([0xff, 0xfe, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend(vec![1; 4 * extensions]);
        let header = 14 + 20 + 4 * extensions;
        let sum = !sum(&frame[14..header]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    } else {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend((8 * extensions as u16 + transport.len() as u16).to_be_bytes());
        frame.extend([if extensions > 0 { 0 } else { protocol }, 64]);
        frame.extend(0x2001_0db8_0000_0000_0000_0000_0000_0001_u128.to_be_bytes());
        frame.extend(0x2001_0db8_0000_0000_0000_0000_0000_0002_u128.to_be_bytes());
        for left in (0..extensions).rev() {
            frame.extend([if left == 0 { protocol } else { 60 }, 0, 1, 4, 0, 0, 0, 0]);
        }
    }
    frame.extend(transport);
    frame
}

fn tcp(sequence: u32, flags: u8, options: usize, payload: &[u8]) -> Vec<u8> {
    let mut segment = vec![0x12, 0x34, 0, 80];
    segment.extend(sequence.to_be_bytes());
    segment.extend([0, 0, 0, 9, ((5 + options) << 4) as u8, flags, 1, 0, 0xab, 0xcd, 0, 0]);
    segment.extend(vec![1; 4 * options]);
    segment.extend(payload);
    segment
}

proptest! {
    #[test]
    fn the_segments_are_the_frame_again(
        is_ipv4: bool,
        extensions in 0usize..3,
        options in 0usize..11,
        sequence: u32,
        flags in 0u8..=255,
        payload in proptest::collection::vec(any::<u8>(), 0..9000),
        padding in 0usize..10,
        mss in 1u16..3000,
        is_left: bool,
    ) {
        // Neither SYN nor RST.
        let flags = flags & 0xf9;
        let mut whole = frame(is_ipv4, PROTOCOL_TCP, extensions, &tcp(sequence, flags, options, &payload));
        whole.extend(vec![0xee; padding]);
        let mss = NonZeroU16::new(mss).unwrap();
        let mut cutter = Cutter::new(&whole, mss).unwrap();
        let count = cutter.segments();
        prop_assert_eq!(count, payload.len().div_ceil(mss.get().into()).max(1));
        let ip_header = if is_ipv4 { 20 + 4 * extensions } else { 40 + 8 * extensions };
        let headers = 14 + ip_header + 20 + 4 * options;
        let mut buffer = vec![0xcc; cutter.frame_bytes_max()];
        let mut joined: Vec<u8> = Vec::new();
        for number in 0..count {
            let cut = cutter.write_next(&whole, &mut buffer, is_left).expect("as many as it said");
            let segment = &mut buffer[..cut.len];
            prop_assert_eq!(cut.partial_checksum.is_some(), is_left);
            if let Some(PartialChecksum { start, offset }) = cut.partial_checksum {
                // As the device does it.
                let (start, at) = (usize::from(start), usize::from(start + offset));
                let sum = !sum(&segment[start..]);
                segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
            }
            let ip = &segment[14..];
            if is_ipv4 {
                prop_assert_eq!(sum(&ip[..ip_header]), 0xffff);
                prop_assert_eq!(usize::from(read_u16(ip, 2)), ip.len());
                prop_assert_eq!(read_u16(ip, 4), 0xfffe_u16.wrapping_add(number as u16));
            } else {
                prop_assert_eq!(usize::from(read_u16(ip, 4)), ip.len() - 40);
            }
            let transport = &ip[ip_header..];
            prop_assert_eq!(sum(&summed(is_ipv4, ip, PROTOCOL_TCP, transport)), 0xffff);
            let done = number * usize::from(mss.get());
            prop_assert_eq!(crate::wire::read_u32(transport, 4), sequence.wrapping_add(done as u32));
            let is_last = number + 1 == count;
            let mut expected = flags;
            if !is_last { expected &= !0x09; }
            if number > 0 { expected &= !0x80; }
            prop_assert_eq!(transport[13], expected);
            joined.extend(&segment[headers..]);
            if !is_last {
                prop_assert_eq!(segment.len() - headers, usize::from(mss.get()));
            }
        }
        prop_assert_eq!(joined, payload);
        prop_assert!(cutter.write_next(&whole, &mut buffer, is_left).is_none());
    }

    #[test]
    fn a_finished_checksum_is_right(
        is_ipv4: bool, is_tcp: bool, extensions in 0usize..3,
        payload in proptest::collection::vec(any::<u8>(), 0..2000),
    ) {
        let (protocol, transport) = if is_tcp {
            (PROTOCOL_TCP, tcp(7, 0x10, 0, &payload))
        } else {
            let mut datagram = vec![0, 1, 0, 2];
            datagram.extend((8 + payload.len() as u16).to_be_bytes());
            datagram.extend([0xab, 0xcd]);
            datagram.extend(&payload);
            (PROTOCOL_UDP, datagram)
        };
        let start = 14 + if is_ipv4 { 20 + 4 * extensions } else { 40 + 8 * extensions };
        let mut finished = frame(is_ipv4, protocol, extensions, &transport);
        let mut left = finished.clone();
        finish_checksum(&mut finished).unwrap();
        let seen = summed(is_ipv4, &finished[14..], protocol, &finished[start..]);
        prop_assert_eq!(sum(&seen), 0xffff);
        let partial = leave_checksum(&mut left).unwrap();
        prop_assert_eq!(usize::from(partial.start), start);
        let at = start + usize::from(partial.offset);
        let mut sum = !sum(&left[start..]);
        if !is_tcp && sum == 0 { sum = 0xffff; }
        left[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        prop_assert_eq!(left, finished);
    }

    #[test]
    fn whatever_a_frame_holds_nothing_panics(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ethertype in prop_oneof![Just(0x0800_u16), Just(0x86dd), any::<u16>()],
        first in prop_oneof![Just(0x45_u8), Just(0x60), any::<u8>()],
        protocol in prop_oneof![Just(6_u8), Just(17), Just(0), Just(43), Just(44), any::<u8>()],
        mss in 1u16..,
        shorter in 0usize..200,
    ) {
        for (at, value) in [(12, (ethertype >> 8) as u8), (13, ethertype as u8), (14, first),
            (16, 0), (18, 0), (20, protocol), (23, protocol)] {
            if let Some(byte) = bytes.get_mut(at) { *byte = value; }
        }
        let before = bytes.clone();
        if finish_checksum(&mut bytes).is_err() {
            prop_assert_eq!(&bytes, &before);
            prop_assert!(leave_checksum(&mut bytes).is_err());
        }
        if let Ok(mut cutter) = Cutter::new(&before, NonZeroU16::new(mss).unwrap()) {
            let mut buffer = vec![0; cutter.frame_bytes_max()];
            let mut short = cutter;
            let _ = short.write_next(&before[..shorter.min(before.len())], &mut buffer, false);
            let mut frames = 0;
            while cutter.write_next(&before, &mut buffer, false).is_some() { frames += 1; }
            prop_assert_eq!(frames, cutter.segments());
        }
    }
}

#[test]
fn what_cannot_be_cut_is_refused_with_its_reason() {
    let mss = NonZeroU16::new(100).unwrap();
    let refused = |frame: &[u8]| Cutter::new(frame, mss).map(|_| ()).unwrap_err();
    let good = frame(true, PROTOCOL_TCP, 0, &tcp(1, 0x10, 0, &[0; 500]));
    let with = |at: usize, value: u8| {
        let mut bad = good.clone();
        bad[at] = value;
        refused(&bad)
    };
    assert_eq!(with(12, 0x81), OffloadError::NotIp);
    assert_eq!(with(16, 0xff), OffloadError::Malformed, "longer than the frame");
    assert_eq!(with(20, 0x20), OffloadError::Fragment);
    assert_eq!(with(23, 1), OffloadError::Transport);
    assert_eq!(with(46, 0x40), OffloadError::Malformed, "a TCP header of 16 bytes");
    assert_eq!(with(47, 0x12), OffloadError::Flags, "SYN");
    assert_eq!(with(47, 0x14), OffloadError::Flags, "RST");
    let datagram = frame(true, PROTOCOL_UDP, 0, &[0; 200]);
    assert_eq!(refused(&datagram), OffloadError::Transport);
    let mut fragment = frame(false, PROTOCOL_TCP, 1, &tcp(1, 0x10, 0, &[0; 500]));
    fragment[20] = 44;
    assert_eq!(refused(&fragment), OffloadError::Fragment);
    // A SYN with data for one segment is not cut, and passes.
    assert!(Cutter::new(&frame(true, PROTOCOL_TCP, 0, &tcp(1, 2, 0, &[0; 100])), mss).is_ok());
}
