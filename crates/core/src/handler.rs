//! The user's code: the [`Handler`] trait, and [`Events`], the same as closures.

use std::pin::Pin;
use std::sync::Arc;

use crate::close::CloseReason;
use crate::error::{Error, ErrorKind, Result};
use crate::inbox::Inbox;
use crate::message::{Message, MessageRef};
use crate::requests::Request;
use crate::session::Session;
use crate::threads::{OnPool, ThreadPool};

/// What happens on the connections of a server or client.
///
/// The calls for one connection come one after another, in its own task: while a call is pending,
/// nothing more is read from that peer, which is the backpressure. Spawn what takes long. A panic
/// closes that connection only.
///
/// ```
/// use network_system_core::{Handler, MessageRef, Result, Session};
///
/// struct Echo;
///
/// impl Handler for Echo {
///     async fn on_message(&self, session: &Session, message: &MessageRef<'_>) -> Result<()> {
///         session.send(message).await
///     }
/// }
/// ```
pub trait Handler: Send + Sync + 'static {
    /// A connection is open. An error refuses it: it is closed, and its text is the reason.
    fn on_connect(&self, session: &Session) -> impl Future<Output = Result<()>> + Send {
        let _ = session;
        async { Ok(()) }
    }

    /// A message has arrived, which lies in the buffer that it was read into;
    /// [`to_message`](MessageRef::to_message) keeps it. An error closes the connection.
    fn on_message(
        &self,
        session: &Session,
        message: &MessageRef<'_>,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Messages have arrived, all that came with one read. By default, `on_message` for each: write
    /// this where something is to be done once for many messages, such as taking a lock. What is
    /// left in the inbox comes with the next call; a call that takes nothing is an error. (With the
    /// envelope each message comes alone.)
    fn on_batch(
        &self,
        session: &Session,
        inbox: &mut Inbox<'_>,
    ) -> impl Future<Output = Result<()>> + Send {
        async move {
            while let Some(message) = inbox.next() {
                self.on_message(session, &message).await?;
            }
            Ok(())
        }
    }

    /// A request has arrived (envelope only). An error closes the connection; to tell the peer
    /// that there is no answer, use [`Request::fail`]. By default requests are turned down.
    fn on_request(
        &self,
        session: &Session,
        request: Request,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = session;
        async move {
            request.fail(ErrorKind::NotFound.code(), "requests are not served here");
            Ok(())
        }
    }

    /// The connection has ended; nothing can be sent any more. Called once for each connection
    /// whose `on_connect` was called.
    fn on_disconnect(
        &self,
        session: &Session,
        reason: &CloseReason,
    ) -> impl Future<Output = ()> + Send {
        let _ = (session, reason);
        async {}
    }

    /// Something failed: on a connection, or, without a session, while accepting or connecting.
    fn on_error(&self, session: Option<&Session>, error: &Error) {
        let _ = (session, error);
    }

    /// The peer has announced that it will close (envelope only): what it was sent before, it still
    /// handles. A [`Client`](crate::Client) connects anew by itself.
    fn on_goaway(&self, session: &Session) {
        let _ = session;
    }

    /// This handler with its calls on the threads of a pool, for what computes for long; see
    /// [`OnPool`].
    ///
    /// ```
    /// # use network_system_core as network_system;
    /// # use network_system::{Handler, MessageRef, Result, Session};
    /// use network_system::threads::Threads;
    ///
    /// # struct Render;
    /// # impl Handler for Render {
    /// #     async fn on_message(&self, _: &Session, _: &MessageRef<'_>) -> Result<()> { Ok(()) }
    /// # }
    /// # fn main() -> Result<()> {
    /// let handler = Render.on_pool(Threads::new(4)?);
    /// # Ok(())
    /// # }
    /// ```
    fn on_pool(self, pool: impl ThreadPool) -> OnPool<Self>
    where
        Self: Sized,
    {
        OnPool::new(self, Arc::new(pool))
    }
}

impl<H: Handler> Handler for Arc<H> {
    fn on_connect(&self, session: &Session) -> impl Future<Output = Result<()>> + Send {
        (**self).on_connect(session)
    }

    fn on_message(
        &self,
        session: &Session,
        message: &MessageRef<'_>,
    ) -> impl Future<Output = Result<()>> + Send {
        (**self).on_message(session, message)
    }

    fn on_batch(
        &self,
        session: &Session,
        inbox: &mut Inbox<'_>,
    ) -> impl Future<Output = Result<()>> + Send {
        (**self).on_batch(session, inbox)
    }

    fn on_request(
        &self,
        session: &Session,
        request: Request,
    ) -> impl Future<Output = Result<()>> + Send {
        (**self).on_request(session, request)
    }

    fn on_disconnect(
        &self,
        session: &Session,
        reason: &CloseReason,
    ) -> impl Future<Output = ()> + Send {
        (**self).on_disconnect(session, reason)
    }

    fn on_error(&self, session: Option<&Session>, error: &Error) {
        (**self).on_error(session, error);
    }

    fn on_goaway(&self, session: &Session) {
        (**self).on_goaway(session);
    }
}

/// What a closure may return: nothing, or a [`Result`] whose error is acted on.
pub trait Outcome: Send {
    /// The result.
    ///
    /// # Errors
    /// The closure's.
    fn into_result(self) -> Result<()>;
}

impl Outcome for () {
    fn into_result(self) -> Result<()> {
        Ok(())
    }
}

impl<E: Into<Error> + Send> Outcome for Result<(), E> {
    fn into_result(self) -> Result<()> {
        self.map_err(Into::into)
    }
}

type Connect = Box<dyn Fn(&Session) -> Result<()> + Send + Sync>;
type Disconnect = Box<dyn Fn(&Session, &CloseReason) + Send + Sync>;
type OnError = Box<dyn Fn(Option<&Session>, &Error) + Send + Sync>;
type BoxFuture = Pin<Box<dyn Future<Output = Result<()>> + Send>>;
type OnRequest = Box<dyn Fn(Session, Request) -> BoxFuture + Send + Sync>;

/// A [`Handler`] made of closures, as the builders collect them. `M` handles messages.
pub struct Events<M> {
    pub(crate) message: M,
    pub(crate) others: Others,
}

/// The closures that are not called once per message.
#[derive(Default)]
pub(crate) struct Others {
    connect: Option<Connect>,
    request: Option<OnRequest>,
    disconnect: Option<Disconnect>,
    error: Option<OnError>,
}

impl Others {
    pub(crate) fn on_connect<R: Outcome>(
        &mut self,
        f: impl Fn(&Session) -> R + Send + Sync + 'static,
    ) {
        self.connect = Some(Box::new(move |session| f(session).into_result()));
    }

    pub(crate) fn on_request<F>(
        &mut self,
        f: impl Fn(Session, Request) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output: Outcome> + Send + 'static,
    {
        self.request = Some(Box::new(move |session, request| {
            let answer = f(session, request);
            Box::pin(async move { answer.await.into_result() })
        }));
    }

    pub(crate) fn on_disconnect(
        &mut self,
        f: impl Fn(&Session, &CloseReason) + Send + Sync + 'static,
    ) {
        self.disconnect = Some(Box::new(f));
    }

    pub(crate) fn on_error(
        &mut self,
        f: impl Fn(Option<&Session>, &Error) + Send + Sync + 'static,
    ) {
        self.error = Some(Box::new(f));
    }
}

/// Drops every message: what a builder starts with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ignore;

/// What can handle a message: a closure, or [`Ignore`].
pub trait OnMessage: Send + Sync + 'static {
    /// Handles one message.
    fn call(
        &self,
        session: &Session,
        message: &MessageRef<'_>,
    ) -> impl Future<Output = Result<()>> + Send;
}

impl OnMessage for Ignore {
    async fn call(&self, _: &Session, _: &MessageRef<'_>) -> Result<()> {
        Ok(())
    }
}

impl<F, R> OnMessage for F
where
    F: Fn(Session, Message) -> R + Send + Sync + 'static,
    R: Future<Output: Outcome> + Send,
{
    #[inline]
    async fn call(&self, session: &Session, message: &MessageRef<'_>) -> Result<()> {
        self(session.clone(), message.to_message())
            .await
            .into_result()
    }
}

impl<M: OnMessage> Handler for Events<M> {
    async fn on_connect(&self, session: &Session) -> Result<()> {
        self.others.connect.as_ref().map_or(Ok(()), |f| f(session))
    }

    #[inline]
    fn on_message(
        &self,
        session: &Session,
        message: &MessageRef<'_>,
    ) -> impl Future<Output = Result<()>> + Send {
        self.message.call(session, message)
    }

    async fn on_request(&self, session: &Session, request: Request) -> Result<()> {
        match &self.others.request {
            Some(f) => f(session.clone(), request).await,
            None => {
                request.fail(ErrorKind::NotFound.code(), "requests are not served here");
                Ok(())
            }
        }
    }

    async fn on_disconnect(&self, session: &Session, reason: &CloseReason) {
        if let Some(f) = &self.others.disconnect {
            f(session, reason);
        }
    }

    fn on_error(&self, session: Option<&Session>, error: &Error) {
        if let Some(f) = &self.others.error {
            f(session, error);
        }
    }
}
