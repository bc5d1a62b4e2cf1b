//! What a client's circuit breaker is told, and what it holds back.

use super::Shared;
use crate::close::CloseReason;
use crate::error::{Error, Result};
use crate::message::Message;
use crate::resilience::CircuitBreaker;
use crate::session::Session;

impl Shared {
    /// Lets a message pass unless the breaker is open. Nobody will know what has become of it, so it
    /// is no probe.
    #[inline]
    pub(super) fn pass(&self) -> Result<()> {
        match &self.breaker {
            Some(breaker) => breaker.pass(),
            None => Ok(()),
        }
    }

    /// Makes a request where the breaker lets it through, and tells it how that went.
    pub(super) async fn guard(
        &self,
        request: impl Future<Output = Result<Message>>,
    ) -> Result<Message> {
        let Some(breaker) = &self.breaker else {
            return request.await;
        };
        let permit = breaker.admit()?;
        let result = request.await;
        // others that share the breaker have nothing to do with the end of this client
        let ended = result.is_err() && self.closed_error().is_some();
        permit.ended(CircuitBreaker::verdict(&result).filter(|_| !ended));
        result
    }

    /// Waits for a connection, but not while the breaker is open: there will be none soon.
    pub(super) async fn unless_open(
        &self,
        connected: impl Future<Output = Result<Session>>,
    ) -> Result<Session> {
        let Some(breaker) = &self.breaker else {
            return connected.await;
        };
        tokio::select! {
            biased;
            session = connected => session,
            error = breaker.opened() => Err(error),
        }
    }

    /// A connection has proved itself.
    pub(super) fn reached(&self, session: &Session) {
        if let Some(breaker) = &self.breaker {
            breaker.reached(session.info().envelope);
        }
    }

    /// No address could be connected to.
    pub(super) fn not_reached(&self, error: &Error) {
        if let Some(breaker) = &self.breaker
            && CircuitBreaker::counts(error)
        {
            breaker.not_reached();
        }
    }

    /// A connection has ended before it had proved itself.
    pub(super) fn turned_away(&self, reason: &CloseReason) {
        let theirs = match reason {
            CloseReason::Peer | CloseReason::Silent | CloseReason::Heartbeat => true,
            CloseReason::Network(error) => CircuitBreaker::counts(error),
            // we have ended it, or it would happen again
            _ => false,
        };
        if let Some(breaker) = &self.breaker
            && theirs
        {
            breaker.not_reached();
        }
    }
}
