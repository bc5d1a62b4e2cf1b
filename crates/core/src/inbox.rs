//! The messages that have come to a connection and are not handled yet: [`Inbox`].

use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use crate::error::Error;
use crate::in_queue::InQueue;
use crate::message::MessageRef;
use crate::session::Session;
use crate::sync::AtomicBool;
use crate::turn;

/// Messages after which to look at the time.
const STEPS: u64 = 64;

/// The messages that have come and are not handled yet, in order, as
/// [`Handler::on_batch`](crate::Handler::on_batch) gets them.
pub struct Inbox<'a> {
    /// `None` where the message was taken out of an envelope already.
    queue: Option<&'a mut InQueue>,
    one: Option<MessageRef<'a>>,
    stopped: &'a AtomicBool,
    taken: u64,
    /// When the connection's turn on its thread began, or was first looked at.
    pub(crate) turn_since: Option<Instant>,
    /// Why there were no more messages, once that was so.
    pub(crate) end: Option<End>,
}

/// Why an inbox gives no more messages.
pub(crate) enum End {
    /// All that have come are taken.
    Nothing,
    /// Others have their turn first.
    Turn,
    /// The peer broke the protocol.
    Error(Error),
}

impl<'a> Inbox<'a> {
    pub(crate) fn new(
        queue: &'a mut InQueue,
        session: &'a Session,
        turn_since: Option<Instant>,
    ) -> Self {
        Self {
            queue: Some(queue),
            one: None,
            stopped: session.stopped(),
            taken: 0,
            turn_since,
            end: None,
        }
    }

    pub(crate) fn one(message: MessageRef<'a>, session: &'a Session) -> Self {
        Self {
            queue: None,
            one: Some(message),
            stopped: session.stopped(),
            taken: 0,
            turn_since: None,
            end: None,
        }
    }

    /// The next message; `None` when all that have come are taken, or when the connection has to
    /// stop: because it was told to close, because the peer broke the protocol, or to let the other
    /// connections of its thread have their turn. Then it is time to return.
    #[inline(always)]
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator cannot lend its items"
    )]
    pub fn next(&mut self) -> Option<MessageRef<'_>> {
        if self.stopped.load(Relaxed) {
            return None;
        }
        let Some(queue) = self.queue.as_deref_mut() else {
            self.end = Some(End::Nothing);
            return self.one.take();
        };
        if self.taken.is_multiple_of(STEPS) && self.taken > 0 && turn::is_over(&mut self.turn_since)
        {
            self.end = Some(End::Turn);
            return None;
        }
        let place = match queue.next_quick() {
            Some(place) => place,
            None => match queue.find() {
                Ok(Some(place)) => place,
                Ok(None) => {
                    self.end = Some(End::Nothing);
                    return None;
                }
                Err(error) => {
                    self.end = Some(End::Error(error));
                    return None;
                }
            },
        };
        self.taken += 1;
        queue.at(place)
    }

    /// Whether the message that was taken out of an envelope is still here.
    pub(crate) fn has_one(&self) -> bool {
        self.one.is_some()
    }

    /// How many messages were taken from it.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }
}
