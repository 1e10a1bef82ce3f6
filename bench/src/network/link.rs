//! Two hosts back to back: whatever one sends, the other has at once.

use std::net::Ipv4Addr;

use crate::host::{Connection, FRAME_BYTES_MAX, Host};

/// Where the client is.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// Where the server is.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// Frames that go one way before the other end may answer: what an interface takes in one go.
const BATCH_FRAMES: usize = 64;

/// A client and a server, and how many frames went between them.
pub(crate) struct Link<H> {
    pub(crate) client: H,
    pub(crate) server: H,
    /// Nanoseconds.
    pub(crate) now: u64,
    pub(crate) frames: u64,
    batch: Batch,
}

// Never inlined, so that valgrind can be told to count only one of them.

/// Lets `host` send a batch into `frames`.
#[inline(never)]
fn host_sends<H: Host>(host: &mut H, now: u64, frames: &mut Batch) {
    frames.fill(host, now);
}

#[inline(never)]
fn host_receives<H: Host>(host: &mut H, now: u64, frames: &Batch) {
    frames.each(|frame| host.receive(now, frame));
}

/// Frames on their way.
struct Batch {
    bytes: Vec<u8>,
    lengths: Vec<usize>,
}

impl Batch {
    fn new() -> Self {
        Batch { bytes: vec![0; BATCH_FRAMES * FRAME_BYTES_MAX], lengths: Vec::new() }
    }

    fn fill<H: Host>(&mut self, host: &mut H, now: u64) {
        self.lengths.clear();
        for slot in self.bytes.chunks_exact_mut(FRAME_BYTES_MAX) {
            match host.transmit(now, slot) {
                Some(len) => self.lengths.push(len),
                None => return,
            }
        }
    }

    fn each(&self, mut take: impl FnMut(&[u8])) {
        for (slot, len) in self.bytes.chunks_exact(FRAME_BYTES_MAX).zip(&self.lengths) {
            take(&slot[..*len]);
        }
    }
}

impl<H: Host> Link<H> {
    /// Hosts for so many connections with so many bytes of buffer in each direction; the server
    /// listens.
    pub(crate) fn new(connections: usize, buffer_bytes: usize) -> Self {
        let client = H::new(CLIENT, connections, buffer_bytes);
        let mut server = H::new(SERVER, connections, buffer_bytes);
        server.listen();
        Link { client, server, now: 1_000_000, frames: 0, batch: Batch::new() }
    }

    /// Carries frames until neither host has one.
    pub(crate) fn settle(&mut self) {
        let batch = &mut self.batch;
        loop {
            host_sends(&mut self.client, self.now, batch);
            let mut sent = batch.lengths.len();
            host_receives(&mut self.server, self.now, batch);
            host_sends(&mut self.server, self.now, batch);
            sent += batch.lengths.len();
            host_receives(&mut self.client, self.now, batch);
            self.frames += sent as u64;
            if sent == 0 {
                return;
            }
        }
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, nanos: u64) {
        self.now += nanos;
        for host in [&mut self.client, &mut self.server] {
            if host.poll_timeout(self.now).is_some_and(|deadline| deadline <= self.now) {
                host.handle_timeout(self.now);
            }
        }
        self.settle();
    }

    /// Opens so many connections: both ends of each, the client's first.
    pub(crate) fn open(&mut self, connections: usize) -> Vec<(Connection, Connection)> {
        let mut pairs = Vec::new();
        while pairs.len() < connections {
            let client = self.client.connect(self.now, SERVER);
            let server = loop {
                self.settle();
                match self.server.accept(self.now) {
                    Some(server) => break server,
                    None => self.pass(1_000_000),
                }
            };
            pairs.push((client, server));
        }
        // Past the delayed acknowledgments of the beginning.
        (0..300).for_each(|_| self.pass(1_000_000));
        pairs
    }

    /// Sends `total` bytes from the client to the server, as fast as both can.
    pub(crate) fn bulk(&mut self, (client, server): (Connection, Connection), total: u64) {
        let chunk = vec![0x5a; 64 * 1024];
        let mut buffer = vec![0; 64 * 1024];
        let (mut written, mut read) = (0, 0);
        while read < total {
            let before = (written, read);
            let wanted = chunk.len().min((total - written) as usize);
            written += self.client.write(self.now, client, &chunk[..wanted]) as u64;
            self.settle();
            loop {
                match self.server.read(self.now, server, &mut buffer) {
                    0 => break,
                    len => read += len as u64,
                }
            }
            // A frame of 1,500 bytes takes so long at 10 Gbit/s; if nothing moved, time has to pass.
            let step = if before == (written, read) { 1_000_000 } else { 50_000 };
            self.now += step;
            for host in [&mut self.client, &mut self.server] {
                if host.poll_timeout(self.now).is_some_and(|deadline| deadline <= self.now) {
                    host.handle_timeout(self.now);
                }
            }
        }
        self.settle();
    }

    /// So many requests of one small segment, each answered by one, on the connection.
    pub(crate) fn requests(&mut self, (client, server): (Connection, Connection), count: u64) {
        let mut buffer = [0; 512];
        let message = [0x17; 100];
        for _ in 0..count {
            assert_eq!(self.client.write(self.now, client, &message), message.len());
            self.settle();
            assert_eq!(self.server.read(self.now, server, &mut buffer), message.len());
            assert_eq!(self.server.write(self.now, server, &message), message.len());
            self.settle();
            assert_eq!(self.client.read(self.now, client, &mut buffer), message.len());
            self.now += 10_000;
        }
    }
}
