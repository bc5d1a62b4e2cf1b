//! Messages that are compressed and encrypted on their way, without TLS and its certificates: both sides
//! have a key and know the other's, and nobody else gets in.
//!
//! Run it with `cargo run -p network-system --example pipeline`. Both ends are in it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use network_system::config::{Compression, Noise, Pipeline, PublicKey};
use network_system::noise_key;
use network_system::prelude::*;

/// Makes a key, as `netsys noise-key` does: the private one goes into a file, the public one is for
/// the other side.
fn key(directory: &Path, name: &str) -> Result<(PathBuf, PublicKey)> {
    let (private, public) = noise_key()?;
    let file = directory.join(name);
    std::fs::write(&file, private.as_bytes())
        .map_err(|error| Error::from_io("write a key", error))?;
    Ok((file, public))
}

/// Compresses what has 256 bytes and more, then encrypts everything.
fn pipeline(key: &Path, peer: PublicKey) -> Pipeline {
    Pipeline::new()
        .compress(Compression::Zstd { level: 3 })
        .threshold(256)
        .noise(Noise::xx(key).peer(peer))
}

#[tokio::main]
async fn main() -> Result<()> {
    let directory =
        tempfile::tempdir().map_err(|error| Error::from_io("make a directory", error))?;
    let (server_key, server_public) = key(directory.path(), "server.key")?;
    let (client_key, client_public) = key(directory.path(), "client.key")?;
    let (stranger_key, _) = key(directory.path(), "stranger.key")?;

    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .pipeline(pipeline(&server_key, client_public))
        .envelope(true)
        .on_request(move |session, request| async move {
            // Who the peer is, by the key that it has proved to own.
            let noise = session
                .info()
                .pipeline
                .as_ref()
                .and_then(|p| p.noise.as_ref());
            let known = noise.and_then(|noise| noise.peer) == Some(client_public);
            let answer = format!("{} bytes from a known client: {known}", request.len());
            request.reply(answer).await
        })
        .start()
        .await?;
    let url = server.listening()[0].as_str();

    let client = Client::builder(url)
        .pipeline(pipeline(&client_key, server_public))
        .envelope(true)
        .connect()
        .await?;
    let session = client.connected().await?;
    if let Some(agreed) = &session.info().pipeline {
        println!("compression: {}", agreed.compression);
        if let Some(noise) = &agreed.noise {
            println!("encryption: Noise {:?}", noise.pattern);
        }
    }
    let text = "All work and no play makes Jack a dull boy. ".repeat(2500);
    let answer = client.request(text.as_str()).await?;
    println!("{}", answer.as_str().unwrap_or("(bytes)"));
    let sent = client.statistics().bytes_out;
    println!(
        "less than a tenth on the wire: {}",
        sent < text.len() as u64 / 10
    );

    // One whose key the server does not know. With `XX` the server is the last to learn who is there, so
    // this one may connect, and is closed before it is heard.
    let stranger = Client::builder(url)
        .pipeline(pipeline(&stranger_key, server_public))
        .envelope(true)
        .reconnect(Backoff::never())
        .start()?;
    let answer = stranger.request("let me in").await;
    println!("a stranger got an answer: {}", answer.is_ok());

    client.close(Duration::from_secs(1)).await;
    server.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
