//! One message in the form in which it is written, for many queues: [`OneFrame`].

use bytes::Bytes;
use network_system_wire::envelope::Header;
use network_system_wire::{Codec, Framing};

use super::{ZERO_COPY, unsendable, with_header};
use crate::error::Result;
use crate::message::MessageRef;

/// One encoded message, for queues of its encoding.
pub(crate) enum OneFrame {
    /// Is copied into each queue.
    Small(Vec<u8>),
    /// Is shared by all.
    Large(Bytes),
}

impl OneFrame {
    /// Encodes a message, in the memory of `before` if it has any.
    ///
    /// # Errors
    /// As [`OutQueue::push`](super::OutQueue::push).
    pub(crate) fn new(
        framing: &Framing,
        header: Option<Header>,
        message: &MessageRef<'_>,
        before: Option<Self>,
    ) -> Result<Self> {
        let mut bytes = match before {
            Some(Self::Small(bytes)) => bytes,
            _ => Vec::new(),
        };
        bytes.clear();
        match header {
            None => framing.encode(message, &mut bytes),
            Some(_) => framing.encode(&with_header(header, message), &mut bytes),
        }
        .map_err(unsendable)?;
        Ok(if bytes.len() < ZERO_COPY {
            Self::Small(bytes)
        } else {
            Self::Large(bytes.into())
        })
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Small(bytes) => bytes.len(),
            Self::Large(bytes) => bytes.len(),
        }
    }

    /// Forgets the message, and its memory if that is shared.
    pub(crate) fn clear(&mut self) {
        match self {
            Self::Small(bytes) => bytes.clear(),
            Self::Large(_) => *self = Self::Small(Vec::new()),
        }
    }
}
