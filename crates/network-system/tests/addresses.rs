//! Addresses that cannot be listened on or reached: a clear error with the right code, which names
//! the address and says what to do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::net::TcpListener;
use std::time::Duration;

use common::{echo_on, within};
use network_system::config::LinkConfig;
use network_system::{Address, Bound, Client, Error, ErrorKind, Memory, Server, Side, Transports};
use socket2::{Domain, Socket, Type};

/// Starts a server that must not start.
async fn refused_to_start(address: &str, workers: usize) -> Error {
    let server = Server::builder().listen(address).workers(workers);
    within(server.start()).await.unwrap_err()
}

fn assert_names(error: &Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "'{part}' is missing in: {text}");
    }
}

#[tokio::test]
async fn a_port_in_use() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", other.local_addr().unwrap());
    for workers in [0, 1, 2] {
        let error = refused_to_start(&address, workers).await;
        assert_eq!((error.kind(), error.code()), (ErrorKind::BindFailed, -662));
        assert_eq!((error.side(), error.can_retry()), (Side::Ours, false));
        assert_eq!(error.peer_name(), Some(address.as_str()));
        assert_names(
            &error,
            &[&address, "address already in use", "another port"],
        );
    }
    let error = network_system::listen(&address).await.err().unwrap();
    assert_eq!(error.code(), -662);
}

#[tokio::test]
async fn a_port_that_one_of_our_own_servers_uses() {
    // SO_REUSEPORT, which several workers need, lets nobody else in
    for workers in [0, 2] {
        let echo = echo_on(&["tcp://127.0.0.1:0"], |builder| builder.workers(workers)).await;
        for more in [0, 2] {
            let error = refused_to_start(echo.url(), more).await;
            assert_eq!(error.kind(), ErrorKind::BindFailed, "{workers} {more}");
        }
        common::round_trip(&mut echo.dial().await, b"untouched").await;
    }
}

#[tokio::test]
async fn one_bad_address_among_good_ones() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let bad = format!("tcp://{}", other.local_addr().unwrap());
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let good = format!("tcp://{}", free.local_addr().unwrap());
    drop(free);
    let server = Server::builder().listen(&good).listen(&bad);
    let error = within(server.start()).await.unwrap_err();
    assert_eq!(error.peer_name(), Some(bad.as_str()));
    // the good one was given back
    echo_on(&[&good], |builder| builder).await;
}

#[tokio::test]
async fn addresses_that_this_machine_does_not_have() {
    // from the block for documentation
    let error = refused_to_start("tcp://192.0.2.1:0", 0).await;
    assert_eq!(error.kind(), ErrorKind::BindFailed);
    assert_names(&error, &["tcp://192.0.2.1:0", "no such address"]);
}

#[cfg(unix)]
#[tokio::test]
async fn addresses_that_make_no_sense() {
    for (address, part) in [
        ("127.0.0.1:80", "a scheme is missing"),
        ("ftp://127.0.0.1:80", "unknown scheme 'ftp'"),
        ("tcp://127.0.0.1", "a port is missing"),
        ("tcp://127.0.0.1:99999", "'99999' is not a port"),
        ("tcp://127.0.0.1:0?framing=cubes", "no framing `cubes`"),
        ("tcp://127.0.0.1:0?frame=lines", "unknown parameter 'frame'"),
        ("tcp://127.0.0.1:0?max_message=0", "max_message"),
        (
            "tcp://127.0.0.1:0?framing=lines&envelope=true",
            "length-prefixed",
        ),
        ("unix://relative.sock", "an absolute path"),
        ("memory://", "a name is missing"),
    ] {
        let error = refused_to_start(address, 0).await;
        assert_eq!(
            error.kind(),
            ErrorKind::InvalidArgument,
            "{address}: {error}"
        );
        assert_names(&error, &[part]);
        let error = Client::builder(address).connect();
        let error = within(error).await.unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::InvalidArgument,
            "{address}: {error}"
        );
        assert_names(&error, &[part]);
    }
    let error = within(Server::builder().start()).await.unwrap_err();
    assert_names(&error, &["no address to listen on", ".listen("]);
}

#[tokio::test]
async fn a_name_that_does_not_exist() {
    let address = "tcp://no-such-host.invalid:80";
    for error in [
        within(Client::builder(address).connect())
            .await
            .unwrap_err(),
        within(network_system::connect(address))
            .await
            .err()
            .unwrap(),
        refused_to_start(address, 0).await,
    ] {
        assert_eq!(
            (error.kind(), error.code()),
            (ErrorKind::ConnectionFailed, -600)
        );
        assert_names(
            &error,
            &[address, "no-such-host.invalid", "cannot be resolved"],
        );
        assert_names(&error, &["check the spelling"]);
        assert!(
            std::error::Error::source(&error).is_some(),
            "the cause is kept"
        );
    }
}

#[tokio::test]
async fn nobody_listens() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", free.local_addr().unwrap());
    drop(free);
    for address in [&address, "memory://nobody-listens-here"] {
        for error in [
            within(Client::builder(address).connect())
                .await
                .unwrap_err(),
            within(network_system::connect(address))
                .await
                .err()
                .unwrap(),
        ] {
            let expected = (ErrorKind::ConnectionRefused, -601);
            assert_eq!((error.kind(), error.code()), expected, "{error}");
            assert_eq!((error.side(), error.can_retry()), (Side::Theirs, true));
            assert_names(&error, &[address, "connection refused", "listens"]);
        }
    }
}

/// A listener of which the system lets nobody in any more: it does not accept, and its queue of
/// connections that wait is full.
async fn full_listener() -> (Socket, Vec<tokio::net::TcpStream>, String) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    loop {
        let connect = tokio::net::TcpStream::connect(address);
        match tokio::time::timeout(Duration::from_millis(300), connect).await {
            Ok(stream) => waiting.push(stream.unwrap()),
            Err(_) => return (listener, waiting, format!("tcp://{address}")),
        }
        assert!(waiting.len() < 100, "the queue does not fill");
    }
}

fn assert_timed_out(error: &Error, address: &str) {
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::ConnectionTimeout, -602)
    );
    assert_eq!((error.is_timeout(), error.can_retry()), (true, true));
    assert_names(error, &[address, "connection timed out", "firewalls"]);
}

// elsewhere a full queue refuses
#[cfg(target_os = "linux")]
#[tokio::test]
async fn no_answer_in_time() {
    let (_listener, _waiting, address) = full_listener().await;
    let deadline = Duration::from_millis(200);
    let began = std::time::Instant::now();
    let client = Client::builder(&address).connect_timeout(deadline);
    let error = within(client.connect()).await.unwrap_err();
    assert_timed_out(&error, &address);
    assert_names(&error, &["200ms"]);
    let took = began.elapsed();
    assert!(took >= deadline && took < 10 * deadline, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn no_answer_in_the_default_time() {
    let address = "memory://never-accepts";
    let mut config = LinkConfig::default();
    config.socket.backlog = 1;
    let parsed: Address = address.parse().unwrap();
    let bound = Memory.bind(&parsed, &config, 1).await.unwrap();
    assert_eq!(bound[0].local().as_str(), address);
    let _waits_to_be_accepted = Memory.connect(&parsed, &config).await.unwrap();

    let client = Client::builder(address).connect();
    let connection = network_system::connect(address);
    let began = tokio::time::Instant::now();
    let (client, connection) = tokio::join!(client, connection);
    assert_timed_out(&client.unwrap_err(), address);
    assert_timed_out(&connection.err().unwrap(), address);
    assert_eq!(began.elapsed().as_secs(), 10, "both at the same time");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_is_free_again_after_a_shutdown() {
    let folder = tempfile::tempdir().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = format!("tcp://{}", free.local_addr().unwrap());
    drop(free);
    let unix = format!("unix://{}", folder.path().join("again.sock").display());
    for round in 0..60 {
        let workers = round % 3;
        let server = Server::builder()
            .listen(&tcp)
            .listen(&unix)
            .listen("memory://free-again")
            .workers(workers);
        let started = within(server.start()).await;
        let server = started.unwrap_or_else(|error| panic!("round {round}: {error}"));
        within(server.shutdown(Duration::from_secs(5))).await;
    }
}
