//! The HTTP client against our server, against others', and against those that misbehave.
#![cfg(all(feature = "http", feature = "tls", unix))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Redirect;
use axum::routing::{any, get, post};
use common::http::url;
use common::pki::Pki;
use common::programs::program;
use common::within;
use network_system::http::{HttpClient, HttpClientConfig};
use network_system::prelude::*;
use network_system::{BreakerConfig, BreakerState, RetryBudget};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

/// Fails as often as it is told, with that status, and says how often it was asked.
#[derive(Clone, Default)]
struct Failing(Arc<AtomicU32>);

impl Failing {
    async fn answer(self, Path((status, times)): Path<(u16, u32)>) -> (StatusCode, String) {
        let asked = self.0.fetch_add(1, Relaxed) + 1;
        let status = if asked > times { 200 } else { status };
        (StatusCode::from_u16(status).unwrap(), asked.to_string())
    }

    fn asked(&self) -> u32 {
        self.0.swap(0, Relaxed)
    }
}

fn router(failing: &Failing) -> Router {
    let failing = failing.clone();
    Router::new()
        .route("/hello", get(|| async { "hello" }))
        .route("/echo", post(|body: Bytes| async { body }))
        .route("/again", get(|| async { Redirect::temporary("/hello") }))
        .route(
            "/for-ever",
            get(|| async { Redirect::temporary("/for-ever") }),
        )
        .route("/large", get(|| async { "x".repeat(100_000) }))
        .route(
            "/fields",
            get(|fields: HeaderMap| async move { fields["x-one"].to_str().unwrap().to_owned() }),
        )
        .route("/never", get(std::future::pending::<&str>))
        .route(
            "/fails/{status}/{times}",
            any(move |path| failing.clone().answer(path)),
        )
}

async fn serve() -> (Server, Failing) {
    let failing = Failing::default();
    let server = Server::builder().listen("http://127.0.0.1:0");
    let server = server.http(router(&failing)).start().await.unwrap();
    (server, failing)
}

fn config() -> HttpClientConfig {
    let mut config = HttpClientConfig::default();
    config.backoff.initial = Duration::from_millis(1);
    config
}

async fn text(client: &HttpClient, url: &str) -> Result<String> {
    within(async { client.get(url).send().await?.ok()?.text().await }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_asks() {
    let (server, _) = serve().await;
    let mut http2 = config();
    http2.http2_without_asking = true;
    for (config, version) in [(config(), 11), (http2, 20)] {
        let client = HttpClient::new(config).unwrap();
        assert_eq!(
            text(&client, &url(&server, "/hello")).await.unwrap(),
            "hello"
        );
        let call = client.post(&url(&server, "/echo")).body("body");
        let answer = within(call.send()).await.unwrap();
        let number = if answer.version() == axum::http::Version::HTTP_2 {
            20
        } else {
            11
        };
        assert_eq!(number, version);
        assert_eq!(within(answer.text()).await.unwrap(), "body");
        let call = client.get(&url(&server, "/fields")).header("x-one", "two");
        assert_eq!(
            within(call.send()).await.unwrap().text().await.unwrap(),
            "two"
        );
        // decompressed, and redirected
        assert_eq!(
            text(&client, &url(&server, "/large")).await.unwrap().len(),
            100_000
        );
        let answer = within(client.get(&url(&server, "/again")).send())
            .await
            .unwrap();
        assert!(answer.url().ends_with("/hello"));
        assert_eq!(within(answer.text()).await.unwrap(), "hello");
        let statistics = client.statistics();
        assert_eq!((statistics.requests, statistics.by_status["2xx"]), (5, 5));
        assert_eq!((statistics.by_method["POST"], statistics.aborted), (1, 0));
    }
    // connections are used again; how soon one is free again is a race
    let statistics = server.statistics();
    assert!(statistics.connections_total < statistics.http.requests);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_checks_certificates() {
    let (pki, other) = (Pki::new(), Pki::named("Another"));
    let pair = pki.issue(&["localhost"]);
    let server = Server::builder()
        .listen("https://127.0.0.1:0")
        .tls(pair.server())
        .http(router(&Failing::default()))
        .start()
        .await
        .unwrap();
    let mut trusting = config();
    trusting.tls = Arc::new(pki.client());
    let client = HttpClient::new(trusting).unwrap();
    let answer = within(client.get(&url(&server, "/hello")).send())
        .await
        .unwrap();
    assert_eq!(answer.version(), axum::http::Version::HTTP_2);
    let mut wrong = config();
    wrong.tls = Arc::new(other.client());
    let client = HttpClient::new(wrong).unwrap();
    let error = text(&client, &url(&server, "/hello")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
    let mut trusting = config();
    trusting.tls = Arc::new(pki.client());
    let client = HttpClient::new(trusting).unwrap();
    let wrong_name = url(&server, "/hello").replace("localhost", "127.0.0.1");
    let error = text(&client, &wrong_name).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_asked_again_is() {
    let (server, failing) = serve().await;
    let mut steady = config();
    steady.breaker = None;
    let client = HttpClient::new(steady.clone()).unwrap();
    for status in [502, 503, 504] {
        let address = url(&server, &format!("/fails/{status}/2"));
        assert_eq!(text(&client, &address).await.unwrap(), "3");
        assert_eq!(failing.asked(), 3);
    }
    // that has failed for good
    let answer = client.get(&url(&server, "/fails/503/9")).send();
    assert_eq!(within(answer).await.unwrap().status(), 503);
    assert_eq!(failing.asked(), 3);
    // not what may do something twice, and not what would fail again
    for (method, status) in [
        ("POST", 503),
        ("PATCH", 503),
        ("GET", 500),
        ("GET", 404),
        ("GET", 429),
    ] {
        let method = method.parse().unwrap();
        let call = client.request(method, &url(&server, &format!("/fails/{status}/9")));
        assert_eq!(within(call.send()).await.unwrap().status(), status);
        assert_eq!(failing.asked(), 1);
    }
    for method in ["PUT", "DELETE"] {
        let call = client.request(method.parse().unwrap(), &url(&server, "/fails/503/1"));
        assert_eq!(within(call.body("x").send()).await.unwrap().status(), 200);
        assert_eq!(failing.asked(), 2);
    }
    // nor when there is nothing left to spend
    steady.retry_budget = RetryBudget::new(1, 0.0);
    let client = HttpClient::new(steady).unwrap();
    let address = url(&server, "/fails/503/9");
    let _ = text(&client, &address).await;
    assert_eq!(failing.asked(), 2);
    let _ = text(&client, &address).await;
    assert_eq!(failing.asked(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_holds_calls_back() {
    let (server, failing) = serve().await;
    let mut config = config();
    config.retries = 0;
    let mut breaker = BreakerConfig::default();
    breaker.open_for = Duration::from_millis(100);
    config.breaker = Some(breaker);
    let client = HttpClient::new(config).unwrap();
    let address = url(&server, "/fails/503/5");
    for _ in 0..5 {
        assert!(text(&client, &address).await.is_err());
    }
    let error = text(&client, &address).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CircuitOpen, "{error}");
    assert_eq!(failing.asked(), 5);
    failing.0.store(9, Relaxed);
    let breaker = client.breaker(&address).unwrap();
    common::eventually("it would let one through", || !breaker.is_open()).await;
    assert!(text(&client, &address).await.is_ok() && text(&client, &address).await.is_ok());
    assert_eq!(breaker.state(), BreakerState::Closed);
    // another server has another one
    let (other, _) = serve().await;
    assert!(client.breaker(&url(&other, "/")).is_none());
    assert!(text(&client, &url(&other, "/hello")).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_and_limits() {
    let (server, _) = serve().await;
    let mut short = config();
    short.read_timeout = Duration::from_millis(200);
    short.max_body = 1000;
    short.retries = 0;
    let client = HttpClient::new(short).unwrap();
    let call = client
        .get(&url(&server, "/never"))
        .timeout(Duration::from_millis(100));
    let error = within(call.send()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert_eq!(client.statistics().aborted, 1);
    let error = text(&client, &url(&server, "/large")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MessageTooLarge, "{error}");
    let error = text(&client, &url(&server, "/for-ever")).await.unwrap_err();
    assert!(error.to_string().contains("redirect"), "{error}");
    let error = text(&client, &url(&server, "/nothing")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    for bad in ["", "nonsense", "/path", "ftp://localhost/", "http://"] {
        let error = text(&client, bad).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bad}: {error}");
    }
    let call = client.get(&url(&server, "/hello")).header("a b", "c");
    assert_eq!(
        within(call.send()).await.unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
}

/// Servers that are none, stop in the middle, or say nothing.
#[tokio::test(flavor = "multi_thread")]
async fn peers_that_misbehave() {
    let mut short = config();
    short.retries = 0;
    short.read_timeout = Duration::from_millis(300);
    short.breaker = None;
    let client = HttpClient::new(short).unwrap();
    let cases: [(&str, &str, ErrorKind); 5] = [
        (
            "no HTTP",
            "220 mail.example ESMTP\r\n\r\n",
            ErrorKind::Protocol,
        ),
        ("the end at once", "", ErrorKind::ConnectionClosed),
        (
            "half a head",
            "HTTP/1.1 200 OK\r\nContent-",
            ErrorKind::ConnectionClosed,
        ),
        (
            "half a body",
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
            ErrorKind::ReceiveFailed,
        ),
        (
            "a bad chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            ErrorKind::ReceiveFailed,
        ),
    ];
    for (name, answer, expected) in cases {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        let peer = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        });
        let error = text(&client, &address).await.unwrap_err();
        assert_eq!(error.kind(), expected, "{name}: {error}");
        within(peer).await.unwrap();
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    let error = text(&client, &address).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    drop(listener);
    let error = text(&client, &address).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
    let error = text(&client, "http://no-such-host.invalid/")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionFailed, "{error}");
}

/// A server that we did not write.
#[tokio::test(flavor = "multi_thread")]
async fn pythons_server() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file.txt"), "from python").unwrap();
    let mut command = program("python3", "python3");
    command.current_dir(folder.path());
    command.args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "0"]);
    command.stderr(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = within(lines.next_line()).await.unwrap().unwrap();
    let port = line.split(' ').nth(5).unwrap();
    let client = HttpClient::new(config()).unwrap();
    let address = format!("http://127.0.0.1:{port}/file.txt");
    assert_eq!(text(&client, &address).await.unwrap(), "from python");
    child.kill().await.unwrap();
}
