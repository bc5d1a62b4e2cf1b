//! Accepts connections for the coroutine level: [`ConnectionListener`].

use std::time::Duration;

use tokio::sync::mpsc;

use super::Connection;
use crate::address::Address;
use crate::config::{LinkConfig, ServerConfig, SessionConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::link::{Bound, Link, Listener, Transports};
use crate::worker;

/// Accepts connections that you drive.
pub struct ConnectionListener<T: Transports> {
    listener: <T::Bound as Bound>::Listener,
    address: Address,
    session: SessionConfig,
    handshakes: Handshakes<T::Link>,
}

/// The links whose handshakes go on beside the accepting.
struct Handshakes<L> {
    sender: mpsc::UnboundedSender<Option<L>>,
    done: mpsc::UnboundedReceiver<Option<L>>,
    /// How many there are, and may be.
    running: usize,
    most: usize,
    timeout: Duration,
}

impl<L: Link> Handshakes<L> {
    fn start(&mut self, link: L) {
        let (sender, timeout) = (self.sender.clone(), self.timeout);
        self.running += 1;
        drop(worker::spawn(Box::pin(async move {
            let opened = tokio::select! {
                biased;
                () = sender.closed() => return,
                opened = tokio::time::timeout(timeout, link.open()) => opened,
            };
            let opened = match opened {
                Ok(Ok(link)) => Some(link),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "refused");
                    None
                }
                Err(_) => {
                    tracing::debug!(?timeout, "refused: no handshake in time");
                    None
                }
            };
            // nobody accepts any more
            let _ = sender.send(opened);
        })));
    }

    /// The next one that is done; `None` for one that has failed.
    async fn next(&mut self) -> Option<L> {
        let done = self.done.recv().await;
        self.running -= 1;
        done.flatten()
    }
}

impl<T: Transports> ConnectionListener<T> {
    /// Listens on `address` with the defaults of a server.
    ///
    /// # Errors
    /// [`ErrorKind::BindFailed`] when the address cannot be taken,
    /// [`ErrorKind::InvalidArgument`] when it makes no sense.
    pub async fn bind(transports: &T, address: &str) -> Result<Self> {
        Self::bind_with(transports, address, &ServerConfig::default()).await
    }

    /// As [`bind`](Self::bind), with settings: those of the session, the socket and TLS, the deadline
    /// of handshakes, and for the number of handshakes that may go on at once the one of connections.
    ///
    /// # Errors
    /// As `bind`.
    pub async fn bind_with(transports: &T, address: &str, config: &ServerConfig) -> Result<Self> {
        config.validate()?;
        let address: Address = address.parse()?;
        let link = LinkConfig::from(config).for_address(&address)?;
        let bound = transports
            .bind(&address, &link, 1)
            .await?
            .into_iter()
            .next();
        let Some(bound) = bound else {
            return Err(Error::new(ErrorKind::Internal, "listen on").peer(&address));
        };
        let address = bound.local().clone();
        let (sender, done) = mpsc::unbounded_channel();
        Ok(Self {
            listener: bound.start()?,
            address,
            session: link.session,
            handshakes: Handshakes {
                sender,
                done,
                running: 0,
                most: config.max_connections,
                timeout: config.handshake_timeout,
            },
        })
    }

    /// The address with the real port.
    pub fn local(&self) -> &Address {
        &self.address
    }

    /// The next connection. Where connections begin with a handshake it is the next that has done
    /// it: those that fail or are too slow are left out, and hold up nobody else. Cancel-safe.
    ///
    /// # Errors
    /// What the system said; calling again may help.
    pub async fn accept(&mut self) -> Result<Connection<T::Link>> {
        loop {
            let more = self.handshakes.running < self.handshakes.most;
            let waits = self.handshakes.running > 0;
            let link = tokio::select! {
                biased;
                done = self.handshakes.next(), if waits => match done {
                    Some(link) => link,
                    None => continue,
                },
                accepted = self.listener.accept(), if more => accepted?,
            };
            if link.is_open() {
                return Ok(Connection::new(link, &self.session));
            }
            self.handshakes.start(link);
        }
    }
}
