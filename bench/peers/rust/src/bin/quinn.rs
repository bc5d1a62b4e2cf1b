//! quinn: QUIC with TLS 1.3, one bidirectional stream per connection, length-prefixed.
//! The client takes any certificate: this measures speed, not trust.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use peers::ready;
use peers::stream_sink::{Peer, Serve, run};
use quinn::rustls;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

#[derive(Debug)]
struct AnyCert(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyCert {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        m: &[u8],
        c: &rustls::pki_types::CertificateDer<'_>,
        d: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(m, c, d, &self.0.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        m: &[u8],
        c: &rustls::pki_types::CertificateDer<'_>,
        d: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(m, c, d, &self.0.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn transport() -> Arc<quinn::TransportConfig> {
    let mut t = quinn::TransportConfig::default();
    t.stream_receive_window((8u32 << 20).into());
    t.receive_window((16u32 << 20).into());
    t.send_window(16 << 20);
    t.max_idle_timeout(None);
    Arc::new(t)
}

struct Bi {
    send: quinn::SendStream,
    recv: quinn::RecvStream,
    conn: quinn::Connection,
}

impl Drop for Bi {
    fn drop(&mut self) {
        self.conn.close(0u32.into(), b"");
    }
}

impl AsyncRead for Bi {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        b: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.recv), cx, b)
    }
}

impl AsyncWrite for Bi {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        b: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), cx, b)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.send), cx)
    }
}

fn framed(
    send: quinn::SendStream,
    recv: quinn::RecvStream,
    conn: quinn::Connection,
) -> Framed<Bi, LengthDelimitedCodec> {
    let mut f = Framed::with_capacity(
        Bi { send, recv, conn },
        LengthDelimitedCodec::new(),
        64 * 1024,
    );
    f.set_backpressure_boundary(128 * 1024);
    f
}

struct Quic;

impl Peer for Quic {
    type In = BytesMut;
    type Out = Bytes;
    type Err = std::io::Error;
    type Conn = Framed<Bi, LengthDelimitedCodec>;
    fn bytes(m: &BytesMut) -> &[u8] {
        m
    }
    fn reply(m: BytesMut) -> Bytes {
        m.freeze()
    }
    fn make(b: Bytes) -> Bytes {
        b
    }
    async fn connect(port: u16) -> Self::Conn {
        static EP: OnceLock<quinn::Endpoint> = OnceLock::new();
        let ep = EP.get_or_init(|| {
            let p = Arc::new(rustls::crypto::ring::default_provider());
            let c = rustls::ClientConfig::builder_with_provider(p.clone())
                .with_protocol_versions(&[&rustls::version::TLS13])
                .expect("quinn")
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCert(p)))
                .with_no_client_auth();
            let mut cc = quinn::ClientConfig::new(Arc::new(
                quinn::crypto::rustls::QuicClientConfig::try_from(c).expect("quinn"),
            ));
            cc.transport_config(transport());
            let mut ep =
                quinn::Endpoint::client("127.0.0.1:0".parse().expect("quinn")).expect("quinn");
            ep.set_default_client_config(cc);
            ep
        });
        let c = ep
            .connect(([127, 0, 0, 1], port).into(), "localhost")
            .expect("quinn")
            .await
            .expect("connect");
        let (s, r) = c.open_bi().await.expect("stream");
        framed(s, r, c)
    }
    async fn listen(port: u16) {
        let k = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("quinn");
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(k.signing_key.serialize_der());
        let sc = rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("quinn")
        .with_no_client_auth()
        .with_single_cert(vec![k.cert.der().clone()], key.into())
        .expect("quinn");
        let mut c = quinn::ServerConfig::with_crypto(Arc::new(
            quinn::crypto::rustls::QuicServerConfig::try_from(sc).expect("quinn"),
        ));
        c.transport_config(transport());
        let ep = quinn::Endpoint::server(c, ([127, 0, 0, 1], port).into()).expect("bind");
        ready();
        while let Some(i) = ep.accept().await {
            tokio::spawn(async move {
                let Ok(c) = i.await else { return };
                if let Ok((s, r)) = c.accept_bi().await {
                    Serve::<Quic>::new(framed(s, r, c)).await;
                }
            });
        }
    }
}

fn main() {
    run::<Quic>();
}
