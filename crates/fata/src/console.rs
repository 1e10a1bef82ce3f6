//! [`ConsoleInput`]: what is typed on the console.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};

/// There is one console, and who reads from it takes what another would have got.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// What is typed on the console, from [`system::console_input`](crate::system::console_input).
///
/// Lines end in `\n` on every target. A machine's console is a wire without a terminal's manners: the
/// return key's `\r` is read as `\n`, but nothing is echoed, and the other keys arrive as they are.
/// What is typed while nobody reads waits: a kibibyte on Xen and on virtio.
pub struct ConsoleInput {
    source: Box<dyn AsyncRead + Send + Unpin>,
    /// The source is a wire, and no terminal has made lines of what was typed.
    is_raw: bool,
}

impl ConsoleInput {
    /// Over what `open` opens, unless it is open already.
    pub(crate) fn open<R: AsyncRead + Send + Unpin + 'static>(
        open: impl FnOnce() -> io::Result<R>,
        is_raw: bool,
    ) -> io::Result<Self> {
        if TAKEN.swap(true, Ordering::Relaxed) {
            let words = "the console's input is being read already";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, words));
        }
        match open() {
            Ok(source) => Ok(ConsoleInput { source: Box::new(source), is_raw }),
            Err(error) => {
                TAKEN.store(false, Ordering::Relaxed);
                Err(error)
            }
        }
    }
}

impl Drop for ConsoleInput {
    fn drop(&mut self) {
        TAKEN.store(false, Ordering::Relaxed);
    }
}

impl AsyncRead for ConsoleInput {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.source).poll_read(cx, buffer))?;
        if self.is_raw {
            for byte in &mut buffer.filled_mut()[before..] {
                if *byte == b'\r' {
                    *byte = b'\n';
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for ConsoleInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConsoleInput")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn read(input: &mut ConsoleInput) -> Vec<u8> {
        let mut bytes = [0; 16];
        let mut buffer = ReadBuf::new(&mut bytes);
        // What was read before stays as it is.
        buffer.put_slice(b"\r");
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(Pin::new(input).poll_read(&mut cx, &mut buffer), Poll::Ready(Ok(()))));
        buffer.filled().to_vec()
    }

    #[test]
    fn there_is_one_reader_and_the_return_key_ends_a_line() {
        let mut raw = ConsoleInput::open(|| Ok(&b"yes\r"[..]), true).expect("the first");
        let second = ConsoleInput::open(|| Ok(&b""[..]), true);
        assert_eq!(second.unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        assert_eq!(read(&mut raw), b"\ryes\n");
        drop(raw);
        let missing = ConsoleInput::open(|| Err::<&[u8], _>(io::Error::other("none")), true);
        assert_eq!(missing.unwrap_err().to_string(), "none");
        let mut cooked = ConsoleInput::open(|| Ok(&b"yes\r"[..]), false).expect("free again");
        assert_eq!(read(&mut cooked), b"\ryes\r");
    }
}
