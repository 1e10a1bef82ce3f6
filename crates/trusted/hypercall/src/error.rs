//! What the hypervisor refused, and why.

use core::fmt;

/// Xen refused a hypercall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HypercallError {
    /// What was asked, in Xen's words: `"EVTCHNOP_bind_interdomain"`.
    pub operation: &'static str,
    /// The reason: a positive number is one of Xen's error numbers (public/errno.h, which are
    /// Linux's), a negative one is a grant table's status (`GNTST_*`, public/grant_table.h).
    pub errno: i32,
}

impl HypercallError {
    /// Out of memory, of frames, of grant references or of ports: `ENOMEM`.
    pub const NO_MEMORY: i32 = 12;
    /// What was asked makes no sense: `EINVAL`.
    pub const INVALID: i32 = 22;

    pub(crate) const fn new(operation: &'static str, errno: i32) -> Self {
        HypercallError { operation, errno }
    }
}

impl fmt::Display for HypercallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HypercallError { operation, errno } = *self;
        let words = match errno {
            ..=-1 => grant_status_words(i16::try_from(errno).unwrap_or(i16::MIN)),
            0 => "but says that it did not",
            1 => "not permitted",
            2 => "there is no such thing",
            3 => "there is no such domain",
            7 => "the list is too long",
            11 => "try again",
            12 => "out of memory or of places",
            13 => "access denied",
            14 => "bad address",
            16 => "busy",
            17 => "it exists already",
            19 => "there is no such device",
            22 => "invalid argument",
            28 => "no space left",
            34 => "out of range",
            38 => "this Xen does not know the call",
            95 => "not supported",
            _ => "refused",
        };
        write!(f, "Xen refused {operation}: {words} ({errno})")
    }
}

impl core::error::Error for HypercallError {}

/// A grant operation's status (`GNTST_*`) in words.
pub const fn grant_status_words(status: i16) -> &'static str {
    match status {
        0 => "done",
        -1 => "refused, for instance for want of the right to it",
        -2 => "there is no such domain",
        -3 => "there is no such grant, or it is another domain's",
        -4 => "there is no such mapping",
        -5 => "bad address of the page in this domain",
        -6 => "bad device address",
        -7 => "Xen's own tables are full",
        -8 => "the grant does not permit that",
        -9 => "the granted page is bad",
        -10 => "the copy crosses the end of a page",
        -11 => "the address is not possible",
        -12 => "try again: the page is being moved",
        -13 => "the table cannot be larger",
        _ => "refused for no reason that is known here",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_call_and_the_reason() {
        let text = |errno| HypercallError::new("GNTTABOP_map_grant_ref", errno).to_string();
        assert_eq!(text(22), "Xen refused GNTTABOP_map_grant_ref: invalid argument (22)");
        assert_eq!(
            text(-3),
            "Xen refused GNTTABOP_map_grant_ref: there is no such grant, or it is another domain's (-3)"
        );
        assert!(text(i32::MIN).contains("no reason that is known"));
    }
}
