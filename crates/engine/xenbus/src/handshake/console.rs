//! Consoles beyond the first, which have a handshake (io/console.h). The first console has none: its
//! page and port are in the start-of-day parameters.

use super::{FrontendProtocol, HandshakeError, Key, Keys, XenbusState};
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

/// The console's handshake.
pub type Frontend = super::Frontend<Protocol>;

/// A console has no options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Protocol;

/// What is to be made: a page for `struct xencons_interface`, granted for reading and writing, and an
/// unbound event channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RingWanted {
    /// The domain to grant to.
    pub backend: u16,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RingMade {
    /// The grant of the page.
    pub ring_ref: u32,
    /// The event channel's port.
    pub port: u32,
}

/// What a live console knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// The domain of the other end.
    pub backend: u16,
}

impl FrontendProtocol for Protocol {
    type Wanted = RingWanted;
    type Made = RingMade;
    type Agreed = u16;
    type Settings = Settings;

    const PUBLISHED: XenbusState = XenbusState::Initialised;
    const OFFER: &'static [Key] = &[];
    const DETAILS: &'static [Key] = &[];

    fn negotiate(&self, backend: u16, _: &Keys) -> Result<(RingWanted, u16), HandshakeError> {
        Ok((RingWanted { backend }, backend))
    }

    fn publish(&self, _: &u16, made: &RingMade) -> Vec<(String, Option<Vec<u8>>)> {
        vec![
            ("ring-ref".into(), Some(made.ring_ref.to_string().into_bytes())),
            ("port".into(), Some(made.port.to_string().into_bytes())),
        ]
    }

    fn settle(&self, backend: &u16, _: &Keys) -> Result<Settings, HandshakeError> {
        Ok(Settings { backend: *backend })
    }
}
