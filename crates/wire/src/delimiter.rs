//! Messages that end with an agreed sequence of bytes.

use bytes::Bytes;

use crate::error::check_size;
use crate::search::find_end;
use crate::{Codec, DEFAULT_MAX_MESSAGE, Decoded, Frame, Payload, WireError};

/// Each message is followed by the delimiter, one or more bytes; the first one that is complete
/// ends the message.
///
/// * A payload that contains the delimiter is [`WireError::Invalid`], and so is one that completes
///   it too early together with the delimiter behind it (`a` before the delimiter `aa`): the
///   receiver would see other messages than those that were sent.
/// * At the end of the stream a last message without delimiter is a message too, unless it is
///   empty.
/// * The limit counts the payload only, not the delimiter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Delimiter {
    delimiter: Bytes,
    max_message: usize,
}

impl Delimiter {
    /// Messages of up to [`DEFAULT_MAX_MESSAGE`] bytes that end with `delimiter`.
    ///
    /// # Errors
    ///
    /// [`WireError::Invalid`] if `delimiter` is empty.
    pub fn new(delimiter: impl Into<Bytes>) -> Result<Self, WireError> {
        let delimiter = delimiter.into();
        if delimiter.is_empty() {
            return Err(WireError::Invalid(
                "the delimiter is empty; it needs at least one byte".into(),
            ));
        }
        Ok(Self {
            delimiter,
            max_message: DEFAULT_MAX_MESSAGE,
        })
    }

    /// With another limit on the payload, in bytes.
    #[must_use]
    pub const fn with_max_message(mut self, max_message: usize) -> Self {
        self.max_message = max_message;
        self
    }

    /// The bytes that end a message; never empty.
    pub fn delimiter(&self) -> &[u8] {
        &self.delimiter
    }

    /// Whether the delimiter occurs in `payload` followed by the delimiter before the place where
    /// it should.
    fn occurs_early(&self, payload: &[u8]) -> bool {
        let delimiter = &self.delimiter[..];
        // It may also begin in the payload and end in the delimiter proper, if the delimiter
        // overlaps with itself.
        let straddles = |begun: usize| {
            let (head, tail) = delimiter.split_at(begun);
            delimiter.starts_with(tail) && payload.ends_with(head)
        };
        find_end(payload, delimiter, 0).is_some() || (1..delimiter.len()).any(straddles)
    }
}

impl Codec for Delimiter {
    fn decode(&self, input: &[u8], examined: usize) -> Result<Decoded, WireError> {
        let length = self.delimiter.len();
        // A message at the limit and its delimiter: what lies behind that decides nothing.
        let window = self.max_message.saturating_add(length);
        let searched = input.get(..window).unwrap_or(input);
        if let Some(consumed) = find_end(searched, &self.delimiter, examined) {
            let payload = Payload::Range(0..consumed - length);
            return Ok(Decoded::Frame(Frame { payload, consumed }));
        }
        if input.len() >= window {
            return Err(WireError::beyond(self.max_message));
        }
        Ok(Decoded::Incomplete {
            needed: length.max(input.len() + 1),
        })
    }

    fn finish(&self, rest: &[u8]) -> Result<Option<Frame>, WireError> {
        if rest.is_empty() {
            return Ok(None);
        }
        match self.decode(rest, 0)? {
            Decoded::Frame(frame) => Ok(Some(frame)),
            Decoded::Incomplete { .. } if rest.len() > self.max_message => {
                Err(WireError::beyond(self.max_message))
            }
            Decoded::Incomplete { .. } => Ok(Some(Frame {
                payload: Payload::Range(0..rest.len()),
                consumed: rest.len(),
            })),
        }
    }

    fn header(&self, payload: &[u8], _out: &mut Vec<u8>) -> Result<(), WireError> {
        check_size(payload.len(), self.max_message)?;
        if self.occurs_early(payload) {
            return Err(WireError::Invalid(
                "a message that contains the delimiter cannot be sent: it would arrive as several"
                    .into(),
            ));
        }
        Ok(())
    }

    fn trailer(&self, _payload: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.delimiter);
    }

    fn max_message(&self) -> usize {
        self.max_message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codec(delimiter: &'static str) -> Delimiter {
        Delimiter::new(delimiter).unwrap().with_max_message(4)
    }

    fn frame(payload: usize, consumed: usize) -> Frame {
        Frame {
            payload: Payload::Range(0..payload),
            consumed,
        }
    }

    #[test]
    fn needs_a_byte() {
        let error = Delimiter::new("").unwrap_err();
        assert!(error.to_string().contains("at least one byte"));
    }

    #[test]
    fn first_complete_delimiter_ends_the_message() {
        let decode = |input: &str| codec("--").decode(input.as_bytes(), 0);
        assert_eq!(decode("ab--cd--"), Ok(Decoded::Frame(frame(2, 4))));
        assert_eq!(decode("a---"), Ok(Decoded::Frame(frame(1, 3))));
        assert_eq!(decode("--"), Ok(Decoded::Frame(frame(0, 2))));
        assert_eq!(decode(""), Ok(Decoded::Incomplete { needed: 2 }));
        assert_eq!(decode("ab-"), Ok(Decoded::Incomplete { needed: 4 }));
        assert_eq!(decode("abcd--"), Ok(Decoded::Frame(frame(4, 6))));
        assert_eq!(decode("abcde-"), Err(WireError::beyond(4)));
        assert_eq!(decode("abcde--"), Err(WireError::beyond(4)));
    }

    #[test]
    fn last_message_without_delimiter() {
        let finish = |rest: &str| codec("--").finish(rest.as_bytes());
        assert_eq!(finish(""), Ok(None));
        assert_eq!(finish("abc-"), Ok(Some(frame(4, 4))));
        assert_eq!(finish("a--b"), Ok(Some(frame(1, 3))));
        assert_eq!(finish("abcde"), Err(WireError::beyond(4)));
    }

    #[test]
    fn payloads_that_would_end_early() {
        let accepts = |delimiter, payload: &str| {
            let mut out = Vec::new();
            let accepted = codec(delimiter)
                .encode(payload.as_bytes(), &mut out)
                .is_ok();
            assert_eq!(out.is_empty(), !accepted);
            accepted
        };
        assert!(!accepts("--", "a--b"));
        assert!(!accepts("--", "a-"), "with the delimiter it is a---");
        assert!(accepts("--", "a-b"));
        assert!(!accepts("aba", "xab"), "with the delimiter it is xababa");
        assert!(accepts("aba", "xa"));
        assert!(
            accepts("\r\n", "a\r"),
            "a CR in front of CRLF is no problem"
        );
    }
}
