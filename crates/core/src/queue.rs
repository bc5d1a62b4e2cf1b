//! The queue of outgoing messages in the form in which they are written: small ones encoded into
//! one contiguous buffer, large ones as slices of their own.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};
use network_system_wire::envelope::Header;
use network_system_wire::{Codec, Framing};

use crate::buffers;
use crate::error::{Error, ErrorKind, Result, Side};
use crate::message::{INLINE, Message};

/// Payloads from this size on are not copied but written from where they lie.
///
/// Measured on loopback: below about 8 KiB a copy costs less than one more slice in the write.
pub const ZERO_COPY: usize = 8 * 1024;

/// How a link wants its queue filled.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Encoding {
    /// Messages become frames in a stream of bytes.
    Stream(Framing),
    /// The transport keeps messages apart itself.
    Messages,
}

/// Outgoing messages, in order, ready for [`Sink::poll_send`](crate::Sink::poll_send).
#[derive(Debug, Default)]
pub struct OutQueue {
    /// What goes before `tail`.
    chunks: VecDeque<Chunk>,
    /// The encoded small messages at the end.
    tail: BytesMut,
    bytes: usize,
    messages: usize,
    /// The encoded size of each message; kept only where the oldest may be dropped.
    sizes: Option<VecDeque<usize>>,
    /// Bytes of the first message that are left of one whose start was written already.
    partial: usize,
    /// Where sizes are not kept, what a partial write has left: bytes up to a place between two
    /// messages, counted from the place before, and the messages in between.
    marks: VecDeque<(usize, usize)>,
    /// The sums of `marks`.
    marked: (usize, usize),
    /// Bytes of what is queued that may be answers which the peer alone has caused.
    answers: usize,
}

#[derive(Debug)]
enum Chunk {
    Bytes(Bytes),
    Message(Message),
}

/// What a message counts besides its bytes where the transport keeps messages apart: the memory
/// that it takes here, so that many small or empty ones are bounded too.
const SLOT: usize = size_of::<Chunk>();

impl Chunk {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Message(message) => message.len(),
        }
    }
}

impl OutQueue {
    /// An empty queue. One that `tracks` sizes can drop its oldest messages.
    pub(crate) fn new(tracks: bool) -> Self {
        Self {
            sizes: tracks.then(VecDeque::new),
            ..Self::default()
        }
    }

    /// Bytes queued, headers included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Messages queued; one that is partly written counts.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.messages
    }

    /// Bytes queued at most that answer the peer without a limit of their own: pongs, and
    /// failures of requests that nobody serves.
    pub(crate) fn answers(&self) -> usize {
        self.answers
    }

    /// Whether nothing is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0 && self.chunks.is_empty()
    }

    /// Queues one message, with an envelope header where there is one.
    ///
    /// # Errors
    /// [`ErrorKind::MessageTooLarge`] or [`ErrorKind::InvalidArgument`] when the framing cannot
    /// carry it; nothing is queued then.
    #[inline]
    pub fn push(
        &mut self,
        encoding: &Encoding,
        header: Option<Header>,
        message: &Message,
    ) -> Result<()> {
        let before = self.bytes;
        match encoding {
            Encoding::Stream(framing) if header.is_none() && message.len() < ZERO_COPY => {
                let tail = self.tail(message.len().max(INLINE));
                let start = tail.len();
                match (framing, message.block()) {
                    // a copy of a fixed size is a few instructions, one of a variable size a call
                    (Framing::LengthPrefix(prefix), Some(block)) => {
                        prefix.put_length(message.len(), tail).map_err(unsendable)?;
                        let end = tail.len() + message.len();
                        tail.extend_from_slice(block);
                        tail.truncate(end);
                    }
                    _ => framing.encode(message, tail).map_err(unsendable)?,
                }
                self.bytes += self.tail.len() - start;
            }
            Encoding::Stream(framing) => self.push_frame(framing, header, message)?,
            Encoding::Messages => {
                let message = with_header(header, message);
                self.bytes += message.len() + SLOT;
                self.chunks.push_back(Chunk::Message(message));
            }
        }
        if self.bytes == before && matches!(encoding, Encoding::Stream(_)) {
            // an empty message of a framing without headers leaves no trace on the wire
            return Ok(());
        }
        self.messages += 1;
        if let Some(Header::Pong { .. } | Header::Failure { .. }) = header {
            self.answers += self.bytes - before;
        }
        if let Some(sizes) = &mut self.sizes {
            sizes.push_back(self.bytes - before);
        }
        Ok(())
    }

    /// The way of nearly all messages, in as few instructions as can be: a small message without
    /// a header goes behind others into a buffer that has room, below `high` bytes. `false` when
    /// anything is different; nothing is queued then.
    #[inline(always)]
    pub(crate) fn push_small(
        &mut self,
        encoding: &Encoding,
        message: &Message,
        high: usize,
    ) -> bool {
        let (Encoding::Stream(Framing::LengthPrefix(prefix)), Some(block)) =
            (encoding, message.block())
        else {
            return false;
        };
        let start = self.tail.len();
        let roomy = self.tail.capacity() - start >= 2 * INLINE && self.bytes + 2 * INLINE <= high;
        if !roomy || self.sizes.is_some() {
            return false;
        }
        let len = message.len();
        if prefix.put_length(len, &mut self.tail).is_err() {
            return false;
        }
        let end = self.tail.len() + len;
        self.tail.extend_from_slice(block);
        self.tail.truncate(end);
        self.bytes += end - start;
        self.messages += 1;
        true
    }

    /// Queues one message that is encoded already.
    pub(crate) fn push_encoded(&mut self, frame: &Bytes) {
        if frame.len() < ZERO_COPY {
            self.tail(frame.len()).extend_from_slice(frame);
        } else {
            self.seal();
            self.chunks.push_back(Chunk::Bytes(frame.clone()));
        }
        self.bytes += frame.len();
        self.messages += 1;
        if let Some(sizes) = &mut self.sizes {
            sizes.push_back(frame.len());
        }
    }

    fn push_frame(
        &mut self,
        framing: &Framing,
        header: Option<Header>,
        message: &Message,
    ) -> Result<()> {
        let large = message.len() >= ZERO_COPY && framing.is_transparent();
        let room = if large { 64 } else { message.len() + 64 };
        let start = self.tail(room).len();
        match (header, framing) {
            (None, _) if !large => framing.encode(message, &mut self.tail),
            (None, _) => framing.header(message, &mut self.tail),
            (Some(header), Framing::LengthPrefix(prefix)) => {
                let length = header.encoded_len() + message.len();
                let put = prefix.put_length(length, &mut self.tail);
                if put.is_ok() {
                    header.put(&mut self.tail);
                    if !large {
                        self.tail.extend_from_slice(message);
                    }
                }
                put
            }
            (Some(header), framing) => {
                framing.encode(&with_header(Some(header), message), &mut self.tail)
            }
        }
        .map_err(unsendable)?;
        let contiguous =
            !large || (header.is_some() && !matches!(framing, Framing::LengthPrefix(_)));
        self.bytes += self.tail.len() - start;
        if !contiguous {
            self.seal();
            let payload = message.shared().cloned();
            let payload = payload.unwrap_or_else(|| Bytes::copy_from_slice(message));
            self.bytes += payload.len();
            self.chunks.push_back(Chunk::Bytes(payload));
            if header.is_none() {
                framing.trailer(message, &mut self.tail);
                self.bytes += self.tail.len();
            }
        }
        Ok(())
    }

    /// The contiguous buffer with room for `more` bytes and a header.
    #[inline]
    fn tail(&mut self, more: usize) -> &mut BytesMut {
        if self.tail.capacity() == 0 {
            self.tail = buffers::take();
        }
        self.tail.reserve(more + 16);
        &mut self.tail
    }

    /// Ends the contiguous buffer, so that something else can follow.
    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.chunks
                .push_back(Chunk::Bytes(self.tail.split().freeze()));
        }
    }

    /// Moves everything of `other` behind what is queued here, or the oldest messages up to about
    /// `most` bytes where sizes are tracked.
    pub(crate) fn append(&mut self, other: &mut Self, most: usize) {
        if other.bytes > most && other.sizes.is_some() {
            let mut n = 0;
            let mut count = 0;
            while let Some(size) = other.sizes.as_mut().and_then(VecDeque::pop_front) {
                n += size;
                count += 1;
                if let Some(sizes) = &mut self.sizes {
                    sizes.push_back(size);
                }
                if n >= most {
                    break;
                }
            }
            let mut moved = other.split_front(n, count);
            self.seal();
            self.chunks.append(&mut moved);
            self.bytes += n;
            self.messages += count;
            other.bytes -= n;
            other.messages -= count;
            let answers = other.answers.min(n);
            self.answers += answers;
            other.answers -= answers;
            return;
        }
        if self.is_empty() {
            std::mem::swap(&mut self.chunks, &mut other.chunks);
            std::mem::swap(&mut self.tail, &mut other.tail);
        } else if other.chunks.is_empty() && other.tail.len() < ZERO_COPY {
            self.tail(other.tail.len()).extend_from_slice(&other.tail);
        } else {
            self.seal();
            self.chunks.append(&mut other.chunks);
            std::mem::swap(&mut self.tail, &mut other.tail);
        }
        self.bytes += std::mem::take(&mut other.bytes);
        self.messages += std::mem::take(&mut other.messages);
        self.answers += std::mem::take(&mut other.answers);
        if let (Some(to), Some(from)) = (&mut self.sizes, &mut other.sizes) {
            to.append(from);
        }
        buffers::put(std::mem::take(&mut other.tail));
    }

    /// Takes the first `n` bytes, which are `count` whole messages, out of chunks and tail.
    fn split_front(&mut self, mut n: usize, mut count: usize) -> VecDeque<Chunk> {
        let mut front = VecDeque::new();
        loop {
            match self.chunks.front_mut() {
                Some(Chunk::Message(_)) if count > 0 => {
                    front.extend(self.chunks.pop_front());
                    count -= 1;
                }
                Some(Chunk::Bytes(bytes)) if n > 0 && bytes.len() > n => {
                    front.push_back(Chunk::Bytes(bytes.split_to(n)));
                    return front;
                }
                Some(Chunk::Bytes(bytes)) if n > 0 => {
                    n -= bytes.len();
                    front.extend(self.chunks.pop_front());
                }
                Some(_) => return front,
                None => {
                    let n = n.min(self.tail.len());
                    if n > 0 {
                        front.push_back(Chunk::Bytes(self.tail.split_to(n).freeze()));
                    }
                    return front;
                }
            }
        }
    }

    /// Drops the oldest message of which nothing has been written yet; its size in bytes, or
    /// `None` when there is none or sizes are not tracked.
    pub(crate) fn drop_oldest(&mut self) -> Option<usize> {
        let partial = std::mem::take(&mut self.partial);
        let sizes = self.sizes.as_mut()?;
        // one that is partly written must be finished, or the peer loses the frame boundary
        let kept = if partial > 0 { sizes.pop_front() } else { None };
        let dropped = sizes.pop_front();
        if kept.is_some() {
            sizes.push_front(partial);
        }
        let keep = self.split_front(partial, 0);
        if let Some(size) = dropped {
            drop(self.split_front(size, 1));
            self.bytes -= size;
            self.messages -= 1;
            self.answers = self.answers.min(self.bytes);
        }
        for chunk in keep.into_iter().rev() {
            self.chunks.push_front(chunk);
        }
        self.partial = partial;
        dropped
    }

    /// Drops the oldest messages, but never the newest, until at most `most` bytes are queued; how
    /// many were dropped.
    pub(crate) fn drop_to(&mut self, most: usize) -> u64 {
        let mut dropped = 0;
        // one that is partly written stays
        while self.bytes > most
            && self.messages > 1 + usize::from(self.partial > 0)
            && self.drop_oldest().is_some()
        {
            dropped += 1;
        }
        dropped
    }

    /// The first bytes as slices for one vectored write; how many slices were filled.
    pub fn slices<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let mut n = 0;
        let chunks = self.chunks.iter().filter_map(|chunk| match chunk {
            Chunk::Bytes(bytes) => Some(&bytes[..]),
            Chunk::Message(_) => None,
        });
        let parts = chunks
            .chain(Some(&self.tail[..]))
            .filter(|part| !part.is_empty());
        for (slot, part) in into.iter_mut().zip(parts) {
            *slot = IoSlice::new(part);
            n += 1;
        }
        n
    }

    /// The bytes as one slice, when they are contiguous.
    #[inline]
    #[must_use]
    pub fn contiguous(&self) -> Option<&[u8]> {
        self.chunks.is_empty().then_some(&self.tail[..])
    }

    /// Removes the first `n` bytes, which have been written. Returns how many messages that
    /// completed (where sizes are not tracked, in groups).
    pub fn advance(&mut self, n: usize) -> usize {
        let n = n.min(self.bytes);
        if n == 0 {
            return 0;
        }
        let mut left = n;
        while left > 0 {
            match self.chunks.front_mut() {
                Some(Chunk::Bytes(bytes)) if bytes.len() > left => {
                    bytes.advance(left);
                    left = 0;
                }
                Some(chunk) => {
                    left = left.saturating_sub(chunk.len());
                    self.chunks.pop_front();
                }
                None => {
                    self.tail.advance(left.min(self.tail.len()));
                    left = 0;
                }
            }
        }
        self.bytes -= n;
        self.answers = self.answers.min(self.bytes);
        let done = self.count_done(n);
        self.messages -= done;
        if self.bytes == 0 {
            self.tail.clear();
        }
        done
    }

    fn count_done(&mut self, mut n: usize) -> usize {
        let Some(sizes) = &mut self.sizes else {
            return self.count_marked(n);
        };
        let mut done = 0;
        self.partial = 0;
        while let Some(size) = sizes.front_mut() {
            if *size > n {
                if n > 0 {
                    *size -= n;
                    self.partial = *size;
                }
                break;
            }
            n -= *size;
            sizes.pop_front();
            done += 1;
        }
        done
    }

    /// How many messages the first `n` bytes completed, as far as is known without their sizes: a
    /// queue that never gets empty tells of them in groups.
    fn count_marked(&mut self, mut n: usize) -> usize {
        if self.bytes == 0 {
            self.marks.clear();
            self.marked = (0, 0);
            return self.messages;
        }
        let mut done = 0;
        while n > 0
            && let Some((bytes, messages)) = self.marks.front_mut()
        {
            let part = n.min(*bytes);
            n -= part;
            *bytes -= part;
            self.marked.0 -= part;
            if *bytes == 0 {
                done += *messages;
                self.marked.1 -= *messages;
                self.marks.pop_front();
            }
        }
        // the end of the queue is such a place
        let (bytes, messages) = (
            self.bytes - self.marked.0,
            self.messages - done - self.marked.1,
        );
        if messages > 0 {
            self.marks.push_back((bytes, messages));
            self.marked.0 += bytes;
            self.marked.1 += messages;
        }
        done
    }

    /// Takes the first message, for transports that keep messages apart.
    pub fn pop_message(&mut self) -> Option<Message> {
        match self.chunks.pop_front()? {
            Chunk::Message(message) => {
                self.bytes -= message.len() + SLOT;
                self.messages -= 1;
                self.answers = self.answers.min(self.bytes);
                if let Some(sizes) = &mut self.sizes {
                    sizes.pop_front();
                }
                Some(message)
            }
            bytes @ Chunk::Bytes(_) => {
                self.chunks.push_front(bytes);
                None
            }
        }
    }

    /// Gives the memory of an empty queue back.
    pub(crate) fn release(&mut self) {
        if self.is_empty() && self.tail.capacity() > 0 {
            buffers::put(std::mem::take(&mut self.tail));
        }
        if self.chunks.is_empty() && self.chunks.capacity() > 64 {
            self.chunks = VecDeque::new();
        }
    }
}

/// The encoded form of one message, for queues of the same encoding.
pub(crate) fn encode(
    encoding: &Encoding,
    header: Option<Header>,
    message: &Message,
) -> Result<Bytes> {
    let mut queue = OutQueue {
        tail: BytesMut::with_capacity(message.len() + 32),
        ..OutQueue::default()
    };
    queue.push(encoding, header, message)?;
    let mut all = BytesMut::with_capacity(queue.bytes);
    for chunk in &queue.chunks {
        match chunk {
            Chunk::Bytes(bytes) => all.extend_from_slice(bytes),
            Chunk::Message(message) => all.extend_from_slice(message),
        }
    }
    all.extend_from_slice(&queue.tail);
    Ok(all.freeze())
}

fn with_header(header: Option<Header>, message: &Message) -> Message {
    let Some(header) = header else {
        return message.clone();
    };
    let mut bytes = BytesMut::with_capacity(header.encoded_len() + message.len());
    header.put(&mut bytes);
    bytes.extend_from_slice(message);
    Message::from(bytes)
}

/// A message of our own that the framing cannot carry.
#[cold]
fn unsendable(error: network_system_wire::WireError) -> Error {
    let error = Error::from(error);
    let kind = match error.kind() {
        ErrorKind::MessageTooLarge => ErrorKind::MessageTooLarge,
        _ => ErrorKind::InvalidArgument,
    };
    let reason = std::error::Error::source(&error)
        .map(ToString::to_string)
        .unwrap_or_default();
    Error::new(kind, "send a message")
        .because(reason)
        .blame(Side::Ours)
}

#[cfg(test)]
mod tests;
