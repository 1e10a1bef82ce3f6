//! Frames that follow one another with the same headers, but for TCP's sequence number and checksum:
//! what a device that segments would make of one large frame, made here as it asks for them.

use super::transmit::TCP_CHECKSUM_OFFSET;
use super::{Engine, Transmit};
use crate::tcp;
use crate::time::Instant;
use crate::wire::checksum::Sum;
use crate::wire::{ethernet, ipv6};

/// The longest headers: Ethernet's, IPv6's, TCP's with timestamps.
const HEADERS_MAX: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN + 32;

/// Where TCP's sequence number is in its header.
const SEQUENCE_OFFSET: usize = 4;

/// Segments that may follow a frame that was sent; dropped with whatever else happens to the engine.
pub(super) struct Run {
    segments: tcp::Run,
    /// All headers, up to the payload.
    headers: [u8; HEADERS_MAX],
    headers_len: usize,
    /// Where TCP's begins.
    start: usize,
    /// What the sum of TCP's pseudo-header and header is without the number; `None` if the device
    /// finishes the sum.
    sum: Option<Sum>,
    /// What is said of each frame.
    transmit: Transmit,
}

impl Run {
    /// What may follow `frame`, which has just been written, and in which TCP's header begins at
    /// `start`; `pseudo_header` is the sum of its pseudo-header.
    pub(super) fn new(
        segments: tcp::Run,
        frame: &[u8],
        start: usize,
        pseudo_header: Sum,
        transmit: Transmit,
    ) -> Option<Run> {
        let headers_len = frame.len().checked_sub(segments.payload_len)?;
        let mut headers = [0; HEADERS_MAX];
        headers.get_mut(..headers_len)?.copy_from_slice(frame.get(..headers_len)?);
        let header = headers.get_mut(start..headers_len)?;
        header.get_mut(SEQUENCE_OFFSET..SEQUENCE_OFFSET + 4)?.fill(0);
        let mut sum = None;
        if transmit.partial_checksum.is_none() {
            header.get_mut(TCP_CHECKSUM_OFFSET..TCP_CHECKSUM_OFFSET + 2)?.fill(0);
            sum = Some(pseudo_header.then(header));
        }
        Some(Run { segments, headers, headers_len, start, sum, transmit })
    }
}

impl Engine {
    /// Writes the next frame of the run, if there is one and nobody else waits for a turn.
    pub(super) fn transmit_run(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Transmit> {
        let run = self.run.as_mut()?;
        let written = match self.udp.is_idle() {
            true => write_next(&mut self.tcp, run, now, buffer),
            false => None,
        };
        if written.is_none() {
            self.run = None;
        }
        written
    }
}

#[cfg(test)]
impl Engine {
    /// Writes the next frame the long way, also if it would be one of a run: whose turn it is is the same.
    pub(super) fn transmit_long(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Transmit> {
        let run = self.run.take().filter(|run| self.tcp.leave_run(now, &run.segments));
        let written = self.poll_transmit(now, buffer);
        if let Some(run) = run {
            assert!(written.is_some(), "a run goes on where nothing is to be sent");
            self.run = Some(Run { segments: self.tcp.enter_run(run.segments), ..run });
        }
        written
    }
}

/// Writes the next frame of `run`.
fn write_next(
    tcp: &mut tcp::Tcp,
    run: &mut Run,
    now: Instant,
    buffer: &mut [u8],
) -> Option<Transmit> {
    let frame = buffer.get_mut(..run.transmit.len)?;
    // All of it, because a length that is known is copied faster; the payload overwrites the rest.
    frame.first_chunk_mut::<HEADERS_MAX>()?.copy_from_slice(&run.headers);
    let (headers, payload) = frame.split_at_mut_checked(run.headers_len)?;
    let sequence = tcp.continue_run(now, &mut run.segments, payload)?.0.to_be_bytes();
    let header = headers.get_mut(run.start..)?;
    header.get_mut(SEQUENCE_OFFSET..)?.first_chunk_mut::<4>()?.copy_from_slice(&sequence);
    if let Some(sum) = run.sum {
        let [a, b, c, d] = sequence;
        let number = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
        let sum = sum.then_word(number[0]).then_word(number[1]).then(payload).finish();
        let field = header.get_mut(TCP_CHECKSUM_OFFSET..)?.first_chunk_mut::<2>()?;
        field.copy_from_slice(&sum.to_be_bytes());
    }
    Some(run.transmit)
}
