//! A connection while it is lent: [`PooledConnection`], and how it comes back.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;

use super::{Inner, PoolConfig};
use crate::connection::Connection;
use crate::error::{Error, ErrorKind, Result};
use crate::link::{Link, Transports};
use crate::message::Message;

/// Why a connection is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Discard {
    Broken,
    Idle,
    Age,
    Evicted,
    User,
    Closed,
}

/// A connection that nobody uses.
pub(super) struct Idle<L> {
    pub(super) connection: Connection<L>,
    since: Instant,
    made: Instant,
    max_age: Duration,
}

impl<L: Link> Idle<L> {
    pub(super) fn new(connection: Connection<L>, config: &PoolConfig) -> Self {
        let now = Instant::now();
        // from 0.9 to 1.1 of it; half of the longest time cannot overflow, and never ends either
        let most = config.max_age.min(Duration::MAX / 2);
        Self {
            connection,
            since: now,
            made: now,
            max_age: most.mul_f64(0.9 + 0.2 * fastrand::f64()),
        }
    }

    pub(super) fn is_over(&self, config: &PoolConfig, now: Instant) -> Option<Discard> {
        if now.saturating_duration_since(self.made) >= self.max_age {
            return Some(Discard::Age);
        }
        let unused = now.saturating_duration_since(self.since);
        (unused >= config.idle_timeout).then_some(Discard::Idle)
    }
}

/// A connection as the pool keeps it. The lock is never waited for: who has been given the connection
/// is alone with it. It is there because its guard lends what is in it and can still be dropped,
/// which a value in the guard itself could not be without being absent at some time.
pub(super) type Kept<L> = Arc<Mutex<Idle<L>>>;

/// A connection that somebody has been given.
pub(super) type Held<L> = OwnedMutexGuard<Idle<L>>;

/// Takes what one has been given; ready at once.
pub(super) async fn hold<L>(kept: Kept<L>) -> Held<L> {
    // a task that has used up its turn would wait here all the same
    tokio::task::unconstrained(kept.lock_owned()).await
}

/// Lets go of it.
pub(super) fn let_go<L>(held: Held<L>) -> Kept<L> {
    OwnedMutexGuard::mutex(&held).clone()
}

/// Whether a connection that nobody uses is as it should be: open, with nothing unread or unsent.
/// Answers the peer's pings, and sends ours when one is due.
pub(super) fn is_usable<L: Link>(connection: &mut Connection<L>, cx: &mut Context<'_>) -> bool {
    // a message that nobody has asked for would be taken for the next one's answer
    connection.poll_receive(cx).is_pending() && connection.is_at_rest()
}

/// The right to have one connection open; gives it back on drop.
pub(super) struct Permit<T: Transports> {
    inner: Arc<Inner<T>>,
    key: Arc<str>,
    held: bool,
}

impl<T: Transports> Permit<T> {
    pub(super) fn new(inner: Arc<Inner<T>>, key: Arc<str>) -> Self {
        Self {
            inner,
            key,
            held: true,
        }
    }

    pub(super) fn inner(&self) -> &Inner<T> {
        &self.inner
    }

    pub(super) fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// Gives it back with a connection, which nobody holds any more.
    pub(super) fn put(&mut self, kept: Kept<T::Link>) {
        self.held = false;
        self.inner.evicted(self.inner.slots.put(&self.key, kept));
        self.inner.returned.notify_waiters();
    }
}

impl<T: Transports> Drop for Permit<T> {
    fn drop(&mut self) {
        if self.held {
            self.inner.evicted(self.inner.slots.release(&self.key));
            self.inner.returned.notify_waiters();
        }
    }
}

/// A connection that is lent by a [`ConnectionPool`](crate::ConnectionPool); returned on drop.
///
/// A task that stops between sending a request and receiving its answer must
/// [`discard`](Self::discard) the connection, or use [`exchange`](Self::exchange), which does.
pub struct PooledConnection<T: Transports> {
    /// Dropped before the permit: let go before it is given back, or closed before somebody else may
    /// open one in its place.
    lent: Held<T::Link>,
    back: Back<T>,
    discard: bool,
}

/// What is given back once the connection is let go.
struct Back<T: Transports> {
    permit: Permit<T>,
    kept: Option<Kept<T::Link>>,
}

impl<T: Transports> Drop for Back<T> {
    fn drop(&mut self) {
        if let Some(kept) = self.kept.take() {
            self.permit.put(kept);
        }
    }
}

impl<T: Transports> PooledConnection<T> {
    pub(super) fn new(permit: Permit<T>, lent: Held<T::Link>) -> Self {
        Self {
            lent,
            back: Back { permit, kept: None },
            discard: false,
        }
    }

    /// Sends a message and receives the next one. A connection whose exchange has failed or was
    /// cancelled is discarded: an answer that comes late is nobody else's.
    ///
    /// # Errors
    /// As [`Connection::send`] and [`Connection::receive`]; [`ErrorKind::ConnectionClosed`] when the
    /// peer closes instead of answering.
    pub async fn exchange(&mut self, message: impl Into<Message>) -> Result<Message> {
        let before = std::mem::replace(&mut self.discard, true);
        self.send(message).await?;
        let Some(answer) = self.receive().await? else {
            let closed = Error::new(ErrorKind::ConnectionClosed, "receive from");
            return Err(closed.peer(&self.info().peer));
        };
        self.discard = before;
        Ok(answer)
    }

    /// The connection will not be used again.
    pub fn discard(mut self) {
        self.discard = true;
    }
}

impl<T: Transports> Deref for PooledConnection<T> {
    type Target = Connection<T::Link>;

    fn deref(&self) -> &Self::Target {
        &self.lent.connection
    }
}

impl<T: Transports> DerefMut for PooledConnection<T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.lent.connection
    }
}

impl<T: Transports> Drop for PooledConnection<T> {
    fn drop(&mut self) {
        let idle = &mut *self.lent;
        let inner = self.back.permit.inner();
        idle.since = Instant::now();
        let why = if inner.slots.is_closed() {
            Some(Discard::Closed)
        } else if self.discard || std::thread::panicking() {
            Some(Discard::User)
        } else if !is_usable_now(inner, idle) {
            Some(Discard::Broken)
        } else {
            idle.is_over(&inner.config, idle.since)
                .filter(|why| *why == Discard::Age)
        };
        match why {
            None => self.back.kept = Some(OwnedMutexGuard::mutex(&self.lent).clone()),
            Some(why) => inner.counters.discarded(why),
        }
    }
}

/// As [`is_usable`], from anywhere: a guard may be dropped outside of its runtime, or when that is
/// gone, where tokio's timers panic.
fn is_usable_now<T: Transports>(inner: &Inner<T>, idle: &mut Idle<T::Link>) -> bool {
    let _entered = inner.runtime.enter();
    let check = || {
        let look = std::future::poll_fn(|cx| Poll::Ready(is_usable(&mut idle.connection, cx)));
        let look = std::pin::pin!(tokio::task::unconstrained(look));
        look.poll(&mut Context::from_waker(Waker::noop()))
    };
    matches!(catch_unwind(AssertUnwindSafe(check)), Ok(Poll::Ready(true)))
}

impl<T: Transports> fmt::Debug for PooledConnection<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledConnection")
            .field("peer", &self.info().peer)
            .finish_non_exhaustive()
    }
}
