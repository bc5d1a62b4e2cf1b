//! message-io, FramedTcp. It has no TCP_NODELAY, every send is a system call for the length and one
//! for the data, and it spins while the socket is full: its public interface allows nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};

use message_io::network::{Endpoint, NetEvent, Transport};
use message_io::node::{self, NodeHandler};
use peers::frames::FanOut;
use peers::*;

fn server(port: u16) {
    let (h, l) = node::split::<()>();
    h.network()
        .listen(Transport::FramedTcp, ("127.0.0.1", port))
        .expect("listen");
    ready();
    // one stream at a time
    let (mut tally, mut everyone) = (Tally::default(), Vec::new());
    l.for_each(move |e| match e.network() {
        NetEvent::Accepted(from, _) => everyone.push(from),
        NetEvent::Disconnected(from) => everyone.retain(|e| *e != from),
        NetEvent::Message(from, m) => {
            let send = |to, m: &[u8]| _ = h.network().send(to, m);
            match m.first() {
                Some(&ECHO) => send(from, m),
                Some(&SINK) => tally.add(m),
                Some(&BROADCAST) => everyone.iter().for_each(|e| send(*e, m)),
                _ => send(from, &std::mem::take(&mut tally).answer()),
            }
        }
        _ => {}
    });
}

/// What the thread of events says to the main one.
enum Event {
    Connected(Endpoint),
    Answer(Vec<u8>),
    Done(Tally, Tally, Vec<u32>),
}

/// What the thread of events does with a message: nothing but hand it over before a load begins.
struct Load {
    pattern: Pattern,
    clock: LazyClock,
    timed: bool,
    sent: Tally,
    got: Tally,
    lat: Vec<u32>,
    due: u64,
    end: Arc<AtomicU64>,
    fan: Receiver<Arc<FanOut>>,
    shared: Option<Arc<FanOut>>,
}

impl Load {
    fn message(&mut self, h: &NodeHandler<()>, ep: Endpoint, m: &[u8], tx: &Sender<Event>) {
        if self.shared.is_none() {
            self.shared = self.fan.try_recv().ok();
        }
        if let Some(shared) = &self.shared {
            if let Some(next) = shared.arrived(m) {
                h.network().send(ep, &next);
            } else if shared.done() {
                let _ = tx.send(Event::Answer(Vec::new()));
            }
            return;
        }
        let end = self.end.load(Relaxed);
        if end == 0 {
            let _ = tx.send(Event::Answer(m.to_vec()));
            return;
        }
        self.got.add(m);
        let t = self.clock.now();
        if self.timed {
            self.lat.push((t - token(m)) as u32);
        }
        if t < end {
            h.network().send(ep, self.pattern.next(t, &mut self.sent));
        } else if self.got.count == self.sent.count + self.due {
            let _ = tx.send(Event::Done(
                self.sent,
                self.got,
                std::mem::take(&mut self.lat),
            ));
        }
    }
}

struct Client {
    a: Args,
    h: NodeHandler<()>,
    rx: Receiver<Event>,
}

impl Client {
    fn dial(&self) -> Endpoint {
        self.h
            .network()
            .connect(Transport::FramedTcp, ("127.0.0.1", self.a.port))
            .expect("connect");
        match self.rx.recv() {
            Ok(Event::Connected(ep)) => ep,
            _ => panic!("not connected"),
        }
    }

    fn answer(&self) -> Vec<u8> {
        match self.rx.recv() {
            Ok(Event::Answer(m)) => m,
            _ => panic!("no answer"),
        }
    }

    fn once(&self) -> Endpoint {
        let (ep, mut sent, mut got) = (self.dial(), Tally::default(), Tally::default());
        self.h
            .network()
            .send(ep, Pattern::new(ECHO, CTRL).next(0, &mut sent));
        got.add(&self.answer());
        sent.check(got, 1);
        ep
    }

    fn stream(&self) {
        let ep = self.dial();
        let (mut pattern, mut sent) = (Pattern::new(SINK, self.a.size), Tally::default());
        let (c0, t0) = (cpu(), now());
        while sent.count % 16 != 0 || now() < t0 + self.a.span() {
            self.h
                .network()
                .send(ep, pattern.next(sent.count, &mut sent));
        }
        self.h.network().send(ep, &Pattern::new(END, CTRL).bytes);
        let answer = Tally::from_answer(&self.answer());
        let t1 = now();
        sent.check(answer, 1);
        report(&self.a, sent.count, t1 - t0, &mut [], c0);
    }

    fn echo(&self, end: &AtomicU64) {
        let eps: Vec<_> = (0..self.a.conns).map(|_| self.once()).collect();
        let (mut pattern, mut sent) = (Pattern::new(ECHO, self.a.size), Tally::default());
        let (c0, t0) = (cpu(), now());
        end.store(t0 + self.a.span(), Relaxed);
        for ep in eps {
            for _ in 0..self.a.window {
                self.h.network().send(ep, pattern.next(now(), &mut sent));
            }
        }
        let Ok(Event::Done(more, got, mut lat)) = self.rx.recv() else {
            panic!("no result")
        };
        let t1 = now();
        sent.merge(more);
        sent.check(got, 1);
        report(&self.a, got.count, t1 - t0, &mut lat, c0);
    }

    fn fanout(&self, fan: &Sender<Arc<FanOut>>) {
        let eps: Vec<_> = (0..self.a.conns).map(|_| self.once()).collect();
        let (c0, t0) = (cpu(), now());
        let shared = FanOut::new(&self.a, t0 + self.a.span());
        fan.send(shared.clone()).expect("the thread of events");
        for _ in 0..self.a.window {
            self.h.network().send(eps[0], &shared.next(now()));
        }
        self.answer();
        report(&self.a, shared.finish(), now() - t0, &mut [], c0);
    }

    fn one_by_one(&self, hold: bool) {
        let most = if hold {
            self.a.conns as u64
        } else {
            CONNECT_MAX
        };
        let (c0, t0) = (cpu(), now());
        let (mut lat, mut n, mut t) = (Vec::new(), 0, t0);
        while n < most && (hold || t < t0 + self.a.span()) {
            let ep = self.once();
            if !hold {
                self.h.network().remove(ep.resource_id());
            }
            let u = now();
            lat.push((u - t) as u32);
            t = u;
            n += 1;
        }
        if hold {
            hold_open();
        } else {
            report(&self.a, n, t - t0, &mut lat, c0);
        }
    }
}

fn main() {
    let a = args();
    if a.server {
        return server(a.port);
    }
    let (h, l) = node::split::<()>();
    let ((tx, rx), (fan_tx, fan)) = (channel(), channel());
    let end = Arc::new(AtomicU64::new(0));
    let mut load = Load {
        pattern: Pattern::new(ECHO, a.size),
        clock: LazyClock::new(a.window),
        timed: a.timed(),
        sent: Tally::default(),
        got: Tally::default(),
        lat: Vec::new(),
        due: (a.conns * a.window) as u64,
        end: end.clone(),
        fan,
        shared: None,
    };
    let handler = h.clone();
    let _task = l.for_each_async(move |e| match e.network() {
        NetEvent::Connected(ep, true) => drop(tx.send(Event::Connected(ep))),
        NetEvent::Message(ep, m) => load.message(&handler, ep, m, &tx),
        _ => {}
    });
    let c = Client { a, h, rx };
    match c.a.workload.as_str() {
        "stream" => c.stream(),
        "echo" => c.echo(&end),
        "fanout" => c.fanout(&fan_tx),
        "connect" => c.one_by_one(false),
        "idle" => c.one_by_one(true),
        w => panic!("unknown workload {w}"),
    }
    std::process::exit(0);
}
