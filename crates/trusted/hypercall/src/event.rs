//! Event channels: how domains ring each other's bell (public/event_channel.h).

use crate::half::Half;
use crate::hypervisor::Common;
use crate::{DomainId, Port};
use alloc::sync::Arc;
use core::fmt;
use fata_shared::interrupt::Line;

/// Our end of an event channel. Dropping it closes the port, and with that the other end is alone.
///
/// An event carries nothing, and events are not counted: several that come before anybody looks are
/// one. One that comes before the first look is not lost.
pub struct EventChannel {
    common: Arc<Common>,
    remote: DomainId,
    port: Port,
    line: Line,
    /// The tools made the port with the domain, and nobody could make it again.
    is_lasting: bool,
}

impl EventChannel {
    pub(crate) fn new(common: &Arc<Common>, remote: DomainId, (port, line): (Port, Line)) -> Self {
        EventChannel { common: common.clone(), remote, port, line, is_lasting: false }
    }

    /// A port that is not closed on drop.
    pub(crate) fn lasting(common: &Arc<Common>, port: Port, line: Line) -> Self {
        let common = common.clone();
        EventChannel { common, remote: DomainId(0), port, line, is_lasting: true }
    }

    /// Our port's number: what the other end needs to bind to it.
    pub fn port(&self) -> Port {
        self.port
    }

    /// The domain that has, or may bind, the other end.
    pub fn remote(&self) -> DomainId {
        self.remote
    }

    /// Notifies the other end. One hypercall. What was stored to shared memory before is seen there
    /// when the event is. Without another end nothing happens.
    pub fn notify(&self) {
        self.common.count(|counts| &counts.notifications, 1);
        self.common.half.notify(self.port);
    }

    /// The line that an event from the other end fires.
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// Whether there is another end now: somebody bound it and has not closed it. One hypercall;
    /// not for the data path.
    pub fn is_connected(&self) -> bool {
        self.common.half.is_connected(self.port)
    }
}

impl Drop for EventChannel {
    fn drop(&mut self) {
        if !self.is_lasting {
            self.common.half.close(self.port);
        }
    }
}

impl fmt::Debug for EventChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventChannel(port {}, with {})", self.port, self.remote)
    }
}
