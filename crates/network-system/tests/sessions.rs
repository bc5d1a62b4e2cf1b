//! Sessions: what is attached to them, how they are found, sent to from anywhere, and ended.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{echo, echo_on, eventually, only_session, read_frame, round_trip, within};
use network_system::{
    Client, CloseReason, Endpoint, Error, ErrorKind, Handler, Message, MessageBatch, MessageRef,
    Result, Server, Session,
};
use tokio::sync::mpsc;

/// A client, and what the server sends it.
async fn client(url: &str) -> (Client, mpsc::UnboundedReceiver<Message>) {
    let (back, came) = mpsc::unbounded_channel();
    let client = Client::builder(url)
        .on_message(move |_, message| {
            let _ = back.send(message);
            async {}
        })
        .connect();
    (within(client).await.unwrap(), came)
}

#[derive(Clone, Debug, PartialEq)]
struct User(String);

#[derive(Clone, Debug, PartialEq)]
struct Visits(u32);

#[tokio::test]
async fn attributes() {
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .on_connect(|session| {
            session.set(Visits(0));
        })
        .on_message(|session, message| async move {
            let Visits(n) = session.get().unwrap();
            let before = session.set(Visits(n + 1));
            assert_eq!(before, Some(Visits(n)));
            session.set(User(message.as_str().unwrap().to_owned()));
            session.send(format!("{}", n + 1)).await
        })
        .start()
        .await
        .unwrap();
    let (client, mut came) = client(server.listening()[0].as_str()).await;
    for n in 1..=3 {
        client.send(format!("user {n}")).await.unwrap();
        assert_eq!(within(came.recv()).await.unwrap(), format!("{n}"));
    }
    let session = only_session(server.sessions()).await;
    assert_eq!(session.get(), Some(Visits(3)));
    assert_eq!(session.get(), Some(User("user 3".to_owned())));
    assert_eq!(session.remove::<User>(), Some(User("user 3".to_owned())));
    assert_eq!(session.get::<User>(), None);
    assert_eq!(session.get::<u64>(), None);
}

#[cfg(unix)]
#[tokio::test]
async fn what_a_session_knows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("known.sock");
    let unix = format!("unix://{}", path.display());
    let addresses = ["tcp://127.0.0.1:0", &unix, "memory://known"];
    let echo = echo_on(&addresses, |builder| builder).await;

    let stream = echo.dial().await;
    let session = only_session(echo.server.sessions()).await;
    assert_eq!(session.info().scheme, "tcp");
    assert_eq!(session.peer(), &Endpoint::Ip(stream.local_addr().unwrap()));
    assert_eq!(session.local(), &Endpoint::Ip(stream.peer_addr().unwrap()));
    assert_eq!(
        session.peer().port(),
        Some(stream.local_addr().unwrap().port())
    );
    let shown = format!("{session:?}");
    let peer = format!("tcp://{}", stream.local_addr().unwrap());
    assert!(shown.contains(&peer), "{shown}");
    let again = echo.server.sessions().get(session.id()).unwrap();
    assert_eq!(session, again);
    drop(stream);
    within(session.ended()).await;
    assert!(echo.server.sessions().get(session.id()).is_none());

    let (client, _) = client(&unix).await;
    let session = only_session(echo.server.sessions()).await;
    assert_eq!(session.local(), &Endpoint::Unix(Some(path.clone())));
    assert_eq!(session.peer(), &Endpoint::Unix(None));
    assert_eq!(
        client.session().unwrap().peer(),
        &Endpoint::Unix(Some(path))
    );
    drop(client);
    within(session.ended()).await;

    let _client = network_system::connect("memory://known").await.unwrap();
    let session = only_session(echo.server.sessions()).await;
    assert_eq!(session.peer().to_string(), "known");
}

#[tokio::test]
async fn the_table() {
    let mut echo = echo(|builder| builder).await;
    let sessions = echo.server.sessions();
    assert!(sessions.is_empty());
    let mut streams = Vec::new();
    for _ in 0..40 {
        let mut stream = echo.dial().await;
        round_trip(&mut stream, b"in").await;
        streams.push(stream);
    }
    let all = sessions.all();
    assert_eq!((sessions.len(), all.len()), (40, 40));
    let mut ids: Vec<u64> = all.iter().map(Session::id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 40, "no two sessions share a number");
    for session in &all {
        assert_eq!(sessions.get(session.id()).as_ref(), Some(session));
    }
    assert!(sessions.get(u64::MAX).is_none());

    let victim = all[7].clone();
    sessions.kick(victim.id(), "out").unwrap();
    within(victim.ended()).await;
    let CloseReason::Requested(text) = echo.next_end().await else {
        panic!("{:?}", victim.close_reason())
    };
    assert_eq!(text, "out");
    let sessions = echo.server.sessions();
    assert_eq!(sessions.len(), 39);
    let error = sessions.kick(victim.id(), "again").unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::SessionNotFound, -620)
    );
}

#[tokio::test]
async fn broadcasts_speak_every_framing() {
    let plain = ["tcp://127.0.0.1:0", "tcp://127.0.0.1:0?framing=lines"];
    let more = ["tcp://127.0.0.1:0?envelope=true", "memory://broadcast-all"];
    let server = echo_on(&[plain, more].concat(), |builder| builder)
        .await
        .server;
    let urls: Vec<String> = server.listening().iter().map(ToString::to_string).collect();
    let mut clients = Vec::new();
    for url in urls.iter().chain(&urls) {
        clients.push(client(url).await);
    }
    let sessions = server.sessions();
    eventually("all are in", || sessions.len() == 8).await;

    for size in [0, 1, 64, 100, 10_000, 1 << 20] {
        let message = vec![b'x'; size];
        let report = sessions.broadcast(message.clone());
        assert_eq!((report.queued, report.full, report.failed), (8, 0, 0));
        for (_, came) in &mut clients {
            assert!(within(came.recv()).await.unwrap() == message, "{size}");
        }
        let written = || sessions.all().iter().all(|s| s.queued_bytes() == 0);
        eventually("all is written", written).await;
    }
    // what one framing cannot carry does not stop the others
    let report = sessions.broadcast("two\nlines");
    assert_eq!((report.queued, report.full, report.failed), (6, 0, 2));
    // and only those that are picked
    let report = sessions.broadcast_if("some", |session| session.info().scheme == "memory");
    assert_eq!(report.queued, 2);
    for (client, came) in &mut clients {
        let session = client.session().unwrap();
        let lines = session.peer().port() == server.listening()[1].port();
        if !lines {
            assert_eq!(within(came.recv()).await.unwrap(), "two\nlines");
        }
        if session.info().scheme == "memory" {
            assert_eq!(within(came.recv()).await.unwrap(), "some");
        }
    }
    let mut handlers = Vec::new();
    for (client, came) in clients {
        within(client.close(Duration::from_secs(5))).await;
        handlers.push(came);
    }
    for mut came in handlers {
        assert!(within(came.recv()).await.is_none(), "nobody got more");
    }
}

#[tokio::test]
async fn a_broadcast_does_not_wait_for_a_full_session() {
    const HIGH: usize = 64 * 1024;
    let echo = echo(|builder| builder.outbox(HIGH, HIGH / 4)).await;
    let slow = echo.dial().await;
    let slow_session = only_session(echo.server.sessions()).await;
    let (client, mut came) = client(echo.url()).await;
    eventually("both are in", || echo.server.sessions().len() == 2).await;
    let (mut sent, mut full) = (0_u32, 0);
    while full < 10 {
        let message = [&sent.to_be_bytes()[..], &[0; 20_000]].concat();
        let report = echo.server.sessions().broadcast(message);
        assert_eq!(report.queued + report.full, 2);
        full += report.full as u64;
        let message = within(came.recv()).await.unwrap();
        assert_eq!(message[..4], sent.to_be_bytes());
        sent += 1;
    }
    assert!(slow_session.queued_bytes() <= HIGH);
    // each one that a session did not take is counted there and in the sum
    assert_eq!(slow_session.statistics().messages_dropped, full);
    assert_eq!(echo.server.statistics().messages_dropped, full);
    drop((slow, client));
}

#[tokio::test]
async fn both_ends_know_why() {
    let (ended, mut ends) = mpsc::unbounded_channel();
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .on_disconnect(move |_, reason| {
            let _ = ended.send(reason.clone());
        })
        .start()
        .await
        .unwrap();
    let url = server.listening()[0].as_str();

    // the server closes
    let (told, mut reasons) = mpsc::unbounded_channel();
    let client = Client::builder(url)
        .reconnect(network_system::Backoff::never())
        .on_disconnect(move |_, reason| {
            let _ = told.send(reason.clone());
        })
        .connect()
        .await
        .unwrap();
    let session = only_session(server.sessions()).await;
    session.close("enough");
    session.close("a second reason does not count");
    within(session.ended()).await;
    assert!(session.is_closed());
    let there = within(reasons.recv()).await.unwrap();
    let here = within(ends.recv()).await.unwrap();
    assert!(matches!(there, CloseReason::Peer), "{there:?}");
    assert_eq!(here.to_string(), "closed here: enough");
    assert_eq!(
        session.close_reason().unwrap().to_string(),
        here.to_string()
    );
    let error = within(session.send("x")).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::ConnectionClosed, -603)
    );
    assert!(error.to_string().contains("enough"), "{error}");
    drop(client);

    // the client closes
    let (client, _) = self::client(url).await;
    let there = client.session().unwrap();
    within(client.close(Duration::from_secs(5))).await;
    within(there.ended()).await;
    let reason = there.close_reason().unwrap();
    assert!(matches!(reason, CloseReason::Shutdown), "{reason:?}");
    let here = within(ends.recv()).await.unwrap();
    assert!(matches!(here, CloseReason::Peer), "{here:?}");
}

#[tokio::test]
async fn what_is_queued_before_a_close_arrives() {
    let echo = echo(|builder| builder).await;
    let mut stream = echo.dial().await;
    let session = only_session(echo.server.sessions()).await;
    for n in 0..100_u32 {
        session.send(n.to_be_bytes()).await.unwrap();
    }
    session.close("all is said");
    for n in 0..100_u32 {
        let message = within(read_frame(&mut stream)).await.unwrap();
        assert_eq!(message.as_deref(), Some(&n.to_be_bytes()[..]));
    }
    assert_eq!(within(read_frame(&mut stream)).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_sender_is_in_order() {
    const SENDERS: u32 = 8;
    const EACH: u32 = 2000;
    let echo = echo(|builder| builder.outbox(8 * 1024, 1024)).await;
    let mut stream = echo.dial().await;
    let session = only_session(echo.server.sessions()).await;
    let mut tasks = Vec::new();
    for sender in 0..SENDERS {
        let session = session.clone();
        let send = async move {
            for n in 0..EACH {
                let message = [sender.to_be_bytes(), n.to_be_bytes()].concat();
                session.send(message).await.unwrap();
            }
        };
        // half of them tasks, half of them threads without a runtime
        if sender % 2 == 0 {
            tasks.push(tokio::spawn(send));
        } else {
            let handle = tokio::runtime::Handle::current();
            tasks.push(tokio::task::spawn_blocking(move || handle.block_on(send)));
        }
    }
    let mut next = [0; SENDERS as usize];
    for _ in 0..SENDERS * EACH {
        let message = within(read_frame(&mut stream)).await.unwrap().unwrap();
        let (sender, n) = message.split_at(4);
        let sender = u32::from_be_bytes(sender.try_into().unwrap()) as usize;
        assert_eq!(n, u32::to_be_bytes(next[sender]), "sender {sender}");
        next[sender] += 1;
    }
    for task in tasks {
        within(task).await.unwrap();
    }
}

/// What was sent before, by whomever, arrives before: the handler waits for a task, and then sends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn causes_come_before_effects() {
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .on_message(|session, _| async move {
            for n in (0..30_u8).step_by(3) {
                session.send([n]).await?;
                let other = session.clone();
                let task = tokio::spawn(async move { other.send([n + 1]).await });
                task.await.unwrap()?;
                session.send([n + 2]).await?;
            }
            Ok::<_, network_system::Error>(())
        })
        .start()
        .await
        .unwrap();
    let (client, mut came) = client(server.listening()[0].as_str()).await;
    for _ in 0..50 {
        client.send("go").await.unwrap();
        for n in 0..30_u8 {
            assert_eq!(within(came.recv()).await.unwrap(), [n]);
        }
    }
}

#[tokio::test]
async fn batches() {
    let echo = echo(|builder| builder.max_message(1 << 20)).await;
    let mut stream = echo.dial().await;
    let session = only_session(echo.server.sessions()).await;
    // far larger than the outbox
    let sizes: Vec<usize> = (0..3000).map(|n| (n * 37) % 3000).collect();
    let batch: MessageBatch = sizes.iter().map(|size| vec![*size as u8; *size]).collect();
    let sending = tokio::spawn({
        let session = session.clone();
        async move { session.send_batch(batch).await }
    });
    for size in sizes {
        let message = within(read_frame(&mut stream)).await.unwrap().unwrap();
        assert!(message == vec![size as u8; size], "{size}");
    }
    within(sending).await.unwrap().unwrap();
    within(session.send_batch(MessageBatch::new()))
        .await
        .unwrap();

    // one that cannot be sent: those before it go out, without waiting for anything else
    let batch = vec![vec![1; 3], vec![2; 3], vec![3; (1 << 20) + 1], vec![4; 3]];
    let error = within(session.send_batch(batch)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MessageTooLarge);
    for n in [1, 2] {
        let message = within(read_frame(&mut stream)).await.unwrap();
        assert_eq!(message.as_deref(), Some(&[n, n, n][..]));
    }
}

#[tokio::test]
async fn a_message_that_is_too_large_is_the_senders_fault() {
    let mut echo = echo(|builder| builder.max_message(100)).await;
    let mut stream = echo.dial().await;
    let session = only_session(echo.server.sessions()).await;
    for result in [
        session.send(vec![0; 101]).await,
        session.try_send(vec![0; 100_000]),
    ] {
        let error = result.unwrap_err();
        assert_eq!(
            (error.kind(), error.code()),
            (ErrorKind::MessageTooLarge, -642)
        );
        assert_eq!(error.side(), network_system::Side::Ours);
    }
    // and nothing of it has gone out
    session.send(vec![1; 100]).await.unwrap();
    let message = within(read_frame(&mut stream)).await.unwrap();
    assert_eq!(message.unwrap(), [1; 100]);
    drop(stream);
    assert!(matches!(echo.next_end().await, CloseReason::Peer));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handles_outlive_their_connection() {
    let echo = echo(|builder| builder).await;
    let handles: Vec<Arc<Session>> = {
        let mut streams = Vec::new();
        for _ in 0..20 {
            let mut stream = echo.dial().await;
            round_trip(&mut stream, b"in").await;
            streams.push(stream);
        }
        let all = echo.server.sessions().all();
        all.into_iter().map(Arc::new).collect()
    };
    for session in handles {
        within(session.ended()).await;
        assert!(within(session.send("x")).await.is_err());
        assert_eq!(session.statistics().messages_in, 1);
        assert_eq!(session.queued_bytes(), 0);
        session.close("again");
    }
}

/// A peer is nobody's business before `on_connect` has let it in.
#[tokio::test]
async fn who_is_not_let_in_is_not_found() {
    struct Door {
        entered: mpsc::UnboundedSender<Session>,
        open: Arc<tokio::sync::Semaphore>,
    }
    impl Handler for Door {
        async fn on_connect(&self, session: &Session) -> Result<()> {
            let _ = self.entered.send(session.clone());
            match self.open.acquire().await {
                Ok(permit) => permit.forget(),
                Err(_) => return Err(Error::new(ErrorKind::PermissionDenied, "come in")),
            }
            Ok(())
        }

        async fn on_message(&self, _: &Session, _: &MessageRef<'_>) -> Result<()> {
            Ok(())
        }
    }
    let (entered, mut enters) = mpsc::unbounded_channel();
    let open = Arc::new(tokio::sync::Semaphore::new(0));
    let door = Door {
        entered,
        open: open.clone(),
    };
    let server = Server::builder().listen("memory://door").handler(door);
    let server = server.start().await.unwrap();
    let sessions = server.sessions();
    let hidden = |session: &Session| {
        assert_eq!(sessions.broadcast("secret").queued, sessions.len());
        assert!(sessions.get(session.id()).is_none());
        assert!(!sessions.all().contains(session));
        assert!(sessions.kick(session.id(), "who?").is_err());
    };
    let mut let_in = network_system::connect("memory://door").await.unwrap();
    let first = within(enters.recv()).await.unwrap();
    hidden(&first);
    assert!(sessions.is_empty());
    open.add_permits(1);
    let found = || sessions.get(first.id()).is_some();
    common::eventually("it is let in", found).await;

    let mut refused = network_system::connect("memory://door").await.unwrap();
    let second = within(enters.recv()).await.unwrap();
    hidden(&second);
    // the same table, from a handler's session
    assert_eq!(second.sessions().all(), [first]);
    open.close();
    assert!(within(refused.receive()).await.unwrap().is_none());
    assert_eq!(
        within(let_in.receive()).await.unwrap().unwrap(),
        "secret",
        "for those inside"
    );
    // the end of the server finds all
    drop(let_in);
    within(server.shutdown(Duration::from_secs(5))).await;
}
