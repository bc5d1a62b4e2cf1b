//! Connections that are lent, over real sockets: limits, the order of waiters, and what becomes of
//! connections that break, age, or belong to a server that is gone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::time::Duration;

use common::{echo, echo_on, eventually, leap, within};
use network_system::{BreakerState, ConnectionPool, ErrorKind, PoolConfig};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

fn config(most: usize) -> PoolConfig {
    let mut config = PoolConfig::default();
    config.max_per_address = most;
    config
}

#[tokio::test]
async fn a_returned_connection_is_lent_again() {
    let echo = echo(|b| b).await;
    let url = echo.server.listening()[0].to_string();
    let pool = ConnectionPool::new(config(2)).unwrap();
    for n in 0..5u8 {
        let mut lent = within(pool.acquire(&url)).await.unwrap();
        assert_eq!(lent.exchange([n]).await.unwrap(), [n]);
    }
    let statistics = pool.statistics();
    assert_eq!((statistics.created, statistics.acquired), (1, 5));
    assert_eq!((statistics.idle, statistics.in_use), (1, 0));
}

#[tokio::test]
async fn the_limit_holds_and_waiters_are_served_in_order() {
    let echo = echo(|b| b).await;
    let url = echo.server.listening()[0].to_string();
    let pool = ConnectionPool::new(config(1)).unwrap();
    let lent = pool.acquire(&url).await.unwrap();
    let error = pool.acquire_within(&url, Duration::from_millis(20)).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Timeout);
    let (served, mut order) = tokio::sync::mpsc::unbounded_channel();
    for n in 0..5 {
        let (own, url, served) = (pool.clone(), url.clone(), served.clone());
        tokio::spawn(async move {
            let lent = own.acquire(&url).await.unwrap();
            served.send(n).unwrap();
            drop(lent);
        });
        let waiting = n + 1;
        eventually("it waits", || pool.statistics().waiting == waiting).await;
    }
    drop(lent);
    for n in 0..5 {
        assert_eq!(within(order.recv()).await, Some(n));
    }
    assert_eq!(pool.statistics().created, 1);
    assert_eq!(pool.statistics().timeouts, 1);
}

#[tokio::test]
async fn what_the_peer_has_closed_is_not_lent() {
    let first = echo(|b| b).await;
    let url = first.server.listening()[0].to_string();
    let pool = ConnectionPool::new(config(2)).unwrap();
    drop(pool.acquire(&url).await.unwrap());
    first.server.shutdown(Duration::from_secs(1)).await;
    let _second = echo_on(&[&url], |b| b).await;
    let mut lent = within(pool.acquire(&url)).await.unwrap();
    assert_eq!(lent.exchange("again").await.unwrap(), "again");
    assert_eq!(pool.statistics().discarded_broken, 1);
}

#[tokio::test]
async fn an_exchange_that_is_cancelled_ends_its_connection() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("tcp://{}", silent.local_addr().unwrap());
    let pool = ConnectionPool::new(config(2)).unwrap();
    let mut lent = pool.acquire(&url).await.unwrap();
    let (mut peer, _) = silent.accept().await.unwrap();
    let asked = tokio::time::timeout(Duration::from_millis(20), lent.exchange("?")).await;
    assert!(asked.is_err());
    drop(lent);
    let mut all = Vec::new();
    within(peer.read_to_end(&mut all)).await.unwrap();
    assert_eq!(all, common::frame(b"?"));
    assert_eq!(pool.statistics().discarded_by_user, 1);
    assert_eq!(pool.statistics().open, 0);
}

#[tokio::test]
async fn what_nobody_has_read_ends_the_connection() {
    let talker = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("tcp://{}", talker.local_addr().unwrap());
    let pool = ConnectionPool::new(config(2)).unwrap();
    let mut lent = pool.acquire(&url).await.unwrap();
    let (mut peer, _) = talker.accept().await.unwrap();
    // a whole message and a part of one, in one write
    let mut bytes = common::frame(b"one");
    bytes.extend_from_slice(&common::frame(b"two")[..5]);
    peer.write_all(&bytes).await.unwrap();
    assert_eq!(within(lent.receive()).await.unwrap().unwrap(), "one");
    drop(lent);
    let now = pool.statistics();
    assert_eq!((now.discarded_broken, now.open), (1, 0));
}

#[tokio::test]
async fn a_dead_address_opens_its_breaker_and_leaks_no_room() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("tcp://{}", gone.local_addr().unwrap());
    drop(gone);
    let pool = ConnectionPool::new(config(1)).unwrap();
    for _ in 0..5 {
        let error = within(pool.acquire(&url)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
    let error = pool.acquire(&url).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::CircuitOpen, -604));
    assert_eq!(pool.breaker(&url).unwrap().state(), BreakerState::Open);
    assert_eq!((pool.statistics().open, pool.statistics().failed), (0, 6));
}

#[tokio::test]
async fn idle_ones_expire_and_warm_ones_stay() {
    let echo = echo(|b| b).await;
    let url = echo.server.listening()[0].to_string();
    let mut config = config(3);
    config.idle_timeout = Duration::from_millis(30);
    config.check_interval = Duration::from_millis(10);
    let pool = ConnectionPool::new(config).unwrap();
    drop(pool.acquire(&url).await.unwrap());
    eventually("it expires", || pool.statistics().open == 0).await;
    assert_eq!(pool.statistics().discarded_idle, 1);
    pool.keep_warm(&url, 2).unwrap();
    eventually("two are open again and again", || {
        let now = pool.statistics();
        now.discarded_idle > 3 && now.idle == 2
    })
    .await;
}

/// A peer without this library that accepts connections and reads until they end.
struct Reader {
    url: String,
    listener: TcpListener,
}

impl Reader {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("tcp://{}", listener.local_addr().unwrap());
        Self { url, listener }
    }

    async fn accept(&self) -> tokio::net::TcpStream {
        within(self.listener.accept()).await.unwrap().0
    }
}

/// Nothing but the end has come from the pool.
async fn assert_ended(mut peer: tokio::net::TcpStream) {
    let (rest, end) = common::read_to_end(&mut peer).await;
    assert!(rest.is_empty() && end.is_ok(), "{rest:?} {end:?}");
}

const MINUTE: Duration = Duration::from_secs(60);

/// Ages and idle times of hours, and a background task that comes when it is told.
fn aging(check_interval: Duration) -> PoolConfig {
    let mut config = config(2);
    config.idle_timeout = 600 * MINUTE;
    config.check_interval = check_interval;
    config
}

/// The maximum age is an hour, give or take a tenth: nobody gets an older one.
#[tokio::test]
async fn one_at_its_maximum_age_is_not_lent() {
    let peer = Reader::start().await;
    let pool = ConnectionPool::new(aging(6000 * MINUTE)).unwrap();
    drop(within(pool.acquire(&peer.url)).await.unwrap());
    let first = peer.accept().await;
    leap(53 * MINUTE).await;
    drop(within(pool.acquire(&peer.url)).await.unwrap());
    let now = pool.statistics();
    assert_eq!((now.created, now.discarded_age), (1, 0), "not yet");
    leap(14 * MINUTE).await;
    let lent = within(pool.acquire(&peer.url)).await.unwrap();
    let _second = peer.accept().await;
    assert_ended(first).await;
    let now = pool.statistics();
    assert_eq!((now.created, now.discarded_age), (2, 1));
    assert_eq!((now.open, now.in_use), (1, 1));
    drop(lent);
}

/// One that is lent stays with its user, whatever its age, and is not kept when it comes back.
#[tokio::test]
async fn one_that_grows_too_old_while_it_is_lent_is_not_kept() {
    let peer = Reader::start().await;
    let pool = ConnectionPool::new(aging(MINUTE)).unwrap();
    let mut lent = within(pool.acquire(&peer.url)).await.unwrap();
    let mut first = peer.accept().await;
    leap(67 * MINUTE).await;
    lent.send("still mine").await.unwrap();
    lent.flush().await.unwrap();
    let message = within(common::read_frame(&mut first)).await.unwrap();
    assert_eq!(message.unwrap(), b"still mine");
    drop(lent);
    assert_ended(first).await;
    let now = pool.statistics();
    assert_eq!((now.discarded_age, now.open), (1, 0));
}

/// The background task ends those that nobody asks for.
#[tokio::test]
async fn idle_ones_end_at_their_maximum_age_by_themselves() {
    let peer = Reader::start().await;
    let pool = ConnectionPool::new(aging(MINUTE)).unwrap();
    drop(within(pool.acquire(&peer.url)).await.unwrap());
    let first = peer.accept().await;
    leap(67 * MINUTE).await;
    assert_ended(first).await;
    let now = pool.statistics();
    assert_eq!((now.discarded_age, now.discarded_idle, now.open), (1, 0, 0));
}

/// At the limit over all addresses the oldest idle one makes room, and one that is lent never does.
#[tokio::test]
async fn an_idle_one_makes_room_for_another_address() {
    let (a, b, c) = (
        Reader::start().await,
        Reader::start().await,
        Reader::start().await,
    );
    let mut config = config(9);
    config.max_total = 3;
    let pool = ConnectionPool::new(config).unwrap();
    let two = (
        within(pool.acquire(&a.url)).await.unwrap(),
        within(pool.acquire(&a.url)).await.unwrap(),
    );
    let (oldest, newer) = (a.accept().await, a.accept().await);
    drop(two);
    let of_b = within(pool.acquire(&b.url)).await.unwrap();
    let mut at_b = b.accept().await;
    let of_c = within(pool.acquire(&c.url)).await.unwrap();
    let _at_c = c.accept().await;
    assert_ended(oldest).await;
    assert_eq!(pool.statistics().discarded_evicted, 1);
    let of_a = within(pool.acquire(&a.url)).await.unwrap();
    let now = pool.statistics();
    assert_eq!((now.open, now.idle, now.created), (3, 0, 4));
    // nothing is idle: who comes now waits, until something is
    let waits = tokio::spawn({
        let (pool, url) = (pool.clone(), c.url.clone());
        async move { pool.acquire(&url).await }
    });
    eventually("it waits", || pool.statistics().waiting == 1).await;
    drop(of_a);
    let more_of_c = within(waits).await.unwrap().unwrap();
    assert_ended(newer).await;
    assert_eq!(pool.statistics().discarded_evicted, 2);
    let mut of_b = of_b;
    of_b.send("untouched").await.unwrap();
    of_b.flush().await.unwrap();
    let message = within(common::read_frame(&mut at_b)).await.unwrap();
    assert_eq!(message.unwrap(), b"untouched");
    drop((of_b, of_c, more_of_c));
}

/// What breaks while nobody uses it is noticed before anybody asks for it.
#[tokio::test]
async fn the_background_task_finds_what_has_broken() {
    let peer = Reader::start().await;
    let mut config = config(3);
    config.check_interval = Duration::from_millis(5);
    let pool = ConnectionPool::new(config).unwrap();
    let three = (
        within(pool.acquire(&peer.url)).await.unwrap(),
        within(pool.acquire(&peer.url)).await.unwrap(),
        within(pool.acquire(&peer.url)).await.unwrap(),
    );
    let (ends, mut talks, _well) = (
        peer.accept().await,
        peer.accept().await,
        peer.accept().await,
    );
    drop(three);
    assert_eq!(pool.statistics().idle, 3);
    drop(ends);
    talks.write_all(&common::frame(b"unasked")).await.unwrap();
    eventually("two are gone", || pool.statistics().discarded_broken == 2).await;
    assert_ended(talks).await;
    let now = pool.statistics();
    assert_eq!((now.open, now.idle, now.created), (1, 1, 3));
}

/// With the envelope an idle connection is asked whether it is there: one that answers stays, one that
/// does not is closed.
#[tokio::test]
async fn idle_ones_are_pinged() {
    let echo = echo(|b| b.envelope(true)).await;
    let url = echo.server.listening()[0].to_string();
    let silent = Reader::start().await;
    let mut config = config(1);
    config.check_interval = Duration::from_millis(5);
    config.client.session.envelope = true;
    config.client.session.heartbeat.interval = Some(Duration::from_millis(40));
    let pool = ConnectionPool::new(config).unwrap();
    let mut lent = within(pool.acquire(&url)).await.unwrap();
    assert_eq!(lent.exchange("?").await.unwrap(), "?");
    drop(lent);
    drop(within(pool.acquire(&silent.url)).await.unwrap());
    let mut peer = silent.accept().await;
    // a hello, as the protocol has it, and then not a word
    let hello = b"\x00NSE1";
    peer.write_all(&common::frame(hello)).await.unwrap();
    let sent = within(common::read_frame(&mut peer)).await.unwrap();
    assert_eq!(sent.unwrap(), hello);
    // asked twice
    for _ in 0..2 {
        let ping = within(common::read_frame(&mut peer)).await.unwrap();
        assert_eq!(ping.unwrap()[0], 0x50, "a ping");
    }
    assert_ended(peer).await;
    let now = pool.statistics();
    assert_eq!((now.discarded_broken, now.open, now.idle), (1, 1, 1));
    // the other one has lived through as much
    let mut lent = within(pool.acquire(&url)).await.unwrap();
    assert_eq!(lent.exchange("!").await.unwrap(), "!");
    assert_eq!(echo.server.statistics().connections_total, 1);
}

#[tokio::test]
async fn closing_waits_for_what_is_lent() {
    let echo = echo(|b| b).await;
    let url = echo.server.listening()[0].to_string();
    let pool = ConnectionPool::new(config(3)).unwrap();
    let lent = pool.acquire(&url).await.unwrap();
    assert!(!pool.close(Duration::from_millis(10)).await, "one is out");
    let error = pool.acquire(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionClosed);
    let closing = tokio::spawn({
        let pool = pool.clone();
        async move { pool.close(common::LIMIT).await }
    });
    drop(lent);
    assert!(within(closing).await.unwrap());
    assert_eq!(pool.statistics().open, 0);
}

/// Who waits for a connection, or makes one, is told when the pool is closed.
#[tokio::test]
async fn closing_ends_calls_that_wait_or_connect() {
    // its backlog takes connections, and then nobody answers the handshake
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("tcp://{}?pipeline=true", silent.local_addr().unwrap());
    let pool = ConnectionPool::new(config(1)).unwrap();
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let (pool, url) = (pool.clone(), url.clone());
            tokio::spawn(async move { pool.acquire_within(&url, 2 * common::LIMIT).await })
        })
        .collect();
    let (_peer, _) = within(silent.accept()).await.unwrap();
    eventually("two wait for the one", || pool.statistics().waiting == 2).await;
    assert!(within(pool.close(common::LIMIT)).await, "nothing is out");
    for call in calls {
        let error = within(call).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionClosed);
    }
    let now = pool.statistics();
    assert_eq!((now.open, now.waiting, now.created), (0, 0, 0));
}

/// An echo server without this library: length prefixes on asyncio.
const PYTHON: &str = "
import asyncio
async def serve(reader, writer):
    try:
        while True:
            head = await reader.readexactly(4)
            body = await reader.readexactly(int.from_bytes(head, 'big'))
            writer.write(head + body)
            await writer.drain()
    except asyncio.IncompleteReadError:
        writer.close()
async def main():
    server = await asyncio.start_server(serve, '127.0.0.1', 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
";

#[tokio::test]
async fn python_is_killed_while_its_connections_are_lent_and_idle() {
    let mut python = tokio::process::Command::new("python3")
        .args(["-c", PYTHON])
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut printed = BufReader::new(python.stdout.take().unwrap()).lines();
    let port = within(printed.next_line()).await.unwrap().unwrap();
    let url = format!("tcp://127.0.0.1:{port}");
    let pool = ConnectionPool::new(config(4)).unwrap();
    let calls: Vec<_> = (0..40u8)
        .map(|n| {
            let (pool, url) = (pool.clone(), url.clone());
            tokio::spawn(async move {
                let mut lent = pool.acquire(&url).await.unwrap();
                assert_eq!(lent.exchange([n; 99]).await.unwrap(), [n; 99]);
            })
        })
        .collect();
    for call in calls {
        within(call).await.unwrap();
    }
    let before = pool.statistics();
    assert_eq!((before.acquired, before.in_use), (40, 0));
    assert!((1..=4).contains(&before.created), "{before:?}");
    let mut lent = within(pool.acquire(&url)).await.unwrap();
    python.kill().await.unwrap();
    within(lent.exchange("too late")).await.unwrap_err();
    drop(lent);
    let error = within(pool.acquire(&url)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_guard_may_outlive_its_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (pool, lent, echo) = runtime.block_on(async {
        let echo = echo(|b| b).await;
        let url = echo.server.listening()[0].to_string();
        let pool = ConnectionPool::new(config(3)).unwrap();
        let lent = pool.acquire(&url).await.unwrap();
        (pool, lent, echo)
    });
    drop(echo);
    runtime.shutdown_background();
    drop(lent);
    assert_eq!(pool.statistics().in_use, 0);
}
