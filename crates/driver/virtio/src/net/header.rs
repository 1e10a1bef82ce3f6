//! The header before each frame, `struct virtio_net_hdr` (virtio 1.2, section 5.1.6):
//! `{ flags: u8, gso_type: u8, hdr_len: u16, gso_size: u16, csum_start: u16, csum_offset: u16,
//! num_buffers: u16 }`, little-endian.

use fata_device::{Checksum, IpFamily, PartialChecksum, Segmentation, Transmit};

/// Length of the header in bytes; with `VIRTIO_F_VERSION_1` always that of the longest form.
pub(super) const HEADER_LEN: usize = 12;

const F_NEEDS_CSUM: u8 = 1;
const F_DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;

/// The families whose segmentation was agreed on, in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Families {
    pub(super) ipv4: bool,
    pub(super) ipv6: bool,
}

/// A frame of a kind that was not agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unfit;

/// What the driver uses of the header of a received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    flags: u8,
    gso_type: u8,
    /// `gso_size`: TCP payload of each segment, in bytes.
    gso_size: u16,
    /// `num_buffers`: how many receive buffers the frame spans, if they are mergeable.
    pub(super) buffers: u16,
}

impl Header {
    /// Reads the header in front of `bytes`; `None` if they are too few.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<HEADER_LEN>()?;
        Some(Header {
            flags: header[0],
            gso_type: header[1],
            gso_size: u16::from_le_bytes([header[4], header[5]]),
            buffers: u16::from_le_bytes([header[10], header[11]]),
        })
    }

    /// How the frame is to be cut, if it is: it must be of a family that was agreed on, and its
    /// checksum must be left blank (section 5.1.6.4.1).
    ///
    /// # Errors
    /// `Unfit` if it is of another kind, or has no size.
    pub(super) fn segmentation(self, agreed: Families) -> Result<Option<Segmentation>, Unfit> {
        let family = match self.gso_type {
            GSO_NONE => return Ok(None),
            GSO_TCPV4 if agreed.ipv4 => IpFamily::V4,
            GSO_TCPV6 if agreed.ipv6 => IpFamily::V6,
            _ => return Err(Unfit),
        };
        if self.gso_size == 0 || self.flags & F_NEEDS_CSUM == 0 {
            return Err(Unfit);
        }
        Ok(Some(Segmentation { family, mss: self.gso_size }))
    }

    /// What the device says of the checksum; without `VIRTIO_NET_F_GUEST_CSUM` it must say nothing
    /// (section 5.1.6.4.1), so nothing is believed.
    pub(super) fn checksum(self, negotiated: bool) -> Checksum {
        if !negotiated {
            Checksum::Unverified
        } else if self.flags & F_NEEDS_CSUM != 0 {
            Checksum::Blank
        } else if self.flags & F_DATA_VALID != 0 {
            Checksum::Verified
        } else {
            Checksum::Unverified
        }
    }
}

/// Writes the header of a frame to transmit in front of it (section 5.1.6.2).
pub(super) fn write(buffer: &mut [u8], transmit: &Transmit) {
    let (header, frame) = buffer.split_at_mut(HEADER_LEN);
    header.fill(0);
    let Some(PartialChecksum { start, offset }) = transmit.partial_checksum else { return };
    header[0] = F_NEEDS_CSUM;
    header[6..8].copy_from_slice(&start.to_le_bytes());
    header[8..10].copy_from_slice(&offset.to_le_bytes());
    if let Some(Segmentation { family, mss }) = transmit.segmentation {
        header[1] = if family == IpFamily::V4 { GSO_TCPV4 } else { GSO_TCPV6 };
        // The checksum starts where the TCP header does, and that says its length.
        let data_offset = frame.get(usize::from(start) + 12).map_or(5, |byte| byte >> 4);
        let headers = start + 4 * u16::from(data_offset);
        header[2..4].copy_from_slice(&headers.to_le_bytes());
        header[4..6].copy_from_slice(&mss.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_checksum_is_asked_for_in_the_header() {
        let mut buffer = [0xff; 14];
        let partial_checksum = Some(PartialChecksum { start: 0x22, offset: 0x0110 });
        write(&mut buffer, &Transmit { partial_checksum, ..Transmit::complete(2) });
        assert_eq!(buffer, [1, 0, 0, 0, 0, 0, 0x22, 0, 0x10, 1, 0, 0, 0xff, 0xff]);
        write(&mut buffer, &Transmit::complete(2));
        assert_eq!(buffer, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    }

    #[test]
    fn segmentation_is_asked_for_with_the_length_of_all_headers() {
        for (family, gso_type) in [(IpFamily::V4, 1), (IpFamily::V6, 4)] {
            let mut buffer = [0x80; 100];
            write(
                &mut buffer,
                &Transmit {
                    len: 88,
                    partial_checksum: Some(PartialChecksum { start: 34, offset: 16 }),
                    segmentation: Some(Segmentation { family, mss: 1448 }),
                },
            );
            let [size_low, size_high] = 1448u16.to_le_bytes();
            assert_eq!(
                buffer[..12],
                [1, gso_type, 34 + 32, 0, size_low, size_high, 34, 0, 16, 0, 0, 0]
            );
        }
    }

    #[test]
    fn what_the_device_says_of_a_frame_is_read() {
        let mut bytes = [0; HEADER_LEN];
        bytes[0] = 1;
        bytes[10..].copy_from_slice(&[3, 1]);
        let none = Families::default();
        let header = Header::read(&bytes).unwrap();
        assert_eq!(header.buffers, 0x103);
        assert_eq!(header.segmentation(none), Ok(None));
        assert_eq!(header.checksum(true), Checksum::Blank);
        assert_eq!(header.checksum(false), Checksum::Unverified);
        bytes[0] = 2;
        assert_eq!(Header::read(&bytes).unwrap().checksum(true), Checksum::Verified);
        assert_eq!(Header::read(&bytes[..11]), None);
    }

    #[test]
    fn segments_are_taken_if_they_were_agreed_on_and_make_sense() {
        let both = Families { ipv4: true, ipv6: true };
        let read = |flags: u8, gso_type: u8, size: u16, agreed| {
            let mut bytes = [0; HEADER_LEN];
            (bytes[0], bytes[1]) = (flags, gso_type);
            bytes[4..6].copy_from_slice(&size.to_le_bytes());
            Header::read(&bytes).unwrap().segmentation(agreed)
        };
        let cut = |family| Ok(Some(Segmentation { family, mss: 1448 }));
        assert_eq!(read(1, 1, 1448, both), cut(IpFamily::V4));
        assert_eq!(read(1, 4, 1448, both), cut(IpFamily::V6));
        assert_eq!(read(1, 1, 1448, Families { ipv4: false, ..both }), Err(Unfit));
        assert_eq!(read(1, 4, 1448, Families { ipv6: false, ..both }), Err(Unfit));
        assert_eq!(read(1, 1, 0, both), Err(Unfit), "segments of nothing");
        assert_eq!(read(0, 1, 1448, both), Err(Unfit), "a checksum that is none's");
        assert_eq!(read(1, 3, 1448, both), Err(Unfit), "UDP");
        assert_eq!(read(1, 0x81, 1448, both), Err(Unfit), "with ECN, which was not agreed on");
    }
}
