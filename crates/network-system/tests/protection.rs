//! Who may connect, and how often: limits per IP address and lists, each tripped while a well-behaved
//! client of the same server notices nothing. The addresses of 127.0.0.0/8 are the clients, so this
//! is for Linux, which has them all.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::net::{IpAddr, SocketAddr};

use common::{Echo, Healthy, echo, echo_on, eventually, frame, read_frame, round_trip, within};
use network_system::config::{IpList, ServerConfig};
use network_system::{ErrorKind, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// A plain connection from this address of loopback.
async fn dial(from: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let from: IpAddr = from.parse().unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    within(socket.connect(to)).await.unwrap()
}

/// A connection that the server has let in.
async fn let_in(from: &str, to: SocketAddr) -> TcpStream {
    let mut stream = dial(from, to).await;
    within(round_trip(&mut stream, b"here")).await;
    stream
}

/// Fails unless the server closes a connection from this address at once.
async fn turned_away(from: &str, to: SocketAddr) {
    let mut stream = dial(from, to).await;
    let mut byte = [0];
    // the end, or a reset
    let read = within(stream.read(&mut byte)).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

fn refused(server: &Server, reason: &str) -> u64 {
    server.statistics().connections_refused[reason]
}

fn list(text: &str) -> IpList {
    text.parse().unwrap()
}

#[tokio::test]
async fn the_cap_of_one_address() {
    let configure = |b: common::Builder| b.max_connections_per_ip(3).exempt(IpList::default());
    let mut echo = echo_on(&["tcp://127.0.0.1:0", "tcp://127.0.0.1:0"], configure).await;
    let healthy = Healthy::start(echo.address()).await;
    // all listeners count together
    let second = common::socket_address(&echo.server.listening()[1]);
    let mut held = vec![
        let_in("127.0.0.2", echo.address()).await,
        let_in("127.0.0.2", second).await,
        let_in("127.0.0.2", echo.address()).await,
    ];
    for n in 1..=5 {
        turned_away("127.0.0.2", echo.address()).await;
        turned_away("127.0.0.2", second).await;
        assert_eq!(refused(&echo.server, "per_ip"), 2 * n);
    }
    // another address has places of its own
    drop(let_in("127.0.0.3", echo.address()).await);
    echo.next_end().await;
    // a place that is given up can be had again
    drop(held.pop());
    echo.next_end().await;
    held.push(let_in("127.0.0.2", echo.address()).await);
    turned_away("127.0.0.2", echo.address()).await;
    healthy.finish().await;
}

#[tokio::test]
async fn workers_share_the_cap_of_one_address() {
    let configure = |b: common::Builder| {
        let b = b.workers(4).max_connections_per_ip(5);
        b.exempt(IpList::default())
    };
    let mut echo = echo(configure).await;
    let healthy = Healthy::start(echo.address()).await;
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(let_in("127.0.0.2", echo.address()).await);
    }
    for _ in 0..20 {
        turned_away("127.0.0.2", echo.address()).await;
    }
    assert_eq!(refused(&echo.server, "per_ip"), 20);
    // all places come back, however the connections end
    held.clear();
    for _ in 0..5 {
        echo.next_end().await;
    }
    for _ in 0..5 {
        held.push(let_in("127.0.0.2", echo.address()).await);
    }
    healthy.finish().await;
}

/// Connections that the handler refuses, breaks or never ends by itself give their places back, too.
#[tokio::test]
async fn places_come_back_from_every_end() {
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .max_connections_per_ip(1)
        .exempt(IpList::default())
        .max_message(100)
        .on_message(|session, message| async move {
            assert!(message != "panic");
            match &*message {
                b"close" => session.close("as asked"),
                b"abort" => session.abort(),
                b"error" => return Err(network_system::Error::new(ErrorKind::Internal, "go on")),
                _ => session.send(message).await?,
            }
            Ok(())
        })
        .start()
        .await
        .unwrap();
    let address = common::socket_address(&server.listening()[0]);
    for bad in [&b"panic"[..], b"close", b"abort", b"error", &[0; 200], b""] {
        let mut stream = let_in("127.0.0.2", address).await;
        turned_away("127.0.0.2", address).await;
        if bad.is_empty() {
            // a reset
            stream.set_zero_linger().unwrap();
        } else {
            stream.write_all(&frame(bad)).await.unwrap();
        }
        drop(stream);
        eventually("an end", || server.statistics().connections_active == 0).await;
        assert!(is_let_in(address).await, "the place of {bad:?} is lost");
        eventually("an end", || server.statistics().connections_active == 0).await;
    }
}

async fn is_let_in(address: SocketAddr) -> bool {
    let mut stream = dial("127.0.0.2", address).await;
    let _ = stream.write_all(&frame(b"here")).await;
    matches!(within(read_frame(&mut stream)).await, Ok(Some(_)))
}

#[tokio::test]
async fn new_connections_of_one_address_have_a_rate() {
    let configure = |b: common::Builder| {
        let b = b.connection_rate_per_ip(1, 20);
        b.exempt(IpList::default())
    };
    let echo = echo(configure).await;
    let healthy = Healthy::start(echo.address()).await;
    // far more than come back in the time that this takes
    let mut let_in = 0;
    for _ in 0..200 {
        let_in += u64::from(is_let_in(echo.address()).await);
    }
    assert!((20..100).contains(&let_in), "{let_in}");
    assert_eq!(refused(&echo.server, "connection_rate"), 200 - let_in);
    drop(self::let_in("127.0.0.3", echo.address()).await);
    healthy.finish().await;
}

/// Loopback is exempt by default, and nothing else.
#[tokio::test]
async fn loopback_has_no_limit() {
    let configure = |b: common::Builder| b.max_connections_per_ip(1).connection_rate_per_ip(1, 1);
    let echo = echo(configure).await;
    let mut held = Vec::new();
    for _ in 0..50 {
        held.push(let_in("127.0.0.2", echo.address()).await);
    }
    assert_eq!(refused(&echo.server, "per_ip"), 0);
    assert_eq!(
        ServerConfig::default().protection.exempt,
        IpList::loopback()
    );
}

#[tokio::test]
async fn lists_of_who_may_and_who_may_not() {
    let configure = |b: common::Builder| {
        let b = b.allow(list("127.0.0.1,127.0.1.0/24"));
        b.deny(list("127.0.1.7,::ffff:127.0.1.8"))
    };
    let echo = echo(configure).await;
    let healthy = Healthy::start(echo.address()).await;
    let to = echo.address();
    drop(let_in("127.0.1.1", to).await);
    // not allowed; and denied, which comes first
    for from in ["127.0.0.2", "127.0.2.1", "127.0.1.7", "127.0.1.8"] {
        turned_away(from, to).await;
    }
    assert_eq!(refused(&echo.server, "denied"), 4);
    healthy.finish().await;
}

/// A dual-stack listener sees IPv4 clients at IPv6 addresses: the lists and counts hold all the same.
#[tokio::test]
async fn mapped_addresses_on_a_dual_stack_listener() {
    let configure = |b: common::Builder| {
        let b = b.deny(list("127.0.0.66")).exempt(IpList::default());
        b.max_connections_per_ip(1)
    };
    let echo = echo_on(&["tcp://[::]:0"], configure).await;
    let port = echo.server.listening()[0].port().unwrap();
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    turned_away("127.0.0.66", to).await;
    assert_eq!(refused(&echo.server, "denied"), 1);
    let _held = let_in("127.0.0.2", to).await;
    let _other = let_in("127.0.0.3", to).await;
    turned_away("127.0.0.2", to).await;
    assert_eq!(refused(&echo.server, "per_ip"), 1);
}

/// Lists of one listener, in its address.
#[tokio::test]
async fn lists_of_one_listener() {
    let addresses = ["tcp://127.0.0.1:0?deny=127.0.0.0/30", "tcp://127.0.0.1:0"];
    let echo = echo_on(&addresses, |b| b).await;
    let second = common::socket_address(&echo.server.listening()[1]);
    turned_away("127.0.0.2", echo.address()).await;
    drop(let_in("127.0.0.2", second).await);
    drop(let_in("127.0.0.5", echo.address()).await);
    let error = Server::builder()
        .listen("tcp://127.0.0.1:0?allow=10.0.0.1/8")
        .start()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(
        error.to_string().contains("write 10.0.0.0/8 or 10.0.0.1"),
        "{error}"
    );
}

/// Peers without an IP address are not concerned.
#[tokio::test]
async fn unix_sockets_have_no_address() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let address = format!("unix://{}", path.display());
    let configure = |b: common::Builder| {
        let b = b.allow(list("10.0.0.0/8")).max_connections_per_ip(1);
        b.proxies(list("10.0.0.0/8"))
    };
    let _echo: Echo = echo_on(&[&address, "memory://no-address"], configure).await;
    for _ in 0..3 {
        let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        within(round_trip(&mut stream, b"here")).await;
    }
    let mut connection = network_system::connect("memory://no-address")
        .await
        .unwrap();
    connection.send("here").await.unwrap();
    assert_eq!(within(connection.receive()).await.unwrap().unwrap(), "here");
}

/// At the coroutine level the same rules hold, and a place is given up with its connection.
#[tokio::test]
async fn a_listener_for_connections_has_them_too() {
    let mut config = ServerConfig::default();
    config.protection.max_connections_per_ip = 1;
    config.protection.exempt = IpList::default();
    config.protection.deny = list("127.0.0.66");
    let mut listener = network_system::listen_with("tcp://127.0.0.1:0", &config)
        .await
        .unwrap();
    let to = common::socket_address(listener.local());
    let _denied = dial("127.0.0.66", to).await;
    let first = dial("127.0.0.2", to).await;
    let held = within(listener.accept()).await.unwrap();
    assert_eq!(
        held.info().peer.ip(),
        Some(first.local_addr().unwrap().ip())
    );
    let _second = dial("127.0.0.2", to).await;
    let other = dial("127.0.0.3", to).await;
    let next = within(listener.accept()).await.unwrap();
    assert_eq!(
        next.info().peer.ip(),
        Some(other.local_addr().unwrap().ip())
    );
    assert_eq!(
        (listener.refused()["per_ip"], listener.refused()["denied"]),
        (1, 1)
    );
    drop(held);
    let again = dial("127.0.0.2", to).await;
    let back = within(listener.accept()).await.unwrap();
    assert_eq!(
        back.info().peer.port(),
        Some(again.local_addr().unwrap().port())
    );
}
