//! A server that sends every message back.
//!
//! Run it with `cargo run -p network-system --example echo_server [ADDRESS]`.

use network_system::{Result, Server};

#[tokio::main]
async fn main() -> Result<()> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "tcp://127.0.0.1:8080".into());
    let server = Server::builder()
        .listen(address)
        .on_connect(|session| println!("+ {}", session.peer()))
        .on_message(|session, message| async move { session.send(message).await })
        .on_disconnect(|session, reason| println!("- {}: {reason}", session.peer()))
        .start()
        .await?;
    for address in server.listening() {
        println!("listening on {address}");
    }
    if tokio::signal::ctrl_c().await.is_ok() {
        let report = server.shutdown(std::time::Duration::from_secs(5)).await;
        println!(
            "{} sessions finished, {} cut off",
            report.drained, report.cut
        );
    }
    Ok(())
}
