//! HAProxy in front of our servers: what it says about the client in both versions of the PROXY
//! protocol, with extensions, before TLS, and in its health checks.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use common::programs::program;
use common::{Echo, echo_on, eventually, only_session, round_trip, within};
use network_system::Endpoint;
use network_system::config::IpList;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::Child;

/// Where HAProxy comes from.
const PROXY: &str = "127.0.0.9";
/// Where its clients are.
const CLIENT: &str = "127.0.0.5";

/// A running HAProxy, and where it listens.
struct HaProxy {
    front: SocketAddr,
    _process: Child,
    _folder: tempfile::TempDir,
}

impl HaProxy {
    /// One in front of `server`, with these options of its server line.
    async fn start(server: SocketAddr, options: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("haproxy.cfg");
        // a port that is free now; another program may take it in between
        for _ in 0..10 {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let front = listener.local_addr().unwrap();
            drop(listener);
            std::fs::write(&file, configuration(front, server, options)).unwrap();
            if let Some(_process) = launch(&file, front).await {
                return Self {
                    front,
                    _process,
                    _folder: folder,
                };
            }
        }
        panic!("HAProxy does not start");
    }

    /// A client of it.
    async fn dial(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        let from: IpAddr = CLIENT.parse().unwrap();
        socket.bind(SocketAddr::new(from, 0)).unwrap();
        within(socket.connect(self.front)).await.unwrap()
    }
}

fn configuration(front: SocketAddr, server: SocketAddr, options: &str) -> String {
    format!(
        "global\n  maxconn 100\n\
         defaults\n  mode tcp\n  timeout connect 10s\n  timeout client 60s\n  timeout server 60s\n\
         listen front\n  bind {front}\n  source {PROXY}\n  server ours {server} {options}\n"
    )
}

/// Starts it and waits until it listens; `None` when it ends.
async fn launch(file: &Path, front: SocketAddr) -> Option<Child> {
    let mut command = program("haproxy", "haproxy");
    command.arg("-db").arg("-f").arg(file);
    let mut process = command.spawn().unwrap();
    within(async {
        loop {
            if process.try_wait().unwrap().is_some() {
                return None;
            }
            if TcpStream::connect(front).await.is_ok() {
                return Some(process);
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await
}

fn trusting(builder: common::Builder) -> common::Builder {
    builder
        .proxies(PROXY.parse().unwrap())
        .exempt(IpList::default())
}

/// Makes a round trip, and checks whom the server sees.
async fn is_seen(
    echo: &Echo,
    haproxy: &HaProxy,
    client: SocketAddr,
    io: &mut (impl AsyncRead + AsyncWrite + Unpin),
) {
    within(round_trip(io, b"through a proxy")).await;
    within(round_trip(io, &vec![7; 300_000])).await;
    let session = only_session(echo.server.sessions()).await;
    assert_eq!(*session.peer(), Endpoint::Ip(client));
    let info = session.info().proxy.clone().unwrap();
    assert_eq!(info.proxy.ip(), Some(PROXY.parse().unwrap()));
    assert_eq!(info.destination, haproxy.front);
}

/// The connection with which the test found that HAProxy listens is one, too.
async fn none_left(echo: &Echo) {
    eventually("nobody is left", || {
        echo.server.statistics().connections_active == 0
    })
    .await;
}

async fn seen_through(options: &str) {
    let echo = echo_on(&["tcp://127.0.0.1:0"], trusting).await;
    let haproxy = HaProxy::start(echo.address(), options).await;
    none_left(&echo).await;
    let mut stream = haproxy.dial().await;
    let client = stream.local_addr().unwrap();
    is_seen(&echo, &haproxy, client, &mut stream).await;
    let refused = echo.server.statistics().connections_refused;
    assert_eq!(refused["proxy_header"], 0, "{refused:?}");
    // not past the proxy
    let mut direct = echo.dial().await;
    let read = within(common::read_frame(&mut direct)).await;
    assert!(!matches!(read, Ok(Some(_))), "{read:?}");
    assert_eq!(echo.server.statistics().connections_refused["no_proxy"], 1);
}

#[tokio::test]
async fn haproxy_with_version_1() {
    seen_through("send-proxy").await;
}

#[tokio::test]
async fn haproxy_with_version_2() {
    seen_through("send-proxy-v2").await;
}

/// With a checksum, which is looked at, and other extensions, which are skipped.
#[tokio::test]
async fn haproxy_with_extensions() {
    seen_through("send-proxy-v2 proxy-v2-options crc32c,authority,unique-id").await;
}

/// The header comes before TLS, which goes through from end to end.
#[cfg(feature = "tls")]
#[tokio::test]
async fn haproxy_before_tls() {
    let pki = common::pki::Pki::new();
    let pair = pki.issue(&["localhost"]);
    let versions = ["send-proxy", "send-proxy-v2 proxy-v2-options crc32c"];
    for (options, workers) in versions.into_iter().zip([0, 2]) {
        let configure = |b: common::Builder| trusting(b).tls(pair.server()).workers(workers);
        let echo = echo_on(&["tls://127.0.0.1:0"], configure).await;
        let haproxy = HaProxy::start(echo.address(), options).await;
        none_left(&echo).await;
        let url = format!("tls://localhost:{}", haproxy.front.port());
        let mut connection = common::secure::dial(&url, pki.client()).await.unwrap();
        common::secure::round_trip(&mut connection, "secure, through a proxy")
            .await
            .unwrap();
        let session = only_session(echo.server.sessions()).await;
        assert_eq!(*session.peer(), connection.info().local);
        assert!(session.info().tls.is_some() && session.info().proxy.is_some());
    }
}

/// Its own connections: the proxy is the peer, and no header is wrong.
#[tokio::test]
async fn health_checks_of_haproxy() {
    let echo = echo_on(&["tcp://127.0.0.1:0"], trusting).await;
    let options = "send-proxy-v2 check check-send-proxy inter 20ms rise 1 fall 1";
    let haproxy = HaProxy::start(echo.address(), options).await;
    eventually("some checks", || {
        echo.server.statistics().connections_total > 3
    })
    .await;
    let mut stream = haproxy.dial().await;
    within(round_trip(&mut stream, b"healthy")).await;
}

/// Limits per address are those of the clients behind it.
#[tokio::test]
async fn limits_behind_haproxy() {
    let configure = |b: common::Builder| trusting(b).max_connections_per_ip(2);
    let echo = echo_on(&["tcp://127.0.0.1:0"], configure).await;
    let haproxy = HaProxy::start(echo.address(), "send-proxy-v2").await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = haproxy.dial().await;
        within(round_trip(&mut stream, b"in")).await;
        held.push(stream);
    }
    let mut third = haproxy.dial().await;
    let read = within(common::read_frame(&mut third)).await;
    assert!(!matches!(read, Ok(Some(_))), "{read:?}");
    assert_eq!(echo.server.statistics().connections_refused["per_ip"], 1);
}
