//! Sessions and services over gRPC, with grpcio of Python on the other side.
#![cfg(all(feature = "grpc", unix))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::path::Path;
use std::time::Duration;

use common::{Builder, Echo, ended, eventually, within};
use network_system::config::{ClientConfig, HttpConfig};
use network_system::grpc::Grpc;
use network_system::prelude::ServeGrpc;
use network_system::{Client, ErrorKind, Message, MessageKind, Server, connect, connect_with};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc;

/// The peer in the environment that scripts/test.sh makes.
fn peer(arguments: &[&str]) -> Command {
    let mut command = common::programs::python_peer("grpc_peer.py");
    command.args(arguments);
    command
}

async fn says(arguments: &[&str]) -> String {
    let output = within(peer(arguments).output()).await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn port(server: &Server) -> String {
    server.listening()[0].port().unwrap().to_string()
}

async fn serve(address: &str, configure: impl FnOnce(Builder) -> Builder) -> Echo {
    common::echo_on(&[address], configure).await
}

#[tokio::test(flavor = "multi_thread")]
async fn python_is_a_client() {
    let everything = HttpConfig {
        grpc: true,
        ..HttpConfig::default()
    };
    for (address, http, workers) in [
        ("grpc://127.0.0.1:0", HttpConfig::default(), 0),
        ("grpc://127.0.0.1:0", HttpConfig::default(), 2),
        ("http://127.0.0.1:0", everything.clone(), 0),
        ("auto://127.0.0.1:0", everything, 1),
    ] {
        let echo = serve(address, |b| b.http_config(http).workers(workers)).await;
        assert_eq!(says(&["client", &port(&echo.server)]).await, "done");
        eventually("all gone", || {
            echo.server.statistics().connections_active == 0
        })
        .await;
        let all = echo.server.statistics();
        assert_eq!((all.messages_in, all.messages_out), (16, 16));
    }
}

#[tokio::test]
async fn python_is_a_server() {
    let mut child = peer(&["server"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let port = within(lines.next_line()).await.unwrap().unwrap();
    let url = format!("grpc://127.0.0.1:{port}");
    let mut connection = within(connect(&url)).await.unwrap();
    assert_eq!(connection.info().scheme, "grpc");
    for size in [0, 1, 1000, 1 << 20] {
        for kind in [MessageKind::Binary, MessageKind::Text] {
            let message = Message::from(vec![b'a'; size]).with_kind(kind);
            connection.send(message.clone()).await.unwrap();
            let back = within(connection.receive()).await.unwrap().unwrap();
            assert_eq!((back.len(), back.kind()), (size, kind));
        }
    }
    connection.send("metadata").await.unwrap();
    let back = within(connection.receive()).await.unwrap().unwrap();
    assert!(
        back.as_str().unwrap().starts_with("network-system/"),
        "{back:?}"
    );
    within(connection.close()).await.unwrap();

    // the handler level, and how it ends
    let (came, mut messages) = mpsc::unbounded_channel();
    let (ended, mut ends) = mpsc::unbounded_channel();
    let client = Client::builder(&url)
        .on_message(move |_, message| {
            let _ = came.send(message);
            async {}
        })
        .on_disconnect(move |_, reason| {
            let _ = ended.send(reason.label());
        })
        .connect();
    let client = within(client).await.unwrap();
    for n in 0..1000_u32 {
        client.send(n.to_be_bytes().to_vec()).await.unwrap();
    }
    for n in 0..1000_u32 {
        let message = within(messages.recv()).await.unwrap();
        assert_eq!(message.as_bytes(), n.to_be_bytes());
    }
    client.send("end").await.unwrap();
    assert_eq!(within(ends.recv()).await, Some("peer"));
    within(client.connected()).await.unwrap();
    client.send("fail").await.unwrap();
    assert_eq!(within(ends.recv()).await, Some("network"));
    within(client.close(Duration::from_secs(5))).await;
    drop(child.stdin.take());
    assert!(within(child.wait()).await.unwrap().success());
}

#[tokio::test]
async fn health_says_that_a_shutdown_has_begun() {
    let echo = serve("grpc://127.0.0.1:0", |b| b).await;
    let mut child = peer(&["watch", &port(&echo.server)]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = within(lines.next_line()).await.unwrap();
    assert_eq!(line.as_deref(), Some("SERVING"));
    let shutdown = echo.server.shutdown(Duration::from_secs(10));
    let told = async {
        let line = lines.next_line().await.unwrap();
        assert_eq!(line.as_deref(), Some("NOT_SERVING"));
    };
    let (report, ()) = within(async { tokio::join!(shutdown, told) }).await;
    assert_eq!(report.cut, 0, "{report:?}");
    assert!(within(child.wait()).await.unwrap().success());
}

#[tokio::test]
async fn a_message_that_is_too_large() {
    let echo = serve("grpc://127.0.0.1:0", |b| b.max_message(10_000)).await;
    let port = port(&echo.server);
    assert_eq!(says(&["large", &port, "10000"]).await, "got 1");
    let said = says(&["large", &port, "10100"]).await;
    assert!(!said.starts_with("got 1"), "{said}");
    eventually("counted", || ended(&echo.server, "protocol") == 1).await;
}

#[tokio::test]
async fn both_sides_must_agree_on_the_envelope() {
    let echo = serve("grpc://127.0.0.1:0", |b| b.envelope(true)).await;
    let error = within(connect(echo.url())).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Handshake, "{error}");
    assert!(error.to_string().contains("envelope"), "{error}");
    let mut config = ClientConfig::default();
    config.session.envelope = true;
    let mut connection = within(connect_with(echo.url(), &config)).await.unwrap();
    connection.send("hello").await.unwrap();
    let back = within(connection.receive()).await.unwrap().unwrap();
    assert_eq!(back.as_bytes(), b"hello");
}

#[tokio::test]
async fn without_sessions_there_are_none() {
    let grpc = Grpc::new().sessions(false);
    let echo = serve("http://127.0.0.1:0", |b| b.grpc(grpc)).await;
    let url = format!("grpc://127.0.0.1:{}", port(&echo.server));
    let error = within(connect(&url)).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Handshake, "{error}");
    // nor where something else is spoken
    let frames = serve("tcp://127.0.0.1:0", |b| b).await;
    let url = format!("grpc://127.0.0.1:{}", port(&frames.server));
    assert!(within(connect(&url)).await.is_err());
}

/// A connection and each session on it have a place; who finds none is told, and places come back.
#[tokio::test]
async fn sessions_count_as_connections() {
    let echo = serve("grpc://127.0.0.1:0", |b| b.max_connections(3)).await;
    let mut first = within(connect(echo.url())).await.unwrap();
    // has a place for its connection, and none for the session
    let error = within(connect(echo.url())).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ConnectionFailed, "{error}");
    let refused = echo.server.statistics().connections_refused;
    assert_eq!(refused["max_connections"], 1);
    first.send("still").await.unwrap();
    let back = within(first.receive()).await.unwrap().unwrap();
    assert_eq!(back.as_bytes(), b"still");
    // one that goes in the middle
    drop(first);
    eventually("all gone", || {
        echo.server.statistics().connections_active == 0
    })
    .await;
    assert!(within(connect(echo.url())).await.is_ok());
}

/// What is generated is what `proto/` says now. With `NETSYS_UPDATE=1` it is made anew.
#[test]
fn the_generated_code_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let here = root.join("crates/transports/src/grpc/generated");
    let fresh = tempfile::tempdir().unwrap();
    let update = std::env::var_os("NETSYS_UPDATE").is_some();
    let folder = if update { &here } else { fresh.path() };
    let set = protox::compile(["network_system/v1/session.proto"], [root.join("proto")]).unwrap();
    std::fs::write(
        folder.join("session.bin"),
        prost::Message::encode_to_vec(&set),
    )
    .unwrap();
    let mut config = tonic_prost_build::Config::new();
    config.bytes(["."]);
    tonic_prost_build::configure()
        .out_dir(folder)
        .build_transport(false)
        .compile_fds_with_config(set, config)
        .unwrap();
    for file in ["session.bin", "network_system.v1.rs"] {
        let (old, new) = (
            std::fs::read(here.join(file)).unwrap(),
            std::fs::read(folder.join(file)).unwrap(),
        );
        assert!(
            old == new,
            "{file} is old: run this test with NETSYS_UPDATE=1"
        );
    }
}
