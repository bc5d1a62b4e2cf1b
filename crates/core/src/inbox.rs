//! The messages that have come to a connection and are not handled yet: [`Inbox`].

use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use crate::buffers::Frames;
use crate::error::{Error, Result};
use crate::in_queue::{InQueue, Place};
use crate::message::MessageRef;
use crate::outgoing::Outgoing;
use crate::session::Session;
use crate::sync::AtomicBool;
use crate::turn::{self, Looks};

/// The messages that have come and are not handled yet, in order, as
/// [`Handler::on_batch`](crate::Handler::on_batch) gets them.
pub struct Inbox<'a> {
    /// `None` where the message was taken out of an envelope already.
    queue: Option<&'a mut InQueue>,
    one: Option<MessageRef<'a>>,
    session: &'a Session,
    stopped: &'a AtomicBool,
    taken: u64,
    looks: Looks,
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
    /// There is no room for answers.
    Full,
    /// The peer broke the protocol.
    Error(Error),
}

/// A message that was found.
enum Found<'a> {
    At(Place),
    One(MessageRef<'a>),
}

impl<'a> Inbox<'a> {
    pub(crate) fn new(
        queue: &'a mut InQueue,
        session: &'a Session,
        turn_since: Option<Instant>,
        looks: Looks,
    ) -> Self {
        Self {
            queue: Some(queue),
            one: None,
            session,
            stopped: session.stopped(),
            taken: 0,
            looks,
            turn_since,
            end: None,
        }
    }

    pub(crate) fn one(message: MessageRef<'a>, session: &'a Session) -> Self {
        Self {
            queue: None,
            one: Some(message),
            session,
            stopped: session.stopped(),
            taken: 0,
            looks: Looks::default(),
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
        if let Some(place) = self.next_quick() {
            return self.at(place);
        }
        match self.find()? {
            Found::At(place) => self.at(place),
            Found::One(message) => Some(message),
        }
    }

    /// Calls `work` for the messages, with a way out for what it sends: for each message less than
    /// half the work of [`next`](Self::next) and [`Session::send`], and shorter to write, where
    /// nothing has to wait. `session` is the handler's own.
    ///
    /// It stops where `next` gives no more, and where the outbox is full; then it is time to
    /// return, and the messages that are left come with the next call, when there is room.
    ///
    /// # Errors
    /// That of `work`, which is not called again then.
    ///
    /// ```
    /// # use network_system_core as network_system;
    /// use network_system::{Handler, Inbox, MessageRef, Result, Session};
    ///
    /// struct Echo;
    ///
    /// impl Handler for Echo {
    ///     async fn on_message(&self, session: &Session, message: &MessageRef<'_>) -> Result<()> {
    ///         session.send(message).await
    ///     }
    ///
    ///     async fn on_batch(&self, session: &Session, inbox: &mut Inbox<'_>) -> Result<()> {
    ///         inbox.each(session, |message, outgoing| outgoing.send(message))
    ///     }
    /// }
    /// ```
    #[inline(always)]
    pub fn each<F>(&mut self, session: &Session, mut work: F) -> Result<()>
    where
        F: FnMut(&MessageRef<'_>, &mut Outgoing<'_>) -> Result<()>,
    {
        let mut outgoing = Outgoing::new(session);
        let mut frames = self.frames();
        outgoing.limit(self.looks.left(self.taken));
        loop {
            // `work` is called in one place, so that it becomes part of this loop
            let message = match outgoing.may_go_on().then(|| frames.next()).flatten() {
                Some(message) => {
                    outgoing.step();
                    message
                }
                None => {
                    let left = frames.left();
                    self.took(&mut outgoing, left);
                    if left == 0 && self.is_empty() && !outgoing.is_full() {
                        self.end = Some(End::Nothing);
                        return Ok(());
                    }
                    // what is not quick to find, and reasons to pause
                    let Some(found) = self.find_beside(outgoing.is_full()) else {
                        return Ok(());
                    };
                    frames = self.frames();
                    outgoing.limit(self.looks.left(self.taken));
                    match found {
                        Found::One(message) => message,
                        Found::At(place) => self.at(place).unwrap_or_default(),
                    }
                }
            };
            if let Err(error) = work(&message, &mut outgoing) {
                let left = frames.left();
                self.took(&mut outgoing, left);
                return Err(error);
            }
        }
    }

    /// Whether nothing is left, as far as is known at once.
    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| queue.is_drained())
    }

    /// Counts what the quick way has taken.
    #[inline(always)]
    fn took(&mut self, outgoing: &mut Outgoing<'_>, left: usize) {
        self.taken += outgoing.take_steps();
        if let Some(queue) = &mut self.queue {
            queue.consume_to(left);
        }
    }

    /// As [`find`](Self::find), but stops where the outbox is full.
    #[inline(never)]
    fn find_beside(&mut self, full: bool) -> Option<Found<'a>> {
        if full {
            self.end = Some(End::Full);
            return None;
        }
        self.find()
    }

    #[inline(always)]
    fn frames(&self) -> Frames<'_> {
        match &self.queue {
            Some(queue) => queue.frames(),
            None => Frames::default(),
        }
    }

    #[inline(always)]
    fn at(&self, place: Place) -> Option<MessageRef<'_>> {
        self.queue.as_deref()?.at(place)
    }

    /// The place of the next message, where nothing stands in the way and it is quick to find.
    #[inline(always)]
    fn next_quick(&mut self) -> Option<Place> {
        if self.looks.are_due(self.taken) || self.stopped.load(Relaxed) {
            return None;
        }
        let place = self.queue.as_deref_mut()?.next_quick()?;
        self.taken += 1;
        Some(place)
    }

    #[inline(never)]
    fn find(&mut self) -> Option<Found<'a>> {
        if self.stopped.load(Relaxed) {
            return None;
        }
        let Some(queue) = self.queue.as_deref_mut() else {
            self.end = Some(End::Nothing);
            return self.one.take().map(Found::One);
        };
        if self.looks.are_due(self.taken) && turn::is_over(&mut self.turn_since) {
            self.end = Some(End::Turn);
            return None;
        }
        let place = match queue.find() {
            Ok(Some(place)) => place,
            Ok(None) => {
                self.end = Some(End::Nothing);
                return None;
            }
            Err(error) => {
                self.end = Some(End::Error(error));
                return None;
            }
        };
        self.taken += 1;
        Some(Found::At(place))
    }

    /// Whether the message that was taken out of an envelope is still here.
    pub(crate) fn has_one(&self) -> bool {
        self.one.is_some()
    }

    /// How many messages were taken from it, for who counts them.
    pub(crate) fn take_taken(&mut self) -> u64 {
        std::mem::take(&mut self.taken)
    }
}

impl Drop for Inbox<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.taken > 0 {
            self.session.unfinished(self.taken);
        }
    }
}
