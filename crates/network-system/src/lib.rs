//! Asynchronous, message-oriented networking: one [`Handler`], served unchanged over every
//! transport, with every limit on by default.
//!
//! A **server** with closures:
//!
//! ```no_run
//! use network_system::Server;
//!
//! # async fn run() -> network_system::Result<()> {
//! let server = Server::builder()
//!     .listen("tcp://0.0.0.0:8080")
//!     .on_message(|session, message| async move { session.send(message).await })
//!     .start()
//!     .await?;
//! println!("{}", server.statistics());
//! server.shutdown(std::time::Duration::from_secs(5)).await;
//! # Ok(())
//! # }
//! ```
//!
//! A **client** that keeps its connection:
//!
//! ```no_run
//! use network_system::Client;
//!
//! # async fn run() -> network_system::Result<()> {
//! let client = Client::builder("tcp://127.0.0.1:8080")
//!     .on_message(|_, message| async move { println!("{message:?}") })
//!     .connect()
//!     .await?;
//! client.send("hello").await?;
//! # Ok(())
//! # }
//! ```
//!
//! The **coroutine level**, where you own the connection:
//!
//! ```no_run
//! # async fn run() -> network_system::Result<()> {
//! let mut connection = network_system::connect("tcp://127.0.0.1:8080").await?;
//! connection.send("hello").await?;
//! while let Some(message) = connection.receive().await? {
//!     connection.send(message).await?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Addresses are URLs: `tcp://host:port`, `tls://host:port`, `ws://host:port/path`, `wss://`, `unix:///path`
//! and `memory://name`. Their query changes settings for one address, such as
//! `tcp://0.0.0.0:8080?framing=lines`.
//!
//! **TLS** needs a certificate on the server; a client trusts the system's authorities, or the one that
//! it is given:
//!
//! ```no_run
//! use network_system::config::{TlsClientConfig, TlsServerConfig};
//! use network_system::{Client, Server};
//!
//! # async fn run() -> network_system::Result<()> {
//! let server = Server::builder()
//!     .listen("tls://0.0.0.0:8443")
//!     .tls(TlsServerConfig::new("server.pem", "server.key"))
//!     .on_message(|session, message| async move { session.send(message).await })
//!     .start()
//!     .await?;
//! let client = Client::builder("tls://localhost:8443")
//!     .tls(TlsClientConfig::default().ca("ca.pem"))
//!     .connect()
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! Who the peer is stands in [`Session::info`]: [`TlsInfo`]. Without the feature `tls` (on by default)
//! all that is not there.

use std::sync::LazyLock;

use network_system_core::config::{ClientConfig, ServerConfig};

pub use network_system_core::Pipelines;
pub use network_system_core::config::{Backoff, OverflowPolicy};
pub use network_system_core::wire::Framing;
pub use network_system_core::{
    Address, AddressError, AddressStatistics, Balance, Balancer, BalancerConfig, Bound,
    BreakerConfig, BreakerPermit, BreakerState, BreakerStatistics, BroadcastReport, Choice,
    CircuitBreaker, ClientState, CloseReason, DrainReport, Encoding, Endpoint, Error, ErrorKind,
    Events, Goodbye, Handler, Host, HttpInfo, HttpStatistics, Ignore, InQueue, Inbox, IntoMessage,
    Introduced, Latency, Link, LinkInfo, Listener, ListeningSocket, Memory, Message, MessageBatch,
    MessageKind, MessageRef, NoiseInfo, Observer, OnMessage, OutQueue, Outcome, Outgoing,
    PeerCertificate, Piped, PipelineInfo, PoolConfig, PoolObserver, PoolStatistics, ProxyInfo,
    ReadyPipeline, Request, RequestPoolConfig, RequestPoolObserver, RequestPoolStatistics, Result,
    RetryBudget, Sending, Sent, ServerState, Session, SessionStatistics, Sessions, Side, Sink,
    Sockets, Source, Statistics, StreamLink, TlsInfo, TransportStatistics, Transports, Workers,
    ZERO_COPY, config, noise_key, read_proxy_header, threads, wire,
};
#[cfg(feature = "grpc")]
pub use network_system_transports::grpc;
#[cfg(feature = "http")]
pub use network_system_transports::http;
#[cfg(feature = "websocket")]
pub use network_system_transports::websocket;
pub use network_system_transports::{AnyLink, Schemes, restart};

/// What most programs need.
pub mod prelude {
    pub use crate::{
        Backoff, Client, CloseReason, Error, ErrorKind, Framing, Handler, Message, MessageBatch,
        MessageRef, OverflowPolicy, Request, Result, Server, Session,
    };

    #[cfg(feature = "grpc")]
    pub use crate::grpc::ServeGrpc;
    #[cfg(feature = "http")]
    pub use crate::http::ServeHttp;
}

/// A server over every transport of this build; see [`network_system_core::Server`].
pub type Server = network_system_core::Server<Schemes>;

/// What makes a [`Server`]; see [`network_system_core::ServerBuilder`].
pub type ServerBuilder<H> = network_system_core::ServerBuilder<Schemes, H>;

/// A client over every transport of this build; see [`network_system_core::Client`].
pub type Client = network_system_core::Client<Schemes>;

/// What makes a [`Client`]; see [`network_system_core::ClientBuilder`].
pub type ClientBuilder<H> = network_system_core::ClientBuilder<Schemes, H>;

/// A connection that you drive; see [`network_system_core::Connection`].
pub type Connection = network_system_core::Connection<AnyLink>;

/// The receiving half of a connection; see [`network_system_core::ConnectionReceiver`].
pub type ConnectionReceiver = network_system_core::ConnectionReceiver<AnyLink>;

/// The sending half of a connection; see [`network_system_core::ConnectionSender`].
pub type ConnectionSender = network_system_core::ConnectionSender<AnyLink>;

/// Accepts connections that you drive; see [`network_system_core::ConnectionListener`].
pub type ConnectionListener = network_system_core::ConnectionListener<Schemes>;

/// Connections that are lent; see [`network_system_core::ConnectionPool`].
pub type ConnectionPool = network_system_core::ConnectionPool<Schemes>;

/// Requests over a few connections; see [`network_system_core::RequestPool`].
pub type RequestPool = network_system_core::RequestPool<Schemes>;

/// A connection that is lent; see [`network_system_core::PooledConnection`].
pub type PooledConnection = network_system_core::PooledConnection<Schemes>;

/// What connections at the coroutine level share: what TLS has read, and the sessions that can be
/// resumed.
static SCHEMES: LazyLock<Schemes> = LazyLock::new(Schemes::default);

/// Opens a connection that you drive.
///
/// # Errors
/// As [`network_system_core::Connection::open`].
pub async fn connect(address: &str) -> Result<Connection> {
    Connection::open(&*SCHEMES, address).await
}

/// As [`connect`], with settings: those of the connect, the session, the socket and TLS.
///
/// # Errors
/// As `connect`.
pub async fn connect_with(address: &str, config: &ClientConfig) -> Result<Connection> {
    Connection::open_with(&*SCHEMES, address, config).await
}

/// Listens for connections that you drive.
///
/// # Errors
/// As [`network_system_core::ConnectionListener::bind`].
pub async fn listen(address: &str) -> Result<ConnectionListener> {
    ConnectionListener::bind(&*SCHEMES, address).await
}

/// As [`listen`], with settings: those of the session, the socket and TLS, and the deadline of
/// handshakes.
///
/// # Errors
/// As `listen`.
pub async fn listen_with(address: &str, config: &ServerConfig) -> Result<ConnectionListener> {
    ConnectionListener::bind_with(&*SCHEMES, address, config).await
}

/// The examples of the README, compiled as doc tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;
