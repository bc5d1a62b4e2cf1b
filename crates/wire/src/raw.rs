//! No framing: bytes as they come.

use crate::error::check_size;
use crate::{Codec, DEFAULT_MAX_MESSAGE, Decoded, Frame, Payload, WireError};

/// No delimiting at all: each chunk that arrives is a message, and payloads are sent as they are.
///
/// * Where one message ends and the next begins is up to the network; only the bytes and their
///   order are kept.
/// * Input longer than the limit arrives as several messages. A limit of 0 works as 1.
/// * Sending an empty payload is [`WireError::Invalid`]: nothing would go out, so the peer could
///   not see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Raw {
    /// Largest chunk in bytes, in either direction.
    pub max_message: usize,
}

impl Default for Raw {
    fn default() -> Self {
        Self::new()
    }
}

impl Raw {
    /// Chunks of up to [`DEFAULT_MAX_MESSAGE`] bytes.
    pub const fn new() -> Self {
        Self {
            max_message: DEFAULT_MAX_MESSAGE,
        }
    }

    /// With another limit on the chunk, in bytes.
    #[must_use]
    pub const fn with_max_message(mut self, max_message: usize) -> Self {
        self.max_message = max_message;
        self
    }
}

impl Codec for Raw {
    fn decode(&self, input: &[u8], _examined: usize) -> Result<Decoded, WireError> {
        let consumed = input.len().min(self.max_message());
        if consumed == 0 {
            return Ok(Decoded::Incomplete { needed: 1 });
        }
        Ok(Decoded::Frame(Frame {
            payload: Payload::Range(0..consumed),
            consumed,
        }))
    }

    fn header(&self, payload: &[u8], _out: &mut Vec<u8>) -> Result<(), WireError> {
        if payload.is_empty() {
            return Err(WireError::Invalid(
                "an empty message cannot be sent without framing: the receiver could not see it"
                    .into(),
            ));
        }
        check_size(payload.len(), self.max_message())
    }

    /// At least 1, since a frame that takes no input would never end.
    fn max_message(&self) -> usize {
        self.max_message.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_up_to_the_limit() {
        let decode = |limit, input: &[u8]| match Raw::new().with_max_message(limit).decode(input, 0)
        {
            Ok(Decoded::Frame(frame)) => frame.consumed,
            Ok(Decoded::Incomplete { needed }) => panic!("needs {needed}"),
            Err(error) => panic!("{error}"),
        };
        assert_eq!(decode(4, b"abc"), 3);
        assert_eq!(decode(4, b"abcd"), 4);
        assert_eq!(decode(4, b"abcde"), 4);
        assert_eq!(decode(0, b"abc"), 1);
        let nothing = Raw::new().decode(b"", 0);
        assert_eq!(nothing, Ok(Decoded::Incomplete { needed: 1 }));
    }

    #[test]
    fn sends_what_can_be_seen_and_is_within_the_limit() {
        let raw = Raw::new().with_max_message(3);
        let mut out = Vec::new();
        raw.encode(b"abc", &mut out).unwrap();
        assert_eq!(out, b"abc");
        assert!(matches!(
            raw.encode(b"", &mut out),
            Err(WireError::Invalid(_))
        ));
        let (length, limit) = (4, 3);
        assert_eq!(
            raw.encode(b"abcd", &mut out),
            Err(WireError::MessageTooLarge { length, limit })
        );
        assert_eq!(out, b"abc");
    }

    #[test]
    fn the_end_is_never_truncation() {
        assert_eq!(Raw::new().finish(b""), Ok(None));
        assert!(matches!(Raw::new().finish(b"ab"), Ok(Some(frame)) if frame.consumed == 2));
    }
}
