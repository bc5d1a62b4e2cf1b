//! Which of several addresses is next: [`Balancer`].

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result};

/// How a [`Balancer`] chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Balance {
    /// One after the other.
    RoundRobin,
    /// The one with the fewest calls under way.
    LeastLoaded,
    /// The less loaded of two random ones: nearly as even, and callers that know nothing of each
    /// other do not all choose the same.
    #[default]
    TwoChoices,
}

/// How a [`Balancer`] chooses, and when it leaves an address out.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BalancerConfig {
    /// How it chooses: [`Balance::TwoChoices`].
    pub balance: Balance,
    /// Failures in a row after which an address is left out: 5.
    pub failures: u32,
    /// For how long the first time, and longer by that each time after: 30 s.
    pub ejection: Duration,
    /// For how long at most: 5 min.
    pub max_ejection: Duration,
    /// The largest share of all addresses that is left out: 0.5. Never all.
    pub max_ejected: f64,
}

impl Default for BalancerConfig {
    fn default() -> Self {
        Self {
            balance: Balance::default(),
            failures: 5,
            ejection: Duration::from_secs(30),
            max_ejection: Duration::from_secs(300),
            max_ejected: 0.5,
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Health {
    in_row: u32,
    ejections: u32,
    until: Option<Instant>,
}

impl Health {
    fn is_out(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

struct Inner {
    config: BalancerConfig,
    addresses: Vec<Arc<str>>,
    loads: Vec<AtomicUsize>,
    next: AtomicUsize,
    health: Mutex<Vec<Health>>,
}

/// Chooses among addresses, and leaves those out for a while that keep failing. Cheap to clone;
/// clones share what they know.
#[derive(Clone)]
pub struct Balancer(Arc<Inner>);

/// A chosen address; counts as load until it is dropped.
pub struct Choice {
    balancer: Balancer,
    at: usize,
}

impl Balancer {
    /// A balancer over `addresses`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when there is none.
    pub fn new<A: Into<Arc<str>>>(
        addresses: impl IntoIterator<Item = A>,
        config: BalancerConfig,
    ) -> Result<Self> {
        let addresses: Vec<Arc<str>> = addresses.into_iter().map(Into::into).collect();
        if addresses.is_empty() {
            let error = Error::new(ErrorKind::InvalidArgument, "make a balancer");
            return Err(error.because("it has no address"));
        }
        Ok(Self(Arc::new(Inner {
            loads: addresses.iter().map(|_| AtomicUsize::new(0)).collect(),
            health: Mutex::new(vec![Health::default(); addresses.len()]),
            next: AtomicUsize::new(0),
            addresses,
            config,
        })))
    }

    /// The next address.
    #[must_use]
    pub fn choose(&self) -> Choice {
        self.choose_other(None)
    }

    /// The next address, another than `not` where there is one: for a second try.
    #[must_use]
    pub fn choose_other(&self, not: Option<&Choice>) -> Choice {
        let inner = &*self.0;
        let not = not.map(|choice| choice.at);
        let now = Instant::now();
        let health = self.health();
        let all = 0..inner.addresses.len();
        let mut fit: Vec<usize> = all
            .clone()
            .filter(|at| Some(*at) != not && !health[*at].is_out(now))
            .collect();
        drop(health);
        if fit.is_empty() {
            // a bad one is better than none, and than the same again
            fit = all.clone().filter(|at| Some(*at) != not).collect();
        }
        if fit.is_empty() {
            fit = all.collect();
        }
        let load = |at: &usize| inner.loads[*at].load(Relaxed);
        let turn = inner.next.fetch_add(1, Relaxed) % fit.len();
        let at = match inner.config.balance {
            Balance::RoundRobin => fit[turn],
            Balance::LeastLoaded => {
                // from another one each time, so that equals take turns
                let order = fit[turn..].iter().chain(&fit[..turn]);
                order
                    .min_by_key(|at| load(at))
                    .copied()
                    .unwrap_or(fit[turn])
            }
            Balance::TwoChoices => {
                let first = fastrand::usize(..fit.len());
                let step = fastrand::usize(..fit.len().max(2) - 1) + 1;
                let second = fit[(first + step) % fit.len()];
                std::cmp::min_by_key(fit[first], second, load)
            }
        };
        inner.loads[at].fetch_add(1, Relaxed);
        Choice {
            balancer: self.clone(),
            at,
        }
    }

    /// The addresses that are left out now.
    #[must_use]
    pub fn ejected(&self) -> Vec<Arc<str>> {
        let now = Instant::now();
        let health = self.health();
        let all = self.0.addresses.iter().zip(&*health);
        all.filter(|(_, health)| health.is_out(now))
            .map(|(address, _)| address.clone())
            .collect()
    }

    /// Whether each address is left out now.
    pub(crate) fn are_ejected(&self) -> Vec<bool> {
        let now = Instant::now();
        self.health().iter().map(|one| one.is_out(now)).collect()
    }

    fn health(&self) -> MutexGuard<'_, Vec<Health>> {
        self.0.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Choice {
    /// The address.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.balancer.0.addresses[self.at]
    }

    pub(crate) fn index(&self) -> usize {
        self.at
    }

    /// Tells how it went. Several failures in a row leave the address out for a while.
    pub fn report(&self, good: bool) {
        let config = &self.balancer.0.config;
        let now = Instant::now();
        let mut all = self.balancer.health();
        let out = all.iter().filter(|health| health.is_out(now)).count();
        let most = (config.max_ejected.clamp(0.0, 1.0) * all.len() as f64) as usize;
        let most = most.min(all.len() - 1);
        let health = &mut all[self.at];
        if good {
            health.in_row = 0;
            if !health.is_out(now) {
                health.ejections = health.ejections.saturating_sub(1);
            }
            return;
        }
        health.in_row = health.in_row.saturating_add(1);
        if health.in_row >= config.failures.max(1) && !health.is_out(now) && out < most {
            health.in_row = 0;
            health.ejections = health.ejections.saturating_add(1);
            let time = config.ejection.saturating_mul(health.ejections);
            health.until = now.checked_add(time.min(config.max_ejection));
            tracing::info!(address = self.address(), "left out by the balancer");
        }
    }
}

impl Drop for Choice {
    fn drop(&mut self) {
        self.balancer.0.loads[self.at].fetch_sub(1, Relaxed);
    }
}

#[cfg(all(test, not(network_system_loom)))]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may
mod tests {
    use super::*;

    fn balancer(balance: Balance) -> Balancer {
        let config = BalancerConfig {
            balance,
            ..BalancerConfig::default()
        };
        Balancer::new(["a", "b", "c"], config).unwrap()
    }

    #[test]
    fn each_way_of_choosing() {
        let turns = balancer(Balance::RoundRobin);
        let order: Vec<_> = (0..4).map(|_| turns.choose().index()).collect();
        assert_eq!(order, [0, 1, 2, 0]);
        let least = balancer(Balance::LeastLoaded);
        let held: Vec<_> = (0..6).map(|_| least.choose()).collect();
        for at in 0..3 {
            assert_eq!(held.iter().filter(|choice| choice.at == at).count(), 2);
        }
        let two = balancer(Balance::TwoChoices);
        let held: Vec<_> = (0..300).map(|_| two.choose()).collect();
        for at in 0..3 {
            let load = held.iter().filter(|choice| choice.at == at).count();
            assert!((90..=110).contains(&load), "{load} of 300");
        }
        drop(held);
        assert!(two.0.loads.iter().all(|load| load.load(Relaxed) == 0));
        let one = Balancer::new(["a"], BalancerConfig::default()).unwrap();
        assert_eq!(one.choose_other(Some(&one.choose())).address(), "a");
    }

    #[tokio::test(start_paused = true)]
    async fn bad_ones_are_left_out_for_a_growing_time_but_never_all() {
        let balancer = balancer(Balance::RoundRobin);
        let choices: Vec<_> = (0..3).map(|_| balancer.choose()).collect();
        for choice in &choices {
            (0..5).for_each(|_| choice.report(false));
        }
        assert_eq!(balancer.ejected().len(), 1, "half of three");
        assert!((0..9).all(|_| balancer.choose().address() != "a"));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(balancer.ejected().is_empty());
        (0..5).for_each(|_| choices[0].report(false));
        tokio::time::advance(Duration::from_secs(31)).await;
        assert_eq!(balancer.ejected().len(), 1, "longer the second time");
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(balancer.ejected().is_empty());
    }
}
