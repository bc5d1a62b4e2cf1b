//! Connections that are lent and come back, behind a circuit breaker, and requests over a few of them.
//!
//! Run it with `cargo run -p network-system --example pool`. It brings its own servers.

use std::time::Duration;

use network_system::prelude::*;
use network_system::{ConnectionPool, PoolConfig, RequestPool, RequestPoolConfig};

#[tokio::main]
async fn main() -> Result<()> {
    let echo = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .on_message(|session, message| async move { session.send(message).await })
        .start()
        .await?;
    let url = echo.listening()[0].to_string();

    let mut config = PoolConfig::default();
    config.max_per_address = 2;
    let pool = ConnectionPool::new(config)?;
    for n in 0..3 {
        // Returned when it is dropped, at the end of each turn.
        let mut lent = pool.acquire(&url).await?;
        let answer = lent.exchange(format!("hello {n}")).await?;
        println!("echo: {}", answer.as_str().unwrap_or("(bytes)"));
    }
    println!("connections made: {}", pool.statistics().created);
    pool.close(Duration::from_secs(1)).await;

    let answers = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .envelope(true)
        .on_request(|_session, request| async move { request.reply("an answer").await })
        .start()
        .await?;
    let url = answers.listening()[0].to_string();
    let requests = RequestPool::new([url], RequestPoolConfig::default())?;
    let answer = requests.request_idempotent("a question").await?;
    println!("answer: {}", answer.as_str().unwrap_or("(bytes)"));
    Ok(())
}
