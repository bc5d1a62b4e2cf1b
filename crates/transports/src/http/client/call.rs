//! One call of a client, with what is tried again, and its answer: [`HttpCall`], [`HttpResponse`].

use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use network_system_core::{CircuitBreaker, Error, ErrorKind, HttpRequest, Result};
use reqwest::Request;
use tokio::time::Instant;

use super::{HttpClient, bad, failure, is_unwell};

/// The longest wait that a server may ask for.
const LONGEST: Duration = Duration::from_secs(10);

/// A request that is put together. [`send`](Self::send) sends it.
#[must_use = "a call does nothing until it is sent"]
pub struct HttpCall {
    client: HttpClient,
    request: Result<Request>,
    timeout: Duration,
}

impl HttpCall {
    pub(super) fn new(client: HttpClient, method: Method, url: &str) -> Self {
        let parsed = url.parse().map_err(|error| bad(url, error));
        Self {
            timeout: client.0.config.timeout,
            client,
            request: parsed.map(|url| Request::new(method, url)),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Request) -> Result<()>) -> Self {
        if let Ok(request) = &mut self.request
            && let Err(error) = change(request)
        {
            self.request = Err(error);
        }
        self
    }

    /// Adds a header field.
    pub fn header(self, name: &str, value: &str) -> Self {
        self.with(|request| {
            let wrong = |what: &str| {
                bad(
                    request.url().as_str(),
                    format_args!("no {what} of a field: '{name}'"),
                )
            };
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("name"))?;
            let value = HeaderValue::from_str(value).map_err(|_| wrong("value"))?;
            request.headers_mut().append(name, value);
            Ok(())
        })
    }

    /// The body: bytes, or any [`reqwest::Body`], such as one that comes by and by; a call with such a
    /// body is not made again.
    pub fn body(self, body: impl Into<reqwest::Body>) -> Self {
        self.with(|request| {
            *request.body_mut() = Some(body.into());
            Ok(())
        })
    }

    /// How long it may take until the head of the answer has come, in place of the client's
    /// [`timeout`](super::HttpClientConfig::timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Asks, and waits for the head of the answer.
    ///
    /// # Errors
    /// No answer has come: [`ErrorKind::Timeout`], [`ErrorKind::CircuitOpen`], why there was no
    /// connection, or why it has failed. [`ErrorKind::InvalidArgument`] for what cannot be asked.
    pub async fn send(self) -> Result<HttpResponse> {
        let request = self.request?;
        let counters = &self.client.0.counters;
        let mut counted = Counted {
            request: counters.began(request.method().as_str()),
            client: self.client.clone(),
            begun: Instant::now(),
            whole: false,
        };
        let to = request.url().clone();
        let calls = again_and_again(&self.client, request);
        let response = match tokio::time::timeout(self.timeout, calls).await {
            Ok(response) => response?,
            Err(_) => {
                return Err(Error::new(ErrorKind::Timeout, "ask")
                    .peer(super::authority(&to))
                    .because(format_args!("no answer within {:?}", self.timeout)));
            }
        };
        counted.request.answered(response.status().as_u16());
        counted.whole = true;
        Ok(HttpResponse {
            response,
            most: self.client.0.config.max_body,
        })
    }
}

/// Asks until there is an answer that is worth having, or no more point in asking.
async fn again_and_again(client: &HttpClient, request: Request) -> Result<reqwest::Response> {
    let config = &client.0.config;
    let budget = &client.0.budget;
    budget.deposit();
    let is_idempotent = request.method().is_idempotent();
    let mut request = Some(request);
    let mut failures = 0;
    loop {
        let Some(now) = request.take() else {
            return Err(Error::new(ErrorKind::Internal, "ask again"));
        };
        let again = now
            .try_clone()
            .filter(|_| is_idempotent && failures < config.retries);
        let result = client.ask(now).await;
        let (passes, asked) = match &result {
            Ok(answer) => (is_unwell(answer.status()), retry_after(answer.headers())),
            Err(error) => (CircuitBreaker::counts(error), None),
        };
        // the budget last: a token that is taken is used
        if !passes || again.is_none() || !budget.withdraw() {
            return result;
        }
        failures += 1;
        let bound = config.backoff.bound(failures);
        let wait = bound
            .mul_f64(fastrand::f64())
            .max(asked.unwrap_or_default());
        tracing::debug!(failures, ?wait, "asking again");
        tokio::time::sleep(wait).await;
        request = again;
    }
}

/// How long the server wants to be left alone.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST))
}

/// A call that is counted when it ends.
struct Counted {
    client: HttpClient,
    request: HttpRequest,
    begun: Instant,
    whole: bool,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let counters = &self.client.0.counters;
        counters.ended(&self.request, self.begun.elapsed(), self.whole);
    }
}

/// An answer, whose body may still be on its way.
pub struct HttpResponse {
    response: reqwest::Response,
    most: usize,
}

impl HttpResponse {
    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// The version of HTTP that it came in.
    #[must_use]
    pub fn version(&self) -> Version {
        self.response.version()
    }

    /// The header fields.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// Where it has come from, after redirects.
    #[must_use]
    pub fn url(&self) -> &str {
        self.response.url().as_str()
    }

    /// The answer, if its status says that the call has succeeded.
    ///
    /// # Errors
    /// The status: 404 and 410 are [`ErrorKind::NotFound`], 401 and 403
    /// [`ErrorKind::PermissionDenied`], 408 and 504 [`ErrorKind::Timeout`], 413
    /// [`ErrorKind::MessageTooLarge`], 409 [`ErrorKind::AlreadyExists`], 429, 502 and 503
    /// [`ErrorKind::QueueFull`], the others [`ErrorKind::Protocol`].
    pub fn ok(self) -> Result<Self> {
        let status = self.status();
        if status.is_success() {
            return Ok(self);
        }
        let kind = match status.as_u16() {
            401 | 403 => ErrorKind::PermissionDenied,
            404 | 410 => ErrorKind::NotFound,
            408 | 504 => ErrorKind::Timeout,
            409 => ErrorKind::AlreadyExists,
            413 => ErrorKind::MessageTooLarge,
            429 | 502 | 503 => ErrorKind::QueueFull,
            _ => ErrorKind::Protocol,
        };
        Err(Error::new(kind, "ask").peer(self.url()).because(status))
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// Why no more comes.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        let chunk = self.response.chunk().await;
        chunk.map_err(|error| failure::of(error, "receive from").peer(self.response.url().as_str()))
    }

    /// The whole body.
    ///
    /// # Errors
    /// [`ErrorKind::MessageTooLarge`] when it is larger than
    /// [`max_body`](super::HttpClientConfig::max_body), or why it has not come.
    pub async fn bytes(mut self) -> Result<Bytes> {
        let mut all = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if all.len() + chunk.len() > self.most {
                return Err(Error::new(ErrorKind::MessageTooLarge, "receive from")
                    .peer(self.url())
                    .because(format_args!("the body has more than {} bytes", self.most))
                    .advice("raise max_body, or take it in chunks"));
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }

    /// The whole body as text.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes); [`ErrorKind::Protocol`] when it is not UTF-8.
    pub async fn text(self) -> Result<String> {
        let url = self.url().to_owned();
        let bytes = self.bytes().await?;
        String::from_utf8(bytes.into()).map_err(|error| {
            let failed = Error::new(ErrorKind::Protocol, "receive text from").peer(url);
            failed.because(&error).caused_by(error)
        })
    }
}

impl fmt::Debug for HttpResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpResponse")
            .field("status", &self.status())
            .field("url", &self.url())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for HttpCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpCall").finish_non_exhaustive()
    }
}
