//! A client that keeps its connection: the server goes away and comes back, nothing sent is lost.
//!
//! Run it with `cargo run -p network-system --example reconnect`. It brings its own server.

use std::time::Duration;

use network_system::ClientState;
use network_system::prelude::*;
use tokio::sync::mpsc;

async fn echo_server(address: &str) -> Result<Server> {
    Server::builder()
        .listen(address)
        .on_message(|session, message| async move { session.send(message).await })
        .start()
        .await
}

fn print_echo(message: Option<Message>) {
    let message = message.unwrap_or_default();
    println!("echo: {}", message.as_str().unwrap_or("(bytes)"));
}

#[tokio::main]
async fn main() -> Result<()> {
    let server = echo_server("tcp://127.0.0.1:0").await?;
    let address = server.listening()[0].to_string();

    let (echoes, mut echoed) = mpsc::unbounded_channel();
    let client = Client::builder(&address)
        // The default is 0.5 s, doubled after each failure up to 30 s, with full jitter: right for
        // many clients of one server, too slow to watch.
        .reconnect(Backoff::every(Duration::from_millis(100)))
        // Bytes of messages that are kept while there is no connection.
        .offline_queue(64 * 1024)
        .on_message(move |_session, message| {
            let _ = echoes.send(message);
            async {}
        })
        .connect()
        .await?;

    // The state can be watched; this prints its changes as they come.
    let mut states = client.watch();
    let printer = tokio::spawn({
        let mut states = states.clone();
        async move {
            loop {
                match &*states.borrow_and_update() {
                    ClientState::Connected => println!("state: connected"),
                    ClientState::Connecting { failures } => {
                        println!("state: connecting, {failures} failures so far");
                    }
                    ClientState::Waiting { delay, .. } => {
                        println!("state: waiting {delay:?} before the next try");
                    }
                    ClientState::Closed(_) => println!("state: closed"),
                    _ => {}
                }
                if states.changed().await.is_err() {
                    break;
                }
            }
        }
    });

    client.send("sent while connected").await?;
    print_echo(echoed.recv().await);

    server.shutdown(Duration::from_secs(1)).await;
    println!("the server has gone");
    // an error here would mean that the client has given up; it does not
    let _ = states.wait_for(|state| !state.is_connected()).await;
    client.send("sent while away").await?;
    let (messages, bytes) = client.offline_queue();
    println!("offline queue: {messages} message, {bytes} bytes");

    let server = echo_server(&address).await?;
    println!("the server is back");
    print_echo(echoed.recv().await);
    println!(
        "{} connections in all",
        client.statistics().connections_total
    );

    client.close(Duration::from_secs(1)).await;
    let _ = printer.await;
    server.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
