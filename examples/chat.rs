//! A chat room: lines of text, names as session attributes, every line to everybody.
//!
//! Run it with `cargo run -p network-system --example chat [ADDRESS]`, then talk to it from several
//! terminals with `nc 127.0.0.1 8080` or
//! `cargo run --release -- connect 'tcp://127.0.0.1:8080?framing=lines'`. The first line that you
//! send is your name.

use std::time::Duration;

use network_system::prelude::*;

/// What a session is called; attached to it once it has said so.
#[derive(Clone)]
struct Name(String);

/// The events of all connections.
struct Room;

/// To everybody who has a name, while the server drains too; encoded once, whatever their number.
fn say(session: &Session, line: String) {
    println!("{line}");
    let named = |session: &Session| session.get::<Name>().is_some();
    session.sessions().broadcast_if(line, named);
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
            Some(Name(name)) => say(session, format!("{name}: {text}")),
            None if text.trim().is_empty() => session.send("What is your name?").await?,
            None => {
                let name = text.trim().to_owned();
                session.set(Name(name.clone()));
                say(session, format!("* {name} has come"));
            }
        }
        Ok(())
    }

    async fn on_disconnect(&self, session: &Session, _reason: &CloseReason) {
        if let Some(Name(name)) = session.get::<Name>() {
            say(session, format!("* {name} has left"));
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "tcp://127.0.0.1:8080?framing=lines".into());
    let server = Server::builder()
        .listen(address)
        .max_message(1000)
        // nobody waits for a peer that does not read: it is shown out
        .overflow(OverflowPolicy::Close)
        .handler(Room)
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
