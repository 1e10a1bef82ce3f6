//! The wall clock of a PC: the MC146818 real-time clock in CMOS memory.
//!
//! A reading is a few registers in one of four encodings; this turns a reading into seconds since
//! 1970, or says that it is no date. Register numbers and bits: Motorola MC146818A data sheet.

/// The registers that make a date, as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Reading {
    /// Register 0.
    pub second: u8,
    /// Register 2.
    pub minute: u8,
    /// Register 4; bit 7 means afternoon when the clock counts to 12.
    pub hour: u8,
    /// Register 7.
    pub day: u8,
    /// Register 8.
    pub month: u8,
    /// Register 9, years of the century.
    pub year: u8,
    /// Register 0x32, where PCs keep the century.
    pub century: u8,
    /// Register B, which tells the encoding: bit 2 binary instead of BCD, bit 1 24 hours.
    pub status_b: u8,
}

impl Reading {
    /// Seconds since 1970-01-01 00:00:00 UTC, or `None` when the registers hold no date (a machine
    /// without the chip reads all ones).
    pub fn unix_seconds(&self) -> Option<u64> {
        let binary = self.status_b & 4 != 0;
        let number = |value: u8| {
            if binary {
                return Some(u64::from(value));
            }
            let (tens, ones) = (u64::from(value >> 4), u64::from(value & 15));
            (tens < 10 && ones < 10).then_some(tens * 10 + ones)
        };
        let afternoon = self.status_b & 2 == 0 && self.hour & 0x80 != 0;
        let mut hour = number(if self.status_b & 2 == 0 { self.hour & 0x7f } else { self.hour })?;
        if self.status_b & 2 == 0 {
            if hour == 0 || hour > 12 {
                return None;
            }
            hour = hour % 12 + if afternoon { 12 } else { 0 };
        }
        let (second, minute) = (number(self.second)?, number(self.minute)?);
        let (day, month) = (number(self.day)?, number(self.month)?);
        // Where no century is kept, a year is of this one.
        let century = number(self.century).filter(|&century| century >= 19).unwrap_or(20);
        let year = century * 100 + number(self.year).filter(|&year| year < 100)?;
        let sane = second < 60
            && minute < 60
            && hour < 24
            && (1..=12).contains(&month)
            && (1..=days_in_month(year, month)).contains(&day)
            && year >= 1970;
        sane.then(|| ((days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
    }
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400)
}

const fn days_in_month(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar from 1970 on.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let before = year - 1;
    let leaps = before / 4 - before / 100 + before / 400 - (1969 / 4 - 1969 / 100 + 1969 / 400);
    let months: u64 = (1..month).map(|month| days_in_month(year, month)).sum();
    (year - 1970) * 365 + leaps + months + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BINARY_24: u8 = 6;

    #[test]
    fn known_dates() {
        let date = |year: u16, month, day, hour, minute, second| Reading {
            second,
            minute,
            hour,
            day,
            month,
            year: (year % 100) as u8,
            century: (year / 100) as u8,
            status_b: BINARY_24,
        };
        assert_eq!(date(1970, 1, 1, 0, 0, 0).unix_seconds(), Some(0));
        assert_eq!(date(2000, 2, 29, 12, 0, 0).unix_seconds(), Some(951_825_600));
        assert_eq!(date(2026, 11, 23, 1, 2, 3).unix_seconds(), Some(1_795_395_723));
        assert_eq!(date(2100, 3, 1, 0, 0, 0).unix_seconds(), Some(4_107_542_400));
        assert_eq!(date(2023, 2, 29, 0, 0, 0).unix_seconds(), None);
        assert_eq!(date(2023, 13, 1, 0, 0, 0).unix_seconds(), None);
    }

    #[test]
    fn bcd_and_twelve_hours() {
        let reading = Reading {
            second: 0x59,
            minute: 0x30,
            hour: 0x92,
            day: 0x01,
            month: 0x01,
            year: 0x70,
            century: 0x19,
            status_b: 0,
        };
        // 12:30:59 after noon.
        assert_eq!(reading.unix_seconds(), Some(12 * 3600 + 30 * 60 + 59));
        assert_eq!(Reading { hour: 0x12, ..reading }.unix_seconds(), Some(30 * 60 + 59));
        assert_eq!(Reading { second: 0x5a, ..reading }.unix_seconds(), None);
    }

    #[test]
    fn a_machine_without_the_chip_has_no_date() {
        let ones = Reading {
            second: 255,
            minute: 255,
            hour: 255,
            day: 255,
            month: 255,
            year: 255,
            century: 255,
            status_b: 255,
        };
        assert_eq!(ones.unix_seconds(), None);
        assert_eq!(Reading::default().unix_seconds(), None);
    }

    proptest! {
        #[test]
        fn no_reading_panics(bytes: [u8; 8]) {
            let [second, minute, hour, day, month, year, century, status_b] = bytes;
            let reading = Reading { second, minute, hour, day, month, year, century, status_b };
            let _ = reading.unix_seconds();
        }
    }
}
