//! Every limit of HTTP, tripped by a peer that misbehaves, while another notices nothing.
#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::{get, post};
use common::http::{Bystander, dial, exchange};
use common::http2::Http2;
use common::{ended, eventually, read_to_end, within};
use network_system::config::HttpConfig;
use network_system::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

const SHORT: Duration = Duration::from_millis(400);

fn router() -> Router {
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/echo", post(|body: Bytes| async { body }))
        .route("/large", get(|| async { vec![7; 64 << 20] }))
        .route("/never", get(std::future::pending::<&str>))
        .route("/endless", get(|| async { Body::new(Endless) }))
        .layer(axum::extract::DefaultBodyLimit::disable())
}

/// A body that has as much as anybody wants, and makes it when it is asked for.
struct Endless;

impl hyper::body::Body for Endless {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        let bytes = Bytes::from(vec![1; 16 * 1024]);
        std::task::Poll::Ready(Some(Ok(hyper::body::Frame::data(bytes))))
    }
}

async fn serve(config: HttpConfig) -> Server {
    let server = Server::builder().listen("http://127.0.0.1:0");
    let server = server.http(router()).http_config(config);
    server.start().await.unwrap()
}

/// Reads until `text` has come.
async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut got = String::new();
    let mut buffer = [0; 4096];
    while !got.contains(text) {
        let n = within(stream.read(&mut buffer)).await.unwrap();
        assert!(n > 0, "the end came before {text:?}: {got}");
        got.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    got
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_heads() {
    let server = serve(HttpConfig {
        header_timeout: SHORT,
        ..HttpConfig::default()
    })
    .await;
    let bystander = Bystander::start(&server, "/").await;
    // nothing at all
    let began = Instant::now();
    let mut silent = dial(&server).await;
    assert!(read_to_end(&mut silent).await.0.is_empty());
    assert!(
        began.elapsed() >= SHORT - Duration::from_millis(50),
        "{:?}",
        began.elapsed()
    );
    eventually("it is counted", || ended(&server, "silent") == 1).await;
    // a part of a head, a drip, and the first bytes of HTTP/2
    for first in [
        "GET / HTTP/1.1\r\nHost: x\r\n",
        "G",
        "PRI * HTTP/2.0\r\n\r\n",
    ] {
        let mut stream = dial(&server).await;
        stream.write_all(first.as_bytes()).await.unwrap();
        assert!(read_to_end(&mut stream).await.0.is_empty());
    }
    let (mut read, mut write) = dial(&server).await.into_split();
    let drip = tokio::spawn(async move {
        let _ = write.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX: ").await;
        while write.write_all(b"x").await.is_ok() {
            sleep(SHORT / 20).await;
        }
    });
    let (back, _) = read_to_end(&mut read).await;
    assert!(back.is_empty());
    within(drip).await.unwrap();
    // a part of a second one
    let mut second = dial(&server).await;
    let head = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    second.write_all(head).await.unwrap();
    read_until(&mut second, "hello").await;
    sleep(SHORT * 2).await;
    // a connection may rest in between for longer than a head may take
    second.write_all(head).await.unwrap();
    read_until(&mut second, "hello").await;
    second.write_all(b"GET /").await.unwrap();
    assert!(read_to_end(&mut second).await.0.is_empty());
    eventually("they are counted", || ended(&server, "protocol") == 5).await;
    bystander.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_bodies() {
    let server = serve(HttpConfig {
        body_timeout: SHORT,
        ..HttpConfig::default()
    })
    .await;
    let bystander = Bystander::start(&server, "/").await;
    let head = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n";
    // none, and a drip
    let mut none = dial(&server).await;
    none.write_all(head.as_bytes()).await.unwrap();
    let (back, _) = read_to_end(&mut none).await;
    assert!(
        back.starts_with(b"HTTP/1.1 408"),
        "{}",
        String::from_utf8_lossy(&back)
    );
    let (mut read, mut write) = dial(&server).await.into_split();
    let drip = tokio::spawn(async move {
        let _ = write.write_all(head.as_bytes()).await;
        while write.write_all(b"x").await.is_ok() {
            sleep(SHORT / 20).await;
        }
    });
    let (back, _) = read_to_end(&mut read).await;
    assert!(
        back.starts_with(b"HTTP/1.1 408"),
        "{}",
        String::from_utf8_lossy(&back)
    );
    within(drip).await.unwrap();
    // a stream of HTTP/2
    let mut http2 = Http2::start(dial(&server).await).await;
    http2.request(1, "POST", "/echo", false).await;
    assert_eq!(http2.status(1).await, 408);
    // slow, and quick enough: twice the time at twice the rate
    let mut stream = dial(&server).await;
    let head = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4096\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..8 {
        sleep(SHORT / 4).await;
        stream.write_all(&[b'x'; 512]).await.unwrap();
    }
    let got = read_until(&mut stream, "xxx").await;
    assert!(got.starts_with("HTTP/1.1 200"), "{got}");
    bystander.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections() {
    let server = serve(HttpConfig {
        keep_alive: SHORT,
        ..HttpConfig::default()
    })
    .await;
    let bystander = Bystander::start(&server, "/").await;
    let mut stream = dial(&server).await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let began = Instant::now();
    let (back, end) = read_to_end(&mut stream).await;
    assert!(back.ends_with(b"hello") && end.is_ok());
    assert!(began.elapsed() >= SHORT - Duration::from_millis(50));
    let mut http2 = Http2::start(dial(&server).await).await;
    http2.request(1, "GET", "/", true).await;
    assert_eq!(http2.status(1).await, 200);
    // HTTP/2 says goodbye
    let code = http2.goaway().await;
    assert_eq!(code, 0);
    http2.closed().await;
    eventually("they are counted", || ended(&server, "idle") == 2).await;
    // a request that is being answered is not idle
    let mut waiting = dial(&server).await;
    waiting
        .write_all(b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let answer = tokio::time::timeout(SHORT * 3, waiting.read_u8()).await;
    assert!(answer.is_err(), "it is still open");
    bystander.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_heads_and_many_fields() {
    let server = serve(HttpConfig::default()).await;
    let bystander = Bystander::start(&server, "/").await;
    let with = |fields: &str| format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
    let close = "Connection: close\r\n";
    let many = |n: usize| (0..n).map(|n| format!("X-{n}: x\r\n")).collect::<String>() + close;
    let large = |n: usize| format!("X: {}\r\n{close}", "x".repeat(n));
    let long = |n: usize| format!("GET /{} HTTP/1.1\r\nHost: x\r\n{close}\r\n", "x".repeat(n));
    for (head, expected) in [
        (with(&many(98)), "200"),
        (with(&many(99)), "431"),
        (with(&many(5000)), "431"),
        (with(&large(60_000)), "200"),
        (with(&large(70_000)), "431"),
        (with(&large(2_000_000)), "431"),
        (long(60_000), "404"),
        (long(70_000), "414"),
    ] {
        let got = exchange(&server, head.as_bytes()).await;
        let status = got.get(9..12).unwrap_or_default();
        let size = head.len();
        // what is too long may also be read as a head that is too large
        let same = status == expected || (expected, status) == ("414", "431");
        assert!(same, "{size} bytes: {expected}, not {got}");
    }
    let mut http2 = Http2::start(dial(&server).await).await;
    let fields: Vec<_> = (0..101)
        .map(|n| (format!("x-{n}"), "x".to_owned()))
        .collect();
    http2.request_with(1, "GET", "/", &fields, true).await;
    assert_eq!(http2.status(1).await, 431);
    let fields = [("x".to_owned(), "x".repeat(70_000))];
    http2.request_with(3, "GET", "/", &fields, true).await;
    assert_eq!(http2.status(3).await, 431);
    http2.request(5, "GET", "/", true).await;
    assert_eq!(http2.status(5).await, 200);
    bystander.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies() {
    let server = serve(HttpConfig {
        max_body: 1000,
        ..HttpConfig::default()
    })
    .await;
    let bystander = Bystander::start(&server, "/").await;
    let post = |length: usize, body: &str| {
        format!(
            "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    let got = exchange(&server, post(1000, &"x".repeat(1000)).as_bytes()).await;
    assert!(got.starts_with("HTTP/1.1 200"), "{got}");
    // announced, before any of it has come
    let got = exchange(&server, post(1001, "").as_bytes()).await;
    assert!(got.starts_with("HTTP/1.1 413"), "{got}");
    // not announced
    let chunks = "3E9\r\n".to_owned() + &"x".repeat(1001) + "\r\n0\r\n\r\n";
    let head =
        "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let got = exchange(&server, (head.to_owned() + &chunks).as_bytes()).await;
    assert!(got.starts_with("HTTP/1.1 413"), "{got}");
    let mut http2 = Http2::start(dial(&server).await).await;
    http2.request(1, "POST", "/echo", false).await;
    http2.data(1, &[0; 1001], true).await;
    assert_eq!(http2.status(1).await, 413);
    bystander.finish().await;
}

/// Who does not read what he has asked for is cut, however slowly he reads, and until then what is kept
/// for him is bounded.
#[tokio::test(flavor = "multi_thread")]
async fn slow_readers() {
    let server = Server::builder()
        .listen("http://127.0.0.1:0")
        .http(router())
        .slow_reader_timeout(SHORT)
        .start()
        .await
        .unwrap();
    let bystander = Bystander::start(&server, "/").await;
    for (n, path) in (1..).zip(["/large", "/endless"]) {
        let mut stream = dial(&server).await;
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        // a little, and ever again
        let mut buffer = [0; 100];
        while ended(&server, "slow_reader") < n {
            let read = within(stream.read(&mut buffer)).await;
            assert!(matches!(read, Ok(1..)), "{read:?}");
            sleep(SHORT / 100).await;
        }
    }
    // streams of HTTP/2 whose windows are full, while their connection goes on
    for path in ["/large", "/endless"] {
        let mut http2 = Http2::start(dial(&server).await).await;
        http2.request(1, "GET", path, true).await;
        assert_eq!(http2.status(1).await, 200);
        http2.closed().await;
    }
    eventually("they are cut", || ended(&server, "slow_reader") == 4).await;
    let http = server.statistics().http;
    assert_eq!(http.aborted, 4);
    assert!(
        http.bytes_out < 100 << 20,
        "{} bytes went out",
        http.bytes_out
    );
    bystander.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_streams() {
    let server = serve(HttpConfig {
        max_streams: 10,
        ..HttpConfig::default()
    })
    .await;
    let bystander = Bystander::start(&server, "/").await;
    let mut http2 = Http2::start(dial(&server).await).await;
    for n in 0..10 {
        http2.request(1 + 2 * n, "GET", "/never", true).await;
    }
    http2.request(21, "GET", "/", true).await;
    // REFUSED_STREAM: the client may ask again
    assert_eq!(http2.reset(21).await, 7);
    bystander.finish().await;
}

/// CVE-2023-44487, and others that cost the server more than the peer.
#[tokio::test(flavor = "multi_thread")]
async fn floods() {
    let server = serve(HttpConfig::default()).await;
    let mut bystander = Bystander::start(&server, "/").await;
    type Flood = fn(u32) -> Vec<u8>;
    let floods: [(&str, Flood); 7] = [
        ("requests that are given up", |n| {
            let mut bytes = common::http2::headers(1 + 2 * n, "GET", "/never", &[], true);
            bytes.extend(common::http2::frame(3, 0, 1 + 2 * n, &8_u32.to_be_bytes()));
            bytes
        }),
        ("settings", |_| common::http2::frame(4, 0, 0, &[])),
        ("pings", |_| common::http2::frame(6, 0, 0, &[0; 8])),
        ("resets of streams that never were", |n| {
            common::http2::frame(3, 0, 1 + 2 * n, &8_u32.to_be_bytes())
        }),
        ("empty data", |n| match n {
            0 => common::http2::headers(1, "POST", "/echo", &[], false),
            _ => common::http2::frame(0, 0, 1, &[]),
        }),
        ("continuations", |n| match n {
            0 => common::http2::frame(1, 0, 1, &[0x82]),
            _ => common::http2::frame(9, 0, 1, &[0x00, 0x01, b'x', 0x01, b'y']),
        }),
        ("priorities", |n| {
            common::http2::frame(2, 0, 1 + 2 * n, &[0, 0, 0, 0, 1])
        }),
    ];
    for (name, flood) in floods {
        let http2 = Http2::start(dial(&server).await).await;
        let mut stream = http2.into_stream();
        let (mut read, mut write) = stream.split();
        let sent = async {
            for n in 0..100_000 {
                if write.write_all(&flood(n)).await.is_err() {
                    return true;
                }
            }
            false
        };
        // it reads nothing, at first
        let ends = tokio::time::timeout(Duration::from_secs(3), sent).await;
        bystander.still_works().await;
        let mut buffer = vec![0; 64 * 1024];
        let mut back = 0;
        let drain = async {
            while let Ok(n @ 1..) = read.read(&mut buffer).await {
                back += n;
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(200), drain).await;
        assert!(back < 4 << 20, "{name}: {back} bytes came back");
        println!("{name}: {ends:?}, {back} bytes came back");
        drop(stream);
    }
    eventually("all are gone", || {
        server.statistics().connections_active == 1
    })
    .await;
    assert_eq!(server.statistics().http.active, 0);
    bystander.finish().await;
}
