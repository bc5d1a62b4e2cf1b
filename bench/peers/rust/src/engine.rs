//! The client half of the minimal loops: every workload over an event loop of their own.

use crate::frames::{Echoer, Fan, FanOut, Logic, Once, Streamer};
use crate::{Args, CONNECT_MAX, Tally, cpu, hold_open, now, report};

/// An event loop.
pub trait Engine {
    type Conn;
    fn dial(&mut self, port: u16) -> Self::Conn;
    /// Runs the connections until all are done, or one when `one_ends_all`. Those that are done
    /// come back.
    fn run<L: Logic + Unpin + Send + 'static>(
        &mut self,
        conns: Vec<(Self::Conn, L)>,
        one_ends_all: bool,
    ) -> Vec<(Self::Conn, L)>;
}

/// Opens the connections of a load, each with one echo, so that the server has them all.
fn open<E: Engine>(a: &Args, e: &mut E) -> Vec<E::Conn> {
    let opened = (0..a.conns)
        .map(|_| (e.dial(a.port), Once::new()))
        .collect();
    e.run(opened, false).into_iter().map(|(c, _)| c).collect()
}

/// Runs the workload of `a`.
pub fn client<E: Engine>(a: &Args, e: &mut E) {
    match a.workload.as_str() {
        "stream" => stream(a, e),
        "echo" => echo(a, e),
        "fanout" => fanout(a, e),
        "connect" => one_by_one(a, e, false),
        "idle" => one_by_one(a, e, true),
        w => panic!("unknown workload {w}"),
    }
}

fn stream<E: Engine>(a: &Args, e: &mut E) {
    let c = e.dial(a.port);
    let (c0, t0) = (cpu(), now());
    let done = e.run(vec![(c, Streamer::new(a, t0 + a.span()))], false);
    let t1 = now();
    let l = &done[0].1;
    l.sent.check(l.answer.expect("an answer"), 1);
    report(a, l.sent.count, t1 - t0, &mut [], c0);
}

fn echo<E: Engine>(a: &Args, e: &mut E) {
    let conns = open(a, e);
    let (c0, t0) = (cpu(), now());
    let conns = conns
        .into_iter()
        .map(|c| (c, Echoer::new(a, t0 + a.span())))
        .collect();
    let done = e.run(conns, false);
    let t1 = now();
    let (mut sent, mut got, mut lat) = (Tally::default(), Tally::default(), Vec::new());
    for (_, l) in done {
        sent.merge(l.sent);
        got.merge(l.got);
        lat.extend(l.lat);
    }
    sent.check(got, 1);
    report(a, got.count, t1 - t0, &mut lat, c0);
}

fn fanout<E: Engine>(a: &Args, e: &mut E) {
    let conns = open(a, e);
    let (c0, t0) = (cpu(), now());
    let shared = FanOut::new(a, t0 + a.span());
    let fan = |i| Fan {
        shared: shared.clone(),
        first: if i == 0 { a.window } else { 0 },
    };
    // the one that sends first comes last: nobody is done before
    let conns = conns
        .into_iter()
        .enumerate()
        .map(|(i, c)| (c, fan(a.conns - 1 - i)))
        .collect();
    e.run(conns, true);
    let t1 = now();
    report(a, shared.finish(), t1 - t0, &mut [], c0);
}

fn one_by_one<E: Engine>(a: &Args, e: &mut E, hold: bool) {
    let most = if hold { a.conns as u64 } else { CONNECT_MAX };
    let (c0, t0) = (cpu(), now());
    let (mut kept, mut lat, mut n, mut t) = (Vec::new(), Vec::new(), 0, t0);
    while n < most && (hold || t < t0 + a.span()) {
        let c = e.dial(a.port);
        let done = e.run(vec![(c, Once::new())], false);
        if hold {
            kept.extend(done);
        } else {
            drop(done);
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
