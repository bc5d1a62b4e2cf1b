//! Many callers' requests over a few connections to several servers: [`RequestPool`].

use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::gate::Gate;
use super::lines::Address;
use super::statistics::{Counters, RequestPoolStatistics, Try};
use super::{Balancer, BalancerConfig, BreakerConfig, Choice, CircuitBreaker, RetryBudget};
use crate::client::{Client, YEAR};
use crate::config::{Backoff, ClientConfig};
use crate::error::{Error, ErrorKind, Result, Side};
use crate::link::Transports;
use crate::message::Message;

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

impl<T> Inner<T> {
    fn look(&self) -> RequestPoolStatistics {
        let ejected = self.balancer.are_ejected();
        let all = self.addresses.iter().zip(ejected);
        let addresses = all.map(|(address, ejected)| address.statistics(ejected));
        let in_use = self.gate.inside();
        self.counters.snapshot(in_use, addresses.collect())
    }
}

impl<T: Send + Sync> Observed for Inner<T> {
    fn statistics(&self) -> RequestPoolStatistics {
        self.look()
    }
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

struct Inner<T> {
    config: RequestPoolConfig,
    balancer: Balancer,
    addresses: Vec<Address<T>>,
    gate: Gate,
    counters: Counters,
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
        let open = |name: &String| Address::open(name, &config);
        let addresses = names.iter().map(open).collect::<Result<_>>()?;
        Ok(Self(Arc::new(Inner {
            balancer,
            addresses,
            config,
            gate: Gate::new(),
            counters: Counters::default(),
        })))
    }
}

impl<T> RequestPool<T> {
    /// Makes one request, once, at most for the request timeout of the session's settings. An
    /// address that is known to be down is an error at once.
    ///
    /// # Errors
    /// As [`Client::request`]; [`ErrorKind::CircuitOpen`] when the address has failed too often,
    /// [`ErrorKind::ConnectionClosed`] when the pool is closed.
    pub async fn request(&self, message: impl Into<Message>) -> Result<Message> {
        let message = message.into();
        self.counted(async |until| {
            let choice = self.0.balancer.choose();
            self.once(&choice, message, until, Try::First).await
        })
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
        self.counted(async |until| self.again_and_again(&message, until).await)
            .await
    }

    /// Does what a request needs, unless the pool is closed, and counts it.
    async fn counted(&self, work: impl AsyncFnOnce(Instant) -> Result<Message>) -> Result<Message> {
        let counters = &self.0.counters;
        counters.requests.fetch_add(1, Relaxed);
        let Some(_inside) = self.0.gate.enter() else {
            counters.failures.fetch_add(1, Relaxed);
            counters.refused.fetch_add(1, Relaxed);
            return Err(closed());
        };
        self.0.config.budget.deposit();
        let result = work(Instant::now() + self.timeout()).await;
        if let Err(error) = &result
            && error.remote_code().is_none()
        {
            let refused = error.kind() == ErrorKind::CircuitOpen;
            counters.failures.fetch_add(1, Relaxed);
            counters
                .timeouts
                .fetch_add(error.is_timeout().into(), Relaxed);
            counters.refused.fetch_add(refused.into(), Relaxed);
        }
        result
    }

    async fn again_and_again(&self, message: &Message, until: Instant) -> Result<Message> {
        let config = &self.0.config;
        let mut choice = self.0.balancer.choose();
        let mut tries = 0;
        let mut why = Try::First;
        loop {
            let error = match self.hedged(&choice, message, until, why).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let delay = config.backoff.delay(tries);
            tries += 1;
            let late = delay >= until.saturating_duration_since(Instant::now());
            // what the peer has answered is its answer
            let passes = error.can_retry() && error.remote_code().is_none();
            if !passes || late || tries > config.retries || !config.budget.withdraw() {
                return Err(error);
            }
            sleep(delay).await;
            choice = self.0.balancer.choose_other(Some(&choice));
            why = Try::Again;
        }
    }

    /// Takes no more requests, waits until those that were made have their answer or have failed
    /// (retries included), at most for `deadline`, and closes the connections; that ends what has no
    /// answer by then. Whether everything had. The pool stays closed when this is dropped; what was
    /// asked goes on then, and the connections end with the last handle.
    pub async fn close(&self, deadline: Duration) -> bool {
        let inner = &*self.0;
        inner.gate.close();
        let until = Instant::now() + deadline.min(YEAR);
        let emptied = timeout(deadline.min(YEAR), inner.gate.emptied()).await;
        let lines = inner.addresses.iter().flat_map(|address| &address.lines);
        let clients: Vec<_> = lines.map(|line| &line.client).collect();
        let left = until.saturating_duration_since(Instant::now());
        Client::close_all(&clients, left).await;
        emptied.is_ok()
    }

    /// What the pool holds and has done, by address, too. It asks every connection and takes a few
    /// locks for a moment.
    #[must_use]
    pub fn statistics(&self) -> RequestPoolStatistics {
        self.0.look()
    }

    /// The circuit breaker of `url`, where breakers are [on](RequestPoolConfig::breaker) and it is one
    /// of the pool's addresses.
    #[must_use]
    pub fn breaker(&self, url: &str) -> Option<CircuitBreaker> {
        let mut all = self.0.addresses.iter();
        all.find(|address| &*address.name == url)?.breaker.clone()
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
        self.0.config.client.session.request_timeout.min(YEAR)
    }

    /// One try, with a second one beside it where the first takes long; the slower one is cancelled.
    async fn hedged(
        &self,
        choice: &Choice,
        message: &Message,
        until: Instant,
        why: Try,
    ) -> Result<Message> {
        let first = self.once(choice, message.clone(), until, why);
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
        let other = self.0.balancer.choose_other(Some(choice));
        let mut second = std::pin::pin!(self.once(&other, message.clone(), until, Try::Beside));
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

    async fn once(
        &self,
        choice: &Choice,
        message: Message,
        until: Instant,
        why: Try,
    ) -> Result<Message> {
        let address = &self.0.addresses[choice.index()];
        address.tries.make(why);
        let permit = address.breaker.as_ref().map(CircuitBreaker::admit);
        let permit = permit.transpose().inspect_err(|_| address.failed())?;
        let left = until.saturating_duration_since(Instant::now());
        let result = address.request(message, left).await;
        let good = match &result {
            // one that had less than half of the time is not to blame
            Err(error) if error.is_timeout() && left < self.timeout() / 2 => None,
            result => CircuitBreaker::verdict(result),
        };
        if result
            .as_ref()
            .is_err_and(|error| error.remote_code().is_none())
        {
            address.failed();
        }
        if let Some(good) = good {
            choice.report(good);
        }
        if let Some(permit) = permit {
            permit.ended(good);
        }
        result
    }
}

#[cold]
fn closed() -> Error {
    let error = Error::new(ErrorKind::ConnectionClosed, "send a request");
    error.because("the pool is closed").blame(Side::Ours)
}

impl<T> std::fmt::Debug for RequestPool<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestPool")
            .field("addresses", &self.0.addresses.len())
            .finish_non_exhaustive()
    }
}
