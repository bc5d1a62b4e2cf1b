//! The way in: bytes of a stream to messages. Memory belongs to the thread while a link holds no part of
//! a message.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use network_system_core::{InQueue, Message, MessageKind};
use sockudo_ws::deflate::DeflateConfig;
use sockudo_ws::protocol::{CompressedReaderProtocol, Protocol, Role};
use sockudo_ws::{Error as Wrong, Message as Frame};
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

/// Bytes that one read asks for.
const READ: usize = 64 * 1024;
/// From so many bytes of an unfinished message on, it is read into memory of its own.
const LARGE: usize = 32 * 1024;
/// Messages smaller than this are copied out of what was read, so that one that is kept does not hold
/// all of it.
const SHARED: usize = 16 * 1024;
/// What is decoded at a time, and when it is enough until it has been handled: many small frames that
/// become many, or large, messages are not piled up.
const STEP: usize = 8 * 1024;
const STEP_DEFLATED: usize = 2 * 1024;
const ENOUGH_BYTES: usize = 64 * 1024;
const ENOUGH_MESSAGES: usize = 1024;

thread_local! {
    /// A buffer to read into, and a list to decode into, of whoever reads on this thread.
    static MEMORY: RefCell<(BytesMut, Vec<Frame>)> = RefCell::default();
}

/// Decodes what comes from the peer.
pub(super) struct Input {
    reader: Reader,
    /// What was read and is not decoded: most often nothing, else the start of a message.
    rest: BytesMut,
    /// Whether there may be whole messages in `rest`.
    more: bool,
}

/// What was found, besides messages.
pub(super) enum Found {
    /// Nothing that ends the connection.
    Open,
    /// The close frame: code and words.
    Close(Option<sockudo_ws::error::CloseReason>),
    /// What breaks the protocol or a limit.
    Wrong(Wrong),
}

/// What takes frames apart.
enum Reader {
    Plain(Protocol),
    Deflated(Box<CompressedReaderProtocol>),
}

impl Reader {
    fn decode(&mut self, bytes: &mut BytesMut, into: &mut Vec<Frame>) -> Result<(), Wrong> {
        match self {
            Self::Plain(reader) => reader.process_into(bytes, into),
            Self::Deflated(reader) => reader.process_into(bytes, into),
        }
    }
}

impl Input {
    /// For messages of at most `limit` bytes; `first` has come with the handshake.
    pub(super) fn new(
        role: Role,
        limit: usize,
        deflate: Option<&DeflateConfig>,
        first: &[u8],
    ) -> Self {
        // what does not get smaller has a little more than its length when it is compressed
        let frame = limit.saturating_add(limit / 1000).saturating_add(64);
        let reader = match (deflate, role) {
            (None, _) => Reader::Plain(Protocol::new(role, limit, limit)),
            (Some(config), Role::Server) => Reader::Deflated(Box::new(
                CompressedReaderProtocol::server(frame, limit, config),
            )),
            (Some(config), Role::Client) => Reader::Deflated(Box::new(
                CompressedReaderProtocol::client(frame, limit, config),
            )),
        };
        Self {
            reader,
            rest: first.into(),
            more: !first.is_empty(),
        }
    }

    /// Decodes what was left, or reads once and decodes that: messages go to `queue`, pings to `ping`.
    /// `None` at the end of the stream.
    pub(super) fn poll_fill<T: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut T,
        queue: &mut InQueue,
        ping: &mut impl FnMut(&[u8]),
    ) -> Poll<io::Result<Option<Found>>> {
        MEMORY.with_borrow_mut(|(buffer, frames)| {
            if !self.more {
                if self.rest.len() >= LARGE {
                    let step = self.rest.len().min(1 << 20);
                    self.rest.reserve(step);
                    let n = ready!(poll_read_buf(Pin::new(io), cx, &mut self.rest))?;
                    queue.add_received(n as u64);
                    if n == 0 {
                        return Poll::Ready(Ok(None));
                    }
                } else {
                    buffer.clear();
                    buffer.reserve(READ);
                    buffer.extend_from_slice(&self.rest);
                    let n = match poll_read_buf(Pin::new(io), cx, buffer) {
                        Poll::Ready(Ok(n)) => n,
                        other => {
                            queue.relax();
                            return other.map_ok(|_| None);
                        }
                    };
                    queue.add_received(n as u64);
                    if n == 0 {
                        return Poll::Ready(Ok(None));
                    }
                    let found = self.decode(buffer, frames, queue, ping);
                    self.rest = BytesMut::from(&buffer[..]);
                    return Poll::Ready(Ok(Some(found)));
                }
            }
            let mut rest = std::mem::take(&mut self.rest);
            let found = self.decode(&mut rest, frames, queue, ping);
            self.rest = match rest.len() {
                // not in the memory of a large message that came before it
                len if len < LARGE => BytesMut::from(&rest[..]),
                _ => rest,
            };
            Poll::Ready(Ok(Some(found)))
        })
    }

    /// Decodes step by step until it is enough.
    fn decode(
        &mut self,
        bytes: &mut BytesMut,
        frames: &mut Vec<Frame>,
        queue: &mut InQueue,
        ping: &mut impl FnMut(&[u8]),
    ) -> Found {
        let mut step = match self.reader {
            Reader::Plain(_) => STEP,
            Reader::Deflated(_) => STEP_DEFLATED,
        };
        let (mut messages, mut size) = (0, 0);
        self.more = false;
        while !bytes.is_empty() {
            let rest = bytes.split_off(step.min(bytes.len()));
            let before = bytes.len();
            let result = self.reader.decode(bytes, frames);
            for frame in frames.drain(..) {
                match frame {
                    Frame::Text(bytes) => {
                        (messages, size) = (messages + 1, size + bytes.len());
                        queue.push(message(bytes, MessageKind::Text), 0);
                    }
                    Frame::Binary(bytes) => {
                        (messages, size) = (messages + 1, size + bytes.len());
                        queue.push(message(bytes, MessageKind::Binary), 0);
                    }
                    Frame::Ping(payload) => ping(&payload),
                    Frame::Pong(_) => {}
                    // what comes behind it is nothing
                    Frame::Close(words) => return Found::Close(words),
                }
            }
            if let Err(wrong) = result {
                return Found::Wrong(wrong);
            }
            let (moved, last) = (bytes.len() < before, rest.is_empty());
            bytes.unsplit(rest);
            if last {
                break;
            }
            if !moved {
                // the frame is longer than that
                step = step.saturating_mul(2);
            } else if messages >= ENOUGH_MESSAGES || size >= ENOUGH_BYTES {
                self.more = true;
                break;
            }
        }
        Found::Open
    }

    /// Forgets what was read.
    pub(super) fn clear(&mut self) {
        self.rest = BytesMut::new();
        self.more = false;
    }
}

/// Drops what comes, for a while; `true` at the end of the stream.
pub(super) fn poll_drop<T: AsyncRead + Unpin>(cx: &mut Context<'_>, io: &mut T) -> Poll<bool> {
    MEMORY.with_borrow_mut(|(buffer, _)| {
        for _ in 0..16 {
            buffer.clear();
            buffer.reserve(READ);
            match ready!(poll_read_buf(Pin::new(&mut *io), cx, buffer)) {
                Ok(n) if n > 0 => {}
                _ => return Poll::Ready(true),
            }
        }
        Poll::Ready(false)
    })
}

fn message(bytes: Bytes, kind: MessageKind) -> Message {
    let message = match bytes.len() {
        len if len < SHARED => Message::from(&bytes[..]),
        _ => Message::from(bytes),
    };
    match kind {
        MessageKind::Binary => message,
        kind => message.with_kind(kind),
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use bytes::BufMut;
    use sockudo_ws::deflate::DeflateEncoder;
    use sockudo_ws::frame::encode_frame_with_rsv;
    use sockudo_ws::{DeflateWindowBits, OpCode};

    use super::*;

    /// Numbers that look random, and are the same in each run.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, n: usize) -> usize {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (self.0 >> 33) as usize % n.max(1)
        }
    }

    /// Frames as a peer of `role` could get them, some of them broken.
    fn stream(numbers: &mut Numbers, role: Role) -> BytesMut {
        let mut encoder = DeflateEncoder::new(DeflateWindowBits::Bits9, false, 1, 0);
        let mut bytes = BytesMut::new();
        let kinds = [
            OpCode::Text,
            OpCode::Binary,
            OpCode::Continuation,
            OpCode::Ping,
            OpCode::Close,
        ];
        for _ in 0..numbers.below(20) {
            let sizes = [0, 5, 126, 1000, 70_000];
            let most = sizes[numbers.below(sizes.len())];
            let size = numbers.below(most + 1);
            let mut payload = vec![b'a'; size];
            for _ in 0..numbers.below(4) {
                let at = numbers.below(size);
                let byte = numbers.below(256) as u8;
                if let Some(place) = payload.get_mut(at) {
                    *place = byte;
                }
            }
            let compressed = numbers.below(2) == 0 && size > 0;
            if compressed {
                payload = encoder.compress(&payload).unwrap().unwrap().to_vec();
            }
            let mask = (role == Role::Server).then_some([1, 2, 3, 4]);
            let kind = kinds[numbers.below(kinds.len())];
            let last = numbers.below(3) > 0;
            encode_frame_with_rsv(&mut bytes, kind, &payload, last, mask, compressed);
        }
        for _ in 0..numbers.below(3) {
            let at = numbers.below(bytes.len());
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << numbers.below(8);
            }
        }
        if numbers.below(4) == 0 {
            bytes.put_bytes(numbers.below(256) as u8, numbers.below(300));
        }
        bytes
    }

    /// Gives a few bytes at a time.
    struct Pieces<'a>(&'a [u8], usize);

    impl AsyncRead for Pieces<'_> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            into: &mut tokio::io::ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let n = self.1.min(self.0.len()).min(into.remaining());
            let (now, later) = self.0.split_at(n);
            into.put_slice(now);
            self.0 = later;
            Poll::Ready(Ok(()))
        }
    }

    /// How a stream ends, and how many pings were in it, when it comes in pieces of a size.
    fn end(
        bytes: &[u8],
        piece: usize,
        role: Role,
        deflate: Option<&DeflateConfig>,
    ) -> (String, usize) {
        let mut input = Input::new(role, 50_000, deflate, &[]);
        let (mut io, mut pings) = (Pieces(bytes, piece), 0);
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            // what it has is taken before each read
            let mut queue = InQueue::default();
            let mut ping = |_: &[u8]| pings += 1;
            let found = input.poll_fill(&mut cx, &mut io, &mut queue, &mut ping);
            let Poll::Ready(Ok(found)) = found else {
                panic!("it never waits or fails");
            };
            match found {
                Some(Found::Open) => {}
                Some(Found::Close(words)) => return (format!("{words:?}"), pings),
                Some(Found::Wrong(wrong)) => return (format!("{wrong:?}"), pings),
                None => return (String::new(), pings),
            }
        }
    }

    #[test]
    fn whatever_comes_in_whatever_pieces_ends_the_same_way() {
        let mut numbers = Numbers(1);
        let deflate = DeflateConfig::default();
        for n in 0..600 {
            let role = if n % 2 == 0 {
                Role::Server
            } else {
                Role::Client
            };
            let deflate = (n % 3 > 0).then_some(&deflate);
            let bytes = stream(&mut numbers, role);
            let whole = end(&bytes, usize::MAX, role, deflate);
            for piece in [1 + numbers.below(10), 1 + numbers.below(5000)] {
                assert_eq!(end(&bytes, piece, role, deflate), whole, "stream {n}");
            }
        }
    }
}
