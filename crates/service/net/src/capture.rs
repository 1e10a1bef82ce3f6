//! [`Capturing`]: an interface whose frames are written down.

use core::fmt;
use core::task::{Context, Poll};
use fata_device::{Checksum, MacAddress, Nic, NicError, Offloads, Received, Transmit};
use fata_pcap::{Direction, InterfaceId, Note, Writer};
use fata_tcpip::segment::finish_checksum;
use std::time::SystemTime;

/// Bytes of a capture that are gathered before they are handed over: as much as a batch of full
/// frames, so that a busy interface costs a write a batch.
const BLOCKS_BYTES: usize = 128 * 1024;

/// What is given the file, piece by piece.
type Sink = Box<dyn FnMut(&[u8]) + Send>;

/// An interface that is another one, with every frame that passes it written into a pcapng file.
///
/// What goes to `sink` are whole blocks, a batch of frames each time that the interface is idle or
/// flushed: a file that ends after any of them can be read. A frame whose checksum is left to a
/// device is written with the sum that it will have.
pub struct Capturing<N> {
    nic: N,
    writer: Writer,
    interface: InterfaceId,
    blocks: Vec<u8>,
    sink: Sink,
}

impl<N: fmt::Debug> fmt::Debug for Capturing<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capturing").field("nic", &self.nic).finish_non_exhaustive()
    }
}

impl<N: Nic> Capturing<N> {
    /// Wraps `nic`, which the capture calls `name`. `sink` is given the file, piece by piece, from
    /// its beginning; what it does about errors is its affair.
    pub fn new(nic: N, name: &str, sink: impl FnMut(&[u8]) + Send + 'static) -> Self {
        let mut blocks = Vec::new();
        let mut writer = Writer::new(&mut blocks, "fata");
        let interface = writer.interface(&mut blocks, name);
        let mut capturing = Capturing { nic, writer, interface, blocks, sink: Box::new(sink) };
        capturing.hand_over();
        capturing
    }

    fn hand_over(&mut self) {
        if !self.blocks.is_empty() {
            (self.sink)(&self.blocks);
            self.blocks.clear();
        }
    }
}

/// Writes a frame down, with its checksum finished if it is `blank`.
fn note(
    (writer, interface): (&mut Writer, InterfaceId),
    blocks: &mut Vec<u8>,
    frame: &[u8],
    direction: Direction,
    is_blank: bool,
) {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let at_nanos = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    let mut finished = Vec::new();
    let mut frame = frame;
    if is_blank {
        finished.extend_from_slice(frame);
        // What is neither TCP nor UDP has no such sum.
        if finish_checksum(&mut finished).is_ok() {
            frame = &finished;
        }
    }
    writer.frame(blocks, interface, at_nanos, frame, direction, &Note::default());
}

impl<N: Nic> Nic for Capturing<N> {
    fn mac(&self) -> MacAddress {
        self.nic.mac()
    }

    fn mtu(&self) -> usize {
        self.nic.mtu()
    }

    fn offloads(&self) -> Offloads {
        self.nic.offloads()
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        consume: &mut dyn FnMut(&mut [u8], Received),
    ) -> Poll<Result<(), NicError>> {
        let Capturing { nic, writer, interface, blocks, .. } = self;
        let polled = nic.poll_receive(cx, &mut |frame, received| {
            let is_blank = received.checksum == Checksum::Blank;
            note((writer, *interface), blocks, frame, Direction::Inbound, is_blank);
            consume(frame, received);
        });
        if polled.is_pending() || self.blocks.len() >= BLOCKS_BYTES {
            self.hand_over();
        }
        polled
    }

    fn poll_transmit(
        &mut self,
        cx: &mut Context<'_>,
        fill: &mut dyn FnMut(&mut [u8]) -> Option<Transmit>,
    ) -> Poll<Result<bool, NicError>> {
        let Capturing { nic, writer, interface, blocks, .. } = self;
        nic.poll_transmit(cx, &mut |buffer| {
            let transmit = fill(buffer)?;
            if let Some(frame) = buffer.get(..transmit.len) {
                let is_blank = transmit.partial_checksum.is_some();
                note((writer, *interface), blocks, frame, Direction::Outbound, is_blank);
            }
            Some(transmit)
        })
    }

    fn flush(&mut self) -> Result<(), NicError> {
        let flushed = self.nic.flush();
        self.hand_over();
        flushed
    }
}
