//! Handlers whose calls run on a pool of threads: in order, bounded, and with every end in its place.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::sync::mpsc as blocking;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{ended, eventually, read_frame, round_trip, socket_address, within};
use network_system::threads::{self, ThreadPool, Threads};
use network_system::{
    Client, CloseReason, Error, ErrorKind, Handler, Inbox, MessageRef, Request, Result, Server,
    Session,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

fn on_a_pool() -> bool {
    let thread = std::thread::current();
    thread
        .name()
        .is_some_and(|name| name.starts_with("network-system-pool"))
}

/// Echoes, and waits where it is told to, without letting its thread go.
struct Worker {
    events: mpsc::UnboundedSender<String>,
    go: Mutex<blocking::Receiver<()>>,
}

impl Worker {
    fn new() -> (Self, mpsc::UnboundedReceiver<String>, blocking::Sender<()>) {
        let (events, seen) = mpsc::unbounded_channel();
        let (go, wait) = blocking::channel();
        let go_on = Mutex::new(wait);
        (Self { events, go: go_on }, seen, go)
    }

    fn tell(&self, event: impl Into<String>) {
        assert!(on_a_pool());
        let _ = self.events.send(event.into());
    }
}

impl Handler for Worker {
    async fn on_connect(&self, _: &Session) -> Result<()> {
        self.tell("connect");
        Ok(())
    }

    async fn on_message(&self, session: &Session, message: &MessageRef<'_>) -> Result<()> {
        assert!(on_a_pool());
        match message.as_str().unwrap() {
            "block" => {
                self.tell("blocks");
                let _ = self.go.lock().unwrap().recv();
                self.tell("goes on");
                session.send("went on").await
            }
            "sleep" => {
                self.tell("sleeps");
                tokio::time::sleep(Duration::from_millis(20)).await;
                session.send("slept").await
            }
            "panic" => panic!("as asked"),
            "fail" => Err(Error::new(ErrorKind::NotFound, "do as asked")),
            _ => session.send(message).await,
        }
    }

    async fn on_request(&self, _: &Session, request: Request) -> Result<()> {
        assert!(on_a_pool());
        let answer = format!("{} here", request.message().as_str().unwrap());
        request.reply(answer.as_str()).await
    }

    async fn on_disconnect(&self, session: &Session, reason: &CloseReason) {
        assert!(session.is_closed());
        self.tell(format!("disconnect {}", reason.label()));
    }
}

async fn serve(
    threads: usize,
) -> (
    Server,
    Arc<Threads>,
    mpsc::UnboundedReceiver<String>,
    blocking::Sender<()>,
) {
    let (worker, seen, go) = Worker::new();
    let pool = Arc::new(Threads::new(threads).unwrap());
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .handler(worker.on_pool(pool.clone()))
        .start()
        .await
        .unwrap();
    (server, pool, seen, go)
}

async fn dial(server: &Server) -> TcpStream {
    let address = socket_address(&server.listening()[0]);
    TcpStream::connect(address).await.unwrap()
}

#[tokio::test]
async fn the_order_of_each_session_is_kept() {
    within(async {
        let (server, pool, ..) = serve(4).await;
        let talk = async |name: usize| {
            let mut peer = dial(&server).await;
            let mut input = Vec::new();
            for i in 0..1000 {
                input.extend(common::frame(format!("{name} {i}").as_bytes()));
            }
            peer.write_all(&input).await.unwrap();
            for i in 0..1000 {
                let got = read_frame(&mut peer).await.unwrap().unwrap();
                assert_eq!(got, format!("{name} {i}").as_bytes());
            }
        };
        tokio::join!(talk(0), talk(1), talk(2), talk(3), talk(4), talk(5));
        let done = pool.statistics();
        assert!(done.completed >= 12 && done.panicked == 0 && done.refused == 0);
    })
    .await;
}

/// The server's only thread is the test's: were it blocked, nothing here would go on.
#[tokio::test]
async fn a_handler_that_blocks_leaves_the_others_alone() {
    within(async {
        let (server, _pool, mut seen, go) = serve(2).await;
        let (mut slow, mut quick) = (dial(&server).await, dial(&server).await);
        slow.write_all(&common::frame(b"block")).await.unwrap();
        while seen.recv().await.unwrap() != "blocks" {}
        round_trip(&mut quick, b"meanwhile").await;
        go.send(()).unwrap();
        assert_eq!(read_frame(&mut slow).await.unwrap().unwrap(), b"went on");
    })
    .await;
}

#[tokio::test]
async fn what_a_handler_awaits_keeps_no_thread() {
    within(async {
        let (server, _pool, mut seen, _go) = serve(1).await;
        let (mut slow, mut quick) = (dial(&server).await, dial(&server).await);
        slow.write_all(&common::frame(b"sleep")).await.unwrap();
        while seen.recv().await.unwrap() != "sleeps" {}
        round_trip(&mut quick, b"meanwhile").await;
        assert_eq!(read_frame(&mut slow).await.unwrap().unwrap(), b"slept");
    })
    .await;
}

#[tokio::test]
async fn a_peer_waits_while_its_messages_do() {
    within(async {
        let (server, pool, mut seen, go) = serve(2).await;
        let (mut peer, mut bystander) = (dial(&server).await, dial(&server).await);
        peer.write_all(&common::frame(b"block")).await.unwrap();
        while seen.recv().await.unwrap() != "blocks" {}
        // as much as the system takes, and the server has its turn: nothing of it is read
        let part = common::frame(&[b'x'; 60_000]);
        while peer.try_write(&part).is_ok() {}
        for _ in 0..10 {
            round_trip(&mut bystander, b"meanwhile").await;
        }
        assert_eq!(pool.statistics().queued, 0);
        assert!(server.statistics().bytes_in < 1000);
        go.send(()).unwrap();
    })
    .await;
}

#[tokio::test]
async fn panics_and_errors_end_their_own_session() {
    within(async {
        let (server, pool, mut seen, _go) = serve(1).await;
        let mut bystander = dial(&server).await;
        for (word, label) in [("panic", "panicked"), ("fail", "handler")] {
            let mut peer = dial(&server).await;
            peer.write_all(&common::frame(word.as_bytes()))
                .await
                .unwrap();
            assert!(read_frame(&mut peer).await.ok().flatten().is_none());
            let end = format!("disconnect {label}");
            while seen.recv().await.unwrap() != end {}
            eventually("counted", || ended(&server, label) == 1).await;
            round_trip(&mut bystander, b"still here").await;
        }
        assert_eq!(pool.statistics().panicked, 0, "it goes to its connection");
    })
    .await;
}

#[tokio::test]
async fn the_end_comes_after_a_call_that_was_abandoned() {
    within(async {
        let (server, _pool, mut seen, go) = serve(2).await;
        let mut peer = dial(&server).await;
        peer.write_all(&common::frame(b"block")).await.unwrap();
        assert_eq!(seen.recv().await.unwrap(), "connect");
        assert_eq!(seen.recv().await.unwrap(), "blocks");
        let session = common::only_session(server.sessions()).await;
        session.abort();
        eventually("ended", || session.is_closed()).await;
        // a thread is free for the end, but it is not its turn
        assert!(seen.try_recv().is_err());
        go.send(()).unwrap();
        assert_eq!(seen.recv().await.unwrap(), "goes on");
        assert_eq!(seen.recv().await.unwrap(), "disconnect cut");
    })
    .await;
}

#[tokio::test]
async fn a_pool_that_has_stopped_takes_no_more() {
    within(async {
        let (server, pool, ..) = serve(1).await;
        let mut peer = dial(&server).await;
        round_trip(&mut peer, b"before").await;
        pool.stop();
        peer.write_all(&common::frame(b"after")).await.unwrap();
        assert!(read_frame(&mut peer).await.ok().flatten().is_none());
        eventually("counted", || ended(&server, "handler") == 1).await;
        let late = threads::run(&pool, || ()).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::NotInitialized);
    })
    .await;
}

/// Sums what came with one read and answers once, and has no other way.
struct Sums;

impl Handler for Sums {
    async fn on_message(&self, _: &Session, _: &MessageRef<'_>) -> Result<()> {
        panic!("all come by the batch")
    }

    async fn on_batch(&self, session: &Session, inbox: &mut Inbox<'_>) -> Result<()> {
        assert!(on_a_pool());
        inbox.each(session, |message, outgoing| outgoing.send(message))
    }
}

#[tokio::test]
async fn batches_and_workers() {
    within(async {
        let pool: Arc<dyn ThreadPool> = Arc::new(Threads::new(2).unwrap());
        let server = Server::builder()
            .listen("tcp://127.0.0.1:0")
            .handler(Sums.on_pool(pool))
            .workers(2)
            // far less than is sent: `each` stops where it is full
            .outbox(4096, 1024)
            .start()
            .await
            .unwrap();
        let peer = dial(&server).await;
        let (mut input, mut output) = peer.into_split();
        let send = async {
            for i in 0..20_000_u32 {
                let message = common::frame(&i.to_be_bytes());
                output.write_all(&message).await.unwrap();
            }
        };
        let receive = async {
            for i in 0..20_000_u32 {
                let got = read_frame(&mut input).await.unwrap().unwrap();
                assert_eq!(got, i.to_be_bytes());
            }
        };
        tokio::join!(send, receive);
    })
    .await;
}

#[tokio::test]
async fn requests_and_clients() {
    within(async {
        let (worker, ..) = Worker::new();
        let server = Server::builder()
            .listen("tcp://127.0.0.1:0?envelope=true")
            .handler(worker.on_pool(Threads::new(1).unwrap()))
            .start()
            .await
            .unwrap();
        let (worker, mut seen, _go) = Worker::new();
        let client = Client::builder(server.listening()[0].to_string())
            .envelope(true)
            .handler(worker)
            .thread_pool(Threads::new(1).unwrap())
            .start()
            .unwrap();
        let reply = client.request("who").await.unwrap();
        assert_eq!(reply.as_str().unwrap(), "who here");
        let session = common::only_session(server.sessions()).await;
        let reply = session.request("you").await.unwrap();
        assert_eq!(reply.as_str().unwrap(), "you here");
        client.close(Duration::from_secs(5)).await;
        assert_eq!(seen.recv().await.unwrap(), "connect");
        assert!(seen.recv().await.unwrap().starts_with("disconnect"));
    })
    .await;
}

/// What waits for a thread when its session is cut is never called, and the end is.
#[tokio::test]
async fn a_session_that_is_cut_while_its_call_waits() {
    within(async {
        let (server, pool, mut seen, go) = serve(1).await;
        let mut cut = dial(&server).await;
        round_trip(&mut cut, b"before").await;
        let session = common::only_session(server.sessions()).await;
        let mut blocks = dial(&server).await;
        blocks.write_all(&common::frame(b"block")).await.unwrap();
        while seen.recv().await.unwrap() != "blocks" {}
        cut.write_all(&common::frame(b"sleep")).await.unwrap();
        eventually("it waits", || pool.statistics().queued == 1).await;
        session.abort();
        eventually("ended", || session.is_closed()).await;
        go.send(()).unwrap();
        assert_eq!(seen.recv().await.unwrap(), "goes on");
        assert_eq!(seen.recv().await.unwrap(), "disconnect cut");
        assert_eq!(read_frame(&mut blocks).await.unwrap().unwrap(), b"went on");
        eventually("all done", || pool.statistics().queued == 0).await;
    })
    .await;
}
