//! What writes small messages into a queue in the fewest instructions: [`Pen`].

use super::LENGTH;
use crate::buffers::{BLOCK, SLACK, WriteBuffer};
use crate::message::MessageRef;

/// The end of a queue, apart from it: so little that all of it lives in registers in a loop that
/// writes many messages.
#[derive(Default)]
pub(crate) struct Pen {
    /// The encoded small messages at the end of the queue.
    tail: WriteBuffer,
    /// Where the messages have to end, because more would be too much for the queue or for the memory.
    stop: usize,
    /// The first place where a whole block would end behind that.
    last: usize,
    /// Only messages shorter than this may be written.
    quick: usize,
    /// Bytes that were in `tail` before, and how many more the queue may have.
    before: usize,
    room: usize,
    messages: usize,
}

impl Pen {
    /// One that writes messages shorter than `quick` behind `tail`, up to `room` bytes.
    #[inline(always)]
    pub(super) fn new(tail: WriteBuffer, quick: usize, room: usize) -> Self {
        // a whole block must be allowed
        let quick = if quick > SLACK { quick } else { 0 };
        let before = tail.len();
        let mut pen = Self {
            tail,
            stop: 0,
            last: 0,
            quick,
            before,
            room,
            messages: 0,
        };
        pen.set_stop();
        pen
    }

    #[inline(always)]
    fn set_stop(&mut self) {
        let room = self.room.saturating_sub(self.bytes());
        self.stop = if self.quick > 0 {
            self.tail.end_within(room)
        } else {
            0
        };
        self.last = (self.stop + 1).saturating_sub(BLOCK);
    }

    /// The same pen with room for `more` bytes, if that takes nothing but memory.
    pub(crate) fn with_room(mut self, more: usize) -> Self {
        if self.quick > 0 && self.tail.fits(LENGTH + more) {
            self.tail.reserve(LENGTH + more);
        }
        self.set_stop();
        self
    }

    /// Puts a message behind the others; `false` when it may not or there is no memory.
    #[inline(always)]
    pub(crate) fn push(&mut self, message: &MessageRef<'_>) -> bool {
        // a copy of a fixed size is a few instructions, one of a variable size a call
        let put = match message.block() {
            Some((block, len)) => {
                let header = (len as u32).to_be_bytes();
                self.tail.put_block(self.last, header, block, len)
            }
            None => {
                // no larger than `quick`, which fits
                let header = (message.len() as u32).to_be_bytes();
                message.len() < self.quick && self.tail.put(self.stop, header, message)
            }
        };
        self.messages += usize::from(put);
        put
    }

    /// Bytes and messages that it has written.
    #[inline(always)]
    pub(super) fn bytes(&self) -> usize {
        self.tail.len() - self.before
    }

    #[inline(always)]
    pub(super) fn messages(&self) -> usize {
        self.messages
    }

    #[inline(always)]
    pub(super) fn into_tail(self) -> WriteBuffer {
        self.tail
    }
}
