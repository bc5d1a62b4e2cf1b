//! Deadlines under paused time: idle sessions, heartbeats, waits between connects, and closes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::paused::{HELLO, bytes, raw, seconds};
use common::{Healthy, echo_on, frame, only_session};
use network_system::{Backoff, Client, ClientState, CloseReason, Connection, ErrorKind, Server};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_server_closes_who_is_silent_for_five_minutes() {
    let mut echo = echo_on(&["memory://idle-server"], |builder| builder).await;
    let began = Instant::now();
    let mut connection = raw("memory://idle-server").await;
    let healthy = Healthy::over("memory://idle-server", Duration::from_secs(5)).await;
    assert!(bytes(&mut connection).await.is_none());
    assert_eq!(seconds(began), 300);
    let end = echo.ends.recv().await.unwrap();
    assert!(matches!(end.reason, CloseReason::Idle), "{end:?}");
    healthy.finish().await;
    let error = end.session.send("x").await.unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::SessionExpired, -621)
    );
    assert!(error.is_timeout(), "{error}");

    // each message, either way, starts the time anew
    let began = Instant::now();
    let mut connection = raw("memory://idle-server").await;
    let session = only_session(echo.server.sessions()).await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(200)).await;
        connection.send(frame(b"ask")).await.unwrap();
        assert_eq!(bytes(&mut connection).await.unwrap(), frame(b"ask"));
        tokio::time::sleep(Duration::from_secs(200)).await;
        session.send("told").await.unwrap();
        assert_eq!(bytes(&mut connection).await.unwrap(), frame(b"told"));
    }
    assert!(bytes(&mut connection).await.is_none());
    assert_eq!(seconds(began), 10 * 200 + 300);
}

#[tokio::test(start_paused = true)]
async fn no_idle_deadline_where_it_is_off() {
    let configure = |b: common::Builder| b.idle_timeout(None);
    let mut echo = echo_on(&["memory://idle-off"], configure).await;
    let client = Client::builder("memory://idle-off")
        .connect()
        .await
        .unwrap();
    let session = client.session().unwrap();
    tokio::select! {
        () = session.ended() => panic!("a client has none by default"),
        end = echo.ends.recv() => panic!("{end:?}"),
        () = tokio::time::sleep(Duration::from_secs(2 * 3600)) => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_at_work_is_no_silence() {
    let server = Server::builder()
        .listen("memory://busy-handler")
        .on_message(|session, message| async move {
            tokio::time::sleep(Duration::from_secs(1000)).await;
            session.send(message).await
        })
        .start()
        .await
        .unwrap();
    let began = Instant::now();
    let mut connection = raw("memory://busy-handler").await;
    connection.send(frame(b"work")).await.unwrap();
    assert_eq!(bytes(&mut connection).await.unwrap(), frame(b"work"));
    assert_eq!(seconds(began), 1000);
    assert!(bytes(&mut connection).await.is_none());
    assert_eq!(seconds(began), 1300);
    drop(server);
}

/// A handler that waits for a peer which never reads is not at work.
#[tokio::test(start_paused = true)]
async fn a_peer_that_never_reads_is_silent() {
    let (ended, mut ends) = mpsc::unbounded_channel();
    let server = Server::builder()
        .listen("memory://never-reads")
        .slow_reader_timeout(None)
        .on_connect(|session| {
            session.set(Instant::now());
        })
        .on_message(
            |session, _| async move { while session.send(vec![0; 10_000]).await.is_ok() {} },
        )
        .on_disconnect(move |session, reason| {
            let _ = ended.send((session.clone(), reason.clone()));
        })
        .start()
        .await
        .unwrap();
    let mut connection = raw("memory://never-reads").await;
    connection.send(frame(b"go")).await.unwrap();
    connection.flush().await.unwrap();
    let (session, reason) = ends.recv().await.unwrap();
    assert!(matches!(reason, CloseReason::Idle), "{reason:?}");
    let took = seconds(session.get().unwrap());
    // the goodbye waits for it too, as long as a close may take
    assert_eq!(took, 300 + 5);
    assert!(session.statistics().messages_dropped > 0);
    drop((server, connection));
}

#[tokio::test(start_paused = true)]
async fn a_connection_has_the_deadlines_too() {
    let mut listener = network_system::listen("memory://idle-connection")
        .await
        .unwrap();
    let _silent = raw("memory://idle-connection").await;
    let mut connection = listener.accept().await.unwrap();
    let began = Instant::now();
    let error = connection.receive().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SessionExpired, "{error}");
    assert_eq!(seconds(began), 300);
}

/// Bytes of a message that never ends keep nothing alive, at the coroutine level either.
#[tokio::test(start_paused = true)]
async fn a_drip_does_not_keep_a_connection() {
    let mut listener = network_system::listen("memory://drip").await.unwrap();
    let mut peer = raw("memory://drip").await;
    let mut connection = listener.accept().await.unwrap();
    let began = Instant::now();
    let drip = tokio::spawn(async move {
        while peer.send("\0").await.is_ok() && peer.flush().await.is_ok() {
            tokio::time::sleep(Duration::from_secs(100)).await;
            if began.elapsed() > Duration::from_secs(350) {
                break;
            }
        }
        peer
    });
    let error = loop {
        match connection.receive().await {
            Ok(Some(message)) => assert!(message.is_empty()),
            Ok(None) => panic!("the peer goes on"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::SessionExpired, "{error}");
    // the fourth byte, after 300 s, would be the first message
    assert_eq!(seconds(began), 300);
    drip.abort();
}

#[tokio::test(start_paused = true)]
async fn a_connection_waits_so_long_for_a_peer_that_never_reads() {
    let mut listener = network_system::listen("memory://stuck").await.unwrap();
    for split in [false, true] {
        let _silent = raw("memory://stuck").await;
        let mut connection = listener.accept().await.unwrap();
        let began = Instant::now();
        connection.feed(vec![0; 900_000]).unwrap();
        let error = if split {
            let (_receiver, mut sender) = connection.split();
            let error = sender.flush().await.unwrap_err();
            assert_eq!(seconds(began), 300);
            let late = sender.close().await.unwrap_err();
            assert_eq!(late.kind(), ErrorKind::Timeout, "{late}");
            error
        } else {
            let error = connection.send(vec![0; 900_000]).await.unwrap_err();
            assert_eq!(seconds(began), 300);
            let late = connection.close().await.unwrap_err();
            assert_eq!(late.kind(), ErrorKind::Timeout, "{late}");
            error
        };
        assert_eq!(error.kind(), ErrorKind::SessionExpired, "{error}");
        assert_eq!(seconds(began), 300 + 5);
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_that_no_clock_reaches_is_never() {
    let configure = |b: common::Builder| {
        let b = b.envelope(true).idle_timeout(Some(Duration::MAX));
        b.heartbeat(Some(Duration::MAX), 1)
    };
    let echo = echo_on(&["memory://never"], configure).await;
    let mut connection = raw("memory://never").await;
    connection.send(HELLO.to_vec()).await.unwrap();
    assert_eq!(bytes(&mut connection).await.unwrap(), HELLO);
    let session = only_session(echo.server.sessions()).await;
    tokio::select! {
        () = session.ended() => panic!("{:?}", session.close_reason()),
        result = session.request_within("x", Duration::MAX) => panic!("{result:?}"),
        () = tokio::time::sleep(Duration::from_secs(24 * 3600)) => {}
    }
}

/// The kind of the envelope message in a chunk, and when it came.
async fn kinds(connection: &mut Connection, began: Instant) -> Vec<(u8, u64)> {
    let mut came = Vec::new();
    while let Some(chunk) = bytes(connection).await {
        let mut rest = &chunk[..];
        while let Some((length, more)) = rest.split_first_chunk::<4>() {
            let (message, more) = more.split_at(u32::from_be_bytes(*length) as usize);
            came.push((message[0], seconds(began)));
            rest = more;
        }
    }
    came
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_no_ping_is_dead() {
    let configure = |b: common::Builder| b.envelope(true);
    let mut echo = echo_on(&["memory://dead-peer"], configure).await;
    let url = "memory://dead-peer?envelope=true";
    let healthy = Healthy::over(url, Duration::from_secs(1)).await;
    let mut connection = raw("memory://dead-peer").await;
    let began = Instant::now();
    connection.send(HELLO.to_vec()).await.unwrap();
    // asked after 30 s of silence and again after 30 s more; given up after the second answer that
    // does not come
    let came = kinds(&mut connection, began).await;
    assert_eq!(came, [(0x00, 0), (0x50, 30), (0x50, 60)]);
    assert_eq!(seconds(began), 90);
    let end = echo.ends.recv().await.unwrap();
    assert!(matches!(end.reason, CloseReason::Heartbeat), "{end:?}");
    let error = end.session.send("x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SessionExpired);
    healthy.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_anything_lives() {
    let configure = |b: common::Builder| b.envelope(true).idle_timeout(None);
    let mut echo = echo_on(&["memory://live-peer"], configure).await;
    let mut connection = raw("memory://live-peer").await;
    connection.send(HELLO.to_vec()).await.unwrap();
    assert_eq!(bytes(&mut connection).await.unwrap(), HELLO);
    for round in 0..50 {
        let asked = Instant::now();
        let ping = bytes(&mut connection).await.unwrap();
        assert_eq!((ping[4], seconds(asked)), (0x50, 30));
        // misses one, then answers: the count starts anew
        let ping = bytes(&mut connection).await.unwrap();
        assert_eq!((ping[4], seconds(asked)), (0x50, 60));
        let answer = match round % 2 {
            0 => [&frame(b"")[..3], b"\x09\x60", &ping[5..]].concat(),
            _ => frame(b"\x30\0\0\0\0\0\0\0\x99a reply to nothing"),
        };
        connection.send(answer).await.unwrap();
        connection.flush().await.unwrap();
    }
    assert!(echo.ends.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn both_sides_keep_a_quiet_connection() {
    let configure = |b: common::Builder| b.envelope(true).idle_timeout(None);
    let mut echo = echo_on(&["memory://quiet"], configure).await;
    let client = Client::builder("memory://quiet?envelope=true").connect();
    let client = client.await.unwrap();
    let session = client.session().unwrap();
    tokio::select! {
        () = session.ended() => panic!("{:?}", session.close_reason()),
        end = echo.ends.recv() => panic!("{end:?}"),
        () = tokio::time::sleep(Duration::from_secs(3600)) => {}
    }
    // heartbeats are no messages
    let statistics = echo.server.statistics();
    assert_eq!((statistics.messages_in, statistics.messages_out), (0, 0));
    assert!(statistics.bytes_in > 60 * 13, "but they were there");

    // and no activity: an idle deadline passes all the same
    let configure = |b: common::Builder| b.envelope(true);
    let mut echo = echo_on(&["memory://quiet-idle"], configure).await;
    let began = Instant::now();
    let client = Client::builder("memory://quiet-idle?envelope=true").connect();
    let _client = client.await.unwrap();
    let end = echo.ends.recv().await.unwrap();
    assert!(matches!(end.reason, CloseReason::Idle), "{end:?}");
    assert_eq!(seconds(began), 300);
}

/// A handler that takes long does not make its peer look dead: it is not read from.
#[tokio::test(start_paused = true)]
async fn a_slow_handler_is_not_a_dead_peer() {
    let (ended, mut ends) = mpsc::unbounded_channel();
    let (handled, mut handles) = mpsc::unbounded_channel();
    let _server = Server::builder()
        .listen("memory://slow-handler")
        .envelope(true)
        .on_message(move |_, message| {
            let handled = handled.clone();
            async move {
                if message == "slow" {
                    tokio::time::sleep(Duration::from_secs(200)).await;
                }
                let _ = handled.send(());
            }
        })
        .on_disconnect(move |_, reason| {
            let _ = ended.send(reason.clone());
        })
        .start()
        .await
        .unwrap();
    let mut connection = raw("memory://slow-handler").await;
    connection.send(HELLO.to_vec()).await.unwrap();
    connection.send(frame(b"\x10slow")).await.unwrap();
    for _ in 0..2000 {
        connection.send(frame(b"\x10quick")).await.unwrap();
    }
    connection.flush().await.unwrap();
    for n in 0..2001 {
        tokio::select! {
            biased;
            _ = handles.recv() => {}
            reason = ends.recv() => panic!("{reason:?} after {n}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn waits_between_connects_grow_to_a_cap() {
    let tries = async |backoff: Backoff, count: usize| {
        let (failed, mut failures) = mpsc::unbounded_channel();
        let client = Client::builder("memory://nobody-is-here")
            .reconnect(backoff)
            .on_error(move |_, _| {
                let _ = failed.send(Instant::now());
            })
            .start()
            .unwrap();
        let mut times = Vec::new();
        for _ in 0..=count {
            times.push(failures.recv().await.unwrap());
        }
        assert!(matches!(client.state(), ClientState::Waiting { .. }));
        let pairs = times.windows(2);
        pairs
            .map(|pair| (pair[1] - pair[0]).as_secs_f64())
            .collect::<Vec<f64>>()
    };
    let close = |wait: f64, expected: f64| (wait - expected).abs() < 0.01;

    let steady = Backoff {
        jitter: false,
        ..Backoff::default()
    };
    let waits = tries(steady, 10).await;
    let expected = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0];
    let fits = waits
        .iter()
        .zip(expected)
        .all(|(wait, expected)| close(*wait, expected));
    assert!(fits, "{waits:?}");

    let waits = tries(Backoff::every(Duration::from_secs(7)), 5).await;
    assert!(waits.iter().all(|wait| close(*wait, 7.0)), "{waits:?}");

    let other = Backoff {
        initial: Duration::from_secs(1),
        max: Duration::from_secs(20),
        factor: 3.0,
        jitter: false,
        ..Backoff::default()
    };
    let waits = tries(other, 5).await;
    let expected = [1.0, 3.0, 9.0, 20.0, 20.0];
    let fits = waits
        .iter()
        .zip(expected)
        .all(|(wait, expected)| close(*wait, expected));
    assert!(fits, "{waits:?}");

    // full jitter: anything below the bound, and all over it
    let waits = tries(Backoff::default(), 300).await;
    for (n, wait) in waits.iter().enumerate() {
        let bound = Backoff::default().bound(n as u32).as_secs_f64();
        assert!(*wait <= bound + 0.01, "{n}: {wait} of {bound}");
    }
    let capped = &waits[6..];
    let mean = capped.iter().sum::<f64>() / capped.len() as f64;
    assert!((12.0..18.0).contains(&mean), "{mean}");
    assert!(capped.iter().any(|wait| *wait < 5.0) && capped.iter().any(|wait| *wait > 25.0));
}

/// A connection that has proved itself starts the waits anew.
#[tokio::test(start_paused = true)]
async fn a_success_resets_the_wait() {
    let steady = Backoff {
        jitter: false,
        ..Backoff::default()
    };
    let address = "memory://comes-and-goes";
    let client = Client::builder(address).reconnect(steady).start().unwrap();
    let mut states = client.watch();
    for _ in 0..3 {
        let capped = |state: &ClientState| matches!(state, ClientState::Waiting { delay, .. } if delay.as_secs() == 30);
        states.wait_for(capped).await.unwrap();
        let server = Server::builder().listen(address).start().await.unwrap();
        states.wait_for(ClientState::is_connected).await.unwrap();
        // as old as the first wait
        tokio::time::sleep(Duration::from_millis(500)).await;
        server.shutdown(Duration::from_secs(5)).await;
        let waits = states.wait_for(|state| matches!(state, ClientState::Waiting { .. }));
        match &*waits.await.unwrap() {
            ClientState::Waiting { delay, .. } => assert_eq!(delay.as_millis(), 500),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_closes_takes_as_long_as_it_may() {
    for deadline in [1, 20] {
        let name = format!("memory://slow-server-{deadline}");
        let wait = Arc::new(Notify::new());
        let waiting = wait.clone();
        let server = Server::builder()
            .listen(&name)
            .on_message(move |_, _| {
                let waiting = waiting.clone();
                async move { waiting.notified().await }
            })
            .start()
            .await
            .unwrap();
        let client = Client::builder(&name).connect().await.unwrap();
        let session = client.session().unwrap();
        for _ in 0..4 {
            client.send(vec![0; 200_000]).await.unwrap();
        }
        let began = Instant::now();
        client.close(Duration::from_secs(deadline)).await;
        assert_eq!(seconds(began), deadline);
        let reason = session.close_reason();
        assert!(matches!(reason, Some(CloseReason::Cut)), "{reason:?}");
        assert!(session.statistics().messages_dropped > 0);
        wait.notify_one();
        drop(server);
    }
}
