//! This library at coroutine level on both sides: a task owns its connection. This level has no
//! table of sessions, hence no fan-out.

use network_system::Connection;
use peers::*;
use tokio::task::JoinSet;

fn url(port: u16) -> String {
    format!("tcp://127.0.0.1:{port}")
}

async fn serve_one(mut c: Connection) -> network_system::Result<()> {
    let mut tally = Tally::default();
    while let Some(m) = c.receive().await? {
        match m.first() {
            Some(&ECHO) => c.send(m).await?,
            Some(&SINK) => tally.add(&m),
            _ => c.send(tally.answer()).await?,
        }
    }
    Ok(())
}

async fn serve(port: u16) {
    let mut l = network_system::listen(&url(port)).await.expect("listen");
    ready();
    loop {
        if let Ok(c) = l.accept().await {
            tokio::spawn(serve_one(c));
        }
    }
}

/// One message and its echo.
async fn once(port: u16) -> Connection {
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

async fn stream(a: &Args) -> network_system::Result<()> {
    let mut c = once(a.port).await;
    let (mut pattern, mut sent) = (Pattern::new(SINK, a.size), Tally::default());
    let (c0, t0) = (cpu(), now());
    while now() < t0 + a.span() {
        for _ in 0..(frames::WRITE / (a.size + 4)).max(1) {
            c.send(pattern.next(sent.count, &mut sent)).await?;
        }
        c.flush().await?;
    }
    c.send(Pattern::new(END, CTRL).bytes).await?;
    let answer = Tally::from_answer(&c.receive().await?.expect("the server closed"));
    let t1 = now();
    sent.check(answer, 1);
    report(a, sent.count, t1 - t0, &mut [], c0);
    Ok(())
}

/// Keeps a window of messages under way until `end`.
async fn load(
    mut c: Connection,
    a: Args,
    end: u64,
) -> network_system::Result<(Tally, Tally, Vec<u32>)> {
    let (mut sent, mut got, mut lat) = (Tally::default(), Tally::default(), Vec::new());
    let (mut pattern, mut clock) = (Pattern::new(ECHO, a.size), LazyClock::new(a.window));
    for _ in 0..a.window {
        c.send(pattern.next(now(), &mut sent)).await?;
    }
    while got.count < sent.count {
        let m = c.receive().await?.expect("the server closed");
        got.add(&m);
        let t = clock.now();
        if a.timed() {
            lat.push((t - token(&m)).min(u32::MAX as u64) as u32);
        }
        if t < end {
            c.send(pattern.next(t, &mut sent)).await?;
        }
    }
    Ok((sent, got, lat))
}

async fn echo(a: &Args) {
    let mut open = Vec::new();
    for _ in 0..a.conns {
        open.push(once(a.port).await);
    }
    let (c0, t0) = (cpu(), now());
    let mut tasks: JoinSet<_> = open
        .into_iter()
        .map(|c| load(c, a.clone(), t0 + a.span()))
        .collect();
    let (mut sent, mut got, mut lat) = (Tally::default(), Tally::default(), Vec::new());
    while let Some(done) = tasks.join_next().await {
        let (s, g, l) = done.expect("a task").expect("a connection failed");
        sent.merge(s);
        got.merge(g);
        lat.extend(l);
    }
    let t1 = now();
    sent.check(got, 1);
    report(a, got.count, t1 - t0, &mut lat, c0);
}

fn main() {
    let a = args();
    runtime().block_on(async {
        match a.workload.as_str() {
            _ if a.server => serve(a.port).await,
            "stream" => stream(&a).await.expect("stream"),
            "echo" => echo(&a).await,
            "connect" => one_by_one(&a, false, once).await,
            "idle" => one_by_one(&a, true, once).await,
            w => panic!("unknown workload {w}"),
        }
    });
    std::process::exit(0);
}
