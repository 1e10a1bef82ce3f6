//! As much of an HTTP/1.1 client (RFC 9112) as the benchmark needs: requests on a connection that stays open, and
//! transfers of a known pattern in both directions.
//!
//! A guest is a peer like any other: each read has a deadline, headers and bodies have limits.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Longest response header that is read, in bytes: our services send under 300.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// Longest body that an ordinary request accepts, in bytes: pages are small, transfers have their own limit.
const PAGE_BYTES_MAX: usize = 1 << 20;
/// Largest transfer, in bytes: it is held in memory, so that hashing does not slow it down.
pub(crate) const TRANSFER_BYTES_MAX: u64 = 1 << 30;

/// The bytes that `/bytes` sends, over and over. Its length is prime, so that a segment that is lost or lands in the
/// wrong place never leaves the same bytes behind.
const BLOCK_BYTES: usize = 65_521;

/// A connection that stays open between requests.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// Bytes that came behind the response read last.
    ahead: Vec<u8>,
    deadline: Instant,
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Connection {
    /// Connects; everything on this connection must be over within `limit`.
    pub(crate) fn open(address: SocketAddr, limit: Duration) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, limit)
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
        Ok(Self { stream, ahead: Vec::new(), deadline: Instant::now() + limit })
    }

    /// Requests a page.
    pub(crate) fn get(&mut self, path: &str) -> Result<Response> {
        self.write(format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n").as_bytes())?;
        self.response(vec![0; PAGE_BYTES_MAX])
    }

    /// Reads a response into `body`, which is at least as long as its body.
    fn response(&mut self, mut body: Vec<u8>) -> Result<Response> {
        let mut buffer = std::mem::take(&mut self.ahead);
        let mut chunk = vec![0; 64 << 10];
        let (status, length, header_bytes) = loop {
            if let Some(head) = parse_head(&buffer)? {
                break head;
            }
            if buffer.len() > HEADER_BYTES_MAX {
                bail!("the response's header is over {HEADER_BYTES_MAX} bytes");
            }
            let count = self.read(&mut chunk)?;
            if count == 0 {
                bail!("the connection closed before a whole response");
            }
            buffer.extend_from_slice(&chunk[..count]);
        };
        let length = usize::try_from(length).context("the body does not fit into memory")?;
        if length > body.len() {
            bail!("the response's body is {length} bytes, over {}", body.len());
        }
        body.truncate(length);
        let behind = &buffer[header_bytes..];
        let mut filled = behind.len().min(length);
        body[..filled].copy_from_slice(&behind[..filled]);
        self.ahead = behind[filled..].to_vec();
        while filled < length {
            let count = self.read(&mut body[filled..])?;
            if count == 0 {
                bail!("the connection closed after {filled} of {length} bytes");
            }
            filled += count;
        }
        Ok(Response { status, body })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.set_write_timeout(Some(self.left()?)).context("cannot set a deadline")?;
        self.stream.write_all(bytes).context("cannot send")
    }

    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?)).context("cannot set a deadline")?;
        self.stream.read(into).context("cannot receive")
    }

    fn left(&self) -> Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("the exchange was not over in time");
        }
        Ok(left)
    }
}

/// Reads the status, the body's length and the header's own length; `None` until the header is whole.
fn parse_head(bytes: &[u8]) -> Result<Option<(u16, u64, usize)>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end]).context("the header is not text")?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok())
        .context("the response does not begin with an HTTP/1.1 status")?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .context("the response has no Content-Length")?;
    let length = length.1.trim().parse().context("the Content-Length is no number")?;
    Ok(Some((status, length, end + 4)))
}

/// Which way a transfer goes, seen from us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Direction {
    /// The guest sends.
    Download,
    /// The guest receives.
    Upload,
}

/// How a transfer went.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Transfer {
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
}

impl Transfer {
    /// Megabits a second.
    pub(crate) fn megabits_per_second(&self) -> f64 {
        self.bytes as f64 * 8.0 / 1e6 / self.seconds
    }

    pub(crate) fn to_json(self) -> Value {
        json!({ "bytes": self.bytes, "seconds": self.seconds })
    }

    pub(crate) fn from_json(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).context("it is not JSON")?;
        let bytes = value["bytes"].as_u64().context("it has no bytes")?;
        let seconds = value["seconds"].as_f64().context("it has no seconds")?;
        Ok(Self { bytes, seconds })
    }
}

/// Moves `bytes` and makes sure by their SHA-256 that all of them arrived as they were sent.
///
/// Hashing is kept out of the time: a download is hashed afterwards, and an upload is sent a second time to be hashed
/// by the guest.
pub(crate) fn transfer(
    direction: Direction,
    address: SocketAddr,
    bytes: u64,
    limit: Duration,
) -> Result<Transfer> {
    if bytes > TRANSFER_BYTES_MAX {
        bail!("a transfer is at most {TRANSFER_BYTES_MAX} bytes");
    }
    let expected = pattern(bytes);
    let sha256 = hex(&Sha256::digest(&expected));
    let mut connection = Connection::open(address, limit)?;
    match direction {
        Direction::Download => {
            // Ours before the clock runs: the kernel takes as long to give 100 MiB as a fast guest to
            // send a good part of them.
            let body = vec![0xff; expected.len()];
            let start = Instant::now();
            let request = format!("GET /bytes?n={bytes} HTTP/1.1\r\nHost: bench\r\n\r\n");
            connection.write(request.as_bytes())?;
            let response = connection.response(body)?;
            let seconds = start.elapsed().as_secs_f64();
            expect_ok(&response)?;
            let came = hex(&Sha256::digest(&response.body));
            if came != sha256 {
                bail!("the download is damaged: SHA-256 is {came}, not {sha256}");
            }
            Ok(Transfer { bytes, seconds })
        }
        Direction::Upload => {
            let seconds = upload(&mut connection, "/sink", &expected)?.0;
            let (_, answer) = upload(&mut connection, "/sink?sha256=1", &expected)?;
            let came = answer["sha256"].as_str().unwrap_or("missing");
            if came != sha256 {
                bail!("the upload is damaged: the guest's SHA-256 is {came}, not {sha256}");
            }
            Ok(Transfer { bytes, seconds })
        }
    }
}

/// Sends a body; gives the seconds until the answer was there, and the answer.
fn upload(connection: &mut Connection, path: &str, body: &[u8]) -> Result<(f64, Value)> {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {length}\r\n\r\n");
    let start = Instant::now();
    connection.write(head.as_bytes())?;
    for piece in body.chunks(1 << 20) {
        connection.write(piece)?;
    }
    let response = connection.response(vec![0; PAGE_BYTES_MAX])?;
    let seconds = start.elapsed().as_secs_f64();
    expect_ok(&response)?;
    let answer: Value =
        serde_json::from_slice(&response.body).context("the guest's answer is not JSON")?;
    let came = answer["bytes"].as_u64();
    if came != u64::try_from(length).ok() {
        bail!("the guest received {came:?} of {length} bytes");
    }
    Ok((seconds, answer))
}

pub(crate) fn expect_ok(response: &Response) -> Result<()> {
    if response.status != 200 {
        bail!("the guest answered with status {}", response.status);
    }
    Ok(())
}

/// What `/bytes` sends: a linear congruential generator's upper bytes, repeated.
fn pattern(bytes: u64) -> Vec<u8> {
    let mut state: u32 = 1;
    let block: Vec<u8> = (0..BLOCK_BYTES)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .collect();
    let length = usize::try_from(bytes).expect("a transfer fits into memory");
    let mut pattern = Vec::with_capacity(length);
    while pattern.len() < length {
        let take = BLOCK_BYTES.min(length - pattern.len());
        pattern.extend_from_slice(&block[..take]);
    }
    pattern
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    /// Serves one connection: for each answer, reads up to the end of a request's header, then sends the answer.
    fn server(answers: Vec<Vec<u8>>) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback is there");
        let address = listener.local_addr().expect("it is bound");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("somebody connects");
            for answer in answers {
                let mut seen = Vec::new();
                let mut byte = [0];
                while !seen.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                    seen.push(byte[0]);
                }
                stream.write_all(&answer).expect("the client reads");
            }
        });
        address
    }

    fn page(body: &[u8]) -> Vec<u8> {
        let mut answer =
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
        answer.extend_from_slice(body);
        answer
    }

    #[test]
    fn a_connection_serves_two_requests() {
        // Both answers come at once: what is behind the first must not be lost.
        let address = server(vec![[page(b"one"), page(b"two")].concat(), Vec::new()]);
        let mut connection = Connection::open(address, LIMIT).expect("it listens");
        assert_eq!(connection.get("/").expect("a page").body, b"one");
        assert_eq!(connection.get("/").expect("a page").body, b"two");
    }

    #[test]
    fn a_short_body_is_an_error() {
        let address = server(vec![b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort".to_vec()]);
        let mut connection = Connection::open(address, LIMIT).expect("it listens");
        let error = connection.get("/").expect_err("four bytes are missing");
        assert!(error.to_string().contains("after 5 of 9"), "{error}");
    }

    #[test]
    fn a_body_over_the_limit_is_refused() {
        let address =
            server(vec![b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_vec()]);
        let mut connection = Connection::open(address, LIMIT).expect("it listens");
        let error = connection.get("/").expect_err("it is too long");
        assert!(error.to_string().contains("99999999999 bytes"), "{error}");
    }

    #[test]
    fn a_damaged_download_is_noticed() {
        let mut body = pattern(100_000);
        let address = server(vec![page(&body)]);
        let good = transfer(Direction::Download, address, 100_000, LIMIT).expect("it is whole");
        assert_eq!(good.bytes, 100_000);
        body.swap(10, 70_000);
        let address = server(vec![page(&body)]);
        let error = transfer(Direction::Download, address, 100_000, LIMIT).expect_err("two bytes");
        assert!(error.to_string().contains("damaged"), "{error}");
    }

    #[test]
    fn a_transfer_survives_json() {
        let transfer = Transfer { bytes: 104_857_600, seconds: 0.5 };
        let text = transfer.to_json().to_string();
        assert_eq!(Transfer::from_json(&text).expect("it is ours"), transfer);
        assert!((transfer.megabits_per_second() - 1677.7216).abs() < 1e-9);
        assert!(Transfer::from_json("{\"bytes\":-1}").is_err());
    }

    #[test]
    fn heads_are_read() {
        assert_eq!(parse_head(b"HTTP/1.1 200 OK\r\nContent-").expect("it is unfinished"), None);
        let head = b"HTTP/1.1 404 Not Found\r\nA: b\r\nCONTENT-LENGTH:  7\r\n\r\nxx";
        assert_eq!(parse_head(head).expect("it is good"), Some((404, 7, head.len() - 2)));
        assert!(parse_head(b"SSH-2.0-x\r\n\r\n").is_err());
        assert!(parse_head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_heads_never_panic(bytes in proptest::collection::vec(0_u8.., 0..200)) {
            let _ = parse_head(&bytes);
            let _ = parse_head(&[b"HTTP/1.1 ", &bytes[..], b"\r\n\r\n"].concat());
        }
    }
}
