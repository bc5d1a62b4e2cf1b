//! The opt-in header of each message, taken apart: [`Inbound`].

use network_system_wire::WireError;
use network_system_wire::envelope::Header;

use crate::error::{Error, ErrorKind, Result};
use crate::message::{Message, MessageRef};

/// What one received message is.
#[derive(Debug)]
pub(crate) enum Inbound {
    Message(Message),
    Request { id: u64, message: Message },
    Reply { id: u64, message: Message },
    Failure { id: u64, code: i32, text: Message },
    Ping { token: u64 },
    Pong,
    GoAway,
    Hello,
}

impl Inbound {
    /// Bytes of the payload.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Message(m)
            | Self::Request { message: m, .. }
            | Self::Reply { message: m, .. }
            | Self::Failure { text: m, .. } => m.len(),
            _ => 0,
        }
    }
}

/// Reads the envelope of one connection.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    greeted: bool,
}

impl Reader {
    /// Takes the header off; the first message must be the peer's hello.
    pub(crate) fn read(&mut self, message: &MessageRef<'_>) -> Result<Inbound> {
        let parsed = Header::parse(message);
        if !self.greeted && !matches!(parsed, Ok((Header::Hello, _))) {
            return Err(stranger(parsed.err()));
        }
        let (header, skip) = parsed?;
        self.greeted = true;
        let message = message.skip(skip).to_message();
        Ok(match header {
            Header::Hello => Inbound::Hello,
            Header::Data => Inbound::Message(message),
            Header::Request { id } => Inbound::Request { id, message },
            Header::Reply { id } => Inbound::Reply { id, message },
            Header::Failure { id, code } => Inbound::Failure {
                id,
                code,
                text: message,
            },
            Header::Ping { token } => Inbound::Ping { token },
            Header::Pong { .. } => Inbound::Pong,
            Header::GoAway => Inbound::GoAway,
        })
    }
}

/// The error of a first message that is no hello.
#[cold]
fn stranger(cause: Option<WireError>) -> Error {
    let error = Error::new(ErrorKind::Protocol, "agree on the envelope")
        .advice("turn on `envelope` on both sides, or on neither");
    match cause {
        Some(cause) => error.because(&cause).caused_by(cause),
        None => error.because("the peer's first message is no envelope hello"),
    }
}
