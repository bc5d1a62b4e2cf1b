//! A web application with messaging beside it: an axum router, a page that chats by an event stream and
//! `POST`, and the same chat over TCP, with one handler.
//!
//! Run it with `cargo run -p network-system --example axum_app [ADDRESS]` and open the address in a
//! browser, more than once. Or chat with curl, and from TCP:
//!
//! ```text
//! curl -N http://127.0.0.1:8080/chat                    what is said
//! curl -d 'hello' http://127.0.0.1:8080/chat            say something
//! nc 127.0.0.1 8081                                     both
//! ```

use axum::extract::State;
use axum::response::{Html, Json};
use axum::routing::get;
use axum::{Extension, Router};
use network_system::config::HttpConfig;
use network_system::http::HttpConnection;
use network_system::prelude::*;

const PAGE: &str = r#"<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Chat</title>
<h1>Chat</h1>
<ul id="lines"></ul>
<form><input name="line" autocomplete="off" autofocus> <button>Say</button></form>
<script>
  const lines = document.getElementById("lines");
  new EventSource("/chat").onmessage = event => {
    lines.appendChild(document.createElement("li")).textContent = event.data;
  };
  document.forms[0].onsubmit = event => {
    event.preventDefault();
    const line = event.target.line;
    fetch("/chat", { method: "POST", headers: { "Content-Type": "text/plain" }, body: line.value });
    line.value = "";
  };
</script></html>
"#;

/// What the application has of its own.
#[derive(Clone)]
struct App {
    name: &'static str,
}

/// Who asks, and for whom.
async fn about(
    State(app): State<App>,
    Extension(connection): Extension<HttpConnection>,
) -> Json<[String; 2]> {
    Json([app.name.to_owned(), connection.peer().to_string()])
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut addresses = std::env::args().skip(1);
    let http = addresses.next().unwrap_or("http://127.0.0.1:8080".into());
    let tcp = addresses
        .next()
        .unwrap_or("tcp://127.0.0.1:8081?framing=lines".into());
    let router = Router::new()
        .route("/", get(|| async { Html(PAGE) }))
        .route("/about", get(about))
        .with_state(App { name: "chat" });
    let server = Server::builder()
        .listen(http)
        .listen(tcp)
        .http(router)
        .http_config(HttpConfig {
            messages: Some("/chat".into()),
            ..HttpConfig::default()
        })
        // whatever they have come by
        .on_message(|session, message| async move {
            session.sessions().broadcast(message);
        })
        .start()
        .await?;
    for address in server.listening() {
        println!("listening on {address}");
    }
    let _ = tokio::signal::ctrl_c().await;
    let report = server.shutdown(std::time::Duration::from_secs(5)).await;
    println!("answered {} requests", report.statistics.http.requests);
    Ok(())
}
