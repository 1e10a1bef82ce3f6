//! vchan: a stream of bytes each way between two domains, in memory that they share (Xen's
//! `io/libxenvchan.h`). Nobody is between them: no backend, no packets, no checksums.
//!
//! The server grants one page, the *interface*, and says in it where the two rings lie: *left* is
//! what the client writes, *right* what the server writes. A ring of 1 or 2 KiB lies in the
//! interface itself, a larger one in pages of its own, whose grants stand in the interface.
//!
//! ```text
//!    0 left.cons   4 left.prod   8 right.cons  12 right.prod
//!   16 left_order 18 right_order 20 cli_live 21 srv_live 22 cli_notify 23 srv_notify  24 grants[]
//! ```
//!
//! **Notifications** go over one event channel, and only when they are asked for: `cli_notify` says
//! of what the server wants to hear from the client, `srv_notify` the other way round. Who asks sets
//! a bit and looks again before it sleeps; who does what was asked for takes the bit away and
//! notifies. [`Endpoint`] keeps these rules: its methods say when to notify and when to sleep.
//!
//! **The end.** Each side has a byte that says it is there. There is no closing of one direction:
//! who leaves can no longer be written to, but what it wrote can still be read.

use crate::Memory;
use crate::ring::bytes::{IndexError, Layout, Reader, Writer};
use alloc::vec::Vec;
use core::fmt;

const LEFT: (usize, usize) = (4, 0);
const RIGHT: (usize, usize) = (12, 8);
const LEFT_ORDER: usize = 16;
const RIGHT_ORDER: usize = 18;
const CLI_LIVE: usize = 20;
const SRV_LIVE: usize = 21;
const CLI_NOTIFY: usize = 22;
const SRV_NOTIFY: usize = 23;
const GRANTS: usize = 24;

/// `VCHAN_NOTIFY_WRITE`: notify when data was written.
const NOTIFY_WRITE: u8 = 1;
/// `VCHAN_NOTIFY_READ`: notify when data was read.
const NOTIFY_READ: u8 = 2;

/// The side has left, or is not there any more.
const LIVE_GONE: u8 = 0;
/// The side is there.
const LIVE_HERE: u8 = 1;
/// The client has not come yet.
const LIVE_AWAITED: u8 = 2;

const PAGE_BYTES: usize = 4096;
/// Order of a page: rings from here on have pages of their own.
const PAGE_ORDER: u16 = 12;
/// The smallest ring: 1 KiB, in the interface at 1024.
const SMALL_ORDER: u16 = 10;
/// The largest ring that libvchan makes or maps (`MAX_RING_SHIFT`): 1 MiB. Two of them have as many
/// grants as fit into the interface.
pub const ORDER_MAX: u16 = 20;

/// Which end this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The end that maps; writes left, reads right.
    Client,
    /// The end that grants; writes right, reads left.
    Server,
}

impl Side {
    /// Offset of this side's live byte.
    const fn live(self) -> usize {
        match self {
            Side::Client => CLI_LIVE,
            Side::Server => SRV_LIVE,
        }
    }

    /// Offset of what the other side wants to hear of from this one.
    const fn notify(self) -> usize {
        match self {
            Side::Client => CLI_NOTIFY,
            Side::Server => SRV_NOTIFY,
        }
    }

    const fn other(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Client => "the vchan client",
            Side::Server => "the vchan server",
        })
    }
}

/// The other end broke a rule. Final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VchanError {
    /// With a count of bytes.
    Index {
        /// Who.
        who: Side,
        /// What it wrote.
        error: IndexError,
    },
    /// The server says that there are rings of 2 to the power of these; they have to be from 1 KiB
    /// to 1 MiB, and only one of each can be of 1 KiB or 2 KiB.
    Orders {
        /// Of the ring that the client writes.
        left: u16,
        /// Of the ring that the server writes.
        right: u16,
    },
}

impl fmt::Display for VchanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VchanError::Index { who, error } => {
                write!(f, "{who} broke the rules of its ring: {error}")
            }
            VchanError::Orders { left, right } => {
                write!(f, "the vchan server offers rings of 2^{left} and 2^{right} bytes")
            }
        }
    }
}

impl core::error::Error for VchanError {}

/// The sizes of the two rings, as powers of two of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orders {
    left: u16,
    right: u16,
}

impl Orders {
    /// Rings of these orders.
    ///
    /// # Errors
    /// [`VchanError::Orders`] if there are no such rings.
    pub const fn new(left: u16, right: u16) -> Result<Self, VchanError> {
        let error = VchanError::Orders { left, right };
        if left < SMALL_ORDER || right < SMALL_ORDER || left > ORDER_MAX || right > ORDER_MAX {
            return Err(error);
        }
        if left < PAGE_ORDER && left == right {
            return Err(error);
        }
        Ok(Orders { left, right })
    }

    /// The smallest rings in which so many bytes find room, at most 1 MiB each.
    pub fn for_bytes(left: usize, right: usize) -> Self {
        let order = |bytes: usize| {
            let bytes = bytes.clamp(1 << SMALL_ORDER, 1 << ORDER_MAX);
            bytes.next_power_of_two().ilog2() as u16
        };
        let (left, right) = (order(left), order(right));
        // Only one of them can have the same place in the interface.
        let right = if left < PAGE_ORDER && left == right { PAGE_ORDER } else { right };
        Orders { left, right }
    }

    /// Pages of their own that the left and the right ring have.
    pub const fn pages(&self) -> (usize, usize) {
        (Self::pages_of(self.left), Self::pages_of(self.right))
    }

    /// Sizes of the left and the right ring in bytes.
    pub const fn bytes(&self) -> (usize, usize) {
        (1 << self.left, 1 << self.right)
    }

    const fn pages_of(order: u16) -> usize {
        if order < PAGE_ORDER { 0 } else { 1 << (order - PAGE_ORDER) }
    }

    const fn layout(order: u16, (prod, cons): (usize, usize)) -> Layout {
        // 1 KiB at 1024, 2 KiB at 2048, larger ones at the beginning of their own pages.
        let data = if order < PAGE_ORDER { 1 << order } else { 0 };
        Layout { prod, cons, data, size: 1 << order }
    }
}

/// Writes the interface, before the client may know of it: the server is there, the client is
/// awaited. `left` and `right` are the grants of the rings' own pages.
///
/// # Panics
/// If the interface is no page, or the grants are not as many as [`Orders::pages`] says.
pub fn format(interface: &impl Memory, orders: Orders, left: &[u32], right: &[u32]) {
    assert_eq!(interface.len(), PAGE_BYTES, "the interface is a page");
    assert_eq!((left.len(), right.len()), orders.pages(), "a grant for each page");
    for at in (0..PAGE_BYTES).step_by(8) {
        interface.store_u64(at, 0);
    }
    interface.store_u16(LEFT_ORDER, orders.left);
    interface.store_u16(RIGHT_ORDER, orders.right);
    for (at, grant) in left.iter().chain(right).enumerate() {
        interface.store_u32(GRANTS + 4 * at, *grant);
    }
    interface.store_u8(CLI_LIVE, LIVE_AWAITED);
    interface.store_u8(SRV_LIVE, LIVE_HERE);
    // So that the server hears of a client that comes and writes.
    interface.store_u8(CLI_NOTIFY, NOTIFY_WRITE);
}

/// What an interface says of its rings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The rings' sizes.
    pub orders: Orders,
    /// Grants of the left ring's own pages.
    pub left: Vec<u32>,
    /// Grants of the right ring's own pages.
    pub right: Vec<u32>,
}

impl Description {
    /// Reads an interface that the server granted, each word once. At most 512 grants.
    ///
    /// # Errors
    /// [`VchanError::Orders`].
    ///
    /// # Panics
    /// If the interface is no page.
    pub fn read(interface: &impl Memory) -> Result<Self, VchanError> {
        assert_eq!(interface.len(), PAGE_BYTES, "the interface is a page");
        let orders = Orders::new(interface.load_u16(LEFT_ORDER), interface.load_u16(RIGHT_ORDER))?;
        let (left, right) = orders.pages();
        let grant = |at| interface.load_u32(GRANTS + 4 * at);
        Ok(Description {
            orders,
            left: (0..left).map(grant).collect(),
            right: (left..left + right).map(grant).collect(),
        })
    }
}

/// True if the server of this interface is there: one that has left leaves its keys behind, if it
/// had no time to take them away, and perhaps its pages.
///
/// # Panics
/// If the interface is no page.
pub fn is_offered(interface: &impl Memory) -> bool {
    assert_eq!(interface.len(), PAGE_BYTES, "the interface is a page");
    interface.load_u8(SRV_LIVE) != LIVE_GONE
}

/// What came of an attempt to read or to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many bytes, at least one; if `notify`, the other end waits for just this.
    Bytes {
        /// How many.
        count: usize,
        /// Notify the other end.
        notify: bool,
    },
    /// Nothing can be done now. The other end was asked to notify when that changes.
    Wait,
    /// The other end has left. When reading: and everything that it wrote was read.
    Gone,
}

/// One end of a vchan.
#[derive(Debug)]
pub struct Endpoint<I, D> {
    side: Side,
    interface: I,
    /// Memory of the ring that we read, and of the one that we write; `None`: in the interface.
    read_data: Option<D>,
    write_data: Option<D>,
    reader: Reader,
    writer: Writer,
    read_size: usize,
}

impl<I: Memory, D: Memory> Endpoint<I, D> {
    /// An end over an interface that was [formatted](format) or [described](Description::read) with
    /// these orders, and the memory of the rings that have their own. A client becomes visible to
    /// the server, and notifies it afterwards.
    ///
    /// # Panics
    /// If the memory is not as large as the orders say.
    pub fn new(
        side: Side,
        orders: Orders,
        interface: I,
        left: Option<D>,
        right: Option<D>,
    ) -> Self {
        let fits = |data: &Option<D>, order| {
            data.as_ref().map_or(0, Memory::len) == Orders::pages_of(order) * PAGE_BYTES
        };
        assert!(fits(&left, orders.left) && fits(&right, orders.right), "the rings' own pages");
        let left_layout = Orders::layout(orders.left, LEFT);
        let right_layout = Orders::layout(orders.right, RIGHT);
        let (read_layout, write_layout, read_data, write_data) = match side {
            Side::Client => (right_layout, left_layout, right, left),
            Side::Server => (left_layout, right_layout, left, right),
        };
        let reader = Reader::attach(&interface, read_layout);
        let writer = Writer::attach(&interface, write_layout);
        if side == Side::Client {
            interface.store_u8(SRV_NOTIFY, NOTIFY_WRITE);
            interface.barrier();
            interface.store_u8(CLI_LIVE, LIVE_HERE);
        }
        let read_size = read_layout.size as usize;
        Endpoint { side, interface, read_data, write_data, reader, writer, read_size }
    }

    /// True once the other end was there, even if it has left since.
    pub fn has_met(&self) -> bool {
        self.interface.load_u8(self.side.other().live()) != LIVE_AWAITED
    }

    /// True if the other end has left.
    pub fn is_peer_gone(&self) -> bool {
        // Whatever else stands there: only one value says that it left.
        self.interface.load_u8(self.side.other().live()) == LIVE_GONE
    }

    /// Reads up to `into.len()` bytes.
    ///
    /// # Errors
    /// [`VchanError::Index`].
    pub fn read(&mut self, into: &mut [u8]) -> Result<Progress, VchanError> {
        if into.is_empty() {
            return Ok(Progress::Bytes { count: 0, notify: false });
        }
        let mut count = self.read_some(into)?;
        if count == 0 {
            // Ask, then look whether the other end is there, then look again: what it wrote
            // before it left, or before it saw that we ask, is found.
            self.interface.fetch_or_u8(self.side.other().notify(), NOTIFY_WRITE);
            let is_gone = self.is_peer_gone();
            count = self.read_some(into)?;
            if count == 0 {
                return Ok(if is_gone { Progress::Gone } else { Progress::Wait });
            }
        }
        // A writer that waits is worth waking when it can write much at once: half a ring. It
        // comes to that, since we read on before we sleep.
        let is_worth = self.reader.known() <= self.read_size / 2;
        Ok(Progress::Bytes { count, notify: is_worth && self.take_wish(NOTIFY_READ) })
    }

    /// Writes as many of `bytes` as there is room for.
    ///
    /// # Errors
    /// [`VchanError::Index`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<Progress, VchanError> {
        if self.is_peer_gone() {
            return Ok(Progress::Gone);
        }
        if bytes.is_empty() {
            return Ok(Progress::Bytes { count: 0, notify: false });
        }
        let mut count = self.write_some(bytes)?;
        if count == 0 {
            self.interface.fetch_or_u8(self.side.other().notify(), NOTIFY_READ);
            count = self.write_some(bytes)?;
            if count == 0 {
                // It may have left between the first look and the wish.
                return Ok(if self.is_peer_gone() { Progress::Gone } else { Progress::Wait });
            }
        }
        Ok(Progress::Bytes { count, notify: self.take_wish(NOTIFY_WRITE) })
    }

    /// Leaves. The other end is to be notified, always: it may wait for anything.
    pub fn leave(&mut self) {
        self.interface.barrier();
        self.interface.store_u8(self.side.live(), LIVE_GONE);
        self.interface.barrier();
    }

    /// The memory of the interface and of the rings that have their own.
    pub fn into_memory(self) -> (I, [Option<D>; 2]) {
        (self.interface, [self.read_data, self.write_data])
    }

    fn read_some(&mut self, into: &mut [u8]) -> Result<usize, VchanError> {
        let read = match &self.read_data {
            Some(data) => self.reader.read(&self.interface, data, into),
            None => self.reader.read(&self.interface, &self.interface, into),
        };
        read.map_err(|error| VchanError::Index { who: self.side.other(), error })
    }

    fn write_some(&mut self, bytes: &[u8]) -> Result<usize, VchanError> {
        let written = match &self.write_data {
            Some(data) => self.writer.write(&self.interface, data, bytes),
            None => self.writer.write(&self.interface, &self.interface, bytes),
        };
        written.map_err(|error| VchanError::Index { who: self.side.other(), error })
    }

    /// True if the other end asked to hear of this, once for each time that it asked.
    fn take_wish(&self, bit: u8) -> bool {
        let at = self.side.notify();
        // Our count before the look at the wish: the other end wishes, and then looks at the count.
        self.interface.barrier();
        // Usually nobody waits, and a look costs less than taking the cache line.
        self.interface.load_u8(at) & bit != 0 && self.interface.fetch_and_u8(at, !bit) & bit != 0
    }
}

#[cfg(test)]
mod tests;
