//! Why a connection ended: [`CloseReason`].

use std::fmt;

use crate::error::{Error, ErrorKind};

/// Why a connection ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer closed it in good order.
    Peer,
    /// [`Session::close`](crate::Session::close) was called, with this text.
    Requested(String),
    /// `on_connect` refused it, with this text.
    Refused(String),
    /// No traffic for the idle time.
    Idle,
    /// The peer has not said anything for as long as it may take for its first byte or greeting.
    Silent,
    /// Heartbeats were not answered.
    Heartbeat,
    /// The peer reads too slowly, and the overflow policy is to close.
    Overflow,
    /// The peer has read too little of what waits for it for longer than it may.
    SlowReader,
    /// The peer has sent more than its rate allows, and that is to be the end.
    Rate,
    /// The session was as old as it may get.
    MaxAge,
    /// The server or client shut down, and everything queued was written.
    Shutdown,
    /// The deadline of a shutdown or close passed before everything was written, or
    /// [`Session::abort`](crate::Session::abort) was called.
    Cut,
    /// The network failed or the peer vanished.
    Network(Error),
    /// The peer broke the protocol or a limit.
    Protocol(Error),
    /// The handler returned an error.
    Handler(Error),
    /// The handler panicked.
    Panicked,
}

impl CloseReason {
    /// The labels of all reasons, as statistics count them.
    pub const LABELS: [&'static str; 16] = [
        "peer",
        "requested",
        "refused",
        "idle",
        "heartbeat",
        "overflow",
        "shutdown",
        "cut",
        "network",
        "protocol",
        "handler",
        "panicked",
        "silent",
        "slow_reader",
        "rate",
        "max_age",
    ];

    /// The label that statistics count this under.
    #[must_use]
    pub fn label(&self) -> &'static str {
        Self::LABELS[self.index()]
    }

    pub(crate) fn index(&self) -> usize {
        match self {
            Self::Peer => 0,
            Self::Requested(_) => 1,
            Self::Refused(_) => 2,
            Self::Idle => 3,
            Self::Heartbeat => 4,
            Self::Overflow => 5,
            Self::Shutdown => 6,
            Self::Cut => 7,
            Self::Network(_) => 8,
            Self::Protocol(_) => 9,
            Self::Handler(_) => 10,
            Self::Panicked => 11,
            Self::Silent => 12,
            Self::SlowReader => 13,
            Self::Rate => 14,
            Self::MaxAge => 15,
        }
    }

    /// The reason for an error of the transport or the peer's bytes.
    pub(crate) fn from_error(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Protocol
            | ErrorKind::MessageTooLarge
            | ErrorKind::ReceiveFailed
            | ErrorKind::Untrusted
            | ErrorKind::Handshake => Self::Protocol(error),
            _ => Self::Network(error),
        }
    }

    /// The error behind the reason, where there is one.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::Network(error) | Self::Protocol(error) | Self::Handler(error) => Some(error),
            _ => None,
        }
    }

    /// Whether the connection ended in good order, as far as this side knows.
    #[must_use]
    pub fn is_orderly(&self) -> bool {
        matches!(
            self,
            Self::Peer | Self::Requested(_) | Self::Shutdown | Self::MaxAge
        )
    }

    /// What a call on a session that has ended this way fails with.
    pub(crate) fn to_error(&self, action: &'static str) -> Error {
        let kind = match self {
            Self::Idle | Self::Silent | Self::Heartbeat | Self::SlowReader | Self::MaxAge => {
                ErrorKind::SessionExpired
            }
            _ => ErrorKind::ConnectionClosed,
        };
        Error::new(kind, action).because(self)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer => f.write_str("closed by the peer"),
            Self::Requested(text) if text.is_empty() => f.write_str("closed here"),
            Self::Requested(text) => write!(f, "closed here: {text}"),
            Self::Refused(text) => write!(f, "refused: {text}"),
            Self::Idle => f.write_str("no traffic for the idle time"),
            Self::Silent => f.write_str("the peer has not said anything since it connected"),
            Self::SlowReader => f.write_str("the peer reads too little of what waits for it"),
            Self::Rate => f.write_str("the peer sends more than it may"),
            Self::MaxAge => f.write_str("as old as a session may get"),
            Self::Heartbeat => f.write_str("the peer does not answer heartbeats"),
            Self::Overflow => f.write_str("the peer reads too slowly and the outbox is full"),
            Self::Shutdown => f.write_str("shut down"),
            Self::Cut => f.write_str("cut off: not everything was written before the deadline"),
            Self::Network(e) | Self::Protocol(e) | Self::Handler(e) => write!(f, "{e}"),
            Self::Panicked => f.write_str("the handler panicked"),
        }
    }
}
