//! Requests over several connections to several servers, some of which fail, hang or come back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{eventually, within};
use network_system::config::Backoff;
use network_system::{Balance, BreakerState, ErrorKind, RequestPool, RequestPoolConfig, Server};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

/// Answers requests with its name.
async fn named(address: &str, name: &'static str) -> Server {
    Server::builder()
        .listen(address)
        .envelope(true)
        .on_request(move |_session, request| async move { request.reply(name).await })
        .start()
        .await
        .unwrap()
}

fn config() -> RequestPoolConfig {
    let mut config = RequestPoolConfig::default();
    config.client.reconnect = Backoff::every(Duration::from_millis(20));
    config
}

#[tokio::test]
async fn many_callers_share_few_connections_to_every_server() {
    let (a, b) = (
        named("tcp://127.0.0.1:0", "a").await,
        named("tcp://127.0.0.1:0", "b").await,
    );
    let urls = [&a, &b].map(|server| server.listening()[0].to_string());
    let pool = RequestPool::new(urls, config()).unwrap();
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.request("who?").await.unwrap() })
        })
        .collect();
    let mut answers = [0, 0];
    for call in calls {
        let answer = within(call).await.unwrap();
        answers[usize::from(answer == "b")] += 1;
    }
    assert!(answers[0] > 0 && answers[1] > 0, "{answers:?}");
    assert_eq!(
        a.statistics().connections_total + b.statistics().connections_total,
        4
    );
}

#[tokio::test]
async fn a_dead_server_is_gone_round_and_found_again() {
    let (a, b) = (
        named("tcp://127.0.0.1:0", "a").await,
        named("tcp://127.0.0.1:0", "b").await,
    );
    let urls = [&a, &b].map(|server| server.listening()[0].to_string());
    let mut config = config();
    config.balancer.ejection = Duration::from_millis(50);
    config.breaker.as_mut().unwrap().open_for = Duration::from_millis(50);
    let pool = RequestPool::new(urls.clone(), config).unwrap();
    within(pool.request("who?")).await.unwrap();
    a.shutdown(Duration::from_secs(1)).await;
    for _ in 0..5 {
        let answer = within(pool.request_idempotent("who?")).await.unwrap();
        assert_eq!(answer, "b");
    }
    let _again = named(&urls[0], "again").await;
    within(async {
        while pool.request("who?").await.is_ok_and(|answer| answer == "b")
            || pool.request("who?").await.is_err()
        {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_second_request_goes_round_a_server_that_hangs() {
    let hangs = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let works = named("tcp://127.0.0.1:0", "works").await;
    let urls = [
        format!("tcp://{}", hangs.local_addr().unwrap()),
        works.listening()[0].to_string(),
    ];
    let mut config = config();
    config.hedge_after = Some(Duration::from_millis(10));
    config.client.session.request_timeout = common::LIMIT;
    let pool = RequestPool::new(urls, config).unwrap();
    let start = Instant::now();
    for _ in 0..8 {
        let answer = within(pool.request_idempotent("who?")).await.unwrap();
        assert_eq!(answer, "works");
    }
    let hedges = pool.statistics().hedges;
    assert!((1..=8).contains(&hedges), "{hedges}");
    assert!(start.elapsed() < common::LIMIT, "nobody waited for the one");
}

/// A server that holds every request until it is told to answer.
async fn slow() -> (Server, watch::Receiver<usize>, Arc<Notify>) {
    let (count, asked) = watch::channel(0);
    let go = Arc::new(Notify::new());
    let wait = go.clone();
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .envelope(true)
        .on_request(move |_session, request| {
            count.send_modify(|asked| *asked += 1);
            let wait = wait.clone();
            async move {
                tokio::spawn(async move {
                    wait.notified().await;
                    request.reply("late").await
                });
            }
        })
        .start();
    (within(server).await.unwrap(), asked, go)
}

#[tokio::test]
async fn closing_waits_for_what_was_asked_and_takes_no_more() {
    let (server, mut asked, go) = slow().await;
    let pool = RequestPool::new([server.listening()[0].as_str()], config()).unwrap();
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.request("now?").await })
        })
        .collect();
    within(asked.wait_for(|asked| *asked == 3)).await.unwrap();
    let closing = tokio::spawn({
        let pool = pool.clone();
        async move { pool.close(common::LIMIT).await }
    });
    let mut refusals = 0;
    let error = loop {
        // until the other task has begun to close it, it takes requests
        tokio::task::yield_now().await;
        let mut asked = Box::pin(pool.request("more?"));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        if let std::task::Poll::Ready(result) = asked.as_mut().poll(&mut cx) {
            refusals += 1;
            break result.unwrap_err();
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionClosed);
    assert!(error.to_string().contains("the pool is closed"), "{error}");
    let now = pool.statistics();
    assert_eq!((now.in_use, now.refused, now.failures), (3, refusals, 1));
    assert!(now.open > 0 && !closing.is_finished(), "it waits");
    go.notify_waiters();
    for call in calls {
        assert_eq!(within(call).await.unwrap().unwrap(), "late");
    }
    assert!(within(closing).await.unwrap(), "all had their answers");
    let now = pool.statistics();
    assert_eq!((now.in_use, now.open, now.addresses[0].failures), (0, 0, 0));
    eventually("the server has lost them", || server.sessions().is_empty()).await;
    assert_eq!(common::ended(&server, "network"), 0, "in good order");
    assert!(within(pool.close(Duration::ZERO)).await, "and again");
}

#[tokio::test]
async fn closing_ends_what_has_no_answer_in_time() {
    let (server, mut asked, _go) = slow().await;
    let pool = RequestPool::new([server.listening()[0].as_str()], config()).unwrap();
    let call = tokio::spawn({
        let pool = pool.clone();
        async move { pool.request("now?").await }
    });
    within(asked.wait_for(|asked| *asked == 1)).await.unwrap();
    assert!(!within(pool.close(Duration::from_millis(20))).await);
    let error = within(call).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionClosed);
    assert_eq!(pool.statistics().in_use, 0);
}

/// The numbers of a pool in which one address is good, and one is not.
#[tokio::test]
async fn the_statistics_tell_the_addresses_apart() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bad = format!("tcp://{}", gone.local_addr().unwrap());
    drop(gone);
    let works = named("tcp://127.0.0.1:0", "works").await;
    let good = works.listening()[0].to_string();
    let mut config = config();
    config.balancer.balance = Balance::RoundRobin;
    config.balancer.failures = 2;
    config.breaker.as_mut().unwrap().failures = 2;
    config.backoff = Backoff::every(Duration::from_millis(1));
    let pool = RequestPool::new([bad.as_str(), good.as_str()], config).unwrap();
    let before = pool.statistics();
    assert_eq!((before.requests, before.failures, before.in_use), (0, 0, 0));
    let mut made = 0;
    within(async {
        while !pool.statistics().addresses[0].ejected {
            assert_eq!(pool.request_idempotent("?").await.unwrap(), "works");
            made += 1;
        }
    })
    .await;
    let now = pool.statistics();
    assert_eq!((now.requests, now.failures, now.refused), (made, 0, 0));
    assert_eq!(now.hedges, 0);
    let (at_bad, at_good) = (&now.addresses[0], &now.addresses[1]);
    assert_eq!((&*at_bad.address, at_bad.open), (bad.as_str(), 0));
    assert_eq!(at_bad.breaker, Some(BreakerState::Open));
    assert_eq!(pool.breaker(&bad).unwrap().statistics().opened, 1);
    assert_eq!((at_bad.failures, at_bad.requests), (2, 2));
    assert!(!at_good.ejected && at_good.failures == 0, "{at_good:?}");
    assert_eq!(at_good.breaker, Some(BreakerState::Closed));
    assert_eq!((at_good.retries, now.retries), (2, 2));
    assert_eq!(at_good.requests, made, "each was answered there");
    eventually("both lines to it are up", || pool.statistics().open == 2).await;
}

#[tokio::test]
async fn a_server_that_is_down_opens_the_breaker() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("tcp://{}", gone.local_addr().unwrap());
    drop(gone);
    let pool = RequestPool::new([url], config()).unwrap();
    let mut last = None;
    eventually("it is known to be down", || {
        let call = std::pin::pin!(pool.request("who?"));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        if let std::task::Poll::Ready(result) = call.poll(&mut cx) {
            last = result.err().map(|error| error.kind());
        }
        last == Some(ErrorKind::CircuitOpen)
    })
    .await;
}
