//! Streams of messages with TLS: in order and once, however slowly they are read; and what somebody on
//! the way can do to them.
#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::time::Duration;

use common::pki::Pki;
use common::secure::{dial, is, localhost, round_trip, secure, through};
use common::{eventually, read_frame, within};
use network_system::config::{ClientConfig, ServerConfig};
use network_system::{
    Client, CloseReason, Endpoint, ErrorKind, OverflowPolicy, Server, Workers, connect_with,
};
use tokio::sync::mpsc;

#[tokio::test]
async fn what_is_changed_or_cut_on_the_way() {
    let pki = Pki::new();
    let mut echo = secure(pki.issue(&["localhost"]).server(), |builder| builder).await;
    // the last bit of what follows the handshake and the first message
    let (send, mut flip) = mpsc::unbounded_channel();
    let url = through(&echo, move |_, bytes| {
        if flip.try_recv().is_ok() {
            *bytes.last_mut().unwrap() ^= 1;
        }
        true
    })
    .await;
    let mut connection = dial(&url, pki.client()).await.unwrap();
    round_trip(&mut connection, "hello").await.unwrap();
    send.send(()).unwrap();
    let error = round_trip(&mut connection, "changed").await.unwrap_err();
    is(&error, ErrorKind::Protocol, "BadRecordMac");
    let end = echo.next_end().await;
    assert_eq!(end.label(), "protocol");
    is(
        end.error().unwrap(),
        ErrorKind::Protocol,
        "was changed on its way",
    );

    // an end of the stream without a goodbye is no end in good order
    let (send, mut cut) = mpsc::unbounded_channel();
    let url = through(&echo, move |_, _| cut.try_recv().is_err()).await;
    let mut connection = dial(&url, pki.client()).await.unwrap();
    round_trip(&mut connection, "hello").await.unwrap();
    send.send(()).unwrap();
    connection.send("the last").await.unwrap();
    connection.flush().await.unwrap();
    let end = echo.next_end().await;
    let CloseReason::Network(error) = &end else {
        panic!("{end:?}");
    };
    is(error, ErrorKind::ConnectionClosed, "without TLS' goodbye");
}

/// Nobody reads, so that writing has to wait: what is sent comes all the same, in order and once.
#[tokio::test]
async fn writing_that_has_to_wait() {
    const COUNT: usize = 3000;
    let pki = Pki::new();
    for workers in [0, 1] {
        let echo = secure(pki.issue(&["localhost"]).server(), |builder| {
            builder.workers(workers).on_connect(|session| {
                let session = session.clone();
                tokio::spawn(async move {
                    for n in 0..COUNT {
                        let mut message = vec![n as u8; n * 7 % 40_000];
                        message.extend_from_slice(&n.to_be_bytes());
                        session.send(message).await.unwrap();
                    }
                });
            })
        })
        .await;
        let mut config = ClientConfig {
            tls: pki.client(),
            ..ClientConfig::default()
        };
        config.socket.receive_buffer = Some(8192);
        let connection = within(connect_with(&localhost(&echo), &config))
            .await
            .unwrap();
        let mut connection = connection;
        eventually("the server waits", || {
            echo.server.statistics().queued_bytes > 256 * 1024
        })
        .await;
        for n in 0..COUNT {
            let message = within(connection.receive()).await.unwrap().unwrap();
            assert_eq!(message.len(), n * 7 % 40_000 + 8);
            assert_eq!(message[message.len() - 8..], n.to_be_bytes());
            assert!(
                message
                    .iter()
                    .take(n * 7 % 40_000)
                    .all(|byte| *byte == n as u8)
            );
        }
    }
}

/// Dropping the oldest does not touch what is being written.
#[tokio::test]
async fn the_oldest_are_dropped_whole() {
    let pki = Pki::new();
    let echo = secure(pki.issue(&["localhost"]).server(), |builder| {
        builder
            .overflow(OverflowPolicy::DropOldest)
            .outbox(64 * 1024, 16 * 1024)
            .on_connect(|session| {
                let session = session.clone();
                tokio::spawn(async move {
                    for n in 0..20_000_u32 {
                        session.send(n.to_be_bytes().repeat(100)).await.unwrap();
                        if n % 100 == 0 {
                            tokio::task::yield_now().await;
                        }
                    }
                    session.send("end").await.unwrap();
                });
            })
    })
    .await;
    let mut connection = dial(&localhost(&echo), pki.client()).await.unwrap();
    eventually("some are dropped", || {
        echo.server.statistics().messages_dropped > 0
    })
    .await;
    let mut last = None;
    loop {
        let message = within(connection.receive()).await.unwrap().unwrap();
        if message == "end" {
            break;
        }
        let n = u32::from_be_bytes(message[..4].try_into().unwrap());
        assert!(message == n.to_be_bytes().repeat(100), "{n} is torn");
        assert!(last < Some(n), "{n} after {last:?}");
        last = Some(n);
    }
}

/// The same with messages that are a single byte on the wire, sent by the session's own task: TLS may
/// have that byte already when there is no more room.
#[tokio::test]
async fn the_shortest_are_dropped_whole() {
    let pki = Pki::new();
    let mut config = ServerConfig {
        tls: pki.issue(&["localhost"]).server(),
        ..ServerConfig::default()
    };
    config.socket.send_buffer = Some(8192);
    config.session.framing = "lines".parse().unwrap();
    config.session.outbox.high = 8 * 1024;
    config.session.outbox.low = 4 * 1024;
    config.session.outbox.overflow = OverflowPolicy::DropOldest;
    let server = Server::builder()
        .listen("tls://127.0.0.1:0")
        .config(config)
        .on_message(async |session, _| {
            for n in 0..1_000_000_u32 {
                session.send(if n % 2 == 0 { "" } else { "xy" }).await?;
                if n % 2000 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            session.send("end").await
        })
        .start()
        .await
        .unwrap();
    let mut config = ClientConfig {
        tls: pki.client(),
        ..ClientConfig::default()
    };
    config.socket.receive_buffer = Some(8192);
    let port = server.listening()[0].port().unwrap();
    let url = format!("tls://localhost:{port}?framing=lines");
    let mut connection = within(connect_with(&url, &config)).await.unwrap();
    connection.send("go").await.unwrap();
    connection.flush().await.unwrap();
    eventually("some are dropped", || {
        server.statistics().messages_dropped > 0
    })
    .await;
    loop {
        let message = within(connection.receive()).await.unwrap().unwrap();
        match &message[..] {
            b"end" => break,
            b"" | b"xy" => {}
            torn => panic!("{torn:?}"),
        }
    }
}

/// Sizes around those of records and buffers, up to the largest message, and back at the same time.
#[tokio::test]
async fn sizes_at_every_edge() {
    let pki = Pki::new();
    let sizes = [
        0, 1, 16_379, 16_380, 16_381, 16_383, 16_384, 16_385, 65_531, 65_536, 65_537,
    ];
    for workers in [0, 1] {
        let echo = secure(pki.issue(&["localhost"]).server(), |builder| {
            builder.workers(workers)
        })
        .await;
        let connection = dial(&localhost(&echo), pki.client()).await.unwrap();
        let (mut receiver, mut sender) = connection.split();
        let sizes = || sizes.into_iter().chain([16 << 20]).chain(sizes);
        let sending = async {
            for (n, size) in sizes().enumerate() {
                sender.send(vec![n as u8; size]).await.unwrap();
            }
            sender.flush().await.unwrap();
        };
        let receiving = async {
            for (n, size) in sizes().enumerate() {
                let message = within(receiver.receive()).await.unwrap().unwrap();
                assert!(
                    message == vec![n as u8; size],
                    "{n}: {size} {}",
                    message.len()
                );
            }
        };
        tokio::join!(sending, receiving);
    }
}

/// A stream, both ways at once, through the handler API on workers at both ends.
#[tokio::test]
async fn streams_both_ways() {
    const COUNT: u64 = 20_000;
    let pki = Pki::new();
    let echo = secure(pki.issue(&["localhost"]).server(), |builder| {
        builder.workers(1)
    })
    .await;
    let workers = Workers::new(1).unwrap();
    let (back, mut came) = mpsc::unbounded_channel();
    let client = Client::builder(localhost(&echo))
        .tls(pki.client())
        .workers(&workers)
        .on_message(move |_, message| {
            let _ = back.send(message);
            async {}
        })
        .connect()
        .await
        .unwrap();
    let session = client.session().unwrap();
    assert!(matches!(session.info().peer, Endpoint::Ip(_)));
    let sending = async {
        for n in 0..COUNT {
            let size = 8 + usize::try_from(n % 3000).unwrap();
            let mut message = vec![0; size];
            message[..8].copy_from_slice(&n.to_be_bytes());
            client.send(message).await.unwrap();
        }
    };
    let receiving = async {
        for n in 0..COUNT {
            let message = within(came.recv()).await.unwrap();
            assert_eq!(message[..8], n.to_be_bytes());
            assert_eq!(message.len() as u64, 8 + n % 3000);
        }
    };
    tokio::join!(sending, receiving);
    within(client.close(Duration::from_secs(10))).await;
}

/// What a plain peer sees on the wire of a session is not what is said.
#[tokio::test]
async fn nothing_is_readable_on_the_way() {
    let pki = Pki::new();
    let echo = secure(pki.issue(&["localhost"]).server(), |builder| builder).await;
    let (seen, mut bytes) = mpsc::unbounded_channel();
    let url = through(&echo, move |_, passed| seen.send(passed.clone()).is_ok()).await;
    let mut connection = dial(&url, pki.client()).await.unwrap();
    let secret = "a secret that nobody may see";
    round_trip(&mut connection, secret).await.unwrap();
    connection.close().await.unwrap();
    let mut all = Vec::new();
    while let Some(more) = within(bytes.recv()).await {
        all.extend(more);
    }
    let found = all
        .windows(secret.len())
        .any(|part| part == secret.as_bytes());
    assert!(all.len() > 500 && !found);
    let _ = read_frame(&mut &all[..]).await;
}
