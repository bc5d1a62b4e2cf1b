//! The message gateway: curl is a client of the same handler as everybody else.
#![cfg(all(feature = "http", unix))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use common::http::{Bystander, QUIET, curl, curl_bytes, dial, exchange, status, url};
use common::programs::program;
use common::{ended, eventually, only_session, within};
use network_system::MessageKind;
use network_system::config::HttpConfig;
use network_system::prelude::*;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout};

fn config() -> HttpConfig {
    HttpConfig {
        messages: Some("/messages".to_owned()),
        ..HttpConfig::default()
    }
}

/// Answers according to what it is told.
async fn serve(workers: usize) -> Server {
    Server::builder()
        .listen("http://127.0.0.1:0")
        .listen("tcp://127.0.0.1:0")
        .http_config(config())
        .http(Router::new().route("/page", get(|| async { "a page" })))
        .workers(workers)
        .max_message(1_000_000)
        .on_message(|session, message| async move {
            match message.as_str() {
                Some("nothing") => Ok(()),
                Some("twice") => {
                    session.send("one,").await?;
                    session.send("two").await
                }
                Some("fail") => Err(Error::new(ErrorKind::Internal, "do as it is told")),
                Some("panic") => panic!("as it is told"),
                Some("kind") => {
                    let text = message.kind() == MessageKind::Text;
                    session.send(if text { "text" } else { "binary" }).await
                }
                Some("all") => {
                    session.sessions().broadcast("to all");
                    Ok(())
                }
                _ => session.send(message).await,
            }
        })
        .start()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_is_a_message() {
    for workers in [0, 1] {
        let server = serve(workers).await;
        let address = url(&server, "/messages");
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let post = |body: &str| {
                let (address, body) = (address.clone(), body.to_owned());
                async move { curl(&[version, "-d", &body, &address]).await }
            };
            assert_eq!(post("hello").await, "hello");
            assert_eq!(post("twice").await, "one,two");
            assert_eq!(post("kind").await, "text");
            let binary = ["-H", "Content-Type: application/octet-stream"];
            let kind = [&[version][..], &binary, &["-d", "kind", &address]].concat();
            assert_eq!(curl(&kind).await, "binary");
            for (body, expected) in [("nothing", "204"), ("fail", "500"), ("panic", "500")] {
                let got = status(&[version, "-d", body, &address]).await;
                assert_eq!(got, expected, "{body}");
            }
            // an empty message is one
            assert_eq!(status(&[version, "-d", "", &address]).await, "200");
            let post = [
                version,
                "-H",
                "Accept: text/event-stream",
                "-d",
                "twice",
                &address,
            ];
            assert_eq!(curl(&post).await, "data: one,\n\ndata: two\n\n");
            assert_eq!(status(&[version, "-X", "PUT", &address]).await, "405");
        }
        assert_eq!(curl(&[&url(&server, "/page")]).await, "a page");
        let statistics = server.statistics();
        assert_eq!((statistics.messages_in, statistics.messages_out), (18, 16));
        let ends = &statistics.connections_ended;
        assert_eq!((ends["handler"], ends["panicked"]), (2, 2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_every_size() {
    let server = serve(1).await;
    let address = url(&server, "/messages");
    let bystander = Bystander::start(&server, "/page").await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let data = format!("@{}", file.path().display());
    for size in [1, 64, 65, 70_000, 1_000_000] {
        let bytes: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        std::fs::write(file.path(), &bytes).unwrap();
        let octets = ["-H", "Content-Type: application/octet-stream"];
        let post = [&octets[..], &["--data-binary", &data, &address]].concat();
        assert!(curl_bytes(&post).await == bytes, "{size}");
    }
    std::fs::write(file.path(), vec![0; 1_000_001]).unwrap();
    assert_eq!(status(&["--data-binary", &data, &address]).await, "413");
    bystander.finish().await;
}

/// A page of another site must not make its visitors' browsers speak with this server.
#[tokio::test(flavor = "multi_thread")]
async fn foreign_pages_are_refused() {
    let server = serve(0).await;
    let address = url(&server, "/messages");
    let port = server.listening()[0].port().unwrap();
    let own = format!("Origin: http://localhost:{port}");
    assert_eq!(curl(&["-H", &own, "-d", "hello", &address]).await, "hello");
    for origin in [
        "https://evil.example",
        "null",
        "http://localhost",
        "localhost",
    ] {
        let origin = format!("Origin: {origin}");
        assert_eq!(
            status(&["-H", &origin, "-d", "hello", &address]).await,
            "403",
            "{origin}"
        );
        assert_eq!(status(&["-H", &origin, &address]).await, "403", "{origin}");
    }
    assert_eq!(server.statistics().messages_in, 1);
}

/// An event stream as curl shows it.
struct Stream {
    curl: Child,
    lines: Lines<BufReader<ChildStdout>>,
    secret: String,
}

impl Stream {
    async fn open(server: &Server, version: &str) -> Self {
        let mut command = program("curl", "curl");
        command
            .args(QUIET)
            .args(["--no-buffer", version, &url(server, "/messages")]);
        let mut curl = command.spawn().unwrap();
        let lines = BufReader::new(curl.stdout.take().unwrap()).lines();
        let mut stream = Self {
            curl,
            lines,
            secret: String::new(),
        };
        assert_eq!(stream.next().await, "event: session");
        let secret = stream.next().await;
        stream.secret = secret.strip_prefix("data: ").unwrap().to_owned();
        assert_eq!(stream.next().await, "");
        stream
    }

    async fn next(&mut self) -> String {
        within(self.lines.next_line()).await.unwrap().unwrap()
    }

    async fn next_event(&mut self) -> String {
        let (line, empty) = (self.next().await, self.next().await);
        assert_eq!(empty, "");
        line
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_is_a_session() {
    for (workers, version) in [(0, "--http1.1"), (1, "--http2-prior-knowledge")] {
        let server = serve(workers).await;
        let mut stream = Stream::open(&server, version).await;
        let session = only_session(server.sessions()).await;
        assert_eq!(session.info().scheme, "http");
        let address = url(&server, &format!("/messages?session={}", stream.secret));
        assert_eq!(status(&["-d", "hello", &address]).await, "202");
        assert_eq!(stream.next_event().await, "data: hello");
        session.send(&b"\xff\xfe"[..]).await.unwrap();
        assert_eq!(stream.next().await, "event: base64");
        assert_eq!(stream.next_event().await, "data: //4=");

        // one handler, one table of sessions, whatever they have come by
        let port = server.listening()[1].port().unwrap();
        let tcp = TcpStream::connect(("127.0.0.1", port));
        let mut tcp = within(tcp).await.unwrap();
        eventually("both are in", || server.sessions().len() == 2).await;
        assert_eq!(status(&["-d", "all", &address]).await, "202");
        assert_eq!(stream.next_event().await, "data: to all");
        assert_eq!(
            within(common::read_frame(&mut tcp)).await.unwrap().unwrap(),
            b"to all"
        );

        // whoever does not know the secret is nobody
        let wrong = url(&server, &format!("/messages?session={:032x}", 0));
        assert_eq!(status(&["-d", "hello", &wrong]).await, "404");

        stream.curl.kill().await.unwrap();
        within(session.ended()).await;
        assert_eq!(status(&["-d", "hello", &address]).await, "404");
        assert!(matches!(session.close_reason(), Some(CloseReason::Peer)));
        let active = || server.statistics().connections_active;
        eventually("only the other is left", || active() == 1).await;
    }
}

/// A shutdown closes event streams in good order, and their sessions are among those that were drained.
#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_ends_event_streams() {
    let server = serve(1).await;
    let mut streams = Vec::new();
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        streams.push(Stream::open(&server, version).await);
    }
    server.sessions().broadcast("the last");
    let report = server.shutdown(Duration::from_secs(10)).await;
    assert_eq!((report.cut, report.sessions), (0, 4), "{report:?}");
    for stream in &mut streams {
        assert_eq!(stream.next_event().await, "data: the last");
        assert_eq!(within(stream.lines.next_line()).await.unwrap(), None);
        assert!(within(stream.curl.wait()).await.unwrap().success());
    }
}

/// A stream is closed by the server's own code as any session.
#[tokio::test(flavor = "multi_thread")]
async fn a_kick_ends_an_event_stream() {
    let server = serve(0).await;
    let mut stream = Stream::open(&server, "--http1.1").await;
    let session = only_session(server.sessions()).await;
    server.sessions().kick(session.id(), "enough").unwrap();
    assert_eq!(within(stream.lines.next_line()).await.unwrap(), None);
    assert!(within(stream.curl.wait()).await.unwrap().success());
    // it is counted when its task has ended, which the client does not see
    eventually("counted", || ended(&server, "requested") == 1).await;
}

/// Sessions of one connection count as connections: a peer with one connection has no more of them.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_a_connection_are_capped() {
    let server = Server::builder()
        .listen("http://127.0.0.1:0")
        .http_config(config())
        .max_connections(2)
        .on_message(|session, message| async move { session.send(message).await })
        .start()
        .await
        .unwrap();
    let _stream = Stream::open(&server, "--http2-prior-knowledge").await;
    assert_eq!(server.statistics().connections_active, 2);
    // no place for another connection
    let mut refused = dial(&server).await;
    let (back, _) = common::read_to_end(&mut refused).await;
    assert!(back.is_empty());
    assert_eq!(
        server.statistics().connections_refused["max_connections"],
        1
    );
    drop(_stream);
    eventually("all is free", || {
        server.statistics().connections_active == 0
    })
    .await;
    let _held = dial(&server).await;
    eventually("one is taken", || {
        server.statistics().connections_active == 1
    })
    .await;
    // a connection, and none left for its session
    let got = exchange(
        &server,
        b"POST /messages HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
    )
    .await;
    assert!(
        got.starts_with("HTTP/1.1 503") && got.contains("retry-after: 1"),
        "{got}"
    );
}

/// `on_connect` decides about requests, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_403() {
    let server = Server::builder()
        .listen("http://127.0.0.1:0")
        .http_config(config())
        .on_connect(|_| Err::<(), _>(Error::new(ErrorKind::PermissionDenied, "let anybody in")))
        .on_message(|session, message| async move { session.send(message).await })
        .start()
        .await
        .unwrap();
    assert_eq!(
        status(&["-d", "hello", &url(&server, "/messages")]).await,
        "403"
    );
}

/// Where it is not asked for there is none.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_off() {
    let server = Server::builder().listen("http://127.0.0.1:0");
    let server = server.start().await.unwrap();
    assert_eq!(
        status(&["-d", "hello", &url(&server, "/messages")]).await,
        "404"
    );
}
