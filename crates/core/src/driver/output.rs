//! The way out of a connection's task, and what is counted and timed on the way.

use super::*;

/// What the owner takes from an outbox at once where the oldest messages may be dropped: what it
/// has taken can no longer be.
const DROPPABLE_BATCH: usize = 64 * 1024;

impl<L: Link, H: Handler> Driver<L, H> {
    /// What is left of [`poll_write`](Self::poll_write) once the link has failed: commands.
    #[cold]
    pub(super) fn look(&mut self, cx: &mut Context<'_>) {
        let outbox = &self.session.shared().outbox;
        if outbox.is_ready() {
            let command = outbox.take(&mut OutQueue::new(false), 0, cx.waker());
            self.command = command.or(self.command.take());
        }
    }

    /// Writes everything that is queued, here and in the outbox, as far as the transport takes it.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let outbox = &self.session.shared().outbox;
        let tracks = self.session.tracks_sizes();
        let (link, mut stall) = (&mut self.link, self.stall.as_mut());
        let mut sent = crate::link::Sent::default();
        let mut controls = None;
        let result = lane::with(self.session.id(), |queue| {
            let mut hold = Hold {
                owned: &mut self.owned,
                command: &mut self.command,
                most: DROPPABLE_BATCH,
                tracks,
            };
            let result = outbox.write(queue, &mut hold, cx, |cx, queue| {
                let before = queue.bytes();
                let (now, result) = link.poll_send(cx, queue);
                if let Some(stall) = &mut stall {
                    stall.take(before.saturating_sub(queue.bytes()));
                }
                sent.messages += now.messages;
                sent.bytes += now.bytes;
                result
            });
            controls = queue.take_controls();
            self.clogged = queue.answers() + outbox.answers() > outbox.high();
            result
        });
        if sent.bytes > 0 || sent.messages > 0 {
            self.count_sent(sent, controls);
        }
        result.unwrap_or_else(|| {
            self.look(cx);
            Poll::Ready(Ok(()))
        })
    }

    /// `controls`: how many of them are nobody's messages, where that is known; otherwise those
    /// count as the first.
    pub(super) fn count_sent(&mut self, sent: crate::link::Sent, controls: Option<u64>) {
        let traffic = &self.session.shared().traffic;
        let mut messages = sent.messages;
        let queued = traffic.controls.load(Relaxed);
        let controls = controls.unwrap_or(queued).min(queued).min(messages);
        if controls > 0 {
            traffic.controls.fetch_sub(controls, Relaxed);
            messages -= controls;
        }
        add(&traffic.messages_out, messages);
        add(&traffic.bytes_out, sent.bytes);
        self.counters.sent(messages, sent.bytes);
        self.moved |= messages > 0;
    }

    /// Counts the batch that has been handled; how many messages it had.
    #[inline]
    pub(super) fn count_received(&mut self, inbox: &InQueue) -> u64 {
        let bytes = inbox.received();
        if bytes == self.bytes_seen && self.batch_messages == 0 {
            return 0;
        }
        if self.timed {
            self.sample(self.batch_since);
        }
        let new = bytes - std::mem::replace(&mut self.bytes_seen, bytes);
        let messages = std::mem::take(&mut self.batch_messages);
        let traffic = &self.session.shared().traffic;
        add(&traffic.messages_in, messages);
        add(&traffic.bytes_in, new);
        self.counters.received(messages, new);
        messages
    }

    /// After a write: remembers that messages moved, and how long the batch took.
    #[inline]
    pub(super) fn tell_clock(&mut self, messages: u64) {
        let moved = std::mem::take(&mut self.moved) || messages > 0;
        self.unmeasured += messages;
        if moved && messages == 0 {
            // what only goes out has batches, too
            self.batches = self.batches.wrapping_add(1);
        }
        // nobody asks for the times of a busy connection
        let is_sample = match messages {
            0 => self.batches.is_multiple_of(SAMPLED),
            _ => self.timed,
        };
        if moved && (is_sample || !self.clock.is_watched()) {
            let now = Instant::now();
            self.clock.active(now);
            self.sample(now);
            if messages > 0 && self.timed {
                self.latency = now.saturating_duration_since(self.batch_since);
                self.looks = Looks::of(messages, self.latency);
                self.count_latency();
            }
        }
    }

    /// The batch that was timed last stands for those that were not.
    pub(super) fn count_latency(&mut self) {
        let messages = std::mem::take(&mut self.unmeasured);
        self.counters.latency(self.latency, messages);
    }

    /// Keeps the totals of this moment for the rates, and lets go of unneeded buffers, once in a while.
    #[inline]
    pub(super) fn sample(&mut self, now: Instant) {
        if now >= self.next_sample {
            self.next_sample = now + SAMPLE;
            self.counters.sample(now);
            buffers::trim(now);
        }
    }

    pub(super) fn poll_clock(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        if self.clock.is_watched() {
            if !self.session.take_quiet() {
                return Poll::Pending;
            }
            self.clock.set_quiet();
            self.keep = None;
        } else if self.clock.is_busy() {
            let watched = ticker::watch(&self.session);
            self.clock.set_watched(watched);
            self.keep = watched.then(Keep::acquire).flatten();
        }
        loop {
            match self.clock.poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Due::Idle) => return Poll::Ready(CloseReason::Idle),
                Poll::Ready(Due::Dead) => return Poll::Ready(CloseReason::Heartbeat),
                Poll::Ready(Due::Silent) => return Poll::Ready(CloseReason::Silent),
                Poll::Ready(Due::Slow) => {
                    // else it has read enough since, and has time again
                    if self.is_slow_reader() {
                        return Poll::Ready(CloseReason::SlowReader);
                    }
                }
                // a command to itself, which wakes it
                Poll::Ready(Due::Old) => self.session.expire(),
                Poll::Ready(Due::Ping) if self.envelope.is_none() => {
                    if let Poll::Ready(Err(error)) = self.link.poll_ping(cx) {
                        return Poll::Ready(CloseReason::from_error(error));
                    }
                }
                Poll::Ready(Due::Ping) => {
                    self.control(
                        Header::Ping {
                            token: self.session.id(),
                        },
                        Message::default(),
                    );
                    self.idle = false;
                    if let Poll::Ready(Err(error)) = self.poll_write(cx) {
                        return Poll::Ready(CloseReason::from_error(error));
                    }
                }
            }
        }
    }
}
