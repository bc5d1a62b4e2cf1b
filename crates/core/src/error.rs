//! What can go wrong: [`Error`], with a stable [code](ErrorKind::code), whose fault it was and
//! whether trying again can help.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use network_system_wire::WireError;

use crate::address::AddressError;

/// The result of everything in this library that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $side:ident, $retry:literal, $text:literal;)*) => {
        /// What went wrong, as a category that a program can act on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorKind { $($(#[$doc])* $name,)* }

        impl ErrorKind {
            /// Every kind, for tables and bindings.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable number: the same in every release and over the C interface.
            #[must_use]
            pub const fn code(self) -> i32 {
                match self { $(Self::$name => $code,)* }
            }

            /// The kind with this number, if there is one.
            #[must_use]
            pub const fn from_code(code: i32) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }

            /// The category in words, such as `connection refused`.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            const fn side(self) -> Side {
                match self { $(Self::$name => Side::$side,)* }
            }

            const fn retry(self) -> bool {
                match self { $(Self::$name => $retry,)* }
            }
        }
    };
}

kinds! {
    /// A connection could not be made, for a reason that has no kind of its own.
    ConnectionFailed = -600, Network, true, "connection failed";
    /// The peer's machine answered that nothing listens there.
    ConnectionRefused = -601, Theirs, true, "connection refused";
    /// No connection within the deadline.
    ConnectionTimeout = -602, Network, true, "connection timed out";
    /// The connection is closed.
    ConnectionClosed = -603, Network, true, "connection closed";
    /// A circuit breaker holds calls back.
    CircuitOpen = -604, Ours, true, "circuit open";
    /// A certificate was not accepted: the peer's by us, or ours by the peer.
    Untrusted = -605, Theirs, false, "certificate not accepted";
    /// Both sides could not agree on how to speak, or the peer speaks something else.
    Handshake = -606, Theirs, false, "handshake failed";
    /// No session has this id.
    SessionNotFound = -620, Ours, false, "session not found";
    /// The session was closed because it was silent or too old.
    SessionExpired = -621, Theirs, true, "session expired";
    /// The session cannot do this.
    InvalidSession = -622, Ours, false, "invalid session";
    /// A message could not be sent.
    SendFailed = -640, Network, true, "send failed";
    /// A message could not be received.
    ReceiveFailed = -641, Network, true, "receive failed";
    /// A message is larger than the limit.
    MessageTooLarge = -642, Theirs, false, "message too large";
    /// The peer broke the protocol.
    Protocol = -643, Theirs, false, "protocol error";
    /// A bounded queue has no room.
    QueueFull = -644, Ours, true, "queue full";
    /// The server is not running.
    ServerNotStarted = -660, Ours, false, "server not started";
    /// The server is running already.
    ServerAlreadyRunning = -661, Ours, false, "server already running";
    /// A listener could not take its address.
    BindFailed = -662, Ours, false, "bind failed";
    /// An argument or a setting makes no sense.
    InvalidArgument = -1, Ours, false, "invalid argument";
    /// Something named does not exist.
    NotFound = -2, Ours, false, "not found";
    /// The operating system or the peer does not allow it.
    PermissionDenied = -3, Ours, false, "permission denied";
    /// A deadline passed.
    Timeout = -4, Network, true, "timed out";
    /// It was called off.
    Cancelled = -5, Ours, true, "cancelled";
    /// Something must be started or configured first.
    NotInitialized = -6, Ours, false, "not initialized";
    /// Something of this name exists already.
    AlreadyExists = -7, Ours, false, "already exists";
    /// A resource of the machine ran out (memory, file descriptors).
    OutOfMemory = -8, Ours, true, "out of resources";
    /// An input or output operation failed.
    Io = -9, Network, true, "input/output error";
    /// The network failed.
    Network = -10, Network, true, "network error";
    /// A mistake of this library.
    Internal = -99, Ours, false, "internal error";
}

impl From<ErrorKind> for i32 {
    fn from(kind: ErrorKind) -> Self {
        kind.code()
    }
}

/// Whose fault an error was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Ours: a wrong argument, a limit of our own, a lack of resources.
    Ours,
    /// The peer's: it broke the protocol, refused, or was silent.
    Theirs,
    /// The network between: it failed, or the peer vanished.
    Network,
}

/// Something that failed: what was being done, to whom, why, and what to do about it.
///
/// Cheap to clone. [`fmt::Display`] prints one line without the causes; these are in
/// [`source`](StdError::source).
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    side: Side,
    retry: bool,
    /// What was being done, such as `connect to`.
    action: Cow<'static, str>,
    /// To whom, as an address.
    peer: Option<String>,
    /// Why it failed, when the kind alone does not say.
    reason: Option<String>,
    /// What to do about it.
    advice: Option<Cow<'static, str>>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
    /// The number that the peer answered a request with.
    remote: Option<i32>,
}

impl Error {
    /// An error of `kind` while doing `action` (an infinitive, such as `connect to`).
    #[must_use]
    pub fn new(kind: ErrorKind, action: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner {
            kind,
            side: kind.side(),
            retry: kind.retry(),
            action: action.into(),
            peer: None,
            reason: None,
            advice: None,
            source: None,
            remote: None,
        }))
    }

    /// The error of an input or output operation; the kind follows from `error`. Where that holds an
    /// error of this type, as streams with a protocol of their own return it, it is that one.
    #[must_use]
    pub fn from_io(action: impl Into<Cow<'static, str>>, error: io::Error) -> Self {
        if let Some(inner) = error.get_ref().and_then(|e| e.downcast_ref::<Self>()) {
            return inner.clone().with(|inner| inner.action = action.into());
        }
        let kind = match error.kind() {
            io::ErrorKind::ConnectionRefused => ErrorKind::ConnectionRefused,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
            | io::ErrorKind::UnexpectedEof => ErrorKind::ConnectionClosed,
            io::ErrorKind::TimedOut => ErrorKind::ConnectionTimeout,
            io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::OutOfMemory => ErrorKind::OutOfMemory,
            io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown => ErrorKind::Network,
            _ => ErrorKind::Io,
        };
        Self::new(kind, action)
            .because(io_text(&error))
            .caused_by(error)
    }

    fn with(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Names the peer or address.
    #[must_use]
    pub fn peer(self, peer: impl fmt::Display) -> Self {
        self.with(|inner| inner.peer = Some(peer.to_string()))
    }

    /// Says why.
    #[must_use]
    pub fn because(self, reason: impl fmt::Display) -> Self {
        self.with(|inner| inner.reason = Some(reason.to_string()))
    }

    /// Says what to do about it.
    #[must_use]
    pub fn advice(self, advice: impl Into<Cow<'static, str>>) -> Self {
        self.with(|inner| inner.advice = Some(advice.into()))
    }

    /// Keeps the cause.
    #[must_use]
    pub fn caused_by(self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.with(|inner| inner.source = Some(Arc::new(source)))
    }

    /// The same error as another kind.
    #[must_use]
    pub fn into_kind(self, kind: ErrorKind) -> Self {
        self.with(|inner| {
            inner.kind = kind;
            inner.side = kind.side();
            inner.retry = kind.retry();
        })
    }

    /// Overrides whose fault it was.
    #[must_use]
    pub fn blame(self, side: Side) -> Self {
        self.with(|inner| inner.side = side)
    }

    /// Makes it what the peer answered a request with.
    pub(crate) fn answered_with(self, code: i32) -> Self {
        self.with(|inner| {
            inner.remote = Some(code);
            inner.side = Side::Theirs;
        })
    }

    /// The category.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The stable number, see [`ErrorKind::code`].
    #[must_use]
    pub fn code(&self) -> i32 {
        self.0.kind.code()
    }

    /// The number that the peer answered a request with, as it was given to
    /// [`Request::fail`](crate::Request::fail); `None` when the error is not the peer's answer.
    /// Where it is one of [`ErrorKind::code`], the kind is that, but it says what went wrong
    /// there, not here.
    #[must_use]
    pub fn remote_code(&self) -> Option<i32> {
        self.0.remote
    }

    /// Whose fault it was.
    #[must_use]
    pub fn side(&self) -> Side {
        self.0.side
    }

    /// Whether the same call may succeed later without a change.
    #[must_use]
    pub fn can_retry(&self) -> bool {
        self.0.retry
    }

    /// The peer or address that it happened with, where there was one.
    #[must_use]
    pub fn peer_name(&self) -> Option<&str> {
        self.0.peer.as_deref()
    }

    /// Whether a deadline passed here.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.is_here(&[
            ErrorKind::Timeout,
            ErrorKind::ConnectionTimeout,
            ErrorKind::SessionExpired,
        ])
    }

    /// Whether the connection is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.is_here(&[ErrorKind::ConnectionClosed])
    }

    /// Whether a bounded queue had no room here.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.is_here(&[ErrorKind::QueueFull])
    }

    /// Whether it is of one of these kinds, and not what the peer answered.
    fn is_here(&self, kinds: &[ErrorKind]) -> bool {
        self.0.remote.is_none() && kinds.contains(&self.0.kind)
    }
}

/// The text of an I/O error without the `(os error N)` that adds nothing for a reader.
fn io_text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((head, _)) => head.to_lowercase(),
        None => text,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        write!(f, "could not {}", inner.action)?;
        if let Some(peer) = &inner.peer {
            write!(f, " {peer}")?;
        }
        match &inner.reason {
            // the reason often begins with the category itself
            Some(reason) if reason.starts_with(inner.kind.text()) => write!(f, ": {reason}")?,
            Some(reason) => write!(f, ": {}: {reason}", inner.kind.text())?,
            None => write!(f, ": {}", inner.kind.text())?,
        }
        if let Some(advice) = &inner.advice {
            write!(f, " ({advice})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({}): {self}", self.0.kind, self.code())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_ref()
            .map(|source| source.as_ref() as &(dyn StdError + 'static))
    }
}

/// Whether a length is what a handshake of TLS begins with: the record's type, and its version.
fn is_tls(length: u64) -> bool {
    (0x1603_0000..0x1603_0400).contains(&length)
}

/// Whether a length is what a PROXY header begins with, in either version.
fn is_proxy(length: u64) -> bool {
    [*b"PROX", *b"\r\n\r\n"].contains(&u32::try_from(length).unwrap_or(0).to_be_bytes())
}

impl From<WireError> for Error {
    /// An error of the peer's bytes; for our own message, change the action and the blame.
    fn from(error: WireError) -> Self {
        let kind = match error {
            WireError::MessageTooLarge { .. } => ErrorKind::MessageTooLarge,
            _ => ErrorKind::Protocol,
        };
        let failed = Self::new(kind, "decode a message").because(&error);
        match error {
            WireError::MessageTooLarge { length, .. } if is_tls(length) => failed
                .advice("these are the first bytes of TLS: the peer uses tls:// on a plain port"),
            WireError::MessageTooLarge { length, .. } if is_proxy(length) => failed.advice(
                "these are the first bytes of the PROXY protocol: name the proxy, as in ?proxies=10.0.0.1",
            ),
            _ => failed,
        }
        .caused_by(error)
    }
}

impl From<AddressError> for Error {
    fn from(error: AddressError) -> Self {
        Self::new(ErrorKind::InvalidArgument, "use the address")
            .because(&error)
            .caused_by(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_negative() {
        let mut codes: Vec<i32> = ErrorKind::ALL.iter().map(|kind| kind.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), ErrorKind::ALL.len());
        assert!(codes.iter().all(|code| *code < 0));
        for kind in ErrorKind::ALL {
            assert_eq!(ErrorKind::from_code((*kind).into()), Some(*kind));
        }
        assert_eq!(ErrorKind::from_code(404), None);
    }

    #[test]
    fn a_message_says_what_to_whom_why_and_what_to_do() {
        let io = io::Error::from_raw_os_error(111);
        let error = Error::from_io("connect to", io)
            .peer("tcp://127.0.0.1:1")
            .advice("check that a server listens there");
        assert_eq!(
            error.to_string(),
            "could not connect to tcp://127.0.0.1:1: connection refused \
             (check that a server listens there)"
        );
        assert_eq!(error.code(), -601);
        assert!(error.can_retry() && !error.is_timeout());
        assert_eq!(error.side(), Side::Theirs);
        assert!(StdError::source(&error).is_some());
    }

    #[test]
    fn wire_errors_blame_the_peer() {
        let error = Error::from(WireError::MessageTooLarge {
            length: 9,
            limit: 8,
        });
        assert_eq!(error.code(), -642);
        assert_eq!(error.side(), Side::Theirs);
    }
}
