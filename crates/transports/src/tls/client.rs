//! A client's settings to what rustls needs: [`Client`], and the name that the server must have.

use std::sync::Arc;

use network_system_core::config::TlsClientConfig;
use network_system_core::{Address, Error, ErrorKind, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

use super::material::{authorities, pair, protocols, provider, revoked, versions, wrong};
use super::reload::{Reloading, files};

/// What connects with the same settings need.
pub(super) struct Client(Arc<ClientConfig>);

impl Client {
    pub(super) fn config(&self) -> Arc<ClientConfig> {
        self.0.clone()
    }

    fn new(config: &TlsClientConfig) -> Result<Self> {
        let provider = provider();
        let verifier = verifier(config, &provider)?;
        let identity = config.identity.as_ref();
        let identity = identity.map(|files| pair(files, &provider)).transpose()?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions(config.min_version))
            .map_err(wrong)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut client = match identity {
            None => builder.with_no_client_auth(),
            Some(pair) => builder.with_client_cert_resolver(shows(pair)),
        };
        client.alpn_protocols = protocols(&config.alpn);
        if !config.resumption {
            client.resumption = Resumption::disabled();
        }
        Ok(Self(Arc::new(client)))
    }
}

/// Shows this certificate to every server that asks.
fn shows(pair: CertifiedKey) -> Arc<dyn ResolvesClientCert> {
    Arc::new(SingleCertAndKey::from(pair))
}

/// Who is trusted: the given authorities, or the system's.
fn verifier(
    config: &TlsClientConfig,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>> {
    if config.danger_trust_any_certificate {
        tracing::warn!(
            "TLS: DANGER: any certificate is trusted, so anybody on the way can read and change \
             everything; this is for tests only"
        );
        return Ok(Arc::new(TrustAny(provider.clone())));
    }
    if config.ca.is_empty() {
        let system = rustls_platform_verifier::Verifier::new(provider.clone());
        let system = system.map_err(|error| {
            wrong(format_args!("the system's authorities: {error}"))
                .advice("install them (ca-certificates), or give the one to trust (ca)")
        });
        return Ok(Arc::new(system?));
    }
    let roots = authorities(&config.ca)?;
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
        .with_crls(revoked(&config.crl)?)
        .build();
    Ok(verifier.map_err(wrong)?)
}

/// Reads what clients with these settings need.
pub(super) fn load(config: &TlsClientConfig) -> Result<Reloading<Client>> {
    config.validate("tls.")?;
    let own = config.identity.iter();
    let own = own.flat_map(|files| [&files.certificate, &files.key]);
    let files = files(own.chain(&config.ca).chain(&config.crl));
    // a copy of its own: who has the other one is a user of it
    let config = TlsClientConfig::clone(config);
    let interval = config.reload_interval;
    // a new one each time, and with it no session that was begun on other terms
    let load = move |_: Option<&Client>| Client::new(&config);
    Reloading::new("client".to_owned(), files, interval, load)
}

/// The name that the certificate of the server at `address` must have.
pub(super) fn server_name(
    address: &Address,
    config: &TlsClientConfig,
) -> Result<ServerName<'static>> {
    let host = match address.scheme() {
        "unix" | "memory" => None,
        _ if address.host().is_empty() => Some("localhost"),
        _ => Some(address.host()),
    };
    let named = config.server_name.as_deref();
    let Some(name) = named.or(host) else {
        return Err(Error::new(ErrorKind::InvalidArgument, "use TLS on")
            .peer(address)
            .because("the address has no host, so the name in the certificate must be given")
            .advice("set server_name"));
    };
    // a zone, as in fe80::1%eth0, says which way to go and not who is there
    let name = name.split_once('%').map_or(name, |(bare, _)| bare);
    ServerName::try_from(name.to_owned()).map_err(|_| {
        wrong(format_args!(
            "'{name}' is no name that a certificate can have"
        ))
        .peer(address)
    })
}

/// Trusts anybody. Signatures are checked, so that the peer has at least the key of what it shows.
#[derive(Debug)]
struct TrustAny(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
