//! Buffers that connections borrow from their thread only while they hold bytes, so that an idle
//! connection owns none: [`ReadBuffer`]s to read into, [`WriteBuffer`]s to write from.

mod spares;

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::time::Instant;

use crate::message::MessageRef;
use spares::{LATELY, Spare, Spares};

/// What one read may bring at most: large enough that system calls do not dominate, small enough
/// for the second-level cache.
pub(crate) const READ: usize = 256 * 1024;
/// The first size of a buffer; one that a read has filled is replaced by one four times as large.
const FIRST: usize = 16 * 1024;
/// The size of a page; where it is another one, alignment to this one does no harm.
const PAGE: usize = 4096;
/// The largest start of a message that is put in front of the next read.
pub(crate) const HEAD: usize = 16 * PAGE + 64;
/// Bytes at the end of a read buffer that are never read into, so that a block can be copied from
/// anywhere in front of them.
pub(crate) const SLACK: usize = 64;
/// A block and its header of 4 bytes.
pub(crate) const BLOCK: usize = 4 + SLACK;
/// The smallest memory of a write buffer; one that is too small is replaced by one four times as
/// large.
const SMALLEST: usize = 1024;
/// What a write buffer holds at most, unless a single message is larger; then another one follows.
pub(crate) const WRITE: usize = READ;
/// Connections of the whole process that keep their empty buffers while they are busy: to fetch them
/// for each batch costs as much as several messages. So few that they do not matter where many are
/// busy, and where the spares, which all share, are the warmer ones.
const KEEPERS: usize = 16;

static KEPT: AtomicUsize = AtomicUsize::new(0);

/// The right of one connection to keep its buffers.
pub(crate) struct Keep(());

impl Keep {
    /// `None` when enough others have it.
    #[cold]
    pub(crate) fn acquire() -> Option<Self> {
        let one_more = |kept| (kept < KEEPERS).then_some(kept + 1);
        let acquired = KEPT.try_update(Relaxed, Relaxed, one_more);
        acquired.ok().map(|_| Self(()))
    }
}

impl Drop for Keep {
    fn drop(&mut self) {
        KEPT.fetch_sub(1, Relaxed);
    }
}

thread_local! {
    static READERS: Spares<ReadBuffer> = const { Spares::new(ReadBuffer::new()) };
    static WRITERS: Spares<WriteBuffer> = const { Spares::new(WriteBuffer::new()) };
    /// When this thread's spares were looked at last.
    static TRIMMED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Frees what this thread has not needed for a while; to be called at least once a second by who
/// knows the time.
pub(crate) fn trim(now: Instant) {
    let is_due = |last: Instant| now.saturating_duration_since(last) >= LATELY;
    let due = TRIMMED.try_with(|last| {
        let due = last.get().is_none_or(is_due);
        if due {
            last.set(Some(now));
        }
        due
    });
    if due == Ok(true) {
        // at the end of a thread they may be gone already
        let _ = READERS.try_with(Spares::trim);
        let _ = WRITERS.try_with(Spares::trim);
    }
}

impl Spare for ReadBuffer {
    #[inline]
    fn size(&self) -> usize {
        self.memory.len()
    }
}

impl Spare for WriteBuffer {
    #[inline]
    fn size(&self) -> usize {
        self.memory.len()
    }
}

/// Zeroed memory with `size` bytes from the start of a page on, and where that is. An allocator
/// puts a large block just behind the start of a page, and some processors copy to and from such a
/// place at half the speed (`rep movsb` on Zen 3).
fn pages(size: usize) -> (Vec<u8>, usize) {
    let small = size < PAGE;
    let memory = vec![0; if small { size } else { PAGE + size }];
    let page = if small {
        0
    } else {
        memory.as_ptr().align_offset(PAGE).min(PAGE)
    };
    (memory, page)
}

/// Memory to write from, initialised when it grows, so that small messages are put into it with
/// copies of a fixed size. What is queued is in the middle of it.
#[derive(Debug, Default)]
pub(crate) struct WriteBuffer {
    memory: Vec<u8>,
    /// Where the first page begins.
    page: usize,
    start: usize,
    end: usize,
}

impl WriteBuffer {
    /// A buffer without memory.
    pub(crate) const fn new() -> Self {
        Self {
            memory: Vec::new(),
            page: 0,
            start: 0,
            end: 0,
        }
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether it has memory, used or not.
    #[inline]
    pub(crate) fn exists(&self) -> bool {
        !self.memory.is_empty()
    }

    /// What is queued.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.memory.get(self.start..self.end).unwrap_or_default()
    }

    /// Where the memory ends.
    #[inline(always)]
    pub(crate) fn stop(&self) -> usize {
        self.memory.len()
    }

    /// Where the memory ends, or `room` more bytes, whichever comes first.
    #[inline(always)]
    pub(crate) fn end_within(&self, room: usize) -> usize {
        self.memory.len().min(self.end.saturating_add(room))
    }

    /// Puts a small message behind its header, if there is room for a whole block and the queue ends
    /// before `last`; only the first `len` bytes of `block` are meant.
    #[inline(always)]
    pub(crate) fn put_block(
        &mut self,
        last: usize,
        header: [u8; 4],
        block: &[u8; SLACK],
        len: usize,
    ) -> bool {
        let place = self.memory.get_mut(self.end..);
        let place = place.and_then(|place| place.first_chunk_mut::<BLOCK>());
        let Some(place) = place.filter(|_| self.end < last) else {
            return false;
        };
        place[..4].copy_from_slice(&header);
        place[4..].copy_from_slice(block);
        self.end += 4 + len;
        true
    }

    /// Puts a message behind its header, if there is room before `stop`, which lies in the
    /// memory.
    #[inline]
    pub(crate) fn put(&mut self, stop: usize, header: [u8; 4], bytes: &[u8]) -> bool {
        let Some(place) = self.memory.get_mut(self.end..stop) else {
            return false;
        };
        let Some((head, rest)) = place.split_first_chunk_mut::<4>() else {
            return false;
        };
        let Some(body) = rest.get_mut(..bytes.len()) else {
            return false;
        };
        *head = header;
        body.copy_from_slice(bytes);
        self.end += 4 + bytes.len();
        true
    }

    /// Puts bytes at the end, if there is room for them and for a whole block behind them.
    #[inline]
    pub(crate) fn append(&mut self, bytes: &[u8]) -> bool {
        let end = self.end + bytes.len();
        let fits = end + SLACK <= self.memory.len();
        match self.memory.get_mut(self.end..end) {
            Some(place) if fits => {
                place.copy_from_slice(bytes);
                self.end = end;
                true
            }
            _ => false,
        }
    }

    /// Whether `more` bytes fit behind what is queued without growing beyond [`WRITE`].
    pub(crate) fn fits(&self, more: usize) -> bool {
        self.len() == 0 || self.len() + more <= WRITE
    }

    /// Makes room for `more` bytes, and for a whole block at the end.
    #[inline]
    pub(crate) fn reserve(&mut self, more: usize) {
        if self.end + more + SLACK > self.memory.len() {
            self.grow(more);
        }
    }

    /// Puts bytes at the end, and makes room for them where there is none.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.append(bytes);
    }

    fn grow(&mut self, more: usize) {
        if self.memory.is_empty() {
            // at the end of a thread the spares may be gone already
            *self = WRITERS.try_with(Spares::take).unwrap_or_default();
            if self.end + more + SLACK <= self.memory.len() {
                return;
            }
        }
        self.enlarge(more);
    }

    #[cold]
    fn enlarge(&mut self, more: usize) {
        self.compact();
        let needed = self.len() + more + SLACK;
        if self.page + needed > self.memory.len() {
            let larger = (4 * self.memory.len()).clamp(SMALLEST, WRITE + SLACK);
            let (memory, page) = pages(needed.max(larger));
            let mut larger = Self {
                memory,
                page,
                start: page,
                end: page + self.len(),
            };
            if let Some(place) = larger.memory.get_mut(page..page + self.len()) {
                place.copy_from_slice(self.bytes());
            }
            *self = larger;
        }
    }

    /// Removes the first `n` bytes.
    pub(crate) fn advance(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
        if self.start == self.end {
            self.clear();
        } else if self.start >= self.len() {
            self.compact();
        }
    }

    /// Moves what is queued to the start of the memory.
    fn compact(&mut self) {
        if self.start > self.page {
            self.memory.copy_within(self.start..self.end, self.page);
            (self.start, self.end) = (self.page, self.page + self.len());
        }
    }

    pub(crate) fn clear(&mut self) {
        (self.start, self.end) = (self.page, self.page);
    }

    /// Gives the memory back to the pool; what it holds is lost.
    pub(crate) fn give_back(mut self) {
        self.clear();
        if (1..=PAGE + WRITE + SLACK).contains(&self.memory.len()) {
            let _ = WRITERS.try_with(|spares| spares.give(self));
        }
    }
}

/// Memory to read into, initialised once. The unread bytes are in the middle of it.
#[derive(Debug, Default)]
pub(crate) struct ReadBuffer {
    memory: Vec<u8>,
    /// Where the first page begins.
    page: usize,
    /// The unread bytes.
    start: usize,
    end: usize,
    /// Where they started when there was a read last.
    before: usize,
}

impl ReadBuffer {
    /// A buffer without memory.
    pub(crate) const fn new() -> Self {
        Self {
            memory: Vec::new(),
            page: 0,
            start: 0,
            end: 0,
            before: 0,
        }
    }

    /// An empty buffer from this thread's pool.
    #[inline]
    pub(crate) fn borrow() -> Self {
        match READERS.try_with(Spares::take) {
            Ok(spare) if spare.exists() => spare,
            _ => Self::with_room(FIRST),
        }
    }

    /// Gives it back to the pool; what it holds is lost.
    pub(crate) fn give_back(mut self) {
        if self.exists() {
            self.clear();
            let _ = READERS.try_with(|spares| spares.give(self));
        }
    }

    fn with_room(room: usize) -> Self {
        let (memory, page) = pages(room + SLACK);
        Self {
            memory,
            page,
            start: 0,
            end: 0,
            before: 0,
        }
    }

    /// Whether there is any memory.
    #[inline(always)]
    pub(crate) fn exists(&self) -> bool {
        !self.memory.is_empty()
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    /// The unread bytes.
    #[inline(always)]
    pub(crate) fn unread(&self) -> &[u8] {
        self.memory.get(self.start..self.end).unwrap_or_default()
    }

    /// The position of the first unread byte, for [`from`](Self::from).
    #[inline(always)]
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// All memory from a position on, whatever is in it.
    #[inline(always)]
    pub(crate) fn from(&self, position: usize) -> Option<&[u8]> {
        self.memory.get(position..)
    }

    /// The whole frames behind a big-endian length of 4 bytes that are unread and before `end`.
    #[inline(always)]
    pub(crate) fn frames(&self, end: usize) -> Frames<'_> {
        Frames(self.memory.get(self.start..end).unwrap_or_default())
    }

    /// Takes the first of these frames: where its payload is, and how long.
    #[inline(always)]
    pub(crate) fn take_frame(&mut self, end: usize) -> Option<(usize, usize)> {
        let length = self.memory.get(self.start..)?.first_chunk()?;
        let len = u32::from_be_bytes(*length) as usize;
        let position = self.start + size_of_val(length);
        if len > end.checked_sub(position)? {
            return None;
        }
        self.start = position + len;
        Some((position, len))
    }

    /// Counts everything up to `left` bytes before `end` as read.
    #[inline(always)]
    pub(crate) fn consume_to(&mut self, left: usize, end: usize) {
        self.start = end.saturating_sub(left).clamp(self.start, self.end);
    }

    /// Where the unread bytes end.
    pub(crate) fn end(&self) -> usize {
        self.end
    }

    /// Counts the first `n` unread bytes as read.
    #[inline(always)]
    pub(crate) fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
    }

    pub(crate) fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// Prepares to read behind the unread bytes, or, when there are none, behind `before` bytes
    /// that [`filled`](Self::filled) will be given: new bytes come to the start of a page.
    #[inline]
    pub(crate) fn room(&mut self, before: usize) -> &mut [u8] {
        let most = self.memory.len() - SLACK;
        if self.start == self.end && before == 0 && self.end < most {
            // the common case
            (self.start, self.end) = (self.page, self.page);
            let end = most.min(self.page + READ);
            return self.memory.get_mut(self.page..end).unwrap_or_default();
        }
        self.make_room(before, most)
    }

    #[inline(never)]
    fn make_room(&mut self, before: usize, most: usize) -> &mut [u8] {
        if self.len() > 0 && self.start == self.before && most - self.end >= PAGE {
            // nothing was taken since: a peer that sends byte by byte shall not make us move what
            // it has sent each time
            let end = most.min(self.end + READ);
            return self.memory.get_mut(self.end..end).unwrap_or_default();
        }
        let old = self.len().max(before);
        let at = self.page + old.next_multiple_of(PAGE);
        let most = self.memory.len() - SLACK;
        let full = self.end == most || at + PAGE > most;
        if full && most < PAGE + HEAD + READ {
            let room = (4 * most).clamp(at + PAGE, PAGE + HEAD + READ);
            let mut larger = Self::with_room(room);
            let start = larger.page + old.next_multiple_of(PAGE) - self.len();
            larger.memory[start..start + self.len()].copy_from_slice(self.unread());
            (larger.start, larger.end) = (start, start + self.len());
            *self = larger;
        } else if self.start == self.end {
            (self.start, self.end) = (at, at);
        } else {
            self.memory.copy_within(self.start..self.end, at - old);
            (self.start, self.end) = (at - old, at);
        }
        let most = self.memory.len() - SLACK;
        let end = most.min(self.end + READ);
        self.memory.get_mut(self.end..end).unwrap_or_default()
    }

    /// Takes the first `n` bytes of the [`room`](Self::room) and puts `before` in front of them.
    #[inline]
    pub(crate) fn filled(&mut self, before: &[u8], n: usize) {
        self.end += n;
        if !before.is_empty()
            && let Some(start) = self.start.checked_sub(before.len())
            && let Some(place) = self.memory.get_mut(start..self.start)
        {
            place.copy_from_slice(before);
            self.start = start;
        }
        self.before = self.start;
    }

    /// The last `n` bytes that were read.
    pub(crate) fn last(&self, n: usize) -> &[u8] {
        self.memory
            .get(self.end.saturating_sub(n)..self.end)
            .unwrap_or_default()
    }
}

/// Frames that lie in a buffer: an iterator that touches nothing but itself, and so can live in
/// registers.
#[derive(Default)]
pub(crate) struct Frames<'a>(&'a [u8]);

impl<'a> Frames<'a> {
    /// How many bytes are left.
    #[inline(always)]
    pub(crate) fn left(&self) -> usize {
        self.0.len()
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = MessageRef<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<MessageRef<'a>> {
        let (length, rest) = self.0.split_first_chunk()?;
        let len = u32::from_be_bytes(*length) as usize;
        self.0 = rest.get(len..)?;
        Some(MessageRef::new(rest, len))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn buffers_come_back_empty() {
        let mut buffer = WriteBuffer::new();
        buffer.extend(b"secret");
        let at = buffer.bytes().as_ptr();
        buffer.give_back();
        let mut again = WriteBuffer::new();
        again.extend(b"x");
        assert_eq!(again.bytes(), b"x");
        assert_eq!(again.bytes().as_ptr(), at);
        let mut large = WriteBuffer::new();
        large.extend(&vec![0; PAGE + WRITE]);
        large.give_back();
        assert!(!WRITERS.with(Spares::take).exists());
        ReadBuffer::default().give_back();
        WriteBuffer::new().give_back();
        assert!(!READERS.with(Spares::take).exists());
        assert!(!WRITERS.with(Spares::take).exists());
    }

    #[test]
    fn the_spares_of_a_thread_are_looked_at_once_in_a_while() {
        let now = Instant::now();
        trim(now);
        let fill = || {
            let mut all = [(); 9].map(|()| (ReadBuffer::borrow(), WriteBuffer::new()));
            all.iter_mut().for_each(|(_, writer)| writer.reserve(1));
            for (reader, writer) in all {
                reader.give_back();
                writer.give_back();
            }
        };
        let held = || (READERS.with(Spares::held), WRITERS.with(Spares::held));
        fill();
        let full = held();
        assert!(full.0 >= 8 * FIRST && full.1 >= 8 * SMALLEST);
        // needed since, then not long enough ago
        for after in [LATELY, LATELY, 2 * LATELY - Duration::from_nanos(1)] {
            trim(now + after);
            assert_eq!(held(), full, "{after:?}");
        }
        trim(now + 2 * LATELY);
        assert_eq!(held(), (0, 0));
    }

    #[test]
    fn what_is_put_in_comes_out() {
        let mut buffer = WriteBuffer::new();
        let mut want = Vec::new();
        assert!(!buffer.put(0, *b"head", b"no memory yet"));
        for n in 0..500 {
            let block = [n as u8; SLACK];
            let len = n % (SLACK + 1);
            let put = match n % 3 {
                0 => buffer.put_block(usize::MAX, [7; 4], &block, len),
                1 => buffer.put(buffer.stop(), [7; 4], &block[..len]),
                _ => false,
            };
            if put {
                want.extend([7; 4]);
            } else {
                buffer.extend(&block[..len]);
            }
            want.extend(&block[..len]);
            if n % 5 == 0 {
                let written = want.len().min(3 * n % 200);
                buffer.advance(written);
                want.drain(..written);
            }
            assert_eq!(buffer.bytes(), want, "{n}");
        }
        // what was written is not kept for ever
        assert!(buffer.memory.len() < 20 * want.len());
    }

    #[test]
    fn new_bytes_come_to_the_start_of_a_page_behind_the_old_ones() {
        for old in [0, 1, 100, PAGE, PAGE + 1, HEAD] {
            let before: Vec<u8> = (0..old).map(|n| n as u8).collect();
            // from outside, and from the read before, of which something was taken
            for outside in [true, false] {
                let mut buffer = ReadBuffer::with_room(FIRST);
                if !outside {
                    let all = [b"x", &before[..]].concat();
                    while buffer.len() < all.len() {
                        let have = buffer.len();
                        let room = buffer.room(0);
                        let n = room.len().min(all.len() - have);
                        room[..n].copy_from_slice(&all[have..have + n]);
                        buffer.filled(&[], n);
                    }
                    buffer.consume(1);
                }
                let room = buffer.room(if outside { old } else { 0 });
                assert!(room.len() >= PAGE, "{old}");
                assert_eq!(room.as_ptr().align_offset(PAGE), 0);
                room[..3].copy_from_slice(b"new");
                buffer.filled(if outside { &before } else { &[] }, 3);
                assert_eq!(buffer.unread(), [&before[..], b"new"].concat());
                assert_eq!(buffer.last(2), b"ew");
                let rest = buffer.from(buffer.start() + old + 2);
                assert!(rest.is_some_and(|rest| rest.len() > SLACK));
            }
        }
    }

    #[test]
    fn what_came_byte_by_byte_is_not_moved_each_time() {
        let mut buffer = ReadBuffer::with_room(FIRST);
        let mut places = std::collections::HashSet::new();
        for n in 0..HEAD {
            buffer.room(0)[0] = n as u8;
            buffer.filled(&[], 1);
            places.insert(buffer.unread().as_ptr());
        }
        assert!(
            buffer
                .unread()
                .iter()
                .enumerate()
                .all(|(n, byte)| *byte == n as u8)
        );
        assert!(places.len() < 20, "{}", places.len());
    }

    #[test]
    fn a_buffer_that_is_filled_grows_to_the_full_size() {
        let mut buffer = ReadBuffer::with_room(FIRST);
        let mut sizes = Vec::new();
        for _ in 0..6 {
            let n = buffer.room(0).len();
            buffer.filled(&[], n);
            buffer.consume(n);
            sizes.push(n);
        }
        assert!(sizes.is_sorted() && sizes[0] < 2 * FIRST, "{sizes:?}");
        assert_eq!(sizes[5], READ);
    }
}
