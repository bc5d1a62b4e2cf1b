//! What happens to a connection while its handler is at work: the peer ends its direction, breaks
//! the protocol or vanishes, and this side closes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::scripted::{Scripted, Scripts};
use common::{frame, only_session, within};
use network_system::{CloseReason, ErrorKind, Server, Session};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

const HELLO: &[u8] = b"\0\0\0\x05\0NSE1";

fn data(payload: &[u8]) -> Vec<u8> {
    frame(&[b"\x10", payload].concat())
}

/// A server over scripted streams, whose handler sends the message twice, the second time when it
/// is let.
struct Slow {
    server: network_system_core::Server<Scripts>,
    scripts: Scripts,
    let_go: Arc<Semaphore>,
    handled: mpsc::UnboundedReceiver<(String, network_system::Result<()>)>,
    ends: mpsc::UnboundedReceiver<(Session, CloseReason)>,
}

async fn slow(envelope: bool) -> Slow {
    let let_go = Arc::new(Semaphore::new(0));
    let (handle, handled) = mpsc::unbounded_channel();
    let (end, ends) = mpsc::unbounded_channel();
    let scripts = Scripts::default();
    let waiting = let_go.clone();
    let server = Server::builder()
        .transports(scripts.clone())
        .listen("script://slow")
        .envelope(envelope)
        .on_disconnect(move |session, reason| {
            let _ = end.send((session.clone(), reason.clone()));
        })
        .on_message(move |session, message| {
            let (waiting, handle) = (waiting.clone(), handle.clone());
            async move {
                let text = message.as_str().unwrap().to_owned();
                session.send(message).await?;
                waiting.acquire().await.unwrap().forget();
                let result = session.send(format!("{text} again")).await;
                let _ = handle.send((text, result.clone()));
                result
            }
        })
        .start()
        .await
        .unwrap();
    Slow {
        server,
        scripts,
        let_go,
        handled,
        ends,
    }
}

/// Lets every task do what it can.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

fn written(io: &Scripted) -> Vec<u8> {
    io.writes().into_iter().flat_map(|w| w.bytes).collect()
}

#[tokio::test]
async fn a_half_close_while_a_handler_works_loses_nothing() {
    for envelope in [false, true] {
        let mut slow = slow(envelope).await;
        let make = |payload: &[u8]| match envelope {
            true => data(payload),
            false => frame(payload),
        };
        let io = slow.scripts.dial();
        let hello = if envelope { HELLO } else { b"" };
        // the first answer is cut in the middle
        io.with(|script| script.room = Some(hello.len() + 3));
        io.give(&[hello, &make(b"one"), &make(b"two")].concat());
        io.end();
        settle().await;
        slow.let_go.add_permits(2);
        settle().await;
        io.with(|script| script.room = None);
        for text in ["one", "two"] {
            let (handled, result) = within(slow.handled.recv()).await.unwrap();
            assert_eq!((handled.as_str(), result.is_ok()), (text, true));
        }
        let (session, reason) = within(slow.ends.recv()).await.unwrap();
        assert!(matches!(reason, CloseReason::Peer), "{reason:?}");
        assert_eq!(session.statistics().messages_dropped, 0);
        let answers = [&b"one"[..], b"one again", b"two", b"two again"].map(make);
        assert_eq!(written(&io), [hello, &answers.concat()].concat());
    }
}

#[tokio::test]
async fn messages_before_an_error_are_handled_and_those_behind_it_are_not() {
    let mut slow = slow(true).await;
    for bad in [&frame(b"\x90bad")[..], &frame(b"\x20"), b"\xff\xff\xff\xff"] {
        let io = slow.scripts.dial();
        io.give(&[HELLO, &data(b"one"), &data(b"two"), bad, &data(b"three")].concat());
        settle().await;
        slow.let_go.add_permits(2);
        io.end();
        for text in ["one", "two"] {
            let (handled, result) = within(slow.handled.recv()).await.unwrap();
            assert_eq!((handled.as_str(), result.is_ok()), (text, true));
        }
        let (_, reason) = within(slow.ends.recv()).await.unwrap();
        assert!(matches!(reason, CloseReason::Protocol(_)), "{reason:?}");
        assert!(slow.handled.try_recv().is_err(), "behind the error");
        let answers = [&b"one"[..], b"one again", b"two", b"two again"].map(data);
        assert_eq!(written(&io), [HELLO, &answers.concat()].concat());
    }
}

#[tokio::test]
async fn a_link_that_fails_under_a_handler_takes_no_more() {
    for envelope in [false, true] {
        let mut slow = slow(envelope).await;
        let io = slow.scripts.dial();
        let hello = if envelope { HELLO } else { b"" };
        let make = if envelope { data } else { frame };
        io.with(|script| script.room = Some(hello.len() + 3));
        io.give(&[hello, &make(b"one")].concat());
        settle().await;
        let before = written(&io);
        assert_eq!(before.len(), hello.len() + 3);
        io.with(|script| (script.broken, script.room) = (true, None));
        settle().await;
        io.with(|script| script.broken = false);
        slow.let_go.add_permits(1);
        let (_, result) = within(slow.handled.recv()).await.unwrap();
        assert_eq!(result.unwrap_err().kind(), ErrorKind::ConnectionClosed);
        let (session, reason) = within(slow.ends.recv()).await.unwrap();
        assert!(matches!(reason, CloseReason::Network(_)), "{reason:?}");
        assert_eq!(session.statistics().messages_dropped, 1);
        assert_eq!(written(&io), b"", "behind a frame that was cut");
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_does_not_wait_for_a_handler_for_ever() {
    for envelope in [false, true] {
        let mut slow = slow(envelope).await;
        let io = slow.scripts.dial();
        let hello = if envelope { HELLO } else { b"" };
        let make = if envelope { data } else { frame };
        io.give(&[hello, &make(b"one")].concat());
        let session = only_session(slow.server.sessions()).await;
        settle().await;
        let began = Instant::now();
        session.close("enough");
        let (_, reason) = within(slow.ends.recv()).await.unwrap();
        assert!(matches!(reason, CloseReason::Requested(_)), "{reason:?}");
        // the time that a close may take, and the second that the peer has to close too
        assert_eq!(began.elapsed().as_secs(), 5 + 1);
        assert!(slow.handled.try_recv().is_err(), "it was abandoned");

        // a handler that ends by itself is not held up
        let io = slow.scripts.dial();
        io.give(&[hello, &make(b"two")].concat());
        let session = only_session(slow.server.sessions()).await;
        settle().await;
        session.close("enough");
        slow.let_go.add_permits(1);
        let (_, result) = within(slow.handled.recv()).await.unwrap();
        assert!(result.is_ok());
        io.end();
        let began = Instant::now();
        within(session.ended()).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        within(slow.ends.recv()).await.unwrap();

        // and one that has to go at once
        let io = slow.scripts.dial();
        io.give(&[hello, &make(b"three")].concat());
        let session = only_session(slow.server.sessions()).await;
        settle().await;
        let began = Instant::now();
        session.abort();
        within(session.ended()).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        let (_, reason) = within(slow.ends.recv()).await.unwrap();
        assert!(matches!(reason, CloseReason::Cut), "{reason:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_ends_a_handler_that_waits_for_a_peer_which_never_reads() {
    let scripts = Scripts::default();
    let (failed, mut errors) = mpsc::unbounded_channel();
    let server = Server::builder()
        .transports(scripts.clone())
        .listen("script://never-reads")
        .on_message(move |session, _| {
            let failed = failed.clone();
            async move {
                let error = loop {
                    if let Err(error) = session.send(vec![0; 10_000]).await {
                        break error;
                    }
                };
                let _ = failed.send(error);
            }
        })
        .start()
        .await
        .unwrap();
    let io = scripts.dial();
    io.with(|script| script.room = Some(0));
    io.give(&frame(b"go"));
    let session = only_session(server.sessions()).await;
    settle().await;
    let began = Instant::now();
    session.close("too slow");
    let error = within(errors.recv()).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(error.kind(), ErrorKind::ConnectionClosed);
    assert!(error.to_string().contains("too slow"), "{error}");
    within(session.ended()).await;
    assert_eq!(began.elapsed().as_secs(), 5);
}
