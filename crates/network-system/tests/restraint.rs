//! What a session puts up with from its peer: silence, reading too slowly, sending too quickly, and
//! staying too long.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::time::Duration;

use common::paused::{HELLO, bytes, raw, seconds};
use common::{Healthy, echo, echo_on, frame, read_frame, read_to_end, round_trip, within};
use network_system::config::{RateExceeded, SessionLimits};
use network_system::{Client, CloseReason, ErrorKind, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Between two rounds of a client that must notice nothing.
const SECOND: Duration = Duration::from_secs(1);

fn limits(change: impl FnOnce(&mut SessionLimits)) -> SessionLimits {
    let mut limits = SessionLimits::default();
    change(&mut limits);
    limits
}

// ---- silence ----

#[tokio::test(start_paused = true)]
async fn a_first_byte_that_does_not_come() {
    let configure = |b: common::Builder| b.first_byte_timeout(Duration::from_secs(10));
    let mut echo = echo_on(&["memory://first-byte"], configure).await;
    let healthy = Healthy::over("memory://first-byte", SECOND).await;
    let mut talks = raw("memory://first-byte").await;
    talks.send(frame(b"hello")).await.unwrap();
    assert_eq!(bytes(&mut talks).await.unwrap(), frame(b"hello"));
    let began = Instant::now();
    let mut silent = raw("memory://first-byte").await;
    assert!(bytes(&mut silent).await.is_none());
    assert_eq!(seconds(began), 10);
    let end = echo.ends.recv().await.unwrap();
    assert!(matches!(end.reason, CloseReason::Silent), "{end:?}");
    let error = end.session.send("x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SessionExpired);
    healthy.finish().await;
    // who has said something may be silent for as long as the idle time
    tokio::time::sleep(Duration::from_secs(200)).await;
    talks.send(frame(b"again")).await.unwrap();
    assert_eq!(bytes(&mut talks).await.unwrap(), frame(b"again"));
}

/// By default a plain peer may let the server speak first, and only listen.
#[tokio::test(start_paused = true)]
async fn a_plain_peer_may_only_listen() {
    let server = Server::builder()
        .listen("memory://only-listens")
        .on_connect(|session| {
            let session = session.clone();
            tokio::spawn(async move {
                while session.send("tick").await.is_ok() {
                    tokio::time::sleep(Duration::from_secs(100)).await;
                }
            });
        })
        .start()
        .await
        .unwrap();
    let mut listens = raw("memory://only-listens").await;
    for _ in 0..20 {
        assert_eq!(bytes(&mut listens).await.unwrap(), frame(b"tick"));
    }
    assert_eq!(server.statistics().connections_active, 1);
}

/// A handler that keeps the peer waiting before it listens makes no silent peer.
#[tokio::test(start_paused = true)]
async fn who_is_not_listened_to_is_not_silent() {
    struct Slow;
    impl network_system::Handler for Slow {
        async fn on_connect(&self, _: &network_system::Session) -> network_system::Result<()> {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Ok(())
        }
        async fn on_message(
            &self,
            session: &network_system::Session,
            message: &network_system::MessageRef<'_>,
        ) -> network_system::Result<()> {
            session.send(message.to_message()).await
        }
    }
    let _server = Server::builder()
        .listen("memory://slow-connect")
        .first_byte_timeout(Duration::from_secs(10))
        .handler(Slow)
        .start()
        .await
        .unwrap();
    let mut peer = raw("memory://slow-connect").await;
    peer.send(frame(b"hello")).await.unwrap();
    assert_eq!(bytes(&mut peer).await.unwrap(), frame(b"hello"));
}

#[tokio::test(start_paused = true)]
async fn a_greeting_that_does_not_come() {
    let mut echo = echo_on(&["memory://no-hello"], |b| b.envelope(true)).await;
    let healthy = Healthy::over("memory://no-hello?envelope=true", SECOND).await;
    let mut talks = raw("memory://no-hello").await;
    talks.send(HELLO.to_vec()).await.unwrap();
    assert_eq!(bytes(&mut talks).await.unwrap(), HELLO);
    let began = Instant::now();
    let mut silent = raw("memory://no-hello").await;
    assert_eq!(bytes(&mut silent).await.unwrap(), HELLO);
    assert!(bytes(&mut silent).await.is_none());
    assert_eq!(seconds(began), 10);
    let end = echo.ends.recv().await.unwrap();
    assert!(matches!(end.reason, CloseReason::Silent), "{end:?}");
    talks.send(frame(b"\x10still here")).await.unwrap();
    assert_eq!(bytes(&mut talks).await.unwrap(), frame(b"\x10still here"));
    healthy.finish().await;
}

/// Heartbeats that are not answered end their connection, and no other.
#[tokio::test(start_paused = true)]
async fn a_dead_peer_beside_a_live_one() {
    let mut echo = echo_on(&["memory://dead-and-alive"], |b| b.envelope(true)).await;
    let client = Client::builder("memory://dead-and-alive?envelope=true");
    let client = client.connect().await.unwrap();
    let live = client.session().unwrap();
    let healthy = Healthy::over("memory://dead-and-alive?envelope=true", SECOND).await;
    let mut dead = raw("memory://dead-and-alive").await;
    dead.send(HELLO.to_vec()).await.unwrap();
    dead.flush().await.unwrap();
    let began = Instant::now();
    let end = echo.ends.recv().await.unwrap();
    assert!(matches!(end.reason, CloseReason::Heartbeat), "{end:?}");
    assert_eq!(seconds(began), 90);
    healthy.finish().await;
    assert!(live.close_reason().is_none());
    live.send("alive").await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(live.statistics().messages_in, 1);
}

// ---- slow readers ----

/// Keeps sending without being read, while messages go on to come in: not idle, but slow.
#[tokio::test(start_paused = true)]
async fn a_peer_that_talks_and_never_reads() {
    let (ended, mut ends) = mpsc::unbounded_channel();
    let server = Server::builder()
        .listen("memory://talks-only")
        .overflow(network_system::OverflowPolicy::DropOldest)
        .on_message(|session, _| async move { session.send(vec![0; 100_000]).await })
        .on_disconnect(move |session, reason| {
            let _ = ended.send((session.clone(), reason.clone()));
        })
        .start()
        .await
        .unwrap();
    let began = Instant::now();
    let mut peer = raw("memory://talks-only").await;
    let talk = tokio::spawn(async move {
        loop {
            let sent = peer.send(frame(b"more")).await;
            if sent.is_err() || peer.flush().await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let (session, reason) = ends.recv().await.unwrap();
    assert!(matches!(reason, CloseReason::SlowReader), "{reason:?}");
    // it takes some messages until more than the low mark waits
    assert!((60..70).contains(&seconds(began)), "{}", seconds(began));
    assert!(session.statistics().messages_dropped > 0);
    within(session.ended()).await;
    assert_eq!(common::ended(&server, "slow_reader"), 1);
    talk.await.unwrap();
}

/// Reads `size` bytes every `pause`, for `rounds`, of a server that has always more; whether it was
/// still there then.
async fn reads(name: &str, size: usize, pause: u64, rounds: usize) -> bool {
    let server = Server::builder()
        .listen(name)
        .idle_timeout(None)
        .on_message(
            |session, _| async move { while session.send(vec![0; 10_000]).await.is_ok() {} },
        )
        .start()
        .await
        .unwrap();
    let mut peer = raw(name).await;
    peer.send(frame(b"go")).await.unwrap();
    for _ in 0..rounds {
        let mut read = 0;
        while read < size {
            match peer.receive().await {
                Ok(Some(chunk)) => read += chunk.len(),
                _ => return false,
            }
        }
        tokio::time::sleep(Duration::from_secs(pause)).await;
    }
    server.statistics().connections_active == 1
}

/// Slow, but steady enough: more than the low mark (256 KiB) in each minute.
#[tokio::test(start_paused = true)]
async fn who_reads_enough_stays() {
    assert!(reads("memory://reads-enough", 400_000, 50, 30).await);
}

/// A drip is not enough.
#[tokio::test(start_paused = true)]
async fn who_reads_a_drip_goes() {
    assert!(!reads("memory://reads-a-drip", 1, 50, 30).await);
}

/// Over a real socket, beside a client that notices nothing.
#[tokio::test]
async fn a_slow_reader_of_a_socket() {
    let configure = |b: common::Builder| b.slow_reader_timeout(Duration::from_millis(300));
    let mut echo = echo(configure).await;
    let healthy = Healthy::start(echo.address()).await;
    let mut slow = echo.dial().await;
    let message = frame(&vec![7; 1 << 20]);
    let write = async {
        while slow.write_all(&message).await.is_ok() {}
        std::future::pending::<()>().await
    };
    tokio::select! {
        () = write => unreachable!("never ready"),
        reason = echo.next_end() => {
            assert!(matches!(reason, CloseReason::SlowReader), "{reason:?}");
        }
    }
    healthy.finish().await;
}

// ---- rates ----

#[tokio::test(start_paused = true)]
async fn more_messages_than_the_rate_wait() {
    let configure = |b: common::Builder| {
        b.idle_timeout(Duration::from_secs(5))
            .limits(limits(|limits| limits.messages_per_second = 10))
    };
    let mut echo = echo_on(&["memory://rate"], configure).await;
    let mut quick = raw("memory://rate").await;
    let mut steady = raw("memory://rate").await;
    let mut healthy = Healthy::over("memory://rate", SECOND).await;
    let began = Instant::now();
    // what is there at once is handled at once; the next has to wait for as long as that was too much
    quick.send(frame(b"x").repeat(200)).await.unwrap();
    quick.flush().await.unwrap();
    let mut came = 0;
    while came < 200 * 5 {
        came += bytes(&mut quick).await.unwrap().len();
    }
    assert_eq!(seconds(began), 0);
    quick.send(frame(b"y")).await.unwrap();
    quick.flush().await.unwrap();
    // another session has a rate of its own
    for _ in 0..30 {
        steady.send(frame(b"z")).await.unwrap();
        assert_eq!(bytes(&mut steady).await.unwrap(), frame(b"z"));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(seconds(began), 6);
    healthy.still_works().await;
    // much longer than the idle time, but that was not its fault
    assert_eq!(bytes(&mut quick).await.unwrap(), frame(b"y"));
    assert_eq!(seconds(began), 19);
    assert_eq!(echo.server.statistics().rate_pauses, 2);
    // one was idle
    assert_eq!(echo.server.statistics().connections_active, 2);
    let end = echo.ends.try_recv().unwrap();
    assert!(matches!(end.reason, CloseReason::Idle), "{end:?}");
    healthy.finish().await;
}

#[tokio::test]
async fn more_bytes_than_the_rate_is_the_end() {
    let configure = |b: common::Builder| {
        b.limits(limits(|limits| {
            limits.bytes_per_second = 100_000;
            limits.rate_exceeded = RateExceeded::Close;
        }))
    };
    let mut echo = echo(configure).await;
    let healthy = Healthy::start(echo.address()).await;
    let mut quick = echo.dial().await;
    round_trip(&mut quick, b"hello").await;
    let (mut input, mut output) = quick.split();
    let message = frame(&vec![0; 1 << 20]);
    let (_, reason) = tokio::join!(
        async {
            let _ = output.write_all(&message).await;
            read_to_end(&mut input).await
        },
        echo.next_end()
    );
    assert!(matches!(reason, CloseReason::Rate), "{reason:?}");
    assert_eq!(echo.ended("rate"), 1);
    healthy.finish().await;
}

/// Backpressure over a real socket: the sender is held up, and everything arrives.
#[tokio::test]
async fn more_bytes_than_the_rate_wait() {
    let configure = |b: common::Builder| {
        b.limits(limits(|limits| {
            limits.bytes_per_second = 20_000_000;
            limits.rate_burst = Duration::from_millis(50);
        }))
    };
    let echo = echo(configure).await;
    let healthy = Healthy::start(echo.address()).await;
    let mut quick = echo.dial().await;
    let (mut input, mut output) = quick.split();
    let message = frame(&vec![9; 100_000]);
    let began = std::time::Instant::now();
    let write = async {
        for _ in 0..60 {
            output.write_all(&message).await.unwrap();
        }
    };
    let read = async {
        for _ in 0..60 {
            let back = read_frame(&mut input).await.unwrap().unwrap();
            assert!(back == message[4..]);
        }
    };
    within(async { tokio::join!(write, read) }).await;
    // 6 MB at 20 MB/s, less the burst of 1 MB and what one read brings
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert!(echo.server.statistics().rate_pauses > 0);
    healthy.finish().await;
}

// ---- age ----

#[tokio::test(start_paused = true)]
async fn old_sessions_end_in_good_order() {
    let configure = |b: common::Builder| {
        b.envelope(true).limits(limits(|limits| {
            limits.max_age = Some(Duration::from_secs(1000));
            limits.max_age_jitter = 0.5;
        }))
    };
    let mut echo = echo_on(&["memory://old"], configure).await;
    let mut ages = Vec::new();
    for _ in 0..10 {
        let client = Client::builder("memory://old?envelope=true")
            .reconnect(network_system::Backoff::never())
            .connect()
            .await
            .unwrap();
        let session = client.session().unwrap();
        let began = Instant::now();
        // one that is in use all the time
        let end = loop {
            tokio::select! {
                end = echo.ends.recv() => break end.unwrap(),
                () = tokio::time::sleep(Duration::from_secs(1)) => {
                    let _ = client.send("in use").await;
                }
            }
        };
        assert!(matches!(end.reason, CloseReason::MaxAge), "{end:?}");
        assert!(end.reason.is_orderly());
        assert_eq!(end.session.statistics().messages_dropped, 0);
        session.ended().await;
        let reason = session.close_reason().unwrap();
        assert!(matches!(reason, CloseReason::Peer), "{reason:?}");
        ages.push(seconds(began));
    }
    assert!(
        ages.iter().all(|age| (500..=1001).contains(age)),
        "{ages:?}"
    );
    ages.dedup();
    assert!(ages.len() > 1, "{ages:?}");
}

/// What was received is answered, and the goaway comes before the end.
#[tokio::test(start_paused = true)]
async fn an_old_session_is_announced_to_end() {
    let configure = |b: common::Builder| {
        b.envelope(true).limits(limits(|limits| {
            limits.max_age = Some(Duration::from_secs(20));
            limits.max_age_jitter = 0.0;
        }))
    };
    let _echo = echo_on(&["memory://old-goaway"], configure).await;
    let mut peer = raw("memory://old-goaway").await;
    let began = Instant::now();
    peer.send(HELLO.to_vec()).await.unwrap();
    assert_eq!(bytes(&mut peer).await.unwrap(), HELLO);
    let goaway = bytes(&mut peer).await.unwrap();
    assert_eq!((goaway[4], seconds(began)), (0x70, 20));
    assert!(bytes(&mut peer).await.is_none());
}

/// A session that is too busy to keep a timer gets no older.
#[tokio::test]
async fn a_busy_session_is_not_forgotten() {
    let configure = |b: common::Builder| b.workers(1).max_age(Duration::from_millis(300));
    let mut echo = echo(configure).await;
    let mut busy = echo.dial().await;
    busy.set_nodelay(true).unwrap();
    let work = async {
        let mut byte = [0; 64];
        while busy.write_all(&frame(b"x")).await.is_ok() {
            if !matches!(busy.read(&mut byte).await, Ok(1..)) {
                break;
            }
        }
    };
    let ((), reason) = within(async { tokio::join!(work, echo.next_end()) }).await;
    assert!(matches!(reason, CloseReason::MaxAge), "{reason:?}");
}
