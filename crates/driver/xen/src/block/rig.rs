//! A frontend's ring and a backend's, in one process, on a simulated hypervisor.

use super::back::counters::Counts;
use super::back::server::{ServeLimits, Server};
use super::front::disk::Disk;
use super::front::link::{Features, Link};
use fata_device::Block;
use fata_hypercall::simulation::World;
use fata_hypercall::{Access, DomainId, Hypervisor};
use fata_xenbus::ring::block::Operation;
use fata_xenbus::ring::core::RingError;
use std::sync::Arc;
use tokio::task::JoinHandle;

pub(super) const FRONT: DomainId = DomainId(7);
pub(super) const BACK: DomainId = DomainId(3);

/// Two domains, and what both ends are told.
pub(super) struct Rig {
    pub(super) world: World,
    pub(super) front: Hypervisor,
    pub(super) back: Hypervisor,
    pub(super) ring_pages: usize,
    pub(super) pool_pages: u16,
    pub(super) segments_max: usize,
    pub(super) features: Features,
    pub(super) limits: ServeLimits,
    pub(super) counts: Arc<Counts>,
}

impl Rig {
    pub(super) fn new() -> Self {
        let world = World::new();
        let features = Features {
            indirect_segments_max: 64,
            flush: Some(Operation::FlushDiskcache),
            discard: None,
        };
        let limits = ServeLimits {
            requests_max: 32,
            bytes_max: 1 << 20,
            indirect_segments_max: 64,
            read_only: false,
        };
        Rig {
            front: world.domain(FRONT),
            back: world.domain(BACK),
            world,
            ring_pages: 1,
            pool_pages: 64,
            segments_max: 64,
            features,
            limits,
            counts: Arc::default(),
        }
    }

    /// A ring of the frontend's.
    pub(super) fn link(&self) -> Link {
        let mut link =
            Link::new(&self.front, BACK, 51712, self.ring_pages, self.pool_pages).expect("granted");
        link.agree(self.features, self.segments_max);
        link
    }

    /// A backend on that ring.
    pub(super) fn server(&self, link: &Link, lent: Arc<dyn Block>) -> Server {
        let (refs, port) = link.offer();
        let ring = self.back.map(FRONT, refs, Access::ReadWrite).expect("granted");
        let channel = self.back.bind_interdomain(FRONT, port).expect("allocated");
        let back = self.back.clone();
        Server::new(back, ring, channel, lent, self.limits, self.counts.clone())
    }

    /// Connects `disk` to `lent`, which is served by a task.
    pub(super) fn connect(&self, disk: &Disk, lent: Arc<dyn Block>) -> JoinHandle<RingError> {
        let link = self.link();
        let mut server = self.server(&link, lent);
        disk.connect(link);
        tokio::spawn(async move { core::future::poll_fn(|cx| server.poll(cx)).await })
    }
}
