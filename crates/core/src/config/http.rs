//! How HTTP is served: [`HttpConfig`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{check, text};
use crate::error::Result;

const KIB: usize = 1024;

/// How listeners with HTTP (`http://`, `https://`) serve it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpConfig {
    /// The path of the message gateway, such as `/messages`: what is posted there is a message to the
    /// server's handler. Default: none, and no such path.
    #[serde(with = "text::optional_path")]
    pub messages: Option<String>,
    /// The path on which WebSockets begin, such as `/ws`, or `*` for every path: each is a session with
    /// the server's handler. Default: none; on `auto://`, every path, unless a service answers requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub websocket: Option<String>,
    /// Whether gRPC is answered: the session service, whose streams are sessions with the server's handler,
    /// health and reflection. Addresses with `grpc://` always have it. Default: no; on `auto://`, yes,
    /// unless a service answers requests.
    pub grpc: bool,
    /// Compresses answers as the client accepts it (gzip, brotli, zstd), where that is worth it.
    /// Default: yes.
    pub compression: bool,
    /// Largest body of a request in bytes; a larger one is answered with 413. Default: 16 MiB.
    pub max_body: usize,
    /// Largest head of a request in bytes; a larger one is answered with 431. At least 8 KiB. Default:
    /// 64 KiB.
    pub max_header: usize,
    /// Header fields of a request at most; more are answered with 431. Default: 100.
    pub max_header_fields: usize,
    /// Requests that one HTTP/2 connection may have at once. Default: 128.
    pub max_streams: u32,
    /// How long the head of a request may take, from its first byte; that of the first request from the
    /// beginning of the connection. Default: 30 s.
    #[serde(with = "text::duration")]
    pub header_timeout: Duration,
    /// In each such time that a request waits for its body, 1 KiB must come for each second of it, or all
    /// that is left; otherwise it is answered with 408. Default: 30 s.
    #[serde(with = "text::duration")]
    pub body_timeout: Duration,
    /// A connection without a request for this long is closed. Default: 60 s.
    #[serde(with = "text::duration")]
    pub keep_alive: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            messages: None,
            websocket: None,
            grpc: false,
            compression: true,
            max_body: 16 * KIB * KIB,
            max_header: 64 * KIB,
            max_header_fields: 100,
            max_streams: 128,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(60),
        }
    }
}

impl HttpConfig {
    /// Checks that the settings make sense; `path` is where they stand, such as `http.`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) names the key.
    pub fn validate(&self, path: &str) -> Result<()> {
        let is_path = |text: &String| text.starts_with('/') && !text.contains(['?', '#', ' ']);
        check(
            self.messages.as_ref().is_none_or(is_path),
            path,
            "messages",
            "must be a path, such as \"/messages\"",
        )?;
        check(
            self.websocket
                .as_ref()
                .is_none_or(|text| text == "*" || is_path(text)),
            path,
            "websocket",
            "must be a path, such as \"/ws\", or \"*\"",
        )?;
        let head = 8 * KIB..=1024 * KIB;
        check(
            head.contains(&self.max_header),
            path,
            "max_header",
            "must be between 8 KiB and 1 MiB",
        )?;
        check(
            (1..=10_000).contains(&self.max_header_fields),
            path,
            "max_header_fields",
            "must be between 1 and 10 000",
        )?;
        check(
            (1..=10_000).contains(&self.max_streams),
            path,
            "max_streams",
            "must be between 1 and 10 000",
        )?;
        for (key, time) in [
            ("header_timeout", self.header_timeout),
            ("body_timeout", self.body_timeout),
            ("keep_alive", self.keep_alive),
        ] {
            check(!time.is_zero(), path, key, "must be larger than 0")?;
        }
        Ok(())
    }
}
