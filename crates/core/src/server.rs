//! Accepts connections and drives each with the user's handler: [`Server`].

mod accept;
mod builder;
mod drain;
mod host;
mod sessions;
mod signals;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use builder::ServerBuilder;
pub(crate) use drain::Grace;
pub use drain::ServerState;
pub use host::Host;
pub use sessions::{BroadcastReport, Sessions};

use crate::address::Address;
use crate::config::LinkConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::handler::{Events, Handler, Ignore};
use crate::link::{Bound, Sockets, Transports};
use crate::protection::{Addresses, Door, HalfOpen};
use crate::statistics::{Counters, Observed, Observer, Statistics, TransportStatistics};
use crate::worker::{self, Workers};

/// How long a shutdown waits for tasks that were cut off; only a handler that blocks its thread
/// needs longer.
const AFTER_CUT: Duration = Duration::from_secs(1);

/// A running server. Dropping it closes every connection at once; [`shutdown`](Self::shutdown)
/// lets them finish.
pub struct Server<T> {
    shared: Arc<Shared>,
    listening: Vec<Address>,
    /// Its own threads, where it does not live in the caller's runtime.
    workers: Option<Workers>,
    transports: T,
    drain_window: Duration,
    sockets: Sockets,
}

/// What the server's handle, its listeners and its connections share.
struct Shared {
    sessions: Sessions,
    counters: Arc<Counters>,
    tracker: TaskTracker,
    /// No more connections are accepted.
    stopping: CancellationToken,
    /// What is left is cut off: connections of other protocols, which are no sessions.
    cutting: CancellationToken,
    /// How many of these there are.
    guests: AtomicUsize,
    state: watch::Sender<ServerState>,
    /// Set when a drain begins.
    grace: OnceLock<drain::Grace>,
}

/// What a shutdown did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DrainReport {
    /// Sessions that were live when it began.
    pub sessions: usize,
    /// Sessions that ended in good order: everything that they had queued was written. What is
    /// neither here nor in [`cut`](Self::cut) failed for a reason of its own, such as a reset.
    pub drained: usize,
    /// Sessions that were cut off before everything was written.
    pub cut: usize,
    /// All ends since the drain began, by the label of their [reason](crate::CloseReason::label).
    pub ended: BTreeMap<&'static str, u64>,
    /// Why sessions had not finished at the deadline: `unread` are those whose peer had not read
    /// what was queued, `unanswered` those with requests that were not answered, `working` those
    /// whose handler was not done.
    pub cut_because: BTreeMap<&'static str, usize>,
    /// Messages that were queued and never written, over the server's life.
    pub messages_dropped: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// What the server has done in its life, the drain included.
    pub statistics: Statistics,
}

/// How many sessions have ended so far.
struct Ends {
    by_reason: BTreeMap<&'static str, u64>,
    all: u64,
    orderly: u64,
    cut: u64,
}

impl Ends {
    fn of(statistics: &Statistics) -> Self {
        let count = |label| {
            let ended = statistics.connections_ended.get(label);
            ended.copied().unwrap_or(0)
        };
        Self {
            by_reason: statistics.connections_ended.clone(),
            all: statistics.connections_ended.values().sum(),
            orderly: count("peer") + count("requested") + count("shutdown") + count("max_age"),
            cut: count("cut"),
        }
    }
}

impl<T: Transports> Server<T> {
    /// A builder for a server over the default transports.
    pub fn builder() -> ServerBuilder<T, Events<Ignore>> {
        ServerBuilder::new(T::default())
    }

    async fn start<H: Handler>(builder: ServerBuilder<T, H>) -> Result<Self> {
        let ServerBuilder {
            transports,
            config,
            handler,
            sockets,
        } = builder;
        config.validate()?;
        if config.listen.is_empty() {
            return Err(Error::new(ErrorKind::InvalidArgument, "start the server")
                .because("there is no address to listen on")
                .advice("call .listen(\"tcp://0.0.0.0:8080\")"));
        }
        let link = LinkConfig {
            sockets: sockets.clone(),
            ..LinkConfig::from(&config)
        };
        let counters = Arc::new(Counters::new());
        let mut listening = Vec::new();
        let addresses = Addresses::new(&config.protection);
        let mut per_worker: Vec<Vec<_>> = (0..config.workers.max(1)).map(|_| Vec::new()).collect();
        for text in &config.listen {
            let address: Address = text.parse()?;
            let link = link.for_address(&address)?;
            let bound = transports.bind(&address, &link, per_worker.len()).await?;
            counters.listens(TransportStatistics::name(address.scheme()));
            listening.extend(bound.first().map(|bound| bound.local().clone()));
            let workers = per_worker.len();
            for (n, bound) in bound.into_iter().enumerate() {
                if let Some(worker) = per_worker.get_mut(n % workers) {
                    let door = Door::new(&link.protection, &addresses);
                    worker.push((bound, accept::Rules::new(link.session.clone(), door)));
                }
            }
        }
        for left in sockets.take(|_| true) {
            tracing::warn!(
                left.name,
                "a socket that was given is closed: no address is its"
            );
        }
        let shared = Arc::new(Shared {
            sessions: Sessions::default(),
            counters,
            tracker: TaskTracker::new(),
            stopping: CancellationToken::new(),
            cutting: CancellationToken::new(),
            guests: AtomicUsize::new(0),
            state: watch::Sender::new(ServerState::Running),
            grace: OnceLock::new(),
        });
        let acceptor = accept::Acceptor {
            shared: shared.clone(),
            handler: Arc::new(accept::Admitting(handler)),
            max_connections: config.max_connections,
            handshake_timeout: config.handshake_timeout,
            half_open: HalfOpen::new(config.protection.max_handshakes, config.handshake_timeout),
        };
        let server = Self {
            shared,
            listening,
            workers: (config.workers > 0)
                .then(|| Workers::with_config(config.workers, &config.worker))
                .transpose()?,
            transports,
            drain_window: config.drain_window,
            sockets,
        };
        server.serve(acceptor, per_worker).await?;
        for address in &server.listening {
            tracing::info!(%address, workers = config.workers, "listening");
        }
        Ok(server)
    }

    /// Starts accepting: in this runtime, or on threads of the server's own.
    async fn serve<H: Handler>(
        &self,
        acceptor: accept::Acceptor<H>,
        per_worker: Vec<Vec<accept::Assigned<T::Bound>>>,
    ) -> Result<()> {
        let mut starts = Vec::new();
        for (n, assigned) in per_worker.into_iter().enumerate() {
            let Some(workers) = &self.workers else {
                acceptor.listen(assigned)?;
                continue;
            };
            let (started, start) = tokio::sync::oneshot::channel();
            let acceptor = acceptor.clone();
            workers.run_on(n, move || {
                let _ = started.send(acceptor.listen(assigned));
            });
            starts.push(start);
        }
        for start in starts {
            start.await.map_err(|_| worker::gone())??;
        }
        Ok(())
    }

    /// The addresses that the server listens on, with real port numbers.
    #[must_use]
    pub fn listening(&self) -> &[Address] {
        &self.listening
    }

    /// The live sessions.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.shared.sessions
    }

    /// What the server has done so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.shared.statistics()
    }

    /// Looks at this server from elsewhere, without keeping it alive.
    #[must_use]
    pub fn observer(&self) -> Observer {
        let weak: std::sync::Weak<Shared> = Arc::downgrade(&self.shared);
        Observer::new(weak)
    }

    /// Reads the files of TLS and of Noise again, for connections from now on: certificates, keys,
    /// authorities, revocation lists. Files of TLS that change are also noticed
    /// [by themselves](crate::config::TlsServerConfig::reload_interval).
    ///
    /// # Errors
    /// Names the file that cannot be used and says why; what was in use before stays in use.
    pub fn reload(&self) -> Result<()> {
        self.transports.reload()
    }

    /// The sockets that it listens on, which another process can be given (Unix).
    #[must_use]
    pub fn sockets(&self) -> &Sockets {
        &self.sockets
    }

    /// What the server is doing.
    #[must_use]
    pub fn state(&self) -> ServerState {
        *self.shared.state.borrow()
    }

    /// Every change of [`state`](Self::state), also after the server was moved into a shutdown:
    /// when it drains, a health check should say that it is not ready.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<ServerState> {
        self.shared.state.subscribe()
    }

    /// Stops accepting, lets every session handle what it has received and write what it has
    /// queued, and closes it; what is not done after `deadline` is cut off.
    ///
    /// Peers with the envelope are told, and have up to a second (a quarter of the deadline at most)
    /// to stop asking. So has a connection without it that has just come and said nothing yet; all
    /// others without it are closed when what they have sent is handled. With more than 32 sessions
    /// all that is spread over [`drain_window`](crate::config::ServerConfig::drain_window), so that
    /// they do not all come back at the same moment.
    pub async fn shutdown(self, deadline: Duration) -> DrainReport {
        self.drain(deadline, std::future::pending()).await
    }

    /// As [`shutdown`](Self::shutdown), with an early deadline when `hurry` is ready.
    async fn drain(self, deadline: Duration, hurry: impl Future<Output = ()>) -> DrainReport {
        let began = Instant::now();
        let shared = &self.shared;
        let before = Ends::of(&self.statistics());
        let window = self.drain_window.min(deadline / 2);
        let grace = drain::Grace::within(deadline, window, shared.guests.load(Relaxed));
        // before the stop, after which who comes late looks for it
        let _ = shared.grace.set(grace);
        shared.state.send_replace(ServerState::Draining);
        shared.counters.deaf();
        self.sockets.forget();
        shared.stopping.cancel();
        shared.tracker.close();
        let told = async {
            drain::tell(shared.sessions.every(), window, grace).await;
            std::future::pending().await
        };
        let done = tokio::select! {
            biased;
            () = shared.tracker.wait() => true,
            () = told => false,
            () = tokio::time::sleep(deadline) => false,
            () = hurry => false,
        };
        let mut cut_because = BTreeMap::new();
        if !done {
            cut_because = drain::unfinished(&shared.sessions, shared.guests.load(Relaxed));
            shared.sessions.cut();
            shared.cutting.cancel();
            if tokio::time::timeout(AFTER_CUT, shared.tracker.wait())
                .await
                .is_err()
            {
                tracing::warn!(
                    left = shared.counters.active(),
                    "handlers block their threads"
                );
            }
        }
        self.join_workers().await;
        let report = DrainReport {
            cut_because,
            ..self.report(&before, began.elapsed())
        };
        shared.state.send_replace(ServerState::Stopped);
        tracing::info!(
            report.sessions,
            report.drained,
            report.cut,
            report.messages_dropped,
            elapsed = ?report.elapsed,
            "shut down"
        );
        report
    }

    fn report(&self, before: &Ends, elapsed: Duration) -> DrainReport {
        let statistics = self.statistics();
        let after = Ends::of(&statistics);
        // tasks of handlers that block their threads
        let left = statistics.connections_active;
        let since = |after: u64, before: u64| usize::try_from(after - before).unwrap_or(usize::MAX);
        let ended = statistics.connections_ended.iter().map(|(label, now)| {
            let before = before.by_reason.get(label).copied().unwrap_or(0);
            (*label, now - before)
        });
        DrainReport {
            ended: ended.filter(|(_, count)| *count > 0).collect(),
            cut_because: BTreeMap::new(),
            sessions: since(after.all + left, before.all),
            drained: since(after.orderly, before.orderly),
            cut: since(after.cut + left, before.cut),
            messages_dropped: statistics.messages_dropped,
            elapsed,
            statistics,
        }
    }

    async fn join_workers(&self) {
        let Some(workers) = &self.workers else {
            return;
        };
        let threads = workers.end();
        let join = tokio::task::spawn_blocking(move || {
            for thread in threads {
                // a worker that panicked has nothing left to give back
                let _ = thread.join();
            }
        });
        let _ = tokio::time::timeout(AFTER_CUT, join).await;
    }
}

impl Observed for Shared {
    fn statistics(&self) -> Statistics {
        self.counters.snapshot(self.sessions.queued_bytes())
    }

    fn sessions(&self) -> Option<Sessions> {
        Some(self.sessions.clone())
    }

    fn is_ready(&self) -> bool {
        *self.state.borrow() == ServerState::Running
    }
}

impl<T> Drop for Server<T> {
    fn drop(&mut self) {
        self.sockets.forget();
        self.shared.stopping.cancel();
        self.shared.tracker.close();
        self.shared.sessions.cut();
        self.shared.cutting.cancel();
        self.shared.state.send_replace(ServerState::Stopped);
    }
}

impl<T> fmt::Debug for Server<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listening: Vec<&str> = self.listening.iter().map(Address::as_str).collect();
        f.debug_struct("Server")
            .field("listening", &listening)
            .finish_non_exhaustive()
    }
}
