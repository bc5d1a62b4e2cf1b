//! What a pool is set to, and what it counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::guard::Discard;
use super::slots::Level;
use crate::config::ClientConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::resilience::BreakerConfig;

/// What a [`ConnectionPool`](crate::ConnectionPool) is set to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoolConfig {
    /// Most connections to one URL, idle, in use and being made: 10.
    pub max_per_address: usize,
    /// Most connections to all: 100. At the limit an idle one to another URL makes room.
    pub max_total: usize,
    /// Most calls that wait for a connection: 1024.
    pub max_waiting: usize,
    /// How long [`acquire`](crate::ConnectionPool::acquire) takes at most: 5 s.
    pub acquire_timeout: Duration,
    /// How long a connection stays without use: 10 min.
    pub idle_timeout: Duration,
    /// How old a connection becomes, give or take a tenth so that not all end at once: 1 h.
    pub max_age: Duration,
    /// How often idle connections are looked at, and pinged when they have the envelope: 5 s.
    pub check_interval: Duration,
    /// When an address is left alone for a while; `None`: never.
    pub breaker: Option<BreakerConfig>,
    /// How connections are made.
    pub client: ClientConfig,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            max_per_address: 10,
            max_total: 100,
            max_waiting: 1024,
            acquire_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(600),
            max_age: Duration::from_secs(3600),
            check_interval: Duration::from_secs(5),
            breaker: Some(BreakerConfig::default()),
            client: ClientConfig::default(),
        }
    }
}

impl PoolConfig {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] names what does not.
    pub fn validate(&self) -> Result<()> {
        let wrong = if self.max_per_address == 0 || self.max_total == 0 {
            "a pool without connections"
        } else if self.check_interval.is_zero() {
            "a check interval of nothing"
        } else {
            return self.client.validate();
        };
        Err(Error::new(ErrorKind::InvalidArgument, "make a connection pool").because(wrong))
    }
}

/// What a [`ConnectionPool`](crate::ConnectionPool) holds and has done. What it does at one address
/// shows in its [breaker](crate::ConnectionPool::breaker).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStatistics {
    /// Connections, with those that are being made.
    pub open: usize,
    /// Connections that nobody uses.
    pub idle: usize,
    /// Connections that are lent or being made.
    pub in_use: usize,
    /// Calls that wait.
    pub waiting: usize,
    /// Connections that were lent.
    pub acquired: u64,
    /// Calls that got none in time.
    pub timeouts: u64,
    /// Connections that were made.
    pub created: u64,
    /// Connections that could not be made.
    pub failed: u64,
    /// Discarded: closed by the peer, in error, or with something unread or unsent.
    pub discarded_broken: u64,
    /// Discarded after the idle time.
    pub discarded_idle: u64,
    /// Discarded at their maximum age.
    pub discarded_age: u64,
    /// Discarded to make room for another URL.
    pub discarded_evicted: u64,
    /// Discarded since the user said so, or in the middle of an exchange.
    pub discarded_by_user: u64,
    /// Discarded since the pool was closed.
    pub discarded_closed: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) acquired: AtomicU64,
    pub(super) timeouts: AtomicU64,
    pub(super) created: AtomicU64,
    pub(super) failed: AtomicU64,
    discarded: [AtomicU64; 6],
}

impl Counters {
    pub(super) fn discarded(&self, why: Discard) {
        self.discarded[why as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn snapshot(&self, level: Level) -> PoolStatistics {
        let discarded = |why: Discard| self.discarded[why as usize].load(Relaxed);
        PoolStatistics {
            open: level.open,
            idle: level.idle,
            in_use: level.open.saturating_sub(level.idle),
            waiting: level.waiting,
            acquired: self.acquired.load(Relaxed),
            timeouts: self.timeouts.load(Relaxed),
            created: self.created.load(Relaxed),
            failed: self.failed.load(Relaxed),
            discarded_broken: discarded(Discard::Broken),
            discarded_idle: discarded(Discard::Idle),
            discarded_age: discarded(Discard::Age),
            discarded_evicted: discarded(Discard::Evicted),
            discarded_by_user: discarded(Discard::User),
            discarded_closed: discarded(Discard::Closed),
        }
    }
}
