//! Requests that wait for their replies, by correlation number; and [`Request`], the other side.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use network_system_wire::envelope::Header;
use tokio::sync::oneshot;

use crate::close::CloseReason;
use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;
use crate::session::Session;

type Reply = Result<Message>;

/// The requests of one session that wait for replies.
#[derive(Default)]
pub(crate) struct Requests {
    next: AtomicU64,
    waiting: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: HashMap<u64, oneshot::Sender<Reply>>,
    closed: Option<CloseReason>,
}

/// A place in the table, given up when dropped.
pub(crate) struct Place<'a> {
    requests: &'a Requests,
    pub(crate) id: u64,
    pub(crate) reply: oneshot::Receiver<Reply>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.requests.lock().waiting.remove(&self.id);
    }
}

impl Requests {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.waiting
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A new number and where its reply will arrive.
    pub(crate) fn open(&self) -> Result<Place<'_>> {
        let (sender, reply) = oneshot::channel();
        let id = self.next.fetch_add(1, Relaxed);
        let mut state = self.lock();
        if let Some(reason) = &state.closed {
            return Err(reason.to_error("send a request"));
        }
        state.waiting.insert(id, sender);
        Ok(Place {
            requests: self,
            id,
            reply,
        })
    }

    /// Delivers a reply; one that nobody waits for any more is dropped.
    pub(crate) fn complete(&self, id: u64, reply: Reply) {
        if let Some(sender) = self.lock().waiting.remove(&id) {
            let _ = sender.send(reply);
        }
    }

    /// Fails everything that waits, now and later.
    pub(crate) fn close(&self, reason: &CloseReason) {
        let waiting = {
            let mut state = self.lock();
            state.closed.get_or_insert_with(|| reason.clone());
            std::mem::take(&mut state.waiting)
        };
        for sender in waiting.into_values() {
            let _ = sender.send(Err(reason.to_error("get the reply to a request")));
        }
    }
}

/// A request of the peer that waits for [`reply`](Self::reply) or [`fail`](Self::fail).
///
/// Answer it in the handler or move it to another task; replies may go out in any order. One that
/// is dropped without an answer fails at the peer.
#[derive(Debug)]
pub struct Request {
    message: Message,
    id: u64,
    session: Option<Session>,
}

impl Request {
    pub(crate) fn new(session: Session, id: u64, message: Message) -> Self {
        Self {
            message,
            id,
            session: Some(session),
        }
    }

    /// What was asked.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// Sends the answer; waits for room like [`Session::send`].
    ///
    /// # Errors
    /// As [`Session::send`].
    pub async fn reply(mut self, message: impl Into<Message>) -> Result<()> {
        match self.session.take() {
            Some(session) => {
                session
                    .send_with(Some(Header::Reply { id: self.id }), message.into())
                    .await
            }
            None => Ok(()),
        }
    }

    /// Says that there is no answer: the peer's call fails with `code`, where it is one of
    /// [`ErrorKind::code`], and `text`.
    pub fn fail(mut self, code: i32, text: &str) {
        self.send_failure(code, text);
    }

    fn send_failure(&mut self, code: i32, text: &str) {
        if let Some(session) = self.session.take() {
            session.send_control(Header::Failure { id: self.id, code }, text.into());
        }
    }
}

impl Deref for Request {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.send_failure(
            ErrorKind::Internal.code(),
            "the request was dropped without an answer",
        );
    }
}

/// The error that a peer's failure becomes here.
pub(crate) fn failure(code: i32, text: &Message) -> Error {
    let kind = ErrorKind::ALL.iter().find(|kind| kind.code() == code);
    let kind = kind.copied().unwrap_or(ErrorKind::Internal);
    let text = String::from_utf8_lossy(text);
    Error::new(kind, "get the reply to a request")
        .because(format_args!("the peer answered: {text} (code {code})"))
        .blame(crate::error::Side::Theirs)
}
