//! A server's settings to what rustls needs: [`Server`], and which certificate a client gets.

use std::sync::Arc;

use network_system_core::config::{ClientAuth, TlsServerConfig};
use network_system_core::{Address, Result};
use rustls::client::verify_server_name;
use rustls::pki_types::ServerName;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ProducesTickets, ResolvesServerCert,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, crypto::aws_lc_rs::Ticketer};

use super::material::{authorities, pair, protocols, provider, revoked, versions, wrong};
use super::reload::{Reloading, files};

/// What the listeners of an address need.
pub(super) struct Server(Arc<ServerConfig>);

impl Server {
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.0.clone()
    }

    fn new(config: &TlsServerConfig, old: Option<&Self>) -> Result<Self> {
        let provider = provider();
        let pairs = config
            .certificates
            .iter()
            .map(|files| pair(files, &provider));
        let pairs: Vec<_> = pairs
            .map(|pair| pair.map(Arc::new))
            .collect::<Result<_>>()?;
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions(config.min_version))
            .map_err(wrong)?;
        let builder = match config.client_auth {
            ClientAuth::Off => builder.with_no_client_auth(),
            auth => {
                let roots = authorities(&config.client_ca)?;
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                    .with_crls(revoked(&config.crl)?);
                let verifier = match auth {
                    ClientAuth::Optional => verifier.allow_unauthenticated(),
                    _ => verifier,
                };
                builder.with_client_cert_verifier(verifier.build().map_err(wrong)?)
            }
        };
        let mut server = builder.with_cert_resolver(Arc::new(ByName(pairs)));
        server.alpn_protocols = protocols(&config.alpn);
        // ours are in the order of their strength
        server.ignore_client_order = true;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        if config.resumption && config.client_auth == ClientAuth::Off {
            server.ticketer = tickets(old)?;
        } else {
            server.send_tls13_tickets = 0;
        }
        Ok(Self(Arc::new(server)))
    }
}

/// What makes tickets for sessions to be resumed: the old one, so that clients can go on. There are
/// none where clients may have certificates: who resumes shows none, so nobody would see that it has
/// expired or was revoked, and rustls has no alert for it when we look ourselves.
fn tickets(old: Option<&Server>) -> Result<Arc<dyn ProducesTickets>> {
    match old {
        Some(old) => Ok(old.0.ticketer.clone()),
        None => Ticketer::new().map_err(wrong),
    }
}

/// Reads what a listener on `address` needs.
pub(super) fn load(address: &Address, config: &Arc<TlsServerConfig>) -> Result<Reloading<Server>> {
    if config.certificates.is_empty() {
        return Err(wrong("a listener with TLS needs a certificate and its key")
            .peer(address)
            .advice("TlsServerConfig::new(certificate, key), or server.tls.certificates"));
    }
    config.validate("tls.")?;
    let pairs = config.certificates.iter();
    let pairs = pairs.flat_map(|files| [&files.certificate, &files.key]);
    let files = files(pairs.chain(&config.client_ca).chain(&config.crl));
    let what = address.as_str().to_owned();
    let config = config.clone();
    let interval = config.reload_interval;
    let load = move |old: Option<&Server>| Server::new(&config, old);
    Reloading::new(what, files, interval, load)
}

/// Picks the certificate by the name that the client asks for.
#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let usable = |pair: &&Arc<CertifiedKey>| {
            let scheme = pair.key.choose_scheme(hello.signature_schemes());
            scheme.is_some()
        };
        let asked = hello
            .server_name()
            .and_then(|name| ServerName::try_from(name).ok());
        let named = asked.and_then(|name| {
            let mut named = self.0.iter().filter(|pair| is_for(pair, &name));
            named.find(usable)
        });
        let any = || self.0.iter().find(usable).or(self.0.first());
        named.or_else(any).cloned()
    }
}

/// Whether a certificate is for a server of this name, as a client will see it.
fn is_for(pair: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let Ok(end) = pair.end_entity_cert() else {
        return false;
    };
    ParsedCertificate::try_from(end).is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
}
