//! The coroutine level: a connection that the test drives itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::time::Duration;

use bytes::{BufMut, Bytes};
use common::scripted::Scripted;
use common::{echo, frame, read_frame, within};
use network_system::wire::{Codec, Decoded, Frame, Payload, WireError};
use network_system::{Connection, ErrorKind, Framing, Server, ZERO_COPY};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

/// Polls once: what is ready, without waiting.
async fn now<T>(work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        result = work => Some(result),
        () = std::future::ready(()) => None,
    }
}

#[tokio::test]
async fn answers_to_one_read_leave_in_one_write() {
    let io = Scripted::default();
    let mut connection = io.connect(Framing::default());
    for burst in [1, 2, 100, 200] {
        let all: Vec<u8> = (0..burst).flat_map(|n| frame(&[n as u8; 50])).collect();
        io.give(&all);
        for _ in 0..burst {
            let message = connection.receive().await.unwrap().unwrap();
            assert_eq!(io.writes(), [], "not before there is nothing to do");
            connection.send(message).await.unwrap();
        }
        assert_eq!(io.writes(), []);
        assert!(
            now(connection.receive()).await.is_none(),
            "now it has to wait"
        );
        let writes = io.writes();
        assert_eq!(writes.len(), 1, "one write for {burst}");
        assert_eq!(writes[0].bytes, all);
    }
}

#[tokio::test]
async fn flush_and_feed() {
    let io = Scripted::default();
    let mut connection = io.connect(Framing::default());
    for n in 0..10 {
        connection.feed([n]).unwrap();
    }
    assert_eq!(io.writes(), []);
    connection.flush().await.unwrap();
    assert_eq!(io.writes().len(), 1);
    connection.flush().await.unwrap();
    assert_eq!(io.writes(), [], "nothing is left to write");

    // what a peer does not take is bounded here
    io.with(|script| script.room = Some(100));
    let error = loop {
        if let Err(error) = connection.feed(vec![0; 1000]) {
            break error;
        }
    };
    assert!(error.is_full(), "{error}");
    assert!(connection.statistics().queued_bytes <= 1 << 20);
    assert!(
        now(connection.send(vec![0; 1000])).await.is_none(),
        "send waits"
    );
    assert!(now(connection.flush()).await.is_none(), "and so does flush");
    io.with(|script| script.room = None);
    within(connection.flush()).await.unwrap();
    assert_eq!(connection.statistics().queued_bytes, 0);
    within(connection.send("again")).await.unwrap();
    within(connection.close()).await.unwrap();
    let bytes = io.writes().pop().unwrap().bytes;
    assert!(bytes.ends_with(&frame(b"again")));
}

#[tokio::test]
async fn large_messages_are_written_from_where_they_lie() {
    let io = Scripted::default();
    let mut connection = io.connect(Framing::default());
    for size in [ZERO_COPY, ZERO_COPY + 1, 500_000] {
        let bytes = Bytes::from(vec![7; size]);
        connection.send("before").await.unwrap();
        connection.send(bytes.clone()).await.unwrap();
        connection.send("behind").await.unwrap();
        connection.flush().await.unwrap();
        let writes = io.writes();
        assert_eq!(writes.len(), 1, "one vectored write");
        let given = (bytes.as_ptr() as usize, size);
        assert!(writes[0].slices.contains(&given), "{:?}", writes[0].slices);
        let all = [frame(b"before"), frame(&bytes), frame(b"behind")].concat();
        assert!(writes[0].bytes == all);
    }
    // small ones are not worth a slice of their own
    let bytes = Bytes::from(vec![7; ZERO_COPY - 1]);
    for _ in 0..10 {
        connection.send(bytes.clone()).await.unwrap();
    }
    connection.flush().await.unwrap();
    assert_eq!(io.writes()[0].slices.len(), 1);
}

/// A peer that takes a few bytes at a time, and sends that are given up meanwhile.
#[tokio::test]
async fn partial_writes_lose_nothing() {
    let io = Scripted::default();
    let mut connection = io.connect(Framing::default());
    let mut expected = Vec::new();
    for n in 0..200_usize {
        let message = vec![n as u8; (n * 997) % 20_000];
        expected.extend(frame(&message));
        io.with(|script| script.room = Some(n * 13 % 30_000));
        now(connection.send(message)).await;
        now(connection.flush()).await;
    }
    io.with(|script| script.room = None);
    within(connection.flush()).await.unwrap();
    let written: Vec<u8> = io
        .writes()
        .into_iter()
        .flat_map(|write| write.bytes)
        .collect();
    // a send that had to wait was given up, so compare what was taken: whole frames, in order
    let mut rest = &written[..];
    let mut wanted = &expected[..];
    let mut count = 0;
    while let Some(length) = rest.first_chunk::<4>() {
        let size = 4 + u32::from_be_bytes(*length) as usize;
        let (message, more) = rest.split_at(size);
        let at = wanted.windows(size).position(|window| window == message);
        wanted = &wanted[at.expect("in order") + size..];
        rest = more;
        count += 1;
    }
    assert!(rest.is_empty() && count > 100, "{count}");
}

#[tokio::test]
async fn the_end_of_a_stream() {
    let io = Scripted::default();
    let mut connection = io.connect(Framing::default());
    io.give(&frame(b"last"));
    io.end();
    assert_eq!(connection.receive().await.unwrap().unwrap(), "last");
    assert!(connection.receive().await.unwrap().is_none());
    assert!(connection.receive().await.unwrap().is_none(), "and again");

    let io = Scripted::default();
    let mut connection = io.connect(Framing::default());
    io.give(&frame(b"half")[..6]);
    io.end();
    let error = connection.receive().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReceiveFailed, "{error}");

    let io = Scripted::default();
    let mut connection = io.connect("lines".parse().unwrap());
    io.give(b"one\nlast line without an end");
    io.end();
    assert_eq!(connection.receive().await.unwrap().unwrap(), "one");
    let last = connection.receive().await.unwrap().unwrap();
    assert_eq!(last, "last line without an end");
    assert!(connection.receive().await.unwrap().is_none());
}

#[tokio::test]
async fn receive_may_be_given_up_at_any_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    let mut connection = network_system::connect(&url).await.unwrap();
    let (mut peer, _) = listener.accept().await.unwrap();
    peer.set_nodelay(true).unwrap();
    const COUNT: u32 = 500;
    let writing = tokio::spawn(async move {
        for n in 0..COUNT {
            let whole = frame(&[&n.to_be_bytes()[..], &[0; 30]].concat());
            for part in whole.chunks(11) {
                peer.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
        peer
    });
    let mut given_up = 0;
    for n in 0..COUNT {
        let message = loop {
            tokio::select! {
                message = connection.receive() => break message.unwrap().unwrap(),
                () = tokio::task::yield_now() => given_up += 1,
            }
        };
        assert_eq!(message[..4], n.to_be_bytes());
    }
    assert!(given_up > 100, "{given_up}");
    within(writing).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn halves_in_two_tasks() {
    const COUNT: u32 = 20_000;
    let echo = echo(|builder| builder).await;
    for _ in 0..3 {
        let connection = network_system::connect(echo.url()).await.unwrap();
        let (mut receiver, mut sender) = connection.split();
        let receiving = tokio::spawn(async move {
            for n in 0..COUNT {
                let message = within(receiver.receive()).await.unwrap().unwrap();
                assert_eq!(message[..4], n.to_be_bytes());
                assert_eq!(message.len(), 4 + (n % 300) as usize);
            }
            assert!(within(receiver.receive()).await.unwrap().is_none());
        });
        let sending = tokio::spawn(async move {
            for n in 0..COUNT {
                let message = [&n.to_be_bytes()[..], &vec![0; (n % 300) as usize]].concat();
                match n % 3 {
                    // goes out with the next one that is sent
                    0 if n + 1 < COUNT => sender.feed(message).unwrap(),
                    _ => within(sender.send(message)).await.unwrap(),
                }
            }
            within(sender.close()).await.unwrap();
        });
        within(sending).await.unwrap();
        within(receiving).await.unwrap();
    }
}

/// Both sides send as much as they can before they read what the other sends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn halves_at_full_load_both_ways() {
    const COUNT: u32 = 3000;
    let mut listener = network_system::listen("tcp://127.0.0.1:0").await.unwrap();
    let address = listener.local().to_string();
    let connecting = network_system::connect(&address);
    let (one, two) = tokio::join!(listener.accept(), connecting);
    let mut tasks = Vec::new();
    for connection in [one.unwrap(), two.unwrap()] {
        let (mut receiver, mut sender) = connection.split();
        tasks.push(tokio::spawn(async move {
            for n in 0..COUNT {
                let message = vec![n as u8; (n as usize * 31) % 30_000];
                within(sender.send(message)).await.unwrap();
            }
        }));
        tasks.push(tokio::spawn(async move {
            for n in 0..COUNT {
                let message = within(receiver.receive()).await.unwrap().unwrap();
                assert!(message == vec![n as u8; (n as usize * 31) % 30_000]);
            }
        }));
    }
    for task in tasks {
        within(task).await.unwrap();
    }
}

/// Messages of both sides that are larger than all buffers between them, sent before either reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_send_first_do_not_block_each_other() {
    let mut listener = network_system::listen("tcp://127.0.0.1:0").await.unwrap();
    let address = listener.local().to_string();
    let connecting = network_system::connect(&address);
    let (one, two) = tokio::join!(listener.accept(), connecting);
    let exchange = async |mut connection: Connection| {
        connection.send(vec![1; 16 << 20]).await.unwrap();
        let message = within(connection.receive()).await.unwrap().unwrap();
        assert_eq!(message.len(), 16 << 20);
        within(connection.flush()).await.unwrap();
    };
    tokio::join!(exchange(one.unwrap()), exchange(two.unwrap()));
}

/// Upper case on the wire, and a checksum behind each message.
#[derive(Debug)]
struct Shouting;

impl Codec for Shouting {
    fn decode(&self, input: &[u8], _examined: usize) -> Result<Decoded, WireError> {
        let Some((&length, rest)) = input.split_first() else {
            return Ok(Decoded::Incomplete { needed: 1 });
        };
        let needed = usize::from(length) + 2;
        let Some((&sum, body)) = rest.get(..needed - 1).and_then(<[u8]>::split_last) else {
            return Ok(Decoded::Incomplete { needed });
        };
        if body.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)) != sum {
            return Err(WireError::Invalid("the checksum is wrong".into()));
        }
        Ok(Decoded::Frame(Frame {
            payload: Payload::Owned(body.to_ascii_lowercase().into()),
            consumed: needed,
        }))
    }

    fn header(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
        let Ok(length) = u8::try_from(payload.len()) else {
            return Err(WireError::MessageTooLarge {
                length: payload.len() as u64,
                limit: 255,
            });
        };
        out.put_u8(length);
        Ok(())
    }

    fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
        self.header(payload, out)?;
        let body = payload.to_ascii_uppercase();
        out.put_slice(&body);
        out.put_u8(body.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)));
        Ok(())
    }

    fn is_transparent(&self) -> bool {
        false
    }

    fn max_message(&self) -> usize {
        255
    }
}

/// Finds messages for ever without taking a byte.
#[derive(Debug)]
struct Stuck(bool);

impl Codec for Stuck {
    fn decode(&self, _: &[u8], _examined: usize) -> Result<Decoded, WireError> {
        let payload = match self.0 {
            true => Payload::Owned(Bytes::new()),
            false => Payload::Range(0..0),
        };
        Ok(Decoded::Frame(Frame {
            payload,
            consumed: 0,
        }))
    }

    fn header(&self, _: &[u8], _: &mut Vec<u8>) -> Result<(), WireError> {
        Ok(())
    }

    fn max_message(&self) -> usize {
        255
    }
}

#[tokio::test]
async fn a_codec_that_takes_nothing_is_found_out() {
    for owned in [false, true] {
        let io = Scripted::default();
        let mut connection = io.connect(Framing::custom(Stuck(owned)));
        io.give(b"x");
        let error = connection.receive().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.to_string().contains("0 bytes"), "{error}");
    }
}

/// Writes a part of what it then refuses.
#[derive(Debug)]
struct Careless;

impl Codec for Careless {
    fn decode(&self, _: &[u8], _examined: usize) -> Result<Decoded, WireError> {
        Ok(Decoded::Incomplete { needed: 1 })
    }

    fn header(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
        out.put_slice(payload);
        match payload {
            b"bad" => Err(WireError::Invalid("it is bad".into())),
            _ => Ok(()),
        }
    }

    fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
        self.header(payload, out)
    }

    fn max_message(&self) -> usize {
        255
    }
}

#[tokio::test]
async fn what_a_codec_refuses_leaves_no_trace() {
    let io = Scripted::default();
    let mut connection = io.connect(Framing::custom(Careless));
    connection.send("one").await.unwrap();
    let error = connection.send("bad").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    connection.send("two").await.unwrap();
    connection.flush().await.unwrap();
    assert_eq!(io.writes().remove(0).bytes, b"onetwo");
}

#[tokio::test]
async fn a_codec_of_your_own() {
    let io = Scripted::default();
    let mut connection = io.connect(Framing::custom(Shouting));
    connection.send("hi").await.unwrap();
    connection.flush().await.unwrap();
    let written = io.writes().remove(0).bytes;
    assert_eq!(written, [2, b'H', b'I', b'H' + b'I']);
    io.give(&written);
    assert_eq!(connection.receive().await.unwrap().unwrap(), "hi");
    let error = connection.send(vec![0; 256]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MessageTooLarge);
    io.give(&[1, b'X', 0]);
    let error = connection.receive().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(
        error.to_string().contains("the checksum is wrong"),
        "{error}"
    );

    // and through a whole server, where a broadcast uses it too
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .framing(Framing::custom(Shouting))
        .on_message(|session, message| async move { session.send(message).await })
        .start()
        .await
        .unwrap();
    let address = common::socket_address(&server.listening()[0]);
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(&written).await.unwrap();
    let mut back = [0; 4];
    let read = tokio::io::AsyncReadExt::read_exact(&mut stream, &mut back);
    within(read).await.unwrap();
    assert_eq!(back, *written);
    let report = server.sessions().broadcast("hi");
    assert_eq!((report.queued, report.failed), (1, 0));
    let read = tokio::io::AsyncReadExt::read_exact(&mut stream, &mut back);
    within(read).await.unwrap();
    assert_eq!(back, *written);
    let report = server.sessions().broadcast(vec![0; 256]);
    assert_eq!((report.queued, report.failed), (0, 1));
}

#[tokio::test]
async fn numbers_of_a_connection() {
    let echo = echo(|builder| builder).await;
    let mut connection = network_system::connect(echo.url()).await.unwrap();
    for size in [0, 100, 10_000] {
        connection.send(vec![0; size]).await.unwrap();
        within(connection.receive()).await.unwrap().unwrap();
    }
    let statistics = connection.statistics();
    assert_eq!((statistics.messages_in, statistics.messages_out), (3, 3));
    assert_eq!(
        (statistics.bytes_in, statistics.bytes_out),
        (10_112, 10_112)
    );
    assert_eq!(statistics.queued_bytes, 0);
    assert!(statistics.age > Duration::ZERO);
}

#[tokio::test]
async fn a_connection_answers_pings_and_turns_requests_down() {
    let mut listener = network_system::listen("tcp://127.0.0.1:0?envelope=true")
        .await
        .unwrap();
    let address = common::socket_address(listener.local());
    let mut peer = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut connection = listener.accept().await.unwrap();
    let serving = tokio::spawn(async move {
        let message = connection.receive().await.unwrap().unwrap();
        assert!(connection.receive().await.unwrap().is_none());
        message
    });
    let ping = b"\x50\0\0\0\0\0\0\0\x07";
    let request = b"\x20\0\0\0\0\0\0\0\x08?";
    for payload in [&b"\0NSE1"[..], ping, request, b"\x10hello"] {
        peer.write_all(&frame(payload)).await.unwrap();
    }
    let mut next = async || within(read_frame(&mut peer)).await.unwrap().unwrap();
    assert_eq!(next().await, b"\0NSE1");
    assert_eq!(next().await, b"\x60\0\0\0\0\0\0\0\x07");
    let failure = next().await;
    assert!(
        failure.starts_with(b"\x40\0\0\0\0\0\0\0\x08"),
        "{failure:?}"
    );
    drop(peer);
    assert_eq!(within(serving).await.unwrap(), "hello");
}

/// The halves can be named, to keep them in structs of one's own.
#[tokio::test]
async fn the_halves_have_names() {
    struct Halves {
        receiver: network_system::ConnectionReceiver,
        sender: network_system::ConnectionSender,
    }
    let mut listener = network_system::listen("memory://halves").await.unwrap();
    let connection = network_system::connect("memory://halves").await.unwrap();
    let (receiver, sender) = connection.split();
    let mut halves = Halves { receiver, sender };
    let mut other = within(listener.accept()).await.unwrap();
    within(halves.sender.send("ask")).await.unwrap();
    let message = within(other.receive()).await.unwrap().unwrap();
    within(other.send(message)).await.unwrap();
    within(other.flush()).await.unwrap();
    let back = within(halves.receiver.receive()).await.unwrap();
    assert_eq!(back.unwrap(), "ask");
}

#[tokio::test]
async fn after_an_error_nothing_comes_again() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let mut connection = within(network_system::connect(&address)).await.unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    std::io::Write::write_all(&mut peer, &frame(b"once")).unwrap();
    let message = within(connection.receive()).await.unwrap().unwrap();
    assert_eq!(message, "once");
    let reset = socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO));
    reset.unwrap();
    drop(peer);
    assert!(within(connection.receive()).await.is_err());
    for _ in 0..2 {
        let again = within(connection.receive()).await;
        assert!(!matches!(again, Ok(Some(_))), "{again:?}");
    }
}
