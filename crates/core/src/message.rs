//! The unit that is sent and received: a [`Message`].

mod borrowed;

use std::fmt;
use std::ops::Deref;

use bytes::{Bytes, BytesMut};

pub use borrowed::{IntoMessage, MessageRef};

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
/// place, larger ones share a reference-counted buffer.
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
    Inline(Block),
    Shared { kind: MessageKind, bytes: Bytes },
}

/// A small message in place. The bytes come first and the length is as wide as a register: a
/// message is moved several times on its way, and a move that reads what was just written in
/// other pieces stalls the processor (measured: 20 ns per message).
#[derive(Clone, Copy)]
#[repr(C)]
struct Block {
    bytes: [u8; INLINE],
    len: Len,
}

/// Defines [`Len`] and the tables from lengths to it.
macro_rules! lengths {
    (binary: $($binary:ident)*; text: $first:ident $($text:ident)*;) => {
        /// The length, from 0 to [`INLINE`], plus 128 for text. An enum, so that what it cannot be
        /// tells the variants of [`Repr`] and `Option<Message>` apart without a tag of their own.
        #[derive(Clone, Copy)]
        #[repr(u64)]
        enum Len { $($binary,)* $first = TEXT, $($text,)* }

        const BINARY: [Len; INLINE + 1] = [$(Len::$binary,)*];
        const TEXTS: [Len; INLINE + 1] = [Len::$first, $(Len::$text,)*];
    };
}

const TEXT: u64 = 128;

lengths! {
    binary:
    B0 B1 B2 B3 B4 B5 B6 B7 B8 B9 B10 B11 B12 B13 B14 B15 B16 B17 B18 B19 B20 B21 B22 B23 B24 B25
    B26 B27 B28 B29 B30 B31 B32 B33 B34 B35 B36 B37 B38 B39 B40 B41 B42 B43 B44 B45 B46 B47 B48
    B49 B50 B51 B52 B53 B54 B55 B56 B57 B58 B59 B60 B61 B62 B63 B64;
    text:
    T0 T1 T2 T3 T4 T5 T6 T7 T8 T9 T10 T11 T12 T13 T14 T15 T16 T17 T18 T19 T20 T21 T22 T23 T24 T25
    T26 T27 T28 T29 T30 T31 T32 T33 T34 T35 T36 T37 T38 T39 T40 T41 T42 T43 T44 T45 T46 T47 T48
    T49 T50 T51 T52 T53 T54 T55 T56 T57 T58 T59 T60 T61 T62 T63 T64;
}

impl Len {
    #[inline(always)]
    fn new(len: usize, kind: MessageKind) -> Option<Self> {
        match kind {
            MessageKind::Binary => BINARY.get(len).copied(),
            MessageKind::Text => TEXTS.get(len).copied(),
        }
    }
}

impl Block {
    #[inline(always)]
    fn len(&self) -> usize {
        ((self.len as u64 % TEXT) as usize).min(INLINE)
    }

    #[inline(always)]
    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len()]
    }

    #[inline(always)]
    fn kind(&self) -> MessageKind {
        if self.len as u64 >= TEXT {
            MessageKind::Text
        } else {
            MessageKind::Binary
        }
    }
}

impl Message {
    /// A message that copies `bytes`.
    #[inline]
    #[must_use]
    pub fn copy_from(bytes: &[u8]) -> Self {
        Self::copied(bytes, MessageKind::Binary)
    }

    #[inline]
    fn copied(bytes: &[u8], kind: MessageKind) -> Self {
        match Len::new(bytes.len(), kind) {
            Some(len) => {
                let mut block = Block {
                    bytes: [0; INLINE],
                    len,
                };
                block.bytes[..bytes.len()].copy_from_slice(bytes);
                Self(Repr::Inline(block))
            }
            None => Self(Repr::Shared {
                kind,
                bytes: Bytes::copy_from_slice(bytes),
            }),
        }
    }

    /// The bytes.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline(block) => block.as_bytes(),
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
            Repr::Inline(block) => block.kind(),
            Repr::Shared { kind, .. } => *kind,
        }
    }

    /// The same bytes as another kind.
    #[must_use]
    pub fn with_kind(self, kind: MessageKind) -> Self {
        match self.0 {
            Repr::Inline(block) => Self::copied(block.as_bytes(), kind),
            Repr::Shared { bytes, .. } => Self(Repr::Shared { kind, bytes }),
        }
    }

    /// The bytes as [`Bytes`]: without a copy for messages that share a buffer.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        match self.0 {
            Repr::Inline(block) => Bytes::copy_from_slice(block.as_bytes()),
            Repr::Shared { bytes, .. } => bytes,
        }
    }

    /// The same message, borrowed.
    #[inline(always)]
    #[must_use]
    pub fn by_ref(&self) -> MessageRef<'_> {
        match &self.0 {
            Repr::Inline(block) => MessageRef {
                bytes: &block.bytes,
                len: block.len(),
                kind: block.kind(),
                shared: None,
            },
            Repr::Shared { kind, bytes } => MessageRef {
                bytes,
                len: bytes.len(),
                kind: *kind,
                shared: Some(bytes),
            },
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
        self.by_ref().fmt(f)
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

impl From<&Message> for Message {
    /// A clone.
    #[inline]
    fn from(message: &Message) -> Self {
        message.clone()
    }
}

impl From<&MessageRef<'_>> for Message {
    /// As [`MessageRef::to_message`].
    #[inline]
    fn from(message: &MessageRef<'_>) -> Self {
        message.to_message()
    }
}

impl From<MessageRef<'_>> for Message {
    /// As [`MessageRef::to_message`].
    #[inline]
    fn from(message: MessageRef<'_>) -> Self {
        message.to_message()
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
        assert!(Message::copy_from(&[1; INLINE]).by_ref().shared().is_none());
        let bytes = Bytes::from(vec![7; INLINE + 1]);
        let message = Message::from(bytes.clone());
        assert_eq!(message.as_bytes().as_ptr(), bytes.as_ptr());
        assert_eq!(message.into_bytes().as_ptr(), bytes.as_ptr());
    }

    #[test]
    fn a_message_is_small_enough_to_move() {
        assert_eq!(size_of::<Message>(), INLINE + 8);
    }
}
