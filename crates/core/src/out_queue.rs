//! The queue of outgoing messages in the form in which they are written: small ones encoded into
//! one contiguous buffer, large ones as slices of their own.

mod chunk;
mod dropping;
mod one_frame;
mod pen;

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;
use network_system_wire::envelope::Header;
use network_system_wire::{Codec, Framing};

use self::chunk::{Chunk, SHORT};
use self::dropping::step;
pub(crate) use self::one_frame::OneFrame;
pub(crate) use self::pen::Pen;
use crate::buffers::{READ, WriteBuffer};
use crate::error::{Error, ErrorKind, Result, Side};
use crate::message::{Message, MessageRef};

/// Payloads from this size on are not copied but written from where they lie.
///
/// Measured on loopback: below about 8 KiB a copy costs less than one more slice in the write.
pub const ZERO_COPY: usize = 8 * 1024;

/// Bytes of the default header.
const LENGTH: usize = 4;

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
    /// What goes before all else, where older messages were dropped behind it: none of it may be.
    /// The counts below have it in them, `sizes` and `partial` do not.
    kept: Option<Box<Self>>,
    /// What goes before `tail`.
    chunks: VecDeque<Chunk>,
    /// The encoded small messages at the end.
    tail: WriteBuffer,
    bytes: usize,
    messages: usize,
    /// Each message's encoded size and what it is; kept only where the oldest may be dropped.
    sizes: Option<VecDeque<Sizing>>,
    /// Bytes of the first message that are left of one whose start was written already.
    partial: usize,
    /// Where sizes are not kept, what a partial write has left: bytes up to a place between two
    /// messages, counted from the place before, and the messages in between.
    marks: VecDeque<(usize, usize)>,
    /// The sums of `marks`.
    marked: (usize, usize),
    /// Bytes of what is queued that may be answers which the peer alone has caused.
    answers: usize,
    /// Messages shorter than this go the [quick](Self::push_quick) way, up to `high` bytes in the
    /// queue.
    quick: usize,
    high: usize,
    /// Where sizes are kept, the control messages that were written since this was last asked for.
    controls: u64,
    /// Whether empty memory stays here.
    keeps: bool,
    /// The size of the message with which it has got beyond its limit last.
    pub(crate) crossed: usize,
}

/// What is known of a message where the oldest may be dropped.
#[derive(Clone, Copy, Debug)]
struct Sizing {
    /// Bytes that are left of it.
    size: usize,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// May be dropped.
    Message,
    /// The peer waits for it.
    Reply,
    /// The same, and the peer alone has caused it.
    Failure,
    Pong,
    /// The protocol needs it.
    Control,
}

impl What {
    fn of(header: Option<Header>) -> Self {
        match header {
            None | Some(Header::Data | Header::Request { .. }) => Self::Message,
            Some(Header::Reply { .. }) => Self::Reply,
            Some(Header::Failure { .. }) => Self::Failure,
            Some(Header::Pong { .. }) => Self::Pong,
            Some(Header::Hello | Header::Ping { .. } | Header::GoAway) => Self::Control,
        }
    }

    fn is_answer(self) -> bool {
        matches!(self, Self::Failure | Self::Pong)
    }

    fn is_control(self) -> bool {
        matches!(self, Self::Control | Self::Pong)
    }
}

/// What a message counts besides its bytes where the transport keeps messages apart: the memory
/// that it takes here, so that many small or empty ones are bounded too.
const SLOT: usize = size_of::<Chunk>();

impl OutQueue {
    /// An empty queue. One that `tracks` sizes can drop its oldest messages.
    pub(crate) const fn new(tracks: bool) -> Self {
        Self {
            kept: None,
            chunks: VecDeque::new(),
            tail: WriteBuffer::new(),
            bytes: 0,
            messages: 0,
            sizes: if tracks { Some(VecDeque::new()) } else { None },
            partial: 0,
            marks: VecDeque::new(),
            marked: (0, 0),
            answers: 0,
            quick: 0,
            high: 0,
            controls: 0,
            keeps: false,
            crossed: 0,
        }
    }

    /// Takes messages the [quick](Self::push_quick) way where `encoding` allows it, up to `high`
    /// bytes.
    pub(crate) fn quick(self, encoding: &Encoding, high: usize) -> Self {
        let quick = match encoding {
            Encoding::Stream(Framing::LengthPrefix(prefix))
                if prefix.is_default_layout() && self.sizes.is_none() =>
            {
                ZERO_COPY.min(prefix.max_message.saturating_add(1))
            }
            _ => 0,
        };
        Self {
            quick,
            high,
            ..self
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
    pub fn push(
        &mut self,
        encoding: &Encoding,
        header: Option<Header>,
        message: &MessageRef<'_>,
    ) -> Result<()> {
        let before = self.bytes;
        match encoding {
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
            sizes.push_back(Sizing {
                size: self.bytes - before,
                what: What::of(header),
            });
        }
        Ok(())
    }

    /// The way of nearly all messages, in as few instructions as can be: one behind a length goes
    /// behind others into a buffer that has room. `false` when anything is different; nothing is
    /// queued then.
    #[inline(always)]
    pub(crate) fn push_quick(&mut self, message: &MessageRef<'_>) -> bool {
        let len = message.len();
        let bytes = self.bytes + LENGTH + len;
        if len >= self.quick || bytes > self.high {
            return false;
        }
        // no larger than `most`, which fits
        let header = (len as u32).to_be_bytes();
        let put = match message.block() {
            // a copy of a fixed size is a few instructions, one of a variable size a call
            Some((block, _)) => self.tail.put_block(usize::MAX, header, block, len),
            None => self.tail.put(self.tail.stop(), header, message),
        };
        if put {
            self.bytes = bytes;
            self.messages += 1;
        }
        put
    }

    /// As [`push_quick`](Self::push_quick), and makes the room that may have been missing.
    #[inline(never)]
    pub(crate) fn push_first(&mut self, message: &MessageRef<'_>) -> bool {
        let bytes = self.bytes + LENGTH + message.len();
        if message.len() >= self.quick || bytes > self.high {
            return false;
        }
        self.room(LENGTH + message.len());
        self.push_quick(message)
    }

    /// Lends what [`push_quick`](Self::push_quick) needs: until it is
    /// [given back](Self::give_back), nothing else may be done with the queue.
    #[inline(always)]
    pub(crate) fn lend(&mut self) -> Pen {
        let room = self.high.saturating_sub(self.bytes);
        Pen::new(std::mem::take(&mut self.tail), self.quick, room)
    }

    /// Takes back what was lent.
    #[inline(always)]
    pub(crate) fn give_back(&mut self, pen: Pen) {
        self.bytes += pen.bytes();
        self.messages += pen.messages();
        self.tail = pen.into_tail();
    }

    /// Queues one message that is encoded already.
    pub(crate) fn push_encoded(&mut self, frame: &OneFrame) {
        match frame {
            OneFrame::Small(frame) => {
                if !self.tail.append(frame) {
                    self.room(frame.len());
                    self.tail.extend(frame);
                }
            }
            OneFrame::Large(frame) => {
                self.seal();
                self.chunks.push_back(Chunk::Bytes(frame.clone()));
            }
        }
        self.bytes += frame.len();
        self.messages += 1;
        if let Some(sizes) = &mut self.sizes {
            sizes.push_back(Sizing {
                size: frame.len(),
                what: What::Message,
            });
        }
    }

    fn push_frame(
        &mut self,
        framing: &Framing,
        header: Option<Header>,
        message: &MessageRef<'_>,
    ) -> Result<()> {
        let shared = message.shared().filter(|_| message.len() >= ZERO_COPY);
        let large = framing.is_transparent() && (shared.is_some() || message.len() > READ);
        // the framing writes to a vector of its own, and a small one is copied from there
        let mut frame = Vec::with_capacity(SHORT + if large { 0 } else { message.len() });
        let split = large && (header.is_none() || matches!(framing, Framing::LengthPrefix(_)));
        match (header, framing) {
            (None, _) if !split => framing.encode(message, &mut frame),
            (None, _) => framing.header(message, &mut frame),
            (Some(header), Framing::LengthPrefix(prefix)) => {
                let length = header.encoded_len() + message.len();
                let put = prefix.put_length(length, &mut frame);
                if put.is_ok() {
                    header.put(&mut frame);
                    if !split {
                        frame.extend_from_slice(message);
                    }
                }
                put
            }
            (Some(header), framing) => {
                framing.encode(&with_header(Some(header), message), &mut frame)
            }
        }
        .map_err(unsendable)?;
        self.room(frame.len());
        self.tail.extend(&frame);
        self.bytes += frame.len();
        if split {
            self.seal();
            let payload = shared.unwrap_or_else(|| Bytes::copy_from_slice(message));
            self.bytes += payload.len();
            self.chunks.push_back(Chunk::Bytes(payload));
            if header.is_none() {
                frame.clear();
                framing.trailer(message, &mut frame);
                self.tail.extend(&frame);
                self.bytes += frame.len();
            }
        }
        Ok(())
    }

    /// Makes room in the contiguous buffer, in a new one where this one is full.
    fn room(&mut self, more: usize) {
        if !self.tail.fits(more) {
            self.seal();
        }
        self.tail.reserve(more);
    }

    /// Ends the contiguous buffer, so that something else can follow.
    fn seal(&mut self) {
        if self.tail.len() >= ZERO_COPY {
            let full = std::mem::take(&mut self.tail);
            self.chunks.push_back(Chunk::Buffer(full));
        } else if self.tail.len() > 0 {
            self.chunks.push_back(Chunk::copy_from(self.tail.bytes()));
            self.tail.clear();
        }
    }

    /// Moves everything of `other` behind what is queued here, or the oldest messages up to about
    /// `most` bytes where sizes are tracked.
    pub(crate) fn append(&mut self, other: &mut Self, most: usize) {
        let most = self.append_kept(other, most);
        if most == 0 {
            return;
        }
        if other.bytes > most && other.sizes.is_some() {
            let mut n = 0;
            let (mut count, mut answers) = (0, 0);
            while let Some(sized) = other.sizes.as_mut().and_then(VecDeque::pop_front) {
                n += sized.size;
                count += 1;
                answers += if sized.what.is_answer() {
                    sized.size
                } else {
                    0
                };
                if let Some(sizes) = &mut self.sizes {
                    sizes.push_back(sized);
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
            self.answers += answers;
            other.answers -= answers;
            return;
        }
        if self.is_empty() {
            std::mem::swap(&mut self.chunks, &mut other.chunks);
            std::mem::swap(&mut self.tail, &mut other.tail);
        } else if other.chunks.is_empty() && other.tail.len() < ZERO_COPY {
            self.room(other.tail.len());
            self.tail.extend(other.tail.bytes());
        } else {
            self.seal();
            self.chunks.append(&mut other.chunks);
            std::mem::swap(&mut self.tail, &mut other.tail);
        }
        self.bytes += std::mem::take(&mut other.bytes);
        self.messages += std::mem::take(&mut other.messages);
        self.answers += std::mem::take(&mut other.answers);
        match (&mut self.sizes, &mut other.sizes) {
            (Some(to), Some(from)) => to.append(from),
            (None, Some(from)) => from.clear(),
            _ => {}
        }
        std::mem::take(&mut other.tail).give_back();
    }

    /// Takes the first `n` bytes, which are `count` whole messages, out of chunks and tail.
    fn split_front(&mut self, mut n: usize, mut count: usize) -> VecDeque<Chunk> {
        let mut front = VecDeque::new();
        loop {
            step();
            match self.chunks.front_mut() {
                Some(Chunk::Message(_)) if count > 0 => {
                    front.extend(self.chunks.pop_front());
                    count -= 1;
                }
                Some(chunk) if n > 0 && chunk.is_bytes() => {
                    if chunk.len() > n {
                        front.push_back(chunk.split_to(n));
                        return front;
                    }
                    n -= chunk.len();
                    front.extend(self.chunks.pop_front());
                }
                Some(_) => return front,
                None => {
                    let n = n.min(self.tail.len());
                    if let Some(bytes) = self.tail.bytes().get(..n)
                        && n > 0
                    {
                        front.push_back(Chunk::copy_from(bytes));
                        self.tail.advance(n);
                    }
                    return front;
                }
            }
        }
    }

    /// How many control messages were written since the last call; `None` where sizes are not
    /// tracked.
    pub(crate) fn take_controls(&mut self) -> Option<u64> {
        self.sizes
            .is_some()
            .then(|| std::mem::take(&mut self.controls))
    }

    /// The first bytes as slices for one vectored write; how many slices were filled.
    pub fn slices<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let mut n = 0;
        let kept = self.kept.iter().flat_map(|kept| kept.parts());
        for (slot, part) in into.iter_mut().zip(kept.chain(self.parts())) {
            *slot = IoSlice::new(part);
            n += 1;
        }
        n
    }

    /// The bytes behind what was set apart.
    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let chunks = self.chunks.iter().map(Chunk::bytes);
        chunks
            .chain(Some(self.tail.bytes()))
            .filter(|part| !part.is_empty())
    }

    /// The bytes as one slice, when they are contiguous.
    #[inline]
    #[must_use]
    pub fn contiguous(&self) -> Option<&[u8]> {
        (self.chunks.is_empty() && self.kept.is_none()).then_some(self.tail.bytes())
    }

    /// Says that a link has taken bytes of the first message which it has not reported as written: it
    /// is not dropped any more, as one that is partly written is not.
    pub fn begun(&mut self) {
        if let Some(kept) = &mut self.kept {
            return kept.begun();
        }
        if let Some(first) = self.sizes.as_ref().and_then(VecDeque::front) {
            self.partial = first.size;
        }
    }

    /// Removes the first `n` bytes, which have been written. Returns how many messages that
    /// completed (where sizes are not tracked, in groups).
    #[inline]
    pub fn advance(&mut self, n: usize) -> usize {
        if n == self.bytes && self.sizes.is_none() {
            // the common case
            let done = self.messages;
            self.forget();
            return done;
        }
        self.advance_some(n.min(self.bytes))
    }

    #[inline(never)]
    fn advance_some(&mut self, n: usize) -> usize {
        let (n, kept) = self.advance_kept(n);
        if n == 0 {
            return kept;
        }
        let mut left = n;
        while left > 0 {
            match self.chunks.front_mut() {
                Some(chunk) if chunk.is_bytes() && chunk.len() > left => {
                    chunk.advance(left);
                    left = 0;
                }
                Some(chunk) => {
                    left = left.saturating_sub(chunk.len());
                    if let Some(chunk) = self.chunks.pop_front() {
                        chunk.release();
                    }
                }
                None => {
                    self.tail.advance(left);
                    left = 0;
                }
            }
        }
        self.bytes -= n;
        if self.sizes.is_none() {
            self.answers = self.answers.min(self.bytes);
        }
        let done = self.count_done(n);
        self.messages -= done;
        kept + done
    }

    /// Empties the queue.
    fn forget(&mut self) {
        self.tail.clear();
        if !self.chunks.is_empty() {
            self.chunks.drain(..).for_each(Chunk::release);
        }
        if !self.marks.is_empty() {
            self.marks.clear();
            self.marked = (0, 0);
        }
        self.bytes = 0;
        self.messages = 0;
        self.answers = 0;
    }

    fn count_done(&mut self, mut n: usize) -> usize {
        let Some(sizes) = &mut self.sizes else {
            return self.count_marked(n);
        };
        let mut done = 0;
        self.partial = 0;
        while let Some(first) = sizes.front_mut() {
            let written = first.size.min(n);
            if first.what.is_answer() {
                self.answers -= written;
            }
            if first.size > n {
                first.size -= n;
                self.partial = if n > 0 { first.size } else { 0 };
                break;
            }
            n -= written;
            self.controls += u64::from(first.what.is_control());
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

    /// The first message, for transports that keep messages apart.
    #[must_use]
    pub fn front_message(&self) -> Option<&Message> {
        if let Some(kept) = &self.kept {
            return kept.front_message();
        }
        match self.chunks.front()? {
            Chunk::Message(message) => Some(message),
            _ => None,
        }
    }

    /// Takes the first message, for transports that keep messages apart.
    pub fn pop_message(&mut self) -> Option<Message> {
        if self.kept.is_some() {
            return self.pop_kept();
        }
        match self.chunks.pop_front()? {
            Chunk::Message(message) => {
                self.bytes -= message.len() + SLOT;
                self.messages -= 1;
                self.partial = 0;
                match self.sizes.as_mut().and_then(VecDeque::pop_front) {
                    Some(first) => {
                        self.answers -= if first.what.is_answer() {
                            first.size
                        } else {
                            0
                        };
                        self.controls += u64::from(first.what.is_control());
                    }
                    None => self.answers = self.answers.min(self.bytes),
                }
                Some(message)
            }
            bytes => {
                self.chunks.push_front(bytes);
                None
            }
        }
    }

    /// Whether to keep empty memory instead of giving it back.
    pub(crate) fn set_keeps(&mut self, keeps: bool) {
        self.keeps = keeps;
        self.release();
    }

    /// Gives the memory of an empty queue back.
    #[inline]
    pub(crate) fn release(&mut self) {
        if self.keeps {
            return;
        }
        if self.is_empty() && self.tail.exists() {
            std::mem::take(&mut self.tail).give_back();
        }
        if self.chunks.is_empty() && self.chunks.capacity() > 64 {
            self.chunks = VecDeque::new();
        }
    }
}

fn with_header(header: Option<Header>, message: &MessageRef<'_>) -> Message {
    let Some(header) = header else {
        return message.to_message();
    };
    let mut bytes = Vec::with_capacity(header.encoded_len() + message.len());
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
