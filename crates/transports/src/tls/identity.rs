//! What a handshake has found out: who the peer is, and what was agreed on.

use std::net::IpAddr;

use aws_lc_rs::digest::{SHA256, digest};
use network_system_core::config::TlsVersion;
use network_system_core::{PeerCertificate, TlsInfo};
use rustls::pki_types::ServerName;
use rustls::{Connection, HandshakeKind, ProtocolVersion};
use x509_parser::asn1_rs::BmpString;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{
    AttributeTypeAndValue, FromDer, GeneralName, X509Certificate, X509Name,
};

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
        peer.subject = distinguished(parsed.subject());
        peer.issuer = distinguished(parsed.issuer());
        if let Ok(Some(names)) = parsed.subject_alternative_name() {
            let names = names.value.general_names.iter();
            peer.names = names.filter_map(name).collect();
        }
    }
    peer
}

/// A distinguished name as text, in the order of the certificate. Values are escaped as in RFC 4514, so
/// that nobody who is called `alice, O=admins` looks like an alice of the admins.
fn distinguished(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    for part in name.iter_rdn() {
        for (n, attribute) in part.iter().enumerate() {
            text += match n {
                0 if text.is_empty() => "",
                0 => ", ",
                _ => " + ",
            };
            let kind = attribute.attr_type();
            match oid2abbrev(kind, oid_registry()) {
                Ok(short) => text += short,
                Err(_) => text += &kind.to_id_string(),
            }
            text.push('=');
            put_value(attribute, &mut text);
        }
    }
    text
}

fn put_value(attribute: &AttributeTypeAndValue<'_>, into: &mut String) {
    let wide = || BmpString::try_from(attribute.attr_value().clone()).map(|wide| wide.string());
    let value = attribute.as_str().map(str::to_owned).or_else(|_| wide());
    let Ok(value) = value else {
        into.push('#');
        for byte in attribute.attr_value().data {
            *into += &format!("{byte:02X}");
        }
        return;
    };
    let last = value.chars().count().saturating_sub(1);
    for (n, char) in value.chars().enumerate() {
        let quoted = match char {
            '"' | '+' | ',' | ';' | '<' | '=' | '>' | '\\' => true,
            '#' => n == 0,
            ' ' => n == 0 || n == last,
            _ => false,
        };
        if char.is_control() {
            let mut bytes = [0; 4];
            for byte in char.encode_utf8(&mut bytes).bytes() {
                *into += &format!("\\{byte:02X}");
            }
            continue;
        }
        if quoted {
            into.push('\\');
        }
        into.push(char);
    }
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
