//! The queue of incoming messages: what was read, and the framing that cuts it into messages.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, BytesMut};
use network_system_wire::{Codec, Decoded, Frame, Framing, Payload};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

use crate::buffers::{Frames, HEAD, READ, ReadBuffer};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Message, MessageRef};
use crate::out_queue::Encoding;

/// Bytes that one read of a large message asks for at least.
const MIN_READ: usize = 4 * 1024;

/// Places for whole messages that a queue keeps while nothing comes.
const MOST_KEPT: usize = 64;

/// Incoming messages, in order, as [`Source::poll_fill`](crate::Source::poll_fill) brings them.
#[derive(Debug, Default)]
pub struct InQueue {
    framing: Framing,
    /// Whether messages can be found the quick way among so many bytes: all that these can hold
    /// are allowed then.
    quick: usize,
    /// Where the bytes end among which the quick way finds messages; 0 where it cannot.
    quick_end: usize,
    /// What the last reads have brought, in a buffer of the thread.
    buffer: ReadBuffer,
    /// The unfinished message of a connection that waits, or one that is too large for the buffer:
    /// what is in the buffer follows it.
    rest: BytesMut,
    /// Bytes of the first unfinished message that the codec has seen.
    examined: usize,
    /// Bytes that it needs, as far as is known.
    needed: usize,
    /// Messages that came whole.
    whole: VecDeque<Message>,
    /// The one of them that was taken last.
    taken: Message,
    received: u64,
    end: End,
    /// Whether an empty buffer stays here while there is nothing to read.
    keeps: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    /// More may come.
    #[default]
    Open,
    /// The stream has ended; what is left may hold a last message.
    Ended,
    /// Nothing is left.
    Finished,
}

/// Where a message is: in the buffer, or, if at [`TAKEN`], in `taken`.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    position: usize,
    len: usize,
}

/// No position in a buffer.
const TAKEN: usize = usize::MAX;

impl InQueue {
    /// An empty queue for what comes in an encoding.
    pub(crate) fn new(encoding: &Encoding) -> Self {
        let framing = match encoding {
            Encoding::Stream(framing) => framing.clone(),
            Encoding::Messages => Framing::default(),
        };
        let quick = match &framing {
            Framing::LengthPrefix(prefix) if prefix.is_default_layout() => prefix.max_message,
            _ => 0,
        };
        Self {
            framing,
            quick,
            ..Self::default()
        }
    }

    /// Takes messages of another size at most from now on: never a smaller one than before.
    pub(crate) fn raise_limit(&mut self, encoding: &Encoding) {
        let Self { framing, quick, .. } = Self::new(encoding);
        (self.framing, self.quick) = (framing, quick);
    }

    /// The next messages where they can be found in as few instructions as can be: whole ones in
    /// the buffer, in the default framing. What these do not find, [`find`](Self::find) does.
    /// Those that were taken are told to [`consume_to`](Self::consume_to).
    #[inline(always)]
    pub(crate) fn frames(&self) -> Frames<'_> {
        self.buffer.frames(self.quick_end)
    }

    /// Takes what [`frames`](Self::frames) have given, which had `left` bytes left then.
    #[inline(always)]
    pub(crate) fn consume_to(&mut self, left: usize) {
        if self.quick_end > 0 {
            self.buffer.consume_to(left, self.quick_end);
        }
    }

    /// The place of the next message, if [`frames`](Self::frames) find it.
    ///
    /// A place and not the message: a copy that reads at once what was just written in other pieces
    /// stalls the processor (measured: 20 ns per message).
    #[inline(always)]
    pub(crate) fn next_quick(&mut self) -> Option<Place> {
        let (position, len) = self.buffer.take_frame(self.quick_end)?;
        Some(Place { position, len })
    }

    /// Whether the [`frames`](Self::frames) were all that there was: what a connection has seen
    /// the end of is told by [`find`](Self::find).
    #[inline(always)]
    pub(crate) fn is_drained(&self) -> bool {
        self.quick_end > 0
            && self.buffer.start() == self.quick_end
            && self.whole.is_empty()
            && self.end == End::Open
    }

    /// The message that was found there.
    #[inline(always)]
    pub(crate) fn at(&self, place: Place) -> Option<MessageRef<'_>> {
        match self.buffer.from(place.position) {
            Some(bytes) => Some(MessageRef::new(bytes, place.len)),
            None => (place.position == TAKEN).then(|| self.taken.by_ref()),
        }
    }

    /// The next message that has come whole, or `None`.
    ///
    /// # Errors
    /// The peer broke the protocol or a limit; the connection is of no further use.
    pub(crate) fn next(&mut self) -> Result<Option<MessageRef<'_>>> {
        let place = match self.next_quick() {
            Some(place) => Some(place),
            None => self.find()?,
        };
        Ok(place.and_then(|place| self.at(place)))
    }

    /// The place of the next message that has come whole: in every framing, and at the end of a
    /// batch.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    #[inline(never)]
    pub(crate) fn find(&mut self) -> Result<Option<Place>> {
        let input = self.buffer.unread();
        if input.len() <= self.examined || !self.rest.is_empty() {
            return self.find_rest();
        }
        match self.framing.decode(input, self.examined)? {
            Decoded::Frame(Frame { consumed: 0, .. }) => Err(stuck()),
            Decoded::Frame(Frame {
                payload: Payload::Range(range),
                consumed,
            }) => {
                let position = self.buffer.start() + range.start;
                self.buffer.consume(consumed);
                self.examined = 0;
                let len = range.len();
                Ok(Some(Place { position, len }))
            }
            Decoded::Frame(Frame {
                payload: Payload::Owned(bytes),
                consumed,
            }) => {
                self.buffer.consume(consumed);
                self.examined = 0;
                Ok(self.taken(bytes.into()))
            }
            Decoded::Incomplete { needed } => {
                self.examined = self.buffer.len();
                self.needed = needed;
                self.find_rest()
            }
        }
    }

    fn taken(&mut self, message: Message) -> Option<Place> {
        self.taken = message;
        Some(Place {
            position: TAKEN,
            len: self.taken.len(),
        })
    }

    /// What is not in the buffer.
    #[inline(never)]
    fn find_rest(&mut self) -> Result<Option<Place>> {
        if let Some(message) = self.whole.pop_front() {
            return Ok(self.taken(message));
        }
        if self.rest.len() > self.examined {
            match self.framing.decode(&self.rest, self.examined)? {
                Decoded::Frame(Frame { consumed: 0, .. }) => return Err(stuck()),
                Decoded::Frame(frame) => {
                    let message = self.cut(frame);
                    return Ok(self.taken(message));
                }
                Decoded::Incomplete { needed } => {
                    self.examined = self.rest.len();
                    self.needed = needed;
                }
            }
        }
        if self.end == End::Ended {
            return self.finish();
        }
        Ok(None)
    }

    /// Takes the first frame out of `rest`, without a copy.
    fn cut(&mut self, frame: Frame) -> Message {
        self.examined = 0;
        let mut bytes = self.rest.split_to(frame.consumed.min(self.rest.len()));
        match frame.payload {
            Payload::Owned(bytes) => bytes.into(),
            Payload::Range(range) => {
                bytes.truncate(range.end);
                bytes.advance(range.start.min(bytes.len()));
                bytes.into()
            }
        }
    }

    /// The last message of a stream that has ended.
    #[cold]
    fn finish(&mut self) -> Result<Option<Place>> {
        self.end = End::Finished;
        self.rest.extend_from_slice(self.buffer.unread());
        self.give_back();
        let last = self.framing.finish(&self.rest).map_err(|error| {
            Error::from(error)
                .into_kind(ErrorKind::ReceiveFailed)
                .because("the connection ended in the middle of a message")
        })?;
        let message = last.map(|frame| self.cut(frame));
        self.rest = BytesMut::new();
        Ok(message.and_then(|message| self.taken(message)))
    }

    /// For transports that keep messages apart: adds a message, which took `bytes` on its way.
    pub fn push(&mut self, message: Message, bytes: u64) {
        self.received += bytes;
        self.whole.push_back(message);
    }

    /// For transports that keep messages apart: counts bytes that belong to no message of their own.
    pub fn add_received(&mut self, bytes: u64) {
        self.received += bytes;
    }

    /// For transports that keep messages apart: there is nothing to read, and a connection that waits
    /// needs no memory for what has come before.
    pub fn relax(&mut self) {
        if self.whole.is_empty() && self.whole.capacity() > MOST_KEPT {
            self.whole = VecDeque::new();
        }
    }

    /// For byte streams: reads once. Ready with `false` when the stream has ended and nothing is
    /// left in the queue.
    ///
    /// # Errors
    /// What reading said.
    pub fn poll_read<T: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut T,
    ) -> Poll<std::io::Result<bool>> {
        if self.end != End::Open {
            return Poll::Ready(Ok(false));
        }
        let n = if self.rest.len() + self.buffer.len() > HEAD {
            ready!(self.poll_read_large(cx, from))?
        } else {
            ready!(self.poll_read_buffer(cx, from))?
        };
        if self.quick > 0 && self.rest.is_empty() {
            if self.buffer.len() <= self.quick {
                self.quick_end = self.buffer.end();
            }
            // this framing finds its place again at once
            self.examined = 0;
        }
        self.received += n as u64;
        if n > 0 {
            return Poll::Ready(Ok(true));
        }
        self.end = End::Ended;
        // what is left may hold a last message, or be a broken one
        Poll::Ready(Ok(self.buffer.len() + self.rest.len() > 0))
    }

    /// Reads into the buffer of the thread, which is given back when there is nothing to read.
    fn poll_read_buffer<T: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut T,
    ) -> Poll<std::io::Result<usize>> {
        if !self.buffer.exists() {
            self.buffer = ReadBuffer::borrow();
        }
        // whatever comes of it, what was there has been taken, or is not where it was
        self.quick_end = 0;
        let mut into = ReadBuf::new(self.buffer.room(self.rest.len()));
        let result = Pin::new(from).poll_read(cx, &mut into);
        let n = into.filled().len();
        match result {
            Poll::Ready(Ok(())) => {
                if n > self.rest.len() {
                    self.buffer.filled(&self.rest, n);
                    self.rest = BytesMut::new();
                } else {
                    // so little that it would be dear to move what came before
                    self.buffer.filled(&[], n);
                    if !self.rest.is_empty() {
                        self.rest.extend_from_slice(self.buffer.last(n));
                        self.buffer.clear();
                    }
                }
                Poll::Ready(Ok(n))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                // a connection that waits keeps no more memory than its peer has filled
                if self.buffer.len() > 0 {
                    self.rest = BytesMut::from(self.buffer.unread());
                } else if self.keeps {
                    return Poll::Pending;
                }
                self.give_back();
                Poll::Pending
            }
        }
    }

    /// Reads a message that is too large for the buffer into memory of its own, which grows with
    /// what has arrived, not with what the peer announced.
    #[cold]
    fn poll_read_large<T: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut T,
    ) -> Poll<std::io::Result<usize>> {
        if self.buffer.exists() {
            self.rest.extend_from_slice(self.buffer.unread());
            self.give_back();
        }
        let missing = self.needed.saturating_sub(self.rest.len());
        let step = missing.clamp(MIN_READ, self.rest.len().max(READ));
        self.rest.reserve(step);
        // the messages behind it go to the buffer
        let most = if missing > 0 { missing } else { step };
        poll_read_buf(Pin::new(from), cx, &mut (&mut self.rest).limit(most))
    }

    /// Whether there is nothing in it, not even a part of a message.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.len() == 0 && self.rest.is_empty() && self.whole.is_empty()
    }

    /// Bytes that have come, framing included.
    #[inline]
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Forgets what has come and was not taken.
    pub fn clear(&mut self) {
        self.whole.clear();
        self.rest = BytesMut::new();
        self.give_back();
        self.examined = 0;
    }

    /// Whether to keep an empty buffer while there is nothing to read.
    pub(crate) fn set_keeps(&mut self, keeps: bool) {
        self.keeps = keeps;
        if !keeps && self.buffer.len() == 0 {
            self.give_back();
        }
    }

    /// Whether a [`poll_read`](Self::poll_read) that has to wait would do no more here than give an
    /// empty buffer back.
    #[inline]
    pub(crate) fn is_at_rest(&self) -> bool {
        self.buffer.exists() && self.buffer.len() == 0 && self.rest.is_empty()
    }

    /// What such a `poll_read` would do.
    #[inline]
    pub(crate) fn rest(&mut self) {
        if !self.keeps {
            self.give_back();
        }
    }

    /// Gives the buffer back to the thread; what is in it is lost.
    fn give_back(&mut self) {
        self.quick_end = 0;
        std::mem::take(&mut self.buffer).give_back();
    }
}

/// The error of a codec of the user's that makes messages of nothing, for ever.
#[cold]
fn stuck() -> Error {
    Error::new(ErrorKind::Internal, "decode a message")
        .because("the codec found a frame of 0 bytes")
        .advice("a codec has to consume at least one byte for each message")
}

#[cfg(test)]
mod tests;
