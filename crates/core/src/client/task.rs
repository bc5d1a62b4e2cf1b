//! The task of a client: connect, drive, wait, and again.

use std::sync::{Arc, PoisonError};

use super::{ClientState, Shared};
use crate::address::Address;
use crate::close::CloseReason;
use crate::config::{ClientConfig, LinkConfig};
use crate::contain::contain;
use crate::driver::Driver;
use crate::error::{Error, ErrorKind, Result};
use crate::handler::Handler;
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
                    failures = 0;
                    let reason = self.drive(link, &config).await;
                    let ours =
                        matches!(reason, CloseReason::Requested(_) | CloseReason::Refused(_));
                    if stopping.is_cancelled() || ours || !self.config.reconnect.enabled {
                        let refused = matches!(reason, CloseReason::Refused(_));
                        let refused = refused.then(|| reason.to_error("keep the connection"));
                        break reason.error().cloned().or(refused);
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
        let mut offline = self.shared.offline();
        let (left, _) = offline.level();
        while offline.front().is_some() {
            offline.pop();
        }
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
        Err(last.unwrap_or_else(|| Error::new(ErrorKind::InvalidArgument, "connect")))
    }

    /// Drives one connection to its end.
    async fn drive(&self, link: T::Link, config: &LinkConfig) -> CloseReason {
        let shared = &self.shared;
        shared.counters.connect(usize::MAX);
        let session = Session::new(
            link.info().clone(),
            link.encoding(),
            &config.session,
            shared.sessions.clone(),
            shared.counters.clone(),
        );
        let mut live = Live {
            shared,
            session: session.clone(),
            reason: None,
        };
        live.set(Some(session.clone()));
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
        let reason = driver.run().await;
        tracing::debug!(?session, %reason, "disconnected");
        live.reason = Some(reason.clone());
        reason
    }
}

/// The connection that is up, until its task ends, however it ends.
struct Live<'a> {
    shared: &'a Shared,
    session: Session,
    reason: Option<CloseReason>,
}

impl Live<'_> {
    fn set(&self, session: Option<Session>) {
        let live = &self.shared.live;
        *live.lock().unwrap_or_else(PoisonError::into_inner) = session;
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        let reason = self.reason.take().unwrap_or_else(|| {
            // the task was given up: nobody may wait for the connection any more
            self.session.shut(&CloseReason::Cut);
            CloseReason::Cut
        });
        self.set(None);
        self.shared.counters.disconnect(&reason);
        self.session.set_ended();
    }
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
    /// Sends what waited for the connection, before anything sent from now on.
    async fn on_connect(&self, session: &Session) -> Result<()> {
        self.inner.on_connect(session).await?;
        loop {
            let first = {
                let mut current = self
                    .shared
                    .current
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                let first = self.shared.offline().front();
                if first.is_none() {
                    *current = Some(session.clone());
                }
                first
            };
            let Some(message) = first else { break };
            match session.send_patiently(message).await {
                Ok(()) => self.shared.offline().pop(),
                Err(error) if session.is_closed() => return Err(error),
                Err(error) => {
                    // no connection will carry this one, and it must not stay in the way
                    self.shared.offline().pop();
                    session.count_dropped(1);
                    self.inner.on_error(Some(session), &error);
                }
            }
        }
        self.shared.state.send_replace(ClientState::Connected);
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

    fn on_request(
        &self,
        session: &Session,
        request: Request,
    ) -> impl Future<Output = Result<()>> + Send {
        self.inner.on_request(session, request)
    }

    async fn on_disconnect(&self, session: &Session, reason: &CloseReason) {
        *self
            .shared
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
        self.inner.on_disconnect(session, reason).await;
    }

    fn on_error(&self, session: Option<&Session>, error: &Error) {
        self.inner.on_error(session, error);
    }
}
