//! The link of every byte-stream transport: anything that is `AsyncRead + AsyncWrite`, and a framing.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use network_system_wire::{Codec, Decoded, Frame, Framing, Payload};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

use crate::buffers;
use crate::error::{Error, ErrorKind, Result};
use crate::link::{Link, LinkInfo, Sent, Sink, Source};
use crate::message::{INLINE, Message};
use crate::queue::{Encoding, OutQueue};

/// Slices per vectored write.
const SLICES: usize = 64;
/// Room that a read must have at least.
const MIN_READ: usize = 4 * 1024;

/// A byte stream and its framing as a [`Link`].
#[derive(Debug)]
pub struct StreamLink<T> {
    io: T,
    framing: Framing,
    info: LinkInfo,
    /// What was read; everything before `at` has been taken.
    input: BytesMut,
    at: usize,
    /// Bytes of the unfinished frame at `at` that the codec has seen.
    examined: usize,
    /// Bytes that the unfinished frame needs, as far as is known.
    needed: usize,
    received: u64,
    end: End,
    closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// More may come.
    Open,
    /// The stream has ended; what is left may hold a last message.
    Ended,
    /// Nothing is left.
    Finished,
}

impl<T> StreamLink<T> {
    /// A link over `io`.
    pub fn new(io: T, framing: Framing, info: LinkInfo) -> Self {
        Self {
            io,
            framing,
            info,
            input: BytesMut::new(),
            at: 0,
            examined: 0,
            needed: 0,
            received: 0,
            end: End::Open,
            closed: false,
        }
    }

    /// The stream below.
    pub fn get_ref(&self) -> &T {
        &self.io
    }

    /// Takes one frame out of the input: small payloads by copy, larger ones share the buffer.
    #[inline(never)]
    fn cut(&mut self, frame: Frame) -> Message {
        self.examined = 0;
        self.needed = 0;
        self.input.advance(self.at.min(self.input.len()));
        self.at = 0;
        let mut taken = self.input.split_to(frame.consumed.min(self.input.len()));
        match frame.payload {
            Payload::Owned(bytes) => bytes.into(),
            Payload::Range(range) => {
                taken.truncate(range.end);
                taken.advance(range.start.min(taken.len()));
                if taken.len() <= INLINE {
                    Message::copy_from(&taken)
                } else {
                    taken.into()
                }
            }
        }
    }

    /// The last message of a stream that has ended.
    #[cold]
    fn finish(&mut self) -> Result<Option<Message>> {
        let rest = &self.input[self.at.min(self.input.len())..];
        self.end = End::Finished;
        let message = match self.framing.finish(rest) {
            Ok(Some(frame)) => Some(self.cut(frame)),
            Ok(None) => None,
            Err(error) => {
                return Err(Error::from(error)
                    .into_kind(ErrorKind::ReceiveFailed)
                    .because("the connection ended in the middle of a message"));
            }
        };
        self.at = 0;
        buffers::put(std::mem::take(&mut self.input));
        Ok(message)
    }

    /// Makes room for the next read. An empty connection borrows the thread's buffer; one with a
    /// large frame on the way grows with what has arrived, not with what the peer announced.
    fn make_room(&mut self) {
        if self.at > 0 {
            self.input.advance(self.at.min(self.input.len()));
            self.at = 0;
        }
        if self.input.is_empty() {
            if self.input.capacity() == 0 {
                self.input = buffers::take();
            }
            self.input.reserve(buffers::READ + buffers::PAGE);
            // an allocator puts a large block just behind the start of a page, and some processors
            // copy to such a place at half the speed (`rep movsb` on Zen 3)
            let pad = self.input.as_ptr().align_offset(buffers::PAGE);
            if pad < buffers::PAGE {
                self.input.resize(pad, 0);
                self.input.advance(pad);
            }
            return;
        }
        let have = self.input.len();
        let missing = self.needed.saturating_sub(have);
        let step = missing.min(have.max(buffers::READ)).max(MIN_READ);
        if self.input.capacity() - have >= step {
            return;
        }
        if self.input.capacity() < buffers::READ {
            // the small remainder of an earlier batch goes on in a full buffer
            let mut buffer = buffers::take();
            buffer.reserve(buffers::READ.max(have + step));
            buffer.extend_from_slice(&self.input);
            self.input = buffer;
        } else {
            self.input.reserve(step);
        }
    }

    /// Before waiting: a connection keeps at most four times the memory that its peer has filled,
    /// so that many peers with a few bytes each cannot hold a full buffer each.
    fn rest(&mut self) {
        if self.input.is_empty() {
            buffers::put(std::mem::take(&mut self.input));
        } else if self.input.capacity() / 4 >= self.input.len() {
            let mut small = BytesMut::with_capacity(self.input.len());
            small.extend_from_slice(&self.input);
            buffers::put(std::mem::replace(&mut self.input, small));
        }
    }
}

impl<T: AsyncRead + Unpin> Source for StreamLink<T> {
    #[inline(always)]
    fn take(&mut self) -> Result<Option<Message>> {
        let Some(input) = self.input.get(self.at..) else {
            return Ok(None);
        };
        if input.len() > self.examined {
            match self.framing.decode(input, self.examined)? {
                Decoded::Frame(frame) => {
                    // the common case in one go: a small payload that is followed by enough bytes
                    // for a copy of a fixed size
                    if let Payload::Range(range) = &frame.payload
                        && let Some(rest) = input.get(range.start..)
                        && let Some(block) = rest.first_chunk()
                        && let Some(message) = Message::from_block(block, range.len())
                    {
                        self.examined = 0;
                        self.at += frame.consumed;
                        return Ok(Some(message));
                    }
                    return Ok(Some(self.cut(frame)));
                }
                Decoded::Incomplete { needed } => {
                    self.examined = input.len();
                    self.needed = needed;
                }
            }
        }
        if self.end == End::Ended {
            self.finish()
        } else {
            Ok(None)
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool>> {
        if self.end != End::Open {
            return Poll::Ready(Ok(false));
        }
        self.make_room();
        match poll_read_buf(Pin::new(&mut self.io), cx, &mut self.input) {
            Poll::Ready(Ok(0)) => {
                self.end = End::Ended;
                // what is left may hold a last message, or be a broken one
                Poll::Ready(Ok(!self.input.is_empty()))
            }
            Poll::Ready(Ok(n)) => {
                self.received += n as u64;
                Poll::Ready(Ok(true))
            }
            Poll::Ready(Err(error)) => {
                let error = Error::from_io("receive from", error).peer(&self.info.peer);
                Poll::Ready(Err(error))
            }
            Poll::Pending => {
                self.rest();
                Poll::Pending
            }
        }
    }

    fn discard(&mut self) {
        self.input.clear();
        self.at = 0;
        self.examined = 0;
    }
}

impl<T: AsyncWrite + Unpin> StreamLink<T> {
    /// One write of as much as possible.
    fn poll_write(&mut self, cx: &mut Context<'_>, queue: &OutQueue) -> Poll<io::Result<usize>> {
        if let Some(bytes) = queue.contiguous() {
            return Pin::new(&mut self.io).poll_write(cx, bytes);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let n = queue.slices(&mut slices);
        if self.io.is_write_vectored() {
            Pin::new(&mut self.io).poll_write_vectored(cx, &slices[..n])
        } else {
            Pin::new(&mut self.io).poll_write(cx, &slices[0])
        }
    }
}

impl<T: AsyncWrite + Unpin> Sink for StreamLink<T> {
    fn encoding(&self) -> Encoding {
        Encoding::Stream(self.framing.clone())
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        queue: &mut OutQueue,
    ) -> (Sent, Poll<Result<()>>) {
        let mut sent = Sent::default();
        while !queue.is_empty() {
            match self.poll_write(cx, queue) {
                Poll::Ready(Ok(n)) if n > 0 => {
                    sent.bytes += n as u64;
                    sent.messages += queue.advance(n) as u64;
                }
                Poll::Ready(result) => {
                    let error = result
                        .err()
                        .unwrap_or_else(|| io::ErrorKind::WriteZero.into());
                    let error = Error::from_io("send to", error).peer(&self.info.peer);
                    return (sent, Poll::Ready(Err(error)));
                }
                Poll::Pending => return (sent, Poll::Pending),
            }
        }
        // a buffered stream (TLS, say) may still hold bytes; a socket does nothing here
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        let flushed = flushed.map_err(|e| Error::from_io("send to", e).peer(&self.info.peer));
        (sent, flushed)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if !self.closed {
            let result = ready!(Pin::new(&mut self.io).poll_shutdown(cx));
            self.closed = true;
            result
                .map_err(|e| Error::from_io("close the connection to", e).peer(&self.info.peer))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Link for StreamLink<T> {
    fn info(&self) -> &LinkInfo {
        &self.info
    }

    fn bytes_received(&self) -> u64 {
        self.received
    }
}
