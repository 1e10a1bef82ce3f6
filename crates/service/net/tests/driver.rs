//! The task that moves frames, beside an interface that never runs out of them.

use fata_device::{MacAddress, Nic, NicError, Offloads, Received, Transmit};
use fata_net::{AddressConfig, Config, Stack};
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::Instant;

/// What left, and when.
type Sent = Arc<Mutex<Vec<(Duration, Vec<u8>)>>>;

/// A card that has another frame whenever it is asked, or none at all.
struct Source {
    is_endless: bool,
    taken: Arc<AtomicU64>,
    sent: Sent,
    start: Instant,
}

impl Nic for Source {
    fn mac(&self) -> MacAddress {
        MacAddress([2, 0, 0, 0, 0, 1])
    }

    fn mtu(&self) -> usize {
        1500
    }

    fn offloads(&self) -> Offloads {
        Offloads::default()
    }

    fn poll_receive(
        &mut self,
        _cx: &mut Context<'_>,
        consume: &mut dyn FnMut(&mut [u8], Received),
    ) -> Poll<Result<(), NicError>> {
        if !self.is_endless {
            return Poll::Pending;
        }
        // Of a protocol that nobody speaks (IEEE 802's for experiments).
        let mut frame = [0; 60];
        frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5]);
        consume(&mut frame, Received::UNVERIFIED);
        self.taken.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    fn poll_transmit(
        &mut self,
        _cx: &mut Context<'_>,
        fill: &mut dyn FnMut(&mut [u8]) -> Option<Transmit>,
    ) -> Poll<Result<bool, NicError>> {
        let mut buffer = [0; 1514];
        let Some(transmit) = fill(&mut buffer) else { return Poll::Ready(Ok(false)) };
        let frame = buffer[..transmit.len].to_vec();
        self.sent.lock().unwrap().push((self.start.elapsed(), frame));
        Poll::Ready(Ok(true))
    }

    fn flush(&mut self) -> Result<(), NicError> {
        Ok(())
    }
}

/// A stack over such a card, its driver, what it has taken and what it has sent.
fn over_source(is_endless: bool) -> (Stack, fata_net::Driver, Arc<AtomicU64>, Sent) {
    let (taken, sent) = (Arc::new(AtomicU64::new(0)), Sent::default());
    let nic = Source {
        is_endless,
        taken: Arc::clone(&taken),
        sent: Arc::clone(&sent),
        start: Instant::now(),
    };
    let address = AddressConfig::Static {
        address: Ipv4Addr::new(192, 0, 2, 1),
        prefix_len: 24,
        gateway: None,
        dns: Vec::new(),
    };
    let config = Config { address, ..Config::new([7; 32]) };
    let (stack, driver) = Stack::over_nic(Box::new(nic), config).unwrap();
    (stack, driver, taken, sent)
}

/// Everything that a host says in its first ten seconds, one turn of its driver in each millisecond.
async fn lives_ten_seconds(is_endless: bool) -> Vec<(Duration, Vec<u8>)> {
    let (_stack, mut driver, taken, sent) = over_source(is_endless);
    let mut cx = Context::from_waker(Waker::noop());
    for turns in 1..=10_000u64 {
        assert!(Pin::new(&mut driver).poll(&mut cx).is_pending());
        let taken = taken.load(Ordering::Relaxed);
        assert_eq!(taken, if is_endless { 64 * turns } else { 0 }, "a batch in each turn");
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    let sent = sent.lock().unwrap();
    sent.clone()
}

/// X04: probes, announcements, solicitations and reports leave at the very millisecond at which they
/// leave when nothing arrives.
#[tokio::test(start_paused = true)]
async fn timers_and_output_have_their_turn_beside_an_endless_source() {
    let calm = lives_ten_seconds(false).await;
    // Among them: an announcement in ARP, a probe of an address, reports, solicitations of routers.
    assert!(calm.len() >= 8, "{}", calm.len());
    assert!(calm.last().unwrap().0 > Duration::from_secs(1));
    assert_eq!(lives_ten_seconds(true).await, calm);
}

/// X04: so have the program's other tasks.
#[tokio::test]
async fn other_tasks_have_their_turn_beside_an_endless_source() {
    let (_stack, driver, taken, _sent) = over_source(true);
    let driver = tokio::spawn(driver);
    // Two that wake each other, a thousand times in all. (A task that yields is woken by tokio only when
    // it has looked at the outside world, after some sixty turns of others.)
    let (to_left, mut left) = tokio::sync::mpsc::channel(1);
    let (to_right, mut right) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        while let Some(()) = right.recv().await {
            to_left.send(()).await.unwrap();
        }
    });
    let other = tokio::spawn(async move {
        for _ in 0..500 {
            to_right.send(()).await.unwrap();
            left.recv().await.unwrap();
        }
    });
    other.await.unwrap();
    let taken = taken.load(Ordering::Relaxed);
    assert!((64_000 / 2..=64 * (1000 + 61)).contains(&taken), "{taken} frames in a thousand turns");
    driver.abort();
}
