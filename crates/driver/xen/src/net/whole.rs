//! Whole interfaces: handshakes through XenStore, rings through the simulated hypervisor. Tests.

use super::pair::{NicWire, counted, frame};
use super::*;
use crate::simulation::{Host, in_time};
use crate::{Xen, XenError};
use core::future::poll_fn;
use fata_device::{Nic, NicError, Transmit};

const FRONT: u16 = 5;
const BACK: u16 = 2;

fn plug(host: &Host, handle: u32) {
    let mac = format!("00:16:3e:00:00:{handle:02x}");
    host.plug("vif", FRONT, BACK, handle, &[("mac", &mac)]);
}

async fn start(xen: &Xen, handle: u32) -> Result<Netfront, XenError> {
    let slots = xen.net_frontends().await?;
    let slot = slots.into_iter().find(|slot| slot.handle() == handle).expect("the toolstack's");
    slot.start(&NetfrontOptions::default()).await
}

async fn send(nic: &mut impl Nic, bytes: &[u8]) -> Result<(), NicError> {
    let mut fill = |buffer: &mut [u8]| {
        buffer[..bytes.len()].copy_from_slice(bytes);
        Some(Transmit::complete(bytes.len()))
    };
    assert!(poll_fn(|cx| nic.poll_transmit(cx, &mut fill)).await?);
    nic.flush()
}

async fn receive(nic: &mut impl Nic) -> Result<Vec<u8>, NicError> {
    let mut got = Vec::new();
    poll_fn(|cx| nic.poll_receive(cx, &mut |frame, _| got = frame.to_vec())).await?;
    nic.flush()?;
    Ok(got)
}

async fn both_ways(front: &mut Netfront, back: &mut Netback) {
    for number in 0..5 {
        send(front, &frame(number, 1514)).await.unwrap();
        assert_eq!(receive(back).await, Ok(frame(number, 1514)));
        send(back, &frame(number, 200)).await.unwrap();
        assert_eq!(receive(front).await, Ok(frame(number, 200)));
    }
}

/// The next frame is the one by which an interface says where it is now.
async fn announced(back: &mut Netback) {
    let frame = receive(back).await.expect("connected");
    let mac = [0, 0x16, 0x3e, 0, 0, 0];
    assert_eq!((&frame[..6], &frame[6..12], frame.len()), (&[0xff; 6][..], &mac[..], 60));
    assert_eq!(frame[12..22], [0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
    assert_eq!((&frame[22..28], &frame[32..38]), (&mac[..], &mac[..]));
}

async fn two(host: &Host) -> (Xen, Xen, NetBackends) {
    let (front, back) = (host.guest(FRONT), host.guest(BACK));
    let backends = back.net_backends(NetbackOptions::default());
    (front, back, backends)
}

async fn connected(front: &Xen, backends: &mut NetBackends, handle: u32) -> (Netfront, Netback) {
    let (nic, accepted) = tokio::join!(start(front, handle), backends.accept());
    let accepted = accepted.expect("a frontend");
    assert_eq!((accepted.domain.0, accepted.handle), (FRONT, handle));
    (nic.expect("a backend"), accepted.nic)
}

#[test]
fn interfaces_are_found_started_and_used_side_by_side() {
    in_time(async {
        let host = Host::new();
        let (front, _, mut backends) = two(&host).await;
        plug(&host, 3);
        plug(&host, 0);
        let handles: Vec<_> =
            front.net_frontends().await.unwrap().iter().map(NetSlot::handle).collect();
        assert_eq!(handles, [0, 3]);
        let (mut first, mut its) = connected(&front, &mut backends, 0).await;
        let (mut second, mut theirs) = connected(&front, &mut backends, 3).await;
        assert_eq!(second.mac().to_string(), "00:16:3e:00:00:03");
        assert!(first.offloads().segmentation_ipv4 && its.offloads().segmentation_ipv6);
        both_ways(&mut first, &mut its).await;
        both_ways(&mut second, &mut theirs).await;
        drop(first);
        both_ways(&mut second, &mut theirs).await;
        let ended = receive(&mut its).await;
        assert!(matches!(ended, Err(NicError::Disconnected(_))), "{ended:?}");
    });
}

#[test]
fn the_whole_way_fulfils_the_contract() {
    in_time(async {
        let host = Host::new();
        let (front, _, mut backends) = two(&host).await;
        plug(&host, 0);
        plug(&host, 1);
        let (mut nic, other) = connected(&front, &mut backends, 0).await;
        fata_device::contract::nic(&mut nic, &mut NicWire::to(other).0).await;
        let (other, mut nic) = connected(&front, &mut backends, 1).await;
        fata_device::contract::nic(&mut nic, &mut NicWire::to(other).0).await;
    });
}

/// The backend's program is killed in the middle of a transfer, and another one begins in its
/// domain: the frontend waits and goes on, and so does whoever uses it.
#[test]
fn a_backend_that_is_killed_and_started_again_is_gone_on_with() {
    in_time(async {
        let host = Host::new();
        let (front, back, mut backends) = two(&host).await;
        plug(&host, 0);
        let (mut nic, mut other) = connected(&front, &mut backends, 0).await;
        both_ways(&mut nic, &mut other).await;
        for life in 2..5 {
            for number in 0..100 {
                send(&mut nic, &frame(number, 1514)).await.unwrap();
            }
            receive(&mut other).await.unwrap();
            drop((backends, other));
            backends = back.net_backends(NetbackOptions::default());
            other = backends.accept().await.expect("it comes again").nic;
            announced(&mut other).await;
            both_ways(&mut nic, &mut other).await;
            assert_eq!(counted(&nic.counters(), "connections"), life);
        }
        let counters = front.hypervisor().counters();
        assert_eq!(counters.grants_waiting, 0);
    });
}

#[test]
fn a_guest_that_is_destroyed_and_made_again_is_served_again() {
    in_time(async {
        let host = Host::new();
        let (front, back, mut backends) = two(&host).await;
        plug(&host, 0);
        let (nic, mut other) = connected(&front, &mut backends, 0).await;
        host.destroy(FRONT);
        host.with(|store| {
            let _ = store.remove(&format!("/local/domain/{FRONT}"));
            let _ = store.remove(&format!("/local/domain/{BACK}/backend/vif/{FRONT}"));
        });
        let ended = receive(&mut other).await;
        assert!(matches!(ended, Err(NicError::Disconnected(_))), "{ended:?}");
        drop((nic, other));
        let front = host.guest(FRONT);
        plug(&host, 0);
        let (mut nic, mut other) = connected(&front, &mut backends, 0).await;
        both_ways(&mut nic, &mut other).await;
        let counters = back.hypervisor().counters();
        assert_eq!(counters.maps - counters.unmaps, 2, "its two rings, and no other's");
    });
}

/// A frontend that breaks a rule loses its connection; when it has begun anew it is accepted.
#[test]
fn a_frontend_that_lied_is_accepted_again_in_its_next_life() {
    in_time(async {
        let host = Host::new();
        let (front, _, mut backends) = two(&host).await;
        plug(&host, 0);
        let (mut nic, mut other) = connected(&front, &mut backends, 0).await;
        nic.break_the_ring();
        let ended = receive(&mut other).await;
        assert!(matches!(&ended, Err(NicError::Misbehaved(rule)) if rule.contains("req_prod")));
        drop(other);
        // The toolstack is told as Linux tells it: in the backend's own directory, under `error`.
        let node = format!("/local/domain/{BACK}/error/backend/vif/{FRONT}/0/error");
        while host.read(&node).is_none() {
            tokio::time::sleep(core::time::Duration::from_millis(10)).await;
        }
        let told = String::from_utf8(host.read(&node).expect("just seen")).expect("text");
        assert!(told.starts_with("71 /local/domain/5/device/vif/0 broke the protocol: "), "{told}");
        assert!(told.contains("req_prod"), "{told}");
        // The backend closes; to our frontend that is a backend that went away.
        let mut other = backends.accept().await.expect("its next life").nic;
        announced(&mut other).await;
        both_ways(&mut nic, &mut other).await;
    });
}

#[test]
fn a_connection_that_nobody_accepts_is_replaced_by_the_next() {
    in_time(async {
        let host = Host::new();
        let (front, _, mut backends) = two(&host).await;
        plug(&host, 0);
        plug(&host, 1);
        // Accepting one serves all that are there.
        let (_nic, _other) = connected(&front, &mut backends, 0).await;
        for _ in 0..20 {
            let nic = start(&front, 1).await.expect("a backend");
            drop(nic);
            let closed = || host.read(&format!("/local/domain/{FRONT}/device/vif/1/state"));
            while closed() != Some(b"6".to_vec()) {
                tokio::time::sleep(core::time::Duration::from_millis(10)).await;
            }
            host.write(&format!("/local/domain/{FRONT}/device/vif/1/state"), "1");
        }
        let (mut nic, accepted) = tokio::join!(start(&front, 1), async {
            loop {
                let mut nic = backends.accept().await.expect("a frontend").nic;
                let ended =
                    poll_fn(|cx| core::task::Poll::Ready(nic.poll_receive(cx, &mut |_, _| {})));
                if ended.await.is_pending() {
                    return nic;
                }
            }
        });
        both_ways(nic.as_mut().expect("a backend"), &mut { accepted }).await;
    });
}

/// `xl network-detach`: the toolstack says that the device is not wanted, and waits until its directory
/// is gone.
#[test]
fn a_device_that_the_toolstack_wants_no_more_is_removed_from_the_store() {
    in_time(async {
        let host = Host::new();
        let (front, _, mut backends) = two(&host).await;
        plug(&host, 0);
        let (_nic, mut other) = connected(&front, &mut backends, 0).await;
        let served = tokio::spawn(async move { backends.accept().await });
        let directory = format!("/local/domain/{BACK}/backend/vif/{FRONT}/0");
        host.write(&format!("{directory}/online"), "0");
        host.write(&format!("{directory}/state"), "5");
        let ended = receive(&mut other).await;
        assert!(matches!(ended, Err(NicError::Disconnected(_))), "{ended:?}");
        while host.read(&directory).is_some() {
            tokio::time::sleep(core::time::Duration::from_millis(10)).await;
        }
        assert_eq!(host.read(&format!("{directory}/state")), None);
        served.abort();
    });
}

#[test]
fn a_backend_that_does_not_come_is_an_error_that_says_so() {
    in_time(async {
        let host = Host::new();
        let front = host.guest(FRONT);
        plug(&host, 0);
        let error = start(&front, 0).await.expect_err("nobody serves").to_string();
        assert!(error.contains("device/vif/0") && error.contains("Initialising"), "{error}");
        let told = host.read(&format!("/local/domain/{FRONT}/error/device/vif/0/error"));
        assert_eq!(told, Some(format!("110 {error}").into_bytes()));
    });
}

#[test]
fn a_directory_full_of_nonsense_hurts_nobody() {
    in_time(async {
        let host = Host::new();
        let (front, _, mut backends) = two(&host).await;
        for path in ["x", "5/x", "99999/1", "8/1/frontend", "-1/1", "9/0/frontend-id"] {
            host.write(&format!("/local/domain/{BACK}/backend/vif/{path}"), "nonsense");
        }
        host.write(&format!("/local/domain/{FRONT}/device/vif/nonsense"), "");
        plug(&host, 0);
        let (mut nic, mut other) = connected(&front, &mut backends, 0).await;
        both_ways(&mut nic, &mut other).await;
    });
}
