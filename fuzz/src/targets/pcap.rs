//! Captures.

use crate::Input;
use fata_pcap::{Direction, Note, Reader, Writer};

/// Any file: reading ends, with frames that lie in it; then the same frames written and read again.
pub fn run(input: &mut Input<'_>) {
    let bytes = input.bytes(usize::MAX);
    let mut reader = match Reader::new(bytes) {
        Ok(reader) => reader,
        Err(error) => return assert!(error.offset == 0 && !error.to_string().is_empty()),
    };
    let mut again = Vec::new();
    let mut writer = Writer::new(&mut again, "fuzz");
    let port = writer.interface(&mut again, "any");
    let mut frames = Vec::new();
    let error = loop {
        match reader.next_frame() {
            Ok(Some(frame)) => {
                assert!(frame.bytes.len() <= bytes.len());
                assert!(frame.interface < reader.interfaces().len());
                let note =
                    Note { comment: frame.comment.into(), dropped_before: frame.dropped_before };
                let direction = frame.direction.unwrap_or(Direction::Inbound);
                writer.frame(&mut again, port, frame.at_nanos, frame.bytes, direction, &note);
                frames.push(frame);
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
        assert!(frames.len() <= bytes.len() / 12, "frames without end");
        assert!(reader.interfaces().len() <= bytes.len() / 12);
    };
    if let Some(error) = error {
        assert!(error.offset <= bytes.len());
        assert_eq!(reader.next_frame().map(|_| ()), Err(error), "the first error is final");
    }
    let mut reader = Reader::new(&again).expect("what was written is a capture");
    for frame in frames {
        let read = reader.next_frame().expect("what was written can be read");
        let read = read.expect("as many as were written");
        assert_eq!((read.bytes, read.at_nanos), (frame.bytes, frame.at_nanos));
        assert_eq!(read.dropped_before, frame.dropped_before);
        assert!(frame.comment.starts_with(read.comment), "a comment may be cut");
    }
    assert_eq!(reader.next_frame(), Ok(None));
}

/// A file of our own, and one in each of the older formats.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut pcapng = Vec::new();
    let mut writer = Writer::new(&mut pcapng, "fuzz");
    let port = writer.interface(&mut pcapng, "eth0");
    let note = Note { comment: "a comment".into(), dropped_before: 3 };
    writer.frame(&mut pcapng, port, 1_000, &[7; 61], Direction::Outbound, &note);
    writer.frame(&mut pcapng, port, u64::MAX, &[], Direction::Inbound, &Note::default());
    let pcap = |word: fn(u32) -> [u8; 4]| {
        let header = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1, 1, 2, 4, 60];
        let mut bytes: Vec<u8> = header.into_iter().flat_map(word).collect();
        bytes.extend([1, 2, 3, 4]);
        bytes
    };
    vec![
        ("pcapng".into(), pcapng),
        ("pcap_little".into(), pcap(u32::to_le_bytes)),
        ("pcap_big".into(), pcap(u32::to_be_bytes)),
    ]
}
