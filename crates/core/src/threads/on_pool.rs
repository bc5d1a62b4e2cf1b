//! Takes the calls of a handler to a pool of threads: [`OnPool`].

use std::sync::Arc;

use async_task::{Builder, Runnable};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::ThreadPool;
use crate::close::CloseReason;
use crate::error::{Error, ErrorKind, Result};
use crate::handler::Handler;
use crate::in_queue::InQueue;
use crate::inbox::{End, Inbox};
use crate::message::{Message, MessageRef};
use crate::out_queue::Encoding;
use crate::requests::Request;
use crate::session::Session;
use crate::turn::Looks;

/// A handler whose calls run on a pool of threads, as [`Handler::on_pool`] makes it.
///
/// The connection's own thread goes on with other connections meanwhile. The calls for one session
/// still come one after another, and one batch of messages at most waits for its turn, so a peer that
/// sends more than the pool can handle is held up, and the memory is bounded. What a handler awaits
/// does not keep a thread of the pool.
///
/// Messages are copied for it, and a change of threads costs some microseconds: it is for handlers
/// that compute for longer than that. `on_error` and `on_goaway` are called where they happen.
pub struct OnPool<H> {
    handler: Arc<H>,
    pool: Arc<dyn ThreadPool>,
}

/// Who has it makes a call for the session: a call that was abandoned may still run.
struct Order(Arc<Mutex<()>>);

impl Clone for Order {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

async fn order(session: &Session) -> OwnedMutexGuard<()> {
    let order = session.get::<Order>().unwrap_or_else(|| {
        let order = Order(Arc::default());
        session.set(order.clone());
        order
    });
    order.0.lock_owned().await
}

impl<H: Handler> OnPool<H> {
    pub(crate) fn new(handler: H, pool: Arc<dyn ThreadPool>) -> Self {
        Self {
            handler: Arc::new(handler),
            pool,
        }
    }

    /// Runs `call` on the pool, after all calls for the session before it. A panic goes on here.
    async fn call<T, F>(
        &self,
        session: &Session,
        call: impl FnOnce(Arc<H>, Session) -> F + Send,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let turn = order(session).await;
        let call = call(self.handler.clone(), session.clone());
        let future = async move {
            let result = call.await;
            drop(turn);
            result
        };
        let (pool, runtime) = (self.pool.clone(), session.runtime().clone());
        let schedule = move |runnable: Runnable| {
            let runtime = runtime.clone();
            // what is refused is dropped, which the task below shows
            let _ = pool.execute(Box::new(move || {
                let _context = runtime.enter();
                runnable.run();
            }));
        };
        let (runnable, task) = Builder::new()
            .propagate_panic(true)
            .spawn(|()| future, schedule);
        runnable.schedule();
        task.fallible().await.ok_or_else(|| {
            Error::new(ErrorKind::Internal, "handle a message")
                .because("the thread pool did not take it: it is full, or has stopped")
                .advice("stop the pool after the servers and clients that use it")
        })
    }
}

/// Hands over what came with one read, as a connection's own task would.
async fn batch<H: Handler>(
    handler: Arc<H>,
    session: Session,
    messages: Vec<Message>,
) -> Result<()> {
    let mut left = messages.len() as u64;
    let mut queue = InQueue::new(&Encoding::Messages);
    for message in messages {
        queue.push(message, 0);
    }
    while left > 0 && !session.is_stopped() {
        let mut inbox = Inbox::new(&mut queue, &session, None, Looks::default());
        handler.on_batch(&session, &mut inbox).await?;
        let taken = inbox.take_taken();
        left -= taken.min(left);
        match inbox.end.take() {
            Some(End::Error(error)) => return Err(error),
            Some(End::Full) => session.has_room().await?,
            Some(End::Nothing) => return Ok(()),
            Some(End::Turn) | None if taken > 0 => {}
            Some(End::Turn) | None => return Err(crate::driver::nothing_taken()),
        }
    }
    Ok(())
}

impl<H: Handler> Handler for OnPool<H> {
    async fn on_connect(&self, session: &Session) -> Result<()> {
        let call =
            |handler: Arc<H>, session: Session| async move { handler.on_connect(&session).await };
        self.call(session, call).await?
    }

    async fn on_message(&self, session: &Session, message: &MessageRef<'_>) -> Result<()> {
        let message = message.to_message();
        let call = |handler: Arc<H>, session: Session| async move {
            handler.on_message(&session, &message.by_ref()).await
        };
        self.call(session, call).await?
    }

    async fn on_batch(&self, session: &Session, inbox: &mut Inbox<'_>) -> Result<()> {
        let mut messages = Vec::new();
        while let Some(message) = inbox.next() {
            messages.push(message.to_message());
        }
        if messages.is_empty() {
            return Ok(());
        }
        let call = |handler, session| batch(handler, session, messages);
        self.call(session, call).await?
    }

    async fn on_request(&self, session: &Session, request: Request) -> Result<()> {
        let call = |handler: Arc<H>, session: Session| async move {
            handler.on_request(&session, request).await
        };
        self.call(session, call).await?
    }

    async fn on_disconnect(&self, session: &Session, reason: &CloseReason) {
        let reason = reason.clone();
        let called = self.call(session, |handler: Arc<H>, session: Session| async move {
            handler.on_disconnect(&session, &reason).await;
        });
        if let Err(error) = called.await {
            tracing::error!(?session, %error, "on_disconnect was not called");
        }
    }

    fn on_error(&self, session: Option<&Session>, error: &Error) {
        self.handler.on_error(session, error);
    }

    fn on_goaway(&self, session: &Session) {
        self.handler.on_goaway(session);
    }
}
