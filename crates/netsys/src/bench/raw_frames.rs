//! Frames of the raw programs: a big-endian `u32` length and as many bytes, packed by the sender
//! into one buffer, walked in place by the receiver.

use std::io::{self, Read};

use super::error::{Context, Error, Result};
use super::verify::{self, Pattern};

/// Bytes that one write or read moves at most, unless a single frame is larger.
pub const BUFFER: usize = 256 * 1024;
/// Bytes in front of each message.
pub const PREFIX: usize = 4;

/// Puts the length in front of a message.
pub fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), message].concat()
}

/// The messages 0 to `count` - 1 of `pattern`, framed.
pub fn pack(pattern: &Pattern, count: usize) -> Vec<u8> {
    let mut packed = frame(pattern.message()).repeat(count);
    number(&mut packed, pattern, 0);
    packed
}

/// Numbers packed frames from `first` on; returns the number after the last.
#[inline]
pub fn number(packed: &mut [u8], pattern: &Pattern, first: u64) -> u64 {
    let mut next = first;
    for frame in packed.chunks_exact_mut(PREFIX + pattern.size()) {
        if let Some(message) = frame.get_mut(PREFIX..) {
            verify::set_sequence(message, next);
        }
        next += 1;
    }
    next
}

/// The length of the message whose frame begins `bytes`, if the frame is complete.
#[inline]
pub fn whole(bytes: &[u8]) -> Option<usize> {
    let (prefix, rest) = bytes.split_first_chunk::<PREFIX>()?;
    let length = u32::from_be_bytes(*prefix) as usize;
    (rest.len() >= length).then_some(length)
}

/// Checks every complete frame of `bytes` against the messages of `pattern` from `next` on, and
/// numbers it `step` higher, so that the same bytes are the messages to send next.
///
/// Returns the bytes and the sum of the complete frames; `next` advances by their number.
#[inline]
pub fn turn_round(
    bytes: &mut [u8],
    pattern: &Pattern,
    next: &mut u64,
    step: u64,
) -> Result<(usize, u64)> {
    let mut sum = 0u64;
    let mut used = 0;
    while let Some(rest) = bytes.get_mut(used..) {
        let Some(length) = whole(rest) else { break };
        let Some(message) = rest.get_mut(PREFIX..PREFIX + length) else {
            break;
        };
        sum = sum.wrapping_add(pattern.check(message, *next)?);
        verify::set_sequence(message, *next + step);
        *next += 1;
        used += PREFIX + length;
    }
    Ok((used, sum))
}

/// Memory to read into, with a place for new bytes that the kernel copies to at full speed.
///
/// An allocator puts a large block 16 bytes behind the start of a page. Some processors copy to
/// such a place at half the speed (`rep movsb` on Zen 3, from a page-aligned socket buffer), so
/// new bytes go to the start of a page and an unfinished frame is put in front of them.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    base: usize,
}

const PAGE: usize = 4096;
/// The largest unfinished frame that is put in front of new bytes.
const HEAD_ROOM: usize = 4 * PAGE;

impl Buffer {
    /// For messages of at most `size` bytes: two frames fit, so that an unfinished frame is moved
    /// at most once.
    pub fn new(size: usize) -> Self {
        let capacity = BUFFER.max(2 * (PREFIX + size));
        let mut bytes = vec![0; PAGE + HEAD_ROOM + capacity];
        let base = bytes.as_ptr().align_offset(PAGE).min(PAGE) + HEAD_ROOM;
        bytes.truncate(base + capacity);
        Self { bytes, base }
    }

    /// The place for `old` unfinished bytes, and the room for new ones behind them.
    #[inline]
    pub fn split(&mut self, old: usize) -> io::Result<(&mut [u8], &mut [u8])> {
        let start = if old <= HEAD_ROOM {
            self.base - old
        } else {
            self.base
        };
        let place = self
            .bytes
            .get_mut(start..)
            .and_then(|rest| rest.split_at_mut_checked(old));
        place
            .filter(|(_, room)| !room.is_empty())
            .ok_or_else(too_large)
    }

    /// The `old` unfinished bytes and the `new` ones behind them.
    #[inline]
    pub fn joined(&mut self, old: usize, new: usize) -> &mut [u8] {
        let start = if old <= HEAD_ROOM {
            self.base - old
        } else {
            self.base
        };
        self.bytes
            .get_mut(start..start + old + new)
            .unwrap_or_default()
    }
}

/// A buffer that a blocking receiver reads into and walks in place.
#[derive(Debug)]
pub struct Inbox {
    buffer: Buffer,
    start: usize,
    end: usize,
}

impl Inbox {
    /// For messages of at most `size` bytes.
    pub fn new(size: usize) -> Self {
        Self {
            buffer: Buffer::new(size),
            start: 0,
            end: 0,
        }
    }

    /// Reads once; returns how many bytes arrived, 0 at the end of the stream.
    #[inline]
    pub fn fill(&mut self, from: &mut impl Read) -> io::Result<usize> {
        let left = self.end - self.start;
        let bytes = &mut self.buffer.bytes;
        // A large unfinished frame is moved only when the buffer ends.
        if left <= HEAD_ROOM || self.end == bytes.len() {
            let start = self.buffer.base - if left <= HEAD_ROOM { left } else { 0 };
            bytes.copy_within(self.start..self.end, start);
            (self.start, self.end) = (start, start + left);
        }
        let room = bytes.get_mut(self.end..).unwrap_or_default();
        if room.is_empty() {
            return Err(too_large());
        }
        loop {
            match from.read(room) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(count) => {
                    self.end += count;
                    return Ok(count);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// What was read and not yet consumed.
    #[inline]
    pub fn unread(&mut self) -> &mut [u8] {
        self.buffer
            .bytes
            .get_mut(self.start..self.end)
            .unwrap_or_default()
    }

    /// Forgets the first `count` unread bytes.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        self.start = self.end.min(self.start + count);
    }

    /// Reads until one complete message is there and hands it to `take`.
    pub fn message<T>(
        &mut self,
        from: &mut impl Read,
        take: impl FnOnce(&[u8]) -> Result<T>,
    ) -> Result<T> {
        loop {
            if let Some(length) = whole(self.unread()) {
                let taken = take(
                    self.unread()
                        .get(PREFIX..PREFIX + length)
                        .unwrap_or_default(),
                );
                self.consume(PREFIX + length);
                return taken;
            }
            if self.fill(from).context("cannot receive")? == 0 {
                return Err(closed());
            }
        }
    }
}

/// The error for a length that no message of the run has.
fn too_large() -> io::Error {
    io::Error::other("a frame is larger than the buffer")
}

/// The error for an end of the stream where a message was due.
pub fn closed() -> Error {
    Error::Failed("the server closed the connection before every message came back".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::verify::ECHO;

    #[test]
    fn messages_come_whole_from_any_pieces() {
        struct Pieces(Vec<u8>, usize);
        impl Read for Pieces {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                let count = self.1.min(into.len()).min(self.0.len());
                into[..count].copy_from_slice(&self.0[..count]);
                self.0.drain(..count);
                Ok(count)
            }
        }
        for (size, piece) in [
            (16, 1),
            (64, 7),
            (1000, 999),
            (30_000, 70_000),
            (200_000, 90_000),
        ] {
            let pattern = Pattern::new(ECHO, size).unwrap();
            let mut from = Pieces(pack(&pattern, 9), piece);
            let mut inbox = Inbox::new(size);
            for expected in 0..9 {
                inbox
                    .message(&mut from, |message| pattern.check(message, expected))
                    .unwrap();
            }
            let end = inbox.message(&mut from, |_| Ok(())).unwrap_err();
            assert!(end.to_string().contains("closed"), "{end}");
        }
    }

    #[test]
    fn turning_round_verifies_and_renumbers_complete_frames_only() {
        let pattern = Pattern::new(ECHO, 20).unwrap();
        let mut bytes = pack(&pattern, 4);
        bytes.truncate(4 * 24 - 1);
        let mut next = 0;
        let (used, sum) = turn_round(&mut bytes, &pattern, &mut next, 4).unwrap();
        assert_eq!((used, sum, next), (72, pattern.total(3), 3));
        let mut again = 4;
        turn_round(&mut bytes[..72], &pattern, &mut again, 4).unwrap();
        assert_eq!(again, 7);
    }

    #[test]
    fn a_frame_that_cannot_fit_is_an_error_and_not_a_wait() {
        let mut inbox = Inbox::new(64);
        let bytes = [&u32::MAX.to_be_bytes()[..], &vec![1; 2 * BUFFER]].concat();
        let error = inbox
            .message(&mut bytes.as_slice(), |_| Ok(()))
            .unwrap_err();
        assert!(
            error.to_string().contains("larger than the buffer"),
            "{error}"
        );
    }
}
