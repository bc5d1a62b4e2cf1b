//! What a handshake has found out: who the peer is, and what was agreed on.

use std::net::IpAddr;

use aws_lc_rs::digest::{SHA256, digest};
use network_system_core::config::TlsVersion;
use network_system_core::{PeerCertificate, TlsInfo};
use rustls::pki_types::ServerName;
use rustls::{Connection, HandshakeKind, ProtocolVersion};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What is known after the handshake; `asked`: the name that this side, a client, has checked.
pub(super) fn of(tls: &Connection, asked: Option<&ServerName<'_>>) -> TlsInfo {
    let version = match tls.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => TlsVersion::Tls12,
        _ => TlsVersion::Tls13,
    };
    let suite = tls.negotiated_cipher_suite().map(|suite| suite.suite());
    let cipher = suite.and_then(|suite| suite.as_str()).unwrap_or_default();
    let mut info = TlsInfo::new(version, cipher);
    let alpn = tls.alpn_protocol();
    info.alpn = alpn.map(|name| String::from_utf8_lossy(name).into_owned());
    info.server_name = match tls {
        Connection::Server(server) => server.server_name().map(str::to_owned),
        Connection::Client(_) => asked.map(|name| name.to_str().into_owned()),
    };
    info.resumed = tls.handshake_kind() == Some(HandshakeKind::Resumed);
    let chain = tls.peer_certificates().unwrap_or_default();
    info.peer = chain.first().map(|der| certificate(der));
    info
}

fn certificate(der: &[u8]) -> PeerCertificate {
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest(&SHA256, der).as_ref());
    let mut peer = PeerCertificate::new(der.to_vec().into(), fingerprint);
    // rustls has verified it, or was told not to: then it may be anything
    if let Ok((_, parsed)) = X509Certificate::from_der(der) {
        peer.subject = parsed.subject().to_string();
        peer.issuer = parsed.issuer().to_string();
        if let Ok(Some(names)) = parsed.subject_alternative_name() {
            let names = names.value.general_names.iter();
            peer.names = names.filter_map(name).collect();
        }
    }
    peer
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
            Some((*name).to_owned())
        }
        GeneralName::IPAddress(bytes) => match *bytes {
            [a, b, c, d] => Some(IpAddr::from([*a, *b, *c, *d]).to_string()),
            bytes => {
                let bytes: [u8; 16] = bytes.try_into().ok()?;
                Some(IpAddr::from(bytes).to_string())
            }
        },
        _ => None,
    }
}
