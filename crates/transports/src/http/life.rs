//! What is known of a connection and its requests while they last, for deadlines, statistics and the
//! access log: [`Life`], [`Exchange`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Method, Uri, Version};
use network_system_core::{CloseReason, Error, ErrorKind, HttpRequest};
use slab::Slab;
use tokio::time::Instant;

use super::HttpConnection;

/// Requests that a client of HTTP/2 may give up before they are answered, in each [`RESETS_IN`]: each
/// costs the server more than the client.
const RESETS: u32 = 200;
const RESETS_IN: Duration = Duration::from_secs(10);

/// What one connection is doing.
pub(super) struct Life {
    begun: Instant,
    http2: bool,
    limits: Limits,
    /// Milliseconds since it began, at which its last request ended.
    idle_since: AtomicU64,
    /// At which the first byte of the next head came; 0: none has.
    head_since: AtomicU64,
    requests: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) written: AtomicU64,
    /// Whether the last write would wait.
    pub(super) write_waits: AtomicBool,
    inner: Mutex<Inner>,
}

/// What a connection is put up with.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub(super) header_timeout: Duration,
    pub(super) keep_alive: Duration,
    /// How long a client may take for [`least`](Self::least) bytes of what waits for it.
    pub(super) slow_timeout: Option<Duration>,
    pub(super) least: u64,
}

struct Inner {
    exchanges: Slab<(Arc<Progress>, Mark)>,
    written: Mark,
    resets: u32,
    resets_since: Instant,
}

/// How much of an answer has been handed on.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) bytes: AtomicU64,
    /// Whether there was more when it was asked for last, so that the client is who is waited for.
    pub(super) waits: AtomicBool,
}

/// When a client was last seen to take enough.
#[derive(Clone, Copy)]
struct Mark {
    since: Instant,
    bytes: u64,
}

impl Mark {
    fn new(since: Instant) -> Self {
        Self { since, bytes: 0 }
    }

    /// Whether the client is too slow.
    fn is_late(&mut self, now: Instant, bytes: u64, waits: bool, limits: &Limits) -> bool {
        let Some(timeout) = limits.slow_timeout else {
            return false;
        };
        if !waits || bytes.saturating_sub(self.bytes) >= limits.least {
            *self = Self { since: now, bytes };
        }
        now.saturating_duration_since(self.since) >= timeout
    }
}

/// What a look at a connection says.
pub(super) enum Look {
    /// All is well; look again then.
    Again(Instant),
    /// It should end in good order.
    Close(CloseReason),
    /// It should end now.
    Cut(CloseReason),
}

impl Life {
    pub(super) fn new(begun: Instant, http2: bool, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            begun,
            http2,
            limits,
            idle_since: AtomicU64::new(0),
            head_since: AtomicU64::new(1),
            requests: AtomicU64::new(0),
            received: AtomicU64::new(0),
            written: AtomicU64::new(0),
            write_waits: AtomicBool::new(false),
            inner: Mutex::new(Inner {
                exchanges: Slab::new(),
                written: Mark::new(begun),
                resets: 0,
                resets_since: begun,
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn millis(&self, now: Instant) -> u64 {
        let millis = now.saturating_duration_since(self.begun).as_millis();
        u64::try_from(millis).unwrap_or(u64::MAX).max(1)
    }

    fn at(&self, millis: u64) -> Instant {
        self.begun + Duration::from_millis(millis)
    }

    /// Requests so far.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Bytes have come. They begin a head where there is none, and no request.
    pub(super) fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Relaxed);
        let begins = !self.http2 && self.head_since.load(Relaxed) == 0;
        if begins && self.lock().exchanges.is_empty() {
            self.head_since.store(self.millis(Instant::now()), Relaxed);
        }
    }

    /// A request has come.
    pub(super) fn begin(self: &Arc<Self>, connection: HttpConnection, head: Head) -> Exchange {
        self.head_since.store(0, Relaxed);
        self.requests.fetch_add(1, Relaxed);
        let begun = Instant::now();
        let progress = Arc::new(Progress::default());
        let key = (self.lock().exchanges).insert((progress.clone(), Mark::new(begun)));
        Exchange {
            request: connection.host().http().began(head.method.as_str()),
            life: self.clone(),
            connection,
            key,
            progress,
            begun,
            head,
            whole: false,
        }
    }

    fn end(&self, exchange: &Exchange) {
        let now = Instant::now();
        let mut inner = self.lock();
        inner.exchanges.try_remove(exchange.key);
        if inner.exchanges.is_empty() {
            self.idle_since.store(self.millis(now), Relaxed);
        }
        if !exchange.whole && self.http2 {
            if now.saturating_duration_since(inner.resets_since) >= RESETS_IN {
                (inner.resets, inner.resets_since) = (0, now);
            }
            inner.resets += 1;
        }
    }

    /// Whether its client gives requests up too quickly.
    pub(super) fn is_flooded(&self) -> bool {
        self.http2 && self.lock().resets > RESETS
    }

    /// Whether deadlines have passed.
    pub(super) fn look(&self, now: Instant) -> Look {
        let limits = &self.limits;
        let mut inner = self.lock();
        let written = self.written.load(Relaxed);
        let waits = self.write_waits.load(Relaxed);
        if inner.written.is_late(now, written, waits, limits) {
            return Look::Cut(CloseReason::SlowReader);
        }
        for (_, (progress, mark)) in &mut inner.exchanges {
            let waits = progress.waits.load(Relaxed);
            if mark.is_late(now, progress.bytes.load(Relaxed), waits, limits) {
                return Look::Cut(CloseReason::SlowReader);
            }
        }
        if !inner.exchanges.is_empty() || waits {
            let slow = limits.slow_timeout.unwrap_or(limits.keep_alive);
            let soon = (slow / 4).min(limits.keep_alive).min(limits.header_timeout);
            return Look::Again(now + soon);
        }
        // a request may come meanwhile
        let mut next = now + limits.slow_timeout.unwrap_or(limits.keep_alive);
        next = next.min(now + limits.header_timeout);
        match self.head_since.load(Relaxed) {
            0 => {
                let idle = self.at(self.idle_since.load(Relaxed)) + limits.keep_alive;
                if now >= idle {
                    return Look::Close(CloseReason::Idle);
                }
                next = next.min(idle);
            }
            since => {
                let late = self.at(since) + limits.header_timeout;
                if now >= late {
                    return Look::Cut(no_head(limits.header_timeout, self.received.load(Relaxed)));
                }
                next = next.min(late);
            }
        }
        Look::Again(next)
    }
}

/// Why a connection ends whose request has not come in time.
pub(super) fn no_head(timeout: Duration, received: u64) -> CloseReason {
    if received == 0 {
        return CloseReason::Silent;
    }
    let error = Error::new(ErrorKind::Protocol, "read the head of a request");
    CloseReason::Protocol(error.because(format_args!("not whole within {timeout:?}")))
}

/// What the access log says of a request.
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) version: Version,
}

/// A request that is being answered. It ends when this is dropped.
pub(super) struct Exchange {
    life: Arc<Life>,
    connection: HttpConnection,
    key: usize,
    pub(super) progress: Arc<Progress>,
    begun: Instant,
    head: Head,
    request: HttpRequest,
    /// Whether the answer has been handed on to its end.
    pub(super) whole: bool,
}

impl Exchange {
    pub(super) fn answered(&mut self, status: http::StatusCode) {
        self.request.answered(status.as_u16());
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.life.end(self);
        let took = self.begun.elapsed();
        let http = self.connection.host().http();
        http.ended(&self.request, took, self.whole);
        // without the query, in which secrets may stand
        tracing::info!(
            target: "access",
            peer = %self.connection.peer(),
            method = %self.head.method,
            path = self.head.uri.path(),
            version = ?self.head.version,
            status = self.request.status(),
            bytes = self.progress.bytes.load(Relaxed),
            whole = self.whole,
            ?took,
        );
    }
}
