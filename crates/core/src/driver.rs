//! The task of one connection at handler level: reads whole batches, calls the handler, writes once
//! per batch, and keeps the deadlines.

mod beside;
mod ending;
mod output;
mod restraint;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use network_system_wire::envelope::Header;
use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::buffers::{self, Keep};
use crate::clock::{Clock, Due, Timer};
use crate::close::CloseReason;
use crate::config::SessionConfig;
use crate::contain::{contain, contain_async};
use crate::envelope::{Inbound, Reader};
use crate::error::{Error, ErrorKind, Result};
use crate::handler::Handler;
use crate::in_queue::InQueue;
use crate::inbox::{End, Inbox};
use crate::lane;
use crate::link::Link;
use crate::message::Message;
use crate::out_queue::OutQueue;
use crate::outbox::{Command, Hold};
use crate::protection::Pace;
use crate::requests::{self, Request, Serving};
use crate::session::Session;
use crate::statistics::{Counters, SAMPLE, add};
use crate::ticker;
use crate::turn::{self, Looks};
use restraint::Stall;

/// Of the batches of a busy connection, one in so many is timed: a look at the clock takes as long
/// as several messages.
const SAMPLED: u32 = 8;
/// Messages after which to look at the time within a batch.
const STEPS: u64 = 64;

/// Reads after a session was told that the server shuts down: what lies in the socket has arrived,
/// but a peer that goes on sending cannot hold the end up.
const LAST_READS: u8 = 16;

/// One connection being driven.
pub(crate) struct Driver<L, H> {
    link: L,
    session: Session,
    handler: Arc<H>,
    counters: Arc<Counters>,
    clock: Clock,
    envelope: Option<Reader>,
    /// Messages read while a handler was pending.
    ahead: VecDeque<Inbound>,
    ahead_bytes: usize,
    /// When the batch that is being handled was read, if `timed`; else an earlier one.
    batch_since: Instant,
    timed: bool,
    batches: u32,
    /// How long the last one took that was timed, how often that lets the next ones look at the time,
    /// and the messages handled since.
    latency: Duration,
    looks: Looks,
    unmeasured: u64,
    batch_messages: u64,
    /// When this connection's turn on its thread began, or was first looked at, and what it has
    /// done since.
    turn_since: Option<Instant>,
    steps: u64,
    /// Whether it has waited since, which starts another turn.
    waited: bool,
    /// Whether there was nothing left to write, and no handler has run since.
    idle: bool,
    bytes_seen: u64,
    /// Bytes held, as the outbox was told.
    owned: usize,
    /// Whether the peer has caused more answers than it reads: it gets no more until it does.
    clogged: bool,
    /// Why to stop, noticed while a handler was pending: nothing more is read.
    stop: Option<CloseReason>,
    /// When a handler that is pending although the session was told to close is abandoned.
    closing: Timer,
    /// What the outbox asked for last.
    command: Option<Command>,
    /// Whether a message went out since the clock was told.
    moved: bool,
    /// Reads that a shutdown still allows.
    last_reads: u8,
    next_sample: Instant,
    /// Whether it may keep its buffers, because it is busy, and whether it does.
    keep: Option<Keep>,
    keeps: bool,
    close_timeout: Duration,
    /// How quickly the peer may send, where that is limited.
    pace: Option<Box<Pace>>,
    /// What waits for a peer that reads slowly.
    stall: Option<Stall>,
    slow_timeout: Option<Duration>,
}

impl<L: Link, H: Handler> Driver<L, H> {
    pub(crate) fn new(
        link: L,
        session: Session,
        handler: Arc<H>,
        counters: Arc<Counters>,
        config: &SessionConfig,
    ) -> Self {
        let envelope = link.info().envelope.then(Reader::default);
        let mut clock = Clock::new(config, envelope.is_some(), link.pings());
        clock.set_old(session.expires());
        Self {
            clock,
            envelope,
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            batch_since: Instant::now(),
            timed: true,
            batches: 0,
            latency: Duration::ZERO,
            looks: Looks::default(),
            unmeasured: 0,
            batch_messages: 0,
            turn_since: None,
            steps: 0,
            waited: false,
            idle: false,
            bytes_seen: 0,
            owned: 0,
            clogged: false,
            stop: None,
            closing: None,
            command: None,
            moved: false,
            last_reads: LAST_READS,
            next_sample: Instant::now(),
            keep: None,
            keeps: false,
            close_timeout: config.close_timeout,
            pace: Pace::new(&config.limits),
            stall: None,
            slow_timeout: config.limits.slow_reader_timeout,
            link,
            session,
            handler,
            counters,
        }
    }

    /// Drives the connection to its end, `on_disconnect` included; never panics with the handler.
    ///
    /// A block and not an async function, which would keep its argument twice: this is what an idle
    /// connection costs.
    #[expect(clippy::manual_async_fn, reason = "it is smaller")]
    pub(crate) fn run(mut self) -> impl Future<Output = CloseReason> + Send {
        async move {
            let (session, handler) = (self.session.clone(), self.handler.clone());
            let queue = Some(Box::new(session.new_queue()));
            // here, so that after a panic what it has received can be counted
            let mut inbox = InQueue::new(session.encoding());
            let reason = Scoped {
                future: self.drive(&mut inbox),
                session: session.clone(),
                queue,
            }
            .await;
            if matches!(reason, CloseReason::Panicked) {
                self.batch_messages += session.shared().traffic.unfinished.load(Relaxed);
                self.count_received(&inbox);
                drop(inbox);
            }
            // after a panic nobody has done this yet
            session.shut(&reason);
            if let Some(error) = reason.error() {
                contain(|| handler.on_error(Some(&session), error));
            }
            contain_async(async { handler.on_disconnect(&session, &reason).await }).await;
            reason
        }
    }

    async fn drive(&mut self, inbox: &mut InQueue) -> CloseReason {
        let (session, handler) = (self.session.clone(), self.handler.clone());
        if self.envelope.is_some() {
            self.control(Header::Hello, Message::default());
            if session.tracks_sizes() {
                // before a handler sends so much that the oldest, which this is, has to go
                poll_fn(|cx| Poll::Ready(self.poll_write(cx).is_ready())).await;
            }
        }
        let connect = handler.on_connect(&session);
        let reason = match self.beside(inbox, connect).await {
            Ok(Ok(())) if self.envelope.is_some() => {
                Box::pin(self.serve_enveloped(inbox, &session, &*handler)).await
            }
            Ok(Ok(())) => self.serve(inbox, &session, &*handler).await,
            // a connection that failed meanwhile was not refused
            Ok(Err(error)) => self.why(error, |error| CloseReason::Refused(error.to_string())),
            Err(reason) => reason,
        };
        // ends are apart, so that they cost nothing before
        let reason = Box::pin(self.answer_rest(inbox, reason)).await;
        Box::pin(self.finish(inbox, reason)).await
    }

    /// Handles messages until there is a reason to stop. The hot loop is the handler's over its
    /// [`Inbox`]: a message stays where it was read to while it is handled.
    async fn serve(&mut self, inbox: &mut InQueue, session: &Session, handler: &H) -> CloseReason {
        loop {
            // not `next_batch`, which would be one more state to go through in each batch
            if let Err(reason) = poll_fn(|cx| self.poll_batch(cx, inbox)).await {
                return reason;
            }
            if self.is_turn_over() {
                self.pause().await;
            }
            loop {
                let turn_since = self.turn_since.filter(|_| !self.waited);
                let mut batch = Inbox::new(inbox, session, turn_since, self.looks);
                let result = {
                    let mut call = pin!(handler.on_batch(session, &mut batch));
                    poll_fn(|cx| match call.as_mut().poll(cx) {
                        Poll::Ready(result) => Poll::Ready(Ok(result)),
                        Poll::Pending => self.poll_beside(cx, None).map(Err),
                    })
                    .await
                };
                let taken = batch.take_taken();
                self.batch_messages += taken;
                self.turn_since = batch.turn_since;
                let end = batch.end.take();
                drop(batch);
                match result {
                    Ok(Ok(())) if !session.is_stopped() => {}
                    Ok(Ok(())) => return self.told_to_stop(),
                    Ok(Err(error)) => return self.failed(error),
                    Err(reason) => return reason,
                }
                match end {
                    Some(End::Error(error)) => return CloseReason::from_error(error),
                    Some(End::Nothing) => break,
                    Some(End::Full) => {
                        if let Err(reason) = Box::pin(self.make_room(inbox)).await {
                            return reason;
                        }
                    }
                    None if taken == 0 => return CloseReason::Handler(nothing_taken()),
                    // a handler that leaves messages gets them again, but not before others
                    Some(End::Turn) | None => self.pause().await,
                }
            }
        }
    }

    /// As [`serve`](Self::serve) on a connection with an envelope: messages are taken out of it,
    /// and while one is handled, others are read ahead.
    async fn serve_enveloped(
        &mut self,
        inbox: &mut InQueue,
        session: &Session,
        handler: &H,
    ) -> CloseReason {
        loop {
            self.steps += 1;
            if self.steps.is_multiple_of(STEPS) && self.is_turn_over() {
                self.pause().await;
            }
            let result = match self.next_enveloped(inbox) {
                Ok(Some(Inbound::Message(message))) => {
                    self.batch_messages += 1;
                    let mut batch = Inbox::one(message.by_ref(), session);
                    let call = handler.on_batch(session, &mut batch);
                    match self.beside(inbox, call).await {
                        Ok(Ok(())) if batch.has_one() && !session.is_stopped() => {
                            return CloseReason::Handler(nothing_taken());
                        }
                        Ok(Ok(())) if matches!(batch.end, Some(End::Full)) => {
                            Box::pin(self.make_room(inbox)).await.map(Ok)
                        }
                        result => result,
                    }
                }
                Ok(Some(Inbound::Request { id, message })) => {
                    self.batch_messages += 1;
                    let request = Request::new(session.clone(), id, message);
                    let call = handler.on_request(session, request);
                    match self.beside(inbox, call).await {
                        Ok(Ok(())) if session.shared().serving.is_full() => self
                            .answered(inbox, true, |serving| !serving.is_full())
                            .await
                            .map(Ok),
                        result => result,
                    }
                }
                Ok(Some(other)) => {
                    self.protocol(other);
                    continue;
                }
                Ok(None) => match self.next_batch(inbox).await {
                    Ok(()) => continue,
                    Err(reason) => return reason,
                },
                Err(error) => return CloseReason::from_error(error),
            };
            match result {
                Ok(Ok(())) if !session.shared().outbox.is_stopped() => {}
                Ok(Ok(())) => return self.told_to_stop(),
                Ok(Err(error)) => return self.failed(error),
                Err(reason) => return reason,
            }
        }
    }

    async fn next_batch(&mut self, inbox: &mut InQueue) -> Result<(), CloseReason> {
        poll_fn(|cx| self.poll_batch(cx, inbox)).await?;
        if self.is_turn_over() {
            self.pause().await;
        }
        Ok(())
    }

    fn is_turn_over(&mut self) -> bool {
        if std::mem::take(&mut self.waited) {
            self.turn_since = None;
            return false;
        }
        turn::is_over(&mut self.turn_since)
    }

    /// Lets the other connections of this thread have their turn.
    #[cold]
    async fn pause(&mut self) {
        // an error shows at the next write again
        poll_fn(|cx| Poll::Ready(self.poll_write(cx).is_ready())).await;
        tokio::task::yield_now().await;
        self.turn_since = None;
    }

    /// The next message that has arrived already, on a connection with an envelope.
    fn next_enveloped(&mut self, inbox: &mut InQueue) -> Result<Option<Inbound>> {
        if let Some(inbound) = self.ahead.pop_front() {
            self.ahead_bytes -= inbound.len();
            return Ok(Some(inbound));
        }
        let Some(reader) = &mut self.envelope else {
            return Ok(None);
        };
        if self.stop.is_some() {
            // what came before has been taken; what follows an error is not looked at
            return Ok(None);
        }
        match inbox.next()? {
            Some(message) => reader.read(&message).map(Some),
            None => Ok(None),
        }
    }

    /// Handles what the protocol itself needs, which never waits; gives back what does.
    fn protocol(&mut self, inbound: Inbound) -> Option<Inbound> {
        let requests = &self.session.shared().requests;
        match inbound {
            Inbound::Reply { id, message } => {
                self.batch_messages += 1;
                requests.complete(id, || Ok(message));
            }
            Inbound::Failure { id, code, text } => {
                self.batch_messages += 1;
                requests.complete(id, || Err(requests::failure(code, &text)));
            }
            Inbound::Ping { token } => {
                self.control(Header::Pong { token }, Message::default());
            }
            Inbound::GoAway => self.goaway(),
            Inbound::Pong | Inbound::Hello => {}
            other => return Some(other),
        }
        None
    }

    fn control(&self, header: Header, message: Message) {
        self.session.send_control(header, message);
    }

    /// Between batches: writes what is queued, then waits for input, a command or a deadline.
    fn poll_batch(
        &mut self,
        cx: &mut Context<'_>,
        inbox: &mut InQueue,
    ) -> Poll<Result<(), CloseReason>> {
        let messages = self.count_received(inbox);
        if let Some(reason) = self.stop.take() {
            return Poll::Ready(Err(reason));
        }
        // nothing can have been queued here since the last look, which found nothing
        if messages > 0 || !self.idle || self.session.shared().outbox.is_ready() {
            let written = self.poll_write(cx);
            self.tell_clock(messages);
            match written {
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(CloseReason::from_error(error)));
                }
                Poll::Ready(Ok(())) => self.idle = true,
                Poll::Pending => {
                    self.idle = false;
                    if self.is_slow_reader() {
                        return Poll::Ready(Err(CloseReason::SlowReader));
                    }
                }
            }
        }
        if let Some(Command::Close(reason) | Command::Cut(reason)) = self.command.take() {
            return self.poll_last(cx, inbox, reason);
        }
        let mut held = self.clogged;
        if self.pace.is_some() {
            match self.poll_pace(cx, messages, inbox.received()) {
                Poll::Ready(Err(reason)) => return Poll::Ready(Err(reason)),
                paused => held |= paused.is_pending(),
            }
        }
        let filled = if held {
            Poll::Pending
        } else if inbox.is_at_rest() && self.link.would_wait(cx) {
            inbox.rest();
            Poll::Pending
        } else {
            self.link.poll_fill(cx, inbox)
        };
        match filled {
            Poll::Ready(Ok(true)) => {
                self.idle = false;
                self.batches = self.batches.wrapping_add(1);
                self.timed = !self.clock.is_watched() || self.batches.is_multiple_of(SAMPLED);
                if self.timed {
                    self.batch_since = Instant::now();
                    self.clock.heard(self.batch_since);
                }
                return Poll::Ready(Ok(()));
            }
            Poll::Ready(Ok(false)) => return Poll::Ready(Err(CloseReason::Peer)),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(CloseReason::from_error(error))),
            Poll::Pending => {}
        }
        self.waited = true;
        let due = self.poll_clock(cx);
        if self.keeps != self.keep.is_some() {
            self.set_keeps(inbox);
        }
        due.map(Err)
    }

    /// Keeps the buffers from now on, or gives them back.
    #[cold]
    fn set_keeps(&mut self, inbox: &mut InQueue) {
        self.keeps = self.keep.is_some();
        inbox.set_keeps(self.keeps);
        lane::with(self.session.id(), |queue| queue.set_keeps(self.keeps));
    }
}

/// The error of a handler that would be called for the same messages for ever.
#[cold]
pub(crate) fn nothing_taken() -> Error {
    Error::new(ErrorKind::Internal, "handle messages")
        .because("on_batch has returned without taking one")
        .advice("take at least one message in each call")
}

pin_project! {
    /// Runs a connection's future with its queue in the thread's lane, and turns a panic of the
    /// handler into the end of that connection.
    struct Scoped<F> {
        #[pin]
        future: F,
        session: Session,
        queue: Option<Box<OutQueue>>,
    }
}

impl<F: Future<Output = CloseReason>> Future for Scoped<F> {
    type Output = CloseReason;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let this = self.project();
        let poll = || catch_unwind(AssertUnwindSafe(|| this.future.poll(cx)));
        let broken = this.session.shared().broken.load(Relaxed);
        let owner = if broken {
            lane::NOBODY
        } else {
            this.session.id()
        };
        match lane::enter(owner, this.queue, poll) {
            Ok(result) => result,
            Err(_) => {
                let left = this.queue.as_ref().map_or(0, |queue| queue.messages());
                this.session.count_lost(left);
                Poll::Ready(CloseReason::Panicked)
            }
        }
    }
}
