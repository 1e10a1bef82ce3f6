//! [`ReceiveAssembler`]: what a frontend makes of the responses on a receive ring.
//!
//! A packet is a first response with data; then, if its flags say so, extra information, a slot
//! each; then, if its flags say so, further responses with data. Whose page a response speaks of is
//! said by its slot, for extras have no id; a response with another id than the slot's request is a
//! lie. As on the other ring, a packet that is not fit for use is passed over, and a stream of slots
//! that cannot be is an error that closes the device.

use super::net::{
    Extra, ExtraError, ExtraInfo, Gso, GsoFamilies, PACKET_BYTES_MAX, PAGE_BYTES, RX_SLOT_BYTES,
    RxResponse, rx_flags,
};
use super::net_transmit::EXTRAS_MAX;
use ::core::fmt;

/// A packet of more responses with data is endless: it is four times what the longest needs when
/// its pages are filled.
pub const DATA_SLOTS_MAX: usize = 64;

/// What the backend broke so badly that the device is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveError {
    /// The response's id is not that of the request in this slot.
    Id {
        /// What the backend wrote.
        id: u16,
        /// What stood in the request.
        requested: u16,
    },
    /// More bytes than the page holds from there on.
    BeyondPage {
        /// First byte.
        offset: u16,
        /// Bytes.
        bytes: i16,
    },
    /// A packet has more than [`DATA_SLOTS_MAX`] responses.
    Endless,
    /// A packet has more than [`EXTRAS_MAX`] extras.
    EndlessExtras,
    /// Extra information of a type that is in no header.
    ExtraType(u8),
    /// A way of segmentation that we did not ask for (`XEN_NETRXF_gso_prefix`).
    GsoPrefix,
}

impl fmt::Display for ReceiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReceiveError::Id { id, requested } => write!(
                f,
                "the backend's response has the id {id}, and the request in its slot {requested}"
            ),
            ReceiveError::BeyondPage { offset, bytes } => {
                write!(f, "the backend's {bytes} bytes at {offset} go beyond their page")
            }
            ReceiveError::Endless => {
                write!(f, "the backend's packet has more than {DATA_SLOTS_MAX} responses")
            }
            ReceiveError::EndlessExtras => {
                write!(f, "the backend's packet has more than {EXTRAS_MAX} extras")
            }
            ReceiveError::ExtraType(kind) => {
                write!(f, "the backend sent extra information of the unknown type {kind}")
            }
            ReceiveError::GsoPrefix => {
                f.write_str("the backend sent a GSO prefix, which was not asked for")
            }
        }
    }
}

impl ::core::error::Error for ReceiveError {}

/// What a slot held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveSlot {
    /// Bytes of the packet in the slot's page; they belong at `at` in the packet.
    Data {
        /// First byte in the page.
        offset: usize,
        /// How many; `offset + bytes` is within the page.
        bytes: usize,
        /// Where they belong; `at + bytes` is at most [`PACKET_BYTES_MAX`].
        at: usize,
    },
    /// Nothing to be copied.
    Nothing,
}

/// A packet of which all slots were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedPacket {
    /// Its length in bytes.
    pub bytes: usize,
    /// How many slots it took.
    pub slots: usize,
    /// The first response's [`rx_flags`].
    pub flags: u16,
    /// It is several segments.
    pub gso: Option<Gso>,
    /// False: the backend reports a failure, or the packet has what was not agreed, or more than
    /// [`PACKET_BYTES_MAX`] bytes. It is to be dropped.
    pub fit: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    First,
    Extra,
    Data,
}

/// Puts responses together to packets.
#[derive(Clone, Debug)]
pub struct ReceiveAssembler {
    families: GsoFamilies,
    expect: Expect,
    packet: ReceivedPacket,
    data_slots: usize,
    extras: usize,
}

impl ReceiveAssembler {
    /// Nothing was read yet. `families` is what the frontend asked for.
    pub const fn new(families: GsoFamilies) -> Self {
        ReceiveAssembler {
            families,
            expect: Expect::First,
            packet: ReceivedPacket { bytes: 0, slots: 0, flags: 0, gso: None, fit: true },
            data_slots: 0,
            extras: 0,
        }
    }

    /// Reads the next response, in a slot whose request had the id `requested`. Says what the slot
    /// held, and the packet if this was its last.
    ///
    /// # Errors
    /// [`ReceiveError`]. Final.
    pub fn feed(
        &mut self,
        requested: u16,
        entry: &[u8; RX_SLOT_BYTES],
    ) -> Result<(ReceiveSlot, Option<ReceivedPacket>), ReceiveError> {
        let slot = match self.expect {
            Expect::Extra => {
                self.extra(entry)?;
                ReceiveSlot::Nothing
            }
            Expect::First => {
                self.packet = ReceivedPacket {
                    bytes: 0,
                    slots: 0,
                    flags: RxResponse::decode(entry).flags,
                    gso: None,
                    fit: true,
                };
                self.data_slots = 0;
                self.extras = 0;
                self.data(requested, entry)?
            }
            Expect::Data => self.data(requested, entry)?,
        };
        self.packet.slots += 1;
        Ok((slot, (self.expect == Expect::First).then_some(self.packet)))
    }

    fn data(
        &mut self,
        requested: u16,
        entry: &[u8; RX_SLOT_BYTES],
    ) -> Result<ReceiveSlot, ReceiveError> {
        let RxResponse { id, offset, flags, status } = RxResponse::decode(entry);
        if id != requested {
            return Err(ReceiveError::Id { id, requested });
        }
        if flags & rx_flags::GSO_PREFIX != 0 {
            return Err(ReceiveError::GsoPrefix);
        }
        self.data_slots += 1;
        if self.data_slots > DATA_SLOTS_MAX {
            return Err(ReceiveError::Endless);
        }
        self.expect = if self.expect == Expect::First && flags & rx_flags::EXTRA_INFO != 0 {
            Expect::Extra
        } else if flags & rx_flags::MORE_DATA != 0 {
            Expect::Data
        } else {
            Expect::First
        };
        let Ok(bytes) = usize::try_from(status) else {
            self.packet.fit = false;
            return Ok(ReceiveSlot::Nothing);
        };
        let offset_bytes = usize::from(offset);
        if offset_bytes + bytes > PAGE_BYTES {
            return Err(ReceiveError::BeyondPage { offset, bytes: status });
        }
        let at = self.packet.bytes;
        if !self.packet.fit || at + bytes > PACKET_BYTES_MAX {
            self.packet.fit = false;
            return Ok(ReceiveSlot::Nothing);
        }
        self.packet.bytes += bytes;
        Ok(ReceiveSlot::Data { offset: offset_bytes, bytes, at })
    }

    fn extra(&mut self, entry: &[u8; RX_SLOT_BYTES]) -> Result<(), ReceiveError> {
        self.extras += 1;
        if self.extras > EXTRAS_MAX {
            return Err(ReceiveError::EndlessExtras);
        }
        let more = match Extra::decode(entry) {
            Ok(Extra { info: ExtraInfo::Gso(gso), more }) => {
                self.packet.fit &= self.families.has(gso.family) && self.packet.gso.is_none();
                self.packet.gso = Some(gso);
                more
            }
            Ok(Extra { more, .. }) | Err(ExtraError::Gso { more, .. }) => {
                self.packet.fit = false;
                more
            }
            Err(ExtraError::Type(kind)) => return Err(ReceiveError::ExtraType(kind)),
        };
        if !more {
            let goes_on = self.packet.flags & rx_flags::MORE_DATA != 0;
            self.expect = if goes_on { Expect::Data } else { Expect::First };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
