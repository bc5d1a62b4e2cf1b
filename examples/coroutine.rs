//! The coroutine style: you own the connection and drive it with `receive` and `send`.
//!
//! Run it with `cargo run -p network-system --example coroutine`. Both ends are in it.

use network_system::{Connection, Result};

/// Sends every message back in capitals. What is sent is queued, and written when the loop would
/// wait for input: the answers to a burst of messages leave in one write.
async fn shout(mut connection: Connection) -> Result<u64> {
    while let Some(message) = connection.receive().await? {
        connection.send(message.to_ascii_uppercase()).await?;
    }
    Ok(connection.statistics().messages_in)
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut listener = network_system::listen("tcp://127.0.0.1:0").await?;
    let address = listener.local().to_string();
    let server = tokio::spawn(async move {
        let connection = listener.accept().await?;
        println!("accepted a {} connection", connection.info().scheme);
        shout(connection).await
    });

    // One task for both directions …
    let mut connection = network_system::connect(&address).await?;
    for word in ["one", "two", "three"] {
        connection.send(word).await?;
    }
    for _ in 0..3 {
        if let Some(message) = connection.receive().await? {
            println!("received {}", message.as_str().unwrap_or("(bytes)"));
        }
    }

    // … or two halves for two tasks.
    let (mut receiver, mut sender) = connection.split();
    let reader = tokio::spawn(async move {
        let mut count = 0;
        while receiver.receive().await?.is_some() {
            count += 1;
        }
        Ok::<u32, network_system::Error>(count)
    });
    for _ in 0..100 {
        sender.send("again").await?;
    }
    // says that nothing more comes; the server's loop ends, and with it the reader's
    sender.close().await?;
    let received = reader.await.expect("the reader does not panic")?;
    println!("received {received} more through two halves");

    let served = server.await.expect("the server does not panic")?;
    println!("the server has seen {served} messages");
    Ok(())
}
