//! The end of a server with HTTP: what is being answered is answered, connections are told, nothing is
//! cut before the deadline, and everything then.
#![cfg(all(feature = "http", unix))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::sync::Arc;
use std::time::Duration;

use axum::routing::get;
use axum::{Extension, Router};
use common::http::{dial, url};
use common::http2::Http2;
use common::{eventually, read_to_end, within};
use network_system::http::HttpConnection;
use network_system::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::Instant;

const HEAD: &[u8] = b"GET /gate HTTP/1.1\r\nHost: x\r\n\r\n";
const DEADLINE: Duration = Duration::from_secs(20);

/// Answers `/gate` when it is opened.
async fn serve(workers: usize) -> (Server, Arc<Notify>) {
    let gate = Arc::new(Notify::new());
    let opened = gate.clone();
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/never", get(std::future::pending::<&str>))
        .route(
            "/gate",
            get(move || async move {
                opened.notified().await;
                vec![b'x'; 3 << 20]
            }),
        )
        .route(
            "/until-the-end",
            get(
                |Extension(connection): Extension<HttpConnection>| async move {
                    connection.host().draining().await;
                    "the end"
                },
            ),
        );
    let server = Server::builder()
        .listen("http://127.0.0.1:0")
        .workers(workers)
        .http(router)
        .start()
        .await
        .unwrap();
    (server, gate)
}

async fn active(server: &Server, n: u64) {
    eventually("they are there", || server.statistics().http.active == n).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_answered_is_answered() {
    for workers in [0, 2] {
        let (server, gate) = serve(workers).await;
        let mut http1 = dial(&server).await;
        http1.write_all(HEAD).await.unwrap();
        let mut idle = dial(&server).await;
        idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let mut buffer = [0; 4096];
        within(idle.read(&mut buffer)).await.unwrap();
        let mut http2 = Http2::start(dial(&server).await).await;
        http2.request(1, "GET", "/gate", true).await;
        // as much as it wants
        http2
            .send(&common::http2::frame(
                8,
                0,
                0,
                &(10_u32 << 20).to_be_bytes(),
            ))
            .await;
        http2
            .send(&common::http2::frame(
                8,
                0,
                1,
                &(10_u32 << 20).to_be_bytes(),
            ))
            .await;
        active(&server, 2).await;

        let address = url(&server, "/")
            .replace("http://localhost", "127.0.0.1")
            .replace('/', "");
        let shutdown = tokio::spawn(server.shutdown(DEADLINE));
        // an idle connection is closed at once
        assert_eq!(within(idle.read(&mut buffer)).await.unwrap(), 0);
        assert_eq!(http2.goaway().await, 0);
        eventually("no more are accepted", || {
            std::net::TcpStream::connect(&address).is_err()
        })
        .await;
        gate.notify_waiters();
        let (back, end) = read_to_end(&mut http1).await;
        end.unwrap();
        assert!(back.starts_with(b"HTTP/1.1 200") && back.len() > 3 << 20);
        assert_eq!(http2.status(1).await, 200);
        let mut bytes = 0;
        while bytes < 3 << 20 {
            let frame = http2
                .wait(|frame| frame.kind == 0 && frame.stream == 1)
                .await;
            bytes += frame.payload.len();
        }
        // a ping that the server waits for
        let ping = http2
            .wait(|frame| frame.kind == 6 && frame.flags == 0)
            .await;
        http2
            .send(&common::http2::frame(6, 1, 0, &ping.payload))
            .await;
        http2.closed().await;
        let report = within(shutdown).await.unwrap();
        assert_eq!(
            (report.sessions, report.drained, report.cut),
            (3, 3, 0),
            "{report:?}"
        );
        assert_eq!(report.ended["shutdown"], 3);
        assert_eq!(
            (
                report.statistics.http.requests,
                report.statistics.http.aborted
            ),
            (3, 0)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_done_is_cut() {
    for workers in [0, 1] {
        let (server, _) = serve(workers).await;
        let mut http1 = dial(&server).await;
        http1
            .write_all(b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let mut http2 = Http2::start(dial(&server).await).await;
        http2.request(1, "GET", "/never", true).await;
        active(&server, 2).await;
        let began = Instant::now();
        let report = within(server.shutdown(Duration::from_millis(300))).await;
        assert!(began.elapsed() >= Duration::from_millis(300));
        assert_eq!((report.sessions, report.cut), (2, 2), "{report:?}");
        assert_eq!(report.cut_because["working"], 2);
        let http = &report.statistics.http;
        assert_eq!((http.active, http.requests, http.aborted), (0, 2, 2));
        assert!(read_to_end(&mut http1).await.0.is_empty());
        http2.closed().await;
    }
}

/// Who has connected and not asked yet may do so, for a moment; answers that know of the end may end.
#[tokio::test(flavor = "multi_thread")]
async fn newcomers_are_answered() {
    let (server, _) = serve(0).await;
    let mut newcomer = dial(&server).await;
    let mut silent = dial(&server).await;
    let mut waiting = dial(&server).await;
    waiting
        .write_all(b"GET /until-the-end HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    active(&server, 1).await;
    let connected = || server.statistics().connections_active == 3;
    eventually("all are there", connected).await;
    let shutdown = tokio::spawn(server.shutdown(DEADLINE));
    let (back, _) = read_to_end(&mut waiting).await;
    assert!(back.ends_with(b"the end"));
    newcomer
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let (back, _) = read_to_end(&mut newcomer).await;
    let back = String::from_utf8_lossy(&back);
    assert!(
        back.starts_with("HTTP/1.1 200") && back.contains("connection: close"),
        "{back}"
    );
    assert!(read_to_end(&mut silent).await.0.is_empty());
    let report = within(shutdown).await.unwrap();
    assert_eq!((report.drained, report.cut), (3, 0));
    assert!(
        report.elapsed < Duration::from_secs(5),
        "{:?}",
        report.elapsed
    );
}

/// Under load no answer is cut in two: each comes whole, or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn under_load() {
    for workers in [0, 2] {
        let (server, _) = serve(workers).await;
        let clients: Vec<_> = futures(&server, 50).await;
        let answered = || server.statistics().http.requests > 500;
        eventually("there is load", answered).await;
        let report = within(server.shutdown(DEADLINE)).await;
        let mut answers = 0;
        for client in clients {
            answers += within(client).await.unwrap();
        }
        let http = &report.statistics.http;
        assert_eq!(
            (report.cut, http.aborted, http.active),
            (0, 0, 0),
            "{report:?}"
        );
        assert_eq!(http.requests, answers);
    }
}

/// Clients that ask until they are told to stop, and count the answers.
async fn futures(server: &Server, n: usize) -> Vec<tokio::task::JoinHandle<u64>> {
    let mut clients = Vec::new();
    for _ in 0..n {
        let mut stream = dial(server).await;
        clients.push(tokio::spawn(async move {
            let mut answers = 0;
            let mut buffer = [0; 4096];
            loop {
                let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
                let mut got = Vec::new();
                while !got.ends_with(b"hello") {
                    match stream.read(&mut buffer).await {
                        Ok(n @ 1..) => got.extend(&buffer[..n]),
                        _ => {
                            assert!(got.is_empty(), "{}", String::from_utf8_lossy(&got));
                            return answers;
                        }
                    }
                }
                asked.unwrap();
                answers += 1;
            }
        }));
    }
    clients
}
