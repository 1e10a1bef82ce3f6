//! [`Tap`]: an Ethernet cable between Fata's stack and the host's.
//!
//! With it the stack that a sealed image runs meets Linux's own TCP, without booting anything.
//! See the kernel's `Documentation/networking/tuntap.rst`.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;
use fata_device::{MacAddress, Nic, NicError, Offloads, Received, Transmit};
use rustix::io::Errno;
use rustix::net::AddressFamily;
use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use tokio::time::Sleep;
use tun_rs::{AsyncDevice, DeviceBuilder, Layer};

/// An Ethernet header without a VLAN tag.
const ETHERNET_HEADER_BYTES: usize = 14;

/// How often to look whether the host's end is up.
const LINK_LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// Looks before frames are sent although it is down: 2 s. Linux takes up to one to notice that a
/// cable was plugged in (its `linkwatch`), and an administrator may have set the interface down.
const LINK_LOOKS_MAX: u32 = 400;

/// An interface that another program made, such as `ip tuntap add dev tap0 mode tap user $USER`,
/// opened from the other side: what the host sends to `tap0` is received here, and the other way
/// round.
///
/// Frames that are sent while the host's side is down are lost, as on a cable that is pulled out.
pub struct Tap {
    device: AsyncDevice,
    name: String,
    mac: MacAddress,
    mtu: usize,
    receive_buffer: Box<[u8]>,
    transmit_buffer: Box<[u8]>,
    /// Length of the frame in `transmit_buffer` that the host has not taken yet, or 0.
    queued: usize,
    /// Looks that are left until the host's end is taken for up. Attaching plugs the cable in; the
    /// host drops its answers until it has noticed, so a request that it is sent before that costs
    /// the time until it is repeated (for DHCP, four seconds).
    link_looks: u32,
    /// When to look next.
    link_alarm: Option<Pin<Box<Sleep>>>,
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tap({}, {}, MTU {})", self.name, self.mac, self.mtu)
    }
}

impl Tap {
    /// Attaches to the TAP interface `name`. To be called inside a tokio runtime whose I/O and time
    /// are enabled.
    ///
    /// The interface must exist: a name with a slip in it would otherwise make a new one. Its MTU
    /// is taken over. The address of our end is the address of the host's end with other bits in
    /// its second byte, so that it is the same at every start (a DHCP server then leases the same
    /// IP address) and differs from that of every other TAP interface.
    ///
    /// # Errors
    /// Each names the interface and says what to do: `NotFound`, `PermissionDenied`,
    /// `ResourceBusy` if another program is attached, `InvalidInput` if it is no TAP interface.
    pub fn open(name: &str) -> io::Result<Tap> {
        let refuse = |kind, why: &str| {
            io::Error::new(kind, format!("cannot attach to the TAP interface {name:?}: {why}"))
        };
        let create = format!("make it with: ip tuntap add dev {name} mode tap user $USER");
        if !interface_exists(name)? {
            return Err(refuse(ErrorKind::NotFound, &format!("there is none; {create}")));
        }
        let device = DeviceBuilder::new()
            .name(name)
            .layer(Layer::L2)
            .inherit_enable_state()
            .build_async()
            .map_err(|error| match Errno::from_io_error(&error) {
                Some(Errno::BUSY) => refuse(
                    ErrorKind::ResourceBusy,
                    "another program is attached to it; stop that program, or make another interface",
                ),
                Some(Errno::PERM | Errno::ACCESS) => refuse(
                    ErrorKind::PermissionDenied,
                    &format!("it belongs to another user; remove it and {create}"),
                ),
                Some(Errno::INVAL) => refuse(
                    ErrorKind::InvalidInput,
                    &format!("it is an interface of another kind; choose another name and {create}"),
                ),
                Some(Errno::NOENT | Errno::NXIO | Errno::NODEV) => refuse(
                    ErrorKind::NotFound,
                    "this host has no /dev/net/tun; load the kernel module with: modprobe tun",
                ),
                _ => refuse(error.kind(), &error.to_string()),
            })?;
        let mtu = usize::from(device.mtu()?);
        let mac = our_end(device.mac_address()?);
        let buffer = || vec![0; ETHERNET_HEADER_BYTES + mtu].into_boxed_slice();
        Ok(Tap {
            device,
            name: name.to_string(),
            mac,
            mtu,
            receive_buffer: buffer(),
            transmit_buffer: buffer(),
            queued: 0,
            link_looks: LINK_LOOKS_MAX,
            link_alarm: None,
        })
    }

    /// Waits until the host's end is up, once, after attaching.
    fn poll_link(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.link_looks > 0 {
            // An error says that the interface is gone; sending will say so.
            if self.device.is_running().unwrap_or(true) {
                self.link_looks = 0;
                break;
            }
            let alarm = self
                .link_alarm
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(LINK_LOOK_INTERVAL)));
            ready!(alarm.as_mut().poll(cx));
            self.link_alarm = None;
            self.link_looks -= 1;
        }
        Poll::Ready(())
    }

    /// Gives the queued frame, if there is one, to the host. `Ok(false)`: the host has no room.
    ///
    /// Without tokio, which writes only once its reactor has seen that the host has room: a frame
    /// would wait for that even though the host nearly always has.
    fn send_queued(&mut self) -> Result<bool, NicError> {
        while self.queued > 0 {
            let frame = &self.transmit_buffer[..self.queued];
            match rustix::io::write(self.device.as_fd(), frame) {
                Ok(_) => self.queued = 0,
                Err(Errno::AGAIN) => return Ok(false),
                Err(error) => self.lose_or_fail(error)?,
            }
        }
        Ok(true)
    }

    /// [`send_queued`](Tap::send_queued) that waits for room.
    fn poll_send_queued(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NicError>> {
        while !self.send_queued()? {
            // Tries again, and stores the waker if there is still no room.
            match ready!(self.device.poll_send(cx, &self.transmit_buffer[..self.queued])) {
                Ok(_) => self.queued = 0,
                Err(error) => match Errno::from_io_error(&error) {
                    Some(errno) => self.lose_or_fail(errno)?,
                    None => return Poll::Ready(Err(self.gone(&error))),
                },
            }
        }
        Poll::Ready(Ok(()))
    }

    /// After a write of the queued frame that failed.
    fn lose_or_fail(&mut self, error: Errno) -> Result<(), NicError> {
        match error {
            Errno::INTR => {}
            // The host's end is down, or the host is out of memory: the frame is lost.
            Errno::IO | Errno::NOBUFS | Errno::NOMEM => self.queued = 0,
            _ => return Err(self.gone(&error.into())),
        }
        Ok(())
    }

    fn gone(&self, error: &io::Error) -> NicError {
        NicError::Disconnected(format!("the TAP interface {}: {error}", self.name))
    }
}

/// Asks the kernel, and not /sys, which may show another network namespace's interfaces.
fn interface_exists(name: &str) -> io::Result<bool> {
    let socket = rustix::net::socket(AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    Ok(rustix::net::netdevice::name_to_index(&socket, name).is_ok())
}

/// The address of our end of the cable whose other end has the address `host`.
fn our_end(host: [u8; 6]) -> MacAddress {
    let [first, second, rest @ ..] = host;
    // Bit 0 clear: one interface, no group. Bit 1 set: locally administered (IEEE 802, 8.2).
    let first = first & !1 | 2;
    let [third, fourth, fifth, sixth] = rest;
    MacAddress([first, second ^ 0xfa, third, fourth, fifth, sixth])
}

impl Nic for Tap {
    fn mac(&self) -> MacAddress {
        self.mac
    }

    fn mtu(&self) -> usize {
        self.mtu
    }

    fn offloads(&self) -> Offloads {
        Offloads::default()
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        consume: &mut dyn FnMut(&mut [u8], Received),
    ) -> Poll<Result<(), NicError>> {
        let len = loop {
            match ready!(self.device.poll_recv(cx, &mut self.receive_buffer)) {
                Ok(len) => break len,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(self.gone(&error))),
            }
        };
        consume(&mut self.receive_buffer[..len], Received::UNVERIFIED);
        Poll::Ready(Ok(()))
    }

    fn poll_transmit(
        &mut self,
        cx: &mut Context<'_>,
        fill: &mut dyn FnMut(&mut [u8]) -> Option<Transmit>,
    ) -> Poll<Result<bool, NicError>> {
        ready!(self.poll_link(cx));
        ready!(self.poll_send_queued(cx))?;
        let Some(transmit) = fill(&mut self.transmit_buffer) else {
            return Poll::Ready(Ok(false));
        };
        self.queued = transmit.len;
        // If the host has no room now, the frame waits here, and the next call is pending.
        self.send_queued()?;
        Poll::Ready(Ok(true))
    }

    /// A frame goes to the host at once if there is room, so there is nothing to tell it.
    fn flush(&mut self) -> Result<(), NicError> {
        self.send_queued().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_end_has_an_address_of_its_own() {
        let host = [0x02, 0, 0, 0, 0, 0x10];
        let ours = our_end(host);
        assert_ne!(ours.0, host);
        assert!(ours.is_unicast() && ours.0[0] & 2 != 0);
        // Neighbours that an administrator numbered keep different addresses.
        let neighbour = our_end([0x02, 0, 0, 0, 0, 0x11]);
        assert_ne!(ours, neighbour);
        assert!(our_end([0xff; 6]).is_unicast());
    }

    #[tokio::test]
    async fn a_name_with_a_slip_in_it_makes_no_interface() {
        let error = Tap::open("fata-no-such").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let words = error.to_string();
        assert!(words.contains("\"fata-no-such\"") && words.contains("ip tuntap add"), "{words}");
        assert!(!interface_exists("fata-no-such").unwrap());
    }

    #[tokio::test]
    async fn an_interface_of_another_kind_is_refused() {
        let error = Tap::open("lo").unwrap_err();
        assert!(error.to_string().contains("\"lo\""), "{error}");
    }
}
