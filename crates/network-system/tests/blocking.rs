//! Calls from threads that run no tasks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::time::Duration;

use common::pipes::{self, Pipes};
use common::{eventually, only_session, within};
use network_system::{Client, ErrorKind, Server, Workers};
use tokio::sync::mpsc;

/// Threads that run no tasks may block; those that do are told so.
#[test]
fn blocking_calls() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (server, client) = runtime.block_on(async {
        let server = Server::builder()
            .listen("tcp://127.0.0.1:0")
            .workers(1)
            .envelope(true)
            .on_request(|_, request| async move {
                let answer = request.message().clone();
                request.reply(answer).await
            })
            .start()
            .await
            .unwrap();
        let (back, came) = mpsc::unbounded_channel();
        let client = Client::builder(server.listening()[0].as_str())
            .envelope(true)
            .on_message(move |session, message| {
                let inside = session.send_blocking("x").unwrap_err();
                let _ = back.send((message, inside));
                async {}
            })
            .on_request(|_, request| async move { request.reply("from the client").await })
            .connect();
        (server, (within(client).await.unwrap(), came))
    });
    let (client, mut came) = client;
    let here = client.session().unwrap();
    assert_eq!(here.request_blocking("one").unwrap(), "one");
    let sessions = server.sessions();
    runtime.block_on(eventually("it is in", || sessions.len() == 1));
    // a session of a worker, which is a runtime of its own
    let there = sessions.all().remove(0);
    assert_eq!(there.request_blocking("?").unwrap(), "from the client");
    for n in 0..5000 {
        there.send_blocking(format!("message {n} of many")).unwrap();
    }
    for n in 0..5000 {
        let (message, error) = runtime.block_on(within(came.recv())).unwrap();
        assert_eq!(message, format!("message {n} of many"));
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("from another thread"), "{error}");
    }
    assert_eq!(client.request_blocking("two").unwrap(), "two");
    client.send_blocking("nobody minds").unwrap();
    let inside = runtime.block_on(async { client.send_blocking("x") });
    assert_eq!(inside.unwrap_err().kind(), ErrorKind::InvalidArgument);
    let inside = runtime.block_on(async { client.request_blocking("x") });
    assert_eq!(inside.unwrap_err().kind(), ErrorKind::InvalidArgument);
    let inside = runtime.block_on(async { here.request_blocking("x") });
    assert_eq!(inside.unwrap_err().kind(), ErrorKind::InvalidArgument);

    // when the server is gone, such a call fails and does not wait for ever
    drop(server);
    runtime.block_on(within(there.ended()));
    let error = there.send_blocking("x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionClosed);
    let error = there.request_blocking("x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionClosed);
}

/// A worker's runtime ends under its connections: who waits for them is told.
#[test]
fn nobody_waits_for_a_session_whose_runtime_has_ended() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let handle = runtime.handle().clone();
    let (server, session, client) = handle.block_on(async {
        let server = Server::builder().transports(Pipes).listen("pipe://ended");
        let server = server.outbox(1000, 100).start().await.unwrap();
        let client = Client::builder("pipe://ended").transports(Pipes);
        let client = client.connect().await.unwrap();
        let session = only_session(server.sessions()).await;
        pipes::gate("ended").shut();
        (server, session, client)
    });
    let sender = session.clone();
    let (begun, begin) = std::sync::mpsc::channel();
    // a thread that fills the outbox, and then waits for room that never comes
    let thread = std::thread::spawn(move || {
        begun.send(()).unwrap();
        loop {
            if let Err(error) = sender.send_blocking(vec![0; 100_000]) {
                return error;
            }
        }
    });
    begin.recv_timeout(common::LIMIT).unwrap();
    let full = || session.queued_bytes() >= 100_000; // and none of it goes out
    runtime.block_on(eventually("the outbox is full", full));
    runtime.shutdown_timeout(Duration::from_secs(5));
    let error = thread.join().unwrap();
    assert_eq!(error.kind(), ErrorKind::ConnectionClosed);
    assert!(session.is_closed() && server.sessions().is_empty());
    drop((server, client));
}

/// Clients on workers need no runtime of the caller's.
#[test]
fn clients_without_a_runtime() {
    let workers = Workers::new(2).unwrap();
    let (told, events) = std::sync::mpsc::channel();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let tell = told.clone();
    let client = Client::builder(address)
        .workers(&workers)
        .on_message(move |session, message| {
            let back = session.send_blocking("x").unwrap_err();
            let _ = tell.send((message, back.kind()));
            async {}
        })
        .on_disconnect(move |_, reason| {
            let _ = told.send((reason.label().into(), ErrorKind::ConnectionClosed));
        })
        .start()
        .unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(common::LIMIT)).unwrap();
    client.send_blocking("hello").unwrap();
    let mut bytes = [0; 9];
    std::io::Read::read_exact(&mut peer, &mut bytes).unwrap();
    assert_eq!(&bytes, b"\0\0\0\x05hello");
    std::io::Write::write_all(&mut peer, b"\0\0\0\x02hi").unwrap();
    let next = || events.recv_timeout(common::LIMIT).unwrap();
    assert_eq!(next(), ("hi".into(), ErrorKind::InvalidArgument));
    // closed at once, and told so, before its threads end
    drop((client, workers));
    assert_eq!(next(), ("cut".into(), ErrorKind::ConnectionClosed));
    let end = std::io::Read::read(&mut peer, &mut bytes);
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}
