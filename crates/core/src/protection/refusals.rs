//! Why connections are refused: [`Refusal`], counted and logged by [`Refusals`].

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// A warning about one sort of refusals comes at most once in this time: peers cause them.
const QUIET: Duration = Duration::from_secs(10);

/// Why a connection is refused before anything is spent on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There are as many connections as there may be.
    MaxConnections,
    /// There are as many handshakes as there may be, or one had to make room for others.
    MaxHandshakes,
    /// Its IP address has as many connections as it may have.
    PerIp,
    /// Its IP address makes new connections too quickly.
    ConnectionRate,
    /// Its IP address is on the list of those that may not connect, or not on that of those that may.
    Denied,
    /// It does not come from a proxy, where all connections must.
    NoProxy,
    /// The proxy did not say for whom it speaks, or not as it must.
    ProxyHeader,
}

impl Refusal {
    /// What statistics count them under, in the order of the variants.
    const LABELS: [&'static str; 7] = [
        "max_connections",
        "max_handshakes",
        "per_ip",
        "connection_rate",
        "denied",
        "no_proxy",
        "proxy_header",
    ];

    fn label(self) -> &'static str {
        Self::LABELS[self as usize]
    }
}

/// How many were refused, by reason.
pub(crate) struct Refusals {
    counts: [AtomicU64; Refusal::LABELS.len()],
    /// When the next warning may come, in milliseconds since the start.
    quiet_until: [AtomicU64; Refusal::LABELS.len()],
    started: Instant,
}

impl Refusals {
    pub(crate) fn new() -> Self {
        Self {
            counts: Default::default(),
            quiet_until: Default::default(),
            started: Instant::now(),
        }
    }

    /// Counts a refusal, and logs it: as a warning once in a while, else where debugging is on.
    #[cold]
    pub(crate) fn refuse(&self, refusal: Refusal, peer: &dyn fmt::Display) {
        let total = self.counts[refusal as usize].fetch_add(1, Relaxed) + 1;
        let reason = refusal.label();
        if self.may_warn(refusal) {
            tracing::warn!(reason, %peer, total, "connections are refused");
        } else {
            tracing::debug!(reason, %peer, total, "refused");
        }
    }

    fn may_warn(&self, refusal: Refusal) -> bool {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let until = &self.quiet_until[refusal as usize];
        let seen = until.load(Relaxed);
        let next = now.saturating_add(QUIET.as_millis() as u64);
        now >= seen && until.compare_exchange(seen, next, Relaxed, Relaxed).is_ok()
    }

    /// The counts by their labels.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.counts.iter().map(|count| count.load(Relaxed));
        Refusal::LABELS.into_iter().zip(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn warnings_are_rare_and_counts_are_not() {
        let refusals = Refusals::new();
        assert!(refusals.may_warn(Refusal::PerIp));
        assert!(!refusals.may_warn(Refusal::PerIp), "once");
        assert!(refusals.may_warn(Refusal::Denied), "each sort by itself");
        tokio::time::advance(QUIET).await;
        assert!(refusals.may_warn(Refusal::PerIp));
        for _ in 0..1000 {
            refusals.refuse(Refusal::ProxyHeader, &"peer");
        }
        let counts: Vec<_> = refusals.counts().filter(|(_, n)| *n > 0).collect();
        assert_eq!(counts, [("proxy_header", 1000)]);
    }
}
