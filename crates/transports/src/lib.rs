//! The transports of network-system: a socket in, a [`Link`](network_system_core::Link) out.
//!
//! [`Schemes`] picks the transport by the scheme of an address. Most users depend on the crate
//! `network-system`, which puts it together with the engine.

pub mod auto;
#[cfg_attr(not(feature = "grpc"), path = "no_grpc.rs")]
pub mod grpc;
#[cfg_attr(not(feature = "http"), path = "no_http.rs")]
pub mod http;
#[cfg(not(all(
    feature = "grpc",
    feature = "http",
    feature = "tls",
    feature = "websocket"
)))]
mod never;
pub mod restart;
mod schemes;
pub mod tcp;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
pub mod tls;
#[cfg(unix)]
pub mod unix;
mod watched;
#[cfg_attr(not(feature = "websocket"), path = "no_websocket.rs")]
pub mod websocket;

pub use schemes::{AnyBound, AnyLink, AnyListener, Schemes};
pub use watched::Watched;
