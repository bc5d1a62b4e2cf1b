//! Holds calls back from what keeps failing: [`CircuitBreaker`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result, Side};
use crate::sync::{Mutex, lock};

/// When a [`CircuitBreaker`] opens, and how it closes again.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BreakerConfig {
    /// Failures in a row that open it: 5.
    pub failures: u32,
    /// The share of failures that opens it, over the last [`window`](Self::window) calls; off by
    /// default.
    pub failure_rate: Option<f64>,
    /// How many calls the failure rate looks at: 100, at least as many as have been made.
    pub window: usize,
    /// How long it stays open: 30 s.
    pub open_for: Duration,
    /// Calls at once that are let through when it has been open for long enough, and successes
    /// that close it: 2.
    pub probes: u32,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            failures: 5,
            failure_rate: None,
            window: 100,
            open_for: Duration::from_secs(30),
            probes: 2,
        }
    }
}

/// What a [`CircuitBreaker`] does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// It lets them through.
    Closed,
    /// It refuses them.
    Open,
    /// It lets a few through, to see whether they succeed.
    HalfOpen,
}

/// What a [`CircuitBreaker`] has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BreakerStatistics {
    /// Calls that succeeded, and connections of a client that proved themselves.
    pub successes: u64,
    /// Calls that failed in a way that counts, and connects of a client that did.
    pub failures: u64,
    /// Calls that were refused.
    pub refused: u64,
    /// How often it opened.
    pub opened: u64,
}

/// What decides, without a clock and without watchers, so that loom can explore it.
struct Core {
    state: BreakerState,
    /// Grows with each change of the state: what was let in before says nothing about now.
    phase: u64,
    until: Instant,
    /// When a call was last asked for.
    asked: Instant,
    in_row: u32,
    recent: VecDeque<bool>,
    probing: u32,
    succeeded: u32,
    statistics: BreakerStatistics,
}

impl Core {
    fn new(now: Instant) -> Self {
        Self {
            state: BreakerState::Closed,
            phase: 0,
            until: now,
            asked: now,
            in_row: 0,
            recent: VecDeque::new(),
            probing: 0,
            succeeded: 0,
            statistics: BreakerStatistics::default(),
        }
    }

    fn enter(&mut self, state: BreakerState) {
        self.state = state;
        self.phase += 1;
        self.in_row = 0;
        self.recent.clear();
        self.probing = 0;
        self.succeeded = 0;
    }

    /// The phase that a call belongs to, or for how long there is none.
    fn admit(&mut self, config: &BreakerConfig, now: Instant) -> Result<u64, Duration> {
        self.asked = now;
        if self.state == BreakerState::Open && now >= self.until {
            self.enter(BreakerState::HalfOpen);
        }
        match self.state {
            BreakerState::Closed => Ok(self.phase),
            // together with those that succeeded: never more than it needs
            BreakerState::HalfOpen if self.probing + self.succeeded < config.probes.max(1) => {
                self.probing += 1;
                Ok(self.phase)
            }
            _ => {
                self.statistics.refused += 1;
                Err(self.until.saturating_duration_since(now))
            }
        }
    }

    /// For how long what is no call is to be refused, where it is.
    fn pass(&mut self, now: Instant) -> Result<(), Duration> {
        if self.state == BreakerState::Open && now < self.until {
            self.statistics.refused += 1;
            return Err(self.until.saturating_duration_since(now));
        }
        Ok(())
    }

    /// A call has ended: well, badly, or (`None`) in a way that says nothing.
    fn ended(&mut self, config: &BreakerConfig, phase: u64, good: Option<bool>, now: Instant) {
        self.count(good);
        if phase != self.phase {
            return;
        }
        if self.state == BreakerState::HalfOpen {
            self.probing = self.probing.saturating_sub(1);
        }
        self.learn(config, good, now);
    }

    /// Something beside calls shows now how the other side is. That it is there again ends the wait;
    /// it is `enough` to close where no call will come to show more.
    fn seen(&mut self, config: &BreakerConfig, good: bool, enough: bool, now: Instant) {
        self.count(Some(good));
        match (self.state, good) {
            (BreakerState::Open, false) => {
                // still nobody there: who only sends goes on to fail at once
                if now >= self.until {
                    self.extend(config, now);
                }
                return;
            }
            (BreakerState::Open, true) => self.enter(BreakerState::HalfOpen),
            _ => {}
        }
        if enough && self.state == BreakerState::HalfOpen && good {
            self.enter(BreakerState::Closed);
        }
        self.learn(config, Some(good), now);
    }

    fn count(&mut self, good: Option<bool>) {
        match good {
            Some(true) => self.statistics.successes += 1,
            Some(false) => self.statistics.failures += 1,
            None => {}
        }
    }

    /// What a result means for the state.
    fn learn(&mut self, config: &BreakerConfig, good: Option<bool>, now: Instant) {
        match (self.state, good) {
            (BreakerState::HalfOpen, Some(true)) => {
                self.succeeded += 1;
                if self.succeeded >= config.probes.max(1) {
                    self.enter(BreakerState::Closed);
                }
            }
            (BreakerState::HalfOpen, Some(false)) => self.open(config, now),
            (BreakerState::Closed, Some(good)) => {
                self.in_row = if good {
                    0
                } else {
                    self.in_row.saturating_add(1)
                };
                let rate = self.note(config, good);
                if self.in_row >= config.failures.max(1) || rate {
                    self.open(config, now);
                }
            }
            _ => {}
        }
    }

    /// Whether too many of the last calls have failed.
    fn note(&mut self, config: &BreakerConfig, good: bool) -> bool {
        let Some(rate) = config.failure_rate else {
            return false;
        };
        let window = config.window.max(1);
        while self.recent.len() >= window {
            self.recent.pop_front();
        }
        self.recent.push_back(good);
        let failed = self.recent.iter().filter(|good| !**good).count();
        self.recent.len() == window && failed as f64 >= rate * window as f64 && failed > 0
    }

    fn open(&mut self, config: &BreakerConfig, now: Instant) {
        self.enter(BreakerState::Open);
        self.statistics.opened += 1;
        self.extend(config, now);
    }

    /// Stays open from now on for as long as it does.
    fn extend(&mut self, config: &BreakerConfig, now: Instant) {
        // what cannot be said is a year
        let year = Duration::from_secs(365 * 24 * 3600);
        self.until = now + config.open_for.min(year);
    }
}

struct Inner {
    config: BreakerConfig,
    core: Mutex<Core>,
    /// Whether it is closed, for those who need not know it to the moment.
    closed: AtomicBool,
    watch: watch::Sender<BreakerState>,
}

/// Refuses calls with [`ErrorKind::CircuitOpen`] for a while after several failures in a row, then
/// lets a few through and closes when they succeed. Cheap to clone; clones share their state.
///
/// ```
/// use network_system_core::{BreakerConfig, CircuitBreaker};
///
/// # async fn run() -> network_system_core::Result<()> {
/// let breaker = CircuitBreaker::new(BreakerConfig::default());
/// let answer = breaker.call(async { Ok(42) }).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct CircuitBreaker(Arc<Inner>);

/// One call that a [`CircuitBreaker`] has let through. Dropped without a result, as when a call is
/// cancelled, it says nothing about the other side.
pub struct BreakerPermit {
    breaker: CircuitBreaker,
    phase: u64,
    done: bool,
}

impl CircuitBreaker {
    /// A closed one.
    #[must_use]
    pub fn new(config: BreakerConfig) -> Self {
        Self(Arc::new(Inner {
            config,
            core: Mutex::new(Core::new(Instant::now())),
            closed: AtomicBool::new(true),
            watch: watch::Sender::new(BreakerState::Closed),
        }))
    }

    /// Whether `error` says that the other side is unwell: it is the peer's or the network's, can
    /// be retried, and is not the peer's answer to a request.
    #[must_use]
    pub fn counts(error: &Error) -> bool {
        error.side() != Side::Ours && error.can_retry() && error.remote_code().is_none()
    }

    /// Does `work` unless it is open; [`counts`](Self::counts) decides which errors count.
    ///
    /// # Errors
    /// [`ErrorKind::CircuitOpen`] when it is open; else those of `work`.
    pub async fn call<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.call_if(work, Self::counts).await
    }

    /// As [`call`](Self::call); `counts` decides which errors count.
    ///
    /// # Errors
    /// As `call`.
    pub async fn call_if<T>(
        &self,
        work: impl Future<Output = Result<T>>,
        counts: impl FnOnce(&Error) -> bool,
    ) -> Result<T> {
        let permit = self.admit()?;
        let result = work.await;
        permit.ended(match &result {
            Ok(_) => Some(true),
            Err(error) => counts(error).then_some(false),
        });
        result
    }

    /// Lets one call through, whose result is told to the permit.
    ///
    /// # Errors
    /// [`ErrorKind::CircuitOpen`].
    pub fn admit(&self) -> Result<BreakerPermit> {
        let admitted = self.change(|core, config| core.admit(config, Instant::now()));
        let phase = admitted.map_err(refusal)?;
        Ok(BreakerPermit {
            breaker: self.clone(),
            phase,
            done: false,
        })
    }

    /// Whether a result says that the other side is well; `None` when it says nothing.
    pub(crate) fn verdict<T>(result: &Result<T>) -> Option<bool> {
        match result {
            Ok(_) => Some(true),
            // an answer is a sign of life
            Err(error) if error.remote_code().is_some() => Some(true),
            Err(error) => Self::counts(error).then_some(false),
        }
    }

    /// Lets through what is no call, unless it is open. Costs next to nothing when it is closed.
    ///
    /// # Errors
    /// [`ErrorKind::CircuitOpen`].
    #[inline]
    pub(crate) fn pass(&self) -> Result<()> {
        if self.0.closed.load(Relaxed) {
            return Ok(());
        }
        self.pass_slowly()
    }

    #[cold]
    fn pass_slowly(&self) -> Result<()> {
        let passed = self.change(|core, _| core.pass(Instant::now()));
        passed.map_err(refusal)
    }

    /// Waits until it is open, and says so.
    pub(crate) async fn opened(&self) -> Error {
        let mut states = self.watch();
        loop {
            states.borrow_and_update();
            {
                let core = lock(&self.0.core);
                if core.state == BreakerState::Open {
                    return refusal(core.until.saturating_duration_since(Instant::now()));
                }
            }
            if states.changed().await.is_err() {
                // which it is not, as long as it can be asked
                std::future::pending::<()>().await;
            }
        }
    }

    /// The other side has been reached beside all calls; `calls` whether there may be any.
    pub(crate) fn reached(&self, calls: bool) {
        self.change(|core, config| core.seen(config, true, !calls, Instant::now()));
    }

    /// The other side could not be reached.
    pub(crate) fn not_reached(&self) {
        self.change(|core, config| core.seen(config, false, false, Instant::now()));
    }

    fn change<R>(&self, change: impl FnOnce(&mut Core, &BreakerConfig) -> R) -> R {
        let inner = &*self.0;
        let mut core = lock(&inner.core);
        let before = core.phase;
        let result = change(&mut core, &inner.config);
        let changed = core.phase != before;
        let closed = core.state == BreakerState::Closed;
        if changed {
            inner.closed.store(closed, Relaxed);
        }
        drop(core);
        if changed {
            // read again under the watch's lock: the last to send sends what is last
            inner.watch.send_modify(|state| {
                *state = lock(&inner.core).state;
                tracing::info!(state = ?*state, "circuit breaker");
            });
        }
        result
    }

    /// What it does with calls. One that has been open for long enough stays open until the next
    /// call.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        lock(&self.0.core).state
    }

    /// Whether a call would be refused now because it is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let core = lock(&self.0.core);
        core.state == BreakerState::Open && Instant::now() < core.until
    }

    /// Every change of the [state](Self::state); may skip states that pass quickly.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<BreakerState> {
        self.0.watch.subscribe()
    }

    /// What it has seen so far.
    #[must_use]
    pub fn statistics(&self) -> BreakerStatistics {
        lock(&self.0.core).statistics
    }

    /// Whether it may be forgotten: nobody has asked for twice the time that it would stay open.
    pub(crate) fn is_stale(&self) -> bool {
        let unused = lock(&self.0.core).asked.elapsed();
        unused > self.0.config.open_for.saturating_mul(2)
    }
}

impl From<BreakerConfig> for CircuitBreaker {
    fn from(config: BreakerConfig) -> Self {
        Self::new(config)
    }
}

#[cold]
fn refusal(wait: Duration) -> Error {
    let why = if wait.is_zero() {
        "it is being probed".to_owned()
    } else {
        format!("it is tried again in {wait:.1?}")
    };
    Error::new(ErrorKind::CircuitOpen, "make a call").because(why)
}

impl std::fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CircuitBreaker")
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl BreakerPermit {
    /// The call ended well (`Some(true)`), badly, or in a way that says nothing (`None`).
    pub fn ended(mut self, good: Option<bool>) {
        self.finish(good);
    }

    fn finish(&mut self, good: Option<bool>) {
        if !std::mem::replace(&mut self.done, true) {
            let phase = self.phase;
            self.breaker
                .change(|core, config| core.ended(config, phase, good, Instant::now()));
        }
    }
}

impl Drop for BreakerPermit {
    fn drop(&mut self) {
        self.finish(None);
    }
}

#[cfg(all(test, not(network_system_loom)))]
mod tests;

#[cfg(all(test, network_system_loom))]
mod loom_models;
