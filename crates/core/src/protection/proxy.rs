//! What a proxy says about the client before anything else: [`read_proxy_header`].

use std::net::SocketAddr;
use std::sync::Arc;

use network_system_wire::proxy::{Parsed, Whom, parse};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::error::{Error, ErrorKind, Result};
use crate::link::{Endpoint, LinkInfo, ProxyInfo};

/// Whom a proxy has introduced in its PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Introduced {
    /// A client, which is the peer of the link now.
    Client,
    /// Somebody whose address it does not know; the proxy stays the peer.
    Nobody,
    /// Itself, for a health check; it stays the peer, and no limit is for it.
    Itself,
}

/// Reads a PROXY header (version 1 or 2), and nothing behind it, from a stream that a trusted proxy
/// has opened; from then on the client that it names is the peer in `info`. A proxy that speaks for
/// itself, as for a health check, stays the peer.
///
/// For implementations of [`Link::learn_client`](crate::Link::learn_client). The caller sets the
/// deadline.
///
/// # Errors
/// [`ErrorKind::Handshake`] when the bytes are no such header, [`ErrorKind::ConnectionClosed`] when
/// the stream ends before, or why reading failed.
pub async fn read_proxy_header<T>(io: &mut T, info: &mut LinkInfo) -> Result<Introduced>
where
    T: AsyncRead + Unpin,
{
    let failed = |error: Error| error.peer(&info.peer);
    let mut buffer = Vec::new();
    let header = loop {
        let parsed = parse(&buffer).map_err(|error| {
            let error = Error::new(ErrorKind::Handshake, READ).because(&error);
            failed(error.advice("the proxy must send it first, as with `send-proxy-v2` of HAProxy"))
        })?;
        let needed = match parsed {
            Parsed::Header(header) => break header,
            Parsed::Needed(needed) => needed,
        };
        let mut have = buffer.len();
        buffer.resize(needed, 0);
        let into = buffer.get_mut(have..).unwrap_or_default();
        let n = io
            .read(into)
            .await
            .map_err(|error| failed(Error::from_io(READ, error)))?;
        if n == 0 {
            let error = Error::new(ErrorKind::ConnectionClosed, READ);
            return Err(failed(error.because("connection closed before it")));
        }
        have += n;
        buffer.truncate(have);
    };
    Ok(match header.whom {
        Whom::Itself => Introduced::Itself,
        Whom::Unknown => Introduced::Nobody,
        Whom::Client(client) => {
            let source = Endpoint::Ip(canonical(client.source));
            info.proxy = Some(Arc::new(ProxyInfo {
                proxy: std::mem::replace(&mut info.peer, source),
                destination: canonical(client.destination),
            }));
            Introduced::Client
        }
    })
}

const READ: &str = "read the PROXY header of";

/// An IPv4 address that is written as an IPv6 one as what it is.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
