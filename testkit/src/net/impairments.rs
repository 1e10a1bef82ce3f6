//! What a link does to frames, in numbers, and what it did, counted.

use core::fmt;
use core::time::Duration;

/// What one direction of a link does to the frames that it carries.
///
/// A frame first waits for its turn on the link (MTU, queue, rate), then the wire may lose it,
/// change it or double it, and then it takes its time. Probabilities are from 0 to 1; every one has
/// dice of its own, so that another loss rate does not change which frames are reordered.
#[derive(Clone, Debug, PartialEq)]
pub struct Impairments {
    /// Time from the moment in which the last bit is sent to the frame's arrival.
    pub latency: Duration,
    /// Up to so much more, differently for each frame. Alone it never reorders: a frame waits for
    /// those before it.
    pub jitter: Duration,
    /// Bits per second, counted from the IP header on, as the bounds in the literature are;
    /// `None`: as many as are sent.
    pub rate_bits_per_second: Option<u64>,
    /// Bytes that wait for their turn when there is a rate; what comes on top is dropped.
    pub queue_bytes: usize,
    /// Frames lost, each by itself.
    pub loss: f64,
    /// Frames lost in bursts.
    pub bursts: Option<Bursts>,
    /// Times in which all is lost.
    pub silence: Option<Silence>,
    /// TCP segments lost that are nothing but an acknowledgement.
    pub ack_loss: f64,
    /// Frames that arrive twice.
    pub duplication: f64,
    /// Frames that take `reordering_delay` more, and are overtaken.
    pub reordering: f64,
    /// See `reordering`.
    pub reordering_delay: Duration,
    /// Frames in which one bit is flipped, anywhere.
    pub corruption: f64,
    /// Up to so many bytes more at the end of each frame, which no length in it mentions.
    pub trailing_bytes_max: usize,
    /// The largest IP packet that passes; larger ones are dropped. `None`: any.
    pub mtu: Option<usize>,
    /// Frames underway at once; what comes on top is dropped. A bound on the simulation's memory:
    /// at the default of 65,536, full frames are 100 MB, which 10 Gbit/s have in 80 ms.
    pub in_flight_frames_max: usize,
}

impl Default for Impairments {
    /// None: every frame arrives at once. With a rate, 150,000 bytes (100 full frames) queue.
    fn default() -> Self {
        Impairments {
            latency: Duration::ZERO,
            jitter: Duration::ZERO,
            rate_bits_per_second: None,
            queue_bytes: 150_000,
            loss: 0.0,
            bursts: None,
            silence: None,
            ack_loss: 0.0,
            duplication: 0.0,
            reordering: 0.0,
            reordering_delay: Duration::ZERO,
            corruption: 0.0,
            trailing_bytes_max: 0,
            mtu: None,
            in_flight_frames_max: 65_536,
        }
    }
}

impl Impairments {
    /// None but the time that a frame takes.
    pub fn latency(latency: Duration) -> Self {
        Impairments { latency, ..Impairments::default() }
    }

    /// Says which number makes no sense, if one does.
    ///
    /// # Errors
    /// The number's name, and what it must be.
    pub fn check(&self) -> Result<(), String> {
        let bursts = self.bursts.unwrap_or(Bursts::NONE);
        for (name, probability) in [
            ("loss", self.loss),
            ("the bursts' beginning", bursts.begin),
            ("the bursts' end", bursts.end),
            ("the bursts' loss", bursts.loss),
            ("the loss of acknowledgements", self.ack_loss),
            ("duplication", self.duplication),
            ("reordering", self.reordering),
            ("corruption", self.corruption),
        ] {
            if !(0.0..=1.0).contains(&probability) {
                return Err(format!("{name} is {probability}: a probability is from 0 to 1"));
            }
        }
        if self.rate_bits_per_second == Some(0) {
            return Err("a rate is at least 1 bit/s: to carry nothing, turn the link off".into());
        }
        if self.silence.is_some_and(|silence| silence.every_bytes == 0) {
            return Err("a silence comes after at least one byte".into());
        }
        Ok(())
    }
}

/// Loss in bursts, after Gilbert (*Capacity of a burst-noise channel*, 1960) and Elliott (1963): a
/// channel is good or bad, and changes with a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bursts {
    /// Probability that a good channel becomes bad, for each frame.
    pub begin: f64,
    /// Probability that a bad one becomes good. A burst has `1 / end` frames on average.
    pub end: f64,
    /// Frames lost while it is bad.
    pub loss: f64,
}

impl Bursts {
    const NONE: Bursts = Bursts { begin: 0.0, end: 1.0, loss: 0.0 };
}

/// All is lost for a while, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// It begins when so many bytes were carried since the last one.
    pub every_bytes: u64,
    /// How long it lasts.
    pub lasts: Duration,
}

impl Silence {
    /// A second after each megabyte.
    pub const SECOND_PER_MEGABYTE: Silence =
        Silence { every_bytes: 1_000_000, lasts: Duration::from_secs(1) };
}

/// Both directions of a link between a host and the switch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Link {
    /// What happens to frames of the host's.
    pub to_network: Impairments,
    /// What happens to frames for it.
    pub from_network: Impairments,
}

impl Link {
    /// The same in both directions.
    pub fn symmetric(impairments: Impairments) -> Link {
        Link { to_network: impairments.clone(), from_network: impairments }
    }
}

/// Why a frame did not get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Lost {
    /// The link was off when it was sent, or when it would have arrived.
    LinkDown,
    /// It is larger than the link's MTU.
    Mtu,
    /// The queue was full.
    Queue,
    /// There were [`in_flight_frames_max`](Impairments::in_flight_frames_max) underway.
    InFlight,
    /// By chance.
    Chance,
    /// In a burst.
    Burst,
    /// In a silence.
    Silence,
    /// It was an acknowledgement, by chance.
    Ack,
    /// Sender and receiver are in different parts of a network that is torn.
    Partition,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lost::LinkDown => "lost: the link is off",
            Lost::Mtu => "lost: larger than the link's MTU",
            Lost::Queue => "lost: the queue is full",
            Lost::InFlight => "lost: too many frames underway",
            Lost::Chance => "lost by chance",
            Lost::Burst => "lost in a burst",
            Lost::Silence => "lost in a silence",
            Lost::Ack => "lost: an acknowledgement, by chance",
            Lost::Partition => "lost: the network is torn",
        })
    }
}

/// Declares a struct of counters that can be listed.
macro_rules! counters {
    ($(#[$about:meta])* $name:ident { $($(#[$help:meta])* $field:ident,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$help])* pub $field: u64,)*
        }

        impl $name {
            /// All of them, with their names.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($field), self.$field),)*].into_iter()
            }
        }
    };
}

counters! {
    /// What one direction of a link did.
    LaneCounters {
        /// Frames that were sent here.
        frames_sent,
        /// Their bytes.
        bytes_sent,
        /// Frames that arrived, twice if they were doubled.
        frames_arrived,
        /// Their bytes, trailing ones included.
        bytes_arrived,
        /// Lost because the link was off.
        lost_link_down,
        /// Lost because they were larger than the MTU.
        lost_mtu,
        /// Lost because the queue was full.
        lost_queue,
        /// Lost because too many were underway.
        lost_in_flight,
        /// Lost by chance.
        lost_chance,
        /// Lost in a burst.
        lost_burst,
        /// Lost in a silence.
        lost_silence,
        /// Acknowledgements lost by chance.
        lost_ack,
        /// Doubled.
        duplicated,
        /// Delayed so that others could overtake them.
        reordered,
        /// With a bit flipped.
        corrupted,
        /// With bytes added at the end.
        trailing,
        /// The most bytes that waited for their turn.
        queue_bytes_max,
    }
}

counters! {
    /// What a switch did.
    SwitchCounters {
        /// Frames sent on to one port, whose station was known.
        forwarded,
        /// Frames sent on to every port: to a group, or to a station that is not known.
        flooded,
        /// Frames for a station at the port that they came from.
        filtered,
        /// Stations that were learned, or found at another port.
        learned,
        /// Stations not learned because the table was full.
        table_full,
        /// Frames that a torn network kept from a port.
        lost_partition,
        /// Frames without a whole Ethernet header.
        malformed,
    }
}

impl LaneCounters {
    pub(crate) fn count(&mut self, lost: Lost) {
        *match lost {
            Lost::LinkDown => &mut self.lost_link_down,
            Lost::Mtu => &mut self.lost_mtu,
            Lost::Queue => &mut self.lost_queue,
            Lost::InFlight => &mut self.lost_in_flight,
            Lost::Chance => &mut self.lost_chance,
            Lost::Burst => &mut self.lost_burst,
            Lost::Silence => &mut self.lost_silence,
            Lost::Ack => &mut self.lost_ack,
            // The switch's affair.
            Lost::Partition => return,
        } += 1;
    }
}
