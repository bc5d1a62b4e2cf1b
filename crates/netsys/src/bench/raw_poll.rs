//! One non-blocking connection of the raw programs: bytes live in a buffer that all connections
//! share, and a connection owns bytes only while it has an unfinished frame or an unfinished write.

use std::io::{self, Read, Write};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::raw_frames::Buffer;

/// With edge-triggered readiness a read that leaves room has taken everything, and what comes
/// later is reported; only Windows wants to see "would block" before it reports again.
const SHORT_READ_IS_LAST: bool = cfg!(not(windows));

/// A connection and the bytes it could not get rid of.
#[derive(Debug)]
pub struct Line {
    stream: TcpStream,
    token: Token,
    unfinished: Vec<u8>,
    unsent: Vec<u8>,
    watches_writes: bool,
}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// Bytes, and there may be more now.
    Again,
    /// Bytes, and the next ones will be reported.
    Last,
    /// Nothing now; the next bytes will be reported.
    Nothing,
    /// The end of the stream.
    End,
}

impl Line {
    /// Takes over a connected stream and asks to be told about input.
    pub fn new(mut stream: TcpStream, token: Token, registry: &Registry) -> io::Result<Self> {
        registry.register(&mut stream, token, Interest::READABLE)?;
        Ok(Self {
            stream,
            token,
            unfinished: Vec::new(),
            unsent: Vec::new(),
            watches_writes: false,
        })
    }

    /// Whether bytes wait for the peer to read.
    pub fn is_blocked(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Reads once into the shared `buffer`, behind what was unfinished, and lets `work` use up
    /// complete frames from the front; it returns how many bytes it used.
    #[inline]
    pub fn read<E: From<io::Error>>(
        &mut self,
        buffer: &mut Buffer,
        work: impl FnOnce(&mut Self, &mut [u8]) -> Result<usize, E>,
    ) -> Result<Turn, E> {
        let old = self.unfinished.len();
        let (head, room) = buffer.split(old)?;
        let got = match self.stream.read(room) {
            Ok(0) => return Ok(Turn::End),
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Turn::Nothing),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Turn::Again),
            Err(error) => return Err(error.into()),
        };
        let is_last = SHORT_READ_IS_LAST && got < room.len();
        head.copy_from_slice(&self.unfinished);
        self.unfinished.clear();
        let have = buffer.joined(old, got);
        let used = work(self, have)?;
        self.unfinished
            .extend_from_slice(have.get(used..).unwrap_or_default());
        Ok(if is_last { Turn::Last } else { Turn::Again })
    }

    /// Writes what the socket takes and keeps the rest for [`Self::write_rest`].
    #[inline]
    pub fn send(&mut self, registry: &Registry, bytes: &[u8]) -> io::Result<()> {
        let written = if self.is_blocked() {
            0
        } else {
            write(&mut self.stream, bytes)?
        };
        let rest = bytes.get(written..).unwrap_or_default();
        if !rest.is_empty() {
            self.unsent.extend_from_slice(rest);
            if !self.watches_writes {
                self.watches_writes = true;
                let both = Interest::READABLE | Interest::WRITABLE;
                registry.reregister(&mut self.stream, self.token, both)?;
            }
        }
        Ok(())
    }

    /// Writes more of what is kept.
    pub fn write_rest(&mut self) -> io::Result<()> {
        if self.is_blocked() {
            let written = write(&mut self.stream, &self.unsent)?;
            self.unsent.drain(..written);
        }
        Ok(())
    }
}

/// Writes until everything is written or the socket is full; returns how much was written.
#[inline]
fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..)
        && !rest.is_empty()
    {
        match stream.write(rest) {
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
