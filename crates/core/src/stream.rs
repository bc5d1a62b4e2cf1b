//! The link of every byte-stream transport: anything that is `AsyncRead + AsyncWrite`, and a framing.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use network_system_wire::Framing;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::{Error, Result};
use crate::in_queue::InQueue;
use crate::link::{Link, LinkInfo, Sent, Sink, Source};
use crate::out_queue::{Encoding, OutQueue};
use crate::protection::{Introduced, read_proxy_header};

/// Slices per vectored write.
const SLICES: usize = 64;

/// A byte stream and its framing as a [`Link`].
#[derive(Debug)]
pub struct StreamLink<T> {
    io: T,
    framing: Framing,
    info: LinkInfo,
    closed: bool,
}

impl<T> StreamLink<T> {
    /// A link over `io`.
    pub fn new(io: T, framing: Framing, info: LinkInfo) -> Self {
        Self {
            io,
            framing,
            info,
            closed: false,
        }
    }

    /// The stream, how messages are told apart on it, and what is known about it.
    pub fn into_parts(self) -> (T, Framing, LinkInfo) {
        (self.io, self.framing, self.info)
    }

    /// The stream, and what is known about it, for what comes before the first message.
    pub fn parts_mut(&mut self) -> (&mut T, &mut LinkInfo) {
        (&mut self.io, &mut self.info)
    }

    /// The stream below.
    pub fn get_ref(&self) -> &T {
        &self.io
    }
}

impl<T: AsyncRead + Unpin> Source for StreamLink<T> {
    fn poll_fill(&mut self, cx: &mut Context<'_>, queue: &mut InQueue) -> Poll<Result<bool>> {
        queue
            .poll_read(cx, &mut self.io)
            .map_err(|error| Error::from_io("receive from", error).peer(&self.info.peer))
    }
}

impl<T: AsyncWrite + Unpin> StreamLink<T> {
    /// One write of as much as possible.
    fn poll_write(&mut self, cx: &mut Context<'_>, queue: &OutQueue) -> Poll<io::Result<usize>> {
        if let Some(bytes) = queue.contiguous() {
            return Pin::new(&mut self.io).poll_write(cx, bytes);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let n = queue.slices(&mut slices);
        if self.io.is_write_vectored() {
            Pin::new(&mut self.io).poll_write_vectored(cx, &slices[..n])
        } else {
            Pin::new(&mut self.io).poll_write(cx, &slices[0])
        }
    }
}

impl<T: AsyncWrite + Unpin> Sink for StreamLink<T> {
    fn encoding(&self) -> Encoding {
        Encoding::Stream(self.framing.clone())
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        queue: &mut OutQueue,
    ) -> (Sent, Poll<Result<()>>) {
        let mut sent = Sent::default();
        while !queue.is_empty() {
            match self.poll_write(cx, queue) {
                Poll::Ready(Ok(n)) if n > 0 => {
                    sent.bytes += n as u64;
                    sent.messages += queue.advance(n) as u64;
                }
                Poll::Ready(result) => {
                    let error = result
                        .err()
                        .unwrap_or_else(|| io::ErrorKind::WriteZero.into());
                    let error = Error::from_io("send to", error).peer(&self.info.peer);
                    return (sent, Poll::Ready(Err(error)));
                }
                Poll::Pending => return (sent, Poll::Pending),
            }
        }
        // a buffered stream (TLS, say) may still hold bytes; a socket does nothing here
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        let flushed = flushed.map_err(|e| Error::from_io("send to", e).peer(&self.info.peer));
        (sent, flushed)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if !self.closed {
            let result = ready!(Pin::new(&mut self.io).poll_shutdown(cx));
            self.closed = true;
            result
                .map_err(|e| Error::from_io("close the connection to", e).peer(&self.info.peer))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Link for StreamLink<T> {
    fn info(&self) -> &LinkInfo {
        &self.info
    }

    async fn learn_client(&mut self) -> Result<Introduced> {
        read_proxy_header(&mut self.io, &mut self.info).await
    }
}
