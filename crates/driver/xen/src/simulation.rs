//! A Xen host in the process of a test: simulated domains, and the testkit's xenstored at the other
//! end of their real XenStore rings.

use crate::Xen;
use crate::memory::Shared;
use core::future::{Future, poll_fn};
use core::time::Duration;
use fata_hypercall::simulation::World;
use fata_hypercall::{Access, DomainId, EventChannel, Hypervisor, Mapped};
use fata_testkit::xen::store::{ConnectionId, Limits, Permissions, Xenstored};
use fata_xenbus::ring::bytes::{Layout, Reader, Writer};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A host. Clones are the same host.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) world: World,
    /// Domain 0, where the daemons and the toolstack are.
    pub(crate) zero: Hypervisor,
    state: Arc<Mutex<State>>,
}

struct State {
    xenstored: Xenstored,
    guests: BTreeMap<DomainId, Daemon>,
}

/// xenstored's end of a guest's ring.
struct Daemon {
    page: Shared<Mapped>,
    event: EventChannel,
    requests: Reader,
    answers: Writer,
    connection: ConnectionId,
    /// What did not fit into the ring of answers.
    kept: Vec<u8>,
}

impl Host {
    pub(crate) fn new() -> Self {
        let world = World::new();
        let zero = world.domain(DomainId(0));
        let xenstored = Xenstored::new(Limits::default());
        let state = Arc::new(Mutex::new(State { xenstored, guests: BTreeMap::new() }));
        Host { world, zero, state }
    }

    /// A new guest, introduced to xenstored and connected to it. In a tokio runtime.
    pub(crate) fn guest(&self, id: u16) -> Xen {
        let id = DomainId(id);
        let hypervisor = self.world.domain(id);
        self.lock().xenstored.introduce(id.0);
        self.write(&format!("/local/domain/{}/domid", id.0), id.0.to_string());
        self.connect(id);
        let (xen, task) = Xen::start(hypervisor).expect("a new guest has its pages");
        tokio::spawn(task);
        xen
    }

    /// Connects xenstored to a guest: to a new one, or to one that was restored.
    pub(crate) fn connect(&self, id: DomainId) {
        let (grant, port) = self.world.introduction(id).store;
        let page = self.zero.map(id, &[grant], Access::ReadWrite).expect("the tools' page");
        let event = self.zero.bind_interdomain(id, port).expect("the tools' port");
        let (page, line) = (Shared(page), event.line().clone());
        {
            let mut state = self.lock();
            let connection = state.xenstored.connect(id.0);
            let requests = Reader::attach(&page, Layout::XENSTORE_REQUESTS);
            let answers = Writer::attach(&page, Layout::XENSTORE_RESPONSES);
            let kept = Vec::new();
            let daemon = Daemon { page, event, requests, answers, connection, kept };
            if let Some(before) = state.guests.insert(id, daemon) {
                state.xenstored.disconnect(before.connection);
            }
        }
        let host = self.clone();
        tokio::spawn(async move {
            loop {
                poll_fn(|cx| line.poll_fired(cx)).await;
                host.with(|_| ());
            }
        });
    }

    /// xenstored does not look at a guest's ring any more.
    pub(crate) fn forget(&self, id: u16) {
        self.lock().guests.remove(&DomainId(id));
    }

    /// A guest is gone, as after `xl destroy`.
    pub(crate) fn destroy(&self, id: u16) {
        self.world.kill(DomainId(id));
        self.forget(id);
        self.with(|xenstored| xenstored.release(id));
    }

    /// Does something as domain 0, and tells the guests what they hear of it.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Xenstored) -> T) -> T {
        let mut state = self.lock();
        // What was asked before comes before.
        state.serve();
        let result = act(&mut state.xenstored);
        state.serve();
        result
    }

    /// Writes a key as domain 0.
    pub(crate) fn write(&self, path: &str, value: impl AsRef<[u8]>) {
        self.with(|xenstored| xenstored.write(path, value)).expect("a good path");
    }

    /// The value of a key.
    pub(crate) fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.lock().xenstored.tree().node(path).map(|node| node.value.clone())
    }

    /// The toolstack gives `front` a device of this kind (`vif`, `vbd`), which `back` is to serve:
    /// both directories, with the keys that every device has and `more` in the frontend's.
    pub(crate) fn plug(
        &self,
        kind: &str,
        front: u16,
        back: u16,
        handle: u32,
        more: &[(&str, &str)],
    ) {
        let ours = format!("/local/domain/{front}/device/{kind}/{handle}");
        let theirs = format!("/local/domain/{back}/backend/{kind}/{front}/{handle}");
        self.with(|xenstored| {
            for (path, owner, reader) in [(&theirs, back, front), (&ours, front, back)] {
                xenstored.write(path, "").unwrap();
                xenstored.permit(path, Permissions::readable_by(owner, reader)).unwrap();
            }
            let key = |directory: &str, key: &str, value: &str| {
                (format!("{directory}/{key}"), value.to_owned())
            };
            let mut keys = vec![
                key(&theirs, "frontend", &ours),
                key(&theirs, "frontend-id", &front.to_string()),
                key(&theirs, "online", "1"),
                key(&theirs, "state", "1"),
                key(&ours, "backend", &theirs),
                key(&ours, "backend-id", &back.to_string()),
                key(&ours, "handle", &handle.to_string()),
                key(&ours, "state", "1"),
            ];
            for (name, value) in more {
                keys.push(key(&ours, name, value));
                keys.push(key(&theirs, name, value));
            }
            xenstored.write_all(&keys).unwrap();
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Answers what the guests ask, as far as their rings take it.
    fn serve(&mut self) {
        let mut is_busy = true;
        while is_busy {
            is_busy = false;
            for daemon in self.guests.values_mut() {
                is_busy |= daemon.serve(&mut self.xenstored);
            }
        }
    }
}

impl Daemon {
    /// True if bytes moved.
    fn serve(&mut self, xenstored: &mut Xenstored) -> bool {
        let mut bytes = [0; 300];
        let asked = self.requests.read(&self.page, &self.page, &mut bytes).expect("a good guest");
        xenstored.input(self.connection, &bytes[..asked]).expect("a good guest");
        self.kept.extend(xenstored.output(self.connection));
        let told = self.answers.write(&self.page, &self.page, &self.kept).expect("a good guest");
        self.kept.drain(..told);
        if asked + told > 0 {
            self.event.notify();
        }
        asked + told > 0
    }
}

/// Runs a test in virtual time, of which it may take an hour.
pub(crate) fn in_time<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let limit = Duration::from_secs(3600);
    runtime.block_on(async { tokio::time::timeout(limit, test).await }).expect("it waits for ever")
}
