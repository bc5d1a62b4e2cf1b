//! The two halves of a connection, for two tasks.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use super::Connection;
use crate::error::Result;
use crate::link::Link;
use crate::message::Message;

/// The half that receives; see [`Connection::split`].
pub struct ConnectionReceiver<L>(Arc<Shared<L>>);

/// The half that sends; see [`Connection::split`].
pub struct ConnectionSender<L>(Arc<Shared<L>>);

struct Shared<L> {
    connection: Mutex<Connection<L>>,
    tasks: Arc<Tasks>,
}

/// The two tasks. A transport remembers one waker for each direction, and both halves may write,
/// so it is given one that wakes both.
#[derive(Default)]
struct Tasks(Mutex<[Option<Waker>; 2]>);

impl Tasks {
    fn join(self: &Arc<Self>, half: usize, waker: &Waker) -> Waker {
        let mut wakers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wakers[half & 1] = Some(waker.clone());
        Waker::from(self.clone())
    }
}

impl Wake for Tasks {
    fn wake(self: Arc<Self>) {
        let wakers = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

pub(super) fn split<L: Link>(
    connection: Connection<L>,
) -> (ConnectionReceiver<L>, ConnectionSender<L>) {
    let shared = Arc::new(Shared {
        connection: Mutex::new(connection),
        tasks: Arc::default(),
    });
    (ConnectionReceiver(shared.clone()), ConnectionSender(shared))
}

impl<L> Shared<L> {
    fn lock(&self) -> MutexGuard<'_, Connection<L>> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L: Link> ConnectionReceiver<L> {
    /// As [`Connection::receive`].
    ///
    /// # Errors
    /// As there.
    pub async fn receive(&mut self) -> Result<Option<Message>> {
        poll_fn(|cx| {
            let waker = self.0.tasks.join(0, cx.waker());
            self.0.lock().poll_receive(&mut Context::from_waker(&waker))
        })
        .await
    }
}

impl<L: Link> ConnectionSender<L> {
    /// Queues a message and writes it at once; waits while the peer reads too slowly.
    ///
    /// # Errors
    /// As [`Connection::send`].
    pub async fn send(&mut self, message: impl Into<Message>) -> Result<()> {
        let message = message.into();
        if let Err(error) = self.feed(message.clone()) {
            if !error.is_full() {
                return Err(error);
            }
            self.flush().await?;
            self.feed(message)?;
        }
        self.flush().await
    }

    /// As [`Connection::feed`].
    ///
    /// # Errors
    /// As there.
    pub fn feed(&mut self, message: impl Into<Message>) -> Result<()> {
        self.0.lock().feed(message)
    }

    /// As [`Connection::flush`].
    ///
    /// # Errors
    /// As there.
    pub async fn flush(&mut self) -> Result<()> {
        let mut timer = None;
        poll_fn(|cx| {
            let waker = self.0.tasks.join(1, cx.waker());
            self.0
                .lock()
                .poll_flush_in_time(&mut Context::from_waker(&waker), &mut timer)
        })
        .await
    }

    /// Writes what is queued and closes in good order; the other half receives to the end.
    ///
    /// # Errors
    /// As [`Connection::close`].
    pub async fn close(self) -> Result<()> {
        let timeout = self.0.lock().close_timeout;
        let close = poll_fn(|cx| {
            let waker = self.0.tasks.join(1, cx.waker());
            let mut cx = Context::from_waker(&waker);
            let mut connection = self.0.lock();
            match connection.poll_flush(&mut cx) {
                Poll::Ready(Ok(())) => connection.link.poll_close(&mut cx),
                result => result,
            }
        });
        let result = tokio::time::timeout(timeout, close).await;
        result.unwrap_or_else(|_| Err(self.0.lock().unclosed()))
    }
}
