//! Settings of WebSocket: [`WebSocketConfig`], and of its compression, [`Deflate`].

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::check;
use crate::error::Result;

/// The subprotocol with which both sides say that messages carry the
/// [envelope](super::SessionConfig::envelope).
pub const ENVELOPE_SUBPROTOCOL: &str = "envelope.network-system";

/// Settings of WebSocket (RFC 6455), for addresses such as `ws://0.0.0.0:8080` and
/// `wss://example.org/chat`, and for any with `?websocket=true`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WebSocketConfig {
    /// Subprotocols, the preferred one first: a client offers them, a server takes the first of its
    /// own that the client has offered, or none. Not together with the envelope, which is one itself.
    /// Default: none.
    pub subprotocols: Vec<String>,
    /// Whose pages may connect to a server: `"same"` is a page from the host and port that the request
    /// itself goes to, `"*"` any, else an origin such as `"https://example.org"`. A request without
    /// an origin, as programs send it, is not asked. Default: `["same"]`.
    pub origins: Vec<String>,
    /// What a client sends along with its request, such as `Authorization` or `Origin`. Default:
    /// nothing.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Largest head of a request or an answer in bytes, from 8192 on. Default: 16 KiB.
    pub max_header_bytes: usize,
    /// Fields in a head at most. Default: 100.
    pub max_headers: usize,
    /// Compression (permessage-deflate, RFC 7692), where the peer has it too. Default: none, since it
    /// costs a connection that uses it about 300 KiB, and a processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deflate: Option<Deflate>,
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self {
            subprotocols: Vec::new(),
            origins: vec!["same".to_owned()],
            headers: BTreeMap::new(),
            max_header_bytes: 16 * 1024,
            max_headers: 100,
            deflate: None,
        }
    }
}

impl fmt::Debug for WebSocketConfig {
    /// Without the values of headers, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&String> = self.headers.keys().collect();
        f.debug_struct("WebSocketConfig")
            .field("subprotocols", &self.subprotocols)
            .field("origins", &self.origins)
            .field("headers", &headers)
            .field("max_header_bytes", &self.max_header_bytes)
            .field("max_headers", &self.max_headers)
            .field("deflate", &self.deflate)
            .finish()
    }
}

/// How messages are compressed with permessage-deflate. A server takes the first of a client's offers
/// that is within these settings, and narrows it to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Deflate {
    /// From 1, the fastest, to 9, the smallest. Default: 6.
    pub level: u32,
    /// Messages smaller than this are sent as they are. Default: 64 bytes.
    pub threshold: usize,
    /// The largest window of the server's compression, as a power of two from 9 to 15. Default: 15.
    pub server_window_bits: u8,
    /// The largest window of the client's. A server with less than 15 does not compress with clients
    /// that cannot be told. Default: 15.
    pub client_window_bits: u8,
    /// Whether the server's messages refer to earlier ones: smaller, for memory that stays. Default:
    /// yes.
    pub server_context_takeover: bool,
    /// Whether the client's do. Default: yes.
    pub client_context_takeover: bool,
}

impl Default for Deflate {
    fn default() -> Self {
        Self {
            level: 6,
            threshold: 64,
            server_window_bits: 15,
            client_window_bits: 15,
            server_context_takeover: true,
            client_context_takeover: true,
        }
    }
}

impl WebSocketConfig {
    /// Subprotocols, the preferred one first.
    #[must_use]
    pub fn subprotocols<P: Into<String>>(mut self, names: impl IntoIterator<Item = P>) -> Self {
        self.subprotocols = names.into_iter().map(Into::into).collect();
        self
    }

    /// Whose pages may connect, in place of those of the same host.
    #[must_use]
    pub fn origins<O: Into<String>>(mut self, origins: impl IntoIterator<Item = O>) -> Self {
        self.origins = origins.into_iter().map(Into::into).collect();
        self
    }

    /// What a client sends along with its request.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Compresses.
    #[must_use]
    pub fn deflate(mut self, deflate: Deflate) -> Self {
        self.deflate = Some(deflate);
        self
    }

    /// Checks that the settings make sense; `path` is where they stand, such as `websocket.`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) names the key.
    pub fn validate(&self, path: &str) -> Result<()> {
        check(
            self.subprotocols.iter().all(|name| is_token(name)),
            path,
            "subprotocols",
            "must be names without blanks, commas and other separators",
        )?;
        check(
            self.max_header_bytes >= 8192,
            path,
            "max_header_bytes",
            "must be at least 8192",
        )?;
        check(
            self.max_headers > 0,
            path,
            "max_headers",
            "must be at least 1",
        )?;
        let known = |origin: &String| origin == "same" || origin == "*" || origin.contains("://");
        check(
            self.origins.iter().all(known),
            path,
            "origins",
            "must be \"same\", \"*\", or origins such as \"https://example.org\"",
        )?;
        check(
            self.headers.keys().all(|name| is_token(name)),
            path,
            "headers",
            "must have names as HTTP has them",
        )?;
        let Some(deflate) = &self.deflate else {
            return Ok(());
        };
        let bits = |n: u8| (9..=15).contains(&n);
        for (fits, key, problem) in [
            (
                (1..=9).contains(&deflate.level),
                "deflate.level",
                "must be from 1 to 9",
            ),
            (
                bits(deflate.server_window_bits),
                "deflate.server_window_bits",
                "must be from 9 to 15",
            ),
            (
                bits(deflate.client_window_bits),
                "deflate.client_window_bits",
                "must be from 9 to 15",
            ),
        ] {
            check(fits, path, key, problem)?;
        }
        Ok(())
    }
}

/// Whether HTTP calls it a token.
fn is_token(name: &str) -> bool {
    let other = |byte: u8| b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || other(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_make_no_sense_are_named() {
        let deflate = |change: fn(&mut Deflate)| {
            let mut deflate = Deflate::default();
            change(&mut deflate);
            WebSocketConfig::default().deflate(deflate)
        };
        let small = WebSocketConfig {
            max_header_bytes: 100,
            ..WebSocketConfig::default()
        };
        for (config, key) in [
            (
                WebSocketConfig::default().subprotocols(["a b"]),
                "subprotocols",
            ),
            (
                WebSocketConfig::default().origins(["example.org"]),
                "origins",
            ),
            (WebSocketConfig::default().header("a:b", "c"), "headers"),
            (small, "max_header_bytes"),
            (deflate(|d| d.level = 10), "deflate.level"),
            (deflate(|d| d.server_window_bits = 8), "server_window_bits"),
            (deflate(|d| d.client_window_bits = 16), "client_window_bits"),
        ] {
            let error = config.validate("websocket.").unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
        WebSocketConfig::default().validate("websocket.").unwrap();
    }

    #[test]
    fn values_of_headers_are_not_shown() {
        let config = WebSocketConfig::default().header("authorization", "secret");
        let shown = format!("{config:?}");
        assert!(shown.contains("authorization") && !shown.contains("secret"));
    }
}
