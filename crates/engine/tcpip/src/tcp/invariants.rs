//! What always holds between two calls; the tests and the fuzz targets ask after every step.

use super::Tcp;
use super::demux::Target;
use super::timers::NEVER;
use crate::config::Limits;

impl Tcp {
    /// Asserts what must always hold of the tables together.
    pub(crate) fn check(&self, limits: &Limits) {
        let mut attached = 0;
        let mut timers = 0;
        let mut held = 0;
        for (index, connection) in self.connections.iter() {
            connection.check(&self.shared.settings, self.ready.contains(index));
            held += connection.held_bytes();
            let found = self.find(&connection.tuple).1 == Some(Target::Connection(index));
            assert_eq!(found, connection.is_attached, "demultiplexer and connection disagree");
            attached += usize::from(found);
            timers += usize::from(connection.deadline() != NEVER);
        }
        assert_eq!(self.timers.len(), timers, "timers and connections disagree");
        assert_eq!(self.demux.len(), attached + self.half_opens.len() + self.time_waits.len());
        assert_eq!(self.half_opens.timers.len(), self.half_opens.len());
        assert_eq!(self.shared.memory.bytes(), held, "the count of bytes is wrong");
        // (c) Everything stays under its caps.
        assert!(held <= limits.tcp_total_bytes);
        assert!(self.connections.len() <= limits.tcp_connections);
        assert!(self.half_opens.len() <= limits.tcp_half_open);
        assert!(self.time_waits.len() <= limits.tcp_time_wait);
    }
}
