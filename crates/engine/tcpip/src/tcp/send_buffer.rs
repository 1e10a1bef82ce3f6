//! Bytes that the program wrote and the peer has not acknowledged.

use crate::tcp::memory::{Memory, Ring};

/// A queue of bytes; offset 0 is the oldest that is not acknowledged.
#[derive(Default)]
pub(crate) struct SendBuffer {
    ring: Ring,
    len: u32,
}

impl SendBuffer {
    /// Bytes in the queue.
    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    /// Bytes of memory held.
    pub(crate) const fn capacity(&self) -> usize {
        self.ring.capacity()
    }

    /// Takes as much of `data` as `limit`, which never exceeds `max`, and the memory allow; returns
    /// how much.
    pub(crate) fn append(
        &mut self,
        data: &[u8],
        limit: usize,
        max: usize,
        memory: &mut Memory,
    ) -> usize {
        let used = self.len as usize;
        let needed = used.saturating_add(data.len()).min(limit);
        // The limit moves; memory grows in doublings all the same.
        let room = self.ring.reserve(memory, needed, used, max).saturating_sub(used);
        self.ring.write_at(used, &data[..room]);
        self.len += room as u32;
        room
    }

    /// Copies bytes at `offset` out; all of them are in the queue.
    pub(crate) fn copy(&self, offset: u32, out: &mut [u8]) {
        debug_assert!(offset as usize + out.len() <= self.len as usize);
        self.ring.read_at(offset as usize, out);
    }

    /// Forgets the `count` oldest bytes; gives the memory back when none is left.
    pub(crate) fn acknowledge(&mut self, count: u32, memory: &mut Memory) {
        debug_assert!(count <= self.len);
        self.len -= count;
        if self.len == 0 {
            self.ring.release(memory);
        } else {
            self.ring.advance(count as usize);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self, memory: &mut Memory) {
        self.len = 0;
        self.ring.release(memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_the_order_they_came() {
        let mut memory = Memory::new(1 << 20);
        let mut buffer = SendBuffer::default();
        let (mut written, mut acknowledged) = (0u32, 0u32);
        for round in 0..2000u32 {
            let chunk: Vec<u8> = (0..round % 700).map(|i| (written + i) as u8).collect();
            written += buffer.append(&chunk, 5000, 5000, &mut memory) as u32;
            assert!(buffer.len() <= 5000 && buffer.capacity() <= 5000);
            let mut out = vec![0; buffer.len() as usize];
            buffer.copy(0, &mut out);
            assert!(out.iter().zip(acknowledged..).all(|(&byte, i)| byte == i as u8));
            let count = (round % 600).min(buffer.len());
            buffer.acknowledge(count, &mut memory);
            acknowledged += count;
        }
        buffer.clear(&mut memory);
        assert_eq!(memory.bytes(), 0);
        assert!(written > 100_000);
    }
}
