//! Every program in `examples/`, run as it is: those with both ends run to their end and print what
//! they show; servers are talked to over a socket.
//!
//! `cargo test` builds the examples first; with `--test examples` alone, build them with
//! `cargo build --examples` before.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use common::running::{Running, example};
use common::{round_trip, within};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Runs an example to its end; what it printed.
async fn run(name: &str) -> Vec<String> {
    let output = within(example(name).output()).await.unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {printed}{errors}");
    printed.lines().map(str::to_owned).collect()
}

/// Fails unless `printed` has lines that start with each of `wanted`, in this order.
#[track_caller]
fn assert_in_order(printed: &[String], wanted: &[&str]) {
    let mut lines = printed.iter();
    for wanted in wanted {
        let found = lines.any(|line| line.starts_with(wanted));
        assert!(
            found,
            "'{wanted}' is missing, or too early, in {printed:#?}"
        );
    }
}

#[tokio::test]
async fn echo_server() {
    let mut server = Running::start("echo_server", "tcp://127.0.0.1:0").await;
    let mut stream = server.dial().await;
    within(round_trip(&mut stream, b"hello")).await;
    within(round_trip(&mut stream, &[7; 100_000])).await;
    // our end, and the server's answer to it
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    within(stream.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty(), "{rest:?}");
    // the stream may end before the session does
    let printed = server.until("- 127.0.0.1").await;
    assert_in_order(&printed, &["+ 127.0.0.1", "- 127.0.0.1"]);
    #[cfg(unix)]
    {
        let (printed, status) = server.interrupt().await;
        assert!(status.success(), "{status}");
        assert_in_order(&printed, &["0 sessions"]);
    }
    #[cfg(not(unix))]
    server.kill().await;
}

/// A browser's part is done by curl: a page, an event stream, what is posted; and another client is
/// there over TCP.
#[cfg(all(feature = "http", unix))]
#[tokio::test]
async fn axum_app() {
    use common::http::{QUIET, curl};
    let addresses = ["http://127.0.0.1:0", "tcp://127.0.0.1:0?framing=lines"];
    let mut server = Running::start_on("axum_app", &addresses).await;
    let tcp = server.until("listening on tcp://").await.remove(0);
    let tcp: network_system::Address = tcp["listening on ".len()..].parse().unwrap();
    let url = format!("http://127.0.0.1:{}", server.port);
    assert!(curl(&[&url]).await.contains("new EventSource(\"/chat\")"));
    let about = curl(&[&format!("{url}/about")]).await;
    assert!(about.starts_with("[\"chat\",\"127.0.0.1:"), "{about}");

    let mut stream = common::programs::program("curl", "curl");
    stream.args(QUIET).args(["-N", &format!("{url}/chat")]);
    let mut stream = stream.spawn().unwrap();
    let mut events = BufReader::new(stream.stdout.take().unwrap()).lines();
    let line = within(events.next_line()).await.unwrap().unwrap();
    assert_eq!(line, "event: session");
    let peer = tokio::net::TcpStream::connect(("127.0.0.1", tcp.port().unwrap()));
    let (read, mut write) = within(peer).await.unwrap().into_split();
    let mut lines = BufReader::new(read).lines();
    within(write.write_all(b"from tcp\n")).await.unwrap();
    assert_eq!(
        within(lines.next_line()).await.unwrap().unwrap(),
        "from tcp"
    );
    curl(&["-d", "from curl", &format!("{url}/chat")]).await;
    assert_eq!(
        within(lines.next_line()).await.unwrap().unwrap(),
        "from curl"
    );
    let mut heard = Vec::new();
    while heard.len() < 2 {
        let line = within(events.next_line()).await.unwrap().unwrap();
        heard.extend(line.strip_prefix("data: from ").map(str::to_owned));
    }
    assert_eq!(heard, ["tcp", "curl"]);
    let (printed, status) = server.interrupt().await;
    assert!(status.success(), "{status}");
    assert_in_order(&printed, &["answered 4 requests"]);
    assert!(within(stream.wait()).await.unwrap().success());
}

/// The page, a WebSocket and frames over TCP on one port; `browser.rs` opens it in a browser.
#[cfg(all(feature = "http", feature = "websocket", unix))]
#[tokio::test]
async fn chat_browser() {
    use common::{frame, read_frame};
    use network_system::MessageKind;
    let server = Running::start("chat_browser", "auto://127.0.0.1:0").await;
    let url = |scheme: &str, path: &str| format!("{scheme}://127.0.0.1:{}{path}", server.port);
    let page = common::http::curl(&[&url("http", "/")]).await;
    assert_eq!(page, include_str!("../../../examples/chat_browser.html"));
    let mut tcp = server.dial().await;
    within(round_trip(&mut tcp, b"anybody here?")).await;
    let address = url("ws", "/ws");
    let connecting = network_system::connect(&address);
    let mut socket = within(connecting).await.unwrap();
    socket.send("from a WebSocket").await.unwrap();
    within(socket.flush()).await.unwrap();
    let heard = within(read_frame(&mut tcp)).await.unwrap().unwrap();
    assert_eq!(heard, b"from a WebSocket");
    // nobody else hears what is no text
    tcp.write_all(&frame(&[0xff])).await.unwrap();
    let heard = within(read_frame(&mut tcp)).await.unwrap().unwrap();
    assert_eq!(heard, b"Text only, please.");
    within(round_trip(&mut tcp, b"from tcp")).await;
    for expected in ["from a WebSocket", "from tcp"] {
        let heard = within(socket.receive()).await.unwrap().unwrap();
        assert_eq!(heard.kind(), MessageKind::Text);
        assert_eq!(heard, expected);
    }
    let (_, status) = server.interrupt().await;
    assert!(status.success(), "{status}");
}

#[cfg(all(feature = "grpc", feature = "tls", feature = "websocket"))]
#[tokio::test]
async fn one_handler() {
    let printed = run("one_handler").await;
    for line in [
        "tcp: hello by tcp",
        "tls: hello by tls",
        #[cfg(unix)]
        "unix: hello by unix",
        "memory: hello by memory",
        "ws: hello by ws",
        "http: hello by http",
        "grpc: hello by grpc",
        "auto: hello by tcp",
    ] {
        assert!(
            printed.iter().any(|printed| printed == line),
            "'{line}' is missing in {printed:#?}"
        );
    }
    let all = if cfg!(unix) { 8 } else { 7 };
    assert_in_order(&printed, &[&format!("{all} messages in all")]);
}

/// Somebody in the chat room.
struct Guest {
    lines: Lines<BufReader<OwnedReadHalf>>,
    to_room: OwnedWriteHalf,
}

impl Guest {
    async fn enter(server: &Running, name: &str) -> Self {
        let (from_room, to_room) = server.dial().await.into_split();
        let lines = BufReader::new(from_room).lines();
        let mut guest = Self { lines, to_room };
        guest.hears("Welcome! What is your name?").await;
        guest.says(name).await;
        guest.hears(&format!("* {name} has come")).await;
        guest
    }

    async fn says(&mut self, line: &str) {
        let line = format!("{line}\n");
        within(self.to_room.write_all(line.as_bytes()))
            .await
            .unwrap();
    }

    async fn hears(&mut self, line: &str) {
        let heard = within(self.lines.next_line()).await.unwrap();
        assert_eq!(heard.as_deref(), Some(line));
    }
}

#[tokio::test]
async fn chat() {
    let server = Running::start("chat", "tcp://127.0.0.1:0?framing=lines").await;
    let mut ann = Guest::enter(&server, "Ann").await;
    let mut bob = Guest::enter(&server, "Bob").await;
    ann.hears("* Bob has come").await;
    ann.says("hello Bob").await;
    ann.hears("Ann: hello Bob").await;
    bob.hears("Ann: hello Bob").await;
    // one who has not said a name hears nothing but the question
    let mut silent = server.dial().await;
    drop(bob);
    ann.hears("* Bob has left").await;
    silent.shutdown().await.unwrap();
    let mut heard = String::new();
    within(silent.read_to_string(&mut heard)).await.unwrap();
    assert_eq!(heard, "Welcome! What is your name?\n");
    #[cfg(unix)]
    {
        let (printed, status) = server.interrupt().await;
        assert!(status.success(), "{status}");
        assert_in_order(
            &printed,
            &["* Ann has come", "Ann: hello", "* Bob has left"],
        );
        // a shutdown ends the connection in good order
        assert_eq!(within(ann.lines.next_line()).await.unwrap(), None);
    }
    #[cfg(not(unix))]
    server.kill().await;
}

#[tokio::test]
async fn pool() {
    let printed = run("pool").await;
    assert_in_order(
        &printed,
        &[
            "echo: hello 0",
            "echo: hello 2",
            "connections made: 1",
            "answer: an answer",
        ],
    );
}

#[cfg(all(feature = "compression", feature = "noise"))]
#[tokio::test]
async fn pipeline() {
    let printed = run("pipeline").await;
    assert_in_order(
        &printed,
        &[
            "compression: zstd",
            "encryption: Noise XX",
            "110000 bytes from a known client: true",
            "less than a tenth on the wire: true",
            "a stranger got an answer: false",
        ],
    );
}

#[tokio::test]
async fn reconnect() {
    let printed = run("reconnect").await;
    assert_in_order(
        &printed,
        &[
            "echo: sent while connected",
            "the server has gone",
            "offline queue: 1 message",
            "the server is back",
            "echo: sent while away",
            "2 connections in all",
        ],
    );
    assert!(printed.iter().any(|line| line == "state: connected"));
}

#[tokio::test]
async fn coroutine() {
    let printed = run("coroutine").await;
    let received = ["received ONE", "received TWO", "received THREE"];
    assert_in_order(&printed, &received);
    assert_in_order(&printed, &["received THREE", "received 100 more"]);
    assert_in_order(&printed, &["the server has seen 103 messages"]);
}

#[tokio::test]
async fn custom_codec() {
    let printed = run("custom_codec").await;
    assert_in_order(
        &printed,
        &[
            "echo: checked",
            "the damaged connection got 0 bytes",
            "echo: still here",
        ],
    );
    let error = printed.iter().find(|line| line.starts_with("server: "));
    assert!(error.unwrap().contains("the checksum does not match"));
}

#[tokio::test]
async fn request_response() {
    assert_in_order(
        &run("request_response").await,
        &[
            "1 + 2 + 3 = 6",
            "30 and 70",
            "failed with code -1: ",
            "failed with code -4: ",
            "4 + 5 = 9",
        ],
    );
}

#[tokio::test]
async fn batch_zero_copy() {
    assert_in_order(
        &run("batch_zero_copy").await,
        &[
            "batch: 1000 messages, 10890 bytes sent, 10890 bytes received",
            "a message of 4000000 bytes (zero copy from 8192) shares its buffer: true",
            "5 of 5 large messages",
        ],
    );
}

/// An example that nobody runs may not work: each file has a test of its name above.
#[test]
fn every_example_has_a_test() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let tests = include_str!("examples.rs");
    assert!(names.len() >= 7, "{names:?}");
    for name in names {
        // a page that the program of its name serves
        let name = name.strip_suffix(".html").unwrap_or(&name);
        let name = name.strip_suffix(".rs").unwrap_or(name);
        assert!(tests.contains(&format!("async fn {name}()")), "{name}");
    }
}
