//! Sockets as links use them, watched by whoever runs the link: a worker or tokio.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use mio::event::Source;
use network_system_core::worker::{Io, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connected stream socket: `R` is tokio's, `W` the one that workers watch.
#[derive(Debug)]
pub enum Watched<R, W: Source> {
    /// In a tokio runtime.
    Runtime(R),
    /// On a worker.
    Worker(Io<W>),
}

/// The same expression for either.
macro_rules! either {
    ($socket:expr, $one:ident => $do:expr) => {
        match $socket {
            Self::Runtime($one) => $do,
            Self::Worker($one) => $do,
        }
    };
}

impl<R, W: Source> Watched<R, W> {
    /// Whether a read would wait, as far as that is known.
    #[inline]
    pub fn would_wait(&self, cx: &Context<'_>) -> bool {
        match self {
            Self::Runtime(_) => false,
            Self::Worker(socket) => socket.would_wait(cx),
        }
    }
}

impl<R, W> AsyncRead for Watched<R, W>
where
    R: AsyncRead + Unpin,
    W: Stream,
{
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self.get_mut(), socket => Pin::new(socket).poll_read(cx, into))
    }
}

impl<R, W> AsyncWrite for Watched<R, W>
where
    R: AsyncWrite + Unpin,
    W: Stream,
{
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), socket => Pin::new(socket).poll_write(cx, bytes))
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), socket => Pin::new(socket).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        either!(self, socket => socket.is_write_vectored())
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), socket => Pin::new(socket).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), socket => Pin::new(socket).poll_shutdown(cx))
    }
}

#[cfg(unix)]
impl<R: std::os::fd::AsFd, W: Source + std::os::fd::AsFd> std::os::fd::AsFd for Watched<R, W> {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Self::Runtime(socket) => socket.as_fd(),
            Self::Worker(socket) => socket.get_ref().as_fd(),
        }
    }
}

#[cfg(windows)]
impl<R, W> std::os::windows::io::AsSocket for Watched<R, W>
where
    R: std::os::windows::io::AsSocket,
    W: Source + std::os::windows::io::AsSocket,
{
    fn as_socket(&self) -> std::os::windows::io::BorrowedSocket<'_> {
        match self {
            Self::Runtime(socket) => socket.as_socket(),
            Self::Worker(socket) => socket.get_ref().as_socket(),
        }
    }
}
