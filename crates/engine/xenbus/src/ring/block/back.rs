//! [`Back`]: the backend's end of a block device's ring.

use super::{Request, RequestError, Response, SLOT_BYTES, Status};
use crate::Memory;
use crate::ring::core::{BackRing, RingError};

/// The backend's end.
#[derive(Debug)]
pub struct Back<M> {
    ring: BackRing<M, SLOT_BYTES>,
}

impl<M: Memory> Back<M> {
    /// The ring that the frontend made in `memory`.
    pub fn attach(memory: M) -> Self {
        Back { ring: BackRing::attach(memory) }
    }

    /// How many requests can be unanswered at once.
    pub fn capacity(&self) -> u32 {
        self.ring.slots()
    }

    /// The next request with its id and operation byte, which the response repeats; one that is
    /// wrong in itself is to be answered with its error's status.
    ///
    /// # Errors
    /// [`RingError::RequestIndex`]: the frontend is not to be believed any more.
    #[expect(clippy::type_complexity, reason = "a request's three parts")]
    pub fn take(&mut self) -> Result<Option<(u64, u8, Result<Request, RequestError>)>, RingError> {
        Ok(self.ring.take::<SLOT_BYTES>()?.map(|slot| Request::decode(&slot)))
    }

    /// Answers a request, in any order.
    ///
    /// # Panics
    /// If every request taken is answered.
    pub fn answer(&mut self, id: u64, operation: u8, status: Status) {
        self.ring.push(&Response { id, operation, status }.encode());
    }

    /// Announces the answers made; true if the frontend is to be notified.
    pub fn publish(&mut self) -> bool {
        self.ring.publish()
    }

    /// Asks for a notification at the next request. False: there is one now.
    ///
    /// # Errors
    /// [`RingError::RequestIndex`].
    pub fn may_sleep(&mut self) -> Result<bool, RingError> {
        self.ring.may_sleep(1)
    }
}
