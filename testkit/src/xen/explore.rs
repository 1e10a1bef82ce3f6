//! Runs a model through every order in which its events can happen.
//!
//! Depth first, and each state once: states are remembered by a fingerprint of 128 bits, so two
//! different states are taken for one with a probability of about n²/2¹²⁹, nothing for the millions
//! that fit a test. Although each state is visited once, the *schedules* are counted, all of them: a
//! state's number of schedules is the sum of its successors'. That needs a graph without circles; a
//! circle is a model that can go on for ever without getting anywhere, which is an error too.

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};

/// Something that can go on in several ways.
pub trait Model: Clone + Hash {
    /// One event.
    type Step: Clone;

    /// What can happen now. In a fixed order, since schedules are told as indices into it.
    fn steps(&self) -> Vec<Self::Step>;

    /// Lets it happen.
    ///
    /// # Errors
    /// An invariant is broken, in words.
    fn take(&mut self, step: &Self::Step) -> Result<(), String>;

    /// Looks at a state in which nothing can happen, or nothing but the passing of time.
    ///
    /// # Errors
    /// This is no state to stay in, in words.
    fn at_rest(&self) -> Result<(), String>;

    /// True if a step is nothing but the passing of time.
    fn is_patience(step: &Self::Step) -> bool;

    /// What a step is, in words, told before it is taken.
    fn describe(&self, step: &Self::Step) -> String;
}

/// What an exploration found.
#[derive(Clone, Debug)]
pub struct Report {
    /// Different states.
    pub states: usize,
    /// Different steps from a state.
    pub transitions: usize,
    /// Schedules, from the beginning to an end or a broken invariant: all orders of events.
    pub interleavings: u128,
    /// How many of them break an invariant.
    pub failing: u128,
    /// The shortest of these.
    pub failure: Option<Failure>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} states, {} transitions, {} interleavings",
            self.states,
            self.transitions,
            Grouped(self.interleavings)
        )?;
        match self.failing {
            0 => Ok(()),
            failing => write!(f, ", of which {} fail", Grouped(failing)),
        }
    }
}

/// A number that may be too long to be read.
struct Grouped(u128);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            u128::MAX => f.write_str("more than 10^38"),
            number if number >= 10_000_000_000 => {
                let digits = number.to_string();
                write!(f, "{}.{}·10^{}", &digits[..1], &digits[1..3], digits.len() - 1)
            }
            number => write!(f, "{number}"),
        }
    }
}

/// How an invariant came to be broken.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which, in words.
    pub what: String,
    /// The schedule: what was chosen at each state.
    pub schedule: Schedule,
    /// The schedule in words, a line a step.
    pub story: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self.story.iter().enumerate() {
            writeln!(f, "{:3}. {line}", index + 1)?;
        }
        writeln!(f, "     → {}", self.what)?;
        write!(f, "     replay: {}", self.schedule)
    }
}

/// A schedule as a short text, such as `0.2.1`: which of a state's steps was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule(pub Vec<usize>);

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, choice) in self.0.iter().enumerate() {
            write!(f, "{}{choice}", if index == 0 { "" } else { "." })?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split('.')
            .map(|part| {
                part.parse().map_err(|_| format!("\"{part}\" is not a number in \"{text}\""))
            })
            .collect::<Result<_, _>>()
            .map(Schedule)
    }
}

/// Steps of the longest schedule. The longest that ends has some three hundred; one that is longer than
/// this goes round in circles that a counter makes look like spirals.
const DEPTH_MAX: usize = 1000;

/// What is known of a state whose successors are all known.
#[derive(Clone, Copy)]
struct Known {
    interleavings: u128,
    failing: u128,
    /// Steps to the nearest broken invariant.
    nearest: Option<u32>,
}

impl Known {
    const END: Known = Known { interleavings: 1, failing: 0, nearest: None };
    const FAILURE: Known = Known { interleavings: 1, failing: 1, nearest: Some(0) };

    fn add(&mut self, next: Known) {
        self.interleavings = self.interleavings.saturating_add(next.interleavings);
        self.failing = self.failing.saturating_add(next.failing);
        let nearest = next.nearest.map(|steps| steps + 1);
        self.nearest = match (self.nearest, nearest) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

/// A state whose successors are being looked at.
struct Frame<M: Model> {
    state: M,
    fingerprint: u128,
    steps: Vec<M::Step>,
    next: usize,
    known: Known,
}

impl<M: Model> Frame<M> {
    fn new(state: M, fingerprint: u128) -> Self {
        let steps = state.steps();
        let known = Known { interleavings: 0, failing: 0, nearest: None };
        Frame { state, fingerprint, steps, next: 0, known }
    }
}

/// Looks at everything that can come of `start`.
///
/// # Panics
/// After `states_max` states: then the model is bigger than its author thought, and the number must be
/// raised with a reason.
pub fn explore<M: Model>(start: &M, states_max: usize) -> Report {
    let mut known: HashMap<u128, Option<Known>> = HashMap::new();
    let mut transitions = 0;
    let root = fingerprint(start);
    let mut stack = vec![Frame::new(start.clone(), root)];
    known.insert(root, None);
    let total = loop {
        let frame = stack.last_mut().expect("the loop ends with the last frame");
        if frame.next == 0 && rests::<M>(&frame.steps) && frame.state.at_rest().is_err() {
            // What is wrong here stays wrong: no need to look at what time may bring.
            frame.steps.clear();
            frame.known = Known::FAILURE;
        }
        let Some(step) = frame.steps.get(frame.next) else {
            let done = match frame.known {
                Known { interleavings: 0, .. } => Known::END,
                known => known,
            };
            known.insert(frame.fingerprint, Some(done));
            stack.pop();
            match stack.last_mut() {
                Some(above) => above.known.add(done),
                None => break done,
            }
            continue;
        };
        frame.next += 1;
        transitions += 1;
        let mut state = frame.state.clone();
        if state.take(step).is_err() {
            frame.known.add(Known::FAILURE);
            continue;
        }
        let fingerprint = fingerprint(&state);
        match known.get(&fingerprint) {
            Some(Some(next)) => frame.known.add(*next),
            // A circle.
            Some(None) => frame.known.add(Known::FAILURE),
            None => {
                assert!(known.len() < states_max, "more than {states_max} states");
                if stack.len() >= DEPTH_MAX {
                    return endless(start, &stack, known.len(), transitions);
                }
                known.insert(fingerprint, None);
                stack.push(Frame::new(state, fingerprint));
            }
        }
    };
    let failure = total.nearest.map(|_| shortest(start, &known));
    Report {
        states: known.len(),
        transitions,
        interleavings: total.interleavings,
        failing: total.failing,
        failure,
    }
}

/// What is told of a schedule that does not come to an end.
fn endless<M: Model>(start: &M, stack: &[Frame<M>], states: usize, transitions: usize) -> Report {
    let schedule = Schedule(stack.iter().map(|frame| frame.next - 1).collect());
    let mut failure = replay(start, &schedule);
    failure.what = format!("after {DEPTH_MAX} steps there is no end in sight");
    let failure = Some(failure);
    Report { states, transitions, interleavings: 1, failing: 1, failure }
}

fn rests<M: Model>(steps: &[M::Step]) -> bool {
    steps.iter().all(M::is_patience)
}

/// Walks to the nearest failure.
fn shortest<M: Model>(start: &M, known: &HashMap<u128, Option<Known>>) -> Failure {
    let mut schedule = Schedule::default();
    let mut state = start.clone();
    let mut seen = vec![fingerprint(start)];
    loop {
        let steps = state.steps();
        if rests::<M>(&steps) && state.at_rest().is_err() {
            break;
        }
        let distance = |step: &M::Step| {
            let mut next = state.clone();
            if next.take(step).is_err() {
                return Some(0);
            }
            let fingerprint = fingerprint(&next);
            match known.get(&fingerprint) {
                _ if seen.contains(&fingerprint) => Some(0),
                Some(Some(next)) => next.nearest.map(|steps| steps + 1),
                _ => None,
            }
        };
        let best = (0..steps.len())
            .filter_map(|index| distance(&steps[index]).map(|steps| (steps, index)))
            .min();
        let Some((_, index)) = best else { break };
        schedule.0.push(index);
        if state.take(&steps[index]).is_err() {
            break;
        }
        let fingerprint = fingerprint(&state);
        if seen.contains(&fingerprint) {
            break;
        }
        seen.push(fingerprint);
    }
    replay(start, &schedule)
}

/// Tells what a schedule does, and what came of it.
pub fn replay<M: Model>(start: &M, schedule: &Schedule) -> Failure {
    let mut state = start.clone();
    let mut seen = vec![fingerprint(start)];
    let mut story = Vec::new();
    let mut what = None;
    for choice in &schedule.0 {
        let steps = state.steps();
        let Some(step) = steps.get(*choice) else {
            what = Some(format!("the schedule does not fit: no step {choice}"));
            break;
        };
        story.push(state.describe(step));
        if let Err(broken) = state.take(step) {
            what = Some(broken);
            break;
        }
        if seen.contains(&fingerprint(&state)) {
            what = Some("this has been so before: it can go round in circles for ever".into());
            break;
        }
        seen.push(fingerprint(&state));
    }
    let what = what.unwrap_or_else(|| match state.at_rest() {
        Err(broken) if rests::<M>(&state.steps()) => broken,
        _ => "no invariant is broken".into(),
    });
    Failure { what, schedule: schedule.clone(), story }
}

fn fingerprint<M: Model>(state: &M) -> u128 {
    let mut hasher = Fingerprint { low: 0x9e37_79b9_7f4a_7c15, high: 0xc2b2_ae3d_27d4_eb4f };
    state.hash(&mut hasher);
    let low = u128::from(hasher.finish());
    (u128::from(mix(hasher.high ^ hasher.low.rotate_left(32))) << 64) | low
}

/// Two lanes of multiply and rotate. Not against an adversary: states are our own.
struct Fingerprint {
    low: u64,
    high: u64,
}

/// The finaliser of SplitMix64.
fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
        self.write_u64(bytes.len() as u64);
    }

    fn write_u64(&mut self, word: u64) {
        self.low = (self.low.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
        self.high = mix(self.high.wrapping_add(word).wrapping_mul(0xff51_afd7_ed55_8ccd));
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(u64::from(byte));
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        mix(self.low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two counters that are each raised to a limit, in any order.
    #[derive(Clone, Hash)]
    struct Counters {
        counts: [u32; 2],
        limit: u32,
        forbidden: Option<[u32; 2]>,
        circle: bool,
    }

    impl Model for Counters {
        type Step = usize;

        fn steps(&self) -> Vec<usize> {
            (0..2).filter(|index| self.circle || self.counts[*index] < self.limit).collect()
        }

        fn take(&mut self, step: &usize) -> Result<(), String> {
            self.counts[*step] = (self.counts[*step] + 1) % (self.limit + 1);
            match self.forbidden == Some(self.counts) {
                true => Err(format!("{:?}", self.counts)),
                false => Ok(()),
            }
        }

        fn at_rest(&self) -> Result<(), String> {
            Ok(())
        }

        fn is_patience(_: &usize) -> bool {
            false
        }

        fn describe(&self, step: &usize) -> String {
            format!("raise {step}")
        }
    }

    const START: Counters = Counters { counts: [0, 0], limit: 5, forbidden: None, circle: false };

    #[test]
    fn all_schedules_are_counted_and_each_state_is_visited_once() {
        let report = explore(&START, 100);
        assert_eq!(report.states, 36);
        // 10 steps, of which 5 are the first counter's.
        assert_eq!(report.interleavings, 252);
        assert_eq!(report.failing, 0);
        assert!(report.failure.is_none());
    }

    #[test]
    fn the_shortest_failure_is_told_and_can_be_replayed() {
        let start = Counters { forbidden: Some([1, 2]), ..START };
        let report = explore(&start, 100);
        // Three ways to [1, 2]; the others go around it.
        assert_eq!(report.failing, 3);
        let failure = report.failure.expect("it fails");
        assert_eq!(failure.story.len(), 3);
        assert_eq!(failure.what, "[1, 2]");
        let text = failure.schedule.to_string();
        let again = replay(&start, &text.parse().unwrap());
        assert_eq!(again.what, failure.what);
        assert_eq!(again.story, failure.story);
        assert!("0.x".parse::<Schedule>().is_err());
    }

    #[test]
    fn a_circle_is_a_failure() {
        let report = explore(&Counters { circle: true, ..START }, 100);
        let failure = report.failure.expect("it goes round");
        assert!(failure.what.contains("circles"), "{}", failure.what);
    }
}
