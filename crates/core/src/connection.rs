//! The coroutine level: a [`Connection`] that you own and drive, with no task between you and the
//! transport.

mod listener;
mod split;

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use network_system_wire::envelope::Header;
use tokio::time::Instant;

pub use listener::ConnectionListener;
pub use split::{ConnectionReceiver, ConnectionSender};

use crate::address::Address;
use crate::buffers;
use crate::client::connect;
use crate::clock::{Clock, Due, Timer};
use crate::close::CloseReason;
use crate::config::{ClientConfig, LinkConfig, SessionConfig};
use crate::envelope::{Inbound, Reader};
use crate::error::{Error, ErrorKind, Result};
use crate::in_queue::InQueue;
use crate::link::{Link, LinkInfo, Transports};
use crate::message::Message;
use crate::out_queue::{Encoding, OutQueue};
use crate::protection::Slot;
use crate::session::SessionStatistics;
use crate::session::too_large;

/// One connection, driven by the task that owns it.
///
/// What is sent is queued, and written when the task would wait for input, so that answers to a
/// burst of messages leave in one write. [`flush`](Self::flush) writes at once.
pub struct Connection<L> {
    link: L,
    encoding: Encoding,
    inbox: InQueue,
    queue: OutQueue,
    high: usize,
    low: usize,
    envelope: Option<Reader>,
    clock: Clock,
    since: Instant,
    statistics: SessionStatistics,
    /// Greetings and heartbeats that are queued: nobody's messages.
    controls: u64,
    /// Whether a message was taken since the clock was told.
    taken: bool,
    close_timeout: Duration,
    /// Its place among those of its IP address, where it was accepted.
    pub(crate) slot: Option<Slot>,
}

impl<L: Link> Connection<L> {
    /// A connection over `link`.
    pub fn new(link: L, config: &SessionConfig) -> Self {
        let envelope = link.info().envelope.then(Reader::default);
        let encoding = link.encoding();
        let mut connection = Self {
            inbox: InQueue::new(&encoding),
            encoding,
            queue: OutQueue::default(),
            high: config.outbox.high,
            low: config.outbox.low,
            clock: Clock::new(config, envelope.is_some(), link.pings()),
            envelope,
            since: Instant::now(),
            statistics: SessionStatistics::default(),
            controls: 0,
            taken: false,
            close_timeout: config.close_timeout,
            slot: None,
            link,
        };
        if connection.envelope.is_some() {
            // an empty queue takes every control message
            let _ = connection.control(Header::Hello, Message::default());
        }
        connection
    }

    /// Opens a connection to `address` with the defaults of a client: 10 s at most.
    ///
    /// # Errors
    /// Why there is none: [`ErrorKind::InvalidArgument`], [`ErrorKind::ConnectionRefused`],
    /// [`ErrorKind::ConnectionTimeout`], …
    pub async fn open<T>(transports: &T, address: &str) -> Result<Self>
    where
        T: Transports<Link = L>,
    {
        Self::open_with(transports, address, &ClientConfig::default()).await
    }

    /// As [`open`](Self::open), with settings: those of the connect, the session, the socket and TLS.
    ///
    /// # Errors
    /// As `open`.
    pub async fn open_with<T>(transports: &T, address: &str, config: &ClientConfig) -> Result<Self>
    where
        T: Transports<Link = L>,
    {
        config.validate()?;
        let address: Address = address.parse()?;
        let link_config = LinkConfig::from(config).for_connect(&address)?;
        let link = connect(transports, &address, &link_config, config.connect_timeout).await?;
        Ok(Self::new(link, &link_config.session))
    }

    /// What the transport knows about the connection.
    pub fn info(&self) -> &LinkInfo {
        self.link.info()
    }

    /// The transport's link.
    pub fn get_ref(&self) -> &L {
        &self.link
    }

    /// The next message; `None` when the peer has closed. Writes what is queued before it waits.
    /// Cancel-safe: nothing is lost when the call is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::MessageTooLarge`] or [`ErrorKind::Protocol`] when the peer breaks a limit or
    /// the protocol, [`ErrorKind::SessionExpired`] after the idle time,
    /// [`ErrorKind::ConnectionClosed`] when it vanished. The connection is of no further use then.
    pub async fn receive(&mut self) -> Result<Option<Message>> {
        poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// As [`receive`](Self::receive), for hand-written futures.
    ///
    /// # Errors
    /// As `receive`.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>>> {
        loop {
            while let Some(message) = self.inbox.next()? {
                let message = match &mut self.envelope {
                    None => Some(message.to_message()),
                    Some(reader) => {
                        let inbound = reader.read(&message)?;
                        self.open_envelope(inbound)?
                    }
                };
                if message.is_some() {
                    self.statistics.messages_in += 1;
                    self.taken = true;
                    return Poll::Ready(Ok(message));
                }
            }
            if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                return Poll::Ready(Err(error));
            }
            // a peer that causes more answers than it reads gets no more until it does
            let filled = if self.queue.answers() > self.high {
                Poll::Pending
            } else {
                self.link.poll_fill(cx, &mut self.inbox)?
            };
            match filled {
                Poll::Ready(true) => {
                    let now = Instant::now();
                    self.clock.heard(now);
                    buffers::trim(now);
                }
                Poll::Ready(false) => return Poll::Ready(Ok(None)),
                Poll::Pending => match self.poll_clock(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Due::Ping) if self.envelope.is_none() => {
                        if let Poll::Ready(Err(error)) = self.link.poll_ping(cx) {
                            return Poll::Ready(Err(error));
                        }
                    }
                    Poll::Ready(Due::Ping) => {
                        self.control(Header::Ping { token: 0 }, Message::default())?;
                    }
                    Poll::Ready(due) => return Poll::Ready(Err(self.expired(due))),
                },
            }
        }
    }

    fn poll_clock(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        self.tell_clock();
        self.clock.poll(cx)
    }

    /// Whole messages are what keeps a connection alive, not the bytes of one that never ends.
    fn tell_clock(&mut self) {
        if std::mem::take(&mut self.taken) {
            self.clock.active(Instant::now());
        }
    }

    /// As [`poll_flush`](Self::poll_flush), at most for the idle time, which `timer` watches: the
    /// clock's own may be another half's.
    fn poll_flush_in_time(&mut self, cx: &mut Context<'_>, timer: &mut Timer) -> Poll<Result<()>> {
        let result = self.poll_flush(cx);
        if result.is_ready() {
            return result;
        }
        self.tell_clock();
        match self.clock.poll_idle(cx, timer) {
            Poll::Ready(due) => Poll::Ready(Err(self.expired(due))),
            Poll::Pending => Poll::Pending,
        }
    }

    /// The error of a close that took too long.
    #[cold]
    fn unclosed(&self) -> Error {
        Error::new(ErrorKind::Timeout, "close the connection to")
            .peer(&self.info().peer)
            .because(format_args!("not done within {:?}", self.close_timeout))
            .advice("the peer does not read; drop the connection")
    }

    #[cold]
    fn expired(&self, due: Due) -> Error {
        let reason = match due {
            Due::Idle => CloseReason::Idle,
            Due::Silent => CloseReason::Silent,
            _ => CloseReason::Heartbeat,
        };
        reason.to_error("receive from").peer(&self.info().peer)
    }

    /// The message inside the envelope; `None` for what the protocol itself needs.
    fn open_envelope(&mut self, inbound: Inbound) -> Result<Option<Message>> {
        match inbound {
            Inbound::Message(message) => return Ok(Some(message)),
            Inbound::Ping { token } => self.control(Header::Pong { token }, Message::default())?,
            Inbound::Request { id, .. } => {
                let code = ErrorKind::NotFound.code();
                self.control(
                    Header::Failure { id, code },
                    "requests are not served here".into(),
                )?;
            }
            _ => {}
        }
        Ok(None)
    }

    fn control(&mut self, header: Header, message: Message) -> Result<()> {
        self.controls += u64::from(!matches!(header, Header::Failure { .. }));
        self.queue
            .push(&self.encoding, Some(header), &message.by_ref())
    }

    /// Queues a message; when more than the outbox limit (1 MiB) is queued, writes first until
    /// there is room again.
    ///
    /// # Errors
    /// [`ErrorKind::MessageTooLarge`] above the limit, [`ErrorKind::InvalidArgument`] when the
    /// framing cannot carry the message, [`ErrorKind::SessionExpired`] when the peer has read
    /// nothing for the idle time, else why writing failed.
    pub async fn send(&mut self, message: impl Into<Message>) -> Result<()> {
        let message = message.into();
        if !self.has_room(message.len()) {
            let low = self.low;
            let mut timer = None;
            poll_fn(|cx| match self.poll_flush_in_time(cx, &mut timer) {
                Poll::Pending if self.queue.bytes() <= low => Poll::Ready(Ok(())),
                result => result,
            })
            .await?;
        }
        self.push(&message)
    }

    /// As [`send`](Self::send), but never waits or writes.
    ///
    /// # Errors
    /// As `send`; [`ErrorKind::QueueFull`] when the outbox limit is reached.
    pub fn feed(&mut self, message: impl Into<Message>) -> Result<()> {
        let message = message.into();
        if !self.has_room(message.len()) {
            return Err(Error::new(ErrorKind::QueueFull, "queue a message")
                .because(format_args!("{} bytes wait already", self.queue.bytes()))
                .advice("flush first"));
        }
        self.push(&message)
    }

    fn has_room(&self, size: usize) -> bool {
        self.queue.is_empty() || self.queue.bytes().saturating_add(size) <= self.high
    }

    fn push(&mut self, message: &Message) -> Result<()> {
        let limit = self.link.info().max_message;
        if matches!(self.encoding, Encoding::Messages) && message.len() > limit {
            return Err(too_large(limit));
        }
        let header = self.envelope.as_ref().map(|_| Header::Data);
        self.queue.push(&self.encoding, header, &message.by_ref())
    }

    /// Writes everything that is queued.
    ///
    /// # Errors
    /// Why writing failed; [`ErrorKind::SessionExpired`] when no message has moved for the idle
    /// time.
    pub async fn flush(&mut self) -> Result<()> {
        let mut timer = None;
        poll_fn(|cx| self.poll_flush_in_time(cx, &mut timer)).await
    }

    /// As [`flush`](Self::flush), for hand-written futures, and without a deadline.
    ///
    /// # Errors
    /// As `flush`.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.queue.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let (sent, result) = self.link.poll_send(cx, &mut self.queue);
        let controls = self.controls.min(sent.messages);
        self.controls -= controls;
        self.statistics.messages_out += sent.messages - controls;
        self.statistics.bytes_out += sent.bytes;
        if sent.bytes > 0 && sent.messages != controls {
            let now = Instant::now();
            self.clock.active(now);
            buffers::trim(now);
        }
        self.queue.release();
        result
    }

    /// Writes what is queued and closes in good order, at most for
    /// [`close_timeout`](SessionConfig::close_timeout) (5 s).
    ///
    /// # Errors
    /// Why writing failed; [`ErrorKind::Timeout`] when the peer does not read.
    pub async fn close(mut self) -> Result<()> {
        let timeout = self.close_timeout;
        let close = async {
            poll_fn(|cx| self.poll_flush(cx)).await?;
            poll_fn(|cx| self.link.poll_close(cx)).await
        };
        let result = tokio::time::timeout(timeout, close).await;
        result.unwrap_or_else(|_| Err(self.unclosed()))
    }

    /// Whether nothing is half done: no message in part has come in, and nothing waits to go out.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.queue.is_empty() && self.inbox.is_empty()
    }

    /// What the connection has done so far.
    pub fn statistics(&self) -> SessionStatistics {
        SessionStatistics {
            bytes_in: self.inbox.received(),
            queued_bytes: self.queue.bytes() as u64,
            age: self.since.elapsed(),
            ..self.statistics
        }
    }

    /// Two halves for two tasks. They share the connection under a lock that is held for the
    /// length of a system call.
    pub fn split(self) -> (ConnectionReceiver<L>, ConnectionSender<L>) {
        split::split(self)
    }
}
