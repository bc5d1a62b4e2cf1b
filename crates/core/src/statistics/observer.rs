//! Handles that look at servers, clients and pools without keeping them alive: [`Observer`],
//! [`PoolObserver`].

use std::fmt;
use std::sync::Weak;

use super::Statistics;
use crate::pool::PoolStatistics;
use crate::server::Sessions;

/// What can be looked at.
pub(crate) trait Observed: Send + Sync {
    fn statistics(&self) -> Statistics;
    /// A server's sessions.
    fn sessions(&self) -> Option<Sessions>;
    /// Whether it takes work: a server that does not drain, a client that is connected.
    fn is_ready(&self) -> bool;
}

/// Looks at a server or a client from elsewhere, such as from a page of metrics. Cheap to clone; does not
/// keep it alive. Nothing is done for it until it is asked.
#[derive(Clone)]
pub struct Observer(Weak<dyn Observed>);

impl Observer {
    pub(crate) fn new(observed: Weak<dyn Observed>) -> Self {
        Self(observed)
    }

    /// What it has done so far; `None` when it is gone.
    #[must_use]
    pub fn statistics(&self) -> Option<Statistics> {
        Some(self.0.upgrade()?.statistics())
    }

    /// The live sessions of a server; `None` for a client, and when it is gone.
    #[must_use]
    pub fn sessions(&self) -> Option<Sessions> {
        self.0.upgrade()?.sessions()
    }

    /// Whether it takes work now: a server that has not begun to shut down, a client that is connected.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.upgrade().is_some_and(|observed| observed.is_ready())
    }

    /// Whether it is gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").finish_non_exhaustive()
    }
}

/// A pool that can be looked at.
pub(crate) trait ObservedPool: Send + Sync {
    fn statistics(&self) -> PoolStatistics;
}

/// Looks at a [`ConnectionPool`](crate::ConnectionPool) from elsewhere, as [`Observer`] does.
#[derive(Clone)]
pub struct PoolObserver(Weak<dyn ObservedPool>);

impl PoolObserver {
    pub(crate) fn new(observed: Weak<dyn ObservedPool>) -> Self {
        Self(observed)
    }

    /// What the pool has done so far; `None` when it is gone.
    #[must_use]
    pub fn statistics(&self) -> Option<PoolStatistics> {
        Some(self.0.upgrade()?.statistics())
    }
}

impl fmt::Debug for PoolObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolObserver").finish_non_exhaustive()
    }
}
