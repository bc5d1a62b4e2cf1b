//! The seam between the engine and transports: [`Source`], [`Sink`], [`Link`], [`Listener`] and
//! [`Transports`].

mod agreed;
mod http;
mod identity;
mod sockets;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::address::Address;
use crate::close::CloseReason;
use crate::config::LinkConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::in_queue::InQueue;
use crate::out_queue::{Encoding, OutQueue};
use crate::protection::Introduced;
use crate::server::Host;
pub use agreed::{NoiseInfo, PipelineInfo};
pub use http::{Goodbye, HttpInfo};
pub use identity::{PeerCertificate, TlsInfo};
pub use sockets::{ListeningSocket, Sockets};

/// Where messages come from.
pub trait Source {
    /// Waits for input and adds it to the queue, from which everything has been taken: `true` when
    /// there may be more messages in it, `false` at the end. Called by one connection with the same
    /// queue all its life.
    ///
    /// # Errors
    /// The transport failed.
    fn poll_fill(&mut self, cx: &mut Context<'_>, queue: &mut InQueue) -> Poll<Result<bool>>;

    /// Whether it is certain that [`poll_fill`](Self::poll_fill) would wait now, and that the task
    /// would be woken: then that call is saved, once per batch. `false` is always right.
    fn would_wait(&self, cx: &Context<'_>) -> bool {
        let _ = cx;
        false
    }
}

/// Where whole messages go to.
pub trait Sink {
    /// How messages are queued, in both directions. The same for its whole life.
    fn encoding(&self) -> Encoding;

    /// Writes as much of the queue as the transport takes, in as few operations as it can; ready
    /// when the queue is empty. Returns how many messages and bytes went out in this call, also
    /// when it is not ready.
    fn poll_send(&mut self, cx: &mut Context<'_>, queue: &mut OutQueue)
    -> (Sent, Poll<Result<()>>);

    /// Says in good order that nothing more will be sent. Ready at once when said before.
    ///
    /// # Errors
    /// The transport failed.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>>;
}

/// What one [`Sink::poll_send`] wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Whole messages.
    pub messages: u64,
    /// Bytes, framing included.
    pub bytes: u64,
}

/// One connection of a transport: a source and a sink, owned by one task.
pub trait Link: Source + Sink + Send + Unpin + 'static {
    /// What is known about it; final when it [is open](Self::is_open).
    fn info(&self) -> &LinkInfo;

    /// Whether messages can move at once. A link that has been accepted may need a handshake before,
    /// which [`open`](Self::open) does: accepting must not wait for the peer.
    fn is_open(&self) -> bool {
        true
    }

    /// Reads what the proxy that opened this link says about the client, before anything else: from
    /// then on the client is the peer, as [`read_proxy_header`](crate::read_proxy_header) does it.
    /// The caller sets the deadline, and has checked that the proxy is to be trusted.
    ///
    /// # Errors
    /// What was wrong with it. [`ErrorKind::InvalidArgument`] where the transport has no such thing,
    /// which is the default.
    fn learn_client(&mut self) -> impl Future<Output = Result<Introduced>> + Send {
        let unknown = Error::new(ErrorKind::InvalidArgument, "read the PROXY header of")
            .peer(&self.info().peer)
            .because("this transport does not have the PROXY protocol");
        async { Err(unknown) }
    }

    /// Whether the transport can ask the peer itself whether it is there, by
    /// [`poll_ping`](Self::poll_ping); otherwise only the envelope can.
    fn pings(&self) -> bool {
        false
    }

    /// Asks the peer whether it is there. What it answers shows as a
    /// [`poll_fill`](Source::poll_fill) that brings nothing. Never waits: what cannot be written now
    /// is written with what follows.
    ///
    /// # Errors
    /// The transport failed.
    fn poll_ping(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let _ = cx;
        Poll::Ready(Ok(()))
    }

    /// Says why the link will be [closed](Sink::poll_close), for transports that tell the peer;
    /// `code` is what the session asked for.
    fn farewell(&mut self, reason: &CloseReason, code: Option<u16>) {
        let _ = (reason, code);
    }

    /// What the peer has said when it closed, where the transport has words for it.
    fn goodbye(&self) -> Option<&Goodbye> {
        None
    }

    /// Does the handshake of a link that has been accepted. The caller sets the deadline.
    ///
    /// # Errors
    /// What was wrong with the peer's part in it.
    fn open(self) -> impl Future<Output = Result<Self>> + Send
    where
        Self: Sized,
    {
        async { Ok(self) }
    }

    /// Whether this is a connection of another protocol, such as HTTP: no session itself, but there may
    /// be some on it. Then nothing else of it is used but [`info`](Self::info) and
    /// [`serve`](Self::serve). Asked when it is open.
    fn is_guest(&self) -> bool {
        false
    }

    /// Serves such a connection to its end, in its own task. [`Host`] is what the server gives it, and
    /// takes the sessions that begin on it. When a shutdown is over, or the server is dropped, this is
    /// dropped, too.
    fn serve(self, host: Host<Self>) -> impl Future<Output = CloseReason> + Send
    where
        Self: Sized,
    {
        drop(host);
        async { CloseReason::Requested("nothing to serve".to_owned()) }
    }
}

/// What a transport knows about a link.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LinkInfo {
    /// The scheme, such as `tcp`.
    pub scheme: &'static str,
    /// The other end.
    pub peer: Endpoint,
    /// This end.
    pub local: Endpoint,
    /// Largest message in bytes.
    pub max_message: usize,
    /// Whether everything sent arrives as long as the connection lives.
    pub reliable: bool,
    /// Whether messages arrive in the order in which they were sent.
    pub ordered: bool,
    /// Whether messages carry the envelope header.
    pub envelope: bool,
    /// What was agreed on and who the peer is, where TLS is used.
    pub tls: Option<Arc<TlsInfo>>,
    /// What was agreed on and who the peer is, where messages go through a pipeline.
    pub pipeline: Option<Arc<PipelineInfo>>,
    /// The request that it began with, on transports over HTTP.
    pub http: Option<Arc<HttpInfo>>,
    /// Through which proxy the peer has come, where that has said so in the PROXY protocol.
    pub proxy: Option<Arc<ProxyInfo>>,
}

/// The proxy that a client has come through.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProxyInfo {
    /// Where the proxy has connected from.
    pub proxy: Endpoint,
    /// Where the client has reached the proxy.
    pub destination: SocketAddr,
}

impl LinkInfo {
    /// The information of a reliable, ordered link.
    #[must_use]
    pub fn new(scheme: &'static str, peer: Endpoint, local: Endpoint, config: &LinkConfig) -> Self {
        Self {
            scheme,
            peer,
            local,
            max_message: config.session.max_message,
            reliable: true,
            ordered: true,
            envelope: config.session.envelope,
            tls: None,
            proxy: None,
            http: None,
            pipeline: None,
        }
    }
}

/// One end of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Endpoint {
    /// An IP address and port.
    Ip(SocketAddr),
    /// A Unix socket; most clients have no path.
    Unix(Option<PathBuf>),
    /// A name inside this process.
    Memory(String),
    /// Something that a transport of the user's names itself.
    Other(String),
}

impl Endpoint {
    /// The IP address, where there is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            _ => None,
        }
    }

    /// The port, where there is one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Ip(address) => Some(address.port()),
            _ => None,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => write!(f, "{address}"),
            Self::Unix(Some(path)) => write!(f, "{}", path.display()),
            Self::Unix(None) => f.write_str("(unnamed)"),
            Self::Memory(name) | Self::Other(name) => f.write_str(name),
        }
    }
}

/// Accepts links; lives in the runtime of the worker that it was [started](Bound::start) in.
pub trait Listener: Send + 'static {
    /// The links that it accepts.
    type Link: Link;

    /// The next link. Cancel-safe.
    ///
    /// # Errors
    /// What the system said; the engine backs off and calls again.
    fn accept(&mut self) -> impl Future<Output = Result<Self::Link>> + Send;
}

/// An address that has been taken, before any worker accepts from it.
pub trait Bound: Send + 'static {
    /// What it becomes in a worker.
    type Listener: Listener;

    /// The address with the real port.
    fn local(&self) -> &Address;

    /// Starts to accept, in the current runtime.
    ///
    /// # Errors
    /// The system does not let the runtime watch the socket.
    fn start(self) -> Result<Self::Listener>;
}

/// Opens links by the scheme of an address.
pub trait Transports: Clone + Send + Sync + Default + 'static {
    /// Every link that these transports open.
    type Link: Link;
    /// Every address that they take.
    type Bound: Bound<Listener: Listener<Link = Self::Link>>;

    /// Takes `address` for `workers` listeners that share its connections; more where more sockets
    /// were [given](LinkConfig::sockets), of which none may be left alone.
    ///
    /// # Errors
    /// [`ErrorKind::BindFailed`](crate::ErrorKind::BindFailed) names the address;
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) when it makes no sense.
    fn bind(
        &self,
        address: &Address,
        config: &LinkConfig,
        workers: usize,
    ) -> impl Future<Output = Result<Vec<Self::Bound>>> + Send;

    /// Connects to `address`. The caller sets the deadline.
    ///
    /// # Errors
    /// Why no connection could be made.
    fn connect(
        &self,
        address: &Address,
        config: &LinkConfig,
    ) -> impl Future<Output = Result<Self::Link>> + Send;

    /// Reads again what was read from files, such as certificates, for the addresses that were bound
    /// and connected to so far. Connections made from then on use it; what cannot be used leaves the
    /// one before in use.
    ///
    /// # Errors
    /// What cannot be used, and why. The rest is in use.
    fn reload(&self) -> Result<()> {
        Ok(())
    }
}
