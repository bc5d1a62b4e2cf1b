//! Picks the transport by the scheme of an address: [`Schemes`].

use std::task::{Context, Poll};

use network_system_core::config::LinkConfig;
use network_system_core::wire::pipeline::Role;
use network_system_core::{
    Address, Bound, CloseReason, Encoding, Goodbye, InQueue, Introduced, Link, LinkInfo, Listener,
    Memory, MemoryBound, MemoryListener, OutQueue, Piped, ReadyPipeline, Result, Sent, Sink,
    Source, StreamLink, Transports,
};
use tokio::io::DuplexStream;

use crate::tcp::{self, TcpAcceptor, TcpBound, TcpLink, TcpStream};
use crate::tls::{Tls, TlsBound, TlsLink, TlsListener};
#[cfg(unix)]
use crate::unix::{self, UnixAcceptor, UnixBound, UnixLink};
use crate::websocket::{self, Accepting, AnyWebSocket, Waiting};

/// Every transport that this build has: `tcp://`, `tls://`, `ws://`, `wss://`, `memory://`, and `unix://`
/// where the system has Unix sockets; each with `?tls=true` is one with TLS, with `?websocket=true` one
/// with WebSocket, and each can have a pipeline.
///
/// Clones share what TLS has read from files, and the sessions that can be resumed.
#[derive(Clone, Debug, Default)]
pub struct Schemes {
    tls: Tls,
}

impl Schemes {
    /// The schemes of this build.
    pub const KNOWN: &'static [&'static str] =
        match (cfg!(unix), Tls::IS_THERE, websocket::IS_THERE) {
            (true, true, true) => &["tcp", "tls", "ws", "wss", "unix", "memory"],
            (true, true, false) => &["tcp", "tls", "unix", "memory"],
            (true, false, true) => &["tcp", "ws", "unix", "memory"],
            (true, false, false) => &["tcp", "unix", "memory"],
            (false, true, true) => &["tcp", "tls", "ws", "wss", "memory"],
            (false, true, false) => &["tcp", "tls", "memory"],
            (false, false, true) => &["tcp", "ws", "memory"],
            (false, false, false) => &["tcp", "memory"],
        };
}

/// A link of any of these transports. An enum and not a trait object, so that the calls on the
/// message path are direct.
#[derive(Debug)]
pub enum AnyLink {
    /// Over TCP.
    Tcp(TcpLink),
    /// Over a Unix socket.
    #[cfg(unix)]
    Unix(UnixLink),
    /// Inside this process.
    Memory(StreamLink<DuplexStream>),
    /// With TLS, over any of the others.
    Tls(TlsLink),
    /// WebSocket, over any of the others.
    WebSocket(Box<AnyWebSocket>),
    /// What will be WebSocket after its handshake.
    Waiting(Box<Waiting>),
    /// Through a pipeline, over any of the others.
    Piped(Box<Piped<AnyLink>>),
}

/// An address of any of these transports.
pub enum AnyBound {
    /// A TCP address.
    Tcp(TcpBound),
    /// A path.
    #[cfg(unix)]
    Unix(UnixBound),
    /// A name inside this process.
    Memory(MemoryBound),
    /// A TCP address with TLS.
    Tls(TlsBound<TcpBound>),
    /// A path with TLS.
    #[cfg(unix)]
    TlsUnix(TlsBound<UnixBound>),
    /// A name inside this process with TLS.
    TlsMemory(TlsBound<MemoryBound>),
    /// Any of them, with WebSocket.
    WebSocket(Box<AnyBound>, Accepting),
    /// Any of them, with a pipeline.
    Piped(Box<AnyBound>, ReadyPipeline),
}

/// A listener of any of these transports.
pub enum AnyListener {
    /// On a TCP address.
    Tcp(TcpAcceptor),
    /// On a path.
    #[cfg(unix)]
    Unix(UnixAcceptor),
    /// On a name inside this process.
    Memory(MemoryListener),
    /// On a TCP address, with TLS.
    Tls(TlsListener<TcpAcceptor>),
    /// On a path, with TLS.
    #[cfg(unix)]
    TlsUnix(TlsListener<UnixAcceptor>),
    /// On a name inside this process, with TLS.
    TlsMemory(TlsListener<MemoryListener>),
    /// On any of them, with WebSocket.
    WebSocket(Box<AnyListener>, Accepting),
    /// On any of them, with a pipeline.
    Piped(Box<AnyListener>, ReadyPipeline),
}

/// The same expression for whichever link it is.
macro_rules! each {
    ($link:expr, $one:ident => $do:expr) => {
        match $link {
            Self::Tcp($one) => $do,
            #[cfg(unix)]
            Self::Unix($one) => $do,
            Self::Memory($one) => $do,
            Self::Tls($one) => $do,
            Self::WebSocket($one) => $do,
            Self::Waiting($one) => $do,
            Self::Piped($one) => $do,
        }
    };
}

impl AnyLink {
    /// The TCP socket, where it is one.
    #[must_use]
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(link) => Some(link.get_ref()),
            Self::Piped(link) => link.get_ref().tcp(),
            _ => None,
        }
    }

    /// As [`open`](Link::open), of one without a pipeline.
    async fn open_below(self) -> Result<Self> {
        match self {
            Self::Waiting(link) => Ok(Self::WebSocket(Box::new(link.shake_hands().await?))),
            stream => stream.open_stream().await,
        }
    }

    /// As [`open`](Link::open), of one that is a stream of its own.
    pub(crate) async fn open_stream(self) -> Result<Self> {
        Ok(match self {
            Self::Tls(link) => Self::Tls(link.open().await?),
            open => open,
        })
    }
}

impl AnyLink {
    /// As [`learn_client`](Link::learn_client), of one without a pipeline.
    async fn learn_client_below(&mut self) -> Result<Introduced> {
        match self {
            Self::Waiting(link) => link.learn_client().await,
            stream => stream.learn_client_of_stream().await,
        }
    }

    /// As [`learn_client`](Link::learn_client), of one that is a stream of its own.
    pub(crate) async fn learn_client_of_stream(&mut self) -> Result<Introduced> {
        match self {
            Self::Tcp(link) => link.learn_client().await,
            #[cfg(unix)]
            Self::Unix(link) => link.learn_client().await,
            Self::Memory(link) => link.learn_client().await,
            Self::Tls(link) => link.learn_client().await,
            // no stream, or open, when it is known
            Self::Waiting(_) | Self::WebSocket(_) | Self::Piped(_) => Ok(Introduced::Nobody),
        }
    }
}

impl Source for AnyLink {
    fn poll_fill(&mut self, cx: &mut Context<'_>, queue: &mut InQueue) -> Poll<Result<bool>> {
        each!(self, link => link.poll_fill(cx, queue))
    }

    #[inline]
    fn would_wait(&self, cx: &Context<'_>) -> bool {
        match self {
            Self::Tcp(link) => link.get_ref().would_wait(cx),
            #[cfg(unix)]
            Self::Unix(link) => link.get_ref().would_wait(cx),
            // there is more between the socket and the messages
            _ => false,
        }
    }
}

impl Sink for AnyLink {
    fn encoding(&self) -> Encoding {
        each!(self, link => link.encoding())
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        queue: &mut OutQueue,
    ) -> (Sent, Poll<Result<()>>) {
        each!(self, link => link.poll_send(cx, queue))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        each!(self, link => link.poll_close(cx))
    }
}

impl Link for AnyLink {
    fn info(&self) -> &LinkInfo {
        each!(self, link => link.info())
    }

    fn is_open(&self) -> bool {
        each!(self, link => link.is_open())
    }

    fn pings(&self) -> bool {
        matches!(self, Self::WebSocket(_))
    }

    fn poll_ping(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        each!(self, link => link.poll_ping(cx))
    }

    fn farewell(&mut self, reason: &CloseReason, code: Option<u16>) {
        each!(self, link => link.farewell(reason, code));
    }

    fn goodbye(&self) -> Option<&Goodbye> {
        each!(self, link => link.goodbye())
    }

    async fn learn_client(&mut self) -> Result<Introduced> {
        match self {
            Self::Piped(link) => {
                let introduced = link.get_mut().learn_client_below().await?;
                link.learnt();
                Ok(introduced)
            }
            link => link.learn_client_below().await,
        }
    }

    async fn open(self) -> Result<Self> {
        Ok(match self {
            Self::Piped(link) if !link.is_open() => {
                Self::Piped(Box::new(link.open_over(Self::open_below).await?))
            }
            link => link.open_below().await?,
        })
    }
}

impl Bound for AnyBound {
    type Listener = AnyListener;

    fn local(&self) -> &Address {
        match self {
            Self::Tcp(bound) => bound.local(),
            #[cfg(unix)]
            Self::Unix(bound) => bound.local(),
            Self::Memory(bound) => bound.local(),
            Self::Tls(bound) => bound.local(),
            #[cfg(unix)]
            Self::TlsUnix(bound) => bound.local(),
            Self::TlsMemory(bound) => bound.local(),
            Self::WebSocket(bound, _) | Self::Piped(bound, _) => bound.local(),
        }
    }

    fn start(self) -> Result<AnyListener> {
        Ok(match self {
            Self::Tcp(bound) => AnyListener::Tcp(bound.start()?),
            #[cfg(unix)]
            Self::Unix(bound) => AnyListener::Unix(bound.start()?),
            Self::Memory(bound) => AnyListener::Memory(bound.start()?),
            Self::Tls(bound) => AnyListener::Tls(bound.start()?),
            #[cfg(unix)]
            Self::TlsUnix(bound) => AnyListener::TlsUnix(bound.start()?),
            Self::TlsMemory(bound) => AnyListener::TlsMemory(bound.start()?),
            Self::WebSocket(bound, accepting) => {
                AnyListener::WebSocket(Box::new(bound.start()?), accepting)
            }
            Self::Piped(bound, pipeline) => AnyListener::Piped(Box::new(bound.start()?), pipeline),
        })
    }
}

impl Listener for AnyListener {
    type Link = AnyLink;

    async fn accept(&mut self) -> Result<AnyLink> {
        match self {
            Self::Piped(listener, pipeline) => {
                let link = listener.accept_below().await?;
                let link = Piped::accepted(link, pipeline.clone());
                Ok(AnyLink::Piped(Box::new(link)))
            }
            listener => listener.accept_below().await,
        }
    }
}

impl AnyListener {
    /// As [`accept`](Listener::accept), of one without a pipeline.
    async fn accept_below(&mut self) -> Result<AnyLink> {
        Ok(match self {
            Self::Tcp(listener) => AnyLink::Tcp(listener.accept().await?),
            #[cfg(unix)]
            Self::Unix(listener) => AnyLink::Unix(listener.accept().await?),
            Self::Memory(listener) => AnyLink::Memory(listener.accept().await?),
            Self::Tls(listener) => AnyLink::Tls(listener.accept().await?),
            #[cfg(unix)]
            Self::TlsUnix(listener) => AnyLink::Tls(listener.accept().await?),
            Self::TlsMemory(listener) => AnyLink::Tls(listener.accept().await?),
            Self::WebSocket(listener, accepting) => {
                let below = Box::pin(listener.accept_below()).await?;
                AnyLink::Waiting(Box::new(accepting.over(below)))
            }
            // there is no pipeline in a pipeline
            Self::Piped(..) => std::future::pending().await,
        })
    }
}

impl Schemes {
    /// Takes an address whose links have TLS.
    async fn bind_tls(
        &self,
        address: &Address,
        config: &LinkConfig,
        workers: usize,
    ) -> Result<Vec<AnyBound>> {
        let accepting = || self.tls.accept(address, config);
        Ok(match address.scheme() {
            "tcp" | "tls" | "ws" | "wss" => {
                let accepting = accepting()?;
                let bound = tcp::bind(address, config, workers).await?;
                accepting.over(bound).map(AnyBound::Tls).collect()
            }
            #[cfg(unix)]
            "unix" => {
                let accepting = accepting()?;
                let bound = unix::bind(address, config, workers).await?;
                accepting.over(bound).map(AnyBound::TlsUnix).collect()
            }
            "memory" => {
                let accepting = accepting()?;
                let bound = Memory.bind(address, config, workers).await?;
                accepting.over(bound).map(AnyBound::TlsMemory).collect()
            }
            _ => return Err(address.unknown_scheme(Self::KNOWN).into()),
        })
    }

    /// Connects to an address whose links have TLS.
    async fn connect_tls(&self, address: &Address, config: &LinkConfig) -> Result<AnyLink> {
        let connecting = self.tls.connect(address, config)?;
        let plain = match address.scheme() {
            "tcp" | "tls" | "ws" | "wss" => tcp::connect(address, config).await?.into(),
            #[cfg(unix)]
            "unix" => unix::connect(address, config).await?.into(),
            "memory" => Memory.connect(address, config).await?.into(),
            _ => return Err(address.unknown_scheme(Self::KNOWN).into()),
        };
        connecting.over(plain, address).await.map(AnyLink::Tls)
    }
}

impl Transports for Schemes {
    type Link = AnyLink;
    type Bound = AnyBound;

    async fn bind(
        &self,
        address: &Address,
        config: &LinkConfig,
        workers: usize,
    ) -> Result<Vec<AnyBound>> {
        let Some((pipeline, below)) = ReadyPipeline::new(config, Role::Server)? else {
            return self.bind_below(address, config, workers).await;
        };
        let bound = self.bind_below(address, &below, workers).await?;
        let piped = |bound| AnyBound::Piped(Box::new(bound), pipeline.clone());
        Ok(bound.into_iter().map(piped).collect())
    }

    async fn connect(&self, address: &Address, config: &LinkConfig) -> Result<AnyLink> {
        if config.session.pipeline.is_some() {
            // in a box, so that a plain connect is not as large as one with it
            return Box::pin(self.connect_piped(address, config)).await;
        }
        self.connect_below(address, config).await
    }

    fn reload(&self) -> Result<()> {
        self.tls.reload()
    }
}

impl Schemes {
    /// Connects to an address whose links have a pipeline.
    async fn connect_piped(&self, address: &Address, config: &LinkConfig) -> Result<AnyLink> {
        let Some((pipeline, below)) = ReadyPipeline::new(config, Role::Client)? else {
            return self.connect_below(address, config).await;
        };
        let link = self.connect_below(address, &below).await?;
        let link = Piped::connect(link, pipeline).await;
        let link = link.map_err(|error| error.peer(address))?;
        Ok(AnyLink::Piped(Box::new(link)))
    }

    /// Takes an address, whatever pipeline is above it.
    async fn bind_below(
        &self,
        address: &Address,
        config: &LinkConfig,
        workers: usize,
    ) -> Result<Vec<AnyBound>> {
        if !config.is_websocket(address) {
            return self.bind_stream(address, config, workers).await;
        }
        let accepting = websocket::accepting(address, config)?;
        let bound = self.bind_stream(address, config, workers).await?;
        let over = |bound| AnyBound::WebSocket(Box::new(bound), accepting.clone());
        Ok(bound.into_iter().map(over).collect())
    }

    /// Takes an address, whatever is above its stream.
    async fn bind_stream(
        &self,
        address: &Address,
        config: &LinkConfig,
        workers: usize,
    ) -> Result<Vec<AnyBound>> {
        if config.is_secure(address) {
            return self.bind_tls(address, config, workers).await;
        }
        Ok(match address.scheme() {
            "tcp" | "ws" => {
                let bound = tcp::bind(address, config, workers).await?;
                bound.into_iter().map(AnyBound::Tcp).collect()
            }
            #[cfg(unix)]
            "unix" => {
                let bound = unix::bind(address, config, workers).await?;
                bound.into_iter().map(AnyBound::Unix).collect()
            }
            "memory" => {
                let bound = Memory.bind(address, config, workers).await?;
                bound.into_iter().map(AnyBound::Memory).collect()
            }
            _ => return Err(address.unknown_scheme(Self::KNOWN).into()),
        })
    }

    /// Connects to an address, whatever pipeline is above it.
    async fn connect_below(&self, address: &Address, config: &LinkConfig) -> Result<AnyLink> {
        if config.is_websocket(address) {
            // in a box, for the same reason
            return Box::pin(self.connect_websocket(address, config)).await;
        }
        self.connect_stream(address, config).await
    }

    /// Connects to an address whose links are WebSocket.
    async fn connect_websocket(&self, address: &Address, config: &LinkConfig) -> Result<AnyLink> {
        websocket::check(address, config)?;
        let at = match (address.port(), address.scheme()) {
            (None, "ws") => address.with_port(80),
            (None, "wss") => address.with_port(443),
            _ => address.clone(),
        };
        let below = self.connect_stream(&at, config).await?;
        let link = websocket::connect(below, address, config).await?;
        Ok(AnyLink::WebSocket(Box::new(link)))
    }

    /// Connects to an address, whatever is above its stream.
    async fn connect_stream(&self, address: &Address, config: &LinkConfig) -> Result<AnyLink> {
        if config.is_secure(address) {
            // in a box, so that a connect without TLS is not as large as one with it
            return Box::pin(self.connect_tls(address, config)).await;
        }
        Ok(match address.scheme() {
            "tcp" | "ws" => AnyLink::Tcp(tcp::connect(address, config).await?),
            #[cfg(unix)]
            "unix" => AnyLink::Unix(unix::connect(address, config).await?),
            "memory" => AnyLink::Memory(Memory.connect(address, config).await?),
            _ => return Err(address.unknown_scheme(Self::KNOWN).into()),
        })
    }
}
