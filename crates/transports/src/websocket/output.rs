//! The way out: messages to frames, as many as go into one write.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use network_system_core::{Message, MessageKind, OutQueue, Sent, ZERO_COPY};
use sockudo_ws::OpCode;
use sockudo_ws::cork::CorkBuffer;
use sockudo_ws::deflate::{DeflateConfig, DeflateEncoder};
use sockudo_ws::error::CloseReason as Words;
use sockudo_ws::frame::{encode_frame, encode_frame_header, encode_frame_with_rsv};
use sockudo_ws::mask::generate_mask;
use sockudo_ws::protocol::Role;
use tokio::io::AsyncWrite;

/// Bytes of frames that are made before they are written.
const BATCH: usize = 64 * 1024;
/// Bytes of pongs that may wait for a peer which does not read; then only the last ping is answered,
/// as RFC 6455 section 5.5.3 allows.
const PONGS: usize = 8 * 1024;
/// Slices per vectored write.
const SLICES: usize = 64;

thread_local! {
    /// The buffer of whoever writes on this thread.
    static BUFFER: RefCell<BytesMut> = RefCell::default();
}

/// Encodes and writes what goes to the peer.
pub(super) struct Output {
    role: Role,
    /// What is encoded and not written.
    cork: CorkBuffer,
    /// The compression, and how one is made.
    deflate: Option<Deflating>,
    /// Whether the first message of the session's queue is encoded already: it counts as unsent until
    /// all before it, and itself, is written.
    held: bool,
    /// The ping that is answered when there is room.
    ping: Option<Vec<u8>>,
}

/// A compression, which is made when the first message needs it.
struct Deflating {
    config: DeflateConfig,
    encoder: Option<Box<DeflateEncoder>>,
}

impl Deflating {
    fn encoder(&mut self, role: Role) -> &mut DeflateEncoder {
        let config = &self.config;
        self.encoder.get_or_insert_with(|| {
            let (bits, forgets) = match role {
                Role::Server => (
                    config.server_max_window_bits,
                    config.server_no_context_takeover,
                ),
                Role::Client => (
                    config.client_max_window_bits,
                    config.client_no_context_takeover,
                ),
            };
            let (level, threshold) = (config.compression_level, config.compression_threshold);
            Box::new(DeflateEncoder::new(bits, forgets, level, threshold))
        })
    }
}

impl Output {
    pub(super) fn new(role: Role, deflate: Option<DeflateConfig>) -> Self {
        let deflate = deflate.map(|config| Deflating {
            config,
            encoder: None,
        });
        Self {
            role,
            cork: CorkBuffer::with_capacity(0),
            deflate,
            held: false,
            ping: None,
        }
    }

    fn mask(&self) -> Option<[u8; 4]> {
        (self.role == Role::Client).then(generate_mask)
    }

    /// Whether everything that was encoded is written.
    pub(super) fn is_empty(&self) -> bool {
        !self.cork.has_data() && self.ping.is_none()
    }

    /// Encodes one message.
    fn encode(&mut self, message: &Message) -> Result<(), sockudo_ws::Error> {
        let bytes = message.as_bytes();
        let opcode = match message.kind() {
            // what says that it is text must be
            MessageKind::Text if message.as_str().is_some() => OpCode::Text,
            _ => OpCode::Binary,
        };
        let mask = self.mask();
        // an empty message flushes nothing out of zlib, which the peer could not read
        if let Some(deflate) = &mut self.deflate
            && !bytes.is_empty()
            && bytes.len() >= deflate.config.compression_threshold
            && let Some(small) = deflate.encoder(self.role).compress(bytes)?
        {
            encode_frame_with_rsv(self.cork.buffer_mut(), opcode, &small, true, mask, true);
            return Ok(());
        }
        if bytes.len() >= ZERO_COPY && mask.is_none() {
            encode_frame_header(self.cork.buffer_mut(), opcode, bytes.len(), true, None);
            self.cork.push_segment(message.clone().into_bytes());
        } else {
            encode_frame(self.cork.buffer_mut(), opcode, bytes, true, mask);
        }
        Ok(())
    }

    fn control(&mut self, opcode: OpCode, payload: &[u8]) {
        let mask = self.mask();
        encode_frame(self.cork.buffer_mut(), opcode, payload, true, mask);
    }

    pub(super) fn ping(&mut self) {
        if self.cork.pending_bytes() < BATCH {
            self.control(OpCode::Ping, b"");
        }
    }

    /// Answers a ping.
    pub(super) fn pong(&mut self, payload: &[u8]) {
        if self.cork.pending_bytes() < PONGS {
            self.control(OpCode::Pong, payload);
        } else {
            self.ping = Some(payload.to_vec());
        }
    }

    pub(super) fn close(&mut self, words: Option<&Words>) {
        let mut payload = Vec::new();
        if let Some(words) = words {
            payload.extend_from_slice(&words.code.to_be_bytes());
            payload.extend_from_slice(words.reason.as_bytes());
        }
        self.ping = None;
        self.control(OpCode::Close, &payload);
    }

    /// Writes the whole queue, frames of many messages at a time.
    pub(super) fn poll_send<T: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut T,
        queue: &mut OutQueue,
    ) -> (Sent, Poll<io::Result<()>>) {
        let mut sent = Sent::default();
        self.borrow();
        let result = loop {
            if let Err(error) = self.encode_more(queue, &mut sent) {
                break Poll::Ready(Err(io::Error::other(error)));
            }
            match self.poll_write(cx, io, &mut sent) {
                Poll::Ready(Ok(())) => {}
                Poll::Pending => {
                    if self.held {
                        queue.begun();
                    }
                    break Poll::Pending;
                }
                error => break error,
            }
            if self.held {
                self.written(queue, &mut sent);
            }
            if queue.is_empty() {
                break Pin::new(&mut *io).poll_flush(cx);
            }
            if queue.front_message().is_none() {
                break Poll::Ready(Err(io::Error::other("what is queued is no message")));
            }
        };
        self.give_back();
        (sent, result)
    }

    fn written(&mut self, queue: &mut OutQueue, sent: &mut Sent) {
        queue.pop_message();
        sent.messages += 1;
        self.held = false;
    }

    /// Encodes what goes into one write. The last message stays in the queue.
    fn encode_more(
        &mut self,
        queue: &mut OutQueue,
        sent: &mut Sent,
    ) -> Result<(), sockudo_ws::Error> {
        while self.cork.pending_bytes() < BATCH {
            if self.held {
                if queue.messages() <= 1 {
                    break;
                }
                self.written(queue, sent);
            }
            let Some(message) = queue.front_message() else {
                break;
            };
            self.encode(message)?;
            self.held = true;
        }
        Ok(())
    }

    /// Writes what is encoded.
    pub(super) fn poll_flush<T: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut T,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_write(cx, io, &mut Sent::default()))?;
        self.give_back();
        Pin::new(io).poll_flush(cx)
    }

    fn poll_write<T: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut T,
        sent: &mut Sent,
    ) -> Poll<io::Result<()>> {
        loop {
            while self.cork.has_data() {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let n = match self.cork.fill_write_slices(&mut slices) {
                    1 => ready!(Pin::new(&mut *io).poll_write(cx, &slices[0]))?,
                    n => ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices[..n]))?,
                };
                if n == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                sent.bytes += n as u64;
                self.cork.consume(n);
            }
            match self.ping.take() {
                Some(payload) => self.control(OpCode::Pong, &payload),
                None => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Takes the buffer of the thread, unless it has one of its own.
    fn borrow(&mut self) {
        if self.cork.buffer_mut().capacity() == 0 {
            BUFFER.with_borrow_mut(|buffer| std::mem::swap(buffer, self.cork.buffer_mut()));
        }
    }

    /// Gives the buffer back when it is empty, and not so large that it is better forgotten.
    fn give_back(&mut self) {
        if self.cork.has_data() {
            return;
        }
        let mut own = std::mem::take(self.cork.buffer_mut());
        BUFFER.with_borrow_mut(|buffer| {
            if buffer.capacity() == 0 {
                // what is left of its room, or all of it, now that nobody else holds a part
                own.clear();
                own.reserve(2 * BATCH);
                if own.capacity() <= 8 * BATCH {
                    *buffer = own;
                }
            }
        });
    }
}
