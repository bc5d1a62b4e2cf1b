//! Lends connections that stay open between uses: [`ConnectionPool`].

mod config;
mod guard;
mod slots;

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use config::{PoolConfig, PoolStatistics};
pub use guard::PooledConnection;

use crate::address::Address;
use crate::connection::Connection;
use crate::error::{Error, ErrorKind, Result, Side};
use crate::link::Transports;
use crate::resilience::CircuitBreaker;
use crate::statistics::{ObservedPool, PoolObserver};
use config::Counters;
use guard::{Discard, Held, Idle, Kept, Permit, hold, is_usable, let_go};
use slots::{Got, Limits, Refused, Slots};

/// Connections by URL, lent one at a time to whoever asks first. Cheap to clone; clones are the same
/// pool.
///
/// A connection is lent exclusively; dropping its guard returns it. One that the peer has closed or
/// that holds what nobody has read is discarded instead.
pub struct ConnectionPool<T: Transports>(Arc<Inner<T>>);

/// What the pool, its guards and its task share.
struct Inner<T: Transports> {
    transports: T,
    config: PoolConfig,
    slots: Slots<Kept<T::Link>>,
    counters: Counters,
    breakers: Mutex<HashMap<Arc<str>, CircuitBreaker>>,
    warm: Mutex<HashMap<Arc<str>, usize>>,
    /// Something has been returned or discarded, for who closes the pool.
    returned: Notify,
    /// Ends the background task; cancelled, too, when the last handle is dropped.
    closed: CancellationToken,
    runtime: Handle,
}

impl<T: Transports> ObservedPool for Inner<T> {
    fn statistics(&self) -> PoolStatistics {
        self.counters.snapshot(self.slots.level())
    }
}

/// A place in the queue, given up on drop.
struct Ticket<'a, T: Transports> {
    inner: &'a Inner<T>,
    ticket: Option<u64>,
}

impl<T: Transports> Drop for Ticket<'_, T> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.inner.evicted(self.inner.slots.leave(ticket));
        }
    }
}

impl<T: Transports> ConnectionPool<T> {
    /// A pool over the default transports. Its background task runs on the caller's runtime.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when a setting makes no sense, [`ErrorKind::NotInitialized`]
    /// outside of a tokio runtime.
    pub fn new(config: PoolConfig) -> Result<Self> {
        Self::over(T::default(), config)
    }

    /// As [`new`](Self::new), over these transports.
    ///
    /// # Errors
    /// As `new`.
    pub fn over(transports: T, config: PoolConfig) -> Result<Self> {
        config.validate()?;
        let runtime = Handle::try_current().map_err(|error| {
            Error::new(ErrorKind::NotInitialized, "make a connection pool").because(error)
        })?;
        let inner = Arc::new(Inner {
            slots: Slots::new(Limits {
                per_key: config.max_per_address,
                total: config.max_total,
                waiting: config.max_waiting,
            }),
            transports,
            config,
            counters: Counters::default(),
            breakers: Mutex::default(),
            warm: Mutex::default(),
            returned: Notify::new(),
            closed: CancellationToken::new(),
            runtime: runtime.clone(),
        });
        let closed = inner.closed.clone();
        runtime.spawn(keep(Arc::downgrade(&inner), closed));
        Ok(Self(inner))
    }

    /// A connection to `url`, at most after [`acquire_timeout`](PoolConfig::acquire_timeout) (5 s).
    /// Who waits is served in the order of the calls. Cancel-safe: a call that is dropped leaves its
    /// place, and what it had been given, to the next.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when none was free in time and [`ErrorKind::ConnectionTimeout`] when
    /// connecting took too long; [`ErrorKind::QueueFull`] when too many wait,
    /// [`ErrorKind::CircuitOpen`] when the address has failed too often,
    /// [`ErrorKind::ConnectionClosed`] when the pool is closed, else why connecting failed.
    pub async fn acquire(&self, url: &str) -> Result<PooledConnection<T>> {
        self.acquire_within(url, self.0.config.acquire_timeout)
            .await
    }

    /// As [`acquire`](Self::acquire), with a deadline.
    ///
    /// # Errors
    /// As `acquire`.
    pub async fn acquire_within(
        &self,
        url: &str,
        deadline: Duration,
    ) -> Result<PooledConnection<T>> {
        let late = |error: Error| {
            self.0.counters.timeouts.fetch_add(1, Relaxed);
            error
        };
        let started = Instant::now();
        let (permit, held) = tokio::time::timeout(deadline, self.place(url))
            .await
            .map_err(|_| late(none_free(url, deadline)))??;
        let held = match held {
            Some(held) => held,
            None => {
                let left = deadline.saturating_sub(started.elapsed());
                let connecting = self.0.connect(permit.key(), Some((left, deadline)));
                let made = self.0.closed.run_until_cancelled(connecting).await;
                let made = made.ok_or_else(|| refusal(url, Refused::Closed))?;
                made.map_err(|error| match error.kind() {
                    ErrorKind::ConnectionTimeout => late(error),
                    _ => error,
                })?
            }
        };
        self.0.counters.acquired.fetch_add(1, Relaxed);
        Ok(PooledConnection::new(permit, held))
    }

    /// Waits for an idle connection that is well, or for room for a new one.
    async fn place(&self, url: &str) -> Result<(Permit<T>, Option<Held<T::Link>>)> {
        let inner = &self.0;
        let key: Arc<str> = url.into();
        let refused = |refused| refusal(url, refused);
        let (ticket, evicted) = inner.slots.enter(&key).map_err(refused)?;
        let mut place = Ticket {
            inner,
            ticket: Some(ticket),
        };
        inner.evicted(evicted);
        let got = poll_fn(|cx| inner.slots.poll(ticket, cx.waker())).await;
        place.ticket = None;
        let got = got.map_err(refused)?;
        let permit = Permit::new(inner.clone(), key.clone());
        if let Got::Item(kept) = got {
            let mut held = hold(kept).await;
            match inner.check(&mut held).await {
                None => return Ok((permit, Some(held))),
                Some(why) => inner.counters.discarded(why),
            }
        }
        Ok((permit, None))
    }

    /// Keeps at least `connections` to `url` open, idle or in use; 0 ends that. Opened in the
    /// background, within the pool's limits and never ahead of who waits.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when `url` is no address.
    pub fn keep_warm(&self, url: &str, connections: usize) -> Result<()> {
        let _: Address = url.parse()?;
        let key: Arc<str> = url.into();
        let mut warm = lock_std(&self.0.warm);
        match connections {
            0 => drop(warm.remove(&key)),
            _ => drop(warm.insert(key.clone(), connections)),
        }
        drop(warm);
        self.0.warm_up(&key, connections);
        Ok(())
    }

    /// What the pool holds and has done.
    #[must_use]
    pub fn statistics(&self) -> PoolStatistics {
        self.0.counters.snapshot(self.0.slots.level())
    }

    /// Looks at this pool from elsewhere, without keeping it alive.
    #[must_use]
    pub fn observer(&self) -> PoolObserver {
        let weak: Weak<Inner<T>> = Arc::downgrade(&self.0);
        PoolObserver::new(weak)
    }

    /// The circuit breaker of `url`, where breakers are [on](PoolConfig::breaker). Connecting is
    /// what it watches.
    #[must_use]
    pub fn breaker(&self, url: &str) -> Option<CircuitBreaker> {
        self.0.breaker(&url.into())
    }

    /// Hands out nothing more, closes what is idle, and waits until everything that is lent has come
    /// back, at most for `deadline`. Whether everything has; what has not is discarded when it does.
    /// Calls that wait, or connect, fail at once. It stays closed when this is dropped.
    pub async fn close(&self, deadline: Duration) -> bool {
        self.0.closed.cancel();
        for idle in self.0.slots.close() {
            self.0.counters.discarded(Discard::Closed);
            drop(idle);
        }
        let drained = async {
            loop {
                let returned = self.0.returned.notified();
                tokio::pin!(returned);
                returned.as_mut().enable();
                if self.0.slots.level().open == 0 {
                    return;
                }
                returned.await;
            }
        };
        tokio::time::timeout(deadline, drained).await.is_ok()
    }
}

impl<T: Transports> Clone for ConnectionPool<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Transports> fmt::Debug for ConnectionPool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConnectionPool")
            .field(&self.statistics())
            .finish()
    }
}

impl<T: Transports> Drop for Inner<T> {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

impl<T: Transports> Inner<T> {
    /// Drops what had to make room.
    fn evicted(&self, evicted: Vec<Kept<T::Link>>) {
        for idle in evicted {
            let why = if self.slots.is_closed() {
                Discard::Closed
            } else {
                Discard::Evicted
            };
            self.counters.discarded(why);
            drop(idle);
        }
    }

    /// Why an idle connection must not be lent, where it must not.
    async fn check(&self, idle: &mut Idle<T::Link>) -> Option<Discard> {
        let now = Instant::now();
        if let Some(why) = idle.is_over(&self.config, now) {
            return Some(why);
        }
        // a connection that has used up its turn would look healthy
        let usable = poll_fn(|cx| std::task::Poll::Ready(is_usable(&mut idle.connection, cx)));
        let usable = tokio::task::unconstrained(usable).await;
        (!usable).then_some(Discard::Broken)
    }

    fn breaker(&self, key: &Arc<str>) -> Option<CircuitBreaker> {
        let config = self.config.breaker.as_ref()?;
        let mut breakers = lock_std(&self.breakers);
        let new = || CircuitBreaker::new(config.clone());
        Some(breakers.entry(key.clone()).or_insert_with(new).clone())
    }

    /// Connects, within what is left of a deadline where there is one. A peer that had less than
    /// half of that deadline is not blamed.
    async fn connect(
        &self,
        key: &Arc<str>,
        within: Option<(Duration, Duration)>,
    ) -> Result<Held<T::Link>> {
        // not a failure of the peer's, and no reason to remember it
        let _: Address = key.parse()?;
        let connecting = async {
            let open = Connection::open_with(&self.transports, key, &self.config.client);
            let Some((left, deadline)) = within else {
                return open.await;
            };
            let opened = tokio::time::timeout(left, open).await;
            opened.unwrap_or_else(|_| Err(too_slow(key, left, left < deadline / 2)))
        };
        let connection = match self.breaker(key) {
            Some(breaker) => breaker.call(connecting).await,
            None => connecting.await,
        };
        match connection {
            Ok(connection) => {
                self.counters.created.fetch_add(1, Relaxed);
                let idle = Idle::new(connection, &self.config);
                Ok(hold(Arc::new(idle.into())).await)
            }
            Err(error) => {
                self.counters.failed.fetch_add(1, Relaxed);
                Err(error)
            }
        }
    }

    /// Opens what is missing, each connection on its own.
    fn warm_up(self: &Arc<Self>, key: &Arc<str>, least: usize) {
        while self.slots.reserve(key, least) {
            let mut permit = Permit::new(self.clone(), key.clone());
            self.runtime.spawn(async move {
                let connecting = permit.inner().connect(permit.key(), None);
                let made = permit.inner().closed.run_until_cancelled(connecting).await;
                match made {
                    Some(Ok(held)) => permit.put(let_go(held)),
                    Some(Err(error)) => tracing::debug!(%error, "a warm connection failed"),
                    None => {}
                }
            });
        }
    }

    /// Looks at every idle connection: closes those that are over, answers and sends pings.
    async fn look_after(self: &Arc<Self>) {
        // all have their permits first: dropped in the middle, this loses none
        let own = |(key, kept)| (kept, Permit::new(self.clone(), key));
        let due: Vec<_> = self.slots.take_idle().into_iter().map(own).collect();
        for (kept, mut permit) in due {
            let mut held = hold(kept).await;
            match self.check(&mut held).await {
                None => permit.put(let_go(held)),
                Some(why) => self.counters.discarded(why),
            }
        }
        let warm: Vec<_> = lock_std(&self.warm)
            .iter()
            .map(|(key, least)| (key.clone(), *least))
            .collect();
        for (key, least) in warm {
            self.warm_up(&key, least);
        }
        lock_std(&self.breakers)
            .retain(|key, breaker| self.slots.knows(key) || !breaker.is_stale());
    }
}

/// The pool's background task: until the pool is closed or nobody has it any more.
async fn keep<T: Transports>(inner: Weak<Inner<T>>, closed: CancellationToken) {
    loop {
        let Some(interval) = inner.upgrade().map(|inner| inner.config.check_interval) else {
            return;
        };
        tokio::select! {
            () = closed.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        match inner.upgrade() {
            Some(inner) => inner.look_after().await,
            None => return,
        }
    }
}

fn lock_std<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cold]
fn refusal(url: &str, refused: Refused) -> Error {
    let (kind, why) = match refused {
        Refused::Closed => (ErrorKind::ConnectionClosed, "the pool is closed"),
        Refused::TooManyWaiters => (ErrorKind::QueueFull, "too many wait for a connection"),
    };
    let error = Error::new(kind, "acquire a connection to").peer(url);
    error.because(why).blame(Side::Ours)
}

#[cold]
fn too_slow(url: &str, left: Duration, ours: bool) -> Error {
    let error = Error::new(ErrorKind::ConnectionTimeout, "acquire a connection to")
        .peer(url)
        .because(format_args!("no connection within {left:?}"));
    if ours { error.blame(Side::Ours) } else { error }
}

#[cold]
fn none_free(url: &str, deadline: Duration) -> Error {
    Error::new(ErrorKind::Timeout, "acquire a connection to")
        .peer(url)
        .because(format_args!("none was free within {deadline:?}"))
        .advice("a larger pool, or connections held for less time")
        .blame(Side::Ours)
}
