//! WebSocket between our own client and server, on every stream, and how it looks in sessions.
#![cfg(feature = "websocket")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::time::Duration;

use common::{echo_on, only_session, within};
use network_system::config::{ClientConfig, Deflate, WebSocketConfig};
use network_system::{Client, Connection, Message, MessageKind};
use tokio::sync::mpsc;

async fn dial(url: &str, websocket: WebSocketConfig) -> Connection {
    let config = ClientConfig {
        websocket,
        ..ClientConfig::default()
    };
    within(network_system::connect_with(url, &config))
        .await
        .unwrap()
}

/// Sends each message and expects it back, text as text.
async fn round_trips(connection: &mut Connection, messages: &[Message]) {
    for message in messages {
        within(connection.send(message.clone())).await.unwrap();
    }
    for message in messages {
        let back = within(connection.receive()).await.unwrap().unwrap();
        assert_eq!(back.kind(), message.kind());
        assert!(
            back == *message,
            "{} B, {} B back",
            message.len(),
            back.len()
        );
    }
}

fn messages() -> Vec<Message> {
    let mut messages: Vec<Message> = vec!["".into(), "text".into(), "ä€𝄞".into(), b"".into()];
    for size in [
        1, 64, 65, 125, 126, 127, 8191, 8192, 16_384, 65_535, 65_536, 300_000,
    ] {
        let bytes: Vec<u8> = (0..size).map(|n| (n * 7) as u8).collect();
        messages.push(bytes.into());
        messages.push("a".repeat(size).into());
    }
    messages
}

#[tokio::test]
async fn every_message_comes_back_as_it_was() {
    for query in ["", "?deflate=true"] {
        let echo = echo_on(&[&format!("ws://127.0.0.1:0{query}")], |b| b).await;
        let websocket = match query {
            "" => WebSocketConfig::default(),
            _ => WebSocketConfig::default().deflate(Deflate::default()),
        };
        let mut connection = dial(echo.url().split('?').next().unwrap(), websocket).await;
        assert_eq!(connection.info().scheme, "ws");
        let deflates = connection
            .info()
            .http
            .as_ref()
            .unwrap()
            .extensions
            .is_some();
        assert_eq!(deflates, !query.is_empty());
        round_trips(&mut connection, &messages()).await;
        let statistics = connection.statistics();
        if deflates {
            assert!(statistics.bytes_out < 500_000, "{statistics:?}");
        }
        within(connection.close()).await.unwrap();
    }
}

#[tokio::test]
async fn a_client_and_a_server_of_the_engine() {
    let mut echo = echo_on(&["ws://127.0.0.1:0/chat"], |b| b.workers(2)).await;
    let (back, mut came) = mpsc::unbounded_channel();
    let client = Client::builder(format!("{}?room=7", echo.url()))
        .on_message(move |_, message| {
            let _ = back.send(message);
            async {}
        })
        .connect();
    let client = within(client).await.unwrap();
    let session = only_session(echo.server.sessions()).await;
    let http = session.info().http.clone().unwrap();
    assert_eq!(
        (http.path.as_str(), http.query.as_deref()),
        ("/chat", Some("room=7"))
    );
    assert_eq!(http.header("Sec-WebSocket-Version"), Some("13"));
    for n in 0..1000 {
        within(client.send(format!("message {n}"))).await.unwrap();
    }
    for n in 0..1000 {
        let message = within(came.recv()).await.unwrap();
        assert_eq!(message.kind(), MessageKind::Text);
        assert_eq!(message.as_str().unwrap(), format!("message {n}"));
    }
    within(client.close(Duration::from_secs(5))).await;
    assert_eq!(echo.next_end().await.label(), "peer");
    let statistics = echo.server.statistics();
    assert_eq!(
        (statistics.messages_in, statistics.messages_out),
        (1000, 1000)
    );
}
