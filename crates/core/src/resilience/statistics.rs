//! What a [`RequestPool`](super::RequestPool) counts: [`RequestPoolStatistics`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::BreakerState;

/// What a [`RequestPool`](super::RequestPool) holds and has done. Names mean what they mean in
/// [`PoolStatistics`](crate::PoolStatistics), about requests where those are about connections that are
/// lent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestPoolStatistics {
    /// Connections that are up.
    pub open: usize,
    /// Requests that wait for their answer.
    pub in_use: usize,
    /// Requests that were made, each counted once, however often it was tried.
    pub requests: u64,
    /// Requests that failed in the end, [refusals](Self::refused) included. An error that the peer has
    /// answered with is an answer.
    pub failures: u64,
    /// Requests that got no answer in time.
    pub timeouts: u64,
    /// Requests that were refused since the pool was closed, or the breaker of their address open.
    pub refused: u64,
    /// Tries after the first.
    pub retries: u64,
    /// Second tries beside one that took long.
    pub hedges: u64,
    /// The same by address, in the order in which they were given.
    pub addresses: Vec<AddressStatistics>,
}

/// What a [`RequestPool`](super::RequestPool) holds and has done at one of its addresses. Here each try
/// counts, because each goes to an address of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AddressStatistics {
    /// The address.
    pub address: Arc<str>,
    /// Connections that are up.
    pub open: usize,
    /// Requests that wait for their answer.
    pub in_use: usize,
    /// Whether the balancer leaves it out.
    pub ejected: bool,
    /// What its circuit breaker does, where there is one.
    pub breaker: Option<BreakerState>,
    /// Requests that were sent to it, or should have been: retries and hedges, too.
    pub requests: u64,
    /// Those that failed, those that its breaker refused included.
    pub failures: u64,
    /// Those that were made because another one had failed.
    pub retries: u64,
    /// Those that were made beside another one that took long.
    pub hedges: u64,
}

/// Why a request goes to an address.
#[derive(Clone, Copy)]
pub(super) enum Try {
    First,
    Again,
    Beside,
}

/// Of all addresses.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) requests: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) timeouts: AtomicU64,
    pub(super) refused: AtomicU64,
}

/// Of one address.
#[derive(Default)]
pub(super) struct Tries {
    pub(super) failures: AtomicU64,
    made: [AtomicU64; 3],
}

impl Counters {
    pub(super) fn snapshot(
        &self,
        in_use: usize,
        addresses: Vec<AddressStatistics>,
    ) -> RequestPoolStatistics {
        RequestPoolStatistics {
            open: addresses.iter().map(|address| address.open).sum(),
            in_use,
            requests: self.requests.load(Relaxed),
            failures: self.failures.load(Relaxed),
            timeouts: self.timeouts.load(Relaxed),
            refused: self.refused.load(Relaxed),
            retries: addresses.iter().map(|address| address.retries).sum(),
            hedges: addresses.iter().map(|address| address.hedges).sum(),
            addresses,
        }
    }
}

impl Tries {
    pub(super) fn make(&self, why: Try) {
        self.made[why as usize].fetch_add(1, Relaxed);
    }

    /// Of these, the first ones too; those again; those beside.
    pub(super) fn made(&self) -> (u64, u64, u64) {
        let made = |why: Try| self.made[why as usize].load(Relaxed);
        let (again, beside) = (made(Try::Again), made(Try::Beside));
        (made(Try::First) + again + beside, again, beside)
    }
}
