//! What every Rust peer shares: arguments, clock, messages and their sums, latencies, the result.

pub mod engine;
pub mod frames;
pub mod stream_sink;

use std::io::{Read, Write};

/// Kinds of messages: send it back, count it, answer with what was counted, send it to everyone.
pub const ECHO: u8 = b'P';
pub const SINK: u8 = b'S';
pub const END: u8 = b'E';
pub const BROADCAST: u8 = b'B';
/// Size of an `END` message and of its answer.
pub const CTRL: usize = 64;
/// Each connection keeps its port for a minute.
pub const CONNECT_MAX: u64 = 5000;
/// Socket buffers of all who can set them: what is under way stays in the processor's cache, and
/// no full window stalls the sender.
pub const SOCKET_SEND: usize = 256 * 1024;
pub const SOCKET_RECEIVE: usize = 4 << 20;

/// The receive buffer to ask for; 0 where the system allows less, and its own tuning is better.
fn socket_receive() -> usize {
    static BYTES: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *BYTES.get_or_init(|| {
        let most = std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap_or_default();
        if most
            .trim()
            .parse()
            .is_ok_and(|most: usize| most >= SOCKET_RECEIVE)
        {
            SOCKET_RECEIVE
        } else {
            0
        }
    })
}

#[derive(Clone, Debug)]
pub struct Args {
    pub server: bool,
    pub port: u16,
    pub workload: String,
    pub size: usize,
    pub conns: usize,
    pub window: usize,
    pub secs: f64,
}

impl Args {
    /// The measured time in nanoseconds.
    pub fn span(&self) -> u64 {
        (self.secs * 1e9) as u64
    }

    /// Whether a latency means anything: with a window it is the window divided by the rate.
    pub fn timed(&self) -> bool {
        self.window == 1
    }
}

pub fn args() -> Args {
    let v: Vec<String> = std::env::args().collect();
    let num = |i: usize| v[i].parse::<usize>().expect("a number");
    let mut a = Args {
        server: false,
        port: 0,
        workload: String::new(),
        size: 64,
        conns: 1,
        window: 1,
        secs: 1.0,
    };
    if v.len() == 3 && v[1] == "server" {
        a.server = true;
        a.port = num(2) as u16;
    } else if v.len() == 8 && v[1] == "client" {
        a.port = num(2) as u16;
        a.workload = v[3].clone();
        (a.size, a.conns, a.window) = (num(4), num(5), num(6));
        a.secs = v[7].parse().expect("seconds");
    } else {
        eprintln!(
            "usage: {} server PORT | client PORT WORKLOAD SIZE CONNS WINDOW SECONDS",
            v[0]
        );
        std::process::exit(2);
    }
    a
}

/// The monotonic clock, which the programs in C read as well.
#[inline]
pub fn now() -> u64 {
    let mut t = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// For those who get one message at a time: reading the clock costs as much as a small message, so
/// with a window it is read for every 16th.
pub struct LazyClock {
    n: u64,
    t: u64,
    every: u64,
}

impl LazyClock {
    pub fn new(window: usize) -> Self {
        LazyClock {
            n: 0,
            t: 0,
            every: if window >= 16 { 16 } else { 1 },
        }
    }

    #[inline]
    pub fn now(&mut self) -> u64 {
        if self.n.is_multiple_of(self.every) {
            self.t = now();
        }
        self.n += 1;
        self.t
    }
}

/// CPU seconds of this process.
pub fn cpu() -> f64 {
    let mut r: libc::rusage = unsafe { std::mem::zeroed() };
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut r) };
    let s = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    s(r.ru_utime) + s(r.ru_stime)
}

/// The wrapping sum of the 8-byte words, the last one filled with zeros.
#[inline]
pub fn sum(m: &[u8]) -> u64 {
    let (words, rest) = m.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    words.iter().fold(u64::from_le_bytes(last), |s, w| {
        s.wrapping_add(u64::from_le_bytes(*w))
    })
}

#[inline]
pub fn set_token(m: &mut [u8], t: u64) {
    m[8..16].copy_from_slice(&t.to_le_bytes());
}

#[inline]
pub fn token(m: &[u8]) -> u64 {
    u64::from_le_bytes(m[8..16].try_into().expect("16 bytes"))
}

/// Messages of one kind and size: kind, body, a token (8 bytes: the time it was sent, or its
/// number), body. The sum of one is that of its body plus its token.
#[derive(Clone)]
pub struct Pattern {
    pub bytes: Vec<u8>,
    body: u64,
}

impl Pattern {
    pub fn new(kind: u8, size: usize) -> Self {
        let mut bytes: Vec<u8> = (0..size).map(|i| ((i * 37 + 11) % 251) as u8).collect();
        bytes[0] = kind;
        set_token(&mut bytes, 0);
        let body = sum(&bytes);
        Pattern { bytes, body }
    }

    /// The message with this token, counted in `sent`.
    #[inline]
    pub fn next(&mut self, t: u64, sent: &mut Tally) -> &[u8] {
        self.count(t, sent);
        set_token(&mut self.bytes, t);
        &self.bytes
    }

    /// Counts one with this token.
    #[inline]
    pub fn count(&self, t: u64, sent: &mut Tally) {
        sent.count += 1;
        sent.sum = sent.sum.wrapping_add(self.body.wrapping_add(t));
    }
}

/// How many messages, and the sum over all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub count: u64,
    pub sum: u64,
}

impl Tally {
    #[inline]
    pub fn add(&mut self, m: &[u8]) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(sum(m));
    }

    pub fn merge(&mut self, other: Tally) {
        self.count += other.count;
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// The answer to `END`.
    pub fn answer(&self) -> Vec<u8> {
        let mut m = Pattern::new(END, CTRL).bytes;
        set_token(&mut m, self.count);
        m[16..24].copy_from_slice(&self.sum.to_le_bytes());
        m
    }

    pub fn from_answer(m: &[u8]) -> Self {
        Tally {
            count: token(m),
            sum: token(&m[8..]),
        }
    }

    /// Ends the program when what arrived is not what was sent, `copies` times.
    pub fn check(self, got: Tally, copies: u64) {
        let due = Tally {
            count: self.count * copies,
            sum: self.sum.wrapping_mul(copies),
        };
        if due != got {
            eprintln!("delivery: sent {due:?}, arrived {got:?}");
            std::process::exit(1);
        }
    }
}

/// Prints the result line.
pub fn report(a: &Args, count: u64, ns: u64, lat: &mut [u32], cpu0: f64) {
    let (used, s) = (cpu() - cpu0, ns as f64 / 1e9);
    let mut o = format!(
        "{{\"value\":{:.1},\"count\":{count},\"secs\":{s:.4},\"cpu_s\":{used:.4}",
        count as f64 / s
    );
    if !lat.is_empty() && a.timed() {
        lat.sort_unstable();
        let at = |q: f64| lat[((q * lat.len() as f64) as usize).min(lat.len() - 1)] as f64 / 1000.0;
        let (p50, p99, p999, max) = (at(0.5), at(0.99), at(0.999), at(1.0));
        o += &format!(
            ",\"p50_us\":{p50:.2},\"p99_us\":{p99:.2},\"p999_us\":{p999:.2},\"max_us\":{max:.2}"
        );
    }
    println!("{o}}}");
}

fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().expect("stdout");
}

/// The server listens.
pub fn ready() {
    say("READY");
}

/// Every connection is open; stay so until the runner closes stdin.
pub fn hold_open() {
    say("HOLD");
    let _ = std::io::stdin().read(&mut [0u8; 1]);
}

/// Sets what all sockets of ours have; before connecting, where it decides the window.
pub fn tune(s: &impl std::os::fd::AsRawFd) {
    for (level, option, value) in [
        (libc::IPPROTO_TCP, libc::TCP_NODELAY, 1),
        (
            libc::SOL_SOCKET,
            libc::SO_SNDBUF,
            SOCKET_SEND as libc::c_int,
        ),
        (
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            socket_receive() as libc::c_int,
        ),
    ] {
        if value == 0 {
            continue;
        }
        let size = size_of_val(&value) as libc::socklen_t;
        unsafe {
            libc::setsockopt(
                s.as_raw_fd(),
                level,
                option,
                (&raw const value).cast(),
                size,
            )
        };
    }
}

/// One thread.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// A connected socket with everything that [`tune`] sets.
pub async fn dial(port: u16) -> tokio::net::TcpStream {
    let s = tokio::net::TcpSocket::new_v4().expect("a socket");
    tune(&s);
    s.connect(([127, 0, 0, 1], port).into())
        .await
        .expect("connect")
}

/// A listener whose connections inherit everything that [`tune`] sets.
pub fn listener(port: u16) -> tokio::net::TcpListener {
    let s = tokio::net::TcpSocket::new_v4().expect("a socket");
    tune(&s);
    s.set_reuseaddr(true).expect("SO_REUSEADDR");
    s.bind(([127, 0, 0, 1], port).into()).expect("bind");
    s.listen(4096).expect("listen")
}

/// Opens connections one after another, each proved by one echo, which `once` does: for the time of
/// a measurement, or, to `hold` them, as many as asked for.
pub async fn one_by_one<C>(a: &Args, hold: bool, mut once: impl AsyncFnMut(u16) -> C) {
    let most = if hold { a.conns as u64 } else { CONNECT_MAX };
    let (c0, t0) = (cpu(), now());
    let (mut kept, mut lat, mut n, mut t) = (Vec::new(), Vec::new(), 0, t0);
    while n < most && (hold || t < t0 + a.span()) {
        let c = once(a.port).await;
        if hold {
            kept.push(c);
        } else {
            drop(c);
        }
        let u = now();
        lat.push((u - t) as u32);
        t = u;
        n += 1;
    }
    if hold {
        hold_open();
    } else {
        report(a, n, t - t0, &mut lat, c0);
    }
}
