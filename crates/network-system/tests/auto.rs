//! One port for everything: frames, HTTP/1, HTTP/2 and a pipeline, plain and inside TLS.
#![cfg(all(feature = "compression", feature = "http", feature = "tls", unix))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use common::http::curl;
use common::pki::{Pair, Pki};
use common::{
    Builder, Echo, Healthy, ended, eventually, frame, read_frame, read_to_end, round_trip, within,
};
use network_system::config::{ClientConfig, Compression, HttpConfig, Pipeline};
use network_system::prelude::ServeHttp;
use network_system::{Connection, ErrorKind, Framing, Server, connect_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn serve(configure: impl FnOnce(Builder) -> Builder) -> Echo {
    let http = HttpConfig {
        messages: Some("/messages".to_owned()),
        ..HttpConfig::default()
    };
    common::echo_on(&["auto://127.0.0.1:0"], |builder| {
        let page = Router::new().route("/page", get(|| async { "a page" }));
        configure(builder.http_config(http).http(page))
    })
    .await
}

fn secured() -> (Pki, Pair) {
    let pki = Pki::new();
    let pair = pki.issue(&["localhost", "127.0.0.1"]);
    (pki, pair)
}

async fn dial(echo: &Echo, scheme: &str, config: &ClientConfig) -> Connection {
    let url = format!("{scheme}://localhost:{}", echo.address().port());
    within(connect_with(&url, config)).await.unwrap()
}

async fn talk(mut connection: Connection, scheme: &str) {
    assert_eq!(connection.info().scheme, scheme);
    for size in [0, 1, 1000, 100_000] {
        let message = vec![7; size];
        connection.send(message.clone()).await.unwrap();
        let back = within(connection.receive()).await.unwrap().unwrap();
        assert_eq!(back.as_bytes(), message);
    }
    within(connection.close()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_on_one_port() {
    for workers in [0, 2] {
        let (pki, pair) = secured();
        let echo = serve(|b| b.tls(pair.server()).workers(workers)).await;
        let port = echo.address().port();
        let config = ClientConfig {
            tls: pki.client(),
            ..ClientConfig::default()
        };
        talk(dial(&echo, "tcp", &config).await, "tcp").await;
        talk(dial(&echo, "auto", &config).await, "tcp").await;
        talk(dial(&echo, "tls", &config).await, "tls").await;
        let ca = pki.ca();
        let ca = ["--cacert", ca.to_str().unwrap()];
        for (secure, version, expected) in [
            ("", "--http1.1", "1.1"),
            ("", "--http2-prior-knowledge", "2"),
            ("s", "--http1.1", "1.1"),
            ("s", "--http2", "2"),
            ("s", "--no-alpn", "1.1"),
        ] {
            let url = |path| format!("http{secure}://localhost:{port}{path}");
            let page = url("/page");
            let format = ["-w", " %{http_version}"];
            let got = curl(&[&ca[..], &format, &[version, &page]].concat()).await;
            assert_eq!(got, format!("a page {expected}"), "{version}{secure}");
            let messages = url("/messages");
            let got = curl(&[&ca[..], &[version, "-d", "hello", &messages]].concat()).await;
            assert_eq!(got, "hello");
        }
        eventually("all gone", || {
            echo.server.statistics().connections_active == 0
        })
        .await;
        let refused = echo.server.statistics().connections_refused;
        assert!(refused.values().all(|n| *n == 0), "{refused:?}");
    }
}

#[tokio::test]
async fn a_pipeline_is_for_messages() {
    let pipeline = || Pipeline::new().compress(Compression::Lz4);
    let (pki, pair) = secured();
    let echo = serve(|b| b.tls(pair.server()).pipeline(pipeline())).await;
    let mut config = ClientConfig {
        tls: pki.client(),
        ..ClientConfig::default()
    };
    config.session.pipeline = Some(pipeline());
    talk(dial(&echo, "tcp", &config).await, "tcp").await;
    talk(dial(&echo, "tls", &config).await, "tls").await;
    let page = format!("http://127.0.0.1:{}/page", echo.address().port());
    assert_eq!(curl(&[&page]).await, "a page");
}

/// Whatever comes first may come in any pieces.
#[tokio::test]
async fn first_bytes_cut_anywhere() {
    let echo = serve(|b| b).await;
    let mut turns = echo.dial().await;
    let get = b"GET /page HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_vec();
    let preface = [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        &[0, 0, 0, 4, 0, 0, 0, 0, 0],
    ]
    .concat();
    for (input, answer) in [
        (frame(b"hello"), &b"\0\0\0\x05hello"[..]),
        (get, b"HTTP/1.1 200 OK"),
        // its settings
        (preface, b"\0\0"),
    ] {
        for cut in 1..input.len() {
            let mut stream = echo.dial().await;
            stream.set_nodelay(true).unwrap();
            stream.write_all(&input[..cut]).await.unwrap();
            // the server has had its turn
            round_trip(&mut turns, b"turn").await;
            stream.write_all(&input[cut..]).await.unwrap();
            let mut got = vec![0; answer.len()];
            within(stream.read_exact(&mut got)).await.unwrap();
            assert_eq!(got, answer, "cut at {cut}");
        }
    }
}

#[tokio::test]
async fn who_says_nothing_has_to_go() {
    let echo = serve(|b| b.handshake_timeout(Duration::from_millis(300))).await;
    let mut bystander = Healthy::start(echo.address()).await;
    let mut silent = echo.dial().await;
    assert!(within(read_to_end(&mut silent)).await.0.is_empty());
    let refused = echo.server.statistics().connections_refused;
    assert_eq!(refused["handshake_timeout"], 1);
    // one that leaves at once
    drop(echo.dial().await);
    eventually("counted", || {
        echo.server.statistics().connections_refused["handshake"] == 1
    })
    .await;
    bystander.still_works().await;
    bystander.finish().await;
}

#[tokio::test]
async fn what_is_not_spoken_is_refused() {
    let plain = serve(|b| b).await;
    let mut bystander = Healthy::start(plain.address()).await;
    let refused = |echo: &Echo| echo.server.statistics().connections_refused["handshake"];
    // TLS where there is no certificate
    let url = format!("tls://localhost:{}", plain.address().port());
    let error = within(connect_with(&url, &ClientConfig::default())).await;
    assert!(error.is_err());
    eventually("counted", || refused(&plain) == 1).await;
    // bytes that nothing begins with
    let mut stream = plain.dial().await;
    stream.write_all(&[0xff; 100]).await.unwrap();
    assert!(
        within(read_frame(&mut stream))
            .await
            .ok()
            .flatten()
            .is_none()
    );
    eventually("counted", || ended(&plain.server, "protocol") == 1).await;
    bystander.still_works().await;
    bystander.finish().await;
    // without TLS where it is a must
    let (pki, pair) = secured();
    let secure = common::echo_on(&["auto://127.0.0.1:0?tls=true"], |b| b.tls(pair.server())).await;
    for bytes in [&frame(b"hello")[..], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = secure.dial().await;
        stream.write_all(bytes).await.unwrap();
        assert!(within(read_to_end(&mut stream)).await.0.is_empty());
    }
    eventually("counted", || refused(&secure) == 2).await;
    let mut config = ClientConfig {
        tls: pki.client(),
        ..ClientConfig::default()
    };
    talk(dial(&secure, "tls", &config).await, "tls").await;
    // TLS inside TLS
    config.session.framing = "raw".parse::<Framing>().unwrap();
    let mut twice = dial(&secure, "tls", &config).await;
    twice.send(vec![0x16, 3, 1]).await.unwrap();
    assert!(within(twice.receive()).await.ok().flatten().is_none());
    eventually("counted", || refused(&secure) == 3).await;
}

#[tokio::test]
async fn settings_that_could_not_be_told_apart() {
    for builder in [
        Server::builder().framing("lines".parse::<Framing>().unwrap()),
        Server::builder().max_message(0x1600_0000),
    ] {
        let error = builder
            .listen("auto://127.0.0.1:0")
            .start()
            .await
            .err()
            .unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.to_string().contains("tcp://"), "{error}");
    }
}

/// Many at once, of every sort, each with its own answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd() {
    let echo = serve(|b| b.workers(2)).await;
    let address = echo.address();
    let mut crowd = tokio::task::JoinSet::new();
    for n in 0..200_u32 {
        crowd.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            if n % 2 == 0 {
                round_trip(&mut stream, &n.to_be_bytes()).await;
            } else {
                let get = "GET /page HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
                stream.write_all(get.as_bytes()).await.unwrap();
                let (answer, _) = read_to_end(&mut stream).await;
                assert!(answer.ends_with(b"a page"));
            }
        });
    }
    within(async { while crowd.join_next().await.is_some_and(|done| done.is_ok()) {} }).await;
    assert!(crowd.is_empty());
}

#[cfg(feature = "websocket")]
async fn websockets(configure: impl FnOnce(Builder) -> Builder) -> Echo {
    let http = HttpConfig {
        websocket: Some("*".to_owned()),
        ..HttpConfig::default()
    };
    common::echo_on(&["auto://127.0.0.1:0"], |b| configure(b.http_config(http))).await
}

/// Who has connected before a shutdown gets a whole handshake, and then word of the end.
#[cfg(feature = "websocket")]
#[tokio::test]
async fn a_websocket_that_begins_during_a_shutdown() {
    use common::websockets;
    let echo = websockets(|b| b).await;
    let mut stream = echo.dial().await;
    eventually("there", || echo.server.statistics().connections_active == 1).await;
    let address = echo.address();
    let shutdown = echo.server.shutdown(Duration::from_secs(20));
    let peer = async {
        // the listener is closed when the shutdown has begun
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        let request = websockets::request("/", "");
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = websockets::head(&mut stream).await.to_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(head.contains("connection: upgrade"), "{head}");
        let (first, code) = websockets::read(&mut stream).await.unwrap();
        assert_eq!((first, &code[..2]), (0x88, &1001_u16.to_be_bytes()[..]));
        let close = websockets::masked(0x88, &1001_u16.to_be_bytes());
        stream.write_all(&close).await.unwrap();
    };
    let (report, ()) = within(async { tokio::join!(shutdown, peer) }).await;
    assert_eq!(report.cut, 0, "{report:?}");
}

#[cfg(feature = "websocket")]
#[tokio::test]
async fn websockets_that_break_the_rules() {
    use common::websockets;
    let echo = websockets(|b| b.max_message(1000)).await;
    let mut bystander = Healthy::start(echo.address()).await;
    for (n, wrong) in [
        // no such opcode, and no mask
        vec![0xff; 100],
        websockets::masked(0x82, &[0; 1001]),
    ]
    .into_iter()
    .enumerate()
    {
        let (mut stream, _) = websockets::open(echo.address(), "").await;
        let fits = websockets::masked(0x82, &[1; 1000]);
        stream.write_all(&fits).await.unwrap();
        let (_, back) = websockets::read(&mut stream).await.unwrap();
        assert_eq!(back, [1; 1000]);
        stream.write_all(&wrong).await.unwrap();
        let close = websockets::read(&mut stream).await;
        assert!(close.is_none_or(|(first, _)| first == 0x88));
        drop(stream);
        eventually("counted", || {
            ended(&echo.server, "protocol") == n as u64 + 1
        })
        .await;
    }
    bystander.still_works().await;
    bystander.finish().await;
}

#[tokio::test]
async fn who_begins_tls_and_falls_silent_has_to_go() {
    let (_pki, pair) = secured();
    let deadline = Duration::from_millis(300);
    let echo = serve(|b| b.tls(pair.server()).handshake_timeout(deadline)).await;
    let mut silent = echo.dial().await;
    silent.write_all(&[0x16]).await.unwrap();
    assert!(within(read_to_end(&mut silent)).await.0.is_empty());
    let refused = echo.server.statistics().connections_refused;
    assert_eq!(refused["handshake_timeout"], 1);
    assert_eq!(echo.server.statistics().connections_active, 0);
}
