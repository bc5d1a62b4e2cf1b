//! `Inbox::each`: every message once and in order in every framing, the way out when it is full,
//! and how handlers end a connection from inside of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use common::each::{config, connect, serve};
use common::{Healthy, ended, eventually, frame, read_frame, read_to_end, socket_address, within};
use network_system::config::ServerConfig;
use network_system::{Error, ErrorKind, OverflowPolicy, Session};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Messages of all sizes that matter: empty, within a block, around it, large, larger than a read.
fn messages() -> Vec<Vec<u8>> {
    let sizes = [0, 1, 63, 64, 65, 200, 5000, 8192, 9000, 70_000, 300_000];
    (0..400_usize)
        .map(|n| {
            let size = match n % 40 {
                39 => sizes[n / 40 % sizes.len()],
                _ => sizes[n % 6],
            };
            vec![b'a' + (n % 26) as u8; size]
        })
        .collect()
}

/// How a framing writes a message.
type Wrap = fn(&[u8]) -> Vec<u8>;

#[tokio::test]
async fn everything_comes_back_once_and_in_order() {
    let framings: [(&str, Wrap); 4] = [
        ("", frame),
        ("?max_message=1048576", frame),
        ("?framing=lines", |m| [m, b"\n"].concat()),
        ("?framing=delimiter:00", |m| [m, b"\0"].concat()),
    ];
    for workers in [0, 1] {
        for (query, wrap) in framings {
            let url = format!("tcp://127.0.0.1:0{query}");
            let config = ServerConfig {
                workers,
                ..ServerConfig::default()
            };
            let server = serve(&url, config, |_, message, out| out.send(message)).await;
            let all: Vec<u8> = messages().iter().flat_map(|m| wrap(m)).collect();
            let stream = TcpStream::connect(socket_address(&server.listening()[0]));
            let (mut read, mut write) = stream.await.unwrap().into_split();
            let sent = all.clone();
            let sending = tokio::spawn(async move {
                // pieces of all sizes, so that frames are cut everywhere
                let mut rest = &sent[..];
                for n in (1..).map(|n: usize| n * n * 7 % 9973 + 1) {
                    let (now, later) = rest.split_at(n.min(rest.len()));
                    write.write_all(now).await.unwrap();
                    rest = later;
                    if rest.is_empty() {
                        return write;
                    }
                }
                write
            });
            let mut back = vec![0; all.len()];
            within(read.read_exact(&mut back)).await.unwrap();
            assert!(back == all, "{workers} {query}");
            drop(sending.await.unwrap());
            let statistics = || server.statistics();
            let count = messages().len() as u64;
            eventually("counted", || statistics().messages_out == count).await;
            assert_eq!(statistics().messages_in, count, "{query}");
        }
    }
}

/// What goes through the session and what goes through the way out keep their order.
#[tokio::test]
async fn both_ways_of_sending_keep_their_order() {
    for workers in [0, 1] {
        let config = ServerConfig {
            workers,
            ..ServerConfig::default()
        };
        let server = serve("tcp://127.0.0.1:0", config, |session, message, out| {
            out.send([&message[..], b"1"].concat())?;
            session.try_send([&message[..], b"2"].concat())?;
            out.send([&message[..], b"3"].concat())?;
            session.try_send([&message[..], b"4"].concat())
        });
        let server = server.await;
        let mut stream = connect(&server).await;
        let words: Vec<String> = (0..200).map(|n| n.to_string()).collect();
        let all: Vec<u8> = words.iter().flat_map(|w| frame(w.as_bytes())).collect();
        stream.write_all(&all).await.unwrap();
        for word in words {
            for n in 1..=4 {
                let back = within(read_frame(&mut stream)).await.unwrap().unwrap();
                assert_eq!(back, format!("{word}{n}").into_bytes());
            }
        }
    }
}

/// A peer that does not read: nothing is lost, and memory is bounded.
#[tokio::test]
async fn it_stops_while_the_outbox_is_full() {
    const HIGH: usize = 64 * 1024;
    for (workers, envelope) in [(0, false), (1, false), (0, true)] {
        let (told, mut queued) = tokio::sync::mpsc::unbounded_channel();
        let mut config = config(workers, HIGH, OverflowPolicy::Wait);
        config.session.envelope = envelope;
        let server = serve("tcp://127.0.0.1:0", config, move |session, message, out| {
            for _ in 0..10 {
                out.send(message)?;
            }
            let _ = told.send(session.queued_bytes());
            Ok(())
        });
        let server = server.await;
        let mut stream = connect(&server).await;
        let word = move |n: u32| {
            [
                &b"\x10"[usize::from(!envelope)..],
                &n.to_be_bytes(),
                &[7; 496],
            ]
            .concat()
        };
        if envelope {
            stream.write_all(&frame(b"\0NSE1")).await.unwrap();
            let hello = within(read_frame(&mut stream)).await.unwrap().unwrap();
            assert_eq!(hello, b"\0NSE1");
        }
        let (mut read, mut write) = stream.into_split();
        let sending = tokio::spawn(async move {
            for n in 0..1000 {
                write.write_all(&frame(&word(n))).await.unwrap();
            }
            write
        });
        let most = || {
            server
                .sessions()
                .all()
                .iter()
                .map(Session::queued_bytes)
                .max()
        };
        eventually("full", || most() > Some(HIGH / 2)).await;
        for n in 0..1000 {
            for _ in 0..10 {
                let back = within(read_frame(&mut read)).await.unwrap().unwrap();
                assert!(back == word(n), "{n}");
            }
        }
        while let Ok(bytes) = queued.try_recv() {
            assert!(bytes <= 2 * HIGH, "{bytes}");
        }
        drop(sending.await.unwrap());
    }
}

#[tokio::test]
async fn what_is_far_too_much_is_an_error() {
    for overflow in [OverflowPolicy::Wait, OverflowPolicy::Reject] {
        let (told, mut errors) = tokio::sync::mpsc::unbounded_channel();
        let config = config(1, 64 * 1024, overflow);
        let server = serve("tcp://127.0.0.1:0", config, move |_, message, out| {
            let result = (0..1000).try_for_each(|_| out.send(message));
            let _ = told.send(result.clone().unwrap_err());
            result
        });
        let server = server.await;
        let mut stream = connect(&server).await;
        stream.write_all(&frame(&[7; 1000])).await.unwrap();
        let error: Error = within(errors.recv()).await.unwrap();
        assert_eq!(error.kind(), ErrorKind::QueueFull);
        drop(read_to_end(&mut stream).await);
        eventually("ended", || ended(&server, "handler") == 1).await;
    }
}

#[tokio::test]
async fn the_other_policies_hold() {
    for overflow in [
        OverflowPolicy::DropNewest,
        OverflowPolicy::DropOldest,
        OverflowPolicy::Close,
    ] {
        let server = serve(
            "tcp://127.0.0.1:0",
            config(1, 64 * 1024, overflow),
            |_, message, out| (0..1000).try_for_each(|_| out.send(message)),
        );
        let server = server.await;
        let mut stream = connect(&server).await;
        stream.write_all(&frame(&[7; 1000])).await.unwrap();
        if overflow == OverflowPolicy::Close {
            eventually("ended", || ended(&server, "overflow") == 1).await;
            continue;
        }
        eventually("dropped", || server.statistics().messages_dropped > 0).await;
        stream.shutdown().await.unwrap();
        let (all, end) = read_to_end(&mut stream).await;
        assert!(end.is_ok());
        eventually("ended", || ended(&server, "peer") == 1).await;
        let statistics = server.statistics();
        assert_eq!(all.len() as u64, 1004 * statistics.messages_out);
        let total = statistics.messages_out + statistics.messages_dropped;
        assert_eq!(total, 1000, "{overflow:?}");
    }
}

#[tokio::test]
async fn errors_panics_and_closes_end_it_there() {
    for workers in [0, 1] {
        let config = ServerConfig {
            workers,
            ..ServerConfig::default()
        };
        let server = serve("tcp://127.0.0.1:0", config, |session, message, out| {
            out.send(message)?;
            match &message[..] {
                b"fail" => Err(Error::new(ErrorKind::NotFound, "do as asked")),
                b"panic" => panic!("as asked"),
                b"close" => {
                    session.close("as asked");
                    Ok(())
                }
                b"never" => panic!("handled behind the end"),
                _ => Ok(()),
            }
        });
        let server = server.await;
        let mut healthy = Healthy::start(socket_address(&server.listening()[0])).await;
        for (word, reason) in [
            ("fail", "handler"),
            ("panic", "panicked"),
            ("close", "requested"),
        ] {
            let mut stream = connect(&server).await;
            let words = ["x", word, "never"].map(|word| frame(word.as_bytes()));
            stream.write_all(&words.concat()).await.unwrap();
            let (all, _) = read_to_end(&mut stream).await;
            if word == "close" {
                assert_eq!(all, words[..2].concat());
            }
            eventually("ended", || ended(&server, reason) == 1).await;
            healthy.still_works().await;
        }
        healthy.finish().await;
        assert_eq!(ended(&server, "panicked"), 1);
    }
}

/// A broken frame ends the connection behind the messages before it.
#[tokio::test]
async fn the_peers_mistakes_are_found() {
    let config = ServerConfig::default();
    let server = serve(
        "tcp://127.0.0.1:0?max_message=1000",
        config,
        |_, message, out| out.send(message),
    );
    let server = server.await;
    let mut stream = connect(&server).await;
    let good = [frame(&[1; 1000]), frame(b""), frame(b"x")].concat();
    let bad = [&good[..], &1001_u32.to_be_bytes(), &[7; 1001]].concat();
    stream.write_all(&bad).await.unwrap();
    let mut back = vec![0; good.len()];
    within(stream.read_exact(&mut back)).await.unwrap();
    assert!(back == good);
    let (rest, _) = read_to_end(&mut stream).await;
    assert!(rest.is_empty());
}
