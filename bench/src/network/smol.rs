//! smoltcp: the same, as its documentation says that it is to be used.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};

use crate::host::{Connection, FRAME_BYTES_MAX, Host, PORT};

/// Frames that its device holds for the link, as an ordinary ring does.
const TRANSMIT_FRAMES_MAX: usize = 256;

/// Queues in both directions; buffers are used again.
#[derive(Default)]
struct Queues {
    received: VecDeque<Vec<u8>>,
    transmitted: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
}

struct Taken<'a>(Vec<u8>, &'a mut Vec<Vec<u8>>);

struct Room<'a>(&'a mut VecDeque<Vec<u8>>, Vec<u8>);

impl RxToken for Taken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, act: F) -> R {
        let result = act(&self.0);
        self.1.push(self.0);
        result
    }
}

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(mut self, len: usize, act: F) -> R {
        self.1.resize(len, 0);
        let result = act(&mut self.1);
        self.0.push_back(self.1);
        result
    }
}

impl Device for Queues {
    type RxToken<'a> = Taken<'a>;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Taken<'_>, Room<'_>)> {
        if self.transmitted.len() >= TRANSMIT_FRAMES_MAX {
            return None;
        }
        let frame = self.received.pop_front()?;
        let buffer = self.spare.pop().unwrap_or_default();
        Some((Taken(frame, &mut self.spare), Room(&mut self.transmitted, buffer)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
        if self.transmitted.len() >= TRANSMIT_FRAMES_MAX {
            return None;
        }
        let buffer = self.spare.pop().unwrap_or_default();
        Some(Room(&mut self.transmitted, buffer))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.max_transmission_unit = FRAME_BYTES_MAX;
        capabilities.medium = Medium::Ethernet;
        capabilities
    }
}

pub(crate) struct Smoltcp {
    interface: Interface,
    device: Queues,
    sockets: SocketSet<'static>,
    handles: Vec<SocketHandle>,
    /// Of those that listen: which have been handed out.
    accepted: Vec<bool>,
    connections: usize,
    buffer_bytes: usize,
    next_port: u16,
    /// A call has given it something to do since it was last polled.
    is_dirty: bool,
}

fn instant(now: u64) -> Instant {
    Instant::from_micros((now / 1000) as i64)
}

impl Smoltcp {
    fn socket(&self) -> Socket<'static> {
        let buffer = || SocketBuffer::new(vec![0; self.buffer_bytes]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_congestion_control(CongestionControl::Cubic);
        socket
    }

    fn poll(&mut self, now: u64) {
        self.is_dirty = false;
        let _ = self.interface.poll(instant(now), &mut self.device, &mut self.sockets);
    }
}

impl Host for Smoltcp {
    const NAME: &'static str = "smoltcp";

    fn new(address: Ipv4Addr, connections: usize, buffer_bytes: usize) -> Self {
        let last = address.octets()[3];
        let mac = HardwareAddress::Ethernet(EthernetAddress([2, 0, 0, 0, 0, last]));
        let mut config = Config::new(mac);
        config.random_seed = u64::from(last);
        let mut device = Queues::default();
        let mut interface = Interface::new(config, &mut device, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(IpAddress::Ipv4(address), 24)).expect("room for one");
        });
        Smoltcp {
            interface,
            device,
            sockets: SocketSet::new(Vec::new()),
            handles: Vec::new(),
            accepted: Vec::new(),
            connections,
            buffer_bytes,
            next_port: 49_152,
            is_dirty: false,
        }
    }

    fn listen(&mut self) {
        for _ in 0..self.connections {
            let mut socket = self.socket();
            socket.listen(PORT).expect("a port");
            self.handles.push(self.sockets.add(socket));
            self.accepted.push(false);
        }
    }

    fn connect(&mut self, _: u64, server: Ipv4Addr) -> Connection {
        let mut socket = self.socket();
        let remote = (IpAddress::Ipv4(server), PORT);
        socket.connect(self.interface.context(), remote, self.next_port).expect("a route");
        self.next_port += 1;
        self.handles.push(self.sockets.add(socket));
        self.is_dirty = true;
        self.handles.len() - 1
    }

    fn accept(&mut self, _: u64) -> Option<Connection> {
        let ready = |index: &usize| {
            let socket = self.sockets.get::<Socket<'_>>(self.handles[*index]);
            !self.accepted[*index] && socket.state() == State::Established
        };
        let index = (0..self.handles.len()).find(ready)?;
        self.accepted[index] = true;
        Some(index)
    }

    fn write(&mut self, _: u64, connection: Connection, bytes: &[u8]) -> usize {
        self.is_dirty = true;
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handles[connection]);
        match socket.send_slice(bytes) {
            Ok(written) => written,
            Err(error) => panic!("{}: {error}", Self::NAME),
        }
    }

    fn read(&mut self, _: u64, connection: Connection, buffer: &mut [u8]) -> usize {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handles[connection]);
        if !socket.can_recv() {
            return 0;
        }
        self.is_dirty = true;
        match socket.recv_slice(buffer) {
            Ok(read) => read,
            Err(error) => panic!("{}: {error}", Self::NAME),
        }
    }

    fn receive(&mut self, _: u64, frame: &[u8]) {
        let mut buffer = self.device.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(frame);
        self.device.received.push_back(buffer);
        self.is_dirty = true;
    }

    fn transmit(&mut self, now: u64, buffer: &mut [u8]) -> Option<usize> {
        if self.is_dirty && self.device.transmitted.is_empty() {
            self.poll(now);
        }
        let frame = self.device.transmitted.pop_front()?;
        // What did not fit into its ring before may now.
        self.is_dirty |= self.device.transmitted.is_empty();
        buffer[..frame.len()].copy_from_slice(&frame);
        let len = frame.len();
        self.device.spare.push(frame);
        Some(len)
    }

    fn poll_timeout(&mut self, now: u64) -> Option<u64> {
        let delay = self.interface.poll_delay(instant(now), &self.sockets)?;
        Some(now + Duration::total_micros(&delay) * 1000)
    }

    fn handle_timeout(&mut self, now: u64) {
        self.poll(now);
    }
}
