//! Server and client of every peer whose connection is a `Stream` of messages in and a `Sink` of
//! messages out.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Sink, Stream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::frames::FanOut;
use crate::*;

pub trait Peer: Sized + 'static {
    type In: Send + 'static;
    type Out: Send + 'static;
    type Err: std::fmt::Debug + Send;
    type Conn: Stream<Item = Result<Self::In, Self::Err>>
        + Sink<Self::Out, Error = Self::Err>
        + Unpin
        + Send
        + 'static;
    /// Empty for anything that is not an application message.
    fn bytes(m: &Self::In) -> &[u8];
    /// Sends back what came.
    fn reply(m: Self::In) -> Self::Out;
    fn make(b: Bytes) -> Self::Out;
    fn connect(port: u16) -> impl Future<Output = Self::Conn> + Send;
    /// Accepts for ever; spawns a `Serve` for each connection.
    fn listen(port: u16) -> impl Future<Output = ()> + Send;
}

static EVERYONE: Mutex<Vec<UnboundedSender<Bytes>>> = Mutex::new(Vec::new());

pub struct Serve<P: Peer> {
    c: P::Conn,
    next: Option<P::Out>,
    tally: Tally,
    broadcasts: UnboundedReceiver<Bytes>,
}

impl<P: Peer> Unpin for Serve<P> {}

impl<P: Peer> Serve<P> {
    pub fn new(c: P::Conn) -> Self {
        let (tx, broadcasts) = unbounded_channel();
        let mut everyone = EVERYONE.lock().expect("no panic");
        if everyone.len().is_multiple_of(256) {
            everyone.retain(|s| !s.is_closed());
        }
        everyone.push(tx);
        Serve {
            c,
            next: None,
            tally: Tally::default(),
            broadcasts,
        }
    }

    fn message(&mut self, m: P::In) {
        match P::bytes(&m).first() {
            Some(&ECHO) => self.next = Some(P::reply(m)),
            Some(&SINK) => self.tally.add(P::bytes(&m)),
            Some(&BROADCAST) => {
                let b = Bytes::copy_from_slice(P::bytes(&m));
                for s in &*EVERYONE.lock().expect("no panic") {
                    let _ = s.send(b.clone());
                }
            }
            Some(_) => self.next = Some(P::make(self.tally.answer().into())),
            None => {}
        }
    }
}

/// Answers everything that can be read without waiting, then flushes once.
impl<P: Peer> Future for Serve<P> {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let s = &mut *self;
        loop {
            if s.next.is_some() {
                match Pin::new(&mut s.c).poll_ready(cx) {
                    Poll::Ready(Ok(())) => {
                        let m = s.next.take().expect("there is one");
                        if Pin::new(&mut s.c).start_send(m).is_err() {
                            return Poll::Ready(());
                        }
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
            match Pin::new(&mut s.c).poll_next(cx) {
                Poll::Ready(Some(Ok(m))) => s.message(m),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => {
                    if let Poll::Ready(Some(b)) = s.broadcasts.poll_recv(cx) {
                        s.next = Some(P::make(b));
                        continue;
                    }
                    return match Pin::new(&mut s.c).poll_flush(cx) {
                        Poll::Ready(Err(_)) => Poll::Ready(()),
                        _ => Poll::Pending,
                    };
                }
            }
        }
    }
}

/// Keeps a window of messages under way until the time is over.
struct Echoer<P: Peer> {
    c: P::Conn,
    pattern: Pattern,
    clock: LazyClock,
    owed: usize,
    end: u64,
    timed: bool,
    sent: Tally,
    got: Tally,
    lat: Vec<u32>,
}

impl<P: Peer> Unpin for Echoer<P> {}

impl<P: Peer> Future for Echoer<P> {
    type Output = (Tally, Tally, Vec<u32>);
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let s = self.get_mut();
        loop {
            let mut moved = false;
            while let Poll::Ready(m) = Pin::new(&mut s.c).poll_next(cx) {
                let m = m.expect("the server closed").expect("receive");
                let b = P::bytes(&m);
                if b.is_empty() {
                    continue;
                }
                moved = true;
                s.got.add(b);
                let t = s.clock.now();
                if s.timed {
                    s.lat.push((t - token(b)).min(u32::MAX as u64) as u32);
                }
                s.owed += usize::from(t < s.end);
            }
            if s.got.count == s.sent.count && s.owed == 0 {
                return Poll::Ready((s.sent, s.got, std::mem::take(&mut s.lat)));
            }
            if s.owed > 0 {
                let t = now();
                while s.owed > 0 {
                    match Pin::new(&mut s.c).poll_ready(cx) {
                        Poll::Ready(r) => r.expect("send"),
                        Poll::Pending => break,
                    }
                    let m = Bytes::copy_from_slice(s.pattern.next(t, &mut s.sent));
                    Pin::new(&mut s.c).start_send(P::make(m)).expect("send");
                    s.owed -= 1;
                    moved = true;
                }
            }
            let _ = Pin::new(&mut s.c).poll_flush(cx);
            if !moved {
                return Poll::Pending;
            }
        }
    }
}

async fn stream<P: Peer>(a: &Args) {
    let mut c = P::connect(a.port).await;
    let (mut pattern, mut sent, mut ended) = (Pattern::new(SINK, a.size), Tally::default(), false);
    let (c0, t0) = (cpu(), now());
    let end = t0 + a.span();
    let answer = poll_fn(|cx| {
        while !ended {
            match Pin::new(&mut c).poll_ready(cx) {
                Poll::Ready(r) => r.expect("send"),
                Poll::Pending => return Poll::Pending,
            }
            let m = if sent.count.is_multiple_of(64) && now() >= end {
                ended = true;
                Pattern::new(END, CTRL).bytes.into()
            } else {
                Bytes::copy_from_slice(pattern.next(sent.count, &mut sent))
            };
            Pin::new(&mut c).start_send(P::make(m)).expect("send");
        }
        let _ = Pin::new(&mut c).poll_flush(cx);
        Pin::new(&mut c).poll_next(cx).map(|m| {
            let m = m.expect("the server closed").expect("receive");
            Tally::from_answer(P::bytes(&m))
        })
    })
    .await;
    let t1 = now();
    sent.check(answer, 1);
    report(a, sent.count, t1 - t0, &mut [], c0);
}

/// One message and its echo.
async fn once<P: Peer>(c: &mut P::Conn) {
    let (mut sent, mut got) = (Tally::default(), Tally::default());
    let m = Bytes::copy_from_slice(Pattern::new(ECHO, CTRL).next(0, &mut sent));
    send::<P>(c, m).await;
    while got.count == 0 {
        let m = poll_fn(|cx| Pin::new(&mut *c).poll_next(cx)).await;
        let m = m.expect("the server closed").expect("receive");
        if !P::bytes(&m).is_empty() {
            got.add(P::bytes(&m));
        }
    }
    sent.check(got, 1);
}

async fn send<P: Peer>(c: &mut P::Conn, m: Bytes) {
    poll_fn(|cx| Pin::new(&mut *c).poll_ready(cx))
        .await
        .expect("send");
    Pin::new(&mut *c).start_send(P::make(m)).expect("send");
    poll_fn(|cx| Pin::new(&mut *c).poll_flush(cx))
        .await
        .expect("send");
}

/// Opens the connections of a load, each with one echo, so that the server has them all.
async fn open<P: Peer>(a: &Args) -> Vec<P::Conn> {
    let mut conns = Vec::new();
    for _ in 0..a.conns {
        conns.push(connected::<P>(a.port).await);
    }
    conns
}

/// A connection that has proved itself.
async fn connected<P: Peer>(port: u16) -> P::Conn {
    let mut c = P::connect(port).await;
    once::<P>(&mut c).await;
    c
}

async fn echo<P: Peer>(a: &Args) {
    let conns = open::<P>(a).await;
    let (c0, t0) = (cpu(), now());
    let mut tasks = JoinSet::new();
    for c in conns {
        let (sent, got) = Default::default();
        let (pattern, clock) = (Pattern::new(ECHO, a.size), LazyClock::new(a.window));
        let (owed, end, timed, lat) = (a.window, t0 + a.span(), a.timed(), Vec::new());
        tasks.spawn(Echoer::<P> {
            c,
            pattern,
            clock,
            owed,
            end,
            timed,
            sent,
            got,
            lat,
        });
    }
    let (mut sent, mut got, mut lat) = (Tally::default(), Tally::default(), Vec::new());
    while let Some(done) = tasks.join_next().await {
        let (s, g, l) = done.expect("a connection failed");
        sent.merge(s);
        got.merge(g);
        lat.extend(l);
    }
    let t1 = now();
    sent.check(got, 1);
    report(a, got.count, t1 - t0, &mut lat, c0);
}

async fn fanout<P: Peer>(a: &Args) {
    let conns = open::<P>(a).await;
    let (c0, t0) = (cpu(), now());
    let shared = FanOut::new(a, t0 + a.span());
    let mut tasks = JoinSet::new();
    for (i, mut c) in conns.into_iter().enumerate() {
        let shared = shared.clone();
        let first = if i == 0 { a.window } else { 0 };
        tasks.spawn(async move {
            for _ in 0..first {
                send::<P>(&mut c, shared.next(now()).into()).await;
            }
            loop {
                let m = poll_fn(|cx| Pin::new(&mut c).poll_next(cx)).await;
                let m = m.expect("the server closed").expect("receive");
                if P::bytes(&m).is_empty() {
                    continue;
                }
                if let Some(next) = shared.arrived(P::bytes(&m)) {
                    send::<P>(&mut c, next.into()).await;
                } else if shared.done() {
                    return c;
                }
            }
        });
    }
    let _last = tasks
        .join_next()
        .await
        .expect("connections")
        .expect("a connection failed");
    report(a, shared.finish(), now() - t0, &mut [], c0);
}

/// The program.
pub fn run<P: Peer>() {
    let a = args();
    runtime().block_on(async {
        match a.workload.as_str() {
            _ if a.server => P::listen(a.port).await,
            "stream" => stream::<P>(&a).await,
            "echo" => echo::<P>(&a).await,
            "fanout" => fanout::<P>(&a).await,
            "connect" => one_by_one(&a, false, connected::<P>).await,
            "idle" => one_by_one(&a, true, connected::<P>).await,
            w => panic!("unknown workload {w}"),
        }
    });
    std::process::exit(0);
}
