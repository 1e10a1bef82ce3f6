use super::*;
use crate::model::kinds::DiskKind;
use crate::model::{Bus, Model, Spec, probe};
use crate::{Device, Options};
use config::feature;

const ALL: u64 = feature::FLUSH | feature::DISCARD;

fn start(model: &Model<DiskKind>, bus: Bus, options: &Options) -> VirtioBlock {
    match probe(model, bus, options) {
        Ok(Some(Device::Block(disk))) => disk,
        other => panic!("no disk: {other:?}"),
    }
}

fn attach(kind: DiskKind, spec: Spec, options: &Options) -> (VirtioBlock, Model<DiskKind>) {
    let model = Model::new(kind, spec);
    (start(&model, Bus::Mmio, options), model)
}

/// A disk of 200 sectors with a device task beside it.
fn running(features: u64) -> (VirtioBlock, Model<DiskKind>) {
    let kind = DiskKind::new(200);
    let spec = kind.spec(features, 0, 0, 512);
    let (disk, model) = attach(kind, spec, &Options::default());
    tokio::spawn(model.clone().run());
    (disk, model)
}

#[tokio::test]
async fn the_contract_of_block() {
    for bus in [Bus::Mmio, Bus::Pci] {
        for features in [0, ALL, ALL | feature::BLK_SIZE] {
            for event_index in [false, true] {
                let kind = DiskKind::new(2000);
                let blk_size = if features & feature::BLK_SIZE != 0 { 4096 } else { 512 };
                let mut spec = kind.spec(features, 0, 0, blk_size);
                if !event_index {
                    spec.features &= !(1 << 29);
                }
                let model = Model::new(kind, spec);
                let disk = start(&model, bus, &Options::default());
                let device = tokio::spawn(model.run());
                fata_device::contract::block(async || disk.clone()).await;
                device.abort();
            }
        }
    }
}

/// Every limit that a device may set, and few slots.
#[tokio::test]
async fn the_contract_of_block_in_small_pieces() {
    for (size_max, seg_max, requests_max) in [(512, 1, 1), (1024, 3, 2), (5000, 100, 300)] {
        let kind = DiskKind::new(300);
        let spec = kind.spec(ALL | feature::SIZE_MAX | feature::SEG_MAX, size_max, seg_max, 512);
        let block = BlockOptions { requests_max, piece_bytes_max: 10_000 };
        let options = Options { block, ..Options::default() };
        let (disk, model) = attach(kind, spec, &options);
        let device = tokio::spawn(model.clone().run());
        fata_device::contract::block(async || disk.clone()).await;
        let (longest, most) = model.inner().kind.segments_seen;
        assert!(longest <= size_max, "a segment of {longest} bytes, and {size_max} is the most");
        assert!(most <= 2 + seg_max as usize, "{most} segments, and {seg_max} + 2 is the most");
        device.abort();
    }
}

#[tokio::test]
async fn the_contract_of_a_read_only_disk() {
    let (disk, _model) = running(feature::RO | ALL);
    fata_device::contract::block_read_only(async || disk.clone()).await;
}

#[tokio::test]
async fn finished_requests_may_come_in_any_order() {
    let (disk, model) = running(ALL);
    model.inner().kind.reverse = 3;
    let data = |byte| {
        let mut data = SectorBuffer::zeroed(512);
        data.fill(byte);
        data
    };
    let (a, b, c) =
        tokio::join!(disk.write(1, data(1)), disk.write(2, data(2)), disk.write(3, data(3)));
    assert_eq!((a, b, c), (Ok(()), Ok(()), Ok(())));
    let (a, b, c) = tokio::join!(disk.read(1, 1), disk.read(2, 1), disk.read(3, 1));
    assert_eq!((a.unwrap()[0], b.unwrap()[0], c.unwrap()[0]), (1, 2, 3));
}

#[tokio::test]
async fn the_serial_number_is_read() {
    let (disk, _model) = running(0);
    assert_eq!(disk.serial().await.unwrap(), "disk-of-the-model");
}

#[tokio::test]
async fn without_the_feature_there_is_nothing_to_flush() {
    let (disk, model) = running(0);
    disk.flush().await.unwrap();
    assert!(model.inner().kind.log.is_empty());
    let (disk, model) = running(feature::FLUSH);
    disk.flush().await.unwrap();
    assert_eq!(model.inner().kind.log, [(4, 0, 0)]);
}

#[tokio::test]
async fn a_medium_error_ends_the_request_and_not_the_disk() {
    let (disk, model) = running(ALL);
    model.inner().kind.broken.insert(7);
    assert_eq!(disk.read(6, 2).await.map(drop), Err(BlockError::Medium));
    assert_eq!(disk.write(7, SectorBuffer::zeroed(512)).await, Err(BlockError::Medium));
    disk.read(8, 2).await.unwrap();
}

/// A disk that broke a rule: which, and every later request fails alike.
async fn closed(disk: &VirtioBlock, words: &str) {
    let told = match disk.read(0, 1).await {
        Err(BlockError::Misbehaved(told)) => told,
        other => panic!("not caught: {other:?}"),
    };
    assert!(told.contains(words), "{told:?} does not say {words:?}");
    let error = BlockError::Misbehaved(told);
    assert_eq!(disk.write(0, SectorBuffer::zeroed(512)).await, Err(error.clone()));
    assert_eq!(disk.flush().await, Err(error.clone()));
    assert_eq!(disk.discard(0, 1).await, Err(error));
}

#[tokio::test]
async fn lies_close_the_disk() {
    let (disk, model) = running(ALL);
    model.inner().kind.status = Some(0xff);
    closed(&disk, "without a status").await;
    assert_eq!(model.inner().status, 0, "it was reset");

    let (disk, model) = running(ALL);
    model.inner().kind.status = Some(9);
    closed(&disk, "with status 9").await;

    let (disk, model) = running(ALL);
    model.lie(|mut element| {
        element.written = 512;
        element
    });
    closed(&disk, "a read of 512 bytes succeeded with only 511 written").await;

    let (disk, model) = running(ALL);
    model.lie(|mut element| {
        element.written = 514;
        element
    });
    closed(&disk, "514 bytes were written where 513 may be").await;

    let (disk, model) = running(ALL);
    model.lie(|mut element| {
        element.id += 1;
        element
    });
    closed(&disk, "heads no outstanding chain").await;

    let (disk, model) = running(ALL);
    model.act(|_, rings| rings.set_used_idx(0, 5));
    closed(&disk, "moved by").await;
}

#[tokio::test]
async fn all_who_wait_hear_of_the_end() {
    let kind = DiskKind::new(200);
    let spec = kind.spec(ALL, 0, 0, 512);
    let block = BlockOptions { requests_max: 2, ..BlockOptions::default() };
    let (disk, model) = attach(kind, spec, &Options { block, ..Options::default() });
    model.inner().paused = true;
    let waiting: Vec<_> = (0..6)
        .map(|sector| {
            let disk = disk.clone();
            tokio::spawn(async move { disk.read(sector, 1).await.map(drop) })
        })
        .collect();
    tokio::task::yield_now().await;
    model.change(64);
    model.deliver();
    for task in waiting {
        let told = task.await.unwrap();
        assert!(matches!(told, Err(BlockError::Misbehaved(_))), "{told:?}");
    }
    // One that did not see the interrupt and asks now.
    assert!(disk.read(0, 1).await.is_err());
}

/// The future is gone and the device goes on writing: into memory that is still its own.
#[tokio::test]
async fn a_dropped_future_leaves_its_buffer_to_the_device() {
    let kind = DiskKind::new(200);
    let spec = kind.spec(ALL, 0, 0, 512);
    let (disk, model) = attach(kind, spec, &Options::default());
    model.inner().paused = true;
    let task = tokio::spawn({
        let disk = disk.clone();
        async move { disk.read(0, 1).await.map(drop) }
    });
    tokio::task::yield_now().await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    let address = {
        let mut inner = model.inner();
        inner.paused = false;
        assert!(inner.rings.fetch(0));
        inner.rings.queues[0].held[0].writable[0].0
    };
    fata_shared::simulation::write(address, &[1; 512]).expect("still the device's");
    model.act(|_, rings| {
        rings.queues[0].held[0].write_last(0);
        rings.give_back(0, 513);
    });
    assert!(model.deliver(), "the interrupt takes it from the ring");
    assert!(fata_shared::simulation::write(address, &[1]).is_err(), "and frees it");
    tokio::spawn(model.run());
    disk.read(0, 1).await.unwrap();
}

#[tokio::test]
async fn buffers_of_a_disk_that_does_not_reset_are_quarantined() {
    let kind = DiskKind::new(200);
    let mut spec = kind.spec(ALL, 0, 0, 512);
    spec.never_resets = true;
    let (disk, model) = attach(kind, spec, &Options::default());
    model.inner().paused = true;
    let task = tokio::spawn({
        let disk = disk.clone();
        async move { disk.read(0, 8).await.map(drop) }
    });
    tokio::task::yield_now().await;
    let address = {
        let mut inner = model.inner();
        assert!(inner.rings.fetch(0));
        inner.rings.queues[0].held[0].writable[0].0
    };
    model.act(|_, rings| rings.set_used_idx(0, 99));
    model.deliver();
    assert!(matches!(task.await.unwrap(), Err(BlockError::Misbehaved(_))));
    drop(disk);
    fata_shared::simulation::write(address, &[1; 4096]).expect("still the device's");
}

#[tokio::test]
async fn configurations_without_sense_are_named() {
    let told = |features, size_max, blk_size| {
        let kind = DiskKind::new(200);
        let spec = kind.spec(features, size_max, 0, blk_size);
        let model = Model::new(kind, spec);
        probe(&model, Bus::Pci, &Options::default()).unwrap_err().to_string()
    };
    assert!(told(feature::BLK_SIZE, 0, 7).contains("a block size of 7 bytes"));
    assert!(told(feature::SIZE_MAX, 511, 0).contains("segments of at most 511 bytes"));
    let kind = DiskKind::new(200);
    let mut spec = kind.spec(ALL, 0, 0, 0);
    spec.config.truncate(20);
    let model = Model::new(kind, spec);
    let error = probe(&model, Bus::Pci, &Options::default()).unwrap_err();
    assert!(error.to_string().contains("it has only 20 bytes of 44"), "{error}");
}
