//! The unit that is sent and received: a [`Message`].

use std::fmt;
use std::ops::Deref;

use bytes::{Bytes, BytesMut};

/// Messages up to this many bytes live inside the [`Message`] itself.
///
/// A small message is cheaper to copy than to count references to: two atomic operations cost more
/// than moving one cache line.
pub(crate) const INLINE: usize = 64;

/// Whether a message is text or bytes. Transports that tell the two apart (WebSocket) carry it;
/// the others deliver everything as [`MessageKind::Binary`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// Any bytes.
    #[default]
    Binary,
    /// Valid UTF-8.
    Text,
}

/// One whole message: some bytes and their [`MessageKind`].
///
/// Cheap to clone and to send to other threads. Small messages (64 bytes or less) are stored in
/// place, larger ones share a reference-counted buffer. A received message may share the
/// connection's read buffer; one that is kept for long should be [compacted](Message::compact).
///
/// ```
/// use network_system_core::Message;
///
/// let message = Message::from("hello");
/// assert_eq!(&message[..], b"hello");
/// assert_eq!(message.as_str(), Some("hello"));
/// ```
#[derive(Clone)]
pub struct Message(Repr);

#[derive(Clone)]
enum Repr {
    Inline {
        len: u8,
        kind: MessageKind,
        bytes: [u8; INLINE],
    },
    Shared {
        kind: MessageKind,
        bytes: Bytes,
    },
}

impl Message {
    /// A message that copies `bytes`.
    #[inline]
    #[must_use]
    pub fn copy_from(bytes: &[u8]) -> Self {
        Self::copied(bytes, MessageKind::Binary)
    }

    /// A message that copies `bytes[start..start + len]`, reading past its end where it can: a copy
    /// of a fixed size is a few instructions, one of a variable size is a function call.
    ///
    /// `None` when the range does not lie in `bytes` or is larger than [`INLINE`].
    #[inline]
    pub(crate) fn inline_at(bytes: &[u8], start: usize, len: usize) -> Option<Self> {
        if len > INLINE {
            return None;
        }
        let mut inline = [0; INLINE];
        match bytes.get(start..).and_then(<[u8]>::first_chunk::<INLINE>) {
            Some(block) => inline = *block,
            None => inline[..len].copy_from_slice(bytes.get(start..start.checked_add(len)?)?),
        }
        Some(Self(Repr::Inline {
            len: len as u8,
            kind: MessageKind::Binary,
            bytes: inline,
        }))
    }

    #[inline]
    fn copied(bytes: &[u8], kind: MessageKind) -> Self {
        if bytes.len() <= INLINE {
            let mut inline = [0; INLINE];
            inline[..bytes.len()].copy_from_slice(bytes);
            Self(Repr::Inline {
                len: bytes.len() as u8,
                kind,
                bytes: inline,
            })
        } else {
            Self(Repr::Shared {
                kind,
                bytes: Bytes::copy_from_slice(bytes),
            })
        }
    }

    /// The bytes.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes, .. } => &bytes[..usize::from(*len).min(INLINE)],
            Repr::Shared { bytes, .. } => bytes,
        }
    }

    /// The text, or `None` when the bytes are not UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(self.as_bytes()).ok()
    }

    /// Text or binary.
    #[must_use]
    pub fn kind(&self) -> MessageKind {
        match &self.0 {
            Repr::Inline { kind, .. } | Repr::Shared { kind, .. } => *kind,
        }
    }

    /// The same bytes as another kind.
    #[must_use]
    pub fn with_kind(mut self, new: MessageKind) -> Self {
        match &mut self.0 {
            Repr::Inline { kind, .. } | Repr::Shared { kind, .. } => *kind = new,
        }
        self
    }

    /// The bytes as [`Bytes`]: without a copy for messages that share a buffer.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        match self.0 {
            Repr::Inline { .. } => Bytes::copy_from_slice(self.as_bytes()),
            Repr::Shared { bytes, .. } => bytes,
        }
    }

    /// The same message in memory of its own.
    ///
    /// A received message is usually a slice of a read buffer of up to 256 KiB and keeps all of it
    /// alive. Compact what you store for long.
    #[must_use]
    pub fn compact(self) -> Self {
        match self.0 {
            Repr::Inline { .. } => self,
            Repr::Shared { kind, bytes } => Self::copied(&bytes, kind),
        }
    }

    /// The shared buffer, when there is one.
    pub(crate) fn shared(&self) -> Option<&Bytes> {
        match &self.0 {
            Repr::Inline { .. } => None,
            Repr::Shared { bytes, .. } => Some(bytes),
        }
    }

    /// The message without its first `n` bytes (all of them when it is shorter).
    pub(crate) fn skip(self, n: usize) -> Self {
        let n = n.min(self.len());
        match self.0 {
            Repr::Inline { len, kind, bytes } => {
                Self::copied(&bytes[n..usize::from(len).min(INLINE)], kind)
            }
            Repr::Shared { kind, bytes } => Self(Repr::Shared {
                kind,
                bytes: bytes.slice(n..),
            }),
        }
    }
}

impl Deref for Message {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl Default for Message {
    fn default() -> Self {
        Self::copy_from(&[])
    }
}

impl Eq for Message {}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Message {
    fn eq(&self, other: &T) -> bool {
        self.as_bytes() == other.as_ref()
    }
}

impl fmt::Debug for Message {
    /// The kind, the length and the first 32 bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.as_bytes()[..self.len().min(32)];
        let more = if shown.len() < self.len() { "…" } else { "" };
        write!(
            f,
            "{:?}({} B, \"{}{more}\")",
            self.kind(),
            self.len(),
            shown.escape_ascii()
        )
    }
}

impl From<Bytes> for Message {
    /// Takes the buffer as it is, without a copy.
    #[inline]
    fn from(bytes: Bytes) -> Self {
        Self(Repr::Shared {
            kind: MessageKind::Binary,
            bytes,
        })
    }
}

impl From<BytesMut> for Message {
    fn from(bytes: BytesMut) -> Self {
        bytes.freeze().into()
    }
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::from(text.into_bytes()).with_kind(MessageKind::Text)
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self::copied(text.as_bytes(), MessageKind::Text)
    }
}

impl From<&[u8]> for Message {
    fn from(bytes: &[u8]) -> Self {
        Self::copy_from(bytes)
    }
}

impl<const N: usize> From<&[u8; N]> for Message {
    fn from(bytes: &[u8; N]) -> Self {
        Self::copy_from(bytes)
    }
}

impl<const N: usize> From<[u8; N]> for Message {
    fn from(bytes: [u8; N]) -> Self {
        Self::copy_from(&bytes)
    }
}

impl From<Message> for Bytes {
    fn from(message: Message) -> Self {
        message.into_bytes()
    }
}

impl From<Message> for Vec<u8> {
    fn from(message: Message) -> Self {
        message.as_bytes().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_messages_are_inline_and_large_ones_keep_the_buffer() {
        assert!(Message::copy_from(&[1; INLINE]).shared().is_none());
        let bytes = Bytes::from(vec![7; INLINE + 1]);
        let message = Message::from(bytes.clone());
        assert_eq!(message.as_bytes().as_ptr(), bytes.as_ptr());
        assert_eq!(message.into_bytes().as_ptr(), bytes.as_ptr());
    }

    #[test]
    fn inline_at_copies_exactly_the_range_wherever_it_lies() {
        let bytes: Vec<u8> = (0..200).collect();
        for start in 0..200 {
            for len in 0..=INLINE {
                let got = Message::inline_at(&bytes, start, len);
                match bytes.get(start..start + len) {
                    Some(want) => assert_eq!(got.expect("in range"), want),
                    None => assert!(got.is_none(), "{start} {len}"),
                }
            }
        }
        assert!(Message::inline_at(&bytes, 0, INLINE + 1).is_none());
    }

    #[test]
    fn skip_and_compact_keep_the_rest() {
        for size in [0, 1, 9, 64, 65, 1000] {
            let bytes: Vec<u8> = (0..size).map(|n| n as u8).collect();
            for n in [0, 1, 9, 2000] {
                let rest = Message::from(bytes.clone()).skip(n).compact();
                assert_eq!(rest, bytes[n.min(bytes.len())..]);
                assert_eq!(Message::copy_from(&bytes).skip(n), rest);
            }
        }
    }

    #[test]
    fn a_message_is_small_enough_to_move() {
        assert!(size_of::<Message>() <= 72, "{}", size_of::<Message>());
    }
}
