//! What somebody sees who looks on at the honest client's link: more than an attacker knows who is
//! blind, so that his guesses can be as good as guesses get.

use crate::forge::{ACK, SYN, Segment};
use fata_device::{MacAddress, Nic, NicError, Offloads, Received, Transmit};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

/// A connection of the client's.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sight {
    /// The client's port.
    pub(crate) port: u16,
    /// The handshake is over.
    pub(crate) is_established: bool,
    /// SND.NXT of the client.
    pub(crate) next: u32,
    /// RCV.NXT of the client.
    pub(crate) expected: u32,
    /// The option with its clock and the echo of the server's.
    pub(crate) timestamps: (u32, u32),
}

/// A card that is looked at: connections by the server's port.
pub(crate) struct Tap {
    nic: Box<dyn Nic>,
    sights: Arc<Mutex<BTreeMap<u16, Sight>>>,
}

impl Tap {
    pub(crate) fn new(nic: Box<dyn Nic>, sights: Arc<Mutex<BTreeMap<u16, Sight>>>) -> Tap {
        Tap { nic, sights }
    }
}

fn note(sights: &Mutex<BTreeMap<u16, Sight>>, frame: &[u8]) {
    let Some((_, _, segment)) = Segment::of_frame(frame) else { return };
    let mut sights = sights.lock().unwrap();
    let sight = sights.entry(segment.destination_port).or_default();
    let end = segment.end();
    if segment.flags & SYN != 0 {
        *sight = Sight { port: segment.source_port, next: end, ..Sight::default() };
    } else if segment.flags & ACK != 0 && segment.source_port == sight.port {
        sight.is_established = true;
        sight.expected = segment.acknowledgment;
        sight.timestamps = segment.timestamps().unwrap_or_default();
        if (end.wrapping_sub(sight.next) as i32) > 0 {
            sight.next = end;
        }
    }
}

impl Nic for Tap {
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
        self.nic.poll_receive(cx, consume)
    }

    fn poll_transmit(
        &mut self,
        cx: &mut Context<'_>,
        fill: &mut dyn FnMut(&mut [u8]) -> Option<Transmit>,
    ) -> Poll<Result<bool, NicError>> {
        let sights = &self.sights;
        self.nic.poll_transmit(cx, &mut |buffer| {
            let transmit = fill(buffer)?;
            note(sights, &buffer[..transmit.len]);
            Some(transmit)
        })
    }

    fn flush(&mut self) -> Result<(), NicError> {
        self.nic.flush()
    }
}
