//! Servers: several listeners, worker threads, the connection cap, files of sockets, and a lack of
//! file descriptors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{
    Healthy, echo, echo_on, ended, eventually, read_to_end, round_trip, socket_address, within,
};
use network_system::{ErrorKind, Server};
use tokio::net::TcpStream;

async fn ask(url: &str, text: &str) {
    let mut connection = within(network_system::connect(url)).await.unwrap();
    within(connection.send(text)).await.unwrap();
    let answer = within(connection.receive()).await.unwrap();
    assert_eq!(answer.unwrap(), text, "{url}");
}

#[cfg(unix)]
#[tokio::test]
async fn several_listeners_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let unix = format!("unix://{}", folder.path().join("many.sock").display());
    let addresses = [
        "tcp://127.0.0.1:0",
        "tcp://127.0.0.1:0?framing=lines",
        "tcp://[::1]:0?framing=varint&max_message=10",
        &unix,
        "memory://many?envelope=true",
    ];
    for workers in [0, 2] {
        let echo = echo_on(&addresses, |builder| builder.workers(workers)).await;
        let listening = echo.server.listening();
        assert_eq!(listening.len(), addresses.len());
        for (address, asked) in listening.iter().zip(addresses) {
            assert_ne!(address.port(), Some(0), "the real port is known");
            let query = |url: &str| url.split_once('?').map(|(_, query)| query.to_owned());
            assert_eq!(query(address.as_str()), query(asked));
            ask(address.as_str(), "hello").await;
        }
        eventually("all are gone", || echo.server.sessions().is_empty()).await;
        assert_eq!(echo.server.statistics().connections_total, 5);
        let report = within(echo.server.shutdown(Duration::from_secs(5))).await;
        assert_eq!((report.sessions, report.cut), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_share_the_connections() {
    let threads = Arc::new(Mutex::new(HashSet::new()));
    let seen = threads.clone();
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .workers(2)
        .on_message(move |session, message| {
            let name = std::thread::current().name().unwrap().to_owned();
            // a connection never changes its thread
            let before: Option<String> = session.set(name.clone());
            assert!(before.is_none_or(|before| before == name));
            seen.lock().unwrap().insert(name);
            async move { session.send(message).await }
        })
        .start()
        .await
        .unwrap();
    let address = socket_address(&server.listening()[0]);
    let mut streams = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        within(round_trip(&mut stream, b"one")).await;
        within(round_trip(&mut stream, b"two")).await;
        streams.push(stream);
    }
    let names = threads.lock().unwrap().clone();
    if cfg!(target_os = "linux") {
        assert_eq!(names.len(), 2, "{names:?}");
    }
    assert!(names.iter().all(|name| name.starts_with("netsys-worker-")));
    assert_eq!(server.sessions().len(), 200);
    assert_eq!(ended(&server, "panicked"), 0);
    drop(streams);
    let report = within(server.shutdown(Duration::from_secs(10))).await;
    assert_eq!(report.cut, 0);
}

#[tokio::test]
async fn the_connection_cap() {
    for workers in [0, 2] {
        let echo = echo(|builder| builder.max_connections(3).workers(workers)).await;
        let mut inside = Vec::new();
        let healthy = Healthy::start(echo.address()).await;
        for _ in 0..2 {
            let mut stream = echo.dial().await;
            round_trip(&mut stream, b"in").await;
            inside.push(stream);
        }
        for _ in 0..5 {
            let mut stream = echo.dial().await;
            let (rest, _) = read_to_end(&mut stream).await;
            assert!(rest.is_empty(), "it is closed at once");
        }
        for stream in &mut inside {
            round_trip(stream, b"unharmed").await;
        }
        let statistics = echo.server.statistics();
        assert_eq!(statistics.connections_refused["max_connections"], 5);
        let (active, total) = (statistics.connections_active, statistics.connections_total);
        assert_eq!((active, total), (3, 3));

        drop(inside);
        eventually("there is room", || {
            echo.server.statistics().connections_active == 1
        })
        .await;
        round_trip(&mut echo.dial().await, b"there is room again").await;
        healthy.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_a_server_closes_its_connections() {
    for workers in [0, 2] {
        let echo = echo(|builder| builder.workers(workers)).await;
        let address = echo.address();
        let mut streams = Vec::new();
        for _ in 0..10 {
            let mut stream = echo.dial().await;
            round_trip(&mut stream, b"in").await;
            streams.push(stream);
        }
        let sessions = echo.server.sessions().all();
        drop(echo.server);
        for mut stream in streams {
            let _ = read_to_end(&mut stream).await;
        }
        for session in sessions {
            within(session.ended()).await;
            assert!(session.is_closed());
        }
        let gone = || std::net::TcpStream::connect(address).is_err();
        eventually("nobody listens any more", gone).await;
    }
}

/// Without a shutdown, too, every connection tells its end, whatever its thread.
#[tokio::test]
async fn a_dropped_server_tells_every_end() {
    for workers in [0, 2] {
        for _ in 0..10 {
            let mut echo = echo(|builder| builder.workers(workers)).await;
            let mut streams = Vec::new();
            for _ in 0..10 {
                let mut stream = echo.dial().await;
                round_trip(&mut stream, b"in").await;
                streams.push(stream);
            }
            drop(echo.server);
            for n in 0..10 {
                let end = within(echo.ends.recv()).await;
                let end = end.unwrap_or_else(|| panic!("{n} of 10, {workers} workers"));
                assert_eq!(end.reason.label(), "cut");
            }
        }
    }
}

#[cfg(unix)]
#[tokio::test]
async fn the_file_of_a_unix_socket() {
    use std::os::unix::net::UnixListener;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file.sock");
    let url = format!("unix://{}", path.display());
    let start = async |url: &str| Server::builder().listen(url).start().await;
    for workers in [0, 2] {
        // the file of a server that is gone is replaced, and goes with ours
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let builder = |b: common::Builder| b.workers(workers);
        let echo = echo_on(&[&url], builder).await;
        ask(&url, "hello").await;
        // that of a live one is not
        let error = start(&url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BindFailed, "{error}");
        assert!(error.to_string().contains(&url), "{error}");
        ask(&url, "still there").await;
        within(echo.server.shutdown(Duration::from_secs(5))).await;
        assert!(!path.exists(), "removed at the end");
    }
    let other: &Path = &folder.path().join("file.txt");
    std::fs::write(other, "precious").unwrap();
    let error = start(&format!("unix://{}", other.display())).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::BindFailed);
    assert_eq!(
        std::fs::read(other).unwrap(),
        b"precious",
        "no file of another kind"
    );
    let error = start(&format!(
        "unix://{}/no/folder.sock",
        folder.path().display()
    ))
    .await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BindFailed);
    assert!(
        error.to_string().contains("the folder does not exist"),
        "{error}"
    );
}

/// The path was given to another server meanwhile: its file is not ours to remove.
#[cfg(unix)]
#[tokio::test]
async fn the_file_of_another_server() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file.sock");
    let url = format!("unix://{}", path.display());
    let first = echo_on(&[&url], |builder| builder).await;
    std::fs::remove_file(&path).unwrap();
    let second = echo_on(&[&url], |builder| builder).await;
    within(first.server.shutdown(Duration::from_secs(5))).await;
    ask(&url, "still there").await;
    within(second.server.shutdown(Duration::from_secs(5))).await;
    assert!(!path.exists(), "removed at the end");
}

/// Of servers that start at the same moment, one replaces the file of the dead one, and no other
/// takes that for the dead one's.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_that_many_want() {
    use std::os::unix::net::UnixListener;
    let folder = tempfile::tempdir().unwrap();
    for round in 0..200 {
        let path = folder.path().join(format!("{round}.sock"));
        let url = format!("unix://{}", path.display());
        drop(UnixListener::bind(&path).unwrap());
        let start = Arc::new(std::sync::Barrier::new(8));
        let starting: Vec<_> = (0..8)
            .map(|_| {
                let (url, start) = (url.clone(), start.clone());
                let runtime = tokio::runtime::Handle::current();
                tokio::task::spawn_blocking(move || {
                    start.wait();
                    runtime.block_on(network_system::listen(&url))
                })
            })
            .collect();
        let mut listeners = Vec::new();
        for starting in starting {
            listeners.extend(within(starting).await.unwrap());
        }
        assert_eq!(listeners.len(), 1, "in round {round}");
        std::os::unix::net::UnixStream::connect(&path).unwrap();
    }
}

/// A live server that does not get round to accepting is still a live server.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_file_of_a_busy_server() {
    use socket2::{Domain, SockAddr, Socket, Type};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("busy.sock");
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    listener.listen(0).unwrap();
    let waiting = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let url = format!("unix://{}", path.display());
    // its queue is full: to look whether it lives must not wait for it
    let start = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        runtime.block_on(async { Server::builder().listen(url).start().await.unwrap_err() })
    });
    let error = tokio::time::timeout(Duration::from_secs(5), start).await;
    drop((listener, waiting));
    assert_eq!(error.unwrap().unwrap().kind(), ErrorKind::BindFailed);
    assert!(path.exists());
}

/// The system's limit of open files is reached: connections wait until there is room again. The
/// limit is one of the process, so the test runs itself in a process of its own.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn no_file_descriptors_left() {
    const INSIDE: &str = "NETWORK_SYSTEM_TEST_FEW_FILES";
    if std::env::var_os(INSIDE).is_some() {
        return with_few_file_descriptors().await;
    }
    let mut shell = tokio::process::Command::new("sh");
    shell
        .args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "no_file_descriptors_left"])
        .env(INSIDE, "1")
        .kill_on_drop(true);
    let output = within(shell.output()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let passed = text.contains("1 passed");
    assert!(output.status.success() && passed, "{text}");
}

#[cfg(target_os = "linux")]
async fn with_few_file_descriptors() {
    let mut echo = echo(|builder| builder).await;
    let healthy = Healthy::start(echo.address()).await;
    // some for this side first, until the system has none left
    let mut streams = Vec::new();
    let mut spare = std::fs::File::open("/dev/null").ok();
    while let Ok(stream) = TcpStream::connect(echo.address()).await {
        streams.push(stream);
        tokio::task::yield_now().await;
    }
    // room for one of this side, but none for the server to accept it
    drop(spare.take());
    let waiting = within(TcpStream::connect(echo.address())).await.unwrap();
    let error = echo.next_error().await;
    assert!(error.to_string().contains("too many open files"), "{error}");
    assert!(error.can_retry());
    let errors = echo.server.statistics().connect_errors;
    assert!(errors > 0);
    streams.clear();
    let mut waiting = waiting;
    within(round_trip(&mut waiting, b"let in after all")).await;
    // it has backed off, and not tried thousands of times
    let errors = echo.server.statistics().connect_errors;
    assert!(errors < 50, "{errors}");
    healthy.finish().await;
}
