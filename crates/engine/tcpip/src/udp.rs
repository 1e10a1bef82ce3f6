//! UDP sockets (RFC 768): queues of datagrams, bounded in bytes, found by a keyed hash table.

use crate::config::Limits;
use crate::counters::Counters;
use crate::error::{BindError, SendError};
use crate::event::{Event, Events};
use crate::output::Packet;
use crate::secret::{Key, Keys, Purpose, Random};
use crate::socket::{Datagram, UdpId};
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// What a queued datagram costs beside its payload, in bytes: so that a flood of empty ones is
/// bounded too.
const DATAGRAM_OVERHEAD: usize = 64;

/// The ports that are picked when a program asks for port 0 (RFC 6056 §3.2: as many as possible;
/// those of IANA's dynamic range and below it, as far as Linux goes).
const PORT_FIRST: u16 = 32_768;
const PORT_COUNT: u16 = u16::MAX - PORT_FIRST;

/// In [`Udp::ready`], the turn of what closed sockets have left.
const ORPHANS: u32 = u32::MAX;

/// The addresses that mean all addresses of the interface, of both families.
const ANY: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)];

/// A datagram in a receive queue.
struct Received {
    source: SocketAddr,
    destination: SocketAddr,
    payload: Vec<u8>,
}

struct Socket {
    /// Unspecified: all addresses of the interface.
    local: SocketAddr,
    received: VecDeque<Received>,
    received_bytes: usize,
    /// Complete but for the checksum.
    outgoing: VecDeque<Packet>,
    outgoing_bytes: usize,
    /// A send found the queue full and waits for an event.
    is_send_blocked: bool,
    /// The socket is in `Udp::ready`.
    is_ready: bool,
}

struct Slot {
    generation: u32,
    socket: Option<Socket>,
}

/// All UDP sockets.
pub(crate) struct Udp {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Socket by local address and port.
    by_local: HashMap<SocketAddr, u32, Key>,
    /// Sockets that have something to send, in the order of their turns.
    ready: VecDeque<u32>,
    /// What sockets had taken to send when they were closed; all together no more than one socket
    /// may hold.
    orphans: VecDeque<Packet>,
    orphan_bytes: usize,
    random: Random,
    sockets_max: usize,
    receive_bytes_max: usize,
    send_bytes_max: usize,
}

fn cost(len: usize) -> usize {
    len + DATAGRAM_OVERHEAD
}

impl Udp {
    pub(crate) fn new(limits: &Limits, keys: &Keys) -> Self {
        Udp {
            slots: Vec::new(),
            free: Vec::new(),
            by_local: HashMap::with_hasher(keys.key(Purpose::UdpTable)),
            ready: VecDeque::new(),
            orphans: VecDeque::new(),
            orphan_bytes: 0,
            random: keys.random(Purpose::UdpPort),
            sockets_max: limits.udp_sockets,
            receive_bytes_max: limits.udp_receive_bytes,
            send_bytes_max: limits.udp_send_bytes,
        }
    }

    /// No datagram waits to be sent.
    pub(crate) fn is_idle(&self) -> bool {
        self.ready.is_empty()
    }

    fn socket(&self, id: UdpId) -> Option<&Socket> {
        let slot = self.slots.get(id.index())?;
        slot.socket.as_ref().filter(|_| slot.generation == id.generation())
    }

    fn socket_mut(&mut self, id: UdpId) -> Option<&mut Socket> {
        let slot = self.slots.get_mut(id.index())?;
        let generation = slot.generation;
        slot.socket.as_mut().filter(|_| generation == id.generation())
    }

    /// True if no socket would share a datagram with one at `local`.
    fn is_free(&self, local: SocketAddr) -> bool {
        !self.by_local.keys().any(|other| {
            other.port() == local.port()
                && (other.ip() == local.ip()
                    || other.ip().is_unspecified()
                    || local.ip().is_unspecified())
        })
    }

    fn pick_port(&mut self, address: IpAddr) -> Option<u16> {
        // RFC 6056 §3.3.1: a random start, then the next free one; bounded by their number.
        let start = self.random.below(u32::from(PORT_COUNT)) as u16;
        (0..PORT_COUNT)
            .map(|step| {
                PORT_FIRST + ((u32::from(start) + u32::from(step)) % u32::from(PORT_COUNT)) as u16
            })
            .find(|port| self.is_free(SocketAddr::new(address, *port)))
    }

    /// Opens a socket. The engine has checked that the address is the interface's or unspecified.
    pub(crate) fn bind(&mut self, mut local: SocketAddr) -> Result<UdpId, BindError> {
        if self.by_local.len() >= self.sockets_max {
            return Err(BindError::TooMany);
        }
        if local.port() == 0 {
            local.set_port(self.pick_port(local.ip()).ok_or(BindError::NoFreePort)?);
        } else if !self.is_free(local) {
            return Err(BindError::InUse(local));
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, socket: None });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.socket = Some(Socket {
            local,
            received: VecDeque::new(),
            received_bytes: 0,
            outgoing: VecDeque::new(),
            outgoing_bytes: 0,
            is_send_blocked: false,
            is_ready: false,
        });
        let id = UdpId::new(index, slot.generation);
        self.by_local.insert(local, index);
        Ok(id)
    }

    pub(crate) fn local(&self, id: UdpId) -> Option<SocketAddr> {
        Some(self.socket(id)?.local)
    }

    /// Closes a socket. What it has taken is sent all the same, as far as there is room for what
    /// closed sockets leave.
    pub(crate) fn close(&mut self, id: UdpId, counters: &mut Counters) {
        if self.socket(id).is_none() {
            return;
        }
        let slot = &mut self.slots[id.index()];
        slot.generation = slot.generation.wrapping_add(1);
        let Some(socket) = slot.socket.take() else { return };
        self.by_local.remove(&socket.local);
        let index = id.index() as u32;
        self.ready.retain(|ready| *ready != index);
        self.free.push(index);
        for packet in socket.outgoing {
            let cost = cost(packet.payload.len());
            if self.orphans.is_empty() {
                self.ready.push_back(ORPHANS);
            } else if self.orphan_bytes + cost > self.send_bytes_max {
                counters.dropped_udp_orphan += 1;
                continue;
            }
            self.orphan_bytes += cost;
            self.orphans.push_back(packet);
        }
    }

    /// Takes the next datagram of a socket that is closed.
    fn take_orphan(&mut self) -> Option<Packet> {
        let packet = self.orphans.pop_front()?;
        self.orphan_bytes -= cost(packet.payload.len());
        if !self.orphans.is_empty() {
            self.ready.push_back(ORPHANS);
        }
        Some(packet)
    }

    /// The socket that a datagram to `local` is for, `local` being specific or a broadcast
    /// address.
    fn find(&self, local: SocketAddr) -> Option<u32> {
        let specific = SocketAddr::new(local.ip(), local.port());
        let all = ANY.map(|address| SocketAddr::new(address, local.port()));
        [specific].iter().chain(&all).find_map(|local| self.by_local.get(local)).copied()
    }

    /// True if a socket would get a datagram to `local`.
    pub(crate) fn has_receiver(&self, local: SocketAddr) -> bool {
        self.find(local).is_some()
    }

    /// Gives a datagram to its socket; false if there is none.
    pub(crate) fn deliver(
        &mut self,
        source: SocketAddr,
        destination: SocketAddr,
        payload: &[u8],
        events: &mut Events,
        counters: &mut Counters,
    ) -> bool {
        let receive_bytes_max = self.receive_bytes_max;
        let Some(index) = self.find(destination) else { return false };
        let Some(slot) = self.slots.get_mut(index as usize) else { return false };
        let Some(socket) = &mut slot.socket else { return false };
        let cost = cost(payload.len());
        if socket.received_bytes + cost > receive_bytes_max {
            counters.dropped_udp_queue += 1;
            return true;
        }
        socket.received_bytes += cost;
        socket.received.push_back(Received { source, destination, payload: payload.to_vec() });
        counters.udp_received += 1;
        events.push(Event::UdpReadable(UdpId::new(index, slot.generation)));
        true
    }

    pub(crate) fn receive(&mut self, id: UdpId, buffer: &mut [u8]) -> Option<Datagram> {
        let socket = self.socket_mut(id)?;
        let received = socket.received.pop_front()?;
        socket.received_bytes -= cost(received.payload.len());
        let len = received.payload.len().min(buffer.len());
        buffer[..len].copy_from_slice(&received.payload[..len]);
        Some(Datagram {
            len,
            truncated: len < received.payload.len(),
            source: received.source,
            destination: received.destination,
        })
    }

    /// True if `send` would take `len` bytes of payload now; if not, an event will tell when to try
    /// again.
    pub(crate) fn reserve(&mut self, id: UdpId, len: usize) -> Result<bool, SendError> {
        let send_bytes_max = self.send_bytes_max;
        let socket = self.socket_mut(id).ok_or(SendError::Closed)?;
        // A datagram larger than the limit may go alone.
        let fits =
            socket.outgoing.is_empty() || socket.outgoing_bytes + cost(len) <= send_bytes_max;
        socket.is_send_blocked |= !fits;
        Ok(fits)
    }

    /// Queues a datagram for which `reserve` found room.
    pub(crate) fn send(&mut self, id: UdpId, packet: Packet) {
        let Some(socket) = self.socket_mut(id) else { return };
        socket.outgoing_bytes += cost(packet.payload.len());
        socket.outgoing.push_back(packet);
        if !core::mem::replace(&mut socket.is_ready, true) {
            self.ready.push_back(id.index() as u32);
        }
    }

    /// Takes the next datagram to send: of each socket one in turn.
    pub(crate) fn take_outgoing(&mut self, events: &mut Events) -> Option<Packet> {
        loop {
            let index = self.ready.pop_front()?;
            if index == ORPHANS {
                match self.take_orphan() {
                    Some(packet) => return Some(packet),
                    None => continue,
                }
            }
            let Some(slot) = self.slots.get_mut(index as usize) else { continue };
            let Some(socket) = &mut slot.socket else { continue };
            let packet = socket.outgoing.pop_front();
            if let Some(packet) = &packet {
                socket.outgoing_bytes -= cost(packet.payload.len());
            }
            socket.is_ready = !socket.outgoing.is_empty();
            if socket.is_ready {
                self.ready.push_back(index);
            }
            if socket.is_send_blocked && socket.outgoing_bytes <= self.send_bytes_max / 2 {
                socket.is_send_blocked = false;
                events.push(Event::UdpWritable(UdpId::new(index, slot.generation)));
            }
            if packet.is_some() {
                return packet;
            }
        }
    }

    /// Drops what waits to be sent from `address`, which the interface has lost, and wakes whoever
    /// waits to send.
    pub(crate) fn handle_address_lost(&mut self, address: IpAddr, events: &mut Events) {
        self.orphans.retain(|packet| packet.header.source != address);
        self.orphan_bytes = self.orphans.iter().map(|packet| cost(packet.payload.len())).sum();
        if self.orphans.is_empty() {
            self.ready.retain(|ready| *ready != ORPHANS);
        }
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some(socket) = &mut slot.socket else { continue };
            socket.outgoing.retain(|packet| packet.header.source != address);
            socket.outgoing_bytes =
                socket.outgoing.iter().map(|packet| cost(packet.payload.len())).sum();
            if core::mem::take(&mut socket.is_send_blocked) {
                events.push(Event::UdpWritable(UdpId::new(index as u32, slot.generation)));
            }
        }
    }

    /// Number of sockets, and bytes in their queues.
    pub(crate) fn gauges(&self) -> (usize, usize) {
        let sockets = self.slots.iter().filter_map(|slot| slot.socket.as_ref());
        let bytes = sockets.map(|socket| socket.received_bytes + socket.outgoing_bytes);
        (self.by_local.len(), bytes.sum::<usize>() + self.orphan_bytes)
    }
}
