//! Clients: events, addresses in turn, coming back after a loss, and what waits meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{echo_on, eventually, only_session, within};
use network_system::{
    Backoff, Client, ClientState, CloseReason, Error, ErrorKind, Handler, Message, MessageRef,
    OverflowPolicy, Result, Server, Session, Workers,
};
use tokio::sync::{Notify, mpsc};

const SOON: Duration = Duration::from_millis(5);

/// An address of this machine that nobody listens on.
fn free_address() -> String {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("tcp://{}", free.local_addr().unwrap())
}

/// A server that passes on what it receives.
async fn sink(address: &str) -> (Server, mpsc::UnboundedReceiver<Message>) {
    sink_on(address, 0).await
}

/// The same on so many workers.
async fn sink_on(address: &str, workers: usize) -> (Server, mpsc::UnboundedReceiver<Message>) {
    let (back, came) = mpsc::unbounded_channel();
    let server = Server::builder()
        .listen(address)
        .workers(workers)
        .on_message(move |_, message| {
            let _ = back.send(message);
            async {}
        })
        .start();
    (within(server).await.unwrap(), came)
}

#[tokio::test]
async fn events_in_order() {
    let echo = echo_on(&["tcp://127.0.0.1:0"], |builder| builder).await;
    let (told, mut events) = mpsc::unbounded_channel();
    let (a, b, c) = (told.clone(), told.clone(), told);
    let client = Client::builder(echo.url())
        .on_connect(move |session| {
            let _ = a.send("connect".to_owned());
            session.try_send("first")
        })
        .on_message(move |_, message| {
            let _ = b.send(message.as_str().unwrap().to_owned());
            async {}
        })
        .on_disconnect(move |session, reason| {
            assert!(session.is_closed());
            let _ = c.send(format!("disconnect {}", reason.label()));
        })
        .connect();
    let client = within(client).await.unwrap();
    client.send("second").await.unwrap();
    for event in ["connect", "first", "second"] {
        assert_eq!(within(events.recv()).await.unwrap(), event);
    }
    within(client.close(Duration::from_secs(5))).await;
    assert_eq!(within(events.recv()).await.unwrap(), "disconnect shutdown");
    assert!(within(events.recv()).await.is_none(), "and then no more");
}

#[tokio::test]
async fn addresses_are_tried_in_turn() {
    let (first, second) = (free_address(), free_address());
    let (failed, mut errors) = mpsc::unbounded_channel();
    let (server, mut came) = sink(&second).await;
    let client = Client::builder(&first)
        .address(&second)
        .reconnect(Backoff::every(SOON))
        .on_error(move |_, error| {
            let _ = failed.send(error.clone());
        })
        .connect();
    let client = within(client).await.unwrap();
    client.send("to the second").await.unwrap();
    assert_eq!(within(came.recv()).await.unwrap(), "to the second");
    let error = within(errors.recv()).await.unwrap();
    assert_eq!(error.peer_name(), Some(first.as_str()));

    // the other way round
    let (other, mut other_came) = sink(&first).await;
    within(server.shutdown(Duration::from_secs(5))).await;
    let moved = || other.sessions().len() == 1;
    eventually("it has gone over to the first", moved).await;
    let session = within(client.connected()).await.unwrap();
    session.send("to the first").await.unwrap();
    assert_eq!(within(other_came.recv()).await.unwrap(), "to the first");
    assert_eq!(client.statistics().connections_total, 2);

    // without any, the error of the last one
    within(client.close(Duration::from_secs(5))).await;
    within(other.shutdown(Duration::from_secs(5))).await;
    let client = Client::builder(&first).address(&second).connect();
    let error = within(client).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(error.peer_name(), Some(second.as_str()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_is_found_again() {
    restart(0).await;
}

#[tokio::test]
async fn a_restarted_server_is_found_again_by_workers() {
    restart(2).await;
}

async fn restart(workers: usize) {
    let address = free_address();
    let (server, mut came) = sink_on(&address, workers).await;
    let mut client = Client::builder(&address).reconnect(Backoff::every(SOON));
    if workers > 0 {
        client = client.workers(&Workers::new(workers).unwrap());
    }
    let client = within(client.connect()).await.unwrap();
    let mut next = 0_u32;
    let mut send = async |client: &Client| {
        within(client.send(next.to_be_bytes())).await.unwrap();
        next += 1;
    };
    send(&client).await;
    assert_eq!(within(came.recv()).await.unwrap(), 0_u32.to_be_bytes());
    let mut server = Some(server);
    let mut expected = 1_u32;
    for _ in 0..5 {
        within(server.take().unwrap().shutdown(Duration::from_secs(5))).await;
        let mut states = client.watch();
        let lost = states.wait_for(|state| !state.is_connected());
        within(lost).await.unwrap();
        // kept while there is no connection, and then in order with what comes after
        for n in 0..100 {
            assert_eq!(client.offline_queue().0, n);
            send(&client).await;
        }
        let (again, mut came) = sink_on(&address, workers).await;
        server = Some(again);
        for _ in 0..100 {
            send(&client).await;
        }
        for _ in 0..200 {
            let message = within(came.recv()).await.unwrap();
            assert_eq!(message, expected.to_be_bytes());
            expected += 1;
        }
        assert_eq!(client.offline_queue(), (0, 0));
    }
    let statistics = client.statistics();
    assert_eq!(
        (statistics.connections_active, statistics.connections_total),
        (1, 6)
    );
    assert_eq!(statistics.messages_dropped, 0);
    within(client.close(Duration::from_secs(5))).await;
}

#[tokio::test]
async fn the_offline_queue_is_bounded() {
    const MOST: usize = 64 * 1024;
    let address = free_address();
    let client = Client::builder(&address)
        .reconnect(Backoff::every(SOON))
        .offline_queue(MOST)
        .start()
        .unwrap();
    let mut kept = 0;
    let error = loop {
        match within(client.send(vec![kept as u8; 100])).await {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
        let (messages, bytes) = client.offline_queue();
        assert!(messages == kept && bytes <= MOST && bytes >= 100 * kept);
    };
    assert!(error.is_full() && error.can_retry(), "{error}");
    assert!(
        error.to_string().contains("there is no connection"),
        "{error}"
    );
    assert!(kept > MOST / 300 && kept <= MOST / 100, "{kept}");
    assert_eq!(
        client.offline_queue().0,
        kept,
        "the rejected one is not there"
    );
    let (_server, mut came) = sink(&address).await;
    for n in 0..kept {
        assert_eq!(within(came.recv()).await.unwrap(), vec![n as u8; 100]);
    }
    assert_eq!(client.offline_queue(), (0, 0));

    let off = Client::builder(free_address()).offline_queue(0).start();
    let error = within(off.unwrap().send("x")).await.unwrap_err();
    assert!(error.is_full(), "{error}");
    assert!(
        error.to_string().contains("the offline queue is off"),
        "{error}"
    );
}

/// The offline queue goes out through an outbox that is smaller, whatever the policy for it is.
#[tokio::test]
async fn an_offline_queue_larger_than_the_outbox() {
    for policy in [
        OverflowPolicy::Wait,
        OverflowPolicy::Reject,
        OverflowPolicy::DropNewest,
        OverflowPolicy::DropOldest,
        OverflowPolicy::Close,
    ] {
        let address = free_address();
        let client = Client::builder(&address)
            .reconnect(Backoff::every(SOON))
            .outbox(10_000, 5000)
            .overflow(policy)
            .start()
            .unwrap();
        for n in 0..500_u32 {
            let message = [&n.to_be_bytes()[..], &[0; 1000]].concat();
            within(client.send(message)).await.unwrap();
        }
        let (_server, mut came) = sink(&address).await;
        for n in 0..500_u32 {
            let message = within(came.recv()).await.unwrap();
            assert_eq!(message[..4], n.to_be_bytes(), "{policy:?}");
        }
        assert_eq!(client.statistics().messages_dropped, 0, "{policy:?}");
    }
}

/// A connection that is lost while the offline queue goes out is a loss like any other.
#[tokio::test]
async fn lost_while_the_offline_queue_goes_out() {
    let address = "memory://lost-while-flushing";
    let client = Client::builder(address)
        .reconnect(Backoff::every(SOON))
        .outbox(10_000, 5000)
        .start()
        .unwrap();
    for n in 0..500_u32 {
        let message = [&n.to_be_bytes()[..], &[0; 1000]].concat();
        within(client.send(message)).await.unwrap();
    }
    let mut listener = network_system::listen(address).await.unwrap();
    for _ in 0..3 {
        // reads a little, and is gone
        let mut connection = within(listener.accept()).await.unwrap();
        within(connection.receive()).await.unwrap().unwrap();
    }
    drop(listener);
    assert!(
        !matches!(client.state(), ClientState::Closed(_)),
        "{:?}",
        client.state()
    );
    let (_server, mut came) = sink(address).await;
    // what was on its way is lost, the rest follows in order
    let first = within(came.recv()).await.unwrap();
    let mut expected = u32::from_be_bytes(first[..4].try_into().unwrap());
    while expected < 499 {
        expected += 1;
        let message = within(came.recv()).await.unwrap();
        assert_eq!(message[..4], expected.to_be_bytes());
    }
    within(client.close(Duration::from_secs(5))).await;
}

#[tokio::test(start_paused = true)]
async fn every_state_is_seen() {
    let address = "memory://states";
    let client = Client::builder(address)
        .reconnect(Backoff::every(Duration::from_secs(3)))
        .start()
        .unwrap();
    let mut states = client.watch();
    assert!(matches!(
        client.state(),
        ClientState::Connecting { failures: 0 }
    ));
    for round in 1..=3 {
        // a try that fails at once may not be seen, the wait behind it is
        let waits = states.wait_for(
            |state| matches!(state, ClientState::Waiting { failures, .. } if *failures == round),
        );
        match waits.await.unwrap().clone() {
            ClientState::Waiting {
                delay,
                error: Some(error),
                ..
            } => {
                assert_eq!(delay.as_secs(), 3);
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            }
            other => panic!("{other:?}"),
        }
    }
    let (server, _) = sink(address).await;
    let connected = states.wait_for(ClientState::is_connected);
    connected.await.unwrap();
    assert!(client.session().is_some());
    // old enough to have proved itself
    tokio::time::sleep(Duration::from_secs(1)).await;

    server.shutdown(Duration::from_secs(5)).await;
    let waits = states.wait_for(|state| matches!(state, ClientState::Waiting { .. }));
    match waits.await.unwrap().clone() {
        ClientState::Waiting {
            failures, error, ..
        } => {
            assert!(
                failures == 0 && error.is_none(),
                "it was lost, which is no failed try"
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(client.session().is_none());
    client.close(Duration::from_secs(5)).await;
    let closed = states.wait_for(|state| matches!(state, ClientState::Closed(None)));
    closed.await.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_come_back() {
    let echo = echo_on(&["tcp://127.0.0.1:0"], |builder| builder).await;
    let client = Client::builder(echo.url()).reconnect(Backoff::never());
    let client = within(client.connect()).await.unwrap();
    only_session(echo.server.sessions()).await.close("go");
    let mut states = client.watch();
    let closed = states.wait_for(|state| matches!(state, ClientState::Closed(_)));
    within(closed).await.unwrap();
    for error in [
        within(client.send("x")).await.unwrap_err(),
        within(client.connected()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::ConnectionClosed, "{error}");
    }

    // one that never got there knows why
    let client = Client::builder(free_address())
        .reconnect(Backoff::never())
        .start()
        .unwrap();
    let error = within(client.connected()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionClosed);
    assert!(error.to_string().contains("connection refused"), "{error}");
    match client.state() {
        ClientState::Closed(Some(error)) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_handler_that_refuses_the_server() {
    let echo = echo_on(&["tcp://127.0.0.1:0"], |builder| builder).await;
    let client = Client::builder(echo.url())
        .on_connect(|_| Err::<(), _>(Error::new(ErrorKind::PermissionDenied, "trust it")));
    let error = within(client.connect()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionClosed);
    assert!(error.to_string().contains("could not trust it"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_writes_what_is_queued() {
    const COUNT: u32 = 3000;
    for round in 0..20 {
        let (server, mut came) = sink("tcp://127.0.0.1:0").await;
        let client = Client::builder(server.listening()[0].as_str());
        // with a connection, and while it is being made
        let client = match round % 2 {
            0 => within(client.connect()).await.unwrap(),
            _ => client.start().unwrap(),
        };
        for n in 0..COUNT {
            let message = [&n.to_be_bytes()[..], &[0; 100]].concat();
            within(client.send(message)).await.unwrap();
        }
        if round % 2 == 1 {
            within(client.connected()).await.unwrap();
        }
        within(client.close(Duration::from_secs(10))).await;
        for n in 0..COUNT {
            let message = within(came.recv()).await.unwrap();
            assert_eq!(message[..4], n.to_be_bytes());
        }
    }
}

#[tokio::test]
async fn what_waits_when_a_client_closes_is_counted() {
    let (lost, mut losses) = mpsc::unbounded_channel();
    let client = Client::builder(free_address()).start().unwrap();
    for n in 0..10 {
        client.send(format!("{n}")).await.unwrap();
    }
    let mut states = client.watch();
    tokio::spawn(async move {
        let closed = states.wait_for(|state| matches!(state, ClientState::Closed(_)));
        let _ = lost.send(closed.await.is_ok());
    });
    within(client.close(Duration::from_secs(5))).await;
    assert!(within(losses.recv()).await.unwrap());
}

/// Takes its time to greet the server.
struct Slow {
    entered: mpsc::UnboundedSender<Session>,
    proceed: Arc<Notify>,
}

impl Handler for Slow {
    async fn on_connect(&self, session: &Session) -> Result<()> {
        let _ = self.entered.send(session.clone());
        self.proceed.notified().await;
        Ok(())
    }

    async fn on_message(&self, _: &Session, _: &MessageRef<'_>) -> Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn an_end_while_on_connect_runs() {
    let mut echo = echo_on(&["tcp://127.0.0.1:0"], |builder| builder).await;
    for close in [true, false] {
        let (entered, mut enters) = mpsc::unbounded_channel();
        let proceed = Arc::new(Notify::new());
        let handler = Slow {
            entered,
            proceed: proceed.clone(),
        };
        let client = Client::builder(echo.url())
            .handler(handler)
            .start()
            .unwrap();
        let session = within(enters.recv()).await.unwrap();
        assert!(!client.state().is_connected());
        if close {
            let closing = client.close(Duration::from_secs(20));
            let go = async {
                tokio::task::yield_now().await;
                proceed.notify_one();
            };
            let began = std::time::Instant::now();
            within(async { tokio::join!(closing, go) }).await;
            assert!(began.elapsed() < Duration::from_secs(15), "it was told");
        } else {
            // nobody could ever reach the connection again
            drop(client);
        }
        within(session.ended()).await;
        let reason = echo.next_end().await;
        assert!(
            matches!(reason, CloseReason::Peer | CloseReason::Network(_)),
            "{reason:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_client_is_gone() {
    let mut echo = echo_on(&["tcp://127.0.0.1:0"], |builder| builder).await;
    for _ in 0..20 {
        let client = within(Client::builder(echo.url()).connect()).await.unwrap();
        let session = client.session().unwrap();
        drop(client);
        within(session.ended()).await;
        echo.next_end().await;
    }
    assert_eq!(
        echo.server.statistics().connections_total,
        20,
        "none came back"
    );
}

/// Numbered messages for a client that has no connection yet.
async fn keep(client: &Client, count: u32) {
    for n in 0..count {
        let message = [&n.to_be_bytes()[..], &[0; 1000]].concat();
        client.send(message).await.unwrap();
    }
    assert_eq!(client.offline_queue().0, count as usize);
}

async fn arrive(came: &mut mpsc::UnboundedReceiver<Message>, first: u32, count: u32) {
    for n in first..count {
        let message = within(came.recv()).await.unwrap();
        assert_eq!(message[..4], n.to_be_bytes());
    }
}

/// One that is full, say: it swallows nothing, and is not asked more often for accepting.
#[tokio::test(start_paused = true)]
async fn a_server_that_closes_at_once() {
    let address = "memory://closes-at-once";
    let client = Client::builder(address)
        .reconnect(Backoff::every(Duration::from_secs(3)))
        .start()
        .unwrap();
    let mut states = client.watch();
    keep(&client, 100).await;
    let mut waits = async |number: u32| {
        let waits = states.wait_for(
            |state| matches!(state, ClientState::Waiting { failures, .. } if *failures == number),
        );
        within(waits).await.unwrap().clone()
    };
    waits(1).await;
    let mut listener = network_system::listen(address).await.unwrap();
    for number in 2..5 {
        drop(within(listener.accept()).await.unwrap());
        match waits(number).await {
            ClientState::Waiting {
                error: Some(error), ..
            } => assert!(error.to_string().contains("closed by the peer"), "{error}"),
            other => panic!("{other:?}"),
        }
    }
    drop(listener);
    let (_server, mut came) = sink(address).await;
    arrive(&mut came, 0, 100).await;
    assert_eq!(client.statistics().messages_dropped, 0);
}

#[tokio::test(start_paused = true)]
async fn the_next_address_after_one_that_closes_at_once() {
    let (first, second) = ("memory://no-backends", "memory://has-room");
    let client = Client::builder(first)
        .address(second)
        .reconnect(Backoff::every(Duration::from_secs(3)));
    let mut listener = network_system::listen(first).await.unwrap();
    let closing = tokio::spawn(async move {
        loop {
            drop(listener.accept().await.unwrap());
        }
    });
    let (_server, mut came) = sink(second).await;
    let client = client.start().unwrap();
    keep(&client, 10).await;
    arrive(&mut came, 0, 10).await;
    closing.abort();
}

/// With the envelope a peer that has not said hello gets nothing of what waits.
#[tokio::test(start_paused = true)]
async fn what_waits_goes_to_who_says_hello() {
    let address = "memory://no-hello";
    let client = Client::builder(address)
        .envelope(true)
        .reconnect(Backoff::every(Duration::from_secs(3)))
        .start()
        .unwrap();
    keep(&client, 10).await;
    let raw = format!("{address}?framing=raw");
    let mut listener = network_system::listen(&raw).await.unwrap();
    let mut silent = within(listener.accept()).await.unwrap();
    let hello = within(silent.receive()).await.unwrap().unwrap();
    assert_eq!(hello, b"\0\0\0\x05\0NSE1");
    let more = tokio::time::timeout(Duration::from_secs(10), silent.receive()).await;
    assert!(more.is_err(), "{more:?}");
    drop((silent, listener));
    let (back, mut came) = mpsc::unbounded_channel();
    let server = Server::builder().listen(address).envelope(true);
    let server = server.on_message(move |_, message| {
        let _ = back.send(message);
        async {}
    });
    let _server = server.start().await.unwrap();
    arrive(&mut came, 0, 10).await;
}

/// What was taken from the queue and not written when the connection is lost is not lost.
#[tokio::test(start_paused = true)]
async fn what_was_not_written_waits_again() {
    let address = "memory://never-reads";
    let client = Client::builder(address)
        .reconnect(Backoff::every(Duration::from_secs(3)))
        .start()
        .unwrap();
    keep(&client, 500).await;
    let mut listener = network_system::listen(address).await.unwrap();
    let stuck = within(listener.accept()).await.unwrap();
    // all of it is in the outbox now, and the little that fits in the pipe
    let mut states = client.watch();
    let connected = states.wait_for(ClientState::is_connected);
    within(connected).await.unwrap();
    assert_eq!(client.offline_queue(), (0, 0));
    let written = client.statistics().messages_out;
    assert!(written < 400, "{written}");
    drop((stuck, listener));
    let (_server, mut came) = sink(address).await;
    arrive(&mut came, written as u32, 500).await;
    assert_eq!(client.statistics().messages_dropped, 0);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_outlives_its_connection() {
    let address = "memory://batch-outlives";
    let mut listener = network_system::listen(address).await.unwrap();
    let client = Client::builder(address)
        .reconnect(Backoff::every(Duration::from_secs(3)))
        .outbox(10_000, 5000)
        .connect();
    let (client, stuck) = tokio::join!(client, listener.accept());
    let (client, stuck) = (Arc::new(client.unwrap()), stuck.unwrap());
    let batch: network_system::MessageBatch = (0..500_u32)
        .map(|n| Message::from([&n.to_be_bytes()[..], &[0; 1000]].concat()))
        .collect();
    let sender = client.clone();
    let sending = tokio::spawn(async move { sender.send_batch(batch).await });
    let session = client.session().unwrap();
    // until it waits, which under paused time is when the clock moves
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(session.queued_bytes() > 5000 && !sending.is_finished());
    drop((stuck, listener));
    within(sending).await.unwrap().unwrap();
    let (kept, _) = client.offline_queue();
    assert!(kept > 0);
    let (_server, mut came) = sink(address).await;
    arrive(&mut came, 500 - kept as u32, 500).await;
}

/// Nobody is given a session that has ended, and the state says so before `on_disconnect` is done.
#[tokio::test]
async fn connected_means_alive() {
    let echo = echo_on(&["memory://alive"], |builder| builder).await;
    let (entered, mut enters) = mpsc::unbounded_channel();
    let proceed = Arc::new(Notify::new());
    let wait = proceed.clone();
    struct Leaving(mpsc::UnboundedSender<()>, Arc<Notify>);
    impl Handler for Leaving {
        async fn on_message(&self, _: &Session, _: &MessageRef<'_>) -> Result<()> {
            Ok(())
        }

        async fn on_disconnect(&self, _: &Session, _: &CloseReason) {
            let _ = self.0.send(());
            self.1.notified().await;
        }
    }
    let client = Client::builder("memory://alive")
        .reconnect(Backoff::every(SOON))
        .handler(Leaving(entered, wait))
        .connect();
    let client = within(client).await.unwrap();
    let first = client.session().unwrap();
    only_session(echo.server.sessions()).await.close("go");
    within(enters.recv()).await.unwrap();
    assert!(!client.state().is_connected() && client.session().is_none());
    let connected = client.connected();
    proceed.notify_one();
    let second = within(connected).await.unwrap();
    assert!(second != first && !second.is_closed());
}

#[tokio::test]
async fn workers_take_clients_of_every_scheme() {
    let folder = tempfile::tempdir().unwrap();
    let mut addresses = vec![
        "tcp://127.0.0.1:0".to_owned(),
        "memory://clients-on-workers".to_owned(),
    ];
    if cfg!(unix) {
        addresses.push(format!("unix://{}/socket", folder.path().display()));
    }
    let workers = Workers::new(2).unwrap();
    for address in &addresses {
        let echo = echo_on(&[address], |builder| builder.workers(1)).await;
        let (back, mut came) = mpsc::unbounded_channel();
        let client = Client::builder(echo.url())
            .workers(&workers)
            .on_message(move |_, message| {
                let _ = back.send(message);
                async {}
            })
            .connect();
        let client = within(client).await.unwrap();
        for size in [0, 1, 1000, 100_000, 1_000_000] {
            let message = vec![7; size];
            within(client.send(message.clone())).await.unwrap();
            assert!(
                within(came.recv()).await.unwrap() == message,
                "{address} {size}"
            );
        }
        within(client.close(common::LIMIT)).await;
    }
}
