//! Handlers that panic, fail or refuse: only that connection ends, with the right reason, and the
//! events tell of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use common::{Healthy, ended, frame, read_to_end, round_trip, socket_address, within};
use network_system::{
    Client, CloseReason, Error, ErrorKind, Handler, Inbox, MessageRef, Request, Result, Server,
    Session,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Does what the message says, and reports every event.
struct Obedient {
    events: mpsc::UnboundedSender<(u64, String)>,
    connects: AtomicU64,
    panic_in_events: bool,
}

impl Obedient {
    fn tell(&self, session: &Session, event: impl Into<String>) {
        let _ = self.events.send((session.id(), event.into()));
    }

    async fn obey(&self, session: &Session, word: &str) -> Result<()> {
        match word {
            "panic" => panic!("as asked"),
            "panic later" => {
                tokio::task::yield_now().await;
                panic!("as asked, later")
            }
            "fail" => Err(Error::new(ErrorKind::NotFound, "do as asked")),
            "close" => {
                session.send("bye").await?;
                session.close("as asked");
                Ok(())
            }
            _ => session.send(word).await,
        }
    }
}

impl Handler for Obedient {
    async fn on_connect(&self, session: &Session) -> Result<()> {
        self.tell(session, "connect");
        match self.connects.fetch_add(1, Relaxed) {
            1000 => panic!("on_connect"),
            1001 => Err(Error::new(ErrorKind::PermissionDenied, "let you in")),
            _ => Ok(()),
        }
    }

    async fn on_message(&self, session: &Session, message: &MessageRef<'_>) -> Result<()> {
        self.obey(session, message.as_str().unwrap()).await
    }

    async fn on_request(&self, session: &Session, request: Request) -> Result<()> {
        let word = request.message().as_str().unwrap().to_owned();
        self.obey(session, &word).await
    }

    async fn on_disconnect(&self, session: &Session, reason: &CloseReason) {
        assert!(session.is_closed() && session.try_send("too late").is_err());
        self.tell(session, format!("disconnect {}", reason.label()));
        assert!(!self.panic_in_events, "on_disconnect panics");
    }

    fn on_error(&self, session: Option<&Session>, error: &Error) {
        self.tell(session.unwrap(), format!("error {}", error.code()));
        assert!(!self.panic_in_events, "on_error panics");
    }
}

struct Fixture {
    server: Server,
    handler: Arc<Obedient>,
    events: mpsc::UnboundedReceiver<(u64, String)>,
}

impl Fixture {
    async fn start(panic_in_events: bool, envelope: bool) -> Self {
        let (told, events) = mpsc::unbounded_channel();
        let handler = Arc::new(Obedient {
            events: told,
            connects: AtomicU64::new(0),
            panic_in_events,
        });
        let server = Server::builder()
            .listen("tcp://127.0.0.1:0")
            .envelope(envelope)
            .handler(handler.clone())
            .start()
            .await
            .unwrap();
        Self {
            server,
            handler,
            events,
        }
    }

    async fn dial(&self) -> TcpStream {
        let address = socket_address(&self.server.listening()[0]);
        within(TcpStream::connect(address)).await.unwrap()
    }

    /// The next events are these, of one session, and it is out of the table after the last.
    async fn expect(&mut self, events: &[&str]) {
        let mut id = None;
        for event in events {
            let (of, got) = within(self.events.recv()).await.unwrap();
            assert_eq!((of, got.as_str()), (*id.get_or_insert(of), *event));
        }
        if let Some(session) = self.server.sessions().get(id.unwrap())
            && events.last().is_some_and(|e| e.starts_with("disconnect"))
        {
            within(session.ended()).await;
            assert!(self.server.sessions().get(id.unwrap()).is_none());
        }
    }
}

#[tokio::test]
async fn a_message_that_ends_its_connection() {
    for panic_in_events in [false, true] {
        let mut fixture = Fixture::start(panic_in_events, false).await;
        let address = socket_address(&fixture.server.listening()[0]);
        let healthy = Healthy::start(address).await;
        fixture.expect(&["connect"]).await;
        let not_found = format!("error {}", ErrorKind::NotFound.code());
        let cases: [(&str, &[&str]); 4] = [
            ("panic", &["connect", "disconnect panicked"]),
            ("panic later", &["connect", "disconnect panicked"]),
            ("fail", &["connect", &not_found, "disconnect handler"]),
            ("close", &["connect", "disconnect requested"]),
        ];
        for (word, events) in cases {
            let mut stream = fixture.dial().await;
            round_trip(&mut stream, b"works").await;
            let mut both = frame(word.as_bytes());
            both.extend(frame(b"never handled"));
            stream.write_all(&both).await.unwrap();
            let (rest, _) = read_to_end(&mut stream).await;
            let bye = if word == "close" {
                frame(b"bye")
            } else {
                vec![]
            };
            assert_eq!(rest, bye, "{word}");
            drop(stream);
            fixture.expect(events).await;
        }
        for (label, count) in [("panicked", 2), ("handler", 1), ("requested", 1)] {
            assert_eq!(ended(&fixture.server, label), count, "{label}");
        }
        healthy.finish().await;
        fixture.expect(&["disconnect peer"]).await;
        assert_eq!(fixture.server.statistics().connections_active, 0);
        let report = within(fixture.server.shutdown(Duration::from_secs(5))).await;
        assert_eq!((report.sessions, report.cut), (0, 0));
    }
}

#[tokio::test]
async fn a_request_that_ends_its_connection() {
    let mut fixture = Fixture::start(false, true).await;
    let url = fixture.server.listening()[0].to_string();
    for (word, end) in [("panic", "panicked"), ("panic later", "panicked")] {
        let client = Client::builder(&url).envelope(true).connect();
        let client = within(client).await.unwrap();
        let error = within(client.session().unwrap().request(word)).await;
        // either the answer for a request that was dropped, or the end of the connection
        let kind = error.unwrap_err().kind();
        let fine = [ErrorKind::Internal, ErrorKind::ConnectionClosed];
        assert!(fine.contains(&kind), "{kind:?}");
        let disconnect = format!("disconnect {end}");
        fixture.expect(&["connect", &disconnect]).await;
        drop(client);
        // the client may have connected again before it was dropped
        while let Ok((_, event)) = fixture.events.try_recv() {
            assert!(["connect", "disconnect network", "disconnect peer"].contains(&&*event));
        }
    }
}

#[tokio::test]
async fn a_connection_that_is_not_let_in() {
    let mut fixture = Fixture::start(false, false).await;
    let healthy = Healthy::start(socket_address(&fixture.server.listening()[0])).await;
    fixture.expect(&["connect"]).await;
    for (connects, events, label) in [
        (1000, ["connect", "disconnect panicked"], "panicked"),
        (1001, ["connect", "disconnect refused"], "refused"),
    ] {
        fixture.handler.connects.store(connects, Relaxed);
        let mut stream = fixture.dial().await;
        let _ = stream.write_all(&frame(b"never handled")).await;
        let (rest, _) = read_to_end(&mut stream).await;
        assert!(rest.is_empty(), "{label}: {rest:?}");
        drop(stream);
        fixture.expect(&events).await;
        assert_eq!(ended(&fixture.server, label), 1);
    }
    let statistics = fixture.server.statistics();
    assert_eq!(statistics.connections_refused["refused"], 1);
    assert_eq!(
        statistics.connections_total, 3,
        "refused ones were accepted first"
    );
    healthy.finish().await;
}

#[tokio::test]
async fn what_a_refusing_handler_sends_arrives() {
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .on_connect(|session| {
            session.try_send("no room for you")?;
            Err::<(), _>(Error::new(ErrorKind::PermissionDenied, "let you in"))
        })
        .start()
        .await
        .unwrap();
    let address = socket_address(&server.listening()[0]);
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (rest, result) = read_to_end(&mut stream).await;
    assert!(result.is_ok());
    assert_eq!(rest, frame(b"no room for you"));
}

#[tokio::test]
async fn a_client_whose_handlers_panic_goes_on() {
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .on_connect(|session| session.try_send("panic"))
        .start()
        .await
        .unwrap();
    let (connected, mut connects) = mpsc::unbounded_channel();
    let client = Client::builder(server.listening()[0].as_str())
        .reconnect(network_system::Backoff::every(Duration::from_millis(5)))
        .on_connect(move |session| {
            let _ = connected.send(session.id());
        })
        .on_message(|_, message| async move { assert!(message.is_empty(), "on_message") })
        .on_disconnect(|_, _| panic!("on_disconnect"))
        .on_error(|_, _| panic!("on_error"))
        .start()
        .unwrap();
    let mut last = 0;
    for _ in 0..5 {
        let id = within(connects.recv()).await.unwrap();
        assert!(id > last);
        last = id;
    }
    // when nobody listens any more, on_error panics without a session
    within(server.shutdown(Duration::from_secs(5))).await;
    let mut states = client.watch();
    let failed = states.wait_for(|state| {
        matches!(state, network_system::ClientState::Waiting { failures, .. } if *failures >= 3)
    });
    within(failed).await.unwrap();
    within(client.close(Duration::from_secs(5))).await;
}

/// Takes messages by the batch, some at a time.
struct Batches {
    seen: mpsc::UnboundedSender<Vec<String>>,
    /// How many to take in one call.
    most: usize,
}

impl Handler for Batches {
    async fn on_message(
        &self,
        _: &Session,
        message: &MessageRef<'_>,
    ) -> network_system::Result<()> {
        panic!("{message:?} came alone");
    }

    async fn on_batch(
        &self,
        session: &Session,
        inbox: &mut Inbox<'_>,
    ) -> network_system::Result<()> {
        let mut seen = Vec::new();
        while seen.len() < self.most
            && let Some(message) = inbox.next()
        {
            seen.push(String::from_utf8_lossy(&message).into_owned());
            session.send(message).await?;
            if seen.last().is_some_and(|last| last == "stop") {
                session.close("told to");
            }
        }
        let _ = self.seen.send(seen);
        Ok(())
    }
}

#[tokio::test]
async fn messages_by_the_batch() {
    for (workers, envelope) in [(0, false), (1, false), (0, true)] {
        let (seen, mut batches) = mpsc::unbounded_channel();
        let server = Server::builder()
            .listen("tcp://127.0.0.1:0")
            .workers(workers)
            .envelope(envelope)
            .handler(Batches { seen, most: 3 })
            .start()
            .await
            .unwrap();
        let address = socket_address(&server.listening()[0]);
        let mut stream = TcpStream::connect(address).await.unwrap();
        let words = ["a", "b", "c", "d", "e", "f", "g", "stop", "never"];
        let wrap = |word: &str| match envelope {
            true => frame(&[b"\x10", word.as_bytes()].concat()),
            false => frame(word.as_bytes()),
        };
        let hello = if envelope {
            &b"\0\0\0\x05\0NSE1"[..]
        } else {
            b""
        };
        let all: Vec<u8> = words.iter().flat_map(|word| wrap(word)).collect();
        stream.write_all(&[hello, &all].concat()).await.unwrap();
        let mut taken = Vec::new();
        while taken.last().is_none_or(|last| last != "stop") {
            let batch = within(batches.recv()).await.unwrap();
            assert!(batch.len() <= if envelope { 1 } else { 3 }, "{batch:?}");
            taken.extend(batch);
        }
        assert_eq!(taken, words[..8], "in order, and nothing after the close");
        let (_, end) = read_to_end(&mut stream).await;
        assert!(end.is_ok());
        let report = within(server.shutdown(common::LIMIT)).await;
        assert_eq!(report.statistics.messages_in, 8, "{workers} {envelope}");
        assert!(batches.try_recv().is_err(), "nothing after the close");
    }
}

/// Takes nothing.
struct Lazy;

impl Handler for Lazy {
    async fn on_message(&self, _: &Session, _: &MessageRef<'_>) -> Result<()> {
        Ok(())
    }

    async fn on_batch(&self, _: &Session, _: &mut Inbox<'_>) -> Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_handler_that_takes_nothing_is_not_called_for_ever() {
    for (workers, envelope) in [(0, false), (1, false), (0, true)] {
        let server = Server::builder()
            .listen("tcp://127.0.0.1:0")
            .workers(workers)
            .envelope(envelope)
            .handler(Lazy)
            .start()
            .await
            .unwrap();
        let address = socket_address(&server.listening()[0]);
        let mut stream = TcpStream::connect(address).await.unwrap();
        let message = match envelope {
            true => [frame(b"\0NSE1"), frame(b"\x10x")].concat(),
            false => frame(b"x"),
        };
        stream.write_all(&message).await.unwrap();
        let (_, end) = read_to_end(&mut stream).await;
        assert!(end.is_ok());
        common::eventually("counted", || ended(&server, "handler") == 1).await;
    }
}

/// A busy connection keeps its buffer, in which nothing may be found twice.
#[tokio::test]
async fn a_message_comes_once_while_a_handler_waits() {
    const HELLO: &[u8] = b"\0NSE1";
    for workers in [0, 1] {
        let (told, mut slow) = mpsc::unbounded_channel();
        let server = Server::builder()
            .listen("tcp://127.0.0.1:0")
            .workers(workers)
            .envelope(true)
            .on_message(move |session, message| {
                let told = told.clone();
                async move {
                    if message == "slow" {
                        let _ = told.send(());
                        for _ in 0..5 {
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                    }
                    session.send(message).await
                }
            })
            .start()
            .await
            .unwrap();
        let address = socket_address(&server.listening()[0]);
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(&frame(HELLO)).await.unwrap();
        let hello = within(common::read_frame(&mut stream)).await.unwrap();
        assert_eq!(hello.as_deref(), Some(HELLO));
        for text in [&[&b"\x10ping"[..]; 600][..], &[b"\x10slow", b"\x10ping"]].concat() {
            within(round_trip(&mut stream, text)).await;
        }
        within(slow.recv()).await.unwrap();
        assert!(slow.try_recv().is_err(), "{workers} workers");
        drop(stream);
        let report = within(server.shutdown(common::LIMIT)).await;
        assert_eq!(report.statistics.messages_in, 602, "{workers} workers");
    }
}
