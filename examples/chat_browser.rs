//! A chat for browsers: one port, with a page by axum, the page's WebSockets, and frames over TCP for
//! those who have no browser; one handler for all of them.
//!
//! Run it with `cargo run -p network-system --example chat_browser [ADDRESS]` and open
//! `http://127.0.0.1:8080` in a browser, more than once. From a terminal,
//! `cargo run --release -- connect tcp://127.0.0.1:8080` is in the same chat, from the first line that it
//! says: until then the server does not know what it speaks.

use std::time::Duration;

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use network_system::MessageKind;
use network_system::config::HttpConfig;
use network_system::prelude::*;

#[tokio::main]
async fn main() -> Result<()> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "auto://127.0.0.1:8080".into());
    let page = Html(include_str!("chat_browser.html"));
    let server = Server::builder()
        .listen(address)
        .http(Router::new().route("/", get(move || async move { page })))
        .http_config(HttpConfig {
            websocket: Some("/ws".into()),
            ..HttpConfig::default()
        })
        // the page sends 1000 characters at most
        .max_message(4000)
        // nobody waits for a peer that does not read: it is shown out
        .overflow(OverflowPolicy::Close)
        .on_message(|session, message| async move {
            if message.as_str().is_none() {
                return session.send("Text only, please.").await;
            }
            // frames over TCP do not say what they are, and browsers want to know
            let text = message.with_kind(MessageKind::Text);
            session.sessions().broadcast(text);
            Ok(())
        })
        .start()
        .await?;
    for address in server.listening() {
        println!("listening on {address}");
    }
    // the system does not let us watch signals: then nothing but a kill ends it
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
    server.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
