//! The connection and session engine of network-system.
//!
//! Most users depend on the crate `network-system`, which adds transports to what is here. This
//! crate knows no socket: it moves messages over anything that implements [`Link`].

pub mod config;

mod address;
mod attributes;
mod batch;
mod buffers;
mod client;
mod clock;
mod close;
mod connection;
mod contain;
mod driver;
mod envelope;
mod error;
mod handler;
mod in_queue;
mod inbox;
mod lane;
mod link;
mod memory;
mod message;
mod out_queue;
mod outbox;
mod outgoing;
mod pipeline;
mod pool;
mod protection;
mod requests;
mod resilience;
mod server;
mod session;
mod statistics;
mod stream;
mod sync;
pub mod threads;
mod ticker;
mod turn;
pub mod worker;

pub use network_system_wire as wire;

pub use address::{Address, AddressError};
pub use batch::MessageBatch;
pub use client::{Client, ClientBuilder, ClientState};
pub use close::CloseReason;
pub use connection::{Connection, ConnectionListener, ConnectionReceiver, ConnectionSender};
pub use error::{Error, ErrorKind, Result, Side};
pub use handler::{Events, Handler, Ignore, OnMessage, Outcome};
pub use in_queue::InQueue;
pub use inbox::Inbox;
pub use link::{
    Bound, Endpoint, Goodbye, HttpInfo, Link, LinkInfo, Listener, ListeningSocket, NoiseInfo,
    PeerCertificate, PipelineInfo, ProxyInfo, Sent, Sink, Sockets, Source, TlsInfo, Transports,
};
pub use memory::{Memory, MemoryBound, MemoryListener};
pub use message::{IntoMessage, Message, MessageKind, MessageRef};
pub use out_queue::{Encoding, OutQueue, ZERO_COPY};
pub use outgoing::Outgoing;
pub use pipeline::{Piped, Pipelines, ReadyPipeline, noise_key};
pub use pool::{ConnectionPool, PoolConfig, PoolStatistics, PooledConnection};
pub use protection::{Introduced, read_proxy_header};
pub use requests::Request;
pub use resilience::{
    AddressStatistics, Balance, Balancer, BalancerConfig, BreakerConfig, BreakerPermit,
    BreakerState, BreakerStatistics, Choice, CircuitBreaker, RequestPool, RequestPoolConfig,
    RequestPoolObserver, RequestPoolStatistics, RetryBudget,
};
pub use server::{
    BroadcastReport, DrainReport, Host, Server, ServerBuilder, ServerState, Sessions,
};
pub use session::{Sending, Session, SessionStatistics};
pub use statistics::{
    HttpCounters, HttpRequest, HttpStatistics, Latency, Observer, PoolObserver, Statistics,
    TransportStatistics,
};
pub use stream::StreamLink;
pub use worker::Workers;
