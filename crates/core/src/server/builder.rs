//! How a server is configured: [`ServerBuilder`].

mod protection;

use std::time::Duration;

use network_system_wire::Framing;

use super::Server;
use super::signals::Signals;
use crate::close::CloseReason;
use crate::config::{
    Heartbeat, HttpConfig, OutboxConfig, OverflowPolicy, Pipeline, ServerConfig, TlsServerConfig,
    WebSocketConfig, WorkerConfig,
};
use crate::error::{Error, Result};
use crate::handler::{Events, Handler, Ignore, Others, Outcome};
use crate::link::{Sockets, Transports};
use crate::message::Message;
use crate::requests::Request;
use crate::session::Session;
use crate::threads::{OnPool, ThreadPool};

/// Collects addresses, settings and event handlers; [`start`](Self::start) makes a [`Server`].
///
/// Every setting has the default that its field in [`ServerConfig`] states.
#[must_use = "a server does nothing until it is started"]
pub struct ServerBuilder<T, H> {
    pub(super) transports: T,
    pub(super) config: ServerConfig,
    pub(super) handler: H,
    pub(super) sockets: Sockets,
}

impl<T: Transports> ServerBuilder<T, Events<Ignore>> {
    /// A server over `transports` that drops every message.
    pub fn new(transports: T) -> Self {
        let handler = Events {
            message: Ignore,
            others: Others::default(),
        };
        Self {
            transports,
            config: ServerConfig::default(),
            handler,
            sockets: Sockets::default(),
        }
    }
}

impl<T: Transports, M> ServerBuilder<T, Events<M>> {
    /// Runs `f` for each new connection. It returns nothing, or a `Result` whose error refuses the
    /// connection.
    pub fn on_connect<R: Outcome>(
        mut self,
        f: impl Fn(&Session) -> R + Send + Sync + 'static,
    ) -> Self {
        self.handler.others.on_connect(f);
        self
    }

    /// Runs `f` for each message: `|session, message| async move { … }`. It returns nothing, or a
    /// `Result` whose error closes the connection.
    pub fn on_message<F, R>(self, f: F) -> ServerBuilder<T, Events<F>>
    where
        F: Fn(Session, Message) -> R + Send + Sync + 'static,
        R: Future<Output: Outcome> + Send + 'static,
    {
        let handler = Events {
            message: f,
            others: self.handler.others,
        };
        ServerBuilder {
            transports: self.transports,
            config: self.config,
            handler,
            sockets: self.sockets,
        }
    }

    /// Runs `f` for each request: `|session, request| async move { request.reply(…).await }`.
    /// Needs the [envelope](Self::envelope).
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

    /// Runs `f` for each error; without a session when accepting failed.
    pub fn on_error(
        mut self,
        f: impl Fn(Option<&Session>, &Error) + Send + Sync + 'static,
    ) -> Self {
        self.handler.others.on_error(f);
        self
    }
}

impl<T: Transports, H> ServerBuilder<T, H> {
    /// Uses `handler` in place of closures.
    pub fn handler<N: Handler>(self, handler: N) -> ServerBuilder<T, N> {
        ServerBuilder {
            transports: self.transports,
            config: self.config,
            handler,
            sockets: self.sockets,
        }
    }

    /// Runs the events, all of which have been set before, on the threads of `pool`: for handlers
    /// that compute for long. See [`OnPool`].
    pub fn thread_pool(self, pool: impl ThreadPool) -> ServerBuilder<T, OnPool<H>>
    where
        H: Handler,
    {
        ServerBuilder {
            transports: self.transports,
            config: self.config,
            handler: self.handler.on_pool(pool),
            sockets: self.sockets,
        }
    }

    /// Uses `transports` to resolve addresses.
    pub fn transports<N: Transports>(self, transports: N) -> ServerBuilder<N, H> {
        ServerBuilder {
            transports,
            config: self.config,
            handler: self.handler,
            sockets: self.sockets,
        }
    }

    /// The transports, for settings of their own.
    pub fn transports_mut(&mut self) -> &mut T {
        &mut self.transports
    }

    /// Replaces all settings; addresses given before are kept.
    pub fn config(mut self, config: ServerConfig) -> Self {
        let mut listen = std::mem::take(&mut self.config.listen);
        self.config = config;
        listen.append(&mut self.config.listen);
        self.config.listen = listen;
        self
    }

    /// Adds an address to listen on, such as `tcp://0.0.0.0:8080`. Call it once for each.
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.config.listen.push(address.into());
        self
    }

    /// Serves on `n` threads of the server's own, each with its own listeners; a connection stays
    /// on its thread. 0 (the default) serves in the caller's runtime.
    pub fn workers(mut self, n: usize) -> Self {
        self.config.workers = n;
        self
    }

    /// How these threads run.
    pub fn worker(mut self, config: WorkerConfig) -> Self {
        self.config.worker = config;
        self
    }

    /// Connections at most. Default: 10 000.
    pub fn max_connections(mut self, n: usize) -> Self {
        self.config.max_connections = n;
        self
    }

    /// Certificates and all else about TLS, for addresses such as `tls://0.0.0.0:8443`, and any with
    /// `?tls=true`. Default: no certificate, and no such address.
    pub fn tls(mut self, tls: TlsServerConfig) -> Self {
        self.config.tls = tls;
        self
    }

    /// Limits of HTTP, for addresses such as `http://0.0.0.0:8080`.
    pub fn http_config(mut self, config: HttpConfig) -> Self {
        self.config.http = config;
        self
    }

    /// All about WebSocket, for addresses such as `ws://0.0.0.0:8080`. Default: pages of the same host
    /// and programs may connect, without compression.
    pub fn websocket(mut self, websocket: WebSocketConfig) -> Self {
        self.config.websocket = websocket;
        self
    }

    /// How long a new connection may take for its handshake. Default: 10 s.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.config.handshake_timeout = timeout;
        self
    }

    /// The time over which a shutdown spreads the ends of its sessions, where there are many; see
    /// [`ServerConfig::drain_window`]. Default: 2 s.
    pub fn drain_window(mut self, window: Duration) -> Self {
        self.config.drain_window = window;
        self
    }

    /// Listens on these sockets, which another process had before, where they are those of an address
    /// to listen on; the other addresses are bound as ever. A socket that is no address's is closed,
    /// with a warning. Default: none.
    pub fn inherit(mut self, sockets: Sockets) -> Self {
        self.sockets = sockets;
        self
    }

    /// How messages are delimited. Default: `u32` big-endian length.
    pub fn framing(mut self, framing: Framing) -> Self {
        self.config.session.framing = framing;
        self
    }

    /// Gives every message the envelope header: requests, heartbeats, drain announcements. The
    /// peers must do the same. Default: no.
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

    /// Bytes at which a session's outbox is full, and at which it has room again. Default: 1 MiB
    /// and 256 KiB.
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

    /// Closes sessions without traffic for this long; `None` never does. Default: 5 minutes.
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.config.session.idle_timeout = timeout.into();
        self
    }

    /// Probes silent peers at this interval, and gives up after `missed` unanswered probes.
    /// Default: 30 s, 2.
    pub fn heartbeat(mut self, interval: impl Into<Option<Duration>>, missed: u32) -> Self {
        self.config.session.heartbeat = Heartbeat {
            interval: interval.into(),
            missed,
        };
        self
    }

    /// How long a request to a peer may take when the call gives no deadline. Default: 30 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.config.session.request_timeout = timeout;
        self
    }

    /// Turns TCP keepalive probes on or off. Default: on.
    pub fn tcp_keepalive(mut self, on: bool) -> Self {
        self.config.socket.keepalive = on;
        self
    }

    /// Starts to listen and serve.
    ///
    /// # Errors
    /// [`BindFailed`](crate::ErrorKind::BindFailed) names the address that could not be taken,
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) the setting that makes no sense.
    pub async fn start(self) -> Result<Server<T>>
    where
        H: Handler,
    {
        Server::start(self).await
    }

    /// Serves until the process is interrupted (Ctrl-C, or `SIGTERM` on Unix), then lets sessions
    /// finish for at most [`shutdown_timeout`](ServerConfig::shutdown_timeout). A second signal cuts
    /// off what has not finished by then.
    ///
    /// # Errors
    /// As [`start`](Self::start), or the system does not let the process watch signals.
    pub async fn run(self) -> Result<()>
    where
        H: Handler,
    {
        let timeout = self.config.shutdown_timeout;
        // before the start: from the first connection on, a signal means to finish in good order
        let mut signals = Signals::new()?;
        let server = self.start().await?;
        signals.next().await;
        server.drain(timeout, signals.next()).await;
        Ok(())
    }

    /// As [`run`](Self::run), for threads outside of any async runtime.
    ///
    /// # Errors
    /// As `run`.
    pub fn run_blocking(mut self) -> Result<()>
    where
        H: Handler,
    {
        self.config.workers = self.config.workers.max(1);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::from_io("start a runtime", error))?;
        runtime.block_on(self.run())
    }
}
