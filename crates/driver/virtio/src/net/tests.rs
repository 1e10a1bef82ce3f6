use super::*;
use crate::model::kinds::{MAC, NetKind};
use crate::model::{Bus, Model, Spec, probe};
use crate::{Device, Options};
use core::sync::atomic::Ordering;
use core::task::Waker;
use fata_device::contract::Wire;
use fata_device::nic::PartialChecksum;
use fata_device::{Checksum, IpFamily, Segmentation};

const NO_HEADER: [u8; 12] = [0; 12];

fn start(model: &Model<NetKind>, bus: Bus, options: &Options) -> VirtioNet {
    match probe(model, bus, options) {
        Ok(Some(Device::Net(net))) => net,
        other => panic!("no network device: {other:?}"),
    }
}

/// With 256 receive buffers of 2 KiB: over several of them a frame of several segments is spread. And
/// with 4 large transmit buffers.
fn small_buffers() -> Options {
    let bytes = 512 * 1024;
    let net = NetOptions { receive_bytes: bytes, transmit_bytes: bytes, ..NetOptions::default() };
    Options { net, ..Options::default() }
}

fn pair(spec: Spec, bus: Bus) -> (VirtioNet, Model<NetKind>) {
    let model = Model::new(NetKind::default(), spec);
    (start(&model, bus, &small_buffers()), model)
}

fn without(features: u64) -> Spec {
    let mut spec = NetKind::spec();
    spec.features &= !features;
    spec
}

fn receive(net: &mut VirtioNet) -> Poll<Result<(Vec<u8>, Checksum), NicError>> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut got = None;
    let polled = net.poll_receive(&mut cx, &mut |frame, said| {
        got = Some((frame.to_vec(), said.checksum));
    });
    polled.map(|result| result.map(|()| got.expect("consume was called")))
}

fn received(net: &mut VirtioNet) -> (Vec<u8>, Checksum) {
    match receive(net) {
        Poll::Ready(Ok(got)) => got,
        other => panic!("no frame: {other:?}"),
    }
}

fn rule(net: &mut VirtioNet) -> String {
    match receive(net) {
        Poll::Ready(Err(NicError::Misbehaved(rule))) => rule,
        other => panic!("not caught: {other:?}"),
    }
}

fn send(net: &mut VirtioNet, frame: &[u8]) -> Poll<Result<bool, NicError>> {
    let mut cx = Context::from_waker(Waker::noop());
    net.poll_transmit(&mut cx, &mut |buffer| {
        buffer[..frame.len()].copy_from_slice(frame);
        Some(Transmit::complete(frame.len()))
    })
}

struct ModelWire(Model<NetKind>);

impl Wire for ModelWire {
    fn send(&mut self, frame: &[u8]) {
        NetKind::inject(&self.0, NO_HEADER, frame);
    }
    fn receive(&mut self) -> Option<Vec<u8>> {
        self.0.inner().kind.sent.pop_front().map(|(_, frame)| frame)
    }
}

/// The contract, over both buses, with and without each feature that changes the paths.
#[tokio::test]
async fn the_contract_of_nic() {
    for bus in [Bus::Mmio, Bus::Pci] {
        for missing in [
            0,
            feature::MRG_RXBUF,
            1 << 29,
            feature::MTU,
            feature::MRG_RXBUF | 1 << 29,
            feature::HOST_TSO4 | feature::HOST_TSO6,
            feature::GUEST_TSO4 | feature::GUEST_TSO6,
        ] {
            for options in [Options::default(), small_buffers()] {
                let model = Model::new(NetKind::default(), without(missing));
                let mut net = start(&model, bus, &options);
                let device = tokio::spawn(model.clone().run());
                fata_device::contract::nic(&mut net, &mut ModelWire(model)).await;
                device.abort();
            }
        }
    }
}

#[tokio::test]
async fn the_contract_of_nic_in_little_memory_and_with_jumbo_frames() {
    for (mtu, bytes) in [(1500u16, 1), (9000, 1), (9000, 1 << 20), (65_535, 1)] {
        for missing in [0, feature::MRG_RXBUF] {
            let mut spec = without(missing);
            spec.config[10..12].copy_from_slice(&mtu.to_le_bytes());
            // Mergeable buffers must hold the largest frame together.
            let receive_bytes = if missing == 0 { usize::from(mtu) + 4096 } else { bytes };
            let net = NetOptions { receive_bytes, transmit_bytes: bytes, ..NetOptions::default() };
            let model = Model::new(NetKind::default(), spec);
            let mut net = start(&model, Bus::Mmio, &Options { net, ..Options::default() });
            assert_eq!(net.mtu(), usize::from(mtu));
            let device = tokio::spawn(model.clone().run());
            fata_device::contract::nic(&mut net, &mut ModelWire(model)).await;
            device.abort();
        }
    }
}

#[test]
fn what_the_device_says_of_itself_is_used() {
    let mut spec = NetKind::spec();
    spec.config[10..12].copy_from_slice(&1280u16.to_le_bytes());
    let (net, model) = pair(spec, Bus::Pci);
    assert_eq!((net.mac(), net.mtu()), (MacAddress(MAC), 1280));
    assert!(net.offloads().transmit_checksum);
    assert!(net.link_is_up());
    model.inner().spec.config[6] = 0;
    assert!(!net.link_is_up());
    drop(net);
    let (net, _model) = pair(without(feature::CSUM | feature::MTU | feature::STATUS), Bus::Mmio);
    assert_eq!(net.mtu(), 1500);
    assert!(!net.offloads().transmit_checksum);
    assert!(net.link_is_up());
}

#[test]
fn a_memory_budget_bounds_the_buffers() {
    let net = NetOptions::for_memory(8 << 20);
    let model = Model::new(NetKind::default(), NetKind::spec());
    let _net = start(&model, Bus::Mmio, &Options { net, ..Options::default() });
    model.work();
    assert_eq!(model.inner().rings.queues[0].held.len(), 64);
    assert_eq!(NetOptions::for_memory(u64::MAX), NetOptions::default());
    let tiny = Options { net: NetOptions::for_memory(0), ..Options::default() };
    let model = Model::new(NetKind::default(), NetKind::spec());
    let _net = start(&model, Bus::Mmio, &tiny);
    model.work();
    assert_eq!(model.inner().rings.queues[0].held.len(), usize::from(BUFFERS_MIN));
}

#[test]
fn configurations_without_sense_are_named() {
    let told = |change: &dyn Fn(&mut Spec)| {
        let mut spec = NetKind::spec();
        change(&mut spec);
        let model = Model::new(NetKind::default(), spec);
        let error = probe(&model, Bus::Pci, &Options::default()).unwrap_err();
        assert_eq!(model.inner().status, 0, "it was reset");
        error.to_string()
    };
    assert!(told(&|spec| spec.features &= !feature::MAC).contains("VIRTIO_NET_F_MAC"));
    assert!(told(&|spec| spec.config[0] = 1).contains("01:54:00:12:34:56"));
    assert!(told(&|spec| spec.config[..6].fill(0)).contains("00:00:00:00:00:00"));
    assert!(told(&|spec| spec.config[10..12].fill(0)).contains("MTU of 0"));
    assert!(told(&|spec| spec.config.truncate(8)).contains("only 8 bytes"));
    assert!(told(&|spec| spec.queue_sizes[1] = 0).contains("queue 1"));
    assert!(told(&|spec| spec.restless = true).contains("changed each"));
}

#[test]
fn checksums_are_offered_and_told() {
    let (mut net, model) = pair(NetKind::spec(), Bus::Mmio);
    let mut cx = Context::from_waker(Waker::noop());
    let partial_checksum = Some(PartialChecksum { start: 34, offset: 16 });
    let sent = net.poll_transmit(&mut cx, &mut |buffer| {
        buffer[..60].fill(7);
        Some(Transmit { partial_checksum, ..Transmit::complete(60) })
    });
    assert_eq!(sent, Poll::Ready(Ok(true)));
    net.flush().unwrap();
    let (header, frame) = model.inner().kind.sent.pop_front().unwrap();
    assert_eq!(header, [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0]);
    assert_eq!(frame, [7; 60]);

    for (flags, said) in [(0, Checksum::Unverified), (1, Checksum::Blank), (2, Checksum::Verified)]
    {
        let mut header = NO_HEADER;
        header[0] = flags;
        NetKind::inject(&model, header, &[1; 60]);
        assert_eq!(received(&mut net), (vec![1; 60], said));
    }
    drop(net);
    let (mut net, model) = pair(without(feature::GUEST_CSUM), Bus::Mmio);
    let mut header = NO_HEADER;
    header[0] = 3;
    NetKind::inject(&model, header, &[1; 60]);
    assert_eq!(received(&mut net).1, Checksum::Unverified, "it was not to say so");
}

#[test]
fn frames_that_are_not_fit_for_use_are_counted_and_passed_over() {
    let (mut net, model) = pair(NetKind::spec(), Bus::Mmio);
    NetKind::inject(&model, NO_HEADER, &[1; 13]);
    NetKind::inject(&model, NO_HEADER, &[2; 1515]);
    // In five buffers, from somebody with a larger MTU.
    NetKind::inject(&model, NO_HEADER, &[3; 9000]);
    let mut segment = NO_HEADER;
    segment[1] = 1;
    NetKind::inject(&model, segment, &[4; 60]);
    assert_eq!(receive(&mut net), Poll::Pending);
    NetKind::inject(&model, NO_HEADER, &[5; 1514]);
    assert_eq!(received(&mut net).0, [5; 1514]);
    let counters = net.counters();
    let unfit = counters.receive_unfit.load(Ordering::Relaxed);
    assert_eq!((counters.received.load(Ordering::Relaxed), unfit), (1, 4));
}

/// A device could fill the ring with such frames as fast as they are passed over.
#[test]
fn a_flood_of_unfit_frames_does_not_keep_the_task() {
    let (mut net, model) = pair(NetKind::spec(), Bus::Mmio);
    for _ in 0..2 * usize::from(BUFFERS_MAX) {
        NetKind::inject(&model, NO_HEADER, &[1; 13]);
    }
    model.work();
    let mut rounds = 0;
    while net.counters().receive_unfit.load(Ordering::Relaxed) < 2 * u64::from(BUFFERS_MAX) {
        assert_eq!(receive(&mut net), Poll::Pending);
        model.work();
        rounds += 1;
    }
    assert!((2..5).contains(&rounds), "{rounds}");
}

#[test]
fn notifications_and_register_reads_are_few() {
    let (mut net, model) = pair(NetKind::spec(), Bus::Mmio);
    let notified = |queue: usize| model.inner().rings.queues[queue].notifications;
    assert_eq!(notified(0), 1, "receive buffers, in one batch");
    assert_eq!(notified(1), 0);
    for _ in 0..10 {
        for _ in 0..20 {
            assert_eq!(send(&mut net, &[9; 200]), Poll::Ready(Ok(true)));
        }
        net.flush().unwrap();
        net.flush().unwrap();
    }
    assert_eq!(notified(1), 10, "one per batch");
    assert!(!model.deliver(), "sending asks for no interrupts");
    for _ in 0..100 {
        NetKind::inject(&model, NO_HEADER, &[1; 60]);
    }
    let reads = model.inner().interrupt_status_reads;
    for _ in 0..100 {
        received(&mut net);
    }
    assert_eq!(model.inner().interrupt_status_reads, reads, "a busy ring needs no register");
}

#[test]
fn under_msix_no_register_is_read_at_all() {
    let (mut net, model) = pair(NetKind::spec(), Bus::Pci);
    assert_eq!(receive(&mut net), Poll::Pending);
    NetKind::inject(&model, NO_HEADER, &[1; 60]);
    assert!(model.deliver(), "it slept, so it is interrupted");
    // The model's front panics at every register that is not listed, the ISR among them.
    assert_eq!(received(&mut net).0, [1; 60]);
}

#[test]
fn polling_sees_frames_whatever_interrupts_said() {
    let (mut net, model) = pair(NetKind::spec(), Bus::Mmio);
    for number in 0..10 {
        assert_eq!(receive(&mut net), Poll::Pending);
        NetKind::inject(&model, NO_HEADER, &[number; 60]);
        // Nobody delivers the interrupt.
        assert_eq!(received(&mut net).0, [number; 60]);
    }
}

#[test]
fn when_all_buffers_are_out_the_sender_waits_and_is_woken() {
    let (mut net, model) = pair(NetKind::spec(), Bus::Pci);
    model.inner().kind.keep_sent = true;
    let mut queued = 0;
    while send(&mut net, &[1; 60]) == Poll::Ready(Ok(true)) {
        queued += 1;
    }
    assert!((170..=256).contains(&queued), "{queued} buffers");
    net.flush().unwrap();
    assert_eq!(send(&mut net, &[1; 60]), Poll::Pending);
    model.act(|_, rings| rings.give_back(1, 0));
    assert!(!model.deliver(), "one is not worth an interrupt");
    model.act(|_, rings| (0..queued - 1).for_each(|_| rings.give_back(1, 0)));
    assert!(model.deliver());
    assert_eq!(send(&mut net, &[1; 60]), Poll::Ready(Ok(true)));
}

/// After a lie is caught: the device is reset, every call fails with the same words, and what it
/// had can no longer be written by it.
fn closed(net: &mut VirtioNet, model: &Model<NetKind>, words: &str) {
    let resets = model.inner().resets;
    let told = rule(net);
    assert!(told.contains(words), "{told:?} does not say {words:?}");
    assert_eq!(model.inner().resets, resets + 1);
    assert_eq!(model.inner().status, 0);
    assert_eq!(rule(net), told, "final");
    let error = NicError::Misbehaved(told);
    assert_eq!(send(net, &[1; 60]), Poll::Ready(Err(error.clone())));
    assert_eq!(net.flush(), Err(error));
}

fn lied_to(
    bus: Bus,
    lie: impl FnMut(crate::model::Element) -> crate::model::Element + Send + 'static,
) -> (VirtioNet, Model<NetKind>) {
    let (net, model) = pair(NetKind::spec(), bus);
    model.lie(lie);
    NetKind::inject(&model, NO_HEADER, &[1; 60]);
    (net, model)
}

#[test]
fn lies_about_used_elements_close_the_device() {
    for bus in [Bus::Mmio, Bus::Pci] {
        let (mut net, model) = lied_to(bus, |mut element| {
            element.id = 256;
            element
        });
        closed(&mut net, &model, "names descriptor 256 of a queue of 256");

        let (mut net, model) = lied_to(bus, |mut element| {
            element.written = 2049;
            element
        });
        closed(&mut net, &model, "2049 bytes were written where 2048 may be");

        let (mut net, model) = lied_to(bus, |mut element| {
            element.written = 11;
            element
        });
        closed(&mut net, &model, "11 bytes were written to a receive buffer");

        let (mut net, model) = pair(NetKind::spec(), bus);
        assert_eq!(receive(&mut net), Poll::Pending);
        model.act(|_, rings| rings.set_used_idx(0, 0x8000));
        closed(&mut net, &model, "moved by 32768 while 256 chains were outstanding");
    }
}

#[test]
fn lies_about_the_number_of_buffers_close_the_device() {
    let with_buffers = |count: u16, frame: &[u8]| {
        let mut spec = NetKind::spec();
        spec.config[10..12].copy_from_slice(&9000u16.to_le_bytes());
        let (net, model) = pair(spec, Bus::Mmio);
        model.act(|_, rings| {
            let mut bytes = NO_HEADER;
            bytes[10..].copy_from_slice(&count.to_le_bytes());
            let bytes = [&bytes[..], frame].concat();
            rings.queues[0].held[0].write(&bytes);
            rings.give_back(0, bytes.len());
        });
        (net, model)
    };
    let (mut net, model) = with_buffers(0, &[1; 60]);
    closed(&mut net, &model, "span 0 receive buffers");
    let (mut net, model) = with_buffers(257, &[1; 60]);
    closed(&mut net, &model, "span 257 receive buffers, and the device had 256");
    let (mut net, model) = with_buffers(2, &[1; 60]);
    closed(&mut net, &model, "span 2 receive buffers, and only 1 came");
}

#[test]
fn lies_while_sending_close_the_device() {
    let (mut net, model) = pair(NetKind::spec(), Bus::Mmio);
    model.lie(|mut element| {
        element.written = 1;
        element
    });
    assert_eq!(send(&mut net, &[1; 60]), Poll::Ready(Ok(true)));
    net.flush().unwrap();
    let closed = send(&mut net, &[1; 60]);
    let Poll::Ready(Err(NicError::Misbehaved(told))) = closed else {
        panic!("not caught: {closed:?}")
    };
    assert!(told.contains("1 bytes were written where 0 may be"), "{told}");
}

#[test]
fn a_device_that_asks_to_be_reset_or_is_gone_ends_the_interface() {
    let (mut net, model) = pair(NetKind::spec(), Bus::Mmio);
    assert_eq!(receive(&mut net), Poll::Pending);
    model.change(64);
    model.deliver();
    assert!(rule(&mut net).contains("asks to be reset"));
    assert_eq!(model.inner().status, 0);

    let (mut net, model) = pair(NetKind::spec(), Bus::Pci);
    model.change(0xff);
    model.deliver();
    let gone = receive(&mut net);
    assert!(matches!(gone, Poll::Ready(Err(NicError::Disconnected(_)))), "{gone:?}");
}

/// What the device had when it was closed is freed if it confirmed the reset, and otherwise not:
/// it may still write there.
#[test]
fn buffers_of_a_device_that_does_not_reset_are_quarantined() {
    let (mut net, model) = pair(NetKind::spec(), Bus::Mmio);
    let address = model.act(|_, rings| {
        rings.set_used_idx(0, 0x8000);
        rings.queues[0].held[0].writable[0].0
    });
    closed(&mut net, &model, "32768");
    assert!(fata_shared::simulation::write(address, &[1]).is_err(), "taken back");

    let mut spec = NetKind::spec();
    spec.never_resets = true;
    let (mut net, model) = pair(spec, Bus::Mmio);
    let (address, ring) = model.act(|_, rings| {
        rings.set_used_idx(0, 0x8000);
        (rings.queues[0].held[0].writable[0].0, rings.queues[0].used)
    });
    let before = fata_shared::dma::quarantined_bytes();
    rule(&mut net);
    drop(net);
    fata_shared::simulation::write(address, &[1]).expect("still the device's");
    fata_shared::simulation::write(ring, &[1]).expect("still the device's");
    assert!(fata_shared::dma::quarantined_bytes() >= before + 256 * 2048);
}

/// Header and frame of TCP over IPv4 whose checksum is left to the device, with so much payload.
fn tcp_frame(payload: usize) -> (Transmit, Vec<u8>) {
    let mut frame = vec![0; 14 + 20 + 32];
    frame[12] = 0x08;
    frame[14 + 20 + 12] = 0x80;
    frame.extend((0..payload).map(|at| at as u8));
    let transmit = Transmit {
        len: frame.len(),
        partial_checksum: Some(PartialChecksum { start: 34, offset: 16 }),
        segmentation: Some(Segmentation { family: IpFamily::V4, mss: 1448 }),
    };
    (transmit, frame)
}

#[test]
fn frames_of_several_segments_are_sent_for_the_device_to_cut() {
    let (mut net, model) = pair(NetKind::spec(), Bus::Mmio);
    let offloads = net.offloads();
    assert!(offloads.segmentation_ipv4 && offloads.segmentation_ipv6);
    assert_eq!(offloads.segmented_frame_bytes_max, 64 * 1024 - 12);
    let mut cx = Context::from_waker(Waker::noop());
    model.inner().kind.keep_sent = true;
    let (transmit, frame) = tcp_frame(60_000);
    let mut send = |net: &mut VirtioNet| {
        net.poll_transmit(&mut cx, &mut |buffer| {
            assert!(buffer.len() >= offloads.segmented_frame_bytes_max);
            buffer[..frame.len()].copy_from_slice(&frame);
            Some(transmit)
        })
    };
    for _ in 0..4 {
        assert_eq!(send(&mut net), Poll::Ready(Ok(true)));
    }
    assert_eq!(send(&mut net), Poll::Pending, "the large buffers are out");
    net.flush().unwrap();
    let (header, sent) = model.inner().kind.sent.pop_front().unwrap();
    let [size_low, size_high] = 1448u16.to_le_bytes();
    assert_eq!(header, [1, 1, 66, 0, size_low, size_high, 34, 0, 16, 0, 0, 0]);
    assert_eq!(sent, frame);
    assert_eq!(net.counters().transmitted_segmented.load(Ordering::Relaxed), 4);
    model.act(|_, rings| (0..4).for_each(|_| rings.give_back(1, 0)));
    assert!(model.deliver(), "whoever waited is woken");
    assert_eq!(send(&mut net), Poll::Ready(Ok(true)));
}

#[test]
fn frames_of_several_segments_are_received_whole() {
    // How many are put together from several buffers.
    for (options, joined) in [(Options::default(), 0), (small_buffers(), 3)] {
        let model = Model::new(NetKind::default(), NetKind::spec());
        let mut net = start(&model, Bus::Pci, &options);
        let mut header = NO_HEADER;
        (header[0], header[1]) = (1, 4);
        header[4..6].copy_from_slice(&1428u16.to_le_bytes());
        for len in [1514, 2037, 30_000, 65_549] {
            let frame: Vec<u8> = (0..len).map(|at| (at / 7) as u8).collect();
            NetKind::inject(&model, header, &frame);
            let mut got = None;
            let mut cx = Context::from_waker(Waker::noop());
            let polled =
                net.poll_receive(&mut cx, &mut |frame, said| got = Some((frame.to_vec(), said)));
            assert_eq!(polled, Poll::Ready(Ok(())));
            let segmentation = Some(Segmentation { family: IpFamily::V6, mss: 1428 });
            let said = Received { checksum: Checksum::Blank, segmentation };
            assert!(got == Some((frame, said)), "{len} bytes");
        }
        NetKind::inject(&model, header, &[0; 65_550]);
        assert_eq!(receive(&mut net), Poll::Pending, "no IP packet is so long");
        let counters = net.counters();
        assert_eq!(counters.received_segmented.load(Ordering::Relaxed), 4);
        assert_eq!(counters.receive_unfit.load(Ordering::Relaxed), 1);
        assert_eq!(counters.joined.load(Ordering::Relaxed), joined);
    }
}

/// Segmentation is agreed on only where it can work.
#[test]
fn segmentation_needs_checksums_merging_and_memory() {
    let both = feature::GUEST_TSO4 | feature::GUEST_TSO6;
    let agreed = |missing: u64, options: &Options| {
        let model = Model::new(NetKind::default(), without(missing));
        let net = start(&model, Bus::Mmio, options);
        (net.offloads(), model.inner().accepted & both)
    };
    let all = Options::default();
    assert_eq!(agreed(0, &all).1, both);
    assert_eq!(agreed(feature::MRG_RXBUF, &all).1, 0);
    assert_eq!(agreed(feature::GUEST_CSUM, &all).1, 0);
    assert!(!agreed(feature::CSUM, &all).0.segmentation_ipv4);
    assert!(!agreed(feature::HOST_TSO4, &all).0.segmentation_ipv4);
    assert!(agreed(feature::HOST_TSO4, &all).0.segmentation_ipv6);
    let of = |bytes| Options { net: NetOptions::for_memory(bytes), ..Options::default() };
    let (offloads, received) = agreed(0, &of(8 << 20));
    assert_eq!((offloads.segmented_frame_bytes_max, received), (16 * 1024 - 12, both));
    let (offloads, received) = agreed(0, &of(2 << 20));
    assert_eq!((offloads.segmentation_ipv4, received), (false, 0));
    let mut spec = NetKind::spec();
    spec.queue_sizes[0] = 16;
    let few = small_buffers();
    let error = probe(&Model::new(NetKind::default(), spec), Bus::Pci, &few).unwrap_err();
    assert!(error.to_string().contains("receive queue of more than 16"), "{error}");
}
