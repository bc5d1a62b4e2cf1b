//! This library at handler level on both sides, with every default limit and its statistics on.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use network_system::{Backoff, Client, CloseReason, Handler, MessageRef, Result, Server, Session};
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
    async fn on_message(&self, session: &Session, message: &MessageRef<'_>) -> Result<()> {
        match message.first() {
            Some(&ECHO) => return session.send(message).await,
            Some(&SINK) => with_tally(session.id(), |t| t.add(message)),
            Some(&BROADCAST) => drop(session.sessions().broadcast(message.to_message())),
            _ => return session.send(with_tally(session.id(), |t| t.answer())).await,
        }
        Ok(())
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
    Client::builder(url(port))
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

/// What one connection of a load has done: only its own task touches it.
struct Load {
    pattern: Pattern,
    clock: LazyClock,
    timed: bool,
    end: u64,
    done: Done,
}

/// Keeps a window of messages under way until the time is over.
struct Echoer {
    load: Mutex<Load>,
    report: UnboundedSender<Done>,
    open: UnboundedSender<Session>,
    begun: AtomicU64,
}

impl Handler for Echoer {
    async fn on_connect(&self, session: &Session) -> Result<()> {
        session.send(&Pattern::new(ECHO, CTRL).bytes[..]).await
    }

    async fn on_message(&self, session: &Session, message: &MessageRef<'_>) -> Result<()> {
        if self.begun.load(Relaxed) == 0 {
            // the echo that shows that the server has this connection; the load is begun from outside
            self.begun.store(1, Relaxed);
            let _ = self.open.send(session.clone());
            return Ok(());
        }
        let sending = {
            let mut load = self.load.lock().expect("no panic");
            let load = &mut *load;
            let (sent, got, lat) = &mut load.done;
            got.add(message);
            let t = load.clock.now();
            if load.timed {
                lat.push((t - token(message)).min(u32::MAX as u64) as u32);
            }
            if t >= load.end {
                if got.count == sent.count {
                    let _ = self.report.send(std::mem::take(&mut load.done));
                }
                return Ok(());
            }
            session.send(load.pattern.next(t, sent))
        };
        sending.await
    }
}

async fn echo(a: &Args) {
    let ((tx, mut reports), (opened, mut open)) = (unbounded_channel(), unbounded_channel());
    let mut clients = Vec::new();
    let mut handlers = Vec::new();
    for _ in 0..a.conns {
        let load = Load {
            pattern: Pattern::new(ECHO, a.size),
            clock: LazyClock::new(a.window),
            timed: a.timed(),
            end: u64::MAX,
            done: Done::default(),
        };
        let (report, open) = (tx.clone(), opened.clone());
        let handler = Arc::new(Echoer {
            load: Mutex::new(load),
            report,
            open,
            begun: AtomicU64::new(0),
        });
        clients.push(client(a.port, handler.clone()));
        handlers.push(handler);
    }
    let mut sessions = Vec::new();
    for _ in &clients {
        sessions.push(open.recv().await.expect("a connection"));
    }
    let (c0, t0) = (cpu(), now());
    for handler in &handlers {
        handler.load.lock().expect("no panic").end = t0 + a.span();
    }
    for (client, handler) in clients.iter().zip(&handlers) {
        for _ in 0..a.window {
            let message = {
                let mut load = handler.load.lock().expect("no panic");
                let load = &mut *load;
                load.pattern.next(now(), &mut load.done.0).to_vec()
            };
            client.send(message).await.expect("send");
        }
    }
    let (mut sent, mut got, mut lat) = (Tally::default(), Tally::default(), Vec::new());
    for _ in &clients {
        let (s, g, l) = reports.recv().await.expect("a result");
        sent.merge(s);
        got.merge(g);
        lat.extend(l);
    }
    let t1 = now();
    sent.check(got, 1);
    report(a, got.count, t1 - t0, &mut lat, c0);
}

struct Fan {
    shared: Arc<Mutex<Option<Arc<FanOut>>>>,
    events: UnboundedSender<()>,
}

impl Handler for Fan {
    async fn on_connect(&self, session: &Session) -> Result<()> {
        session.send(&Pattern::new(ECHO, CTRL).bytes[..]).await
    }

    async fn on_message(&self, session: &Session, message: &MessageRef<'_>) -> Result<()> {
        let shared = self.shared.lock().expect("no panic").clone();
        match shared.as_ref().map(|s| (s, s.arrived(message))) {
            Some((_, Some(next))) => return session.send(next).await,
            Some((shared, None)) if !shared.done() => {}
            _ => drop(self.events.send(())),
        }
        Ok(())
    }
}

async fn fanout(a: &Args) {
    let (events, mut heard): (_, UnboundedReceiver<()>) = unbounded_channel();
    let shared = Arc::new(Mutex::new(None));
    let fan = || Fan {
        shared: shared.clone(),
        events: events.clone(),
    };
    let clients: Vec<_> = (0..a.conns).map(|_| client(a.port, fan())).collect();
    for _ in &clients {
        heard.recv().await;
    }
    let (c0, t0) = (cpu(), now());
    let all = FanOut::new(a, t0 + a.span());
    *shared.lock().expect("no panic") = Some(all.clone());
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
