//! Where a handler that works through an [`Inbox`](crate::Inbox) puts what it sends: [`Outgoing`].

use std::sync::atomic::Ordering::Relaxed;

use crate::error::Result;
use crate::lane;
use crate::message::{IntoMessage, MessageRef};
use crate::out_queue::{OutQueue, Pen};
use crate::session::Session;
use crate::sync::AtomicBool;

/// The way out for what [`Inbox::each`](crate::Inbox::each) sends: the fastest there is, since it
/// has the session's queue at hand.
pub struct Outgoing<'a> {
    session: &'a Session,
    /// Whether the session has something to look at: messages of others, which have to go out
    /// first, or a command.
    ready: &'a AtomicBool,
    held: Held,
    /// How many more messages the quick way may handle, of how many.
    steps: u64,
    limit: u64,
    /// Whether to make room before the next message is handled.
    full: bool,
}

/// The session's queue, while it is not in its [lane](crate::lane), and what writes to it.
///
/// It is handed on by value where anything unusual happens, so that in the usual case it never
/// needs an address and stays in registers.
#[derive(Default)]
struct Held {
    pen: Pen,
    /// `None` where the session's task is not the one that runs here.
    queue: Option<Box<OutQueue>>,
}

impl Held {
    #[inline(always)]
    fn take(session: &Session) -> Self {
        let mut queue = lane::take(session.id());
        let pen = queue.as_mut().map(|queue| queue.lend());
        Self {
            pen: pen.unwrap_or_default(),
            queue,
        }
    }

    #[inline(always)]
    fn put_back(self) {
        if let Some(mut queue) = self.queue {
            queue.give_back(self.pen);
            lane::put(queue);
        }
    }
}

impl<'a> Outgoing<'a> {
    #[inline(always)]
    pub(crate) fn new(session: &'a Session) -> Self {
        Self {
            session,
            ready: session.ready(),
            held: Held::take(session),
            steps: 0,
            limit: 0,
            full: false,
        }
    }

    /// Queues a message behind all that was sent before.
    ///
    /// It never waits. Where the outbox is full and the session's
    /// [policy](crate::config::OverflowPolicy) is to wait, the message is queued all the same, and
    /// [`Inbox::each`](crate::Inbox::each) stops until there is room. However large the message is
    /// that passes the limit, it is taken; others that are sent for the same incoming message may
    /// add as much as twice the limit.
    ///
    /// # Errors
    /// As [`Session::send`](crate::Session::send); [`ErrorKind::QueueFull`](crate::ErrorKind::QueueFull) also where
    /// that would be too much.
    #[inline(always)]
    pub fn send(&mut self, message: impl IntoMessage) -> Result<()> {
        let sent = message.lend(|message| {
            if !self.ready.load(Relaxed) && self.held.pen.push(message) {
                Ok(())
            } else {
                self.send_slowly(*message)
            }
        });
        match sent {
            Some(sent) => sent,
            None => self.send_slowly(message.into().by_ref()),
        }
    }

    #[inline(always)]
    fn send_slowly(&mut self, message: MessageRef<'_>) -> Result<()> {
        let held = std::mem::take(&mut self.held);
        let (held, result) = offer(self.session, held, message);
        self.held = held;
        if result? {
            self.full = true;
            // the quick way ends
            self.limit -= std::mem::take(&mut self.steps);
        }
        Ok(())
    }

    /// Lets the quick way handle up to `limit` messages.
    #[inline(always)]
    pub(crate) fn limit(&mut self, limit: u64) {
        (self.steps, self.limit) = (limit, limit);
    }

    /// Whether it may handle one more.
    #[inline(always)]
    pub(crate) fn may_go_on(&self) -> bool {
        self.steps > 0 && !self.ready.load(Relaxed)
    }

    #[inline(always)]
    pub(crate) fn step(&mut self) {
        self.steps -= 1;
    }

    /// How many it has handled, for who counts them.
    #[inline(always)]
    pub(crate) fn take_steps(&mut self) -> u64 {
        std::mem::replace(&mut self.limit, self.steps) - self.steps
    }

    /// Whether to make room before the next message is handled.
    #[inline(always)]
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }
}

impl Drop for Outgoing<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        std::mem::take(&mut self.held).put_back();
        if self.limit != self.steps {
            // only a panic leaves some uncounted
            self.session.unfinished(self.limit - self.steps);
        }
    }
}

/// Sends from outside of the quick way; whether the outbox is full now.
#[cold]
#[inline(never)]
fn offer(session: &Session, mut held: Held, message: MessageRef<'_>) -> (Held, Result<bool>) {
    if !session.ready().load(Relaxed) {
        // in most cases only memory is missing
        held.pen = held.pen.with_room(message.len());
        if held.pen.push(&message) {
            return (held, Ok(false));
        }
    }
    held.put_back();
    let full = session.send_at_once(&message);
    (Held::take(session), full)
}
