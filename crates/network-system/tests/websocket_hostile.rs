//! What a peer can do wrong over WebSocket: it is told so by the right code, closed and counted, memory
//! stays bounded, and a healthy client notices nothing.
#![cfg(feature = "websocket")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::time::Duration;

use common::websockets::{KEY, close, frame, head, masked, open, read, read_close, request};
use common::{Builder, Echo, echo_on, eventually, within};
use network_system::config::{ClientConfig, Deflate, SessionLimits, WebSocketConfig};
use network_system::{Connection, ErrorKind, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const URL: &str = "ws://127.0.0.1:0";

async fn server(configure: impl FnOnce(Builder) -> Builder) -> Echo {
    echo_on(&[URL], configure).await
}

/// A client that works, to look at after something went wrong.
struct Bystander(Connection);

impl Bystander {
    async fn new(echo: &Echo) -> Self {
        let url = format!("ws://{}", echo.address());
        Self(within(network_system::connect(&url)).await.unwrap())
    }

    async fn works(&mut self) {
        within(self.0.send("still here")).await.unwrap();
        let back = within(self.0.receive()).await.unwrap().unwrap();
        assert_eq!(back, "still here");
    }
}

#[tokio::test]
async fn broken_frames_get_their_code() {
    let mut echo = server(|b| b.max_message(1000)).await;
    let mut bystander = Bystander::new(&echo).await;
    let long = [b'a'; 126];
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("without a mask", frame(0x82, b"a", None), 1002),
        ("a reserved bit", masked(0xc2, b"a"), 1002),
        ("another reserved bit", masked(0xa2, b"a"), 1002),
        ("an unknown kind", masked(0x83, b"a"), 1002),
        ("an unknown control frame", masked(0x8b, b"a"), 1002),
        ("a ping in parts", masked(0x09, b"a"), 1002),
        ("a long ping", masked(0x89, &long), 1002),
        ("a long pong", masked(0x8a, &long), 1002),
        ("a long close", masked(0x88, &long), 1002),
        ("a part of nothing", masked(0x80, b"a"), 1002),
        (
            "a message in another",
            [masked(0x01, b"a"), masked(0x81, b"b")].concat(),
            1002,
        ),
        ("text that is none", masked(0x81, b"a\xff"), 1007),
        (
            "text cut in a letter",
            masked(0x81, "ä".as_bytes().split_at(1).0),
            1007,
        ),
        (
            "text in parts that is none",
            [masked(0x01, b"a"), masked(0x80, b"\xc0")].concat(),
            1007,
        ),
        (
            "the start of a long text that is none",
            masked(0x01, b"\xed\xa0\x80"),
            1007,
        ),
        ("a close of one byte", masked(0x88, &[3]), 1002),
        ("words that are none", masked(0x88, b"\x03\xe8\xff"), 1007),
        ("no code", close(999, ""), 1002),
        ("a code that is not sent", close(1005, ""), 1002),
        ("another", close(1006, ""), 1002),
        (
            "too large",
            vec![0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4],
            1009,
        ),
        (
            "a length of 2^63",
            vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4],
            1002,
        ),
        (
            "a length in too many bytes",
            vec![0x82, 0xfe, 0, 5, 1, 2, 3, 4],
            1002,
        ),
        (
            "too large in parts",
            [masked(0x02, &[0; 600]), masked(0x80, &[0; 600])].concat(),
            1009,
        ),
    ];
    let count = cases.len() as u64;
    for (what, bytes, code) in cases {
        let (mut stream, _) = open(echo.address(), "").await;
        // what came before is still answered
        stream.write_all(&masked(0x81, b"before")).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        assert_eq!(
            read(&mut stream).await,
            Some((0x81, b"before".to_vec())),
            "{what}"
        );
        assert_eq!(read_close(&mut stream).await.0, code, "{what}");
        let mut rest = Vec::new();
        within(stream.read_to_end(&mut rest)).await.unwrap();
        assert!(rest.is_empty(), "{what}");
        drop(stream);
        let reason = echo.next_end().await;
        assert_eq!(reason.label(), "protocol", "{what}: {reason}");
        let kind = reason.error().unwrap().kind();
        assert_eq!(kind == ErrorKind::MessageTooLarge, code == 1009, "{what}");
    }
    assert_eq!(echo.ended("protocol"), count);
    bystander.works().await;
}

/// Cut at every byte, and in one piece, the same comes of it.
#[tokio::test]
async fn frames_may_come_in_any_pieces() {
    let echo = server(|b| b).await;
    let bytes = [
        masked(0x01, "ä".as_bytes()),
        masked(0x89, b"ping"),
        masked(0x00, &[b'b'; 200]),
        masked(0x80, b""),
        masked(0x82, &[7; 70_000][..300]),
        close(1000, "done"),
    ]
    .concat();
    let expected = [
        (0x8a, b"ping".to_vec()),
        (0x81, ["ä".as_bytes(), &[b'b'; 200]].concat()),
        (0x82, vec![7; 300]),
        (0x88, vec![0x03, 0xe8]),
    ];
    for step in [1, 2, 3, 5, 7, bytes.len()] {
        let (mut stream, _) = open(echo.address(), "").await;
        for piece in bytes.chunks(step) {
            stream.write_all(piece).await.unwrap();
            if step < 4 {
                tokio::task::yield_now().await;
            }
        }
        for frame in &expected {
            assert_eq!(read(&mut stream).await.as_ref(), Some(frame), "step {step}");
        }
        assert_eq!(read(&mut stream).await, None);
    }
}

/// A frame behind the request, in the same write.
#[tokio::test]
async fn a_frame_may_follow_the_request_at_once() {
    let echo = server(|b| b).await;
    let mut stream = TcpStream::connect(echo.address()).await.unwrap();
    let bytes = [request("/", "").into_bytes(), masked(0x81, b"early")].concat();
    stream.write_all(&bytes).await.unwrap();
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 101 "));
    assert_eq!(read(&mut stream).await, Some((0x81, b"early".to_vec())));
}

/// What a server can do wrong.
#[tokio::test]
async fn servers_that_break_the_protocol_are_left() {
    let cases: Vec<(Vec<u8>, u16, ErrorKind)> = vec![
        (masked(0x82, b"a"), 1002, ErrorKind::Protocol),
        (frame(0x81, b"\xff", None), 1007, ErrorKind::Protocol),
        (frame(0xc1, b"a", None), 1002, ErrorKind::Protocol),
        (
            vec![0x82, 127, 0, 0, 0, 1, 0, 0, 0, 0],
            1009,
            ErrorKind::MessageTooLarge,
        ),
    ];
    for (bytes, code, kind) in cases {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        // it may be gone again before it is seen
        let client = tokio::spawn(network_system::Client::builder(&url).connect());
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = accepted(&head(&mut stream).await);
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            let mut first = [0; 2];
            stream.read_exact(&mut first).await.unwrap();
            assert!(first[1] & 0x80 != 0, "a client masks");
            let mut frame = std::io::Cursor::new(first.to_vec()).chain(stream);
            read_close(&mut frame).await.0
        };
        assert_eq!(within(serve).await, code);
        client.abort();
        let mut connection = broken_by(&bytes).await;
        let error = within(connection.receive()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
}

/// A good answer.
fn accepted(request: &str) -> String {
    let key = request
        .lines()
        .find_map(|line| line.strip_prefix("sec-websocket-key: "))
        .expect(request);
    let accept = accept_key(key);
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

/// By a program that knows it.
fn accept_key(key: &str) -> String {
    let code = "import base64,hashlib,sys; print(base64.b64encode(hashlib.sha1((sys.argv[1]+\
                '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').encode()).digest()).decode(),end='')";
    let output = std::process::Command::new("python3")
        .args(["-c", code, key])
        .output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

async fn broken_by(bytes: &[u8]) -> Connection {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let bytes = bytes.to_vec();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let answer = accepted(&head(&mut stream).await);
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    within(network_system::connect(&url)).await.unwrap()
}

#[tokio::test]
async fn answers_that_are_none_are_told() {
    let good = |head: &str| accepted(head);
    type Answer = Box<dyn Fn(&str) -> String + Send + Sync>;
    let cases: Vec<(Answer, &str)> = vec![
        (
            Box::new(|_| "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into()),
            "200 OK",
        ),
        (
            Box::new(|_| {
                "HTTP/1.1 302 Found\r\nLocation: ws://a/\r\nContent-Length: 0\r\n\r\n".into()
            }),
            "to ws://a/",
        ),
        (
            Box::new(move |h| good(h).replace("Accept: ", "Accept: x")),
            "our key",
        ),
        (
            Box::new(move |h| good(h).replace("WebSocket\r", "h2c\r")),
            "something else",
        ),
        (
            Box::new(move |h| good(h).replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: x\r\n\r\n")),
            "'x' was not offered",
        ),
        (
            Box::new(move |h| {
                good(h).replace(
                    "\r\n\r\n",
                    "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
                )
            }),
            "no extension was offered",
        ),
        (
            Box::new(move |h| {
                good(h).replace(
                    "\r\n\r\n",
                    &format!("\r\nX: {}\r\n\r\n", "a".repeat(20_000)),
                )
            }),
            "do the WebSocket handshake",
        ),
        (
            Box::new(|_| "nonsense\r\n\r\n".into()),
            "do the WebSocket handshake",
        ),
        (Box::new(|_| String::new()), "do the WebSocket handshake"),
    ];
    for (answer, why) in cases {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = answer(&head(&mut stream).await);
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        let error = within(network_system::connect(&url))
            .await
            .err()
            .expect("an error");
        assert_eq!(error.kind(), ErrorKind::Handshake, "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[tokio::test]
async fn requests_that_are_none_get_an_answer() {
    let mut echo = echo_on(&["ws://127.0.0.1:0/chat"], |b| b).await;
    let there = format!("ws://{}/chat", echo.address());
    let mut bystander = Bystander(within(network_system::connect(&there)).await.unwrap());
    let good = request("/chat", "");
    let without = |name: &str| {
        let kept = good.lines().filter(|line| !line.starts_with(name));
        kept.map(|line| format!("{line}\r\n")).collect::<String>()
    };
    let many = (0..200)
        .map(|n| format!("X-{n}: a\r\n"))
        .collect::<String>();
    for (bytes, status) in [
        (request("/", ""), 404),
        (request("/chat2", ""), 404),
        (
            good.replace("GET", "POST")
                .replace("Host", "Content-Length: 0\r\nHost"),
            405,
        ),
        (without("Upgrade"), 426),
        (without("Connection"), 426),
        (without("Sec-WebSocket-Version"), 426),
        (good.replace("Version: 13", "Version: 8"), 426),
        (good.replace("HTTP/1.1", "HTTP/1.0"), 426),
        (without("Sec-WebSocket-Key"), 400),
        (good.replace(KEY, "short"), 400),
        (
            request("/chat", &format!("Sec-WebSocket-Key: {KEY}\r\n")),
            400,
        ),
        (request("/chat", "Origin: https://evil.example\r\n"), 403),
        (
            request("/chat", &format!("X: {}\r\n", "a".repeat(20_000))),
            431,
        ),
        (request("/chat", &many), 431),
        ("nonsense\r\n\r\n".into(), 400),
        ("GET /chat HTTP/1.1\r\nbad header\r\n\r\n".into(), 400),
    ] {
        let mut stream = TcpStream::connect(echo.address()).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let answer = head(&mut stream).await;
        let shown = bytes.lines().next().unwrap();
        assert!(
            answer.starts_with("HTTP/1.") && answer[8..].starts_with(&format!(" {status} ")),
            "{shown}: {answer}"
        );
        let error = echo.next_error().await;
        let kinds = [ErrorKind::Handshake, ErrorKind::PermissionDenied];
        assert!(kinds.contains(&error.kind()), "{error}");
    }
    bystander.works().await;
    // pages of this host may
    let url = format!("ws://{}/chat", echo.address());
    let config = ClientConfig {
        websocket: WebSocketConfig::default()
            .header("Origin", format!("http://{}", echo.address())),
        ..ClientConfig::default()
    };
    let connection = within(network_system::connect_with(&url, &config))
        .await
        .unwrap();
    assert!(connection.info().http.is_some());
    assert!(
        echo.server
            .statistics()
            .connections_ended
            .values()
            .all(|n| *n == 0)
    );
}

#[tokio::test]
async fn slow_and_silent_handshakes_end() {
    let mut echo = server(|b| b.handshake_timeout(Duration::from_millis(300))).await;
    let mut bystander = Bystander::new(&echo).await;
    let mut silent = TcpStream::connect(echo.address()).await.unwrap();
    let mut slow = TcpStream::connect(echo.address()).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n")
        .await
        .unwrap();
    for _ in 0..2 {
        assert_eq!(echo.next_error().await.kind(), ErrorKind::ConnectionTimeout);
    }
    for stream in [&mut silent, &mut slow] {
        let _ = within(stream.read_to_end(&mut Vec::new())).await;
    }
    bystander.works().await;
}

/// 16 MiB of zeros are 16 KiB on the wire.
#[tokio::test]
async fn what_grows_too_large_is_cut_off() {
    let websocket = WebSocketConfig::default().deflate(Deflate::default());
    let mut echo = server(|b| b.max_message(1 << 20).websocket(websocket)).await;
    let mut bystander = Bystander::new(&echo).await;
    let bomb = deflated(16 << 20);
    assert!(bomb.len() < 20_000);
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    for parts in [1, 3] {
        let (mut stream, head) = open(echo.address(), offer).await;
        assert!(head.contains("permessage-deflate"), "{head}");
        let (first, rest) = bomb.split_at(bomb.len() / parts);
        let bytes = match parts {
            1 => masked(0xc2, &bomb),
            _ => [masked(0x42, first), masked(0x80, rest)].concat(),
        };
        stream.write_all(&bytes).await.unwrap();
        assert_eq!(read_close(&mut stream).await.0, 1009);
        let reason = echo.next_end().await;
        assert_eq!(reason.error().unwrap().kind(), ErrorKind::MessageTooLarge);
    }
    // and what is no deflate at all
    let (mut stream, _) = open(echo.address(), offer).await;
    stream.write_all(&masked(0xc2, &[0xff; 10])).await.unwrap();
    assert_eq!(read_close(&mut stream).await.0, 1007);
    assert_eq!(echo.next_end().await.label(), "protocol");
    bystander.works().await;
}

/// So many zeros, by a program that knows deflate.
fn deflated(size: usize) -> Vec<u8> {
    let code = "import sys,zlib; c=zlib.compressobj(9,zlib.DEFLATED,-15); \
                d=c.compress(bytes(int(sys.argv[1])))+c.flush(zlib.Z_SYNC_FLUSH); \
                sys.stdout.buffer.write(d[:-4])";
    let output = std::process::Command::new("python3")
        .args(["-c", code, &size.to_string()])
        .output();
    output.unwrap().stdout
}

/// Many small messages that become large are handled a few at a time.
#[tokio::test]
async fn many_bombs_within_the_limit_are_not_piled_up() {
    let websocket = WebSocketConfig::default().deflate(Deflate::default());
    let (count, mut counted) = tokio::sync::watch::channel(0_u64);
    let server = Server::builder()
        .listen(URL)
        .max_message(1 << 20)
        .websocket(websocket)
        .on_message(move |_, message| {
            assert_eq!(message.len(), 1 << 20);
            count.send_modify(|n| *n += 1);
            async {}
        })
        .start()
        .await
        .unwrap();
    let address = common::socket_address(&server.listening()[0]);
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n";
    let (mut stream, _) = open(address, offer).await;
    let bytes = masked(0xc2, &deflated(1 << 20)).repeat(50);
    assert!(bytes.len() < 64 * 1024);
    stream.write_all(&bytes).await.unwrap();
    within(counted.wait_for(|n| *n == 50)).await.unwrap();
}

/// Pings whose answers are not read do not pile up.
#[tokio::test]
async fn a_flood_of_pings_is_bounded() {
    let echo = server(|b| b).await;
    let mut bystander = Bystander::new(&echo).await;
    let (mut stream, _) = open(echo.address(), "").await;
    let pings = masked(0x89, &[b'p'; 100]).repeat(1000);
    // 50 MB, of which nothing is read
    for _ in 0..500 {
        within(stream.write_all(&pings)).await.unwrap();
    }
    stream.write_all(&masked(0x89, b"last")).await.unwrap();
    bystander.works().await;
    let session = echo
        .server
        .sessions()
        .all()
        .into_iter()
        .map(|s| s.queued_bytes())
        .max();
    assert!(session.unwrap() < 1 << 20);
    let mut pongs = 0;
    loop {
        let (first, payload) = read(&mut stream).await.unwrap();
        assert_eq!(first, 0x8a);
        pongs += 1;
        if payload == b"last" {
            break;
        }
    }
    assert!(pongs < 500_000, "each was kept");
}

#[tokio::test]
async fn a_peer_that_reads_nothing_is_bounded() {
    let mut echo = server(|b| {
        b.outbox(64 * 1024, 16 * 1024).limits(SessionLimits {
            slow_reader_timeout: Some(Duration::from_millis(500)),
            ..SessionLimits::default()
        })
    })
    .await;
    let mut bystander = Bystander::new(&echo).await;
    let (mut stream, _) = open(echo.address(), "").await;
    let message = masked(0x82, &[1; 10_000]);
    let flood = async {
        loop {
            if stream.write_all(&message).await.is_err() {
                break;
            }
        }
    };
    let watch = async {
        let reason = echo.next_end().await;
        assert_eq!(reason.label(), "slow_reader", "{reason}");
    };
    within(async { tokio::join!(flood, watch) }).await;
    let most = echo
        .server
        .sessions()
        .all()
        .into_iter()
        .map(|s| s.queued_bytes())
        .max();
    assert!(most.unwrap_or(0) < 200_000);
    bystander.works().await;
}

#[tokio::test]
async fn a_peer_that_does_not_answer_pings_is_dead() {
    let beat = Duration::from_millis(100);
    let mut echo = server(|b| b.heartbeat(Some(beat), 2)).await;
    // it answers by itself
    let mut bystander = Bystander::new(&echo).await;
    let (mut stream, _) = open(echo.address(), "").await;
    let (first, payload) = read(&mut stream).await.unwrap();
    assert_eq!((first, payload.len()), (0x89, 0));
    let answering = tokio::spawn(async move { bystander.0.receive().await.map(|_| ()) });
    assert_eq!(echo.next_end().await.label(), "heartbeat");
    eventually("the other lives", || echo.server.sessions().len() == 1).await;
    assert!(!answering.is_finished());
    answering.abort();
}
