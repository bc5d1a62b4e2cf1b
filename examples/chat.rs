//! A chat room: lines of text, names as session attributes, every line to everybody.
//!
//! Run it with `cargo run -p network-system --example chat [ADDRESS]`, then talk to it from several
//! terminals with `nc 127.0.0.1 8080` or
//! `cargo run --release -- connect 'tcp://127.0.0.1:8080?framing=lines'`. The first line that you
//! send is your name.

use std::time::Duration;

use network_system::prelude::*;
use tokio::sync::mpsc;

/// What a session is called; attached to it once it has said so.
#[derive(Clone)]
struct Name(String);

/// The events of all connections. What is to be said goes to the task that owns the server.
struct Room {
    lines: mpsc::Sender<String>,
}

impl Room {
    /// Waits while the room is behind, which holds up the peer that talks too fast.
    async fn say(&self, line: String) {
        // the room is gone when the server shuts down: nobody listens any more
        let _ = self.lines.send(line).await;
    }
}

impl Handler for Room {
    async fn on_connect(&self, session: &Session) -> Result<()> {
        session.send("Welcome! What is your name?").await
    }

    async fn on_message(&self, session: &Session, message: &MessageRef<'_>) -> Result<()> {
        let Some(text) = message.as_str() else {
            return session.send("Text only, please.").await;
        };
        match session.get::<Name>() {
            Some(Name(name)) => self.say(format!("{name}: {text}")).await,
            None if text.trim().is_empty() => session.send("What is your name?").await?,
            None => {
                let name = text.trim().to_owned();
                session.set(Name(name.clone()));
                self.say(format!("* {name} has come")).await;
            }
        }
        Ok(())
    }

    async fn on_disconnect(&self, session: &Session, _reason: &CloseReason) {
        if let Some(Name(name)) = session.get::<Name>() {
            self.say(format!("* {name} has left")).await;
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "tcp://127.0.0.1:8080?framing=lines".into());
    let (lines, mut said) = mpsc::channel(100);
    let server = Server::builder()
        .listen(address)
        .max_message(1000)
        // nobody waits for a peer that does not read: it is shown out
        .overflow(OverflowPolicy::Close)
        .handler(Room { lines })
        .start()
        .await?;
    for address in server.listening() {
        println!("listening on {address}");
    }
    loop {
        tokio::select! {
            Some(line) = said.recv() => {
                println!("{line}");
                // encoded once, whatever the number of peers; only to those that have a name
                server.sessions().broadcast_if(line, |session| session.get::<Name>().is_some());
            }
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    drop(said);
    server.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
