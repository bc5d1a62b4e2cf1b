//! Servers: several listeners, worker threads, the connection cap, drains, and numbers that add up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{
    Healthy, echo, echo_on, ended, eventually, frame, only_session, read_frame, read_to_end,
    round_trip, socket_address, within,
};
use network_system::{CloseReason, ErrorKind, Server};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Notify, mpsc};

async fn ask(url: &str, text: &str) {
    let mut connection = within(network_system::connect(url)).await.unwrap();
    within(connection.send(text)).await.unwrap();
    let answer = within(connection.receive()).await.unwrap();
    assert_eq!(answer.unwrap(), text, "{url}");
}

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
        for _ in 0..3 {
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

        let session = echo.server.sessions().all().remove(0);
        session.close("make room");
        within(session.ended()).await;
        round_trip(&mut echo.dial().await, b"there is room again").await;
    }
}

/// What a peer has not read is in its socket, in ours and in the outbox; all of it arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_waits_for_a_slow_reader() {
    const COUNT: u32 = 5000;
    for workers in [0, 2] {
        let builder = |b: common::Builder| b.workers(workers).outbox(64 << 20, 1 << 20);
        let mut echo = echo(builder).await;
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(echo.address()).await.unwrap();
        let session = only_session(echo.server.sessions()).await;
        for n in 0..COUNT {
            let message = [&n.to_be_bytes()[..], &[0; 2000]].concat();
            session.send(message).await.unwrap();
        }
        assert!(session.queued_bytes() > 0);
        let address = echo.address();
        let reading = tokio::spawn(async move {
            let mut next = 0_u32;
            while let Some(message) = within(read_frame(&mut stream)).await.unwrap() {
                assert_eq!(message[..4], next.to_be_bytes());
                next += 1;
                if next == COUNT / 2 {
                    // in the middle of the drain nobody gets in any more
                    let late = TcpStream::connect(address).await;
                    if let Ok(mut late) = late {
                        assert!(read_to_end(&mut late).await.0.is_empty());
                    }
                }
            }
            next
        });
        let report = within(echo.server.shutdown(Duration::from_secs(25))).await;
        assert_eq!(within(reading).await.unwrap(), COUNT);
        let numbers = (report.sessions, report.drained, report.cut);
        assert_eq!(numbers, (1, 1, 0), "{report:?}");
        assert_eq!(report.messages_dropped, 0);
        let end = within(echo.ends.recv()).await.unwrap();
        assert!(matches!(end.reason, CloseReason::Shutdown), "{end:?}");
        assert!(TcpStream::connect(address).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_cuts_who_never_reads() {
    for workers in [0, 2] {
        let builder = |b: common::Builder| b.workers(workers).outbox(64 << 20, 1 << 20);
        let mut echo = echo(builder).await;
        let mut stuck = echo.dial().await;
        let session = only_session(echo.server.sessions()).await;
        for _ in 0..50 {
            session.send(vec![0; 1 << 20]).await.unwrap();
        }
        let mut polite = echo.dial().await;
        round_trip(&mut polite, b"in").await;
        let healthy = tokio::spawn(async move { read_to_end(&mut polite).await });
        let deadline = Duration::from_millis(300);
        let report = within(echo.server.shutdown(deadline)).await;
        let numbers = (report.sessions, report.drained, report.cut);
        assert_eq!(numbers, (2, 1, 1), "{report:?}");
        assert!(report.messages_dropped > 0);
        assert!(report.elapsed >= deadline && report.elapsed < 10 * deadline);
        let (rest, result) = within(healthy).await.unwrap();
        assert!(rest.is_empty() && result.is_ok());
        let mut reasons = Vec::new();
        for _ in 0..2 {
            let end = within(echo.ends.recv()).await.unwrap();
            reasons.push(end.reason.label());
        }
        assert_eq!(reasons, ["shutdown", "cut"]);
        let _ = stuck.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_takes_as_long_as_it_may() {
    // longer than a close may take
    let deadline = Duration::from_secs(60);
    let echo = echo_on(&["memory://long-drain"], |builder| builder).await;
    let mut connection = network_system::connect("memory://long-drain")
        .await
        .unwrap();
    let session = only_session(echo.server.sessions()).await;
    for n in 0..100_u8 {
        session.send(vec![n; 10_000]).await.unwrap();
    }
    let began = tokio::time::Instant::now();
    let reading = async {
        for n in 0..100_u8 {
            let message = connection.receive().await.unwrap().unwrap();
            assert_eq!(message[0], n);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert!(connection.receive().await.unwrap().is_none());
        drop(connection);
    };
    let (report, ()) = tokio::join!(echo.server.shutdown(deadline), reading);
    assert_eq!((report.drained, report.cut), (1, 0), "{report:?}");
    assert_eq!(report.messages_dropped, 0);
    assert_eq!(began.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_drain_is_cut_at_its_deadline() {
    for seconds in [1, 10, 100] {
        let name = format!("memory://cut-drain-{seconds}");
        let mut echo = echo_on(&[&name], |builder| builder).await;
        let connection = network_system::connect(&name).await.unwrap();
        let session = only_session(echo.server.sessions()).await;
        session.send(vec![0; 1 << 20]).await.unwrap();
        let began = tokio::time::Instant::now();
        let report = echo.server.shutdown(Duration::from_secs(seconds)).await;
        assert_eq!((report.drained, report.cut), (0, 1), "{report:?}");
        assert_eq!(
            (report.messages_dropped, report.elapsed),
            (1, began.elapsed())
        );
        assert_eq!(began.elapsed().as_secs(), seconds);
        let end = echo.ends.recv().await.unwrap();
        assert!(matches!(end.reason, CloseReason::Cut), "{end:?}");
        drop(connection);
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_takes_as_long_as_it_may() {
    let mut echo = echo_on(&["memory://slow-close"], |builder| builder).await;
    let connection = network_system::connect("memory://slow-close")
        .await
        .unwrap();
    let session = only_session(echo.server.sessions()).await;
    session.send(vec![0; 1 << 20]).await.unwrap();
    session.close("enough");
    let began = tokio::time::Instant::now();
    let end = echo.ends.recv().await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 5, "the default of close_timeout");
    assert!(matches!(end.reason, CloseReason::Cut), "{end:?}");
    assert_eq!(session.statistics().messages_dropped, 1);
    drop(connection);
}

/// What was received before the shutdown is handled, and answered.
#[tokio::test]
async fn a_drain_lets_handlers_finish() {
    let (entered, mut enters) = mpsc::unbounded_channel();
    let proceed = Arc::new(Notify::new());
    let wait = proceed.clone();
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .on_message(move |session, message| {
            let _ = entered.send(());
            let wait = wait.clone();
            async move {
                if message == "wait" {
                    wait.notified().await;
                }
                session.send(message).await
            }
        })
        .start()
        .await
        .unwrap();
    let address = socket_address(&server.listening()[0]);
    let mut stream = TcpStream::connect(address).await.unwrap();
    let both = [frame(b"wait"), frame(b"behind it")].concat();
    stream.write_all(&both).await.unwrap();
    within(enters.recv()).await.unwrap();
    let client = async {
        let closed = || std::net::TcpStream::connect(address).is_err();
        eventually("nobody listens any more", closed).await;
        proceed.notify_one();
        read_to_end(&mut stream).await
    };
    let (report, (answers, result)) =
        tokio::join!(server.shutdown(Duration::from_secs(20)), client);
    assert!(result.is_ok());
    assert_eq!(answers, both, "{:?}", answers.escape_ascii().to_string());
    assert_eq!((report.drained, report.cut), (1, 0), "{report:?}");
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
