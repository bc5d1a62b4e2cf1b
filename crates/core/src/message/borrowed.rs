//! Messages that are not owned: [`MessageRef`], as handlers get them, and [`IntoMessage`], what can
//! be sent.

use std::fmt;
use std::ops::Deref;

use bytes::{Bytes, BytesMut};

use super::{INLINE, Message, MessageKind};
use crate::out_queue::ZERO_COPY;

/// One whole message where it lies: what a handler gets, without a copy or a reference count.
///
/// It can be read and sent as it is. [`to_message`](Self::to_message) keeps it.
///
/// ```
/// use network_system_core::Message;
///
/// let message = Message::from("hello");
/// let borrowed = message.by_ref();
/// assert_eq!(&borrowed[..], b"hello");
/// assert_eq!(borrowed.to_message(), message);
/// ```
#[derive(Clone, Copy, Default)]
pub struct MessageRef<'a> {
    /// The message, and maybe other bytes behind it: a copy of a fixed size that takes some of
    /// them along is a few instructions, one of a variable size a function call.
    pub(super) bytes: &'a [u8],
    /// At most `bytes.len()`.
    pub(super) len: usize,
    pub(super) kind: MessageKind,
    /// The buffer that `bytes` are in, when it can be shared.
    pub(super) shared: Option<&'a Bytes>,
}

impl<'a> MessageRef<'a> {
    /// The first `len` of `bytes`.
    #[inline(always)]
    pub(crate) fn new(bytes: &'a [u8], len: usize) -> Self {
        Self {
            bytes,
            len,
            kind: MessageKind::Binary,
            shared: None,
        }
    }

    /// The bytes.
    #[inline(always)]
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes.get(..self.len).unwrap_or(self.bytes)
    }

    /// The text, or `None` when the bytes are not UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&'a str> {
        std::str::from_utf8(self.as_bytes()).ok()
    }

    /// Text or binary.
    #[must_use]
    pub fn kind(&self) -> MessageKind {
        self.kind
    }

    /// The message to keep: a copy, except of a large message in a buffer of its own, which is
    /// shared.
    #[inline]
    #[must_use]
    pub fn to_message(&self) -> Message {
        let bytes = self.as_bytes();
        match self.shared {
            Some(shared) if bytes.len() > INLINE => {
                Message::from(shared.slice_ref(bytes)).with_kind(self.kind)
            }
            _ => Message::copied(bytes, self.kind),
        }
    }

    /// The message without its first `n` bytes (all of them when it is shorter).
    pub(crate) fn skip(&self, n: usize) -> Self {
        let n = n.min(self.len);
        Self {
            bytes: self.bytes.get(n..).unwrap_or_default(),
            len: self.len - n,
            ..*self
        }
    }

    /// The message as a block of a fixed size, and how many of its bytes are meant; `None` when it
    /// is larger, or lies at the end of its memory.
    #[inline(always)]
    pub(crate) fn block(&self) -> Option<(&'a [u8; INLINE], usize)> {
        if self.len > INLINE {
            return None;
        }
        Some((self.bytes.first_chunk()?, self.len))
    }

    /// The bytes as a buffer to write from, when they are in one that can be shared.
    pub(crate) fn shared(&self) -> Option<Bytes> {
        self.shared.map(|shared| shared.slice_ref(self.as_bytes()))
    }
}

impl Deref for MessageRef<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl AsRef<[u8]> for MessageRef<'_> {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl Eq for MessageRef<'_> {}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for MessageRef<'_> {
    fn eq(&self, other: &T) -> bool {
        self.as_bytes() == other.as_ref()
    }
}

impl fmt::Debug for MessageRef<'_> {
    /// The kind, the length and the first 32 bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self[..self.len().min(32)];
        let more = if shown.len() < self.len() { "…" } else { "" };
        let (kind, len) = (self.kind, self.len());
        write!(f, "{kind:?}({len} B, \"{}{more}\")", shown.escape_ascii())
    }
}

impl<'a> From<&'a [u8]> for MessageRef<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::new(bytes, bytes.len())
    }
}

impl<'a> From<&'a str> for MessageRef<'a> {
    fn from(text: &'a str) -> Self {
        Self {
            kind: MessageKind::Text,
            ..text.as_bytes().into()
        }
    }
}

impl<'a> From<&'a Message> for MessageRef<'a> {
    fn from(message: &'a Message) -> Self {
        message.by_ref()
    }
}

/// What can be sent: whatever becomes a [`Message`].
///
/// A type of your own needs no more than `impl From<Yours> for Message` and
/// `impl IntoMessage for Yours {}`.
pub trait IntoMessage: Into<Message> {
    /// Calls `with` with the message as it lies here, where it can be queued without becoming a
    /// [`Message`] first.
    #[inline(always)]
    fn lend<R>(&self, with: impl FnOnce(&MessageRef<'_>) -> R) -> Option<R> {
        let _ = with;
        None
    }
}

macro_rules! into_message {
    ($([$($generics:tt)*] $type:ty: $self:ident => $lent:expr),* $(,)?) => {
        $(impl<$($generics)*> IntoMessage for $type {
            #[inline(always)]
            fn lend<R>(&$self, with: impl FnOnce(&MessageRef<'_>) -> R) -> Option<R> {
                Some(with($lent))
            }
        })*
    };
}

into_message!(
    [] Message: self => &self.by_ref(),
    [] &Message: self => &(**self).by_ref(),
    [] MessageRef<'_>: self => self,
    [] &MessageRef<'_>: self => self,
    [] Bytes: self => &MessageRef { shared: Some(self), ..self[..].into() },
    [] &str: self => &(*self).into(),
    [] &[u8]: self => &(*self).into(),
    [const N: usize] &[u8; N]: self => &self[..].into(),
    [const N: usize] [u8; N]: self => &self[..].into(),
);

/// What becomes a message without a copy when it is large.
macro_rules! into_message_if_large {
    ($($type:ty),*) => {
        $(impl IntoMessage for $type {
            #[inline(always)]
            fn lend<R>(&self, with: impl FnOnce(&MessageRef<'_>) -> R) -> Option<R> {
                (self.len() < ZERO_COPY).then(|| with(&self[..].into()))
            }
        })*
    };
}

into_message_if_large!(BytesMut, Vec<u8>, String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_its_message_and_nothing_behind_it() {
        let memory: Vec<u8> = (0..200).collect();
        for len in [0, 1, 63, 64, 65, 200] {
            let borrowed = MessageRef::new(&memory, len);
            assert_eq!(borrowed, memory[..len]);
            assert_eq!(borrowed.to_message(), memory[..len]);
            assert_eq!(borrowed.block().is_some(), len <= INLINE);
            for n in [0, 1, 64, 300] {
                assert_eq!(borrowed.skip(n), memory[n.min(len)..len]);
                assert_eq!(borrowed.skip(n).to_message(), memory[n.min(len)..len]);
            }
        }
        assert!(MessageRef::new(&memory[..10], 10).block().is_none());
    }

    #[test]
    fn large_messages_are_kept_without_a_copy() {
        let bytes = Bytes::from(vec![7; 100]);
        let message = Message::from(bytes.clone()).with_kind(MessageKind::Text);
        let kept = message.by_ref().skip(3).to_message();
        assert_eq!((kept.kind(), kept.len()), (MessageKind::Text, 97));
        assert_eq!(kept.as_bytes().as_ptr(), bytes[3..].as_ptr());
        let small = message.by_ref().skip(50).to_message();
        assert_ne!(small.as_bytes().as_ptr(), bytes[50..].as_ptr());
    }
}
