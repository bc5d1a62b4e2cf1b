//! Requests over several connections to several servers, some of which fail, hang or come back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::time::{Duration, Instant};

use common::{eventually, within};
use network_system::config::Backoff;
use network_system::{ErrorKind, RequestPool, RequestPoolConfig, Server};
use tokio::net::TcpListener;

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
    assert!(start.elapsed() < common::LIMIT, "nobody waited for the one");
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
