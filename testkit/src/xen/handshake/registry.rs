//! What both ends see: keys, and rings.

use fata_xenbus::handshake::{Change, Transaction, XenbusState};
use std::collections::BTreeMap;

/// How finely a read of several keys is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Grain {
    /// The keys of one directory at once.
    Directory,
    /// Key by key.
    Key,
}

/// The keys. Paths of frontends are as the frontend's domain writes them in full.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Registry {
    keys: BTreeMap<String, Vec<u8>>,
    /// Paths that were written, or removed with all below them, since they were last taken.
    changed: Vec<(String, bool)>,
}

impl Registry {
    /// The value of a key.
    pub fn get(&self, path: &str) -> Option<&[u8]> {
        self.keys.get(path).map(Vec::as_slice)
    }

    /// A number that a key holds.
    pub fn number(&self, path: &str) -> Option<u32> {
        std::str::from_utf8(self.get(path)?).ok()?.parse().ok()
    }

    /// The state in `directory/state`.
    pub fn state(&self, directory: &str) -> Option<XenbusState> {
        XenbusState::parse(self.get(&format!("{directory}/state"))?)
    }

    /// Writes a key.
    pub fn set(&mut self, path: &str, value: impl AsRef<[u8]>) {
        self.keys.insert(path.into(), value.as_ref().into());
        self.changed.push((path.into(), false));
    }

    /// Removes a key and all below it.
    pub fn remove(&mut self, path: &str) {
        let below = format!("{path}/");
        let before = self.keys.len();
        self.keys.retain(|key, _| key != path && !key.starts_with(&below));
        if self.keys.len() < before {
            self.changed.push((path.into(), true));
        }
    }

    /// Does a transaction if what it expects is so. False if not.
    pub fn commit(&mut self, transaction: &Transaction) -> bool {
        let met = transaction.expect.iter().all(|(path, value)| value.is_met_by(self.get(path)));
        if met {
            for change in &transaction.changes {
                match change {
                    Change::Set(path, value) => self.set(path, value),
                    Change::Remove(path) => self.remove(path),
                    Change::Permit { .. } => {}
                }
            }
        }
        met
    }

    /// What has changed since this was asked last.
    pub(super) fn take_changed(&mut self) -> Vec<(String, bool)> {
        std::mem::take(&mut self.changed)
    }
}

/// A ring of the frontend's, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ring {
    /// The frontend still grants it.
    pub granted: bool,
    /// The backend has mapped it.
    pub mapped: bool,
    /// The backend listens, or has listened, to it.
    pub listened: bool,
    /// The frontend's first frame is on it, and not yet taken off.
    pub posted: bool,
    /// The first frame was taken off by a backend that listened.
    pub delivered: bool,
}

/// All rings that there have been.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wire {
    /// By number, which is what stands for the grants and the port in the keys.
    pub rings: Vec<Ring>,
}

impl Wire {
    /// A new ring of the frontend's.
    pub fn grant(&mut self) -> u32 {
        self.rings.push(Ring { granted: true, ..Ring::default() });
        (self.rings.len() - 1) as u32
    }

    /// The ring of that number, if the backend can map it.
    ///
    /// # Errors
    /// It is not granted, in words.
    pub fn map(&mut self, number: u32) -> Result<u32, String> {
        match self.rings.get_mut(number as usize) {
            Some(ring) if ring.granted => {
                ring.mapped = true;
                Ok(number)
            }
            _ => Err(format!("grant {number} is not valid")),
        }
    }

    /// The ring of that number.
    ///
    /// # Panics
    /// There is none.
    pub fn ring(&mut self, number: u32) -> &mut Ring {
        &mut self.rings[number as usize]
    }
}
