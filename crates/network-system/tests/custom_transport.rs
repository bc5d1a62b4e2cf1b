//! A transport of the user's own, from the public seam only: whole messages through channels. The
//! engine's promises hold on it as on sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::pipes::{self, Pipes};
use common::scripted::Scripts;
use common::{eventually, only_session, within};
use network_system::{
    Client, Endpoint, Error, ErrorKind, Message, MessageKind, OverflowPolicy, Server, ZERO_COPY,
};
use tokio::sync::mpsc;

type Back = mpsc::UnboundedReceiver<Message>;

/// A client whose messages arrive at the receiver.
async fn client(address: &str) -> (network_system_core::Client<Pipes>, Back) {
    let (back, came) = mpsc::unbounded_channel();
    let client = Client::builder(address)
        .transports(Pipes)
        .envelope(address.ends_with("envelope=true"))
        .on_message(move |_, message| {
            let _ = back.send(message);
            async {}
        })
        .connect();
    (within(client).await.unwrap(), came)
}

#[tokio::test]
async fn messages_arrive_whole_and_without_a_copy() {
    let server = Server::builder()
        .transports(Pipes)
        .listen("pipe://echo")
        .on_message(|session, message| async move { session.send(message).await })
        .start()
        .await
        .unwrap();
    let (client, mut came) = client("pipe://echo").await;
    let session = client.session().unwrap();
    assert_eq!(session.info().scheme, "pipe");
    assert_eq!(session.peer(), &Endpoint::Other("echo".to_owned()));

    for size in [0, 1, 64, 65, ZERO_COPY - 1, ZERO_COPY, 1 << 20] {
        let bytes = Bytes::from(vec![size as u8; size]);
        within(client.send(bytes.clone())).await.unwrap();
        let message = within(came.recv()).await.unwrap();
        assert!(message == bytes, "{size}");
        if size > 64 {
            // through two queues and two connections, and it is still the buffer that was given
            assert_eq!(message.as_bytes().as_ptr(), bytes.as_ptr(), "{size}");
        }
    }
    // such a transport can tell text from bytes
    within(client.send("text")).await.unwrap();
    let message = within(came.recv()).await.unwrap();
    assert_eq!(
        (message.kind(), message.as_str()),
        (MessageKind::Text, Some("text"))
    );

    let statistics = server.statistics();
    assert_eq!((statistics.messages_in, statistics.messages_out), (8, 8));
    within(client.close(Duration::from_secs(5))).await;
    eventually("it is gone", || server.sessions().is_empty()).await;
    assert_eq!(server.statistics().connections_ended["peer"], 1);
}

#[tokio::test]
async fn requests_work_where_the_transport_keeps_messages_apart() {
    let _server = Server::builder()
        .transports(Pipes)
        .listen("pipe://requests?envelope=true")
        .on_request(|_, request| async move {
            let answer = [b"re: ", &request[..]].concat();
            request.reply(answer).await
        })
        .start()
        .await
        .unwrap();
    let (client, _) = client("pipe://requests?envelope=true").await;
    for size in [0, 10, 100, 100_000] {
        let answer = within(client.request(vec![1; size])).await.unwrap();
        assert!(answer == [b"re: ", &vec![1; size][..]].concat(), "{size}");
    }
}

#[tokio::test]
async fn broadcasts_share_one_buffer() {
    let server = Server::builder()
        .transports(Pipes)
        .listen("pipe://broadcast")
        .start()
        .await
        .unwrap();
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(client("pipe://broadcast").await);
    }
    eventually("all are in", || server.sessions().len() == 5).await;
    let bytes = Bytes::from(vec![7; 1000]);
    let report = server.sessions().broadcast(bytes.clone());
    assert_eq!((report.queued, report.full, report.failed), (5, 0, 0));
    for (_, came) in &mut clients {
        let message = within(came.recv()).await.unwrap();
        assert_eq!(message.as_bytes().as_ptr(), bytes.as_ptr());
    }
}

/// The same over streams of bytes: one frame, encoded once, is what all of them write.
#[tokio::test]
async fn broadcasts_encode_once() {
    let scripts = Scripts::default();
    let server = Server::builder()
        .transports(scripts.clone())
        .listen("script://broadcast")
        .on_message(|session, message| async move { session.send(message).await })
        .start()
        .await
        .unwrap();
    let streams: Vec<_> = (0..5).map(|_| scripts.dial()).collect();
    eventually("all are in", || server.sessions().len() == 5).await;
    for size in [ZERO_COPY, 100_000] {
        let report = server.sessions().broadcast(vec![1; size]);
        assert_eq!(report.queued, 5);
        let idle = || {
            server
                .sessions()
                .all()
                .iter()
                .all(|s| s.queued_bytes() == 0)
        };
        eventually("all is written", idle).await;
        let mut places = std::collections::HashSet::new();
        for stream in &streams {
            let writes = stream.writes();
            assert_eq!((writes.len(), writes[0].bytes.len()), (1, 4 + size));
            assert_eq!(writes[0].slices.len(), 1, "header and message in one piece");
            places.insert(writes[0].slices[0]);
        }
        assert_eq!(places.len(), 1, "from one place in memory");
    }

    // what the handler of a server sends is copied as little, and leaves once per read
    let burst: Vec<u8> = (0..100).flat_map(|n| common::frame(&[n; 30])).collect();
    streams[0].give(&burst);
    let session = server.sessions().all().into_iter();
    let echoed = || {
        session
            .clone()
            .map(|s| s.statistics().messages_out)
            .sum::<u64>()
            == 110
    };
    eventually("all are answered", echoed).await;
    let writes = streams[0].writes();
    assert!(
        writes.len() == 1 && writes[0].bytes == burst,
        "{} writes",
        writes.len()
    );
}

/// A sink that takes nothing: what waits is bounded, also where messages are empty.
#[tokio::test]
async fn a_sink_that_is_held_up() {
    const HIGH: usize = 64 * 1024;
    let server = Server::builder()
        .transports(Pipes)
        .listen("pipe://held")
        .outbox(HIGH, HIGH / 4)
        .overflow(OverflowPolicy::Reject)
        .start()
        .await
        .unwrap();
    for size in [1000, 100, 1, 0] {
        let (client, mut came) = client("pipe://held").await;
        let session = only_session(server.sessions()).await;
        pipes::gate("held").shut();
        let mut taken = 0_u32;
        let error = loop {
            match session.try_send(vec![0; size]) {
                Ok(()) => taken += 1,
                Err(error) => break error,
            }
            assert!(
                taken as usize <= HIGH,
                "{taken} messages of {size} bytes wait"
            );
            if taken.is_multiple_of(100) {
                tokio::task::yield_now().await;
            }
        };
        assert!(error.is_full(), "{error}");
        assert!(session.queued_bytes() <= HIGH + 100);
        assert!(taken as usize * (size + 200) > HIGH, "{taken} of {size}");
        pipes::gate("held").open();
        for _ in 0..taken {
            assert_eq!(within(came.recv()).await.unwrap().len(), size);
        }
        eventually("nothing waits", || session.queued_bytes() == 0).await;
        within(client.close(Duration::from_secs(5))).await;
        within(session.ended()).await;
    }
}

/// What others have sent goes before what the handler sends after it, also when it is empty.
#[tokio::test]
async fn order_across_tasks() {
    let _server = Server::builder()
        .transports(Pipes)
        .listen("pipe://order")
        .on_message(|session, message| async move {
            let other = session.clone();
            let sent = tokio::spawn(async move { other.send(message).await });
            sent.await.unwrap()?;
            session.send("second").await
        })
        .start()
        .await
        .unwrap();
    let (client, mut came) = client("pipe://order").await;
    for first in ["first", ""] {
        within(client.send(first)).await.unwrap();
        assert_eq!(within(came.recv()).await.unwrap(), first);
        assert_eq!(within(came.recv()).await.unwrap(), "second");
    }
}

#[tokio::test(start_paused = true)]
async fn errors_of_accept_are_reported_and_accepting_goes_on() {
    let (failed, mut errors) = mpsc::unbounded_channel();
    let server = Server::builder()
        .transports(Pipes)
        .listen("pipe://accept")
        .on_error(move |session, error| {
            assert!(session.is_none());
            let _ = failed.send((tokio::time::Instant::now(), error.clone()));
            panic!("which must not end the accept loop");
        })
        .start()
        .await
        .unwrap();
    const ERRORS: u32 = 12;
    for _ in 0..ERRORS {
        let error = Error::new(ErrorKind::OutOfMemory, "accept");
        pipes::fail_accept("accept", error);
    }
    // behind the errors
    let (client, _) = client("pipe://accept").await;
    let session = only_session(server.sessions()).await;
    let mut times = Vec::new();
    for _ in 0..ERRORS {
        let (time, error) = within(errors.recv()).await.unwrap();
        assert_eq!(error.kind(), ErrorKind::OutOfMemory);
        times.push(time);
    }
    // no busy loop: 5 ms, doubled up to 1 s
    let waits: Vec<u64> = times
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_millis() as u64)
        .collect();
    let expected = [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000];
    for (wait, expected) in waits.iter().zip(expected) {
        assert!((expected..=expected + 2).contains(wait), "{waits:?}");
    }
    assert_eq!(server.statistics().connect_errors, u64::from(ERRORS));
    assert!(!session.is_closed());
    within(client.close(Duration::from_secs(5))).await;
}

/// A broadcast tells what it did, whatever the policy, and whoever sends it.
#[tokio::test]
async fn broadcasts_to_a_sink_that_is_held_up() {
    const COUNT: u64 = 200;
    for (policy, from_handler) in [
        (OverflowPolicy::Wait, false),
        (OverflowPolicy::Reject, false),
        (OverflowPolicy::DropNewest, false),
        (OverflowPolicy::DropNewest, true),
        (OverflowPolicy::DropOldest, false),
        (OverflowPolicy::DropOldest, true),
        (OverflowPolicy::Close, false),
    ] {
        let name = format!("broadcast-{policy:?}-{from_handler}").to_lowercase();
        let address = format!("pipe://{name}");
        let (reported, mut reports) = mpsc::unbounded_channel();
        let all = std::sync::Arc::new(std::sync::OnceLock::<
            std::sync::Weak<network_system_core::Server<Pipes>>,
        >::new());
        let table = all.clone();
        let broadcast = move |server: &network_system_core::Server<Pipes>| {
            let send = |n: u64| {
                server
                    .sessions()
                    .broadcast([&[n as u8][..], &[0; 999]].concat())
            };
            let _ = reported.send((0..COUNT).map(send).collect::<Vec<_>>());
        };
        let from_outside = broadcast.clone();
        let server = Server::builder()
            .transports(Pipes)
            .listen(&address)
            .outbox(20_000, 5000)
            .overflow(policy)
            .on_message(move |_, _| {
                let server = table.get().and_then(std::sync::Weak::upgrade).unwrap();
                broadcast(&server);
                async {}
            })
            .start()
            .await
            .unwrap();
        let server = std::sync::Arc::new(server);
        all.set(std::sync::Arc::downgrade(&server)).unwrap();
        let (client, mut came) = client(&address).await;
        let session = only_session(server.sessions()).await;
        pipes::gate(&name).shut();
        if from_handler {
            client.send("go").await.unwrap();
        } else {
            from_outside(&server);
        }
        let reports = within(reports.recv()).await.unwrap();
        let sum = |of: fn(&network_system::BroadcastReport) -> usize| {
            reports.iter().map(of).sum::<usize>() as u64
        };
        let (queued, full) = (sum(|report| report.queued), sum(|report| report.full));
        assert_eq!(
            (queued + full, sum(|report| report.failed)),
            (COUNT, 0),
            "{name}"
        );
        pipes::gate(&name).open();
        if policy == OverflowPolicy::Close {
            within(session.ended()).await;
            assert!(full > 0 && server.statistics().connections_ended["overflow"] == 1);
            continue;
        }
        let dropped = session.statistics().messages_dropped;
        let mut last = None;
        for _ in 0..COUNT - dropped {
            last = Some(within(came.recv()).await.unwrap()[0]);
        }
        match policy {
            OverflowPolicy::DropOldest => {
                assert_eq!((full, last), (0, Some(COUNT as u8 - 1)), "{name}");
                assert!(dropped > COUNT / 2);
            }
            _ => assert_eq!(dropped, full, "{name}"),
        }
        eventually("nothing is left", || session.queued_bytes() == 0).await;
        assert!(came.try_recv().is_err());
    }
}
