//! [`Front`]: the frontend's end of a block device's ring, with the books of what is in flight.

use super::{RESPONSE_BYTES, Request, Response, SLOT_BYTES, Status};
use crate::Memory;
use crate::ring::core::{FrontRing, RingError};
use alloc::vec::Vec;
use core::fmt;

/// The backend broke the rules. Final: nothing that it says is to be believed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontError {
    /// With an index.
    Ring(RingError),
    /// It answered a request that is not in flight.
    Id(u64),
    /// It answered another operation than was asked for.
    Operation {
        /// What was asked for.
        asked: u8,
        /// What was answered.
        answered: u8,
    },
}

impl fmt::Display for FrontError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrontError::Ring(error) => error.fmt(f),
            FrontError::Id(id) => {
                write!(f, "the backend answered request {id:#x}, which is not in flight")
            }
            FrontError::Operation { asked, answered } => {
                write!(f, "the backend answered operation {answered} to operation {asked}")
            }
        }
    }
}

impl core::error::Error for FrontError {}

impl From<RingError> for FrontError {
    fn from(error: RingError) -> Self {
        FrontError::Ring(error)
    }
}

/// A place for a request in flight. Its id on the wire is the place's number and, above it, how
/// often the place was used before, so that a second answer to an old request is found out.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    uses: u32,
    /// What was asked for: the operation, and whether indirectly.
    asked: Option<(u8, bool)>,
}

/// The frontend's end.
#[derive(Debug)]
pub struct Front<M> {
    ring: FrontRing<M, SLOT_BYTES>,
    handle: u16,
    places: Vec<Place>,
    /// Places without a request; as many as the ring has free slots.
    free: Vec<u16>,
}

impl<M: Memory> Front<M> {
    /// An empty ring in `memory`, which is written over. `handle` is the device's number.
    pub fn new(memory: M, handle: u16) -> Self {
        let ring = FrontRing::new(memory);
        // No ring that blkif knows of has more slots than a u16 can count.
        let slots = ring.slots().min(1 << 15) as u16;
        Front {
            ring,
            handle,
            places: (0..slots).map(|_| Place::default()).collect(),
            // The lowest first, so that few places are used when little is in flight.
            free: (0..slots).rev().collect(),
        }
    }

    /// How many requests can be in flight at once: every [token](Front::push) is below it.
    pub fn capacity(&self) -> u16 {
        self.places.len() as u16
    }

    /// How many requests can be made now.
    pub fn free(&self) -> u16 {
        self.free.len() as u16
    }

    /// Makes a request; [`take`](Front::take) will return the token with its outcome. The backend
    /// sees it after [`publish`](Front::publish).
    ///
    /// # Panics
    /// If nothing is [`free`](Front::free).
    pub fn push(&mut self, request: &Request) -> u16 {
        let token = self.free.pop().expect("a request for a ring that is full");
        let place = &mut self.places[usize::from(token)];
        place.uses = place.uses.wrapping_add(1);
        let is_indirect = matches!(request, Request::Indirect { .. });
        place.asked = Some((request.operation() as u8, is_indirect));
        let id = (u64::from(place.uses) << 16) | u64::from(token);
        self.ring.push(&request.encode(id, self.handle));
        token
    }

    /// Announces the requests made; true if the backend is to be notified.
    pub fn publish(&mut self) -> bool {
        self.ring.publish()
    }

    /// The next outcome, with the token that [`push`](Front::push) gave.
    ///
    /// # Errors
    /// [`FrontError`]: the backend is not to be believed any more.
    pub fn take(&mut self) -> Result<Option<(u16, Status)>, FrontError> {
        let Some((_, slot)) = self.ring.take::<RESPONSE_BYTES>()? else { return Ok(None) };
        let response = Response::decode(&slot);
        let token = response.id as u16;
        let unknown = FrontError::Id(response.id);
        let place = self.places.get_mut(usize::from(token)).ok_or(unknown)?;
        if response.id >> 16 != u64::from(place.uses) {
            return Err(unknown);
        }
        let (asked, is_indirect) = place.asked.take().ok_or(unknown)?;
        // The header does not say which of its two operations an indirect request is answered with:
        // Linux names the one inside.
        let answered = response.operation;
        if answered != asked && !(is_indirect && answered == super::INDIRECT) {
            return Err(FrontError::Operation { asked, answered });
        }
        self.free.push(token);
        Ok(Some((token, response.status)))
    }

    /// Asks for a notification at the next response. False: there is one now.
    ///
    /// # Errors
    /// [`FrontError::Ring`].
    pub fn may_sleep(&mut self) -> Result<bool, FrontError> {
        Ok(self.ring.may_sleep(1)?)
    }
}
