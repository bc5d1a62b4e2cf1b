//! `Inbox::each` under attack: slow peers with every policy and framing, ends in the middle, and
//! handlers that panic, fail and send in every other way meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use common::each::{config, connect, serve};
use common::{LIMIT, ended, eventually, frame, only_session, read_frame, read_to_end, within};
use network_system::wire::{Codec, Decoded, Frame, Payload, WireError};
use network_system::{
    Error, ErrorKind, Framing, Handler, Inbox, MessageRef, Outgoing, OverflowPolicy, Result,
    Server, Session,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Waits until nothing has moved for a while: the peer does not read, so everything is stuck.
async fn stuck(server: &Server) {
    let mut last = (0, 0);
    let mut same = 0;
    let look = || {
        let s = server.statistics();
        let queued = server
            .sessions()
            .all()
            .iter()
            .map(Session::queued_bytes)
            .sum::<usize>();
        (s.bytes_in + s.bytes_out, queued)
    };
    eventually("stuck", || {
        let now = look();
        same = if now == last && now.1 > 0 {
            same + 1
        } else {
            0
        };
        last = now;
        same > 20
    })
    .await;
}

/// A large message behind others is sent like any other: a peer that is a bit slow must not be
/// taken for one that never reads.
#[tokio::test]
async fn messages_larger_than_the_outbox_pass() {
    const HIGH: usize = 64 * 1024;
    for workers in [0, 1] {
        for (size, envelope) in [
            (HIGH + 1, false),
            (2 * HIGH + 1, false),
            (5 * HIGH, false),
            (5 * HIGH, true),
        ] {
            let mut config = config(workers, HIGH, OverflowPolicy::Wait);
            config.session.envelope = envelope;
            let server = serve("tcp://127.0.0.1:0", config, move |_, message, out| {
                out.send(message)?;
                if message.len() == size {
                    out.send("end")?;
                }
                Ok(())
            })
            .await;
            let mut stream = connect(&server).await;
            let wrap = |m: &[u8]| match envelope {
                true => frame(&[b"\x10", m].concat()),
                false => frame(m),
            };
            if envelope {
                stream.write_all(&frame(b"\0NSE1")).await.unwrap();
                within(read_frame(&mut stream)).await.unwrap().unwrap();
            }
            let (mut all, mut answers) = (Vec::new(), Vec::new());
            for n in 0..20_u8 {
                all.extend((0..30).flat_map(|_| wrap(&[n; 1000])));
                all.extend(wrap(&vec![n; size]));
                answers.extend_from_slice(&all[answers.len() - n as usize * wrap(b"end").len()..]);
                answers.extend(wrap(b"end"));
            }
            let (mut read, mut write) = stream.into_split();
            let sending = tokio::spawn(async move {
                let _ = write.write_all(&all).await;
                write
            });
            stuck(&server).await;
            let mut back = vec![0; answers.len()];
            let result = within(read.read_exact(&mut back)).await;
            assert!(
                result.is_ok(),
                "{workers} {size} {envelope}: {result:?} {:?}",
                server.statistics().connections_ended
            );
            assert!(back == answers);
            drop(sending.await.unwrap());
        }
    }
}

/// Every framing as text, and how it writes a message.
type Wrap = Box<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

fn framings() -> Vec<(&'static str, usize, Wrap)> {
    fn b(f: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static) -> Wrap {
        Box::new(f)
    }
    fn varint(m: &[u8]) -> Vec<u8> {
        let mut n = m.len();
        let mut out = Vec::new();
        while n >= 0x80 {
            out.push((n & 0x7f) as u8 | 0x80);
            n >>= 7;
        }
        out.push(n as u8);
        out.extend(m);
        out
    }
    vec![
        ("length", 5000, b(frame)),
        ("length:1", 255, b(|m| [&[m.len() as u8], m].concat())),
        (
            "length:2",
            5000,
            b(|m| [&(m.len() as u16).to_be_bytes(), m].concat()),
        ),
        (
            "length:8",
            5000,
            b(|m| [&(m.len() as u64).to_be_bytes(), m].concat()),
        ),
        (
            "length:2le",
            5000,
            b(|m| [&(m.len() as u16).to_le_bytes(), m].concat()),
        ),
        (
            "length:4le",
            20_000,
            b(|m| [&(m.len() as u32).to_le_bytes(), m].concat()),
        ),
        (
            "length:8le",
            5000,
            b(|m| [&(m.len() as u64).to_le_bytes(), m].concat()),
        ),
        ("varint", 20_000, b(varint)),
        ("lines", 5000, b(|m| [m, b"\n"].concat())),
        ("delimiter:0d0a", 20_000, b(|m| [m, b"\r\n"].concat())),
        ("raw", 5000, b(<[u8]>::to_vec)),
    ]
}

/// A peer that sends everything before it reads anything gets everything, in every framing, once
/// and in order; and all of it is counted.
#[tokio::test]
async fn a_full_outbox_loses_nothing_in_any_framing() {
    const HIGH: usize = 32 * 1024;
    for workers in [0, 1] {
        for (text, most, wrap) in framings() {
            let url = format!("tcp://127.0.0.1:0?framing={text}");
            let server = serve(
                &url,
                config(workers, HIGH, OverflowPolicy::Wait),
                |_, m, out| out.send(m),
            )
            .await;
            let stream = connect(&server).await;
            let sizes = [1, 17, 64, 65, 200, 255, most];
            let count = 3000_usize;
            let all: Vec<u8> = (0..count)
                .flat_map(|n| wrap(&vec![b'a' + (n % 26) as u8; sizes[n % 7].min(most)]))
                .collect();
            let (mut read, mut write) = stream.into_split();
            let sent = all.clone();
            let sending = tokio::spawn(async move {
                let _ = write.write_all(&sent).await;
                write.shutdown().await.unwrap();
                write
            });
            stuck(&server).await;
            let queued = only_session(server.sessions()).await.queued_bytes();
            // a chunk of raw bytes is as large as what one read brings
            let largest = if text == "raw" { 256 * 1024 } else { most };
            assert!(queued <= 2 * HIGH + largest, "{text}: {queued}");
            let (back, end) = read_to_end(&mut read).await;
            end.unwrap();
            assert!(
                back == all,
                "{workers} {text}: {} of {}",
                back.len(),
                all.len()
            );
            drop(sending.await.unwrap());
            eventually("ended", || ended(&server, "peer") == 1).await;
            let s = server.statistics();
            if text != "raw" {
                assert_eq!(
                    (s.messages_in, s.messages_out),
                    (count as u64, count as u64),
                    "{text}"
                );
            }
            assert_eq!(
                (s.bytes_in, s.bytes_out),
                (all.len() as u64, all.len() as u64),
                "{text}"
            );
            assert_eq!((s.messages_dropped, s.queued_bytes), (0, 0), "{text}");
        }
    }
}

/// Every policy with a peer that does not read at first: what is counted is what comes.
#[tokio::test]
async fn every_policy_adds_up_when_the_peer_reads_late() {
    const HIGH: usize = 32 * 1024;
    const COUNT: u32 = 4000;
    for workers in [0, 1] {
        for overflow in [
            OverflowPolicy::Wait,
            OverflowPolicy::Reject,
            OverflowPolicy::DropNewest,
            OverflowPolicy::DropOldest,
        ] {
            let rejected = Arc::new(AtomicU64::new(0));
            let count = rejected.clone();
            let server = serve(
                "tcp://127.0.0.1:0",
                config(workers, HIGH, overflow),
                move |_, m, out| match out.send(m) {
                    Err(error) if error.kind() == ErrorKind::QueueFull => {
                        count.fetch_add(1, Relaxed);
                        Ok(())
                    }
                    result => result,
                },
            )
            .await;
            let (mut read, mut write) = connect(&server).await.into_split();
            let sending = tokio::spawn(async move {
                for n in 0..COUNT {
                    let message = [&n.to_be_bytes()[..], &[7; 300]].concat();
                    write.write_all(&frame(&message)).await.unwrap();
                }
                write.shutdown().await.unwrap();
                write
            });
            match overflow {
                OverflowPolicy::Wait => stuck(&server).await,
                _ => {
                    eventually("all in", || {
                        server.statistics().messages_in == u64::from(COUNT)
                    })
                    .await
                }
            }
            let queued = only_session(server.sessions()).await.queued_bytes();
            assert!(queued <= 2 * HIGH, "{queued}");
            let mut last = None;
            let mut came = 0;
            while let Some(message) = within(read_frame(&mut read)).await.unwrap() {
                let n = u32::from_be_bytes(message[..4].try_into().unwrap());
                assert!(last < Some(n), "{last:?} {n}");
                if overflow == OverflowPolicy::Wait {
                    assert_eq!(n, came as u32);
                }
                assert_eq!(message[4..], [7; 300]);
                last = Some(n);
                came += 1;
            }
            drop(sending.await.unwrap());
            eventually("ended", || ended(&server, "peer") == 1).await;
            if overflow == OverflowPolicy::DropOldest {
                assert_eq!(last, Some(COUNT - 1));
            }
            let s = server.statistics();
            let rejected = rejected.load(Relaxed);
            assert_eq!(s.messages_in, u64::from(COUNT));
            assert_eq!(s.messages_out, came, "{overflow:?}");
            assert_eq!(
                s.messages_out + s.messages_dropped + rejected,
                u64::from(COUNT),
                "{overflow:?}"
            );
            assert_eq!(
                (s.bytes_in, s.bytes_out),
                (308 * u64::from(COUNT), 308 * came)
            );
            assert_eq!(s.queued_bytes, 0);
        }
    }
}

/// With the envelope: messages, requests and pings of a peer that reads late are answered, each
/// once, messages in order.
#[tokio::test]
async fn requests_and_pings_in_between_are_answered() {
    const HIGH: usize = 32 * 1024;
    struct Both;
    impl Handler for Both {
        async fn on_message(&self, _: &Session, _: &MessageRef<'_>) -> Result<()> {
            panic!("came alone");
        }
        async fn on_batch(&self, session: &Session, inbox: &mut Inbox<'_>) -> Result<()> {
            inbox.each(session, |m, out| out.send(m))
        }
        async fn on_request(&self, _: &Session, request: network_system::Request) -> Result<()> {
            let message = request.message().clone();
            request.reply(message).await
        }
    }
    for workers in [0, 1] {
        for overflow in [
            OverflowPolicy::Wait,
            OverflowPolicy::DropNewest,
            OverflowPolicy::DropOldest,
        ] {
            let mut config = config(workers, HIGH, overflow);
            config.session.envelope = true;
            let builder = Server::builder().config(config).listen("tcp://127.0.0.1:0");
            let server = builder.handler(Both).start().await.unwrap();
            let mut stream = connect(&server).await;
            stream.write_all(&frame(b"\0NSE1")).await.unwrap();
            assert_eq!(
                within(read_frame(&mut stream)).await.unwrap().unwrap(),
                b"\0NSE1"
            );
            let (mut read, mut write) = stream.into_split();
            const COUNT: u64 = 3000;
            let sending = tokio::spawn(async move {
                for n in 0..COUNT {
                    let body = [&n.to_be_bytes()[..], &[9; 200]].concat();
                    let kind: &[u8] = match n % 3 {
                        0 => &[0x10],
                        1 => &[&[0x20][..], &n.to_be_bytes()].concat(),
                        _ => &[&[0x50][..], &n.to_be_bytes()].concat(),
                    };
                    let all = if n % 3 == 2 {
                        kind.to_vec()
                    } else {
                        [kind, &body].concat()
                    };
                    write.write_all(&frame(&all)).await.unwrap();
                }
                write.shutdown().await.unwrap();
                write
            });
            stuck(&server).await;
            let mut seen: HashMap<u8, Vec<u64>> = HashMap::new();
            while let Some(message) = within(read_frame(&mut read)).await.unwrap() {
                let n = u64::from_be_bytes(message[1..9].try_into().unwrap());
                seen.entry(message[0]).or_default().push(n);
            }
            drop(sending.await.unwrap());
            let want = |rest: u64| (0..COUNT).filter(|n| n % 3 == rest).collect::<Vec<_>>();
            assert_eq!(seen[&0x30], want(1), "replies {overflow:?}");
            assert_eq!(seen[&0x60], want(2), "pongs {overflow:?}");
            let messages = seen[&0x10].clone();
            assert!(messages.is_sorted());
            eventually("ended", || ended(&server, "peer") == 1).await;
            let s = server.statistics();
            assert_eq!(
                messages.len() as u64 + s.messages_dropped,
                COUNT / 3,
                "{overflow:?}"
            );
            if overflow == OverflowPolicy::Wait {
                assert_eq!(s.messages_dropped, 0);
            }
            assert_eq!(s.queued_bytes, 0);
            assert_eq!(s.messages_in, COUNT * 2 / 3, "{overflow:?}");
            assert_eq!(
                s.messages_out,
                messages.len() as u64 + COUNT / 3,
                "{overflow:?}"
            );
        }
    }
}

/// Ends while `each` is stopped because the outbox is full.
#[tokio::test]
async fn a_full_connection_ends_as_told() {
    const HIGH: usize = 32 * 1024;
    for workers in [0, 1] {
        for envelope in [false, true] {
            for how in [
                "abort",
                "close",
                "half close",
                "reset",
                "drain",
                "drain late",
            ] {
                let mut config = config(workers, HIGH, OverflowPolicy::Wait);
                config.session.envelope = envelope;
                config.session.close_timeout = Duration::from_secs(20);
                let server = serve("tcp://127.0.0.1:0", config, |_, m, out| out.send(m)).await;
                let mut stream = connect(&server).await;
                let wrap = |n: u64| match envelope {
                    true => frame(&[&[0x10], &n.to_be_bytes()[..], &[1; 400]].concat()),
                    false => frame(&[&n.to_be_bytes()[..], &[1; 400]].concat()),
                };
                if envelope {
                    stream.write_all(&frame(b"\0NSE1")).await.unwrap();
                    within(read_frame(&mut stream)).await.unwrap().unwrap();
                }
                let mut sent = 0;
                let mut rest = Vec::new();
                // until nothing more is taken
                let until = || tokio::time::Instant::now() + Duration::from_millis(100);
                loop {
                    rest.extend(wrap(sent));
                    sent += 1;
                    let write = stream.write_all(&rest);
                    if tokio::time::timeout_at(until(), write).await.is_err() {
                        break;
                    }
                    rest.clear();
                }
                stuck(&server).await;
                let session = only_session(server.sessions()).await;
                let read_all = async |mut stream: TcpStream| {
                    let (bytes, end) = read_to_end(&mut stream).await;
                    let mut bytes = &bytes[..];
                    let mut n = 0;
                    while let Ok(Some(m)) = read_frame(&mut bytes).await {
                        if envelope && m[0] == 0x70 {
                            continue;
                        }
                        let m = if envelope { &m[1..] } else { &m[..] };
                        assert_eq!(m[..8], u64::to_be_bytes(n), "{how}");
                        n += 1;
                    }
                    (n, end)
                };
                let what = format!("{workers} {envelope} {how}");
                match how {
                    "abort" => {
                        session.abort();
                        within(session.ended()).await;
                        assert_eq!(session.close_reason().unwrap().label(), "cut", "{what}");
                    }
                    "close" => {
                        session.close("enough");
                        let (n, end) = read_all(stream).await;
                        assert!(n > 0 && n < sent, "{what}");
                        let _ = end;
                        within(session.ended()).await;
                        assert_eq!(
                            session.close_reason().unwrap().label(),
                            "requested",
                            "{what}"
                        );
                        let s = session.statistics();
                        assert_eq!((s.messages_out, s.messages_dropped), (n, 0), "{what}");
                    }
                    "half close" => {
                        stream.shutdown().await.unwrap();
                        let (n, end) = read_all(stream).await;
                        // the last may be cut in the middle
                        assert!(n == sent || n == sent - 1, "{what} {n} {sent} {end:?}");
                        within(session.ended()).await;
                        assert_eq!(session.statistics().messages_out, n);
                    }
                    "reset" => {
                        socket2::SockRef::from(&stream)
                            .set_linger(Some(Duration::ZERO))
                            .unwrap();
                        drop(stream);
                        within(session.ended()).await;
                        assert_eq!(session.close_reason().unwrap().label(), "network", "{what}");
                    }
                    "drain" => {
                        let draining = tokio::spawn(server.shutdown(LIMIT));
                        let (n, _) = read_all(stream).await;
                        assert!(n > 0 && n <= sent, "{what}");
                        within(session.ended()).await;
                        let report = within(draining).await.unwrap();
                        let s = session.statistics();
                        assert_eq!(s.messages_out, n, "{what} {report:?}");
                        assert_eq!(
                            (s.messages_dropped, s.messages_in),
                            (0, n),
                            "{what} {report:?}"
                        );
                    }
                    _ => {
                        let report = within(server.shutdown(Duration::from_millis(50))).await;
                        within(session.ended()).await;
                        assert_eq!(
                            session.close_reason().unwrap().label(),
                            "cut",
                            "{what} {report:?}"
                        );
                    }
                }
                let s = session.statistics();
                assert_eq!(s.queued_bytes, 0, "{what}");
                assert_eq!(s.messages_in, s.messages_out + s.messages_dropped, "{what}");
                assert_eq!(
                    session.send("x").await.unwrap_err().kind(),
                    ErrorKind::ConnectionClosed
                );
            }
        }
    }
}

/// What has come before a panic or an error is counted, and so is what is lost.
#[tokio::test]
async fn panics_and_errors_are_counted_exactly() {
    for workers in [0, 1] {
        for k in [0_u64, 1, 7, 300, 1000] {
            for word in ["fail", "panic", "abort"] {
                let server = serve(
                    "tcp://127.0.0.1:0",
                    config(workers, 1 << 20, OverflowPolicy::Wait),
                    |session, message, out| {
                        out.send(message)?;
                        match &message[..] {
                            b"fail" => Err(Error::new(ErrorKind::NotFound, "do as asked")),
                            b"panic" => panic!("as asked"),
                            b"abort" => {
                                session.abort();
                                Ok(())
                            }
                            _ => Ok(()),
                        }
                    },
                )
                .await;
                let mut stream = connect(&server).await;
                let session = only_session(server.sessions()).await;
                let all = [
                    frame(b"x").repeat(usize::try_from(k).unwrap()),
                    frame(word.as_bytes()),
                    frame(b"never").repeat(5),
                ]
                .concat();
                stream.write_all(&all).await.unwrap();
                let (_back, _) = read_to_end(&mut stream).await;
                within(session.ended()).await;
                let s = session.statistics();
                let what = format!("{workers} {k} {word} {s:?}");
                assert_eq!(s.messages_in, k + 1, "{what}");
                assert_eq!(s.messages_out + s.messages_dropped, k + 1, "{what}");
                assert_eq!(s.bytes_in, all.len() as u64, "{what}");
                assert_eq!(s.queued_bytes, 0);
                let t = server.statistics();
                assert_eq!(
                    (t.messages_in, t.bytes_in),
                    (s.messages_in, s.bytes_in),
                    "{what}"
                );
                assert_eq!(t.messages_dropped, s.messages_dropped);
            }
        }
    }
}

/// With the envelope, too; and the greeting and pongs are nobody's messages that are lost.
#[tokio::test]
async fn panics_with_an_envelope_are_counted_exactly() {
    struct Panics;
    impl Handler for Panics {
        async fn on_connect(&self, session: &Session) -> Result<()> {
            session.send("hello").await?;
            panic!("as asked");
        }
        async fn on_message(&self, _: &Session, _: &MessageRef<'_>) -> Result<()> {
            Ok(())
        }
    }
    let (told, mut sessions) = tokio::sync::mpsc::unbounded_channel();
    let mut config = config(1, 1 << 20, OverflowPolicy::Wait);
    config.session.envelope = true;
    let work = move |session: &Session, message: &MessageRef<'_>, out: &mut Outgoing<'_>| {
        let _ = told.send(session.clone());
        out.send(message)?;
        assert!(message[..] != *b"panic", "as asked");
        Ok(())
    };
    let server = serve("tcp://127.0.0.1:0", config.clone(), work).await;
    let mut stream = connect(&server).await;
    let all = [
        frame(b"\0NSE1"),
        frame(b"\x10x"),
        frame(b"\x5012345678"),
        frame(b"\x10panic"),
        frame(b"\x10never"),
    ]
    .concat();
    stream.write_all(&all).await.unwrap();
    drop(read_to_end(&mut stream).await);
    let session = within(sessions.recv()).await.unwrap();
    within(session.ended()).await;
    let s = session.statistics();
    assert_eq!(
        (s.messages_in, s.messages_out + s.messages_dropped),
        (2, 2),
        "{s:?}"
    );
    assert_eq!(s.bytes_in, all.len() as u64, "{s:?}");

    let builder = Server::builder().config(config).listen("tcp://127.0.0.1:0");
    let server = builder.handler(Panics).start().await.unwrap();
    let mut stream = connect(&server).await;
    drop(read_to_end(&mut stream).await);
    eventually("ended", || ended(&server, "panicked") == 1).await;
    let s = server.statistics();
    assert_eq!((s.messages_out, s.messages_dropped), (0, 1));
}

/// All ways of sending from inside of the closure, and another task at the same time: each sender's
/// messages come in its order, and nothing is lost though the peer reads late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_ways_of_sending_at_once_keep_their_order() {
    const COUNT: u32 = 1000;
    for workers in [0, 1] {
        let (told, sessions) = std::sync::mpsc::channel();
        let server = serve(
            "tcp://127.0.0.1:0",
            config(workers, 1 << 20, OverflowPolicy::Wait),
            move |session, message, out| {
                let n = u32::from_be_bytes(message[..4].try_into().unwrap());
                if n == 0 {
                    told.send(session.clone()).unwrap();
                }
                let mut next = 4 * n;
                let mut word = |by: &str| {
                    next += 1;
                    format!("h{:08}{by}", next - 1)
                };
                out.send(word("out"))?;
                session.try_send(word("try"))?;
                out.send(word(&"out".repeat(30)))?;
                let sending = session.send(word("send"));
                assert!(sending.is_done());
                let report = session.sessions().broadcast(format!("b{n:08}"));
                assert_eq!((report.queued, report.full, report.failed), (2, 0, 0));
                Ok(())
            },
        )
        .await;
        let mut other = connect(&server).await;
        eventually("one", || server.sessions().len() == 1).await;
        let (mut read, mut write) = connect(&server).await.into_split();
        eventually("both", || server.sessions().len() == 2).await;
        let sending = tokio::spawn(async move {
            for n in 0..COUNT {
                write.write_all(&frame(&n.to_be_bytes())).await.unwrap();
            }
            write
        });
        let foreign = tokio::spawn(async move {
            let session = tokio::task::spawn_blocking(move || sessions.recv().unwrap());
            let session = session.await.unwrap();
            for n in 0..20_000_u32 {
                session.send(format!("f{n:08}")).await.unwrap();
            }
        });
        let mut next = HashMap::from([(b'h', 0), (b'f', 0), (b'b', 0)]);
        for _ in 0..5 * COUNT + 20_000 {
            let message = within(read_frame(&mut read)).await.unwrap().unwrap();
            let n: u32 = std::str::from_utf8(&message[1..9])
                .unwrap()
                .parse()
                .unwrap();
            let next = next.get_mut(&message[0]).unwrap();
            assert_eq!(n, *next, "{workers} {}", char::from(message[0]));
            *next += 1;
        }
        for n in 0..COUNT {
            let message = within(read_frame(&mut other)).await.unwrap().unwrap();
            assert_eq!(message, format!("b{n:08}").into_bytes());
        }
        within(foreign).await.unwrap();
        drop((within(sending).await.unwrap(), read, other));
        eventually("ended", || server.sessions().is_empty()).await;
        let s = server.statistics();
        let out = u64::from(6 * COUNT + 20_000);
        assert_eq!((s.messages_in, s.messages_out), (u64::from(COUNT), out));
        assert_eq!((s.messages_dropped, s.queued_bytes), (0, 0));
    }
}

/// Two sessions whose handlers send to each other, both full, with peers that read late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_send_to_each_other_go_on() {
    const COUNT: u32 = 3000;
    for workers in [0, 2] {
        let server = serve(
            "tcp://127.0.0.1:0",
            config(workers, 4 << 20, OverflowPolicy::Wait),
            |session, message, out| {
                let all = session.sessions().all();
                let other = all.iter().find(|other| *other != session).unwrap();
                other.try_send(message)?;
                out.send(message)
            },
        )
        .await;
        let mut ends = Vec::new();
        for n in 1..=2 {
            ends.push(connect(&server).await.into_split());
            eventually("connected", || server.sessions().len() == n).await;
        }
        let mut tasks = Vec::new();
        let mut reads = Vec::new();
        for (side, (read, mut write)) in ends.into_iter().enumerate() {
            reads.push(read);
            tasks.push(tokio::spawn(async move {
                for n in 0..COUNT {
                    let message = [&[side as u8], &n.to_be_bytes()[..], &[3; 200]].concat();
                    write.write_all(&frame(&message)).await.unwrap();
                }
                write
            }));
        }
        stuck(&server).await;
        for mut read in reads {
            let mut next = [0; 2];
            for _ in 0..2 * COUNT {
                let message = within(read_frame(&mut read)).await.unwrap().unwrap();
                let n = u32::from_be_bytes(message[1..5].try_into().unwrap());
                let next = &mut next[usize::from(message[0])];
                assert_eq!((n, message.len()), (*next, 205));
                *next += 1;
            }
            assert_eq!(next, [COUNT; 2]);
            // its end must stay open until the other has read everything
            std::mem::forget(read);
        }
        for task in tasks {
            std::mem::forget(within(task).await.unwrap());
        }
    }
}

/// Handlers that take messages in every way and return when they like.
#[tokio::test]
async fn next_and_each_may_be_mixed() {
    struct Mixed(AtomicUsize);
    impl Handler for Mixed {
        async fn on_message(&self, session: &Session, message: &MessageRef<'_>) -> Result<()> {
            session.send(message).await
        }
        async fn on_batch(&self, session: &Session, inbox: &mut Inbox<'_>) -> Result<()> {
            let call = self.0.fetch_add(1, Relaxed);
            match call % 6 {
                // one, and back
                0 => {
                    if let Some(message) = inbox.next() {
                        session.send(message).await?;
                    }
                }
                1 => inbox.each(session, |message, out| out.send(message))?,
                2 => {
                    for _ in 0..3 {
                        if let Some(message) = inbox.next() {
                            session.send(message).await?;
                        }
                    }
                    inbox.each(session, |message, out| out.send(message))?;
                    if let Some(message) = inbox.next() {
                        session.send(message).await?;
                    }
                }
                3 => {
                    inbox.each(session, |message, out| out.send(message))?;
                    inbox.each(session, |message, out| out.send(message))?;
                    while let Some(message) = inbox.next() {
                        session.send(message).await?;
                        tokio::task::yield_now().await;
                    }
                }
                4 => {
                    while let Some(message) = inbox.next() {
                        session.send(message).await?;
                    }
                    inbox.each(session, |message, out| out.send(message))?;
                }
                _ => {
                    let mut left = 5;
                    while let Some(message) = inbox.next() {
                        session.send(message).await?;
                        left -= 1;
                        if left == 0 {
                            break;
                        }
                    }
                }
            }
            Ok(())
        }
    }
    const HIGH: usize = 32 * 1024;
    for (workers, envelope, query) in [
        (0, false, ""),
        (1, false, ""),
        (1, true, ""),
        (1, false, "?framing=varint"),
    ] {
        let mut config = config(workers, HIGH, OverflowPolicy::Wait);
        config.session.envelope = envelope;
        let builder = Server::builder()
            .config(config)
            .listen(format!("tcp://127.0.0.1:0{query}"));
        let server = builder
            .handler(Mixed(AtomicUsize::new(0)))
            .start()
            .await
            .unwrap();
        let mut stream = connect(&server).await;
        if envelope {
            stream.write_all(&frame(b"\0NSE1")).await.unwrap();
            within(read_frame(&mut stream)).await.unwrap().unwrap();
        }
        let wrap = |n: u32| {
            let body = [&n.to_be_bytes()[..], &vec![1; 60 + (n % 9) as usize]].concat();
            match (envelope, query) {
                (true, _) => frame(&[&b"\x10"[..], &body].concat()),
                (_, "") => frame(&body),
                _ => [&[body.len() as u8], &body[..]].concat(),
            }
        };
        let all: Vec<u8> = (0..10_000).flat_map(wrap).collect();
        let (mut read, mut write) = stream.into_split();
        let sent = all.clone();
        let sending = tokio::spawn(async move {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
            write
        });
        stuck(&server).await;
        let (back, end) = read_to_end(&mut read).await;
        end.unwrap();
        assert!(
            back == all,
            "{workers} {envelope} {query} {} {}",
            back.len(),
            all.len()
        );
        drop(sending.await.unwrap());
        eventually("ended", || ended(&server, "peer") == 1).await;
        let s = server.statistics();
        assert_eq!((s.messages_in, s.messages_out), (10_000, 10_000));
        assert_eq!((s.messages_dropped, s.queued_bytes), (0, 0));
    }
}

/// An empty message cannot be sent without framing, nor be counted, also when it goes to all.
#[tokio::test]
async fn an_empty_broadcast_without_framing_fails() {
    let config = config(1, 1 << 20, OverflowPolicy::Wait);
    let server = serve("tcp://127.0.0.1:0?framing=raw", config, |_, m, out| {
        out.send(m)
    })
    .await;
    let mut stream = connect(&server).await;
    let session = only_session(server.sessions()).await;
    let report = server.sessions().broadcast("");
    assert_eq!((report.queued, report.full, report.failed), (0, 0, 1));
    server.sessions().broadcast("x");
    stream.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut stream).await.0, b"x");
    within(session.ended()).await;
    let s = session.statistics();
    assert_eq!((s.messages_out, s.messages_dropped), (1, 0));
}

/// A server that is given up under a handler that never comes back leaves nobody waiting.
#[test]
fn a_session_that_outlives_its_workers_is_closed() {
    struct Never(std::sync::mpsc::Sender<Session>);
    impl Handler for Never {
        async fn on_message(&self, _: &Session, _: &MessageRef<'_>) -> Result<()> {
            Ok(())
        }
        async fn on_batch(&self, session: &Session, inbox: &mut Inbox<'_>) -> Result<()> {
            inbox.each(session, |message, out| out.send(message))?;
            self.0.send(session.clone()).unwrap();
            std::future::pending().await
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (told, sessions) = std::sync::mpsc::channel();
    let (session, waiting) = runtime.block_on(async {
        let config = config(1, 32 * 1024, OverflowPolicy::Wait);
        let builder = Server::builder().config(config).listen("tcp://127.0.0.1:0");
        let server = builder.handler(Never(told)).start().await.unwrap();
        let mut stream = connect(&server).await;
        stream.write_all(&frame(b"x")).await.unwrap();
        let session = tokio::task::spawn_blocking(move || sessions.recv().unwrap())
            .await
            .unwrap();
        let blocked = session.clone();
        let waiting = std::thread::spawn(move || {
            loop {
                if let Err(error) = blocked.send_blocking(vec![0; 20_000]) {
                    return error;
                }
            }
        });
        eventually("full", || session.queued_bytes() > 10_000).await;
        drop(server);
        within(session.ended()).await;
        (session, waiting)
    });
    drop(runtime);
    assert!(session.is_closed());
    assert_eq!(waiting.join().unwrap().kind(), ErrorKind::ConnectionClosed);
    let s = session.statistics();
    assert_eq!(s.queued_bytes, 0, "{s:?}");
}

/// Workers that would keep their cores busy for ever are refused; the longest time that is allowed
/// holds nothing up.
#[test]
fn busy_polling_has_a_bound_and_holds_nothing_up() {
    use network_system::{Client, Workers, config::WorkerConfig};
    let busy = |time| {
        let config = WorkerConfig {
            busy_poll: Some(time),
            ..WorkerConfig::default()
        };
        Workers::with_config(1, &config)
    };
    let error = busy(Duration::MAX).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let workers = busy(Duration::from_millis(10)).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let client = Client::builder(address).workers(&workers).start().unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(LIMIT)).unwrap();
    for _ in 0..100 {
        client.send_blocking("hello").unwrap();
        let mut bytes = [0; 9];
        std::io::Read::read_exact(&mut peer, &mut bytes).unwrap();
    }
    drop((client, workers));
    let end = std::io::Read::read(&mut peer, &mut [0; 9]);
    assert!(matches!(end, Ok(0)), "{end:?}");
}

/// Its own codec, and the envelope in every framing that can carry it: nothing is lost either.
#[tokio::test]
async fn a_full_outbox_loses_nothing_in_a_codec_or_an_envelope() {
    const HIGH: usize = 32 * 1024;
    const COUNT: usize = 2000;
    let in_an_envelope = framings()
        .into_iter()
        .filter(|(text, ..)| text.starts_with("length") || *text == "varint")
        .map(|(text, most, wrap)| (text, most - 1, wrap, true));
    let own: Wrap = Box::new(|m| [&[m.len() as u8 ^ 0x55], m, b"\xff"].concat());
    for (text, most, wrap, envelope) in in_an_envelope.chain([("", 255, own, false)]) {
        let mut config = config(1, HIGH, OverflowPolicy::Wait);
        config.session.envelope = envelope;
        match text {
            "" => config.session.framing = Framing::custom(Own),
            _ => config.session.framing = text.parse().unwrap(),
        }
        let server = serve("tcp://127.0.0.1:0", config, |_, m, out| out.send(m)).await;
        let mut stream = connect(&server).await;
        if envelope {
            let hello = wrap(b"\0NSE1");
            stream.write_all(&hello).await.unwrap();
            let mut back = vec![0; hello.len()];
            within(stream.read_exact(&mut back)).await.unwrap();
            assert_eq!(back, hello, "{text}");
        }
        let sizes = [1, 17, 64, 65, 200, 254, most];
        let all: Vec<u8> = (0..COUNT)
            .flat_map(|n| {
                let body = vec![b'a' + (n % 26) as u8; sizes[n % 7].min(most)];
                match envelope {
                    true => wrap(&[b"\x10", &body[..]].concat()),
                    false => wrap(&body),
                }
            })
            .collect();
        let (mut read, mut write) = stream.into_split();
        let sent = all.clone();
        let sending = tokio::spawn(async move {
            let _ = write.write_all(&sent).await;
            write.shutdown().await.unwrap();
            write
        });
        stuck(&server).await;
        let (back, end) = read_to_end(&mut read).await;
        end.unwrap();
        assert!(back == all, "{text}: {} of {}", back.len(), all.len());
        drop(sending.await.unwrap());
        eventually("ended", || ended(&server, "peer") == 1).await;
        let s = server.statistics();
        assert_eq!(
            (s.messages_in, s.messages_out),
            (COUNT as u64, COUNT as u64),
            "{text}"
        );
        assert_eq!((s.messages_dropped, s.queued_bytes), (0, 0), "{text}");
    }
}

/// A length in disguise, the message as memory of its own, and a byte behind it.
#[derive(Debug)]
struct Own;

impl Codec for Own {
    fn decode(&self, input: &[u8], _: usize) -> std::result::Result<Decoded, WireError> {
        let needed = input
            .first()
            .map_or(1, |length| usize::from(length ^ 0x55) + 2);
        match input.get(1..needed) {
            Some([body @ .., 0xff]) => Ok(Decoded::Frame(Frame {
                payload: Payload::Owned(body.to_vec().into()),
                consumed: needed,
            })),
            Some([_, ..]) => Err(WireError::Invalid("no end".into())),
            _ => Ok(Decoded::Incomplete { needed }),
        }
    }

    fn header(&self, payload: &[u8], out: &mut Vec<u8>) -> std::result::Result<(), WireError> {
        out.push(payload.len() as u8 ^ 0x55);
        Ok(())
    }

    fn trailer(&self, _: &[u8], out: &mut Vec<u8>) {
        out.push(0xff);
    }

    fn max_message(&self) -> usize {
        255
    }
}
