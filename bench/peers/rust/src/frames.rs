//! The protocol half of the minimal loops, free of I/O: whole frames in, bytes to write out. One
//! read is one batch, one batch is one write.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{Args, BROADCAST, CTRL, ECHO, END, Pattern, SINK, Tally, now, token};

/// Bytes that one read takes at most.
pub const READ: usize = 128 * 1024;
/// Bytes that a stream packs for one write.
pub const WRITE: usize = 64 * 1024;

/// What one connection does.
pub trait Logic {
    /// Called once for each batch.
    fn begin(&mut self) {}
    fn message(&mut self, m: &[u8], out: &mut Vec<u8>);
    /// Called with an empty `out` when the connection may write more.
    fn fill(&mut self, _out: &mut Vec<u8>) {}
    fn done(&self) -> bool {
        false
    }
    /// Frames for every connection.
    fn broadcast(&mut self) -> Option<&mut Vec<u8>> {
        None
    }
}

#[inline]
pub fn put(out: &mut Vec<u8>, m: &[u8]) {
    out.reserve(4 + m.len());
    out.extend_from_slice(&(m.len() as u32).to_be_bytes());
    out.extend_from_slice(m);
}

/// Hands every whole frame of `b` to `l`; returns how many bytes were used.
#[inline]
pub fn walk<L: Logic>(b: &[u8], l: &mut L, out: &mut Vec<u8>) -> usize {
    let mut at = 0;
    l.begin();
    while let Some((prefix, rest)) = b[at..].split_first_chunk() {
        let Some(m) = rest.get(..u32::from_be_bytes(*prefix) as usize) else {
            break;
        };
        l.message(m, out);
        at += 4 + m.len();
    }
    at
}

#[derive(Default)]
pub struct Server {
    tally: Tally,
    everyone: Vec<u8>,
}

impl Logic for Server {
    #[inline]
    fn message(&mut self, m: &[u8], out: &mut Vec<u8>) {
        match m.first() {
            Some(&ECHO) => put(out, m),
            Some(&SINK) => self.tally.add(m),
            Some(&BROADCAST) => put(&mut self.everyone, m),
            _ => put(out, &self.tally.answer()),
        }
    }
    fn broadcast(&mut self) -> Option<&mut Vec<u8>> {
        (!self.everyone.is_empty()).then_some(&mut self.everyone)
    }
}

/// Keeps a window of messages under way until the time is over.
pub struct Echoer {
    pattern: Pattern,
    end: u64,
    timed: bool,
    first: usize,
    t: u64,
    pub sent: Tally,
    pub got: Tally,
    pub lat: Vec<u32>,
}

impl Echoer {
    pub fn new(a: &Args, end: u64) -> Self {
        let (sent, got) = Default::default();
        let pattern = Pattern::new(ECHO, a.size);
        Echoer {
            pattern,
            end,
            timed: a.timed(),
            first: a.window,
            t: 0,
            sent,
            got,
            lat: Vec::new(),
        }
    }
}

impl Logic for Echoer {
    #[inline]
    fn begin(&mut self) {
        self.t = now();
    }
    #[inline]
    fn message(&mut self, m: &[u8], out: &mut Vec<u8>) {
        self.got.add(m);
        if self.timed {
            self.lat
                .push((self.t - token(m)).min(u32::MAX as u64) as u32);
        }
        if self.t < self.end {
            put(out, self.pattern.next(self.t, &mut self.sent));
        }
    }
    fn fill(&mut self, out: &mut Vec<u8>) {
        if self.first > 0 {
            self.begin();
            for _ in 0..std::mem::take(&mut self.first) {
                put(out, self.pattern.next(self.t, &mut self.sent));
            }
        }
    }
    fn done(&self) -> bool {
        self.got.count == self.sent.count && self.first == 0
    }
}

/// Sends without an answer until the time is over, then asks what arrived.
pub struct Streamer {
    pattern: Pattern,
    end: u64,
    ended: bool,
    pub sent: Tally,
    pub answer: Option<Tally>,
}

impl Streamer {
    pub fn new(a: &Args, end: u64) -> Self {
        Streamer {
            pattern: Pattern::new(SINK, a.size),
            end,
            ended: false,
            sent: Tally::default(),
            answer: None,
        }
    }
}

impl Logic for Streamer {
    fn message(&mut self, m: &[u8], _out: &mut Vec<u8>) {
        self.answer = Some(Tally::from_answer(m));
    }
    fn fill(&mut self, out: &mut Vec<u8>) {
        if self.ended {
            return;
        }
        while out.is_empty() || out.len() + self.pattern.bytes.len() + 4 <= WRITE {
            put(out, self.pattern.next(self.sent.count, &mut self.sent));
        }
        if now() >= self.end {
            put(out, &Pattern::new(END, CTRL).bytes);
            self.ended = true;
        }
    }
    fn done(&self) -> bool {
        self.answer.is_some()
    }
}

/// One message and its echo.
pub struct Once {
    first: bool,
    got: Tally,
}

impl Once {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Once {
            first: true,
            got: Tally::default(),
        }
    }
}

impl Logic for Once {
    fn message(&mut self, m: &[u8], _out: &mut Vec<u8>) {
        self.got.add(m);
        Tally {
            count: 1,
            sum: Pattern::new(ECHO, CTRL).body,
        }
        .check(self.got, 1);
    }
    fn fill(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.first) {
            put(out, &Pattern::new(ECHO, CTRL).bytes);
        }
    }
    fn done(&self) -> bool {
        self.got.count > 0
    }
}

/// What the connections of a fan-out share. Whoever receives the last copy of a broadcast sends the
/// next one, so that nobody has to be woken for it.
pub struct FanOut {
    pattern: Pattern,
    conns: u64,
    end: u64,
    sent: [AtomicU64; 2],
    got: [AtomicU64; 2],
}

impl FanOut {
    pub fn new(a: &Args, end: u64) -> Arc<Self> {
        let (sent, got) = Default::default();
        Arc::new(FanOut {
            pattern: Pattern::new(BROADCAST, a.size),
            conns: a.conns as u64,
            end,
            sent,
            got,
        })
    }

    /// The next broadcast.
    pub fn next(&self, t: u64) -> Vec<u8> {
        let (mut pattern, mut sent) = (self.pattern.clone(), Tally::default());
        pattern.next(t, &mut sent);
        self.sent[0].fetch_add(1, Relaxed);
        self.sent[1].fetch_add(sent.sum, Relaxed);
        pattern.bytes
    }

    /// Counts a copy; gives the next broadcast when it was the last one and there is time.
    pub fn arrived(&self, m: &[u8]) -> Option<Vec<u8>> {
        self.got[1].fetch_add(crate::sum(m), Relaxed);
        let got = self.got[0].fetch_add(1, Relaxed) + 1;
        if !got.is_multiple_of(self.conns) {
            return None;
        }
        let t = now();
        (t < self.end).then(|| self.next(t))
    }

    /// Whether every copy of every broadcast is there.
    pub fn done(&self) -> bool {
        let sent = self.sent[0].load(Relaxed);
        sent > 0 && self.got[0].load(Relaxed) == sent * self.conns
    }

    /// Checks the delivery; returns how many copies there were.
    pub fn finish(&self) -> u64 {
        let tally = |v: &[AtomicU64; 2]| Tally {
            count: v[0].load(Relaxed),
            sum: v[1].load(Relaxed),
        };
        tally(&self.sent).check(tally(&self.got), self.conns);
        self.got[0].load(Relaxed)
    }
}

/// One connection of a fan-out.
pub struct Fan {
    pub shared: Arc<FanOut>,
    /// How many broadcasts this connection begins with.
    pub first: usize,
}

impl Logic for Fan {
    fn message(&mut self, m: &[u8], out: &mut Vec<u8>) {
        if let Some(next) = self.shared.arrived(m) {
            put(out, &next);
        }
    }
    fn fill(&mut self, out: &mut Vec<u8>) {
        for _ in 0..std::mem::take(&mut self.first) {
            put(out, &self.shared.next(now()));
        }
    }
    fn done(&self) -> bool {
        self.first == 0 && self.shared.done()
    }
}
