//! [`Stack::tcp_connect_name`]: to a host, whichever of its addresses answers (RFC 8305).

use crate::resolve::{Failure, Target, merge, target};
use crate::stack::Stack;
use crate::tcp_stream::TcpStream;
use core::future::poll_fn;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use fata_names::dns::Family;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use tokio::time::{Sleep, sleep};

/// How long an attempt is given before the next one begins beside it (RFC 8305 §5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// How long IPv6 addresses are waited for when IPv4's are there (RFC 8305 §3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// Addresses that are tried. More would only make an unreachable host's error come later.
const ATTEMPTS_MAX: usize = 16;

type Attempt<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;
type Lookup<'a> = Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, Failure>> + Send + 'a>>;

impl Stack {
    /// Connects to a host by its name, or by an address in text: to whichever of its addresses
    /// answers first, trying IPv6 and IPv4 in turns, each 250 ms after the one before or as soon as
    /// that fails (RFC 8305). The attempts that lose are given up. Dropping the future gives all up.
    ///
    /// ```no_run
    /// # async fn page(stack: &fata_net::Stack) -> std::io::Result<Vec<u8>> {
    /// use std::time::Duration;
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// let mut stream = stack.tcp_connect_name("example.org", 80).await?;
    /// // A server that stops answering ends the connection, and the program does not wait for ever.
    /// stream.set_user_timeout(Some(Duration::from_secs(30)))?;
    /// stream.set_keepalive(Some(fata_net::Keepalive {
    ///     idle: Duration::from_secs(30),
    ///     ..fata_net::Keepalive::default()
    /// }))?;
    /// stream.write_all(b"GET / HTTP/1.0\r\nhost: example.org\r\n\r\n").await?;
    /// let mut page = Vec::new();
    /// stream.read_to_end(&mut page).await?;
    /// # Ok(page)
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`resolve`](Stack::resolve); if no address answers, the last attempt's error, as
    /// [`tcp_connect`](Stack::tcp_connect) has it.
    pub async fn tcp_connect_name(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let name = match target(host)? {
            Target::Address(address) => return self.tcp_connect((address, port)).await,
            Target::Name(name) => name,
        };
        let (name, connect) = (&name, |address| {
            let address = SocketAddr::new(address, port);
            Box::pin(self.tcp_connect(address)) as Attempt<'_, TcpStream>
        });
        let six = Box::pin(self.resolve_family(name, Family::V6));
        let four = Box::pin(self.resolve_family(name, Family::V4));
        race(host, six, four, connect).await
    }
}

/// Tries the addresses that the two lookups give until one answers.
pub(crate) async fn race<'a, T>(
    host: &str,
    six: Lookup<'a>,
    four: Lookup<'a>,
    connect: impl FnMut(IpAddr) -> Attempt<'a, T>,
) -> io::Result<T> {
    let mut race = Race {
        connect,
        lookups: [Some(six), Some(four)],
        failures: [None, None],
        waiting: [VecDeque::new(), VecDeque::new()],
        resolution: None,
        begun: 0,
        is_fours_turn: false,
        attempts: Vec::new(),
        next_attempt: None,
        last_error: None,
    };
    poll_fn(|cx| race.poll(cx, host)).await
}

struct Race<'a, T, C> {
    connect: C,
    /// IPv6, IPv4; `None` when it is done.
    lookups: [Option<Lookup<'a>>; 2],
    failures: [Option<Failure>; 2],
    /// Addresses that were not tried yet.
    waiting: [VecDeque<IpAddr>; 2],
    /// Runs while IPv4's addresses wait for IPv6's.
    resolution: Option<Pin<Box<Sleep>>>,
    begun: usize,
    is_fours_turn: bool,
    attempts: Vec<Attempt<'a, T>>,
    /// When the next attempt begins beside the others; `None`: now.
    next_attempt: Option<Pin<Box<Sleep>>>,
    last_error: Option<io::Error>,
}

impl<'a, T, C: FnMut(IpAddr) -> Attempt<'a, T>> Race<'a, T, C> {
    fn poll(&mut self, cx: &mut Context<'_>, host: &str) -> Poll<io::Result<T>> {
        self.poll_lookups(cx);
        loop {
            if let Poll::Ready(winner) = self.poll_attempts(cx) {
                return Poll::Ready(Ok(winner));
            }
            if !self.may_begin(cx) {
                return Poll::Pending;
            }
            if self.next_attempt.as_mut().is_some_and(|it| it.as_mut().poll(cx).is_pending()) {
                return Poll::Pending;
            }
            match self.next_address() {
                Some(address) => {
                    self.attempts.push((self.connect)(address));
                    self.next_attempt = Some(Box::pin(sleep(ATTEMPT_DELAY)));
                }
                // Others are still under way, or their addresses are.
                None if !self.attempts.is_empty() || self.lookups.iter().any(Option::is_some) => {
                    return Poll::Pending;
                }
                None => return Poll::Ready(Err(self.error(host))),
            }
        }
    }

    fn poll_lookups(&mut self, cx: &mut Context<'_>) {
        for family in 0..2 {
            let Some(lookup) = &mut self.lookups[family] else { continue };
            let Poll::Ready(answer) = lookup.as_mut().poll(cx) else { continue };
            self.lookups[family] = None;
            match answer {
                Ok(addresses) => self.waiting[family].extend(addresses),
                Err(failure) => self.failures[family] = Some(failure),
            }
        }
    }

    /// RFC 8305 §3: once IPv6's addresses are there, or they have been waited for.
    fn may_begin(&mut self, cx: &mut Context<'_>) -> bool {
        if self.begun > 0 || self.lookups[0].is_none() {
            return true;
        }
        if self.waiting[1].is_empty() {
            return false;
        }
        let resolution = self.resolution.get_or_insert_with(|| Box::pin(sleep(RESOLUTION_DELAY)));
        resolution.as_mut().poll(cx).is_ready()
    }

    /// One family's and the other's in turns (RFC 8305 §4), beginning with IPv6.
    fn next_address(&mut self) -> Option<IpAddr> {
        if self.begun >= ATTEMPTS_MAX {
            self.waiting = [VecDeque::new(), VecDeque::new()];
        }
        let (first, second) = if self.is_fours_turn { (1, 0) } else { (0, 1) };
        let (family, address) = match self.waiting[first].pop_front() {
            Some(address) => (first, address),
            None => (second, self.waiting[second].pop_front()?),
        };
        self.is_fours_turn = family == 0;
        self.begun += 1;
        Some(address)
    }

    /// The first that succeeds. One that fails lets the next one begin.
    fn poll_attempts(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        let mut at = 0;
        while at < self.attempts.len() {
            match self.attempts[at].as_mut().poll(cx) {
                Poll::Ready(Ok(winner)) => return Poll::Ready(winner),
                Poll::Ready(Err(error)) => {
                    drop(self.attempts.remove(at));
                    self.last_error = Some(error);
                    self.next_attempt = None;
                }
                Poll::Pending => at += 1,
            }
        }
        Poll::Pending
    }

    fn error(&mut self, host: &str) -> io::Error {
        if let Some(error) = self.last_error.take() {
            return io::Error::new(error.kind(), format!("cannot connect to {host}: {error}"));
        }
        let [six, four] = self.failures.each_mut().map(|it| it.take().map_or(Ok(vec![]), Err));
        merge(host, six, four).err().unwrap_or_else(|| ErrorKind::NotFound.into())
    }
}

#[cfg(test)]
mod tests;
