//! How a client is configured: [`ClientBuilder`].

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use network_system_wire::Framing;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::offline::Offline;
use super::task::{Outgoing, Task};
use super::{Client, ClientState, Shared};
use crate::address::Address;
use crate::close::CloseReason;
use crate::config::{
    Backoff, ClientConfig, Heartbeat, LinkConfig, OutboxConfig, OverflowPolicy, Pipeline,
    SessionLimits, TlsClientConfig, WebSocketConfig,
};
use crate::error::{Error, ErrorKind, Result};
use crate::handler::{Events, Handler, Ignore, Others, Outcome};
use crate::link::Transports;
use crate::message::Message;
use crate::requests::Request;
use crate::resilience::CircuitBreaker;
use crate::server::Sessions;
use crate::session::Session;
use crate::statistics::Counters;
use crate::threads::{OnPool, ThreadPool};
use crate::worker::{self, Workers};

/// Collects addresses, settings and event handlers; [`connect`](Self::connect) or
/// [`start`](Self::start) makes a [`Client`].
///
/// Every setting has the default that its field in [`ClientConfig`] states.
#[must_use = "a client does nothing until it is started"]
pub struct ClientBuilder<T, H> {
    transports: T,
    config: ClientConfig,
    handler: H,
    workers: Option<Workers>,
    breaker: Option<CircuitBreaker>,
}

impl<T: Transports> ClientBuilder<T, Events<Ignore>> {
    /// A client over `transports` that drops every message.
    pub fn new(transports: T) -> Self {
        let handler = Events {
            message: Ignore,
            others: Others::default(),
        };
        Self {
            transports,
            config: ClientConfig::default(),
            handler,
            workers: None,
            breaker: None,
        }
    }
}

impl<T: Transports, M> ClientBuilder<T, Events<M>> {
    /// Runs `f` for each new connection. It returns nothing, or a `Result` whose error ends the
    /// client.
    pub fn on_connect<R: Outcome>(
        mut self,
        f: impl Fn(&Session) -> R + Send + Sync + 'static,
    ) -> Self {
        self.handler.others.on_connect(f);
        self
    }

    /// Runs `f` for each message: `|session, message| async move { … }`. It returns nothing, or a
    /// `Result` whose error closes the connection.
    pub fn on_message<F, R>(self, f: F) -> ClientBuilder<T, Events<F>>
    where
        F: Fn(Session, Message) -> R + Send + Sync + 'static,
        R: Future<Output: Outcome> + Send + 'static,
    {
        let handler = Events {
            message: f,
            others: self.handler.others,
        };
        ClientBuilder {
            transports: self.transports,
            config: self.config,
            handler,
            workers: self.workers,
            breaker: self.breaker,
        }
    }

    /// Runs `f` for each request of the server. Needs the [envelope](Self::envelope).
    pub fn on_request<F>(
        mut self,
        f: impl Fn(Session, Request) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output: Outcome> + Send + 'static,
    {
        self.handler.others.on_request(f);
        self
    }

    /// Runs `f` for each connection that has ended, with the reason.
    pub fn on_disconnect(
        mut self,
        f: impl Fn(&Session, &CloseReason) + Send + Sync + 'static,
    ) -> Self {
        self.handler.others.on_disconnect(f);
        self
    }

    /// Runs `f` for each error; without a session when connecting failed.
    pub fn on_error(
        mut self,
        f: impl Fn(Option<&Session>, &Error) + Send + Sync + 'static,
    ) -> Self {
        self.handler.others.on_error(f);
        self
    }
}

impl<T: Transports, H> ClientBuilder<T, H> {
    /// Uses `handler` in place of closures.
    pub fn handler<N: Handler>(self, handler: N) -> ClientBuilder<T, N> {
        ClientBuilder {
            transports: self.transports,
            config: self.config,
            handler,
            workers: self.workers,
            breaker: self.breaker,
        }
    }

    /// Runs the events, all of which have been set before, on the threads of `pool`: for handlers
    /// that compute for long. See [`OnPool`].
    pub fn thread_pool(self, pool: impl ThreadPool) -> ClientBuilder<T, OnPool<H>>
    where
        H: Handler,
    {
        ClientBuilder {
            transports: self.transports,
            config: self.config,
            handler: self.handler.on_pool(pool),
            workers: self.workers,
            breaker: self.breaker,
        }
    }

    /// Uses `transports` to resolve addresses.
    pub fn transports<N: Transports>(self, transports: N) -> ClientBuilder<N, H> {
        ClientBuilder {
            transports,
            config: self.config,
            handler: self.handler,
            workers: self.workers,
            breaker: self.breaker,
        }
    }

    /// Replaces all settings; addresses given before are kept.
    pub fn config(mut self, config: ClientConfig) -> Self {
        let mut addresses = std::mem::take(&mut self.config.addresses);
        self.config = config;
        addresses.append(&mut self.config.addresses);
        self.config.addresses = addresses;
        self
    }

    /// Runs the client on one of these threads. Default: in the caller's runtime.
    pub fn workers(mut self, workers: &Workers) -> Self {
        self.workers = Some(workers.clone());
        self
    }

    /// Adds an address; they are tried in turn.
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.config.addresses.push(address.into());
        self
    }

    /// How to connect again after a loss. Default: 0.5 s, doubled up to 30 s, full jitter.
    pub fn reconnect(mut self, backoff: Backoff) -> Self {
        self.config.reconnect = backoff;
        self
    }

    /// How long one connect may take. Default: 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.connect_timeout = timeout;
        self
    }

    /// How long a request may take when the call gives no deadline. Default: 30 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.config.session.request_timeout = timeout;
        self
    }

    /// Makes calls fail at once, with [`ErrorKind::CircuitOpen`], while the server is not well,
    /// instead of keeping messages for later and letting requests wait. Default: none.
    ///
    /// It counts requests that get no answer, rounds over all addresses in which no connection could
    /// be made, and connections that end before the peer has said anything. What was kept or asked
    /// before it opened stays kept or asked, but a request that still waits for a connection ends.
    /// Connecting goes on as [`reconnect`](Self::reconnect) says; a connection that proves itself makes
    /// the breaker half open at once: then messages pass, and requests are the probes that close it.
    /// (Without the envelope there are none, and the connection closes it.) It is seen through
    /// [`Client::breaker`]. Clients of the same server may share one.
    ///
    /// ```
    /// use network_system_core::{BreakerConfig, Client, Memory};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> network_system_core::Result<()> {
    /// let client = Client::<Memory>::builder("memory://somewhere")
    ///     .circuit_breaker(BreakerConfig::default())
    ///     .start()?;
    /// let breaker = client.breaker().expect("it has one");
    /// println!("{:?}, {:?}", breaker.state(), breaker.statistics());
    /// # Ok(())
    /// # }
    /// ```
    pub fn circuit_breaker(mut self, breaker: impl Into<CircuitBreaker>) -> Self {
        self.breaker = Some(breaker.into());
        self
    }

    /// Bytes of messages that are kept while there is no connection. Default: 1 MiB.
    pub fn offline_queue(mut self, bytes: usize) -> Self {
        self.config.offline_queue = bytes;
        self
    }

    /// All about TLS, for addresses such as `tls://example.org:8443`, and any with `?tls=true`.
    /// Default: the authorities that the system trusts, and the host in the address.
    pub fn tls(mut self, tls: TlsClientConfig) -> Self {
        self.config.tls = tls;
        self
    }

    /// All about WebSocket, for addresses such as `ws://example.org:80/chat`. Default: no subprotocol,
    /// no headers, without compression.
    pub fn websocket(mut self, websocket: WebSocketConfig) -> Self {
        self.config.websocket = websocket;
        self
    }

    /// How messages are delimited. Default: `u32` big-endian length.
    pub fn framing(mut self, framing: Framing) -> Self {
        self.config.session.framing = framing;
        self
    }

    /// Gives every message the envelope header: requests, heartbeats, drain announcements. The
    /// server must do the same. Default: no.
    pub fn envelope(mut self, on: bool) -> Self {
        self.config.session.envelope = on;
        self
    }

    /// Compresses and encrypts messages; the peers must have a pipeline, too. Default: none.
    pub fn pipeline(mut self, pipeline: Pipeline) -> Self {
        self.config.session.pipeline = Some(pipeline);
        self
    }

    /// Largest message in bytes. Default: 16 MiB.
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.config.session.max_message = bytes;
        self
    }

    /// Bytes at which the outbox is full, and at which it has room again. Default: 1 MiB and
    /// 256 KiB.
    pub fn outbox(mut self, high: usize, low: usize) -> Self {
        let overflow = self.config.session.outbox.overflow;
        self.config.session.outbox = OutboxConfig {
            high,
            low,
            overflow,
        };
        self
    }

    /// What happens to a message that finds the outbox full. Default: the sender waits.
    pub fn overflow(mut self, policy: OverflowPolicy) -> Self {
        self.config.session.outbox.overflow = policy;
        self
    }

    /// Closes a connection without traffic for this long. Default: never.
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.config.session.idle_timeout = timeout.into();
        self
    }

    /// What the session puts up with from the server, in place of all such settings. Default: the
    /// greeting of the envelope must come within 10 s.
    pub fn limits(mut self, limits: SessionLimits) -> Self {
        self.config.session.limits = limits;
        self
    }

    /// Probes a silent server at this interval, and gives up after `missed` unanswered probes.
    /// Default: 30 s, 2.
    pub fn heartbeat(mut self, interval: impl Into<Option<Duration>>, missed: u32) -> Self {
        self.config.session.heartbeat = Heartbeat {
            interval: interval.into(),
            missed,
        };
        self
    }

    fn task(self) -> Result<Task<T, H>> {
        let config = self.config;
        config.validate()?;
        let link = LinkConfig::from(&config);
        let mut addresses = Vec::new();
        for text in &config.addresses {
            let address: Address = text.parse()?;
            let link = link.for_connect(&address)?;
            addresses.push((address, link));
        }
        if addresses.is_empty() {
            return Err(Error::new(ErrorKind::InvalidArgument, "start the client")
                .because("there is no address to connect to"));
        }
        let services = self.workers.as_ref().and_then(Workers::services);
        let shared = Arc::new(Shared {
            state: watch::Sender::new(ClientState::Connecting { failures: 0 }),
            current: Mutex::default(),
            live: Mutex::default(),
            leaving: watch::Sender::new(0),
            leavers: TaskTracker::new(),
            offline: Mutex::new(Offline::new(config.offline_queue)),
            counters: Arc::new(Counters::new()),
            breaker: self.breaker,
            begun: watch::Sender::new((0, false)),
            stopping: CancellationToken::new(),
            task: OnceLock::new(),
            ended: CancellationToken::new(),
            request_timeout: config.session.request_timeout,
            runtime: services.cloned().unwrap_or_else(Handle::current),
            sessions: Sessions::default(),
        });
        let handler = Arc::new(Outgoing {
            inner: self.handler,
            shared: shared.clone(),
        });
        Ok(Task {
            transports: self.transports,
            handler,
            shared,
            config,
            addresses,
            next: 0,
        })
    }

    /// Starts in the background: the client connects as soon as it can.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] names the setting or address that makes no sense.
    pub fn start(self) -> Result<Client<T>>
    where
        H: Handler,
    {
        let workers = self.workers.clone();
        self.task().map(|task| spawn(task, None, workers))
    }

    /// Connects now, and keeps the connection from then on.
    ///
    /// # Errors
    /// As [`start`](Self::start), or why the last address could not be reached.
    pub async fn connect(self) -> Result<Client<T>>
    where
        H: Handler,
    {
        let workers = self.workers.clone();
        let mut task = self.task()?;
        let client = match workers {
            None => {
                let link = task.round().await?;
                spawn(task, Some(link), None)
            }
            Some(workers) => {
                let (sender, receiver) = oneshot::channel();
                let on = workers.clone();
                // a link is made where it is used
                let first = async move {
                    let mut sender = sender;
                    let link = tokio::select! {
                        link = task.round() => link,
                        () = sender.closed() => return,
                    };
                    if !sender.is_closed() {
                        let client = link.map(|link| spawn(task, Some(link), Some(workers)));
                        let _ = sender.send(client);
                    }
                };
                on.run_on_next(|| drop(worker::spawn(first)));
                receiver.await.map_err(|_| worker::gone())??
            }
        };
        client.connected().await?;
        Ok(client)
    }
}

/// The end of a client's task, however it comes.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.state.send_if_modified(|state| {
            let lives = !matches!(state, ClientState::Closed(_));
            if lives {
                // its runtime or worker has ended
                *state = ClientState::Closed(None);
            }
            lives
        });
        self.0.ended.cancel();
    }
}

/// Starts the task: where `link` was made, or else on one of the workers, if there are any.
fn spawn<T: Transports, H: Handler>(
    task: Task<T, H>,
    link: Option<(T::Link, LinkConfig)>,
    workers: Option<Workers>,
) -> Client<T> {
    let (shared, transports) = (task.shared.clone(), task.transports.clone());
    let ended = Ended(shared.clone());
    let here = link.is_some();
    let started = shared.clone();
    let start = move || {
        let life = async move {
            let _ended = ended;
            task.run(link).await;
        };
        // nobody else sets it
        let _ = started.task.set(worker::spawn(life));
    };
    match &workers {
        Some(workers) if !here => workers.run_on_next(start),
        _ => start(),
    }
    Client {
        shared,
        _workers: workers,
        transports,
    }
}
