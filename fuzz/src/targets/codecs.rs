//! TCP/IP's formats: what is read is what would be written.

use crate::Input;
use fata_tcpip::fuzzing::CODECS;

/// The first byte chooses the codec, the rest is for it.
pub fn run(input: &mut Input<'_>) {
    let codec = &CODECS[input.below(CODECS.len())];
    (codec.check)(input.bytes(usize::MAX));
}

/// What each codec writes.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let seed = |(number, codec): (usize, &fata_tcpip::fuzzing::Codec)| {
        (codec.name.to_owned(), [vec![number as u8], (codec.seed)()].concat())
    };
    CODECS.iter().enumerate().map(seed).collect()
}
