//! Messages, and how they are cut out of a stream of bytes (`io/xs_wire.h`).
//!
//! Every message has a header of four little-endian words (`xsd_sockmsg`: type, request,
//! transaction, length) and at most 4096 bytes of payload. An [`Assembler`] holds one message at a
//! time, so what a peer can make us remember is one payload.

use super::error::Misbehaved;
use alloc::vec::Vec;
use core::fmt;

/// Bytes of `xsd_sockmsg`.
pub const HEADER_BYTES: usize = 16;
/// Most bytes of a payload (`XENSTORE_PAYLOAD_MAX`).
pub const PAYLOAD_BYTES_MAX: usize = 4096;

/// What the shared page (`xenstore_domain_interface`) holds beside its two rings, as offsets. The
/// rings are [`Layout::XENSTORE_REQUESTS`](crate::ring::bytes::Layout::XENSTORE_REQUESTS) and
/// [`Layout::XENSTORE_RESPONSES`](crate::ring::bytes::Layout::XENSTORE_RESPONSES).
pub mod page {
    /// `server_features`: what xenstored can do, as bits.
    pub const SERVER_FEATURES: usize = 2064;
    /// `connection`: 0 while connected; a guest stores 1 to ask for a new beginning, which
    /// xenstored answers with 0.
    pub const CONNECTION: usize = 2068;
    /// `error`: 0, or why xenstored gave the connection up (`XENSTORE_ERROR_*`).
    pub const ERROR: usize = 2072;
    /// Bit of `server_features`: xenstored looks at `connection`.
    pub const FEATURE_RECONNECTION: u32 = 1;
    /// Bit of `server_features`: xenstored sets `error`.
    pub const FEATURE_ERROR: u32 = 2;
}

macro_rules! kinds {
    ($($name:ident = $value:literal $text:literal $doc:literal;)*) => {
        /// Type of a message (`xsd_sockmsg_type`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        #[non_exhaustive]
        pub enum Kind {
            $(#[doc = $doc] $name = $value,)*
        }

        impl Kind {
            /// All types.
            pub const ALL: &'static [Kind] = &[$(Kind::$name),*];

            /// The type with this number.
            pub const fn from_number(number: u32) -> Option<Kind> {
                match number {
                    $($value => Some(Kind::$name),)*
                    _ => None,
                }
            }

            /// The number on the wire.
            pub const fn number(self) -> u32 {
                self as u32
            }
        }

        impl fmt::Display for Kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Kind::$name => $text,)* })
            }
        }
    };
}

kinds! {
    Control = 0 "XS_CONTROL" "Commands of the toolstack to xenstored itself.";
    Directory = 1 "XS_DIRECTORY" "Names of a key's children.";
    Read = 2 "XS_READ" "A key's value.";
    GetPermissions = 3 "XS_GET_PERMS" "Who may read and write a key.";
    Watch = 4 "XS_WATCH" "Tell of changes of a key and all below.";
    Unwatch = 5 "XS_UNWATCH" "Tell no more.";
    TransactionStart = 6 "XS_TRANSACTION_START" "Begin a transaction.";
    TransactionEnd = 7 "XS_TRANSACTION_END" "End a transaction: commit it or forget it.";
    Introduce = 8 "XS_INTRODUCE" "A new domain; toolstack only.";
    Release = 9 "XS_RELEASE" "A domain has gone; toolstack only.";
    GetDomainPath = 10 "XS_GET_DOMAIN_PATH" "A domain's own directory.";
    Write = 11 "XS_WRITE" "Set a key's value; makes the key and its parents.";
    MakeDirectory = 12 "XS_MKDIR" "Make a key with an empty value, unless it exists.";
    Remove = 13 "XS_RM" "Remove a key and all below it.";
    SetPermissions = 14 "XS_SET_PERMS" "Say who may read and write a key.";
    WatchEvent = 15 "XS_WATCH_EVENT" "Something that is watched changed.";
    Error = 16 "XS_ERROR" "The answer to a request that was refused.";
    IsDomainIntroduced = 17 "XS_IS_DOMAIN_INTRODUCED" "Does xenstored know this domain?";
    Resume = 18 "XS_RESUME" "A domain was resumed; toolstack only.";
    SetTarget = 19 "XS_SET_TARGET" "A domain may do what another may; toolstack only.";
    ResetWatches = 21 "XS_RESET_WATCHES" "Forget all of this connection's watches and transactions.";
    DirectoryPart = 22 "XS_DIRECTORY_PART" "As XS_DIRECTORY, for more names than a payload holds.";
}

/// A transaction's number; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TransactionId(pub u32);

impl TransactionId {
    /// No transaction: the request is carried out at once.
    pub const NONE: TransactionId = TransactionId(0);
}

/// One message, either way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// Which request it is or answers (`req_id`); 0 in a watch event.
    pub request: u32,
    /// The transaction that it is part of (`tx_id`).
    pub transaction: TransactionId,
    /// At most [`PAYLOAD_BYTES_MAX`] bytes.
    pub payload: Vec<u8>,
}

impl Message {
    /// Appends header and payload to `out`.
    ///
    /// # Panics
    /// If the payload is longer than [`PAYLOAD_BYTES_MAX`]; whoever makes a message has checked.
    pub fn encode(&self, out: &mut impl Extend<u8>) {
        assert!(self.payload.len() <= PAYLOAD_BYTES_MAX, "a payload of {}", self.payload.len());
        let header =
            [self.kind.number(), self.request, self.transaction.0, self.payload.len() as u32];
        for word in header {
            out.extend(word.to_le_bytes());
        }
        out.extend(self.payload.iter().copied());
    }
}

/// Cuts messages out of bytes that arrive in pieces.
#[derive(Debug)]
pub struct Assembler {
    header: [u8; HEADER_BYTES],
    /// Bytes of the header that have arrived.
    header_filled: usize,
    /// The message whose payload is arriving; `Some` exactly while the header is complete.
    message: Option<Message>,
    /// Bytes of its payload that are still to come.
    missing: usize,
}

impl Default for Assembler {
    fn default() -> Self {
        Self::new()
    }
}

impl Assembler {
    /// Nothing has arrived.
    pub const fn new() -> Self {
        Assembler { header: [0; HEADER_BYTES], header_filled: 0, message: None, missing: 0 }
    }

    /// Takes bytes off the front of `input` until a message is complete (`Some`) or there are no
    /// more (`None`).
    ///
    /// # Errors
    /// [`Misbehaved`] if a header is impossible. There is no telling then where the next message
    /// begins: give the stream up.
    pub fn take(&mut self, input: &mut &[u8]) -> Result<Option<Message>, Misbehaved> {
        if self.message.is_none() {
            let (head, rest) = input.split_at(input.len().min(HEADER_BYTES - self.header_filled));
            self.header[self.header_filled..][..head.len()].copy_from_slice(head);
            self.header_filled += head.len();
            *input = rest;
            if self.header_filled < HEADER_BYTES {
                return Ok(None);
            }
            self.begin()?;
        }
        let Some(message) = &mut self.message else { return Ok(None) };
        let (part, rest) = input.split_at(input.len().min(self.missing));
        message.payload.extend_from_slice(part);
        self.missing -= part.len();
        *input = rest;
        if self.missing > 0 {
            return Ok(None);
        }
        self.header_filled = 0;
        Ok(self.message.take())
    }

    /// Reads the complete header.
    fn begin(&mut self) -> Result<(), Misbehaved> {
        let word = |at: usize| {
            u32::from_le_bytes([0, 1, 2, 3].map(|byte: usize| self.header[4 * at + byte]))
        };
        let (kind, bytes) = (word(0), word(3));
        let missing = usize::try_from(bytes)
            .ok()
            .filter(|&bytes| bytes <= PAYLOAD_BYTES_MAX)
            .ok_or(Misbehaved::Oversized { bytes })?;
        let kind = Kind::from_number(kind).ok_or(Misbehaved::UnknownKind { kind })?;
        self.message = Some(Message {
            kind,
            request: word(1),
            transaction: TransactionId(word(2)),
            payload: Vec::with_capacity(missing),
        });
        self.missing = missing;
        Ok(())
    }
}
