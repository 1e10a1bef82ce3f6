//! Two stacks and the cable between them, in virtual time.
#![allow(dead_code, reason = "each test file uses its part")]

use fata_device::{MacAddress, Nic, NicError, Offloads, Received, Transmit};
use fata_net::{AddressConfig, Config, Stack};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use tokio::task::JoinHandle;

/// Frames that one direction of the cable holds; past it the sender waits.
const CABLE_FRAMES: usize = 256;

pub(crate) const LEFT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const RIGHT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// One direction of the cable.
#[derive(Default)]
struct Lane {
    frames: VecDeque<Vec<u8>>,
    receiver: Option<Waker>,
    sender: Option<Waker>,
    /// Why the end that sends here broke.
    broken: Option<NicError>,
    /// Frames carried so far, and calls of `flush` that told the other end of some.
    carried: u64,
    batches: u64,
    /// Times that the end that sends here was asked for a frame.
    turns: u64,
}

/// Breaks one end of a cable, or counts what went over it.
#[derive(Clone)]
pub(crate) struct Probe {
    sent: Arc<Mutex<Lane>>,
    received: Arc<Mutex<Lane>>,
}

impl Probe {
    /// Makes every later call of the interface fail.
    pub(crate) fn unplug(&self, why: &str) {
        let error = NicError::Disconnected(why.to_string());
        let receiver = {
            self.sent.lock().unwrap().broken = Some(error);
            self.received.lock().unwrap().receiver.take()
        };
        if let Some(waker) = receiver {
            waker.wake();
        }
    }

    /// Times that the driver asked the interface for a frame.
    pub(crate) fn turns(&self) -> u64 {
        self.sent.lock().unwrap().turns
    }

    /// Frames that the interface sent, and in how many batches.
    pub(crate) fn sent(&self) -> (u64, u64) {
        let lane = self.sent.lock().unwrap();
        (lane.carried, lane.batches)
    }
}

/// One end of a cable.
pub(crate) struct CableEnd {
    mac: MacAddress,
    sent: Arc<Mutex<Lane>>,
    received: Arc<Mutex<Lane>>,
    /// Frames that `flush` will hand over.
    unflushed: Vec<Vec<u8>>,
}

impl CableEnd {
    /// Breaks this end, or counts what it sends.
    pub(crate) fn probe(&self) -> Probe {
        Probe { sent: self.sent.clone(), received: self.received.clone() }
    }

    fn check(&self) -> Result<(), NicError> {
        self.sent.lock().unwrap().broken.clone().map_or(Ok(()), Err)
    }
}

impl Nic for CableEnd {
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
        self.check()?;
        self.sent.lock().unwrap().turns += 1;
        let (frame, sender) = {
            let mut lane = self.received.lock().unwrap();
            match lane.frames.pop_front() {
                Some(frame) => (Some(frame), lane.sender.take()),
                None => {
                    lane.receiver = Some(cx.waker().clone());
                    (None, None)
                }
            }
        };
        if let Some(waker) = sender {
            waker.wake();
        }
        match frame {
            Some(mut frame) => {
                consume(&mut frame, Received::UNVERIFIED);
                Poll::Ready(Ok(()))
            }
            None => Poll::Pending,
        }
    }

    fn poll_transmit(
        &mut self,
        cx: &mut Context<'_>,
        fill: &mut dyn FnMut(&mut [u8]) -> Option<Transmit>,
    ) -> Poll<Result<bool, NicError>> {
        self.check()?;
        {
            let mut lane = self.sent.lock().unwrap();
            if lane.frames.len() + self.unflushed.len() >= CABLE_FRAMES {
                lane.sender = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
        let mut frame = vec![0; 14 + self.mtu()];
        let Some(transmit) = fill(&mut frame) else { return Poll::Ready(Ok(false)) };
        frame.truncate(transmit.len);
        self.unflushed.push(frame);
        Poll::Ready(Ok(true))
    }

    fn flush(&mut self) -> Result<(), NicError> {
        self.check()?;
        if self.unflushed.is_empty() {
            return Ok(());
        }
        let receiver = {
            let mut lane = self.sent.lock().unwrap();
            lane.carried += self.unflushed.len() as u64;
            lane.batches += 1;
            lane.frames.extend(self.unflushed.drain(..));
            lane.receiver.take()
        };
        if let Some(waker) = receiver {
            waker.wake();
        }
        Ok(())
    }
}

/// A stack whose driver runs as a task.
pub(crate) struct Host {
    pub(crate) stack: Stack,
    pub(crate) probe: Probe,
    pub(crate) driver: JoinHandle<NicError>,
}

/// Two stacks, [`LEFT`] and [`RIGHT`], on one cable.
pub(crate) fn pair() -> (Host, Host) {
    pair_with(|config| config)
}

/// [`pair`] with another configuration for both.
pub(crate) fn pair_with(adjust: impl Fn(Config) -> Config) -> (Host, Host) {
    let [left, right] = cable(0);
    (host(left, LEFT, None, &adjust), host(right, RIGHT, None, &adjust))
}

/// A cable, whose ends have addresses with `number` in them.
pub(crate) fn cable(number: u8) -> [CableEnd; 2] {
    let lanes = [Arc::<Mutex<Lane>>::default(), Arc::<Mutex<Lane>>::default()];
    [0, 1].map(|index| CableEnd {
        mac: MacAddress([2, 0, 0, 0, number, index as u8 + 1]),
        sent: lanes[index].clone(),
        received: lanes[1 - index].clone(),
        unflushed: Vec::new(),
    })
}

/// A stack on one end of a cable, in a subnet of 24 bits.
pub(crate) fn host(
    nic: CableEnd,
    address: Ipv4Addr,
    gateway: Option<Ipv4Addr>,
    adjust: impl Fn(Config) -> Config,
) -> Host {
    let probe = nic.probe();
    let secret = [nic.mac.0[5] ^ nic.mac.0[4]; 32];
    let config = Config {
        address: AddressConfig::Static { address, prefix_len: 24, gateway, dns: Vec::new() },
        ..Config::new(secret)
    };
    let (stack, driver) = Stack::over_nic(Box::new(nic), adjust(config)).unwrap();
    Host { stack, probe, driver: tokio::spawn(driver) }
}

/// `address:port`.
pub(crate) fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(address), port)
}

/// Bytes that show a byte lost, doubled or out of place: 4 KiB of noise again and again, each time
/// with its number in front.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    const NOISE: usize = 4096;
    let noise: Vec<u8> = (0..NOISE).map(|at| (at * at / 7 + at) as u8).collect();
    let mut bytes = Vec::with_capacity(len + NOISE);
    for number in 0..len.div_ceil(NOISE) as u64 {
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes.extend_from_slice(&noise[8..]);
    }
    bytes.truncate(len);
    bytes
}
