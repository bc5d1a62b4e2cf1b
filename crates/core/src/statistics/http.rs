//! What is counted of HTTP requests: [`HttpCounters`], and the [`HttpStatistics`] made from them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use histogram::AtomicHistogram;
use serde::Serialize;

use super::{LATENCY_POWER, Latency, record};

/// The requests of HTTP connections. A snapshot, as [`Statistics`](super::Statistics) is.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct HttpStatistics {
    /// Requests that are being answered.
    pub active: u64,
    /// Requests that were answered, or whose end was another; those that only the HTTP library has
    /// seen, because their head was no HTTP, are not among them.
    pub requests: u64,
    /// Requests by method, such as `GET`; methods that are not of RFC 9110 or 5789 are `other`.
    pub by_method: BTreeMap<&'static str, u64>,
    /// Requests by the class of the answer's status, such as `2xx`.
    pub by_status: BTreeMap<&'static str, u64>,
    /// Requests whose answer did not go out whole: the client has gone or has given them up, the body
    /// failed, or the server cut them off. They are among the others, too, where there was an answer.
    pub aborted: u64,
    /// Bytes received on HTTP connections, heads included, TLS not.
    pub bytes_in: u64,
    /// Bytes written on HTTP connections.
    pub bytes_out: u64,
    /// From the head of a request to the last byte of the answer that was handed on to be written.
    pub latency: Latency,
}

const METHODS: [&str; 10] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "other",
];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Counts the requests of one server.
pub struct HttpCounters {
    active: AtomicU64,
    methods: [AtomicU64; METHODS.len()],
    classes: [AtomicU64; CLASSES.len()],
    aborted: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    latency: Option<AtomicHistogram>,
}

/// A request that is being answered; counted when it ends, by its drop at the latest.
pub struct HttpRequest {
    method: usize,
    status: Option<u16>,
}

impl HttpCounters {
    pub(super) fn new() -> Self {
        Self {
            active: AtomicU64::new(0),
            methods: Default::default(),
            classes: Default::default(),
            aborted: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            latency: AtomicHistogram::new(5, LATENCY_POWER).ok(),
        }
    }

    /// A request with this method has come.
    #[must_use]
    pub fn began(&self, method: &str) -> HttpRequest {
        self.active.fetch_add(1, Relaxed);
        let known = METHODS.iter().position(|known| *known == method);
        HttpRequest {
            method: known.unwrap_or(METHODS.len() - 1),
            status: None,
        }
    }

    /// It has ended after so long; `whole`: its answer has gone out to the end.
    pub fn ended(&self, request: &HttpRequest, took: Duration, whole: bool) {
        self.active.fetch_sub(1, Relaxed);
        if let Some(count) = self.methods.get(request.method) {
            count.fetch_add(1, Relaxed);
        }
        let class = request
            .status
            .map(|status| usize::from(status / 100).wrapping_sub(1));
        if let Some(count) = class.and_then(|class| self.classes.get(class)) {
            count.fetch_add(1, Relaxed);
        }
        if !whole {
            self.aborted.fetch_add(1, Relaxed);
        }
        if let Some(histogram) = &self.latency {
            record(histogram, took, 1);
        }
    }

    /// So many bytes have come in.
    pub fn received(&self, bytes: u64) {
        self.bytes_in.fetch_add(bytes, Relaxed);
    }

    /// So many bytes have gone out.
    pub fn sent(&self, bytes: u64) {
        self.bytes_out.fetch_add(bytes, Relaxed);
    }

    pub(super) fn snapshot(&self) -> HttpStatistics {
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        let counts = |labels: &[&'static str], counters: &[AtomicU64]| {
            let all = labels.iter().copied().zip(counters.iter().map(load));
            all.filter(|(_, count)| *count > 0)
                .collect::<BTreeMap<_, _>>()
        };
        let by_method = counts(&METHODS, &self.methods);
        HttpStatistics {
            active: load(&self.active),
            requests: by_method.values().sum(),
            by_method,
            by_status: counts(&CLASSES, &self.classes),
            aborted: load(&self.aborted),
            bytes_in: load(&self.bytes_in),
            bytes_out: load(&self.bytes_out),
            latency: self
                .latency
                .as_ref()
                .map(|h| super::percentiles(&h.load()))
                .unwrap_or_default(),
        }
    }
}

impl HttpRequest {
    /// What it was answered with.
    pub fn answered(&mut self, status: u16) {
        self.status = Some(status);
    }

    /// The status, where it was answered.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.status
    }
}
