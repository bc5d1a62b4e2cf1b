//! What a server gives to connections of other protocols, on which sessions may begin: [`Host`].

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Shared;
use super::accept::{Acceptor, Rules};
use crate::close::CloseReason;
use crate::config::SessionConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::handler::Handler;
use crate::link::Link;
use crate::protection::{Refusal, Slot};
use crate::session::Session;
use crate::statistics::HttpCounters;
use crate::worker;

/// What a server gives to a connection of another protocol, such as HTTP, while it
/// [serves](Link::serve) it: the server's limits and statistics, word of a shutdown, and the way in for
/// sessions that begin on the connection. Every clone means the same connection.
///
/// The connection has come through the server's limits as any other, and counts as one until its end.
pub struct Host<L>(Arc<Inner<L>>);

struct Inner<L> {
    shared: Arc<Shared>,
    introduce: Arc<dyn Introduce<L>>,
    /// Gone when a session has it.
    place: Arc<Mutex<Option<GuestPlace>>>,
    handed_over: CancellationToken,
}

/// Starts sessions with whichever handler the server has.
pub(super) trait Introduce<L>: Send + Sync {
    fn introduce(&self, link: L, place: Option<GuestPlace>) -> Result<Session>;
    fn session(&self) -> &SessionConfig;
}

pub(super) struct Introducer<H> {
    pub(super) acceptor: Acceptor<H>,
    pub(super) rules: Rules,
}

impl<L: Link, H: Handler> Introduce<L> for Introducer<H> {
    fn introduce(&self, link: L, place: Option<GuestPlace>) -> Result<Session> {
        let Acceptor {
            shared,
            max_connections,
            ..
        } = &self.acceptor;
        if let Some(place) = place {
            shared.counters.becomes(place.scheme, link.info().scheme);
            return Ok(self.acceptor.drive(link, place.keep(), &self.rules));
        }
        let peer = &link.info().peer;
        let refused = |refusal| {
            shared.counters.refusals.refuse(refusal, peer);
            Error::new(ErrorKind::QueueFull, "begin a session with")
                .peer(peer)
                .because("there are as many connections as there may be")
                .advice("try again later")
        };
        if shared.stopping.is_cancelled() {
            return Err(
                Error::new(ErrorKind::ConnectionClosed, "begin a session with")
                    .peer(peer)
                    .because("the server shuts down"),
            );
        }
        let slot = self.rules.door().enter(peer).map_err(refused)?;
        if !shared.counters.admit(*max_connections) {
            return Err(refused(Refusal::MaxConnections));
        }
        shared.counters.opened(link.info().scheme);
        Ok(self.acceptor.drive(link, slot, &self.rules))
    }

    fn session(&self) -> &SessionConfig {
        self.rules.session()
    }
}

impl<L: Link> Host<L> {
    pub(super) fn new(
        shared: Arc<Shared>,
        introduce: Arc<dyn Introduce<L>>,
        place: GuestPlace,
    ) -> Self {
        Self(Arc::new(Inner {
            shared,
            introduce,
            place: Arc::new(Mutex::new(Some(place))),
            handed_over: CancellationToken::new(),
        }))
    }

    /// Who has to say how the connection has ended.
    pub(super) fn ended(&self) -> Ended {
        Ended(self.0.place.clone())
    }

    /// Starts a session on the connection, with the server's handler: from here on it is as any other,
    /// and counts as one more connection.
    ///
    /// # Errors
    /// [`ErrorKind::QueueFull`] when there are as many connections as there may be, of the peer's
    /// address or in all, [`ErrorKind::ConnectionClosed`] when the server shuts down.
    pub fn introduce(&self, link: L) -> Result<Session> {
        self.0.introduce.introduce(link, None)
    }

    /// As [`introduce`](Self::introduce), for a session that takes the connection over, as a WebSocket
    /// does: it has its place, so this cannot fail, unless another session has it already.
    ///
    /// # Errors
    /// Where that is so, as `introduce`.
    pub fn hand_over(&self, link: L) -> Result<Session> {
        let place = lock(&self.0.place).take();
        self.0.handed_over.cancel();
        self.0.introduce.introduce(link, place)
    }

    /// Waits until a session has taken the connection over.
    pub async fn handed_over(&self) {
        self.0.handed_over.cancelled().await;
    }

    /// Settings of the sessions.
    #[must_use]
    pub fn session_config(&self) -> &SessionConfig {
        self.0.introduce.session()
    }

    /// Whether a shutdown has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.shared.stopping.is_cancelled()
    }

    /// Waits for a shutdown, and then for this connection's turn in it, since not all peers should come
    /// back at once. Then it should take nothing new and end in good order. Returns for how long it may
    /// still wait for the first thing that a peer has connected for.
    pub fn draining(&self) -> impl Future<Output = Duration> + Send + 'static {
        let shared = self.0.shared.clone();
        async move {
            shared.stopping.cancelled().await;
            let Some(grace) = shared.grace.get() else {
                return Duration::ZERO;
            };
            tokio::time::sleep(grace.turn()).await;
            grace.most
        }
    }

    /// Waits for the beginning of a shutdown.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + 'static {
        self.0.shared.stopping.clone().cancelled_owned()
    }

    /// Runs a task of the connection's beside it, on the same worker. A shutdown waits for it, and cuts
    /// it off at its deadline.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let shared = &self.0.shared;
        let cutting = shared.cutting.clone();
        let task = async move {
            cutting.run_until_cancelled_owned(task).await;
        };
        let _ = worker::spawn(shared.tracker.track_future(task));
    }

    /// The server's counters of requests.
    #[must_use]
    pub fn http(&self) -> &HttpCounters {
        &self.0.shared.counters.http
    }
}

impl<L> Clone for Host<L> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<L> fmt::Debug for Host<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}

/// The place that a connection of another protocol has among those of the server. Its drop gives it back.
pub(super) struct GuestPlace {
    shared: Arc<Shared>,
    slot: Option<Slot>,
    reason: CloseReason,
    scheme: &'static str,
    kept: bool,
}

impl GuestPlace {
    pub(super) fn new(shared: Arc<Shared>, slot: Option<Slot>, scheme: &'static str) -> Self {
        shared.guests.fetch_add(1, Relaxed);
        Self {
            shared,
            slot,
            reason: CloseReason::Cut,
            scheme,
            kept: false,
        }
    }

    /// A session has it now, and gives it back at its end.
    fn keep(mut self) -> Option<Slot> {
        self.kept = true;
        self.slot.take()
    }
}

impl Drop for GuestPlace {
    fn drop(&mut self) {
        self.shared.guests.fetch_sub(1, Relaxed);
        if !self.kept {
            drop(self.slot.take());
            self.shared.counters.disconnect(&self.reason, self.scheme);
        }
    }
}

/// Gives the place back, however the connection ends.
pub(super) struct Ended(Arc<Mutex<Option<GuestPlace>>>);

impl Ended {
    pub(super) fn set(self, reason: CloseReason) {
        if let Some(place) = &mut *lock(&self.0) {
            place.reason = reason;
        }
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let place = lock(&self.0).take();
        drop(place);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
