//! Many small messages as one batch, and large ones without a copy.
//!
//! Run it with `cargo run -p network-system --example batch_zero_copy`. Both ends are in it.

use std::time::Duration;

use bytes::Bytes;
use network_system::ZERO_COPY;
use network_system::prelude::*;
use tokio::sync::mpsc;

fn checksum(bytes: &[u8]) -> u64 {
    let step = |sum: u64, byte: &u8| sum.wrapping_mul(31).wrapping_add(u64::from(*byte));
    bytes.iter().fold(7, step)
}

#[tokio::main]
async fn main() -> Result<()> {
    let (arrivals, mut arrived) = mpsc::unbounded_channel();
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .on_message(move |_session, message| {
            let _ = arrivals.send(message);
            async {}
        })
        .start()
        .await?;
    let client = Client::builder(server.listening()[0].as_str())
        .connect()
        .await?;

    // One lock and one wake-up for all of them, and as few writes as the socket allows.
    let batch: MessageBatch = (0..1000).map(|n| format!("message {n}")).collect();
    let (messages, bytes) = (batch.len(), batch.bytes());
    client.send_batch(batch).await?;
    let mut received = 0;
    for _ in 0..messages {
        received += arrived.recv().await.map_or(0, |message| message.len());
    }
    println!("batch: {messages} messages, {bytes} bytes sent, {received} bytes received");

    // From ZERO_COPY bytes on, what is written is the buffer itself: the `Bytes` is shared, the
    // frame's length goes before it in the same vectored write.
    let payload: Bytes = (0..4_000_000_u32).map(|n| n as u8).collect();
    let message = Message::from(payload.clone());
    println!(
        "a message of {} bytes (zero copy from {ZERO_COPY}) shares its buffer: {}",
        message.len(),
        message.as_bytes().as_ptr() == payload.as_ptr(),
    );
    for _ in 0..5 {
        // five sends of one buffer; sending waits while the outbox (1 MiB) is full
        client.send(&message).await?;
    }
    let sum = checksum(&payload);
    let mut good = 0;
    for _ in 0..5 {
        let message = arrived.recv().await;
        good += u32::from(message.is_some_and(|message| checksum(&message) == sum));
    }
    println!("{good} of 5 large messages arrived with the right checksum");

    client.close(Duration::from_secs(1)).await;
    server.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
