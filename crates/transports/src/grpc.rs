//! gRPC: services of tonic beside HTTP on the same port, and sessions over a bidirectional stream:
//! `grpc://host:port`, and `grpcs://host:port` with TLS. tonic does the protocol.
//!
//! | File | What it does |
//! |---|---|
//! | `service.rs` | what answers requests: the session service, health, reflection, the user's |
//! | `link.rs` | one session: a stream of messages in each direction |
//! | `client.rs` | connecting to the session service |
//! | `generated/` | made of `proto/` by a test, which also finds it out of date |

mod client;
#[rustfmt::skip]
#[allow(missing_docs, clippy::all, clippy::pedantic)]
#[path = "grpc/generated/network_system.v1.rs"]
mod generated;
mod link;
mod service;

use network_system_core::ServerBuilder;

use crate::schemes::Schemes;
pub(crate) use client::connect;
pub use link::GrpcLink;
pub use service::Grpc;
pub(crate) use service::{GrpcService, is_grpc};

/// The description of the session service, as reflection shows it: a `FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!("grpc/generated/session.bin");

/// Metadata of a request that says that its messages have the envelope.
const ENVELOPE: &str = "network-system-envelope";

/// What gRPC adds to the builder of a server.
pub trait ServeGrpc: Sized {
    /// Answers gRPC requests with `grpc`, on every address where HTTP/2 is spoken, such as
    /// `http://0.0.0.0:8080`. Without a call of this only `grpc://` addresses have gRPC, with what
    /// [`Grpc::new`] has.
    #[must_use]
    fn grpc(self, grpc: Grpc) -> Self;
}

impl<H> ServeGrpc for ServerBuilder<Schemes, H> {
    fn grpc(mut self, grpc: Grpc) -> Self {
        self.transports_mut().http.set_grpc(grpc);
        self
    }
}
