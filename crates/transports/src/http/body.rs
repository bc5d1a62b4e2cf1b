//! Bodies: of requests, with their limits ([`RequestBody`]), and of answers, which are watched
//! ([`Watched`]).

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::life::Exchange;
use super::{BoxError, ResponseBody};

/// Bytes that are handed on at once of an answer: what is handed on cannot be watched any more.
const PIECE: usize = 32 * 1024;
/// Bytes of a body that must come in each second in which it is waited for.
const LEAST: u64 = 1024;

/// Which limit the body of a request has gone beyond.
#[derive(Debug, Default)]
pub(super) struct Beyond(AtomicU8);

const TOO_LARGE: u8 = 1;
const TOO_SLOW: u8 = 2;
const MALFORMED: u8 = 3;

impl Beyond {
    pub(super) fn status(&self) -> Option<http::StatusCode> {
        match self.0.load(Relaxed) {
            TOO_LARGE => Some(http::StatusCode::PAYLOAD_TOO_LARGE),
            TOO_SLOW => Some(http::StatusCode::REQUEST_TIMEOUT),
            MALFORMED => Some(http::StatusCode::BAD_REQUEST),
            _ => None,
        }
    }
}

/// The body of a request. It fails when it is larger or slower than it may be, or is no HTTP; the
/// request is answered with 413, 408 or 400 then, whatever is made of the failure.
pub struct RequestBody {
    body: Incoming,
    left: u64,
    /// `None` where it may come as slowly as it does.
    pace: Option<Pace>,
    beyond: Arc<Beyond>,
    failed: bool,
}

/// How quickly a body comes. Only time in which it is waited for counts.
struct Pace {
    period: Duration,
    /// What is left of the period, and since when it runs, where it does.
    left: Duration,
    since: Option<Instant>,
    bytes: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    fn came(&mut self, bytes: u64) {
        if let Some(since) = self.since.take() {
            self.left = self.left.saturating_sub(since.elapsed());
        }
        self.bytes += bytes;
        if self.bytes >= LEAST * self.period.as_secs().max(1) {
            (self.bytes, self.left) = (0, self.period);
        }
    }

    /// Ready when it was waited for too long.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.since.is_none() {
            let now = Instant::now();
            self.since = Some(now);
            let deadline = now + self.left;
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(deadline),
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(deadline))),
            }
        }
        match &mut self.timer {
            Some(timer) => timer.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

impl RequestBody {
    pub(super) fn new(body: Incoming, most: usize, period: Duration, beyond: Arc<Beyond>) -> Self {
        Self {
            body,
            left: most as u64,
            pace: Some(Pace {
                period,
                left: period,
                since: None,
                bytes: 0,
                timer: None,
            }),
            beyond,
            failed: false,
        }
    }

    /// Lets it be as large and as slow as it is.
    #[cfg(feature = "grpc")]
    pub(super) fn unlimit(&mut self) {
        self.left = u64::MAX;
        self.pace = None;
    }

    fn fail(&mut self, how: u8, why: &'static str) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.failed = true;
        self.beyond.0.store(how, Relaxed);
        Poll::Ready(Some(Err(why.into())))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.failed {
            return Poll::Ready(None);
        }
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            let Some(pace) = &mut this.pace else {
                return Poll::Pending;
            };
            ready!(pace.poll_late(cx));
            return this.fail(TOO_SLOW, "the body of the request comes too slowly");
        };
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                let _ = this.fail(MALFORMED, "");
                return Poll::Ready(Some(Err(error.into())));
            }
            None => return Poll::Ready(None),
        };
        let bytes = frame.data_ref().map_or(0, Buf::remaining) as u64;
        if let Some(pace) = &mut this.pace {
            pace.came(bytes);
        }
        match this.left.checked_sub(bytes) {
            Some(left) => this.left = left,
            None => return this.fail(TOO_LARGE, "the body of the request is too large"),
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.failed || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").finish_non_exhaustive()
    }
}

/// The body of an answer: in pieces, so that what waits for the client is seen to wait here.
pub(super) struct Watched {
    body: ResponseBody,
    /// What is left of a frame.
    rest: Bytes,
    exchange: Exchange,
}

impl Watched {
    pub(super) fn new(body: ResponseBody, mut exchange: Exchange) -> Self {
        exchange.whole = body.is_end_stream();
        Self {
            body,
            rest: Bytes::new(),
            exchange,
        }
    }

    fn piece(&mut self) -> Frame<Bytes> {
        let piece = self.rest.split_to(self.rest.len().min(PIECE));
        let progress = &self.exchange.progress;
        progress.bytes.fetch_add(piece.len() as u64, Relaxed);
        if self.is_end_stream() {
            self.exchange.whole = true;
        }
        Frame::data(piece)
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if !this.rest.is_empty() {
            return Poll::Ready(Some(Ok(this.piece())));
        }
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        let waits = &this.exchange.progress.waits;
        waits.store(polled.is_ready(), Relaxed);
        match ready!(polled) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) => {
                    this.rest = bytes;
                    Poll::Ready(Some(Ok(this.piece())))
                }
                // trailers are the end
                Err(frame) => {
                    this.exchange.whole = true;
                    Poll::Ready(Some(Ok(frame)))
                }
            },
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => {
                this.exchange.whole = true;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.body.size_hint();
        let mut sum = SizeHint::new();
        let rest = self.rest.len() as u64;
        if let Some(upper) = hint.upper() {
            sum.set_upper(upper + rest);
        }
        sum.set_lower(hint.lower() + rest);
        sum
    }
}
