//! A client for Autobahn's fuzzing server: an echo for each of its cases, one after the other. The
//! arguments are the server's URL, the name to report under, and whether to compress.

use std::time::Duration;

use network_system::config::{ClientConfig, Deflate, WebSocketConfig};
use network_system::{Connection, Error};

async fn dial(url: &str, deflate: bool) -> Result<Connection, Error> {
    let mut config = ClientConfig {
        websocket: WebSocketConfig {
            deflate: deflate.then(Deflate::default),
            ..WebSocketConfig::default()
        },
        ..ClientConfig::default()
    };
    // some cases are slow
    config.session.heartbeat.interval = None;
    config.session.max_message = 64 << 20;
    network_system::connect_with(url, &config).await
}

/// Sends everything back until the server closes, or breaks a rule, as it will.
async fn echo(url: &str, deflate: bool) -> Result<(), Error> {
    let mut connection = dial(url, deflate).await?;
    while let Ok(Some(message)) = connection.receive().await {
        connection.send(message).await?;
    }
    connection.close().await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, agent, deflate] = arguments.as_slice() else {
        return Err("arguments: URL AGENT true|false".into());
    };
    let deflate = deflate == "true";
    let mut connection = dial(&format!("{server}/getCaseCount"), false).await?;
    let count = connection.receive().await?.ok_or("no number of cases")?;
    let count: u32 = count.as_str().unwrap_or_default().parse()?;
    connection.close().await?;
    for case in 1..=count {
        let url = format!("{server}/runCase?case={case}&agent={agent}");
        // what is wrong with it the report tells
        let _ = tokio::time::timeout(Duration::from_secs(120), echo(&url, deflate)).await;
    }
    let mut connection = dial(&format!("{server}/updateReports?agent={agent}"), false).await?;
    while connection.receive().await?.is_some() {}
    Ok(connection.close().await?)
}
