//! A body of any length whose every byte is known from its position.

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

/// The pattern repeats after so many bytes: a prime, so that a piece which is lost, doubled or
/// swapped does not fall on its like.
const PERIOD: usize = 65_521;

/// One period, which all bodies share.
static BLOCK: LazyLock<Bytes> = LazyLock::new(|| {
    let mut state: u32 = 1;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..PERIOD).map(next).collect()
});

/// The first `remaining` bytes of the pattern, a period at a time, without copying it.
pub struct Pattern {
    remaining: u64,
}

impl Pattern {
    /// A body of `len` bytes.
    pub fn new(len: u64) -> Self {
        Pattern { remaining: len }
    }
}

impl Body for Pattern {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let len = self.remaining.min(PERIOD as u64);
        if len == 0 {
            return Poll::Ready(None);
        }
        self.remaining -= len;
        Poll::Ready(Some(Ok(Frame::data(BLOCK.slice(..len as usize)))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}
