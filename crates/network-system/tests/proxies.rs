//! The PROXY protocol, spoken by peers that the tests play: who is the client then, and what a header
//! that is wrong, late or from a stranger leads to. HAProxy itself is in `haproxy.rs`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use common::{Echo, Healthy, echo_on, eventually, frame, only_session, read_to_end, round_trip};
use common::{echo, within};
use network_system::config::{IpList, ServerConfig};
use network_system::{Endpoint, ErrorKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// A plain connection from this address of loopback.
async fn dial(from: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let from: IpAddr = from.parse().unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    within(socket.connect(to)).await.unwrap()
}

/// An echo server behind a proxy at 127.0.0.2, and at another address for healthy clients.
async fn behind(configure: impl FnOnce(common::Builder) -> common::Builder) -> Echo {
    let addresses = ["tcp://127.0.0.1:0?proxies=127.0.0.2", "tcp://127.0.0.1:0"];
    echo_on(&addresses, configure).await
}

fn second(echo: &Echo) -> SocketAddr {
    common::socket_address(&echo.server.listening()[1])
}

fn line(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 203.0.113.1 5000 443\r\n").into_bytes()
}

/// Version 2 for an IPv6 client, with an extension.
fn binary(client: &str) -> Vec<u8> {
    let client: std::net::Ipv6Addr = client.parse().unwrap();
    let destination: std::net::Ipv6Addr = "2001:db8::1".parse().unwrap();
    let fixed = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x29";
    let ports = [0x13, 0x88, 0x01, 0xbb];
    let extension = [4, 0, 2, 0, 0];
    [
        &fixed[..],
        &client.octets(),
        &destination.octets(),
        &ports,
        &extension,
    ]
    .concat()
}

fn refused(echo: &Echo, reason: &str) -> u64 {
    echo.server.statistics().connections_refused[reason]
}

/// Fails unless the server closes the connection at once, without a message.
async fn is_closed(mut stream: TcpStream) {
    let mut byte = [0];
    let read = within(stream.read(&mut byte)).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

#[tokio::test]
async fn the_client_is_the_peer() {
    let echo = behind(|b| b).await;
    for (header, client) in [
        (line("192.0.2.7"), "192.0.2.7:5000"),
        (binary("2001:db8::7"), "[2001:db8::7]:5000"),
        // what is written as IPv6 is the IPv4 address all the same
        (binary("::ffff:192.0.2.7"), "192.0.2.7:5000"),
    ] {
        // in one piece with the first message, and byte by byte
        for pieces in [1000, 1] {
            let mut stream = dial("127.0.0.2", echo.address()).await;
            stream.set_nodelay(true).unwrap();
            let all = [&header[..], &frame(b"hello")].concat();
            for piece in all.chunks(pieces) {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            let back = within(common::read_frame(&mut stream)).await;
            assert_eq!(back.unwrap().unwrap(), b"hello");
            let session = only_session(echo.server.sessions()).await;
            assert_eq!(session.peer().to_string(), client);
            let Endpoint::Ip(local) = session.local() else {
                panic!("no address")
            };
            assert_eq!(*local, echo.address());
            let proxy = session.info().proxy.clone().unwrap();
            assert_eq!(proxy.proxy, Endpoint::Ip(stream.local_addr().unwrap()));
            assert_eq!(proxy.destination.port(), 443);
            drop(stream);
            within(session.ended()).await;
        }
    }
}

/// Health checks: the proxy itself is the peer.
#[tokio::test]
async fn a_proxy_may_speak_for_itself() {
    // which is on no list that is for clients
    let configure = |b: common::Builder| b.allow("192.0.2.0/24".parse().unwrap());
    let echo = behind(configure).await;
    for header in [
        &b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"[..],
        b"\r\n\r\n\0\r\nQUIT\n\x20\xff\0\x03abc",
    ] {
        let mut stream = dial("127.0.0.2", echo.address()).await;
        stream.write_all(header).await.unwrap();
        within(round_trip(&mut stream, b"alive")).await;
        let session = only_session(echo.server.sessions()).await;
        assert_eq!(*session.peer(), Endpoint::Ip(stream.local_addr().unwrap()));
        assert!(session.info().proxy.is_none());
        drop(stream);
        within(session.ended()).await;
    }
}

/// A client that the proxy does not know is on no list of those that may connect.
#[tokio::test]
async fn clients_that_the_proxy_does_not_know() {
    for (allowed, is_let_in) in [("192.0.2.0/24", false), ("127.0.0.2", true)] {
        let configure = |b: common::Builder| b.allow(allowed.parse().unwrap());
        let echo = behind(configure).await;
        for header in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0"] {
            let mut stream = dial("127.0.0.2", echo.address()).await;
            stream.write_all(header).await.unwrap();
            if is_let_in {
                within(round_trip(&mut stream, b"somebody")).await;
            } else {
                is_closed(stream).await;
            }
        }
        assert_eq!(refused(&echo, "denied"), if is_let_in { 0 } else { 2 });
    }
}

/// A header from anybody else is nothing but a lie, and so is a connection without a proxy.
#[tokio::test]
async fn strangers_are_refused() {
    let echo = behind(|b| b).await;
    let healthy = Healthy::start(second(&echo)).await;
    for first in [line("192.0.2.7"), frame(b"hello"), Vec::new()] {
        let mut stream = dial("127.0.0.3", echo.address()).await;
        let _ = stream.write_all(&first).await;
        is_closed(stream).await;
    }
    assert_eq!(refused(&echo, "no_proxy"), 3);
    healthy.finish().await;
}

#[tokio::test]
async fn headers_that_are_wrong() {
    let mut echo = behind(|b| b).await;
    let healthy = Healthy::start(second(&echo)).await;
    let too_large = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".to_vec();
    let mut wrong_sum = binary("2001:db8::7");
    wrong_sum[15] += 2;
    let at = wrong_sum.len() - 5;
    wrong_sum.splice(at.., [3, 0, 4, 1, 2, 3, 4]);
    let wrong = [
        (frame(b"no header"), "neither version"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "neither version"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n".to_vec(), "port"),
        ([&b"PROXY "[..], &[b'x'; 200]].concat(), "107"),
        (too_large, "too large"),
        (wrong_sum, "checksum is wrong"),
    ];
    let count = wrong.len() as u64;
    for (first, words) in wrong {
        let mut stream = dial("127.0.0.2", echo.address()).await;
        stream.write_all(&first).await.unwrap();
        is_closed(stream).await;
        let error = echo.next_error().await;
        assert_eq!(error.kind(), ErrorKind::Handshake);
        assert!(error.to_string().contains(words), "{error}");
    }
    // one that ends in the middle
    let mut stream = dial("127.0.0.2", echo.address()).await;
    stream.write_all(b"PROXY TCP4 1.2").await.unwrap();
    stream.shutdown().await.unwrap();
    is_closed(stream).await;
    assert_eq!(echo.next_error().await.kind(), ErrorKind::ConnectionClosed);
    assert_eq!(refused(&echo, "proxy_header"), count + 1);
    assert_eq!(
        echo.server.statistics().connections_active,
        1,
        "the healthy one"
    );
    healthy.finish().await;
}

#[tokio::test]
async fn a_header_that_does_not_come() {
    let configure = |b: common::Builder| b.handshake_timeout(Duration::from_millis(200));
    let mut echo = behind(configure).await;
    let healthy = Healthy::start(second(&echo)).await;
    let silent = dial("127.0.0.2", echo.address()).await;
    let mut slow = dial("127.0.0.2", echo.address()).await;
    slow.write_all(b"PROXY TCP4 192.").await.unwrap();
    is_closed(silent).await;
    is_closed(slow).await;
    for _ in 0..2 {
        let error = echo.next_error().await;
        assert_eq!(error.kind(), ErrorKind::ConnectionTimeout, "{error}");
    }
    assert_eq!(refused(&echo, "handshake_timeout"), 2);
    healthy.finish().await;
}

/// Lists and counts concern the client, and not the proxy, which has everybody's connections.
#[tokio::test]
async fn limits_are_those_of_the_client() {
    let configure = |b: common::Builder| {
        let b = b.max_connections_per_ip(1).exempt(IpList::default());
        b.deny("192.0.2.66,2001:db8:bad::/48".parse().unwrap())
    };
    let echo = behind(configure).await;
    let healthy = Healthy::start(second(&echo)).await;
    let mut held = Vec::new();
    for n in 1..=5 {
        let mut stream = dial("127.0.0.2", echo.address()).await;
        let header = line(&format!("192.0.2.{n}"));
        stream.write_all(&header).await.unwrap();
        within(round_trip(&mut stream, b"hello")).await;
        held.push(stream);
    }
    for (header, reason) in [
        (line("192.0.2.3"), "per_ip"),
        (binary("::ffff:192.0.2.3"), "per_ip"),
        (line("192.0.2.66"), "denied"),
        (binary("2001:db8:bad::1"), "denied"),
        (binary("::ffff:192.0.2.66"), "denied"),
    ] {
        let before = refused(&echo, reason);
        let mut stream = dial("127.0.0.2", echo.address()).await;
        stream.write_all(&header).await.unwrap();
        is_closed(stream).await;
        assert_eq!(refused(&echo, reason), before + 1, "{reason}");
    }
    held.clear();
    eventually("all have left", || echo.server.sessions().len() == 1).await;
    eventually("all have left", || {
        echo.server.statistics().connections_active == 1
    })
    .await;
    let mut stream = dial("127.0.0.2", echo.address()).await;
    stream.write_all(&line("192.0.2.3")).await.unwrap();
    within(round_trip(&mut stream, b"hello")).await;
    healthy.finish().await;
}

/// Where no proxy is expected a header is no message, and the error says what it probably is.
#[tokio::test]
async fn a_header_where_none_is_expected() {
    let mut echo = echo(|b| b).await;
    for header in [line("192.0.2.7"), binary("2001:db8::7")] {
        let mut stream = echo.dial().await;
        stream.write_all(&header).await.unwrap();
        let (came, _) = read_to_end(&mut stream).await;
        assert!(came.is_empty());
        let end = echo.next_end().await.to_string();
        assert!(end.contains("PROXY protocol"), "{end}");
    }
}

#[tokio::test]
async fn a_listener_for_connections_has_it_too() {
    let mut config = ServerConfig::default();
    config.protection.proxies = "127.0.0.2".parse().unwrap();
    let mut listener = network_system::listen_with("tcp://127.0.0.1:0", &config)
        .await
        .unwrap();
    let to = common::socket_address(listener.local());
    let mut stranger = dial("127.0.0.3", to).await;
    let _ = stranger.write_all(&line("192.0.2.8")).await;
    let mut wrong = dial("127.0.0.2", to).await;
    wrong.write_all(b"nonsense").await.unwrap();
    let mut stream = dial("127.0.0.2", to).await;
    let all = [line("192.0.2.7"), frame(b"hello")].concat();
    stream.write_all(&all).await.unwrap();
    let mut connection = within(listener.accept()).await.unwrap();
    assert_eq!(connection.info().peer.to_string(), "192.0.2.7:5000");
    assert_eq!(
        within(connection.receive()).await.unwrap().unwrap(),
        "hello"
    );
    is_closed(wrong).await;
    let refused = listener.refused();
    assert_eq!((refused["no_proxy"], refused["proxy_header"]), (1, 1));
}
