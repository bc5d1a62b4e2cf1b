//! The one error type of this crate: what was wrong with the bytes, or with a payload that was to
//! be sent.

use std::borrow::Cow;

/// Why bytes could not be decoded, or a payload not be encoded.
///
/// After an error from [`Codec::decode`](crate::Codec::decode) the place where the next message
/// begins is unknown, so the stream cannot be read any further. An error from encoding concerns
/// that one payload only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// A message is above the limit of the codec.
    #[error("message too large: {length} bytes, and the limit is {limit} bytes")]
    MessageTooLarge {
        /// Bytes of the message: as announced by a length prefix, or as given by the sender. A
        /// codec that searches for the end of the message stops searching at the limit, and then
        /// says one more than the limit.
        length: u64,
        /// Largest payload in bytes that the codec accepts.
        limit: usize,
    },
    /// The stream ended in the middle of a message.
    #[error(
        "the stream ended inside a message: {have} bytes of it came, at least {needed} are needed"
    )]
    Truncated {
        /// Bytes of the unfinished frame that arrived, framing included.
        have: usize,
        /// Bytes that the frame has at least, framing included.
        needed: usize,
    },
    /// The bytes break the rules of the format, or the payload cannot be expressed in it.
    #[error("{0}")]
    Invalid(Cow<'static, str>),
}

impl WireError {
    /// Kept out of line, so that the check on the message path stays a compare and a jump.
    #[cold]
    #[inline(never)]
    pub(crate) fn too_large(length: u64, limit: usize) -> Self {
        Self::MessageTooLarge { length, limit }
    }

    /// For codecs that stop searching at the limit: all that is known is that there is at least one
    /// byte more.
    #[cold]
    #[inline(never)]
    pub(crate) fn beyond(limit: usize) -> Self {
        Self::MessageTooLarge {
            length: (limit as u64).saturating_add(1),
            limit,
        }
    }
}

/// What a payload of `length` bytes on its way out is measured against.
#[inline]
pub(crate) fn check_size(length: usize, limit: usize) -> Result<(), WireError> {
    if length > limit {
        Err(WireError::too_large(length as u64, limit))
    } else {
        Ok(())
    }
}
