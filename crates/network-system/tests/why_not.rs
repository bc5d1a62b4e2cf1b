//! A link that cannot be opened says why, also where the peer goes on to be silent and the deadline is
//! short: what follows a failed handshake must not hide it.
#![cfg(all(feature = "compression", feature = "noise", feature = "tls"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::time::Duration;

use common::pki::Pki;
use common::secure::{is, secure};
use common::{frame, within};
use network_system::config::{ClientConfig, Noise, Pipeline};
use network_system::{Error, ErrorKind, connect_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Less than a peer is listened to whose handshake has failed.
const SHORT: Duration = Duration::from_millis(400);

/// Why a client with a short deadline cannot connect.
async fn not_connected(url: &str, mut config: ClientConfig) -> Error {
    config.connect_timeout = SHORT;
    match within(connect_with(url, &config)).await {
        Err(error) => error,
        Ok(connection) => panic!("connected: {:?}", connection.info()),
    }
}

/// A way to a server on which nothing that the client says after its first words arrives, nor that it
/// closes: whoever waits for the server's end of it waits in vain.
async fn one_way(target: std::net::SocketAddr) -> u16 {
    let way = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = way.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut client, _) = way.accept().await.unwrap();
        let mut server = TcpStream::connect(target).await.unwrap();
        let mut buffer = vec![0; 1 << 16];
        let n = client.read(&mut buffer).await.unwrap();
        server.write_all(&buffer[..n]).await.unwrap();
        // all of the server's part, for as long as the client takes it
        while let Ok(n @ 1..) = server.read(&mut buffer).await {
            if client.write_all(&buffer[..n]).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    });
    port
}

#[tokio::test]
async fn a_server_that_is_not_trusted_and_does_not_close() {
    let (pki, other) = (Pki::new(), Pki::named("Other CA"));
    let echo = secure(pki.issue(&["localhost"]).server(), |builder| builder).await;
    let url = format!("tls://localhost:{}", one_way(echo.address()).await);
    let config = ClientConfig {
        tls: other.client(),
        ..ClientConfig::default()
    };
    let error = not_connected(&url, config).await;
    is(&error, ErrorKind::Untrusted, "an authority that is trusted");
}

#[tokio::test]
async fn a_client_that_speaks_no_tls_and_does_not_close() {
    let pki = Pki::new();
    let tls = pki.issue(&["localhost"]).server();
    for workers in [0, 1] {
        let mut echo = secure(tls.clone(), |builder| {
            builder.workers(workers).handshake_timeout(SHORT)
        })
        .await;
        let mut plain = echo.dial().await;
        plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        is(&echo.next_error().await, ErrorKind::Handshake, "is no TLS");
        let refused = echo.server.statistics().connections_refused;
        assert_eq!((refused["handshake"], refused["handshake_timeout"]), (1, 0));
        drop(plain);
    }
}

#[tokio::test]
async fn peers_with_another_pipeline_that_do_not_close() {
    let pipeline = || Pipeline::new().noise(Noise::psk([7; 32]));
    // a server that answers nonsense
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&frame(b"nonsense")).await.unwrap();
        std::future::pending::<()>().await;
    });
    let mut config = ClientConfig::default();
    config.session.pipeline = Some(pipeline());
    let error = not_connected(&url, config).await;
    assert_eq!(error.kind(), ErrorKind::Handshake, "{error}");
    server.abort();
    // and a client
    let mut echo = common::echo(|b| b.pipeline(pipeline()).handshake_timeout(SHORT)).await;
    let mut plain = echo.dial().await;
    plain.write_all(&frame(b"nonsense")).await.unwrap();
    let error = echo.next_error().await;
    assert_eq!(error.kind(), ErrorKind::Handshake, "{error}");
    drop(plain);
}
