//! Seeded noise in place of xenstored, and in place of a guest. `FATA_FUZZ_RUNS` says how many runs
//! (2000 unless set); a failure names its seed, and `FATA_FUZZ_SEED` runs that one alone.

use crate::store::request::encode_error;
use crate::store::wire::Assembler;
use crate::store::{Client, Errno, Event, Kind, Limits, Message, Request, TransactionId};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::vec::Vec;

/// splitmix64: enough for noise.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let alphabet = b"\0\0/0123456789abTFOKnrwb@";
        let plain = self.below(2) == 0;
        (0..self.below(most + 1))
            .map(|_| if plain { alphabet[self.below(alphabet.len())] } else { self.next() as u8 })
            .collect()
    }
}

fn for_each_seed(run: impl Fn(&mut Noise)) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("FATA_FUZZ_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FATA_FUZZ_RUNS").unwrap_or(2000),
    };
    for seed in seeds {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(&mut Noise(seed))));
        assert!(outcome.is_ok(), "replay with FATA_FUZZ_SEED={seed}");
    }
}

/// A xenstored that answers truthfully, late, twice, with nonsense, or with noise.
#[test]
fn a_client_survives_any_xenstored() {
    for_each_seed(|noise| {
        let limits = Limits { requests: 8, watches: 40 };
        let mut client = Client::new(limits);
        let (mut sent, mut asked) = (Assembler::new(), Vec::new());
        let (mut submitted, mut answered, mut watches) = (0_usize, 0_usize, Vec::new());
        for _ in 0..60 {
            match noise.below(9) {
                0 => {
                    if let Ok((token, _)) = client.watch("device") {
                        watches.push(token);
                        submitted += 1;
                    }
                }
                1 if !watches.is_empty() => {
                    let gone = watches.swap_remove(noise.below(watches.len()));
                    client.unwatch(gone);
                }
                2 if noise.below(8) == 0 => client.reconnect(),
                3 | 4 => {
                    let request = [
                        Request::Read("a"),
                        Request::Directory("/"),
                        Request::DirectoryPart("/", 3),
                        Request::TransactionStart,
                        Request::GetPermissions("a"),
                        Request::GetDomainPath(3),
                    ];
                    let request = &request[noise.below(request.len())];
                    submitted += usize::from(client.submit(TransactionId(3), request).is_ok());
                }
                5 => {
                    let _ = client.input(&noise.bytes(40));
                }
                _ => {
                    let count = client.output().len().min(noise.below(60));
                    let mut piece = &client.output()[..count];
                    while let Ok(Some(message)) = sent.take(&mut piece) {
                        asked.push(message);
                    }
                    client.sent(count);
                    if let Some(asked) = asked.pop() {
                        let kind = Kind::ALL[noise.below(Kind::ALL.len())];
                        let (kind, payload) = match noise.below(4) {
                            0 => (Kind::Error, encode_error(Errno::Again)),
                            1 if noise.below(4) == 0 => (kind, noise.bytes(30)),
                            _ => (asked.kind, noise.bytes(30)),
                        };
                        let mut bytes = Vec::new();
                        Message { kind, payload, ..asked }.encode(&mut bytes);
                        let _ = client.input(&bytes);
                    }
                }
            }
            while let Some(event) = client.poll_event() {
                match event {
                    Event::Answer(..) => answered += 1,
                    Event::Fired(token) => assert!(watches.contains(&token)),
                }
            }
            assert!(answered <= submitted);
            assert!(submitted - answered <= limits.requests, "more wait than may");
        }
        if client.broken().is_some() {
            assert_eq!(submitted, answered, "everybody hears of the end");
            assert!(client.submit(TransactionId::NONE, &Request::Read("a")).is_err());
        }
    });
}

/// What a guest may send to a xenstored that decodes with the same table.
#[test]
fn any_guest_is_decoded_without_harm() {
    for_each_seed(|noise| {
        let mut assembler = Assembler::new();
        for _ in 0..20 {
            let mut bytes = Vec::new();
            let kind = Kind::ALL[noise.below(Kind::ALL.len())];
            let payload = noise.bytes(60);
            Message { kind, request: 1, transaction: TransactionId::NONE, payload }
                .encode(&mut bytes);
            if noise.below(4) == 0 {
                let at = noise.below(bytes.len());
                bytes[at] ^= 1 << noise.below(8);
            }
            let mut piece = bytes.as_slice();
            loop {
                match assembler.take(&mut piece) {
                    Ok(Some(message)) => {
                        if let Ok(request) = Request::decode(message.kind, &message.payload) {
                            let again = request.message(1, TransactionId::NONE);
                            let again = again.expect("what was accepted can be said");
                            assert_eq!(Request::decode(again.kind, &again.payload), Ok(request));
                        }
                    }
                    Ok(None) => break,
                    Err(_) => {
                        assembler = Assembler::new();
                        break;
                    }
                }
            }
        }
    });
}
