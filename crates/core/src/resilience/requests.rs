//! Many callers' requests over a few connections to several servers: [`RequestPool`].

use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::{Balancer, BalancerConfig, BreakerConfig, Choice, CircuitBreaker, RetryBudget};
use crate::client::{Client, ClientBuilder, ClientState};
use crate::config::{Backoff, ClientConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::link::Transports;
use crate::message::Message;
use serde::Serialize;

/// What a [`RequestPool`] is set to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RequestPoolConfig {
    /// Connections to each address: 2.
    pub connections: usize,
    /// How an address is chosen.
    pub balancer: BalancerConfig,
    /// When an address is left alone for a while; `None`: never.
    pub breaker: Option<BreakerConfig>,
    /// How often an idempotent request is made again at most: 2.
    pub retries: u32,
    /// Waits before that: 50 ms doubled up to 1 s, with full jitter.
    pub backoff: Backoff,
    /// Retries and second requests that are paid for: one for ten requests, ten at once.
    pub budget: RetryBudget,
    /// After how long without an answer an idempotent request is made to another address, too; off
    /// by default.
    pub hedge_after: Option<Duration>,
    /// How connections are made; its addresses are not looked at. The envelope is switched on.
    pub client: ClientConfig,
}

impl Default for RequestPoolConfig {
    fn default() -> Self {
        Self {
            connections: 2,
            balancer: BalancerConfig::default(),
            breaker: Some(BreakerConfig::default()),
            retries: 2,
            backoff: Backoff {
                initial: Duration::from_millis(50),
                max: Duration::from_secs(1),
                ..Backoff::default()
            },
            budget: RetryBudget::default(),
            hedge_after: None,
            client: ClientConfig::default(),
        }
    }
}

/// What a [`RequestPool`] has done so far. Each try counts as a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RequestPoolStatistics {
    /// Connections that it keeps.
    pub connections: u64,
    /// Those that are up.
    pub connected: u64,
    /// Requests that wait for their answers.
    pub in_flight: u64,
    /// Requests that were made.
    pub requests: u64,
    /// Requests that failed, also by an error that the peer has answered with.
    pub failed: u64,
    /// Requests that were made again after a failure.
    pub retries: u64,
    /// Second requests beside one that took long.
    pub hedges: u64,
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    failed: AtomicU64,
    retries: AtomicU64,
    hedges: AtomicU64,
}

/// A pool of requests that can be looked at.
trait Observed: Send + Sync {
    fn statistics(&self) -> RequestPoolStatistics;
}

/// Looks at a [`RequestPool`] from elsewhere, as [`Observer`](crate::Observer) does.
#[derive(Clone)]
pub struct RequestPoolObserver(Weak<dyn Observed>);

impl RequestPoolObserver {
    /// What the pool has done so far; `None` when it is gone.
    #[must_use]
    pub fn statistics(&self) -> Option<RequestPoolStatistics> {
        Some(self.0.upgrade()?.statistics())
    }
}

impl std::fmt::Debug for RequestPoolObserver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestPoolObserver")
            .finish_non_exhaustive()
    }
}

impl<T: Send + Sync> Observed for Inner<T> {
    fn statistics(&self) -> RequestPoolStatistics {
        let lines = || self.addresses.iter().flat_map(|address| &address.lines);
        let connected = lines().filter(|line| line.client.state().is_connected());
        RequestPoolStatistics {
            connections: lines().count() as u64,
            connected: connected.count() as u64,
            in_flight: lines().map(|line| line.load.load(Relaxed) as u64).sum(),
            requests: self.counts.requests.load(Relaxed),
            failed: self.counts.failed.load(Relaxed),
            retries: self.counts.retries.load(Relaxed),
            hedges: self.counts.hedges.load(Relaxed),
        }
    }
}

/// One connection, and the requests that are under way over it.
struct Line<T> {
    client: Client<T>,
    load: AtomicUsize,
}

/// Counts a request as under way until it is dropped.
struct Under<'a>(&'a AtomicUsize);

impl Drop for Under<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

struct Address<T> {
    lines: Vec<Line<T>>,
    breaker: Option<CircuitBreaker>,
}

struct Inner<T> {
    config: RequestPoolConfig,
    balancer: Balancer,
    addresses: Vec<Address<T>>,
    counts: Counts,
}

/// Requests to one or several servers of the same service, many at once over each connection. Cheap
/// to clone; clones are the same pool. Connections that are lost are made again.
pub struct RequestPool<T>(Arc<Inner<T>>);

impl<T> Clone for RequestPool<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Transports> RequestPool<T> {
    /// Begins to connect to `addresses`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when there is no address, or one or a setting makes no sense.
    pub fn new<A: Into<String>>(
        addresses: impl IntoIterator<Item = A>,
        config: RequestPoolConfig,
    ) -> Result<Self> {
        let names: Vec<String> = addresses.into_iter().map(Into::into).collect();
        let balancer = Balancer::new(names.iter().map(String::as_str), config.balancer.clone())?;
        let open = |name: &String| {
            let mut client = config.client.clone();
            client.addresses = vec![name.clone()];
            client.session.envelope = true;
            let line = |_| {
                let builder = ClientBuilder::new(T::default()).config(client.clone());
                Ok(Line {
                    client: builder.start()?,
                    load: AtomicUsize::new(0),
                })
            };
            let lines = (0..config.connections.max(1)).map(line);
            Ok(Address {
                lines: lines.collect::<Result<_>>()?,
                breaker: config.breaker.clone().map(CircuitBreaker::new),
            })
        };
        let addresses = names.iter().map(open).collect::<Result<_>>()?;
        Ok(Self(Arc::new(Inner {
            balancer,
            addresses,
            counts: Counts::default(),
            config,
        })))
    }
}

impl<T> RequestPool<T> {
    /// Makes one request, once, at most for the request timeout of the session's settings. An
    /// address that is known to be down is an error at once.
    ///
    /// # Errors
    /// As [`Client::request`]; [`ErrorKind::CircuitOpen`] when the address has failed too often.
    pub async fn request(&self, message: impl Into<Message>) -> Result<Message> {
        self.0.config.budget.deposit();
        let until = Instant::now() + self.timeout();
        self.once(&self.0.balancer.choose(), message.into(), until)
            .await
    }

    /// Makes a request that may be carried out twice without harm: when it fails in a way that can
    /// pass it is made again, at another address where there is one, as often as the settings and
    /// the budget allow and within the same request timeout in all.
    ///
    /// # Errors
    /// As [`request`](Self::request), of the last try.
    pub async fn request_idempotent(&self, message: impl Into<Message>) -> Result<Message> {
        let message = message.into();
        let config = &self.0.config;
        config.budget.deposit();
        let until = Instant::now() + self.timeout();
        let mut choice = self.0.balancer.choose();
        let mut tries = 0;
        loop {
            let error = match self.hedged(&choice, &message, until).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            tries += 1;
            let delay = config.backoff.delay(tries);
            let late = delay >= until.saturating_duration_since(Instant::now());
            // what the peer has answered is its answer
            let passes = error.can_retry() && error.remote_code().is_none();
            if !passes || late || tries > config.retries || !config.budget.withdraw() {
                return Err(error);
            }
            self.0.counts.retries.fetch_add(1, Relaxed);
            sleep(delay).await;
            choice = self.0.balancer.choose_other(Some(&choice));
        }
    }

    /// What it has done so far.
    #[must_use]
    pub fn statistics(&self) -> RequestPoolStatistics
    where
        T: Send + Sync,
    {
        Observed::statistics(&*self.0)
    }

    /// Looks at this pool from elsewhere, without keeping it alive.
    #[must_use]
    pub fn observer(&self) -> RequestPoolObserver
    where
        T: Send + Sync + 'static,
    {
        let weak: Weak<Inner<T>> = Arc::downgrade(&self.0);
        RequestPoolObserver(weak)
    }

    /// What chooses among the addresses.
    #[must_use]
    pub fn balancer(&self) -> &Balancer {
        &self.0.balancer
    }

    fn timeout(&self) -> Duration {
        let year = Duration::from_secs(365 * 24 * 3600);
        self.0.config.client.session.request_timeout.min(year)
    }

    /// One try, with a second one beside it where the first takes long; the slower one is cancelled.
    async fn hedged(&self, choice: &Choice, message: &Message, until: Instant) -> Result<Message> {
        let first = self.once(choice, message.clone(), until);
        let Some(after) = self.0.config.hedge_after else {
            return first.await;
        };
        let mut first = std::pin::pin!(first);
        if let Ok(result) = timeout(after, &mut first).await {
            return result;
        }
        if !self.0.config.budget.withdraw() {
            return first.await;
        }
        self.0.counts.hedges.fetch_add(1, Relaxed);
        let other = self.0.balancer.choose_other(Some(choice));
        let mut second = std::pin::pin!(self.once(&other, message.clone(), until));
        tokio::select! {
            result = &mut first => match result {
                Ok(answer) => Ok(answer),
                Err(_) => second.await,
            },
            result = &mut second => match result {
                Ok(answer) => Ok(answer),
                Err(_) => first.await,
            },
        }
    }

    async fn once(&self, choice: &Choice, message: Message, until: Instant) -> Result<Message> {
        let address = &self.0.addresses[choice.index()];
        let permit = address.breaker.as_ref().map(CircuitBreaker::admit);
        let permit = permit.transpose()?;
        let counts = &self.0.counts;
        counts.requests.fetch_add(1, Relaxed);
        let result = address.request(message, until).await;
        counts.failed.fetch_add(u64::from(result.is_err()), Relaxed);
        let good = match &result {
            Ok(_) => Some(true),
            // an answer is a sign of life
            Err(error) if error.remote_code().is_some() => Some(true),
            Err(error) => CircuitBreaker::counts(error).then_some(false),
        };
        if let Some(good) = good {
            choice.report(good);
        }
        if let Some(permit) = permit {
            permit.ended(good);
        }
        result
    }
}

impl<T> Address<T> {
    /// Over the least loaded connection; over one that is not known to be down if there is one.
    async fn request(&self, message: Message, until: Instant) -> Result<Message> {
        let up = self.lines.iter().filter(|line| line.down().is_none());
        let Some(line) = up.min_by_key(|line| line.load.load(Relaxed)) else {
            let down = self.lines.first().and_then(Line::down);
            let unknown = || Error::new(ErrorKind::ConnectionFailed, "send a request");
            return Err(down.unwrap_or_else(unknown));
        };
        line.load.fetch_add(1, Relaxed);
        let _under = Under(&line.load);
        let left = until.saturating_duration_since(Instant::now());
        line.client.request_within(message, left).await
    }
}

impl<T> Line<T> {
    /// Why there is no connection, when one was tried for and failed.
    fn down(&self) -> Option<Error> {
        let failed = || Error::new(ErrorKind::ConnectionFailed, "send a request");
        match self.client.state() {
            ClientState::Waiting { error, .. } | ClientState::Closed(error) => {
                Some(error.unwrap_or_else(failed))
            }
            ClientState::Connecting { failures } if failures > 0 => Some(failed()),
            _ => None,
        }
    }
}

impl<T> std::fmt::Debug for RequestPool<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestPool")
            .field("addresses", &self.0.addresses.len())
            .finish_non_exhaustive()
    }
}
