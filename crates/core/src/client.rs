//! Keeps one connection to a server alive: [`Client`].

mod breaker;
mod builder;
mod leaving;
mod offline;
mod task;

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use network_system_wire::envelope::Header;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use builder::ClientBuilder;
pub(crate) use task::connect;

use crate::batch::MessageBatch;
use crate::close::CloseReason;
use crate::error::{Error, ErrorKind, Result};
use crate::handler::{Events, Ignore};
use crate::link::Transports;
use crate::message::Message;
use crate::outbox::Command;
use crate::resilience::CircuitBreaker;
use crate::server::Sessions;
use crate::session::{Session, block_on};
use crate::statistics::{Counters, Observed, Observer, Statistics};
use crate::worker::{Spawned, Workers};
use offline::Offline;

/// In place of times that no clock reaches.
pub(crate) const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// A client that connects, and connects again when the connection is lost.
///
/// Messages that are sent while there is no connection wait in a bounded queue and go out first
/// when there is one. When a server announces its end (with the envelope), the client connects
/// anew at once, to the next address where there are several, while what it has asked before is still
/// answered over the old connection. Dropping the client closes the connection at once;
/// [`close`](Self::close) writes what is queued first.
pub struct Client<T> {
    shared: Arc<Shared>,
    /// Threads that it runs on, where those are not the caller's runtime's.
    _workers: Option<Workers>,
    transports: T,
}

/// What the client's handle and its task share.
pub(crate) struct Shared {
    state: watch::Sender<ClientState>,
    /// The session to send to; set once the offline queue has gone out.
    current: Mutex<Option<Session>>,
    /// The sessions of the connections that are up, from their first moment to their last: one, and
    /// those that servers are about to close.
    live: Mutex<Vec<Session>>,
    /// The last session whose server has announced its end.
    leaving: watch::Sender<u64>,
    /// The tasks of connections whose servers leave.
    leavers: TaskTracker,
    offline: Mutex<Offline>,
    counters: Arc<Counters>,
    breaker: Option<CircuitBreaker>,
    /// The session that `on_connect` has let in, and whether messages wait for it.
    begun: watch::Sender<(u64, bool)>,
    stopping: CancellationToken,
    task: OnceLock<Spawned>,
    /// Its task has ended.
    ended: CancellationToken,
    request_timeout: Duration,
    /// Whose timers it uses, for blocking calls.
    runtime: Handle,
    /// No sessions: a client's are in no table.
    sessions: Sessions,
}

/// What a client is doing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ClientState {
    /// It tries to connect.
    Connecting {
        /// Failed tries in a row; see [`Waiting`](Self::Waiting).
        failures: u32,
    },
    /// It is connected.
    Connected,
    /// It waits before the next round.
    Waiting {
        /// Failed tries in a row: rounds over all addresses, and connections that were lost before
        /// the peer had said anything and before they were as old as
        /// [`Backoff::initial`](crate::config::Backoff::initial) (1 s at most).
        failures: u32,
        /// How long it waits.
        delay: Duration,
        /// Why the last try failed.
        error: Option<Error>,
    },
    /// It has ended, with the error of the last try where that was the reason.
    Closed(Option<Error>),
}

impl ClientState {
    /// Whether there is a connection.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self, Self::Connected)
    }
}

impl Shared {
    fn current(&self) -> Option<Session> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.clone().filter(|session| !session.is_closed())
    }

    /// Tells the connections that are up.
    fn command(&self, command: &Command) {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        for session in &*live {
            session.command(command.clone());
        }
    }

    /// Tells the servers that understand it that no more is to come.
    fn say_goodbye(&self) {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        for session in &*live {
            if session.info().envelope && session.has_greeted() {
                session.send_control(Header::GoAway, "the client closes".into());
            }
        }
    }

    fn offline(&self) -> std::sync::MutexGuard<'_, Offline> {
        self.offline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn closed_error(&self) -> Option<Error> {
        match &*self.state.borrow() {
            ClientState::Closed(error) => {
                let closed = Error::new(ErrorKind::ConnectionClosed, "send a message");
                Some(match error {
                    Some(error) => closed.because(error).caused_by(error.clone()),
                    None => closed.because("the client is closed"),
                })
            }
            _ => None,
        }
    }

    /// Keeps a message for later; the session to use instead when there is one by now.
    fn keep(&self, message: Message) -> Result<Option<(Session, Message)>> {
        // the lock order is the task's: current, then offline
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some(session) if !session.is_closed() => Ok(Some((session.clone(), message))),
            _ => match self.closed_error() {
                Some(error) => Err(error),
                None => self.offline().push(message).map(|()| None),
            },
        }
    }
}

impl<T: Transports> Client<T> {
    /// A builder for a client of the server at `address`, over the default transports.
    pub fn builder(address: impl Into<String>) -> ClientBuilder<T, Events<Ignore>> {
        ClientBuilder::new(T::default()).address(address)
    }

    /// Reads the files of TLS again, for connections from now on: certificate, key, authorities,
    /// revocation lists. Files that change are also noticed
    /// [by themselves](crate::config::TlsClientConfig::reload_interval).
    ///
    /// # Errors
    /// Names the file that cannot be used and says why; what was in use before stays in use.
    pub fn reload(&self) -> Result<()> {
        self.transports.reload()
    }
}

impl<T> Client<T> {
    /// Sends a message, or keeps it for later while there is no connection. Waits for room like
    /// [`Session::send`].
    ///
    /// What waited for a connection goes out once the peer has said something (with the envelope:
    /// its hello) or the connection is as old as
    /// [`Backoff::initial`](crate::config::Backoff::initial) (1 s at most), so a server that turns
    /// connections away at once does not swallow it; what was not written when the connection is
    /// lost waits for the next one. What can still be lost is what was written and never arrived,
    /// and what was sent while connected and not written when the connection was lost. Both may be
    /// noticed with [requests](Self::request).
    ///
    /// # Errors
    /// [`ErrorKind::QueueFull`] when the offline queue is full, [`ErrorKind::ConnectionClosed`]
    /// when the client has ended, [`ErrorKind::CircuitOpen`] when its
    /// [circuit breaker](ClientBuilder::circuit_breaker) is open; else as [`Session::send`].
    pub async fn send(&self, message: impl Into<Message>) -> Result<()> {
        self.shared.pass()?;
        self.send_anyway(message.into()).await
    }

    /// Sends a message, or keeps it for later, whatever the breaker says.
    async fn send_anyway(&self, mut message: Message) -> Result<()> {
        let mut session = self.shared.current();
        loop {
            if let Some(session) = session.take() {
                match session.send(message.clone()).await {
                    Err(error) if session.is_closed() && !error.is_full() => {}
                    result => return result,
                }
            }
            match self.shared.keep(message)? {
                None => return Ok(()),
                Some((current, back)) => {
                    session = Some(current);
                    message = back;
                }
            }
        }
    }

    /// Sends many messages at the cost of about one.
    ///
    /// # Errors
    /// As [`send`](Self::send); the messages before the one that fails are sent.
    pub async fn send_batch(&self, batch: impl Into<MessageBatch>) -> Result<()> {
        self.shared.pass()?;
        let batch: MessageBatch = batch.into();
        let messages = batch.into_messages();
        let mut rest = &messages[..];
        if let Some(session) = self.shared.current() {
            match session.send_all(&mut rest).await {
                // what the connection has not taken waits for the next one
                Err(error) if session.is_closed() && !error.is_full() => {}
                result => return result,
            }
        }
        for message in rest {
            self.send_anyway(message.clone()).await?;
        }
        Ok(())
    }

    /// Asks the server and waits for its reply, for a connection first if there is none; at most
    /// for the [request timeout](crate::config::SessionConfig::request_timeout). Needs the envelope.
    ///
    /// # Errors
    /// As [`Session::request_within`]; [`ErrorKind::CircuitOpen`], without waiting for a connection,
    /// when its [circuit breaker](ClientBuilder::circuit_breaker) is open.
    pub async fn request(&self, message: impl Into<Message>) -> Result<Message> {
        self.request_within(message, self.shared.request_timeout)
            .await
    }

    /// As [`request`](Self::request), with a deadline.
    ///
    /// # Errors
    /// As `request`.
    pub async fn request_within(
        &self,
        message: impl Into<Message>,
        deadline: Duration,
    ) -> Result<Message> {
        let request = self.ask(message.into(), deadline);
        self.shared.guard(request).await
    }

    async fn ask(&self, message: Message, deadline: Duration) -> Result<Message> {
        let until = Instant::now() + deadline.min(YEAR);
        let connected = self.shared.unless_open(self.connected());
        let session = tokio::time::timeout_at(until, connected)
            .await
            .map_err(|_| {
                Error::new(ErrorKind::Timeout, "send a request")
                    .because(format_args!("there was no connection within {deadline:?}"))
            })??;
        session
            .request_within(message, until.saturating_duration_since(Instant::now()))
            .await
    }

    /// As [`send`](Self::send), for threads outside of any async runtime.
    ///
    /// # Errors
    /// As `send`; [`ErrorKind::InvalidArgument`] inside a runtime, which it would block.
    pub fn send_blocking(&self, message: impl Into<Message>) -> Result<()> {
        block_on(&self.shared.runtime, self.send(message))
    }

    /// As [`request`](Self::request), for threads outside of any async runtime.
    ///
    /// # Errors
    /// As `request`; [`ErrorKind::InvalidArgument`] inside a runtime, which it would block.
    pub fn request_blocking(&self, message: impl Into<Message>) -> Result<Message> {
        block_on(&self.shared.runtime, self.request(message))
    }

    /// Waits until there is a connection.
    ///
    /// # Errors
    /// [`ErrorKind::ConnectionClosed`] when the client has ended.
    pub async fn connected(&self) -> Result<Session> {
        let mut state = self.shared.state.subscribe();
        loop {
            if state.borrow_and_update().is_connected()
                && let Some(session) = self.shared.current()
            {
                return Ok(session);
            }
            if let Some(error) = self.shared.closed_error() {
                return Err(error);
            }
            if state.changed().await.is_err() {
                return Err(Error::new(ErrorKind::ConnectionClosed, "connect"));
            }
        }
    }

    /// The session of the connection that is up now.
    #[must_use]
    pub fn session(&self) -> Option<Session> {
        self.shared.current()
    }

    /// What the client is doing.
    #[must_use]
    pub fn state(&self) -> ClientState {
        self.shared.state.borrow().clone()
    }

    /// Every change of [`state`](Self::state), for observers; may skip states that pass quickly.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<ClientState> {
        self.shared.state.subscribe()
    }

    /// The [circuit breaker](ClientBuilder::circuit_breaker), where there is one: its state, every
    /// change of it, and what it has seen and refused.
    #[must_use]
    pub fn breaker(&self) -> Option<CircuitBreaker> {
        self.shared.breaker.clone()
    }

    /// Messages and bytes that wait for a connection.
    #[must_use]
    pub fn offline_queue(&self) -> (usize, usize) {
        self.shared.offline().level()
    }

    /// What the client has done so far, over all its connections.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.shared.statistics()
    }

    /// Looks at this client from elsewhere, without keeping it alive.
    #[must_use]
    pub fn observer(&self) -> Observer {
        let weak: std::sync::Weak<Shared> = Arc::downgrade(&self.shared);
        Observer::new(weak)
    }

    /// Writes what is queued, says goodbye (with the envelope), closes the connection and does not
    /// connect again; cuts it off after
    /// `deadline`. Messages that still wait for a connection are dropped and counted.
    pub async fn close(self, deadline: Duration) {
        Self::close_all(&[&self], deadline).await;
    }

    /// The same with several at once.
    pub(crate) async fn close_all(clients: &[&Self], deadline: Duration) {
        for Self { shared, .. } in clients {
            shared.stopping.cancel();
            shared.say_goodbye();
            shared.command(&Command::Close(CloseReason::Shutdown));
        }
        let ended = async || {
            for Self { shared, .. } in clients {
                shared.ended.cancelled().await;
                shared.leavers.close();
                shared.leavers.wait().await;
            }
        };
        if tokio::time::timeout(deadline, ended()).await.is_ok() {
            return;
        }
        for Self { shared, .. } in clients {
            shared.command(&Command::Cut(CloseReason::Cut));
        }
        let cut = Duration::from_secs(1);
        if tokio::time::timeout(cut, ended()).await.is_err() {
            for Self { shared, .. } in clients {
                shared.task.get().map(Spawned::abort);
            }
        }
    }
}

impl Observed for Shared {
    fn statistics(&self) -> Statistics {
        let session = self.current();
        let queued = session.map_or(0, |session| session.queued_bytes() as u64);
        self.counters.snapshot(queued)
    }

    fn sessions(&self) -> Option<Sessions> {
        None
    }

    fn is_ready(&self) -> bool {
        self.state.borrow().is_connected()
    }
}

impl<T> Drop for Client<T> {
    fn drop(&mut self) {
        self.shared.stopping.cancel();
        self.shared.command(&Command::Cut(CloseReason::Cut));
    }
}

impl<T> fmt::Debug for Client<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
