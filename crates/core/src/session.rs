//! The handle to one connection: [`Session`], usable from any task and any thread.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use network_system_wire::envelope::Header;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::attributes::Attributes;
use crate::batch::MessageBatch;
use crate::close::CloseReason;
use crate::config::{OverflowPolicy, SessionConfig};
use crate::error::{Error, ErrorKind, Result, Side};
use crate::lane;
use crate::link::{Endpoint, Goodbye, LinkInfo};
use crate::message::{IntoMessage, Message, MessageRef};
use crate::out_queue::{Encoding, OneFrame, OutQueue};
use crate::outbox::{Command, Outbox, Refused};
use crate::requests::{Requests, Serving};
use crate::server::{Grace, Sessions};
use crate::statistics::Counters;
use crate::ticker::Activity;
use crate::worker;

/// More than any header adds to a message.
const HEADER: usize = 32;

/// A handle to one connection. Cheap to clone; every clone means the same connection.
///
/// Messages that one task sends arrive in the order in which it sent them.
#[derive(Clone)]
pub struct Session(Arc<Shared>);

/// What the handles, the connection's task and the server share.
pub(crate) struct Shared {
    id: u64,
    info: LinkInfo,
    encoding: Encoding,
    pub(crate) outbox: Outbox,
    policy: OverflowPolicy,
    pub(crate) requests: Requests,
    pub(crate) serving: Serving,
    request_timeout: Duration,
    sessions: Sessions,
    attributes: Mutex<Attributes>,
    pub(crate) traffic: Traffic,
    counters: Arc<Counters>,
    runtime: Handle,
    since: Instant,
    /// When it is as old as it may get.
    expires: Option<Instant>,
    ended: CancellationToken,
    pub(crate) peer_leaving: AtomicBool,
    /// Whether the link has failed under a handler: its own task sends through the outbox, which is
    /// closed.
    pub(crate) broken: AtomicBool,
    /// What the peer has said when it closed.
    pub(crate) goodbye: OnceLock<Goodbye>,
    /// The code that it is to be closed with; 0 is that of the reason.
    close_code: AtomicU16,
    /// Whether the [ticker](crate::ticker) has found it quiet.
    quiet: AtomicBool,
    /// Whether a peer that says nothing has to be asked.
    asks: bool,
}

/// A handle that does not keep the session alive.
pub(crate) struct WeakSession(Weak<Shared>);

impl WeakSession {
    pub(crate) fn upgrade(&self) -> Option<Session> {
        self.0.upgrade().map(Session)
    }
}

/// What one session has moved; written by its own task only, but for `dropped`.
#[derive(Default)]
pub(crate) struct Traffic {
    pub(crate) messages_in: AtomicU64,
    pub(crate) messages_out: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    dropped: AtomicU64,
    /// Greetings, heartbeats and farewells that are queued: nobody's messages, and no activity.
    pub(crate) controls: AtomicU64,
    /// Messages taken from a batch that a panic has ended.
    pub(crate) unfinished: AtomicU64,
}

/// What one session has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SessionStatistics {
    /// Messages received.
    pub messages_in: u64,
    /// Messages written to the transport.
    pub messages_out: u64,
    /// Bytes received, framing included.
    pub bytes_in: u64,
    /// Bytes written, framing included.
    pub bytes_out: u64,
    /// Messages that the overflow policy dropped, or that the end left unwritten.
    pub messages_dropped: u64,
    /// Bytes that wait to be written.
    pub queued_bytes: u64,
    /// Time since it connected.
    pub age: Duration,
}

impl Shared {
    /// Queues a message. What limits it is the framing, or, where the transport keeps messages apart,
    /// nothing but this.
    #[inline]
    fn push(
        &self,
        queue: &mut OutQueue,
        header: Option<Header>,
        message: &MessageRef<'_>,
    ) -> Result<()> {
        if let Encoding::Messages = self.encoding
            && message.len() > self.info.max_message
        {
            return Err(too_large(self.info.max_message));
        }
        queue.push(&self.encoding, header, message)
    }
}

/// The error of a message of our own that is larger than the transport may carry.
#[cold]
pub(crate) fn too_large(limit: usize) -> Error {
    Error::new(ErrorKind::MessageTooLarge, "send a message")
        .because(format_args!("it is larger than {limit} bytes"))
        .advice("raise max_message on both sides, or send smaller messages")
        .blame(Side::Ours)
}

impl Session {
    pub(crate) fn new(
        info: LinkInfo,
        encoding: Encoding,
        config: &SessionConfig,
        sessions: Sessions,
        counters: Arc<Counters>,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let policy = config.outbox.overflow;
        let tracks = policy == OverflowPolicy::DropOldest;
        let asks = info.envelope && config.heartbeat.interval.is_some();
        Self(Arc::new(Shared {
            id: NEXT.fetch_add(1, Relaxed),
            info,
            encoding,
            outbox: Outbox::new(config.outbox.high, config.outbox.low, tracks),
            policy,
            requests: Requests::default(),
            serving: Serving::new(config.outbox.high),
            request_timeout: config.request_timeout,
            sessions,
            attributes: Mutex::default(),
            traffic: Traffic::default(),
            counters,
            runtime: Handle::current(),
            since: Instant::now(),
            expires: config.limits.expiry(Instant::now()),
            ended: CancellationToken::new(),
            peer_leaving: AtomicBool::new(false),
            quiet: AtomicBool::new(false),
            asks,
            broken: AtomicBool::new(false),
            goodbye: OnceLock::new(),
            close_code: AtomicU16::new(0),
        }))
    }

    /// Whether its queues must know the size of each message.
    pub(crate) fn tracks_sizes(&self) -> bool {
        self.0.policy == OverflowPolicy::DropOldest
    }

    /// An empty queue for the session's own task.
    pub(crate) fn new_queue(&self) -> OutQueue {
        let shared = &*self.0;
        let queue = OutQueue::new(self.tracks_sizes());
        if shared.info.envelope {
            return queue;
        }
        queue.quick(&shared.encoding, shared.outbox.high())
    }

    /// The runtime with the timers of what runs for it.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.0.runtime
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0
    }

    /// A number that no other session of this process has.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The other end.
    #[must_use]
    pub fn peer(&self) -> &Endpoint {
        &self.0.info.peer
    }

    /// This end.
    #[must_use]
    pub fn local(&self) -> &Endpoint {
        &self.0.info.local
    }

    /// What the transport knows about the connection.
    #[must_use]
    pub fn info(&self) -> &LinkInfo {
        &self.0.info
    }

    /// All live sessions of the server that this one belongs to, for look-ups and broadcasts. Empty
    /// for a client's session.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    /// Queues a message. Inside the session's own handler it leaves with the batch that is being
    /// handled; from elsewhere it wakes the connection. When the outbox is full, what happens is
    /// up to the session's [`OverflowPolicy`]; the default is to wait for room.
    ///
    /// The message is queued by the call itself when there is room; the future is what waits when
    /// there is none, and what tells of errors. `Ok` means that the message is queued, not that
    /// the peer has it.
    ///
    /// # Errors
    /// [`ErrorKind::ConnectionClosed`] or [`ErrorKind::SessionExpired`] after the end,
    /// [`ErrorKind::MessageTooLarge`] above the limit, [`ErrorKind::QueueFull`] where the policy
    /// is to reject, [`ErrorKind::InvalidArgument`] when the framing cannot carry the message.
    #[inline(always)]
    pub fn send(&self, message: impl IntoMessage) -> Sending<'_> {
        if message.lend(|message| self.send_quick(message)) == Some(true) {
            return Sending(None);
        }
        self.send_with(self.data_header(), message)
    }

    /// The way of nearly all messages from the session's own handler; `false` when anything is
    /// different, and nothing is queued then.
    #[inline(always)]
    fn send_quick(&self, message: &MessageRef<'_>) -> bool {
        let shared = &*self.0;
        !self.has_foreign()
            && lane::with(shared.id, |queue| queue.push_quick(message)) == Some(true)
    }

    /// Whether other tasks have put something in that has to go out first.
    #[inline(always)]
    pub(crate) fn has_foreign(&self) -> bool {
        self.0.outbox.foreign_bytes() > 0
    }

    /// As [`send`](Self::send), for the session's own task, but never waits: where it would, the
    /// message is queued beyond the limit. Whether there is no room for another one now.
    ///
    /// However large the message is with which the limit is passed, it is taken, since it has to go
    /// out some time; others may join it up to twice the limit.
    pub(crate) fn send_at_once(&self, message: &MessageRef<'_>) -> Result<bool> {
        let shared = &*self.0;
        let header = self.data_header();
        let high = shared.outbox.high();
        let waits = shared.policy == OverflowPolicy::Wait;
        if self.offer(header, message)? {
            let full = waits && self.queued_bytes() > high;
            if full {
                // one alone
                lane::with(shared.id, |queue| queue.crossed = message.len());
            }
            return Ok(full);
        }
        let queued = self.queued_bytes();
        let crossed = if queued > high {
            lane::with(shared.id, |queue| queue.crossed).unwrap_or(0)
        } else {
            message.len()
        };
        let most = crossed.saturating_add(high.saturating_mul(2));
        if !waits || queued > high && queued.saturating_add(message.len()) > most {
            return Err(shared.outbox.full());
        }
        let push = |queue: &mut OutQueue| shared.push(queue, header, message);
        let own = lane::with(shared.id, |queue| {
            self.overtake(queue);
            queue.crossed = crossed;
            push(queue)
        });
        match own.map_or_else(
            || shared.outbox.put_always(push),
            |own| own.map_err(Refused::Error),
        ) {
            Ok(()) => Ok(true),
            Err(Refused::Full) => Err(shared.outbox.full()),
            Err(Refused::Error(error)) => Err(error),
        }
    }

    /// Waits until the outbox has room again.
    pub(crate) async fn has_room(&self) -> Result<()> {
        self.room(HEADER).await
    }

    /// As [`send`](Self::send), but waits for room whatever the policy.
    pub(crate) async fn send_patiently(&self, message: Message) -> Result<()> {
        self.room(message.len() + HEADER).await?;
        self.send(message).await
    }

    /// As [`send`](Self::send), but never waits.
    ///
    /// # Errors
    /// As `send`; [`ErrorKind::QueueFull`] also where the policy is to wait.
    pub fn try_send(&self, message: impl IntoMessage) -> Result<()> {
        let header = self.data_header();
        let queued = match message.lend(|message| self.offer(header, message)) {
            Some(queued) => queued,
            None => self.offer(header, &message.into().by_ref()),
        };
        match queued? {
            true => Ok(()),
            false => Err(self.0.outbox.full()),
        }
    }

    /// Queues many messages at the cost of about one: one lock, one wake-up.
    ///
    /// # Errors
    /// As [`send`](Self::send); the messages before the one that fails are queued.
    pub async fn send_batch(&self, batch: impl Into<MessageBatch>) -> Result<()> {
        let batch: MessageBatch = batch.into();
        self.send_all(&mut &batch.into_messages()[..]).await
    }

    /// Takes from `rest` what is queued.
    pub(crate) async fn send_all(&self, rest: &mut &[Message]) -> Result<()> {
        while !rest.is_empty() {
            let (n, size) = self.share(rest);
            let (now, later) = rest.split_at(n);
            match self.offer_batch(now, size)? {
                true => *rest = later,
                false if n == 1 => {
                    self.send(now[0].clone()).await?;
                    *rest = later;
                }
                false => self.room(size).await?,
            }
        }
        Ok(())
    }

    /// How many of `messages` fit half the outbox, and their size; at least one.
    fn share(&self, messages: &[Message]) -> (usize, usize) {
        let most = self.0.outbox.high() / 2;
        let mut size = 0;
        for (n, message) in messages.iter().enumerate() {
            let with = size + message.len() + HEADER;
            if n > 0 && with > most {
                return (n, size);
            }
            size = with;
        }
        (messages.len(), size)
    }

    /// Queues all of `messages` at once; `false` when there is no room for all.
    fn offer_batch(&self, messages: &[Message], size: usize) -> Result<bool> {
        let shared = &*self.0;
        let header = self.data_header();
        let push = |queue: &mut OutQueue| {
            messages
                .iter()
                .try_for_each(|m| shared.push(&mut *queue, header, &m.by_ref()))
        };
        let own = lane::with(shared.id, |queue| {
            self.overtake(queue);
            let room = shared.outbox.has_room(queue.bytes(), size);
            if room {
                push(queue).map(|()| true)
            } else {
                Ok(false)
            }
        });
        let taken = match own {
            Some(result) => result?,
            None => match shared.outbox.put(size, push) {
                Ok(()) => true,
                Err(Refused::Full) => false,
                Err(Refused::Error(error)) => return Err(error),
            },
        };
        if taken || messages.len() == 1 || shared.policy == OverflowPolicy::Wait {
            return Ok(taken);
        }
        // the policy decides about each message alone
        for message in messages {
            if !self.offer(header, &message.by_ref())? {
                return Err(shared.outbox.full());
            }
        }
        Ok(true)
    }

    /// Asks the peer and waits for its reply, at most for the session's
    /// [request timeout](SessionConfig::request_timeout).
    ///
    /// # Errors
    /// As [`request_within`](Self::request_within).
    pub async fn request(&self, message: impl Into<Message>) -> Result<Message> {
        self.request_within(message, self.0.request_timeout).await
    }

    /// Asks the peer and waits for its reply, at most for `deadline`, the time to queue the
    /// request included.
    ///
    /// A handler may ask its own session: while it waits, up to 64 KiB or 1024 messages are read
    /// ahead and kept for later. A reply that comes behind more than that is not found before the
    /// deadline passes; where a peer may send so much, ask from a task of its own.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] without a reply in time, [`ErrorKind::ConnectionClosed`] when the
    /// connection ends before, the peer's own error when it answers with one (see
    /// [`Error::remote_code`]),
    /// [`ErrorKind::InvalidSession`] when the session has no envelope.
    pub async fn request_within(
        &self,
        message: impl Into<Message>,
        deadline: Duration,
    ) -> Result<Message> {
        if !self.0.info.envelope {
            return Err(Error::new(ErrorKind::InvalidSession, "send a request to")
                .peer(self.peer())
                .because("the session has no envelope, so replies cannot be told from messages")
                .advice("turn on `envelope` on both sides"));
        }
        let message = message.into();
        let ask = async {
            let mut place = self.0.requests.open()?;
            self.send_with(Some(Header::Request { id: place.id }), message)
                .await?;
            match (&mut place.reply).await {
                Ok(reply) => reply,
                Err(_) => Err(Error::new(
                    ErrorKind::ConnectionClosed,
                    "get the reply to a request",
                )),
            }
        };
        tokio::time::timeout(deadline, ask)
            .await
            .unwrap_or_else(|_| {
                Err(
                    Error::new(ErrorKind::Timeout, "get the reply to a request from")
                        .peer(self.peer())
                        .because(format_args!("no reply within {deadline:?}")),
                )
            })
    }

    /// As [`send`](Self::send), for threads outside of any async runtime.
    ///
    /// # Errors
    /// As `send`; [`ErrorKind::InvalidArgument`] inside a runtime, which it would block.
    pub fn send_blocking(&self, message: impl IntoMessage) -> Result<()> {
        // inside the future, since `send` queues when it is called
        self.block_on(async { self.send(message).await })
    }

    /// As [`request`](Self::request), for threads outside of any async runtime.
    ///
    /// # Errors
    /// As `request`; [`ErrorKind::InvalidArgument`] inside a runtime, which it would block.
    pub fn request_blocking(&self, message: impl Into<Message>) -> Result<Message> {
        self.block_on(self.request(message))
    }

    fn block_on<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        block_on(&self.0.runtime, work)
    }

    /// Writes what is queued, then closes the connection. Returns at once;
    /// [`ended`](Self::ended) waits for it. Messages received and not yet handled are dropped. A
    /// handler at work may go on for [`close_timeout`](SessionConfig::close_timeout) (5 s), but its
    /// sends do not wait for room any more; a peer that does not read has as long.
    pub fn close(&self, reason: impl Into<String>) {
        self.command(Command::Close(CloseReason::Requested(reason.into())));
    }

    /// As [`close`](Self::close), with a code for transports that have codes: of WebSocket, 1000 to
    /// 1014 as RFC 6455 section 7.4 and its registry have them, 3000 to 3999 for libraries, and 4000 to
    /// 4999 for applications. Another one becomes 1000. The reason is cut after 123 bytes there.
    pub fn close_with(&self, code: u16, reason: impl Into<String>) {
        self.0.close_code.store(code, Relaxed);
        self.close(reason);
    }

    /// What [`close_with`](Self::close_with) was called with.
    pub(crate) fn close_code(&self) -> Option<u16> {
        Some(self.0.close_code.load(Relaxed)).filter(|code| *code > 0)
    }

    /// What the peer has said when it closed, where the transport has words for it (WebSocket): there
    /// once the session ends, as in `on_disconnect`.
    #[must_use]
    pub fn goodbye(&self) -> Option<&Goodbye> {
        self.0.goodbye.get()
    }

    /// Closes the connection at once: what is queued is lost, and a handler at work is abandoned at
    /// its next `await`. The reason is [`CloseReason::Cut`].
    pub fn abort(&self) {
        self.command(Command::Cut(CloseReason::Cut));
    }

    /// Whether it was told to end without handling what it has received.
    #[inline(always)]
    pub(crate) fn is_stopped(&self) -> bool {
        self.0.outbox.is_stopped()
    }

    /// The same, to look at often.
    pub(crate) fn stopped(&self) -> &crate::sync::AtomicBool {
        self.0.outbox.stopped()
    }

    /// Whether its task has something to look at: messages of others, or a command.
    #[inline(always)]
    pub(crate) fn ready(&self) -> &crate::sync::AtomicBool {
        self.0.outbox.ready()
    }

    pub(crate) fn command(&self, command: Command) {
        self.0.outbox.command(command);
    }

    /// Whether nothing can be sent any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.outbox.closed().is_some()
    }

    /// Why the session has ended; `None` while it lives.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.0.outbox.closed()
    }

    /// Waits until the connection is closed, `on_disconnect` has run and statistics count the end.
    pub async fn ended(&self) {
        self.0.ended.cancelled().await;
    }

    /// Lets nothing more in and fails what waits; what is queued is lost.
    pub(crate) fn shut(&self, reason: &CloseReason) {
        let mut lost = OutQueue::new(false);
        self.0.outbox.close(reason, &mut lost);
        self.0.outbox.set_owned(0);
        self.count_lost(lost.messages());
        self.0.requests.close(reason);
    }

    /// Whether the greeting of the envelope is queued, before which nothing may be.
    pub(crate) fn has_greeted(&self) -> bool {
        let traffic = &self.0.traffic;
        traffic.controls.load(Relaxed) > 0 || traffic.bytes_out.load(Relaxed) > 0
    }

    /// Called last: the end is counted, and nobody finds the session any more.
    pub(crate) fn set_ended(&self) {
        self.0.ended.cancel();
    }

    /// Whether the peer has announced that it will close soon (envelope only).
    #[must_use]
    pub fn peer_is_leaving(&self) -> bool {
        self.0.peer_leaving.load(Relaxed)
    }

    /// Bytes that wait to be written, headers included. Inside of
    /// [`Inbox::each`](crate::Inbox::each), what that has sent is not counted yet.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        lane::with(self.0.id, |queue| {
            queue.bytes() + self.0.outbox.foreign_bytes()
        })
        .unwrap_or_else(|| self.0.outbox.bytes())
    }

    /// What this session has done so far. Counted per batch: a batch that is being handled is not
    /// in yet.
    #[must_use]
    pub fn statistics(&self) -> SessionStatistics {
        let traffic = &self.0.traffic;
        SessionStatistics {
            messages_in: traffic.messages_in.load(Relaxed),
            messages_out: traffic.messages_out.load(Relaxed),
            bytes_in: traffic.bytes_in.load(Relaxed),
            bytes_out: traffic.bytes_out.load(Relaxed),
            messages_dropped: traffic.dropped.load(Relaxed),
            queued_bytes: self.queued_bytes() as u64,
            age: self.0.since.elapsed(),
        }
    }

    pub(crate) fn downgrade(&self) -> WeakSession {
        WeakSession(Arc::downgrade(&self.0))
    }

    pub(crate) fn activity(&self) -> Activity {
        let traffic = &self.0.traffic;
        let messages = traffic.messages_in.load(Relaxed);
        Activity {
            messages: messages.wrapping_add(traffic.messages_out.load(Relaxed)),
            bytes: self.0.asks.then(|| traffic.bytes_in.load(Relaxed)),
        }
    }

    /// When it is as old as it may get.
    pub(crate) fn expires(&self) -> Option<Instant> {
        self.0.expires
    }

    /// Ends in good order: where the peer can be told, it is, and what it has sent by the time it
    /// knows is waited for.
    #[cold]
    pub(crate) fn expire(&self) {
        if self.0.info.envelope {
            let farewell = Grace::WHOLE.farewell(self.clone(), CloseReason::MaxAge);
            let _ = worker::spawn(farewell);
        } else {
            self.command(Command::Close(CloseReason::MaxAge));
        }
    }

    /// How long a request may take when the call gives no deadline.
    pub(crate) fn request_timeout(&self) -> Duration {
        self.0.request_timeout
    }

    /// Tells the connection's task that it needs a timer again.
    pub(crate) fn set_quiet(&self) {
        self.0.quiet.store(true, Relaxed);
        self.0.outbox.wake_owner();
    }

    /// For the connection's task: whether it was told so, once.
    pub(crate) fn take_quiet(&self) -> bool {
        self.0.quiet.load(Relaxed) && self.0.quiet.swap(false, Relaxed)
    }

    /// Attaches `value`, at most one of each type; the one that was there before.
    pub fn set<T: Send + Sync + 'static>(&self, value: T) -> Option<T> {
        self.attributes().set(value)
    }

    /// A clone of the attached value of a type.
    #[must_use]
    pub fn get<T: Clone + 'static>(&self) -> Option<T> {
        self.attributes().get().cloned()
    }

    /// Takes the attached value of a type away.
    pub fn remove<T: 'static>(&self) -> Option<T> {
        self.attributes().remove()
    }

    fn attributes(&self) -> std::sync::MutexGuard<'_, Attributes> {
        self.0
            .attributes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn data_header(&self) -> Option<Header> {
        self.0.info.envelope.then_some(Header::Data)
    }

    #[inline]
    pub(crate) fn send_with(
        &self,
        header: Option<Header>,
        message: impl IntoMessage,
    ) -> Sending<'_> {
        match message.lend(|message| self.offer(header, message)) {
            Some(Ok(true)) => Sending(None),
            Some(Ok(false)) => Sending::waiting(self, header, message.into()),
            Some(Err(error)) => Sending::failed(error),
            None => self.send_slow(header, message.into()),
        }
    }

    #[inline(never)]
    fn send_slow(&self, header: Option<Header>, message: Message) -> Sending<'_> {
        match self.offer(header, &message.by_ref()) {
            Ok(true) => Sending(None),
            Ok(false) => Sending::waiting(self, header, message),
            Err(error) => Sending::failed(error),
        }
    }

    /// Sends what the protocol itself needs; there is always room for it.
    pub(crate) fn send_control(&self, header: Header, message: Message) {
        let shared = &*self.0;
        if !matches!(header, Header::Failure { .. }) {
            shared.traffic.controls.fetch_add(1, Relaxed);
        }
        let push = |queue: &mut OutQueue| shared.push(queue, Some(header), &message.by_ref());
        let own = lane::with(shared.id, |queue| {
            self.overtake(queue);
            push(queue)
        });
        if own.is_none() {
            // a session that has ended needs no control messages
            let _ = shared.outbox.put_control(push);
        }
    }

    /// Sends an answer, which no policy drops: where messages would be, it waits for room.
    pub(crate) async fn send_answer(&self, header: Header, message: Message) -> Result<()> {
        let shared = &*self.0;
        match shared.policy {
            OverflowPolicy::DropNewest | OverflowPolicy::DropOldest => {}
            _ => return self.send_with(Some(header), message).await,
        }
        let size = message.len() + HEADER;
        loop {
            let push = |queue: &mut OutQueue| shared.push(queue, Some(header), &message.by_ref());
            let own = lane::with(shared.id, |queue| {
                self.overtake(queue);
                if !shared.outbox.has_room(queue.bytes(), size) {
                    return Err(Refused::Full);
                }
                push(queue).map_err(Refused::Error)
            });
            match own.unwrap_or_else(|| shared.outbox.put(size, push)) {
                Ok(()) => return Ok(()),
                Err(Refused::Full) => self.room(size).await?,
                Err(Refused::Error(error)) => return Err(error),
            }
        }
    }

    /// Queues a message that is encoded already; `false` when it was not taken.
    pub(crate) fn send_encoded(&self, frame: &OneFrame) -> bool {
        let shared = &*self.0;
        let push = |queue: &mut OutQueue| {
            queue.push_encoded(frame);
            Ok(())
        };
        let own = lane::with(shared.id, |queue| {
            self.overtake(queue);
            if shared.outbox.has_room(queue.bytes(), frame.len()) {
                queue.push_encoded(frame);
                return true;
            }
            self.push_dropping(queue, push).unwrap_or(false)
        });
        match own {
            Some(taken) => taken,
            None if shared.policy == OverflowPolicy::DropOldest => shared
                .outbox
                .put_dropping(push)
                .map(|n| self.count_dropped(n))
                .is_ok(),
            None => shared.outbox.put(frame.len(), push).is_ok(),
        }
    }

    pub(crate) fn encoding(&self) -> &Encoding {
        &self.0.encoding
    }

    /// What a message that found the outbox full does under the policy, when it cannot wait.
    pub(crate) fn overflow(&self) {
        match self.0.policy {
            OverflowPolicy::Close => self.command(Command::Cut(CloseReason::Overflow)),
            _ => self.count_dropped(1),
        }
    }

    /// Counts what the end has left of a queue, but not the protocol's own messages.
    pub(crate) fn count_lost(&self, messages: usize) {
        let controls = &self.0.traffic.controls;
        let lost = (messages as u64).min(controls.load(Relaxed));
        controls.fetch_sub(lost, Relaxed);
        self.count_dropped(messages as u64 - lost);
    }

    /// Remembers messages that a handler has taken whose panic goes on now.
    #[cold]
    pub(crate) fn unfinished(&self, messages: u64) {
        self.0.traffic.unfinished.fetch_add(messages, Relaxed);
    }

    pub(crate) fn count_dropped(&self, messages: u64) {
        if messages > 0 {
            self.0.traffic.dropped.fetch_add(messages, Relaxed);
            self.0.counters.dropped(messages);
        }
    }

    #[inline]
    fn overtake(&self, queue: &mut OutQueue) {
        if self.0.outbox.foreign_bytes() > 0 {
            self.0.outbox.overtake(queue);
        }
    }

    /// Queues the message if there is room, or does what the policy says; `false` when the caller
    /// has to wait or fail.
    #[inline(never)]
    fn offer(&self, header: Option<Header>, message: &MessageRef<'_>) -> Result<bool> {
        let shared = &*self.0;
        if header.is_none()
            && shared.outbox.foreign_bytes() == 0
            && lane::with(shared.id, |queue| queue.push_first(message)) == Some(true)
        {
            return Ok(true);
        }
        match self.try_offer(header, message) {
            Ok(false) => self.full(),
            result => result,
        }
    }

    /// Queues the message if there is room, or if the policy makes room.
    #[inline]
    fn try_offer(&self, header: Option<Header>, message: &MessageRef<'_>) -> Result<bool> {
        let shared = &*self.0;
        let size = message.len() + HEADER;
        let own = lane::with(shared.id, |queue| {
            self.overtake(queue);
            let push = |queue: &mut OutQueue| shared.push(queue, header, message);
            if !shared.outbox.has_room(queue.bytes(), size) {
                return self.push_dropping(queue, push);
            }
            push(queue).map(|()| true)
        });
        match own {
            Some(result) => result,
            None => self.offer_foreign(header, message, size),
        }
    }

    /// From another task or thread.
    fn offer_foreign(
        &self,
        header: Option<Header>,
        message: &MessageRef<'_>,
        size: usize,
    ) -> Result<bool> {
        let shared = &*self.0;
        let push = |queue: &mut OutQueue| shared.push(queue, header, message);
        let result = if shared.policy == OverflowPolicy::DropOldest {
            shared
                .outbox
                .put_dropping(push)
                .map(|dropped| self.count_dropped(dropped))
        } else {
            shared.outbox.put(size, push)
        };
        match result {
            Ok(()) => Ok(true),
            Err(Refused::Full) => Ok(false),
            Err(Refused::Error(error)) => Err(error),
        }
    }

    /// Queues a message for all, which is not encoded yet; `false` when there was no room.
    pub(crate) fn send_unencoded(&self, message: &MessageRef<'_>) -> Result<bool> {
        self.try_offer(self.data_header(), message)
    }

    #[cold]
    fn full(&self) -> Result<bool> {
        match self.0.policy {
            OverflowPolicy::Wait | OverflowPolicy::Reject => Ok(false),
            OverflowPolicy::DropNewest | OverflowPolicy::DropOldest => {
                self.count_dropped(1);
                Ok(true)
            }
            OverflowPolicy::Close => {
                self.command(Command::Cut(CloseReason::Overflow));
                Err(CloseReason::Overflow.to_error("send a message"))
            }
        }
    }

    /// What the policy says about a message of the session's own task that finds no room: `false`
    /// unless the oldest go.
    #[cold]
    fn push_dropping(
        &self,
        queue: &mut OutQueue,
        push: impl FnOnce(&mut OutQueue) -> Result<()>,
    ) -> Result<bool> {
        if self.0.policy != OverflowPolicy::DropOldest {
            return Ok(false);
        }
        push(queue)?;
        self.count_dropped(queue.drop_to(self.0.outbox.high()));
        Ok(true)
    }

    /// Waits for room in the outbox.
    async fn room(&self, size: usize) -> Result<()> {
        struct InLine<'a>(&'a Shared, Option<usize>);
        impl Drop for InLine<'_> {
            fn drop(&mut self) {
                if let Some(key) = self.1 {
                    self.0.outbox.cancel(key);
                }
            }
        }
        let mut line = InLine(&self.0, None);
        poll_fn(|cx| {
            let own = lane::with(line.0.id, |queue| queue.bytes());
            line.0.outbox.poll_room(size, own, &mut line.1, cx.waker())
        })
        .await
    }
}

/// Runs `work` of `runtime` on a thread outside of any.
pub(crate) fn block_on<T>(runtime: &Handle, work: impl Future<Output = Result<T>>) -> Result<T> {
    if Handle::try_current().is_ok() {
        return Err(
            Error::new(ErrorKind::InvalidArgument, "use a blocking call")
                .because("this thread runs async tasks, which it would hold up")
                .advice("use the async call, or call from another thread"),
        );
    }
    runtime.block_on(work)
}

/// What [`Session::send`] returns: ready at once, unless the outbox is full and the policy is to
/// wait. Dropping it while it waits takes the message back. The default has nothing to send and is
/// ready: for a handler that sends only sometimes, and returns this as its future.
#[must_use = "the outbox may be full; await it to wait for room and to learn of errors"]
#[derive(Default)]
pub struct Sending<'a>(
    /// `None` when it is done: as small as can be, since nearly all are. An `Arc` because the code
    /// that drops one is so short that it is inlined, a `Mutex` because an `Arc` asks for `Sync`;
    /// neither is ever shared.
    Option<Arc<Mutex<Slow<'a>>>>,
);

/// A send that has failed or has to wait.
enum Slow<'a> {
    Failed(Error),
    Waiting(Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>),
}

impl<'a> Sending<'a> {
    /// Whether there is nothing to wait for: the message is queued. Code that is not async can
    /// send as long as this holds, and hand on what has to wait.
    #[inline(always)]
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.0.is_none()
    }

    #[cold]
    fn failed(error: Error) -> Self {
        Self(Some(Arc::new(Mutex::new(Slow::Failed(error)))))
    }

    /// The slow path may allocate: it ends in a sleep anyway.
    #[cold]
    fn waiting(session: &'a Session, header: Option<Header>, message: Message) -> Self {
        if session.0.policy != OverflowPolicy::Wait {
            return Self::failed(session.0.outbox.full());
        }
        let waiting = async move {
            loop {
                session.room(message.len() + HEADER).await?;
                if session.offer(header, &message.by_ref())? {
                    return Ok(());
                }
            }
        };
        let waiting = Slow::Waiting(Box::pin(waiting));
        Self(Some(Arc::new(Mutex::new(waiting))))
    }

    #[cold]
    fn poll_slow(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let slow = self.0.as_mut().and_then(Arc::get_mut);
        match slow.map(|slow| slow.get_mut().unwrap_or_else(PoisonError::into_inner)) {
            Some(Slow::Waiting(waiting)) => waiting.as_mut().poll(cx),
            Some(Slow::Failed(error)) => Poll::Ready(Err(error.clone())),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl Future for Sending<'_> {
    type Output = Result<()>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.0.is_none() {
            Poll::Ready(Ok(()))
        } else {
            self.poll_slow(cx)
        }
    }
}

impl PartialEq for Session {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for Session {}

impl std::hash::Hash for Session {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Session({} {}://{})",
            self.0.id, self.0.info.scheme, self.0.info.peer
        )
    }
}
