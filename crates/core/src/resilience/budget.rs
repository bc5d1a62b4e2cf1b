//! How many calls may be made again: [`RetryBudget`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Thousandths of a token.
const TOKEN: usize = 1000;

/// A bucket of tokens: every call puts in a part of one, every retry takes a whole one. However much
/// fails, retries add no more than that part to the load. Cheap to clone; clones share their tokens.
#[derive(Clone, Debug)]
pub struct RetryBudget(Arc<Bucket>);

#[derive(Debug)]
struct Bucket {
    tokens: AtomicUsize,
    most: usize,
    part: usize,
}

impl Default for RetryBudget {
    /// One retry for ten calls, ten at once.
    fn default() -> Self {
        Self::new(10, 0.1)
    }
}

impl RetryBudget {
    /// A full bucket of `most` tokens, to which every call adds `ratio` (0 to 1, in thousandths) of
    /// one.
    #[must_use]
    pub fn new(most: u32, ratio: f64) -> Self {
        let most = (most as usize).saturating_mul(TOKEN);
        Self(Arc::new(Bucket {
            tokens: AtomicUsize::new(most),
            most,
            part: (ratio.clamp(0.0, 1.0) * TOKEN as f64) as usize,
        }))
    }

    /// A call is made.
    pub fn deposit(&self) {
        let bucket = &*self.0;
        let add = |tokens: usize| Some(tokens.saturating_add(bucket.part).min(bucket.most));
        let _ = bucket
            .tokens
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Whether one more may be made again; takes the token.
    #[must_use]
    pub fn withdraw(&self) -> bool {
        let take = |tokens: usize| tokens.checked_sub(TOKEN);
        let tokens = &self.0.tokens;
        tokens
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }
}

#[cfg(all(test, not(network_system_loom)))]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may
mod tests {
    use super::*;

    #[test]
    fn ten_calls_pay_for_one_retry() {
        let budget = RetryBudget::new(2, 0.1);
        assert!(budget.withdraw() && budget.withdraw() && !budget.withdraw());
        for _ in 0..9 {
            budget.deposit();
            assert!(!budget.withdraw());
        }
        budget.deposit();
        assert!(budget.withdraw() && !budget.withdraw());
        (0..1000).for_each(|_| budget.deposit());
        assert!(budget.withdraw() && budget.withdraw() && !budget.withdraw());
    }
}
