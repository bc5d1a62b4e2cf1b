//! How long a connection whose peer sends without end keeps its thread before the others there have
//! their turn.

use std::time::Duration;

use tokio::time::Instant;

const TURN: Duration = Duration::from_millis(1);

/// After how many messages of a batch each look at the time comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Looks(u64);

impl Default for Looks {
    fn default() -> Self {
        Self::SLOW
    }
}

impl Looks {
    /// In powers of two.
    const SLOW: Self = Self(64);
    const QUICK: Self = Self(256);

    /// Those of a connection whose last batch of `messages` has taken `time`: a look at the clock
    /// takes as long as several messages that are handled in no time.
    pub(crate) fn of(messages: u64, time: Duration) -> Self {
        let each = time.as_nanos() / u128::from(messages.max(1));
        if each * u128::from(Self::QUICK.0) <= TURN.as_nanos() / 8 {
            Self::QUICK
        } else {
            Self::SLOW
        }
    }

    /// How many messages come before the next look, after `taken`.
    #[inline(always)]
    pub(crate) fn left(self, taken: u64) -> u64 {
        self.0 - (taken & (self.0 - 1))
    }

    /// Whether to look before the next message, after `taken`.
    #[inline(always)]
    pub(crate) fn are_due(self, taken: u64) -> bool {
        taken & (self.0 - 1) == 0 && taken > 0
    }
}

/// Whether the turn is over that began at `since`, or begins now.
#[cold]
pub(crate) fn is_over(since: &mut Option<Instant>) -> bool {
    let now = Instant::now();
    now.saturating_duration_since(*since.get_or_insert(now)) >= TURN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_handlers_look_at_the_time_less_often() {
        let count = |looks: Looks| (0..=1024).filter(|taken| looks.are_due(*taken)).count();
        let slow = Looks::of(100, Duration::from_micros(100));
        assert_eq!((slow, count(slow)), (Looks::default(), 16));
        let quick = Looks::of(100, Duration::from_micros(10));
        assert_eq!(count(quick), 4);
        assert_eq!(
            (quick.left(0), quick.left(255), quick.left(256)),
            (256, 1, 256)
        );
        assert_eq!(Looks::of(0, Duration::MAX), slow);
    }
}
