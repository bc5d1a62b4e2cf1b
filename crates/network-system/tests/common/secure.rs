//! Servers and connections with TLS.

use network_system::config::{ClientConfig, TlsClientConfig, TlsServerConfig};
use network_system::{Connection, Error, ErrorKind, connect_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Builder, Echo, echo_on, within};

/// An echo server with TLS.
pub async fn secure(tls: TlsServerConfig, configure: impl FnOnce(Builder) -> Builder) -> Echo {
    echo_on(&["tls://127.0.0.1:0"], |builder| {
        configure(builder.tls(tls))
    })
    .await
}

/// The address of a server by the name `localhost`.
pub fn localhost(echo: &Echo) -> String {
    format!("tls://localhost:{}", echo.address().port())
}

/// A connection that trusts as `tls` says.
pub async fn dial(url: &str, tls: TlsClientConfig) -> Result<Connection, Error> {
    let config = ClientConfig {
        tls,
        ..ClientConfig::default()
    };
    within(connect_with(url, &config)).await
}

/// Why there is no such connection.
pub async fn not_dialled(url: &str, tls: TlsClientConfig) -> Error {
    match dial(url, tls).await {
        Err(error) => error,
        Ok(connection) => panic!("connected: {:?}", connection.info()),
    }
}

pub async fn round_trip(connection: &mut Connection, text: &str) -> Result<(), Error> {
    connection.send(text).await?;
    let back = within(connection.receive()).await?;
    assert_eq!(back.unwrap(), text);
    Ok(())
}

/// The error with which such a client is refused, or refuses.
pub async fn refused(echo: &Echo, tls: TlsClientConfig) -> Error {
    let result = match dial(&localhost(echo), tls).await {
        // with TLS 1.3 the server decides when the client is through
        Ok(mut connection) => round_trip(&mut connection, "hello").await,
        Err(error) => Err(error),
    };
    result.unwrap_err()
}

#[track_caller]
pub fn is(error: &Error, kind: ErrorKind, words: &str) {
    assert!(
        error.kind() == kind && error.to_string().contains(words),
        "{error:?} is not {kind:?} with '{words}'"
    );
}

/// A way between client and server that changes or cuts what passes.
pub async fn through(
    echo: &Echo,
    mut change: impl FnMut(usize, &mut Vec<u8>) -> bool + Send + 'static,
) -> String {
    let way = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, target) = (way.local_addr().unwrap().port(), echo.address());
    tokio::spawn(async move {
        let (client, _) = way.accept().await.unwrap();
        let server = TcpStream::connect(target).await.unwrap();
        let ((mut from, mut back), (mut answers, mut to)) =
            (client.into_split(), server.into_split());
        let answers = tokio::spawn(async move { tokio::io::copy(&mut answers, &mut back).await });
        let mut passed = 0;
        let mut buffer = vec![0; 1 << 16];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            let mut bytes = buffer[..n].to_vec();
            let go_on = change(passed, &mut bytes);
            passed += n;
            if to.write_all(&bytes).await.is_err() || !go_on {
                break;
            }
        }
        drop(to);
        let _ = answers.await;
    });
    format!("tls://localhost:{port}")
}
