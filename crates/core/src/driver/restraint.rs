//! Peers that send too quickly or read too slowly.

use super::*;

/// What waits for a peer that does not read it.
pub(super) struct Stall {
    /// Bytes that it has taken since the time it has for more began.
    taken: u64,
}

impl<L: Link, H: Handler> Driver<L, H> {
    /// What the peer has sent counts towards its rate.
    #[cold]
    pub(super) fn spend(&mut self, messages: u64, bytes: u64) {
        if let Some(pace) = &mut self.pace
            && pace.spend(messages, bytes)
        {
            self.counters.paused();
            tracing::debug!(session = ?self.session, "sends more than it may");
        }
    }

    /// Waits until more may be read from the peer.
    #[cold]
    pub(super) fn poll_pace(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(pace) = &mut self.pace else {
            return Poll::Ready(());
        };
        if let Some(until) = pace.until() {
            self.clock.paused(until);
        }
        pace.poll(cx)
    }

    /// After a write that left something, or while the peer was slow: whether it takes enough of what
    /// waits, of which there are `left` bytes.
    #[cold]
    pub(super) fn watch_reader(&mut self, left: usize, sent: u64) {
        let Some(timeout) = self.slow_timeout else {
            return;
        };
        let outbox = &self.session.shared().outbox;
        let low = outbox.low();
        // a large message may have no room although little is left
        if left <= low && (left == 0 || !outbox.has_waiters()) {
            if self.stall.take().is_some() {
                self.clock.set_slow(None);
            }
            return;
        }
        if let Some(stall) = &mut self.stall {
            stall.taken += sent;
            if stall.taken < (low as u64).max(1) {
                return;
            }
        }
        self.stall = Some(Stall { taken: 0 });
        self.clock.set_slow(Instant::now().checked_add(timeout));
    }
}
