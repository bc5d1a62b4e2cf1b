//! Counters that are cheap enough to leave on, and the [`Statistics`] snapshot made from them.

mod http;
mod observer;
mod transports;

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use histogram::{AtomicHistogram, Histogram};
use serde::Serialize;
use tokio::time::Instant;

use crate::close::CloseReason;
use crate::protection::Refusals;
pub use http::{HttpCounters, HttpRequest, HttpStatistics};
pub(crate) use observer::{Observed, ObservedPool};
pub use observer::{Observer, PoolObserver};
use transports::TransportCounters;
pub use transports::TransportStatistics;

/// Threads that count apart from each other; more share.
const SHARDS: usize = 16;
/// The numbers of workers that have a shard of their own begin here.
const OWN: usize = SHARDS;
/// How far back the rates look.
const WINDOW: Duration = Duration::from_secs(5);
/// How often the totals are remembered for them.
pub(crate) const SAMPLE: Duration = Duration::from_secs(1);
/// Latencies of this power of two of nanoseconds and more count as the longest.
const LATENCY_POWER: u8 = 36;

/// What a server or client has done so far. A snapshot: numbers of one moment.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Statistics {
    /// Connections that are open now.
    pub connections_active: u64,
    /// Connections that were accepted or made.
    pub connections_total: u64,
    /// Connections and listeners by transport: the scheme of the connection, such as `tcp`. A server
    /// that takes several on one port listens as `auto`.
    pub transports: BTreeMap<&'static str, TransportStatistics>,
    /// Connections that were turned away, by reason: `max_connections`, `max_handshakes` (too
    /// many that were not done, of which this was the last, or the oldest), `per_ip` and `connection_rate` (too many, or too quickly, of one address), `denied` (by the lists),
    /// `no_proxy` and `proxy_header` (where a proxy must speak first), `handshake` (it failed),
    /// `handshake_timeout`, `refused` (by the handler).
    pub connections_refused: BTreeMap<&'static str, u64>,
    /// Connections that have ended, by reason; see [`CloseReason::label`].
    pub connections_ended: BTreeMap<&'static str, u64>,
    /// Failures to accept or to connect.
    pub connect_errors: u64,
    /// How often a session was not read from for a while, because its peer sent more than
    /// [its rate](crate::config::SessionLimits::messages_per_second) allows.
    pub rate_pauses: u64,
    /// Messages received.
    pub messages_in: u64,
    /// Messages written to the transport.
    pub messages_out: u64,
    /// Bytes received, framing included.
    pub bytes_in: u64,
    /// Bytes written, framing included.
    pub bytes_out: u64,
    /// Messages received per second, over the last 5 seconds.
    pub messages_in_per_second: f64,
    /// Messages written per second, over the last 5 seconds.
    pub messages_out_per_second: f64,
    /// Bytes received per second, over the last 5 seconds.
    pub bytes_in_per_second: f64,
    /// Bytes written per second, over the last 5 seconds.
    pub bytes_out_per_second: f64,
    /// Messages that an overflow policy dropped, or that a connection's end left unwritten.
    pub messages_dropped: u64,
    /// Bytes that wait in outboxes now.
    pub queued_bytes: u64,
    /// From the read that brought a message to the write of what its handler sent.
    pub latency: Latency,
    /// The requests of HTTP connections. Messages of sessions on them count above.
    pub http: HttpStatistics,
    /// Time since the start.
    pub uptime: Duration,
}

/// Percentiles of a duration, each correct to about 3 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Latency {
    /// How many durations were measured.
    pub count: u64,
    /// Half were at most this.
    pub p50: Duration,
    /// 90 % were at most this.
    pub p90: Duration,
    /// 99 % were at most this.
    pub p99: Duration,
    /// 99.9 % were at most this.
    pub p999: Duration,
    /// The longest.
    pub max: Duration,
    /// All of them together; made from the same histogram, so as correct as the percentiles.
    pub sum: Duration,
    /// How many were at most each of [`BOUNDS`](Self::BOUNDS): cumulative, as Prometheus wants them.
    /// A duration within 3 % of a bound may be counted in the next.
    pub buckets: [u64; 25],
}

impl Latency {
    /// The upper bounds of [`buckets`](Self::buckets): 1, 2 and 5 of each power of ten from 1 µs, and
    /// 60 s at last.
    pub const BOUNDS: [Duration; 25] = {
        let mut bounds = [Duration::from_secs(60); 25];
        let (mut n, mut unit) = (0, 1);
        while n < 24 {
            bounds[n] = Duration::from_micros(unit);
            bounds[n + 1] = Duration::from_micros(2 * unit);
            bounds[n + 2] = Duration::from_micros(5 * unit);
            n += 3;
            unit *= 10;
        }
        bounds
    };
}

impl fmt::Display for Statistics {
    /// One line for a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} connections, in {:.0} msg/s {:.1} MB/s, out {:.0} msg/s {:.1} MB/s, \
             p50 {:?} p99 {:?}, {} queued, {} dropped",
            self.connections_active,
            self.messages_in_per_second,
            self.bytes_in_per_second / 1e6,
            self.messages_out_per_second,
            self.bytes_out_per_second / 1e6,
            self.latency.p50,
            self.latency.p99,
            self.queued_bytes,
            self.messages_dropped,
        )
    }
}

/// Counters on a cache line of their own, so that threads do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    messages_in: AtomicU64,
    messages_out: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    dropped: AtomicU64,
}

/// The counters of one server or client.
pub(crate) struct Counters {
    shards: [Shard; SHARDS],
    /// Each is written by one worker only, which needs no atomic addition.
    own: [Shard; SHARDS],
    active: AtomicUsize,
    total: AtomicU64,
    transports: TransportCounters,
    pub(crate) refusals: Refusals,
    rate_pauses: AtomicU64,
    refused: AtomicU64,
    handshake: AtomicU64,
    handshake_timeout: AtomicU64,
    connect_errors: AtomicU64,
    ended: [AtomicU64; CloseReason::LABELS.len()],
    /// Nanoseconds up to a little over a minute, in buckets of 3 %. `None` cannot happen: the two
    /// constants are valid.
    latency: Option<AtomicHistogram>,
    pub(crate) http: HttpCounters,
    started: Instant,
    rates: Mutex<VecDeque<Sample>>,
}

/// The totals at one moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    totals: [u64; 4],
}

thread_local! {
    static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// A number for this thread, to spread threads over shards.
#[inline]
fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    MINE.with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Relaxed) % SHARDS);
        }
        mine.get()
    })
}

/// Says that this thread is a worker, and which. The connections of one server or client are on
/// workers with different numbers.
pub(crate) fn set_worker(n: usize) {
    if n < SHARDS {
        MINE.set(OWN + n);
    }
}

/// Adds to a counter that nobody else writes.
#[inline]
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
}

impl Counters {
    pub(crate) fn new() -> Self {
        Self {
            shards: Default::default(),
            own: Default::default(),
            active: AtomicUsize::new(0),
            total: AtomicU64::new(0),
            transports: TransportCounters::default(),
            refusals: Refusals::new(),
            rate_pauses: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            handshake: AtomicU64::new(0),
            handshake_timeout: AtomicU64::new(0),
            connect_errors: AtomicU64::new(0),
            ended: Default::default(),
            latency: AtomicHistogram::new(5, LATENCY_POWER).ok(),
            http: HttpCounters::new(),
            started: Instant::now(),
            rates: Mutex::default(),
        }
    }

    /// Counts a connection, unless there are `max` already.
    pub(crate) fn connect(&self, max: usize, scheme: &'static str) -> bool {
        let admitted = self.admit(max);
        if admitted {
            self.opened(scheme);
        }
        admitted
    }

    /// Takes one of the `max` places of connections, for one that is not open yet.
    pub(crate) fn admit(&self, max: usize) -> bool {
        self.active
            .try_update(Relaxed, Relaxed, |active| {
                (active < max).then_some(active + 1)
            })
            .is_ok()
    }

    /// A session is not read from for a while.
    pub(crate) fn paused(&self) {
        self.rate_pauses.fetch_add(1, Relaxed);
    }

    /// A connection that was admitted is open.
    pub(crate) fn opened(&self, scheme: &'static str) {
        self.total.fetch_add(1, Relaxed);
        self.transports.opened(scheme);
    }

    /// An open connection is one of another transport from now on.
    pub(crate) fn becomes(&self, before: &'static str, now: &'static str) {
        if before != now {
            self.transports.opened(now);
            self.transports.closed(before);
        }
    }

    /// A server listens on one more address.
    pub(crate) fn listens(&self, scheme: &'static str) {
        self.transports.listens(scheme);
    }

    /// It listens no more.
    pub(crate) fn deaf(&self) {
        self.transports.stopped();
    }

    /// The place of a connection that was admitted and never open is free again.
    pub(crate) fn leave(&self) {
        self.active.fetch_sub(1, Relaxed);
    }

    /// The handshake of a connection has failed; `late`: because of its deadline.
    pub(crate) fn no_handshake(&self, late: bool) {
        let counter = match late {
            true => &self.handshake_timeout,
            false => &self.handshake,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(crate) fn disconnect(&self, reason: &CloseReason, scheme: &'static str) {
        self.active.fetch_sub(1, Relaxed);
        self.transports.closed(scheme);
        self.ended[reason.index()].fetch_add(1, Relaxed);
        if let CloseReason::Refused(_) = reason {
            self.refused.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn connect_error(&self) {
        self.connect_errors.fetch_add(1, Relaxed);
    }

    pub(crate) fn active(&self) -> usize {
        self.active.load(Relaxed)
    }

    /// Called by the connection's own task.
    #[inline]
    pub(crate) fn received(&self, messages: u64, bytes: u64) {
        let shard = shard();
        if let Some(own) = self.own.get(shard.wrapping_sub(OWN)) {
            add(&own.messages_in, messages);
            add(&own.bytes_in, bytes);
        } else if let Some(shared) = self.shards.get(shard) {
            shared.messages_in.fetch_add(messages, Relaxed);
            shared.bytes_in.fetch_add(bytes, Relaxed);
        }
    }

    /// Called by the connection's own task.
    #[inline]
    pub(crate) fn sent(&self, messages: u64, bytes: u64) {
        let shard = shard();
        if let Some(own) = self.own.get(shard.wrapping_sub(OWN)) {
            add(&own.messages_out, messages);
            add(&own.bytes_out, bytes);
        } else if let Some(shared) = self.shards.get(shard) {
            shared.messages_out.fetch_add(messages, Relaxed);
            shared.bytes_out.fetch_add(bytes, Relaxed);
        }
    }

    pub(crate) fn dropped(&self, messages: u64) {
        let shard = &self.shards[shard() % SHARDS];
        shard.dropped.fetch_add(messages, Relaxed);
    }

    /// Messages that a connection's end left unwritten wait for the next one.
    pub(crate) fn put_back(&self, messages: u64) {
        let shard = &self.shards[shard() % SHARDS];
        shard.dropped.fetch_sub(messages, Relaxed);
    }

    /// `messages` took `latency` each.
    pub(crate) fn latency(&self, latency: Duration, messages: u64) {
        if let Some(histogram) = &self.latency {
            record(histogram, latency, messages);
        }
    }

    fn totals(&self) -> [u64; 4] {
        let mut sums = [0; 4];
        for shard in self.shards.iter().chain(&self.own) {
            let parts = [
                &shard.messages_in,
                &shard.messages_out,
                &shard.bytes_in,
                &shard.bytes_out,
            ];
            for (sum, part) in sums.iter_mut().zip(parts) {
                *sum += part.load(Relaxed);
            }
        }
        sums
    }

    /// Remembers the totals of this moment for the rates. Connections call it before they count, at
    /// most once in [`SAMPLE`] each: where nothing moves, nothing has to be remembered.
    pub(crate) fn sample(&self, now: Instant) {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        if rates.back().is_some_and(|last| now < last.at + SAMPLE) {
            return;
        }
        rates.push_back(Sample {
            at: now,
            totals: self.totals(),
        });
        // the one that begins the window stays
        while rates.get(1).is_some_and(|second| now >= second.at + WINDOW) {
            rates.pop_front();
        }
    }

    fn rates(&self, totals: [u64; 4], now: Instant) -> [f64; 4] {
        let rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = rates.iter().rev().find(|sample| now >= sample.at + WINDOW);
        let first = begun.or(rates.front()).copied().unwrap_or(Sample {
            at: self.started,
            totals: [0; 4],
        });
        let seconds = now.saturating_duration_since(first.at).as_secs_f64();
        let mut out = [0.0; 4];
        if seconds > 0.0 {
            for ((rate, now), before) in out.iter_mut().zip(totals).zip(first.totals) {
                *rate = now.saturating_sub(before) as f64 / seconds;
            }
        }
        out
    }

    pub(crate) fn snapshot(&self, queued_bytes: u64) -> Statistics {
        let now = Instant::now();
        let totals = self.totals();
        let rates = self.rates(totals, now);
        let ended = CloseReason::LABELS.iter().zip(&self.ended);
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        let refused = [
            ("refused", &self.refused),
            ("handshake", &self.handshake),
            ("handshake_timeout", &self.handshake_timeout),
        ];
        Statistics {
            connections_active: self.active() as u64,
            connections_total: load(&self.total),
            transports: self.transports.snapshot(),
            connections_refused: {
                let refused = refused.iter().map(|(k, v)| (*k, load(v)));
                refused.chain(self.refusals.counts()).collect()
            },
            connections_ended: ended
                .map(|(k, v)| (*k, load(v)))
                .filter(|(_, v)| *v > 0)
                .collect(),
            connect_errors: load(&self.connect_errors),
            rate_pauses: load(&self.rate_pauses),
            messages_in: totals[0],
            messages_out: totals[1],
            bytes_in: totals[2],
            bytes_out: totals[3],
            messages_in_per_second: rates[0],
            messages_out_per_second: rates[1],
            bytes_in_per_second: rates[2],
            bytes_out_per_second: rates[3],
            // what was dropped on one thread may have been put back on another
            messages_dropped: {
                let dropped = self.shards.iter().map(|shard| load(&shard.dropped));
                let sum = dropped.fold(0_u64, u64::wrapping_add);
                sum.cast_signed().max(0).cast_unsigned()
            },
            queued_bytes,
            latency: self
                .latency
                .as_ref()
                .map(|h| percentiles(&h.load()))
                .unwrap_or_default(),
            http: self.http.snapshot(),
            uptime: now.saturating_duration_since(self.started),
        }
    }
}

/// `count` durations.
fn record(histogram: &AtomicHistogram, duration: Duration, count: u64) {
    let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    // the last bucket takes what is longer than the histogram covers
    let value = nanoseconds.min((1 << LATENCY_POWER) - 1);
    let _ = histogram.add(value, count);
}

fn percentiles(histogram: &Histogram) -> Latency {
    let Ok(Some(result)) = histogram.quantiles(&[0.5, 0.9, 0.99, 0.999, 1.0]) else {
        return Latency::default();
    };
    let mut values = result
        .entries()
        .values()
        .map(|bucket| Duration::from_nanos(bucket.end()));
    let mut next = || values.next().unwrap_or_default();
    let (buckets, sum) = cumulative(histogram);
    Latency {
        count: u64::try_from(result.total_count()).unwrap_or(u64::MAX),
        p50: next(),
        p90: next(),
        p99: next(),
        p999: next(),
        max: next(),
        sum,
        buckets,
    }
}

/// How many were at most each bound, and about how long all took.
fn cumulative(histogram: &Histogram) -> ([u64; Latency::BOUNDS.len()], Duration) {
    let mut buckets = [0; Latency::BOUNDS.len()];
    let mut nanoseconds = 0_u128;
    let mut before = 0;
    let mut bounds = Latency::BOUNDS.iter().zip(&mut buckets).peekable();
    for bucket in histogram {
        while let Some((_, count)) =
            bounds.next_if(|(bound, _)| bound.as_nanos() < bucket.end().into())
        {
            *count = before;
        }
        before += bucket.count();
        let middle = u128::from(bucket.start()).midpoint(bucket.end().into());
        nanoseconds += middle * u128::from(bucket.count());
    }
    for (_, count) in bounds {
        *count = before;
    }
    let sum = Duration::from_nanos_u128(nanoseconds.min(u128::from(u64::MAX)));
    (buckets, sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_within_the_stated_error() {
        let counters = Counters::new();
        for n in 1..=1000 {
            counters.latency(Duration::from_micros(n), 1);
        }
        counters.latency(Duration::from_secs(3600), 1);
        let latency = counters.snapshot(0).latency;
        assert_eq!(latency.count, 1001);
        let close = |got: Duration, want: f64| (got.as_secs_f64() / want - 1.0).abs() < 0.04;
        assert!(close(latency.p50, 500e-6), "{latency:?}");
        assert!(close(latency.p99, 990e-6), "{latency:?}");
        assert!(latency.max > Duration::from_secs(60));
        let at_most = |bound| {
            let n = Latency::BOUNDS.iter().position(|b| *b == bound).unwrap();
            latency.buckets[n]
        };
        for microseconds in [1, 10, 100, 200, 500] {
            let got = at_most(Duration::from_micros(microseconds));
            let least = microseconds as f64 * 0.96 - 1.0;
            assert!(
                got as f64 >= least && got <= microseconds,
                "{microseconds}: {got}"
            );
        }
        // the hour is beyond the last bound, and only in the count
        assert_eq!(at_most(Duration::from_millis(2)), 1000);
        assert_eq!(latency.buckets.last(), Some(&1000));
        assert!(latency.buckets.is_sorted());
        assert!(close(latency.sum, 500.5e-3 + 68.7), "{latency:?}");
    }

    #[test]
    fn connections_are_capped_and_counted() {
        let counters = Counters::new();
        assert!(
            counters.connect(2, "tcp") && counters.connect(2, "tcp") && !counters.connect(2, "tcp")
        );
        counters.disconnect(&CloseReason::Idle, "tcp");
        assert!(counters.connect(2, "tcp"));
        let s = counters.snapshot(7);
        assert_eq!(
            (s.connections_active, s.connections_total, s.queued_bytes),
            (2, 3, 7)
        );
        assert_eq!(s.connections_ended["idle"], 1);
    }

    #[tokio::test(start_paused = true)]
    async fn rates_cover_the_last_seconds() {
        let counters = Counters::new();
        for _ in 0..20 {
            counters.sample(Instant::now());
            counters.received(100, 6400);
            counters.sent(50, 50);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let s = counters.snapshot(0);
        assert!((s.messages_in_per_second - 100.0).abs() < 1.0, "{s}");
        assert!((s.bytes_out_per_second - 50.0).abs() < 10.0, "{s}");
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(counters.snapshot(0).messages_in_per_second < 10.0);
        // what comes after a silence is not spread over it
        counters.sample(Instant::now());
        tokio::time::advance(WINDOW).await;
        counters.received(1000, 0);
        let rate = counters.snapshot(0).messages_in_per_second;
        assert!((rate - 1000.0 / WINDOW.as_secs_f64()).abs() < 1.0, "{rate}");
    }
}
