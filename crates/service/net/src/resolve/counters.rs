//! [`ResolverCounters`].

/// What a stack's resolver did since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResolverCounters {
    /// Questions sent over UDP.
    pub questions: u64,
    /// Questions asked again over TCP, because the answer was cut off.
    pub tcp_questions: u64,
    /// Answers that were remembered.
    pub cache_hits: u64,
    /// Answers that are remembered now.
    pub cache_entries: u64,
    /// Answers that made room for others before their time: the cache is full.
    pub cache_evicted: u64,
    /// Questions that somebody else was asking already.
    pub joined: u64,
    /// Messages that did not answer the question: late ones, or forged.
    pub unrelated: u64,
    /// Servers that did not answer in time.
    pub timed_out: u64,
    /// Names that no server gave an answer for.
    pub failed: u64,
    /// Questions that were not asked because too many were.
    pub too_many: u64,
}

impl ResolverCounters {
    /// Each counter with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("questions", self.questions),
            ("tcp_questions", self.tcp_questions),
            ("cache_hits", self.cache_hits),
            ("cache_entries", self.cache_entries),
            ("cache_evicted", self.cache_evicted),
            ("joined", self.joined),
            ("unrelated", self.unrelated),
            ("timed_out", self.timed_out),
            ("failed", self.failed),
            ("too_many", self.too_many),
        ]
        .into_iter()
    }
}
