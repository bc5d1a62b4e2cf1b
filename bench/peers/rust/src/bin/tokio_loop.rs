//! The least that tokio needs: a hand-written future per connection, buffers shared by all.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};

use peers::engine::{Engine, client};
use peers::frames::{Logic, READ, Server, WRITE, walk};
use peers::{args, dial, listener, ready, runtime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

thread_local! {
    static BUFFERS: RefCell<(Vec<u8>, Vec<u8>)> = RefCell::new((vec![0; READ], Vec::with_capacity(WRITE)));
    static EVERYONE: RefCell<Vec<Weak<Mutex<Mail>>>> = const { RefCell::new(Vec::new()) };
}

/// What others want a connection to write.
#[derive(Default)]
struct Mail {
    bytes: Vec<u8>,
    waker: Option<Waker>,
}

struct Conn<L> {
    s: TcpStream,
    l: L,
    rest: Vec<u8>,
    out: Vec<u8>,
    sent: usize,
    mail: Option<Arc<Mutex<Mail>>>,
}

impl<L: Logic + Unpin> Conn<L> {
    fn new(s: TcpStream, l: L) -> Self {
        Conn {
            s,
            l,
            rest: Vec::new(),
            out: Vec::new(),
            sent: 0,
            mail: None,
        }
    }

    /// Ok(true): done. Ok(false): must wait.
    fn turn(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> std::io::Result<bool> {
        loop {
            while self.sent < self.out.len() {
                match Pin::new(&mut self.s).poll_write(cx, &self.out[self.sent..]) {
                    Poll::Ready(n) => self.sent += n?,
                    Poll::Pending => return self.read(cx, input, out).map(|_| self.l.done()),
                }
            }
            if !self.out.is_empty() {
                self.out = Vec::new();
                self.sent = 0;
            }
            out.clear();
            self.l.fill(out);
            if out.is_empty() {
                if !self.read(cx, input, out)? {
                    if self.l.done() || !self.take_mail(cx, out) {
                        return Ok(self.l.done());
                    }
                } else if self.l.done() {
                    return Ok(true);
                }
            }
            if !out.is_empty() {
                let n = match Pin::new(&mut self.s).poll_write(cx, out) {
                    Poll::Ready(n) => n?,
                    Poll::Pending => 0,
                };
                self.out.extend_from_slice(&out[n..]);
            }
        }
    }

    /// One read, one batch. False: nothing to read now, or replies still wait to leave.
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> std::io::Result<bool> {
        if self.out.len() - self.sent > 4 * READ {
            return Ok(false);
        }
        let have = self.rest.len();
        if have + 4096 > input.len() {
            input.resize(have * 2, 0);
        }
        input[..have].copy_from_slice(&self.rest);
        let mut b = ReadBuf::new(&mut input[have..]);
        let n = match Pin::new(&mut self.s).poll_read(cx, &mut b) {
            Poll::Ready(r) => r.map(|()| b.filled().len())?,
            Poll::Pending => return Ok(false),
        };
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let to = if self.out.is_empty() {
            out
        } else {
            &mut self.out
        };
        let used = walk(&input[..have + n], &mut self.l, to);
        self.rest.clear();
        self.rest.extend_from_slice(&input[used..have + n]);
        if let Some(frames) = self.l.broadcast() {
            EVERYONE.with_borrow(|all| {
                all.iter()
                    .filter_map(Weak::upgrade)
                    .for_each(|m| post(&m, frames))
            });
            frames.clear();
        }
        Ok(true)
    }

    fn take_mail(&mut self, cx: &Context<'_>, out: &mut Vec<u8>) -> bool {
        let Some(mail) = &self.mail else { return false };
        let mut mail = mail.lock().expect("no panic");
        if mail.bytes.is_empty() {
            mail.waker = Some(cx.waker().clone());
            return false;
        }
        std::mem::swap(out, &mut mail.bytes);
        true
    }
}

fn post(mail: &Mutex<Mail>, frames: &[u8]) {
    let mut mail = mail.lock().expect("no panic");
    mail.bytes.extend_from_slice(frames);
    if let Some(waker) = mail.waker.take() {
        waker.wake();
    }
}

impl<L: Logic + Unpin> Future for Conn<L> {
    type Output = std::io::Result<()>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        BUFFERS.with_borrow_mut(|(i, o)| match self.turn(cx, i, o) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => Poll::Pending,
            Err(e) => Poll::Ready(Err(e)),
        })
    }
}

struct Loop(Runtime);

impl Engine for Loop {
    type Conn = TcpStream;

    fn dial(&mut self, port: u16) -> TcpStream {
        self.0.block_on(dial(port))
    }

    fn run<L: Logic + Unpin + Send + 'static>(
        &mut self,
        conns: Vec<(TcpStream, L)>,
        one_ends_all: bool,
    ) -> Vec<(TcpStream, L)> {
        self.0.block_on(async {
            let (mut tasks, mut done) = (JoinSet::new(), Vec::new());
            for (s, l) in conns {
                let mut c = Conn::new(s, l);
                tasks.spawn(async move {
                    (&mut c).await.expect("a connection");
                    (c.s, c.l)
                });
            }
            while let Some(one) = tasks.join_next().await {
                done.push(one.expect("a connection failed"));
                if one_ends_all {
                    break;
                }
            }
            done
        })
    }
}

async fn serve(port: u16) {
    let l = listener(port);
    ready();
    loop {
        if let Ok((s, _)) = l.accept().await {
            let (mut c, mail) = (Conn::new(s, Server::default()), Arc::default());
            EVERYONE.with_borrow_mut(|all| {
                if all.len().is_multiple_of(256) {
                    all.retain(|m| m.strong_count() > 0);
                }
                all.push(Arc::downgrade(&mail));
            });
            c.mail = Some(mail);
            tokio::spawn(c);
        }
    }
}

fn main() {
    let a = args();
    if a.server {
        return runtime().block_on(serve(a.port));
    }
    client(&a, &mut Loop(runtime()));
    std::process::exit(0);
}
