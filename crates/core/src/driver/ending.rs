//! Why a connection ends, and how: in good order where the peer is still there.

use super::*;

/// How long a connection that this side closed waits for the peer to close too. Closing a socket
/// with unread input resets it, and a reset can destroy what was written before.
const LINGER: Duration = Duration::from_secs(1);

impl<L: Link, H: Handler> Driver<L, H> {
    /// The session was told to end: where the peer is told first, what has arrived is still read.
    #[cold]
    pub(super) fn poll_last(
        &mut self,
        cx: &mut Context<'_>,
        inbox: &mut InQueue,
        reason: CloseReason,
    ) -> Poll<Result<(), CloseReason>> {
        let tells = matches!(reason, CloseReason::Shutdown | CloseReason::MaxAge);
        let reads = tells && !self.clogged;
        if !reads || self.last_reads == 0 {
            return Poll::Ready(Err(reason));
        }
        self.last_reads -= 1;
        Poll::Ready(match self.link.poll_fill(cx, inbox) {
            Poll::Ready(Ok(true)) => {
                self.idle = false;
                // and then it looks again
                self.command = Some(Command::Close(reason));
                Ok(())
            }
            Poll::Ready(Ok(false)) | Poll::Pending => Err(reason),
            Poll::Ready(Err(error)) => Err(CloseReason::from_error(error)),
        })
    }

    /// How long handlers, and requests that were moved to tasks, may take when the session was told
    /// to close.
    #[cold]
    pub(super) fn patience(&self, reason: &CloseReason) -> Duration {
        match reason {
            // nobody is in a hurry, and the peer waits for its answers elsewhere already
            CloseReason::MaxAge => self.close_timeout.max(self.session.request_timeout()),
            _ => self.close_timeout,
        }
    }

    /// The peer has announced its end.
    #[cold]
    pub(super) fn goaway(&self) {
        let leaving = &self.session.shared().peer_leaving;
        if !leaving.swap(true, Relaxed) {
            contain(|| self.handler.on_goaway(&self.session));
        }
    }

    /// Before an end in good order: waits for the answers to requests that were moved to tasks.
    pub(super) async fn answer_rest(
        &mut self,
        inbox: &mut InQueue,
        reason: CloseReason,
    ) -> CloseReason {
        let session = self.session.clone();
        let shared = session.shared();
        let timeout = match reason {
            // a shutdown has a deadline of its own, and cuts what is left then
            CloseReason::Shutdown => Duration::MAX,
            CloseReason::Peer if !shared.peer_leaving.load(Relaxed) => self.close_timeout,
            CloseReason::MaxAge => self.patience(&reason),
            _ => return reason,
        };
        if shared.serving.is_idle() {
            return reason;
        }
        if matches!(reason, CloseReason::Peer) {
            self.end_input(CloseReason::Peer);
        }
        let answers = self.answered(inbox, false, Serving::is_idle);
        let result = tokio::time::timeout(timeout, answers).await;
        shared.serving.watch(false);
        match (result, self.stop.take()) {
            (Ok(Err(other)), _) | (_, Some(other @ CloseReason::Network(_))) => other,
            _ => reason,
        }
    }

    /// Keeps the connection going until so many requests are answered that `enough` says so, or
    /// until there is no more point in it; `reading`: the end of the input is such a point.
    #[cold]
    pub(super) async fn answered(
        &mut self,
        inbox: &mut InQueue,
        reading: bool,
        enough: impl Fn(&Serving) -> bool,
    ) -> Result<(), CloseReason> {
        let session = self.session.clone();
        let shared = session.shared();
        shared.serving.watch(true);
        let result = poll_fn(|cx| {
            // first, since it lets the outbox know whom to wake for the next answer
            let beside = self.poll_beside(cx, Some(&mut *inbox));
            let pointless = shared.broken.load(Relaxed)
                || shared.outbox.is_stopped()
                || (reading && self.stop.is_some());
            match beside {
                Poll::Ready(reason) => Poll::Ready(Err(reason)),
                Poll::Pending if pointless || enough(&shared.serving) => Poll::Ready(Ok(())),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        shared.serving.watch(false);
        result
    }

    /// The error of a handler; when the connection had failed before, that is the reason.
    #[cold]
    pub(super) fn failed(&mut self, error: crate::Error) -> CloseReason {
        self.why(error, CloseReason::Handler)
    }

    pub(super) fn why(
        &mut self,
        error: crate::Error,
        otherwise: impl FnOnce(crate::Error) -> CloseReason,
    ) -> CloseReason {
        if error.is_closed()
            && let Some(reason) = self.session.shared().outbox.stop_reason()
        {
            // its send failed because the session was told to end
            return reason;
        }
        match self.stop.take() {
            // a peer that says no more leaves the handler its own errors
            Some(reason) if error.is_closed() || !matches!(reason, CloseReason::Peer) => reason,
            _ => otherwise(error),
        }
    }

    /// The command that made the outbox say that it is stopped.
    #[cold]
    pub(super) fn told_to_stop(&mut self) -> CloseReason {
        self.session
            .shared()
            .outbox
            .stop_reason()
            .unwrap_or(CloseReason::Cut)
    }

    /// Ends the connection: in good order where the peer is still there.
    pub(super) async fn finish(
        &mut self,
        inbox: &mut InQueue,
        mut reason: CloseReason,
    ) -> CloseReason {
        self.count_received(inbox);
        self.count_latency();
        inbox.clear();
        if let CloseReason::Requested(text) = &reason
            && self.envelope.is_some()
        {
            self.control(Header::GoAway, text.as_str().into());
        }
        let shared = self.session.shared();
        if let Some(goodbye) = self.link.goodbye() {
            let _ = shared.goodbye.set(goodbye.clone());
        }
        self.link.farewell(&reason, self.session.close_code());
        shared.requests.close(&reason);
        let id = self.session.id();
        lane::with(id, |queue| shared.outbox.close(&reason, queue));
        let polite = !matches!(
            reason,
            CloseReason::Network(_)
                | CloseReason::Cut
                | CloseReason::Overflow
                | CloseReason::SlowReader
                | CloseReason::Heartbeat
        );
        if polite {
            let linger = !matches!(
                reason,
                CloseReason::Peer | CloseReason::Idle | CloseReason::Silent
            );
            // a shutdown has a deadline of its own, and cuts what is left then
            let shutdown = matches!(reason, CloseReason::Shutdown);
            let timeout = if shutdown {
                Duration::MAX
            } else {
                self.close_timeout
            };
            let closing = tokio::time::timeout(timeout, self.say_goodbye(inbox, linger)).await;
            let unwritten = lane::with(id, |queue| !queue.is_empty()).unwrap_or(false);
            if unwritten
                && (closing.is_err() || matches!(closing, Ok(Err(_))))
                && reason.is_orderly()
            {
                reason = CloseReason::Cut;
            }
        }
        let left = lane::with(id, |queue| queue.messages()).unwrap_or(0);
        self.session.count_lost(left);
        reason
    }

    /// Writes what is queued, says that no more will come, and waits a moment for the peer to
    /// close too.
    pub(super) async fn say_goodbye(
        &mut self,
        inbox: &mut InQueue,
        linger: bool,
    ) -> Result<(), ()> {
        let written = poll_fn(|cx| {
            let result = self.poll_write(cx);
            if let Some(Command::Cut(_)) = self.command {
                return Poll::Ready(Err(()));
            }
            result.map_err(|_| ())
        });
        written.await?;
        poll_fn(|cx| self.link.poll_close(cx))
            .await
            .map_err(|_| ())?;
        if linger {
            let rest = poll_fn(|cx| {
                loop {
                    inbox.clear();
                    match self.link.poll_fill(cx, inbox) {
                        Poll::Ready(Ok(true)) => {}
                        Poll::Ready(_) => return Poll::Ready(()),
                        Poll::Pending if self.session.shared().outbox.is_cut() => {
                            return Poll::Ready(());
                        }
                        Poll::Pending => return Poll::Pending,
                    }
                }
            });
            let _ = tokio::time::timeout(LINGER, rest).await;
        }
        Ok(())
    }
}
