//! Messages through a pipeline: what both sides agree on, and what arrives, over every transport and
//! at both levels of the API.
#![cfg(all(feature = "compression", feature = "noise"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::time::Duration;

use common::piped::{
    CLIENT, PSK, SERVER, client, client_key, compressions, dial, noises, round_trip, server_key,
    sizes, text, through,
};
use common::{Echo, Healthy, echo, echo_on, eventually, frame, read_frame, read_to_end, within};
use network_system::config::{ClientConfig, Compression, Noise, Pipeline, ServerConfig};
use network_system::{Client, ErrorKind, OverflowPolicy, Server, connect, listen_with};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Each compression with each encryption, and messages of all sizes.
#[tokio::test]
async fn every_message_arrives_through_every_pipeline() {
    for compression in compressions() {
        for (server, client) in noises() {
            let of = |noise: &Option<Noise>| Pipeline {
                noise: noise.clone(),
                ..Pipeline::new().compress(compression)
            };
            let echo = echo(|builder| builder.pipeline(of(&server))).await;
            let mut connection = dial(echo.url(), of(&client)).await.unwrap();
            let info = connection.info().pipeline.clone().unwrap();
            assert_eq!(info.compression, compression);
            let pattern = client.as_ref().map(|noise| noise.pattern);
            assert_eq!(info.noise.as_ref().map(|noise| noise.pattern), pattern);
            for size in sizes() {
                round_trip(&mut connection, &text(size)).await;
            }
            // a burst is one write, and comes back whole
            for n in 0..500 {
                connection.send(text(n * 7)).await.unwrap();
            }
            for n in 0..500 {
                let back = within(connection.receive()).await.unwrap();
                assert!(back.unwrap() == text(n * 7), "{n}");
            }
            within(connection.close()).await.unwrap();
            eventually("a regular end", || echo.ended("peer") == 1).await;
        }
    }
}

fn psk() -> Pipeline {
    Pipeline::new().noise(Noise::psk(PSK))
}

/// Over every transport, on workers and in the runtime, with the envelope and without.
#[cfg(feature = "tls")]
#[tokio::test]
async fn every_transport_carries_it() {
    let pki = common::pki::Pki::new();
    let pair = pki.issue(&["localhost", "127.0.0.1"]);
    let folder = tempfile::tempdir().unwrap();
    let unix = format!("unix://{}/socket", folder.path().display());
    let pipeline = || psk().compress(Compression::Zstd { level: 3 });
    for (address, workers) in [
        ("tcp://127.0.0.1:0", 0),
        ("tcp://127.0.0.1:0", 2),
        ("tcp://127.0.0.1:0?framing=varint", 0),
        ("tcp://127.0.0.1:0?framing=length:8le&compress=lz4", 1),
        ("tls://127.0.0.1:0", 0),
        ("tls://127.0.0.1:0?framing=varint", 2),
        ("memory://piped-everywhere", 0),
        #[cfg(unix)]
        (&unix, 1),
    ] {
        for envelope in [false, true] {
            let echo = echo_on(&[address], |builder| {
                builder
                    .tls(pair.server())
                    .pipeline(pipeline())
                    .workers(workers)
                    .envelope(envelope)
            })
            .await;
            let mut config = client(pipeline());
            config.session.envelope = envelope;
            config.tls = pki.client();
            let url = match address.split_once('?') {
                Some((_, query)) => {
                    let scheme = &address[..3];
                    format!("{scheme}://127.0.0.1:{}?{query}", echo.address().port())
                }
                None => echo.url().to_owned(),
            };
            let mut connection = within(network_system::connect_with(&url, &config))
                .await
                .unwrap();
            let info = connection.info();
            assert!(address.starts_with(info.scheme), "{info:?}");
            assert!(
                info.pipeline
                    .as_ref()
                    .is_some_and(|pipeline| pipeline.noise.is_some())
            );
            assert_eq!(info.tls.is_some(), address.starts_with("tls"));
            for size in [0, 1, 1000, 70_000, 400_000] {
                round_trip(&mut connection, &text(size)).await;
            }
            within(connection.close()).await.unwrap();
            // the address is free when it is over
            within(echo.server.shutdown(Duration::from_secs(10))).await;
        }
    }
}

#[tokio::test]
async fn a_message_as_large_as_the_limit() {
    // a message as large as the limit passes, one that is larger fails at the sender
    let echo = echo(|builder| builder.pipeline(psk()).max_message(100_000)).await;
    let mut config = client(psk());
    config.session.max_message = 100_000;
    let mut connection = network_system::connect_with(echo.url(), &config)
        .await
        .unwrap();
    assert_eq!(connection.info().max_message, 100_000);
    round_trip(&mut connection, &text(100_000)).await;
    let error = connection.send(text(100_001)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MessageTooLarge);
    round_trip(&mut connection, b"and goes on").await;
}

/// The handler level: requests in both directions, a broadcast, and a drain.
#[tokio::test]
async fn requests_broadcasts_and_drains_go_through_it() {
    let pipeline = || psk().compress(Compression::Lz4);
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0?envelope=true")
        .pipeline(pipeline())
        .workers(2)
        .on_request(|_, request| async move {
            let message = request.message().clone();
            request.reply(message).await
        })
        .start()
        .await
        .unwrap();
    let (told, mut heard) = mpsc::unbounded_channel();
    let mut clients = Vec::new();
    let url = format!("{}", server.listening()[0]);
    for n in 0..5 {
        let told = told.clone();
        let client = Client::builder(&url).envelope(true).pipeline(pipeline());
        let client = client.on_message(move |_, message| {
            let told = told.clone();
            async move { drop(told.send((n, message))) }
        });
        clients.push(within(client.connect()).await.unwrap());
    }
    for client in &clients {
        let reply = within(client.request(text(5000))).await.unwrap();
        assert!(reply == text(5000));
    }
    let news = text(100_000);
    eventually("five sessions", || server.sessions().len() == 5).await;
    server.sessions().broadcast(&news[..]);
    let mut who = Vec::new();
    for _ in 0..5 {
        let (n, message) = within(heard.recv()).await.unwrap();
        assert!(message == news);
        who.push(n);
    }
    who.sort_unstable();
    assert_eq!(who, [0, 1, 2, 3, 4]);
    let report = within(server.shutdown(Duration::from_secs(10))).await;
    assert_eq!((report.drained, report.cut), (5, 0));
}

/// What an overflow policy drops has taken no nonce: what is left can be read.
#[tokio::test]
async fn dropped_messages_leave_no_gap() {
    for policy in [OverflowPolicy::DropOldest, OverflowPolicy::DropNewest] {
        let server = Server::builder()
            .listen("tcp://127.0.0.1:0")
            .pipeline(psk())
            .outbox(256 * 1024, 64 * 1024)
            .overflow(policy)
            .start()
            .await
            .unwrap();
        let url = server.listening()[0].to_string();
        let mut connection = dial(&url, psk()).await.unwrap();
        let session = common::only_session(server.sessions()).await;
        let mut sent = 0_u64;
        // until the peer's buffers are full, and then some
        while session.statistics().messages_dropped < 100 {
            let message = [&sent.to_be_bytes()[..], &text(20_000)].concat();
            session.send(message).await.unwrap();
            sent += 1;
            tokio::task::yield_now().await;
        }
        session.close("enough");
        let (mut got, mut last) = (0, None);
        while let Some(message) = within(connection.receive()).await.unwrap() {
            let number = u64::from_be_bytes(*message.first_chunk().unwrap());
            assert!(last.is_none_or(|last| number > last) && message[8..] == text(20_000));
            last = Some(number);
            got += 1;
        }
        assert_eq!(
            got,
            sent - session.statistics().messages_dropped,
            "{policy:?}"
        );
    }
}

/// The coroutine level on both sides, which learn each other's keys.
#[tokio::test]
async fn both_sides_know_each_other() {
    for (of_server, of_client) in noises() {
        let mut config = ServerConfig::default();
        config.session.pipeline = Some(Pipeline {
            noise: of_server,
            ..Pipeline::new()
        });
        let mut listener = listen_with("tcp://127.0.0.1:0", &config).await.unwrap();
        let url = listener.local().to_string();
        let pipeline = Pipeline {
            noise: of_client,
            ..Pipeline::new()
        };
        let (accepted, dialled) = tokio::join!(within(listener.accept()), dial(&url, pipeline));
        let (server, client) = (accepted.unwrap(), dialled.unwrap());
        let agreed = [server.info(), client.info()].map(|info| info.pipeline.clone().unwrap());
        let [seen_by_server, seen_by_client] = agreed.each_ref().map(|info| info.noise.as_ref());
        let (Some(a), Some(b)) = (seen_by_server, seen_by_client) else {
            assert!(seen_by_server.is_none() && seen_by_client.is_none());
            continue;
        };
        assert_eq!(a.handshake_hash, b.handshake_hash);
        let keyed = a.pattern != network_system::wire::pipeline::Pattern::NNpsk0;
        assert_eq!(a.peer, keyed.then(client_key));
        assert_eq!(b.peer, keyed.then(server_key));
    }
}

/// A plain peer on either side gets no garbage, and a clear end.
#[tokio::test]
async fn plain_and_piped_peers_do_not_mix() {
    for pipeline in [Pipeline::new(), psk()] {
        let mut piped = echo(|builder| builder.pipeline(pipeline.clone())).await;
        let mut healthy = dial(piped.url(), pipeline.clone()).await.unwrap();
        for hello in [
            frame(b"hello"),
            frame(&[0; 2000]),
            frame(b"\0NSE1"),
            frame(b""),
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            frame(b"NSP2c\x0e\0\x000123456789abcdef"),
        ] {
            let mut plain = piped.dial().await;
            plain.write_all(&hello).await.unwrap();
            let error = piped.next_error().await;
            assert_eq!(error.kind(), ErrorKind::Handshake, "{hello:?}: {error}");
            let (bytes, end) = read_to_end(&mut plain).await;
            assert!(bytes.is_empty() && end.is_ok(), "{bytes:?} {end:?}");
            round_trip(&mut healthy, b"still here").await;
        }
        for envelope in [false, true] {
            let plain = echo(|builder| builder.envelope(envelope)).await;
            let Err(error) = dial(plain.url(), pipeline.clone()).await else {
                panic!("connected to a plain server");
            };
            assert_eq!(error.kind(), ErrorKind::Handshake, "{error}");
            assert!(error.to_string().contains("pipeline"), "{error}");
        }
    }
}

/// Who insists on different encryptions, or has another key, is told so.
#[tokio::test]
async fn who_does_not_agree_is_told_why() {
    let xx = || Pipeline::new().noise(Noise::xx(SERVER).peer(client_key()));
    let ik = || Pipeline::new().noise(Noise::ik(SERVER).peer(client_key()));
    let stranger = [0x77; 32];
    let other_server = || Noise::ik(CLIENT).peer(client_key());
    use ErrorKind::{Handshake, Untrusted};
    for (server, client, here, there) in [
        (psk(), Pipeline::new(), Handshake, Handshake),
        (Pipeline::new(), psk(), Handshake, Handshake),
        (xx(), psk(), Handshake, Handshake),
        (
            psk(),
            Pipeline::new().noise(Noise::psk([9; 32])),
            Handshake,
            Untrusted,
        ),
        (
            xx(),
            Pipeline::new().noise(Noise::xx(stranger).peer(server_key())),
            Untrusted,
            Untrusted,
        ),
        (
            xx(),
            Pipeline::new().noise(Noise::xx(CLIENT).peer(client_key())),
            Untrusted,
            Untrusted,
        ),
        (
            ik(),
            Pipeline::new().noise(Noise::ik(stranger).peer(server_key())),
            Untrusted,
            Untrusted,
        ),
        (
            ik(),
            Pipeline::new().noise(other_server()),
            Handshake,
            Untrusted,
        ),
    ] {
        let mut echo = echo(|builder| builder.pipeline(server.clone())).await;
        let error = match dial(echo.url(), client.clone()).await {
            Err(error) => error,
            // with XX the client is through before the server has seen its key
            Ok(mut connection) => within(connection.receive()).await.unwrap_err(),
        };
        assert_eq!(error.kind(), there, "{server:?} {client:?}: {error}");
        let error = echo.next_error().await;
        assert_eq!(error.kind(), here, "{server:?} {client:?}: {error}");
        assert_eq!(echo.server.statistics().connections_total, 0, "{server:?}");
    }
}

/// Frames that were changed, repeated, swapped, left out or cut off on the way end that connection, and
/// nobody else's.
#[tokio::test]
async fn what_was_changed_on_the_way_is_noticed() {
    let mut echo = echo(|builder| builder.pipeline(psk())).await;
    let mut healthy = dial(echo.url(), psk()).await.unwrap();
    // frames 0 and 1 are the handshake
    type Change = fn(usize, Vec<u8>) -> Option<Vec<Vec<u8>>>;
    let changes: [(&str, Change, ErrorKind); 6] = [
        (
            "flipped",
            |n, mut f| {
                f[0] ^= u8::from(n == 3);
                Some(vec![f])
            },
            ErrorKind::Protocol,
        ),
        (
            "repeated",
            |n, f| Some(vec![f; if n == 3 { 2 } else { 1 }]),
            ErrorKind::Protocol,
        ),
        (
            "left out",
            |n, f| Some(if n == 3 { vec![] } else { vec![f] }),
            ErrorKind::Protocol,
        ),
        (
            "invented",
            |n, f| {
                Some(if n == 3 {
                    vec![vec![7; 40], f]
                } else {
                    vec![f]
                })
            },
            ErrorKind::Protocol,
        ),
        (
            "refused by somebody",
            |n, f| Some(if n == 3 { vec![vec![]] } else { vec![f] }),
            ErrorKind::Untrusted,
        ),
        (
            "cut off",
            |n, f| (n < 3).then(|| vec![f]),
            ErrorKind::ConnectionClosed,
        ),
    ];
    for (name, change, kind) in changes {
        let url = through(echo.address(), change).await;
        let mut connection = dial(&url, psk()).await.unwrap();
        round_trip(&mut connection, b"the first is fine").await;
        for n in 0..3 {
            let _ = connection.send(format!("message {n}")).await;
            let _ = connection.flush().await;
        }
        let error = echo.next_error().await;
        assert_eq!(error.kind(), kind, "{name}: {error}");
        echo.next_end().await;
        round_trip(&mut healthy, b"nothing has happened here").await;
    }
    assert_eq!(echo.ended("protocol"), 5);
    // a handshake that was heard is of no use to anybody else
    let recorded = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let tape = recorded.clone();
    let url = through(echo.address(), move |_, frame| {
        tape.lock().unwrap().push(frame.clone());
        Some(vec![frame])
    })
    .await;
    let mut connection = dial(&url, psk()).await.unwrap();
    round_trip(&mut connection, b"secret").await;
    let frames = recorded.lock().unwrap().clone();
    let mut thief = echo.dial().await;
    for bytes in frames {
        thief.write_all(&frame(&bytes)).await.unwrap();
    }
    assert_eq!(echo.next_error().await.kind(), ErrorKind::Handshake);
}

/// The offer of a client without encryption.
const OFFER: &[u8; 24] = b"NSP1c\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// A connection by hand, after the offers.
async fn by_hand(echo: &common::Echo) -> TcpStream {
    let mut stream = echo.dial().await;
    stream.write_all(&frame(OFFER)).await.unwrap();
    let answer = within(read_frame(&mut stream)).await.unwrap().unwrap();
    assert_eq!(answer[..5], *b"NSP1s");
    stream
}

/// A client with this pipeline that must notice nothing.
async fn healthy(echo: &Echo, pipeline: Pipeline) -> Healthy {
    Healthy::with(echo.url(), client(pipeline), Duration::from_millis(2)).await
}

/// Bombs, lies about the size, and headers that mean nothing: a clear error, and little memory.
#[tokio::test]
async fn what_would_burst_is_refused() {
    let mut echo = echo(|builder| builder.pipeline(Pipeline::new())).await;
    let mut healthy = healthy(&echo, Pipeline::new()).await;
    let body = |algorithm: u8, size: u32, bytes: &[u8]| {
        [&[algorithm], &size.to_be_bytes()[..], bytes].concat()
    };
    // 8192 blocks of 128 KiB of the same byte: 1 GiB
    let mut zstd = b"\x28\xb5\x2f\xfd\x00\x58".to_vec();
    for n in 0..8192_u32 {
        let block = (128 * 1024) << 3 | 1 << 1 | u32::from(n == 8191);
        zstd.extend(&block.to_le_bytes()[..3]);
        zstd.push(0);
    }
    // a megabyte that becomes 255
    let lz4 = [&b"\x1fa\x01\x00"[..], &vec![0xff; 1 << 20], b"\0\0"].concat();
    // no message is two of anything, also where the size is right
    let frame_of_a = b"\x28\xb5\x2f\xfd\x20\x40\x03\x02\0a";
    let (stored, block) = (b"\x01\x02\0\xfd\xffhi", b"\x20hi");
    let gib = 1 << 30;
    let limit = 16 << 20;
    use ErrorKind::{MessageTooLarge, Protocol};
    let before = resident();
    for (name, frame_of, kind) in [
        ("zstd", body(3, gib, &zstd), MessageTooLarge),
        ("lz4", body(1, gib, &lz4), MessageTooLarge),
        ("deflate", body(2, gib, &vec![0; 1 << 20]), MessageTooLarge),
        ("zstd that lies", body(3, limit, &zstd), Protocol),
        ("lz4 that lies", body(1, limit, &lz4), Protocol),
        ("zstd that lies more", body(3, 10, &zstd), Protocol),
        ("lz4 that lies more", body(1, 10, &lz4), Protocol),
        ("few bytes, large size", body(1, limit, b"abc"), Protocol),
        ("no deflate", body(2, 100, &[0xff; 50]), Protocol),
        ("two of zstd", body(3, 128, &frame_of_a.repeat(2)), Protocol),
        ("two of deflate", body(2, 4, &stored.repeat(2)), Protocol),
        ("two of lz4", body(1, 4, &block.repeat(2)), Protocol),
        (
            "more behind zstd",
            body(3, 64, &[frame_of_a, &b"x"[..]].concat()),
            Protocol,
        ),
        (
            "more behind deflate",
            body(2, 2, &[stored, &b"x"[..]].concat()),
            Protocol,
        ),
        ("no size", vec![3, 0, 0], Protocol),
        ("unknown compression", body(4, 10, b"1234567890"), Protocol),
        ("more, unencrypted", vec![0x10, 1], Protocol),
        ("goodbye, unencrypted", vec![0x40], Protocol),
        (
            "too large, not compressed",
            vec![0; (16 << 20) + 2],
            MessageTooLarge,
        ),
    ] {
        let mut stream = by_hand(&echo).await;
        // it may be closed before all is read
        let _ = stream.write_all(&frame(b"\0first")).await;
        let _ = stream.write_all(&frame(&frame_of)).await;
        let error = echo.next_error().await;
        assert_eq!(error.kind(), kind, "{name}: {error}");
        let answer = within(read_frame(&mut stream)).await.unwrap();
        assert_eq!(answer.as_deref(), Some(&b"\0first"[..]), "{name}");
        drop(stream);
        echo.next_end().await;
        healthy.still_works().await;
    }
    // what they are two of would have been right
    let mut stream = by_hand(&echo).await;
    for (frame_of, message) in [
        (body(3, 64, frame_of_a), vec![b'a'; 64]),
        (body(2, 2, stored), b"hi".to_vec()),
        (body(1, 2, block), b"hi".to_vec()),
    ] {
        stream.write_all(&frame(&frame_of)).await.unwrap();
        let answer = within(read_frame(&mut stream)).await.unwrap().unwrap();
        assert!(answer == [&[0][..], &message].concat(), "{answer:?}");
    }
    // the test itself holds some of these frames; nothing was as large as what they claim
    let more = resident().saturating_sub(before);
    assert!(more < 160 << 20, "{more} bytes more");
    healthy.finish().await;
}

/// Many small frames that become large are decoded as they are handled, and not all that a read brings.
#[tokio::test]
async fn small_frames_that_become_large_are_not_piled_up() {
    const COUNT: u64 = 200;
    let (told, mut heard) = mpsc::unbounded_channel();
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .pipeline(Pipeline::new())
        .on_message(move |session, message| {
            let told = told.clone();
            async move {
                match message.len() {
                    0..100 => session.send(message).await,
                    size => {
                        // others go on meanwhile, and what has come stays
                        tokio::task::yield_now().await;
                        let _ = told.send(size);
                        Ok(())
                    }
                }
            }
        })
        .start();
    let server = server.await.unwrap();
    let url = server.listening()[0].to_string();
    let pause = Duration::from_millis(2);
    let healthy = Healthy::with(&url, client(Pipeline::new()), pause).await;
    // 32 blocks of 128 KiB of the same byte: 4 MiB in 134 bytes
    let mut zstd = b"\x28\xb5\x2f\xfd\x00\x58".to_vec();
    for n in 0..32_u32 {
        let block = (128 * 1024) << 3 | 1 << 1 | u32::from(n == 31);
        zstd.extend(&block.to_le_bytes()[..3]);
        zstd.push(0);
    }
    let size = 4_u32 << 20;
    let one = frame(&[&[3], &size.to_be_bytes()[..], &zstd].concat());
    let address = common::socket_address(&server.listening()[0]);
    let mut stream = TcpStream::connect(address).await.unwrap();
    let before = resident();
    let all = [frame(OFFER), one.repeat(COUNT as usize)].concat();
    stream.write_all(&all).await.unwrap();
    for _ in 0..COUNT {
        assert_eq!(within(heard.recv()).await, Some(size as usize));
    }
    let more = resident().saturating_sub(before);
    assert!(more < 160 << 20, "{more} bytes more, of {}", COUNT << 22);
    healthy.finish().await;
}

/// Bytes that this process has held at most.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<usize>().ok());
    kib.unwrap_or(0) * 1024
}

/// Small and incompressible messages go as they are, and the receiver's `threshold` is its own matter.
#[tokio::test]
async fn what_does_not_get_smaller_goes_as_it_is() {
    for compression in compressions() {
        let pipeline = Pipeline::new().compress(compression).threshold(100);
        let server = echo(|builder| builder.pipeline(pipeline)).await;
        let mut stream = server.dial().await;
        let mut offer = *OFFER;
        offer[5] = 0x0e;
        stream.write_all(&frame(&offer)).await.unwrap();
        within(read_frame(&mut stream)).await.unwrap().unwrap();
        let algorithm = compression
            .algorithm()
            .map_or(0, |algorithm| algorithm as u8);
        for (message, header) in [
            (text(99), 0),
            (vec![b'a'; 99], 0),
            (vec![b'a'; 100], algorithm),
            (common::piped::noise(5000), 0),
            (text(50_000), algorithm),
        ] {
            let plain = [&[0], &message[..]].concat();
            stream.write_all(&frame(&plain)).await.unwrap();
            let back = within(read_frame(&mut stream)).await.unwrap().unwrap();
            assert_eq!(back[0], header, "{compression} {}", message.len());
            assert!(back.len() <= plain.len());
        }
        // and one who can decompress nothing gets nothing compressed
        let mut stream = by_hand(&server).await;
        let plain = [&[0], &text(50_000)[..]].concat();
        stream.write_all(&frame(&plain)).await.unwrap();
        assert!(within(read_frame(&mut stream)).await.unwrap().unwrap() == plain);
    }
}

/// Who connects and says nothing, or stops in the middle, is refused in time and has no memory.
#[tokio::test]
async fn a_handshake_that_does_not_come() {
    let timeout = Duration::from_millis(200);
    let mut echo = echo(|builder| builder.pipeline(psk()).handshake_timeout(timeout)).await;
    let healthy = healthy(&echo, psk()).await;
    for begin in [
        &b""[..],
        &frame(OFFER)[..10],
        &frame(b"NSP1c\x0e\x01\x000123456789abcdef"),
    ] {
        let mut silent = echo.dial().await;
        silent.write_all(begin).await.unwrap();
        let error = echo.next_error().await;
        assert_eq!(error.kind(), ErrorKind::ConnectionTimeout, "{error}");
        drop(silent);
    }
    let refused = echo.server.statistics().connections_refused;
    assert_eq!((refused["handshake_timeout"], refused["handshake"]), (3, 0));
    healthy.finish().await;
}

/// Who has not agreed yet cannot fill our memory: a frame is short, and one that is longer is not waited
/// for; and who was refused is not listened to for ever.
#[tokio::test]
async fn a_frame_that_is_too_long_for_a_handshake() {
    let mut echo = echo(|builder| builder.pipeline(psk())).await;
    let healthy = healthy(&echo, psk()).await;
    // behind an offer, too
    let offer = frame(b"NSP1c\x0e\x01\x000123456789abcdef");
    for before in [&b""[..], &offer] {
        let mut long = echo.dial().await;
        long.write_all(before).await.unwrap();
        long.write_all(&1025_u32.to_be_bytes()).await.unwrap();
        let (mut from, mut to) = long.into_split();
        let write = async {
            // it goes on, and is cut
            while to.write_all(&[0; 64 * 1024]).await.is_ok() {}
        };
        let (_, error, ()) = tokio::join!(read_to_end(&mut from), echo.next_error(), within(write));
        assert_eq!(error.kind(), ErrorKind::Handshake, "{error}");
    }
    // as long as may be is only no offer
    let mut stream = echo.dial().await;
    stream.write_all(&frame(&[0; 1024])).await.unwrap();
    stream.shutdown().await.unwrap();
    let error = echo.next_error().await.to_string();
    assert!(error.contains("offer"), "{error}");
    let refused = echo.server.statistics().connections_refused;
    assert_eq!(refused["handshake"], 3);
    healthy.finish().await;
}

/// Settings that cannot work are refused before anything is bound.
#[tokio::test]
async fn settings_that_cannot_work() {
    for (url, pipeline, words) in [
        ("tcp://127.0.0.1:0?framing=lines", psk(), "length-prefixed"),
        (
            "tcp://127.0.0.1:0",
            Pipeline::new().noise(Noise::psk("/no/such/key")),
            "/no/such/key",
        ),
        (
            "tcp://127.0.0.1:0?compress=zip",
            Pipeline::new(),
            "'zip' is no compression",
        ),
    ] {
        let server = Server::builder()
            .listen(url)
            .pipeline(pipeline)
            .start()
            .await;
        let error = server.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let config = ClientConfig::default();
    let plain = network_system::connect_with("tcp://127.0.0.1:1?pipeline=maybe", &config).await;
    assert!(plain.is_err_and(|error| error.kind() == ErrorKind::InvalidArgument));
    let echo = echo_on(&["tcp://127.0.0.1:0?pipeline=false"], |b| b.pipeline(psk())).await;
    let url = format!("tcp://{}", echo.address());
    round_trip(&mut connect(&url).await.unwrap(), b"plain").await;
}
