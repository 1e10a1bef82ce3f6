//! [`VirtioConsole`]: port 0 of virtio's console device (virtio 1.2, section 5.3): bytes out, bytes
//! in. Other ports are not negotiated.

use crate::control::{Control, Illness};
use crate::error::ProbeError;
use crate::queue::VirtQueue;
use crate::transport::Transport;
use core::fmt;
use core::future::poll_fn;
use core::task::{Context, Poll};
use fata_shared::dma::{DmaBuffer, LentBuffer};
use fata_virtq::Segment;
use std::sync::{Arc, Mutex, PoisonError};

/// Virtqueues of port 0 (section 5.3.2).
const RECEIVE_QUEUE: u16 = 0;
const TRANSMIT_QUEUE: u16 = 1;

/// Length of a buffer in bytes: a few lines of text.
const BUFFER_LEN: usize = 512;
/// Buffers for output: 8 KiB may be on their way to a host that does not read just now.
const TRANSMIT_BUFFERS: u16 = 16;
/// Buffers for input: 1 KiB, more than anybody types between two looks.
const RECEIVE_BUFFERS: u16 = 2;

/// Why the console stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConsoleError {
    /// The device broke the rules of its interface (the text says which) and was closed.
    Misbehaved(String),
    /// The device is gone.
    Disconnected,
}

impl fmt::Display for ConsoleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConsoleError::Misbehaved(rule) => {
                write!(f, "the console device broke its contract: {rule}")
            }
            ConsoleError::Disconnected => write!(f, "the console device is gone"),
        }
    }
}

impl std::error::Error for ConsoleError {}

/// A virtio console. Clones are the same console, so that one task may read while all write.
#[derive(Clone)]
pub struct VirtioConsole {
    state: Arc<Mutex<State>>,
}

struct State {
    control: Control,
    queues: Result<Queues, ConsoleError>,
    /// Output buffers that the device does not have.
    free: Vec<DmaBuffer>,
    /// Input that came and nobody has read: a buffer, and which of its bytes.
    input: Option<(DmaBuffer, core::ops::Range<usize>)>,
}

struct Queues {
    receive: VirtQueue<LentBuffer>,
    transmit: VirtQueue<LentBuffer>,
}

impl VirtioConsole {
    pub(crate) fn start(transport: Box<dyn Transport>) -> Result<Self, ProbeError> {
        let mut control = Control::start(transport, 0, 2)?;
        let receive_size = control.queue_size(RECEIVE_QUEUE, 1, RECEIVE_BUFFERS)?;
        let transmit_size = control.queue_size(TRANSMIT_QUEUE, 1, TRANSMIT_BUFFERS)?;
        let mut receive = control.queue(RECEIVE_QUEUE, receive_size)?;
        let transmit = control.queue(TRANSMIT_QUEUE, transmit_size)?;
        for _ in 0..receive.size().min(RECEIVE_BUFFERS) {
            offer(&mut receive, DmaBuffer::zeroed(BUFFER_LEN));
        }
        let buffers = transmit.size().min(TRANSMIT_BUFFERS);
        let free = (0..buffers).map(|_| DmaBuffer::zeroed(BUFFER_LEN)).collect();
        control.run();
        receive.notify();
        let queues = Ok(Queues { receive, transmit });
        let state = State { control, queues, free, input: None };
        Ok(VirtioConsole { state: Arc::new(Mutex::new(state)) })
    }

    /// Writes as much of `bytes` as there is room for, without waiting, and says how much that was.
    /// On a console that stopped nothing has room. Callable from anywhere but the console's own
    /// wakers.
    pub fn write(&self, bytes: &[u8]) -> usize {
        self.with(|state| state.write(bytes).unwrap_or(0))
    }

    /// Reads at least a byte, unless `out` is empty, and says how many.
    ///
    /// # Errors
    /// [`ConsoleError`], finally.
    pub async fn read(&self, out: &mut [u8]) -> Result<usize, ConsoleError> {
        poll_fn(|cx| self.poll_read(cx, out)).await
    }

    /// As [`read`](VirtioConsole::read). Only the last task that polled is woken.
    ///
    /// # Errors
    /// [`ConsoleError`], finally.
    pub fn poll_read(
        &self,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<Result<usize, ConsoleError>> {
        if out.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.with(|state| state.poll_read(cx, out))
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ConsoleError> {
        let mut written = 0;
        while written < bytes.len() {
            let transmit = self.transmit()?;
            match transmit.take_used() {
                Ok(Some(used)) => {
                    self.free.push(used.token.take_back());
                    continue;
                }
                Ok(None) => {}
                Err(rule) => return Err(self.close_for(rule)),
            }
            let Some(mut buffer) = self.free.pop() else { break };
            let len = buffer.len().min(bytes.len() - written);
            buffer[..len].copy_from_slice(&bytes[written..written + len]);
            let lent = buffer.lend();
            let segment = Segment { address: lent.address(), len: len as u32 };
            let transmit = self.transmit()?;
            if let Err(error) = transmit.add(&[segment], &[], lent) {
                // There are no more buffers than descriptors.
                self.free.push(error.token.take_back());
                return Err(self.close_for("the transmit queue is closed"));
            }
            written += len;
        }
        self.transmit()?.notify();
        Ok(written)
    }

    fn transmit(&mut self) -> Result<&mut VirtQueue<LentBuffer>, ConsoleError> {
        match &mut self.queues {
            Ok(queues) => Ok(&mut queues.transmit),
            Err(error) => Err(error.clone()),
        }
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<Result<usize, ConsoleError>> {
        // As many rounds as there can be empty buffers, and one to find that nothing is there.
        for _ in 0..=2 * RECEIVE_BUFFERS {
            let receive = match &mut self.queues {
                Ok(queues) => &mut queues.receive,
                Err(error) => return Poll::Ready(Err(error.clone())),
            };
            if let Some((buffer, rest)) = &mut self.input {
                let len = out.len().min(rest.len());
                out[..len].copy_from_slice(&buffer[rest.start..rest.start + len]);
                rest.start += len;
                if rest.start >= rest.end
                    && let Some((buffer, _)) = self.input.take()
                {
                    offer(receive, buffer);
                    receive.notify();
                }
                if len > 0 {
                    return Poll::Ready(Ok(len));
                }
            }
            match receive.take_used() {
                Ok(Some(used)) => {
                    self.input = Some((used.token.take_back(), 0..used.written as usize));
                }
                Ok(None) => {
                    if receive.may_sleep(cx.waker(), 1) {
                        return match self.check_health() {
                            Ok(()) => Poll::Pending,
                            Err(error) => Poll::Ready(Err(error)),
                        };
                    }
                }
                Err(rule) => return Poll::Ready(Err(self.close_for(rule))),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn check_health(&mut self) -> Result<(), ConsoleError> {
        if !self.control.interrupts().take_attention() {
            return Ok(());
        }
        match self.control.illness() {
            None => Ok(()),
            Some(Illness::Gone) => Err(self.close(ConsoleError::Disconnected)),
            Some(illness) => Err(self.close_for(illness.describe())),
        }
    }

    fn close_for(&mut self, rule: impl ToString) -> ConsoleError {
        self.close(ConsoleError::Misbehaved(rule.to_string()))
    }

    fn close(&mut self, why: ConsoleError) -> ConsoleError {
        if let Ok(Queues { receive, transmit }) =
            core::mem::replace(&mut self.queues, Err(why.clone()))
        {
            let quiet = self.control.reset();
            for lent in receive.dismantle(quiet).into_iter().chain(transmit.dismantle(quiet)) {
                if quiet {
                    drop(lent.take_back());
                }
            }
        }
        why
    }
}

/// Gives an input buffer to the device.
fn offer(receive: &mut VirtQueue<LentBuffer>, buffer: DmaBuffer) {
    let lent = buffer.lend();
    let segment = Segment { address: lent.address(), len: lent.len() as u32 };
    if let Err(error) = receive.add(&[], &[segment], lent) {
        // There are no more buffers than descriptors; a queue that failed is about to be closed.
        drop(error.token.take_back());
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.close(ConsoleError::Disconnected);
    }
}

impl fmt::Debug for VirtioConsole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with(|state| {
            f.debug_struct("VirtioConsole")
                .field("closed", &state.queues.as_ref().err())
                .finish_non_exhaustive()
        })
    }
}

#[cfg(test)]
mod tests;
