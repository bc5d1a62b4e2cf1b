//! WebSocket over every stream, under the envelope and a pipeline, inside an HTTP server of somebody else,
//! and what is agreed on in the handshake.
#![cfg(feature = "websocket")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::time::Duration;

use common::websockets::{head, masked, open, read, request};
use common::{echo_on, only_session, within};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use network_system::config::{
    ClientConfig, Compression, Deflate, LinkConfig, Pipeline, ServerConfig, SessionConfig,
    WebSocketConfig,
};
use network_system::{
    Client, Connection, Endpoint, ErrorKind, LinkInfo, MessageKind, Server, websocket,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn round_trip(connection: &mut Connection) {
    for text in ["", "text", &"long ".repeat(100_000)] {
        within(connection.send(text)).await.unwrap();
        let back = within(connection.receive()).await.unwrap().unwrap();
        assert_eq!(back.kind(), MessageKind::Text);
        assert!(back == text);
    }
}

#[tokio::test]
async fn over_memory_and_unix_sockets() {
    let folder = tempfile::tempdir().unwrap();
    let unix = format!(
        "unix://{}?websocket=true",
        folder.path().join("s").display()
    );
    let mut urls = vec!["memory://websocket?websocket=true".to_owned()];
    if cfg!(unix) {
        urls.push(unix);
    }
    for url in urls {
        let echo = echo_on(&[&url], |b| b).await;
        let mut connection = within(network_system::connect(&url)).await.unwrap();
        let info = connection.info();
        assert_eq!(info.http.as_ref().unwrap().path, "/");
        round_trip(&mut connection).await;
        // who speaks something else is refused
        let plain = url.split('?').next().unwrap();
        let mut plain = within(network_system::connect(plain)).await.unwrap();
        within(plain.send("hello")).await.unwrap();
        let _ = within(plain.receive()).await;
        assert_eq!(echo.server.statistics().messages_in, 3);
    }
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn over_tls() {
    use common::pki::Pki;
    let pki = Pki::new();
    let pair = pki.issue(&["localhost"]);
    for workers in [0, 2] {
        let mut echo = echo_on(&["wss://127.0.0.1:0/chat"], |b| {
            b.tls(pair.server()).workers(workers)
        })
        .await;
        let url = format!("wss://localhost:{}/chat?a=b", echo.address().port());
        let config = ClientConfig {
            tls: pki.client(),
            ..ClientConfig::default()
        };
        let mut connection = within(network_system::connect_with(&url, &config))
            .await
            .unwrap();
        assert_eq!(connection.info().scheme, "wss");
        round_trip(&mut connection).await;
        let session = only_session(echo.server.sessions()).await;
        assert!(session.info().tls.is_some() && session.info().scheme == "wss");
        assert_eq!(
            session.info().http.as_ref().unwrap().query.as_deref(),
            Some("a=b")
        );
        within(connection.close()).await.unwrap();
        assert_eq!(echo.next_end().await.label(), "peer");
    }
    // a plain client is told by TLS
    let error = within(network_system::connect("ws://localhost:1/"))
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn requests_and_their_answers() {
    let server = Server::builder()
        .listen("ws://127.0.0.1:0?envelope=true")
        .on_request(|_, request| async move {
            let answer = [b"re: ", &request[..]].concat();
            request.reply(answer).await
        })
        .on_message(|session, message| async move { session.send(message).await })
        .start()
        .await
        .unwrap();
    let url = server.listening()[0].to_string();
    let client = Client::builder(&url).connect();
    let client = within(client).await.unwrap();
    for size in [0, 10, 100_000] {
        let answer = within(client.request(vec![1; size])).await.unwrap();
        assert!(answer == [b"re: ", &vec![1; size][..]].concat());
    }
    let info = client.session().unwrap().info().clone();
    let name = network_system::config::ENVELOPE_SUBPROTOCOL;
    assert_eq!(info.http.unwrap().subprotocol.as_deref(), Some(name));
    // both sides must have it
    let plain = url.split('?').next().unwrap();
    let error = within(network_system::connect(plain)).await.err().unwrap();
    assert!(error.to_string().contains("400"), "{error}");
    let echo = echo_on(&["ws://127.0.0.1:0"], |b| b).await;
    let url = format!("{}?envelope=true", echo.url());
    let error = within(network_system::connect(&url)).await.err().unwrap();
    assert!(error.to_string().contains(name), "{error}");
    within(client.close(Duration::from_secs(5))).await;
}

#[cfg(feature = "compression")]
#[tokio::test]
async fn a_pipeline_goes_on_top() {
    let pipeline = || Pipeline::new().compress(Compression::Lz4);
    let echo = echo_on(&["ws://127.0.0.1:0"], |b| b.pipeline(pipeline())).await;
    let config = ClientConfig {
        session: SessionConfig {
            pipeline: Some(pipeline()),
            ..ClientConfig::default().session
        },
        ..ClientConfig::default()
    };
    let mut connection = within(network_system::connect_with(echo.url(), &config))
        .await
        .unwrap();
    let long = vec![7; 1 << 20];
    within(connection.send(long.clone())).await.unwrap();
    assert!(within(connection.receive()).await.unwrap().unwrap() == long);
    assert!(connection.statistics().bytes_out < 100_000);
}

#[tokio::test]
async fn settings_that_do_not_go_together() {
    for (url, why) in [
        ("ws://127.0.0.1:0?framing=lines", "framing of its own"),
        ("ws://127.0.0.1:0?envelope=true", "subprotocol itself"),
        ("ws://127.0.0.1:0?room=7", "unknown parameter 'room'"),
        ("tcp://127.0.0.1:0?deflate=true", "deflate is for WebSocket"),
    ] {
        let server = Server::builder()
            .listen(url)
            .websocket(WebSocketConfig::default().subprotocols(["chat"]))
            .start()
            .await;
        let error = server.err().unwrap().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[tokio::test]
async fn subprotocols_are_the_servers_choice() {
    let websocket = WebSocketConfig::default().subprotocols(["v2", "v1"]);
    let echo = echo_on(&["ws://127.0.0.1:0"], |b| b.websocket(websocket)).await;
    for (offers, chosen) in [
        ("Sec-WebSocket-Protocol: v1, v2\r\n", Some("v2")),
        (
            "Sec-WebSocket-Protocol: v0\r\nSec-WebSocket-Protocol: v1\r\n",
            Some("v1"),
        ),
        ("Sec-WebSocket-Protocol: other\r\n", None),
        ("", None),
    ] {
        let (stream, head) = open(echo.address(), offers).await;
        let said = head
            .lines()
            .find_map(|line| line.strip_prefix("sec-websocket-protocol: "));
        assert_eq!(said, chosen);
        let session = only_session(echo.server.sessions()).await;
        assert_eq!(
            session.info().http.as_ref().unwrap().subprotocol.as_deref(),
            chosen
        );
        drop(stream);
        within(session.ended()).await;
    }
}

/// Windows and contexts as both sides have agreed, both ways.
#[tokio::test]
async fn compression_is_what_was_agreed_on() {
    let server = |deflate: Deflate| async {
        let websocket = WebSocketConfig::default().deflate(deflate);
        echo_on(&["ws://127.0.0.1:0"], |b| b.websocket(websocket)).await
    };
    for bits in [9, 12, 15] {
        for takeover in [true, false] {
            let deflate = Deflate {
                server_window_bits: bits,
                client_window_bits: 24 - bits,
                server_context_takeover: takeover,
                client_context_takeover: !takeover,
                threshold: 0,
                level: 1,
            };
            let echo = server(deflate.clone()).await;
            for ours in [Deflate::default(), deflate] {
                let config = ClientConfig {
                    websocket: WebSocketConfig::default().deflate(ours),
                    ..ClientConfig::default()
                };
                let connection = network_system::connect_with(echo.url(), &config);
                let mut connection = within(connection).await.unwrap();
                let http = connection.info().http.clone().unwrap();
                let agreed = http.extensions.clone().unwrap();
                assert_eq!(
                    agreed.contains("server_no_context_takeover"),
                    !takeover,
                    "{agreed}"
                );
                // one message after the other, so that contexts matter
                for _ in 0..3 {
                    round_trip(&mut connection).await;
                }
                let random: Vec<u8> = (0..100_000_u32)
                    .flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes())
                    .collect();
                within(connection.send(random.clone())).await.unwrap();
                assert!(within(connection.receive()).await.unwrap().unwrap() == random);
            }
        }
    }
}

/// A page of plain HTTP and a WebSocket beside it, on a server that is not ours.
#[tokio::test]
async fn inside_an_http_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        loop {
            let (stream, peer) = listener.accept().await.unwrap();
            let service = service_fn(move |request| async move {
                Ok::<_, std::convert::Infallible>(serve(request, Endpoint::Ip(peer)))
            });
            let builder = hyper::server::conn::http1::Builder::new();
            let connection = builder
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            tokio::spawn(async move {
                let _ = connection.await;
            });
        }
    });

    let mut page = TcpStream::connect(address).await.unwrap();
    page.write_all(b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    assert!(head(&mut page).await.starts_with("HTTP/1.1 200 "));
    let mut body = [0; 6];
    page.read_exact(&mut body).await.unwrap();
    assert_eq!(&body, b"a page");
    // on the same connection, with a frame at once
    page.write_all(request("/socket", "").as_bytes())
        .await
        .unwrap();
    page.write_all(&masked(0x81, b"hello")).await.unwrap();
    assert!(head(&mut page).await.starts_with("HTTP/1.1 101 "));
    assert_eq!(read(&mut page).await, Some((0x81, b"hello".to_vec())));

    let mut connection = within(network_system::connect(&format!("ws://{address}/socket")))
        .await
        .unwrap();
    round_trip(&mut connection).await;
    within(connection.close()).await.unwrap();

    let mut wrong = TcpStream::connect(address).await.unwrap();
    wrong
        .write_all(request("/socket", "").replace("13", "12").as_bytes())
        .await
        .unwrap();
    assert!(head(&mut wrong).await.starts_with("HTTP/1.1 426 "));
    serving.abort();
}

fn serve(mut request: Request<Incoming>, peer: Endpoint) -> Response<String> {
    if !websocket::is_upgrade(&request) {
        return Response::new("a page".to_owned());
    }
    let config = LinkConfig::from(&ServerConfig::default());
    let info = LinkInfo::new("ws", peer.clone(), peer, &config);
    match websocket::upgrade(&mut request, &config, info) {
        Err(refused) => refused.response,
        Ok((response, link)) => {
            tokio::spawn(async move {
                let link = link.await.unwrap();
                let mut connection = network_system_core::Connection::new(link, &config.session);
                while let Some(message) = connection.receive().await.unwrap() {
                    connection.send(message).await.unwrap();
                }
                connection.close().await.unwrap();
            });
            response
        }
    }
}

/// The proxy says first who the client is.
#[tokio::test]
async fn behind_a_proxy() {
    let echo = echo_on(&["ws://127.0.0.1:0?proxies=127.0.0.1"], |b| b).await;
    let mut stream = TcpStream::connect(echo.address()).await.unwrap();
    let line = "PROXY TCP4 192.0.2.7 203.0.113.1 5000 80\r\n";
    let bytes = [line.as_bytes(), request("/", "").as_bytes()].concat();
    stream.write_all(&bytes).await.unwrap();
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 101 "));
    let session = only_session(echo.server.sessions()).await;
    assert_eq!(session.peer().to_string(), "192.0.2.7:5000");
    assert_eq!(session.info().scheme, "ws");
    stream.write_all(&masked(0x81, b"hello")).await.unwrap();
    assert_eq!(read(&mut stream).await, Some((0x81, b"hello".to_vec())));
}
