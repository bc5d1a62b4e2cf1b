//! The framings that configuration can name, as one type without indirection.

mod parse;

use std::sync::Arc;

pub use self::parse::ParseFramingError;
use crate::{Codec, Decoded, Delimiter, Frame, LengthPrefix, Lines, Raw, WireError};

/// How messages are delimited on a connection.
///
/// The default is [`LengthPrefix::new`]. As text, for configuration and URL queries
/// ([`FromStr`](std::str::FromStr) and [`Display`](std::fmt::Display), which agree):
///
/// | Text | Framing |
/// |---|---|
/// | `length` | a length of 4 bytes, big endian |
/// | `length:1`, `length:2`, `length:4`, `length:8` | a length of that many bytes, big endian |
/// | `length:2be`, `length:2le` … | the same with the byte order |
/// | `varint` | a length of 1 to 10 bytes, LEB128 |
/// | `lines` | lines of text |
/// | `delimiter:0d0a` | messages that end with these bytes, in hexadecimal |
/// | `raw` | no framing |
///
/// The text does not carry the limit: parsing gives
/// [`DEFAULT_MAX_MESSAGE`](crate::DEFAULT_MAX_MESSAGE), and
/// [`with_max_message`](Framing::with_max_message) changes it.
///
/// ```
/// use network_system_wire::{Codec, Framing};
///
/// let framing: Framing = "length:2le".parse()?;
/// assert_eq!(framing.to_string(), "length:2le");
/// assert_eq!(framing.with_max_message(1000).max_message(), 1000);
/// # Ok::<(), network_system_wire::ParseFramingError>(())
/// ```
#[derive(Debug, Clone)]
pub enum Framing {
    /// Each message behind its length.
    LengthPrefix(LengthPrefix),
    /// One message per line.
    Lines(Lines),
    /// Each message followed by a delimiter.
    Delimiter(Delimiter),
    /// Chunks as they come.
    Raw(Raw),
    /// Your own codec.
    Custom(Arc<dyn Codec>),
}

impl Framing {
    /// Your own codec as a framing.
    pub fn custom(codec: impl Codec) -> Self {
        Self::Custom(Arc::new(codec))
    }

    /// With another limit on the payload, in bytes. A custom codec has its own limit and stays as
    /// it is.
    #[must_use]
    pub fn with_max_message(self, max_message: usize) -> Self {
        match self {
            Self::LengthPrefix(codec) => codec.with_max_message(max_message).into(),
            Self::Lines(codec) => codec.with_max_message(max_message).into(),
            Self::Delimiter(codec) => codec.with_max_message(max_message).into(),
            Self::Raw(codec) => codec.with_max_message(max_message).into(),
            Self::Custom(_) => self,
        }
    }

    /// The codec inside, for what need not be fast.
    fn codec(&self) -> &dyn Codec {
        match self {
            Self::LengthPrefix(codec) => codec,
            Self::Lines(codec) => codec,
            Self::Delimiter(codec) => codec,
            Self::Raw(codec) => codec,
            Self::Custom(codec) => &**codec,
        }
    }

    /// Out of line, so that what is inlined into callers is the length prefix alone.
    #[inline(never)]
    fn decode_other(&self, input: &[u8], examined: usize) -> Result<Decoded, WireError> {
        self.codec().decode(input, examined)
    }

    #[inline(never)]
    fn header_other(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
        self.codec().header(payload, out)
    }

    #[inline(never)]
    fn encode_other(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
        self.codec().encode(payload, out)
    }
}

impl Default for Framing {
    fn default() -> Self {
        Self::LengthPrefix(LengthPrefix::new())
    }
}

/// Two custom codecs are equal if they are the same value in memory.
impl PartialEq for Framing {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::LengthPrefix(a), Self::LengthPrefix(b)) => a == b,
            (Self::Lines(a), Self::Lines(b)) => a == b,
            (Self::Delimiter(a), Self::Delimiter(b)) => a == b,
            (Self::Raw(a), Self::Raw(b)) => a == b,
            (Self::Custom(a), Self::Custom(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl Eq for Framing {}

impl Codec for Framing {
    #[inline]
    fn decode(&self, input: &[u8], examined: usize) -> Result<Decoded, WireError> {
        match self {
            Self::LengthPrefix(codec) => codec.decode(input, examined),
            _ => self.decode_other(input, examined),
        }
    }

    fn finish(&self, rest: &[u8]) -> Result<Option<Frame>, WireError> {
        self.codec().finish(rest)
    }

    #[inline]
    fn header(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
        match self {
            Self::LengthPrefix(codec) => codec.header(payload, out),
            _ => self.header_other(payload, out),
        }
    }

    #[inline]
    fn trailer(&self, payload: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::LengthPrefix(_) | Self::Raw(_) => {}
            _ => self.codec().trailer(payload, out),
        }
    }

    #[inline]
    fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
        match self {
            Self::LengthPrefix(codec) => codec.encode(payload, out),
            _ => self.encode_other(payload, out),
        }
    }

    #[inline]
    fn is_transparent(&self) -> bool {
        match self {
            Self::Custom(codec) => codec.is_transparent(),
            _ => true,
        }
    }

    fn max_message(&self) -> usize {
        self.codec().max_message()
    }
}

impl From<LengthPrefix> for Framing {
    fn from(codec: LengthPrefix) -> Self {
        Self::LengthPrefix(codec)
    }
}

impl From<Lines> for Framing {
    fn from(codec: Lines) -> Self {
        Self::Lines(codec)
    }
}

impl From<Delimiter> for Framing {
    fn from(codec: Delimiter) -> Self {
        Self::Delimiter(codec)
    }
}

impl From<Raw> for Framing {
    fn from(codec: Raw) -> Self {
        Self::Raw(codec)
    }
}

impl From<Arc<dyn Codec>> for Framing {
    fn from(codec: Arc<dyn Codec>) -> Self {
        Self::Custom(codec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Payload;

    /// Turns every byte round: not transparent, with its own limit and its own end.
    #[derive(Debug)]
    struct Inverted;

    impl Codec for Inverted {
        fn decode(&self, input: &[u8], _examined: usize) -> Result<Decoded, WireError> {
            let Some((length, rest)) = input.split_first() else {
                return Ok(Decoded::Incomplete { needed: 1 });
            };
            let consumed = 1 + usize::from(*length);
            let Some(payload) = rest.get(..consumed - 1) else {
                return Ok(Decoded::Incomplete { needed: consumed });
            };
            let payload = Payload::Owned(payload.iter().map(|byte| !byte).collect());
            Ok(Decoded::Frame(Frame { payload, consumed }))
        }

        fn header(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
            out.extend_from_slice(&[payload.len() as u8]);
            match payload.len() {
                0..=9 => Ok(()),
                // Too late on purpose: the length is out already.
                _ => Err(WireError::Invalid("too long".into())),
            }
        }

        fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
            self.header(payload, out)?;
            out.extend(payload.iter().map(|byte| !byte));
            Ok(())
        }

        fn is_transparent(&self) -> bool {
            false
        }

        fn max_message(&self) -> usize {
            9
        }
    }

    /// The same without its own `encode`.
    #[derive(Debug)]
    struct Careless;

    impl Codec for Careless {
        fn decode(&self, input: &[u8], examined: usize) -> Result<Decoded, WireError> {
            Inverted.decode(input, examined)
        }

        fn header(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
            Inverted.header(payload, out)
        }

        fn max_message(&self) -> usize {
            9
        }
    }

    #[test]
    fn custom_codecs_are_asked_for_everything() {
        let framing = Framing::custom(Inverted).with_max_message(5);
        assert_eq!(framing.max_message(), 9);
        assert!(!framing.is_transparent());
        let mut out = Vec::new();
        framing.encode(&[1, 2], &mut out).unwrap();
        assert_eq!(&out[..], [2, !1, !2]);
        let Ok(Decoded::Frame(frame)) = framing.decode(&out, 0) else {
            panic!("it is whole");
        };
        assert_eq!(frame.payload.slice(&out), Some(&[1, 2][..]));
        assert_eq!(framing.finish(&out), Ok(Some(frame)));
        assert_eq!(
            framing.finish(&out[..2]),
            Err(WireError::Truncated { have: 2, needed: 3 })
        );
        assert_eq!(framing.to_string(), "custom");
        assert_eq!(framing, framing.clone());
        assert_ne!(framing, Framing::custom(Inverted));
    }

    #[test]
    fn a_header_that_fails_late_leaves_no_trace() {
        let mut out = b"before".to_vec();
        assert!(
            Framing::custom(Careless)
                .encode(&[0; 10], &mut out)
                .is_err()
        );
        assert_eq!(out, b"before");
    }

    #[test]
    fn limits_are_set_in_every_codec() {
        for text in ["length", "varint", "lines", "delimiter:00", "raw"] {
            let framing: Framing = text.parse().unwrap();
            assert_eq!(framing.max_message(), crate::DEFAULT_MAX_MESSAGE, "{text}");
            let framing = framing.with_max_message(77);
            assert_eq!(framing.max_message(), 77, "{text}");
            assert!(framing.is_transparent());
        }
    }
}
