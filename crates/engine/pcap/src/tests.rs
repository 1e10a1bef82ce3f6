use super::*;
use proptest::prelude::*;

/// All frames of a capture, and the error that it ends with.
fn frames(file: &[u8]) -> (Vec<Frame<'_>>, Option<ReadError>) {
    let mut reader = match Reader::new(file) {
        Ok(reader) => reader,
        Err(error) => return (Vec::new(), Some(error)),
    };
    let mut frames = Vec::new();
    loop {
        match reader.next_frame() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, None),
            Err(error) => {
                assert_eq!(reader.next_frame(), Err(error), "an error is final");
                return (frames, Some(error));
            }
        }
    }
}

#[test]
fn the_first_blocks_are_those_of_the_specification() {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, "fata");
    writer.interface(&mut file, "a");
    #[rustfmt::skip]
    let wanted = [
        // Section header: type, length, magic, version 1.0, no length, who, end, length.
        0x0a, 0x0d, 0x0d, 0x0a, 40, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 4, 0, 4, 0, b'f', b'a', b't', b'a',
        0, 0, 0, 0, 40, 0, 0, 0,
        // Interface: type, length, Ethernet, snap length, name, resolution, end, length.
        1, 0, 0, 0, 40, 0, 0, 0, 1, 0, 0, 0, 0, 0, 4, 0,
        2, 0, 1, 0, b'a', 0, 0, 0, 9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0,
    ];
    assert_eq!(file, wanted);
}

#[test]
fn a_file_that_breaks_off_is_read_up_to_there() {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, "fata");
    let interface = writer.interface(&mut file, "a");
    writer.frame(&mut file, interface, 1, &[1; 60], Direction::Inbound, &Note::default());
    let whole = file.len();
    writer.frame(&mut file, interface, 2, &[2; 61], Direction::Outbound, &Note::default());
    for len in whole + 1..file.len() {
        let (frames, error) = frames(&file[..len]);
        assert_eq!(frames.len(), 1);
        assert_eq!(error, Some(ReadError { offset: whole, what: "a block is cut short" }));
    }
}

#[test]
fn a_frame_too_long_for_wireshark_is_cut() {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, "fata");
    let interface = writer.interface(&mut file, "a");
    let frame = vec![7; FRAME_BYTES_MAX + 3];
    writer.frame(&mut file, interface, 1, &frame, Direction::Inbound, &Note::default());
    let (frames, _) = frames(&file);
    assert_eq!(frames[0].bytes.len(), FRAME_BYTES_MAX);
    assert_eq!(frames[0].original_len as usize, FRAME_BYTES_MAX + 3);
}

/// A block of either byte order.
fn block(big: bool, kind: u32, body: &[u8]) -> Vec<u8> {
    let word = |word: u32| if big { word.to_be_bytes() } else { word.to_le_bytes() };
    let len = word(12 + body.len() as u32);
    [&word(kind), &len, body, &len].concat()
}

#[test]
fn both_byte_orders_all_units_and_simple_packets_are_read() {
    for big in [false, true] {
        let half = |half: u16| if big { half.to_be_bytes() } else { half.to_le_bytes() };
        let word = |word: u32| if big { word.to_be_bytes() } else { word.to_le_bytes() };
        let section = [&word(BYTE_ORDER_MAGIC)[..], &half(1), &half(0), &[0xff; 8]].concat();
        let mut file = block(big, SECTION_HEADER, &section);
        // Microseconds by default, and a unit of 2^-10 s with an offset of 5 s.
        file.extend(block(big, INTERFACE_DESCRIPTION, &[&half(1)[..], &[0; 6]].concat()));
        let offset = if big { 5_u64.to_be_bytes() } else { 5_u64.to_le_bytes() };
        let options = [
            &half(1)[..],
            &[0; 6],
            &half(OPTION_IF_TSRESOL),
            &half(1),
            &[0x80 | 10, 0, 0, 0],
            &half(OPTION_IF_TSOFFSET),
            &half(8),
            &offset,
        ];
        file.extend(block(big, INTERFACE_DESCRIPTION, &options.concat()));
        // A kind that nobody knows, then a packet of each interface, then a simple one.
        file.extend(block(big, 0x0bad_0000, &[1, 2, 3, 4]));
        for (interface, units) in [(0, 2_000_000), (1, 512)] {
            let packet = [interface, 0, units, 3, 70].map(word).concat();
            file.extend(block(big, ENHANCED_PACKET, &[&packet[..], &[1, 2, 3, 0]].concat()));
        }
        file.extend(block(big, SIMPLE_PACKET, &[&word(3)[..], &[4, 5, 6, 0]].concat()));
        let (frames, error) = frames(&file);
        assert_eq!(error, None);
        let seen: Vec<_> = frames.iter().map(|frame| (frame.at_nanos, frame.bytes)).collect();
        let wanted: [(u64, &[u8]); 3] =
            [(2_000_000_000, &[1, 2, 3]), (5_500_000_000, &[1, 2, 3]), (0, &[4, 5, 6])];
        assert_eq!(seen, wanted);
        assert_eq!(frames[0].original_len, 70);
    }
}

#[test]
fn classic_pcap_is_read_in_all_four_kinds() {
    for (magic, fraction) in [(0xa1b2_c3d4_u32, 250_u32), (0xa1b2_3c4d, 250_000)] {
        for big in [false, true] {
            let word = |word: u32| if big { word.to_be_bytes() } else { word.to_le_bytes() };
            let mut file = [magic, 0, 0, 0, 65_535, 1].map(word).concat();
            file.extend([3, fraction, 4, 60].map(word).concat());
            file.extend([9, 8, 7, 6]);
            let (frames, error) = frames(&file);
            assert_eq!(error, None);
            assert_eq!((frames[0].at_nanos, frames[0].bytes), (3_000_250_000, &[9, 8, 7, 6][..]));
            file.pop();
            let error = super::tests::frames(&file).1.unwrap();
            assert_eq!((error.offset, error.what), (24, "a frame is cut short"));
        }
    }
}

#[test]
fn what_is_no_capture_is_refused() {
    for (file, words) in [
        (&b""[..], "too short"),
        (b"GET / HTTP/1.1", "neither"),
        (&[0x0a, 0x0d, 0x0d, 0x0a, 28, 0, 0, 0, 1, 2, 3, 4], "magic"),
    ] {
        let error = frames(file).1.unwrap().to_string();
        assert!(error.contains(words), "{error}");
    }
}

prop_compose! {
    fn any_frame()(
        at_nanos: u64,
        interface in 0..3_usize,
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        inbound: bool,
        comment in "\\PC{0,20}",
        dropped_before in 0..5_u64,
    ) -> (u64, usize, Vec<u8>, Direction, Note) {
        let direction = if inbound { Direction::Inbound } else { Direction::Outbound };
        (at_nanos, interface, bytes, direction, Note { comment, dropped_before })
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        all in proptest::collection::vec(any_frame(), 0..20),
        before in 0..9_usize,
    ) {
        // Blocks are appended to whatever the buffer holds.
        let mut file = vec![0xee; before];
        let mut writer = Writer::new(&mut file, "fata");
        let names = ["left", "right", "äöü"];
        let interfaces = names.map(|name| writer.interface(&mut file, name));
        for (at, interface, bytes, direction, note) in &all {
            writer.frame(&mut file, interfaces[*interface], *at, bytes, *direction, note);
        }
        let file = &file[before..];
        let mut reader = Reader::new(file).unwrap();
        for (at, interface, bytes, direction, note) in &all {
            let frame = reader.next_frame().unwrap().unwrap();
            prop_assert_eq!(frame.at_nanos, *at);
            prop_assert_eq!(reader.interfaces()[frame.interface].name, names[*interface]);
            prop_assert_eq!(reader.interfaces()[frame.interface].link_type, LINK_TYPE_ETHERNET);
            prop_assert_eq!(frame.bytes, &bytes[..]);
            prop_assert_eq!(frame.original_len as usize, bytes.len());
            prop_assert_eq!(frame.direction, Some(*direction));
            prop_assert_eq!(frame.comment, &note.comment);
            prop_assert_eq!(frame.dropped_before, note.dropped_before);
        }
        prop_assert_eq!(reader.next_frame().unwrap(), None);
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..400),
        kind in 0..4_usize,
    ) {
        // Half of them look like the beginning of a file, so that reading goes on.
        let heads: [&[u8]; 4] = [
            &[],
            &[0x0a, 0x0d, 0x0d, 0x0a, 28, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 0, 0, 0, 0,
                0, 0, 0, 0, 28, 0, 0, 0],
            &0xa1b2_c3d4_u32.to_le_bytes(),
            &0xa1b2_3c4d_u32.to_be_bytes(),
        ];
        bytes.splice(0..0, heads[kind].iter().copied());
        let _ = frames(&bytes);
    }

    #[test]
    fn a_flipped_byte_never_panics_and_reading_ends(
        all in proptest::collection::vec(any_frame(), 1..5),
        position: proptest::sample::Index,
        flip in 1..=255_u8,
    ) {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file, "fata");
        let interfaces = ["a", "b", "c"].map(|name| writer.interface(&mut file, name));
        for (at, interface, bytes, direction, note) in &all {
            writer.frame(&mut file, interfaces[*interface], *at, bytes, *direction, note);
        }
        let at = position.index(file.len());
        file[at] ^= flip;
        prop_assert!(frames(&file).0.len() <= all.len());
    }
}
