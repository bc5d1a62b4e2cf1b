//! Peers that send nonsense, half of something, or vanish: a clear error with the right code, the
//! connection closed, and nobody else harmed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::time::Duration;

use common::{Healthy, echo, eventually, frame, read_frame, read_to_end, round_trip, within};
use network_system::{CloseReason, ErrorKind, Framing, Side};
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Makes the end of a connection a reset instead of a farewell.
fn reset(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
}

#[tokio::test]
async fn a_truncated_frame() {
    let mut echo = echo(|builder| builder).await;
    let healthy = Healthy::start(echo.address()).await;
    for whole in [frame(b"0123456789"), frame(&[7; 1000])] {
        // in the length, behind it, and one byte before the end
        for n in [1, 3, 4, 5, whole.len() - 1] {
            let mut stream = echo.dial().await;
            round_trip(&mut stream, b"before").await;
            stream.write_all(&whole[..n]).await.unwrap();
            stream.shutdown().await.unwrap();
            let (rest, result) = read_to_end(&mut stream).await;
            assert!(rest.is_empty() && result.is_ok(), "{n}: {result:?}");
            let reason = echo.next_end().await;
            let CloseReason::Protocol(error) = reason else {
                panic!("{n}: {reason:?}")
            };
            assert_eq!(error.code(), -641, "{error}");
            assert!(error.to_string().contains("middle of a message"), "{error}");
            assert_eq!(
                echo.next_error().await.code(),
                -641,
                "on_error hears of it too"
            );
        }
    }
    assert_eq!(echo.ended("protocol"), 10);
    healthy.finish().await;
}

#[tokio::test]
async fn a_length_above_the_limit() {
    let mut echo = echo(|builder| builder.max_message(1000)).await;
    let healthy = Healthy::start(echo.address()).await;
    for length in [1001_u32, 0x0100_0001, u32::MAX] {
        let mut stream = echo.dial().await;
        round_trip(&mut stream, &[1; 1000]).await;
        stream.write_all(&frame(b"answered")).await.unwrap();
        stream.write_all(&length.to_be_bytes()).await.unwrap();
        // what came before is answered, and the end is a farewell, not a reset
        let answer = within(read_frame(&mut stream)).await.unwrap();
        assert_eq!(answer.as_deref(), Some(&b"answered"[..]));
        let (rest, result) = read_to_end(&mut stream).await;
        assert!(rest.is_empty() && result.is_ok(), "{result:?}");
        drop(stream);
        let reason = echo.next_end().await;
        let CloseReason::Protocol(error) = reason else {
            panic!("{reason:?}")
        };
        assert_eq!(
            (error.kind(), error.code()),
            (ErrorKind::MessageTooLarge, -642)
        );
        assert_eq!((error.side(), error.can_retry()), (Side::Theirs, false));
        let text = error.to_string();
        assert!(
            text.contains(&length.to_string()) && text.contains("1000"),
            "{text}"
        );
    }
    healthy.finish().await;
}

#[tokio::test]
async fn too_long_a_line() {
    let lines: Framing = "lines".parse().unwrap();
    let mut echo = echo(|builder| builder.framing(lines).max_message(100)).await;
    let url = format!("tcp://{}?framing=lines", echo.address());
    let healthy = Healthy::over(&url, Duration::from_millis(2)).await;
    let mut stream = echo.dial().await;
    stream.write_all(&[b'x'; 200]).await.unwrap();
    let (rest, _) = read_to_end(&mut stream).await;
    assert!(rest.is_empty());
    let reason = echo.next_end().await;
    assert_eq!(reason.error().map(|error| error.code()), Some(-642));
    healthy.finish().await;
}

#[tokio::test]
async fn one_byte_at_a_time() {
    let mut echo = echo(|builder| builder).await;
    let mut stream = echo.dial().await;
    stream.set_nodelay(true).unwrap();
    let payload: Vec<u8> = (0..2000_u32).map(|n| n as u8).collect();
    for byte in frame(&payload).iter().chain(&frame(b"")) {
        stream.write_all(&[*byte]).await.unwrap();
    }
    assert_eq!(
        within(read_frame(&mut stream)).await.unwrap().unwrap(),
        payload
    );
    assert_eq!(within(read_frame(&mut stream)).await.unwrap().unwrap(), b"");
    drop(stream);
    assert_eq!(echo.next_end().await.label(), "peer");
}

#[tokio::test]
async fn a_reset_in_mid_frame() {
    let mut echo = echo(|builder| builder).await;
    let healthy = Healthy::start(echo.address()).await;
    for n in [0, 2, 4, 50] {
        let mut stream = echo.dial().await;
        round_trip(&mut stream, b"before").await;
        stream.write_all(&frame(&[0; 100])[..n]).await.unwrap();
        reset(stream);
        let reason = echo.next_end().await;
        let CloseReason::Network(error) = reason else {
            panic!("{n}: {reason:?}")
        };
        assert_eq!(
            (error.kind(), error.side()),
            (ErrorKind::ConnectionClosed, Side::Network)
        );
    }
    healthy.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connects_and_drops() {
    const COUNT: u64 = 10_000;
    let echo = echo(|builder| builder).await;
    let address = echo.address();
    let mut healthy = Healthy::start(address).await;
    let began = std::time::Instant::now();
    for n in 0..COUNT {
        let mut stream = within(TcpStream::connect(address)).await.unwrap();
        match n % 10 {
            // few farewells: each leaves its port unusable for a minute
            0 => drop(stream),
            1 => {
                stream.write_all(&frame(b"no time to wait")).await.unwrap();
                reset(stream);
            }
            2 => {
                stream.write_all(&[0, 0]).await.unwrap();
                reset(stream);
            }
            _ => reset(stream),
        }
    }
    eventually("all are gone", || echo.server.sessions().len() == 1).await;
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
    healthy.still_works().await;
    round_trip(&mut echo.dial().await, b"still here").await;
    healthy.finish().await;
    eventually("the table is empty", || echo.server.sessions().is_empty()).await;
    eventually("all are counted", || {
        echo.server.statistics().connections_active == 0
    })
    .await;
    let statistics = echo.server.statistics();
    let refused: u64 = statistics.connections_refused.values().sum();
    let ended: u64 = statistics.connections_ended.values().sum();
    // a connection may be reset before it is accepted, which the server may or may not see
    let unseen = COUNT + 2 - statistics.connections_total;
    assert!(statistics.connect_errors <= unseen, "{statistics:?}");
    assert!(
        unseen < COUNT / 100,
        "{unseen} connections were never accepted"
    );
    assert_eq!((ended, refused), (statistics.connections_total, 0));
    let labels: Vec<_> = statistics.connections_ended.keys().copied().collect();
    assert_eq!(labels, ["network", "peer"], "{statistics:?}");
    assert_eq!(statistics.queued_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_closed() {
    let idle = Duration::from_secs(10);
    let configure = |b: common::Builder| b.idle_timeout(idle);
    let mut echo = common::echo_on(&["memory://silent"], configure).await;
    let healthy = tokio::spawn(async move {
        let mut connection = network_system::connect("memory://silent").await.unwrap();
        loop {
            connection.send("round").await.unwrap();
            let back = connection.receive().await.unwrap();
            assert_eq!(back.unwrap(), "round");
            tokio::time::sleep(idle / 2).await;
        }
    });
    // one says nothing, one stops in mid frame, one falls silent after a message
    for bytes in [&b""[..], &[0, 0], &frame(b"hello")] {
        let since = tokio::time::Instant::now();
        let raw = network_system::connect("memory://silent?framing=raw").await;
        let mut raw = raw.unwrap();
        if !bytes.is_empty() {
            raw.send(bytes.to_vec()).await.unwrap();
        }
        while within(raw.receive()).await.unwrap().is_some() {}
        assert!(since.elapsed() >= idle, "{:?}", since.elapsed());
        let reason = echo.next_end().await;
        assert!(matches!(reason, CloseReason::Idle), "{reason:?}");
    }
    assert_eq!(echo.ended("idle"), 3);
    assert!(!healthy.is_finished(), "who says something stays");
    healthy.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drip_that_never_makes_a_message_is_no_traffic() {
    let idle = Duration::from_millis(200);
    let mut echo = echo(|builder| builder.idle_timeout(idle)).await;
    let healthy = Healthy::start(echo.address()).await;
    let mut stream = echo.dial().await;
    stream.set_nodelay(true).unwrap();
    stream.write_all(&1000_u32.to_be_bytes()).await.unwrap();
    let dripping = tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        while stream.write_all(b"x").await.is_ok() {
            tick.tick().await;
        }
    });
    let reason = echo.next_end().await;
    assert!(matches!(reason, CloseReason::Idle), "{reason:?}");
    within(dripping).await.unwrap();
    healthy.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_bytes() {
    let mut echo = echo(|builder| builder.max_message(4096)).await;
    let healthy = Healthy::start(echo.address()).await;
    let mut seed = 0x9e37_79b9_u32;
    for _ in 0..200 {
        let bytes: Vec<u8> = (0..500)
            .map(|_| {
                seed ^= seed << 13;
                seed ^= seed >> 17;
                seed ^= seed << 5;
                seed as u8
            })
            .collect();
        let mut stream = echo.dial().await;
        stream.write_all(&bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = read_to_end(&mut stream).await;
        let reason = echo.next_end().await;
        assert!(matches!(reason, CloseReason::Protocol(_)), "{reason:?}");
    }
    healthy.finish().await;
}
