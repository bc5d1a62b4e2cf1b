//! Options of sockets are really set: each one is read back from the system, at both ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::within;
use network_system::config::{Heartbeat, LinkConfig};
use network_system::{
    Address, AnyLink, Bound, Endpoint, ErrorKind, Link, Listener, Schemes, Transports,
};
use socket2::SockRef;
use tokio::net::TcpStream;

/// Both ends of a connection, each opened with its own settings.
async fn pair(listen: &str, ours: &LinkConfig, theirs: &LinkConfig) -> (AnyLink, AnyLink) {
    let address: Address = listen.parse().unwrap();
    let bound = Schemes::default()
        .bind(&address, ours, 1)
        .await
        .unwrap()
        .remove(0);
    let address = bound.local().clone();
    let mut listener = bound.start().unwrap();
    let schemes = Schemes::default();
    let connecting = schemes.connect(&address, theirs);
    let (accepted, connected) = within(async { tokio::join!(listener.accept(), connecting) }).await;
    (accepted.unwrap(), connected.unwrap())
}

fn changed(change: impl FnOnce(&mut LinkConfig)) -> LinkConfig {
    let mut config = LinkConfig::default();
    change(&mut config);
    config
}

/// What the system says when it was told `bytes`: Linux doubles it for its own needs.
fn as_read_back(bytes: usize) -> usize {
    if cfg!(target_os = "linux") {
        2 * bytes
    } else {
        bytes
    }
}

fn assert_probes(socket: &SockRef<'_>, interval: Duration, retries: u32) {
    assert!(socket.keepalive().unwrap());
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    {
        assert_eq!(socket.tcp_keepalive_time().unwrap(), interval);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), interval);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), retries);
    }
    let _ = (interval, retries);
}

#[tokio::test]
async fn defaults_at_both_ends() {
    let mut listener = network_system::listen("tcp://127.0.0.1:0").await.unwrap();
    let address = listener.local().to_string();
    let connecting = network_system::connect(&address);
    let (accepted, connected) = within(async { tokio::join!(listener.accept(), connecting) }).await;
    for connection in [accepted.unwrap(), connected.unwrap()] {
        let socket = SockRef::from(connection.get_ref().tcp().unwrap());
        assert!(socket.tcp_nodelay().unwrap());
        assert_probes(&socket, Duration::from_secs(30), 2);
    }
}

#[tokio::test]
async fn nodelay_and_keepalive() {
    let off = changed(|config| {
        config.socket.nodelay = false;
        config.socket.keepalive = false;
        config.socket.unsent = 5000;
    });
    let slow = changed(|config| {
        config.session.heartbeat = Heartbeat {
            interval: Some(Duration::from_secs(7)),
            missed: 4,
        };
    });
    let untimed = changed(|config| config.session.heartbeat.interval = None);
    let default = LinkConfig::default();
    for (ours, theirs) in [(&off, &slow), (&slow, &off), (&default, &untimed)] {
        let (accepted, connected) = pair("tcp://127.0.0.1:0", ours, theirs).await;
        for (link, config) in [(&accepted, ours), (&connected, theirs)] {
            let socket = SockRef::from(link.tcp().unwrap());
            assert_eq!(socket.tcp_nodelay().unwrap(), config.socket.nodelay);
            assert_eq!(socket.keepalive().unwrap(), config.socket.keepalive);
            #[cfg(target_os = "linux")]
            if config.socket.unsent > 0 {
                assert_eq!(socket.tcp_notsent_lowat().unwrap(), config.socket.unsent);
            }
            if let (true, Some(interval)) =
                (config.socket.keepalive, config.session.heartbeat.interval)
            {
                assert_probes(&socket, interval, config.session.heartbeat.missed);
            }
        }
    }
}

/// Heartbeats that suit pings, and that no socket takes as they are.
#[tokio::test]
async fn heartbeats_beyond_what_sockets_take() {
    for (interval, missed, seconds, retries) in [
        (Duration::from_millis(200), 2, 1, 2),
        (Duration::from_millis(2500), 2, 3, 2),
        (Duration::from_secs(10 * 3600), 2, 32_767, 2),
        (Duration::from_secs(30), 200, 30, 127),
        (Duration::MAX, u32::MAX, 32_767, 127),
    ] {
        let config = changed(|config| {
            config.session.heartbeat = Heartbeat {
                interval: Some(interval),
                missed,
            };
        });
        let (accepted, connected) = pair("tcp://127.0.0.1:0", &config, &config).await;
        for link in [&accepted, &connected] {
            let socket = SockRef::from(link.tcp().unwrap());
            assert_probes(&socket, Duration::from_secs(seconds), retries);
        }
    }
}

#[tokio::test]
async fn buffer_sizes() {
    let sizes = |receive, send| {
        changed(|config| {
            config.socket.receive_buffer = Some(receive);
            config.socket.send_buffer = Some(send);
        })
    };
    let (ours, theirs) = (sizes(20_000, 30_000), sizes(40_000, 50_000));
    let folder = tempfile::tempdir().unwrap();
    let mut addresses = vec!["tcp://127.0.0.1:0".to_owned()];
    if cfg!(unix) {
        addresses.push(format!(
            "unix://{}",
            folder.path().join("sizes.sock").display()
        ));
    }
    for address in addresses {
        let (accepted, connected) = pair(&address, &ours, &theirs).await;
        for (link, config) in [(&accepted, &ours), (&connected, &theirs)] {
            let socket = match link {
                AnyLink::Tcp(link) => SockRef::from(link.get_ref()),
                #[cfg(unix)]
                AnyLink::Unix(link) => SockRef::from(link.get_ref()),
                _ => panic!("{address}"),
            };
            let read = (
                socket.recv_buffer_size().unwrap(),
                socket.send_buffer_size().unwrap(),
            );
            let (receive, send) = (config.socket.receive_buffer, config.socket.send_buffer);
            let told = (as_read_back(receive.unwrap()), as_read_back(send.unwrap()));
            assert_eq!(read, told, "{address}");
        }
    }
}

/// Connections that fit the queue of a listener that does not accept.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn backlog() {
    for (backlog, fit) in [(1, 2), (5, 6)] {
        let config = changed(|config| config.socket.backlog = backlog);
        let address: Address = "tcp://127.0.0.1:0".parse().unwrap();
        let bound = Schemes::default().bind(&address, &config, 1).await.unwrap();
        let target = common::socket_address(bound[0].local());
        let mut waiting = Vec::new();
        let refused = loop {
            let connect = TcpStream::connect(target);
            match tokio::time::timeout(Duration::from_millis(200), connect).await {
                Ok(stream) => waiting.push(stream.unwrap()),
                Err(late) => break late,
            }
            assert!(waiting.len() <= fit, "the queue is longer than {backlog}");
        };
        assert_eq!(waiting.len(), fit, "{refused}");
    }
    let address: Address = "tcp://127.0.0.1:0".parse().unwrap();
    let bound = Schemes::default()
        .bind(&address, &LinkConfig::default(), 1)
        .await
        .unwrap();
    let target = common::socket_address(bound[0].local());
    let mut waiting = Vec::new();
    for _ in 0..500 {
        waiting.push(within(TcpStream::connect(target)).await.unwrap());
    }
}

async fn peer_and_local(
    listener: &mut impl Listener,
    target: SocketAddr,
) -> (TcpStream, Endpoint, Endpoint) {
    let both = async { tokio::join!(listener.accept(), TcpStream::connect(target)) };
    let (accepted, connected) = within(both).await;
    let accepted = accepted.unwrap();
    let info = accepted.info().clone();
    (connected.unwrap(), info.peer, info.local)
}

#[tokio::test]
async fn dual_stack() {
    for address in ["tcp://:0", "tcp://[::]:0"] {
        let address: Address = address.parse().unwrap();
        let bound = Schemes::default()
            .bind(&address, &LinkConfig::default(), 1)
            .await;
        let bound = bound.unwrap().remove(0);
        let port = bound.local().port().unwrap();
        let mut listener = bound.start().unwrap();
        for host in ["127.0.0.1", "::1"] {
            let target = SocketAddr::new(host.parse().unwrap(), port);
            let (stream, peer, local) = peer_and_local(&mut listener, target).await;
            // an IPv4 peer is one, and not an IPv6 address that contains it
            assert_eq!(peer, Endpoint::Ip(stream.local_addr().unwrap()));
            assert_eq!(local, Endpoint::Ip(target));
        }

        let only_v6 = changed(|config| config.socket.dual_stack = false);
        let bound = Schemes::default()
            .bind(&address, &only_v6, 1)
            .await
            .unwrap()
            .remove(0);
        let port = bound.local().port().unwrap();
        let mut listener = bound.start().unwrap();
        let v6 = SocketAddr::new("::1".parse().unwrap(), port);
        let (stream, peer, _) = peer_and_local(&mut listener, v6).await;
        assert_eq!(peer, Endpoint::Ip(stream.local_addr().unwrap()));
        let v4 = format!("tcp://127.0.0.1:{port}");
        let error = within(network_system::connect(&v4)).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
    }
    // an address of one family stays in it
    let address: Address = "tcp://0.0.0.0:0".parse().unwrap();
    let bound = Schemes::default()
        .bind(&address, &LinkConfig::default(), 1)
        .await;
    let port = bound.unwrap().remove(0).local().port().unwrap();
    let v6 = format!("tcp://[::1]:{port}");
    let error = within(network_system::connect(&v6)).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
}

/// A name may stand for several addresses: the ones that do not answer are passed over.
#[tokio::test]
async fn names_with_several_addresses() {
    for host in ["127.0.0.1", "[::1]"] {
        let listener = network_system::listen(&format!("tcp://{host}:0")).await;
        let mut listener = listener.unwrap();
        let port = listener.local().port().unwrap();
        let localhost = format!("tcp://localhost:{port}");
        let addresses = tokio::net::lookup_host(("localhost", port)).await.unwrap();
        let family = host.starts_with('[');
        if !addresses
            .into_iter()
            .any(|address| address.is_ipv6() == family)
        {
            // this machine's localhost is of the other family only
            continue;
        }
        let connecting = network_system::connect(&localhost);
        let both = async { tokio::join!(listener.accept(), connecting) };
        let (accepted, connected) = within(both).await;
        accepted.unwrap();
        let peer = connected.unwrap().info().peer.clone();
        assert_eq!(peer.port(), Some(port));
    }
}
