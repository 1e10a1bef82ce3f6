//! [`Cache`]: what a resolver remembers.

use super::host_name::HostName;
use super::query::{Answer, Family, Learned};
use core::time::Duration;
use std::collections::BTreeMap;

/// Answers that are remembered by default. One takes some 200 bytes.
pub const CACHE_ENTRIES_DEFAULT: usize = 512;

#[derive(Debug)]
struct Entry {
    answer: Answer,
    until: Duration,
}

/// Answers, positive and negative (RFC 2308), until they grow old.
#[derive(Debug)]
pub struct Cache {
    entries: BTreeMap<(HostName, Family), Entry>,
    entries_max: usize,
    evicted: u64,
}

impl Cache {
    /// An empty cache for at most `entries_max` answers.
    pub fn new(entries_max: usize) -> Self {
        Cache { entries: BTreeMap::new(), entries_max, evicted: 0 }
    }

    /// What is known of a name.
    pub fn get(&self, now: Duration, name: &HostName, family: Family) -> Option<&Answer> {
        let entry = self.entries.get(&(name.clone(), family))?;
        (entry.until > now).then_some(&entry.answer)
    }

    /// Remembers an answer, if it may be. When there is no room, the one that would have been
    /// forgotten first makes some.
    pub fn insert(&mut self, now: Duration, name: HostName, family: Family, learned: &Learned) {
        let key = (name, family);
        if learned.ttl.is_zero() || self.entries_max == 0 {
            self.entries.remove(&key);
            return;
        }
        if !self.entries.contains_key(&key) && self.entries.len() >= self.entries_max {
            self.entries.retain(|_, entry| entry.until > now);
            if self.entries.len() >= self.entries_max
                && let Some(first) = self.entries.iter().min_by_key(|(_, entry)| entry.until)
            {
                let first = first.0.clone();
                self.entries.remove(&first);
                self.evicted += 1;
            }
        }
        let entry = Entry { answer: learned.answer.clone(), until: now + learned.ttl };
        self.entries.insert(key, entry);
    }

    /// Number of answers, old ones among them.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Answers that made room for others before their time.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }
}
