//! Peers without shame: they have connections, and what they say on them is up to the attack.

use crate::forge::{ACK, RST, SYN, Segment};
use crate::stage::{ATTACKER, Scene, VICTIM};
use std::net::IpAddr;

/// A hostile end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    port: u16,
    server: u16,
    /// Our next sequence number.
    pub(crate) next: u32,
    /// RCV.NXT as an honest peer would have it if all that was sent had arrived in order.
    pub(crate) theirs: u32,
    /// The highest acknowledgement of ours.
    pub(crate) acknowledged: u32,
    /// The first sequence number of the stream that the server sends.
    pub(crate) first: u32,
    pub(crate) is_established: bool,
    pub(crate) is_reset: bool,
}

impl Peer {
    /// A segment of this connection.
    pub(crate) fn segment(&self, flags: u8, window: u16) -> Segment {
        Segment {
            source_port: self.port,
            destination_port: self.server,
            sequence: self.next,
            acknowledgment: self.theirs,
            flags,
            window,
            ..Segment::default()
        }
    }
}

/// Sends a segment of a hostile peer's.
pub(crate) fn say(scene: &mut Scene<'_>, segment: &Segment) {
    scene.packet(&segment.packet(ATTACKER.into(), VICTIM.into()));
}

/// Many of them.
pub(crate) struct Peers {
    pub(crate) all: Vec<Peer>,
    /// Options of their SYNs.
    pub(crate) options: Vec<u8>,
    /// The window that they offer when the handshake is over.
    pub(crate) window: u16,
    /// What they say first.
    pub(crate) request: Vec<u8>,
    begun: usize,
}

const FIRST_PORT: u16 = 2000;

impl Peers {
    /// `count` who will connect to the port `server`.
    pub(crate) fn new(count: u16, server: u16) -> Peers {
        let peer = |number| Peer {
            port: FIRST_PORT + number,
            server,
            next: 1000,
            theirs: 0,
            acknowledged: 0,
            first: 0,
            is_established: false,
            is_reset: false,
        };
        Peers {
            all: (0..count).map(peer).collect(),
            options: Vec::new(),
            window: 65_535,
            request: Vec::new(),
            begun: 0,
        }
    }

    /// The next `count` of them begin.
    pub(crate) fn connect(&mut self, scene: &mut Scene<'_>, count: usize) {
        for peer in self.all.iter_mut().skip(self.begun).take(count) {
            let mut syn = peer.segment(SYN, self.window);
            syn.options.clone_from(&self.options);
            say(scene, &syn);
            peer.next += 1;
            self.begun += 1;
        }
    }

    /// Listens, and ends handshakes.
    pub(crate) fn turn(&mut self, scene: &mut Scene<'_>) {
        for (to, segment) in std::mem::take(&mut scene.heard) {
            let at = usize::from(segment.destination_port.wrapping_sub(FIRST_PORT));
            let Some(peer) = self.all.get_mut(at).filter(|_| to == IpAddr::from(ATTACKER)) else {
                continue;
            };
            peer.is_reset |= segment.flags & RST != 0;
            if segment.flags & (SYN | ACK) == SYN | ACK && !peer.is_established {
                peer.is_established = true;
                peer.theirs = segment.end();
                peer.first = segment.end();
                let mut answer = peer.segment(ACK, self.window);
                answer.data.clone_from(&self.request);
                say(scene, &answer);
                peer.next += self.request.len() as u32;
            } else if peer.is_established && segment.flags & ACK != 0 {
                if (segment.end().wrapping_sub(peer.theirs) as i32) > 0 {
                    peer.theirs = segment.end();
                }
                if (segment.acknowledgment.wrapping_sub(peer.acknowledged) as i32) > 0 {
                    peer.acknowledged = segment.acknowledgment;
                }
            }
        }
    }

    /// How many have a connection.
    pub(crate) fn established(&self) -> usize {
        self.all.iter().filter(|peer| peer.is_established && !peer.is_reset).count()
    }
}
