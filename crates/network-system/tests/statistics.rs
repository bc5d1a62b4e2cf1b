//! Statistics add up exactly against what the other side did and saw.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::time::Duration;

use common::{echo, echo_on, eventually, only_session, read_frame, round_trip, within};
use network_system::config::ServerConfig;
use network_system::{Client, MessageBatch, OverflowPolicy, Server};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::sync::mpsc;

/// Peers that send known amounts, one for each worker and framing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_adds_up() {
    const PEERS: u64 = 12;
    const EACH: u64 = 300;
    for workers in [0, 2] {
        let mut echo = echo(|builder| builder.workers(workers)).await;
        let mut tasks = Vec::new();
        for peer in 0..PEERS {
            let mut stream = echo.dial().await;
            tasks.push(tokio::spawn(async move {
                let mut bytes = 0;
                for n in 0..EACH {
                    let size = ((n * 31 + peer) % 700) as usize;
                    within(round_trip(&mut stream, &vec![1; size])).await;
                    bytes += 4 + size as u64;
                }
                (stream, bytes)
            }));
        }
        let (mut streams, mut bytes) = (Vec::new(), 0);
        for task in tasks {
            let (stream, sent) = within(task).await.unwrap();
            streams.push(stream);
            bytes += sent;
        }
        // each connection counts a batch when it is written
        let counted = || echo.server.statistics().messages_out == PEERS * EACH;
        eventually("all are counted", counted).await;
        let of_sessions = echo
            .server
            .sessions()
            .all()
            .iter()
            .fold([0; 4], |sum, session| {
                let s = session.statistics();
                [
                    sum[0] + s.messages_in,
                    sum[1] + s.messages_out,
                    sum[2] + s.bytes_in,
                    sum[3] + s.bytes_out,
                ]
            });
        let statistics = echo.server.statistics();
        let expected = [PEERS * EACH, PEERS * EACH, bytes, bytes];
        assert_eq!(of_sessions, expected);
        assert_eq!(
            [
                statistics.messages_in,
                statistics.messages_out,
                statistics.bytes_in,
                statistics.bytes_out
            ],
            expected
        );
        assert_eq!(statistics.connections_active, PEERS);
        assert!(statistics.messages_in_per_second > 0.0);

        // five vanish, the rest say farewell, and some are told to go
        for stream in streams.drain(..5) {
            let socket = socket2::SockRef::from(&stream);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
        for _ in 0..5 {
            assert_eq!(echo.next_end().await.label(), "network");
        }
        let told = echo.server.sessions().all().remove(0);
        told.close("go");
        assert_eq!(echo.next_end().await.label(), "requested");
        drop(streams);
        for _ in 0..6 {
            assert_eq!(echo.next_end().await.label(), "peer");
        }
        let statistics = echo.server.statistics();
        assert_eq!(
            statistics.latency.count,
            PEERS * EACH,
            "one for each message"
        );
        let latency = statistics.latency;
        assert!(latency.p50 <= latency.p90 && latency.p90 <= latency.p99);
        assert!(latency.p99 <= latency.p999 && latency.p999 <= latency.max);
        assert!(latency.p50 > Duration::ZERO && latency.max < common::LIMIT);
        assert_eq!(
            (statistics.connections_active, statistics.connections_total),
            (0, PEERS)
        );
        let ended: Vec<_> = statistics.connections_ended.into_iter().collect();
        assert_eq!(ended, [("network", 5), ("peer", 6), ("requested", 1)]);
        assert_eq!(
            (statistics.messages_dropped, statistics.queued_bytes),
            (0, 0)
        );
    }
}

/// Both ends of the same connections count the same, whatever is sent how.
#[tokio::test]
async fn both_ends_agree() {
    let addresses = [
        "tcp://127.0.0.1:0",
        "tcp://127.0.0.1:0?envelope=true",
        "tcp://127.0.0.1:0?framing=lines",
        "memory://statistics?envelope=true&framing=varint",
    ];
    for address in addresses {
        let echo = echo_on(&[address], |builder| builder).await;
        let (back, mut came) = mpsc::unbounded_channel();
        let client = Client::builder(echo.url())
            .on_message(move |_, _| {
                let _ = back.send(());
                async {}
            })
            .connect();
        let client = within(client).await.unwrap();
        let session = client.session().unwrap();
        client.send("one").await.unwrap();
        let batch: MessageBatch = (0..500).map(|n| vec![b'x'; n * 50]).collect();
        within(client.send_batch(batch)).await.unwrap();
        for _ in 0..501 {
            within(came.recv()).await.unwrap();
        }
        if session.info().envelope {
            // turned down, and answered: a message each way
            within(client.request("?")).await.unwrap_err();
        }
        let messages = 501 + u64::from(session.info().envelope);
        let there = only_session(echo.server.sessions()).await;
        eventually("both have counted", || {
            let (here, there) = (session.statistics(), there.statistics());
            here.messages_in == messages && there.messages_out == messages
        })
        .await;
        let (here, there) = (session.statistics(), there.statistics());
        assert_eq!(
            (here.messages_out, there.messages_in),
            (messages, messages),
            "{address}"
        );
        assert_eq!(
            (here.bytes_out, here.bytes_in),
            (there.bytes_in, there.bytes_out)
        );
        let (client, server) = (client.statistics(), echo.server.statistics());
        assert_eq!(
            (client.messages_in, server.messages_in),
            (messages, messages)
        );
        assert_eq!(
            (client.messages_out, server.messages_out),
            (messages, messages)
        );
        assert_eq!(client.bytes_in, server.bytes_out);
        assert_eq!(
            (client.connections_active, client.connections_total),
            (1, 1)
        );
    }
}

/// A connection that is never idle is still counted, and not only at its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saturated_connection_is_counted_as_it_goes() {
    const SIZE: usize = 1000;
    const HIGH: usize = 256 * 1024;
    let mut config = ServerConfig::default();
    // so small that our queue never gets empty
    config.socket.send_buffer = Some(8 * 1024);
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .config(config)
        .outbox(HIGH, HIGH / 4)
        .on_connect(|session| {
            let session = session.clone();
            tokio::spawn(async move { while session.send(vec![7; SIZE]).await.is_ok() {} });
        })
        .start()
        .await
        .unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let address = common::socket_address(&server.listening()[0]);
    let mut stream = socket.connect(address).await.unwrap();
    let session = only_session(server.sessions()).await;
    for received in 1..=20_000_u64 {
        let message = within(read_frame(&mut stream)).await.unwrap().unwrap();
        assert_eq!(message.len(), SIZE);
        if received.is_multiple_of(1000) {
            // what is on its way, or only partly written, may be missing
            let missing = (2 * HIGH / SIZE) as u64;
            let counted = || server.statistics().messages_out + missing >= received;
            eventually("what was read is counted as written", counted).await;
            assert!(session.statistics().messages_out + missing >= received);
        }
    }
    let statistics = server.statistics();
    assert!(statistics.messages_out_per_second > 0.0);
    assert!(statistics.messages_dropped == 0 && statistics.queued_bytes > 0);
}

/// Of what was to be sent, each message was sent, dropped or rejected, also when the end is not in
/// order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_loses_no_count() {
    const COUNT: u64 = 3000;
    for policy in [OverflowPolicy::DropOldest, OverflowPolicy::DropNewest] {
        let configure = |b: common::Builder| b.outbox(200_000, 50_000).overflow(policy);
        let mut echo = echo(configure).await;
        let mut stream = echo.dial().await;
        let session = only_session(echo.server.sessions()).await;
        for _ in 0..COUNT {
            session.send(vec![0; 5000]).await.unwrap();
        }
        stream.write_all(&[0]).await.unwrap();
        let socket = socket2::SockRef::from(&stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
        drop(stream);
        assert_eq!(echo.next_end().await.label(), "network");
        let s = session.statistics();
        assert_eq!(s.messages_out + s.messages_dropped, COUNT, "{s:?}");
        let statistics = echo.server.statistics();
        assert_eq!(statistics.messages_dropped, s.messages_dropped);
        assert_eq!((s.queued_bytes, statistics.queued_bytes), (0, 0));
    }
}
