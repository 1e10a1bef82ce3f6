//! Frames: sends frames of one size at one rate into `left`, and counts those that come out of
//! `right`, where a forwarder under test joins the two.
//!
//! Prints a line of JSON: sent, received, lost, and how long the frames took. Every frame carries
//! its number and the time when it was sent.
#![forbid(unsafe_code)]

use fata::Interface;
use fata::device::{Nic, NicError, Transmit};
use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

/// Measures a forwarder between two interfaces.
#[derive(fata::Devices)]
struct Devices {
    /// Frames are sent here.
    left: Interface,
    /// And are expected here.
    right: Interface,
    /// Frames a second; 0 is as many as go.
    #[fata(arg, default = 10000)]
    rate: u32,
    /// Length of a frame without its FCS, in bytes.
    #[fata(arg, default = 60)]
    size: usize,
    /// Seconds that frames are sent.
    #[fata(arg, default = 5)]
    seconds: u8,
}

/// Ethernet header, number, time.
const FRAME_BYTES_MIN: usize = 14 + 8 + 8;
/// An EtherType for experiments (IEEE 802, 88b5): nobody answers it.
const ETHER_TYPE: [u8; 2] = [0x88, 0xb5];
/// Frames that are sent between two looks at what arrived.
const BATCH: u32 = 32;
/// How long the last frames may be on their way.
const GRACE: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Arrived {
    frames: u64,
    out_of_order: u64,
    next: u64,
    delay_nanos: u64,
    delay_nanos_max: u64,
}

#[fata::main]
async fn main(devices: Devices) -> Result<(), String> {
    let Devices { mut left, mut right, rate, size, seconds } = devices;
    if !(FRAME_BYTES_MIN..=left.mtu() + 14).contains(&size) {
        return Err(format!("--size={size}: expected {FRAME_BYTES_MIN} to {}", left.mtu() + 14));
    }
    let start = Instant::now();
    let span = Duration::from_secs(seconds.into());
    let mut sent = 0;
    let mut arrived = Arrived::default();
    while start.elapsed() < span + GRACE {
        let due = if start.elapsed() >= span {
            0
        } else if rate == 0 {
            BATCH
        } else {
            let wanted = (start.elapsed().as_secs_f64() * f64::from(rate)) as u64;
            wanted.saturating_sub(sent).min(BATCH.into()) as u32
        };
        for _ in 0..due {
            if !send(&mut left, start, sent, size).await.map_err(|error| error.to_string())? {
                break;
            }
            sent += 1;
        }
        left.flush().map_err(|error| error.to_string())?;
        let taken =
            take(&mut right, start, &mut arrived).await.map_err(|error| error.to_string())?;
        discard(&mut left).await.map_err(|error| error.to_string())?;
        if taken == 0 && due == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
    let seconds = span.as_secs_f64();
    println!(
        "{{\"test\":\"forward\",\"rate\":{rate},\"size\":{size},\"sent\":{sent},\"received\":{},\
         \"lost\":{},\"out_of_order\":{},\"received_per_s\":{:.0},\"mean_delay_us\":{},\"max_delay_us\":{}}}",
        arrived.frames,
        sent - arrived.frames.min(sent),
        arrived.out_of_order,
        arrived.frames as f64 / seconds,
        arrived.delay_nanos / arrived.frames.max(1) / 1000,
        arrived.delay_nanos_max / 1000,
    );
    println!("done");
    Ok(())
}

/// Queues frame `number`; false when the interface takes no more at the moment.
async fn send(
    nic: &mut Interface,
    start: Instant,
    number: u64,
    size: usize,
) -> Result<bool, NicError> {
    let source = nic.mac().0;
    poll_fn(|cx| {
        let polled = nic.poll_transmit(cx, &mut |buffer| {
            let frame = &mut buffer[..size];
            frame.fill(0);
            // To everybody: a learning bridge on the way floods it, whatever it has learnt.
            frame[..6].fill(0xff);
            frame[6..12].copy_from_slice(&source);
            frame[12..14].copy_from_slice(&ETHER_TYPE);
            frame[14..22].copy_from_slice(&number.to_le_bytes());
            frame[22..30].copy_from_slice(&(start.elapsed().as_nanos() as u64).to_le_bytes());
            Some(Transmit::complete(size))
        });
        match polled {
            Poll::Pending => Poll::Ready(Ok(false)),
            ready => ready,
        }
    })
    .await
}

/// Takes what has arrived; says how many frames that were.
async fn take(
    nic: &mut Interface,
    start: Instant,
    arrived: &mut Arrived,
) -> Result<usize, NicError> {
    let mut taken = 0;
    poll_fn(|cx| {
        loop {
            let polled = nic.poll_receive(cx, &mut |frame, _| {
                let word = |at: usize| {
                    let bytes = frame.get(at..at + 8)?;
                    Some(u64::from_le_bytes(bytes.try_into().ok()?))
                };
                if frame.get(12..14) != Some(&ETHER_TYPE) {
                    return;
                }
                let (Some(number), Some(sent_at)) = (word(14), word(22)) else { return };
                let delay = (start.elapsed().as_nanos() as u64).saturating_sub(sent_at);
                arrived.frames += 1;
                arrived.out_of_order += u64::from(number < arrived.next);
                arrived.next = arrived.next.max(number + 1);
                arrived.delay_nanos += delay;
                arrived.delay_nanos_max = arrived.delay_nanos_max.max(delay);
            });
            match polled {
                Poll::Ready(Ok(())) => taken += 1,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
            if taken >= 256 {
                break;
            }
        }
        Poll::Ready(nic.flush())
    })
    .await?;
    Ok(taken)
}

/// Throws away what arrives at the side that sends.
async fn discard(nic: &mut Interface) -> Result<(), NicError> {
    poll_fn(|cx| {
        for _ in 0..64 {
            match nic.poll_receive(cx, &mut |_, _| {}) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
        }
        Poll::Ready(nic.flush())
    })
    .await
}
