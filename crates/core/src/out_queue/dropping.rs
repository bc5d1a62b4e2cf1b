//! Drops the oldest messages of a queue. What stands before them and may not be dropped is moved into
//! a queue of its own, once, so that no later drop has to pass it by.

use super::chunk::Chunk;
use super::{OutQueue, What, ZERO_COPY};
use crate::message::Message;

impl OutQueue {
    /// Drops the oldest messages, but never the newest, nor what the peer or the protocol waits
    /// for, until at most `most` bytes are queued; how many were dropped.
    pub(crate) fn drop_to(&mut self, most: usize) -> u64 {
        let mut dropped = 0;
        while self.bytes > most && self.drop_oldest(self.messages.saturating_sub(1)).is_some() {
            dropped += 1;
        }
        dropped
    }

    /// Drops the oldest of the first `among` messages that may be dropped and of which nothing has
    /// been written yet; its size in bytes, or `None` when there is none or sizes are not tracked.
    pub(super) fn drop_oldest(&mut self, among: usize) -> Option<usize> {
        self.set_apart();
        let before = self.kept.as_ref().map_or(0, |kept| kept.messages);
        if before >= among {
            return None;
        }
        let size = self.sizes.as_mut()?.pop_front()?.size;
        self.split_front(size, 1)
            .into_iter()
            .for_each(Chunk::release);
        self.bytes -= size;
        self.messages -= 1;
        Some(size)
    }

    /// Moves what stands before the oldest message that may be dropped out of the way.
    fn set_apart(&mut self) {
        let (mut bytes, mut messages) = (0, 0);
        while let Some(sizes) = &mut self.sizes
            && let Some(first) = sizes.front().copied()
            // one that is partly written must be finished, or the peer loses the frame boundary
            && (self.partial > 0 || first.what != What::Message)
        {
            step();
            sizes.pop_front();
            let kept = self.kept.get_or_insert_with(|| Box::new(Self::new(true)));
            if self.partial > 0 {
                // the very first of all, so nothing has been set apart before
                kept.partial = std::mem::take(&mut self.partial);
            }
            if first.what.is_answer() {
                kept.answers += first.size;
            }
            kept.sizes.get_or_insert_default().push_back(first);
            kept.bytes += first.size;
            kept.messages += 1;
            bytes += first.size;
            messages += 1;
        }
        if messages == 0 {
            return;
        }
        let front = self.split_front(bytes, messages);
        if let Some(kept) = &mut self.kept {
            front.into_iter().for_each(|chunk| kept.put_chunk(chunk));
        }
    }

    /// Puts a chunk at the end, whose bytes and messages are counted already.
    fn put_chunk(&mut self, chunk: Chunk) {
        if chunk.is_bytes() && chunk.len() < ZERO_COPY {
            self.room(chunk.len());
            self.tail.extend(chunk.bytes());
            chunk.release();
        } else {
            self.seal();
            self.chunks.push_back(chunk);
        }
    }

    /// Moves what `other` has set apart behind what is queued here, up to about `most` bytes; how
    /// many bytes more may be moved.
    pub(super) fn append_kept(&mut self, other: &mut Self, most: usize) -> usize {
        let Some(mut kept) = other.kept.take() else {
            return most;
        };
        let before = (kept.bytes, kept.messages, kept.answers);
        self.append(&mut kept, most);
        let moved = before.0 - kept.bytes;
        other.bytes -= moved;
        other.messages -= before.1 - kept.messages;
        other.answers -= before.2 - kept.answers;
        other.put_back(kept);
        most.saturating_sub(moved)
    }

    /// Removes the first `n` bytes as far as they were set apart; how many others are to be removed,
    /// and how many messages that completed.
    pub(super) fn advance_kept(&mut self, n: usize) -> (usize, usize) {
        let Some(mut kept) = self.kept.take() else {
            return (n, 0);
        };
        let (part, answers) = (n.min(kept.bytes), kept.answers);
        let done = kept.advance(part);
        self.bytes -= part;
        self.messages -= done;
        self.answers -= answers - kept.answers;
        self.put_back(kept);
        (n - part, done)
    }

    /// Takes the first message, if it was set apart.
    pub(super) fn pop_kept(&mut self) -> Option<Message> {
        let mut kept = self.kept.take()?;
        let before = (kept.bytes, kept.answers);
        let message = kept.pop_message();
        self.bytes -= before.0 - kept.bytes;
        self.messages -= usize::from(message.is_some());
        self.answers -= before.1 - kept.answers;
        self.put_back(kept);
        message
    }

    /// Puts back what is left of what was set apart.
    fn put_back(&mut self, mut kept: Box<Self>) {
        self.controls += std::mem::take(&mut kept.controls);
        if kept.is_empty() {
            kept.release();
        } else {
            self.kept = Some(kept);
        }
    }
}

/// Counts what is done for a message or a chunk, for tests.
#[inline(always)]
pub(super) fn step() {
    #[cfg(test)]
    super::tests::STEPS.with(|steps| steps.set(steps.get() + 1));
}
