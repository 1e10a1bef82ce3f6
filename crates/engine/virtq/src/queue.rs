//! [`Queue`]: chains out, used chains back, and when to wake whom.

use crate::layout::{Layout, RingMemory};
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{Ordering, fence};

/// Descriptor flag: the chain goes on at `next` (virtio 1.2, section 2.7.5).
const DESC_F_NEXT: u16 = 1;
/// Descriptor flag: the device may write the buffer, and only write it.
const DESC_F_WRITE: u16 = 2;
/// Available-ring flag: no interrupts, please (section 2.7.7). Only without event index.
const AVAIL_F_NO_INTERRUPT: u16 = 1;
/// Used-ring flag: no notifications, please (section 2.7.10). Only without event index.
const USED_F_NO_NOTIFY: u16 = 1;

/// A piece of memory for the device: part of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<A> {
    /// Where it is.
    pub address: A,
    /// How many bytes it has.
    pub len: u32,
}

/// A chain that the device gave back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used<T> {
    /// What was given to [`Queue::add`].
    pub token: T,
    /// How many bytes the device says that it wrote, from the first writable byte of the chain on.
    /// At most as many as it may write. Whether it wrote them, nobody knows: before the chain was
    /// added they should have held nothing secret.
    pub written: u32,
}

/// The device broke a rule of the queue. Final: its memory of the queue and ours no longer agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceMisbehaved {
    /// The used index moved further than there are chains outstanding (or backwards).
    IndexTooFar {
        /// How far it moved past the last element seen.
        moved: u16,
        /// How many chains were outstanding.
        outstanding: u16,
    },
    /// A used element names a descriptor that the queue does not have.
    UnknownId {
        /// The id in the element.
        id: u32,
        /// Number of descriptors of the queue.
        size: u16,
    },
    /// A used element names a descriptor that is not the head of an outstanding chain: it was given
    /// back already, is in the middle of a chain, or was never offered.
    NotOutstanding {
        /// The id in the element.
        id: u16,
    },
    /// A used element says that more was written than may be.
    WroteTooMuch {
        /// How many bytes the element says.
        written: u32,
        /// How many bytes of the chain the device may write.
        writable: u32,
    },
}

impl fmt::Display for DeviceMisbehaved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceMisbehaved::IndexTooFar { moved, outstanding } => write!(
                f,
                "the used index moved by {moved} while {outstanding} chains were outstanding"
            ),
            DeviceMisbehaved::UnknownId { id, size } => {
                write!(f, "a used element names descriptor {id} of a queue of {size}")
            }
            DeviceMisbehaved::NotOutstanding { id } => {
                write!(f, "a used element names descriptor {id}, which heads no outstanding chain")
            }
            DeviceMisbehaved::WroteTooMuch { written, writable } => write!(
                f,
                "a used element says that {written} bytes were written where {writable} may be"
            ),
        }
    }
}

impl core::error::Error for DeviceMisbehaved {}

/// Why a chain was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejected {
    /// Too few descriptors are free at the moment.
    Full,
    /// The chain has no segment, an empty one, more segments than the queue has descriptors, or
    /// 2^32 bytes or more (virtio 1.2, section 2.7.5.2): it will never fit.
    Malformed,
    /// The device broke a rule before.
    Closed(DeviceMisbehaved),
}

/// A chain was not added; here is its token back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AddError<T> {
    /// Why.
    pub reason: Rejected,
    /// What was to be added.
    pub token: T,
}

impl<T> fmt::Debug for AddError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AddError({:?})", self.reason)
    }
}

/// The shadow of one descriptor.
struct Shadow<T> {
    /// Of a free descriptor: the next free one. Of one in a chain: the next in it. Of the last:
    /// meaningless.
    next: u16,
    /// Of a head: the chain's last descriptor.
    last: u16,
    /// Of a head: how many descriptors the chain has.
    count: u16,
    /// Of a head: how many bytes the device may write.
    writable: u32,
    /// Of the head of an outstanding chain, and of no other descriptor.
    token: Option<T>,
}

/// The driver's side of a split virtqueue. `T` is what a chain is known by: best the buffer itself,
/// so that it is owned by the queue for exactly as long as the device may use it.
pub struct Queue<M, T> {
    memory: M,
    layout: Layout,
    /// `VIRTIO_F_EVENT_IDX` was negotiated.
    event_index: bool,
    shadow: Vec<Shadow<T>>,
    /// First free descriptor; meaningless when `free_count` is 0.
    free_head: u16,
    free_count: u16,
    /// Chains added and not yet taken back. At most `size`.
    outstanding: u16,
    /// The available index: chains ever added, modulo 2^16.
    added: u16,
    /// What `added` was when it was last decided whether to notify.
    added_at_notification: u16,
    /// Elements of the used ring ever taken, modulo 2^16.
    taken: u16,
    /// The used index as last read and checked. `seen - taken` is at most `outstanding`.
    seen: u16,
    /// What stands in `used_event` (with event index) or in the available ring's flags.
    interrupt_word: u16,
    failed: Option<DeviceMisbehaved>,
}

impl<M: RingMemory, T> Queue<M, T> {
    /// A queue in `memory`, which is zeroed and holds `layout.len()` bytes. Interrupts are
    /// disabled. The device must not have been told of it yet.
    pub fn new(memory: M, layout: Layout, event_index: bool) -> Self {
        let size = layout.size();
        let shadow = (0..size)
            .map(|index| Shadow { next: index + 1, last: 0, count: 0, writable: 0, token: None })
            .collect();
        let mut queue = Queue {
            memory,
            layout,
            event_index,
            shadow,
            free_head: 0,
            free_count: size,
            outstanding: 0,
            added: 0,
            added_at_notification: 0,
            taken: 0,
            seen: 0,
            interrupt_word: 0,
            failed: None,
        };
        queue.disable_interrupts();
        queue
    }

    /// Number of descriptors.
    pub fn size(&self) -> u16 {
        self.layout.size()
    }

    /// Number of descriptors that no chain uses.
    pub fn free(&self) -> u16 {
        self.free_count
    }

    /// Number of chains that the device has.
    pub fn outstanding(&self) -> u16 {
        self.outstanding
    }

    /// The memory that the queue lies in.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Offers a chain to the device: first what it may read, then what it may write (virtio 1.2,
    /// section 2.7.4.2). The device may begin at once; call
    /// [`needs_notification`](Queue::needs_notification) after the last of a batch.
    ///
    /// # Errors
    /// [`AddError`], which gives the token back. Nothing has changed then.
    pub fn add(
        &mut self,
        readable: &[Segment<M::Address>],
        writable: &[Segment<M::Address>],
        token: T,
    ) -> Result<(), AddError<T>> {
        let (count, writable_bytes) = match self.admit(readable, writable) {
            Ok(admitted) => admitted,
            Err(reason) => return Err(AddError { reason, token }),
        };
        let head = self.free_head;
        let mut index = head;
        let mut last = head;
        let segments = readable
            .iter()
            .map(|segment| (segment, 0))
            .chain(writable.iter().map(|segment| (segment, DESC_F_WRITE)));
        for (position, (segment, direction)) in segments.enumerate() {
            let next = self.shadow[usize::from(index)].next;
            let more = position + 1 < usize::from(count);
            let place = self.layout.descriptor(index);
            self.memory.store_address(place, segment.address);
            self.memory.store_u32(place + 8, segment.len);
            self.memory.store_u16(place + 12, direction | if more { DESC_F_NEXT } else { 0 });
            self.memory.store_u16(place + 14, if more { next } else { 0 });
            last = index;
            index = next;
        }
        self.free_head = index;
        self.free_count -= count;
        let shadow = &mut self.shadow[usize::from(head)];
        shadow.last = last;
        shadow.count = count;
        shadow.writable = writable_bytes;
        shadow.token = Some(token);
        self.outstanding += 1;

        self.memory.store_u16(self.layout.available_element(self.added), head);
        self.added = self.added.wrapping_add(1);
        // The descriptors and the ring's element before the index (section 2.7.13.3.1).
        fence(Ordering::Release);
        self.memory.store_u16(self.layout.available_idx(), self.added);
        Ok(())
    }

    /// How many descriptors a chain takes and how many bytes of it are writable, if it fits.
    fn admit(
        &self,
        readable: &[Segment<M::Address>],
        writable: &[Segment<M::Address>],
    ) -> Result<(u16, u32), Rejected> {
        if let Some(failure) = self.failed {
            return Err(Rejected::Closed(failure));
        }
        let count = readable.len() + writable.len();
        if count == 0 || count > usize::from(self.layout.size()) {
            return Err(Rejected::Malformed);
        }
        let sum = |segments: &[Segment<M::Address>]| {
            segments.iter().try_fold(0u32, |sum, segment| {
                if segment.len == 0 { None } else { sum.checked_add(segment.len) }
            })
        };
        let (Some(readable_bytes), Some(writable_bytes)) = (sum(readable), sum(writable)) else {
            return Err(Rejected::Malformed);
        };
        if readable_bytes.checked_add(writable_bytes).is_none() {
            return Err(Rejected::Malformed);
        }
        let count = count as u16;
        if count > self.free_count {
            return Err(Rejected::Full);
        }
        Ok((count, writable_bytes))
    }

    /// True if the device must be notified of the chains added since this was last asked (virtio
    /// 1.2, sections 2.7.10 and 2.7.13.4.1). To be asked once per batch; the answer counts once.
    pub fn needs_notification(&mut self) -> bool {
        let new = self.added;
        let old = core::mem::replace(&mut self.added_at_notification, new);
        if new == old {
            return false;
        }
        // The device may be about to sleep: it writes its wish, then looks at the available index
        // again. So the index must be out before the wish is read.
        fence(Ordering::SeqCst);
        if self.event_index {
            let event = self.memory.load_u16(self.layout.avail_event());
            // The wish is among the indices that were passed since the last decision.
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            self.memory.load_u16(self.layout.used_flags()) & USED_F_NO_NOTIFY == 0
        }
    }

    /// The next chain that the device gave back, if any.
    ///
    /// # Errors
    /// [`DeviceMisbehaved`], again at every later call.
    pub fn take_used(&mut self) -> Result<Option<Used<T>>, DeviceMisbehaved> {
        if let Some(failure) = self.failed {
            return Err(failure);
        }
        match self.take_checked() {
            Ok(used) => Ok(used),
            Err(failure) => {
                self.failed = Some(failure);
                Err(failure)
            }
        }
    }

    fn take_checked(&mut self) -> Result<Option<Used<T>>, DeviceMisbehaved> {
        if self.taken == self.seen {
            let index = self.memory.load_u16(self.layout.used_idx());
            if index == self.seen {
                return Ok(None);
            }
            // The elements, and what the device wrote to buffers, after the index (section 2.7.14).
            fence(Ordering::Acquire);
            let moved = index.wrapping_sub(self.taken);
            if moved > self.outstanding {
                let outstanding = self.outstanding;
                return Err(DeviceMisbehaved::IndexTooFar { moved, outstanding });
            }
            self.seen = index;
        }
        let element = self.layout.used_element(self.taken);
        let id = self.memory.load_u32(element);
        let written = self.memory.load_u32(element + 4);
        let size = self.layout.size();
        if id >= u32::from(size) {
            return Err(DeviceMisbehaved::UnknownId { id, size });
        }
        let head = id as u16;
        let shadow = &mut self.shadow[usize::from(head)];
        let writable = shadow.writable;
        if shadow.token.is_some() && written > writable {
            return Err(DeviceMisbehaved::WroteTooMuch { written, writable });
        }
        let Some(token) = shadow.token.take() else {
            return Err(DeviceMisbehaved::NotOutstanding { id: head });
        };
        let (last, count) = (shadow.last, shadow.count);
        self.taken = self.taken.wrapping_add(1);
        self.release(head, last, count);
        Ok(Some(Used { token, written }))
    }

    /// Puts a chain in front of the free list: what was used last is warm in the cache.
    fn release(&mut self, head: u16, last: u16, count: u16) {
        self.shadow[usize::from(last)].next = self.free_head;
        self.free_head = head;
        self.free_count += count;
        self.outstanding -= 1;
    }

    /// True if the device gave something back that was not taken yet (or broke the rules, which
    /// taking it will tell).
    pub fn has_used(&self) -> bool {
        self.taken != self.seen || self.memory.load_u16(self.layout.used_idx()) != self.seen
    }

    /// Asks for an interrupt when the device gives the next chain back. True if it did already:
    /// then there may be no interrupt, and the caller must take what is there before it sleeps
    /// (virtio 1.2, section 2.7.14).
    #[must_use = "sleeping while something is there loses a wake-up"]
    pub fn enable_interrupts(&mut self) -> bool {
        self.enable_interrupts_after(1)
    }

    /// As [`enable_interrupts`](Queue::enable_interrupts), but only when `count` chains more have
    /// been given back (1 to all that are outstanding), if the device can do that; if not, at the
    /// next one.
    #[must_use = "sleeping while something is there loses a wake-up"]
    pub fn enable_interrupts_after(&mut self, count: u16) -> bool {
        let count = count.clamp(1, self.outstanding.max(1));
        let count = if self.event_index { count } else { 1 };
        self.set_interrupt_word(if self.event_index {
            self.taken.wrapping_add(count - 1)
        } else {
            0
        });
        // The device writes the used index, then reads the wish. So the wish must be out before
        // the index is read for the last time.
        fence(Ordering::SeqCst);
        let index = self.memory.load_u16(self.layout.used_idx());
        index.wrapping_sub(self.taken) >= count
    }

    /// Asks for no interrupts. A hint: one may come all the same.
    pub fn disable_interrupts(&mut self) {
        self.set_interrupt_word(if self.event_index {
            // An index that was passed already; it comes round after 65,536 chains.
            self.taken.wrapping_sub(1)
        } else {
            AVAIL_F_NO_INTERRUPT
        });
    }

    fn set_interrupt_word(&mut self, word: u16) {
        if word == self.interrupt_word {
            return;
        }
        self.interrupt_word = word;
        let place =
            if self.event_index { self.layout.used_event() } else { self.layout.available_flags() };
        self.memory.store_u16(place, word);
    }

    /// Takes the queue apart: its memory, and the tokens of all chains that the device has. To be
    /// called when the device was reset; otherwise the tokens must be kept from being freed.
    pub fn dismantle(self) -> (M, Vec<T>) {
        let tokens = self.shadow.into_iter().filter_map(|shadow| shadow.token).collect();
        (self.memory, tokens)
    }
}

impl<M, T> fmt::Debug for Queue<M, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("size", &self.layout.size())
            .field("free", &self.free_count)
            .field("outstanding", &self.outstanding)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}
