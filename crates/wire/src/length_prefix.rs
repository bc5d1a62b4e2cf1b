//! Messages behind their length: the default framing, and the only one on the fastest path.

use bytes::BufMut;

use crate::error::check_size;
use crate::{Codec, DEFAULT_MAX_MESSAGE, Decoded, Frame, Payload, WireError, varint};

/// How many bytes the length takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Width {
    /// One byte: messages up to 255 bytes.
    U8,
    /// Two bytes: messages up to 64 KiB less one.
    U16,
    /// Four bytes: messages up to 4 GiB less one.
    #[default]
    U32,
    /// Eight bytes.
    U64,
    /// Unsigned LEB128, as in Protocol Buffers: 1 to 10 bytes, 1 for messages up to 127 bytes. Only
    /// the shortest spelling of a length is accepted.
    Varint,
}

impl Width {
    /// Largest length that can be written.
    pub const fn max_length(self) -> u64 {
        match self {
            Self::U8 => u8::MAX as u64,
            Self::U16 => u16::MAX as u64,
            Self::U32 => u32::MAX as u64,
            Self::U64 | Self::Varint => u64::MAX,
        }
    }
}

/// Which byte of the length comes first. It says nothing for [`Width::U8`] and [`Width::Varint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ByteOrder {
    /// The most significant one, as is usual in network protocols.
    #[default]
    Big,
    /// The least significant one.
    Little,
}

/// Each message behind its length; the length counts the payload only, and 0 is legal.
///
/// The default is 4 bytes, big endian, and messages up to [`DEFAULT_MAX_MESSAGE`].
///
/// ```
/// use network_system_wire::{ByteOrder, LengthPrefix, Width};
///
/// const SMALL: LengthPrefix = LengthPrefix::new()
///     .with_width(Width::U16)
///     .with_order(ByteOrder::Little)
///     .with_max_message(1024);
/// assert_eq!(SMALL.max_message, 1024);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LengthPrefix {
    /// How many bytes the length takes.
    pub width: Width,
    /// Which of them comes first.
    pub order: ByteOrder,
    /// Largest payload in bytes, in either direction. A width that cannot express it lowers it.
    pub max_message: usize,
}

impl Default for LengthPrefix {
    fn default() -> Self {
        Self::new()
    }
}

impl LengthPrefix {
    /// The default: 4 bytes, big endian, messages up to [`DEFAULT_MAX_MESSAGE`].
    pub const fn new() -> Self {
        Self {
            width: Width::U32,
            order: ByteOrder::Big,
            max_message: DEFAULT_MAX_MESSAGE,
        }
    }

    /// A length of 1 to 10 bytes, see [`Width::Varint`].
    pub const fn varint() -> Self {
        Self::new().with_width(Width::Varint)
    }

    /// With another width of the length.
    #[must_use]
    pub const fn with_width(mut self, width: Width) -> Self {
        self.width = width;
        self
    }

    /// With another byte order of the length.
    #[must_use]
    pub const fn with_order(mut self, order: ByteOrder) -> Self {
        self.order = order;
        self
    }

    /// With another limit on the payload, in bytes.
    #[must_use]
    pub const fn with_max_message(mut self, max_message: usize) -> Self {
        self.max_message = max_message;
        self
    }

    /// Appends the header of a payload of `len` bytes, for a caller whose payload is in several
    /// pieces.
    ///
    /// # Errors
    ///
    /// [`WireError::MessageTooLarge`] above the limit; `out` is as it was then.
    #[inline]
    pub fn put_length(&self, len: usize, out: &mut Vec<u8>) -> Result<(), WireError> {
        if self.is_default_layout()
            && len <= self.max_message
            && let Ok(length) = u32::try_from(len)
        {
            out.put_u32(length);
            return Ok(());
        }
        self.put_other_length(len, out)
    }

    /// The length of the payload behind the 4 bytes of its header, when `input` begins with a whole
    /// frame in the default layout; `None` in every other case, for [`decode`](Codec::decode) to
    /// tell. It says no more than `decode`, with a result that fits a register.
    #[inline(always)]
    pub fn whole(&self, input: &[u8]) -> Option<usize> {
        let (length, rest) = input.split_first_chunk()?;
        let length = u32::from_be_bytes(*length) as usize;
        (self.is_default_layout() && length <= self.max_message && length <= rest.len())
            .then_some(length)
    }

    /// Whether the length takes 4 bytes, big endian.
    #[inline]
    pub const fn is_default_layout(&self) -> bool {
        matches!((self.width, self.order), (Width::U32, ByteOrder::Big))
    }

    /// Every layout, and the errors of all. Out of line to keep the default layout small where it
    /// is inlined.
    #[inline(never)]
    fn put_other_length(&self, len: usize, out: &mut Vec<u8>) -> Result<(), WireError> {
        check_size(len, self.max_message())?;
        // No cast below loses bits: `max_message()` is within what the width can express.
        let length = len as u64;
        match (self.width, self.order) {
            (Width::U8, _) => out.put_u8(length as u8),
            (Width::U16, ByteOrder::Big) => out.put_u16(length as u16),
            (Width::U16, ByteOrder::Little) => out.put_u16_le(length as u16),
            (Width::U32, ByteOrder::Big) => out.put_u32(length as u32),
            (Width::U32, ByteOrder::Little) => out.put_u32_le(length as u32),
            (Width::U64, ByteOrder::Big) => out.put_u64(length),
            (Width::U64, ByteOrder::Little) => out.put_u64_le(length),
            (Width::Varint, _) => varint::put(length, out),
        }
        Ok(())
    }

    #[inline(never)]
    fn decode_other(&self, input: &[u8]) -> Result<Decoded, WireError> {
        match self.read_length(input)? {
            Some((length, header)) => self.frame(input.len(), header, length),
            None => Ok(Decoded::Incomplete {
                needed: match self.width {
                    Width::U8 => 1,
                    Width::U16 => 2,
                    Width::U32 => 4,
                    Width::U64 => 8,
                    Width::Varint => input.len() + 1,
                },
            }),
        }
    }

    /// The announced length and how many bytes it takes; `None` if they have not all arrived.
    fn read_length(&self, input: &[u8]) -> Result<Option<(u64, usize)>, WireError> {
        let big = self.order == ByteOrder::Big;
        Ok(match self.width {
            Width::U8 => input.first().map(|byte| (u64::from(*byte), 1)),
            Width::U16 => input.first_chunk().map(|bytes| {
                let length = if big {
                    u16::from_be_bytes(*bytes)
                } else {
                    u16::from_le_bytes(*bytes)
                };
                (u64::from(length), 2)
            }),
            Width::U32 => input.first_chunk().map(|bytes| {
                let length = if big {
                    u32::from_be_bytes(*bytes)
                } else {
                    u32::from_le_bytes(*bytes)
                };
                (u64::from(length), 4)
            }),
            Width::U64 => input.first_chunk().map(|bytes| {
                let length = if big {
                    u64::from_be_bytes(*bytes)
                } else {
                    u64::from_le_bytes(*bytes)
                };
                (length, 8)
            }),
            Width::Varint => varint::read(input)?,
        })
    }

    /// The answer once a length has been read from the first `header` of `available` bytes.
    #[inline]
    fn frame(&self, available: usize, header: usize, length: u64) -> Result<Decoded, WireError> {
        if length > self.max_message as u64 {
            return Err(WireError::too_large(length, self.max_message));
        }
        let length = length as usize; // fits: it is at most `max_message`
        if available - header < length {
            return Ok(Decoded::Incomplete {
                needed: header.saturating_add(length),
            });
        }
        let consumed = header + length;
        Ok(Decoded::Frame(Frame {
            payload: Payload::Range(header..consumed),
            consumed,
        }))
    }
}

impl Codec for LengthPrefix {
    #[inline]
    fn decode(&self, input: &[u8], _examined: usize) -> Result<Decoded, WireError> {
        if !self.is_default_layout() {
            return self.decode_other(input);
        }
        match input.first_chunk() {
            Some(bytes) => self.frame(input.len(), 4, u64::from(u32::from_be_bytes(*bytes))),
            None => Ok(Decoded::Incomplete { needed: 4 }),
        }
    }

    #[inline]
    fn header(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
        self.put_length(payload.len(), out)
    }

    #[inline]
    fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
        self.put_length(payload.len(), out)?;
        out.extend_from_slice(payload);
        Ok(())
    }

    #[inline]
    fn max_message(&self) -> usize {
        usize::try_from(self.width.max_length())
            .map_or(self.max_message, |max| max.min(self.max_message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(codec: LengthPrefix, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        codec.encode(payload, &mut out).unwrap();
        out.to_vec()
    }

    #[test]
    fn layouts() {
        let (big, little) = (ByteOrder::Big, ByteOrder::Little);
        for (width, order, header) in [
            (Width::U8, big, &[3_u8][..]),
            (Width::U8, little, &[3]),
            (Width::U16, big, &[0, 3]),
            (Width::U16, little, &[3, 0]),
            (Width::U32, big, &[0, 0, 0, 3]),
            (Width::U32, little, &[3, 0, 0, 0]),
            (Width::U64, big, &[0, 0, 0, 0, 0, 0, 0, 3]),
            (Width::U64, little, &[3, 0, 0, 0, 0, 0, 0, 0]),
            (Width::Varint, big, &[3]),
        ] {
            let codec = LengthPrefix::new().with_width(width).with_order(order);
            let bytes = encoded(codec, b"abc");
            assert_eq!(bytes, [header, b"abc"].concat(), "{codec:?}");
            let frame = Frame {
                payload: Payload::Range(header.len()..bytes.len()),
                consumed: bytes.len(),
            };
            assert_eq!(codec.decode(&bytes, 0), Ok(Decoded::Frame(frame)));
        }
        assert_eq!(
            encoded(LengthPrefix::varint(), &[7; 300])[..3],
            [0xac, 2, 7]
        );
    }

    #[test]
    fn incomplete_names_the_whole_frame_once_the_length_is_there() {
        let codec = LengthPrefix::default();
        let needed = |input: &[u8]| match codec.decode(input, 0) {
            Ok(Decoded::Incomplete { needed }) => needed,
            other => panic!("{other:?}"),
        };
        assert_eq!(needed(b""), 4);
        assert_eq!(needed(&[0, 0, 1]), 4);
        assert_eq!(needed(&[0, 0, 1, 0]), 260);
        assert_eq!(needed(&[0, 0, 1, 0, 9, 9]), 260);
    }

    #[test]
    fn whole_says_what_decode_says() {
        for max in [2, 3, 1000] {
            for layout in [LengthPrefix::default(), LengthPrefix::varint()] {
                let codec = layout.with_max_message(max);
                let input = [0, 0, 0, 3, 1, 2, 3, 4];
                for end in 0..=input.len() {
                    let decoded = codec.decode(&input[..end], 0);
                    let whole = codec.whole(&input[..end]);
                    if layout == LengthPrefix::default() {
                        assert_eq!(matches!(decoded, Ok(Decoded::Frame(_))), whole == Some(3));
                    } else {
                        assert_eq!(whole, None);
                    }
                }
            }
        }
    }

    #[test]
    fn empty_messages_are_legal() {
        let codec = LengthPrefix::default();
        assert_eq!(encoded(codec, b""), [0; 4]);
        let frame = Frame {
            payload: Payload::Range(4..4),
            consumed: 4,
        };
        assert_eq!(codec.decode(&[0; 9], 0), Ok(Decoded::Frame(frame)));
    }

    #[test]
    fn default_limit() {
        let codec = LengthPrefix::default();
        assert_eq!(codec.max_message(), 16 * 1024 * 1024);
        assert!(codec.decode(&[1, 0, 0, 0], 0).is_ok());
        let error = codec.decode(&[1, 0, 0, 1], 0).unwrap_err();
        assert_eq!(
            error.to_string(),
            "message too large: 16777217 bytes, and the limit is 16777216 bytes"
        );
    }

    #[test]
    fn a_narrow_length_lowers_the_limit() {
        let codec = LengthPrefix::new().with_width(Width::U8);
        assert_eq!(codec.max_message(), 255);
        let mut out = b"before".to_vec();
        let error = codec.put_length(256, &mut out);
        let (length, limit) = (256, 255);
        assert_eq!(error, Err(WireError::MessageTooLarge { length, limit }));
        assert_eq!(out, b"before");
    }

    /// Only the length is looked at, so this works without memory for such a payload.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn lengths_beyond_four_bytes() {
        let len = u32::MAX as usize + 1;
        let codec = LengthPrefix::new().with_max_message(usize::MAX);
        let mut out = Vec::new();
        assert!(codec.put_length(len - 1, &mut out).is_ok());
        assert_eq!(&out[..], [0xff; 4]);
        assert!(codec.put_length(len, &mut out).is_err());
        out.clear();
        let wide = codec.with_width(Width::U64);
        assert!(wide.put_length(len, &mut out).is_ok());
        assert_eq!(&out[..], [0, 0, 0, 1, 0, 0, 0, 0]);
    }
}
