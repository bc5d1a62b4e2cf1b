//! Picks the transport by the scheme of an address: [`Schemes`].

use std::task::{Context, Poll};

use network_system_core::config::LinkConfig;
use network_system_core::{
    Address, Bound, Encoding, InQueue, Link, LinkInfo, Listener, Memory, MemoryBound,
    MemoryListener, OutQueue, Result, Sent, Sink, Source, StreamLink, Transports,
};
use tokio::io::DuplexStream;

use crate::tcp::{self, TcpAcceptor, TcpBound, TcpLink, TcpStream};
#[cfg(unix)]
use crate::unix::{self, UnixAcceptor, UnixBound, UnixLink};

/// Every transport that this build has: `tcp://`, `memory://`, and `unix://` where the system has
/// Unix sockets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Schemes;

impl Schemes {
    /// The schemes of this build.
    pub const KNOWN: &'static [&'static str] = if cfg!(unix) {
        &["tcp", "unix", "memory"]
    } else {
        &["tcp", "memory"]
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
}

/// The same expression for whichever variant there is.
macro_rules! each {
    ($any:expr, $type:ident, $one:ident => $do:expr) => {
        match $any {
            $type::Tcp($one) => $do,
            #[cfg(unix)]
            $type::Unix($one) => $do,
            $type::Memory($one) => $do,
        }
    };
}

impl AnyLink {
    /// The TCP socket, where it is one.
    #[must_use]
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(link) => Some(link.get_ref()),
            _ => None,
        }
    }
}

impl Source for AnyLink {
    fn poll_fill(&mut self, cx: &mut Context<'_>, queue: &mut InQueue) -> Poll<Result<bool>> {
        each!(self, Self, link => link.poll_fill(cx, queue))
    }
}

impl Sink for AnyLink {
    fn encoding(&self) -> Encoding {
        each!(self, Self, link => link.encoding())
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        queue: &mut OutQueue,
    ) -> (Sent, Poll<Result<()>>) {
        each!(self, Self, link => link.poll_send(cx, queue))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        each!(self, Self, link => link.poll_close(cx))
    }
}

impl Link for AnyLink {
    fn info(&self) -> &LinkInfo {
        each!(self, Self, link => link.info())
    }
}

impl Bound for AnyBound {
    type Listener = AnyListener;

    fn local(&self) -> &Address {
        each!(self, Self, bound => bound.local())
    }

    fn start(self) -> Result<AnyListener> {
        Ok(match self {
            Self::Tcp(bound) => AnyListener::Tcp(bound.start()?),
            #[cfg(unix)]
            Self::Unix(bound) => AnyListener::Unix(bound.start()?),
            Self::Memory(bound) => AnyListener::Memory(bound.start()?),
        })
    }
}

impl Listener for AnyListener {
    type Link = AnyLink;

    async fn accept(&mut self) -> Result<AnyLink> {
        Ok(match self {
            Self::Tcp(listener) => AnyLink::Tcp(listener.accept().await?),
            #[cfg(unix)]
            Self::Unix(listener) => AnyLink::Unix(listener.accept().await?),
            Self::Memory(listener) => AnyLink::Memory(listener.accept().await?),
        })
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
        Ok(match address.scheme() {
            "tcp" => {
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

    async fn connect(&self, address: &Address, config: &LinkConfig) -> Result<AnyLink> {
        Ok(match address.scheme() {
            "tcp" => AnyLink::Tcp(tcp::connect(address, config).await?),
            #[cfg(unix)]
            "unix" => AnyLink::Unix(unix::connect(address, config).await?),
            "memory" => AnyLink::Memory(Memory.connect(address, config).await?),
            _ => return Err(address.unknown_scheme(Self::KNOWN).into()),
        })
    }
}
