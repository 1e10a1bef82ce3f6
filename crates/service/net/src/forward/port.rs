//! [`Port`]: an interface that sends what others received.
//!
//! A frame from one device says what that device did not do: its checksum is blank, or it is several
//! segments in one. What the way out does itself is left to it; the rest is done here.

use super::backlog::{Backlog, Manner};
use super::counters::PortCounters;
use crate::driver::partial_checksum;
use core::num::NonZeroU16;
use core::task::{Context, Poll};
use fata_device::{
    Checksum, IpFamily, MacAddress, Nic, NicError, Offloads, Received, Segmentation, Transmit,
};
use fata_tcpip::segment::{self, Cutter, OffloadError};
use std::sync::Arc;

const ETHERNET_HEADER_LEN: usize = 14;

/// See the module.
pub(crate) struct Port {
    nic: Box<dyn Nic>,
    mac: MacAddress,
    mtu: usize,
    offloads: Offloads,
    backlog: Backlog,
    /// How far the first frame of the backlog is cut.
    cutter: Option<Cutter>,
    counters: Arc<PortCounters>,
}

/// Why a frame does not leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    TooLong,
    Malformed,
}

impl From<OffloadError> for Refusal {
    fn from(_: OffloadError) -> Self {
        Refusal::Malformed
    }
}

/// The family of a frame; `None` if it is neither.
fn family(frame: &[u8]) -> Option<IpFamily> {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => Some(IpFamily::V4),
        Some([0x86, 0xdd]) => Some(IpFamily::V6),
        _ => None,
    }
}

impl Port {
    /// A port over `nic` in which up to `backlog_bytes` of frames wait.
    pub(crate) fn new(nic: Box<dyn Nic>, backlog_bytes: usize) -> Self {
        Port {
            mac: nic.mac(),
            mtu: nic.mtu(),
            offloads: nic.offloads(),
            nic,
            backlog: Backlog::new(backlog_bytes),
            cutter: None,
            counters: Arc::default(),
        }
    }

    pub(crate) fn mac(&self) -> MacAddress {
        self.mac
    }

    pub(crate) fn counters(&self) -> &Arc<PortCounters> {
        &self.counters
    }

    /// Receives one frame, if there is one; counts it.
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        consume: &mut dyn FnMut(&mut [u8], Received),
    ) -> Poll<Result<(), NicError>> {
        let Port { nic, counters, .. } = self;
        nic.poll_receive(cx, &mut |frame, said| {
            PortCounters::add(&counters.frames_in, 1);
            PortCounters::add(&counters.bytes_in, frame.len());
            PortCounters::add(&counters.large_in, usize::from(said.segmentation.is_some()));
            consume(frame, said);
        })
    }

    pub(crate) fn flush(&mut self) -> Result<(), NicError> {
        self.nic.flush()
    }

    /// Sends a frame, now or when there is room. A frame that cannot be sent is counted.
    ///
    /// # Errors
    /// Those of the interface.
    pub(crate) fn send(
        &mut self,
        cx: &mut Context<'_>,
        frame: &mut [u8],
        said: Received,
    ) -> Result<(), NicError> {
        let manner = match self.prepare(frame, said) {
            Ok(manner) => manner,
            Err(Refusal::TooLong) => {
                PortCounters::add(&self.counters.dropped_too_long, 1);
                return Ok(());
            }
            Err(Refusal::Malformed) => {
                PortCounters::add(&self.counters.dropped_malformed, 1);
                return Ok(());
            }
        };
        if self.backlog.is_empty()
            && let Manner::Whole(transmit) = manner
        {
            match put(self.nic.as_mut(), cx, frame, transmit, &self.counters) {
                Poll::Ready(sent) => return sent,
                Poll::Pending => PortCounters::add(&self.counters.waited, 1),
            }
        }
        if !self.backlog.push(frame, manner) {
            PortCounters::add(&self.counters.dropped_backlog, 1);
            return Ok(());
        }
        match self.poll_drain(cx) {
            Poll::Ready(drained) => drained,
            Poll::Pending => Ok(()),
        }
    }

    /// Decides how a frame leaves, and finishes what the device will not.
    fn prepare(&mut self, frame: &mut [u8], said: Received) -> Result<Manner, Refusal> {
        if frame.len() < ETHERNET_HEADER_LEN {
            return Err(Refusal::Malformed);
        }
        let offloads = self.offloads;
        let family = family(frame);
        let (finishes_checksum, cuts) = match family {
            Some(IpFamily::V4) => (offloads.transmit_checksum, offloads.segmentation_ipv4),
            Some(IpFamily::V6) => (offloads.transmit_checksum_ipv6, offloads.segmentation_ipv6),
            None => (false, false),
        };
        let frame_max = ETHERNET_HEADER_LEN + self.mtu;
        if let Some(segmentation) = said.segmentation {
            let mss = NonZeroU16::new(segmentation.mss).ok_or(Refusal::Malformed)?;
            let cutter = Cutter::new(frame, mss)?;
            if Some(segmentation.family) != family {
                return Err(Refusal::Malformed);
            }
            if cutter.frame_bytes_max() > frame_max {
                return Err(Refusal::TooLong);
            }
            if cutter.segments() > 1 {
                let is_left =
                    finishes_checksum && cuts && frame.len() <= offloads.segmented_frame_bytes_max;
                if !is_left {
                    return Ok(Manner::Cut { segmentation, is_checksum_left: finishes_checksum });
                }
                return Ok(Manner::Whole(Transmit {
                    len: frame.len(),
                    partial_checksum: Some(partial_checksum(segment::leave_checksum(frame)?)),
                    segmentation: Some(segmentation),
                }));
            }
        }
        if frame.len() > frame_max {
            return Err(Refusal::TooLong);
        }
        if said.checksum != Checksum::Blank {
            return Ok(Manner::whole(frame.len(), None));
        }
        if finishes_checksum {
            let partial_checksum = partial_checksum(segment::leave_checksum(frame)?);
            return Ok(Manner::whole(frame.len(), Some(partial_checksum)));
        }
        segment::finish_checksum(frame)?;
        PortCounters::add(&self.counters.checksums_finished, 1);
        Ok(Manner::whole(frame.len(), None))
    }

    /// Sends what waits. `Ready`: nothing waits any more.
    ///
    /// # Errors
    /// Those of the interface.
    pub(crate) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NicError>> {
        loop {
            let Some((frame, manner)) = self.backlog.front() else { return Poll::Ready(Ok(())) };
            let polled = match manner {
                Manner::Whole(transmit) => {
                    put(self.nic.as_mut(), cx, frame, transmit, &self.counters)
                }
                Manner::Cut { segmentation, is_checksum_left } => cut(
                    self.nic.as_mut(),
                    cx,
                    frame,
                    segmentation,
                    is_checksum_left,
                    &mut self.cutter,
                    &self.counters,
                ),
            };
            match polled {
                Poll::Ready(Ok(())) => self.backlog.pop(),
                other => return other,
            }
        }
    }
}

/// Gives one frame to the device.
fn put(
    nic: &mut dyn Nic,
    cx: &mut Context<'_>,
    frame: &[u8],
    transmit: Transmit,
    counters: &PortCounters,
) -> Poll<Result<(), NicError>> {
    let sent = nic.poll_transmit(cx, &mut |buffer| {
        buffer.get_mut(..frame.len())?.copy_from_slice(frame);
        Some(transmit)
    });
    sent.map_ok(|is_sent| {
        if is_sent {
            PortCounters::add(&counters.frames_out, 1);
            PortCounters::add(&counters.bytes_out, frame.len());
            PortCounters::add(&counters.large_out, usize::from(transmit.segmentation.is_some()));
        } else {
            // Not with an interface that keeps its contract: its buffers hold what it says.
            PortCounters::add(&counters.dropped_too_long, 1);
        }
    })
}

/// Cuts one frame, from where `progress` says on, and gives the device the segments.
fn cut(
    nic: &mut dyn Nic,
    cx: &mut Context<'_>,
    frame: &[u8],
    segmentation: Segmentation,
    is_checksum_left: bool,
    progress: &mut Option<Cutter>,
    counters: &PortCounters,
) -> Poll<Result<(), NicError>> {
    let mut cutter = match *progress {
        Some(cutter) => cutter,
        None => match NonZeroU16::new(segmentation.mss).map(|mss| Cutter::new(frame, mss)) {
            Some(Ok(cutter)) => cutter,
            // It was checked when it came.
            _ => return Poll::Ready(Ok(())),
        },
    };
    loop {
        let mut len = 0;
        let sent = nic.poll_transmit(cx, &mut |buffer| {
            let cut = cutter.write_next(frame, buffer, is_checksum_left)?;
            len = cut.len;
            Some(Transmit {
                len: cut.len,
                partial_checksum: cut.partial_checksum.map(partial_checksum),
                segmentation: None,
            })
        });
        match sent {
            Poll::Ready(Ok(true)) => {
                PortCounters::add(&counters.frames_out, 1);
                PortCounters::add(&counters.bytes_out, len);
            }
            Poll::Ready(Ok(false)) => {
                *progress = None;
                PortCounters::add(&counters.cut, 1);
                return Poll::Ready(Ok(()));
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => {
                *progress = Some(cutter);
                return Poll::Pending;
            }
        }
    }
}
