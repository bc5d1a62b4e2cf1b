//! Peers that send too quickly or read too slowly.

use super::*;

/// What waits for a peer that does not read it.
pub(super) struct Stall {
    /// Bytes that had been written when the time it has for more began.
    written: u64,
    /// Bytes that have been taken from the queue since: more than were written, where they are
    /// compressed on the way.
    taken: usize,
}

impl Stall {
    /// The peer has taken so many bytes more of what waits for it.
    pub(super) fn take(&mut self, bytes: usize) {
        self.taken = self.taken.saturating_add(bytes);
    }
}

impl<L: Link, H: Handler> Driver<L, H> {
    /// The peer has sent so many messages, and `received` bytes in all its life: waits until more may
    /// be read from it, or ends the session where that is too much.
    #[cold]
    pub(super) fn poll_pace(
        &mut self,
        cx: &mut Context<'_>,
        messages: u64,
        received: u64,
    ) -> Poll<Result<(), CloseReason>> {
        let Some(pace) = &mut self.pace else {
            return Poll::Ready(Ok(()));
        };
        if pace.spend(messages, received) {
            self.counters.paused();
            tracing::debug!(session = ?self.session, "sends more than it may");
        }
        if pace.is_end() {
            return Poll::Ready(Err(CloseReason::Rate));
        }
        if let Some(until) = pace.until() {
            self.clock.paused(until);
        }
        pace.poll(cx).map(Ok)
    }

    /// After a write that left something, or when it is time: whether the peer takes too little of
    /// what waits for it, and has done so for too long.
    #[cold]
    pub(super) fn is_slow_reader(&mut self) -> bool {
        let Some(timeout) = self.slow_timeout else {
            return false;
        };
        let shared = self.session.shared();
        let ours = lane::with(self.session.id(), |queue| queue.bytes()).unwrap_or(0);
        let left = ours.saturating_add(shared.outbox.foreign_bytes());
        let low = shared.outbox.low();
        // a large message may have no room although little is left
        if left <= low && (left == 0 || !shared.outbox.has_waiters()) {
            self.stall = None;
            self.clock.set_slow(None);
            return false;
        }
        let written = shared.traffic.bytes_out.load(Relaxed);
        let since = |begin: u64| usize::try_from(written - begin).unwrap_or(usize::MAX);
        match &self.stall {
            Some(stall) if stall.taken.max(since(stall.written)) < low.max(1) => {
                self.clock.is_slow()
            }
            _ => {
                self.stall = Some(Stall { written, taken: 0 });
                self.clock.set_slow(Instant::now().checked_add(timeout));
                false
            }
        }
    }
}
