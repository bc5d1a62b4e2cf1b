//! The stream under hyper: [`Counted`], any byte stream, whose bytes are counted.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use network_system_core::Host;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

use super::life::Life;
use crate::schemes::AnyLink;

/// A byte stream of any transport.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// A stream whose bytes are counted, and from which something has been read already.
pub(super) struct Counted {
    io: Box<dyn Stream>,
    /// What was read and not yet given out.
    prefix: Bytes,
    life: Arc<Life>,
    host: Host<AnyLink>,
    rope: Arc<Rope>,
}

/// By which a stream can be cut that somebody else has, as after an upgrade.
#[derive(Default)]
pub(super) struct Rope {
    /// Whether hyper has given the stream away, so that a cut must be looked for.
    away: AtomicBool,
    cut: AtomicBool,
    wakers: Mutex<[Option<Waker>; 2]>,
    pub(super) gone: CancellationToken,
}

impl Rope {
    pub(super) fn set_away(&self) {
        self.away.store(true, Ordering::Release);
    }

    /// Makes everything that is done with the stream fail from now on.
    pub(super) fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        let wakers = std::mem::take(&mut *wakers);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn check(&self, cx: &Context<'_>, side: usize) -> io::Result<()> {
        if !self.away.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        if self.cut.load(Ordering::SeqCst) {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the server has cut the connection off",
            ));
        }
        if let Some(place) = wakers.get_mut(side) {
            *place = Some(cx.waker().clone());
        }
        Ok(())
    }
}

impl Counted {
    pub(super) fn new(
        io: Box<dyn Stream>,
        prefix: Bytes,
        life: Arc<Life>,
        host: Host<AnyLink>,
    ) -> Self {
        host.http().received(prefix.len() as u64);
        life.received(prefix.len() as u64);
        Self {
            io,
            prefix,
            life,
            host,
            rope: Arc::default(),
        }
    }

    pub(super) fn rope(&self) -> Arc<Rope> {
        self.rope.clone()
    }

    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(n)) = result {
            self.life.written.fetch_add(n as u64, Ordering::Relaxed);
            self.host.http().sent(n as u64);
        }
        let waits = &self.life.write_waits;
        if waits.load(Ordering::Relaxed) != result.is_pending() {
            waits.store(result.is_pending(), Ordering::Relaxed);
        }
        result
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.rope.gone.cancel();
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.rope.check(cx, 0)?;
        if this.prefix.has_remaining() {
            let n = this.prefix.len().min(into.remaining());
            into.put_slice(&this.prefix.split_to(n));
            return Poll::Ready(Ok(()));
        }
        let before = into.filled().len();
        let result = Pin::new(&mut this.io).poll_read(cx, into);
        let n = (into.filled().len() - before) as u64;
        if n > 0 {
            this.life.received(n);
            this.host.http().received(n);
        }
        result
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.rope.check(cx, 1)?;
        let result = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.wrote(result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.rope.check(cx, 1)?;
        let result = Pin::new(&mut this.io).poll_write_vectored(cx, slices);
        this.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
