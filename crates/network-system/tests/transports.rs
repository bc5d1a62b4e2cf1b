//! What a handler is promised, over every reliable transport: one suite, and one table of transports.
#![cfg(all(
    feature = "compression",
    feature = "grpc",
    feature = "noise",
    feature = "tls"
))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use common::pki::Pki;
use common::{Builder, Echo, ended, eventually, only_session, within};
use network_system::config::{ClientConfig, Compression, Noise, Pipeline};
use network_system::{
    Client, Connection, Error, ErrorKind, Message, Server, ServerState, connect_with,
};
use tempfile::TempDir;
use tokio::sync::{Notify, mpsc};

/// One row of the table: where a server listens, and what both sides need to agree.
struct Transport {
    listen: String,
    client: ClientConfig,
    pki: Option<(Pki, common::pki::Pair)>,
    pipeline: Option<Pipeline>,
    /// How many connections one session counts as: those of HTTP count, too.
    places: u64,
    /// What a client speaks, where the address does not say it.
    speaks: Option<&'static str>,
    _folder: Option<TempDir>,
}

impl Transport {
    fn at(listen: impl Into<String>) -> Self {
        Self {
            listen: listen.into(),
            client: ClientConfig::default(),
            pki: None,
            pipeline: None,
            places: 1,
            speaks: None,
            _folder: None,
        }
    }

    fn tcp() -> Self {
        Self::at("tcp://127.0.0.1:0")
    }

    #[cfg(unix)]
    fn unix() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        Self {
            _folder: Some(folder),
            ..Self::at(format!("unix://{}", path.display()))
        }
    }

    fn memory() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self::at(format!(
            "memory://transports-{}",
            NEXT.fetch_add(1, Relaxed)
        ))
    }

    fn tls() -> Self {
        let pki = Pki::new();
        let pair = pki.issue(&["localhost", "127.0.0.1"]);
        let mut row = Self::at("tls://127.0.0.1:0");
        row.client.tls = pki.client();
        row.pki = Some((pki, pair));
        row
    }

    fn grpc() -> Self {
        let mut row = Self::at("grpc://127.0.0.1:0");
        row.places = 2;
        row
    }

    fn grpcs() -> Self {
        let mut row = Self::tls();
        row.listen = "grpcs://127.0.0.1:0".to_owned();
        row.places = 2;
        row
    }

    fn ws() -> Self {
        Self::at("ws://127.0.0.1:0")
    }

    fn wss() -> Self {
        Self {
            listen: "wss://127.0.0.1:0".to_owned(),
            ..Self::tls()
        }
    }

    /// One port for all, with TLS for whom wants it.
    fn auto(speaks: &'static str, places: u64) -> Self {
        Self {
            listen: "auto://127.0.0.1:0".to_owned(),
            speaks: Some(speaks),
            places,
            ..Self::tls()
        }
    }

    fn auto_tcp() -> Self {
        Self::auto("tcp", 1)
    }

    fn auto_tls() -> Self {
        Self::auto("tls", 1)
    }

    fn auto_ws() -> Self {
        Self::auto("ws", 1)
    }

    fn auto_wss() -> Self {
        Self::auto("wss", 1)
    }

    fn auto_grpc() -> Self {
        Self::auto("grpc", 2)
    }

    fn auto_grpcs() -> Self {
        Self::auto("grpcs", 2)
    }

    fn piped() -> Self {
        let pipeline = || {
            Pipeline::new()
                .compress(Compression::Lz4)
                .noise(Noise::psk([7; 32]))
        };
        let mut row = Self::tcp();
        row.client.session.pipeline = Some(pipeline());
        row.pipeline = Some(pipeline());
        row
    }

    fn builder(&self) -> Builder {
        let mut builder = Server::builder().listen(&*self.listen);
        if let Some((_, pair)) = &self.pki {
            builder = builder.tls(pair.server());
        }
        if let Some(pipeline) = &self.pipeline {
            builder = builder.pipeline(pipeline.clone());
        }
        builder
    }

    /// Where a client connects to.
    fn url(&self, server: &Server) -> String {
        let address = server.listening()[0].as_str();
        match self.speaks {
            None => address.to_owned(),
            Some(scheme) => address.replacen("auto", scheme, 1),
        }
    }

    async fn echo(&self, configure: impl FnOnce(Builder) -> Builder) -> Echo {
        common::echo_on(&[], |_| configure(self.builder())).await
    }

    async fn dial(&self, server: &Server) -> Connection {
        within(connect_with(&self.url(server), &self.client))
            .await
            .unwrap()
    }

    /// A client with the envelope.
    fn client(&self, server: &Server) -> Client {
        let mut config = self.client.clone();
        config.session.envelope = true;
        Client::builder(self.url(server))
            .config(config)
            .on_request(|_, request| async move {
                let answer = [b"client ", request.message().as_bytes()].concat();
                request.reply(answer).await
            })
            .start()
            .unwrap()
    }
}

/// Bytes that do not get smaller by compression.
fn pattern(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut byte = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    (0..size).map(|_| byte()).collect()
}

async fn receive(connection: &mut Connection) -> Message {
    within(connection.receive()).await.unwrap().unwrap()
}

/// Until the end of what comes; an error is one, too.
async fn drain(connection: &mut Connection) -> usize {
    let mut n = 0;
    while let Ok(Some(_)) = within(connection.receive()).await {
        n += 1;
    }
    n
}

/// Whole, in order, of every size.
async fn echo(row: Transport) {
    let echo = row.echo(|b| b).await;
    let mut connection = row.dial(&echo.server).await;
    for (seed, size) in [0, 1, 64, 65, 4000, 8192, 70_000, 1 << 20]
        .into_iter()
        .enumerate()
    {
        let message = pattern(size, seed as u64);
        connection.send(message.clone()).await.unwrap();
        assert_eq!(receive(&mut connection).await.as_bytes(), message, "{size}");
    }
    for seed in 0..1000 {
        connection.feed(pattern(seed as usize, seed)).unwrap();
    }
    for seed in 0..1000 {
        let expected = pattern(seed as usize, seed);
        assert_eq!(receive(&mut connection).await.as_bytes(), expected);
    }
    within(connection.close()).await.unwrap();
}

async fn broadcast(row: Transport) {
    let server = row
        .builder()
        .on_message(|session, message| async move {
            session.sessions().broadcast(message);
        })
        .start()
        .await
        .unwrap();
    let mut all = Vec::new();
    for _ in 0..5 {
        all.push(row.dial(&server).await);
    }
    eventually("all there", || server.sessions().len() == 5).await;
    for i in 0..5_u64 {
        let message = pattern(20_000, i);
        let speaker = &mut all[i as usize];
        speaker.send(message.clone()).await.unwrap();
        speaker.flush().await.unwrap();
        for connection in &mut all {
            assert_eq!(receive(connection).await.as_bytes(), message);
        }
    }
}

async fn request(row: Transport) {
    let server = row
        .builder()
        .envelope(true)
        .on_request(|_, request| async move {
            match request.message().as_bytes() {
                b"fail" => request.fail(-7, "as asked"),
                b"hang" => std::mem::forget(request),
                word => {
                    let answer = [b"server ", word].concat();
                    let _ = request.reply(answer).await;
                }
            }
        })
        .start()
        .await
        .unwrap();
    let client = row.client(&server);
    let reply = within(client.request("a")).await.unwrap();
    assert_eq!(reply.as_bytes(), b"server a");
    let error = within(client.request("fail")).await.unwrap_err();
    assert_eq!(error.remote_code(), Some(-7));
    let session = only_session(server.sessions()).await;
    let reply = within(session.request("b")).await.unwrap();
    assert_eq!(reply.as_bytes(), b"client b");
    let late = Duration::from_millis(20);
    let error = within(client.request_within("hang", late))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let large = pattern(300_000, 1);
    let reply = within(client.request(large.clone())).await.unwrap();
    assert_eq!(reply.as_bytes()[7..], large);
    within(client.close(Duration::from_secs(5))).await;
}

/// A peer that does not read holds up whoever sends to it, within bounds, and nobody else.
async fn backpressure(row: Transport) {
    const SIZE: usize = 10_000;
    const HIGH: usize = 100_000;
    let sent = Arc::new(AtomicU64::new(0));
    let counted = sent.clone();
    let server = row
        .builder()
        .outbox(HIGH, HIGH / 2)
        .on_message(move |session, message| {
            let sent = counted.clone();
            async move {
                if message.as_bytes() != b"flood" {
                    return session.send(message).await;
                }
                for seed in 0..3000 {
                    session.send(pattern(SIZE, seed)).await?;
                    sent.fetch_add(1, Relaxed);
                }
                Ok(())
            }
        })
        .start()
        .await
        .unwrap();
    let mut slow = row.dial(&server).await;
    slow.send("flood").await.unwrap();
    slow.flush().await.unwrap();
    let session = only_session(server.sessions()).await;
    eventually("full", || session.queued_bytes() > HIGH / 2).await;
    let mut quick = row.dial(&server).await;
    for seed in 0..20 {
        quick.send(pattern(100, seed)).await.unwrap();
        assert_eq!(receive(&mut quick).await.as_bytes(), pattern(100, seed));
        let queued = session.queued_bytes();
        assert!(queued <= HIGH + 2 * SIZE, "{queued}");
    }
    assert!(sent.load(Relaxed) < 3000, "the flood was held up");
    for seed in 0..3000 {
        assert_eq!(receive(&mut slow).await.as_bytes(), pattern(SIZE, seed));
    }
}

async fn limits(row: Transport) {
    let mut echo = row
        .echo(|b| b.max_message(1000).max_connections(2 * row.places as usize))
        .await;
    let mut good = row.dial(&echo.server).await;
    let mut bad = row.dial(&echo.server).await;
    eventually("both", || echo.server.sessions().len() == 2).await;
    // the third may be told at once, or when it uses its connection
    let url = row.url(&echo.server);
    let third = async {
        let mut third = connect_with(&url, &row.client).await?;
        third.send("hello").await?;
        third.receive().await?.ok_or_else(closed)
    };
    assert!(within(third).await.is_err());
    let refused = echo.server.statistics().connections_refused;
    assert_eq!(refused["max_connections"], 1);
    bad.send(pattern(1001, 1)).await.unwrap();
    let _ = bad.flush().await;
    assert_eq!(drain(&mut bad).await, 0);
    assert_eq!(echo.next_end().await.label(), "protocol");
    good.send(pattern(1000, 1)).await.unwrap();
    assert_eq!(receive(&mut good).await.len(), 1000);
}

fn closed() -> Error {
    Error::new(ErrorKind::ConnectionClosed, "receive")
}

/// What was asked before the end is answered; the report says so.
async fn drains(row: Transport) {
    let asked = Arc::new(Notify::new());
    let hold = Arc::new(Notify::new());
    let (asks, holds) = (asked.clone(), hold.clone());
    let server = row
        .builder()
        .envelope(true)
        .on_request(move |_, request| {
            let (asks, holds) = (asks.clone(), holds.clone());
            async move {
                asks.notify_one();
                holds.notified().await;
                request.reply("late").await
            }
        })
        .start()
        .await
        .unwrap();
    let client = row.client(&server);
    let answer = client.request("question");
    let drain = async {
        asked.notified().await;
        let state = server.watch();
        let release = async {
            let mut state = state;
            let draining = |state: &ServerState| !matches!(state, ServerState::Running);
            let _ = state.wait_for(draining).await;
            hold.notify_one();
        };
        tokio::join!(server.shutdown(Duration::from_secs(20)), release).0
    };
    let (answer, report) = within(async { tokio::join!(answer, drain) }).await;
    assert_eq!(answer.unwrap().as_bytes(), b"late");
    let places = row.places as usize;
    assert_eq!(
        (report.sessions, report.drained, report.cut),
        (places, places, 0),
        "{report:?}"
    );
}

async fn reasons(row: Transport) {
    let (told, mut reasons) = mpsc::unbounded_channel();
    let server = row
        .builder()
        .idle_timeout(Duration::from_millis(400))
        .on_message(|session, message| async move {
            match message.as_str() {
                Some("close") => session.close("as asked"),
                Some("panic") => panic!("as asked"),
                _ => return Err(Error::new(ErrorKind::NotFound, "do as asked")),
            }
            Ok(())
        })
        .on_disconnect(move |_, reason| {
            let _ = told.send(reason.label());
        })
        .start()
        .await
        .unwrap();
    for (word, label) in [
        ("close", "requested"),
        ("panic", "panicked"),
        ("fail", "handler"),
        ("", "peer"),
        ("wait", "idle"),
    ] {
        let mut connection = row.dial(&server).await;
        match word {
            "" => within(connection.close()).await.unwrap(),
            "wait" => assert_eq!(drain(&mut connection).await, 0),
            word => {
                connection.send(word).await.unwrap();
                assert_eq!(drain(&mut connection).await, 0);
            }
        }
        assert_eq!(within(reasons.recv()).await, Some(label));
        eventually("counted", || ended(&server, label) >= 1).await;
    }
}

async fn statistics(row: Transport) {
    let echo = row.echo(|b| b).await;
    for _ in 0..3 {
        let mut connection = row.dial(&echo.server).await;
        for seed in 0..100 {
            connection.send(pattern(500, seed)).await.unwrap();
            receive(&mut connection).await;
        }
        within(connection.close()).await.unwrap();
    }
    eventually("ended", || echo.ended("peer") == 3 * row.places).await;
    let all = echo.server.statistics();
    assert_eq!(
        (all.connections_total, all.connections_active),
        (3 * row.places, 0)
    );
    assert_eq!((all.messages_in, all.messages_out), (300, 300));
    assert_eq!((all.messages_dropped, all.queued_bytes), (0, 0));
    assert_eq!(all.latency.count, 300);
    if row.pipeline.is_none() {
        assert!(all.bytes_in >= 150_000 && all.bytes_out >= 150_000);
    }
}

/// The suite for each row of the table; what stands behind `owing` are transports on which a client has
/// to speak first, which not every test does.
macro_rules! table {
    ({$($(#[$only:meta])* $name:ident)*} owing {$($owing:ident)*}) => {
        $(
            $(#[$only])*
            mod $name {
                table!(@ $name: echo broadcast request backpressure limits drains reasons statistics);
            }
        )*
        $(
            mod $owing {
                table!(@ $owing: echo request backpressure drains statistics);
            }
        )*
    };
    (@ $name:ident: $($test:ident)*) => {$(
        #[tokio::test]
        async fn $test() {
            super::$test(super::Transport::$name()).await;
        }
    )*};
}

table! {
    {
        tcp
        tls
        #[cfg(unix)]
        unix
        memory
        piped
        ws
        wss
        grpc
        grpcs
        auto_ws
        auto_wss
        auto_grpc
        auto_grpcs
    }
    owing {
        auto_tcp
        auto_tls
    }
}
