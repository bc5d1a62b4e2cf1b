//! Settings of an [`HttpClient`](super::HttpClient): [`HttpClientConfig`].

use std::sync::Arc;
use std::time::Duration;

use network_system_core::config::{Backoff, TlsClientConfig};
use network_system_core::{BreakerConfig, RetryBudget};

/// Settings of an [`HttpClient`](super::HttpClient). Change those of the default.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HttpClientConfig {
    /// TLS, for `https://`. Its protocols (ALPN) are `h2` and `http/1.1` where none are given.
    pub tls: Arc<TlsClientConfig>,
    /// How long a connection may take, name look-up and TLS included: 10 s.
    pub connect_timeout: Duration,
    /// How long a call may take until the head of its answer has come, with everything that is tried
    /// again: 30 s.
    pub timeout: Duration,
    /// How long the body of an answer may not move: 30 s.
    pub read_timeout: Duration,
    /// How long connections that nobody uses are kept: 60 s.
    pub idle_timeout: Duration,
    /// Connections that nobody uses, for each server: 10.
    pub idle_connections: usize,
    /// How often a call may be made again: 2. Only calls are that do the same twice as once (RFC 9110,
    /// section 9.2.2) and whose body is at hand; after errors that may pass, and after 502, 503 and 504.
    pub retries: u32,
    /// How long it waits before it does; an answer may ask for more time (`Retry-After`). 100 ms at
    /// first, doubled up to 2 s, at random below that.
    pub backoff: Backoff,
    /// Retries of all calls together: one for ten calls, ten at once.
    pub retry_budget: RetryBudget,
    /// When a server is left alone for a while; `None` never is. Default: as `BreakerConfig`.
    pub breaker: Option<BreakerConfig>,
    /// Redirects of one call that are followed: 10.
    pub redirects: usize,
    /// Whether the proxies are used that the environment names: yes.
    pub proxy_from_environment: bool,
    /// Whether HTTP/2 is spoken without TLS, and without asking (h2c): no.
    pub http2_without_asking: bool,
    /// Largest body of an answer that [`bytes`](super::HttpResponse::bytes) and
    /// [`text`](super::HttpResponse::text) take: 16 MiB after decompression.
    pub max_body: usize,
}

impl Default for HttpClientConfig {
    fn default() -> Self {
        Self {
            tls: Arc::default(),
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(30),
            read_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            idle_connections: 10,
            retries: 2,
            backoff: Backoff {
                initial: Duration::from_millis(100),
                max: Duration::from_secs(2),
                ..Backoff::default()
            },
            retry_budget: RetryBudget::default(),
            breaker: Some(BreakerConfig::default()),
            redirects: 10,
            proxy_from_environment: true,
            http2_without_asking: false,
            max_body: 16 * 1024 * 1024,
        }
    }
}

impl HttpClientConfig {
    pub(super) fn builder(&self) -> reqwest::ClientBuilder {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("network-system/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.connect_timeout)
            .read_timeout(self.read_timeout)
            .pool_idle_timeout(self.idle_timeout)
            .pool_max_idle_per_host(self.idle_connections)
            .redirect(reqwest::redirect::Policy::limited(self.redirects))
            .referer(false);
        if !self.proxy_from_environment {
            builder = builder.no_proxy();
        }
        if self.http2_without_asking {
            builder = builder.http2_prior_knowledge();
        }
        builder
    }
}
