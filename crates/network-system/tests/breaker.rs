//! Circuit breakers over real sockets: in clients, connection pools and request pools, how they open,
//! probe and close, who sees it, and that a good peer beside the bad one notices nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use common::{echo, echo_on, leap, within};
use network_system::{
    Backoff, Balance, BreakerConfig, BreakerState, CircuitBreaker, Client, ConnectionPool,
    ErrorKind, PoolConfig, RequestPool, RequestPoolConfig, Server,
};
use tokio::net::TcpListener;
use tokio::sync::watch;

const SOON: Duration = Duration::from_millis(5);
/// No test takes as long, and no connection minds a leap of it.
const OPEN: Duration = Duration::from_secs(20);

/// An address of this machine that nobody listens on.
fn free_address() -> String {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("tcp://{}", free.local_addr().unwrap())
}

/// Opens after three failures, for as long as is said.
fn config(open_for: Duration) -> BreakerConfig {
    let mut config = BreakerConfig::default();
    config.failures = 3;
    config.open_for = open_for;
    config
}

/// Answers requests with its name.
async fn named(address: &str, name: &'static str) -> Server {
    let server = Server::builder()
        .listen(address)
        .envelope(true)
        .on_request(move |_session, request| async move { request.reply(name).await })
        .start();
    within(server).await.unwrap()
}

fn client(address: &str, breaker: impl Into<CircuitBreaker>) -> Client {
    let client = Client::builder(address)
        .envelope(true)
        .reconnect(Backoff::every(SOON))
        .circuit_breaker(breaker)
        .start();
    client.unwrap()
}

async fn until(states: &mut watch::Receiver<BreakerState>, wanted: BreakerState) {
    within(states.wait_for(|state| *state == wanted))
        .await
        .unwrap();
}

/// A peer that is as it should be, and must not notice anything.
struct Beside {
    client: Client,
    _server: Server,
}

impl Beside {
    async fn start() -> Self {
        let server = named("tcp://127.0.0.1:0", "good").await;
        let address = server.listening()[0].to_string();
        let client = client(&address, config(Duration::from_secs(3600)));
        let beside = Self {
            client,
            _server: server,
        };
        beside.still_works().await;
        beside
    }

    async fn still_works(&self) {
        for _ in 0..3 {
            let answer = within(self.client.request("?")).await.unwrap();
            assert_eq!(answer, "good");
        }
        let breaker = self.client.breaker().unwrap();
        let seen = breaker.statistics();
        assert_eq!((seen.failures, seen.refused, seen.opened), (0, 0, 0));
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert_eq!(self.client.statistics().connections_total, 1);
    }
}

#[tokio::test]
async fn a_client_fails_at_once_until_its_server_is_there() {
    let beside = Beside::start().await;
    let address = free_address();
    // it would be open for an hour, if the connection did not say more
    let client = client(&address, config(Duration::from_secs(3600)));
    let breaker = client.breaker().unwrap();
    let mut states = breaker.watch();
    client.send("kept").await.unwrap();
    // a request that waits for a connection need not wait for its timeout
    let error = within(client.request("?")).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::CircuitOpen, -604));
    until(&mut states, BreakerState::Open).await;
    for error in [
        within(client.send("x")).await.unwrap_err(),
        within(client.send_batch(vec!["x", "y"])).await.unwrap_err(),
        within(client.request("x")).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::CircuitOpen, "{error}");
        assert!(error.can_retry());
    }
    let seen = breaker.statistics();
    assert!(seen.failures >= 3 && seen.refused == 3, "{seen:?}");
    assert_eq!((seen.successes, seen.opened), (0, 1));
    assert_eq!(client.offline_queue().0, 1, "what was kept is kept");

    let (told, mut came) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::builder()
        .listen(&address)
        .envelope(true)
        .on_message(move |_, message| {
            let _ = told.send(message);
            async {}
        })
        .on_request(|_, request| async move { request.reply("here").await })
        .start();
    let server = within(server).await.unwrap();
    until(&mut states, BreakerState::HalfOpen).await;
    assert_eq!(within(came.recv()).await.unwrap(), "kept");
    client.send("passes").await.unwrap();
    assert_eq!(within(came.recv()).await.unwrap(), "passes");
    assert_eq!(
        breaker.state(),
        BreakerState::HalfOpen,
        "a message proves nothing"
    );
    assert_eq!(within(client.request("?")).await.unwrap(), "here");
    until(&mut states, BreakerState::Closed).await;
    assert_eq!(breaker.statistics().opened, 1);

    // and again
    within(server.shutdown(Duration::from_secs(5))).await;
    until(&mut states, BreakerState::Open).await;
    beside.still_works().await;
}

#[tokio::test]
async fn without_the_envelope_a_connection_that_proves_itself_closes_it() {
    let address = free_address();
    let client = Client::builder(&address)
        .reconnect(Backoff::every(SOON))
        .circuit_breaker(config(Duration::from_secs(3600)))
        .start()
        .unwrap();
    let mut states = client.breaker().unwrap().watch();
    until(&mut states, BreakerState::Open).await;
    assert!(client.send("x").await.is_err());
    let _echo = echo_on(&[&address], |b| b).await;
    until(&mut states, BreakerState::Closed).await;
    client.send("x").await.unwrap();
}

/// Its machine accepts, and then there is nobody: a proxy without its server, say.
#[tokio::test]
async fn connections_that_end_at_once_open_it() {
    let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tcp://{}", door.local_addr().unwrap());
    let turning = tokio::spawn(async move {
        loop {
            drop(door.accept().await.unwrap());
        }
    });
    let client = client(&address, config(Duration::from_secs(3600)));
    until(&mut client.breaker().unwrap().watch(), BreakerState::Open).await;
    let error = client.send("x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CircuitOpen);
    assert!(client.statistics().connections_total >= 3);
    turning.abort();
}

/// A server that is connected and does not answer; the probes find out when it does again.
#[tokio::test]
async fn requests_without_answers_open_it_and_probes_close_it() {
    let beside = Beside::start().await;
    let answers = Arc::new(AtomicBool::new(false));
    let hangs = answers.clone();
    // one that is dropped would be answered with a failure
    let (keep, _kept) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .envelope(true)
        .on_request(move |_, request| {
            let (answers, keep) = (hangs.load(Relaxed), keep.clone());
            async move {
                if answers {
                    return request.reply("awake").await;
                }
                let _ = keep.send(request);
                Ok(())
            }
        })
        .start();
    let server = within(server).await.unwrap();
    let client = client(server.listening()[0].as_str(), config(OPEN));
    let breaker = client.breaker().unwrap();
    within(client.connected()).await.unwrap();
    let ask = async || client.request_within("?", Duration::from_millis(20)).await;
    for _ in 0..3 {
        assert_eq!(ask().await.unwrap_err().kind(), ErrorKind::Timeout);
    }
    assert_eq!(breaker.statistics().opened, 1);
    assert!(client.state().is_connected(), "it is nothing but slow");
    assert_eq!(ask().await.unwrap_err().kind(), ErrorKind::CircuitOpen);
    let error = client.send("x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CircuitOpen, "fails, too");
    // it is half open for the probe, which fails
    leap(OPEN).await;
    assert_eq!(ask().await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(breaker.statistics().opened, 2);
    assert!(breaker.is_open());
    answers.store(true, Relaxed);
    let mut states = breaker.watch();
    leap(OPEN).await;
    assert_eq!(within(client.request("?")).await.unwrap(), "awake");
    assert_eq!(breaker.state(), BreakerState::HalfOpen, "one of two");
    assert_eq!(within(client.request("?")).await.unwrap(), "awake");
    until(&mut states, BreakerState::Closed).await;
    assert_eq!(within(client.request("?")).await.unwrap(), "awake");
    assert_eq!(breaker.statistics().opened, 2);
    assert_eq!(client.statistics().connections_total, 1);
    beside.still_works().await;
}

/// The peer's own errors are answers: it is well.
#[tokio::test]
async fn an_answer_that_is_an_error_does_not_open_it() {
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .envelope(true)
        .on_request(|_, request| async move { request.fail(ErrorKind::Timeout.code(), "no") })
        .start();
    let server = within(server).await.unwrap();
    let client = client(server.listening()[0].as_str(), config(OPEN));
    for _ in 0..9 {
        let error = within(client.request("?")).await.unwrap_err();
        assert_eq!(error.remote_code(), Some(ErrorKind::Timeout.code()));
    }
    let breaker = client.breaker().unwrap();
    assert_eq!(breaker.state(), BreakerState::Closed);
    assert!(breaker.statistics().successes >= 9);
}

#[tokio::test]
async fn clients_may_share_one() {
    let address = free_address();
    let breaker = CircuitBreaker::new(config(Duration::from_secs(3600)));
    let one = client(&address, breaker.clone());
    until(&mut breaker.watch(), BreakerState::Open).await;
    let other = client(&address, breaker.clone());
    let error = other.send("x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CircuitOpen);
    // the end of one of them is no failure of the server's
    let before = breaker.statistics().opened;
    within(one.close(Duration::from_secs(5))).await;
    let _server = named(&address, "here").await;
    until(&mut breaker.watch(), BreakerState::HalfOpen).await;
    assert_eq!(within(other.request("?")).await.unwrap(), "here");
    assert_eq!(breaker.state(), BreakerState::Closed);
    assert_eq!(breaker.statistics().opened, before);
}

#[tokio::test]
async fn a_pool_probes_one_address_and_lends_of_the_others() {
    let good = echo(|b| b).await;
    let bad = free_address();
    let mut pool_config = PoolConfig::default();
    pool_config.breaker = Some(config(OPEN));
    let pool = ConnectionPool::new(pool_config).unwrap();
    let works = async || {
        let mut lent = within(pool.acquire(good.url())).await.unwrap();
        assert_eq!(lent.exchange("?").await.unwrap(), "?");
    };
    let breaker = pool.breaker(&bad).unwrap();
    let mut states = breaker.watch();
    for _ in 0..3 {
        let error = within(pool.acquire(&bad)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
    works().await;
    until(&mut states, BreakerState::Open).await;
    let error = within(pool.acquire(&bad)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CircuitOpen);
    // the probe fails, and it is open again
    assert_eq!(breaker.statistics().opened, 1);
    leap(OPEN).await;
    let error = within(pool.acquire(&bad)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(breaker.statistics().opened, 2);
    works().await;

    let back = echo_on(&[&bad], |b| b).await;
    assert!(pool.acquire(&bad).await.is_err(), "its time is not over");
    leap(OPEN).await;
    let first = within(pool.acquire(&bad)).await.unwrap();
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    let second = within(pool.acquire(&bad)).await.unwrap();
    until(&mut states, BreakerState::Closed).await;
    drop((first, second, back));
    works().await;
    let seen = pool.breaker(good.url()).unwrap().statistics();
    assert_eq!((seen.failures, seen.refused, seen.opened), (0, 0, 0));
    assert_eq!(seen.successes, 1, "one connection, lent again and again");
    // three, a refusal, a probe, and a refusal again
    assert_eq!(pool.statistics().failed, 6);
}

#[tokio::test]
async fn a_request_pool_leaves_one_address_alone_and_comes_back() {
    let good = named("tcp://127.0.0.1:0", "good").await;
    let (bad, good_url) = (free_address(), good.listening()[0].to_string());
    let mut pool_config = RequestPoolConfig::default();
    pool_config.breaker = Some(config(OPEN));
    pool_config.client.reconnect = Backoff::every(SOON);
    pool_config.balancer.balance = Balance::RoundRobin;
    // the breaker alone
    pool_config.balancer.max_ejected = 0.0;
    let pool = RequestPool::new([bad.clone(), good_url.clone()], pool_config).unwrap();
    let breaker = pool.breaker(&bad).unwrap();
    let mut states = breaker.watch();
    let mut answers = 0;
    let mut refused = 0;
    within(async {
        while refused == 0 {
            match pool.request("?").await {
                Ok(answer) => {
                    assert_eq!(answer, "good");
                    answers += 1;
                }
                Err(error) => refused += u64::from(error.kind() == ErrorKind::CircuitOpen),
            }
        }
    })
    .await;
    until(&mut states, BreakerState::Open).await;
    let now = pool.statistics();
    assert_eq!((now.refused, now.failures), (1, 4));
    assert_eq!(now.addresses[0].breaker, Some(BreakerState::Open));
    assert_eq!(
        (now.addresses[0].requests, now.addresses[0].failures),
        (4, 4)
    );

    let _back = named(&bad, "back").await;
    let mut back = 0;
    leap(OPEN).await;
    within(async {
        while breaker.state() != BreakerState::Closed {
            match pool.request("?").await {
                Ok(answer) if answer == "back" => back += 1,
                Ok(_) => answers += 1,
                Err(_) => tokio::time::sleep(SOON).await,
            }
        }
    })
    .await;
    assert_eq!(back, 2, "the probes closed it");
    let now = pool.statistics();
    assert_eq!(now.addresses[0].breaker, Some(BreakerState::Closed));
    let at_good = &now.addresses[1];
    assert_eq!((at_good.requests, at_good.failures), (answers, 0));
    let seen = pool.breaker(&good_url).unwrap().statistics();
    assert_eq!(
        (seen.successes, seen.failures, seen.opened),
        (answers, 0, 0)
    );
    assert!(pool.breaker("tcp://127.0.0.1:1").is_none());
}
