//! [`SimulatedNic`]: a network card on a port of the world.

use super::network::PortId;
use super::offload::{self, ReceiveChecksum};
use super::world::Shared;
use core::task::{Context, Poll};
use fata_device::{MacAddress, Nic, NicError, Offloads, Received, Transmit};
use std::sync::Arc;

/// Frames that a card takes before they must be flushed; past it the stack waits. As many
/// descriptors as QEMU's virtio-net has by default.
const TRANSMIT_RING_FRAMES: usize = 256;

/// Bytes of an Ethernet header.
const HEADER_BYTES: usize = 14;

/// What a card is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicOptions {
    /// Its address; `None`: one made from the port's number.
    pub mac: Option<MacAddress>,
    /// The largest IP packet that it sends, in bytes.
    pub mtu: usize,
    /// It finishes the checksums of frames that it sends.
    pub transmit_checksum: bool,
    /// It cuts frames of up to so many bytes into segments, which it can only if it finishes
    /// checksums. 0: it does not.
    pub segmented_frame_bytes_max: usize,
    /// What it says of the checksums of frames that it receives.
    pub receive_checksum: ReceiveChecksum,
    /// It joins TCP segments that arrived together.
    pub joins_segments: bool,
    /// Frames that wait until the stack takes them; past it they are lost.
    pub receive_ring_frames: usize,
}

impl Default for NicOptions {
    /// A card that does nothing for the stack, with an MTU of 1500, and room for 1024 frames: 16
    /// turns of a stack's.
    fn default() -> Self {
        NicOptions {
            mac: None,
            mtu: 1500,
            transmit_checksum: false,
            segmented_frame_bytes_max: 0,
            receive_checksum: ReceiveChecksum::Unverified,
            joins_segments: false,
            receive_ring_frames: 1024,
        }
    }
}

impl NicOptions {
    /// A card that does all that cards do.
    pub fn everything() -> Self {
        NicOptions {
            transmit_checksum: true,
            segmented_frame_bytes_max: HEADER_BYTES + 65_535,
            receive_checksum: ReceiveChecksum::Verified,
            joins_segments: true,
            ..NicOptions::default()
        }
    }
}

/// A network card on a port of the [`World`](super::World). A strict one: a stack that breaks
/// [`Nic`]'s contract panics.
#[derive(Debug)]
pub struct SimulatedNic {
    shared: Arc<Shared>,
    port: PortId,
    mac: MacAddress,
    options: NicOptions,
    /// The buffer that is lent.
    buffer: Vec<u8>,
    /// Frames as they go onto the wire, that `flush` hands over.
    unflushed: Vec<Vec<u8>>,
}

impl SimulatedNic {
    pub(crate) fn new(shared: Arc<Shared>, port: PortId, options: NicOptions) -> Self {
        let number = (port.0 as u32 + 1).to_be_bytes();
        let made = MacAddress([2, 0, number[0], number[1], number[2], number[3]]);
        let bytes = (HEADER_BYTES + options.mtu).max(options.segmented_frame_bytes_max);
        assert!(
            options.segmented_frame_bytes_max == 0 || options.transmit_checksum,
            "a card that cuts frames finishes their checksums"
        );
        SimulatedNic {
            shared,
            port,
            mac: options.mac.unwrap_or(made),
            options,
            buffer: vec![0; bytes],
            unflushed: Vec::new(),
        }
    }

    /// Puts the frame that was written into the buffer onto the wire, in as many as it is.
    fn queue(&mut self, transmit: Transmit) {
        let Transmit { len, partial_checksum, segmentation } = transmit;
        let frame = &mut self.buffer[..len];
        assert!(len >= HEADER_BYTES, "a frame of {len} bytes has no Ethernet header");
        if let Some(segmentation) = segmentation {
            assert!(
                len <= self.options.segmented_frame_bytes_max,
                "a frame to be cut of {len} bytes"
            );
            assert!(partial_checksum.is_some(), "a frame to be cut has a partial checksum");
            self.unflushed.extend(offload::cut(frame, segmentation));
            return;
        }
        assert!(len <= HEADER_BYTES + self.options.mtu, "a frame of {len} bytes is too long");
        if let Some(partial) = partial_checksum {
            assert!(self.options.transmit_checksum, "this card finishes no checksums");
            offload::finish(frame, partial);
        }
        self.unflushed.push(frame.to_vec());
    }
}

impl Nic for SimulatedNic {
    fn mac(&self) -> MacAddress {
        self.mac
    }

    fn mtu(&self) -> usize {
        self.options.mtu
    }

    fn offloads(&self) -> Offloads {
        let cuts = self.options.segmented_frame_bytes_max > 0;
        Offloads {
            transmit_checksum: self.options.transmit_checksum,
            transmit_checksum_ipv6: self.options.transmit_checksum,
            segmentation_ipv4: cuts,
            segmentation_ipv6: cuts,
            segmented_frame_bytes_max: self.options.segmented_frame_bytes_max,
        }
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        consume: &mut dyn FnMut(&mut [u8], Received),
    ) -> Poll<Result<(), NicError>> {
        let options = &self.options;
        let taken = self.shared.end(self.port, |end| {
            end.check()?;
            end.turns += 1;
            let taken =
                offload::take(&mut end.received, options.receive_checksum, options.joins_segments);
            if taken.is_none() {
                end.receiver = Some(cx.waker().clone());
            }
            Ok(taken)
        })?;
        let Some((mut frame, received)) = taken else { return Poll::Pending };
        consume(&mut frame, received);
        Poll::Ready(Ok(()))
    }

    fn poll_transmit(
        &mut self,
        cx: &mut Context<'_>,
        fill: &mut dyn FnMut(&mut [u8]) -> Option<Transmit>,
    ) -> Poll<Result<bool, NicError>> {
        let is_full = self.unflushed.len() >= TRANSMIT_RING_FRAMES;
        self.shared.end(self.port, |end| {
            if is_full {
                end.sender = Some(cx.waker().clone());
            }
            end.check()
        })?;
        if is_full {
            return Poll::Pending;
        }
        let Some(transmit) = fill(&mut self.buffer) else { return Poll::Ready(Ok(false)) };
        self.queue(transmit);
        Poll::Ready(Ok(true))
    }

    fn flush(&mut self) -> Result<(), NicError> {
        self.shared.end(self.port, |end| end.check())?;
        if !self.unflushed.is_empty() {
            self.shared.send(self.port, &mut self.unflushed);
        }
        Ok(())
    }
}
