use super::*;
use crate::Xen;
use crate::simulation::{Host, in_time};
use core::task::Waker;
use core::time::Duration;
use fata_hypercall::{
    Access as May, DomainId, EventChannel, GrantRef, Granted, Hypervisor, Mapped, Port, Suspended,
    Window,
};
use fata_xenbus::handshake::{Joining, Serving, net};
use std::sync::{Arc, Mutex};
use tokio::task::JoinHandle;

const FRONT: u16 = 5;
const BACK: u16 = 6;
const STATES: [&str; 2] =
    ["/local/domain/5/device/vif/0/state", "/local/domain/6/backend/vif/5/0/state"];

/// What happened to a device, and what its data path says.
#[derive(Clone, Default)]
struct Record(Arc<Mutex<Recorded>>);

#[derive(Default)]
struct Recorded {
    happened: Vec<String>,
    says: Vec<DeviceEvent>,
    waker: Option<Waker>,
}

impl Record {
    fn note(&self, what: impl ToString) {
        self.0.lock().unwrap().happened.push(what.to_string());
    }

    fn say(&self, event: DeviceEvent) {
        let mut recorded = self.0.lock().unwrap();
        recorded.says.push(event);
        if let Some(waker) = recorded.waker.take() {
            waker.wake();
        }
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<DeviceEvent> {
        let mut recorded = self.0.lock().unwrap();
        recorded.waker = Some(cx.waker().clone());
        recorded.says.pop().map_or(Poll::Pending, Poll::Ready)
    }

    fn happened(&self) -> Vec<String> {
        core::mem::take(&mut self.0.lock().unwrap().happened)
    }

    /// Waits until this has happened as often in all.
    async fn until(&self, what: &str, times: usize) {
        let has = || {
            let happened = &self.0.lock().unwrap().happened;
            happened.iter().filter(|one| one.starts_with(what)).count() >= times
        };
        while !has() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

struct Front {
    hypervisor: Hypervisor,
    record: Record,
    rings: Option<(Granted, EventChannel)>,
}

impl Device for Front {
    type Wanted = net::RingsWanted;
    type Made = net::RingsMade;
    type Settings = net::Settings;

    fn make_rings(&mut self, wanted: net::RingsWanted) -> Result<net::RingsMade, String> {
        assert!(self.rings.is_none(), "made twice");
        let backend = DomainId(wanted.backend);
        let pages = self.hypervisor.grant(backend, 2, May::ReadWrite).map_err(|e| e.to_string())?;
        let event = self.hypervisor.allocate_unbound(backend).map_err(|e| e.to_string())?;
        pages.copy_in(0, b"first frame");
        let made = net::RingsMade {
            tx_ring_ref: pages.refs()[0].0,
            rx_ring_ref: pages.refs()[1].0,
            channels: net::Channels::One(event.port().0),
        };
        self.rings = Some((pages, event));
        self.record.note("made");
        Ok(made)
    }

    fn connect(&mut self, settings: net::Settings) {
        self.record.note(format!("connected to {}", settings.peer));
    }

    fn disconnect(&mut self, reason: &Reason) {
        self.record.note(format!("disconnected: {reason}"));
    }

    fn release(&mut self) {
        let (pages, _) = self.rings.take().expect("made before");
        let freed = pages.revoke().is_ok();
        self.record.note(if freed { "released" } else { "released, still mapped" });
    }

    fn report(&mut self, error: &HandshakeError) {
        self.record.note(format!("refused: {error}"));
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<DeviceEvent> {
        self.record.poll(cx)
    }
}

struct Back {
    hypervisor: Hypervisor,
    record: Record,
    rings: Option<(Mapped, EventChannel)>,
}

impl Device for Back {
    type Wanted = net::RingsOffered;
    type Made = ();
    type Settings = net::Settings;

    fn make_rings(&mut self, offered: net::RingsOffered) -> Result<(), String> {
        assert!(self.rings.is_none(), "made twice");
        let net::Channels::One(port) = offered.rings.channels else { panic!("one was made") };
        let refs = [offered.rings.tx_ring_ref, offered.rings.rx_ring_ref].map(GrantRef);
        let frontend = DomainId(offered.frontend);
        let pages = self.hypervisor.map(frontend, &refs, May::ReadWrite);
        let pages = pages.map_err(|error| error.to_string())?;
        let event = self.hypervisor.bind_interdomain(frontend, Port(port));
        self.rings = Some((pages, event.map_err(|error| error.to_string())?));
        self.record.note("made");
        Ok(())
    }

    fn connect(&mut self, settings: net::Settings) {
        let mut greeting = [0; 11];
        self.rings.as_ref().expect("made before").0.copy_out(0, &mut greeting);
        let greeting = String::from_utf8_lossy(&greeting).into_owned();
        self.record.note(format!("connected to {}: {greeting}", settings.peer));
    }

    fn disconnect(&mut self, reason: &Reason) {
        self.record.note(format!("disconnected: {reason}"));
    }

    fn release(&mut self) {
        self.rings.take().expect("made before");
        self.record.note("released");
    }

    fn report(&mut self, error: &HandshakeError) {
        self.record.note(format!("refused: {error}"));
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<DeviceEvent> {
        self.record.poll(cx)
    }
}

type Task = JoinHandle<Result<Ending, XenError>>;

fn front(xen: &Xen) -> (Record, Task) {
    let record = Record::default();
    let (hypervisor, store) = (xen.hypervisor().clone(), xen.store().clone());
    let device = Front { hypervisor, record: record.clone(), rings: None };
    let begin = |now| {
        let options = net::FrontendOptions { split_event_channels: false, ..Default::default() };
        net::Frontend::new(Joining::new("device/vif/0"), options, now)
    };
    (record, tokio::spawn(run(store, begin, device)))
}

fn back(xen: &Xen) -> (Record, Task) {
    let record = Record::default();
    let (hypervisor, store) = (xen.hypervisor().clone(), xen.store().clone());
    let device = Back { hypervisor, record: record.clone(), rings: None };
    let begin = |now| {
        let options = net::BackendOptions { split_event_channels: false, ..Default::default() };
        net::Backend::new(Serving::new("backend/vif/5/0"), options, now)
    };
    (record, tokio::spawn(run(store, begin, device)))
}

struct Pair {
    host: Host,
    guests: [Xen; 2],
    front: (Record, Task),
    back: (Record, Task),
}

/// Both ends, begun in one order or the other, and connected.
async fn connected(back_first: bool) -> Pair {
    let host = Host::new();
    let guests = [host.guest(FRONT), host.guest(BACK)];
    host.plug("vif", FRONT, BACK, 0, &[("mac", "00:16:3e:00:00:05")]);
    let (front, back) = if back_first {
        let back = back(&guests[1]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        (front(&guests[0]), back)
    } else {
        let front = front(&guests[0]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        (front, back(&guests[1]))
    };
    front.0.until("connected", 1).await;
    back.0.until("connected", 1).await;
    assert_eq!(front.0.happened(), ["made", "connected to 6"]);
    assert_eq!(back.0.happened(), ["made", "connected to 5: first frame"]);
    assert!(STATES.iter().all(|path| host.read(path) == Some(b"4".to_vec())));
    Pair { host, guests, front, back }
}

#[test]
fn two_ends_find_each_other_in_either_order_and_part_when_one_is_closed() {
    for back_first in [true, false] {
        in_time(async {
            let pair = connected(back_first).await;
            pair.front.0.say(DeviceEvent::Close);
            assert_eq!(pair.front.1.await.unwrap(), Ok(Ending::Closed));
            assert_eq!(pair.front.0.happened(), ["disconnected: closed as asked", "released"]);
            pair.back.0.until("released", 1).await;
            assert_eq!(
                pair.back.0.happened(),
                ["disconnected: the other end went to Closing", "released"]
            );
            let world = &pair.host.world;
            assert_eq!((world.mappings(DomainId(FRONT)), world.grants(DomainId(FRONT))), (0, 0));
        });
    }
}

#[test]
fn a_frontend_comes_back_after_its_backend_was_killed() {
    in_time(async {
        let pair = connected(true).await;
        pair.back.1.abort();
        assert!(pair.back.1.await.is_err(), "the task is gone, and its mappings with it");
        pair.host.destroy(BACK);
        pair.front.0.until("disconnected", 1).await;
        // Another domain of that name; the toolstack makes the device anew.
        let again = pair.host.guest(BACK);
        pair.host.plug("vif", FRONT, BACK, 0, &[("mac", "00:16:3e:00:00:05")]);
        let (record, _task) = back(&again);
        record.until("connected", 1).await;
        pair.front.0.until("connected", 1).await;
        let happened = pair.front.0.happened();
        assert!(happened.contains(&"released".to_owned()), "{happened:?}");
        assert!(happened.last().unwrap().starts_with("connected"), "{happened:?}");
    });
}

#[test]
fn a_backend_closes_on_a_frontend_that_lies_and_takes_its_next_life() {
    in_time(async {
        let pair = connected(true).await;
        pair.back.0.say(DeviceEvent::Fault("its req_prod is 99999".to_owned()));
        pair.back.0.until("connected", 1).await;
        let happened = pair.back.0.happened();
        assert!(happened[0].starts_with("disconnected: "), "{happened:?}");
        assert!(happened[0].contains("its req_prod is 99999"), "{happened:?}");
        assert!(happened.contains(&"released".to_owned()), "{happened:?}");
    });
}

#[test]
fn a_backend_that_does_not_arrive_is_an_error_that_names_its_state() {
    in_time(async {
        let host = Host::new();
        let guest = host.guest(FRONT);
        let _other = host.guest(BACK);
        host.plug("vif", FRONT, BACK, 0, &[("mac", "00:16:3e:00:00:05")]);
        let began = tokio::time::Instant::now();
        let (record, task) = front(&guest);
        let error = task.await.unwrap().unwrap_err().to_string();
        let waited = began.elapsed();
        assert!(
            waited >= Duration::from_secs(60) && waited < Duration::from_secs(90),
            "{waited:?}"
        );
        for part in
            ["device/vif/0 is not connected", "/local/domain/6/backend/vif/5/0", "Initialising"]
        {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
        assert_eq!(record.happened(), [""; 0]);
        assert_eq!(host.world.grants(DomainId(FRONT)), 0);
    });
}

#[test]
fn a_live_device_outlives_xenstore() {
    in_time(async {
        let pair = connected(true).await;
        let (grant, _) = pair.host.world.introduction(DomainId(FRONT)).store;
        let page = pair.host.zero.map(DomainId(FRONT), &[grant], May::ReadWrite).unwrap();
        page.store_u32(2060, 0x8000_0000);
        assert!(pair.guests[0].store().read("domid").await.is_err());
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(pair.front.0.happened(), [""; 0]);
        pair.front.0.say(DeviceEvent::Close);
        let error = pair.front.1.await.unwrap().unwrap_err().to_string();
        assert!(error.contains("xenstored broke the ring"), "{error}");
        assert_eq!(
            pair.front.0.happened(),
            ["disconnected: closed as asked", "released, still mapped"]
        );
    });
}

#[test]
fn a_restored_machine_connects_its_devices_again() {
    in_time(async {
        let pair = connected(true).await;
        pair.host.world.set_suspension(DomainId(FRONT), Suspended::Resumed);
        // The backend of before stays behind; the tools make the device anew.
        pair.back.1.abort();
        assert!(pair.back.1.await.is_err());
        pair.host.plug("vif", FRONT, BACK, 0, &[("mac", "00:16:3e:00:00:05")]);
        assert_eq!(pair.guests[0].suspend().await, Ok(Suspended::Resumed));
        pair.host.connect(DomainId(FRONT));
        let (record, _task) = back(&pair.guests[1]);
        record.until("connected", 1).await;
        pair.front.0.until("connected", 1).await;
        assert_eq!(
            pair.front.0.happened(),
            ["disconnected: the domain was suspended", "released", "made", "connected to 6"]
        );
    });
}

#[test]
fn a_machine_that_goes_on_without_having_been_saved_connects_to_the_same_backend() {
    in_time(async {
        let pair = connected(true).await;
        assert_eq!(pair.guests[0].suspend().await, Ok(Suspended::Cancelled));
        pair.front.0.until("connected", 1).await;
        pair.back.0.until("connected", 1).await;
        let happened = pair.front.0.happened();
        assert_eq!(happened[0], "disconnected: the domain was suspended");
        assert_eq!(happened.iter().filter(|one| one.starts_with("released")).count(), 1);
        pair.front.0.say(DeviceEvent::Close);
        assert_eq!(pair.front.1.await.unwrap(), Ok(Ending::Closed));
        assert_eq!(pair.host.world.mappings(DomainId(FRONT)), 0);
    });
}

#[test]
fn what_a_handshake_decided_before_a_suspension_is_not_written_after_it() {
    in_time(async {
        let host = Host::new();
        let guest = host.guest(FRONT);
        let transaction = |value: &[u8]| Transaction {
            changes: vec![Change::Set("data/ring-ref".to_owned(), value.to_vec())],
            ..Transaction::default()
        };
        let store = guest.store();
        let (stale, life) = (transaction(b"stale"), store.suspensions());
        assert_eq!(guest.suspend().await, Ok(Suspended::Cancelled));
        let written = async |transaction, life| match write(store.clone(), transaction, life).await
        {
            Ok(Executed::Written(outcome)) => outcome,
            _ => panic!("an outcome was expected"),
        };
        assert_eq!(written(stale, life).await, Outcome::Again);
        assert_eq!(store.read("data/ring-ref").await, Ok(None));
        assert_eq!(written(transaction(b"9"), store.suspensions()).await, Outcome::Done);
        assert_eq!(store.read("data/ring-ref").await, Ok(Some(b"9".to_vec())));
    });
}

#[test]
fn a_backend_is_suspended_and_serves_again() {
    in_time(async {
        let pair = connected(true).await;
        assert_eq!(pair.guests[1].suspend().await, Ok(Suspended::Cancelled));
        pair.back.0.until("connected", 1).await;
        pair.front.0.until("connected", 1).await;
        pair.front.0.say(DeviceEvent::Close);
        assert_eq!(pair.front.1.await.unwrap(), Ok(Ending::Closed));
    });
}

#[test]
fn ends_that_the_other_may_not_read_are_an_error_and_not_a_wait_without_end() {
    in_time(async {
        let host = Host::new();
        let guest = host.guest(FRONT);
        // The toolstack named a directory of somebody else's.
        host.write("/local/domain/5/device/vif/0/backend", "/local/domain/0/secret");
        host.write("/local/domain/5/device/vif/0/backend-id", "0");
        host.write("/local/domain/5/device/vif/0/state", "1");
        let (_, task) = front(&guest);
        let error = task.await.unwrap().unwrap_err().to_string();
        assert!(error.contains("/local/domain/0/secret"), "{error}");
    });
}
