//! A link whose messages go through a pipeline: [`Piped`].

use std::io::IoSlice;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use network_system_wire::pipeline::{Role, message_limit};
use network_system_wire::{Framing, LengthPrefix};
use tokio::time::Instant;

use super::ReadyPipeline;
use super::handshake::Frames;
use super::steps::{Came, Steps};
use crate::error::{Error, ErrorKind, Result};
use crate::in_queue::InQueue;
use crate::link::{Link, LinkInfo, Sent, Sink, Source};
use crate::message::{Message, MessageRef};
use crate::out_queue::{Encoding, OutQueue, ZERO_COPY};
use crate::protection::Introduced;

/// Bytes of messages that go through before it is time to write, or to handle them.
const BATCH: usize = 64 * 1024;
/// Slices of a queue that are looked at in one go.
const SLICES: usize = 64;
/// Bytes before a message in the queue.
const LENGTH: usize = 4;

/// A link whose messages go through a pipeline.
///
/// The session's queue holds plain messages, each behind a length of 4 bytes. They are encoded here,
/// right before they are written: records of Noise are numbered, so what is encoded must be sent, in
/// this order, and what an overflow policy drops must not be.
pub struct Piped<L> {
    frames: Frames<L>,
    pipeline: ReadyPipeline,
    info: LinkInfo,
    encoding: Encoding,
    /// There are none before both sides have agreed.
    steps: Option<Steps>,
    /// Whether the last byte of what has been encoded is still in the session's queue: it counts as
    /// unsent until all is written.
    held: bool,
    /// Bytes that came, as far as the session knows.
    received: u64,
    input: Input,
    /// By when it must have said why it cannot be opened.
    until: Option<Instant>,
    /// Whether our goodbye has been said.
    closing: bool,
}

enum Input {
    Open,
    /// What was wrong behind the messages that were given out last.
    Failed(Error),
    /// After an error: what still comes is dropped.
    Dropped,
    /// In good order.
    Ended,
}

impl<L: Link> Piped<L> {
    /// A link that was accepted; [`open`](Link::open) agrees with the peer. It must have been made with
    /// the settings that came with the pipeline.
    #[must_use]
    pub fn accepted(link: L, pipeline: ReadyPipeline) -> Self {
        let frames = Frames::new(link);
        let mut limit = pipeline.0.max_message;
        if let Encoding::Stream(Framing::LengthPrefix(prefix)) = &frames.encoding {
            let width = usize::try_from(prefix.width.max_length()).unwrap_or(usize::MAX);
            let frame = width.min(prefix.max_message);
            limit = limit.min(message_limit(frame, pipeline.is_secret()));
        }
        // as much as a length can say
        limit = limit.min(u32::MAX as usize);
        let inside = LengthPrefix::new().with_max_message(limit);
        Self {
            until: pipeline.open_until(),
            info: info(frames.link.info(), limit),
            frames,
            pipeline,
            encoding: Encoding::Stream(inside.into()),
            steps: None,
            held: false,
            received: 0,
            input: Input::Open,
            closing: false,
        }
    }

    /// Agrees with the peer over a link that we have made.
    ///
    /// # Errors
    /// [`ErrorKind::Handshake`] or [`ErrorKind::Untrusted`]: why not.
    pub async fn connect(link: L, pipeline: ReadyPipeline) -> Result<Self> {
        Self::accepted(link, pipeline).agree(Role::Client).await
    }

    /// As [`connect`](Self::connect), where the connect has begun with the link below: what goes wrong is
    /// said by then (see [`open_until`](crate::config::open_until)).
    ///
    /// # Errors
    /// As there.
    pub async fn connect_until(
        link: L,
        pipeline: ReadyPipeline,
        until: Option<Instant>,
    ) -> Result<Self> {
        let mut piped = Self::accepted(link, pipeline);
        piped.until = until;
        piped.agree(Role::Client).await
    }

    /// As [`open`](Link::open), over a link that is open already.
    ///
    /// # Errors
    /// As there.
    pub async fn open_over(self, open: impl AsyncFnOnce(L) -> Result<L>) -> Result<Self> {
        let Self {
            frames,
            pipeline,
            until,
            ..
        } = self;
        let link = open(frames.link).await?;
        let mut piped = Self::accepted(link, pipeline);
        piped.until = until;
        piped.agree(Role::Server).await
    }

    async fn agree(mut self, role: Role) -> Result<Self> {
        let (agreed, cipher) = self.frames.agree(&self.pipeline, role, self.until).await?;
        let settings = &self.pipeline.0.settings;
        self.steps = Some(Steps {
            compress: agreed.compression,
            threshold: settings.threshold,
            cipher,
            limit: self.info.max_message,
        });
        self.info.pipeline = Some(Arc::new(agreed));
        Ok(self)
    }
}

impl<L> Piped<L> {
    /// The link below.
    pub fn get_ref(&self) -> &L {
        &self.frames.link
    }
}

impl<L: Link> Piped<L> {
    /// The link below, to learn from it who its [client](Link::learn_client) is; [`learnt`](Self::learnt)
    /// follows.
    pub fn get_mut(&mut self) -> &mut L {
        &mut self.frames.link
    }

    /// The link below knows its peer now.
    pub fn learnt(&mut self) {
        self.info = info(self.frames.link.info(), self.info.max_message);
    }
}

/// What is known about a link with a pipeline over one with `below`.
fn info(below: &LinkInfo, max_message: usize) -> LinkInfo {
    LinkInfo {
        max_message,
        ..below.clone()
    }
}

impl<L: Link> Piped<L> {
    /// Decodes what has come; whether there is a message in it.
    fn decode(&mut self, queue: &mut InQueue) -> bool {
        let Some(steps) = &mut self.steps else {
            self.input = Input::Failed(not_open());
            return false;
        };
        let inbox = &mut self.frames.inbox;
        let mut wire = inbox.received() - self.received;
        let mut decoded = 0;
        // what a few bytes can become is not piled up
        while decoded < BATCH {
            let came = match inbox.next() {
                Ok(Some(frame)) => steps.decode(&frame),
                Ok(None) => break,
                Err(error) => Err(error),
            };
            match came {
                Ok(Came::Message(message)) => {
                    decoded += message.len() + size_of::<Message>();
                    self.received += wire;
                    queue.push(message, std::mem::take(&mut wire));
                }
                Ok(Came::Goodbye) => {
                    self.input = Input::Ended;
                    break;
                }
                Err(error) => {
                    // what came before is handled first
                    self.input = Input::Failed(error.peer(&self.info.peer));
                    break;
                }
            }
        }
        decoded > 0
    }

    /// Drops what still comes.
    fn poll_drop(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool>> {
        self.frames.inbox.clear();
        let filled = self.frames.link.poll_fill(cx, &mut self.frames.inbox);
        self.frames.inbox.clear();
        filled
    }

    /// The end of the stream below.
    fn end(&mut self) -> Result<bool> {
        let secret = self.steps.as_ref().is_some_and(|s| s.cipher.is_some());
        self.input = Input::Ended;
        if !secret {
            return Ok(false);
        }
        Err(Error::new(ErrorKind::ConnectionClosed, "receive from")
            .peer(&self.info.peer)
            .because("the connection ended without the peer's goodbye")
            .advice("the peer was cut off, or somebody on the way has cut off what it sent"))
    }

    /// Encodes the first messages of the queue; how many of them are complete. They are sent once
    /// `held` is false again.
    fn encode(&mut self, queue: &mut OutQueue) -> Result<usize> {
        let steps = self.steps.as_mut().ok_or_else(not_open)?;
        let mut slices = [IoSlice::new(&[]); SLICES];
        let n = queue.slices(&mut slices);
        let mut plain = Plain::new(slices.get(..n).unwrap_or_default());
        let mut spill = Vec::new();
        while plain.taken < BATCH
            && let Some(message) = plain.next(&mut spill)
        {
            let Frames {
                encoding, outbox, ..
            } = &mut self.frames;
            steps.encode(message, |frame| {
                if frame.len() < ZERO_COPY {
                    return outbox.push(encoding, None, &MessageRef::new(frame, frame.len()));
                }
                let frame = Message::from(std::mem::take(frame));
                outbox.push(encoding, None, &frame.by_ref())
            })?;
        }
        let taken = plain.taken;
        if taken == 0 {
            return Err(Error::new(ErrorKind::Internal, "encode a message")
                .because("there is none in the queue"));
        }
        self.held = true;
        Ok(queue.advance(taken - 1))
    }
}

/// The messages in the slices of a queue.
struct Plain<'a> {
    slices: &'a [IoSlice<'a>],
    /// Bytes of the first slice that were taken.
    at: usize,
    /// Bytes taken, with the lengths.
    taken: usize,
}

impl<'a> Plain<'a> {
    fn new(slices: &'a [IoSlice<'a>]) -> Self {
        Self {
            slices,
            at: 0,
            taken: 0,
        }
    }

    /// The next whole message: where it lies, or in `spill`.
    fn next<'s>(&mut self, spill: &'s mut Vec<u8>) -> Option<&'s [u8]>
    where
        'a: 's,
    {
        let (before, at) = (self.slices, self.at);
        let len = self
            .take(LENGTH, spill)
            .and_then(|length| length.first_chunk().copied())
            .map(u32::from_be_bytes);
        let len = len.and_then(|len| usize::try_from(len).ok());
        let message = len.and_then(|len| self.take(len, spill).map(|message| (len, message)));
        match message {
            Some((len, message)) => {
                self.taken += LENGTH + len;
                Some(message)
            }
            None => {
                // the rest of it is not among these slices
                (self.slices, self.at) = (before, at);
                None
            }
        }
    }

    fn take<'s>(&mut self, n: usize, spill: &'s mut Vec<u8>) -> Option<&'s [u8]>
    where
        'a: 's,
    {
        if n == 0 {
            return Some(&[]);
        }
        let (first, rest) = self.slices.split_first()?;
        if let Some(bytes) = first.get(self.at..self.at + n) {
            self.at += n;
            if self.at == first.len() {
                (self.slices, self.at) = (rest, 0);
            }
            return Some(bytes);
        }
        spill.clear();
        while spill.len() < n {
            let (first, rest) = self.slices.split_first()?;
            let bytes = first.get(self.at..).unwrap_or_default();
            let more = bytes.len().min(n - spill.len());
            spill.extend_from_slice(bytes.get(..more).unwrap_or_default());
            self.at += more;
            if self.at == first.len() {
                (self.slices, self.at) = (rest, 0);
            }
        }
        Some(spill)
    }
}

#[cold]
fn not_open() -> Error {
    Error::new(ErrorKind::Internal, "exchange messages").because("the pipeline is not open yet")
}

impl<L: Link> Source for Piped<L> {
    fn poll_fill(&mut self, cx: &mut Context<'_>, queue: &mut InQueue) -> Poll<Result<bool>> {
        loop {
            match std::mem::replace(&mut self.input, Input::Dropped) {
                Input::Open => self.input = Input::Open,
                Input::Failed(error) => return Poll::Ready(Err(error)),
                Input::Dropped => return self.poll_drop(cx),
                Input::Ended => {
                    self.input = Input::Ended;
                    return Poll::Ready(Ok(false));
                }
            }
            if self.decode(queue) {
                return Poll::Ready(Ok(true));
            }
            let Frames { link, inbox, .. } = &mut self.frames;
            if matches!(self.input, Input::Open) && !ready!(link.poll_fill(cx, inbox))? {
                return Poll::Ready(self.end());
            }
        }
    }
}

impl<L: Link> Sink for Piped<L> {
    fn encoding(&self) -> Encoding {
        self.encoding.clone()
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        queue: &mut OutQueue,
    ) -> (Sent, Poll<Result<()>>) {
        let mut sent = Sent::default();
        loop {
            let Frames { link, outbox, .. } = &mut self.frames;
            if self.held || !outbox.is_empty() {
                let (below, result) = link.poll_send(cx, outbox);
                sent.bytes += below.bytes;
                if !matches!(result, Poll::Ready(Ok(()))) {
                    return (sent, result);
                }
            }
            if std::mem::take(&mut self.held) {
                sent.messages += queue.advance(1) as u64;
            }
            if queue.is_empty() {
                outbox.release();
                return (sent, Poll::Ready(Ok(())));
            }
            match self.encode(queue) {
                Ok(messages) => sent.messages += messages as u64,
                Err(error) => {
                    let error = error.peer(&self.info.peer);
                    return (sent, Poll::Ready(Err(error)));
                }
            }
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Frames {
            link,
            outbox,
            encoding,
            ..
        } = &mut self.frames;
        if !self.closing {
            self.closing = true;
            let goodbye = self.steps.as_mut().map(Steps::goodbye).transpose()?;
            if let Some(frame) = goodbye.flatten() {
                outbox.push(encoding, None, &Message::from(frame).by_ref())?;
            }
        }
        if !outbox.is_empty() {
            ready!(link.poll_send(cx, outbox).1)?;
        }
        link.poll_close(cx)
    }
}

impl<L: Link> Link for Piped<L> {
    fn info(&self) -> &LinkInfo {
        &self.info
    }

    fn is_open(&self) -> bool {
        self.steps.is_some()
    }

    async fn learn_client(&mut self) -> Result<Introduced> {
        let introduced = self.get_mut().learn_client().await?;
        self.learnt();
        Ok(introduced)
    }

    async fn open(self) -> Result<Self> {
        if self.is_open() {
            return Ok(self);
        }
        self.open_over(L::open).await
    }
}

impl<L: std::fmt::Debug> std::fmt::Debug for Piped<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // the keys stay here
        f.debug_struct("Piped")
            .field("link", &self.frames.link)
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}
