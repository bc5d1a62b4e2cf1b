//! `run`, and the signals that end it. They go to the whole process, so this is the only test here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may
#![cfg(unix)]

mod common;

use std::sync::Arc;

use common::{LIMIT, within};
use network_system::config::ServerConfig;
use network_system::{CloseReason, Server};
use tokio::sync::{Notify, mpsc};

async fn terminate() {
    let pid = std::process::id().to_string();
    let mut kill = tokio::process::Command::new("kill");
    let status = kill.args(["-TERM", &pid]).status();
    assert!(within(status).await.unwrap().success());
}

/// The first signal lets connections finish; the second one does not wait for them any longer.
#[tokio::test]
async fn a_second_signal_cuts() {
    let (ended, mut ends) = mpsc::unbounded_channel();
    let entered = Arc::new(Notify::new());
    let enter = entered.clone();
    let config = ServerConfig {
        shutdown_timeout: 10 * LIMIT,
        ..ServerConfig::default()
    };
    let running = Server::builder()
        .config(config)
        .listen("memory://interrupts?envelope=true")
        .on_request(move |_, request| {
            enter.notify_one();
            async move {
                let _never_answered = request;
                std::future::pending::<()>().await
            }
        })
        .on_disconnect(move |_, reason| {
            let _ = ended.send(reason.clone());
        })
        .run();
    let running = tokio::spawn(running);
    let client = network_system::Client::builder("memory://interrupts?envelope=true");
    let client = client.reconnect(soon()).start().unwrap();
    let session = within(client.connected()).await.unwrap();
    let asking = {
        let session = session.clone();
        tokio::spawn(async move { session.request("never answered").await })
    };
    within(entered.notified()).await;
    terminate().await;
    common::eventually("the end is announced", || session.peer_is_leaving()).await;
    assert!(!running.is_finished());
    terminate().await;
    within(running).await.unwrap().unwrap();
    let reason = within(ends.recv()).await.unwrap();
    assert!(matches!(reason, CloseReason::Cut), "{reason:?}");
    asking.abort();
}

fn soon() -> network_system::Backoff {
    network_system::Backoff::every(std::time::Duration::from_millis(5))
}
