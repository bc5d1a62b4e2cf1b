//! Requests with replies, failures and deadlines, many at a time over one connection.
//!
//! Run it with `cargo run -p network-system --example request_response`. Both ends are in it.

use std::time::Duration;

use network_system::prelude::*;
use tokio::sync::mpsc;

/// Adds up numbers; `slow` is an exercise in patience.
async fn answer(request: Request, slow: mpsc::UnboundedSender<Request>) -> Result<()> {
    let text = request.as_str().unwrap_or_default().to_owned();
    if text == "slow" {
        // A request is a value: it can be answered later, by any task.
        let _ = slow.send(request);
        return Ok(());
    }
    let numbers: Result<Vec<i64>, _> = text.split_whitespace().map(str::parse).collect();
    match numbers {
        Ok(numbers) => request.reply(numbers.iter().sum::<i64>().to_string()).await,
        Err(error) => {
            request.fail(ErrorKind::InvalidArgument.code(), &error.to_string());
            Ok(())
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let (slow, mut waiting) = mpsc::unbounded_channel();
    let server = Server::builder()
        // Requests need the envelope, a header on each message; both sides turn it on.
        .listen("tcp://127.0.0.1:0?envelope=true")
        .on_request(move |_session, request| answer(request, slow.clone()))
        .start()
        .await?;

    let client = Client::builder(server.listening()[0].as_str())
        .request_timeout(Duration::from_secs(5))
        .connect()
        .await?;

    let sum = client.request("1 2 3").await?;
    println!("1 + 2 + 3 = {}", sum.as_str().unwrap_or("?"));

    // Many at once: each reply finds its request, in whatever order they come.
    let (a, b) = tokio::try_join!(client.request("10 20"), client.request("30 40"))?;
    println!(
        "{} and {}",
        a.as_str().unwrap_or("?"),
        b.as_str().unwrap_or("?")
    );

    // The peer's failure arrives as an error of the same kind.
    if let Err(error) = client.request("one two").await {
        println!("failed with code {}: {error}", error.code());
    }

    // No reply in time is an error too, and the connection lives on.
    if let Err(error) = client
        .request_within("slow", Duration::from_millis(100))
        .await
    {
        println!("failed with code {}: {error}", error.code());
    }
    // The answer to that one comes too late, and is dropped at the client.
    if let Some(request) = waiting.recv().await {
        request.reply("at last").await?;
    }
    let sum = client.request("4 5").await?;
    println!("4 + 5 = {}", sum.as_str().unwrap_or("?"));

    client.close(Duration::from_secs(1)).await;
    server.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
