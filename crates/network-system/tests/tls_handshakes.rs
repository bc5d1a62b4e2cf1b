//! Handshakes with TLS that do not come, come too slowly, or are something else: nobody else is held
//! up.
#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::time::Duration;

use common::pki::Pki;
use common::secure::{dial, is, localhost, not_dialled, refused, round_trip, secure};
use common::{Healthy, eventually, frame, read_to_end, within};
use network_system::config::{ClientConfig, ServerConfig};
use network_system::{ErrorKind, listen_with};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// A plain peer on a port for TLS, and the reverse.
#[tokio::test]
async fn plain_and_secure_peers_do_not_mix() {
    let pki = Pki::new();
    let mut echo = secure(pki.issue(&["localhost"]).server(), |builder| builder).await;
    for hello in [
        &frame(b"hello")[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\0\0\0",
    ] {
        let mut plain = echo.dial().await;
        plain.write_all(hello).await.unwrap();
        is(&echo.next_error().await, ErrorKind::Handshake, "is no TLS");
        // an alert, and the end without a reset
        let (alert, end) = read_to_end(&mut plain).await;
        assert!(
            alert.starts_with(b"\x15\x03") && end.is_ok(),
            "{alert:x?} {end:?}"
        );
    }
    let url = format!("tcp://127.0.0.1:{}", echo.address().port());
    let mut plain = network_system::connect(&url).await.unwrap();
    let result = round_trip(&mut plain, "hello").await;
    assert!(result.is_err(), "a plain client of ours");

    let mut echo = common::echo(|builder| builder).await;
    let url = format!("tls://localhost:{}", echo.address().port());
    let error = not_dialled(&url, pki.client()).await;
    is(
        &error,
        ErrorKind::ConnectionClosed,
        "check that it speaks TLS there",
    );
    let told = echo.next_error().await;
    is(&told, ErrorKind::MessageTooLarge, "the first bytes of TLS");
}

/// Who connects and says nothing is refused in time, and holds up nobody: not with one thread either.
#[tokio::test]
async fn a_handshake_that_does_not_come() {
    let pki = Pki::new();
    let tls = pki.issue(&["localhost"]).server();
    for workers in [0, 1] {
        let mut echo = secure(tls.clone(), |builder| {
            builder
                .workers(workers)
                .max_connections(6)
                .handshake_timeout(Duration::from_millis(300))
        })
        .await;
        let config = ClientConfig {
            tls: pki.client(),
            ..ClientConfig::default()
        };
        let pause = Duration::from_millis(2);
        let healthy = Healthy::with(&localhost(&echo), config, pause).await;
        let mut silent = Vec::new();
        for n in 0..4 {
            let mut stream = echo.dial().await;
            // some begin to say something
            stream
                .write_all(&b"\x16\x03\x01\x02\0\x01"[..n])
                .await
                .unwrap();
            silent.push(stream);
        }
        let mut connection = dial(&localhost(&echo), pki.client()).await.unwrap();
        round_trip(&mut connection, "meanwhile").await.unwrap();
        for stream in &mut silent {
            is(
                &echo.next_error().await,
                ErrorKind::ConnectionTimeout,
                "300ms",
            );
            let (_, end) = read_to_end(stream).await;
            assert!(end.is_ok(), "{end:?}");
        }
        let refused = echo.server.statistics().connections_refused;
        assert_eq!((refused["handshake_timeout"], refused["handshake"]), (4, 0));
        round_trip(&mut connection, "still there").await.unwrap();
        eventually("places are free", || {
            echo.server.statistics().connections_active == 2
        })
        .await;
        healthy.finish().await;
    }
}

/// Those that have not done their handshake count towards the most connections.
#[tokio::test]
async fn half_open_handshakes_are_capped() {
    let pki = Pki::new();
    let tls = pki.issue(&["localhost"]).server();
    let echo = secure(tls, |builder| builder.max_connections(3)).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(echo.dial().await);
    }
    eventually("three places", || {
        echo.server.statistics().connections_active == 3
    })
    .await;
    let error = refused(&echo, pki.client()).await;
    is(&error, ErrorKind::ConnectionClosed, "in the TLS handshake");
    let statistics = echo.server.statistics();
    assert_eq!(statistics.connections_refused["max_connections"], 1);
    assert_eq!(statistics.connections_total, 0);
    // they leave, and others come
    drop(silent);
    eventually("no places", || {
        echo.server.statistics().connections_active == 0
    })
    .await;
    let mut connection = dial(&localhost(&echo), pki.client()).await.unwrap();
    round_trip(&mut connection, "hello").await.unwrap();
    // a handshake does not hold up a shutdown
    let _silent = echo.dial().await;
    eventually("two places", || {
        echo.server.statistics().connections_active == 2
    })
    .await;
    drop(connection);
    let report = within(echo.server.shutdown(Duration::from_secs(20))).await;
    assert_eq!(report.cut, 0, "{report:?}");
}

/// They have a cap of their own, so those that never come do not take all places; and once the oldest
/// have had a part of their time, they make room, so they do not keep others out either.
#[tokio::test]
async fn handshakes_have_a_cap_of_their_own() {
    assert_eq!(ServerConfig::default().protection.max_handshakes, 1000);
    let pki = Pki::new();
    let tls = pki.issue(&["localhost"]).server();
    for workers in [0, 2] {
        let echo = secure(tls.clone(), |builder| {
            builder
                .workers(workers)
                .max_handshakes(3)
                .handshake_timeout(Duration::from_secs(4))
        })
        .await;
        let config = ClientConfig {
            tls: pki.client(),
            ..ClientConfig::default()
        };
        let pause = Duration::from_millis(2);
        let healthy = Healthy::with(&localhost(&echo), config, pause).await;
        let refusals = |why: &str| echo.server.statistics().connections_refused[why];
        let mut silent = Vec::new();
        for n in 0..3 {
            silent.push(echo.dial().await);
            eventually("it has a place", || {
                echo.server.statistics().connections_active == n + 2
            })
            .await;
        }
        // they are young: one more is refused at once, and takes no place
        let (came, _) = read_to_end(&mut echo.dial().await).await;
        assert!(came.is_empty());
        assert_eq!(refusals("max_handshakes"), 1);
        assert_eq!(echo.server.statistics().connections_active, 4);
        // a second later the oldest makes room
        let late = async {
            loop {
                if let Ok(connection) = dial(&localhost(&echo), pki.client()).await {
                    break connection;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let mut late = within(late).await;
        round_trip(&mut late, "let in").await.unwrap();
        assert_eq!(refusals("handshake_timeout"), 0, "they have time left");
        let before = refusals("max_handshakes");
        assert!(before > 1);
        let (_, end) = read_to_end(&mut silent[0]).await;
        assert!(end.is_ok(), "{end:?}");
        // one that is done makes room, too: for as many as come one after another
        for _ in 0..5 {
            let mut next = dial(&localhost(&echo), pki.client()).await.unwrap();
            round_trip(&mut next, "let in").await.unwrap();
        }
        assert_eq!(refusals("max_handshakes"), before);
        healthy.finish().await;
    }
}

/// The same for a listener of connections.
#[tokio::test]
async fn a_listener_has_that_cap_too() {
    let pki = Pki::new();
    let mut config = ServerConfig {
        tls: pki.issue(&["localhost"]).server(),
        ..ServerConfig::default()
    };
    config.protection.max_handshakes = 1;
    let mut listener = listen_with("tls://127.0.0.1:0", &config).await.unwrap();
    let port = listener.local().port().unwrap();
    let mut first = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut second = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let accepting = listener.accept();
    let refused = async {
        let (came, _) = read_to_end(&mut second).await;
        assert!(came.is_empty());
        // once that is over there is a place again
        first.write_all(b"nonsense").await.unwrap();
        let _ = read_to_end(&mut first).await;
        drop(first);
        let url = format!("tls://localhost:{port}");
        loop {
            if let Ok(connection) = dial(&url, pki.client()).await {
                break connection;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let (accepted, _dialled) = within(async { tokio::join!(accepting, refused) }).await;
    assert!(accepted.is_ok());
    assert!(listener.refused()["max_handshakes"] >= 1);
}

#[tokio::test]
async fn the_coroutine_level() {
    let pki = Pki::new();
    let config = ServerConfig {
        tls: pki.issue(&["localhost"]).server(),
        handshake_timeout: Duration::from_secs(1),
        ..ServerConfig::default()
    };
    let mut listener = listen_with("tls://127.0.0.1:0", &config).await.unwrap();
    let port = listener.local().port().unwrap();
    // those who are silent or speak nonsense hold up nobody
    let _silent = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut wrong = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    wrong.write_all(b"nonsense").await.unwrap();
    let url = format!("tls://localhost:{port}");
    let client = async {
        let mut connection = dial(&url, pki.client()).await.unwrap();
        round_trip(&mut connection, "hello").await.unwrap();
        connection.close().await.unwrap();
    };
    let server = async {
        let mut connection = within(listener.accept()).await.unwrap();
        assert!(connection.info().tls.is_some());
        while let Some(message) = within(connection.receive()).await.unwrap() {
            connection.send(message).await.unwrap();
        }
    };
    tokio::join!(client, server);
}
