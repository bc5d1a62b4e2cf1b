//! Accepting: one loop per listener, the connection cap, and the start of each connection.

use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use super::host::{GuestPlace, Host, Introducer};
use crate::close::CloseReason;
use crate::config::SessionConfig;
use crate::contain::contain;
use crate::driver::Driver;
use crate::error::{Error, ErrorKind, Result};
use crate::handler::Handler;
use crate::inbox::Inbox;
use crate::link::{Bound, Link, Listener};
use crate::message::MessageRef;
use crate::outbox::Command;
use crate::protection::{Door, HalfOpen, Knock, Place, Refusal, Slot, Unopened};
use crate::requests::Request;
use crate::session::Session;
use crate::worker;

/// After an error of `accept` (no file descriptors, say) the next try waits this long, twice as
/// long after each further one.
const BACKOFF: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A bound address and the rules for those that it accepts.
pub(super) type Assigned<B> = (B, Rules);

/// Who is let in by one listener, and the settings of their sessions.
#[derive(Clone)]
pub(super) struct Rules(Arc<(SessionConfig, Door)>);

impl Rules {
    pub(super) fn new(session: SessionConfig, door: Door) -> Self {
        Self(Arc::new((session, door)))
    }

    pub(super) fn session(&self) -> &SessionConfig {
        &self.0.0
    }

    pub(super) fn door(&self) -> &Door {
        &self.0.1
    }
}

/// What every listener needs.
pub(super) struct Acceptor<H> {
    pub(super) shared: Arc<Shared>,
    pub(super) handler: Arc<Admitting<H>>,
    pub(super) max_connections: usize,
    pub(super) handshake_timeout: Duration,
    pub(super) half_open: Arc<HalfOpen>,
}

impl<H> Clone for Acceptor<H> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            handler: self.handler.clone(),
            max_connections: self.max_connections,
            handshake_timeout: self.handshake_timeout,
            half_open: self.half_open.clone(),
        }
    }
}

impl<H: Handler> Acceptor<H> {
    /// Starts one accept loop for each address, on this worker or in the current runtime.
    pub(super) fn listen<B: Bound>(&self, assigned: Vec<Assigned<B>>) -> Result<()> {
        for (bound, rules) in assigned {
            let listener = bound.start()?;
            let acceptor = self.clone();
            // tracked, so that the address is free when a shutdown is over
            let _ = worker::spawn(self.shared.tracker.track_future(async move {
                let stopping = acceptor.shared.stopping.clone();
                stopping
                    .run_until_cancelled(acceptor.accept(listener, rules))
                    .await;
            }));
        }
        Ok(())
    }

    /// Accepts for ever.
    async fn accept<L: Listener>(&self, mut listener: L, rules: Rules) {
        let mut wait = BACKOFF;
        loop {
            match listener.accept().await {
                Ok(link) => {
                    wait = BACKOFF;
                    self.open(link, &rules);
                }
                Err(error) => {
                    self.shared.counters.connect_error();
                    tracing::warn!(%error, ?wait, "accepting failed, trying again");
                    contain(|| self.handler.on_error(None, &error));
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    /// Starts to drive a new connection, unless a rule is against it.
    fn open<L: Link>(&self, link: L, rules: &Rules) {
        let shared = &self.shared;
        let refuse = |refusal| shared.counters.refusals.refuse(refusal, &link.info().peer);
        let knock = match rules.door().knock(&link.info().peer) {
            Ok(knock) => knock,
            Err(refusal) => return refuse(refusal),
        };
        if !shared.counters.admit(self.max_connections) {
            return refuse(Refusal::MaxConnections);
        }
        let knock = match knock {
            Knock::Client(slot) if link.is_open() => return self.start(link, slot, rules),
            knock => knock,
        };
        // also for a task that ends before it was polled
        let admitted = Admitted(Some(shared.clone()));
        let Some(place) = HalfOpen::enter(&self.half_open) else {
            return refuse(Refusal::MaxHandshakes);
        };
        let (acceptor, rules) = (self.clone(), rules.clone());
        let handshake = Box::pin(async move {
            if let Some((link, slot)) = acceptor.handshake(link, knock, place, &rules).await {
                admitted.keep();
                acceptor.start(link, slot, &rules);
            }
        });
        let _ = worker::spawn(shared.tracker.track_future(handshake));
    }

    /// Lets everything be done that comes before the first message, in the time that it may take.
    async fn handshake<L: Link>(
        &self,
        link: L,
        knock: Knock,
        mut place: Place,
        rules: &Rules,
    ) -> Option<(L, Option<Slot>)> {
        let counters = &self.shared.counters;
        let peer = link.info().peer.clone();
        let opening = rules.door().open(link, knock);
        let opening = tokio::time::timeout(self.handshake_timeout, opening);
        let opened = tokio::select! {
            biased;
            opened = opening => opened,
            () = place.pushed_out() => {
                counters.refusals.refuse(Refusal::MaxHandshakes, &peer);
                return None;
            }
            () = self.out_of_grace() => return None,
        };
        let late = opened.is_err();
        let error = match opened {
            Ok(Ok(opened)) => return Some(opened),
            Ok(Err(Unopened::Refused(refusal, peer))) => {
                counters.refusals.refuse(refusal, &peer);
                return None;
            }
            Ok(Err(Unopened::Header(error))) => {
                counters.refusals.refuse(Refusal::ProxyHeader, &peer);
                error
            }
            Ok(Err(Unopened::Handshake(error))) => {
                counters.no_handshake(late);
                error
            }
            Err(_) => {
                counters.no_handshake(late);
                Error::new(ErrorKind::ConnectionTimeout, "do the handshake with")
                    .peer(peer)
                    .because(format_args!("not done within {:?}", self.handshake_timeout))
                    .advice("the peer is silent or slow, or waits for us to speak first")
            }
        };
        tracing::debug!(%error, "refused");
        contain(|| self.handler.on_error(None, &error));
        None
    }

    /// When a drain waits no longer for handshakes.
    async fn out_of_grace(&self) {
        self.shared.stopping.cancelled().await;
        if let Some(grace) = self.shared.grace.get() {
            tokio::time::sleep(grace.most).await;
        }
    }

    /// Starts to drive a connection that was admitted, with its place among those of its address.
    fn start<L: Link>(&self, link: L, slot: Option<Slot>, rules: &Rules) {
        self.shared.counters.opened(link.info().scheme);
        if link.is_guest() {
            return self.host(link, slot, rules);
        }
        self.drive(link, slot, rules);
    }

    /// Starts to serve a connection of another protocol, on which sessions may begin.
    #[cold]
    fn host<L: Link>(&self, link: L, slot: Option<Slot>, rules: &Rules) {
        let shared = self.shared.clone();
        let info = link.info().clone();
        tracing::debug!(scheme = info.scheme, peer = %info.peer, "connected");
        let place = GuestPlace::new(shared.clone(), slot, info.scheme);
        let introducer = Introducer {
            acceptor: self.clone(),
            rules: rules.clone(),
        };
        let host = Host::new(shared.clone(), Arc::new(introducer), place);
        let handler = self.handler.clone();
        let cutting = shared.cutting.clone();
        let life = Box::pin(async move {
            // also for a task that ends before it was polled
            let ended = host.ended();
            let served = cutting.run_until_cancelled(link.serve(host)).await;
            let reason = served.unwrap_or(CloseReason::Cut);
            if let Some(error) = reason.error() {
                contain(|| handler.on_error(None, error));
            }
            tracing::debug!(scheme = info.scheme, peer = %info.peer, %reason, "disconnected");
            ended.set(reason);
        });
        let _ = worker::spawn(shared.tracker.track_future(life));
    }

    /// Starts to drive a session.
    pub(super) fn drive<L: Link>(&self, link: L, slot: Option<Slot>, rules: &Rules) -> Session {
        let (shared, config) = (&self.shared, rules.session());
        let info = link.info();
        let session = Session::new(
            info.clone(),
            link.encoding(),
            config,
            shared.sessions.clone(),
            shared.counters.clone(),
        );
        tracing::debug!(?session, "connected");
        shared.sessions.insert(session.clone());
        if shared.stopping.is_cancelled() {
            // the drain may have passed over the table already
            match shared.grace.get() {
                Some(grace) => {
                    let farewell = grace.farewell(session.clone(), CloseReason::Shutdown);
                    drop(worker::spawn(farewell));
                }
                None => session.command(Command::Close(CloseReason::Shutdown)),
            }
        }
        let registered = Registered {
            shared: shared.clone(),
            session: session.clone(),
            reason: None,
            slot,
        };
        let handler = self.handler.clone();
        let driver = Driver::new(
            link,
            session.clone(),
            handler,
            shared.counters.clone(),
            config,
        );
        // in a box, because a future that is moved into another is kept twice
        let life = Box::pin(driver.run());
        let _ = worker::spawn(shared.tracker.track_future(async move {
            let mut registered = registered;
            registered.reason = Some(life.await);
        }));
        session
    }
}

/// A place among the connections, for one that is not open yet.
struct Admitted(Option<Arc<Shared>>);

impl Admitted {
    /// The connection is open, and gives the place up at its end.
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            shared.counters.leave();
        }
    }
}

/// The user's handler, which decides about who gets into the session table.
pub(super) struct Admitting<H>(pub(super) H);

impl<H: Handler> Handler for Admitting<H> {
    async fn on_connect(&self, session: &Session) -> Result<()> {
        self.0.on_connect(session).await?;
        session.sessions().admit(session.id());
        Ok(())
    }

    #[inline]
    fn on_message(
        &self,
        session: &Session,
        message: &MessageRef<'_>,
    ) -> impl Future<Output = Result<()>> + Send {
        self.0.on_message(session, message)
    }

    #[inline]
    fn on_batch(
        &self,
        session: &Session,
        inbox: &mut Inbox<'_>,
    ) -> impl Future<Output = Result<()>> + Send {
        self.0.on_batch(session, inbox)
    }

    fn on_request(
        &self,
        session: &Session,
        request: Request,
    ) -> impl Future<Output = Result<()>> + Send {
        self.0.on_request(session, request)
    }

    fn on_disconnect(
        &self,
        session: &Session,
        reason: &CloseReason,
    ) -> impl Future<Output = ()> + Send {
        self.0.on_disconnect(session, reason)
    }

    fn on_error(&self, session: Option<&Session>, error: &Error) {
        self.0.on_error(session, error);
    }

    fn on_goaway(&self, session: &Session) {
        self.0.on_goaway(session);
    }
}

/// A place in the session table, given up when the connection's task ends, however it ends.
struct Registered {
    shared: Arc<Shared>,
    session: Session,
    reason: Option<CloseReason>,
    slot: Option<Slot>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let reason = self.reason.take().unwrap_or_else(|| {
            // the runtime has ended under the connection: nobody may wait for it any more
            self.session.shut(&CloseReason::Cut);
            CloseReason::Cut
        });
        tracing::debug!(session = ?self.session, %reason, "disconnected");
        self.shared.sessions.remove(self.session.id());
        drop(self.slot.take());
        let scheme = self.session.info().scheme;
        self.shared.counters.disconnect(&reason, scheme);
        self.session.set_ended();
    }
}
