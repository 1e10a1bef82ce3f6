//! The queue of events: what a program's tasks wait for.
//!
//! A peer must not be able to fill memory with events that nobody reads. So the queue does not hold
//! events but the sockets that have some, each once, with one bit for each kind of event; its
//! length is bounded by the number of sockets.

use crate::socket::{ListenerId, TcpId, UdpId};
use std::collections::VecDeque;

/// Something that a waiting task may care about. Each is a hint to try again, may come early or
/// twice, and never comes too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The handshake of `tcp_connect` ended well.
    TcpConnected(TcpId),
    /// `tcp_read` may give data, the end or an error.
    TcpReadable(TcpId),
    /// `tcp_write` may take data or give an error, or all data is acknowledged.
    TcpWritable(TcpId),
    /// The connection ended or failed; `tcp_status` says how.
    TcpClosed(TcpId),
    /// `tcp_accept` may give a connection.
    Acceptable(ListenerId),
    /// `udp_receive` may give a datagram.
    UdpReadable(UdpId),
    /// `udp_send` may take a datagram.
    UdpWritable(UdpId),
    /// The interface got or lost its address.
    AddressChanged,
}

/// Which table an entry of the queue points into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Tcp(usize),
    Listener(usize),
    Udp(usize),
    Engine,
}

/// The events of one slot that nobody has taken.
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    generation: u32,
    bits: u8,
    /// The slot is in the queue, once.
    queued: bool,
}

/// Events that wait for `poll_event`: bounded and without duplicates.
#[derive(Debug, Default)]
pub(crate) struct Events {
    queue: VecDeque<Owner>,
    tcp: Vec<Pending>,
    listeners: Vec<Pending>,
    udp: Vec<Pending>,
    address_changed: bool,
}

const CONNECTED: u8 = 1;
const READABLE: u8 = 2;
const WRITABLE: u8 = 4;
const CLOSED: u8 = 8;

/// Notes `bit` for a slot; true if the slot must be queued.
fn note(table: &mut Vec<Pending>, index: usize, generation: u32, bit: u8) -> bool {
    if table.len() <= index {
        table.resize(index + 1, Pending::default());
    }
    let pending = &mut table[index];
    if pending.generation != generation {
        pending.generation = generation;
        pending.bits = 0;
    }
    pending.bits |= bit;
    !core::mem::replace(&mut pending.queued, true)
}

/// What a slot has to say next.
#[derive(Clone, Copy, Default)]
struct Taken {
    generation: u32,
    /// 0 if it was forgotten meanwhile.
    bit: u8,
    /// There is no more: the slot leaves the queue.
    is_last: bool,
}

/// Takes the lowest bit of a slot.
fn take(table: &mut [Pending], index: usize) -> Taken {
    let Some(pending) = table.get_mut(index) else {
        return Taken { is_last: true, ..Taken::default() };
    };
    let bit = pending.bits & pending.bits.wrapping_neg();
    pending.bits &= !bit;
    pending.queued = pending.bits != 0;
    Taken { generation: pending.generation, bit, is_last: !pending.queued }
}

impl Events {
    /// Adds an event unless it waits already.
    pub(crate) fn push(&mut self, event: Event) {
        let (owner, new) = match event {
            Event::TcpConnected(id) => self.note_tcp(id, CONNECTED),
            Event::TcpReadable(id) => self.note_tcp(id, READABLE),
            Event::TcpWritable(id) => self.note_tcp(id, WRITABLE),
            Event::TcpClosed(id) => self.note_tcp(id, CLOSED),
            Event::Acceptable(id) => (
                Owner::Listener(id.index()),
                note(&mut self.listeners, id.index(), id.generation(), READABLE),
            ),
            Event::UdpReadable(id) => self.note_udp(id, READABLE),
            Event::UdpWritable(id) => self.note_udp(id, WRITABLE),
            Event::AddressChanged => {
                (Owner::Engine, !core::mem::replace(&mut self.address_changed, true))
            }
        };
        if new {
            self.queue.push_back(owner);
        }
    }

    fn note_tcp(&mut self, id: TcpId, bit: u8) -> (Owner, bool) {
        (Owner::Tcp(id.index()), note(&mut self.tcp, id.index(), id.generation(), bit))
    }

    fn note_udp(&mut self, id: UdpId, bit: u8) -> (Owner, bool) {
        (Owner::Udp(id.index()), note(&mut self.udp, id.index(), id.generation(), bit))
    }

    /// Forgets the events of a connection that the program has released.
    pub(crate) fn forget_tcp(&mut self, id: TcpId) {
        if let Some(pending) = self.tcp.get_mut(id.index())
            && pending.generation == id.generation()
        {
            pending.bits = 0;
        }
    }

    /// Takes the next event.
    pub(crate) fn pop(&mut self) -> Option<Event> {
        while let Some(&owner) = self.queue.front() {
            let taken = match owner {
                Owner::Tcp(index) => take(&mut self.tcp, index),
                Owner::Listener(index) => take(&mut self.listeners, index),
                Owner::Udp(index) => take(&mut self.udp, index),
                Owner::Engine => Taken {
                    generation: 0,
                    bit: u8::from(core::mem::take(&mut self.address_changed)),
                    is_last: true,
                },
            };
            if taken.is_last {
                self.queue.pop_front();
            }
            if taken.bit == 0 {
                continue;
            }
            return Some(match owner {
                Owner::Tcp(index) => {
                    let id = TcpId::new(index as u32, taken.generation);
                    match taken.bit {
                        CONNECTED => Event::TcpConnected(id),
                        READABLE => Event::TcpReadable(id),
                        WRITABLE => Event::TcpWritable(id),
                        _ => Event::TcpClosed(id),
                    }
                }
                Owner::Listener(index) => {
                    Event::Acceptable(ListenerId::new(index as u32, taken.generation))
                }
                Owner::Udp(index) => {
                    let id = UdpId::new(index as u32, taken.generation);
                    if taken.bit == READABLE {
                        Event::UdpReadable(id)
                    } else {
                        Event::UdpWritable(id)
                    }
                }
                Owner::Engine => Event::AddressChanged,
            });
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_waits_once_however_often_it_happens() {
        let mut events = Events::default();
        let id = TcpId::new(3, 7);
        for _ in 0..1000 {
            events.push(Event::TcpReadable(id));
            events.push(Event::TcpClosed(id));
            events.push(Event::AddressChanged);
        }
        assert_eq!(events.queue.len(), 2);
        assert_eq!(events.pop(), Some(Event::TcpReadable(id)));
        assert_eq!(events.pop(), Some(Event::TcpClosed(id)));
        assert_eq!(events.pop(), Some(Event::AddressChanged));
        assert_eq!(events.pop(), None);
        events.push(Event::TcpReadable(id));
        assert_eq!(events.pop(), Some(Event::TcpReadable(id)));
        assert_eq!(events.pop(), None);
    }

    #[test]
    fn a_slot_that_is_used_again_does_not_get_its_predecessors_events() {
        let mut events = Events::default();
        for generation in 0..1000 {
            events.push(Event::UdpReadable(UdpId::new(0, generation)));
        }
        events.push(Event::UdpWritable(UdpId::new(0, 999)));
        assert_eq!(events.queue.len(), 1);
        assert_eq!(events.pop(), Some(Event::UdpReadable(UdpId::new(0, 999))));
        assert_eq!(events.pop(), Some(Event::UdpWritable(UdpId::new(0, 999))));
        assert_eq!(events.pop(), None);
    }

    #[test]
    fn a_released_connection_has_no_events() {
        let mut events = Events::default();
        events.push(Event::TcpReadable(TcpId::new(0, 1)));
        events.forget_tcp(TcpId::new(0, 0));
        events.forget_tcp(TcpId::new(0, 1));
        assert_eq!(events.pop(), None);
    }
}
