//! What happens to a connection while its handler is at work: the peer ends its direction, breaks
//! the protocol or vanishes, and this side closes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::scripted::{Scripted, Scripts};
use common::{frame, only_session, within};
use network_system::{CloseReason, ErrorKind, Request, Server, Session};
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

fn request(id: u64, payload: &[u8]) -> Vec<u8> {
    frame(&[b"\x20", &id.to_be_bytes()[..], payload].concat())
}

fn reply(id: u64, payload: &[u8]) -> Vec<u8> {
    frame(&[b"\x30", &id.to_be_bytes()[..], payload].concat())
}

/// The messages in what was written.
fn messages(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut all, mut rest) = (Vec::new(), bytes);
    while let Some((length, more)) = rest.split_first_chunk::<4>() {
        let (message, more) = more.split_at(u32::from_be_bytes(*length) as usize);
        all.push(message.to_vec());
        rest = more;
    }
    all
}

/// A server over scripted streams that hands its requests to the test.
async fn asked(
    configure: impl FnOnce(common::Builder) -> common::Builder,
) -> (
    network_system_core::Server<Scripts>,
    Scripts,
    mpsc::UnboundedReceiver<Request>,
) {
    let (ask, asked) = mpsc::unbounded_channel();
    let scripts = Scripts::default();
    let server = configure(Server::builder())
        .transports(scripts.clone())
        .listen("script://asked")
        .envelope(true)
        .on_request(move |_, request| {
            let _ = ask.send(request);
            async {}
        })
        .start()
        .await
        .unwrap();
    (server, scripts, asked)
}

#[tokio::test]
async fn a_peer_has_only_so_many_requests_open() {
    let (_server, scripts, mut asked) = asked(|builder| builder).await;
    let io = scripts.dial();
    io.give(HELLO);
    let all: Vec<u8> = (0..5000).flat_map(|id| request(id, b"")).collect();
    io.give(&all);
    settle().await;
    assert_eq!(asked.len(), 1024, "at most this many at a time");
    // each answer lets another one in
    for id in 0..5000 {
        let request = within(asked.recv()).await.unwrap();
        request.reply(id.to_string()).await.unwrap();
        settle_a_little().await;
        assert_eq!(asked.len(), 1024.min(4999 - id));
    }
    settle().await;
    assert_eq!(messages(&written(&io)).len(), 1 + 5000);

    // and only so many bytes
    let io = scripts.dial();
    io.give(HELLO);
    let all: Vec<u8> = (0..9).flat_map(|id| request(id, &[0; 300_000])).collect();
    io.give(&all);
    settle().await;
    assert_eq!(asked.len(), 4);
    io.give(&frame(b"\x50\0\0\0\0\0\0\0\x02"));
    within(asked.recv()).await.unwrap().fail(7, "");
    settle().await;
    assert_eq!(asked.len(), 4);
}

async fn settle_a_little() {
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_answers_of_tasks_are_waited_for() {
    let answer_later = |request: Request| {
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            request.reply("late").await
        })
    };
    // a half close
    let (server, scripts, mut asked) = asked(|builder| builder).await;
    let io = scripts.dial();
    io.give(&[HELLO, &request(7, b"")].concat());
    let session = only_session(server.sessions()).await;
    let task = answer_later(within(asked.recv()).await.unwrap());
    io.end();
    within(session.ended()).await;
    assert!(task.await.unwrap().is_ok());
    assert_eq!(written(&io), [HELLO, &reply(7, b"late")].concat());

    // not for ever
    let io = scripts.dial();
    io.give(&[HELLO, &request(8, b"")].concat());
    let session = only_session(server.sessions()).await;
    let never = within(asked.recv()).await.unwrap();
    let began = Instant::now();
    io.end();
    within(session.ended()).await;
    assert_eq!(began.elapsed().as_secs(), 5);
    assert!(never.reply("too late").await.unwrap_err().is_closed());

    // a shutdown
    let io = scripts.dial();
    io.give(&[HELLO, &request(9, b"")].concat());
    let task = answer_later(within(asked.recv()).await.unwrap());
    let report = within(server.shutdown(Duration::from_secs(60))).await;
    assert_eq!((report.cut, report.messages_dropped), (0, 0));
    assert!(task.await.unwrap().is_ok());
    assert_eq!(messages(&written(&io)).last().unwrap()[9..], *b"late");
}

#[tokio::test]
async fn an_answer_that_cannot_be_sent_fails_at_the_peer() {
    use network_system::OverflowPolicy::{DropNewest, DropOldest, Reject, Wait};
    for policy in [Wait, Reject, DropNewest, DropOldest] {
        let configure = |builder: common::Builder| {
            let builder = builder.max_message(20_000).outbox(10_000, 5_000);
            builder.overflow(policy)
        };
        let (server, scripts, mut asked) = asked(configure).await;
        let io = scripts.dial();
        let requests: Vec<u8> = (1..=3).flat_map(|id| request(id, b"")).collect();
        io.give(&[HELLO, &requests].concat());
        let session = only_session(server.sessions()).await;
        settle().await;
        assert_eq!(written(&io), HELLO);
        io.with(|script| script.room = Some(0));

        let too_large = within(asked.recv()).await.unwrap();
        let error = too_large.reply(vec![0; 20_000]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MessageTooLarge);
        // with a full outbox
        while session.queued_bytes() < 9_000 {
            session.try_send(vec![1; 1000]).unwrap();
        }
        let second = within(asked.recv()).await.unwrap();
        let mut waiting = Box::pin(second.reply(vec![2; 5000]));
        let result = tokio::select! {
            biased;
            result = &mut waiting => Some(result),
            () = settle() => None,
        };
        match policy {
            Reject => assert!(result.unwrap().unwrap_err().is_full()),
            _ => assert!(result.is_none(), "{result:?}"),
        }
        drop(waiting);
        let third = within(asked.recv()).await.unwrap();
        let third = tokio::spawn(third.reply("there"));
        settle().await;
        io.with(|script| script.room = None);
        assert!(within(third).await.unwrap().is_ok(), "{policy:?}");
        settle().await;
        let messages = messages(&written(&io));
        let with_kind = |kind: u8| messages.iter().filter(move |m| m[0] == kind);
        let failures: Vec<_> = with_kind(0x40).map(|m| (m[8], m[12] as i8)).collect();
        let second = if policy == Reject { -644_i32 } else { -99 };
        let codes = [(1, -642_i32 as i8), (2, second as i8)];
        assert_eq!(failures, codes, "{policy:?}");
        let replies: Vec<_> = with_kind(0x30).map(|m| &m[9..]).collect();
        assert_eq!(replies, [b"there"]);
    }
}

/// Failures from other tasks, while the oldest messages may be dropped.
#[tokio::test]
async fn answers_of_any_task_count_against_a_peer_that_never_reads() {
    let configure = |builder: common::Builder| {
        let builder = builder.outbox(10_000, 5_000);
        builder.overflow(network_system::OverflowPolicy::DropOldest)
    };
    let (server, scripts, mut asked) = asked(configure).await;
    tokio::spawn(async move {
        while let Some(request) = asked.recv().await {
            request.fail(ErrorKind::NotFound, "a text of some length, many times");
        }
    });
    let io = scripts.dial();
    io.with(|script| script.room = Some(HELLO.len()));
    io.give(HELLO);
    let all: Vec<u8> = (0..100_000).flat_map(|id| request(id, b"")).collect();
    io.give(&all);
    let session = only_session(server.sessions()).await;
    for _ in 0..100 {
        settle().await;
    }
    // what was read at once is served; all of it would be more than 5 MB
    let queued = session.queued_bytes();
    assert!((10_000..600_000).contains(&queued), "{queued}");
    // all are answered once it reads
    io.with(|script| script.room = None);
    io.end();
    within(session.ended()).await;
    assert_eq!(messages(&written(&io)).len(), 1 + 100_000);
    let statistics = session.statistics();
    assert_eq!(
        (statistics.messages_out, statistics.messages_dropped),
        (100_000, 0)
    );
}

#[tokio::test]
async fn a_close_is_announced() {
    let (server, scripts, _asked) = asked(|builder| builder).await;
    let io = scripts.dial();
    io.give(HELLO);
    let session = only_session(server.sessions()).await;
    settle().await;
    session.close("that is all");
    io.end();
    within(session.ended()).await;
    assert_eq!(written(&io), [HELLO, &frame(b"\x70that is all")].concat());
    assert_eq!(session.statistics().messages_out, 0, "nobody's message");
}
