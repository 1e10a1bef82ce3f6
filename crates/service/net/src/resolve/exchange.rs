//! [`Exchange`]: one question to one server.

use super::failure::Failure;
use super::{Query, Resolver, Unusable};
use crate::stack::Stack;
use fata_names::dns::Learned;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// The largest datagram that is read, in bytes: more than any server was told to send.
const DATAGRAM_MAX: usize = 4096;

/// Datagrams that do not answer the question, before the server is taken for one that is being
/// forged (RFC 5452 §9.3): the port is given up, the next try has another one and another id.
const UNRELATED_MAX: usize = 32;

/// How long the question may take over TCP.
const TCP_PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Exchange<'a> {
    pub(super) resolver: &'a Resolver,
    pub(super) stack: &'a Stack,
    pub(super) server: SocketAddr,
    pub(super) query: Query,
}

impl Exchange<'_> {
    /// Asks over UDP for as long as `patience` lasts, and over TCP if the answer does not fit.
    pub(super) async fn run(&self, patience: Duration) -> Result<Learned, Failure> {
        let answer = self.bounded(patience, self.over_udp()).await?;
        match answer {
            Err(Unusable::Truncated) => {
                self.resolver.count(|counters| counters.tcp_questions += 1);
                self.bounded(TCP_PATIENCE, self.over_tcp()).await?
            }
            answer => answer,
        }
        .map_err(|why| Failure::Unusable(self.server, why))
    }

    async fn bounded<T>(
        &self,
        patience: Duration,
        ask: impl Future<Output = io::Result<T>>,
    ) -> Result<T, Failure> {
        match timeout(patience, ask).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(why)) => Err(Failure::Unreachable(self.server, why.to_string())),
            Err(_) => {
                self.resolver.count(|counters| counters.timed_out += 1);
                Err(Failure::Silence(self.server))
            }
        }
    }

    /// A socket for this one question: its port is as much of a secret as the id (RFC 5452 §9.2).
    async fn over_udp(&self) -> io::Result<Result<Learned, Unusable>> {
        let socket = self.stack.udp_bind_towards(self.server).await?;
        self.resolver.count(|counters| counters.questions += 1);
        socket.send_to(&self.query.to_bytes(), self.server).await?;
        let mut buffer = vec![0; DATAGRAM_MAX];
        for _ in 0..UNRELATED_MAX {
            let (len, source) = socket.recv_from(&mut buffer).await?;
            if source == self.server {
                match self.query.read(&buffer[..len]) {
                    Err(Unusable::Unrelated) => {}
                    answer => return Ok(answer),
                }
            }
            self.resolver.count(|counters| counters.unrelated += 1);
        }
        Ok(Err(Unusable::Unrelated))
    }

    async fn over_tcp(&self) -> io::Result<Result<Learned, Unusable>> {
        let mut stream = self.stack.tcp_connect(self.server).await?;
        let question = self.query.to_bytes();
        let mut message = (question.len() as u16).to_be_bytes().to_vec();
        message.extend(question);
        stream.write_all(&message).await?;
        let len = usize::from(stream.read_u16().await?);
        let mut answer = vec![0; len];
        stream.read_exact(&mut answer).await?;
        // What is cut off even here is used by nobody.
        Ok(self.query.read(&answer))
    }
}
