//! One message per line of text.

use bytes::BufMut;

use crate::error::check_size;
use crate::search::find_byte;
use crate::{Codec, DEFAULT_MAX_MESSAGE, Decoded, Frame, Payload, WireError};

/// Each message is a line: LF (`\n`) ends it, and one CR (`\r`) before the LF is dropped.
///
/// * Sending appends LF. A payload that contains LF, or that ends in CR, is [`WireError::Invalid`]:
///   the receiver would see other messages than those that were sent. All other bytes are fine,
///   UTF-8 or not.
/// * At the end of the stream a last line without LF is a message too, unless it is empty.
/// * The limit counts the payload only, neither CR nor LF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lines {
    /// Largest line in bytes, in either direction, without what ends it.
    pub max_message: usize,
}

impl Default for Lines {
    fn default() -> Self {
        Self::new()
    }
}

impl Lines {
    /// Lines of up to [`DEFAULT_MAX_MESSAGE`] bytes.
    pub const fn new() -> Self {
        Self {
            max_message: DEFAULT_MAX_MESSAGE,
        }
    }

    /// With another limit on the line, in bytes.
    #[must_use]
    pub const fn with_max_message(mut self, max_message: usize) -> Self {
        self.max_message = max_message;
        self
    }

    /// The frame whose line, perhaps with a CR at its end, is `line`, and takes `consumed` bytes.
    fn frame(&self, line: &[u8], consumed: usize) -> Result<Frame, WireError> {
        let payload = line.strip_suffix(b"\r").unwrap_or(line).len();
        if payload > self.max_message {
            return Err(WireError::beyond(self.max_message));
        }
        Ok(Frame {
            payload: Payload::Range(0..payload),
            consumed,
        })
    }
}

impl Codec for Lines {
    fn decode(&self, input: &[u8], examined: usize) -> Result<Decoded, WireError> {
        // A line at the limit, CR and LF: what lies behind that decides nothing, so a long line
        // costs no long search.
        let window = self.max_message.saturating_add(2);
        let searched = input.get(..window).unwrap_or(input);
        let from = examined.min(searched.len());
        if let Some(offset) = find_byte(&searched[from..], b'\n') {
            let end = from + offset;
            return self.frame(&searched[..end], end + 1).map(Decoded::Frame);
        }
        if input.len() >= window {
            return Err(WireError::beyond(self.max_message));
        }
        Ok(Decoded::Incomplete {
            needed: input.len() + 1,
        })
    }

    fn finish(&self, rest: &[u8]) -> Result<Option<Frame>, WireError> {
        if rest.is_empty() {
            return Ok(None);
        }
        match self.decode(rest, 0)? {
            Decoded::Frame(frame) => Ok(Some(frame)),
            Decoded::Incomplete { .. } => self.frame(rest, rest.len()).map(Some),
        }
    }

    fn header(&self, payload: &[u8], _out: &mut Vec<u8>) -> Result<(), WireError> {
        check_size(payload.len(), self.max_message)?;
        if payload.ends_with(b"\r") {
            return Err(WireError::Invalid(
                "a message that ends in CR cannot be sent as a line: the receiver would drop the CR"
                    .into(),
            ));
        }
        if find_byte(payload, b'\n').is_some() {
            return Err(WireError::Invalid(
                "a message that contains LF cannot be sent as a line: it would arrive as several"
                    .into(),
            ));
        }
        Ok(())
    }

    fn trailer(&self, _payload: &[u8], out: &mut Vec<u8>) {
        out.put_u8(b'\n');
    }

    fn max_message(&self) -> usize {
        self.max_message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: usize, consumed: usize) -> Frame {
        Frame {
            payload: Payload::Range(0..payload),
            consumed,
        }
    }

    #[test]
    fn line_ends() {
        let decode = |input: &[u8]| Lines::new().decode(input, 0).unwrap();
        assert_eq!(decode(b"ab\ncd\n"), Decoded::Frame(frame(2, 3)));
        assert_eq!(decode(b"ab\r\ncd"), Decoded::Frame(frame(2, 4)));
        assert_eq!(decode(b"a\r\r\n"), Decoded::Frame(frame(2, 4)));
        assert_eq!(decode(b"a\rb\n"), Decoded::Frame(frame(3, 4)));
        assert_eq!(decode(b"\n"), Decoded::Frame(frame(0, 1)));
        assert_eq!(decode(b"\r\n"), Decoded::Frame(frame(0, 2)));
        assert_eq!(decode(b""), Decoded::Incomplete { needed: 1 });
        assert_eq!(decode(b"ab\r"), Decoded::Incomplete { needed: 4 });
    }

    #[test]
    fn last_line_without_end() {
        let finish = |rest: &[u8]| Lines::new().with_max_message(3).finish(rest);
        assert_eq!(finish(b""), Ok(None));
        assert_eq!(finish(b"abc"), Ok(Some(frame(3, 3))));
        assert_eq!(finish(b"abc\r"), Ok(Some(frame(3, 4))));
        assert_eq!(finish(b"a\nb"), Ok(Some(frame(1, 2))));
        assert_eq!(finish(b"abcd"), Err(WireError::beyond(3)));
    }

    #[test]
    fn the_limit_counts_neither_cr_nor_lf() {
        let decode = |input: &[u8]| Lines::new().with_max_message(3).decode(input, 0);
        assert_eq!(decode(b"abc\n"), Ok(Decoded::Frame(frame(3, 4))));
        assert_eq!(decode(b"abc\r\n"), Ok(Decoded::Frame(frame(3, 5))));
        assert_eq!(decode(b"abc\r"), Ok(Decoded::Incomplete { needed: 5 }));
        assert_eq!(decode(b"abcd\n"), Err(WireError::beyond(3)));
        assert_eq!(decode(b"abc\r\r\n"), Err(WireError::beyond(3)));
    }

    #[test]
    fn payloads_that_are_no_line() {
        let mut out = b"before".to_vec();
        for payload in ["a\nb", "\n", "a\r", "\r", "a\r\n"] {
            let error = Lines::new().encode(payload.as_bytes(), &mut out);
            assert!(matches!(error, Err(WireError::Invalid(_))), "{payload:?}");
        }
        assert_eq!(out, b"before");
        Lines::new().encode(b"a\rb", &mut out).unwrap();
        assert_eq!(out, b"beforea\rb\n");
    }
}
