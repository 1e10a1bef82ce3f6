//! [`Vchan`]: a stream of bytes to another guest on the same host, in memory that both share.
//!
//! One side is the server, which grants the memory and writes where it is below
//! `data/vchan/<client>/<name>` of its own directory in XenStore; the other the client, which maps
//! it. After that nobody is between the two: a write is a copy, and a notification only when the
//! other side waits. The layout and the keys are libvchan's, so the other side may be a program in
//! C.
//!
//! Whoever reads or writes works on the rings itself. A task of the handshake's looks after the keys
//! and, while the channel lives, whether the other domain does: a guest that is destroyed says
//! nothing.

mod end;
mod keeper;

use crate::store::{Access, Permission};
use crate::xenbus::{self, Device};
use crate::{Xen, XenError};
use core::fmt;
use core::future::poll_fn;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use end::{Shared, Turn};
use fata_hypercall::DomainId;
use fata_xenbus::Instant;
use fata_xenbus::handshake::{Handshake, vchan as handshake};
use fata_xenbus::vchan::{Orders, Progress};
use keeper::{Client, Keeper, Server};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// The longest name of a channel: with the rest of its path it fits into what XenStore allows, which
/// is 256 bytes for a relative path.
const NAME_BYTES_MAX: usize = 128;

/// How often a server that waits permits its client anew to read the keys. xenstored ignores what a
/// domain was permitted before it was made (XSA-322: its number may have been another's), and tells
/// no guest when one is made. A second: a client that came later than its server waits no longer.
const RENEW: Duration = Duration::from_secs(1);

/// What a channel may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VchanOptions {
    /// Size of the ring that the client writes, in bytes: rounded up to a power of two, 1 KiB to
    /// 1 MiB. Only the server's options count. 256 KiB: the two sides take turns on a processor
    /// rather than run at once, and half of a ring is what goes in one turn.
    pub client_ring_bytes: usize,
    /// Size of the ring that the server writes, likewise.
    pub server_ring_bytes: usize,
    /// How long a client waits for its server's keys, in nanoseconds. 60 s, as for devices.
    pub connect_nanos: u64,
}

impl Default for VchanOptions {
    fn default() -> Self {
        VchanOptions {
            client_ring_bytes: 256 * 1024,
            server_ring_bytes: 256 * 1024,
            connect_nanos: 60_000_000_000,
        }
    }
}

/// What a channel has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VchanCounters {
    /// Bytes that were read.
    pub bytes_read: u64,
    /// Bytes that were written.
    pub bytes_written: u64,
    /// Event notifications sent.
    pub notifications: u64,
    /// How often a read found the ring empty.
    pub empty: u64,
    /// How often a write found the ring full.
    pub full: u64,
}

/// A stream of bytes to another guest.
///
/// Reads end (`Ok(0)`) when the other side has left, or its domain is gone, and all that it wrote was
/// read; writes fail with [`BrokenPipe`](io::ErrorKind::BrokenPipe) as soon as it has. If the other
/// side breaks the rules, both fail with [`InvalidData`](io::ErrorKind::InvalidData) and the rule.
///
/// There is no closing of one direction in the protocol: `shutdown` means that this side has left.
/// What it wrote can still be read there, and what the other side had written can still be read
/// here, but nothing more can be written to it.
pub struct Vchan {
    shared: Arc<Shared>,
}

impl Xen {
    /// Offers a channel to a client in another domain, and waits for it. To be called in a tokio
    /// runtime, where the channel's task stays. Dropping the future takes the offer back.
    ///
    /// # Errors
    /// [`XenError::Device`] for a name that is empty, too long, or has other characters than letters,
    /// digits, `-`, `_` and `.`; XenStore's and Xen's refusals.
    pub async fn vchan_server(
        &self,
        client: DomainId,
        name: &str,
        options: &VchanOptions,
    ) -> Result<Vchan, XenError> {
        check_name(name)?;
        let server = self.store().domain().await?;
        let path = format!("data/vchan/{}/{name}", client.0);
        let orders = Orders::for_bytes(options.client_ring_bytes, options.server_ring_bytes);
        let listening = handshake::Listening::new(path.clone(), server, client.0);
        let machine = move |_| handshake::Server::new(listening);
        let vchan = self.open(machine, Server(orders)).await?;
        loop {
            let met = poll_fn(|cx| vchan.shared.poll_met(cx));
            match tokio::time::timeout(RENEW, met).await {
                Ok(Ok(())) => return Ok(vchan),
                Ok(Err(error)) => {
                    let ended = format!("the vchan {name} for {client} ended: {error}");
                    return Err(XenError::Device(ended));
                }
                Err(_) => self.renew(&path, server, client).await?,
            }
        }
    }

    /// Permits the client to read a channel's keys, again. It also tells a client that watches them.
    async fn renew(&self, path: &str, server: u16, client: DomainId) -> Result<(), XenError> {
        let permissions = [
            Permission { access: Access::None, domain: server },
            Permission { access: Access::Read, domain: client.0 },
        ];
        for key in ["ring-ref", "event-channel"] {
            match self.store().set_permissions(&format!("{path}/{key}"), &permissions).await {
                // The channel is being closed, and its own end is told elsewhere.
                Err(error) if error.is_not_found() => {}
                done => done?,
            }
        }
        Ok(())
    }

    /// Connects to the channel that another domain offers, and waits until it does. To be called in
    /// a tokio runtime, where the channel's task stays.
    ///
    /// # Errors
    /// As [`vchan_server`](Xen::vchan_server), and [`XenError::Handshake`] when there is no server in
    /// time.
    pub async fn vchan_client(
        &self,
        server: DomainId,
        name: &str,
        options: &VchanOptions,
    ) -> Result<Vchan, XenError> {
        check_name(name)?;
        let client = self.store().domain().await?;
        let path = format!("/local/domain/{}/data/vchan/{client}/{name}", server.0);
        let connect_nanos = options.connect_nanos;
        let calling =
            handshake::Calling { connect_nanos, ..handshake::Calling::new(path, server.0) };
        self.open(move |now| handshake::Client::new(calling, now), Client).await
    }

    async fn open<H, Role>(
        &self,
        machine: impl FnOnce(Instant) -> H + Send + 'static,
        role: Role,
    ) -> Result<Vchan, XenError>
    where
        Role: Send + 'static,
        Keeper<Role>: Device<Settings = ()>,
        H: Handshake<
                Wanted = <Keeper<Role> as Device>::Wanted,
                Made = <Keeper<Role> as Device>::Made,
                Settings = (),
            > + Send
            + 'static,
    {
        let shared = Shared::new();
        // From here on a drop takes the channel back.
        let vchan = Vchan { shared: shared.clone() };
        let (opener, opened) = oneshot::channel();
        let keeper = Keeper::new(self.hypervisor().clone(), shared.clone(), role, opener);
        let store = self.store().clone();
        let task = tokio::spawn(async move {
            let ended = xenbus::run(store, machine, keeper).await;
            shared.end();
            ended
        });
        match opened.await {
            Ok(()) => Ok(vchan),
            // The keeper is gone: its task says why.
            Err(_) => Err(match task.await {
                Ok(Err(error)) => error,
                Ok(Ok(_)) => XenError::Device("the vchan ended before it began".to_owned()),
                Err(lost) => XenError::Device(format!("the task of a vchan ended: {lost}")),
            }),
        }
    }
}

/// Checks that a name is one part of a path in XenStore.
fn check_name(name: &str) -> Result<(), XenError> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(is_good) {
        return Ok(());
    }
    Err(XenError::Device(format!(
        "{name:?} is no name for a vchan: up to {NAME_BYTES_MAX} letters, digits, -, _ and ."
    )))
}

impl Vchan {
    /// What the channel has done so far.
    pub fn counters(&self) -> VchanCounters {
        self.shared.counters()
    }
}

impl AsyncRead for Vchan {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let into = buffer.initialize_unfilled();
        let read = self.shared.poll(Turn::Read, cx, |end| end.read(into));
        let count = match core::task::ready!(read)? {
            Progress::Bytes { count, .. } => count,
            Progress::Gone | Progress::Wait => 0,
        };
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Vchan {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let written = self.shared.poll(Turn::Write, cx, |end| end.write(bytes));
        Poll::Ready(match core::task::ready!(written)? {
            Progress::Bytes { count, .. } => Ok(count),
            Progress::Gone | Progress::Wait => Err(io::ErrorKind::BrokenPipe.into()),
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was written is where the other side reads it.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.leave();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Vchan {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}

impl fmt::Debug for Vchan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vchan").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
