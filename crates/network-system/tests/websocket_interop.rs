//! Other people's implementations of WebSocket speak with our servers and clients: Python's `websockets`
//! and Node's `ws`, with compression and without.
//!
//! What they need must be there; `scripts/test.sh` installs it.
#![cfg(all(unix, feature = "websocket"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::path::{Path, PathBuf};

use common::programs::{program, run_ok};
use common::within;
use network_system::config::{Deflate, WebSocketConfig};
use network_system::{Client, CloseReason, Goodbye, Link, Message, MessageKind, Server};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

const KINDS: [&str; 2] = ["plain", "deflate"];

fn prepared(path: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("..").join(path);
    assert!(
        path.exists(),
        "{} is missing, and this test needs it: run `scripts/test.sh --prepare`",
        path.display()
    );
    path
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/interop")
        .join(name)
}

fn python() -> Command {
    let mut command = Command::new(prepared("python/bin/python3"));
    command.arg(script("websocket_peer.py"));
    piped(command)
}

fn node() -> Command {
    let modules = prepared("node/node_modules");
    let mut command = program("node", "nodejs");
    command
        .env("NODE_PATH", modules)
        .arg(script("websocket_peer.js"));
    command
}

fn piped(mut command: Command) -> Command {
    command
        .kill_on_drop(true)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    command
}

fn settings(kind: &str) -> WebSocketConfig {
    let websocket = WebSocketConfig::default().subprotocols(["v1"]);
    match kind {
        "deflate" => websocket.deflate(Deflate {
            threshold: 0,
            ..Deflate::default()
        }),
        _ => websocket,
    }
}

/// Their client and our server.
async fn served(client: fn() -> Command) {
    for kind in KINDS {
        let (ended, mut ends) = mpsc::unbounded_channel();
        let server = Server::builder()
            .listen("ws://127.0.0.1:0")
            .workers(1)
            .websocket(settings(kind))
            .on_message(|session, message| async move {
                if message == "close me" {
                    session.close_with(4002, "as you like");
                    return Ok(());
                }
                session.send(message).await
            })
            .on_disconnect(move |session, reason: &CloseReason| {
                let _ = ended.send((session.goodbye().cloned(), reason.label()));
            })
            .start()
            .await
            .unwrap();
        let mut command = client();
        command.args(["client", server.listening()[0].as_str(), kind]);
        run_ok(command).await;
        let (goodbye, label) = within(ends.recv()).await.unwrap();
        let said = Goodbye {
            code: 4001,
            text: "enough".into(),
        };
        assert_eq!((goodbye, label), (Some(said), "peer"), "{kind}");
        assert_eq!(within(ends.recv()).await.unwrap().1, "requested");
    }
}

/// Their server, and its port.
async fn started(mut command: Command, kind: &str) -> (Child, String) {
    let mut child = command.args(["server", kind]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let port = within(lines.next_line()).await.unwrap().unwrap();
    (child, format!("ws://127.0.0.1:{port}/path?query=1"))
}

/// Our client, at both levels, and their server.
async fn connected(server: fn() -> Command) {
    for kind in KINDS {
        let (_child, url) = started(server(), kind).await;
        let (back, mut came) = mpsc::unbounded_channel();
        let client = Client::builder(&url)
            .websocket(settings(kind))
            .on_message(move |_, message| {
                let _ = back.send(message);
                async {}
            })
            .connect();
        let client = within(client).await.unwrap();
        let http = client.session().unwrap().info().http.clone().unwrap();
        assert_eq!(http.subprotocol.as_deref(), Some("v1"));
        assert_eq!(http.extensions.is_some(), kind == "deflate");
        let mut messages: Vec<Message> =
            vec!["".into(), "text".into(), "ä€𝄞".into(), "in parts".into()];
        for size in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
            messages.push(vec![size as u8; size].into());
            messages.push("words ".repeat(size / 6).into());
        }
        for message in &messages {
            within(client.send(message.clone())).await.unwrap();
        }
        for message in &messages {
            let back = within(came.recv()).await.unwrap();
            assert_eq!((back.kind(), back.len()), (message.kind(), message.len()));
            assert!(back == *message);
        }
        within(client.close(std::time::Duration::from_secs(5))).await;

        let config = network_system::config::ClientConfig {
            websocket: settings(kind),
            ..Default::default()
        };
        let connecting = network_system::connect_with(&url, &config);
        let mut connection = within(connecting).await.unwrap();
        for n in 0..2000 {
            within(connection.send(format!("message {n}")))
                .await
                .unwrap();
        }
        for n in 0..2000 {
            let message = within(connection.receive()).await.unwrap().unwrap();
            assert_eq!(message.kind(), MessageKind::Text);
            assert_eq!(message, format!("message {n}"));
        }
        within(connection.send("close me")).await.unwrap();
        assert!(within(connection.receive()).await.unwrap().is_none());
        let goodbye = connection.get_ref().goodbye().unwrap().to_string();
        assert_eq!(goodbye, "4003 as you like");
    }
}

#[tokio::test]
async fn python_is_served() {
    served(python).await;
}

#[tokio::test]
async fn node_is_served() {
    served(node).await;
}

#[tokio::test]
async fn python_serves() {
    connected(python).await;
}

#[tokio::test]
async fn node_serves() {
    connected(node).await;
}
