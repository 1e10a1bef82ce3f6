//! [`Job`]: what was asked of a disk, and how far it has come.

use fata_device::{BlockError, SectorBuffer};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    Flush,
    /// So many sectors of 512 bytes.
    Discard {
        sectors: u64,
    },
}

/// What is asked of a disk. Long reads and writes go in pieces, several of them at once.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) kind: Kind,
    /// The first sector of 512 bytes.
    pub(super) sector: u64,
    /// What is read or written; `None` for the others.
    buffer: Option<SectorBuffer>,
    /// Bytes that pieces were sent for, from the first on.
    pub(super) launched: usize,
    /// A flush or discard was sent, or needs not be.
    is_launched: bool,
    /// Pieces at the backend.
    flying: u16,
    /// The first refusal. Nothing more is sent then.
    error: Option<BlockError>,
}

impl Job {
    pub(super) fn new(kind: Kind, sector: u64, buffer: Option<SectorBuffer>) -> Self {
        Job { kind, sector, buffer, launched: 0, is_launched: false, flying: 0, error: None }
    }

    pub(super) fn data(&self) -> &[u8] {
        self.buffer.as_deref().unwrap_or_default()
    }

    pub(super) fn data_mut(&mut self) -> &mut [u8] {
        self.buffer.as_deref_mut().unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.data().len()
    }

    /// True if nothing is left to send.
    pub(super) fn is_launched(&self) -> bool {
        self.error.is_some() || self.is_launched
    }

    /// True if nothing is left to send or to wait for.
    pub(super) fn is_over(&self) -> bool {
        self.is_launched() && self.flying == 0
    }

    /// Nothing has to be sent.
    pub(super) fn launched_all(&mut self) {
        self.is_launched = true;
    }

    /// The next `bytes` were sent, as one piece.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.launched += bytes;
        self.is_launched = self.launched == self.len();
        self.flying += 1;
    }

    /// A piece came back.
    pub(super) fn landed(&mut self, error: Option<BlockError>) {
        self.flying -= 1;
        if self.error.is_none() {
            self.error = error;
        }
    }

    /// The backend is gone, and with it all that was sent: from the beginning. Requests that are in
    /// flight together may take effect in any order, so one may as well take effect twice.
    pub(super) fn begin_again(&mut self) {
        self.launched = 0;
        self.is_launched = false;
        self.flying = 0;
    }

    /// What became of it.
    pub(super) fn into_outcome(self) -> Result<Option<SectorBuffer>, BlockError> {
        match self.error {
            None => Ok(self.buffer),
            Some(error) => Err(error),
        }
    }
}
