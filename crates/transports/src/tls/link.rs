//! Links with TLS: [`TlsLink`], and listeners that make them of any other: [`TlsBound`],
//! [`TlsListener`].

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use network_system_core::config::open_until;
use network_system_core::{
    Address, Bound, Encoding, Error, InQueue, Introduced, Link, LinkInfo, Listener, OutQueue,
    Result, Sent, Sink, Source, StreamLink, read_proxy_header,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, Connection, ServerConnection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::Connecting;
use super::failure::{self, Role};
use super::identity;
use super::plain::{Plain, Raw};
use super::reload::Reloading;
use super::server::Server;
use super::stream::TlsStream;

/// How long, and for how many bytes, a peer whose handshake has failed is listened to: a socket that
/// is closed with unread input is reset, and the reset can destroy the alert that says why.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;

/// The stream of a link with TLS.
#[cfg(feature = "websocket")]
pub(crate) type Secured = TlsStream<Raw>;

/// A message link with TLS.
#[derive(Debug)]
pub struct TlsLink {
    link: Box<StreamLink<TlsStream<Raw>>>,
    /// By when it must have said why it cannot be opened.
    until: Option<Instant>,
}

impl TlsLink {
    fn new(plain: Plain, tls: Connection, until: Option<Instant>) -> Self {
        let stream = TlsStream::new(plain.io, tls);
        Self {
            link: Box::new(StreamLink::new(stream, plain.framing, plain.info)),
            until,
        }
    }

    /// The stream, of one whose handshake is done.
    #[cfg(feature = "http")]
    pub(crate) fn into_stream(self) -> Box<dyn crate::http::Stream> {
        Box::new(self.link.into_parts().0)
    }

    /// The first byte behind the handshake, which stays here; `None` at the end.
    pub(crate) fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<u8>>> {
        self.link.parts_mut().0.poll_first(cx)
    }

    /// The stream, and what is known about it.
    #[cfg(feature = "websocket")]
    pub(crate) fn into_parts(self) -> (Secured, LinkInfo) {
        let (stream, _, info) = self.link.into_parts();
        (stream, info)
    }

    /// A link that was accepted, before its handshake.
    pub(super) fn accepted(plain: Plain, server: &Server, until: Option<Instant>) -> Result<Self> {
        let peer = plain.info.peer.clone();
        let tls = ServerConnection::new(server.config()).map_err(|error| {
            failure::of_handshake(io::Error::other(error), Role::Server).peer(peer)
        })?;
        Ok(Self::new(plain, tls.into(), until))
    }

    /// Does a client's handshake.
    pub(super) async fn connect(
        plain: Plain,
        connecting: Connecting,
        address: &Address,
    ) -> Result<Self> {
        let Connecting {
            client,
            name,
            until,
        } = connecting;
        let tls = ClientConnection::new(client.config(), name.clone())
            .map_err(|error| failure::of_handshake(io::Error::other(error), Role::Client))
            .map_err(|error| error.peer(address))?;
        let link = Self::new(plain, tls.into(), until);
        let link = link.shake_hands(Role::Client, Some(&name)).await;
        link.map_err(|error| error.peer(address))
    }

    async fn shake_hands(self, role: Role, asked: Option<&ServerName<'_>>) -> Result<Self> {
        let (mut stream, framing, mut info) = self.link.into_parts();
        if let Err(error) = poll_fn(|cx| stream.poll_handshake(cx)).await {
            let error = failure::of_handshake(error, role).peer(&info.peer);
            let longest = Instant::now() + LINGER;
            let until = self.until.map_or(longest, |until| until.min(longest));
            let _ = tokio::time::timeout_at(until, linger(stream.into_io())).await;
            return Err(error);
        }
        info.tls = Some(Arc::new(identity::of(stream.tls(), asked)));
        Ok(Self {
            link: Box::new(StreamLink::new(stream, framing, info)),
            until: None,
        })
    }
}

/// Says that no more will come, and drops what still comes from the peer.
async fn linger<T: AsyncRead + AsyncWrite + Unpin>(mut io: T) {
    let mut buffer = [0; 1024];
    let mut dropped = 0;
    poll_fn(|cx| {
        if ready!(Pin::new(&mut io).poll_shutdown(cx)).is_err() {
            return Poll::Ready(());
        }
        loop {
            let mut into = ReadBuf::new(&mut buffer);
            let read = ready!(Pin::new(&mut io).poll_read(cx, &mut into));
            dropped += into.filled().len();
            if read.is_err() || into.filled().is_empty() || dropped > LINGER_BYTES {
                return Poll::Ready(());
            }
        }
    })
    .await;
}

impl Source for TlsLink {
    fn poll_fill(&mut self, cx: &mut Context<'_>, queue: &mut InQueue) -> Poll<Result<bool>> {
        self.link.poll_fill(cx, queue)
    }
}

impl Sink for TlsLink {
    fn encoding(&self) -> Encoding {
        self.link.encoding()
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        queue: &mut OutQueue,
    ) -> (Sent, Poll<Result<()>>) {
        let (sent, result) = self.link.poll_send(cx, queue);
        if result.is_pending() {
            // its first byte may be encrypted already
            queue.begun();
        }
        (sent, result)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.link.poll_close(cx)
    }
}

impl Link for TlsLink {
    fn info(&self) -> &LinkInfo {
        self.link.info()
    }

    fn is_open(&self) -> bool {
        self.info().tls.is_some()
    }

    async fn learn_client(&mut self) -> Result<Introduced> {
        let (stream, info) = self.link.parts_mut();
        // before TLS begins, and without a byte of it
        read_proxy_header(stream.io_mut(), info).await
    }

    async fn open(self) -> Result<Self> {
        if self.is_open() {
            return Ok(self);
        }
        self.shake_hands(Role::Server, None).await
    }
}

/// An address that has been taken for links with TLS over another transport.
pub struct TlsBound<B> {
    plain: B,
    server: Arc<Reloading<Server>>,
    open_timeout: Option<Duration>,
}

impl<B> TlsBound<B> {
    pub(super) fn new(
        plain: B,
        server: Arc<Reloading<Server>>,
        open_timeout: Option<Duration>,
    ) -> Self {
        Self {
            plain,
            server,
            open_timeout,
        }
    }
}

/// Accepts links with TLS over another transport.
pub struct TlsListener<L> {
    plain: L,
    server: Arc<Reloading<Server>>,
    open_timeout: Option<Duration>,
}

impl<B> Bound for TlsBound<B>
where
    B: Bound<Listener: Listener<Link: Into<Plain>>>,
{
    type Listener = TlsListener<B::Listener>;

    fn local(&self) -> &Address {
        self.plain.local()
    }

    fn start(self) -> Result<Self::Listener> {
        Ok(TlsListener {
            plain: self.plain.start()?,
            server: self.server,
            open_timeout: self.open_timeout,
        })
    }
}

impl<L> Listener for TlsListener<L>
where
    L: Listener<Link: Into<Plain>>,
{
    type Link = TlsLink;

    async fn accept(&mut self) -> Result<TlsLink, Error> {
        let plain = self.plain.accept().await?;
        let until = open_until(self.open_timeout);
        TlsLink::accepted(plain.into(), &self.server.current(), until)
    }
}
