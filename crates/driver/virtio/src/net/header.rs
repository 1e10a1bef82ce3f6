//! The header before each frame, `struct virtio_net_hdr` (virtio 1.2, section 5.1.6):
//! `{ flags: u8, gso_type: u8, hdr_len: u16, gso_size: u16, csum_start: u16, csum_offset: u16,
//! num_buffers: u16 }`, little-endian.

use fata_device::Checksum;
use fata_device::nic::PartialChecksum;

/// Length of the header in bytes; with `VIRTIO_F_VERSION_1` always that of the longest form.
pub(super) const HEADER_LEN: usize = 12;

const F_NEEDS_CSUM: u8 = 1;
const F_DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;

/// What the driver uses of the header of a received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    flags: u8,
    gso_type: u8,
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
            buffers: u16::from_le_bytes([header[10], header[11]]),
        })
    }

    /// False for a segment to be cut, which the driver did not ask for (section 5.1.6.4.1).
    pub(super) fn is_plain(self) -> bool {
        self.gso_type == GSO_NONE
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
pub(super) fn write(buffer: &mut [u8], partial: Option<PartialChecksum>) {
    let header = &mut buffer[..HEADER_LEN];
    header.fill(0);
    if let Some(PartialChecksum { start, offset }) = partial {
        header[0] = F_NEEDS_CSUM;
        header[6..8].copy_from_slice(&start.to_le_bytes());
        header[8..10].copy_from_slice(&offset.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_checksum_is_asked_for_in_the_header() {
        let mut buffer = [0xff; 14];
        write(&mut buffer, Some(PartialChecksum { start: 0x22, offset: 0x0110 }));
        assert_eq!(buffer, [1, 0, 0, 0, 0, 0, 0x22, 0, 0x10, 1, 0, 0, 0xff, 0xff]);
        write(&mut buffer, None);
        assert_eq!(buffer, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    }

    #[test]
    fn what_the_device_says_of_a_frame_is_read() {
        let mut bytes = [0; HEADER_LEN];
        bytes[0] = 1;
        bytes[10..].copy_from_slice(&[3, 1]);
        let header = Header::read(&bytes).unwrap();
        assert_eq!(header.buffers, 0x103);
        assert!(header.is_plain());
        assert_eq!(header.checksum(true), Checksum::Blank);
        assert_eq!(header.checksum(false), Checksum::Unverified);
        bytes[0] = 2;
        assert_eq!(Header::read(&bytes).unwrap().checksum(true), Checksum::Verified);
        bytes[1] = 1;
        assert!(!Header::read(&bytes).unwrap().is_plain());
        assert_eq!(Header::read(&bytes[..11]), None);
    }
}
