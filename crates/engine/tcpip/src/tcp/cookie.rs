//! SYN cookies (RFC 4987 §3.6): handshakes without memory, for when the table of half-open ones is
//! full.
//!
//! The SYN-ACK's sequence number is a message to ourselves, which the client's ACK brings back: a
//! clock, the client's MSS, and a keyed hash over both and the tuple, so that only who received the
//! SYN-ACK can send the ACK. Window shift and SACK go into the low bits of our timestamp, which
//! comes back too. What does not fit is lost, and a cookie's SYN-ACK is never sent again; so
//! cookies are used only while there is no room for better, and believed only while they are used.
//!
//! ```text
//! sequence number:  | clock: 5 bits, 32 s each | MSS: 3 bits | keyed hash: 24 bits |
//! timestamp:        | our clock, rounded down | SACK: 1 bit | window shift + 1: 4 bits |
//! ```

use crate::secret::{Key, Keys, Purpose};
use crate::tcp::{Seq, Tuple};
use crate::time::Instant;
use core::time::Duration;

/// The unit of the cookie's clock.
const PERIOD_NS: u64 = 32_000_000_000;

/// How many periods a cookie is believed: at least 96 s and less than 128 s, so that a late ACK
/// works and an ACK harvested minutes ago does not.
const PERIODS_VALID: u32 = 4;

/// What a client's MSS is rounded down to: the common ones of links and tunnels.
const MSS_TABLE: [u16; 8] = [216, 536, 1220, 1300, 1400, 1440, 1460, 8940];

/// Low bits of the timestamp that carry the window shift.
const SHIFT_BITS: u32 = 0xf;

/// The bit of the timestamp that says that the client takes SACK.
const SACK_BIT: u32 = 0x10;

/// All bits of the timestamp that are not the clock's.
const TIMESTAMP_BITS: u32 = SHIFT_BITS | SACK_BIT;

/// Makes and checks cookies.
pub(crate) struct Cookies {
    key: Key,
    /// When a cookie was last made, if ever.
    last_made: Option<Instant>,
}

/// What a valid cookie says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cookie {
    /// The client's MSS, rounded down.
    pub(crate) mss: u16,
}

impl Cookies {
    pub(crate) fn new(keys: &Keys) -> Self {
        Cookies { key: keys.key(Purpose::TcpCookie), last_made: None }
    }

    /// The sequence number of the SYN-ACK that answers a SYN with number `irs`.
    pub(crate) fn make(&mut self, now: Instant, tuple: &Tuple, irs: Seq, mss: u16) -> Seq {
        self.last_made = Some(now);
        let mss_index = MSS_TABLE.iter().rposition(|&entry| entry <= mss).unwrap_or(0) as u32;
        self.cookie(tuple, irs, period(now), mss_index)
    }

    /// What a cookie says that comes back, if it is one of ours and not too old.
    pub(crate) fn check(
        &self,
        now: Instant,
        tuple: &Tuple,
        irs: Seq,
        cookie: Seq,
    ) -> Option<Cookie> {
        // No cookie is valid that long after the last: at most times this costs nothing, and
        // nobody can guess at leisure.
        let valid_for = Duration::from_nanos(PERIOD_NS * u64::from(PERIODS_VALID));
        if now.saturating_since(self.last_made?) > valid_for {
            return None;
        }
        let age = period(now).wrapping_sub(cookie.0 >> 27) & 0x1f;
        let mss_index = cookie.0 >> 24 & 7;
        let made_in = period(now).wrapping_sub(age);
        let is_valid = age < PERIODS_VALID && self.cookie(tuple, irs, made_in, mss_index) == cookie;
        is_valid.then(|| Cookie { mss: MSS_TABLE[mss_index as usize] })
    }

    fn cookie(&self, tuple: &Tuple, irs: Seq, period: u32, mss_index: u32) -> Seq {
        let hash = self.key.prf(&(tuple, irs, period, mss_index)) as u32;
        Seq(period << 27 | mss_index << 24 | hash >> 8)
    }
}

/// Number of the cookie clock's period.
const fn period(now: Instant) -> u32 {
    (now.as_nanos() / PERIOD_NS) as u32
}

/// What a client offered that only a timestamp can bring back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offer {
    /// The client's window shift.
    pub(crate) window_shift: Option<u8>,
    /// The client takes selective acknowledgments.
    pub(crate) sack_permitted: bool,
}

impl Offer {
    /// A timestamp not after `clock` that carries the offer.
    pub(crate) const fn encode(self, clock: u32) -> u32 {
        let shift = match self.window_shift {
            Some(shift) => shift as u32 + 1,
            None => 0,
        };
        let bits = shift | if self.sack_permitted { SACK_BIT } else { 0 };
        let value = clock & !TIMESTAMP_BITS | bits;
        // Never ahead of the clock, or later segments would seem older.
        if value > clock { value.wrapping_sub(TIMESTAMP_BITS + 1) } else { value }
    }

    /// The offer in a timestamp that came back.
    pub(crate) const fn decode(echo: u32) -> Offer {
        let window_shift = match echo & SHIFT_BITS {
            0 => None,
            bits => Some(bits as u8 - 1),
        };
        Offer { window_shift, sack_permitted: echo & SACK_BIT != 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{IpAddr, Ipv4Addr};

    fn tuple(remote_port: u16) -> Tuple {
        let (local, remote) =
            (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)));
        Tuple { local, remote, local_port: 80, remote_port }
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1000)
    }

    #[test]
    fn a_cookie_brings_the_mss_back_rounded_down() {
        let mut cookies = Cookies::new(&Keys::new([1; 32]));
        for (sent, taken) in
            [(0, 216), (535, 216), (536, 536), (1459, 1440), (1460, 1460), (65_535, 8940)]
        {
            let cookie = cookies.make(at(10), &tuple(5), Seq(77), sent);
            let checked = cookies.check(at(11), &tuple(5), Seq(77), cookie);
            assert_eq!(checked, Some(Cookie { mss: taken }));
        }
    }

    /// C03.
    #[test]
    fn a_cookie_expires_within_two_minutes() {
        for start in [0, 31, 32, 1000, 32 * 31] {
            let mut cookies = Cookies::new(&Keys::new([1; 32]));
            let cookie = cookies.make(at(start), &tuple(5), Seq(77), 1460);
            let mut is_valid = |age| {
                // Others are still made, so the age of this one is what counts.
                cookies.make(at(start + age), &tuple(6), Seq(1), 1460);
                cookies.check(at(start + age), &tuple(5), Seq(77), cookie).is_some()
            };
            assert!(is_valid(0) && is_valid(96));
            assert!(!is_valid(128) && !is_valid(600));
            // The clock's five bits have gone round.
            assert!(!is_valid(32 * 32));
        }
    }

    #[test]
    fn a_cookie_is_of_one_tuple_one_syn_and_one_secret() {
        let mut cookies = Cookies::new(&Keys::new([1; 32]));
        let cookie = cookies.make(at(0), &tuple(5), Seq(77), 1460);
        assert_eq!(cookies.check(at(0), &tuple(6), Seq(77), cookie), None);
        assert_eq!(cookies.check(at(0), &tuple(5), Seq(78), cookie), None);
        for bit in 0..32 {
            let forged = Seq(cookie.0 ^ 1 << bit);
            assert_eq!(cookies.check(at(0), &tuple(5), Seq(77), forged), None, "bit {bit}");
        }
        let mut others = Cookies::new(&Keys::new([2; 32]));
        others.make(at(0), &tuple(5), Seq(77), 1460);
        assert_eq!(others.check(at(0), &tuple(5), Seq(77), cookie), None);
    }

    #[test]
    fn no_cookie_is_believed_while_none_is_made() {
        let mut cookies = Cookies::new(&Keys::new([1; 32]));
        let cookie = cookies.make(at(0), &tuple(5), Seq(77), 1460);
        assert_eq!(
            Cookies::new(&Keys::new([1; 32])).check(at(0), &tuple(5), Seq(77), cookie),
            None
        );
    }

    #[test]
    fn timestamps_carry_the_offer_and_never_run_ahead() {
        for clock in [0, 1, 15, 16, 31, 32, 1000, u32::MAX] {
            for window_shift in (0..=14).map(Some).chain([None]) {
                for sack_permitted in [false, true] {
                    let offer = Offer { window_shift, sack_permitted };
                    let value = offer.encode(clock);
                    assert_eq!(Offer::decode(value), offer);
                    assert!(clock.wrapping_sub(value) < 64, "{clock} {value}");
                }
            }
        }
    }
}
