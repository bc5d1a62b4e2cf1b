//! Sessions that begin on HTTP connections by a user's own code, and what the access log says.
#![cfg(all(feature = "http", unix))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Extension, Router};
use common::http::{curl, dial, url};
use common::{ended, eventually, round_trip, within};
use hyper_util::rt::TokioIo;
use network_system::http::HttpConnection;
use network_system::prelude::*;
use network_system::{AnyLink, StreamLink};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What was upgraded becomes a session: frames over a stream, as over TCP.
async fn upgrade(
    Extension(connection): Extension<HttpConnection>,
    request: Request,
) -> impl IntoResponse {
    tokio::spawn(async move {
        let mut upgraded = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let framing = connection.config().session.limited_framing();
        let link = StreamLink::new(near, framing, connection.info().clone());
        let session = connection.host().hand_over(AnyLink::Memory(link)).unwrap();
        assert_eq!(session.info().scheme, "http");
        let _ = tokio::io::copy_bidirectional(&mut far, &mut upgraded).await;
    });
    let headers = [("connection", "upgrade"), ("upgrade", "frames")];
    (StatusCode::SWITCHING_PROTOCOLS, headers)
}

const HEAD: &[u8] =
    b"GET /frames HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: frames\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_becomes_a_session() {
    for workers in [0, 1] {
        let server = Server::builder()
            .listen("http://127.0.0.1:0")
            .workers(workers)
            // each is one connection, before and after
            .max_connections(2)
            .http(Router::new().route("/frames", get(upgrade)))
            .on_message(|session, message| async move { session.send(message).await })
            .start()
            .await
            .unwrap();
        let mut streams = Vec::new();
        for n in 1..=2 {
            let mut stream = dial(&server).await;
            stream.write_all(HEAD).await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(within(stream.read_u8()).await.unwrap());
            }
            assert!(head.starts_with(b"HTTP/1.1 101"));
            within(round_trip(&mut stream, b"hello")).await;
            within(round_trip(&mut stream, &[7; 100_000])).await;
            let statistics = server.statistics();
            assert_eq!(
                (statistics.connections_active, statistics.connections_total),
                (n, n)
            );
            streams.push(stream);
        }
        assert_eq!(server.sessions().len(), 2);
        drop(streams.pop());
        eventually("one has ended", || ended(&server, "peer") == 1).await;
        assert_eq!(server.statistics().connections_active, 1);
        let shutdown = tokio::spawn(server.shutdown(Duration::from_secs(20)));
        let mut rest = Vec::new();
        within(streams[0].read_to_end(&mut rest)).await.unwrap();
        let report = within(shutdown).await.unwrap();
        assert_eq!(
            (report.sessions, report.drained, report.cut),
            (1, 1, 0),
            "{report:?}"
        );
    }
}

/// What is written to the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_access_log() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("off,access=info")
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let router = Router::new().route("/page", get(|| async { "hello" }));
    let server = Server::builder().listen("http://127.0.0.1:0").http(router);
    let server = server.start().await.unwrap();
    curl(&[
        "--http2-prior-knowledge",
        &url(&server, "/page?token=secret"),
    ])
    .await;
    let line = || {
        log.text()
            .lines()
            .find(|line| line.contains("/page"))
            .map(str::to_owned)
    };
    eventually("it is logged", || line().is_some()).await;
    let line = line().unwrap();
    for part in [
        "INFO access: peer=127.0.0.1:",
        "method=GET path=\"/page\" version=HTTP/2.0 status=200 bytes=5 whole=true took=",
    ] {
        assert!(line.contains(part), "{part} is missing in {line}");
    }
    assert!(!line.contains("secret"), "{line}");
}
