//! Whole disks: handshakes through XenStore, rings through the simulated hypervisor.

use super::*;
use crate::simulation::Host;
use crate::{Xen, XenError};
use fata::MemoryDisk;
use fata_device::{Block, BlockError, SectorBuffer};
use fata_testkit::xen::store::Permissions;
use std::sync::Arc;
use tokio::task::JoinHandle;

const FRONT: u16 = 7;
const BACK: u16 = 3;

fn device(vdev: u32) -> String {
    format!("/local/domain/{FRONT}/device/vbd/{vdev}")
}

fn directory(vdev: u32) -> String {
    format!("/local/domain/{BACK}/backend/vbd/{FRONT}/{vdev}")
}

/// What the toolstack writes for a disk of domain 7 that domain 3 has.
fn attach(host: &Host, vdev: u32, params: &str, mode: &str) {
    let (front, back) = (device(vdev), directory(vdev));
    let keys = [
        (format!("{front}/backend"), back.clone()),
        (format!("{front}/backend-id"), BACK.to_string()),
        (format!("{front}/state"), "1".into()),
        (format!("{back}/frontend"), front.clone()),
        (format!("{back}/frontend-id"), FRONT.to_string()),
        (format!("{back}/online"), "1".into()),
        (format!("{back}/params"), params.into()),
        (format!("{back}/mode"), mode.into()),
        (format!("{back}/state"), "1".into()),
    ];
    host.with(|store| {
        for (dir, owner, reader) in [(&front, FRONT, BACK), (&back, BACK, FRONT)] {
            store.write(dir, "").expect("a good path");
            store.permit(dir, Permissions::readable_by(owner, reader)).expect("it exists");
        }
        store.write_all(&keys).expect("good paths");
        for (path, _) in &keys {
            let (owner, reader) =
                if path.starts_with(&front) { (FRONT, BACK) } else { (BACK, FRONT) };
            store.permit(path, Permissions::readable_by(owner, reader)).expect("it exists");
        }
    });
}

fn serve(
    xen: &Xen,
    disk: Arc<dyn Block>,
) -> (Arc<BlockBackends>, JoinHandle<Result<(), XenError>>) {
    let backends = Arc::new(xen.block_backends(disk, BlkbackOptions::default()));
    let serving = backends.clone();
    (backends, tokio::spawn(async move { serving.serve().await }))
}

async fn start(xen: &Xen, name: &str) -> Result<Blkfront, XenError> {
    let slots = xen.block_frontends().await?;
    slots[select(&slots, name)?].start(&BlkfrontOptions::default()).await
}

#[tokio::test]
async fn a_disk_is_found_started_used_and_closed() {
    let host = Host::new();
    let (front, back) = (host.guest(FRONT), host.guest(BACK));
    attach(&host, 51712, "/srv/data.img", "w");
    attach(&host, 51728, "/srv/other.img", "r");
    let lent = Arc::new(MemoryDisk::new(1000));
    let (backends, _serving) = serve(&back, lent.clone());

    let disk = start(&front, "data.img").await.expect("a backend serves");
    let geometry = disk.geometry();
    assert_eq!((geometry.sector_count, geometry.read_only), (1000, false));
    assert!(geometry.discard);
    disk.write(7, SectorBuffer::copy_of(&[5; 512 * 40])).await.expect("on the disk");
    assert_eq!(lent.read(7, 40).await.expect("on the disk")[..], [5; 512 * 40]);
    disk.flush().await.expect("flushed");

    let read_only = start(&front, "xvdb").await.expect("a backend serves");
    assert!(read_only.geometry().read_only);
    assert_eq!(read_only.write(0, SectorBuffer::zeroed(512)).await, Err(BlockError::ReadOnly));
    assert_eq!(backends.counters().frontends, 2);

    drop(disk);
    let closed = || host.read(&format!("{}/state", device(51712))) == Some(b"6".to_vec());
    while !closed() {
        tokio::task::yield_now().await;
    }
    let pages = front.hypervisor().counters();
    assert_eq!(pages.grants_waiting, 0, "the backend has let go of every page");
}

#[tokio::test]
async fn the_whole_way_fulfils_the_contract() {
    let host = Host::new();
    let (front, back) = (host.guest(FRONT), host.guest(BACK));
    attach(&host, 51712, "", "w");
    let (_backends, _serving) = serve(&back, Arc::new(MemoryDisk::new(4000)));
    let disk = start(&front, "xvda").await.expect("a backend serves");
    fata_device::contract::block(async || disk.clone()).await;
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_does_not_come_is_an_error_that_says_so() {
    let host = Host::new();
    let front = host.guest(FRONT);
    attach(&host, 51712, "", "w");
    let error = start(&front, "51712").await.expect_err("nobody serves").to_string();
    assert!(error.contains("Initialising"), "{error}");
    let error = start(&front, "data").await.expect_err("no such disk").to_string();
    assert_eq!(error, "no disk is named data; there are 51712 (xvda)");
}

#[tokio::test]
async fn a_backend_that_dies_is_replaced_and_the_program_only_waits() {
    let host = Host::new();
    let (front, back) = (host.guest(FRONT), host.guest(BACK));
    attach(&host, 51712, "", "w");
    let lent = Arc::new(MemoryDisk::new(1000));
    let (_, serving) = serve(&back, lent.clone());
    let disk = start(&front, "xvda").await.expect("a backend serves");
    disk.write(1, SectorBuffer::copy_of(&[1; 512])).await.expect("on the disk");
    // The backend's program ends and another one begins, in the same domain.
    serving.abort();
    assert!(serving.await.expect_err("aborted").is_cancelled());
    let writing = tokio::spawn({
        let disk = disk.clone();
        async move { disk.write(2, SectorBuffer::copy_of(&[2; 512])).await }
    });
    tokio::task::yield_now().await;
    let (_, _serving) = serve(&back, lent.clone());
    writing.await.expect("no panic").expect("on the disk");
    assert_eq!(lent.read(2, 1).await.expect("on the disk")[..], [2; 512]);
    assert_eq!(disk.counters().connections, 2);
}

#[tokio::test]
async fn a_guest_that_is_destroyed_and_made_again_is_served_again() {
    let host = Host::new();
    let (front, back) = (host.guest(FRONT), host.guest(BACK));
    attach(&host, 51712, "", "w");
    let lent = Arc::new(MemoryDisk::new(1000));
    let (backends, _serving) = serve(&back, lent.clone());
    let disk = start(&front, "xvda").await.expect("a backend serves");
    disk.write(1, SectorBuffer::copy_of(&[1; 512])).await.expect("on the disk");
    host.destroy(FRONT);
    host.with(|store| {
        let _ = store.remove(&format!("/local/domain/{FRONT}"));
        let _ = store.remove(&directory(51712));
    });
    drop(disk);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let front = host.guest(FRONT);
    attach(&host, 51712, "", "w");
    let disk = start(&front, "xvda").await.expect("a backend serves");
    assert_eq!(disk.read(1, 1).await.expect("on the disk")[..], [1; 512]);
    assert_eq!(backends.counters().frontends, 2);
}

/// As libxl does when it destroys a guest whose disks a driver domain has: it waits until the driver
/// domain has removed the directory.
#[tokio::test]
async fn a_directory_that_the_toolstack_wants_gone_is_removed() {
    let host = Host::new();
    let (front, back) = (host.guest(FRONT), host.guest(BACK));
    attach(&host, 51712, "", "w");
    let (_backends, _serving) = serve(&back, Arc::new(MemoryDisk::new(100)));
    let disk = start(&front, "xvda").await.expect("a backend serves");
    host.destroy(FRONT);
    host.write(&format!("{}/online", directory(51712)), "0");
    host.write(&format!("{}/state", directory(51712)), "5");
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(host.read(&directory(51712)), None);
    drop(disk);
}

#[tokio::test]
async fn a_directory_full_of_nonsense_hurts_nobody() {
    let host = Host::new();
    let (front, back) = (host.guest(FRONT), host.guest(BACK));
    let (_backends, _serving) = serve(&back, Arc::new(MemoryDisk::new(100)));
    for path in ["x", "7/x", "99999/1", "8/1/frontend", "-1/1", "9/51712/frontend-id"] {
        host.write(&format!("/local/domain/{BACK}/backend/vbd/{path}"), "nonsense");
    }
    host.write(&format!("/local/domain/{FRONT}/device/vbd/nonsense"), "");
    attach(&host, 51712, "", "w");
    let disk = start(&front, "xvda").await.expect("a backend serves");
    assert_eq!(disk.geometry().sector_count, 100);
}
