//! [`Dice`]: numbers from a seed.

/// Numbers from a seed (SplitMix64: Steele, Lea and Flood, *Fast splittable pseudorandom number
/// generators*, 2014). The same seed gives the same numbers, on every machine and for ever: a seed
/// that was printed is a test that can be kept.
#[derive(Clone, Debug)]
pub struct Dice {
    state: u64,
}

/// One step of SplitMix64's output function.
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

impl Dice {
    /// Dice that `seed` decides.
    pub const fn new(seed: u64) -> Dice {
        Dice { state: seed }
    }

    /// Other dice, which this one's seed and `label` decide. What is rolled with them changes
    /// nothing here, so that a cause of randomness more does not change what the others do.
    pub fn split(&self, label: u64) -> Dice {
        Dice { state: mix(self.state ^ mix(label.wrapping_add(0x9e37_79b9_7f4a_7c15))) }
    }

    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The high half of a product: without the bias towards small numbers of a remainder of 32
        // bits, and with one below 2^-32 for the bounds that a network has.
        ((u128::from(self.roll()) * u128::from(bound)) >> 64) as u64
    }

    /// True with `probability`, which is from 0 (never) to 1 (always).
    pub fn chance(&mut self, probability: f64) -> bool {
        // 53 bits are what an f64 holds: exact, so the same everywhere.
        ((self.roll() >> 11) as f64) < probability * (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_seed_never_change() {
        // The first two of the reference implementation for the seed 1234567.
        let mut dice = Dice::new(1_234_567);
        assert_eq!(dice.roll(), 6_457_827_717_110_365_317);
        assert_eq!(dice.roll(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn chances_are_what_they_say() {
        let mut dice = Dice::new(1);
        assert!((0..10_000).all(|_| dice.chance(1.0)) && !(0..10_000).any(|_| dice.chance(0.0)));
        let hits = (0..100_000).filter(|_| dice.chance(0.03)).count();
        assert!((2800..3200).contains(&hits), "{hits}");
        assert_eq!(dice.below(0), 0);
        let mut seen = [0; 10];
        (0..10_000).for_each(|_| seen[dice.below(10) as usize] += 1);
        assert!(seen.iter().all(|count| (850..1150).contains(count)), "{seen:?}");
    }

    #[test]
    fn split_dice_are_independent_of_what_is_rolled() {
        let mut dice = Dice::new(7);
        let mut first = dice.split(1);
        let again = Dice::new(7).split(1).roll();
        assert_eq!(first.roll(), again);
        assert_ne!(dice.split(2).roll(), again);
        dice.roll();
        assert_ne!(dice.split(1).roll(), again, "but not of what was rolled before");
    }
}
