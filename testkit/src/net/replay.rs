//! [`Replay`]: plays a capture into a stack, and compares what it answers.
//!
//! The frames that the captured interface received are given to the stack; those that it sent are
//! what the stack must send, in this order and nothing else. So a capture of a bug, from the field or
//! from the world, becomes a test of its repair.

use super::frames::{self, ETHERNET_BYTES, Transport, u16_at, u32_at};
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use fata_device::{MacAddress, Nic, NicError, Offloads, Received, Transmit};
use fata_pcap::{Direction, LINK_TYPE_ETHERNET, ReadError, Reader};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

/// The longest frame that a stack may send into a replay.
const FRAME_BYTES_MAX: usize = ETHERNET_BYTES + 65_535;

/// When the frames of a capture are played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// When they arrived, counted from the capture's first frame.
    #[default]
    Recorded,
    /// All at once, whatever the stack answers.
    AtOnce,
    /// Each as soon as the stack has sent all that it sent before.
    Answers,
}

/// What may differ between an answer and the one in the capture. Bytes behind an IP packet, which
/// pad a frame, always may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mask {
    /// The checksums of IPv4, TCP, UDP and ICMP: for captures made before a card finished them.
    pub checksums: bool,
    /// IPv4's identification.
    pub identification: bool,
    /// The values in TCP's timestamps option.
    pub timestamps: bool,
    /// TCP's window.
    pub window: bool,
}

impl Mask {
    /// All that depends on a stack's secret, its clock and its memory, and not on the protocol.
    pub const INDIVIDUAL: Mask =
        Mask { checksums: true, identification: true, timestamps: true, window: true };
}

/// How a capture is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayOptions {
    /// When frames are played.
    pub pace: Pace,
    /// What may differ.
    pub mask: Mask,
    /// How long an answer may be late after the last frame was played.
    pub patience: Duration,
}

impl Default for ReplayOptions {
    /// The recorded pace, nothing may differ, and two minutes of patience: longer than any timer of
    /// TCP's.
    fn default() -> Self {
        ReplayOptions {
            pace: Pace::Recorded,
            mask: Mask::default(),
            patience: Duration::from_secs(120),
        }
    }
}

/// Where a stack did something else than the capture has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The frame of the capture that was expected, as Wireshark counts: from 1. `None`: no more was.
    pub number: Option<usize>,
    /// The frame that was expected.
    pub expected: Option<Vec<u8>>,
    /// The frame that was sent; `None` if none was.
    pub sent: Option<Vec<u8>>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        match (&self.expected, &self.sent) {
            (Some(expected), Some(sent)) => {
                let number = self.number.unwrap_or_default();
                let same = expected.iter().zip(sent).take_while(|(a, b)| a == b).count();
                write!(f, "frame {number} of the capture and the answer differ at byte {same}")?;
                write!(f, "\nexpected {}\n    sent {}", hex(expected), hex(sent))
            }
            (Some(expected), None) => {
                let number = self.number.unwrap_or_default();
                write!(f, "frame {number} of the capture was not sent\nexpected {}", hex(expected))
            }
            (None, sent) => {
                let sent = hex(sent.as_deref().unwrap_or_default());
                write!(f, "the stack sent a frame that the capture does not have\nsent {sent}")
            }
        }
    }
}

impl std::error::Error for Mismatch {}

/// Why a capture cannot be played.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplayError {
    /// It is broken.
    Broken(ReadError),
    /// A frame, of this number, is not Ethernet's.
    NotEthernet(usize),
    /// A frame, of this number, was not kept whole.
    Cut(usize),
    /// Nothing in it is for the stack to receive.
    Empty,
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplayError::Broken(error) => write!(f, "{error}"),
            ReplayError::NotEthernet(number) => write!(f, "frame {number} is not Ethernet's"),
            ReplayError::Cut(number) => write!(f, "frame {number} was not kept whole"),
            ReplayError::Empty => {
                write!(f, "the capture has no frame that the stack could receive")
            }
        }
    }
}

impl std::error::Error for ReplayError {}

/// A network card that plays a capture: give it to a stack.
#[derive(Debug)]
pub struct Replay {
    shared: Arc<Shared>,
    mac: MacAddress,
    buffer: Vec<u8>,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// How a replay ends.
#[derive(Debug)]
pub struct Verdict {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    options: ReplayOptions,
    began: Instant,
    /// Told when the replay is over.
    over: Notify,
}

#[derive(Debug)]
struct State {
    steps: Vec<Step>,
    /// The next step of each kind.
    next_received: usize,
    next_sent: usize,
    receiver: Option<Waker>,
    mismatch: Option<Mismatch>,
    /// The stack's sequence numbers minus the capture's, by its port and the peer's: its initial
    /// ones are another secret's.
    shifts: HashMap<(u16, u16), u32>,
}

#[derive(Debug)]
struct Step {
    /// As Wireshark counts.
    number: usize,
    /// After the first frame.
    at: Duration,
    is_received: bool,
    frame: Vec<u8>,
}

impl State {
    /// The first step of a kind, from `from` on.
    fn find(&self, from: usize, is_received: bool) -> Option<usize> {
        (from..self.steps.len()).find(|step| self.steps[*step].is_received == is_received)
    }

    fn is_over(&self) -> bool {
        let nothing_left = self.find(self.next_received, true).is_none()
            && self.find(self.next_sent, false).is_none();
        self.mismatch.is_some() || nothing_left
    }

    /// Compares a frame that the stack sent.
    fn sent(&mut self, frame: &[u8], mask: Mask) {
        if self.is_over() {
            // What a stack does after the capture's end is its affair.
            return;
        }
        let Some(step) = self.find(self.next_sent, false) else {
            self.mismatch =
                Some(Mismatch { number: None, expected: None, sent: Some(frame.to_vec()) });
            return;
        };
        self.next_sent = step + 1;
        let Step { number, frame: expected, .. } = &self.steps[step];
        let number = *number;
        let mut expected = expected.clone();
        if let (Some(captured), Some(live)) = (Tcp::of(&expected), Tcp::of(frame)) {
            let key = (captured.ports.0, captured.ports.1);
            if captured.is_syn && live.is_syn && live.ports == captured.ports {
                self.shifts.insert(key, live.sequence.wrapping_sub(captured.sequence));
            }
            let shift = self.shifts.get(&key).copied().unwrap_or_default();
            captured.shift(&mut expected, 4, shift);
        }
        if masked(&expected, mask) != masked(frame, mask) {
            let (expected, sent) = (Some(expected), Some(frame.to_vec()));
            self.mismatch = Some(Mismatch { number: Some(number), expected, sent });
        }
    }

    /// The frame of a step that the stack receives, acknowledging what it really sent.
    fn received(&self, step: usize) -> Vec<u8> {
        let mut frame = self.steps[step].frame.clone();
        if let Some(tcp) = Tcp::of(&frame) {
            let shift = self.shifts.get(&(tcp.ports.1, tcp.ports.0)).copied().unwrap_or_default();
            if tcp.has_ack {
                tcp.shift(&mut frame, 8, shift);
                tcp.shift_sack(&mut frame, shift);
            }
        }
        frame
    }
}

/// What is needed of a TCP segment.
struct Tcp {
    transport: Transport,
    /// Source and destination.
    ports: (u16, u16),
    sequence: u32,
    is_syn: bool,
    has_ack: bool,
}

impl Tcp {
    fn of(frame: &[u8]) -> Option<Tcp> {
        let transport = Transport::of(frame).filter(Transport::is_tcp)?;
        let header = transport.header;
        let flags = transport.flags(frame);
        Some(Tcp {
            transport,
            ports: (u16_at(frame, header), u16_at(frame, header + 2)),
            sequence: u32_at(frame, header + 4),
            is_syn: flags & 2 != 0,
            has_ack: flags & frames::ACK != 0,
        })
    }

    /// Adds `shift` to the number at `at`, counted from TCP's header, and to the checksum what that
    /// changes (RFC 1624), so that a wrong one stays wrong.
    fn shift(&self, frame: &mut [u8], at: usize, shift: u32) {
        let at = self.transport.header + at;
        if shift == 0 {
            return;
        }
        let old = u32_at(frame, at);
        let new = old.wrapping_add(shift);
        frame[at..at + 4].copy_from_slice(&new.to_be_bytes());
        let checksum_at = self.transport.checksum_at();
        let is_aligned = (at - self.transport.header).is_multiple_of(2);
        let swap = |sum: u16| if is_aligned { sum } else { sum.swap_bytes() };
        let removed = swap(!frames::sum(&old.to_be_bytes()));
        let added = swap(frames::sum(&new.to_be_bytes()));
        let sum = !u16_at(frame, checksum_at);
        let checksum = !frames::add(frames::add(sum, removed), added);
        frame[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
    }

    /// [`shift`](Tcp::shift) for every edge of the blocks in a SACK option (RFC 2018, section 3).
    fn shift_sack(&self, frame: &mut [u8], shift: u32) {
        let Transport { header, payload, .. } = self.transport;
        for (kind, at, len) in options(&frame[header + 20..payload]) {
            if kind == 5 {
                for edge in (at + 2..at + len - 1).step_by(4).filter(|edge| edge + 4 <= at + len) {
                    self.shift(frame, 20 + edge, shift);
                }
            }
        }
    }
}

/// TCP's options: kind, place and length of each, the two bytes of the head included.
fn options(bytes: &[u8]) -> Vec<(u8, usize, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(kind) = bytes.get(at).copied().filter(|kind| *kind != 0) {
        let len = if kind == 1 { 1 } else { bytes.get(at + 1).map_or(0, |len| usize::from(*len)) };
        if len == 0 || (kind != 1 && len < 2) || at + len > bytes.len() {
            break;
        }
        found.push((kind, at, len));
        at += len;
    }
    found
}

/// The frame with nought where `mask` lets it differ, without padding.
fn masked(frame: &[u8], mask: Mask) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let is_ipv4 = frame.get(12..14) == Some(&[8, 0]) && frame.len() >= ETHERNET_BYTES + 20;
    if is_ipv4 {
        let end = ETHERNET_BYTES + usize::from(u16_at(&frame, 16));
        frame.truncate(end.max(ETHERNET_BYTES + 20));
        if mask.identification {
            frame[18..20].fill(0);
        }
        // Identification is summed, too.
        if mask.checksums || mask.identification {
            frame[24..26].fill(0);
        }
        const ICMP: u8 = 1;
        if mask.checksums && frame[23] == ICMP {
            let at = ETHERNET_BYTES + usize::from(frame[14] & 15) * 4 + 2;
            if let Some(sum) = frame.get_mut(at..at + 2) {
                sum.fill(0);
            }
        }
    } else if frame.get(12..14) == Some(&[8, 6]) {
        // ARP for IPv4 over Ethernet has 28 bytes (RFC 826).
        frame.truncate(ETHERNET_BYTES + 28);
    }
    if let Some(transport) = Transport::of(&frame) {
        let Transport { header, payload, end, .. } = transport;
        frame.truncate(end);
        if transport.is_tcp() {
            if mask.window {
                frame[header + 14..header + 16].fill(0);
            }
            if mask.timestamps {
                for (kind, at, len) in options(&frame[header + 20..payload]) {
                    if kind == 8 {
                        frame[header + 20 + at + 2..header + 20 + at + len].fill(0);
                    }
                }
            }
        }
        // What else may differ is summed.
        if mask.checksums || (transport.is_tcp() && (mask.window || mask.timestamps)) {
            let at = transport.checksum_at();
            frame[at..at + 2].fill(0);
        }
    }
    frame
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Replay {
    /// A card with the address `mac` that plays `capture`, pcapng or pcap. In a file that does not
    /// say which way frames went, those from `mac` are the answers.
    ///
    /// TCP's sequence numbers are translated: the stack may choose its own. To be called inside of a
    /// tokio runtime, in which the replay begins now.
    ///
    /// # Errors
    /// [`ReplayError`], naming the frame.
    pub fn new(
        capture: &[u8],
        mac: MacAddress,
        options: ReplayOptions,
    ) -> Result<(Replay, Verdict), ReplayError> {
        let mut reader = Reader::new(capture).map_err(ReplayError::Broken)?;
        let mut steps: Vec<Step> = Vec::new();
        let mut first = None;
        let mut number = 0;
        while let Some(frame) = reader.next_frame().map_err(ReplayError::Broken)? {
            number += 1;
            let link_type = reader.interfaces().get(frame.interface).map(|port| port.link_type);
            if link_type != Some(LINK_TYPE_ETHERNET) || frame.bytes.len() < ETHERNET_BYTES {
                return Err(ReplayError::NotEthernet(number));
            }
            if frame.bytes.len() < frame.original_len as usize {
                return Err(ReplayError::Cut(number));
            }
            let first = *first.get_or_insert(frame.at_nanos);
            let is_received = match frame.direction {
                Some(direction) => direction == Direction::Inbound,
                None => frame.bytes[6..12] != mac.0,
            };
            steps.push(Step {
                number,
                at: Duration::from_nanos(frame.at_nanos.saturating_sub(first)),
                is_received,
                frame: frame.bytes.to_vec(),
            });
        }
        if !steps.iter().any(|step| step.is_received) {
            return Err(ReplayError::Empty);
        }
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                steps,
                next_received: 0,
                next_sent: 0,
                receiver: None,
                mismatch: None,
                shifts: HashMap::new(),
            }),
            options,
            began: Instant::now(),
            over: Notify::new(),
        });
        let verdict = Verdict { shared: shared.clone() };
        Ok((Replay { shared, mac, buffer: vec![0; FRAME_BYTES_MAX], sleep: None }, verdict))
    }

    /// The next frame for the stack, if it is time.
    fn next(&mut self, cx: &mut Context<'_>) -> Option<Vec<u8>> {
        let mut state = self.shared.lock();
        // Whoever waits is woken by an answer; there is no harm in one too many.
        state.receiver = Some(cx.waker().clone());
        if state.mismatch.is_some() {
            return None;
        }
        let step = state.find(state.next_received, true)?;
        let is_due = match self.shared.options.pace {
            Pace::AtOnce => true,
            Pace::Answers => state.find(state.next_sent, false).is_none_or(|sent| sent > step),
            Pace::Recorded => {
                let due = self.shared.began + state.steps[step].at;
                let sleep =
                    self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
                if sleep.deadline() != due {
                    sleep.as_mut().reset(due);
                }
                sleep.as_mut().poll(cx).is_ready()
            }
        };
        if !is_due {
            return None;
        }
        state.next_received = step + 1;
        if state.is_over() {
            self.shared.over.notify_one();
        }
        Some(state.received(step))
    }
}

impl Nic for Replay {
    fn mac(&self) -> MacAddress {
        self.mac
    }

    fn mtu(&self) -> usize {
        1500
    }

    fn offloads(&self) -> Offloads {
        Offloads::default()
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        consume: &mut dyn FnMut(&mut [u8], Received),
    ) -> Poll<Result<(), NicError>> {
        let Some(mut frame) = self.next(cx) else { return Poll::Pending };
        consume(&mut frame, Received::UNVERIFIED);
        Poll::Ready(Ok(()))
    }

    fn poll_transmit(
        &mut self,
        _: &mut Context<'_>,
        fill: &mut dyn FnMut(&mut [u8]) -> Option<Transmit>,
    ) -> Poll<Result<bool, NicError>> {
        let Some(transmit) = fill(&mut self.buffer) else { return Poll::Ready(Ok(false)) };
        let receiver = {
            let mut state = self.shared.lock();
            state.sent(&self.buffer[..transmit.len], self.shared.options.mask);
            if state.is_over() {
                self.shared.over.notify_one();
            }
            state.receiver.take()
        };
        if let Some(receiver) = receiver {
            receiver.wake();
        }
        Poll::Ready(Ok(true))
    }

    fn flush(&mut self) -> Result<(), NicError> {
        Ok(())
    }
}

impl Verdict {
    /// Waits until the capture was played and every answer in it was seen, and says how many frames
    /// were played and answered.
    ///
    /// # Errors
    /// The first [`Mismatch`]: another answer, one too many, or one that did not come in time.
    pub async fn wait(self) -> Result<(usize, usize), Mismatch> {
        let Shared { options, began, .. } = *self.shared;
        let last = match options.pace {
            Pace::Recorded => {
                self.shared.lock().steps.last().map_or(Duration::ZERO, |step| step.at)
            }
            Pace::AtOnce | Pace::Answers => Duration::ZERO,
        };
        let _ =
            tokio::time::timeout_at(began + last + options.patience, self.shared.over.notified())
                .await;
        let state = self.shared.lock();
        if let Some(mismatch) = &state.mismatch {
            return Err(mismatch.clone());
        }
        if let Some(step) = state.find(state.next_sent, false) {
            let Step { number, frame, .. } = &state.steps[step];
            return Err(Mismatch {
                number: Some(*number),
                expected: Some(frame.clone()),
                sent: None,
            });
        }
        let received = state.steps.iter().filter(|step| step.is_received).count();
        Ok((received, state.steps.len() - received))
    }
}
