//! The opt-in header in front of each message: what it is for, and which request it belongs to.
//!
//! Without the envelope a frame carries the message and nothing else, so any peer that frames alike
//! can talk to us. When *both* sides turn the envelope on, each message starts with a header, and
//! requests, replies, heartbeats and the announcement of an end become possible:
//!
//! | First byte | Kind | Then | Payload (the rest) |
//! |---|---|---|---|
//! | `0x00` | Hello | `NSE1` | ignored; room for later negotiation |
//! | `0x10` | Data | | the message |
//! | `0x20` | Request | `u64` id | the request |
//! | `0x30` | Reply | `u64` id | the answer |
//! | `0x40` | Failure | `u64` id, `i32` code | why, as UTF-8 text |
//! | `0x50` | Ping | `u64` token | none; ignored |
//! | `0x60` | Pong | `u64` token | none; ignored |
//! | `0x70` | GoAway | | why, as UTF-8 text |
//!
//! Numbers are big endian. The low four bits of the first byte say which transforms (compression,
//! encryption) were applied to the payload; none exists yet, so they must be 0. Hello is the first
//! message in each direction.

use bytes::BufMut;

use crate::WireError;

/// What follows the first byte of a [`Header::Hello`]: the name of the format and the character of
/// its version.
pub const MAGIC: [u8; 4] = *b"NSE1";

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// First message in each direction: this side uses the envelope, in this version.
    Hello,
    /// A message on its own.
    Data,
    /// A message that wants an answer.
    Request {
        /// Chosen by the sender, unique among its open requests; the answer carries it.
        id: u64,
    },
    /// The answer to a request.
    Reply {
        /// That of the request.
        id: u64,
    },
    /// A request could not be answered; the payload says why, as UTF-8 text. It is not checked
    /// here, so read it lossily.
    Failure {
        /// That of the request.
        id: u64,
        /// The number of the error.
        code: i32,
    },
    /// Are you there? A payload means nothing and is ignored, here and in a pong.
    Ping {
        /// Returned in the [`Header::Pong`].
        token: u64,
    },
    /// The answer to a [`Header::Ping`].
    Pong {
        /// That of the ping.
        token: u64,
    },
    /// This side is about to close and wants no new requests; the payload says why, as UTF-8 text.
    /// It is not checked here, so read it lossily.
    GoAway,
}

impl Header {
    /// Bytes that [`put`](Header::put) appends.
    #[inline]
    pub const fn encoded_len(&self) -> usize {
        match self {
            Self::Data | Self::GoAway => 1,
            Self::Hello => 1 + MAGIC.len(),
            Self::Request { .. } | Self::Reply { .. } | Self::Ping { .. } | Self::Pong { .. } => 9,
            Self::Failure { .. } => 13,
        }
    }

    /// Appends the header; the payload goes behind it.
    #[inline]
    pub fn put(&self, out: &mut Vec<u8>) {
        out.put_u8(self.kind() << 4);
        match *self {
            Self::Data | Self::GoAway => {}
            Self::Hello => out.put_slice(&MAGIC),
            Self::Request { id } | Self::Reply { id } => out.put_u64(id),
            Self::Ping { token } | Self::Pong { token } => out.put_u64(token),
            Self::Failure { id, code } => {
                out.put_u64(id);
                out.put_i32(code);
            }
        }
    }

    /// The header of a whole `message` and how many bytes it takes; the payload is the rest.
    ///
    /// # Errors
    ///
    /// [`WireError::Invalid`] if the message does not start with a header of this version: most
    /// often the peer does not use the envelope.
    #[inline]
    pub fn parse(message: &[u8]) -> Result<(Self, usize), WireError> {
        let Some((&first, rest)) = message.split_first() else {
            return Err(WireError::Invalid(
                "the message is empty where an envelope header is due; \
                 the peer probably does not use the envelope"
                    .into(),
            ));
        };
        let header = match first {
            0x10 => Self::Data,
            0x20 => Self::Request {
                id: number(message)?,
            },
            0x30 => Self::Reply {
                id: number(message)?,
            },
            _ => Self::parse_rare(first, rest, message)?,
        };
        Ok((header, header.encoded_len()))
    }

    /// All but the kinds that make up the traffic.
    fn parse_rare(first: u8, rest: &[u8], message: &[u8]) -> Result<Self, WireError> {
        match first {
            0x00 => check_magic(rest).map(|()| Self::Hello),
            0x40 => {
                let id = number(message)?;
                let code = rest
                    .get(8..)
                    .and_then(<[u8]>::first_chunk)
                    .ok_or_else(|| too_short(message, 13))?;
                Ok(Self::Failure {
                    id,
                    code: i32::from_be_bytes(*code),
                })
            }
            0x50 => Ok(Self::Ping {
                token: number(message)?,
            }),
            0x60 => Ok(Self::Pong {
                token: number(message)?,
            }),
            0x70 => Ok(Self::GoAway),
            _ if first >> 4 > 7 => Err(WireError::Invalid(
                format!(
                    "the message starts with the byte {first:#04x}, which is no envelope header; \
                     the peer probably does not use the envelope"
                )
                .into(),
            )),
            _ => Err(WireError::Invalid(
                format!(
                    "the envelope header {first:#04x} asks for a transform (low four bits), \
                     and none is known here; the peer is newer, or does not use the envelope"
                )
                .into(),
            )),
        }
    }

    #[inline]
    const fn kind(&self) -> u8 {
        match self {
            Self::Hello => 0,
            Self::Data => 1,
            Self::Request { .. } => 2,
            Self::Reply { .. } => 3,
            Self::Failure { .. } => 4,
            Self::Ping { .. } => 5,
            Self::Pong { .. } => 6,
            Self::GoAway => 7,
        }
    }
}

/// The eight bytes behind the first one.
#[inline]
fn number(message: &[u8]) -> Result<u64, WireError> {
    match message.get(1..).and_then(<[u8]>::first_chunk) {
        Some(bytes) => Ok(u64::from_be_bytes(*bytes)),
        None => Err(too_short(message, 9)),
    }
}

fn check_magic(rest: &[u8]) -> Result<(), WireError> {
    let [name @ .., version] = MAGIC;
    match rest.strip_prefix(&name).and_then(<[u8]>::first) {
        Some(&found) if found == version => Ok(()),
        Some(&found) => Err(WireError::Invalid(
            format!(
                "the greeting asks for version `{}` of the envelope, and only version `{}` is \
                 known here; the peer is of another version, or does not use the envelope",
                found.escape_ascii(),
                version.escape_ascii()
            )
            .into(),
        )),
        None => Err(WireError::Invalid(
            "the message starts with the byte 0x00 but is not the greeting of the envelope; \
             the peer probably does not use the envelope"
                .into(),
        )),
    }
}

#[cold]
fn too_short(message: &[u8], needed: usize) -> WireError {
    WireError::Invalid(
        format!(
            "the envelope header has at least {needed} bytes, and the message only {}; \
             the peer probably does not use the envelope",
            message.len()
        )
        .into(),
    )
}

#[cfg(test)]
mod tests;
