//! Byte rings: a stream of bytes in shared memory, one direction.
//!
//! The console (`io/console.h`), XenStore (`io/xs_wire.h`) and vchan (`io/libxenvchan.h`) all use
//! the same one: a power of two of bytes, the writer's count of bytes ever written (`prod`) and the
//! reader's count of bytes ever read (`cons`), both modulo 2³². Each end owns one count and keeps
//! what it wrote there in private; the other's is loaded once per call and checked against the two
//! things that must hold whatever the other end does: there is never more in the ring than fits,
//! and a count never goes back. A count that breaks one of them is an [`IndexError`].
//!
//! What the bytes say is the reader's to check. They may even change between two reads of them,
//! which is why [`Reader::read`] copies each of them once and never looks again.

use crate::Memory;
use core::fmt;
use core::sync::atomic::{Ordering, fence};

/// Where a ring lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Offset of the writer's count in the memory with the counts.
    pub prod: usize,
    /// Offset of the reader's count in the memory with the counts.
    pub cons: usize,
    /// Offset of the first byte in the memory with the data.
    pub data: usize,
    /// Size of the ring in bytes: a power of two, at most 2³¹.
    pub size: u32,
}

impl Layout {
    /// From the guest to XenStore (`xenstore_domain_interface.req`).
    pub const XENSTORE_REQUESTS: Layout = Layout { prod: 2052, cons: 2048, data: 0, size: 1024 };
    /// From XenStore to the guest (`xenstore_domain_interface.rsp`).
    pub const XENSTORE_RESPONSES: Layout =
        Layout { prod: 2060, cons: 2056, data: 1024, size: 1024 };
    /// What is typed at the guest's console (`xencons_interface.in`).
    pub const CONSOLE_IN: Layout = Layout { prod: 3076, cons: 3072, data: 0, size: 1024 };
    /// What the guest prints (`xencons_interface.out`).
    pub const CONSOLE_OUT: Layout = Layout { prod: 3084, cons: 3080, data: 1024, size: 2048 };
}

/// The other end wrote a count that cannot be. Final: the ring is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexError {
    /// The reader at the other end says that it read what was never written, or gave bytes back.
    Consumer {
        /// What it wrote.
        cons: u32,
        /// What it had written before.
        before: u32,
        /// Bytes written so far.
        prod: u32,
    },
    /// The writer at the other end says that it wrote more than fits, or took bytes back.
    Producer {
        /// What it wrote.
        prod: u32,
        /// What it had written before.
        before: u32,
        /// Bytes read so far.
        cons: u32,
        /// Size of the ring.
        size: u32,
    },
}

impl fmt::Display for IndexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            IndexError::Consumer { cons, before, prod } => write!(
                f,
                "its cons is {cons}, which is not between the {before} of before and the {prod} \
                 bytes that were written"
            ),
            IndexError::Producer { prod, before, cons, size } => write!(
                f,
                "its prod is {prod}, after {before} before, with {cons} bytes read and a ring of \
                 {size}"
            ),
        }
    }
}

impl core::error::Error for IndexError {}

/// The end that writes.
///
/// Invariant: `cons ≤ prod ≤ cons + size` (wrapping).
#[derive(Debug)]
pub struct Writer {
    layout: Layout,
    prod: u32,
    /// The last that the reader announced and that was found possible.
    cons: u32,
}

impl Writer {
    /// Takes up the ring where its counts stand: nobody but us changed `prod` so far, and a ring
    /// may have been used by another part of this machine before.
    ///
    /// # Panics
    /// If the layout does not fit into the memory.
    pub fn attach(counts: &impl Memory, layout: Layout) -> Self {
        assert!(layout.size.is_power_of_two(), "a ring of {} bytes", layout.size);
        let prod = counts.load_u32(layout.prod);
        let cons = counts.load_u32(layout.cons);
        // A reader that lies here already is found at the first look.
        let cons = if prod.wrapping_sub(cons) > layout.size {
            prod.wrapping_sub(layout.size)
        } else {
            cons
        };
        Writer { layout, prod, cons }
    }

    /// How many bytes can be written now. Loads the reader's count.
    ///
    /// # Errors
    /// [`IndexError::Consumer`].
    pub fn space(&mut self, counts: &impl Memory) -> Result<usize, IndexError> {
        let cons = counts.load_u32(self.layout.cons);
        let used = self.prod.wrapping_sub(cons);
        if used > self.prod.wrapping_sub(self.cons) {
            return Err(IndexError::Consumer { cons, before: self.cons, prod: self.prod });
        }
        // The reader's loads of the bytes come before our stores over them.
        fence(Ordering::Acquire);
        self.cons = cons;
        Ok((self.layout.size - used) as usize)
    }

    /// Writes as many of `bytes` as fit and announces them; returns how many.
    ///
    /// # Errors
    /// [`IndexError::Consumer`]: nothing was written.
    pub fn write(
        &mut self,
        counts: &impl Memory,
        data: &impl Memory,
        bytes: &[u8],
    ) -> Result<usize, IndexError> {
        // A look at the other end's cache line only if what is known does not suffice.
        let known = (self.layout.size - self.prod.wrapping_sub(self.cons)) as usize;
        let space = if known >= bytes.len() { known } else { self.space(counts)? };
        let bytes = &bytes[..bytes.len().min(space)];
        if bytes.is_empty() {
            return Ok(0);
        }
        let (at, until_end) = place(&self.layout, self.prod);
        let (first, rest) = bytes.split_at(bytes.len().min(until_end));
        data.copy_in(at, first);
        if !rest.is_empty() {
            data.copy_in(self.layout.data, rest);
        }
        self.prod = self.prod.wrapping_add(bytes.len() as u32);
        // The bytes before the count that announces them.
        fence(Ordering::Release);
        counts.store_u32(self.layout.prod, self.prod);
        Ok(bytes.len())
    }
}

/// The end that reads.
///
/// Invariant: `cons ≤ prod ≤ cons + size` (wrapping).
#[derive(Debug)]
pub struct Reader {
    layout: Layout,
    cons: u32,
    /// The last that the writer announced and that was found possible.
    prod: u32,
}

impl Reader {
    /// Takes up the ring where its counts stand, as [`Writer::attach`].
    ///
    /// # Panics
    /// If the layout does not fit into the memory.
    pub fn attach(counts: &impl Memory, layout: Layout) -> Self {
        assert!(layout.size.is_power_of_two(), "a ring of {} bytes", layout.size);
        let cons = counts.load_u32(layout.cons);
        Reader { layout, cons, prod: cons }
    }

    /// How many bytes can be read now. Loads the writer's count.
    ///
    /// # Errors
    /// [`IndexError::Producer`].
    pub fn available(&mut self, counts: &impl Memory) -> Result<usize, IndexError> {
        let prod = counts.load_u32(self.layout.prod);
        let available = prod.wrapping_sub(self.cons);
        if available > self.layout.size || available < self.prod.wrapping_sub(self.cons) {
            return Err(IndexError::Producer {
                prod,
                before: self.prod,
                cons: self.cons,
                size: self.layout.size,
            });
        }
        // The count before the bytes that it announces.
        fence(Ordering::Acquire);
        self.prod = prod;
        Ok(available as usize)
    }

    /// How many of the bytes that were there at the last look have not been read. Loads nothing.
    pub fn known(&self) -> usize {
        self.prod.wrapping_sub(self.cons) as usize
    }

    /// Reads up to `into.len()` bytes and gives their room back to the writer; returns how many.
    ///
    /// # Errors
    /// [`IndexError::Producer`]: nothing was read.
    pub fn read(
        &mut self,
        counts: &impl Memory,
        data: &impl Memory,
        into: &mut [u8],
    ) -> Result<usize, IndexError> {
        let known = self.known();
        let available = if known >= into.len() { known } else { self.available(counts)? };
        let count = into.len().min(available);
        let (into, _) = into.split_at_mut(count);
        if into.is_empty() {
            return Ok(0);
        }
        let (at, until_end) = place(&self.layout, self.cons);
        let (first, rest) = into.split_at_mut(count.min(until_end));
        data.copy_out(at, first);
        if !rest.is_empty() {
            data.copy_out(self.layout.data, rest);
        }
        self.cons = self.cons.wrapping_add(count as u32);
        // All loads of the bytes before the count that gives them up.
        fence(Ordering::Release);
        counts.store_u32(self.layout.cons, self.cons);
        Ok(count)
    }
}

/// Where the byte with this number lies, and how many there are from it to the ring's end.
fn place(layout: &Layout, count: u32) -> (usize, usize) {
    let at = count & (layout.size - 1);
    (layout.data + at as usize, (layout.size - at) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::simulation::SharedMemory;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::string::ToString;
    use std::vec;
    use std::vec::Vec;

    const LAYOUT: Layout = Layout { prod: 0, cons: 4, data: 8, size: 64 };

    fn ring(start: u32) -> (SharedMemory, Writer, Reader) {
        let memory = SharedMemory::new(8 + 64);
        memory.store_u32(LAYOUT.prod, start);
        memory.store_u32(LAYOUT.cons, start);
        let writer = Writer::attach(&memory, LAYOUT);
        let reader = Reader::attach(&memory, LAYOUT);
        (memory, writer, reader)
    }

    #[test]
    fn layouts_lie_in_a_page_and_do_not_overlap() {
        let pages = [
            [Layout::XENSTORE_REQUESTS, Layout::XENSTORE_RESPONSES],
            [Layout::CONSOLE_IN, Layout::CONSOLE_OUT],
        ];
        for page in pages {
            let mut used = vec![false; 4096];
            for layout in page {
                let size = layout.size as usize;
                for range in [(layout.data, size), (layout.prod, 4), (layout.cons, 4)] {
                    for byte in &mut used[range.0..range.0 + range.1] {
                        assert!(!*byte, "{layout:?} overlaps");
                        *byte = true;
                    }
                }
            }
        }
    }

    #[test]
    fn a_full_ring_takes_nothing_and_an_empty_one_gives_nothing() {
        let (memory, mut writer, mut reader) = ring(0);
        let mut bytes = [0; 100];
        assert_eq!(reader.read(&memory, &memory, &mut bytes), Ok(0));
        assert_eq!(writer.write(&memory, &memory, &[7; 100]), Ok(64));
        assert_eq!(writer.write(&memory, &memory, &[8; 100]), Ok(0));
        assert_eq!(writer.space(&memory), Ok(0));
        assert_eq!(reader.read(&memory, &memory, &mut bytes), Ok(64));
        assert_eq!(bytes[..64], [7; 64]);
        assert_eq!(reader.available(&memory), Ok(0));
        assert_eq!(writer.space(&memory), Ok(64));
    }

    #[test]
    fn a_ring_is_taken_up_where_it_stands() {
        let (memory, mut writer, _) = ring(u32::MAX - 3);
        assert_eq!(writer.write(&memory, &memory, b"left by the loader"), Ok(18));
        let mut writer = Writer::attach(&memory, LAYOUT);
        let mut reader = Reader::attach(&memory, LAYOUT);
        assert_eq!(writer.write(&memory, &memory, b", and ours"), Ok(10));
        let mut bytes = [0; 64];
        assert_eq!(reader.read(&memory, &memory, &mut bytes), Ok(28));
        assert_eq!(&bytes[..28], b"left by the loader, and ours");
    }

    #[test]
    fn a_reader_that_lies_is_named() {
        for lie in [1_u32, 1000, u32::MAX] {
            let (memory, mut writer, _) = ring(0);
            memory.store_u32(LAYOUT.cons, lie);
            let error = writer.space(&memory).expect_err("nothing was written yet");
            assert!(error.to_string().contains("cons"), "{error}");
        }
        let (memory, mut writer, mut reader) = ring(10);
        writer.write(&memory, &memory, &[1; 20]).expect("room");
        reader.read(&memory, &memory, &mut [0; 20]).expect("bytes");
        assert_eq!(writer.space(&memory), Ok(64));
        memory.store_u32(LAYOUT.cons, 15);
        let back = IndexError::Consumer { cons: 15, before: 30, prod: 30 };
        assert_eq!(writer.space(&memory), Err(back));
        assert_eq!(writer.write(&memory, &memory, &[0; 65]), Err(back));
    }

    #[test]
    fn a_writer_that_lies_is_named() {
        for lie in [65_u32, 1000, u32::MAX] {
            let (memory, _, mut reader) = ring(0);
            memory.store_u32(LAYOUT.prod, lie);
            let error = reader.available(&memory).expect_err("does not fit");
            assert_eq!(error, IndexError::Producer { prod: lie, before: 0, cons: 0, size: 64 });
        }
        let (memory, mut writer, mut reader) = ring(0);
        writer.write(&memory, &memory, &[1; 20]).expect("room");
        assert_eq!(reader.available(&memory), Ok(20));
        memory.store_u32(LAYOUT.prod, 5);
        assert!(reader.available(&memory).is_err(), "bytes were taken back");
    }

    #[test]
    fn a_count_that_was_wrong_from_the_beginning_is_found() {
        let memory = SharedMemory::new(8 + 64);
        memory.store_u32(LAYOUT.prod, 0);
        memory.store_u32(LAYOUT.cons, 77);
        assert!(Writer::attach(&memory, LAYOUT).space(&memory).is_err());
        assert!(Reader::attach(&memory, LAYOUT).available(&memory).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_in_order(
            start: u32,
            steps in prop::collection::vec((any::<bool>(), 0_usize..100), 0..200),
        ) {
            let (memory, mut writer, mut reader) = ring(start);
            let (mut model, mut next) = (VecDeque::new(), 0_u8);
            for (write, count) in steps {
                if write {
                    let bytes: Vec<u8> =
                        (0..count).map(|at| next.wrapping_add(at as u8)).collect();
                    let written = writer.write(&memory, &memory, &bytes).unwrap();
                    prop_assert_eq!(written, count.min(64 - model.len()));
                    next = next.wrapping_add(written as u8);
                    model.extend(&bytes[..written]);
                } else {
                    let mut bytes = vec![0; count];
                    let read = reader.read(&memory, &memory, &mut bytes).unwrap();
                    prop_assert_eq!(read, count.min(model.len()));
                    let expected: Vec<u8> = model.drain(..read).collect();
                    prop_assert_eq!(&bytes[..read], &expected[..]);
                }
                prop_assert_eq!(writer.space(&memory), Ok(64 - model.len()));
            }
        }

        /// Whatever stands in the counts, nothing panics, and no more is read than the ring holds.
        #[test]
        fn wild_counts_do_no_harm(
            start: u32,
            lies in prop::collection::vec((any::<bool>(), any::<u32>(), 0_usize..200), 0..50),
        ) {
            let (memory, mut writer, mut reader) = ring(start);
            for (of_reader, lie, count) in lies {
                memory.store_u32(if of_reader { LAYOUT.cons } else { LAYOUT.prod }, lie);
                prop_assert!(writer.space(&memory).is_ok_and(|space| space <= 64)
                    || writer.space(&memory).is_err());
                if let Ok(written) = writer.write(&memory, &memory, &vec![1; count]) {
                    prop_assert!(written <= 64);
                }
                if let Ok(read) = reader.read(&memory, &memory, &mut vec![0; count]) {
                    prop_assert!(read <= 64);
                }
            }
        }
    }
}
