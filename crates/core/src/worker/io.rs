//! Sockets on a worker: [`Io`], and how the loop tells them what has happened.

use std::fmt;
use std::io::{self, IoSlice, Write};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use mio::event::Source;
use mio::{Interest, Token};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::events::Happened;
use super::executor::{self, Home};

/// Whether a read that leaves room has taken everything, and what comes later is announced; only
/// Windows wants to see "would block" before it announces again.
const SHORT_READ_IS_LAST: bool = cfg!(not(windows));

/// A socket that a worker watches. It may be used on another thread, too.
pub struct Io<S: Source> {
    source: S,
    state: Arc<State>,
    home: Arc<Home>,
    token: Token,
    input: Side,
    output: Side,
}

/// What the worker knows of a socket.
#[derive(Default)]
pub(super) struct State {
    input: Events,
    output: Events,
    /// No more will come: reading need not wait for events.
    closed: AtomicBool,
    /// The worker has ended, and with it all events.
    gone: AtomicBool,
}

impl State {
    fn set_gone(&self) {
        self.gone.store(true, Ordering::Release);
        // with the one in `remember`: either that finds the worker gone, or its waker is seen here
        fence(Ordering::SeqCst);
        self.input.happened();
        self.output.happened();
    }

    /// Nobody would be woken any more.
    fn check(&self) -> io::Result<()> {
        if self.gone.load(Ordering::Acquire) {
            return Err(io::Error::new(
                io::ErrorKind::NotConnected,
                "the worker that watched the socket has ended",
            ));
        }
        Ok(())
    }

    /// Whether something has come since the events that were `seen`; `blocked`: an end was looked
    /// for, and is not there.
    fn has_input(&self, seen: u32, blocked: bool) -> bool {
        let closed = !blocked && self.closed.load(Ordering::Acquire);
        closed || self.input.count.load(Ordering::Acquire) != seen
    }
}

/// What has happened to one direction, written by the worker alone.
#[derive(Default)]
struct Events {
    count: AtomicU32,
    wakers: Wakers,
}

/// What the user of a socket knows of one direction.
#[derive(Default)]
struct Side {
    /// The events that have been made use of.
    seen: u32,
    /// The waker that the worker has, so that most waits need not look there.
    known: Option<Waker>,
}

/// Whom to wake. In nearly all cases it is always the same, which is found without a lock; to wake
/// it too often does no harm.
#[derive(Default)]
struct Wakers {
    /// How many there are: 0, 1, or 2.
    known: AtomicU8,
    first: OnceLock<Waker>,
    other: Mutex<Option<Waker>>,
}

impl Wakers {
    fn wake(&self) {
        let known = self.known.load(Ordering::Acquire);
        if known > 0
            && let Some(first) = self.first.get()
        {
            first.wake_by_ref();
        }
        if known > 1 {
            let other = self.other.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(other) = &*other {
                other.wake_by_ref();
            }
        }
    }

    #[cold]
    fn remember(&self, waker: &Waker) {
        if self.first.set(waker.clone()).is_ok() {
            self.known.store(1, Ordering::Release);
            return;
        }
        let mut other = self.other.lock().unwrap_or_else(PoisonError::into_inner);
        *other = Some(waker.clone());
        self.known.store(2, Ordering::Release);
    }
}

impl Events {
    /// Counts without an atomic addition, because only the worker does.
    fn happened(&self) {
        let count = self.count.load(Ordering::Relaxed);
        self.count.store(count.wrapping_add(1), Ordering::Release);
        self.wakers.wake();
    }
}

impl Side {
    /// Makes sure that the task is woken by the next event; whether that was not sure before.
    #[inline]
    fn remember(&mut self, events: &Events, home: &Home, cx: &Context<'_>) -> bool {
        let known = self.known.as_ref();
        if known.is_some_and(|known| known.will_wake(cx.waker())) {
            return false;
        }
        self.known = Some(cx.waker().clone());
        events.wakers.remember(cx.waker());
        if !home.is_here() {
            // An event that the worker has just counted may have missed the waker, and its count
            // may not be seen here yet. So the worker wakes the task once more, later than all that
            // it had counted when this came to it; that is cheaper than to order both for each event.
            let waker = cx.waker().clone();
            home.run(Box::new(move || waker.wake()));
        }
        fence(Ordering::SeqCst);
        true
    }
}

impl<S: Source> Io<S> {
    /// Lets the worker on whose thread this is called watch `source`, which must not block.
    ///
    /// # Errors
    /// What the system said, or this thread is no [worker](super::is_worker).
    pub fn new(mut source: S) -> io::Result<Self> {
        let home = executor::home().ok_or(io::ErrorKind::Unsupported)?;
        let state = Arc::<State>::default();
        let token = home.add(|token| Change::New(token, state.clone()));
        let both = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = home.registry.register(&mut source, token, both) {
            home.remove(token);
            return Err(error);
        }
        Ok(Self {
            source,
            state,
            home,
            token,
            input: Side::default(),
            output: Side::default(),
        })
    }

    /// The socket.
    pub fn get_ref(&self) -> &S {
        &self.source
    }

    /// Whether there is nothing to read, and the task will be woken when there is.
    #[inline]
    pub fn would_wait(&self, cx: &Context<'_>) -> bool {
        let known = self.input.known.as_ref();
        known.is_some_and(|known| known.will_wake(cx.waker()))
            && !self.state.has_input(self.input.seen, false)
    }

    /// Runs `work`, which reads or accepts, when there may be something; it says whether there may
    /// be more after it.
    #[inline]
    pub fn poll_input<R>(
        &mut self,
        cx: &mut Context<'_>,
        mut work: impl FnMut(&S) -> io::Result<(R, bool)>,
    ) -> Poll<io::Result<R>> {
        let Self {
            state, input, home, ..
        } = self;
        let mut blocked = false;
        loop {
            // before the read, so that what comes meanwhile is not forgotten
            let now = state.input.count.load(Ordering::Acquire);
            if now == input.seen && (blocked || !state.closed.load(Ordering::Acquire)) {
                // an event that came before anybody was there to be woken must not be missed
                let is_new = input.remember(&state.input, home, cx);
                if is_new && state.has_input(input.seen, blocked) {
                    continue;
                }
                state.check()?;
                return Poll::Pending;
            }
            if !executor::spend() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match work(&self.source) {
                Ok((result, more)) => {
                    if !more {
                        input.seen = now;
                    }
                    return Poll::Ready(Ok(result));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // a socket that is closed and still blocks: not for ever
                    blocked = state.closed.load(Ordering::Acquire) && now == input.seen;
                    input.seen = now;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    #[inline]
    fn poll_output<R>(
        &mut self,
        cx: &mut Context<'_>,
        mut work: impl FnMut(&S) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        let Self {
            state,
            output,
            home,
            ..
        } = self;
        if !executor::spend() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            let now = state.output.count.load(Ordering::Acquire);
            match work(&self.source) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => output.seen = now,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => return Poll::Ready(result),
            }
            output.remember(&state.output, home, cx);
            if state.output.count.load(Ordering::Acquire) == output.seen {
                state.check()?;
                return Poll::Pending;
            }
        }
    }
}

impl<S: Source> Drop for Io<S> {
    fn drop(&mut self) {
        // fails when the worker has ended, and then nothing is watched
        let _ = self.home.registry.deregister(&mut self.source);
        self.home.remove(self.token);
    }
}

impl<S: Source + fmt::Debug> fmt::Debug for Io<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

/// Connected sockets that a worker can watch.
pub trait Stream: Source + Unpin {
    /// Reads what is there.
    ///
    /// # Errors
    /// What the system said.
    fn receive(&self, into: &mut [u8]) -> io::Result<usize>;

    /// Writes what there is room for.
    ///
    /// # Errors
    /// What the system said.
    fn send(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Writes what there is room for, from several pieces.
    ///
    /// # Errors
    /// What the system said.
    fn send_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Says that no more will be written.
    ///
    /// # Errors
    /// What the system said.
    fn close_output(&self) -> io::Result<()>;
}

macro_rules! stream {
    ($type:ty) => {
        impl Stream for $type {
            #[inline]
            fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
                receive(self, into)
            }

            #[inline]
            fn send(&self, bytes: &[u8]) -> io::Result<usize> {
                send(self, bytes)
            }

            fn send_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
                (&*self).write_vectored(slices)
            }

            fn close_output(&self) -> io::Result<()> {
                self.shutdown(Shutdown::Write)
            }
        }
    };
}

stream!(mio::net::TcpStream);
#[cfg(unix)]
stream!(mio::net::UnixStream);

/// On Linux without the C library, whose calls can be cancelled, which nobody does and which costs
/// two atomic operations in a process with several threads.
#[cfg(target_os = "linux")]
fn receive(socket: impl std::os::fd::AsFd, into: &mut [u8]) -> io::Result<usize> {
    let (n, _) = rustix::net::recv(socket, into, rustix::net::RecvFlags::empty())?;
    Ok(n)
}

#[cfg(target_os = "linux")]
fn send(socket: impl std::os::fd::AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(
        socket,
        bytes,
        rustix::net::SendFlags::NOSIGNAL,
    )?)
}

#[cfg(not(target_os = "linux"))]
fn receive(mut socket: impl std::io::Read, into: &mut [u8]) -> io::Result<usize> {
    socket.read(into)
}

#[cfg(not(target_os = "linux"))]
fn send(mut socket: impl Write, bytes: &[u8]) -> io::Result<usize> {
    socket.write(bytes)
}

impl<S: Stream> AsyncRead for Io<S> {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = into.initialize_unfilled();
        let n = ready!(self.get_mut().poll_input(cx, |source| {
            let n = source.receive(room)?;
            // the end is found again each time
            let more = n == 0 || n == room.len() || !SHORT_READ_IS_LAST;
            Ok((n, more))
        }))?;
        into.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl<S: Stream> AsyncWrite for Io<S> {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_output(cx, |source| source.send(bytes))
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .poll_output(cx, |source| source.send_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.source.close_output())
    }
}

/// What the worker is told about its sockets.
pub(super) enum Change {
    New(usize, Arc<State>),
    Gone(usize),
}

impl Change {
    /// The worker has ended before it could be told.
    pub(super) fn set_gone(self) {
        if let Self::New(_, state) = self {
            state.set_gone();
        }
    }
}

/// The sockets of a worker, by token.
#[derive(Default)]
pub(super) struct Slots(Vec<Option<Arc<State>>>);

impl Slots {
    /// Does `change`; tokens that are free again go to `free`.
    pub(super) fn apply(&mut self, change: Change, free: &mut Vec<usize>) {
        match change {
            Change::New(token, state) => {
                if token >= self.0.len() {
                    self.0.resize(token + 1, None);
                }
                self.0[token] = Some(state);
            }
            Change::Gone(token) => {
                if let Some(place) = self.0.get_mut(token) {
                    *place = None;
                }
                free.push(token);
            }
        }
    }

    /// The worker has ended.
    pub(super) fn set_gone(&mut self) {
        self.0
            .drain(..)
            .flatten()
            .for_each(|state| state.set_gone());
    }

    pub(super) fn happened(&self, token: Token, happened: Happened) {
        let Some(Some(state)) = self.0.get(token.0) else {
            return;
        };
        if happened.closed {
            state.closed.store(true, Ordering::Release);
        }
        if happened.input {
            state.input.happened();
        }
        if happened.output {
            state.output.happened();
        }
    }
}
