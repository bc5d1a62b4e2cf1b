//! Picks the transport by the scheme of an address: [`Schemes`].

use std::task::{Context, Poll};

use network_system_core::config::{LinkConfig, open_until};
use network_system_core::wire::pipeline::Role;
use network_system_core::{
    Address, Bound, CloseReason, Encoding, Error, ErrorKind, Goodbye, Host, InQueue, Introduced,
    Link, LinkInfo, Listener, Memory, MemoryBound, MemoryListener, OutQueue, Piped, Pipelines,
    ReadyPipeline, Result, Sent, Sink, Source, StreamLink, Transports,
};
use tokio::io::DuplexStream;

use crate::auto::{Auto, AutoBound, AutoLink, AutoListener};
use crate::grpc::GrpcLink;
use crate::http::{GatewayLink, Http, HttpBound, HttpLink, HttpListener};
use crate::tcp::{self, TcpAcceptor, TcpBound, TcpLink, TcpStream};
use crate::tls::{Tls, TlsBound, TlsLink, TlsListener};
#[cfg(unix)]
use crate::unix::{self, UnixAcceptor, UnixBound, UnixLink};
use crate::websocket::{self, Accepting, AnyWebSocket, Waiting};

/// Every transport that this build has: `tcp://`, `tls://`, `ws://`, `wss://`, `grpc://`, `grpcs://`,
/// `memory://`, and `unix://` where the system has Unix sockets; each stream with `?tls=true` is one with
/// TLS, with `?websocket=true` one with WebSocket, and each can have a pipeline. Servers also listen on
/// `http://`, `https://` and `auto://`.
///
/// Clones share what TLS and Noise have read from files, and the sessions that can be resumed.
#[derive(Clone, Debug, Default)]
pub struct Schemes {
    tls: Tls,
    pub(crate) http: Http,
    pipelines: Pipelines,
}

impl Schemes {
    /// The schemes of this build.
    pub const KNOWN: &'static [&'static str] = KNOWN.0.split_at(KNOWN.1).0;
}

/// Every scheme, and whether this build has it.
const ALL: [(&str, bool); 11] = [
    ("tcp", true),
    ("tls", Tls::IS_THERE),
    ("unix", cfg!(unix)),
    ("memory", true),
    ("http", Http::IS_THERE),
    ("https", Http::IS_THERE && Tls::IS_THERE),
    ("ws", websocket::IS_THERE),
    ("wss", websocket::IS_THERE && Tls::IS_THERE),
    ("grpc", cfg!(feature = "grpc")),
    ("grpcs", cfg!(feature = "grpc") && Tls::IS_THERE),
    ("auto", true),
];

/// Those that it has, and how many these are.
const KNOWN: ([&str; ALL.len()], usize) = {
    let (mut known, mut count, mut n) = ([""; ALL.len()], 0, 0);
    while n < ALL.len() {
        if ALL[n].1 {
            known[count] = ALL[n].0;
            count += 1;
        }
        n += 1;
    }
    (known, count)
};

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
    /// Over TCP, and becomes one of the others.
    Auto(Box<AutoLink>),
    /// With HTTP, over TCP or TLS. No message link: a server serves it.
    Http(Box<HttpLink>),
    /// A session over gRPC.
    Grpc(Box<GrpcLink>),
    /// A session of the message gateway of HTTP.
    Gateway(Box<GatewayLink>),
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
    /// A TCP address with every protocol.
    Auto(AutoBound),
    /// A TCP address with HTTP.
    Http(HttpBound),
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
    /// On a TCP address, with every protocol.
    Auto(AutoListener),
    /// With HTTP.
    Http(HttpListener),
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
            Self::Auto($one) => $do,
            Self::Http($one) => $do,
            Self::Grpc($one) => $do,
            Self::Gateway($one) => $do,
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
    pub(crate) async fn open_below(self) -> Result<Self> {
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

#[cfg(feature = "http")]
impl AnyLink {
    /// The byte stream, of one that has nothing else above it.
    pub(crate) fn into_stream(self) -> Option<Box<dyn crate::http::Stream>> {
        Some(match self {
            Self::Tcp(link) => Box::new(link.into_parts().0),
            #[cfg(unix)]
            Self::Unix(link) => Box::new(link.into_parts().0),
            Self::Memory(link) => Box::new(link.into_parts().0),
            Self::Tls(link) => link.into_stream(),
            _ => return None,
        })
    }
}

impl AnyLink {
    /// As [`learn_client`](Link::learn_client), of one without a pipeline.
    pub(crate) async fn learn_client_below(&mut self) -> Result<Introduced> {
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
            // no stream, or open, when it is known; and nothing above HTTP and all
            Self::Waiting(_)
            | Self::WebSocket(_)
            | Self::Piped(_)
            | Self::Auto(_)
            | Self::Http(_)
            | Self::Grpc(_)
            | Self::Gateway(_) => Ok(Introduced::Nobody),
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
        match self {
            Self::WebSocket(link) => link.poll_ping(cx),
            Self::Piped(link) => link.poll_ping(cx),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn farewell(&mut self, reason: &CloseReason, code: Option<u16>) {
        match self {
            Self::WebSocket(link) => link.farewell(reason, code),
            Self::Piped(link) => link.farewell(reason, code),
            _ => {}
        }
    }

    fn goodbye(&self) -> Option<&Goodbye> {
        match self {
            Self::WebSocket(link) => link.goodbye(),
            Self::Piped(link) => link.goodbye(),
            _ => None,
        }
    }

    async fn learn_client(&mut self) -> Result<Introduced> {
        match self {
            Self::Piped(link) => {
                let introduced = link.get_mut().learn_client_below().await?;
                link.learnt();
                Ok(introduced)
            }
            Self::Auto(link) => link.learn_client().await,
            Self::Http(link) => link.learn_client().await,
            link => link.learn_client_below().await,
        }
    }

    async fn open(self) -> Result<Self> {
        Ok(match self {
            Self::Piped(link) if !link.is_open() => {
                Self::Piped(Box::new(link.open_over(Self::open_below).await?))
            }
            Self::Auto(link) => link.open().await?,
            Self::Http(link) => Self::Http(Box::new(link.open().await?)),
            link => link.open_below().await?,
        })
    }

    fn is_guest(&self) -> bool {
        matches!(self, Self::Http(_))
    }

    async fn serve(self, host: Host<Self>) -> CloseReason {
        match self {
            Self::Http(link) => link.serve(host).await,
            _ => CloseReason::Cut,
        }
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
            Self::Auto(bound) => bound.local(),
            Self::Http(bound) => bound.local(),
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
            Self::Auto(bound) => AnyListener::Auto(bound.start()?),
            Self::Http(bound) => AnyListener::Http(bound.start()?),
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
            Self::Auto(listener) => Ok(AnyLink::Auto(Box::new(listener.accept().await?))),
            Self::Http(listener) => Ok(AnyLink::Http(Box::new(listener.accept().await?))),
            listener => listener.accept_below().await,
        }
    }
}

impl AnyListener {
    /// As [`accept`](Listener::accept), of one without a pipeline.
    pub(crate) async fn accept_below(&mut self) -> Result<AnyLink> {
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
            // there is no pipeline in a pipeline, and nothing above HTTP and all
            Self::Piped(..) | Self::Auto(_) | Self::Http(_) => std::future::pending().await,
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
            "tcp" | "tls" | "ws" | "wss" | "https" | "grpcs" => {
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
            "tcp" | "tls" | "ws" | "wss" | "auto" | "grpcs" => {
                tcp::connect(address, config).await?.into()
            }
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
        if address.scheme() == "auto" {
            let (auto, below) = Auto::new(address, config, &self.tls, &self.http)?;
            let bound = tcp::bind(address, &below, workers).await?;
            if let Some(pipeline) = auto.pipeline() {
                self.pipelines.add(pipeline);
            }
            return Ok(auto.over(bound).map(AnyBound::Auto).collect());
        }
        if is_http(address) {
            return self.bind_http(address, config, workers).await;
        }
        let Some((pipeline, below)) = ReadyPipeline::new(config, Role::Server)? else {
            return self.bind_below(address, config, workers).await;
        };
        let bound = self.bind_below(address, &below, workers).await?;
        self.pipelines.add(&pipeline);
        let piped = |bound| AnyBound::Piped(Box::new(bound), pipeline.clone());
        Ok(bound.into_iter().map(piped).collect())
    }

    async fn connect(&self, address: &Address, config: &LinkConfig) -> Result<AnyLink> {
        #[cfg(feature = "grpc")]
        if matches!(address.scheme(), "grpc" | "grpcs") {
            return Box::pin(self.connect_grpc(address, config)).await;
        }
        if is_http(address) {
            let error = Error::new(ErrorKind::InvalidArgument, "connect to").peer(address);
            return Err(error
                .because("HTTP has no message connection")
                .advice("ask with an HTTP client, such as curl or HttpClient"));
        }
        if config.session.pipeline.is_some() {
            // in a box, so that a plain connect is not as large as one with it
            return Box::pin(self.connect_piped(address, config)).await;
        }
        self.connect_below(address, config).await
    }

    fn reload(&self) -> Result<()> {
        let tls = self.tls.reload();
        let pipelines = self.pipelines.reload();
        tls.and(pipelines)
    }
}

/// Whether HTTP is spoken there.
fn is_http(address: &Address) -> bool {
    matches!(address.scheme(), "http" | "https" | "grpc" | "grpcs")
}

impl Schemes {
    /// Takes an address where HTTP is spoken.
    async fn bind_http(
        &self,
        address: &Address,
        config: &LinkConfig,
        workers: usize,
    ) -> Result<Vec<AnyBound>> {
        let (serving, below) = self.http.accept(address, config)?;
        let bound = self.bind_below(address, &below, workers).await?;
        let http = |bound| AnyBound::Http(HttpBound::new(bound, serving.clone()));
        Ok(bound.into_iter().map(http).collect())
    }

    /// Opens a session over gRPC.
    #[cfg(feature = "grpc")]
    async fn connect_grpc(&self, address: &Address, config: &LinkConfig) -> Result<AnyLink> {
        let invalid = |why: &str| {
            Err(Error::new(ErrorKind::InvalidArgument, "connect to")
                .peer(address)
                .because(why))
        };
        if config.session.pipeline.is_some() {
            return invalid("messages over gRPC cannot have a pipeline");
        }
        let mut below = config.clone();
        if below.tls_client.alpn.is_empty() {
            std::sync::Arc::make_mut(&mut below.tls_client).alpn = vec!["h2".to_owned()];
        }
        let link = self.connect_below(address, &below).await?;
        let info = link.info().clone();
        let Some(stream) = link.into_stream() else {
            return invalid("this transport has no stream");
        };
        let link = crate::grpc::connect(stream, info, address, config).await?;
        Ok(AnyLink::Grpc(Box::new(link)))
    }

    /// Connects to an address whose links have a pipeline.
    async fn connect_piped(&self, address: &Address, config: &LinkConfig) -> Result<AnyLink> {
        let Some((pipeline, below)) = ReadyPipeline::new(config, Role::Client)? else {
            return self.connect_below(address, config).await;
        };
        let until = open_until(config.open_timeout);
        let link = self.connect_below(address, &below).await?;
        let link = Piped::connect_until(link, pipeline, until).await;
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
            "tcp" | "ws" | "http" | "grpc" => {
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
            // frames are what a client of ours speaks on `auto`
            "tcp" | "ws" | "auto" | "grpc" => AnyLink::Tcp(tcp::connect(address, config).await?),
            #[cfg(unix)]
            "unix" => AnyLink::Unix(unix::connect(address, config).await?),
            "memory" => AnyLink::Memory(Memory.connect(address, config).await?),
            _ => return Err(address.unknown_scheme(Self::KNOWN).into()),
        })
    }
}
