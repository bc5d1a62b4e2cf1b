//! A TLS stream over one that brings its bytes a little at a time.
#![allow(clippy::unwrap_used)] // as tests may
use std::sync::Arc;

use rustls::crypto::{CipherSuiteCommon, CryptoProvider, aws_lc_rs};
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, Tls12CipherSuite,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::{unconstrained, yield_now};

use super::*;

/// Always has something to read, a little at a time.
struct Dripping(DuplexStream);

impl AsyncRead for Dripping {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut some = [0; 50];
        let room = into.remaining().min(some.len());
        let mut little = ReadBuf::new(&mut some[..room]);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut little))?;
        into.put_slice(little.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Dripping {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A client and a server after their handshake.
async fn pair(provider: CryptoProvider) -> (TlsStream<Dripping>, TlsStream<DuplexStream>) {
    let provider = Arc::new(provider);
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())
        .unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let client = ClientConnection::new(Arc::new(client), name).unwrap();
    let server = ServerConnection::new(Arc::new(server)).unwrap();
    let (left, right) = duplex(64 * 1024);
    let mut client = TlsStream::new(Dripping(left), client.into());
    let mut server = TlsStream::new(right, server.into());
    let (done, also) = tokio::join!(
        std::future::poll_fn(|cx| client.poll_handshake(cx)),
        std::future::poll_fn(|cx| server.poll_handshake(cx)),
    );
    done.and(also).unwrap();
    (client, server)
}

/// What keeps coming and brings no data does not keep the thread: here pieces of a record, and as
/// well tickets of a server's.
#[tokio::test]
async fn input_that_brings_nothing() {
    let (mut client, mut server) = pair(aws_lc_rs::default_provider()).await;
    let sent = vec![7; 10_000];
    for room in [256 * 1024, 20 * 1024] {
        server.write_all(&sent).await.unwrap();
        let mut buffer = vec![0; room];
        let mut turns = 0;
        // tokio's own bound of what a task does in a turn is not what is meant
        let reading = unconstrained(client.read(&mut buffer));
        let others = async {
            loop {
                turns += 1;
                yield_now().await;
            }
        };
        let n = tokio::select! {
            biased;
            n = reading => n.unwrap(),
            () = others => unreachable!(),
        };
        assert!(buffer[..n] == sent && turns > 5, "{room} {n} {turns}");
    }
}

/// A key of TLS 1.2 encrypts only so many records: what is said to be written has come, and then there
/// is an error.
#[tokio::test]
async fn a_key_that_is_used_up() {
    let mut provider = aws_lc_rs::default_provider();
    let suite = aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
    let SupportedCipherSuite::Tls12(suite) = suite else {
        unreachable!()
    };
    let suite = Tls12CipherSuite {
        common: CipherSuiteCommon {
            confidentiality_limit: 100,
            ..suite.common
        },
        ..*suite
    };
    let suite = Box::leak(Box::new(suite));
    provider.cipher_suites = vec![SupportedCipherSuite::Tls12(suite)];
    let (mut client, mut server) = pair(provider).await;
    let mut written = 0;
    let error = loop {
        match client.write(b"one record").await {
            Ok(n) => written += n,
            Err(error) => break error,
        }
        assert!(written < 10_000);
    };
    assert!(error.to_string().contains("TLS 1.2"), "{error}");
    client.shutdown().await.unwrap();
    let mut read = Vec::new();
    server.read_to_end(&mut read).await.unwrap();
    assert!(read.len() == written && written > 500, "{written}");
}
