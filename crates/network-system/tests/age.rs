//! Sessions that are as old as they may get: nothing that a client of ours has asked is lost, and a
//! plain peer gets the answers to what has come.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use common::{echo, ended, eventually, frame, read_frame, within};
use network_system::config::SessionLimits;
use network_system::{Backoff, Client, CloseReason, Request, Server};
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;

fn limits(age: Duration) -> SessionLimits {
    SessionLimits {
        max_age: Some(age),
        ..SessionLimits::default()
    }
}

/// A server with the envelope whose sessions get this old.
async fn ageing<F>(
    workers: usize,
    age: Duration,
    answer: impl Fn(Request) -> F + Send + Sync + 'static,
) -> Server
where
    F: Future<Output = ()> + Send + 'static,
{
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0?envelope=true")
        .workers(workers)
        .limits(limits(age))
        .on_request(move |_, request| {
            let answered = answer(request);
            async move {
                tokio::spawn(answered);
            }
        });
    server.start().await.unwrap()
}

async fn client(server: &Server) -> Arc<Client> {
    let client = Client::builder(server.listening()[0].as_str())
        .envelope(true)
        .reconnect(Backoff::every(Duration::from_millis(50)))
        .request_timeout(Duration::from_secs(20))
        .connect();
    Arc::new(within(client).await.unwrap())
}

/// Many requests are on their way whenever a session ends; each gets its own reply.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_to_age() {
    const ENDS: u64 = 6;
    for workers in [0, 2] {
        let server = ageing(workers, Duration::from_millis(300), |request| async move {
            // some answers come when the session has been told to end
            let wait = if request[0].is_multiple_of(16) { 20 } else { 0 };
            tokio::time::sleep(Duration::from_millis(wait)).await;
            let message = request.message().clone();
            request.reply(message).await.unwrap();
        })
        .await;
        let enough = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(AtomicU64::new(0));
        let mut tasks = Vec::new();
        let clients = [
            client(&server).await,
            client(&server).await,
            client(&server).await,
        ];
        for (n, client) in (0..).zip(&clients) {
            for task in 0..16 {
                let (client, enough, asked) = (client.clone(), enough.clone(), asked.clone());
                tasks.push(tokio::spawn(async move {
                    let mut round = 0_u64;
                    while !enough.load(Relaxed) {
                        let who = [round as u8, n, task];
                        let message = [&who[..], &round.to_be_bytes()].concat();
                        let reply = within(client.request(message.clone())).await;
                        let reply = reply.unwrap_or_else(|e| panic!("{n} {task} {round}: {e}"));
                        assert!(reply == message);
                        round += 1;
                    }
                    asked.fetch_add(round, Relaxed);
                }));
            }
        }
        eventually("sessions get old", || ended(&server, "max_age") >= ENDS).await;
        enough.store(true, Relaxed);
        for task in tasks {
            task.await.unwrap();
        }
        let statistics = server.statistics();
        assert!(asked.load(Relaxed) > 1000, "there was no load");
        assert_eq!(statistics.messages_dropped, 0);
        let all: u64 = statistics.connections_ended.values().sum();
        assert_eq!(statistics.connections_ended["max_age"], all);
    }
}

/// An answer that takes longer than all the quiet, and longer than an end may take otherwise, still
/// comes over the old session, while the client goes on with a new one.
#[tokio::test(start_paused = true)]
async fn an_answer_that_takes_its_time_is_waited_for() {
    let done = Arc::new(Notify::new());
    let wait = done.clone();
    let server = Server::builder()
        .listen("memory://ages-slowly?envelope=true")
        .limits(limits(Duration::from_secs(10)))
        .on_request(move |_, request| {
            let wait = wait.clone();
            async move {
                tokio::spawn(async move {
                    if *request.message() == "wait" {
                        wait.notified().await;
                    }
                    let _ = request.reply("done").await;
                });
            }
        })
        .start()
        .await
        .unwrap();
    let client = Client::builder("memory://ages-slowly").envelope(true);
    let client = Arc::new(client.connect().await.unwrap());
    let asking = client.clone();
    let asked =
        tokio::spawn(async move { asking.request_within("wait", Duration::from_secs(60)).await });
    // older than that by more than `close_timeout`, and less than `request_timeout`
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert!(!asked.is_finished());
    assert_eq!(client.request("new").await.unwrap(), "done");
    assert!(server.statistics().connections_total > 1);
    done.notify_one();
    assert_eq!(asked.await.unwrap().unwrap(), "done");
}

/// Whom nobody can tell is answered what has come, and then it is over.
#[tokio::test]
async fn a_plain_peer_is_answered_and_closed() {
    let mut echo = echo(|b| b.limits(limits(Duration::from_millis(200)))).await;
    let mut plain = echo.dial().await;
    let mut sent = 0_u32;
    loop {
        let message = sent.to_be_bytes();
        if plain.write_all(&frame(&message)).await.is_err() {
            break;
        }
        match within(read_frame(&mut plain)).await {
            Ok(Some(back)) => assert_eq!(back, message),
            // the message that was on its way at that moment
            Ok(None) | Err(_) => break,
        }
        sent += 1;
    }
    assert!(sent > 0);
    let reason = echo.next_end().await;
    assert!(matches!(reason, CloseReason::MaxAge), "{reason:?}");
    assert_eq!(echo.server.statistics().messages_dropped, 0);
}
