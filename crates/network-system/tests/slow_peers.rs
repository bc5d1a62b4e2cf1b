//! A peer that does not read, under each overflow policy: bounded memory, every message accounted
//! for, and nobody else slowed down. Sent from the session's own handler and from another task.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Healthy, eventually, only_session, read_frame, socket_address, within};
use network_system::config::{OutboxConfig, ServerConfig, SessionConfig, SocketOptions};
use network_system::{CloseReason, Error, ErrorKind, OverflowPolicy, Server, Session};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;

const HIGH: usize = 64 * 1024;
const LOW: usize = 16 * 1024;
const COUNT: u32 = 2000;
const SIZE: usize = 1000;

/// What the sender was told, and what arrived in the end.
#[derive(Debug, Default)]
struct Outcome {
    accepted: Vec<u32>,
    errors: Vec<Error>,
    received: Vec<u32>,
    dropped: u64,
    reason: Option<CloseReason>,
}

#[derive(Default)]
struct Sent {
    accepted: Vec<u32>,
    errors: Vec<Error>,
    most_queued: usize,
    done: bool,
}

/// Sends numbered messages as fast as the session takes them.
async fn send_all(session: Session, sent: Arc<Mutex<Sent>>) {
    for n in 0..COUNT {
        let mut message = vec![0; SIZE];
        message[..4].copy_from_slice(&n.to_be_bytes());
        let result = session.send(message).await;
        let mut sent = sent.lock().unwrap();
        sent.most_queued = sent.most_queued.max(session.queued_bytes());
        match result {
            Ok(()) => sent.accepted.push(n),
            Err(error) => {
                let closed = error.is_closed();
                sent.errors.push(error);
                if closed {
                    break;
                }
            }
        }
    }
    sent.lock().unwrap().done = true;
}

fn config(policy: OverflowPolicy) -> ServerConfig {
    ServerConfig {
        session: SessionConfig {
            outbox: OutboxConfig {
                high: HIGH,
                low: LOW,
                overflow: policy,
            },
            ..SessionConfig::default()
        },
        // so that it is our queue that fills, and not the system's
        socket: SocketOptions {
            send_buffer: Some(8 * 1024),
            ..SocketOptions::default()
        },
        ..ServerConfig::default()
    }
}

async fn dial(server: &Server) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 * 1024).unwrap();
    let address = socket_address(&server.listening()[0]);
    within(socket.connect(address)).await.unwrap()
}

/// Sends everything to a peer that reads only when nothing moves any more.
async fn run(policy: OverflowPolicy, from_handler: bool) -> Outcome {
    let sent = Arc::new(Mutex::new(Sent::default()));
    let (ended, mut ends) = mpsc::unbounded_channel();
    let shared = sent.clone();
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .listen("tcp://127.0.0.1:0")
        .config(config(policy))
        .on_message(move |session, message| {
            let sent = shared.clone();
            async move {
                match message.as_str() {
                    Some("go") => send_all(session, sent).await,
                    _ => session.send(message).await.unwrap(),
                }
            }
        })
        .on_disconnect(move |session, reason| {
            let _ = ended.send((session.clone(), reason.clone()));
        })
        .start()
        .await
        .unwrap();
    let mut stream = dial(&server).await;
    let session = only_session(server.sessions()).await;
    let mut healthy = Healthy::start(socket_address(&server.listening()[1])).await;

    if from_handler {
        stream.write_all(&common::frame(b"go")).await.unwrap();
    } else {
        tokio::spawn(send_all(session.clone(), sent.clone()));
    }
    let stuck = || {
        // one that waits goes on when the queue has drained to LOW, which it never does
        let waits = policy == OverflowPolicy::Wait && session.queued_bytes() > LOW + SIZE;
        waits || sent.lock().unwrap().done
    };
    eventually("the sender is done, or has to wait", stuck).await;
    healthy.still_works().await;
    let mut received = Vec::new();
    if policy != OverflowPolicy::Wait {
        session.close("enough");
    }
    while let Ok(Some(message)) = within(read_frame(&mut stream)).await {
        received.push(u32::from_be_bytes(message[..4].try_into().unwrap()));
        if received.len() == COUNT as usize {
            session.close("all are there");
        }
    }
    drop(stream);
    let (_, reason) = within(ends.recv()).await.unwrap();
    within(session.ended()).await;
    healthy.finish().await;

    let dropped = session.statistics().messages_dropped;
    assert_eq!(server.statistics().messages_dropped, dropped);
    let mut sent = sent.lock().unwrap();
    assert!(sent.done);
    assert!(sent.most_queued <= HIGH + SIZE + 4, "{}", sent.most_queued);
    Outcome {
        accepted: std::mem::take(&mut sent.accepted),
        errors: std::mem::take(&mut sent.errors),
        received,
        dropped,
        reason: Some(reason),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wait() {
    for from_handler in [true, false] {
        let outcome = run(OverflowPolicy::Wait, from_handler).await;
        let all: Vec<u32> = (0..COUNT).collect();
        assert_eq!(outcome.received, all);
        assert_eq!((outcome.errors.len(), outcome.dropped), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reject() {
    for from_handler in [true, false] {
        let outcome = run(OverflowPolicy::Reject, from_handler).await;
        assert_eq!(outcome.received, outcome.accepted);
        let rejected = COUNT as usize - outcome.accepted.len();
        assert!(rejected > 0 && outcome.errors.len() == rejected);
        for error in &outcome.errors {
            assert_eq!((error.kind(), error.code()), (ErrorKind::QueueFull, -644));
            assert!(error.is_full() && error.can_retry(), "{error}");
        }
        // the caller knows of each, so none is dropped behind its back
        assert_eq!(outcome.dropped, 0);
    }
}

fn assert_every_message_is_accounted_for(outcome: &Outcome) {
    assert_eq!(outcome.errors.len(), 0);
    assert_eq!(outcome.accepted.len(), COUNT as usize);
    assert!(outcome.received.is_sorted());
    assert!(outcome.dropped > 0);
    assert_eq!(
        outcome.received.len() as u64 + outcome.dropped,
        u64::from(COUNT)
    );
    assert!(matches!(outcome.reason, Some(CloseReason::Requested(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drop_newest() {
    for from_handler in [true, false] {
        let outcome = run(OverflowPolicy::DropNewest, from_handler).await;
        assert_every_message_is_accounted_for(&outcome);
        let first: Vec<u32> = (0..50).collect();
        assert_eq!(
            outcome.received[..50],
            first,
            "the oldest of the outbox stay"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drop_oldest() {
    for from_handler in [true, false] {
        let outcome = run(OverflowPolicy::DropOldest, from_handler).await;
        assert_every_message_is_accounted_for(&outcome);
        assert_eq!(outcome.received.last(), Some(&(COUNT - 1)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close() {
    for from_handler in [true, false] {
        let outcome = run(OverflowPolicy::Close, from_handler).await;
        let reason = outcome.reason.unwrap();
        assert!(matches!(reason, CloseReason::Overflow), "{reason:?}");
        let error = outcome.errors.last().unwrap();
        assert_eq!(error.kind(), ErrorKind::ConnectionClosed);
        assert!(error.to_string().contains("reads too slowly"), "{error}");
        assert!(outcome.received.is_sorted() && outcome.received.len() < COUNT as usize);
        assert!(outcome.dropped > 0, "what was queued is lost, and counted");
    }
}

/// What `try_send` and `send_batch` do with a full outbox is the same policy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_ways_to_send() {
    let full = vec![0_u8; HIGH / 2];
    for policy in [
        OverflowPolicy::Wait,
        OverflowPolicy::Reject,
        OverflowPolicy::DropNewest,
    ] {
        let server = Server::builder()
            .listen("tcp://127.0.0.1:0")
            .config(config(policy))
            .start()
            .await
            .unwrap();
        let _stream = dial(&server).await;
        let session = only_session(server.sessions()).await;
        // until nothing moves any more
        loop {
            let before = session.statistics();
            let result = session.try_send(full.clone());
            let error = result.err().is_some_and(|error| error.is_full());
            let dropped = session.statistics().messages_dropped > before.messages_dropped;
            if (error || dropped) && session.queued_bytes() > HIGH / 2 {
                break;
            }
            tokio::task::yield_now().await;
        }
        let batch = || vec![full.clone(), full.clone(), full.clone()];
        let dropped = session.statistics().messages_dropped;
        match policy {
            OverflowPolicy::Wait => {
                let sending = session.send_batch(batch());
                let result = tokio::time::timeout(Duration::from_millis(50), sending).await;
                assert!(result.is_err(), "it waits: {result:?}");
            }
            OverflowPolicy::Reject => {
                let error = within(session.send_batch(batch())).await.unwrap_err();
                assert!(error.is_full(), "{error}");
            }
            _ => {
                within(session.send_batch(batch())).await.unwrap();
                assert!(session.statistics().messages_dropped >= dropped + 2);
            }
        }
        assert!(session.queued_bytes() <= HIGH + full.len() + 4);
        within(server.shutdown(Duration::ZERO)).await;
    }
}

/// The same inside of the session's own handler.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_from_the_handler() {
    for policy in [
        OverflowPolicy::Reject,
        OverflowPolicy::DropNewest,
        OverflowPolicy::DropOldest,
        OverflowPolicy::Close,
    ] {
        let (told, mut results) = mpsc::unbounded_channel();
        let server = Server::builder()
            .listen("tcp://127.0.0.1:0")
            .config(config(policy))
            .on_message(move |session, _| {
                let told = told.clone();
                async move {
                    let batch = vec![vec![0_u8; SIZE]; COUNT as usize];
                    let _ = told.send(session.send_batch(batch).await);
                }
            })
            .start()
            .await
            .unwrap();
        let mut stream = dial(&server).await;
        let session = only_session(server.sessions()).await;
        stream.write_all(&common::frame(b"go")).await.unwrap();
        let result = within(results.recv()).await.unwrap();
        assert!(session.queued_bytes() <= HIGH + SIZE + 4, "{policy:?}");
        match policy {
            OverflowPolicy::Reject => assert!(result.unwrap_err().is_full()),
            OverflowPolicy::Close => {
                assert!(result.unwrap_err().is_closed());
                within(session.ended()).await;
                let reason = session.close_reason();
                assert!(matches!(reason, Some(CloseReason::Overflow)), "{reason:?}");
            }
            _ => {
                result.unwrap();
                assert!(session.statistics().messages_dropped > 0, "{policy:?}");
            }
        }
        within(server.shutdown(Duration::ZERO)).await;
    }
}

/// What a handler has queued is told to others when its batch is written. Until then they may queue
/// as much again, and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_and_others_at_the_same_time() {
    let (told, mut most) = mpsc::unbounded_channel();
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .config(config(OverflowPolicy::Reject))
        .on_message(move |session, _| {
            while session.try_send(vec![0_u8; SIZE]).is_ok() {}
            let other = session.clone();
            let fill = move || while other.try_send(vec![0_u8; SIZE]).is_ok() {};
            std::thread::spawn(fill).join().unwrap();
            let _ = told.send(session.queued_bytes());
            async {}
        })
        .start()
        .await
        .unwrap();
    let mut stream = dial(&server).await;
    stream.write_all(&common::frame(b"go")).await.unwrap();
    let most = within(most.recv()).await.unwrap();
    assert!(most <= 2 * HIGH, "{most} bytes are queued");
}

/// Nothing is too large for an empty outbox, or it could never be sent.
#[tokio::test]
async fn a_message_larger_than_the_outbox() {
    for policy in [
        OverflowPolicy::Wait,
        OverflowPolicy::Reject,
        OverflowPolicy::DropNewest,
        OverflowPolicy::DropOldest,
        OverflowPolicy::Close,
    ] {
        let server = Server::builder()
            .listen("tcp://127.0.0.1:0")
            .config(config(policy))
            .start()
            .await
            .unwrap();
        let mut stream = dial(&server).await;
        let session = only_session(server.sessions()).await;
        for n in 0..3 {
            within(session.send(vec![n; 10 * HIGH])).await.unwrap();
            let message = within(read_frame(&mut stream)).await.unwrap().unwrap();
            assert!(message == vec![n; 10 * HIGH], "{policy:?}");
            let written = || session.queued_bytes() == 0;
            eventually("the session knows that it is written", written).await;
        }
        assert_eq!(session.statistics().messages_dropped, 0);
    }
}

/// Making room for a message that cannot be sent at all must not cost those that wait.
#[tokio::test]
async fn a_message_that_cannot_be_sent_drops_no_other() {
    let mut settings = config(OverflowPolicy::DropOldest);
    settings.session.max_message = 100_000;
    let (told, mut done) = mpsc::unbounded_channel();
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .config(settings)
        .on_message(move |session, _| {
            // in the handler, and from outside of it
            let fill = |session: &Session| {
                while session.queued_bytes() < HIGH - 2 * SIZE {
                    session.try_send(vec![0; SIZE]).unwrap();
                }
                let before = (
                    session.queued_bytes(),
                    session.statistics().messages_dropped,
                );
                let error = session.try_send(vec![0; 100_001]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::MessageTooLarge);
                let after = (
                    session.queued_bytes(),
                    session.statistics().messages_dropped,
                );
                assert_eq!(after, before);
            };
            fill(&session);
            let other = session.clone();
            std::thread::spawn(move || fill(&other)).join().unwrap();
            let _ = told.send(());
            async {}
        })
        .start()
        .await
        .unwrap();
    let mut stream = dial(&server).await;
    stream.write_all(&common::frame(b"go")).await.unwrap();
    within(done.recv()).await.unwrap();
}
