//! The pieces of an outgoing queue that are not in its contiguous buffer: [`Chunk`].

use bytes::{Buf, Bytes};

use crate::buffers::WriteBuffer;
use crate::message::Message;

/// More than any header adds to a message.
pub(super) const SHORT: usize = 32;

/// One piece.
#[derive(Debug)]
pub(super) enum Chunk {
    Bytes(Bytes),
    /// A few bytes in place, the header of a large message for one: `start` to `end`.
    Short {
        bytes: [u8; SHORT],
        start: u8,
        end: u8,
    },
    /// Many small messages.
    Buffer(WriteBuffer),
    /// For transports that keep messages apart.
    Message(Message),
}

impl Chunk {
    pub(super) fn copy_from(bytes: &[u8]) -> Self {
        let mut short = [0; SHORT];
        match (short.get_mut(..bytes.len()), u8::try_from(bytes.len())) {
            (Some(place), Ok(end)) => {
                place.copy_from_slice(bytes);
                Self::Short {
                    bytes: short,
                    start: 0,
                    end,
                }
            }
            _ => Self::Bytes(Bytes::copy_from_slice(bytes)),
        }
    }

    /// Whether it is a part of a stream, and not a message.
    pub(super) fn is_bytes(&self) -> bool {
        !matches!(self, Self::Message(_))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Short { bytes, start, end } => bytes
                .get(usize::from(*start)..usize::from(*end))
                .unwrap_or_default(),
            Self::Buffer(buffer) => buffer.bytes(),
            Self::Message(message) => message,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Removes the first `n` bytes; at most as many as there are.
    pub(super) fn advance(&mut self, n: usize) {
        match self {
            Self::Bytes(bytes) => bytes.advance(n),
            Self::Short { start, end, .. } => {
                // at most `end`, which fits
                *start = start.saturating_add(n.min(SHORT) as u8).min(*end);
            }
            Self::Buffer(buffer) => buffer.advance(n),
            Self::Message(_) => {}
        }
    }

    /// Takes the first `n` bytes off; at most as many as there are.
    pub(super) fn split_to(&mut self, n: usize) -> Self {
        if let Self::Bytes(bytes) = self {
            return Self::Bytes(bytes.split_to(n));
        }
        let first = Self::copy_from(self.bytes().get(..n).unwrap_or_default());
        self.advance(n);
        first
    }

    /// Gives memory that belongs to the thread back.
    pub(super) fn release(self) {
        if let Self::Buffer(buffer) = self {
            buffer.give_back();
        }
    }
}
