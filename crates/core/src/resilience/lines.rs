//! The connections of a [`RequestPool`](super::RequestPool) to one address, and what is under way over
//! them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::statistics::{AddressStatistics, Tries};
use super::{CircuitBreaker, RequestPoolConfig};
use crate::client::{Client, ClientBuilder, ClientState};
use crate::error::{Error, ErrorKind, Result};
use crate::link::Transports;
use crate::message::Message;

/// One connection, and the requests that are under way over it.
pub(super) struct Line<T> {
    pub(super) client: Client<T>,
    load: AtomicUsize,
}

/// Counts a request as under way until it is dropped.
struct Under<'a>(&'a AtomicUsize);

impl Drop for Under<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// An address, and the connections to it.
pub(super) struct Address<T> {
    pub(super) name: Arc<str>,
    pub(super) lines: Vec<Line<T>>,
    pub(super) breaker: Option<CircuitBreaker>,
    pub(super) tries: Tries,
}

impl<T> Address<T> {
    /// Begins to connect to it, as often as `config` says.
    pub(super) fn open(name: &str, config: &RequestPoolConfig) -> Result<Self>
    where
        T: Transports,
    {
        let mut client = config.client.clone();
        client.addresses = vec![name.to_owned()];
        client.session.envelope = true;
        let line = |_| {
            let builder = ClientBuilder::new(T::default()).config(client.clone());
            Ok(Line {
                client: builder.start()?,
                load: AtomicUsize::new(0),
            })
        };
        let lines = (0..config.connections.max(1)).map(line);
        Ok(Self {
            name: name.into(),
            lines: lines.collect::<Result<_>>()?,
            breaker: config.breaker.clone().map(CircuitBreaker::new),
            tries: Tries::default(),
        })
    }

    /// Over the least loaded connection of those that are up, or else over one that is not known to be
    /// down if there is one.
    pub(super) async fn request(&self, message: Message, left: Duration) -> Result<Message> {
        let open = self.lines.iter().filter(|line| line.down().is_none());
        let order = |line: &&Line<T>| {
            let up = line.client.state().is_connected();
            (!up, line.load.load(Relaxed))
        };
        let Some(line) = open.min_by_key(order) else {
            let down = self.lines.first().and_then(Line::down);
            return Err(down.unwrap_or_else(not_connected));
        };
        line.load.fetch_add(1, Relaxed);
        let _under = Under(&line.load);
        line.request(message, left).await
    }

    pub(super) fn failed(&self) {
        self.tries.failures.fetch_add(1, Relaxed);
    }

    pub(super) fn statistics(&self, ejected: bool) -> AddressStatistics {
        let (requests, retries, hedges) = self.tries.made();
        let up = |line: &&Line<T>| line.client.state().is_connected();
        AddressStatistics {
            address: self.name.clone(),
            open: self.lines.iter().filter(up).count(),
            in_use: self.lines.iter().map(|line| line.load.load(Relaxed)).sum(),
            ejected,
            breaker: self.breaker.as_ref().map(CircuitBreaker::state),
            requests,
            failures: self.tries.failures.load(Relaxed),
            retries,
            hedges,
        }
    }
}

impl<T> Line<T> {
    /// Waits for the connection, unless it turns out to be down, and asks.
    async fn request(&self, message: Message, left: Duration) -> Result<Message> {
        let until = Instant::now() + left;
        let session = tokio::select! {
            biased;
            session = self.client.connected() => session?,
            error = self.goes_down() => return Err(error),
            () = sleep_until(until) => {
                let error = Error::new(ErrorKind::Timeout, "send a request");
                return Err(error.because(format_args!("there was no connection within {left:?}")));
            }
        };
        let left = until.saturating_duration_since(Instant::now());
        session.request_within(message, left).await
    }

    /// Why there is no connection, when one was tried for and failed.
    fn down(&self) -> Option<Error> {
        match self.client.state() {
            ClientState::Waiting { error, .. } | ClientState::Closed(error) => {
                Some(error.unwrap_or_else(not_connected))
            }
            ClientState::Connecting { failures } if failures > 0 => Some(not_connected()),
            _ => None,
        }
    }

    /// Waits until it is known to be down.
    async fn goes_down(&self) -> Error {
        let mut states = self.client.watch();
        loop {
            states.borrow_and_update();
            if let Some(error) = self.down() {
                return error;
            }
            if states.changed().await.is_err() {
                return not_connected();
            }
        }
    }
}

#[cold]
fn not_connected() -> Error {
    Error::new(ErrorKind::ConnectionFailed, "send a request")
}
