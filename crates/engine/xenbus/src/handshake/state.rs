//! The states of a device's ends.

use core::fmt;

/// `enum xenbus_state` of io/xenbus.h: what an end writes, in decimal, into its `state` key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum XenbusState {
    /// 0: nothing is known.
    Unknown = 0,
    /// 1: the toolstack has made the directory; the end is getting ready.
    Initialising = 1,
    /// 2: early initialisation is done, the other end may speak.
    InitWait = 2,
    /// 3: rings are offered, the other end may connect.
    Initialised = 3,
    /// 4: connected.
    Connected = 4,
    /// 5: going away.
    Closing = 5,
    /// 6: gone.
    Closed = 6,
    /// 7: being reconfigured.
    Reconfiguring = 7,
    /// 8: reconfigured.
    Reconfigured = 8,
}

impl XenbusState {
    const ALL: [XenbusState; 9] = [
        XenbusState::Unknown,
        XenbusState::Initialising,
        XenbusState::InitWait,
        XenbusState::Initialised,
        XenbusState::Connected,
        XenbusState::Closing,
        XenbusState::Closed,
        XenbusState::Reconfiguring,
        XenbusState::Reconfigured,
    ];

    /// The state of a `state` key's value: one digit. `None` for anything else.
    pub fn parse(value: &[u8]) -> Option<Self> {
        match value {
            [digit @ b'0'..=b'8'] => Some(Self::ALL[usize::from(digit - b'0')]),
            _ => None,
        }
    }

    /// What is written into the `state` key.
    pub const fn as_bytes(self) -> &'static [u8] {
        match self {
            XenbusState::Unknown => b"0",
            XenbusState::Initialising => b"1",
            XenbusState::InitWait => b"2",
            XenbusState::Initialised => b"3",
            XenbusState::Connected => b"4",
            XenbusState::Closing => b"5",
            XenbusState::Closed => b"6",
            XenbusState::Reconfiguring => b"7",
            XenbusState::Reconfigured => b"8",
        }
    }
}

impl fmt::Display for XenbusState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_one_digit_and_nothing_else() {
        for state in XenbusState::ALL {
            assert_eq!(XenbusState::parse(state.as_bytes()), Some(state));
        }
        for bad in [&b""[..], b"9", b"04", b"4\0", b" 4", b"-1", b"Connected", &[0xff]] {
            assert_eq!(XenbusState::parse(bad), None, "{bad:?}");
        }
    }
}
