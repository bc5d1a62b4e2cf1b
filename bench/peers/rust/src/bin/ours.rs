//! This library at handler level on both sides, with every default limit and its statistics on.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, OnceLock};

use network_system::{
    Backoff, Client, CloseReason, Handler, Inbox, MessageRef, Result, Server, Session, Workers,
};
use peers::frames::FanOut;
use peers::*;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

thread_local! {
    /// What each session counted; the one that counted last stands in front.
    static TALLIES: RefCell<(u64, Tally, HashMap<u64, Tally>)> = RefCell::default();
}

fn with_tally<T>(id: u64, f: impl FnOnce(&mut Tally) -> T) -> T {
    TALLIES.with_borrow_mut(|(last, tally, others)| {
        if *last != id {
            let next = others.remove(&id).unwrap_or_default();
            others.insert(std::mem::replace(last, id), std::mem::replace(tally, next));
        }
        f(tally)
    })
}

struct Serving;

impl Handler for Serving {
    async fn on_message(&self, _: &Session, _: &MessageRef<'_>) -> Result<()> {
        // all come through `on_batch`
        Ok(())
    }

    async fn on_batch(&self, session: &Session, inbox: &mut Inbox<'_>) -> Result<()> {
        let id = session.id();
        inbox.each(session, |message, outgoing| {
            match message.first() {
                Some(&ECHO) => return outgoing.send(message),
                Some(&SINK) => with_tally(id, |t| t.add(message)),
                Some(&BROADCAST) => drop(session.sessions().broadcast(message)),
                _ => return outgoing.send(with_tally(id, |t| t.answer())),
            }
            Ok(())
        })
    }

    async fn on_disconnect(&self, session: &Session, _: &CloseReason) {
        with_tally(session.id(), |t| *t = Tally::default());
    }
}

fn url(port: u16) -> String {
    format!("tcp://127.0.0.1:{port}")
}

async fn serve(port: u16) -> Result<()> {
    let _server = Server::builder()
        .listen(url(port))
        .workers(1)
        .max_connections(100_000)
        .handler(Serving)
        .start()
        .await?;
    ready();
    std::future::pending().await
}

/// One message and its echo, at coroutine level.
async fn once(port: u16) -> network_system::Connection {
    let mut c = network_system::connect(&url(port)).await.expect("connect");
    let (mut sent, mut got) = (Tally::default(), Tally::default());
    c.send(Pattern::new(ECHO, CTRL).next(0, &mut sent))
        .await
        .expect("send");
    got.add(
        &c.receive()
            .await
            .expect("receive")
            .expect("the server closed"),
    );
    sent.check(got, 1);
    c
}

fn client(port: u16, handler: impl Handler) -> Client {
    static WORKERS: LazyLock<Workers> = LazyLock::new(|| Workers::new(1).expect("a thread"));
    Client::builder(url(port))
        .workers(&WORKERS)
        .reconnect(Backoff::never())
        .handler(handler)
        .start()
        .expect("a client")
}

/// What a handler tells the main task: what it sent, what it got, and latencies.
type Done = (Tally, Tally, Vec<u32>);

struct Streamer {
    a: Args,
    sent: Mutex<Option<Tally>>,
    done: UnboundedSender<(Done, u64, f64)>,
    began: Mutex<(u64, f64)>,
}

impl Handler for Streamer {
    async fn on_connect(&self, session: &Session) -> Result<()> {
        // the first answer shows that the connection is open
        session.send(&Pattern::new(END, CTRL).bytes[..]).await
    }

    async fn on_message(&self, session: &Session, message: &MessageRef<'_>) -> Result<()> {
        if let Some(sent) = self.sent.lock().expect("no panic").take() {
            let (t0, c0) = *self.began.lock().expect("no panic");
            let _ = self.done.send((
                (sent, Tally::from_answer(message), Vec::new()),
                now() - t0,
                c0,
            ));
            return Ok(());
        }
        let (mut pattern, mut sent) = (Pattern::new(SINK, self.a.size), Tally::default());
        let (t0, c0) = (now(), cpu());
        *self.began.lock().expect("no panic") = (t0, c0);
        while now() < t0 + self.a.span() {
            for _ in 0..(frames::WRITE / (self.a.size + 4)).max(1) {
                session.send(pattern.next(sent.count, &mut sent)).await?;
            }
            // in between the connection writes
            tokio::task::yield_now().await;
        }
        *self.sent.lock().expect("no panic") = Some(sent);
        session.send(&Pattern::new(END, CTRL).bytes[..]).await
    }
}

async fn stream(a: &Args) {
    let (done, mut results) = unbounded_channel();
    let (sent, began) = Default::default();
    let _client = client(
        a.port,
        Streamer {
            a: a.clone(),
            sent,
            done,
            began,
        },
    );
    let ((sent, got, _), ns, c0) = results.recv().await.expect("a result");
    sent.check(got, 1);
    report(a, got.count, ns, &mut [], c0);
}

/// What all connections of a load share: they live on one worker, which locks it once for each batch.
struct Load {
    pattern: Pattern,
    clock: LazyClock,
    timed: bool,
    end: u64,
    done: Done,
}

static LOAD: Mutex<Option<Load>> = Mutex::new(None);

/// Keeps a window of messages under way until the time is over.
struct Echoer {
    opened: UnboundedSender<Session>,
    report: UnboundedSender<Done>,
}

impl Echoer {
    /// Checks what came; whether to send a message for it, and when that was decided.
    fn turn(&self, load: &mut Load, m: &[u8]) -> Option<u64> {
        let (sent, got, lat) = &mut load.done;
        got.add(m);
        let t = load.clock.now();
        if load.timed {
            lat.push((t - token(m)).min(u32::MAX as u64) as u32);
        }
        if t < load.end {
            return Some(t);
        }
        if got.count == sent.count {
            let _ = self.report.send(std::mem::take(&mut load.done));
        }
        None
    }
}

impl Handler for Echoer {
    async fn on_connect(&self, session: &Session) -> Result<()> {
        session.send(&Pattern::new(ECHO, CTRL).bytes[..]).await
    }

    async fn on_message(&self, _: &Session, _: &MessageRef<'_>) -> Result<()> {
        // all come through `on_batch`
        Ok(())
    }

    async fn on_batch(&self, session: &Session, inbox: &mut Inbox<'_>) -> Result<()> {
        let mut load = LOAD.lock().expect("no panic");
        inbox.each(session, |message, outgoing| {
            let Some(load) = &mut *load else {
                // the echo that shows that the server has this connection
                let _ = self.opened.send(session.clone());
                return Ok(());
            };
            match self.turn(load, message) {
                Some(t) => outgoing.send(load.pattern.next(t, &mut load.done.0)),
                None => Ok(()),
            }
        })
    }
}

async fn echo(a: &Args) {
    let ((report_tx, mut reports), (opened, mut open)) = (unbounded_channel(), unbounded_channel());
    let echoer = || Echoer {
        opened: opened.clone(),
        report: report_tx.clone(),
    };
    let clients: Vec<_> = (0..a.conns).map(|_| client(a.port, echoer())).collect();
    let mut sessions = Vec::new();
    for _ in &clients {
        sessions.push(open.recv().await.expect("a connection"));
    }
    let (pattern, clock) = (Pattern::new(ECHO, a.size), LazyClock::new(a.window));
    let (c0, t0) = (cpu(), now());
    let (timed, end, done) = (a.timed(), t0 + a.span(), Done::default());
    *LOAD.lock().expect("no panic") = Some(Load {
        pattern,
        clock,
        timed,
        end,
        done,
    });
    for session in &sessions {
        for _ in 0..a.window {
            let next = |load: &mut Load| session.send(load.pattern.next(now(), &mut load.done.0));
            let sending = LOAD.lock().expect("no panic").as_mut().map(next);
            sending.expect("a load").await.expect("send");
        }
    }
    let (sent, got, mut lat) = reports.recv().await.expect("a result");
    let t1 = now();
    sent.check(got, 1);
    report(a, got.count, t1 - t0, &mut lat, c0);
}

struct Fan {
    shared: Arc<OnceLock<Arc<FanOut>>>,
    events: UnboundedSender<()>,
}

impl Handler for Fan {
    async fn on_connect(&self, session: &Session) -> Result<()> {
        session.send(&Pattern::new(ECHO, CTRL).bytes[..]).await
    }

    async fn on_message(&self, session: &Session, message: &MessageRef<'_>) -> Result<()> {
        match self.shared.get().map(|s| (s, s.arrived(message))) {
            Some((_, Some(next))) => return session.send(next).await,
            Some((shared, None)) if !shared.done() => {}
            _ => drop(self.events.send(())),
        }
        Ok(())
    }
}

async fn fanout(a: &Args) {
    let (events, mut heard): (_, UnboundedReceiver<()>) = unbounded_channel();
    let shared = Arc::new(OnceLock::new());
    let fan = || Fan {
        shared: shared.clone(),
        events: events.clone(),
    };
    let clients: Vec<_> = (0..a.conns).map(|_| client(a.port, fan())).collect();
    for _ in &clients {
        heard.recv().await;
    }
    let (c0, t0) = (cpu(), now());
    let all = shared.get_or_init(|| FanOut::new(a, t0 + a.span()));
    for _ in 0..a.window {
        clients[0].send(all.next(now())).await.expect("send");
    }
    heard.recv().await;
    report(a, all.finish(), now() - t0, &mut [], c0);
}

fn main() {
    let a = args();
    runtime().block_on(async {
        match a.workload.as_str() {
            _ if a.server => serve(a.port).await.expect("serve"),
            "stream" => stream(&a).await,
            "echo" => echo(&a).await,
            "fanout" => fanout(&a).await,
            "connect" => one_by_one(&a, false, once).await,
            "idle" => one_by_one(&a, true, once).await,
            w => panic!("unknown workload {w}"),
        }
    });
    std::process::exit(0);
}
