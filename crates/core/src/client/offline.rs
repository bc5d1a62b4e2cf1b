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
    /// How many of the first messages a connection has taken, which may not have written them yet;
    /// and their size.
    taken: (usize, usize),
    most: usize,
}

impl Offline {
    /// An empty queue for at most `most` bytes.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            messages: VecDeque::new(),
            bytes: 0,
            taken: (0, 0),
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

    /// The first message that the connection has not taken.
    pub(crate) fn next(&self) -> Option<Message> {
        self.messages.get(self.taken.0).cloned()
    }

    /// The connection has taken that message; it stays until it is [written](Self::written).
    pub(crate) fn take(&mut self) {
        if let Some(message) = self.messages.get(self.taken.0) {
            self.taken.0 += 1;
            self.taken.1 += message.len() + ENTRY;
        }
    }

    /// How many messages the connection has taken and not written.
    pub(crate) fn taken(&self) -> usize {
        self.taken.0
    }

    /// Removes the first messages, which the connection has taken.
    pub(crate) fn written(&mut self, messages: usize) {
        for _ in 0..messages.min(self.taken.0) {
            if let Some(message) = self.messages.pop_front() {
                let size = message.len() + ENTRY;
                self.bytes -= size;
                self.taken.0 -= 1;
                self.taken.1 -= size;
            }
        }
        if self.messages.is_empty() {
            self.messages = VecDeque::new();
        }
    }

    /// The connection is lost: what it has not written waits for the next one. How many there are.
    pub(crate) fn put_back(&mut self) -> usize {
        std::mem::take(&mut self.taken).0
    }

    /// Messages and bytes that no connection has taken.
    pub(crate) fn level(&self) -> (usize, usize) {
        (
            self.messages.len() - self.taken.0,
            self.bytes - self.taken.1,
        )
    }

    /// Removes all; how many there were.
    pub(crate) fn clear(&mut self) -> usize {
        let messages = std::mem::take(&mut self.messages);
        (self.bytes, self.taken) = (0, (0, 0));
        messages.len()
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
        assert_eq!(queue.next().unwrap(), "aaaaa");
        queue.take();
        assert_eq!(queue.next().unwrap(), "bbbbb");
        assert_eq!(queue.level(), (1, ENTRY + 5));
        assert!(queue.push("".into()).unwrap_err().is_full());
        queue.take();
        queue.take();
        assert_eq!((queue.next(), queue.taken()), (None, 2));
        // one is written, and the other one is when the connection is lost
        queue.written(1);
        assert_eq!(queue.put_back(), 1);
        assert_eq!(queue.next().unwrap(), "bbbbb");
        queue.written(1);
        assert_eq!(queue.level(), (1, ENTRY + 5), "nobody has taken it");
        assert_eq!(queue.clear(), 1);
        assert_eq!(queue.level(), (0, 0));
        assert!(Offline::new(0).push("x".into()).is_err());
    }
}
