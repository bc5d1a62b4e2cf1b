//! One handler, reached in every way: whatever the address, the messages come to the same code. The
//! server listens on all of them, and a client says hello over each.

use std::time::Duration;

use network_system::config::{ClientConfig, HttpConfig, TlsClientConfig, TlsServerConfig};
use network_system::http::{HttpClient, HttpClientConfig};
use network_system::prelude::*;
use network_system::{Address, connect_with};

/// The only code that knows what the application does, and it knows nothing of transports.
struct Greeter;

impl Handler for Greeter {
    async fn on_message(&self, session: &Session, message: &MessageRef<'_>) -> Result<()> {
        let text = message.as_str().unwrap_or("something");
        let scheme = &session.info().scheme;
        session.send(format!("{text} by {scheme}")).await
    }
}

/// A message and the answer to it, over any transport that has sessions.
async fn ask(address: &Address, config: &ClientConfig) -> Result<String> {
    let mut connection = connect_with(address.as_str(), config).await?;
    connection.send("hello").await?;
    let answer = connection.receive().await?;
    connection.close().await?;
    let answer = answer.as_ref().and_then(|answer| answer.as_str());
    Ok(answer.unwrap_or("nothing").to_owned())
}

/// The same over the gateway: a request is a message, its response the answer.
async fn post(address: &Address) -> Result<String> {
    let url = format!("{}/messages", address.as_str());
    let client = HttpClient::new(HttpClientConfig::default())?;
    let answer = client.post(&url).body("hello").send().await?;
    answer.ok()?.text().await
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    // a certificate that nobody has signed, which the client is told to trust
    let pair = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let certificate = pair.cert.pem();
    let folder = tempfile::tempdir()?;
    let mut addresses = vec![
        "tcp://127.0.0.1:0".to_owned(),
        "tls://127.0.0.1:0".to_owned(),
        "memory://greeter".to_owned(),
        "ws://127.0.0.1:0".to_owned(),
        "http://127.0.0.1:0".to_owned(),
        "grpc://127.0.0.1:0".to_owned(),
        "auto://127.0.0.1:0".to_owned(),
    ];
    if cfg!(unix) {
        addresses.push(format!("unix://{}/greeter", folder.path().display()));
    }
    let mut builder = Server::builder()
        .tls(TlsServerConfig::new(
            certificate.as_str(),
            pair.signing_key.serialize_pem(),
        ))
        .http_config(HttpConfig {
            messages: Some("/messages".into()),
            ..HttpConfig::default()
        });
    for address in addresses {
        builder = builder.listen(address);
    }
    let server = builder.handler(Greeter).start().await?;

    let config = ClientConfig {
        tls: TlsClientConfig::default().ca(certificate.as_str()),
        ..ClientConfig::default()
    };
    for address in server.listening() {
        let answer = match address.scheme() {
            "http" => post(address).await?,
            _ => ask(address, &config).await?,
        };
        println!("{}: {answer}", address.scheme());
    }
    let report = server.shutdown(Duration::from_secs(5)).await;
    println!("{} messages in all", report.statistics.messages_in);
    Ok(())
}
