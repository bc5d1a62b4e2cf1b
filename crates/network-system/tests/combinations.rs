//! Parts together that are tested alone elsewhere: a listener behind a proxy with a pipeline, with TLS
//! below it and without, lists and caps of addresses, drains, and sockets that are handed on.
#![cfg(all(feature = "compression", feature = "noise", feature = "tls"))]
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use common::piped::{CLIENT, SERVER, client, client_key, round_trip, server_key, text};
use common::pki::Pki;
use common::{Builder, Echo, echo_on, eventually, frame, only_session, within};
use network_system::config::{
    ClientConfig, Compression, IpList, Noise, Pipeline, ServerConfig, TlsClientConfig,
};
use network_system::{
    CloseReason, Connection, Endpoint, Error, ErrorKind, ListeningSocket, Server, Sockets,
    connect_with, listen_with,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

const LZ4: Compression = Compression::Lz4;

/// The client that the proxy speaks for.
const SOMEBODY: &str = "192.0.2.7:5000";

fn theirs() -> Pipeline {
    Pipeline::new()
        .compress(LZ4)
        .noise(Noise::xx(SERVER).peer(client_key()))
}

fn ours() -> Pipeline {
    Pipeline::new()
        .compress(LZ4)
        .noise(Noise::xx(CLIENT).peer(server_key()))
}

/// A plain connection from this address of loopback.
async fn dial(from: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let from: IpAddr = from.parse().unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    within(socket.connect(to)).await.unwrap()
}

/// A PROXY header of version 2 for this client, which may be an IPv6 one.
fn header(client: &str) -> Vec<u8> {
    let client: SocketAddr = client.parse().unwrap();
    let (family, octets, to) = match client.ip() {
        IpAddr::V4(ip) => (0x11, ip.octets().to_vec(), vec![203, 0, 113, 1]),
        IpAddr::V6(ip) => (0x21, ip.octets().to_vec(), vec![0x20; 16]),
    };
    let length = 2 * octets.len() as u8 + 4;
    [
        &b"\r\n\r\n\0\r\nQUIT\n\x21"[..],
        &[family, 0, length],
        &octets,
        &to,
        &client.port().to_be_bytes(),
        &443_u16.to_be_bytes(),
    ]
    .concat()
}

/// A proxy at 127.0.0.2 that says `header` to the server before anything else; its port.
async fn proxy(to: SocketAddr, header: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = dial("127.0.0.2", to).await;
            server.write_all(&header).await.unwrap();
            tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    port
}

/// A connection with TLS where `tls` says how, and a pipeline.
async fn connect(
    port: u16,
    tls: Option<TlsClientConfig>,
    pipeline: Pipeline,
) -> Result<Connection, Error> {
    let scheme = if tls.is_some() { "tls" } else { "tcp" };
    let mut config: ClientConfig = client(pipeline);
    config.tls = tls.unwrap_or_default();
    let url = format!("{scheme}://127.0.0.1:{port}");
    within(connect_with(&url, &config)).await
}

fn refused(server: &Server, reason: &str) -> u64 {
    server.statistics().connections_refused[reason]
}

async fn piped(address: &str, configure: impl FnOnce(Builder) -> Builder) -> Echo {
    echo_on(&[address], |b| configure(b.pipeline(theirs()))).await
}

/// PROXY header, TLS and pipeline, one inside the other: the peer is the client, and what is known of
/// the link has all three.
#[tokio::test]
async fn behind_a_proxy_with_tls_and_a_pipeline() {
    let pki = Pki::new();
    let pair = pki.issue(&["localhost", "127.0.0.1"]);
    for (scheme, workers) in [("tcp", 0), ("tls", 0), ("tcp", 2), ("tls", 2)] {
        let address = format!("{scheme}://127.0.0.1:0?proxies=127.0.0.2");
        let configure = |b: Builder| b.tls(pair.server()).workers(workers);
        let echo = piped(&address, configure).await;
        let tls = || (scheme == "tls").then(|| pki.client());
        for client in [SOMEBODY, "[2001:db8::7]:5000", "[::ffff:192.0.2.7]:5000"] {
            let port = proxy(echo.address(), header(client)).await;
            let mut connection = connect(port, tls(), ours()).await.unwrap();
            for size in [0, 1, 511, 512, 70_000, 300_000] {
                round_trip(&mut connection, &text(size)).await;
            }
            let session = only_session(echo.server.sessions()).await;
            let info = session.info();
            let expected = client.replace("[::ffff:192.0.2.7]", "192.0.2.7");
            assert_eq!(info.peer.to_string(), expected);
            let proxied = info.proxy.as_ref().unwrap();
            assert_eq!(proxied.proxy.ip(), "127.0.0.2".parse().ok());
            assert_eq!(proxied.destination.port(), 443);
            assert_eq!(info.tls.is_some(), scheme == "tls");
            assert_eq!(info.scheme, scheme);
            let pipeline = info.pipeline.as_ref().unwrap();
            assert_eq!(pipeline.compression, LZ4);
            let noise = pipeline.noise.as_ref().unwrap();
            assert_eq!(noise.peer, Some(client_key()));
            assert_eq!(info.max_message, 16 << 20);
            within(connection.close()).await.unwrap();
            within(session.ended()).await;
        }
    }
}

/// The same at the lower level.
#[tokio::test]
async fn a_listener_for_connections_behind_a_proxy() {
    let mut config = ServerConfig::default();
    config.protection.proxies = "127.0.0.2".parse().unwrap();
    config.session.pipeline = Some(theirs());
    let mut listener = listen_with("tcp://127.0.0.1:0", &config).await.unwrap();
    let to = common::socket_address(listener.local());
    let port = proxy(to, header(SOMEBODY)).await;
    let (there, here) = tokio::join!(connect(port, None, ours()), within(listener.accept()));
    let (mut there, mut here) = (there.unwrap(), here.unwrap());
    assert_eq!(here.info().peer.to_string(), SOMEBODY);
    assert!(here.info().pipeline.is_some() && here.info().proxy.is_some());
    there.send(text(5000)).await.unwrap();
    within(there.flush()).await.unwrap();
    assert!(within(here.receive()).await.unwrap().unwrap() == text(5000));
}

/// Lists concern the client that the proxy names, and say so before any handshake.
#[tokio::test]
async fn lists_before_the_pipeline() {
    let address = "tcp://127.0.0.1:0?proxies=127.0.0.2&allow=192.0.2.0/24&deny=192.0.2.66";
    let echo = piped(address, |b| b).await;
    for (n, client) in ["192.0.2.66:1", "[::ffff:192.0.2.66]:1", "198.51.100.1:1"]
        .into_iter()
        .enumerate()
    {
        let port = proxy(echo.address(), header(client)).await;
        assert!(connect(port, None, ours()).await.is_err(), "{client}");
        assert_eq!(refused(&echo.server, "denied"), n as u64 + 1);
    }
    let port = proxy(echo.address(), header(SOMEBODY)).await;
    let mut connection = connect(port, None, ours()).await.unwrap();
    round_trip(&mut connection, b"let in").await;
    // without a proxy
    let echo = piped("tcp://127.0.0.1:0?deny=127.0.0.3", |b| b).await;
    let mut stream = dial("127.0.0.3", echo.address()).await;
    assert!(matches!(
        within(stream.read(&mut [0])).await,
        Ok(0) | Err(_)
    ));
    assert_eq!(refused(&echo.server, "denied"), 1);
    let mut connection = connect(echo.address().port(), None, ours()).await.unwrap();
    round_trip(&mut connection, b"let in").await;
}

/// Whatever way a handshake fails: the place among the connections of the address comes back, and so
/// does the one among all.
#[tokio::test]
async fn handshakes_that_fail_give_their_places_back() {
    for behind in [false, true] {
        let address = match behind {
            true => "tcp://127.0.0.1:0?proxies=127.0.0.2",
            false => "tcp://127.0.0.1:0",
        };
        let mut echo = piped(address, |b| {
            let b = b.max_connections_per_ip(2).exempt(IpList::default());
            b.max_connections(3)
                .handshake_timeout(Duration::from_millis(1500))
        })
        .await;
        let to = echo.address();
        let begin = async || {
            let mut stream = dial("127.0.0.2", to).await;
            if behind {
                stream.write_all(&header(SOMEBODY)).await.unwrap();
            }
            stream
        };
        // half open ones have a place
        let mut offer = b"NSP1c\x0e\x02\0".to_vec();
        offer.extend([7; 16]);
        let mut half_open = Vec::new();
        for _ in 0..2 {
            let mut stream = begin().await;
            stream.write_all(&frame(&offer)).await.unwrap();
            within(common::read_frame(&mut stream)).await.unwrap();
            half_open.push(stream);
        }
        let mut third = begin().await;
        assert!(matches!(within(third.read(&mut [0])).await, Ok(0) | Err(_)));
        assert_eq!(refused(&echo.server, "per_ip"), 1);
        // these are late
        for mut stream in half_open {
            let (_, _) = common::read_to_end(&mut stream).await;
        }
        for _ in 0..2 {
            let error = within(echo.errors.recv()).await.unwrap().1;
            assert_eq!(error.kind(), ErrorKind::ConnectionTimeout);
        }
        let firsts = [
            Vec::new(),
            b"\0\0".to_vec(),
            frame(b"hello"),
            frame(b""),
            frame(&[b'x'; 1025]),
            vec![0xff; 64],
            // no Noise
            frame(&[&b"NSP1c\x0e\0\0"[..], &[0; 16]].concat()),
            // a server's
            frame(&[&b"NSP1s\x0e\x02\0"[..], &[1; 16]].concat()),
            // the handshake itself fails
            [frame(&offer), frame(&[1; 3])].concat(),
            [frame(&offer), frame(&[1; 1024])].concat(),
            [frame(&offer), frame(b"")].concat(),
        ];
        for first in firsts {
            let mut stream = begin().await;
            stream.write_all(&first).await.unwrap();
            stream.shutdown().await.unwrap();
            let (came, _) = common::read_to_end(&mut stream).await;
            let error = within(echo.errors.recv()).await.unwrap().1;
            let kind = error.kind();
            assert!(
                matches!(kind, ErrorKind::Handshake | ErrorKind::Untrusted),
                "{error:?} after {first:?}, and {came:?}"
            );
            assert!(error.to_string().contains(':'), "{error}");
        }
        eventually("all have left", || {
            echo.server.statistics().connections_active == 0
        })
        .await;
        // both places are there again
        let port = match behind {
            true => proxy(echo.address(), header(SOMEBODY)).await,
            false => echo.address().port(),
        };
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut connection = connect(port, None, ours()).await.unwrap();
            round_trip(&mut connection, b"hello").await;
            held.push(connection);
        }
    }
}

/// What a client sends behind its offer, without waiting for the answer, arrives: also what is larger
/// than a handshake may be.
#[tokio::test]
async fn messages_right_behind_the_offer() {
    let echo = echo_on(&["tcp://127.0.0.1:0"], |b| b.pipeline(Pipeline::new())).await;
    for size in [10, 1023, 1024, 5000, 70_000, 1 << 20] {
        let offer = [&b"NSP1c\0\0\0"[..], &[0; 16]].concat();
        let message = [&[0][..], &text(size)].concat();
        let all = [frame(&offer), frame(&message), frame(&[0, b'x'])].concat();
        let mut stream = echo.dial().await;
        let (mut from, mut to) = stream.split();
        let write = async { to.write_all(&all).await.unwrap() };
        let read = async {
            assert_eq!(
                common::read_frame(&mut from).await.unwrap().unwrap().len(),
                24
            );
            let back = common::read_frame(&mut from).await.unwrap().unwrap();
            assert!(back == message, "{size}");
            let back = common::read_frame(&mut from).await.unwrap().unwrap();
            assert_eq!(back, [0, b'x']);
        };
        within(async { tokio::join!(write, read) }).await;
    }
}

/// The header's byte is not counted: the largest message passes in each way of sending it, and one
/// byte more does not.
#[tokio::test]
async fn a_message_as_large_as_may_be() {
    const MOST: usize = 10_000;
    let noise = || Pipeline::new().noise(Noise::xx(SERVER).peer(client_key()));
    for (pipeline, mine) in [
        (Pipeline::new(), Pipeline::new()),
        (noise(), ours()),
        (Pipeline::new().compress(LZ4), Pipeline::new().compress(LZ4)),
    ] {
        let mut echo = echo_on(&["tcp://127.0.0.1:0"], |b| {
            b.pipeline(pipeline).max_message(MOST)
        })
        .await;
        let port = echo.address().port();
        for message in [text(MOST), common::piped::noise(MOST)] {
            let mut connection = connect(port, None, mine.clone()).await.unwrap();
            round_trip(&mut connection, &message).await;
            let more = [&message[..], b"x"].concat();
            connection.send(more).await.unwrap();
            let end = within(connection.receive()).await;
            assert!(matches!(end, Ok(None) | Err(_)), "{end:?}");
            let reason = echo.next_end().await;
            assert!(matches!(reason, CloseReason::Protocol(_)), "{reason}");
        }
    }
}

/// Reads `size` bytes of compressed messages of 10 000 bytes each every 50 s, 30 times, of a server
/// that has always more; whether it was still there then.
async fn reads_compressed(name: &str, size: usize) -> bool {
    let server = Server::builder()
        .listen(name)
        .idle_timeout(None)
        .pipeline(Pipeline::new().compress(LZ4))
        .on_message(
            |session, _| async move { while session.send(vec![0; 10_000]).await.is_ok() {} },
        )
        .start()
        .await
        .unwrap();
    let mut peer = network_system::connect(&format!("{name}?framing=raw"))
        .await
        .unwrap();
    let offer = [&b"NSP1c\x0e\0\0"[..], &[0; 16]].concat();
    let first = [frame(&offer), frame(&[0, b'x'])].concat();
    peer.send(first).await.unwrap();
    for _ in 0..30 {
        let mut read = 0;
        while read < size {
            match peer.receive().await {
                Ok(Some(chunk)) => read += chunk.len(),
                _ => return false,
            }
        }
        tokio::time::sleep(Duration::from_secs(50)).await;
    }
    server.statistics().connections_active == 1
}

/// What counts of a slow reader is what it takes of what waits for it, and not how little that was
/// compressed to; who takes nothing goes.
#[tokio::test(start_paused = true)]
async fn who_reads_enough_of_what_is_compressed_stays() {
    assert!(reads_compressed("memory://compressed", 20_000).await);
    assert!(!reads_compressed("memory://compressed-unread", 0).await);
}

/// A drain does not wait for who is in the middle of a handshake for ever, and says goodbye through
/// the pipeline to who is through.
#[tokio::test]
async fn a_drain_with_pipelines_half_open_and_open() {
    let echo = piped("tcp://127.0.0.1:0", |b| {
        b.handshake_timeout(Duration::from_secs(60))
    })
    .await;
    let mut connection = connect(echo.address().port(), None, ours()).await.unwrap();
    round_trip(&mut connection, b"hello").await;
    let mut half_open = echo.dial().await;
    half_open.write_all(&[0, 0]).await.unwrap();
    eventually("two connections", || {
        echo.server.statistics().connections_active == 2
    })
    .await;
    let begun = std::time::Instant::now();
    let shutdown = echo.server.shutdown(Duration::from_millis(500));
    let (_, end) = tokio::join!(within(shutdown), within(connection.receive()));
    assert!(matches!(end, Ok(None)), "in good order: {end:?}");
    assert!(begun.elapsed() < Duration::from_secs(20));
    let (came, _) = common::read_to_end(&mut half_open).await;
    assert!(came.is_empty());
}

/// Sockets that are handed on to another server with a pipeline and TLS: who waits in the queue is
/// accepted by the next one.
#[tokio::test]
async fn sockets_are_handed_on() {
    let pki = Pki::new();
    let pair = pki.issue(&["localhost", "127.0.0.1"]);
    for scheme in ["tcp", "tls"] {
        let address = format!("{scheme}://127.0.0.1:0");
        let first = piped(&address, |b| b.tls(pair.server())).await;
        let handed: Vec<ListeningSocket> = first.server.sockets().listening().unwrap();
        assert_eq!(handed.len(), 1);
        let port = first.address().port();
        let tls = || (scheme == "tls").then(|| pki.client());
        let mut old = connect(port, tls(), ours()).await.unwrap();
        round_trip(&mut old, b"old").await;
        let next = format!("{scheme}://127.0.0.1:{port}");
        let second = piped(&next, |b| {
            b.tls(pair.server()).inherit(Sockets::new(handed, false))
        })
        .await;
        assert_eq!(second.address().port(), port);
        assert_eq!(second.server.sockets().listening().unwrap().len(), 1);
        within(first.server.shutdown(Duration::from_secs(10))).await;
        assert!(matches!(within(old.receive()).await, Ok(None)));
        let mut new = connect(port, tls(), ours()).await.unwrap();
        round_trip(&mut new, b"new").await;
        let session = only_session(second.server.sessions()).await;
        assert!(session.info().pipeline.is_some());
        assert!(matches!(session.peer(), Endpoint::Ip(_)));
    }
}
