//! How quickly one session's peer may send: [`Pace`]. Looked at once for each read.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Timer;
use crate::config::{RateExceeded, SessionLimits};

/// What a peer may send in the long run, and whether it has sent more.
pub(crate) struct Pace {
    messages: Option<Budget>,
    bytes: Option<Budget>,
    closes: bool,
    /// Bytes that have been spent.
    received: u64,
    /// Nothing is read before this time.
    until: Option<Instant>,
    timer: Timer,
}

/// So many per second, and as many at once as come in `burst`.
struct Budget {
    per_second: u64,
    burst: Duration,
    /// When everything that was spent has come back.
    free_at: Instant,
}

impl Budget {
    fn new(per_second: u64, burst: Duration, now: Instant) -> Option<Self> {
        (per_second > 0).then_some(Self {
            per_second,
            burst,
            free_at: now,
        })
    }

    /// Spends `n`, which have come already; when the next may come.
    fn spend(&mut self, n: u64, now: Instant) -> Option<Instant> {
        let nanoseconds = u128::from(n) * 1_000_000_000 / u128::from(self.per_second);
        let cost = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let free_at = self.free_at.max(now);
        self.free_at = free_at.checked_add(cost).unwrap_or(free_at);
        self.free_at.checked_sub(self.burst)
    }
}

impl Pace {
    /// `None` without a limit, so that sessions without one do nothing about it.
    pub(crate) fn new(limits: &SessionLimits) -> Option<Box<Self>> {
        let (now, burst) = (Instant::now(), limits.rate_burst);
        let pace = Self {
            messages: Budget::new(limits.messages_per_second, burst, now),
            bytes: Budget::new(limits.bytes_per_second, burst, now),
            received: 0,
            closes: limits.rate_exceeded == RateExceeded::Close,
            until: None,
            timer: None,
        };
        (pace.messages.is_some() || pace.bytes.is_some()).then(|| Box::new(pace))
    }

    /// The peer has sent so many messages more, and `received` bytes in all its life; whether that is
    /// too much, and for the first time since it was not.
    pub(crate) fn spend(&mut self, messages: u64, received: u64) -> bool {
        let bytes = received - std::mem::replace(&mut self.received, received);
        if messages == 0 && bytes == 0 {
            return false;
        }
        let now = Instant::now();
        let budgets = [(&mut self.messages, messages), (&mut self.bytes, bytes)];
        let next = budgets
            .into_iter()
            .filter_map(|(budget, n)| budget.as_mut()?.spend(n, now))
            .max();
        let before = self.until;
        self.until = next.filter(|next| *next > now);
        before.is_none() && self.until.is_some()
    }

    /// Whether the peer has sent too much where that is the end.
    pub(crate) fn is_end(&self) -> bool {
        self.closes && self.until.is_some()
    }

    /// When more may be read, if not now.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Waits until more may be read.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(until) = self.until else {
            return Poll::Ready(());
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if timer.deadline() != until {
            timer.as_mut().reset(until);
        }
        let over = timer.as_mut().poll(cx);
        if over.is_ready() {
            // a timer costs something at each wait, also when it is not due
            (self.until, self.timer) = (None, None);
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(messages: u64, bytes: u64) -> Option<Box<Pace>> {
        Pace::new(&SessionLimits {
            messages_per_second: messages,
            bytes_per_second: bytes,
            ..SessionLimits::default()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_spent_comes_back() {
        assert!(pace(0, 0).is_none());
        let mut pace = pace(10, 1000).unwrap();
        let now = Instant::now();
        // as many at once as in a second
        assert!(!pace.spend(10, 500) && pace.until().is_none());
        assert!(pace.spend(5, 500));
        assert_eq!(pace.until(), Some(now + Duration::from_millis(500)));
        // bytes are the narrower one now, and it is no new excess
        assert!(!pace.spend(0, 2000));
        assert_eq!(pace.until(), Some(now + Duration::from_secs(1)));
        std::future::poll_fn(|cx| pace.poll(cx)).await;
        assert_eq!(now.elapsed(), Duration::from_secs(1));
        assert!(pace.spend(6, 2000));
    }

    #[test]
    fn numbers_that_are_as_large_as_can_be() {
        let mut pace = pace(1, u64::MAX).unwrap();
        pace.spend(u64::MAX, u64::MAX);
        pace.spend(u64::MAX, u64::MAX);
    }
}
