//! What goes on beside a handler that is pending: writing, commands, deadlines, and, where the envelope
//! makes that useful, reading ahead.

use super::*;

/// While a handler is pending on a connection with an envelope, this many bytes are read ahead, so
/// that replies and heartbeats still arrive.
const READ_AHEAD: usize = 64 * 1024;
/// Messages read ahead at most, however small.
const READ_AHEAD_MESSAGES: usize = 1024;

impl<L: Link, H: Handler> Driver<L, H> {
    /// Runs a handler's call and keeps the connection going beside it.
    pub(super) async fn beside<T>(
        &mut self,
        inbox: &mut InQueue,
        call: impl Future<Output = T>,
    ) -> Result<T, CloseReason> {
        let mut call = pin!(call);
        poll_fn(|cx| match call.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(Ok(result)),
            Poll::Pending => self.poll_beside(cx, Some(inbox)).map(Err),
        })
        .await
    }

    /// Goes on as beside a handler until there is room in the outbox.
    pub(super) async fn make_room(&mut self, inbox: &mut InQueue) -> Result<(), CloseReason> {
        let session = self.session.clone();
        match self.beside(inbox, session.has_room()).await? {
            Ok(()) => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// While a handler is pending: goes on writing, and, where the envelope makes that useful,
    /// reading, for which `inbox` is needed. Ready when the call is to be abandoned.
    #[cold]
    pub(super) fn poll_beside(
        &mut self,
        cx: &mut Context<'_>,
        inbox: Option<&mut InQueue>,
    ) -> Poll<CloseReason> {
        self.waited = true;
        let mut written = self.poll_write(cx);
        if let Poll::Ready(reason) = self.poll_told(cx) {
            return Poll::Ready(reason);
        }
        let stalled = written.is_pending();
        if stalled && self.is_slow_reader() {
            return Poll::Ready(CloseReason::SlowReader);
        }
        if let Some(inbox) = inbox.filter(|_| self.envelope.is_some() && self.stop.is_none())
            && !matches!(written, Poll::Ready(Err(_)))
        {
            match self.poll_ahead(cx, inbox) {
                // answers to heartbeats
                Ok(()) => written = self.poll_write(cx),
                Err(CloseReason::Network(error)) => written = Poll::Ready(Err(error)),
                Err(reason) => self.end_input(reason),
            }
        }
        if let Poll::Ready(Err(error)) = written {
            self.fail_beside(CloseReason::from_error(error));
        }
        if self.session.shared().broken.load(Relaxed) {
            return Poll::Pending;
        }
        if self.is_ahead_full() || self.stop.is_some() {
            // what the peer says now waits for the handler, and one that has closed its direction
            // says nothing: no reason to take it for dead
            self.clock.heard(Instant::now());
        }
        if self.envelope.is_none() {
            self.clock.deaf();
        }
        if !stalled {
            // a handler that works without a word is not an idle peer
            self.moved = true;
        }
        self.tell_clock(0);
        self.poll_clock(cx)
    }

    /// Whether a pending handler is to be abandoned because of a command: at once, or when it takes
    /// too long to end.
    pub(super) fn poll_told(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let reason = match &self.command {
            Some(Command::Cut(reason)) => return Poll::Ready(reason.clone()),
            // a shutdown has a deadline of its own, and cuts what is left then
            Some(Command::Close(reason)) if !matches!(reason, CloseReason::Shutdown) => reason,
            _ => return Poll::Pending,
        };
        let timeout = self.patience(reason);
        let timer = self
            .closing
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        timer.as_mut().poll(cx).map(|()| reason.clone())
    }

    /// Nothing more will be read, noticed while a handler runs: what it and those after it send is
    /// still written, but no reply can come any more.
    pub(super) fn end_input(&mut self, reason: CloseReason) {
        self.session.shared().requests.close(&reason);
        self.stop = Some(reason);
    }

    /// The connection has failed while a handler runs: it may finish, but cannot send any more,
    /// and the link is not written to again.
    pub(super) fn fail_beside(&mut self, reason: CloseReason) {
        let shared = self.session.shared();
        let mut lost = lane::leave(self.session.id()).unwrap_or_default();
        shared.broken.store(true, Relaxed);
        shared.outbox.close(&reason, &mut lost);
        shared.outbox.set_owned(0);
        self.session.count_lost(lost.messages());
        match self.stop {
            None | Some(CloseReason::Peer) => self.end_input(reason),
            Some(_) => {}
        }
    }

    /// Reads ahead, a bounded amount; what the protocol needs is handled at once.
    pub(super) fn poll_ahead(
        &mut self,
        cx: &mut Context<'_>,
        inbox: &mut InQueue,
    ) -> Result<(), CloseReason> {
        let Some(reader) = &mut self.envelope else {
            return Ok(());
        };
        let mut came = VecDeque::new();
        let mut bytes = self.ahead_bytes;
        let mut full;
        let end = loop {
            full = bytes >= READ_AHEAD || self.ahead.len() + came.len() >= READ_AHEAD_MESSAGES;
            if full || self.clogged {
                break Ok(());
            }
            let next = inbox.next().and_then(|some| match some {
                Some(message) => reader.read(&message).map(Some),
                None => Ok(None),
            });
            match next {
                Ok(Some(inbound)) => {
                    bytes += inbound.len();
                    came.push_back(inbound);
                    continue;
                }
                Ok(None) => {}
                Err(error) => break Err(CloseReason::from_error(error)),
            }
            match self.link.poll_fill(cx, inbox) {
                Poll::Ready(Ok(true)) => self.clock.heard(Instant::now()),
                Poll::Ready(Ok(false)) => break Err(CloseReason::Peer),
                Poll::Ready(Err(error)) => break Err(CloseReason::from_error(error)),
                Poll::Pending => break Ok(()),
            }
        };
        for inbound in came {
            if let Some(later) = self.protocol(inbound) {
                self.ahead_bytes += later.len();
                self.ahead.push_back(later);
            }
        }
        if full && !self.is_ahead_full() {
            // most of it was for the protocol, so there is room for more, which nothing announces
            cx.waker().wake_by_ref();
        }
        end
    }

    pub(super) fn is_ahead_full(&self) -> bool {
        self.ahead_bytes >= READ_AHEAD || self.ahead.len() >= READ_AHEAD_MESSAGES
    }
}
