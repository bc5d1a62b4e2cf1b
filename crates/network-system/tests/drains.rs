//! What a shutdown lets finish, and what it cuts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{
    Healthy, echo, echo_on, eventually, frame, only_session, read_frame, read_to_end, round_trip,
    socket_address, within,
};
use network_system::{Backoff, Client, CloseReason, Server, ServerState};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Notify, mpsc};

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
        let deadline = Duration::from_secs(1);
        let report = within(echo.server.shutdown(deadline)).await;
        let numbers = (report.sessions, report.drained, report.cut);
        assert_eq!(numbers, (2, 1, 1), "{report:?}");
        assert!(report.messages_dropped > 0);
        assert!(report.elapsed >= deadline);
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

/// Everything was written to who only does not close, so it has finished; and the deadline is also
/// that of the wait for its end.
#[tokio::test(start_paused = true)]
async fn who_lingers_at_the_deadline_is_not_cut() {
    let mut echo = echo_on(&["memory://lingers"], |builder| builder).await;
    let mut connection = network_system::connect("memory://lingers").await.unwrap();
    connection.send("hello").await.unwrap();
    assert_eq!(connection.receive().await.unwrap().unwrap(), "hello");
    let deadline = Duration::from_millis(300);
    let report = echo.server.shutdown(deadline).await;
    let numbers = (report.sessions, report.drained, report.cut);
    assert_eq!(numbers, (1, 1, 0), "{report:?}");
    assert_eq!((report.messages_dropped, report.elapsed), (0, deadline));
    let end = echo.ends.recv().await.unwrap();
    assert!(matches!(end.reason, CloseReason::Shutdown), "{end:?}");
    // the last state of everything
    let statistics = report.statistics;
    assert_eq!(statistics.connections_active, 0);
    assert_eq!(statistics.connections_ended["shutdown"], 1);
    assert_eq!((statistics.messages_in, statistics.messages_out), (1, 1));
    drop(connection);
}

/// A handler that finishes during the drain still reaches all who are there.
#[tokio::test]
async fn a_broadcast_during_a_drain() {
    let (entered, mut enters) = mpsc::unbounded_channel();
    let (reported, mut reports) = mpsc::unbounded_channel();
    let server = Server::builder()
        .listen("memory://broadcast-drain")
        .on_message(move |session, message| {
            let proceed = Arc::new(Notify::new());
            let _ = entered.send(proceed.clone());
            let reported = reported.clone();
            async move {
                proceed.notified().await;
                let _ = reported.send(session.sessions().broadcast(message));
            }
        })
        .start()
        .await
        .unwrap();
    let mut clients = Vec::new();
    let mut waiting = Vec::new();
    for name in ["anna", "ben"] {
        let client = network_system::connect("memory://broadcast-drain").await;
        let mut client = client.unwrap();
        client.send(name).await.unwrap();
        client.flush().await.unwrap();
        waiting.push(within(enters.recv()).await.unwrap());
        clients.push(client);
    }
    let sessions = server.sessions().clone();
    // polled after the shutdown, so the drain has begun
    let during = async {
        assert_eq!(sessions.len(), 2);
        for (n, proceed) in waiting.iter().enumerate() {
            proceed.notify_one();
            let report = within(reports.recv()).await.unwrap();
            // the first one has left when it is the second one's turn, or is about to
            assert!(report.queued >= 2 - n, "{report:?}");
        }
        for name in ["anna", "ben"] {
            let message = within(clients[1].receive()).await.unwrap();
            assert_eq!(message.unwrap(), name);
        }
        drop(clients);
    };
    let (report, ()) = tokio::join!(server.shutdown(Duration::from_secs(20)), during);
    assert_eq!((report.drained, report.cut), (2, 0), "{report:?}");
    assert!(sessions.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_close_takes_as_long_as_it_may() {
    let mut echo = echo_on(&["memory://slow-close"], |builder| builder).await;
    let connection = network_system::connect("memory://slow-close")
        .await
        .unwrap();
    let session = only_session(echo.server.sessions()).await;
    let pause = Duration::from_millis(100);
    let healthy = Healthy::over("memory://slow-close", pause).await;
    session.send(vec![0; 1 << 20]).await.unwrap();
    session.close("enough");
    let began = tokio::time::Instant::now();
    let end = echo.ends.recv().await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 5, "the default of close_timeout");
    assert!(matches!(end.reason, CloseReason::Cut), "{end:?}");
    assert_eq!(session.statistics().messages_dropped, 1);
    healthy.finish().await;
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

/// Many sessions do not end at the same moment, and all before the deadline.
#[tokio::test(start_paused = true)]
async fn the_ends_are_spread_over_a_window() {
    for (count, least, most) in [(20_u32, 0, 0), (400, 390, 401), (4000, 490, 501)] {
        let name = format!("memory://spread-{count}");
        let configure = |b: common::Builder| b.drain_window(Duration::from_millis(500));
        let mut echo = echo_on(&[&name], configure).await;
        let mut connections = Vec::new();
        for _ in 0..count {
            let mut connection = network_system::connect(&name).await.unwrap();
            connection.send("here").await.unwrap();
            assert_eq!(connection.receive().await.unwrap().unwrap(), "here");
            connections.push(tokio::spawn(async move {
                assert!(connection.receive().await.unwrap().is_none());
            }));
        }
        let state = echo.server.watch();
        assert_eq!(echo.server.state(), ServerState::Running);
        let began = tokio::time::Instant::now();
        let during = async {
            let mut watch = state.clone();
            let draining = |state: &ServerState| *state == ServerState::Draining;
            watch.wait_for(draining).await.unwrap();
            let mut ends = Vec::new();
            for _ in 0..count {
                echo.ends.recv().await.unwrap();
                ends.push(began.elapsed().as_millis());
            }
            ends
        };
        let (report, ends) = tokio::join!(echo.server.shutdown(Duration::from_secs(10)), during);
        let last = *ends.last().unwrap();
        assert!((least..=most).contains(&last), "{count}: {last} ms");
        let half = ends[ends.len() / 2];
        assert!(
            half <= last * 6 / 10 && half >= last * 4 / 10,
            "{half} of {last}"
        );
        assert_eq!((report.drained, report.cut), (count as usize, 0));
        assert_eq!(report.ended["shutdown"], u64::from(count));
        assert_eq!(*state.borrow(), ServerState::Stopped);
        for connection in connections {
            connection.await.unwrap();
        }
    }
}

/// What was cut is told apart.
#[tokio::test]
async fn the_report_says_why_sessions_were_cut() {
    let (came, mut arrivals) = mpsc::unbounded_channel();
    let also_came = came.clone();
    let server = Server::builder()
        .listen("memory://why-cut?envelope=true")
        .on_request(move |_, request| {
            let _ = came.send(());
            async move {
                tokio::spawn(async move {
                    let _kept = request;
                    std::future::pending::<()>().await;
                });
            }
        })
        .on_message(move |_, _| {
            let _ = also_came.send(());
            std::future::pending::<()>()
        })
        .start()
        .await
        .unwrap();
    let dial = async || {
        let client = Client::builder("memory://why-cut?envelope=true");
        client.reconnect(Backoff::never()).connect().await.unwrap()
    };
    let (asks, sends) = (dial().await, dial().await);
    sends.send("never done").await.unwrap();
    let asked = tokio::spawn(async move { asks.request("never answered").await });
    for _ in 0..2 {
        within(arrivals.recv()).await.unwrap();
    }
    let report = within(server.shutdown(Duration::from_millis(200))).await;
    assert_eq!((report.cut, report.ended["cut"]), (2, 2), "{report:?}");
    assert_eq!(report.cut_because["unanswered"], 1, "{report:?}");
    assert_eq!(report.cut_because["working"], 1, "{report:?}");
    let error = within(asked).await.unwrap().unwrap_err();
    assert!(error.is_closed(), "{error}");
}

/// A client that is told goes to the next address at once, and still gets what it has asked for.
#[tokio::test]
async fn a_client_that_is_told_goes_elsewhere_and_loses_nothing() {
    let proceed = Arc::new(Notify::new());
    let mut servers = Vec::new();
    for name in ["one", "two"] {
        let wait = proceed.clone();
        let server = Server::builder()
            .listen("tcp://127.0.0.1:0")
            .envelope(true)
            .on_request(move |_, request| {
                let wait = wait.clone();
                async move {
                    tokio::spawn(async move {
                        if *request.message() == "wait" {
                            wait.notified().await;
                        }
                        let _ = request.reply(name).await;
                    });
                }
            });
        servers.push(server.start().await.unwrap());
    }
    let second = servers.pop().unwrap();
    let first = servers.pop().unwrap();
    let client = Client::builder(first.listening()[0].as_str())
        .address(second.listening()[0].as_str())
        .envelope(true)
        // it would not be back in time if this were a loss
        .reconnect(Backoff::every(Duration::from_secs(3600)))
        .connect()
        .await
        .unwrap();
    let client = Arc::new(client);
    let old = client.session().unwrap();
    let asking = client.clone();
    let asked = tokio::spawn(async move { asking.request("wait").await });
    eventually("it is asked", || first.statistics().messages_in == 1).await;
    // it has lived long enough not to be taken for a server that turns clients away
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let moved = async {
        eventually("it is told", || old.peer_is_leaving()).await;
        for _ in 0..10 {
            assert_eq!(within(client.request("where")).await.unwrap(), "two");
        }
        assert!(!old.is_closed(), "the old one waits for its answer");
        proceed.notify_one();
        assert_eq!(within(asked).await.unwrap().unwrap(), "one");
    };
    let (report, ()) = tokio::join!(first.shutdown(Duration::from_secs(20)), moved);
    assert_eq!((report.sessions, report.cut), (1, 0), "{report:?}");
    within(old.ended()).await;
    let client = Arc::try_unwrap(client).unwrap();
    // the server is told, too
    let session = only_session(second.sessions()).await;
    client.close(Duration::from_secs(10)).await;
    within(session.ended()).await;
    assert!(session.peer_is_leaving());
}
