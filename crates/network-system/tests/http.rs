//! HTTP as its users see it, with curl, nghttp, h2load and wrk on the other side: routers, bodies,
//! compression, files, TLS, and what statistics say of it.
#![cfg(all(feature = "http", feature = "tls", unix))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Extension, Router};
use common::http::{curl, curl_bytes, dial, output, status, url};
use common::pki::Pki;
use common::{ended, eventually, within};
use network_system::http::HttpConnection;
use network_system::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const VERSIONS: [&str; 3] = ["--http1.1", "--http2", "--http2-prior-knowledge"];

fn router() -> Router {
    Router::new()
        .route("/hello", get(|| async { "hello\n" }))
        .route("/echo", post(|body: Bytes| async { body }))
        .route("/panic", get(|| async { panic!("as it is told") as &str }))
        .route("/peer", get(peer))
        .route("/stream", get(stream))
        // the server's own limit is larger
        .layer(axum::extract::DefaultBodyLimit::disable())
}

async fn peer(Extension(connection): Extension<HttpConnection>) -> String {
    let tls = connection.info().tls.as_ref();
    let alpn = tls.and_then(|tls| tls.alpn.clone()).unwrap_or_default();
    format!("{} {alpn}", connection.peer())
}

/// Ten pieces, of which each is sent when the one before is on its way.
async fn stream() -> impl IntoResponse {
    let (mut sender, body) = http_body_util::channel::Channel::<Bytes, std::io::Error>::new(1);
    tokio::spawn(async move {
        for n in 0..10 {
            tokio::task::yield_now().await;
            sender
                .send_data(format!("piece {n}\n").into())
                .await
                .unwrap();
        }
    });
    Body::new(body)
}

async fn serve(workers: usize) -> Server {
    let server = Server::builder().listen("http://127.0.0.1:0");
    server
        .workers(workers)
        .http(router())
        .start()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_is_served_to_curl() {
    for workers in [0, 2] {
        let server = serve(workers).await;
        for version in VERSIONS {
            let got = curl(&[version, &url(&server, "/hello")]).await;
            assert_eq!(got, "hello\n", "{version}");
            let got = curl(&[version, "-d", "body", &url(&server, "/echo")]).await;
            assert_eq!(got, "body", "{version}");
            assert_eq!(status(&[version, &url(&server, "/nothing")]).await, "404");
            assert_eq!(status(&[version, &url(&server, "/panic")]).await, "500");
            let got = curl(&[version, &url(&server, "/stream")]).await;
            assert_eq!(got.lines().count(), 10, "{version}: {got}");
            let peer = curl(&[version, &url(&server, "/peer")]).await;
            assert!(peer.starts_with("127.0.0.1:"), "{peer}");
        }
        let report = server.shutdown(Duration::from_secs(10)).await;
        assert_eq!(report.cut, 0);
        let http = &report.statistics.http;
        assert_eq!((http.requests, http.by_status["2xx"]), (18, 12));
        assert_eq!((http.by_status["4xx"], http.by_status["5xx"]), (3, 3));
        assert_eq!((http.by_method["GET"], http.by_method["POST"]), (15, 3));
        assert_eq!((http.active, http.aborted), (0, 0));
        assert!(http.bytes_in > 0 && http.bytes_out > 0 && http.latency.count == 18);
        assert_eq!(report.statistics.connections_total, 18);
        assert_eq!(report.statistics.connections_active, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_go_both_ways() {
    let server = serve(1).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let bytes: Vec<u8> = (0..10_000_000_u32).map(|n| (n * 7 / 3) as u8).collect();
    std::fs::write(file.path(), &bytes).unwrap();
    let data = format!("@{}", file.path().display());
    for version in VERSIONS {
        let got = curl_bytes(&[version, "--data-binary", &data, &url(&server, "/echo")]).await;
        assert!(got == bytes, "{version}: {} bytes", got.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_has_http2_by_alpn() {
    let pki = Pki::new();
    let pair = pki.issue(&["localhost"]);
    let server = Server::builder()
        .listen("https://127.0.0.1:0")
        .tls(pair.server())
        .http(router())
        .workers(1)
        .start()
        .await
        .unwrap();
    let ca = pki.ca();
    let ca = ["--cacert", ca.to_str().unwrap()];
    let peer = url(&server, "/peer");
    for (version, alpn) in [("--http1.1", "http/1.1"), ("--http2", "h2")] {
        let got = curl(&[&ca[..], &[version, &peer]].concat()).await;
        assert!(got.ends_with(&format!(" {alpn}")), "{version}: {got}");
    }
    // who says nothing about it gets what he speaks
    let got = curl(&[&ca[..], &["--no-alpn", "--http1.1", &peer]].concat()).await;
    assert!(got.ends_with(' '), "{got}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_compressed() {
    let text = "all work and no play\n".repeat(5000);
    let body = text.clone();
    let router = Router::new().route("/text", get(move || async { body }));
    let server = Server::builder()
        .listen("http://127.0.0.1:0")
        .http(router.clone());
    let server = server.start().await.unwrap();
    let address = url(&server, "/text");
    for encoding in ["gzip", "br", "zstd"] {
        let accept = format!("Accept-Encoding: {encoding}");
        let head = curl(&["-H", &accept, "-D", "-", "-o", "/dev/null", &address]).await;
        assert!(
            head.contains(&format!("content-encoding: {encoding}")),
            "{head}"
        );
        let raw = curl_bytes(&["-H", &accept, &address]).await;
        assert!(raw.len() < text.len() / 10, "{encoding}: {}", raw.len());
        let got = curl(&["-H", &accept, "--compressed", &address]).await;
        assert!(got == text, "{encoding}");
    }
    assert!(curl(&[&address]).await == text);

    let config = network_system::config::HttpConfig {
        compression: false,
        ..Default::default()
    };
    let server = Server::builder()
        .listen("http://127.0.0.1:0")
        .http_config(config);
    let server = server.http(router).start().await.unwrap();
    let head = curl(&[
        "--compressed",
        "-D",
        "-",
        "-o",
        "/dev/null",
        &url(&server, "/text"),
    ])
    .await;
    assert!(!head.contains("content-encoding"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_served() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("page.html"), "<p>0123456789</p>").unwrap();
    let files = tower_http::services::ServeDir::new(folder.path());
    // a service of tower as it is, without a router
    let server = Server::builder().listen("http://127.0.0.1:0").http(files);
    let server = server.start().await.unwrap();
    let page = url(&server, "/page.html");
    let head = curl(&["-i", &page]).await;
    assert!(head.contains("content-type: text/html") && head.ends_with("<p>0123456789</p>"));
    assert_eq!(curl(&["-r", "3-12", &page]).await, "0123456789");
    assert_eq!(
        status(&["--path-as-is", &url(&server, "/../../etc/passwd")]).await,
        "404"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn other_programs_agree() {
    let server = serve(2).await;
    let hello = url(&server, "/hello");
    let got = output("nghttp", "nghttp2-client", &[&hello]).await;
    assert_eq!(String::from_utf8_lossy(&got), "hello\n");
    // upgrades from HTTP/1.1 are obsolete (RFC 9113, section 3.1): the answer is in HTTP/1.1
    let load = ["-n", "2000", "-c", "10", "-m", "20", "-t", "1"];
    let got = output("h2load", "nghttp2-client", &[&load[..], &[&hello]].concat()).await;
    let got = String::from_utf8_lossy(&got);
    assert!(
        got.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"),
        "{got}"
    );
    let load = ["--h1", "-n", "2000", "-c", "10", "-t", "1"];
    let got = output("h2load", "nghttp2-client", &[&load[..], &[&hello]].concat()).await;
    let got = String::from_utf8_lossy(&got);
    assert!(
        got.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"),
        "{got}"
    );
    let got = output("wrk", "wrk", &["-d", "1s", "-c", "10", "-t", "1", &hello]).await;
    let got = String::from_utf8_lossy(&got);
    assert!(
        !got.contains("Non-2xx") && !got.contains("Socket errors"),
        "{got}"
    );
    let statistics = server.statistics();
    assert!(statistics.http.requests > 4000);
    assert_eq!(statistics.http.by_status["2xx"], statistics.http.requests);
}

/// What a program takes over by an upgrade is a connection until it ends, and is cut with the others.
#[tokio::test(flavor = "multi_thread")]
async fn upgraded_connections_count_and_end() {
    async fn upgrade(request: axum::extract::Request) -> impl IntoResponse {
        let upgraded = hyper_util::rt::TokioIo::new;
        tokio::spawn(async move {
            let io = upgraded(hyper::upgrade::on(request).await.unwrap());
            let (mut read, mut write) = tokio::io::split(io);
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
        let headers = [("connection", "upgrade"), ("upgrade", "echo")];
        (axum::http::StatusCode::SWITCHING_PROTOCOLS, headers)
    }
    for workers in [0, 1] {
        let server = Server::builder()
            .listen("http://127.0.0.1:0")
            .workers(workers)
            .http(Router::new().route("/", get(upgrade)))
            .start()
            .await
            .unwrap();
        let mut streams = Vec::new();
        for _ in 0..2 {
            let mut stream = dial(&server).await;
            let head = "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut buffer = [0; 1024];
            let n = within(stream.read(&mut buffer)).await.unwrap();
            assert!(buffer[..n].starts_with(b"HTTP/1.1 101"));
            stream.write_all(b"ping").await.unwrap();
            assert_eq!(within(stream.read(&mut buffer)).await.unwrap(), 4);
            streams.push(stream);
        }
        assert_eq!(server.statistics().connections_active, 2);
        drop(streams.pop());
        eventually("one has ended", || ended(&server, "peer") == 1).await;
        let report = server.shutdown(Duration::from_millis(500)).await;
        assert_eq!((report.cut, report.cut_because["working"]), (1, 1));
        let mut stream = streams.remove(0);
        let mut buffer = [0; 16];
        assert!(!matches!(within(stream.read(&mut buffer)).await, Ok(1..)));
    }
}

#[tokio::test]
async fn what_cannot_be_is_said() {
    let error = network_system::connect("http://127.0.0.1:1")
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("HTTP client"), "{error}");
    let server = Server::builder().listen("http://127.0.0.1:0?pipeline=true");
    let error = server.start().await.unwrap_err();
    assert!(error.to_string().contains("pipeline"), "{error}");
    let mut listener = network_system::listen("http://127.0.0.1:0").await.unwrap();
    let port = listener.local().port().unwrap();
    let _stream = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .unwrap();
    let error = within(listener.accept()).await.err().unwrap();
    assert!(error.to_string().contains("only a server"), "{error}");
}
