//! The streams that TLS can lie over: [`Plain`].

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use network_system_core::wire::Framing;
use network_system_core::{LinkInfo, StreamLink};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::tcp::TcpStream;
#[cfg(unix)]
use crate::unix::UnixStream;

/// A link without TLS, taken apart.
pub struct Plain {
    pub(super) io: Raw,
    pub(super) framing: Framing,
    pub(super) info: LinkInfo,
}

/// A stream of any transport.
#[derive(Debug)]
pub(crate) enum Raw {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    Memory(DuplexStream),
}

macro_rules! plain {
    ($stream:ty, $raw:ident) => {
        impl From<StreamLink<$stream>> for Plain {
            fn from(link: StreamLink<$stream>) -> Self {
                let (io, framing, mut info) = link.into_parts();
                if info.scheme == "tcp" {
                    info.scheme = "tls";
                }
                Self {
                    io: Raw::$raw(io),
                    framing,
                    info,
                }
            }
        }
    };
}

plain!(TcpStream, Tcp);
#[cfg(unix)]
plain!(UnixStream, Unix);
plain!(DuplexStream, Memory);

/// The same expression for whichever stream it is.
macro_rules! each {
    ($raw:expr, $one:ident => $do:expr) => {
        match $raw {
            Raw::Tcp($one) => $do,
            #[cfg(unix)]
            Raw::Unix($one) => $do,
            Raw::Memory($one) => $do,
        }
    };
}

impl AsyncRead for Raw {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_read(cx, into))
    }
}

impl AsyncWrite for Raw {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), io => Pin::new(io).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), io => Pin::new(io).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        each!(self, io => io.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_shutdown(cx))
    }
}
