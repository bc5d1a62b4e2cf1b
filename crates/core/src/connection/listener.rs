//! Accepts connections for the coroutine level: [`ConnectionListener`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::Connection;
use crate::address::Address;
use crate::config::{LinkConfig, ServerConfig, SessionConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::link::{Bound, Link, Listener, Transports};
use crate::protection::{Addresses, Door, HalfOpen, Knock, Refusal, Refusals, Slot, Unopened};
use crate::worker;

/// Accepts connections that you drive.
pub struct ConnectionListener<T: Transports> {
    listener: <T::Bound as Bound>::Listener,
    address: Address,
    session: SessionConfig,
    door: Arc<Door>,
    refusals: Arc<Refusals>,
    handshakes: Handshakes<T::Link>,
}

/// A link that is open, and its place among those of its address.
type Opened<L> = (L, Option<Slot>);

/// The links whose handshakes go on beside the accepting.
struct Handshakes<L> {
    sender: mpsc::UnboundedSender<Option<Opened<L>>>,
    done: mpsc::UnboundedReceiver<Option<Opened<L>>>,
    /// How many there are, and may be.
    running: usize,
    most: usize,
    timeout: Duration,
    half_open: Arc<HalfOpen>,
}

impl<L: Link> Handshakes<L> {
    fn start(&mut self, link: L, knock: Knock, door: Arc<Door>, refusals: Arc<Refusals>) {
        let peer = link.info().peer.clone();
        let Some(mut place) = HalfOpen::enter(&self.half_open) else {
            return refusals.refuse(Refusal::MaxHandshakes, &peer);
        };
        let (sender, timeout) = (self.sender.clone(), self.timeout);
        self.running += 1;
        drop(worker::spawn(Box::pin(async move {
            let opened = tokio::select! {
                biased;
                () = sender.closed() => return,
                opened = tokio::time::timeout(timeout, door.open(link, knock)) => opened,
                () = place.pushed_out() => {
                    refusals.refuse(Refusal::MaxHandshakes, &peer);
                    let _ = sender.send(None);
                    return;
                }
            };
            drop(place);
            let opened = match opened {
                Ok(Ok(opened)) => Some(opened),
                Ok(Err(Unopened::Refused(refusal, peer))) => {
                    refusals.refuse(refusal, &peer);
                    None
                }
                Ok(Err(Unopened::Header(error))) => {
                    refusals.refuse(Refusal::ProxyHeader, &peer);
                    tracing::debug!(%error, "refused");
                    None
                }
                Ok(Err(Unopened::Handshake(error))) => {
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
    async fn next(&mut self) -> Option<Opened<L>> {
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

    /// As [`bind`](Self::bind), with settings: those of the session, the socket, TLS and its protection, the
    /// deadline of handshakes, and for the number of handshakes that may go on at once the one of connections.
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
        let door = Door::new(&link.protection, &Addresses::new(&config.protection));
        let (sender, done) = mpsc::unbounded_channel();
        Ok(Self {
            listener: bound.start()?,
            address,
            session: link.session,
            door: Arc::new(door),
            refusals: Arc::new(Refusals::new()),
            handshakes: Handshakes {
                sender,
                done,
                running: 0,
                most: config.max_connections,
                timeout: config.handshake_timeout,
                half_open: HalfOpen::new(
                    config.protection.max_handshakes,
                    config.handshake_timeout,
                ),
            },
        })
    }

    /// The address with the real port.
    pub fn local(&self) -> &Address {
        &self.address
    }

    /// Connections that were turned away by its protection, by reason, as in
    /// [`Statistics::connections_refused`](crate::Statistics::connections_refused).
    pub fn refused(&self) -> BTreeMap<&'static str, u64> {
        self.refusals.counts().collect()
    }

    fn connection(&self, link: T::Link, slot: Option<Slot>) -> Result<Connection<T::Link>> {
        if link.is_guest() {
            return Err(Error::new(ErrorKind::InvalidArgument, "accept on")
                .peer(&self.address)
                .because("connections of this protocol are no message connections")
                .advice("only a server can listen there"));
        }
        let mut connection = Connection::new(link, &self.session);
        connection.slot = slot;
        Ok(connection)
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
                    Some((link, slot)) => return self.connection(link, slot),
                    None => continue,
                },
                accepted = self.listener.accept(), if more => accepted?,
            };
            match self.door.knock(&link.info().peer) {
                Ok(Knock::Client(slot)) if link.is_open() => {
                    return self.connection(link, slot);
                }
                Ok(knock) => {
                    let (door, refusals) = (self.door.clone(), self.refusals.clone());
                    self.handshakes.start(link, knock, door, refusals);
                }
                Err(refusal) => self.refusals.refuse(refusal, &link.info().peer),
            }
        }
    }
}
