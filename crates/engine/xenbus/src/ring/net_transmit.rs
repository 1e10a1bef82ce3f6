//! [`TransmitAssembler`]: what a backend makes of the slots of a transmit ring.
//!
//! A packet is a first request, whose size is the whole packet's; then, if its flags say so, extra
//! information, a slot each; then, if its flags say so, further requests, each with its own size.
//! Every slot is answered: who loses count is out of step for ever. So two kinds of wrong are told
//! apart. After a [`PacketFault`] it is still clear where the packet ends: it is answered with an
//! error, and the ring goes on. After a [`TransmitError`] it is not, or the frontend is so far off
//! that nothing else of it is of use: the ring is closed.

use super::net::{
    DATA_SLOTS_MAX, Extra, ExtraError, ExtraInfo, Gso, GsoFamilies, PAGE_BYTES, TX_SLOT_BYTES,
    TxRequest, tx_flags,
};
use ::core::fmt;

/// A packet of more data slots than this ends the ring. Linux's netback draws the line here too
/// (`fatal_skb_slots`): frontends were seen that needed 19, for 64 KiB that do not begin at a page.
pub const DATA_SLOTS_FATAL: usize = 20;
/// More extras than there are types of them (`XEN_NETIF_EXTRA_TYPE_MAX` less one) are endless.
pub const EXTRAS_MAX: usize = 5;
/// An Ethernet header: a packet has at least that.
const PACKET_BYTES_MIN: usize = 14;

/// What the frontend broke so badly that its ring is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransmitError {
    /// A request goes beyond the end of its page.
    BeyondPage {
        /// Its first byte.
        offset: u16,
        /// Its length.
        size: u16,
    },
    /// A packet has more than [`DATA_SLOTS_FATAL`] requests.
    Endless,
    /// A packet has more than [`EXTRAS_MAX`] extras.
    EndlessExtras,
    /// Extra information of a type that is in no header.
    ExtraType(u8),
}

impl fmt::Display for TransmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransmitError::BeyondPage { offset, size } => write!(
                f,
                "the frontend's request for {size} bytes at {offset} goes beyond its page"
            ),
            TransmitError::Endless => {
                write!(f, "the frontend's packet has more than {DATA_SLOTS_FATAL} requests")
            }
            TransmitError::EndlessExtras => {
                write!(f, "the frontend's packet has more than {EXTRAS_MAX} extras")
            }
            TransmitError::ExtraType(kind) => {
                write!(f, "the frontend sent extra information of the unknown type {kind}")
            }
        }
    }
}

impl ::core::error::Error for TransmitError {}

/// Why a packet is to be answered with an error and not to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketFault {
    /// It has more requests than [`DATA_SLOTS_MAX`], which is what the protocol promises to take.
    Slots,
    /// Its parts are longer than the whole.
    Sizes,
    /// It is shorter than an Ethernet header.
    Short,
    /// It is to be cut in a way that was not agreed, or twice, or its checksum is not blank.
    Gso,
    /// Extra information that was not agreed.
    Extra,
}

/// A packet on the transmit ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransmitPacket {
    requests: [TxRequest; DATA_SLOTS_FATAL],
    count: usize,
    extras: usize,
    bytes: usize,
    gso: Option<Gso>,
    fault: Option<PacketFault>,
}

impl TransmitPacket {
    const EMPTY: TransmitPacket = TransmitPacket {
        requests: [TxRequest { gref: 0, offset: 0, flags: 0, id: 0, size: 0 }; DATA_SLOTS_FATAL],
        count: 0,
        extras: 0,
        bytes: 0,
        gso: None,
        fault: None,
    };

    /// Its requests in order; the first's size is its own part, and no longer the whole packet's.
    /// Together they have [`bytes`](Self::bytes) bytes, unless there is a [`fault`](Self::fault).
    pub fn requests(&self) -> &[TxRequest] {
        &self.requests[..self.count]
    }

    /// How many slots held extra information: they follow the first request's, and are answered
    /// with `XEN_NETIF_RSP_NULL`.
    pub fn extras(&self) -> usize {
        self.extras
    }

    /// Length of the whole in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How it is to be cut. Only together with a blank checksum.
    pub fn gso(&self) -> Option<Gso> {
        self.gso
    }

    /// The first request's [`tx_flags`].
    pub fn flags(&self) -> u16 {
        self.requests[0].flags
    }

    /// Why it must not be taken.
    pub fn fault(&self) -> Option<PacketFault> {
        self.fault
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    First,
    Extra,
    Data,
}

/// Puts slots together to packets.
#[derive(Clone, Debug)]
pub struct TransmitAssembler {
    families: GsoFamilies,
    expect: Expect,
    packet: TransmitPacket,
}

impl TransmitAssembler {
    /// Nothing was read yet. `families` is what was agreed with the frontend.
    pub const fn new(families: GsoFamilies) -> Self {
        TransmitAssembler { families, expect: Expect::First, packet: TransmitPacket::EMPTY }
    }

    /// True between a packet's first slot and its last.
    pub fn is_within_packet(&self) -> bool {
        self.expect != Expect::First
    }

    /// Reads the next slot. `Some` with its last: the packet.
    ///
    /// # Errors
    /// [`TransmitError`]. Final.
    pub fn feed(
        &mut self,
        entry: &[u8; TX_SLOT_BYTES],
    ) -> Result<Option<&TransmitPacket>, TransmitError> {
        match self.expect {
            Expect::First => self.first(TxRequest::decode(entry))?,
            Expect::Extra => {
                let (extra, _) = entry.split_first_chunk().unwrap_or((&[0; 8], &[]));
                self.extra(extra)?;
            }
            Expect::Data => self.data(TxRequest::decode(entry))?,
        }
        if self.expect != Expect::First {
            return Ok(None);
        }
        self.finish();
        Ok(Some(&self.packet))
    }

    fn fault(&mut self, fault: PacketFault) {
        self.packet.fault.get_or_insert(fault);
    }

    fn first(&mut self, request: TxRequest) -> Result<(), TransmitError> {
        self.packet.count = 1;
        self.packet.extras = 0;
        self.packet.gso = None;
        self.packet.fault = None;
        self.packet.bytes = usize::from(request.size);
        self.packet.requests[0] = request;
        self.expect = if request.flags & tx_flags::EXTRA_INFO != 0 {
            Expect::Extra
        } else {
            self.after_extras()?
        };
        Ok(())
    }

    /// What comes after the extras, or without any.
    fn after_extras(&self) -> Result<Expect, TransmitError> {
        if self.packet.flags() & tx_flags::MORE_DATA != 0 {
            return Ok(Expect::Data);
        }
        in_page(&self.packet.requests[0])?;
        Ok(Expect::First)
    }

    fn extra(&mut self, entry: &[u8; 8]) -> Result<(), TransmitError> {
        self.packet.extras += 1;
        if self.packet.extras > EXTRAS_MAX {
            return Err(TransmitError::EndlessExtras);
        }
        let more = match Extra::decode(entry) {
            Ok(Extra { info: ExtraInfo::Gso(gso), more }) => {
                if !self.families.has(gso.family) || self.packet.gso.is_some() {
                    self.fault(PacketFault::Gso);
                }
                self.packet.gso = Some(gso);
                more
            }
            // Multicast control, hashes and headroom are agreed with keys that we do not write.
            Ok(Extra { more, .. }) => {
                self.fault(PacketFault::Extra);
                more
            }
            Err(ExtraError::Gso { more, .. }) => {
                self.fault(PacketFault::Gso);
                more
            }
            Err(ExtraError::Type(kind)) => return Err(TransmitError::ExtraType(kind)),
        };
        if !more {
            self.expect = self.after_extras()?;
        }
        Ok(())
    }

    fn data(&mut self, request: TxRequest) -> Result<(), TransmitError> {
        if self.packet.count == DATA_SLOTS_FATAL {
            return Err(TransmitError::Endless);
        }
        in_page(&request)?;
        self.packet.requests[self.packet.count] = request;
        self.packet.count += 1;
        // The first's size was the whole packet's; what the others have is not its own.
        match self.packet.requests[0].size.checked_sub(request.size) {
            Some(rest) => self.packet.requests[0].size = rest,
            None => self.fault(PacketFault::Sizes),
        }
        if self.packet.count > DATA_SLOTS_MAX {
            self.fault(PacketFault::Slots);
        }
        if request.flags & tx_flags::MORE_DATA == 0 {
            self.expect = Expect::First;
            if self.packet.fault.is_none() {
                in_page(&self.packet.requests[0])?;
            }
        }
        Ok(())
    }

    fn finish(&mut self) {
        if self.packet.bytes < PACKET_BYTES_MIN {
            self.fault(PacketFault::Short);
        }
        if self.packet.gso.is_some() && self.packet.flags() & tx_flags::CSUM_BLANK == 0 {
            self.fault(PacketFault::Gso);
        }
    }
}

fn in_page(request: &TxRequest) -> Result<(), TransmitError> {
    let TxRequest { offset, size, .. } = *request;
    if usize::from(offset) + usize::from(size) > PAGE_BYTES {
        return Err(TransmitError::BeyondPage { offset, size });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
