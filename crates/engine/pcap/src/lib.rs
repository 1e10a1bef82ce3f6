//! Captures of Ethernet frames, as files that Wireshark opens.
//!
//! [`Writer`] makes the blocks of a pcapng file (draft-ietf-opsawg-pcapng) and leaves it to its
//! caller where they go and what time it is; [`Reader`] reads pcapng, and classic pcap
//! (draft-ietf-opsawg-pcap), of either byte order. Neither does any I/O, so the simulated world,
//! the wiring of a process and the tools share them.
//!
//! ```
//! use fata_pcap::{Direction, Note, Reader, Writer};
//!
//! let mut file = Vec::new();
//! let mut writer = Writer::new(&mut file, "an example");
//! let port = writer.interface(&mut file, "eth0");
//! writer.frame(&mut file, port, 1_000, &[0; 60], Direction::Outbound, &Note::default());
//!
//! let mut reader = Reader::new(&file).unwrap();
//! let frame = reader.next_frame().unwrap().unwrap();
//! assert_eq!((frame.at_nanos, frame.bytes.len()), (1_000, 60));
//! assert!(reader.next_frame().unwrap().is_none());
//! ```
#![forbid(unsafe_code)]

mod read;
mod write;

pub use read::{Frame, Interface, ReadError, Reader};
pub use write::{InterfaceId, Note, Writer};

/// Which way a frame went, seen from the interface that it was captured at (`epb_flags`, bits 0
/// and 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The interface received it.
    Inbound,
    /// The interface sent it.
    Outbound,
}

/// Bytes of a frame that a capture keeps: Wireshark refuses a file with longer ones
/// (`WTAP_MAX_PACKET_SIZE_STANDARD`). No frame of a network is that long.
pub const FRAME_BYTES_MAX: usize = 262_144;

/// Ethernet's number among link types (`LINKTYPE_ETHERNET`).
pub const LINK_TYPE_ETHERNET: u16 = 1;

/// Section Header Block: the same in both byte orders.
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
/// The number in it by which the byte order is told.
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// Interface Description Block.
const INTERFACE_DESCRIPTION: u32 = 1;
/// Simple Packet Block.
const SIMPLE_PACKET: u32 = 3;
/// Enhanced Packet Block.
const ENHANCED_PACKET: u32 = 6;

/// `opt_comment`, of every block.
const OPTION_COMMENT: u16 = 1;
/// `if_name`.
const OPTION_IF_NAME: u16 = 2;
/// `if_tsresol`: the unit of timestamps.
const OPTION_IF_TSRESOL: u16 = 9;
/// `if_tsoffset`: seconds to be added to them.
const OPTION_IF_TSOFFSET: u16 = 14;
/// `shb_userappl`: the program that wrote the file.
const OPTION_SHB_USERAPPL: u16 = 4;
/// `epb_flags`.
const OPTION_EPB_FLAGS: u16 = 2;
/// `epb_dropcount`: frames lost since the one before.
const OPTION_EPB_DROPCOUNT: u16 = 4;

#[cfg(test)]
mod tests;
