//! Messages that end with an agreed sequence of bytes.

use bytes::{Bytes, BytesMut};

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

    fn header(&self, payload: &[u8], _out: &mut BytesMut) -> Result<(), WireError> {
        check_size(payload.len(), self.max_message)?;
        if self.occurs_early(payload) {
            return Err(WireError::Invalid(
                "a message that contains the delimiter cannot be sent: it would arrive as several"
                    .into(),
            ));
        }
        Ok(())
    }

    fn trailer(&self, _payload: &[u8], out: &mut BytesMut) {
        out.extend_from_slice(&self.delimiter);
    }

    fn max_message(&self) -> usize {
        self.max_message
    }
}
