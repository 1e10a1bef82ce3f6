//! Disks: what blkfront and blkback write for each other (io/blkif.h).
//!
//! A disk's own properties come last, with the backend's Connected: only then has it opened the disk.

use super::{BackendProtocol, FrontendProtocol, HandshakeError, Key, Keys, XenbusState};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

/// Largest `ring-page-order` that is spoken of here: 16 pages, 512 requests, four times what a
/// backend of Linux offers unless it is told otherwise.
pub const RING_PAGE_ORDER_MAX: u32 = 4;

/// VDISK_CDROM of io/blkif.h.
const VDISK_CDROM: u64 = 1;
/// VDISK_REMOVABLE of io/blkif.h.
const VDISK_REMOVABLE: u64 = 2;
/// VDISK_READONLY of io/blkif.h.
const VDISK_READONLY: u64 = 4;

/// The only layout of requests that is spoken here.
const PROTOCOL: &str = "x86_64-abi";

/// A frontend's own part.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FrontendOptions {
    /// The ring has at most `1 << ring_page_order_max` pages of 32 requests. 2 (128 requests) keeps a
    /// disk of 4 KiB requests busy; at most [`RING_PAGE_ORDER_MAX`].
    pub ring_page_order_max: u32,
    /// Use grants that stay mapped, if the backend can (`feature-persistent`).
    pub persistent: bool,
}

impl Default for FrontendOptions {
    fn default() -> Self {
        FrontendOptions { ring_page_order_max: 2, persistent: true }
    }
}

/// What a frontend is asked to make.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RingWanted {
    /// The domain to grant to.
    pub backend: u16,
    /// The ring has `1 << ring_page_order` pages, all granted for reading and writing.
    pub ring_page_order: u32,
}

/// What the frontend made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RingMade {
    /// The grants of the ring's pages, in their order.
    pub ring_refs: Vec<u32>,
    /// The event channel's port.
    pub event_channel: u32,
}

/// What a backend is asked to map and bind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RingOffered {
    /// The domain whose it is.
    pub frontend: u16,
    /// Its grants and port: a power of two of pages.
    pub ring: RingMade,
}

/// Discarding: sectors that may be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Discard {
    /// `discard-granularity`, in bytes.
    pub granularity_bytes: u32,
    /// `discard-alignment`, in bytes.
    pub alignment_bytes: u32,
    /// `discard-secure`: what is discarded can also be made unreadable.
    pub secure: bool,
}

/// The disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// Size in units of 512 bytes, whatever `sector_bytes` is: so all backends count.
    pub sectors: u64,
    /// `sector-size`: the unit of access, a power of two, 512 to 4096 bytes.
    pub sector_bytes: u32,
    /// `physical-sector-size` in bytes: what the medium writes at once.
    pub physical_sector_bytes: u32,
    /// Writes are refused.
    pub read_only: bool,
    /// It is a CD.
    pub cdrom: bool,
    /// It can be taken out.
    pub removable: bool,
}

/// What a live disk knows, at the frontend.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// The domain of the other end.
    pub backend: u16,
    /// The ring has `1 << ring_page_order` pages.
    pub ring_page_order: u32,
    /// The disk.
    pub geometry: Geometry,
    /// Both ends keep grants mapped.
    pub persistent: bool,
    /// Segments of an indirect request; 0 if there are none (`feature-max-indirect-segments`).
    pub indirect_segments_max: u32,
    /// BLKIF_OP_FLUSH_DISKCACHE is understood.
    pub flush: bool,
    /// BLKIF_OP_WRITE_BARRIER is understood.
    pub barrier: bool,
    /// BLKIF_OP_DISCARD is understood.
    pub discard: Option<Discard>,
}

/// A backend's own part.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackendOptions {
    /// The largest ring that is taken: `max-ring-page-order`, at most [`RING_PAGE_ORDER_MAX`].
    pub ring_page_order_max: u32,
    /// Offer to keep grants mapped.
    pub persistent: bool,
    /// Segments that an indirect request may have; 0 for no indirect requests.
    pub indirect_segments_max: u32,
    /// The disk.
    pub geometry: Geometry,
    /// Flushing is understood.
    pub flush: bool,
    /// Barriers are understood.
    pub barrier: bool,
    /// Discarding is understood.
    pub discard: Option<Discard>,
}

/// What a live disk knows, at the backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Served {
    /// The domain of the other end.
    pub frontend: u16,
    /// The frontend keeps its grants, so what is mapped may stay mapped.
    pub persistent: bool,
}

/// blkfront's handshake.
pub type Frontend = super::Frontend<FrontendOptions>;

/// blkback's handshake.
pub type Backend = super::Backend<BackendOptions>;

/// What a frontend has agreed on before its ring is there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Agreed {
    backend: u16,
    ring_page_order: u32,
}

fn number(name: &str, value: u64) -> (String, Option<Vec<u8>>) {
    (name.into(), Some(value.to_string().into_bytes()))
}

fn flag(name: &str, value: bool) -> (String, Option<Vec<u8>>) {
    number(name, u64::from(value))
}

/// A sector's size: `key`, or `default` if it is missing.
fn sector_bytes(keys: &Keys, name: &'static str, default: u32) -> Result<u32, HandshakeError> {
    const EXPECTED: &str = "a sector's size in bytes, a power of two, 512 to 65536";
    let bytes = keys.optional(Key::Theirs(name), 65536, u64::from(default), EXPECTED)? as u32;
    match bytes >= 512 && bytes.is_power_of_two() {
        true => Ok(bytes),
        false => Err(keys.malformed(Key::Theirs(name), EXPECTED)),
    }
}

impl FrontendProtocol for FrontendOptions {
    type Wanted = RingWanted;
    type Made = RingMade;
    type Agreed = Agreed;
    type Settings = Settings;

    const PUBLISHED: XenbusState = XenbusState::Initialised;
    const OFFER: &'static [Key] = &[Key::Theirs("max-ring-page-order")];
    const DETAILS: &'static [Key] = &[
        Key::Theirs("sectors"),
        Key::Theirs("sector-size"),
        Key::Theirs("physical-sector-size"),
        Key::Theirs("info"),
        Key::Theirs("mode"),
        Key::Theirs("feature-persistent"),
        Key::Theirs("feature-max-indirect-segments"),
        Key::Theirs("feature-flush-cache"),
        Key::Theirs("feature-barrier"),
        Key::Theirs("feature-discard"),
        Key::Theirs("discard-granularity"),
        Key::Theirs("discard-alignment"),
        Key::Theirs("discard-secure"),
    ];

    fn negotiate(
        &self,
        backend: u16,
        offer: &Keys,
    ) -> Result<(RingWanted, Agreed), HandshakeError> {
        let theirs = offer.optional(
            Key::Theirs("max-ring-page-order"),
            u64::from(u32::MAX),
            0,
            "a small number",
        )?;
        let ours = self.ring_page_order_max.min(RING_PAGE_ORDER_MAX);
        let ring_page_order = theirs.min(u64::from(ours)) as u32;
        Ok((RingWanted { backend, ring_page_order }, Agreed { backend, ring_page_order }))
    }

    fn publish(&self, agreed: &Agreed, made: &RingMade) -> Vec<(String, Option<Vec<u8>>)> {
        let mut keys = vec![
            number("event-channel", u64::from(made.event_channel)),
            ("protocol".into(), Some(PROTOCOL.into())),
            flag("feature-persistent", self.persistent),
        ];
        // A ring of one page has the names that every backend knows; the other's are taken away.
        if agreed.ring_page_order == 0 {
            keys.push(("ring-page-order".into(), None));
            keys.extend(made.ring_refs.iter().map(|r| number("ring-ref", u64::from(*r))));
        } else {
            keys.push(("ring-ref".into(), None));
            keys.push(number("ring-page-order", u64::from(agreed.ring_page_order)));
            keys.extend(
                (0..)
                    .zip(&made.ring_refs)
                    .map(|(index, r): (u32, _)| number(&format!("ring-ref{index}"), u64::from(*r))),
            );
        }
        keys
    }

    fn settle(&self, agreed: &Agreed, details: &Keys) -> Result<Settings, HandshakeError> {
        let info = details.optional(Key::Theirs("info"), u64::from(u32::MAX), 0, "VDISK_ bits")?;
        let sector_size = sector_bytes(details, "sector-size", 512)?;
        if sector_size > 4096 {
            return Err(details.malformed(
                Key::Theirs("sector-size"),
                "a sector's size in bytes that fits a page: 512, 1024, 2048 or 4096",
            ));
        }
        // 2^55 sectors are 2^64 bytes.
        let sectors = details.required(
            Key::Theirs("sectors"),
            (1 << 55) - 1,
            "the disk's size in units of 512 bytes",
        )?;
        let segments = details.optional(
            Key::Theirs("feature-max-indirect-segments"),
            u64::from(u32::MAX),
            0,
            "a number of segments",
        )?;
        let discard = match details.flag(Key::Theirs("feature-discard"))? {
            false => None,
            true => Some(Discard {
                granularity_bytes: bytes(details, "discard-granularity", sector_size)?,
                alignment_bytes: bytes(details, "discard-alignment", 0)?,
                secure: details.flag(Key::Theirs("discard-secure"))?,
            }),
        };
        let read_only = info & VDISK_READONLY != 0
            || details.raw(Key::Theirs("mode")).is_some_and(|mode| mode.starts_with(b"r"));
        Ok(Settings {
            backend: agreed.backend,
            ring_page_order: agreed.ring_page_order,
            geometry: Geometry {
                sectors,
                sector_bytes: sector_size,
                physical_sector_bytes: sector_bytes(details, "physical-sector-size", sector_size)?,
                read_only,
                cdrom: info & VDISK_CDROM != 0,
                removable: info & VDISK_REMOVABLE != 0,
            },
            persistent: self.persistent && details.flag(Key::Theirs("feature-persistent"))?,
            indirect_segments_max: segments as u32,
            flush: details.flag(Key::Theirs("feature-flush-cache"))?,
            barrier: details.flag(Key::Theirs("feature-barrier"))?,
            discard,
        })
    }
}

fn bytes(keys: &Keys, name: &'static str, default: u32) -> Result<u32, HandshakeError> {
    let max = u64::from(u32::MAX);
    let bytes = keys.optional(Key::Theirs(name), max, u64::from(default), "bytes, 32 bits")?;
    Ok(bytes as u32)
}

impl BackendProtocol for BackendOptions {
    type Offered = RingOffered;
    type Settings = Served;

    const OFFERED: &'static [XenbusState] = &[XenbusState::Initialised, XenbusState::Connected];
    const REQUEST: &'static [Key] = &[
        Key::Theirs("protocol"),
        Key::Theirs("event-channel"),
        Key::Theirs("feature-persistent"),
        Key::Theirs("ring-page-order"),
        Key::Theirs("ring-ref"),
        Key::TheirsNumbered("ring-ref", 0),
        Key::TheirsNumbered("ring-ref", 1),
        Key::TheirsNumbered("ring-ref", 2),
        Key::TheirsNumbered("ring-ref", 3),
        Key::TheirsNumbered("ring-ref", 4),
        Key::TheirsNumbered("ring-ref", 5),
        Key::TheirsNumbered("ring-ref", 6),
        Key::TheirsNumbered("ring-ref", 7),
        Key::TheirsNumbered("ring-ref", 8),
        Key::TheirsNumbered("ring-ref", 9),
        Key::TheirsNumbered("ring-ref", 10),
        Key::TheirsNumbered("ring-ref", 11),
        Key::TheirsNumbered("ring-ref", 12),
        Key::TheirsNumbered("ring-ref", 13),
        Key::TheirsNumbered("ring-ref", 14),
        Key::TheirsNumbered("ring-ref", 15),
    ];

    fn offer(&self) -> Vec<(String, Option<Vec<u8>>)> {
        let order = self.ring_page_order_max.min(RING_PAGE_ORDER_MAX);
        vec![number("max-ring-page-order", u64::from(order))]
    }

    fn accept(
        &self,
        frontend: u16,
        request: &Keys,
    ) -> Result<(RingOffered, Served), HandshakeError> {
        match request.raw(Key::Theirs("protocol")) {
            None => {}
            Some(protocol) if protocol == PROTOCOL.as_bytes() => {}
            Some(_) => return Err(request.malformed(Key::Theirs("protocol"), PROTOCOL)),
        }
        let order_max = u64::from(self.ring_page_order_max.min(RING_PAGE_ORDER_MAX));
        let ring_refs = match request.raw(Key::Theirs("ring-page-order")) {
            None => vec![request.grant(Key::Theirs("ring-ref"))?],
            Some(_) => {
                let order = request.required(
                    Key::Theirs("ring-page-order"),
                    order_max,
                    "at most what max-ring-page-order says",
                )?;
                (0..1u32 << order)
                    .map(|index| request.grant(Key::TheirsNumbered("ring-ref", index)))
                    .collect::<Result<_, _>>()?
            }
        };
        let event_channel = request.port(Key::Theirs("event-channel"))?;
        let persistent = self.persistent && request.flag(Key::Theirs("feature-persistent"))?;
        let ring = RingMade { ring_refs, event_channel };
        Ok((RingOffered { frontend, ring }, Served { frontend, persistent }))
    }

    fn details(&self) -> Vec<(String, Option<Vec<u8>>)> {
        let geometry = &self.geometry;
        let info = [
            (geometry.cdrom, VDISK_CDROM),
            (geometry.removable, VDISK_REMOVABLE),
            (geometry.read_only, VDISK_READONLY),
        ];
        let info = info.iter().filter(|(yes, _)| *yes).map(|(_, bit)| bit).sum();
        let mut keys = vec![
            number("sectors", geometry.sectors),
            number("sector-size", u64::from(geometry.sector_bytes)),
            number("physical-sector-size", u64::from(geometry.physical_sector_bytes)),
            number("info", info),
            flag("feature-persistent", self.persistent),
            number("feature-max-indirect-segments", u64::from(self.indirect_segments_max)),
            flag("feature-flush-cache", self.flush),
            flag("feature-barrier", self.barrier),
            flag("feature-discard", self.discard.is_some()),
        ];
        if let Some(discard) = &self.discard {
            keys.push(number("discard-granularity", u64::from(discard.granularity_bytes)));
            keys.push(number("discard-alignment", u64::from(discard.alignment_bytes)));
            keys.push(flag("discard-secure", discard.secure));
        }
        keys
    }
}
