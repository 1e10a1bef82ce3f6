//! Network interfaces: what netfront and netback write for each other (io/netif.h).
//!
//! Each end says what it can *receive*. So what we may transmit is what the other end wrote, and only
//! if we can make it.

use super::{BackendProtocol, FrontendProtocol, HandshakeError, Key, Keys, XenbusState};
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

/// What one direction may carry beyond plain frames with complete checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Offloads {
    /// Frames in several slots: `feature-sg`. Without it a frame fits a page.
    pub scatter_gather: bool,
    /// TCP or UDP over IPv4 with its checksum left to be completed: no `feature-no-csum-offload`.
    pub checksum_ipv4: bool,
    /// The same over IPv6: `feature-ipv6-csum-offload`.
    pub checksum_ipv6: bool,
    /// TCP over IPv4 to be segmented: `feature-gso-tcpv4`.
    pub gso_ipv4: bool,
    /// TCP over IPv6 to be segmented: `feature-gso-tcpv6`.
    pub gso_ipv6: bool,
}

impl Offloads {
    /// All of them.
    pub const ALL: Offloads = Offloads {
        scatter_gather: true,
        checksum_ipv4: true,
        checksum_ipv6: true,
        gso_ipv4: true,
        gso_ipv6: true,
    };

    /// What both have.
    fn and(self, other: Offloads) -> Offloads {
        let scatter_gather = self.scatter_gather && other.scatter_gather;
        let checksum_ipv4 = self.checksum_ipv4 && other.checksum_ipv4;
        let checksum_ipv6 = self.checksum_ipv6 && other.checksum_ipv6;
        Offloads {
            scatter_gather,
            checksum_ipv4,
            checksum_ipv6,
            // A frame to be segmented has more bytes than a page and a checksum to be completed.
            gso_ipv4: self.gso_ipv4 && other.gso_ipv4 && scatter_gather && checksum_ipv4,
            gso_ipv6: self.gso_ipv6 && other.gso_ipv6 && scatter_gather && checksum_ipv6,
        }
    }

    /// What the other end's keys say that it can receive.
    fn read(keys: &Keys) -> Result<Offloads, HandshakeError> {
        Ok(Offloads {
            scatter_gather: keys.flag(Key::Theirs("feature-sg"))?,
            checksum_ipv4: !keys.flag(Key::Theirs("feature-no-csum-offload"))?,
            checksum_ipv6: keys.flag(Key::Theirs("feature-ipv6-csum-offload"))?,
            gso_ipv4: keys.flag(Key::Theirs("feature-gso-tcpv4"))?,
            gso_ipv6: keys.flag(Key::Theirs("feature-gso-tcpv6"))?,
        })
    }

    /// The keys that say it of ourselves.
    fn keys(self) -> impl Iterator<Item = (String, Option<Vec<u8>>)> {
        [
            ("feature-sg", self.scatter_gather),
            ("feature-no-csum-offload", !self.checksum_ipv4),
            ("feature-ipv6-csum-offload", self.checksum_ipv6),
            ("feature-gso-tcpv4", self.gso_ipv4),
            ("feature-gso-tcpv6", self.gso_ipv6),
        ]
        .into_iter()
        .map(|(name, yes)| set(name, if yes { "1" } else { "0" }))
    }
}

/// The event channels of a pair of rings, as ports of the frontend's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channels {
    /// One for both rings: `event-channel`.
    One(u32),
    /// One for each: `event-channel-tx`, `event-channel-rx` (`feature-split-event-channels`).
    Split {
        /// For the ring on which the frontend transmits.
        tx: u32,
        /// For the ring on which the frontend receives.
        rx: u32,
    },
}

/// What a frontend is asked to make: a page for each ring, both granted to the backend for reading
/// and writing, and one or two unbound event channels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RingsWanted {
    /// The domain to grant to.
    pub backend: u16,
    /// Two event channels instead of one.
    pub split_event_channels: bool,
}

/// What the frontend made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RingsMade {
    /// The grant of the ring on which the frontend transmits.
    pub tx_ring_ref: u32,
    /// The grant of the ring on which the frontend receives.
    pub rx_ring_ref: u32,
    /// The ports.
    pub channels: Channels,
}

/// What a backend is asked to map and bind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RingsOffered {
    /// The domain whose they are.
    pub frontend: u16,
    /// Its grants and ports.
    pub rings: RingsMade,
}

/// What a live interface knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// The domain of the other end.
    pub peer: u16,
    /// The frontend's address on the network.
    pub mac: [u8; 6],
    /// Bytes of a frame behind its Ethernet header, 68 (RFC 791) to 65535.
    pub mtu: u16,
    /// What we may transmit: what the other end receives and our options allow.
    pub transmit: Offloads,
    /// What the other end may transmit to us.
    pub receive: Offloads,
    /// The frontend says when it has posted more receive buffers (`feature-rx-notify`). Without it a
    /// backend must look by itself.
    pub rx_notify: bool,
}

/// A frontend's own part.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FrontendOptions {
    /// What we can transmit.
    pub transmit: Offloads,
    /// What we can receive.
    pub receive: Offloads,
    /// Take two event channels if the backend offers them.
    pub split_event_channels: bool,
}

impl Default for FrontendOptions {
    fn default() -> Self {
        FrontendOptions {
            transmit: Offloads::ALL,
            receive: Offloads::ALL,
            split_event_channels: true,
        }
    }
}

/// netfront's handshake.
pub type Frontend = super::Frontend<FrontendOptions>;

/// A backend's own part.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackendOptions {
    /// What we can transmit to the frontend.
    pub transmit: Offloads,
    /// What we can receive from the frontend.
    pub receive: Offloads,
    /// Offer two event channels.
    pub split_event_channels: bool,
    /// Told to the frontend as `mtu`; 1500 unless the network behind is another.
    pub mtu: u16,
}

impl Default for BackendOptions {
    fn default() -> Self {
        BackendOptions {
            transmit: Offloads::ALL,
            receive: Offloads::ALL,
            split_event_channels: true,
            mtu: MTU_DEFAULT,
        }
    }
}

/// netback's handshake.
pub type Backend = super::Backend<BackendOptions>;

/// What a frontend has agreed on before its rings are there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Agreed {
    settings: Settings,
}

/// Ethernet's own (RFC 894), in bytes.
const MTU_DEFAULT: u16 = 1500;

fn set(name: &str, value: &str) -> (String, Option<Vec<u8>>) {
    (name.into(), Some(value.into()))
}

fn number(name: &str, value: u32) -> (String, Option<Vec<u8>>) {
    (name.into(), Some(value.to_string().into_bytes()))
}

/// An address such as `00:16:3e:01:02:03`: that of one station.
fn mac(keys: &Keys) -> Result<[u8; 6], HandshakeError> {
    let key = Key::Ours("mac");
    let parse = |value: &[u8]| {
        let text = core::str::from_utf8(value).ok()?;
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let part = parts.next().filter(|part| {
                part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit())
            })?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        (parts.next().is_none() && mac[0] & 1 == 0 && mac != [0; 6]).then_some(mac)
    };
    keys.raw(key.clone())
        .and_then(parse)
        .ok_or_else(|| keys.malformed(key, "an address of one station, such as 00:16:3e:01:02:03"))
}

/// `mtu`, which a toolstack may write for a frontend, or a backend for it.
fn mtu(keys: &Keys, key: Key) -> Result<Option<u16>, HandshakeError> {
    const EXPECTED: &str = "an MTU in bytes, 68 to 65535";
    match keys.raw(key.clone()) {
        None => Ok(None),
        Some(_) => match keys.required(key.clone(), 65535, EXPECTED)? {
            mtu @ 68.. => Ok(Some(mtu as u16)),
            _ => Err(keys.malformed(key, EXPECTED)),
        },
    }
}

impl FrontendProtocol for FrontendOptions {
    type Wanted = RingsWanted;
    type Made = RingsMade;
    type Agreed = Agreed;
    type Settings = Settings;

    const PUBLISHED: XenbusState = XenbusState::Connected;
    const OFFER: &'static [Key] = &[
        Key::Ours("mac"),
        Key::Ours("mtu"),
        Key::Theirs("mtu"),
        Key::Theirs("feature-rx-copy"),
        Key::Theirs("feature-split-event-channels"),
        Key::Theirs("feature-sg"),
        Key::Theirs("feature-no-csum-offload"),
        Key::Theirs("feature-ipv6-csum-offload"),
        Key::Theirs("feature-gso-tcpv4"),
        Key::Theirs("feature-gso-tcpv6"),
    ];
    const DETAILS: &'static [Key] = &[];

    fn negotiate(
        &self,
        backend: u16,
        offer: &Keys,
    ) -> Result<(RingsWanted, Agreed), HandshakeError> {
        if !offer.flag(Key::Theirs("feature-rx-copy"))? {
            return Err(offer.lacks("cannot copy received frames (feature-rx-copy is not 1)"));
        }
        let split_event_channels =
            self.split_event_channels && offer.flag(Key::Theirs("feature-split-event-channels"))?;
        let told = match mtu(offer, Key::Ours("mtu"))? {
            None => mtu(offer, Key::Theirs("mtu"))?,
            own => own,
        };
        let settings = Settings {
            peer: backend,
            mac: mac(offer)?,
            mtu: told.unwrap_or(MTU_DEFAULT),
            transmit: self.transmit.and(Offloads::read(offer)?),
            receive: self.receive,
            rx_notify: true,
        };
        Ok((RingsWanted { backend, split_event_channels }, Agreed { settings }))
    }

    fn publish(&self, _: &Agreed, made: &RingsMade) -> Vec<(String, Option<Vec<u8>>)> {
        let mut keys = vec![
            number("tx-ring-ref", made.tx_ring_ref),
            number("rx-ring-ref", made.rx_ring_ref),
            set("request-rx-copy", "1"),
            set("feature-rx-notify", "1"),
        ];
        // netback looks for the split channels first, and would find those of an earlier life.
        keys.extend(match made.channels {
            Channels::One(port) => [
                number("event-channel", port),
                ("event-channel-tx".into(), None),
                ("event-channel-rx".into(), None),
            ],
            Channels::Split { tx, rx } => [
                number("event-channel-tx", tx),
                number("event-channel-rx", rx),
                ("event-channel".into(), None),
            ],
        });
        keys.extend(self.receive.keys());
        keys
    }

    fn settle(&self, agreed: &Agreed, _: &Keys) -> Result<Settings, HandshakeError> {
        Ok(agreed.settings.clone())
    }
}

impl BackendProtocol for BackendOptions {
    type Offered = RingsOffered;
    type Settings = Settings;

    const OFFERED: &'static [XenbusState] = &[XenbusState::Connected];
    const REQUEST: &'static [Key] = &[
        Key::Ours("mac"),
        Key::Theirs("tx-ring-ref"),
        Key::Theirs("rx-ring-ref"),
        Key::Theirs("event-channel"),
        Key::Theirs("event-channel-tx"),
        Key::Theirs("event-channel-rx"),
        Key::Theirs("request-rx-copy"),
        Key::Theirs("feature-rx-notify"),
        Key::Theirs("feature-sg"),
        Key::Theirs("feature-no-csum-offload"),
        Key::Theirs("feature-ipv6-csum-offload"),
        Key::Theirs("feature-gso-tcpv4"),
        Key::Theirs("feature-gso-tcpv6"),
    ];

    fn offer(&self) -> Vec<(String, Option<Vec<u8>>)> {
        let split = if self.split_event_channels { "1" } else { "0" };
        let mut keys = vec![
            set("feature-rx-copy", "1"),
            set("feature-rx-flip", "0"),
            set("feature-split-event-channels", split),
            number("mtu", u32::from(self.mtu)),
        ];
        keys.extend(self.receive.keys());
        keys
    }

    fn accept(
        &self,
        frontend: u16,
        request: &Keys,
    ) -> Result<(RingsOffered, Settings), HandshakeError> {
        if !request.flag(Key::Theirs("request-rx-copy"))? {
            return Err(request.lacks("wants pages flipped, not copied (request-rx-copy is not 1)"));
        }
        let channels = match request.raw(Key::Theirs("event-channel-tx")) {
            Some(_) if self.split_event_channels => Channels::Split {
                tx: request.port(Key::Theirs("event-channel-tx"))?,
                rx: request.port(Key::Theirs("event-channel-rx"))?,
            },
            _ => Channels::One(request.port(Key::Theirs("event-channel"))?),
        };
        let rings = RingsMade {
            tx_ring_ref: request.grant(Key::Theirs("tx-ring-ref"))?,
            rx_ring_ref: request.grant(Key::Theirs("rx-ring-ref"))?,
            channels,
        };
        let settings = Settings {
            peer: frontend,
            mac: mac(request)?,
            mtu: self.mtu,
            transmit: self.transmit.and(Offloads::read(request)?),
            receive: self.receive,
            rx_notify: request.flag(Key::Theirs("feature-rx-notify"))?,
        };
        Ok((RingsOffered { frontend, rings }, settings))
    }

    fn details(&self) -> Vec<(String, Option<Vec<u8>>)> {
        Vec::new()
    }
}
