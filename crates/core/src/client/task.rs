//! The task of a client: connect, drive, wait, and again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::leaving::{self, Live};
use super::offline::Offline;
use super::{ClientState, Shared};
use crate::address::Address;
use crate::close::CloseReason;
use crate::config::{ClientConfig, LinkConfig};
use crate::contain::contain;
use crate::driver::Driver;
use crate::error::{Error, ErrorKind, Result};
use crate::handler::Handler;
use crate::inbox::Inbox;
use crate::link::{Link, Sink, Transports};
use crate::message::MessageRef;
use crate::outbox::Command;
use crate::requests::Request;
use crate::session::Session;

/// Everything that the task needs.
pub(super) struct Task<T, H> {
    pub(super) transports: T,
    pub(super) handler: Arc<Outgoing<H>>,
    pub(super) shared: Arc<Shared>,
    pub(super) config: ClientConfig,
    /// Each address with the settings of its query.
    pub(super) addresses: Vec<(Address, LinkConfig)>,
    /// The address that is tried next.
    pub(super) next: usize,
}

impl<T: Transports, H: Handler> Task<T, H> {
    /// Keeps a connection until the client is closed, starting with `link` where there is one.
    pub(super) async fn run(mut self, mut link: Option<(T::Link, LinkConfig)>) {
        let mut failures = 0;
        let stopping = self.shared.stopping.clone();
        let end = loop {
            let mut failed = None;
            match link.take() {
                Some((link, config)) => {
                    let End {
                        reason,
                        proved,
                        left,
                    } = match self.drive(link, &config).await {
                        Some(end) => end,
                        None => {
                            // the server leaves: to another one, if there is one
                            self.next = (self.next + 1) % self.addresses.len();
                            continue;
                        }
                    };
                    let ours =
                        matches!(reason, CloseReason::Requested(_) | CloseReason::Refused(_));
                    if stopping.is_cancelled() || ours || !self.config.reconnect.enabled {
                        let refused = matches!(reason, CloseReason::Refused(_));
                        let refused = refused.then(|| reason.to_error("keep the connection"));
                        break reason.error().cloned().or(refused);
                    }
                    if proved {
                        failures = 0;
                        // elsewhere, where that is possible
                        self.next = (self.next + usize::from(left)) % self.addresses.len();
                    } else {
                        // turned away, as far as anybody can tell: perhaps not by the next one
                        self.next = (self.next + 1) % self.addresses.len();
                        failed = Some(reason.to_error("keep the connection"));
                    }
                }
                None => {
                    let connecting = ClientState::Connecting { failures };
                    self.shared.state.send_replace(connecting);
                    match stopping.run_until_cancelled(self.round()).await {
                        None => break None,
                        Some(Ok(connected)) => {
                            link = Some(connected);
                            continue;
                        }
                        Some(Err(error)) if !self.config.reconnect.enabled => break Some(error),
                        Some(Err(error)) => failed = Some(error),
                    }
                }
            }
            let delay = self.config.reconnect.delay(failures);
            failures = failures.saturating_add(u32::from(failed.is_some()));
            let waiting = ClientState::Waiting {
                failures,
                delay,
                error: failed,
            };
            self.shared.state.send_replace(waiting);
            tracing::debug!(failures, ?delay, "waiting to connect again");
            if stopping
                .run_until_cancelled(tokio::time::sleep(delay))
                .await
                .is_none()
            {
                break None;
            }
        };
        self.end(end);
    }

    fn end(&self, error: Option<Error>) {
        let mut current = self
            .shared
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *current = None;
        self.shared.state.send_replace(ClientState::Closed(error));
        let left = self.shared.offline().clear();
        self.shared.counters.dropped(left as u64);
    }

    /// Tries each address once, from the one that comes next.
    pub(super) async fn round(&mut self) -> Result<(T::Link, LinkConfig)> {
        let mut last = None;
        for _ in 0..self.addresses.len() {
            let Some((address, config)) = self.addresses.get(self.next % self.addresses.len())
            else {
                break;
            };
            match connect(
                &self.transports,
                address,
                config,
                self.config.connect_timeout,
            )
            .await
            {
                Ok(link) => return Ok((link, config.clone())),
                Err(error) => {
                    tracing::debug!(%error, "connecting failed");
                    self.shared.counters.connect_error();
                    contain(|| self.handler.inner.on_error(None, &error));
                    last = Some(error);
                    self.next = (self.next + 1) % self.addresses.len();
                }
            }
        }
        let error = last.unwrap_or_else(|| Error::new(ErrorKind::InvalidArgument, "connect"));
        self.shared.not_reached(&error);
        Err(error)
    }

    /// How old a connection is that has proved itself without a word of the peer.
    pub(super) fn proof(&self) -> Duration {
        self.config.reconnect.initial.min(PROOF_MAX)
    }

    /// Drives one connection to its end, or until its server leaves: then it goes on elsewhere, and
    /// the result is `None`.
    async fn drive(&self, link: T::Link, config: &LinkConfig) -> Option<End> {
        let shared = &self.shared;
        shared.counters.connect(usize::MAX, link.info().scheme);
        let session = Session::new(
            link.info().clone(),
            link.encoding(),
            &config.session,
            shared.sessions.clone(),
            shared.counters.clone(),
        );
        let mut live = Live::new(shared.clone(), session.clone());
        if shared.stopping.is_cancelled() {
            session.command(Command::Close(CloseReason::Shutdown));
        }
        let handler = self.handler.clone();
        let driver = Driver::new(
            link,
            session.clone(),
            handler,
            shared.counters.clone(),
            &config.session,
        );
        let mut running = Box::pin(driver.run());
        let mut before = 0;
        let mut told = false;
        let ended = tokio::select! {
            biased;
            reason = &mut running => Some(reason),
            () = self.flush(&session, &mut before, &mut told) => None,
        };
        let reason = match ended {
            Some(reason) => reason,
            None if self.may_leave(&session) => tokio::select! {
                biased;
                reason = &mut running => reason,
                () = self.left(&session) => {
                    leaving::go_on(running, live);
                    return None;
                }
            },
            // nothing else is looked at, because every message would pay for it
            None => running.await,
        };
        tracing::debug!(?session, %reason, "disconnected");
        live.reason = Some(reason.clone());
        {
            let mut offline = shared.offline();
            settle(&mut offline, &session, &mut before);
            shared.counters.put_back(offline.put_back() as u64);
        }
        let heard =
            session.statistics().bytes_in > 0 && !matches!(reason, CloseReason::Protocol(_));
        let proved = heard || session.statistics().age >= self.proof();
        match (told, proved) {
            (true, _) => {}
            (false, true) => shared.reached(&session),
            (false, false) => shared.turned_away(&reason),
        }
        let left = session.peer_is_leaving();
        Some(End {
            reason,
            proved,
            left,
        })
    }

    /// Sends what waits for the connection, before anything sent from now on, once the connection
    /// has proved itself. `before` is what the session had written before, or what is settled; `told`
    /// whether the circuit breaker knows that it has proved itself.
    async fn flush(&self, session: &Session, before: &mut u64, told: &mut bool) {
        let shared = &self.shared;
        let mut begun = shared.begun.subscribe();
        let waits = match begun.wait_for(|(id, _)| *id == session.id()).await {
            Ok(begun) => begun.1,
            Err(_) => false,
        };
        // nobody needs to know otherwise
        if !(waits || shared.breaker.is_some()) || !self.proves(session).await {
            return;
        }
        *told = true;
        shared.reached(session);
        if !waits {
            return;
        }
        *before = session.statistics().messages_out;
        loop {
            let next = {
                let mut current = lock(&shared.current);
                let mut offline = shared.offline();
                settle(&mut offline, session, before);
                let next = offline.next();
                if next.is_none() {
                    *current = Some(session.clone());
                    shared.state.send_replace(ClientState::Connected);
                }
                next
            };
            let Some(message) = next else { break };
            let result = session.send_patiently(message).await;
            if result.is_err() && session.is_closed() {
                return;
            }
            shared.offline().take();
            if let Err(error) = result {
                // no connection will carry this one, and it must not stay in the way
                let mut offline = shared.offline();
                let taken = offline.taken();
                offline.written(taken);
                drop(offline);
                session.count_dropped(1);
                contain(|| self.handler.inner.on_error(Some(session), &error));
            }
        }
        let mut wait = Duration::from_millis(1);
        while shared.offline().taken() > 0 && !session.is_closed() {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(PROOF_MAX);
            settle(&mut shared.offline(), session, before);
        }
    }

    /// Waits until the peer has said something, which with the envelope is its hello, or, without
    /// one, the connection is old enough; `false` when it has ended before.
    async fn proves(&self, session: &Session) -> bool {
        let mut wait = Duration::from_millis(1);
        loop {
            let statistics = session.statistics();
            if session.is_closed() {
                return false;
            }
            let left = self.proof().saturating_sub(statistics.age);
            if statistics.bytes_in > 0 || (left.is_zero() && !session.info().envelope) {
                return true;
            }
            // it is rare that messages wait, and they have waited longer than this
            let next = if left.is_zero() { wait } else { wait.min(left) };
            tokio::time::sleep(next).await;
            wait = (wait * 2).min(PROOF_MAX / 10);
        }
    }
}

/// How a connection has ended, whether it had proved itself, and whether the server had said so.
struct End {
    reason: CloseReason,
    proved: bool,
    left: bool,
}

/// A connection that has lived as long as this has proved itself, whatever the backoff.
const PROOF_MAX: Duration = Duration::from_secs(1);

/// Removes what the session has written from the messages that wait. Messages leave in the order
/// in which they were queued; what handlers have sent in between makes it remove too many rather
/// than send one twice.
fn settle(offline: &mut Offline, session: &Session, before: &mut u64) {
    if session.tracks_sizes() {
        // messages may be dropped in between: nobody can tell which ones were written
        let taken = offline.taken();
        offline.written(taken);
        return;
    }
    let now = session.statistics().messages_out;
    let written = usize::try_from(now.saturating_sub(*before)).unwrap_or(usize::MAX);
    if offline.taken() > 0 {
        offline.written(written);
    }
    *before = now.max(*before);
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connects to one address, at most for `timeout`.
pub(crate) async fn connect<T: Transports>(
    transports: &T,
    address: &Address,
    config: &LinkConfig,
    timeout: std::time::Duration,
) -> Result<T::Link> {
    let connecting = transports.connect(address, config);
    tokio::time::timeout(timeout, connecting)
        .await
        .unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::ConnectionTimeout, "connect to")
                .peer(address)
                .because(format_args!("no connection within {timeout:?}"))
                .advice("check the address, and firewalls in between"))
        })
}

/// The user's handler, plus what the client does at the start and end of each connection.
pub(super) struct Outgoing<H> {
    pub(super) inner: H,
    pub(super) shared: Arc<Shared>,
}

impl<H: Handler> Handler for Outgoing<H> {
    async fn on_connect(&self, session: &Session) -> Result<()> {
        self.inner.on_connect(session).await?;
        let mut current = lock(&self.shared.current);
        let waits = self.shared.offline().level().0 > 0;
        // what waits goes out first, when the connection has proved itself
        self.shared.begun.send_replace((session.id(), waits));
        if !waits {
            *current = Some(session.clone());
            self.shared.state.send_replace(ClientState::Connected);
        }
        Ok(())
    }

    #[inline]
    fn on_message(
        &self,
        session: &Session,
        message: &MessageRef<'_>,
    ) -> impl Future<Output = Result<()>> + Send {
        self.inner.on_message(session, message)
    }

    #[inline]
    fn on_batch(
        &self,
        session: &Session,
        inbox: &mut Inbox<'_>,
    ) -> impl Future<Output = Result<()>> + Send {
        self.inner.on_batch(session, inbox)
    }

    fn on_request(
        &self,
        session: &Session,
        request: Request,
    ) -> impl Future<Output = Result<()>> + Send {
        self.inner.on_request(session, request)
    }

    async fn on_disconnect(&self, session: &Session, reason: &CloseReason) {
        self.shared.leave(session);
        self.inner.on_disconnect(session, reason).await;
    }

    fn on_error(&self, session: Option<&Session>, error: &Error) {
        self.inner.on_error(session, error);
    }

    fn on_goaway(&self, session: &Session) {
        self.shared.leaving.send_replace(session.id());
        self.inner.on_goaway(session);
    }
}
