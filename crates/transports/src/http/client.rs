//! A client for HTTP/1.1 and HTTP/2: [`HttpClient`]. reqwest does connections, pools, redirects, proxies
//! and compression; this puts deadlines, retries, breakers, statistics and our errors around it.

mod call;
mod config;
mod failure;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{Method, StatusCode};
use network_system_core::{
    BreakerState, CircuitBreaker, Error, ErrorKind, HttpCounters, HttpStatistics, Result,
    RetryBudget,
};
use reqwest::{Client, Request, Url};

pub use call::{HttpCall, HttpResponse};
pub use config::HttpClientConfig;

use crate::tls::Tls;

/// Servers whose breakers are remembered; of more, those that are closed are forgotten.
const KNOWN: usize = 1024;

/// Asks HTTP servers: HTTP/1.1, and HTTP/2 where TLS agrees on it. Connections are pooled; every call has a
/// deadline; calls that may be made again are, within a [budget](RetryBudget); a [`CircuitBreaker`] for
/// each server holds calls back from one that keeps failing. Redirects are followed, answers
/// decompressed, and the proxies of the environment used (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`).
///
/// An answer with any status is an answer and no error; see [`HttpResponse::ok`]. Cheap to clone; clones
/// share all this.
///
/// ```no_run
/// use network_system_transports::http::{HttpClient, HttpClientConfig};
///
/// # async fn run() -> network_system_core::Result<()> {
/// let client = HttpClient::new(HttpClientConfig::default())?;
/// let text = client.get("https://example.com/").send().await?.ok()?.text().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct HttpClient(Arc<Inner>);

struct Inner {
    config: HttpClientConfig,
    tls: Tls,
    /// What was made of the files of TLS, and the client with it.
    current: Mutex<Option<(tls::Known, Client)>>,
    budget: RetryBudget,
    breakers: Mutex<HashMap<String, CircuitBreaker>>,
    counters: HttpCounters,
}

impl HttpClient {
    /// A client with these settings.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] names what cannot be used, such as a file of TLS.
    pub fn new(config: HttpClientConfig) -> Result<Self> {
        let client = Self(Arc::new(Inner {
            budget: config.retry_budget.clone(),
            config,
            tls: Tls::default(),
            current: Mutex::default(),
            breakers: Mutex::default(),
            counters: HttpCounters::new(),
        }));
        client.client()?;
        Ok(client)
    }

    /// A `GET`.
    pub fn get(&self, url: &str) -> HttpCall {
        self.request(Method::GET, url)
    }

    /// A `HEAD`.
    pub fn head(&self, url: &str) -> HttpCall {
        self.request(Method::HEAD, url)
    }

    /// A `POST`.
    pub fn post(&self, url: &str) -> HttpCall {
        self.request(Method::POST, url)
    }

    /// A `PUT`.
    pub fn put(&self, url: &str) -> HttpCall {
        self.request(Method::PUT, url)
    }

    /// A `DELETE`.
    pub fn delete(&self, url: &str) -> HttpCall {
        self.request(Method::DELETE, url)
    }

    /// A request with any method.
    pub fn request(&self, method: Method, url: &str) -> HttpCall {
        HttpCall::new(self.clone(), method, url)
    }

    /// What it has done so far.
    #[must_use]
    pub fn statistics(&self) -> HttpStatistics {
        self.0.counters.snapshot()
    }

    /// What holds calls to the server of `url` back, where it has been asked before and breakers are on.
    #[must_use]
    pub fn breaker(&self, url: &str) -> Option<CircuitBreaker> {
        let url: Url = url.parse().ok()?;
        lock(&self.0.breakers).get(&authority(&url)).cloned()
    }

    /// The breaker of a server.
    fn breaker_of(&self, url: &Url) -> Option<CircuitBreaker> {
        let config = self.0.config.breaker.as_ref()?;
        let mut breakers = lock(&self.0.breakers);
        let authority = authority(url);
        if breakers.len() >= KNOWN && !breakers.contains_key(&authority) {
            breakers.retain(|_, breaker| breaker.state() != BreakerState::Closed);
            if breakers.len() >= KNOWN {
                return None;
            }
        }
        let new = || CircuitBreaker::new(config.clone());
        Some(breakers.entry(authority).or_insert_with(new).clone())
    }

    /// The client with the files of TLS as they are.
    fn client(&self) -> Result<Client> {
        let known = tls::known(&self.0.tls, &self.0.config.tls)?;
        let mut current = lock(&self.0.current);
        if let Some((before, client)) = &*current
            && tls::is_same(before, &known)
        {
            return Ok(client.clone());
        }
        let client = tls::with(self.0.config.builder(), &known).build();
        let client = client.map_err(|error| failure::of(error, "make an HTTP client"))?;
        *current = Some((known, client.clone()));
        Ok(client)
    }

    /// Asks once.
    async fn ask(&self, request: Request) -> Result<reqwest::Response> {
        let breaker = self.breaker_of(request.url());
        let to = authority(request.url());
        let permit = breaker.map(|breaker| breaker.admit()).transpose();
        let permit = permit.map_err(|error| error.peer(&to))?;
        let result = self.client()?.execute(request).await;
        let result = result.map_err(|error| failure::of(error, "ask").peer(&to));
        if let Some(permit) = permit {
            permit.ended(match &result {
                Ok(answer) => Some(!is_unwell(answer.status())),
                Err(error) => CircuitBreaker::counts(error).then_some(false),
            });
        }
        result
    }
}

/// Whether a status says that the server, or one behind it, is not well, and that may pass.
fn is_unwell(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    )
}

/// Which server a URL leads to.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    format!("{}://{host}:{port}", url.scheme())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An address that cannot be asked.
fn bad(url: &str, why: impl fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidArgument, "ask")
        .peer(url)
        .because(why)
        .advice("give a URL, such as https://example.com/path")
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").finish_non_exhaustive()
    }
}

/// TLS of clients, where this build has it.
#[cfg(feature = "tls")]
mod tls {
    use super::*;
    use network_system_core::config::TlsClientConfig;

    pub(super) type Known = Arc<rustls::ClientConfig>;

    pub(super) fn known(tls: &Tls, config: &Arc<TlsClientConfig>) -> Result<Known> {
        tls.for_http(config)
    }

    pub(super) fn is_same(one: &Known, other: &Known) -> bool {
        Arc::ptr_eq(one, other)
    }

    pub(super) fn with(builder: reqwest::ClientBuilder, known: &Known) -> reqwest::ClientBuilder {
        let mut config = rustls::ClientConfig::clone(known);
        if config.alpn_protocols.is_empty() {
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        }
        builder.tls_backend_preconfigured(config)
    }
}

/// And where it has not.
#[cfg(not(feature = "tls"))]
mod tls {
    use super::*;
    use network_system_core::config::TlsClientConfig;

    pub(super) type Known = ();

    pub(super) fn known(_: &Tls, _: &Arc<TlsClientConfig>) -> Result<Known> {
        Ok(())
    }

    pub(super) fn is_same(_: &Known, _: &Known) -> bool {
        true
    }

    pub(super) fn with(builder: reqwest::ClientBuilder, _: &Known) -> reqwest::ClientBuilder {
        builder
    }
}
