//! How connections over WebSocket end: the code and the words that the peer gets for each of our reasons,
//! what we know of the peer's, and the order in which streams are closed.
#![cfg(feature = "websocket")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::time::Duration;

use common::websockets::{close, masked, open, read, read_close};
use common::{Builder, Echo, echo_on, only_session, within};
use network_system::config::{RateExceeded, SessionLimits};
use network_system::{Client, CloseReason, Error, ErrorKind, Goodbye, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

async fn server(configure: impl FnOnce(Builder) -> Builder) -> Echo {
    echo_on(&["ws://127.0.0.1:0"], configure).await
}

/// Our end is told, answered, and then the server closes the stream.
async fn told(stream: &mut tokio::net::TcpStream) -> (u16, String) {
    let (code, words) = read_close(stream).await;
    stream.write_all(&close(code, "")).await.unwrap();
    within(stream.read_to_end(&mut Vec::new())).await.unwrap();
    (code, words)
}

#[tokio::test]
async fn sessions_say_why_they_close() {
    let mut echo = server(|b| b).await;
    for (code, text, said) in [
        (None, "enough", (1000, "enough")),
        (Some(4001), "of ours", (4001, "of ours")),
        (Some(1006), "not to be sent", (1000, "not to be sent")),
    ] {
        let (mut stream, _) = open(echo.address(), "").await;
        let session = only_session(echo.server.sessions()).await;
        match code {
            None => session.close(text),
            Some(code) => session.close_with(code, text),
        }
        let (code, words) = told(&mut stream).await;
        assert_eq!((code, words.as_str()), said);
        assert_eq!(echo.next_end().await.label(), "requested");
    }
}

#[tokio::test]
async fn what_the_engine_ends_has_its_code() {
    let soon = Duration::from_millis(200);
    let limits = |change: fn(&mut SessionLimits)| {
        let mut limits = SessionLimits::default();
        change(&mut limits);
        limits
    };
    type Configure = Box<dyn FnOnce(Builder) -> Builder>;
    let old = limits(|limits| {
        limits.max_age = Some(Duration::from_millis(200));
        limits.max_age_jitter = 0.0;
    });
    let rate = limits(|limits| {
        limits.messages_per_second = 1;
        limits.rate_exceeded = RateExceeded::Close;
    });
    let silent = limits(|limits| limits.first_byte_timeout = Some(Duration::from_millis(200)));
    let cases: Vec<(Configure, u16, &str)> = vec![
        (Box::new(move |b| b.idle_timeout(soon)), 1001, "idle"),
        (Box::new(|b| b.limits(old)), 1001, "max_age"),
        (Box::new(|b| b.limits(silent)), 1001, "silent"),
        (Box::new(|b| b.limits(rate)), 1008, "rate"),
    ];
    for (configure, code, label) in cases {
        let mut echo = server(configure).await;
        let (mut stream, _) = open(echo.address(), "").await;
        if label == "rate" {
            stream
                .write_all(&masked(0x82, b"a").repeat(100))
                .await
                .unwrap();
        }
        assert_eq!(read_close(&mut stream).await.0, code, "{label}");
        assert_eq!(echo.next_end().await.label(), label);
    }
}

#[tokio::test]
async fn handlers_that_fail_or_refuse() {
    let server = Server::builder()
        .listen("ws://127.0.0.1:0")
        .on_connect(|session| {
            let http = session.info().http.as_ref().unwrap();
            match http.query.as_deref() {
                Some("refused") => Err(Error::new(ErrorKind::PermissionDenied, "let in")),
                _ => Ok(()),
            }
        })
        .on_message(|_, message| async move {
            match message.as_str() {
                Some("panic") => panic!("as it was told"),
                _ => Err(Error::new(ErrorKind::Internal, "secret")),
            }
        })
        .start()
        .await
        .unwrap();
    let url = server.listening()[0].to_string();
    for (path, text, code, label) in [
        ("/?refused", "", 1008, "refused"),
        ("/", "error", 1011, "handler"),
        ("/", "panic", 0, "panicked"),
    ] {
        let mut connection = within(network_system::connect(&format!("{url}{path}")))
            .await
            .unwrap();
        within(connection.send(text)).await.unwrap();
        let _ = within(connection.flush()).await;
        let end = within(connection.receive()).await;
        if label == "panicked" {
            // nobody is left to say anything
            assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionClosed);
            common::eventually("it is counted", || common::ended(&server, label) == 1).await;
            continue;
        }
        assert!(end.unwrap().is_none(), "{label}");
        let goodbye = network_system::Link::goodbye(connection.get_ref()).unwrap();
        // what is wrong with us is nobody's business
        assert!(
            goodbye.code == code && !goodbye.text.contains("secret"),
            "{goodbye}"
        );
        common::eventually("it is counted", || common::ended(&server, label) == 1).await;
    }
}

#[tokio::test]
async fn a_drain_says_that_we_go_away() {
    let mut echo = server(|b| b).await;
    let (mut stream, _) = open(echo.address(), "").await;
    stream.write_all(&masked(0x81, b"hello")).await.unwrap();
    assert_eq!(read(&mut stream).await, Some((0x81, b"hello".to_vec())));
    let shutdown = echo.server.shutdown(Duration::from_secs(10));
    let (report, (code, _)) = within(async { tokio::join!(shutdown, told(&mut stream)) }).await;
    assert_eq!((code, report.cut), (1001, 0));
    let end = within(echo.ends.recv()).await.unwrap();
    assert_eq!(end.reason.label(), "shutdown");
}

#[tokio::test]
async fn what_the_peer_says_is_known() {
    let mut echo = server(|b| b).await;
    for (bytes, said, label) in [
        (
            close(1001, "tab closed"),
            Some((1001, "tab closed")),
            "peer",
        ),
        (close(4999, "ä"), Some((4999, "ä")), "peer"),
        (masked(0x88, b""), Some((1005, "")), "peer"),
        // it vanishes
        (Vec::new(), None, "network"),
    ] {
        let (mut stream, _) = open(echo.address(), "").await;
        stream.write_all(&masked(0x81, b"last")).await.unwrap();
        assert_eq!(read(&mut stream).await, Some((0x81, b"last".to_vec())));
        if bytes.is_empty() {
            stream.shutdown().await.unwrap();
        } else {
            stream.write_all(&bytes).await.unwrap();
            // the same code comes back, and then the server closes
            let (code, words) = read_close(&mut stream).await;
            assert_eq!((Some(code), words.as_str()), (said.map(|said| said.0), ""));
        }
        within(stream.read_to_end(&mut Vec::new())).await.unwrap();
        let end = within(echo.ends.recv()).await.unwrap();
        assert_eq!(end.reason.label(), label);
        let known = end
            .session
            .goodbye()
            .map(|Goodbye { code, text }| (*code, text.as_str()));
        assert_eq!(known, said);
    }
}

/// Who closes first has no say in who gets what: what was sent before arrives.
#[tokio::test]
async fn nothing_that_was_sent_before_the_end_is_lost() {
    const COUNT: usize = 2000;
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let server = Server::builder()
        .listen("ws://127.0.0.1:0")
        .on_message(move |session, message| {
            let _ = arrived.send(message.len());
            async move {
                for _ in 0..10 {
                    session.send(vec![1; 1000]).await?;
                }
                Ok::<_, Error>(())
            }
        })
        .start()
        .await
        .unwrap();
    let (back, mut came) = mpsc::unbounded_channel();
    let (ended, mut ends) = mpsc::unbounded_channel();
    let client = Client::builder(server.listening()[0].to_string())
        .on_message(move |_, message| {
            let _ = back.send(message.len());
            async {}
        })
        .on_disconnect(move |session, reason: &CloseReason| {
            let _ = ended.send((session.goodbye().cloned(), reason.clone()));
        })
        .connect();
    let client = within(client).await.unwrap();
    for n in 0..COUNT {
        within(client.send(vec![0; n])).await.unwrap();
    }
    for n in 0..COUNT {
        assert_eq!(within(arrivals.recv()).await, Some(n));
    }
    let session = server.sessions().all().remove(0);
    session.close_with(4000, "done");
    for _ in 0..COUNT * 10 {
        assert_eq!(within(came.recv()).await, Some(1000));
    }
    let (goodbye, reason) = within(ends.recv()).await.unwrap();
    assert_eq!(reason.label(), "peer");
    assert_eq!(goodbye.unwrap().to_string(), "4000 done");
    drop(client);
}

/// While a handler works nothing is read, not even what answers a ping: that is no reason to take the
/// peer for dead.
#[tokio::test]
async fn a_handler_may_take_longer_than_the_heartbeat() {
    let server = Server::builder()
        .listen("ws://127.0.0.1:0")
        .heartbeat(Duration::from_millis(50), 2)
        .on_message(|session, message| async move {
            tokio::time::sleep(Duration::from_millis(500)).await;
            session.send(message).await
        })
        .start()
        .await
        .unwrap();
    let url = server.listening()[0].to_string();
    let mut connection = within(network_system::connect(&url)).await.unwrap();
    for _ in 0..2 {
        within(connection.send("slowly")).await.unwrap();
        let back = within(connection.receive()).await.unwrap().unwrap();
        assert_eq!(back, "slowly");
    }
}

#[tokio::test]
async fn what_is_too_large_is_not_sent() {
    let echo = server(|b| b).await;
    let url = format!("{}?max_message=1000", echo.url());
    let mut connection = within(network_system::connect(&url)).await.unwrap();
    let error = within(connection.send(vec![0; 1001])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MessageTooLarge);
    let client = within(Client::builder(&url).connect()).await.unwrap();
    let session = client.session().unwrap();
    for error in [
        within(session.send(vec![0; 1001])).await.unwrap_err(),
        session.try_send(vec![0; 20_000]).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::MessageTooLarge);
    }
    // and all else goes on
    within(session.send(vec![0; 1000])).await.unwrap();
    within(connection.send("still here")).await.unwrap();
    assert_eq!(
        within(connection.receive()).await.unwrap().unwrap(),
        "still here"
    );
}
