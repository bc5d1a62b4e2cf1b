//! The streams that WebSocket can lie over: [`Carrier`].

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use network_system_core::LinkInfo;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::schemes::AnyLink;
use crate::tcp::TcpStream;
use crate::tls::Secured;
#[cfg(unix)]
use crate::unix::UnixStream;

/// A stream of any transport.
#[derive(Debug)]
pub struct Carrier(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    Memory(DuplexStream),
    /// With TLS, over any of these.
    Tls(Box<Secured>),
    /// What an HTTP server has handed over.
    Upgraded(Box<TokioIo<Upgraded>>),
}

impl Carrier {
    /// The stream of a link that is open, and what is known about it; `None` where there is no stream.
    pub(crate) fn of(link: AnyLink) -> Option<(Self, LinkInfo)> {
        let (kind, info) = match link {
            AnyLink::Tcp(link) => {
                let (io, _, info) = link.into_parts();
                (Kind::Tcp(io), info)
            }
            #[cfg(unix)]
            AnyLink::Unix(link) => {
                let (io, _, info) = link.into_parts();
                (Kind::Unix(io), info)
            }
            AnyLink::Memory(link) => {
                let (io, _, info) = link.into_parts();
                (Kind::Memory(io), info)
            }
            AnyLink::Tls(link) => {
                let (io, info) = link.into_parts();
                (Kind::Tls(Box::new(io)), info)
            }
            _ => return None,
        };
        Some((Self(kind), info))
    }
}

impl From<TokioIo<Upgraded>> for Carrier {
    fn from(upgraded: TokioIo<Upgraded>) -> Self {
        Self(Kind::Upgraded(Box::new(upgraded)))
    }
}

/// The same expression for whichever stream it is.
macro_rules! each {
    ($carrier:expr, $one:ident => $do:expr) => {
        match $carrier {
            Kind::Tcp($one) => $do,
            #[cfg(unix)]
            Kind::Unix($one) => $do,
            Kind::Memory($one) => $do,
            Kind::Tls($one) => $do,
            Kind::Upgraded($one) => $do,
        }
    };
}

impl AsyncRead for Carrier {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(&mut self.get_mut().0, io => Pin::new(io).poll_read(cx, into))
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(&mut self.get_mut().0, io => Pin::new(io).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(&mut self.get_mut().0, io => Pin::new(io).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        each!(&self.0, io => io.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut self.get_mut().0, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut self.get_mut().0, io => Pin::new(io).poll_shutdown(cx))
    }
}
