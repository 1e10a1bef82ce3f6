//! [`Lane`]: one direction of a link.

use super::dice::Dice;
use super::frames::{self, ETHERNET_BYTES};
use super::impairments::{Impairments, LaneCounters, Lost};
use core::cmp::Ordering;
use core::time::Duration;
use std::collections::BinaryHeap;

/// One direction of a link, sans-io: frames go in with [`send`](Lane::send), and come out of
/// [`poll_arrival`](Lane::poll_arrival) when [`poll_timeout`](Lane::poll_timeout) says.
///
/// Times are since whatever the caller counts from, and never go back. The seed, the impairments
/// and what is sent when decide all that happens.
#[derive(Debug)]
pub struct Lane {
    impairments: Impairments,
    dice: LaneDice,
    is_up: bool,
    /// Bad, in the sense of [`Bursts`](super::Bursts).
    is_bad: bool,
    silent_until: Duration,
    /// Bytes since the last silence.
    carried_bytes: u64,
    /// When the last bit of what waits will be sent.
    busy_until: Duration,
    /// When the last frame arrives that was not delayed to be overtaken.
    last_arrival: Duration,
    in_flight: BinaryHeap<InFlight>,
    /// Frames put into flight so far: breaks ties.
    number: u64,
    counters: LaneCounters,
}

/// Dice for each cause of randomness.
#[derive(Debug)]
struct LaneDice {
    loss: Dice,
    bursts: Dice,
    ack_loss: Dice,
    corruption: Dice,
    trailing: Dice,
    duplication: Dice,
    jitter: Dice,
    reordering: Dice,
}

/// What became of a frame that was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// It will not arrive, and why.
    pub lost: Option<Lost>,
    /// One of its bits was flipped.
    pub is_corrupted: bool,
    /// It arrives twice.
    pub is_duplicated: bool,
    /// It may be overtaken.
    pub is_reordered: bool,
    /// So many bytes were added.
    pub trailing_bytes: usize,
}

#[derive(Debug)]
struct InFlight {
    arrives: Duration,
    number: u64,
    frame: Vec<u8>,
    is_corrupted: bool,
}

impl PartialEq for InFlight {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for InFlight {}
impl PartialOrd for InFlight {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for InFlight {
    fn cmp(&self, other: &Self) -> Ordering {
        // The heap gives the greatest first; the earliest is wanted.
        (other.arrives, other.number).cmp(&(self.arrives, self.number))
    }
}

/// A uniform time below `bound`, or nought.
fn some_of(dice: &mut Dice, bound: Duration) -> Duration {
    Duration::from_nanos(dice.below(u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX)))
}

impl Lane {
    /// A lane that is on and empty.
    ///
    /// # Panics
    /// If a number of `impairments` makes no sense ([`Impairments::check`]).
    pub fn new(impairments: Impairments, dice: &Dice) -> Lane {
        let mut lane = Lane {
            impairments: Impairments::default(),
            dice: LaneDice {
                loss: dice.split(0),
                bursts: dice.split(1),
                ack_loss: dice.split(2),
                corruption: dice.split(3),
                trailing: dice.split(4),
                duplication: dice.split(5),
                jitter: dice.split(6),
                reordering: dice.split(7),
            },
            is_up: true,
            is_bad: false,
            silent_until: Duration::ZERO,
            carried_bytes: 0,
            busy_until: Duration::ZERO,
            last_arrival: Duration::ZERO,
            in_flight: BinaryHeap::new(),
            number: 0,
            counters: LaneCounters::default(),
        };
        lane.set_impairments(impairments);
        lane
    }

    /// Changes what happens to frames that are sent from here on.
    ///
    /// # Panics
    /// If a number of `impairments` makes no sense ([`Impairments::check`]).
    pub fn set_impairments(&mut self, impairments: Impairments) {
        if let Err(error) = impairments.check() {
            panic!("{error}");
        }
        self.impairments = impairments;
    }

    /// What happens to frames.
    pub fn impairments(&self) -> &Impairments {
        &self.impairments
    }

    /// Turns the lane on or off. While it is off, nothing is taken, and what would arrive is lost.
    pub fn set_up(&mut self, is_up: bool) {
        self.is_up = is_up;
    }

    /// What happened so far.
    pub fn counters(&self) -> LaneCounters {
        self.counters
    }

    /// Sends a frame, and says what will become of it.
    pub fn send(&mut self, now: Duration, frame: &[u8]) -> Fate {
        self.counters.frames_sent += 1;
        self.counters.bytes_sent += frame.len() as u64;
        let fate = match self.take(now, frame) {
            Err(lost) => Fate { lost: Some(lost), ..Fate::default() },
            Ok(departs) => self.carry(departs, frame),
        };
        if let Some(lost) = fate.lost {
            self.counters.count(lost);
        }
        fate
    }

    /// Puts a frame onto the link, and says when its last bit is sent.
    fn take(&mut self, now: Duration, frame: &[u8]) -> Result<Duration, Lost> {
        let packet_bytes = frame.len().saturating_sub(ETHERNET_BYTES);
        if !self.is_up {
            return Err(Lost::LinkDown);
        }
        if self.impairments.mtu.is_some_and(|mtu| packet_bytes > mtu) {
            return Err(Lost::Mtu);
        }
        if self.in_flight.len() >= self.impairments.in_flight_frames_max {
            return Err(Lost::InFlight);
        }
        let Some(rate) = self.impairments.rate_bits_per_second else { return Ok(now) };
        let begins = self.busy_until.max(now);
        let waits = (begins - now).as_nanos();
        // What has not been sent yet of the frames before.
        let queued = (waits * u128::from(rate) / 8_000_000_000) as usize;
        if queued > 0 && queued + packet_bytes > self.impairments.queue_bytes {
            return Err(Lost::Queue);
        }
        self.counters.queue_bytes_max = self.counters.queue_bytes_max.max(queued as u64);
        let takes = packet_bytes as u128 * 8_000_000_000 / u128::from(rate);
        self.busy_until = begins + Duration::from_nanos(u64::try_from(takes).unwrap_or(u64::MAX));
        Ok(self.busy_until)
    }

    /// What the wire does with a frame that is sent.
    fn carry(&mut self, departs: Duration, frame: &[u8]) -> Fate {
        if let Some(lost) = self.lose(departs, frame) {
            return Fate { lost: Some(lost), ..Fate::default() };
        }
        let mut fate = Fate::default();
        let mut bytes = frame.to_vec();
        if self.dice.corruption.chance(self.impairments.corruption) && !bytes.is_empty() {
            let bit = self.dice.corruption.below(bytes.len() as u64 * 8) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
            fate.is_corrupted = true;
            self.counters.corrupted += 1;
        }
        if self.impairments.trailing_bytes_max > 0 {
            let count = self.dice.trailing.below(self.impairments.trailing_bytes_max as u64 + 1);
            bytes.extend((0..count).map(|_| self.dice.trailing.roll() as u8));
            fate.trailing_bytes = count as usize;
            self.counters.trailing += u64::from(count > 0);
        }
        fate.is_duplicated = self.dice.duplication.chance(self.impairments.duplication);
        self.counters.duplicated += u64::from(fate.is_duplicated);
        let twin = fate.is_duplicated.then(|| bytes.clone());
        for bytes in [Some(bytes), twin].into_iter().flatten() {
            let jitter = some_of(&mut self.dice.jitter, self.impairments.jitter);
            let mut arrives = departs + self.impairments.latency + jitter;
            if self.dice.reordering.chance(self.impairments.reordering) {
                arrives += self.impairments.reordering_delay;
                fate.is_reordered = true;
                self.counters.reordered += 1;
            } else {
                arrives = arrives.max(self.last_arrival);
                self.last_arrival = arrives;
            }
            self.number += 1;
            let is_corrupted = fate.is_corrupted;
            let number = self.number;
            self.in_flight.push(InFlight { arrives, number, frame: bytes, is_corrupted });
        }
        fate
    }

    /// Whether the wire loses a frame. All dice are rolled for each, so that what one decides does
    /// not shift another's numbers.
    fn lose(&mut self, departs: Duration, frame: &[u8]) -> Option<Lost> {
        let Impairments { loss, bursts, silence, ack_loss, .. } = self.impairments;
        let by_chance = self.dice.loss.chance(loss);
        let mut in_burst = false;
        if let Some(bursts) = bursts {
            let changes = if self.is_bad { bursts.end } else { bursts.begin };
            self.is_bad ^= self.dice.bursts.chance(changes);
            in_burst = self.dice.bursts.chance(bursts.loss) && self.is_bad;
        }
        let is_ack = ack_loss > 0.0 && frames::is_pure_ack(frame);
        let ack_is_lost = is_ack && self.dice.ack_loss.chance(ack_loss);
        let mut is_silent = false;
        if let Some(silence) = silence {
            is_silent = departs < self.silent_until;
            if !is_silent {
                self.carried_bytes += frame.len() as u64;
                if self.carried_bytes >= silence.every_bytes {
                    self.carried_bytes = 0;
                    self.silent_until = departs + silence.lasts;
                }
            }
        }
        let causes = [
            (is_silent, Lost::Silence),
            (in_burst, Lost::Burst),
            (ack_is_lost, Lost::Ack),
            (by_chance, Lost::Chance),
        ];
        causes.into_iter().find_map(|(is_lost, cause)| is_lost.then_some(cause))
    }

    /// When the next frame arrives, if one is underway.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.in_flight.peek().map(|next| next.arrives)
    }

    /// The next frame that has arrived by `now`.
    pub fn poll_arrival(&mut self, now: Duration) -> Option<Vec<u8>> {
        self.poll_arrival_told(now).map(|(frame, _)| frame)
    }

    /// [`poll_arrival`](Lane::poll_arrival), and whether one of the frame's bits was flipped here.
    pub(crate) fn poll_arrival_told(&mut self, now: Duration) -> Option<(Vec<u8>, bool)> {
        while self.poll_timeout()? <= now {
            let InFlight { frame, is_corrupted, .. } = self.in_flight.pop()?;
            if self.is_up {
                self.counters.frames_arrived += 1;
                self.counters.bytes_arrived += frame.len() as u64;
                return Some((frame, is_corrupted));
            }
            self.counters.count(Lost::LinkDown);
        }
        None
    }
}
