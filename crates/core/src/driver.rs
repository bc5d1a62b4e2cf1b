//! The task of one connection at handler level: reads whole batches, calls the handler, writes once
//! per batch, and keeps the deadlines.

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

use crate::buffers::Keep;
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
use crate::requests::{self, Request, Serving};
use crate::session::Session;
use crate::statistics::{Counters, SAMPLE, add};
use crate::ticker;
use crate::turn;

/// While a handler is pending on a connection with an envelope, this many bytes are read ahead, so
/// that replies and heartbeats still arrive.
const READ_AHEAD: usize = 64 * 1024;
/// Messages read ahead at most, however small.
const READ_AHEAD_MESSAGES: usize = 1024;
/// What the owner takes from an outbox at once where the oldest messages may be dropped: what it
/// has taken can no longer be.
const DROPPABLE_BATCH: usize = 64 * 1024;
/// Of the batches of a busy connection, one in so many is timed: a look at the clock takes as long
/// as several messages.
const SAMPLED: u32 = 8;
/// Messages after which to look at the time within a batch.
const STEPS: u64 = 64;
/// How long a connection that this side closed waits for the peer to close too. Closing a socket
/// with unread input resets it, and a reset can destroy what was written before.
const LINGER: Duration = Duration::from_secs(1);

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
    /// How long the last one took that was timed, and the messages handled since.
    latency: Duration,
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
    next_sample: Instant,
    /// Whether it may keep its buffers, because it is busy, and whether it does.
    keep: Option<Keep>,
    keeps: bool,
    close_timeout: Duration,
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
        Self {
            clock: Clock::new(config, envelope.is_some()),
            envelope,
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            batch_since: Instant::now(),
            timed: true,
            batches: 0,
            latency: Duration::ZERO,
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
            next_sample: Instant::now(),
            keep: None,
            keeps: false,
            close_timeout: config.close_timeout,
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
            let reason = Scoped {
                future: self.drive(),
                session: session.clone(),
                queue,
            }
            .await;
            // after a panic nobody has done this yet
            session.shut(&reason);
            if let Some(error) = reason.error() {
                contain(|| handler.on_error(Some(&session), error));
            }
            contain_async(async { handler.on_disconnect(&session, &reason).await }).await;
            reason
        }
    }

    async fn drive(&mut self) -> CloseReason {
        let (session, handler) = (self.session.clone(), self.handler.clone());
        if self.envelope.is_some() {
            self.control(Header::Hello, Message::default());
            if session.tracks_sizes() {
                // before a handler sends so much that the oldest, which this is, has to go
                poll_fn(|cx| Poll::Ready(self.poll_write(cx).is_ready())).await;
            }
        }
        let mut inbox = InQueue::new(session.encoding());
        let connect = handler.on_connect(&session);
        let reason = match self.beside(&mut inbox, connect).await {
            Ok(Ok(())) if self.envelope.is_some() => {
                Box::pin(self.serve_enveloped(&mut inbox, &session, &*handler)).await
            }
            Ok(Ok(())) => self.serve(&mut inbox, &session, &*handler).await,
            // a connection that failed meanwhile was not refused
            Ok(Err(error)) => self.why(error, |error| CloseReason::Refused(error.to_string())),
            Err(reason) => reason,
        };
        // ends are apart, so that they cost nothing before
        let reason = Box::pin(self.answer_rest(&mut inbox, reason)).await;
        Box::pin(self.finish(&mut inbox, reason)).await
    }

    /// Before an end in good order: waits for the answers to requests that were moved to tasks.
    async fn answer_rest(&mut self, inbox: &mut InQueue, reason: CloseReason) -> CloseReason {
        let session = self.session.clone();
        let shared = session.shared();
        let timeout = match reason {
            // a shutdown has a deadline of its own, and cuts what is left then
            CloseReason::Shutdown => Duration::MAX,
            CloseReason::Peer if !shared.peer_leaving.load(Relaxed) => self.close_timeout,
            _ => return reason,
        };
        if shared.serving.is_idle() {
            return reason;
        }
        if matches!(reason, CloseReason::Peer) {
            self.end_input(CloseReason::Peer);
        }
        let answers = self.answered(inbox, false, Serving::is_idle);
        let result = tokio::time::timeout(timeout, answers).await;
        shared.serving.watch(false);
        match (result, self.stop.take()) {
            (Ok(Err(other)), _) | (_, Some(other @ CloseReason::Network(_))) => other,
            _ => reason,
        }
    }

    /// Keeps the connection going until so many requests are answered that `enough` says so, or
    /// until there is no more point in it; `reading`: the end of the input is such a point.
    #[cold]
    async fn answered(
        &mut self,
        inbox: &mut InQueue,
        reading: bool,
        enough: impl Fn(&Serving) -> bool,
    ) -> Result<(), CloseReason> {
        let session = self.session.clone();
        let shared = session.shared();
        shared.serving.watch(true);
        let result = poll_fn(|cx| {
            // first, since it lets the outbox know whom to wake for the next answer
            let beside = self.poll_beside(cx, Some(&mut *inbox));
            let pointless = shared.broken.load(Relaxed)
                || shared.outbox.is_stopped()
                || (reading && self.stop.is_some());
            match beside {
                Poll::Ready(reason) => Poll::Ready(Err(reason)),
                Poll::Pending if pointless || enough(&shared.serving) => Poll::Ready(Ok(())),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        shared.serving.watch(false);
        result
    }

    /// Handles messages until there is a reason to stop. The hot loop is the handler's over its
    /// [`Inbox`]: a message stays where it was read to while it is handled.
    async fn serve(&mut self, inbox: &mut InQueue, session: &Session, handler: &H) -> CloseReason {
        loop {
            if let Err(reason) = self.next_batch(inbox).await {
                return reason;
            }
            loop {
                let turn_since = self.turn_since.filter(|_| !self.waited);
                let mut batch = Inbox::new(inbox, session, turn_since);
                let result = {
                    let mut call = pin!(handler.on_batch(session, &mut batch));
                    poll_fn(|cx| match call.as_mut().poll(cx) {
                        Poll::Ready(result) => Poll::Ready(Ok(result)),
                        Poll::Pending => self.poll_beside(cx, None).map(Err),
                    })
                    .await
                };
                self.batch_messages += batch.taken();
                self.turn_since = batch.turn_since;
                let end = batch.end.take();
                let taken = batch.taken();
                match result {
                    Ok(Ok(())) if !session.is_stopped() => {}
                    Ok(Ok(())) => return self.told_to_stop(),
                    Ok(Err(error)) => return self.failed(error),
                    Err(reason) => return reason,
                }
                match end {
                    Some(End::Error(error)) => return CloseReason::from_error(error),
                    Some(End::Nothing) => break,
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
                    self.beside(inbox, call).await
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
            Inbound::GoAway => self.session.shared().peer_leaving.store(true, Relaxed),
            Inbound::Pong | Inbound::Hello => {}
            other => return Some(other),
        }
        None
    }

    fn control(&self, header: Header, message: Message) {
        self.session.send_control(header, message);
    }

    /// Runs a handler's call and keeps the connection going beside it.
    async fn beside<T>(
        &mut self,
        inbox: &mut InQueue,
        call: impl Future<Output = T>,
    ) -> Result<T, CloseReason> {
        let mut call = pin!(call);
        poll_fn(|cx| match call.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(Ok(result)),
            Poll::Pending => self.poll_beside(cx, Some(inbox)).map(Err),
        })
        .await
    }

    /// The error of a handler; when the connection had failed before, that is the reason.
    #[cold]
    fn failed(&mut self, error: crate::Error) -> CloseReason {
        self.why(error, CloseReason::Handler)
    }

    fn why(
        &mut self,
        error: crate::Error,
        otherwise: impl FnOnce(crate::Error) -> CloseReason,
    ) -> CloseReason {
        if error.is_closed()
            && let Some(reason) = self.session.shared().outbox.stop_reason()
        {
            // its send failed because the session was told to end
            return reason;
        }
        match self.stop.take() {
            // a peer that says no more leaves the handler its own errors
            Some(reason) if error.is_closed() || !matches!(reason, CloseReason::Peer) => reason,
            _ => otherwise(error),
        }
    }

    /// The command that made the outbox say that it is stopped.
    #[cold]
    fn told_to_stop(&mut self) -> CloseReason {
        self.session
            .shared()
            .outbox
            .stop_reason()
            .unwrap_or(CloseReason::Cut)
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
                written => self.idle = written.is_ready(),
            }
        }
        if let Some(Command::Close(reason) | Command::Cut(reason)) = self.command.take() {
            return Poll::Ready(Err(reason));
        }
        let filled = if self.clogged {
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

    /// While a handler is pending: goes on writing, and, where the envelope makes that useful,
    /// reading, for which `inbox` is needed. Ready when the call is to be abandoned.
    #[cold]
    fn poll_beside(
        &mut self,
        cx: &mut Context<'_>,
        inbox: Option<&mut InQueue>,
    ) -> Poll<CloseReason> {
        self.waited = true;
        let mut written = self.poll_write(cx);
        if let Poll::Ready(reason) = self.poll_told(cx) {
            return Poll::Ready(reason);
        }
        let stalled = written.is_pending();
        if let Some(inbox) = inbox.filter(|_| self.envelope.is_some() && self.stop.is_none())
            && !matches!(written, Poll::Ready(Err(_)))
        {
            match self.poll_ahead(cx, inbox) {
                // answers to heartbeats
                Ok(()) => written = self.poll_write(cx),
                Err(CloseReason::Network(error)) => written = Poll::Ready(Err(error)),
                Err(reason) => self.end_input(reason),
            }
        }
        if let Poll::Ready(Err(error)) = written {
            self.fail_beside(CloseReason::from_error(error));
        }
        if self.session.shared().broken.load(Relaxed) {
            return Poll::Pending;
        }
        if self.is_ahead_full() || self.stop.is_some() {
            // what the peer says now waits for the handler, and one that has closed its direction
            // says nothing: no reason to take it for dead
            self.clock.heard(Instant::now());
        }
        if !stalled {
            // a handler that works without a word is not an idle peer
            self.moved = true;
        }
        self.tell_clock(0);
        self.poll_clock(cx)
    }

    /// Whether a pending handler is to be abandoned because of a command: at once, or when it takes
    /// too long to end.
    fn poll_told(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let reason = match &self.command {
            Some(Command::Cut(reason)) => return Poll::Ready(reason.clone()),
            // a shutdown has a deadline of its own, and cuts what is left then
            Some(Command::Close(reason)) if !matches!(reason, CloseReason::Shutdown) => reason,
            _ => return Poll::Pending,
        };
        let timeout = self.close_timeout;
        let timer = self
            .closing
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        timer.as_mut().poll(cx).map(|()| reason.clone())
    }

    /// Nothing more will be read, noticed while a handler runs: what it and those after it send is
    /// still written, but no reply can come any more.
    fn end_input(&mut self, reason: CloseReason) {
        self.session.shared().requests.close(&reason);
        self.stop = Some(reason);
    }

    /// The connection has failed while a handler runs: it may finish, but cannot send any more,
    /// and the link is not written to again.
    fn fail_beside(&mut self, reason: CloseReason) {
        let shared = self.session.shared();
        let mut lost = lane::leave(self.session.id()).unwrap_or_default();
        shared.broken.store(true, Relaxed);
        shared.outbox.close(&reason, &mut lost);
        shared.outbox.set_owned(0);
        let controls = shared.traffic.controls.load(Relaxed);
        let messages = (lost.messages() as u64).saturating_sub(controls);
        self.session.count_dropped(messages);
        match self.stop {
            None | Some(CloseReason::Peer) => self.end_input(reason),
            Some(_) => {}
        }
    }

    /// What is left of [`poll_write`](Self::poll_write) once the link has failed: commands.
    #[cold]
    fn look(&mut self, cx: &mut Context<'_>) {
        let outbox = &self.session.shared().outbox;
        if outbox.is_ready() {
            let command = outbox.take(&mut OutQueue::new(false), 0, cx.waker());
            self.command = command.or(self.command.take());
        }
    }

    /// Reads ahead, a bounded amount; what the protocol needs is handled at once.
    fn poll_ahead(&mut self, cx: &mut Context<'_>, inbox: &mut InQueue) -> Result<(), CloseReason> {
        let Some(reader) = &mut self.envelope else {
            return Ok(());
        };
        let mut came = VecDeque::new();
        let mut bytes = self.ahead_bytes;
        let mut full;
        let end = loop {
            full = bytes >= READ_AHEAD || self.ahead.len() + came.len() >= READ_AHEAD_MESSAGES;
            if full || self.clogged {
                break Ok(());
            }
            let next = inbox.next().and_then(|some| match some {
                Some(message) => reader.read(&message).map(Some),
                None => Ok(None),
            });
            match next {
                Ok(Some(inbound)) => {
                    bytes += inbound.len();
                    came.push_back(inbound);
                    continue;
                }
                Ok(None) => {}
                Err(error) => break Err(CloseReason::from_error(error)),
            }
            match self.link.poll_fill(cx, inbox) {
                Poll::Ready(Ok(true)) => self.clock.heard(Instant::now()),
                Poll::Ready(Ok(false)) => break Err(CloseReason::Peer),
                Poll::Ready(Err(error)) => break Err(CloseReason::from_error(error)),
                Poll::Pending => break Ok(()),
            }
        };
        for inbound in came {
            if let Some(later) = self.protocol(inbound) {
                self.ahead_bytes += later.len();
                self.ahead.push_back(later);
            }
        }
        if full && !self.is_ahead_full() {
            // most of it was for the protocol, so there is room for more, which nothing announces
            cx.waker().wake_by_ref();
        }
        end
    }

    fn is_ahead_full(&self) -> bool {
        self.ahead_bytes >= READ_AHEAD || self.ahead.len() >= READ_AHEAD_MESSAGES
    }

    /// Writes everything that is queued, here and in the outbox, as far as the transport takes it.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let outbox = &self.session.shared().outbox;
        let tracks = self.session.tracks_sizes();
        let link = &mut self.link;
        let mut sent = crate::link::Sent::default();
        let mut controls = None;
        let result = lane::with(self.session.id(), |queue| {
            let mut hold = Hold {
                owned: &mut self.owned,
                command: &mut self.command,
                most: DROPPABLE_BATCH,
                tracks,
            };
            let result = outbox.write(queue, &mut hold, cx, |cx, queue| {
                let (now, result) = link.poll_send(cx, queue);
                sent.messages += now.messages;
                sent.bytes += now.bytes;
                result
            });
            controls = queue.take_controls();
            self.clogged = queue.answers() + outbox.answers() > outbox.high();
            result
        });
        if sent.bytes > 0 || sent.messages > 0 {
            self.count_sent(sent, controls);
        }
        result.unwrap_or_else(|| {
            self.look(cx);
            Poll::Ready(Ok(()))
        })
    }

    /// `controls`: how many of them are nobody's messages, where that is known; otherwise those
    /// count as the first.
    fn count_sent(&mut self, sent: crate::link::Sent, controls: Option<u64>) {
        let traffic = &self.session.shared().traffic;
        let mut messages = sent.messages;
        let queued = traffic.controls.load(Relaxed);
        let controls = controls.unwrap_or(queued).min(queued).min(messages);
        if controls > 0 {
            traffic.controls.fetch_sub(controls, Relaxed);
            messages -= controls;
        }
        add(&traffic.messages_out, messages);
        add(&traffic.bytes_out, sent.bytes);
        self.counters.sent(messages, sent.bytes);
        self.moved |= messages > 0;
    }

    /// Counts the batch that has been handled; how many messages it had.
    #[inline]
    fn count_received(&mut self, inbox: &InQueue) -> u64 {
        let bytes = inbox.received();
        if bytes == self.bytes_seen && self.batch_messages == 0 {
            return 0;
        }
        if self.timed {
            self.sample(self.batch_since);
        }
        let new = bytes - std::mem::replace(&mut self.bytes_seen, bytes);
        let messages = std::mem::take(&mut self.batch_messages);
        let traffic = &self.session.shared().traffic;
        add(&traffic.messages_in, messages);
        add(&traffic.bytes_in, new);
        self.counters.received(messages, new);
        messages
    }

    /// After a write: remembers that messages moved, and how long the batch took.
    #[inline]
    fn tell_clock(&mut self, messages: u64) {
        let moved = std::mem::take(&mut self.moved) || messages > 0;
        self.unmeasured += messages;
        // nobody asks for the times of a busy connection
        if moved && (self.timed || !self.clock.is_watched()) {
            let now = Instant::now();
            self.clock.active(now);
            self.sample(now);
            if messages > 0 {
                self.latency = now.saturating_duration_since(self.batch_since);
                self.count_latency();
            }
        }
    }

    /// The batch that was timed last stands for those that were not.
    fn count_latency(&mut self) {
        let messages = std::mem::take(&mut self.unmeasured);
        self.counters.latency(self.latency, messages);
    }

    /// Keeps the totals of this moment for the rates, once in a while.
    #[inline]
    fn sample(&mut self, now: Instant) {
        if now >= self.next_sample {
            self.next_sample = now + SAMPLE;
            self.counters.sample(now);
        }
    }

    fn poll_clock(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        if self.clock.is_watched() {
            if !self.session.take_quiet() {
                return Poll::Pending;
            }
            self.clock.set_quiet();
            self.keep = None;
        } else if self.clock.is_busy() {
            let watched = ticker::watch(&self.session);
            self.clock.set_watched(watched);
            self.keep = watched.then(Keep::acquire).flatten();
        }
        loop {
            match self.clock.poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Due::Idle) => return Poll::Ready(CloseReason::Idle),
                Poll::Ready(Due::Dead) => return Poll::Ready(CloseReason::Heartbeat),
                Poll::Ready(Due::Ping) => {
                    self.control(
                        Header::Ping {
                            token: self.session.id(),
                        },
                        Message::default(),
                    );
                    self.idle = false;
                    if let Poll::Ready(Err(error)) = self.poll_write(cx) {
                        return Poll::Ready(CloseReason::from_error(error));
                    }
                }
            }
        }
    }

    /// Ends the connection: in good order where the peer is still there.
    async fn finish(&mut self, inbox: &mut InQueue, mut reason: CloseReason) -> CloseReason {
        self.count_received(inbox);
        self.count_latency();
        inbox.clear();
        if let CloseReason::Requested(text) = &reason
            && self.envelope.is_some()
        {
            self.control(Header::GoAway, text.as_str().into());
        }
        let shared = self.session.shared();
        shared.requests.close(&reason);
        let id = self.session.id();
        lane::with(id, |queue| shared.outbox.close(&reason, queue));
        let polite = !matches!(
            reason,
            CloseReason::Network(_)
                | CloseReason::Cut
                | CloseReason::Overflow
                | CloseReason::Heartbeat
        );
        if polite {
            let linger = !matches!(reason, CloseReason::Peer | CloseReason::Idle);
            // a shutdown has a deadline of its own, and cuts what is left then
            let shutdown = matches!(reason, CloseReason::Shutdown);
            let timeout = if shutdown {
                Duration::MAX
            } else {
                self.close_timeout
            };
            let closing = tokio::time::timeout(timeout, self.say_goodbye(inbox, linger)).await;
            let unwritten = lane::with(id, |queue| !queue.is_empty()).unwrap_or(false);
            if unwritten
                && (closing.is_err() || matches!(closing, Ok(Err(_))))
                && reason.is_orderly()
            {
                reason = CloseReason::Cut;
            }
        }
        let left = lane::with(id, |queue| queue.messages()).unwrap_or(0) as u64;
        let controls = self.session.shared().traffic.controls.load(Relaxed);
        self.session.count_dropped(left.saturating_sub(controls));
        reason
    }

    /// Writes what is queued, says that no more will come, and waits a moment for the peer to
    /// close too.
    async fn say_goodbye(&mut self, inbox: &mut InQueue, linger: bool) -> Result<(), ()> {
        let written = poll_fn(|cx| {
            let result = self.poll_write(cx);
            if let Some(Command::Cut(_)) = self.command {
                return Poll::Ready(Err(()));
            }
            result.map_err(|_| ())
        });
        written.await?;
        poll_fn(|cx| self.link.poll_close(cx))
            .await
            .map_err(|_| ())?;
        if linger {
            let rest = poll_fn(|cx| {
                loop {
                    inbox.clear();
                    match self.link.poll_fill(cx, inbox) {
                        Poll::Ready(Ok(true)) => {}
                        Poll::Ready(_) => return Poll::Ready(()),
                        Poll::Pending if self.session.shared().outbox.is_cut() => {
                            return Poll::Ready(());
                        }
                        Poll::Pending => return Poll::Pending,
                    }
                }
            });
            let _ = tokio::time::timeout(LINGER, rest).await;
        }
        Ok(())
    }
}

/// The error of a handler that would be called for the same messages for ever.
#[cold]
fn nothing_taken() -> Error {
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
                this.session.count_dropped(left as u64);
                Poll::Ready(CloseReason::Panicked)
            }
        }
    }
}
