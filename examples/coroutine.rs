//! The coroutine style: you own the connection and drive it with `receive` and `send`.
//!
//! Run it with `cargo run -p network-system --example coroutine`. Both ends are in it.

use network_system::{Connection, ConnectionListener, Result};

/// Sends every message back in capitals. What is sent is queued, and written when the loop would
/// wait for input: the answers to a burst of messages leave in one write.
async fn shout(mut connection: Connection) -> Result<u64> {
    while let Some(message) = connection.receive().await? {
        connection.send(message.to_ascii_uppercase()).await?;
    }
    Ok(connection.statistics().messages_in)
}

async fn serve_one(mut listener: ConnectionListener) -> Result<()> {
    let connection = listener.accept().await?;
    println!("accepted a {} connection", connection.info().scheme);
    let served = shout(connection).await?;
    println!("the server has seen {served} messages");
    Ok(())
}

async fn talk(address: &str) -> Result<()> {
    // One task for both directions …
    let mut connection = network_system::connect(address).await?;
    for word in ["one", "two", "three"] {
        connection.send(word).await?;
    }
    for _ in 0..3 {
        if let Some(message) = connection.receive().await? {
            println!("received {}", message.as_str().unwrap_or("(bytes)"));
        }
    }

    // … or two halves, for two tasks or two futures.
    let (mut receiver, mut sender) = connection.split();
    let reading = async {
        let mut count = 0;
        while receiver.receive().await?.is_some() {
            count += 1;
        }
        Ok(count)
    };
    let writing = async {
        for _ in 0..100 {
            sender.send("again").await?;
        }
        // says that nothing more comes: the server's loop ends, and with it the reading
        sender.close().await
    };
    let (received, ()) = tokio::try_join!(reading, writing)?;
    println!("received {received} more through two halves");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let listener = network_system::listen("tcp://127.0.0.1:0").await?;
    let address = listener.local().to_string();
    tokio::try_join!(serve_one(listener), talk(&address))?;
    Ok(())
}
