//! Event channels of one domain, and what happens between two (public/event_channel.h).

use super::State;
use crate::{DomainId, HypercallError, Port};
use alloc::collections::BTreeMap;
use fata_shared::interrupt::Line;

/// What a port is connected to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nothing yet, or nothing any more: this domain may bind it.
    Unbound(DomainId),
    /// A port of another domain.
    Bound(DomainId, Port),
}

struct Channel {
    line: Line,
    end: End,
}

/// The ports of a domain. Their numbers are not used again while others are left, so that a stale
/// one is an error and not somebody else's port.
#[derive(Default)]
pub(super) struct Channels {
    channels: BTreeMap<Port, Channel>,
    last: u32,
}

impl Channels {
    /// Those of a domain that takes the number of one that was killed.
    pub(super) fn successor(&self) -> Channels {
        Channels { channels: BTreeMap::new(), last: self.last }
    }

    pub(super) fn open_unbound(&mut self, remote: DomainId) -> (Port, Line) {
        self.open(End::Unbound(remote))
    }

    fn open(&mut self, end: End) -> (Port, Line) {
        self.last += 1;
        let (port, line) = (Port(self.last), Line::new());
        self.channels.insert(port, Channel { line: line.clone(), end });
        (port, line)
    }

    pub(super) fn ports(&self) -> impl Iterator<Item = Port> {
        self.channels.keys().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.channels.len()
    }
}

impl State {
    pub(super) fn allocate_unbound(
        &mut self,
        id: DomainId,
        remote: DomainId,
    ) -> Result<(Port, Line), HypercallError> {
        Ok(self.room_for_port(id, "EVTCHNOP_alloc_unbound")?.open(End::Unbound(remote)))
    }

    pub(super) fn bind_interdomain(
        &mut self,
        id: DomainId,
        remote: DomainId,
        port: Port,
    ) -> Result<(Port, Line), HypercallError> {
        const OPERATION: &str = "EVTCHNOP_bind_interdomain";
        let theirs = self.get(remote).ok_or(HypercallError::new(OPERATION, NO_DOMAIN))?;
        let unbound = theirs.channels.channels.get(&port).map(|channel| channel.end);
        if unbound != Some(End::Unbound(id)) {
            return Err(HypercallError::new(OPERATION, HypercallError::INVALID));
        }
        let (ours, line) = self.room_for_port(id, OPERATION)?.open(End::Bound(remote, port));
        if let Some(theirs) = self.channel(remote, port) {
            theirs.end = End::Bound(id, ours);
        }
        line.fire();
        Ok((ours, line))
    }

    fn room_for_port(
        &mut self,
        id: DomainId,
        operation: &'static str,
    ) -> Result<&mut Channels, HypercallError> {
        let domain = self.get_mut(id).ok_or(HypercallError::new(operation, NO_DOMAIN))?;
        if domain.channels.len() >= domain.limits.ports {
            return Err(HypercallError::new(operation, NO_SPACE));
        }
        Ok(&mut domain.channels)
    }

    fn channel(&mut self, id: DomainId, port: Port) -> Option<&mut Channel> {
        self.domains.get_mut(&id)?.channels.channels.get_mut(&port)
    }

    /// The line to fire, once the world is unlocked: a waker may be anything.
    pub(super) fn notify(&mut self, id: DomainId, port: Port) -> Option<Line> {
        let End::Bound(remote, theirs) = self.channel(id, port)?.end else { return None };
        let line = self.channel(remote, theirs)?.line.clone();
        self.get_mut(remote)?.upcalls += 1;
        Some(line)
    }

    pub(super) fn is_connected(&mut self, id: DomainId, port: Port) -> bool {
        self.channel(id, port).is_some_and(|channel| matches!(channel.end, End::Bound(..)))
    }

    /// The other end stays, and may be bound by the same domain again.
    pub(super) fn close(&mut self, id: DomainId, port: Port) {
        let Some(domain) = self.domains.get_mut(&id) else { return };
        let Some(channel) = domain.channels.channels.remove(&port) else { return };
        if let End::Bound(remote, theirs) = channel.end
            && let Some(theirs) = self.channel(remote, theirs)
        {
            theirs.end = End::Unbound(id);
        }
    }
}

/// `ESRCH`.
pub(super) const NO_DOMAIN: i32 = 3;
/// `EBUSY`.
pub(super) const BUSY: i32 = 16;
/// `ENOSPC`.
const NO_SPACE: i32 = 28;
