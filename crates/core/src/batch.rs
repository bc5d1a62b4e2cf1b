//! Several messages that are sent as one: [`MessageBatch`].

use crate::message::Message;

/// Messages that are collected first and then queued together.
///
/// ```
/// use network_system_core::MessageBatch;
///
/// let mut batch = MessageBatch::new();
/// batch.push("one");
/// batch.push("two");
/// assert_eq!((batch.len(), batch.bytes()), (2, 6));
/// ```
#[derive(Clone, Debug, Default)]
pub struct MessageBatch {
    messages: Vec<Message>,
    bytes: usize,
}

impl MessageBatch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a message at the end.
    pub fn push(&mut self, message: impl Into<Message>) {
        let message = message.into();
        self.bytes += message.len();
        self.messages.push(message);
    }

    /// How many messages there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The bytes of all messages, without headers.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Removes all messages.
    pub fn clear(&mut self) {
        self.messages.clear();
        self.bytes = 0;
    }

    /// The messages.
    #[must_use]
    pub fn into_messages(self) -> Vec<Message> {
        self.messages
    }
}

impl<M: Into<Message>> Extend<M> for MessageBatch {
    fn extend<I: IntoIterator<Item = M>>(&mut self, messages: I) {
        messages.into_iter().for_each(|message| self.push(message));
    }
}

impl<M: Into<Message>> FromIterator<M> for MessageBatch {
    fn from_iter<I: IntoIterator<Item = M>>(messages: I) -> Self {
        let mut batch = Self::new();
        batch.extend(messages);
        batch
    }
}

impl<M: Into<Message>> From<Vec<M>> for MessageBatch {
    fn from(messages: Vec<M>) -> Self {
        messages.into_iter().collect()
    }
}
