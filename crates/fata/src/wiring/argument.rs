//! [`Argument`]: what a value on the command line can be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A type that a field with `#[fata(arg)]` may have.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no type for an argument",
    note = "implement `fata::Argument` for it, or use a number, `bool`, `String`, an address, or an `Option` of these"
)]
pub trait Argument: Sized {
    /// What the manifest and the help call the type.
    const TYPE: &'static str;
    /// The argument may be left out.
    const OPTIONAL: bool = false;

    /// The value that `text` says.
    ///
    /// # Errors
    /// A text that says what is wrong with it and what would be right.
    fn parse(text: &str) -> Result<Self, String>;

    /// The value when the argument is not given and has no default; `None` makes that an error.
    fn absent() -> Option<Self> {
        None
    }
}

macro_rules! argument_by_from_str {
    ($($ty:ty, $what:literal;)*) => { $(
        impl Argument for $ty {
            const TYPE: &'static str = stringify!($ty);

            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|error| format!("{error}; expected {}", $what))
            }
        }
    )* };
}

argument_by_from_str! {
    u8, "a whole number from 0 to 255";
    u16, "a whole number from 0 to 65535";
    u32, "a whole number from 0 to 4294967295";
    u64, "a whole number, not negative";
    usize, "a whole number, not negative";
    i32, "a whole number";
    i64, "a whole number";
    f64, "a number";
    String, "text";
    IpAddr, "an IP address such as 192.0.2.1";
    Ipv4Addr, "an IPv4 address such as 192.0.2.1";
    Ipv6Addr, "an IPv6 address such as 2001:db8::1";
    SocketAddr, "an address and a port such as 192.0.2.1:443";
}

/// `--name` alone means true.
impl Argument for bool {
    const TYPE: &'static str = "bool";
    const OPTIONAL: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" | "true" | "yes" => Ok(true),
            "false" | "no" => Ok(false),
            _ => Err("expected true or false".to_string()),
        }
    }

    fn absent() -> Option<Self> {
        Some(false)
    }
}

impl<A: Argument> Argument for Option<A> {
    const TYPE: &'static str = A::TYPE;
    const OPTIONAL: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        A::parse(text).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}
