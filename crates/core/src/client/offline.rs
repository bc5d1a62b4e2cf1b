//! Messages that wait for a connection, bounded in bytes.

use std::collections::VecDeque;

use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;

/// What an entry costs besides its bytes.
const ENTRY: usize = size_of::<Message>();

/// Messages that wait for a connection.
pub(crate) struct Offline {
    messages: VecDeque<Message>,
    bytes: usize,
    most: usize,
}

impl Offline {
    /// An empty queue for at most `most` bytes.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            messages: VecDeque::new(),
            bytes: 0,
            most,
        }
    }

    /// Keeps a message.
    pub(crate) fn push(&mut self, message: Message) -> Result<()> {
        let size = message.len() + ENTRY;
        if self.bytes + size > self.most {
            let reason = if self.most == 0 {
                "there is no connection, and the offline queue is off".to_owned()
            } else {
                format!(
                    "there is no connection, and {} bytes wait for one already",
                    self.bytes
                )
            };
            return Err(
                Error::new(ErrorKind::QueueFull, "keep a message for later").because(reason)
            );
        }
        self.bytes += size;
        self.messages.push_back(message);
        Ok(())
    }

    /// The first message, which stays until [`pop`](Self::pop).
    pub(crate) fn front(&self) -> Option<Message> {
        self.messages.front().cloned()
    }

    /// Removes the first message.
    pub(crate) fn pop(&mut self) {
        if let Some(message) = self.messages.pop_front() {
            self.bytes -= message.len() + ENTRY;
        }
        if self.messages.is_empty() {
            self.messages = VecDeque::new();
        }
    }

    /// Messages and bytes.
    pub(crate) fn level(&self) -> (usize, usize) {
        (self.messages.len(), self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_in_order() {
        let mut queue = Offline::new(2 * ENTRY + 10);
        queue.push("aaaaa".into()).unwrap();
        queue.push("bbbbb".into()).unwrap();
        assert!(queue.push("".into()).unwrap_err().is_full());
        assert_eq!(queue.level(), (2, 2 * ENTRY + 10));
        assert_eq!(queue.front().unwrap(), "aaaaa");
        queue.pop();
        assert_eq!(queue.front().unwrap(), "bbbbb");
        queue.pop();
        queue.pop();
        assert_eq!(queue.level(), (0, 0));
        assert!(Offline::new(0).push("x".into()).is_err());
    }
}
