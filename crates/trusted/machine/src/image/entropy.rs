//! Random numbers that nobody can guess, or none.
//!
//! A ChaCha20 generator (RFC 8439) is keyed from the processor's RDSEED and RDRAND, and from what
//! drivers add (virtio-rng). Adding and drawing both replace the key by the generator's own output,
//! so that numbers given out earlier cannot be found from the state later. Until 256 bits from a
//! source have gone in, a request for random numbers ends the machine with words, see
//! `getrandom` in `docs/symbols.md`; nothing weaker is ever given in their place.

use super::cell::OneCpu;
use super::cpu;
use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};

/// A key of the generator.
const KEY_BYTES: usize = 32;
/// How often RDRAND and RDSEED are tried for one number: Intel's advice (Digital Random Number
/// Generator guide, 5.2.1) is 10 for RDRAND; RDSEED may run dry for longer.
const TRIES: usize = 100;

struct Generator {
    random: Option<ChaCha20Rng>,
    /// Bytes from entropy sources that have gone in so far.
    seeded_bytes: usize,
}

static GENERATOR: OneCpu<Generator> = OneCpu::new(Generator { random: None, seeded_bytes: 0 });

impl Generator {
    /// Mixes `bytes` in: each block is XORed onto fresh output of the generator and the result is the
    /// new key, so a bad block cannot take away what an earlier one gave.
    fn mix(&mut self, bytes: &[u8]) {
        for block in bytes.chunks(KEY_BYTES) {
            let mut key = [0; KEY_BYTES];
            if let Some(random) = &mut self.random {
                random.fill_bytes(&mut key);
            }
            for (place, byte) in key.iter_mut().zip(block) {
                *place ^= byte;
            }
            self.random = Some(ChaCha20Rng::from_seed(key));
        }
    }

    /// Fills `bytes`, then forgets how.
    fn draw(&mut self, bytes: &mut [u8]) {
        let random = self.random.get_or_insert_with(|| ChaCha20Rng::from_seed([0; KEY_BYTES]));
        random.fill_bytes(bytes);
        let mut key = [0; KEY_BYTES];
        random.fill_bytes(&mut key);
        self.random = Some(ChaCha20Rng::from_seed(key));
    }
}

/// Seeds the generator from the processor, if it has a source, and stirs in what differs between
/// boots without counting it.
pub(crate) fn init() {
    GENERATOR.with(|generator| generator.mix(&cpu::ticks().to_le_bytes()));
    let mut seed = [0; KEY_BYTES];
    let has_all = seed.chunks_exact_mut(8).all(|place| match from_processor() {
        Some(number) => {
            place.copy_from_slice(&number.to_le_bytes());
            true
        }
        None => false,
    });
    if has_all {
        add(&seed);
    }
}

/// Adds entropy from a source outside, for example a virtio-rng device. Counted as full entropy.
pub fn add(bytes: &[u8]) {
    GENERATOR.with(|generator| {
        generator.mix(bytes);
        generator.seeded_bytes = generator.seeded_bytes.saturating_add(bytes.len());
    });
}

/// Whether enough entropy has gone in for random numbers to be given out.
pub fn is_seeded() -> bool {
    GENERATOR.with(|generator| generator.seeded_bytes >= KEY_BYTES)
}

/// Fills `bytes` with random numbers. False, and nothing written, while unseeded.
pub fn fill(bytes: &mut [u8]) -> bool {
    if !is_seeded() {
        return false;
    }
    GENERATOR.with(|generator| generator.draw(bytes));
    true
}

/// A number from RDSEED, or from RDRAND where there is no RDSEED or it has run dry.
fn from_processor() -> Option<u64> {
    let has_rdseed = cpu::cpuid(0).eax >= 7 && cpu::cpuid(7).ebx & 1 << 18 != 0;
    let has_rdrand = cpu::cpuid(1).ecx & 1 << 30 != 0;
    // SAFETY: CPUID says that the instruction exists.
    let seed = || has_rdseed.then(|| retry(|number| unsafe { rdseed(number) })).flatten();
    // SAFETY: as above.
    let random = || has_rdrand.then(|| retry(|number| unsafe { rdrand(number) })).flatten();
    seed().or_else(random)
}

/// The first number that the processor gives. All zeroes and all ones are what broken processors
/// have returned for ever (AMD, after a resume), so they are not taken.
fn retry(mut draw: impl FnMut(&mut u64) -> bool) -> Option<u64> {
    (0..TRIES).find_map(|_| {
        let mut number = 0;
        (draw(&mut number) && number != 0 && number != u64::MAX).then_some(number)
    })
}

#[target_feature(enable = "rdseed")]
fn rdseed(number: &mut u64) -> bool {
    core::arch::x86_64::_rdseed64_step(number) == 1
}

#[target_feature(enable = "rdrand")]
fn rdrand(number: &mut u64) -> bool {
    core::arch::x86_64::_rdrand64_step(number) == 1
}
