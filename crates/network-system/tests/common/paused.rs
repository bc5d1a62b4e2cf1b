//! Peers under paused time: connections whose messages are bytes as they come, and whole seconds.

use std::time::Duration;

use network_system::{Connection, Message};
use tokio::time::Instant;

/// The greeting of the envelope in the default framing.
pub const HELLO: &[u8] = b"\0\0\0\x05\0NSE1";

/// The seconds since then.
pub fn seconds(since: Instant) -> u64 {
    // the timer's resolution is a millisecond, and it may be late by that
    (since.elapsed() + Duration::from_millis(500)).as_secs()
}

/// A connection whose messages are bytes as they come: a peer that does what the test says.
pub async fn raw(name: &str) -> Connection {
    let address = format!("{name}?framing=raw");
    network_system::connect(&address).await.unwrap()
}

/// The next bytes of a raw connection; `None` at the end.
pub async fn bytes(connection: &mut Connection) -> Option<Message> {
    connection.receive().await.unwrap()
}
