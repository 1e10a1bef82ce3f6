//! [`Host`]: a stack without a device, as the benchmark drives it; ours and smoltcp.

use std::net::Ipv4Addr;

/// The MTU of every link here, in bytes.
pub(crate) const MTU: usize = 1500;
/// The longest frame, in bytes.
pub(crate) const FRAME_BYTES_MAX: usize = 14 + MTU;
/// Where servers listen.
pub(crate) const PORT: u16 = 80;

/// Number of a connection of a host, in the order in which they were opened.
pub(crate) type Connection = usize;

/// A stack that is given frames and the time, and asked for frames. Times are nanoseconds.
pub(crate) trait Host {
    /// What the tables call it.
    const NAME: &'static str;

    /// A host at `address`/24, for up to `connections` connections, each with `buffer_bytes` for
    /// either direction.
    fn new(address: Ipv4Addr, connections: usize, buffer_bytes: usize) -> Self;

    /// Listens on [`PORT`] for as many connections as were announced.
    fn listen(&mut self);

    /// Begins to connect to [`PORT`] of `server`.
    fn connect(&mut self, now: u64, server: Ipv4Addr) -> Connection;

    /// The next connection that a peer has opened.
    fn accept(&mut self, now: u64) -> Option<Connection>;

    /// Writes what fits: how many bytes did.
    fn write(&mut self, now: u64, connection: Connection, bytes: &[u8]) -> usize;

    /// Reads what is there: how many bytes it was.
    fn read(&mut self, now: u64, connection: Connection, buffer: &mut [u8]) -> usize;

    /// Takes a frame from the link.
    fn receive(&mut self, now: u64, frame: &[u8]);

    /// The next frame for the link, in `buffer`: its length.
    fn transmit(&mut self, now: u64, buffer: &mut [u8]) -> Option<usize>;

    /// When [`Host::handle_timeout`] has something to do, if nothing happens before.
    fn poll_timeout(&mut self, now: u64) -> Option<u64>;

    /// Does what is due.
    fn handle_timeout(&mut self, now: u64);
}
