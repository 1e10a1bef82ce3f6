//! Cutting large frames, and finishing what was left to a device.

use crate::Input;
use crate::frames::{self, Ip, Segment};
use fata_tcpip::segment::{Cutter, OffloadError, finish_checksum, leave_checksum};
use std::num::NonZeroU16;

/// Any frame, with any MSS: refused by name, or cut into frames that are right and together hold
/// what it held.
pub fn run(input: &mut Input<'_>) {
    let mss = NonZeroU16::new(input.u16()).unwrap_or(NonZeroU16::MIN);
    let is_left = input.flag();
    let frame = input.bytes(usize::MAX);
    check_offload(frame);
    let mut cutter = match Cutter::new(frame, mss) {
        Ok(cutter) => cutter,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let (segments, longest) = (cutter.segments(), cutter.frame_bytes_max());
    assert!(longest <= frame.len() && segments <= frame.len());
    let mut payload: Vec<u8> = Vec::new();
    let mut buffer = vec![0; longest];
    let mut count = 0;
    let mut headers = None;
    while let Some(cut) = cutter.write_next(frame, &mut buffer, is_left) {
        count += 1;
        assert!(count <= segments && cut.len <= longest);
        assert_eq!(cut.partial_checksum.is_some(), is_left);
        let mut cut = buffer[..cut.len].to_vec();
        if is_left {
            finish_checksum(&mut cut).expect("it was taken as TCP");
        }
        // IPv6 with extension headers is not what the other judge can read.
        let is_plain = frame[12..14] == [8, 0] || frame[20] == frames::TCP;
        if is_plain {
            frames::check(&cut, 65_535);
            let parts = frames::parts(&cut).expect("a packet");
            let header = parts.transport + usize::from(cut[parts.transport + 12] >> 4) * 4;
            payload.extend(&cut[header..]);
            headers = Some(header);
        }
    }
    assert_eq!(count, segments, "as many as were announced");
    if let (Some(headers), Some(parts)) = (headers, frames::parts(frame)) {
        assert_eq!(payload, frame[headers..parts.end], "what was held together");
    }
}

/// What is finished is right, by the other judge; what is refused is as it was.
fn check_offload(frame: &[u8]) {
    let mut finished = frame.to_vec();
    let mut left = frame.to_vec();
    let outcome = (finish_checksum(&mut finished), leave_checksum(&mut left));
    match outcome {
        (Ok(()), Ok(partial)) => {
            let at = usize::from(partial.start) + usize::from(partial.offset);
            assert!(at + 2 <= frame.len());
            finish_checksum(&mut left).expect("it was taken before");
            assert_eq!(finished, left);
            assert_eq!((&finished[..at], &finished[at + 2..]), (&frame[..at], &frame[at + 2..]));
        }
        (Err(error), Err(other)) => {
            assert_eq!((error, finished.as_slice(), left.as_slice()), (other, frame, frame));
            assert!(error != OffloadError::Flags, "that is for cutting");
        }
        outcome => panic!("{outcome:?}"),
    }
}

/// A large frame of each family.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let segment = Segment {
        source: 1024,
        destination: 80,
        flags: 0x99,
        payload: &[7; 700],
        options: &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
        ..Segment::default()
    };
    let tcp = segment.bytes();
    let v4 = Ip::new([10, 0, 0, 1], [10, 0, 0, 2], frames::TCP).packet(&tcp);
    let mut v6 = vec![0x60, 0, 0, 0];
    v6.extend((tcp.len() as u16).to_be_bytes());
    v6.extend([frames::TCP, 64]);
    v6.extend([0xfd; 32]);
    v6.extend(&tcp);
    let seed = |ethertype, packet: &[u8]| {
        let mut frame = frames::ethernet([2; 6], [4; 6], ethertype, packet);
        frames::repair(&mut frame);
        [&[200, 0, 0][..], &frame].concat()
    };
    vec![
        ("ipv4".into(), seed(frames::TYPE_IPV4, &v4)),
        ("ipv6".into(), seed(frames::TYPE_IPV6, &v6)),
    ]
}
