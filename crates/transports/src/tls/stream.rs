//! One TLS connection over a socket: [`TlsStream`]. rustls does the protocol; this moves bytes
//! between it and the socket, many records at once.

use std::cell::RefCell;
use std::io::{self, BufRead, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::{Connection, SupportedCipherSuite};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::failure;

/// Bytes that one read of the socket asks for. rustls itself reads 4 KiB at a time.
const READ: usize = 64 * 1024;
/// Bytes of the largest record.
const FULL: usize = 16 * 1024;
/// More records than one write makes, and what else may be written.
const SPARE: u64 = 32;
/// More than rustls may hold of a record that has not come whole.
const RECORD: usize = 20 * 1024;

/// Reads in one turn that bring nothing for us: a server may send tickets without end, say, and other
/// connections of this thread have their turn then.
const DRY: usize = 16;

thread_local! {
    /// What was read from a socket and is not decrypted yet: nothing between two calls.
    static ENCRYPTED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A byte stream with TLS over `T`.
///
/// Bytes of a write count as written when they have left for the socket, and not when they are
/// encrypted: whoever waits for the socket still has a last byte to write, and so comes back. That
/// byte must be the same then, also where it is the first of a message ([`OutQueue::begun`]).
///
/// [`OutQueue::begun`]: network_system_core::OutQueue::begun
#[derive(Debug)]
pub(crate) struct TlsStream<T> {
    io: T,
    tls: Connection,
    /// Whether the last byte of what is encrypted was not yet said to be written.
    held: bool,
    /// Records that may still be written with one key: with TLS 1.2 there is no other, and rustls says
    /// goodbye then and takes what it does not write.
    left: u64,
    /// Whether our goodbye is among what was encrypted.
    closing: bool,
    /// What was wrong behind the bytes that were given out last.
    failed: Option<io::Error>,
}

impl<T> TlsStream<T> {
    pub(super) fn new(io: T, tls: Connection) -> Self {
        Self {
            io,
            tls,
            held: false,
            left: u64::MAX,
            closing: false,
            failed: None,
        }
    }

    pub(super) fn tls(&self) -> &Connection {
        &self.tls
    }

    pub(super) fn io_mut(&mut self) -> &mut T {
        &mut self.io
    }

    pub(super) fn into_io(self) -> T {
        self.io
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> TlsStream<T> {
    /// Does the handshake, what goes out of it included.
    pub(super) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_write_out(cx))?;
            if !self.tls.is_handshaking() {
                if let Some(SupportedCipherSuite::Tls12(suite)) = self.tls.negotiated_cipher_suite()
                {
                    self.left = suite.common.confidentiality_limit;
                }
                return Pin::new(&mut self.io).poll_flush(cx);
            }
            if ready!(self.poll_read_in(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            if let Err(error) = self.tls.process_new_packets() {
                // tells the peer why, if it can be told at once
                let _ = self.poll_write_out(cx);
                return Poll::Ready(Err(io::Error::other(error)));
            }
        }
    }

    /// The first byte that has come, which stays here; `None` at the end.
    pub(super) fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<u8>>> {
        for _ in 0..DRY {
            match self.tls.reader().fill_buf() {
                Ok(bytes) => return Poll::Ready(Ok(bytes.first().copied())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Poll::Ready(Err(failure::cut_off()));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
            ready!(self.poll_read_in(cx))?;
            let result = self.tls.process_new_packets();
            if self.tls.wants_write() {
                // as when it decrypts
                let _ = self.poll_write_out(cx);
            }
            result.map_err(failure::of_stream)?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what is encrypted; ready when nothing of it is left.
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, tls, .. } = self;
        while tls.wants_write() {
            match tls.write_tls(&mut Sync { io, cx }) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once from the socket into what rustls holds, at most a few KiB.
    fn poll_read_in(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Self { io, tls, .. } = self;
        match tls.read_tls(&mut Sync { io, cx }) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            result => Poll::Ready(result),
        }
    }

    /// Decrypts what rustls holds, and moves it to `into`. What is wrong is an error once what was
    /// right before it has been given out.
    fn decrypt(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> io::Result<()> {
        let result = self.tls.process_new_packets();
        if self.tls.wants_write() {
            // an answer of the protocol's, or why we give up; what the socket does not take now
            // goes before the next write
            let _ = self.poll_write_out(cx);
        }
        match result {
            Ok(_) => self.take(into).map(|_| ()),
            Err(error) => {
                self.failed = Some(failure::of_stream(error));
                // the end is not what is wrong
                let _ = self.take(into);
                Ok(())
            }
        }
    }

    /// Moves what is decrypted: whether there was something, or the end in good order.
    fn take(&mut self, into: &mut ReadBuf<'_>) -> io::Result<bool> {
        let mut some = false;
        loop {
            let mut reader = self.tls.reader();
            match reader.fill_buf() {
                Ok([]) => return Ok(true),
                Ok(bytes) => {
                    let n = bytes.len().min(into.remaining());
                    if n == 0 {
                        return Ok(true);
                    }
                    into.put_slice(&bytes[..n]);
                    reader.consume(n);
                    some = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(some),
                Err(_) if some => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(failure::cut_off());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads many records at once and decrypts them to `into`, which has room for all of them.
    fn poll_read_many(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = into.remaining().saturating_sub(RECORD).min(READ);
        ENCRYPTED.with_borrow_mut(|buffer| {
            buffer.resize(READ, 0);
            let mut encrypted = ReadBuf::new(&mut buffer[..room]);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut encrypted))?;
            let mut bytes = encrypted.filled();
            loop {
                // rustls learns of the end by a read of nothing
                let n = self.tls.read_tls(&mut bytes)?;
                self.decrypt(cx, into)?;
                if n == 0 || bytes.is_empty() || self.failed.is_some() {
                    return Poll::Ready(Ok(()));
                }
            }
        })
    }

    /// Encrypts and writes.
    fn poll_encrypt(
        &mut self,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_write_out(cx))?;
        if self.left < SPARE {
            return Poll::Ready(Err(failure::used_up()));
        }
        let mut written = usize::from(std::mem::take(&mut self.held));
        let encrypted = self.encrypt(from, written)?;
        self.left = self.left.saturating_sub(encrypted.div_ceil(FULL) as u64);
        written += encrypted;
        match self.poll_write_out(cx)? {
            Poll::Ready(()) => Poll::Ready(Ok(written)),
            Poll::Pending => {
                self.held = written > 0;
                match written {
                    0 | 1 => Poll::Pending,
                    n => Poll::Ready(Ok(n - 1)),
                }
            }
        }
    }

    /// Encrypts as much as rustls takes, without the first `skip` bytes (0 or 1).
    fn encrypt(&mut self, from: &[IoSlice<'_>], skip: usize) -> io::Result<usize> {
        let mut writer = self.tls.writer();
        if let [one] = from {
            return writer.write(one.get(skip..).unwrap_or_default());
        }
        if skip == 0 {
            return writer.write_vectored(from);
        }
        let mut rest: Vec<IoSlice<'_>> = from.iter().map(|slice| IoSlice::new(slice)).collect();
        let mut rest = rest.as_mut_slice();
        IoSlice::advance_slices(&mut rest, skip);
        writer.write_vectored(rest)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = into.filled().len();
        for _ in 0..DRY {
            if this.take(into)? || into.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
            if let Some(error) = this.failed.take() {
                return Poll::Ready(Err(error));
            }
            if into.remaining() >= 2 * RECORD {
                ready!(this.poll_read_many(cx, into))?;
            } else {
                ready!(this.poll_read_in(cx))?;
                this.decrypt(cx, into)?;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_encrypt(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_encrypt(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_write_out(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closing {
            this.tls.send_close_notify();
            this.closing = true;
        }
        ready!(this.poll_write_out(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

/// An async stream as rustls uses streams: where it would wait, it would block.
struct Sync<'a, 'b, T> {
    io: &'a mut T,
    cx: &'a mut Context<'b>,
}

fn now<R>(poll: Poll<io::Result<R>>) -> io::Result<R> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl<T: AsyncRead + Unpin> Read for Sync<'_, '_, T> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut into = ReadBuf::new(into);
        now(Pin::new(&mut *self.io).poll_read(self.cx, &mut into))?;
        Ok(into.filled().len())
    }
}

impl<T: AsyncWrite + Unpin> Write for Sync<'_, '_, T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        now(Pin::new(&mut *self.io).poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match slices {
            [one] => self.write(one),
            _ if self.io.is_write_vectored() => {
                now(Pin::new(&mut *self.io).poll_write_vectored(self.cx, slices))
            }
            _ => self.write(slices.first().map_or(&[], |slice| slice)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        now(Pin::new(&mut *self.io).poll_flush(self.cx))
    }
}

#[cfg(test)]
mod tests;
