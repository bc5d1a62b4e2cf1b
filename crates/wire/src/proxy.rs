//! The PROXY protocol, versions 1 and 2: what a proxy says in front of everything else about the
//! client that it speaks for. See the specification in HAProxy's `doc/proxy-protocol.txt`.
//!
//! ```
//! use network_system_wire::proxy::{Parsed, Whom, parse};
//!
//! let stream = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\nhello";
//! let Parsed::Header(header) = parse(stream)? else { unreachable!("it is whole") };
//! let Whom::Client(client) = header.whom else { unreachable!("it is named") };
//! assert_eq!(client.source.to_string(), "192.0.2.7:56324");
//! assert_eq!(&stream[header.length..], b"hello");
//! # Ok::<(), network_system_wire::WireError>(())
//! ```

mod text;
mod v2;

use std::net::SocketAddr;

use crate::error::WireError;

/// Largest header that is taken, in bytes. Version 1 needs 107, version 2 without extensions 232;
/// extensions with certificate names or cloud endpoints need some hundred more.
pub const MAX_HEADER: usize = 4096;

/// What [`parse`] makes of the first bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The header is not whole. It has at least so many bytes, all of them before anything else: a
    /// reader that reads no further reads nothing that is not the header's.
    Needed(usize),
    /// It is whole.
    Header(Header),
}

/// What a proxy said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its bytes; what follows is the client's.
    pub length: usize,
    /// For whom the proxy speaks.
    pub whom: Whom,
}

/// For whom a proxy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// A client.
    Client(Client),
    /// A client that it does not know, or whose address is none of IP.
    Unknown,
    /// Itself: a health check (version 2 only).
    Itself,
}

/// The connection of a client to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Where the client is.
    pub source: SocketAddr,
    /// Where the proxy was reached.
    pub destination: SocketAddr,
}

/// Reads a header of either version from the first bytes of a connection.
///
/// Both versions are taken strictly: one spelling of each part, no datagrams, a length of at most
/// [`MAX_HEADER`], and where version 2 has a checksum, it must be right. Other extensions are
/// skipped.
///
/// # Errors
/// [`WireError::Invalid`] as soon as the bytes cannot become a header,
/// [`WireError::MessageTooLarge`] for one above the limit.
pub fn parse(input: &[u8]) -> Result<Parsed, WireError> {
    if v2::SIGNATURE.starts_with(input) || input.starts_with(v2::SIGNATURE) {
        // also for no bytes at all: no header is shorter than this many
        let shortest = text::SHORTEST.min(v2::FIXED);
        return match input.is_empty() {
            true => Ok(Parsed::Needed(shortest)),
            false => v2::parse(input),
        };
    }
    text::parse(input)
}

#[cold]
fn invalid(what: &'static str) -> WireError {
    WireError::Invalid(what.into())
}

#[cfg(test)]
mod tests;
