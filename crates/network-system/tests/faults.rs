//! Requests through a network that fails in every way: each ends with its reply or a clear error, in
//! time, and those who are elsewhere notice nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::faults::{Fault, Proxy};
use common::{Healthy, echo, socket_address, within};
use network_system::{Backoff, Client, ErrorKind, Server};
use tokio::time::Instant;

/// A server that answers each request with its text, and one for those who are elsewhere.
async fn server() -> Server {
    Server::builder()
        .listen("tcp://127.0.0.1:0?envelope=true")
        .on_request(|_, request| async move {
            let text = request.message().clone();
            request.reply(text).await
        })
        .start()
        .await
        .unwrap()
}

async fn client(proxy: &Proxy) -> Arc<Client> {
    let client = Client::builder(proxy.url())
        .reconnect(Backoff::every(Duration::from_millis(10)))
        .heartbeat(Duration::from_millis(100), 2)
        .connect();
    Arc::new(within(client).await.unwrap())
}

/// The deadline of each request.
const DEADLINE: Duration = Duration::from_millis(400);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_through_every_fault() {
    let server = server().await;
    let others = echo(|builder| builder).await;
    let mut healthy = Healthy::start(others.address()).await;
    let proxy = Proxy::start(socket_address(&server.listening()[0])).await;
    let faults = [
        Fault::Delay(Duration::from_millis(20)),
        Fault::Drip(Duration::from_millis(1)),
        Fault::HalfOpen,
        Fault::Cut,
        Fault::Reset,
        Fault::Drip(Duration::from_millis(100)),
    ];
    for fault in faults {
        proxy.set(Fault::None);
        let client = client(&proxy).await;
        let before = within(client.request_within("before", common::LIMIT)).await;
        assert_eq!(before.unwrap(), "before", "{fault:?}");
        // some are on their way when it happens
        let ask = |n: u32| {
            let client = client.clone();
            tokio::spawn(async move {
                let text = format!("request {n}");
                let began = Instant::now();
                let result = client.request_within(text.clone(), DEADLINE).await;
                (text, result, began.elapsed())
            })
        };
        let mut asked: Vec<_> = (0..20).map(ask).collect();
        proxy.set(fault);
        asked.extend((20..40).map(ask));
        let mut answered = 0;
        for asked in asked {
            let (text, result, took) = within(asked).await.unwrap();
            match result {
                Ok(reply) => {
                    assert_eq!(reply, text, "{fault:?}");
                    answered += 1;
                }
                Err(error) => {
                    let kinds = [
                        ErrorKind::Timeout,
                        ErrorKind::ConnectionClosed,
                        ErrorKind::SessionExpired,
                    ];
                    assert!(kinds.contains(&error.kind()), "{fault:?}: {error}");
                    assert!(error.code() < 0 && !error.to_string().is_empty());
                }
            }
            // as late as a busy machine may be
            assert!(
                took < DEADLINE + Duration::from_secs(5),
                "{fault:?}: {took:?}"
            );
        }
        if matches!(fault, Fault::Delay(_)) {
            assert_eq!(answered, 40, "{fault:?} only takes longer");
        }
        healthy.still_works().await;
        // and when the network is whole again, so is the client
        proxy.set(Fault::None);
        let again = within(async {
            loop {
                // the broken connection may be given up only now, and what was asked there with it
                match client.request_within("again", common::LIMIT).await {
                    Err(error) if error.kind() == ErrorKind::SessionExpired => {}
                    Err(error) if error.kind() == ErrorKind::ConnectionClosed => {}
                    again => return again,
                }
            }
        })
        .await;
        assert_eq!(again.unwrap(), "again", "{fault:?}");
    }
    healthy.finish().await;
}

/// The peer behind a cable that was pulled is given up by its heartbeat, on both sides.
#[tokio::test]
async fn a_half_open_connection_is_noticed_on_both_sides() {
    let (ended, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0?envelope=true")
        .heartbeat(Duration::from_millis(50), 2)
        .on_disconnect(move |_, reason| {
            let _ = ended.send(reason.label());
        })
        .start()
        .await
        .unwrap();
    let proxy = Proxy::start(socket_address(&server.listening()[0])).await;
    let client = client(&proxy).await;
    let session = client.session().unwrap();
    proxy.set(Fault::HalfOpen);
    within(session.ended()).await;
    assert_eq!(session.close_reason().unwrap().label(), "heartbeat");
    assert_eq!(within(ends.recv()).await.unwrap(), "heartbeat");
}

/// Connections overtake each other where one is slow; what belongs to one stays in order.
#[tokio::test]
async fn a_slow_connection_holds_no_other_up() {
    let server = server().await;
    let target = socket_address(&server.listening()[0]);
    let (slow, fast) = (Proxy::start(target).await, Proxy::start(target).await);
    let patient = Client::builder(slow.url()).connect();
    let (first, second) = (within(patient).await.unwrap(), client(&fast).await);
    slow.set(Fault::Delay(Duration::from_millis(200)));
    let late = tokio::spawn(async move {
        let reply = first.request_within("late", common::LIMIT).await;
        (reply.unwrap(), Instant::now())
    });
    for n in 0..20 {
        let text = format!("{n}");
        let reply = within(second.request(text.clone())).await.unwrap();
        assert_eq!(reply, text);
    }
    let overtaken = Instant::now();
    let (reply, at) = within(late).await.unwrap();
    assert_eq!(reply, "late");
    assert!(at > overtaken);
}
