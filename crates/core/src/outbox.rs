//! The outbox of one session: any task or thread puts messages in, the connection's own task takes
//! them all out. One wake-up per batch; bounded in bytes.

#[cfg(not(network_system_loom))]
use std::sync::atomic::fence;
use std::task::{Context, Poll, Waker};

#[cfg(network_system_loom)]
use loom::sync::atomic::fence;
use slab::Slab;

use crate::close::CloseReason;
use crate::error::{Error, ErrorKind, Result};
use crate::out_queue::OutQueue;
use crate::sync::{AtomicBool, AtomicUsize, Mutex, Ordering, lock};

/// The queue between senders and the connection's task.
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// Bytes in `state.queue`: written under the lock, read without.
    queued: AtomicUsize,
    /// Bytes that the owner has taken and not written yet.
    owned: AtomicUsize,
    /// Bytes of answers in `state.queue`, as [`OutQueue::answers`] counts them.
    answers: AtomicUsize,
    /// Whether there is something for the owner to look at.
    ready: AtomicBool,
    /// Whether the session was told to end without handling what it has received.
    stopped: AtomicBool,
    /// Senders in line: written under the lock, read without.
    waiters: AtomicUsize,
    high: usize,
    low: usize,
}

struct State {
    queue: OutQueue,
    /// The owner's task.
    owner: Option<Waker>,
    /// Senders that wait for room.
    waiting: Slab<Waker>,
    command: Option<Command>,
    /// Set once, when nothing more can be sent.
    closed: Option<CloseReason>,
}

/// What the owner is asked to do; a later one replaces a milder one.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// Write what is queued, then close.
    Close(CloseReason),
    /// Close at once.
    Cut(CloseReason),
}

/// What the owner remembers between two [writes](Outbox::write).
pub(crate) struct Hold<'a> {
    /// Bytes that it holds, as the others know.
    pub(crate) owned: &'a mut usize,
    /// What it was asked to do last.
    pub(crate) command: &'a mut Option<Command>,
    /// Bytes that it takes at once where the oldest messages may be dropped.
    pub(crate) most: usize,
    /// Whether they may.
    pub(crate) tracks: bool,
}

/// Why a message was not taken.
pub(crate) enum Refused {
    /// No room.
    Full,
    /// The session has ended, or the message cannot be encoded.
    Error(Error),
}

impl Outbox {
    /// An outbox that is full at `high` bytes and has room again at `low`; one that `tracks` sizes
    /// can drop its oldest messages.
    pub(crate) fn new(high: usize, low: usize, tracks: bool) -> Self {
        Self {
            state: Mutex::new(State {
                queue: OutQueue::new(tracks),
                owner: None,
                waiting: Slab::new(),
                command: None,
                closed: None,
            }),
            queued: AtomicUsize::new(0),
            owned: AtomicUsize::new(0),
            answers: AtomicUsize::new(0),
            // the owner's first look registers it
            ready: AtomicBool::new(true),
            stopped: AtomicBool::new(false),
            waiters: AtomicUsize::new(0),
            high,
            low,
        }
    }

    /// The bytes at which it is full.
    #[inline(always)]
    pub(crate) fn high(&self) -> usize {
        self.high
    }

    /// The bytes at which it has room again.
    pub(crate) fn low(&self) -> usize {
        self.low
    }

    /// Bytes that wait to be written, as far as other tasks know.
    pub(crate) fn bytes(&self) -> usize {
        self.foreign_bytes() + self.owned.load(Ordering::Relaxed)
    }

    /// Bytes put in and not taken out yet.
    #[inline]
    pub(crate) fn foreign_bytes(&self) -> usize {
        self.queued.load(Ordering::Acquire)
    }

    /// Whether `size` more bytes may join `queued` ones. A message larger than the whole outbox
    /// fits an empty one, or it could never be sent.
    #[inline]
    pub(crate) fn has_room(&self, queued: usize, size: usize) -> bool {
        queued == 0 || queued.saturating_add(size) <= self.high
    }

    /// Puts in what `push` queues, about `size` bytes, and wakes the owner.
    pub(crate) fn put(
        &self,
        size: usize,
        push: impl FnOnce(&mut OutQueue) -> Result<()>,
    ) -> Result<(), Refused> {
        self.put_with(push, |outbox, state| {
            let queued = state.queue.bytes() + outbox.owned.load(Ordering::Relaxed);
            outbox.has_room(queued, size)
        })
    }

    /// Puts in what `push` queues, whether there is room or not, and wakes the owner.
    pub(crate) fn put_always(
        &self,
        push: impl FnOnce(&mut OutQueue) -> Result<()>,
    ) -> Result<(), Refused> {
        self.put_with(push, |_, _| true)
    }

    /// Puts in a control message, for which there is always room.
    pub(crate) fn put_control(
        &self,
        push: impl FnOnce(&mut OutQueue) -> Result<()>,
    ) -> Result<(), Refused> {
        let push_counted = |queue: &mut OutQueue| {
            let result = push(queue);
            self.answers.store(queue.answers(), Ordering::Relaxed);
            result
        };
        self.put_with(push_counted, |_, _| true)
    }

    /// Bytes of the answers in it that the peer alone has caused.
    #[inline]
    pub(crate) fn answers(&self) -> usize {
        self.answers.load(Ordering::Relaxed)
    }

    /// Makes the owner look, though there is nothing new in here.
    pub(crate) fn remind(&self) {
        let mut state = lock(&self.state);
        let owner = self.notify(&mut state);
        drop(state);
        wake(owner);
    }

    /// Puts in a message and drops the oldest ones until it fits; how many were dropped.
    pub(crate) fn put_dropping(
        &self,
        push: impl FnOnce(&mut OutQueue) -> Result<()>,
    ) -> Result<u64, Refused> {
        let mut dropped = 0;
        let push_first = |queue: &mut OutQueue| {
            // a message that cannot be sent costs the others nothing
            push(queue)?;
            let owned = self.owned.load(Ordering::Relaxed);
            dropped = queue.drop_to(self.high.saturating_sub(owned));
            Ok(())
        };
        self.put_with(push_first, |_, _| true)?;
        Ok(dropped)
    }

    fn put_with(
        &self,
        push: impl FnOnce(&mut OutQueue) -> Result<()>,
        mut admit: impl FnMut(&Self, &mut State) -> bool,
    ) -> Result<(), Refused> {
        let mut state = lock(&self.state);
        if let Some(reason) = &state.closed {
            return Err(Refused::Error(reason.to_error("send a message")));
        }
        if !admit(self, &mut state) {
            return Err(Refused::Full);
        }
        // of a batch, what comes before the message that fails stays
        let result = push(&mut state.queue).map_err(Refused::Error);
        self.queued.store(state.queue.bytes(), Ordering::Release);
        let owner = self.notify(&mut state);
        drop(state);
        wake(owner);
        result
    }

    /// Wakes the owner without a message.
    pub(crate) fn wake_owner(&self) {
        let owner = self.notify(&mut lock(&self.state));
        wake(owner);
    }

    /// Marks that there is something to look at; the owner to wake, once per batch.
    fn notify(&self, state: &mut State) -> Option<Waker> {
        self.ready.store(true, Ordering::Release);
        state.owner.take()
    }

    /// Asks the owner to do something. A cut replaces a close; otherwise the first one stays.
    pub(crate) fn command(&self, command: Command) {
        let mut state = lock(&self.state);
        match (&state.command, &command) {
            (Some(Command::Cut(_)), _) | (Some(Command::Close(_)), Command::Close(_)) => return,
            _ => {
                let gentle = matches!(
                    command,
                    Command::Close(CloseReason::Shutdown | CloseReason::MaxAge)
                );
                self.stopped.store(!gentle, Ordering::Relaxed);
                state.command = Some(command);
            }
        }
        let owner = self.notify(&mut state);
        drop(state);
        wake(owner);
    }

    /// Whether the session was told to end without handling what it has received.
    #[inline]
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// The same, to look at often.
    pub(crate) fn stopped(&self) -> &AtomicBool {
        &self.stopped
    }

    /// The reason in the last command.
    pub(crate) fn stop_reason(&self) -> Option<CloseReason> {
        match &lock(&self.state).command {
            Some(Command::Close(reason) | Command::Cut(reason)) => Some(reason.clone()),
            None => None,
        }
    }

    /// Whether the owner was told to close at once.
    pub(crate) fn is_cut(&self) -> bool {
        matches!(lock(&self.state).command, Some(Command::Cut(_)))
    }

    /// Waits for room for `size` bytes. `own`: what the caller knows the owner to hold, when the
    /// caller is the owner's task. `key` remembers the place in line between calls;
    /// [`cancel`](Self::cancel) it when the wait is given up.
    pub(crate) fn poll_room(
        &self,
        size: usize,
        own: Option<usize>,
        key: &mut Option<usize>,
        waker: &Waker,
    ) -> Poll<Result<()>> {
        let mut state = lock(&self.state);
        if let Some(reason) = &state.closed {
            return Poll::Ready(Err(reason.to_error("send a message")));
        }
        if own.is_some()
            && self.is_stopped()
            && let Some(Command::Close(reason) | Command::Cut(reason)) = &state.command
        {
            // the close waits for this handler, which must not wait for the peer then
            return Poll::Ready(Err(reason.to_error("send a message")));
        }
        match key.and_then(|key| state.waiting.get_mut(key)) {
            Some(slot) => slot.clone_from(waker),
            None => *key = Some(state.waiting.insert(waker.clone())),
        }
        // first in line, then the look: the owner does it the other way round, so one of the two
        // always sees the other
        self.waiters.store(state.waiting.len(), Ordering::Release);
        fence(Ordering::SeqCst);
        let owned = own.unwrap_or_else(|| self.owned.load(Ordering::Acquire));
        if !self.has_room(state.queue.bytes() + owned, size) {
            return Poll::Pending;
        }
        if let Some(key) = key.take() {
            self.leave(&mut state, key);
        }
        Poll::Ready(Ok(()))
    }

    fn leave(&self, state: &mut State, key: usize) {
        state.waiting.try_remove(key);
        self.waiters.store(state.waiting.len(), Ordering::SeqCst);
    }

    /// Gives up a place in line.
    pub(crate) fn cancel(&self, key: usize) {
        let mut state = lock(&self.state);
        self.leave(&mut state, key);
    }

    /// For the owner: whether there may be something to take, without the lock.
    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// The same, to look at often.
    #[inline(always)]
    pub(crate) fn ready(&self) -> &AtomicBool {
        &self.ready
    }

    /// For the owner: moves what has been put in behind `into`, at most about `most` bytes where
    /// sizes are tracked (none for 0), and remembers whom to wake for the next message.
    pub(crate) fn take(&self, into: &mut OutQueue, most: usize, owner: &Waker) -> Option<Command> {
        let mut state = lock(&self.state);
        match &mut state.owner {
            Some(waker) if waker.will_wake(owner) => {}
            other => *other = Some(owner.clone()),
        }
        if most > 0 {
            into.append(&mut state.queue, most);
        }
        let left = state.queue.bytes();
        self.queued.store(left, Ordering::Release);
        self.answers.store(state.queue.answers(), Ordering::Relaxed);
        self.owned.store(into.bytes(), Ordering::Relaxed);
        self.ready.store(left > 0, Ordering::Release);
        state.command.clone()
    }

    /// For the owner: takes what was put in behind `queue` and lets `send` write, until all is
    /// written or the transport takes no more; then lets senders go on when there is room.
    #[inline(always)]
    pub(crate) fn write(
        &self,
        queue: &mut OutQueue,
        hold: &mut Hold<'_>,
        cx: &mut Context<'_>,
        mut send: impl FnMut(&mut Context<'_>, &mut OutQueue) -> Poll<Result<()>>,
    ) -> Poll<Result<()>> {
        let result = loop {
            if self.is_ready() {
                let most = if hold.tracks && !queue.is_empty() {
                    0
                } else {
                    hold.most
                };
                let command = self.take(queue, most, cx.waker());
                *hold.command = command.or(hold.command.take());
                *hold.owned = queue.bytes();
            }
            if queue.is_empty() {
                break Poll::Ready(Ok(()));
            }
            match send(cx, queue) {
                Poll::Ready(Ok(())) if self.is_ready() => {}
                result => break result,
            }
        };
        queue.release();
        if queue.bytes() != *hold.owned || self.has_waiters() {
            *hold.owned = queue.bytes();
            self.set_owned(*hold.owned);
        }
        result
    }

    /// For the owner: says how much it has taken and not written yet; lets senders go on when
    /// there is room.
    pub(crate) fn set_owned(&self, bytes: usize) {
        self.owned.store(bytes, Ordering::Release);
        // pairs with the one in `poll_room`; a fence, since loom does not model `SeqCst` accesses
        fence(Ordering::SeqCst);
        if self.has_waiters() {
            self.release();
        }
    }

    /// Whether senders are in line.
    #[inline]
    pub(crate) fn has_waiters(&self) -> bool {
        self.waiters.load(Ordering::SeqCst) > 0
    }

    /// Wakes everyone in line; each one stays there until it has seen the room itself.
    #[cold]
    fn release(&self) {
        let state = lock(&self.state);
        if state.queue.bytes() + self.owned.load(Ordering::SeqCst) > self.low {
            return;
        }
        let waiting: Vec<Waker> = state
            .waiting
            .iter()
            .map(|(_, waker)| waker.clone())
            .collect();
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// For the owner: lets nothing more in, and moves what is inside behind `into`.
    pub(crate) fn close(&self, reason: &CloseReason, into: &mut OutQueue) {
        let mut state = lock(&self.state);
        // the last reason is the final one: a shutdown may turn into a cut
        state.closed = Some(reason.clone());
        into.append(&mut state.queue, usize::MAX);
        self.queued.store(0, Ordering::Release);
        self.answers.store(0, Ordering::Relaxed);
        let waiting: Vec<Waker> = state
            .waiting
            .iter()
            .map(|(_, waker)| waker.clone())
            .collect();
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// For the owner's task, before it queues a message of its own: what others have put in goes
    /// first.
    #[cold]
    pub(crate) fn overtake(&self, into: &mut OutQueue) {
        let mut state = lock(&self.state);
        into.append(&mut state.queue, usize::MAX);
        self.queued.store(0, Ordering::Release);
        self.answers.store(0, Ordering::Relaxed);
    }

    /// Why nothing can be sent any more, if that is so.
    pub(crate) fn closed(&self) -> Option<CloseReason> {
        lock(&self.state).closed.clone()
    }

    /// The error of a full outbox.
    #[cold]
    pub(crate) fn full(&self) -> Error {
        Error::new(ErrorKind::QueueFull, "send a message")
            .because(format_args!("{} bytes wait already", self.bytes()))
            .advice("the peer reads too slowly; wait, send less, or choose another overflow policy")
    }
}

fn wake(owner: Option<Waker>) {
    if let Some(owner) = owner {
        owner.wake();
    }
}

#[cfg(test)]
mod tests;
