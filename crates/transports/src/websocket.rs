//! WebSocket (RFC 6455) over any stream transport: `ws://host:port/path`, `wss://`, and
//! `?websocket=true` elsewhere. One message is one message there, text or binary.
//!
//! | File | What it does |
//! |---|---|
//! | `link.rs` | the link, and how it ends |
//! | `input.rs`, `output.rs` | frames to messages, and messages to frames |
//! | `close.rs` | codes and reasons |
//! | `server.rs`, `client.rs` | the handshake, on hyper |
//! | `deflate.rs`, `origin.rs` | what is agreed on in it, and whose pages may connect |
//! | `carrier.rs` | the streams that it can lie over |
//! | `waiting.rs` | a link before its handshake |

mod carrier;
mod client;
mod close;
mod deflate;
mod input;
mod link;
mod origin;
mod output;
mod server;
mod waiting;

use bytes::Bytes;
use http::HeaderMap;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use network_system_core::config::LinkConfig;
use network_system_core::{Address, Error, ErrorKind, Result};

pub use carrier::Carrier;
pub use link::WebSocketLink;
pub use server::{Refused, Upgrading, is_upgrade, upgrade};
pub use waiting::{Accepting, Waiting};

use crate::schemes::AnyLink;

/// Whether this build has WebSocket.
pub(crate) const IS_THERE: bool = true;

/// A message link over WebSocket, over any transport.
pub type AnyWebSocket = WebSocketLink<Carrier>;

/// Checks what a listener on `address` needs, and keeps it.
pub(crate) fn accepting(address: &Address, config: &LinkConfig) -> Result<Accepting> {
    check(address, config)?;
    Ok(Accepting::new(address, config))
}

/// Does a client's handshake over a link to `address`.
pub(crate) async fn connect(
    below: AnyLink,
    address: &Address,
    config: &LinkConfig,
) -> Result<AnyWebSocket> {
    let (io, mut info) = Carrier::of(below).ok_or_else(|| no_stream(address))?;
    info.scheme = scheme(info.scheme, info.tls.is_some());
    client::connect(io, info, address, config).await
}

/// Checks that the settings go together.
pub(crate) fn check(address: &Address, config: &LinkConfig) -> Result<()> {
    let wrong = |why| {
        Error::new(ErrorKind::InvalidArgument, "use WebSocket at")
            .peer(address)
            .because(why)
    };
    if config.session.envelope && !config.websocket.subprotocols.is_empty() {
        return Err(wrong("the envelope is a subprotocol itself")
            .advice("leave out the subprotocols, or the envelope"));
    }
    if address.query("framing").is_some() {
        return Err(wrong("it has a framing of its own").advice("leave out the framing"));
    }
    Ok(())
}

fn no_stream(address: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Internal, "use WebSocket at")
        .peer(address)
        .because("there is no stream below")
}

/// The scheme of a link over one of another.
fn scheme(below: &'static str, tls: bool) -> &'static str {
    match (below, tls) {
        ("tcp", false) => "ws",
        ("tcp" | "tls", _) => "wss",
        (below, _) => below,
    }
}

/// The stream that was given to hyper, and what was read from it too early.
fn inner(upgraded: Upgraded) -> Result<(Carrier, Bytes)> {
    match upgraded.downcast::<TokioIo<Carrier>>() {
        Ok(parts) => Ok((parts.io.into_inner(), parts.read_buf)),
        Err(_) => Err(no_stream("hyper")),
    }
}

/// The fields of a head that are text.
fn fields(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.as_str().to_owned(), value)
    };
    headers.iter().map(text).collect()
}
