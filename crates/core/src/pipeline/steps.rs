//! What the pipeline does to one message, and undoes: compression first, then encryption.

use std::cell::Cell;

use network_system_wire::WireError;
use network_system_wire::pipeline::{self as wire, Header};

use super::compress;
use super::noise::Cipher;
use crate::config::Compression;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Message, MessageRef};

/// Memory of the thread above this is not kept.
const KEPT: usize = 128 * 1024;

/// Where messages are on their way through: memory that the connections of a thread share.
#[derive(Default)]
struct Scratch {
    packed: Vec<u8>,
    plain: Vec<u8>,
    frame: Vec<u8>,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::default();
}

impl Scratch {
    fn with<R>(f: impl FnOnce(&mut Self) -> R) -> R {
        // at the end of a thread there is no more memory to share
        let mut scratch = SCRATCH.try_with(Cell::take).unwrap_or_default();
        let result = f(&mut scratch);
        for memory in [&mut scratch.packed, &mut scratch.plain, &mut scratch.frame] {
            memory.clear();
            memory.shrink_to(KEPT);
        }
        let _ = SCRATCH.try_with(|cell| cell.set(scratch));
        result
    }
}

/// The steps of one connection.
pub(super) struct Steps {
    /// How messages are compressed, and from which size on.
    pub(super) compress: Compression,
    pub(super) threshold: usize,
    pub(super) cipher: Option<Cipher>,
    /// Largest message.
    pub(super) limit: usize,
}

/// What came in a frame.
pub(super) enum Came {
    Message(Message),
    /// The peer sends no more.
    Goodbye,
}

impl Steps {
    /// Gives `put` the frame that a message becomes.
    pub(super) fn encode(
        &mut self,
        message: &[u8],
        put: impl FnOnce(&mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        Scratch::with(|scratch| {
            let Scratch {
                packed,
                plain,
                frame,
            } = scratch;
            let smaller = message.len() >= self.threshold
                && self.compress != Compression::None
                && compress::compress(self.compress, message, packed);
            let header = Header {
                compressed: self.compress.algorithm().filter(|_| smaller),
                ..Header::default()
            };
            let body = if smaller { &packed[..] } else { message };
            match &mut self.cipher {
                Some(cipher) => cipher.seal(header, body, plain, frame)?,
                None => {
                    frame.push(header.encode());
                    frame.extend_from_slice(body);
                }
            }
            put(frame)
        })
    }

    /// The frame that says that nothing more will come, where it can be said.
    pub(super) fn goodbye(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(cipher) = &mut self.cipher else {
            return Ok(None);
        };
        let header = Header {
            goodbye: true,
            ..Header::default()
        };
        let mut frame = Vec::new();
        cipher.seal(header, &[], &mut Vec::new(), &mut frame)?;
        Ok(Some(frame))
    }

    /// What the peer has put into a frame.
    pub(super) fn decode(&mut self, frame: &MessageRef<'_>) -> Result<Came> {
        if frame.is_empty() {
            return Err(refused());
        }
        let limit = self.limit;
        let Some(cipher) = &mut self.cipher else {
            let (header, body) = Header::decode(frame.as_bytes(), false)?;
            return match header.compressed {
                None if body.len() <= limit => Ok(Came::Message(frame.skip(1).to_message())),
                _ => finish(header, body, limit).map(Came::Message),
            };
        };
        Scratch::with(|scratch| {
            let Scratch { packed, plain, .. } = scratch;
            let header = cipher.open(frame.as_bytes(), plain, packed)?;
            if header.goodbye {
                return Ok(Came::Goodbye);
            }
            finish(header, packed, limit).map(Came::Message)
        })
    }
}

/// The message that was sent as `body`.
fn finish(header: Header, body: &[u8], limit: usize) -> Result<Message> {
    match header.compressed {
        Some(algorithm) => {
            let (size, bytes) = wire::packed(body, algorithm, limit)?;
            compress::decompress(algorithm, bytes, size).map(Message::from)
        }
        None if body.len() > limit => Err(WireError::MessageTooLarge {
            length: body.len() as u64,
            limit,
        }
        .into()),
        None => Ok(Message::copy_from(body)),
    }
}

/// The error of an empty frame.
#[cold]
pub(super) fn refused() -> Error {
    Error::new(ErrorKind::Untrusted, "exchange messages with")
        .because("the peer does not accept who we are")
        .advice("the peer has to list our public key, or both need the same shared key")
}
