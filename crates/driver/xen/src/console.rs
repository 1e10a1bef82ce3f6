//! [`Console`]: the first console of a guest, which `xl console` shows and types into
//! (`io/console.h`).
//!
//! xenconsoled reads our output when it pleases, and may never do so. So writing never waits: what
//! the ring does not take is kept, up to a bound, and what is beyond the bound is dropped and
//! counted. Input that nobody reads stays in the ring.

use crate::XenError;
use crate::memory::Shared;
use core::fmt;
use core::future::poll_fn;
use core::pin::Pin;
use core::task::{Context, Poll};
use fata_hypercall::{EventChannel, SpecialPage};
use fata_shared::interrupt::Line;
use fata_xenbus::ring::bytes::{IndexError, Layout, Reader, Writer};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::Notify;

/// Output that is kept while xenconsoled does not read, beside the 2 KiB in the ring: some 800 lines,
/// enough for a backtrace of everything.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// The guest's first console. Clones are the same console, so that one task may read while all
/// write.
#[derive(Clone)]
pub struct Console {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    /// Fires when there may be input.
    input: Line,
    /// Told when nothing is kept any more.
    flushed: Notify,
}

struct State {
    memory: Shared<SpecialPage>,
    event: EventChannel,
    input: Reader,
    /// Output that the ring did not take yet. At most [`KEPT_BYTES_MAX`].
    kept: VecDeque<u8>,
    counters: ConsoleCounters,
    /// xenconsoled broke the ring's rules: nothing is read or written any more.
    broken: Option<IndexError>,
}

/// What went over the console.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsoleCounters {
    /// Bytes handed to xenconsoled.
    pub written_bytes: u64,
    /// Bytes dropped, because xenconsoled did not read.
    pub dropped_bytes: u64,
    /// Bytes read.
    pub read_bytes: u64,
}

impl Console {
    pub(crate) fn new(page: SpecialPage, event: EventChannel) -> Self {
        let memory = Shared(page);
        let state = State {
            input: Reader::attach(&memory, Layout::CONSOLE_IN),
            memory,
            event,
            kept: VecDeque::new(),
            counters: ConsoleCounters::default(),
            broken: None,
        };
        let (input, flushed) = (Line::new(), Notify::new());
        Console { inner: Arc::new(Inner { state: Mutex::new(state), input, flushed }) }
    }

    /// Passes on what is kept and tells of input, for ever.
    pub(crate) async fn serve(self) {
        loop {
            let line = self.lock().event.line().clone();
            poll_fn(|cx| line.poll_fired(cx)).await;
            self.pump();
            self.inner.input.fire();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pump(&self) {
        let is_flushed = {
            let mut state = self.lock();
            if state.send_kept() {
                state.event.notify();
            }
            state.kept.is_empty()
        };
        if is_flushed {
            self.inner.flushed.notify_waiters();
        }
    }

    /// Writes without waiting. How many of `bytes` were taken: all, unless xenconsoled has not read
    /// for more than 64 KiB; the rest is dropped and counted.
    ///
    /// Callable from anywhere: called while the console itself is at work (from the report of a
    /// crash there), it takes nothing.
    pub fn write(&self, bytes: &[u8]) -> usize {
        let Ok(mut state) = self.inner.state.try_lock() else { return 0 };
        let (taken, has_sent) = state.put(bytes);
        if has_sent {
            state.event.notify();
        }
        taken
    }

    /// Writes text without waiting, each end of a line as a terminal wants it. False if the console
    /// is out of order, and took nothing; what it had no room for is dropped and counted.
    pub fn print(&self, text: &[u8]) -> bool {
        let Ok(mut state) = self.inner.state.try_lock() else { return false };
        let mut has_sent = false;
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let (line, end) = match line.strip_suffix(b"\n") {
                Some(line) => (line, b"\r\n".as_slice()),
                None => (line, b"".as_slice()),
            };
            for part in [line, end] {
                has_sent |= state.put(part).1;
            }
        }
        if has_sent {
            state.event.notify();
        }
        state.broken.is_none()
    }

    /// Waits until all that was written is where xenconsoled finds it. It may not read it: give this
    /// a deadline.
    pub async fn flush(&self) {
        loop {
            let flushed = self.inner.flushed.notified();
            self.pump();
            if self.lock().kept.is_empty() {
                return;
            }
            flushed.await;
        }
    }

    /// Reads at least a byte, unless `out` is empty, and says how many.
    ///
    /// # Errors
    /// xenconsoled broke the rules of the ring; final.
    pub async fn read(&self, out: &mut [u8]) -> Result<usize, XenError> {
        poll_fn(|cx| self.poll_input(cx, out)).await
    }

    /// As [`read`](Console::read). Only the last task that polled is woken.
    ///
    /// # Errors
    /// As there.
    pub fn poll_input(
        &self,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<Result<usize, XenError>> {
        loop {
            let count = self.lock().receive(out).map_err(|error| {
                XenError::Device(format!("xenconsoled broke the console's ring: {error}"))
            })?;
            if count > 0 || out.is_empty() {
                return Poll::Ready(Ok(count));
            }
            if self.inner.input.poll_fired(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// The machine was suspended: goes on over `new`, if the tools made a page anew.
    pub(crate) fn reconnect(&self, new: Option<(SpecialPage, EventChannel)>) {
        {
            let mut state = self.lock();
            // Whoever waits for it takes the new one from now on.
            state.event.line().fire();
            if let Some((page, event)) = new {
                (state.memory, state.event) = (Shared(page), event);
            }
            state.input = Reader::attach(&state.memory, Layout::CONSOLE_IN);
            state.broken = None;
        }
        self.pump();
        self.inner.input.fire();
    }

    /// What went over the console.
    pub fn counters(&self) -> ConsoleCounters {
        self.lock().counters
    }
}

impl State {
    /// Puts bytes into the ring or, in order, behind those that are kept. How many were taken, and
    /// whether any went into the ring.
    fn put(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut has_sent = self.send_kept();
        let mut taken = 0;
        if self.kept.is_empty() {
            taken = self.send(bytes);
            has_sent |= taken > 0;
        }
        let room = if self.broken.is_none() { KEPT_BYTES_MAX - self.kept.len() } else { 0 };
        let kept = room.min(bytes.len() - taken);
        self.kept.extend(&bytes[taken..taken + kept]);
        taken += kept;
        self.counters.dropped_bytes += (bytes.len() - taken) as u64;
        (taken, has_sent)
    }

    /// Puts as much of `bytes` into the ring as fits.
    fn send(&mut self, bytes: &[u8]) -> usize {
        if self.broken.is_some() {
            return 0;
        }
        // Where the counts stand now: the machine's own words, such as the report of a crash, go
        // into the same ring without us.
        let mut output = Writer::attach(&self.memory, Layout::CONSOLE_OUT);
        match output.write(&self.memory, &self.memory, bytes) {
            Ok(count) => {
                self.counters.written_bytes += count as u64;
                count
            }
            Err(error) => {
                self.broken = Some(error);
                0
            }
        }
    }

    /// True if anything was put into the ring.
    fn send_kept(&mut self) -> bool {
        let mut has_sent = false;
        while !self.kept.is_empty() {
            let mut kept = core::mem::take(&mut self.kept);
            let count = self.send(kept.as_slices().0);
            kept.drain(..count);
            if self.broken.is_some() {
                self.counters.dropped_bytes += kept.len() as u64;
                break;
            }
            self.kept = kept;
            if count == 0 {
                break;
            }
            has_sent = true;
        }
        has_sent
    }

    fn receive(&mut self, out: &mut [u8]) -> Result<usize, IndexError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        let read = self.input.read(&self.memory, &self.memory, out);
        match read {
            Ok(0) => {}
            Ok(count) => {
                self.counters.read_bytes += count as u64;
                // xenconsoled may wait for room.
                self.event.notify();
            }
            Err(error) => self.broken = Some(error),
        }
        read
    }
}

impl AsyncRead for Console {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let mut bytes = [0; 256];
        let room = buffer.remaining().min(bytes.len());
        self.poll_input(cx, &mut bytes[..room]).map(|read| {
            buffer.put_slice(&bytes[..read.map_err(std::io::Error::other)?]);
            Ok(())
        })
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
