//! Requests that wait for their replies, by correlation number; and [`Request`], the other side.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

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

    /// Delivers a reply; one that nobody waits for any more is dropped, and not even made.
    pub(crate) fn complete(&self, id: u64, reply: impl FnOnce() -> Reply) {
        let waiting = self.lock().waiting.remove(&id);
        if let Some(sender) = waiting {
            let _ = sender.send(reply());
        }
    }

    /// Whether none waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().waiting.is_empty()
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

/// Requests of a peer that may wait for their answers at a time.
const MOST_OPEN: usize = 1024;

/// The requests of the peer that are not answered yet: bounded in number and in bytes.
#[derive(Debug)]
pub(crate) struct Serving {
    /// What the open ones count together.
    open: AtomicUsize,
    /// What each counts besides its bytes.
    each: usize,
    most: usize,
    /// Whether the connection's task waits for answers.
    watched: AtomicBool,
}

impl Serving {
    /// None yet; full at `most` bytes, or at 1024 requests.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            open: AtomicUsize::new(0),
            each: most.div_ceil(MOST_OPEN).max(1),
            most: most.max(1),
            watched: AtomicBool::new(false),
        }
    }

    /// Whether the peer has to wait before it may ask more.
    pub(crate) fn is_full(&self) -> bool {
        self.open.load(SeqCst) >= self.most
    }

    /// Whether all are answered.
    pub(crate) fn is_idle(&self) -> bool {
        self.open.load(SeqCst) == 0
    }

    /// Says whether each answer is to wake the connection's task.
    pub(crate) fn watch(&self, watched: bool) {
        self.watched.store(watched, SeqCst);
    }

    fn enter(&self, bytes: usize) {
        self.open.fetch_add(self.each + bytes, Relaxed);
    }

    /// Whether the connection's task waits for that.
    fn leave(&self, bytes: usize) -> bool {
        self.open.fetch_sub(self.each + bytes, SeqCst);
        self.watched.load(SeqCst)
    }
}

/// A request of the peer that waits for [`reply`](Self::reply) or [`fail`](Self::fail).
///
/// Answer it in the handler or move it to another task; replies may go out in any order. One that
/// is dropped without an answer fails at the peer, as does one whose answer cannot be sent.
///
/// While requests of one peer with more bytes than the outbox limit (1 MiB), or 1024 of them, are
/// not answered, no further ones are taken from that peer. A shutdown waits for the answers, and
/// so does the end of a peer that only closes its own direction, for `close_timeout`.
#[derive(Debug)]
pub struct Request {
    message: Message,
    id: u64,
    session: Session,
    answered: bool,
}

impl Request {
    pub(crate) fn new(session: Session, id: u64, message: Message) -> Self {
        session.shared().serving.enter(message.len());
        Self {
            message,
            id,
            session,
            answered: false,
        }
    }

    /// What was asked.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// Sends the answer; waits for room like [`Session::send`], also where the overflow policy is
    /// to drop messages: an answer is never dropped. When it cannot be sent, or this call is given
    /// up while it waits, the peer is told that there is none.
    ///
    /// # Errors
    /// As [`Session::send`].
    pub async fn reply(mut self, message: impl Into<Message>) -> Result<()> {
        let header = Header::Reply { id: self.id };
        let result = self.session.send_answer(header, message.into()).await;
        match &result {
            Ok(()) => self.answered = true,
            Err(error) => {
                let text = format!("the answer could not be sent: {}", error.kind().text());
                self.send_failure(error.code(), &text);
            }
        }
        result
    }

    /// Says that there is no answer: the peer's call fails with `code`, an [`ErrorKind`] or any
    /// number of your own, and `text`. The peer finds it in
    /// [`Error::remote_code`](crate::Error::remote_code).
    pub fn fail(mut self, code: impl Into<i32>, text: &str) {
        self.send_failure(code.into(), text);
    }

    fn send_failure(&mut self, code: i32, text: &str) {
        if !std::mem::replace(&mut self.answered, true) {
            let header = Header::Failure { id: self.id, code };
            self.session.send_control(header, text.into());
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
        let shared = self.session.shared();
        if shared.serving.leave(self.message.len()) {
            shared.outbox.remind();
        }
    }
}

/// Bytes of a failure's text that are kept.
const MOST_TEXT: usize = 4 * 1024;

/// The error that a peer's failure becomes here.
pub(crate) fn failure(code: i32, text: &[u8]) -> Error {
    let kind = ErrorKind::from_code(code).unwrap_or(ErrorKind::Internal);
    let (text, more) = match text.get(..MOST_TEXT) {
        Some(start) if text.len() > MOST_TEXT => (start, "…"),
        _ => (text, ""),
    };
    let text = String::from_utf8_lossy(text);
    Error::new(kind, "get the reply to a request")
        .because(format_args!(
            "the peer answered: {text}{more} (code {code})"
        ))
        .answered_with(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_so_much_of_its_text_and_only_where_somebody_waits() {
        let requests = Requests::default();
        let mut place = requests.open().unwrap();
        requests.complete(place.id + 1, || panic!("nobody waits for it"));
        let text = vec![0xff; 1 << 20];
        requests.complete(place.id, || Err(failure(404, &text)));
        let error = place.reply.try_recv().unwrap().unwrap_err();
        assert_eq!(error.remote_code(), Some(404));
        assert!(error.to_string().len() < 4 * MOST_TEXT);
        assert!(error.to_string().ends_with("… (code 404)"));
    }
}
