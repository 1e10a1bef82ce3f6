//! Images made by hand, damaged in every way.

use super::*;
use proptest::prelude::*;

/// A manifest as `#[derive(fata::Devices)]` writes it.
const MANIFEST: &str = r#"{"fata":1,"package":"web","version":"0.1.0","target":"virtio",
"about":"Serves.","devices":[{"name":"service","kind":"stack","help":"The network."}],
"arguments":[{"name":"port","type":"u16","default":"443","help":"Port."}]}"#;

/// A note record: sizes, type, name and description, each padded to four bytes.
fn note(owner: &str, kind: u32, desc: &[u8]) -> Vec<u8> {
    let name = [owner.as_bytes(), b"\0"].concat();
    let mut bytes = Vec::new();
    for word in [name.len() as u32, desc.len() as u32, kind] {
        bytes.extend(word.to_le_bytes());
    }
    for part in [name.as_slice(), desc] {
        bytes.extend(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// A small ELF with a segment of code at 1 MiB, one segment per note, and debris behind.
pub(crate) fn elf(notes: &[Vec<u8>], code_flags: u32) -> Vec<u8> {
    let count = 1 + notes.len();
    let body = 64 + 56 * count;
    let mut file = vec![0; body];
    file[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    let put16 = |file: &mut Vec<u8>, at: usize, value: u16| {
        file[at..at + 2].copy_from_slice(&value.to_le_bytes());
    };
    put16(&mut file, 16, 2); // ET_EXEC
    put16(&mut file, 18, 62); // EM_X86_64
    file[20..24].copy_from_slice(&1u32.to_le_bytes());
    file[24..32].copy_from_slice(&0x10_0000u64.to_le_bytes());
    file[32..40].copy_from_slice(&64u64.to_le_bytes()); // e_phoff
    put16(&mut file, 52, 64);
    put16(&mut file, 54, 56);
    put16(&mut file, 56, count as u16);
    put16(&mut file, 58, 64);
    let header =
        |file: &mut Vec<u8>, index: usize, kind: u32, flags: u32, bytes: &[u8], extra: u64| {
            let offset = file.len() as u64;
            let fields = [
                offset,
                0x10_0000 + offset,
                0x10_0000 + offset,
                bytes.len() as u64,
                bytes.len() as u64 + extra,
                4,
            ];
            let at = 64 + 56 * index;
            file[at..at + 4].copy_from_slice(&kind.to_le_bytes());
            file[at + 4..at + 8].copy_from_slice(&flags.to_le_bytes());
            for (n, field) in fields.iter().enumerate() {
                file[at + 8 + 8 * n..at + 16 + 8 * n].copy_from_slice(&field.to_le_bytes());
            }
            file.extend(bytes);
        };
    header(&mut file, 0, 1, code_flags, b"\xf4\xeb\xfd\x90", 4096);
    for (index, note) in notes.iter().enumerate() {
        header(&mut file, index + 1, 4, 4, note, 0);
    }
    file
}

fn notes(manifest: &str) -> Vec<Vec<u8>> {
    vec![
        note("Xen", 18, &0x10_0000u32.to_le_bytes()),
        note("GNU", 3, &[0xab; 20]),
        note("Fata", 1, manifest.as_bytes()),
    ]
}

/// The bytes of an image for virtio.
fn bytes() -> Vec<u8> {
    elf(&notes(MANIFEST), 5)
}

/// An image for virtio.
pub(crate) fn virtio_image() -> Image {
    Image::parse(Path::new("/images/web.virtio"), bytes()).unwrap()
}

fn problem(bytes: Vec<u8>) -> Problem {
    Image::parse(Path::new("x"), bytes).unwrap_err()
}

#[test]
fn an_image_says_what_it_is() {
    let image = virtio_image();
    assert_eq!(image.manifest.package, "web");
    assert_eq!(image.build_id.as_deref(), Some("ab".repeat(20).as_str()));
    assert_eq!(image.pvh_entry, Some(0x10_0000));
    assert_eq!(image.segments.len(), 1);
    assert_eq!(image.loaded_bytes(), 4100);
}

#[test]
fn files_of_others_are_told_apart_from_damaged_ones() {
    assert!(problem(Vec::new()).what.contains("empty"));
    assert!(problem(b"#!/bin/sh\n".to_vec()).what.contains("not even an ELF"));
    let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let foreign = problem(own);
    assert!(foreign.foreign && foreign.what.contains("no Fata manifest"), "{foreign:?}");
    let mut other = bytes();
    other[18] = 183; // EM_AARCH64
    assert!(problem(other).what.contains("another processor"));
    let mut object = bytes();
    object[16] = 1; // ET_REL
    assert!(problem(object).what.contains("object file"));
}

#[test]
fn damage_is_named() {
    let cases: [(&str, Vec<Vec<u8>>); 5] = [
        ("does not parse", notes("{")),
        ("format 9", notes(r#"{"fata":9}"#)),
        ("no PVH entry", notes(MANIFEST)[1..].to_vec()),
        ("two notes Fata/1", [notes(MANIFEST), notes(MANIFEST)[2..].to_vec()].concat()),
        ("PVH note", [vec![note("Xen", 18, &[1, 2])], notes(MANIFEST)[1..].to_vec()].concat()),
    ];
    for (named, notes) in cases {
        let problem = problem(elf(&notes, 5));
        assert!(!problem.foreign && problem.what.contains(named), "{named}: {problem:?}");
    }
    let mut wrapping = bytes();
    wrapping[64 + 8..64 + 16].fill(0xff); // the first segment's offset
    assert!(problem(wrapping).what.contains("wraps"), "offset");
    let mut shrunk = bytes();
    shrunk[64 + 40..64 + 48].fill(0); // its size in memory
    assert!(problem(shrunk).what.contains("impossible sizes"));
}

#[test]
fn every_truncation_is_an_error_that_says_so() {
    let whole = bytes();
    for length in 1..whole.len() {
        let problem = problem(whole[..length].to_vec());
        if length >= 4 {
            assert!(problem.what.contains("truncated"), "{length}: {problem:?}");
        }
    }
}

#[test]
fn sealing_drops_what_is_not_loaded_and_changes_nothing_else() {
    let mut unstripped = bytes();
    unstripped.extend(b"symbols and debug information");
    let shoff = unstripped.len() as u64;
    unstripped[40..48].copy_from_slice(&shoff.to_le_bytes());
    unstripped[60] = 0; // no sections, but an offset
    let sealed = seal::seal(&unstripped).unwrap();
    let (contents, _seal) = sealed.split_at(sealed.len() - 16);
    assert_eq!(contents, bytes_without_section_sizes());
    assert_eq!(seal::seal(&sealed).unwrap(), sealed, "sealing twice is sealing once");
    assert_eq!(Image::parse(Path::new("x"), sealed).unwrap().manifest.package, "web");
}

fn bytes_without_section_sizes() -> Vec<u8> {
    let mut bytes = bytes();
    bytes[58..64].fill(0);
    bytes
}

#[test]
fn code_that_can_be_written_is_not_sealed() {
    let problem = seal::seal(&elf(&notes(MANIFEST), 7)).unwrap_err();
    assert!(problem.what.contains("writable and executable"), "{problem:?}");
}

#[test]
fn only_files_are_read() {
    assert!(Image::open(Path::new("/tmp")).unwrap_err().what.contains("not a file"));
    assert_eq!(Image::open(Path::new("/nonexistent")).unwrap_err().exit, Exit::Io);
    let huge = tempfile::NamedTempFile::new().unwrap();
    huge.as_file().set_len(FILE_BYTES_MAX + 1).unwrap();
    assert!(Image::open(huge.path()).unwrap_err().what.contains("too large"));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = Image::parse(Path::new("x"), bytes.clone());
        if bytes.len() > 20 {
            bytes[..20].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0");
            let _ = Image::parse(Path::new("x"), bytes.clone());
            let _ = seal::seal(&bytes);
        }
    }

    #[test]
    fn damaged_images_never_panic(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)
    ) {
        let mut bytes = bytes();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = seal::seal(&bytes);
        if let Ok(image) = Image::parse(Path::new("x"), bytes) {
            // What was accepted can be described.
            let ui = crate::ui::Ui::new(crate::ui::Color::Never, true, 0);
            let _ = crate::describe::text(ui, &image);
        }
    }
}
