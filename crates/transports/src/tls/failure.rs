//! What goes wrong with TLS, in terms of this library: which kind, why, and what to do about it.

use std::io;
use std::time::{Duration, UNIX_EPOCH};

use network_system_core::{Error, ErrorKind, Side};
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription as Alert, CertificateError, Error as TlsError, PeerIncompatible};

/// Which end this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Client,
    Server,
}

impl Role {
    fn peer(self) -> &'static str {
        match self {
            Self::Client => "server",
            Self::Server => "client",
        }
    }

    fn action(self) -> &'static str {
        match self {
            Self::Client => "connect to",
            Self::Server => "do the TLS handshake with",
        }
    }
}

/// What went wrong in a handshake: an error of rustls' inside of one of the socket's, or one of the
/// socket's own.
pub(super) fn of_handshake(error: io::Error, role: Role) -> Error {
    let tls = error.get_ref().and_then(|e| e.downcast_ref::<TlsError>());
    if let Some(tls) = tls {
        return explain(tls, role).caused_by(tls.clone());
    }
    let gone = matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    );
    let failed = Error::from_io(role.action(), error);
    match role {
        _ if !gone => failed,
        Role::Client => failed
            .because("connection closed by the server in the TLS handshake")
            .advice("check that it speaks TLS there; tcp:// is without"),
        Role::Server => failed.because("connection closed by the client in the TLS handshake"),
    }
}

/// What went wrong after the handshake, as an error that a stream can return.
pub(super) fn of_stream(error: TlsError) -> io::Error {
    let explained = match &error {
        TlsError::AlertReceived(alert) => match refusal(*alert) {
            Some(why) => rejected("receive from", why),
            None => protocol(format!("the peer gave up: TLS alert {alert:?}")),
        },
        TlsError::DecryptError => {
            protocol("a TLS record was changed on its way, or is not the peer's".to_owned())
        }
        other => protocol(other.to_string()),
    };
    io::Error::other(explained.caused_by(error))
}

/// The stream has ended, and the peer has not said that it would.
pub(super) fn cut_off() -> io::Error {
    let error = Error::new(ErrorKind::ConnectionClosed, "receive from")
        .because("connection closed without TLS' goodbye (close_notify): it was cut off, and what was on its way may be lost");
    io::Error::new(io::ErrorKind::UnexpectedEof, error)
}

/// One key has encrypted as much as it may.
pub(super) fn used_up() -> io::Error {
    let error = Error::new(ErrorKind::ConnectionClosed, "send to")
        .because("the key of this connection with TLS 1.2 has encrypted as many records as it may")
        .advice("connect again, or use TLS 1.3, which changes its keys");
    io::Error::other(error)
}

fn protocol(why: String) -> Error {
    Error::new(ErrorKind::Protocol, "receive from").because(why)
}

fn handshake(role: Role, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Handshake, role.action()).because(why)
}

fn explain(error: &TlsError, role: Role) -> Error {
    let peer = role.peer();
    match error {
        TlsError::InvalidCertificate(why) => {
            let (why, advice) = certificate(why);
            let error = Error::new(ErrorKind::Untrusted, role.action())
                .because(format_args!("the {peer}'s certificate {why}"));
            match advice {
                Some(advice) => error.advice(advice),
                None => error,
            }
        }
        TlsError::NoCertificatesPresented => Error::new(ErrorKind::Untrusted, role.action())
            .because(format_args!(
                "the {peer} has shown none, and one is required"
            )),
        TlsError::AlertReceived(alert) => match refusal(*alert) {
            Some(why) => rejected(role.action(), why),
            None => handshake(
                role,
                format_args!("the {peer} refused: {}", alert_text(*alert)),
            ),
        },
        TlsError::PeerIncompatible(why) => handshake(role, incompatible(why, peer)),
        TlsError::NoApplicationProtocol => handshake(
            role,
            format_args!("the {peer} speaks none of our application protocols (ALPN)"),
        ),
        TlsError::InvalidMessage(_) => {
            handshake(role, format_args!("what the {peer} sent is no TLS"))
                .advice("one side may use tls:// and the other tcp://")
        }
        other => handshake(role, other),
    }
}

fn rejected(action: &'static str, why: &'static str) -> Error {
    Error::new(ErrorKind::Untrusted, action)
        .because(format_args!("the peer did not accept ours: {why}"))
        .advice(
            "check the certificate that this side shows, and that the peer trusts its authority",
        )
        .blame(Side::Ours)
}

/// Alerts that are about our certificate.
fn refusal(alert: Alert) -> Option<&'static str> {
    Some(match alert {
        Alert::CertificateRequired => "it asks for one, and this side has none",
        Alert::NoCertificate => "it got none",
        Alert::BadCertificate => "it is broken or not right for this",
        Alert::UnsupportedCertificate => "it is of a kind that the peer does not know",
        Alert::CertificateRevoked => "it is revoked",
        Alert::CertificateExpired => "it has expired",
        Alert::CertificateUnknown => "the peer does not say why",
        Alert::UnknownCA => "no authority that the peer trusts has issued it",
        Alert::AccessDenied => "it is right, and may not do this",
        _ => return None,
    })
}

fn alert_text(alert: Alert) -> String {
    match alert {
        Alert::ProtocolVersion => "no common version of TLS".to_owned(),
        Alert::HandshakeFailure => "nothing in common, or a certificate is missing".to_owned(),
        Alert::InsufficientSecurity => "what we offer is too weak".to_owned(),
        Alert::UnrecognisedName => "it has not the name that was asked for".to_owned(),
        Alert::NoApplicationProtocol => "no common application protocol (ALPN)".to_owned(),
        other => format!("TLS alert {other:?}"),
    }
}

fn incompatible(why: &PeerIncompatible, peer: &str) -> String {
    match why {
        PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::Tls13RequiredForQuic
        | PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::SupportedVersionsExtensionRequired
        // every client of 1.2 or newer has it
        | PeerIncompatible::SignatureAlgorithmsExtensionRequired => {
            format!("no common version of TLS: what the {peer} offers is too old")
        }
        PeerIncompatible::NoCipherSuitesInCommon => "no common cipher suite".to_owned(),
        PeerIncompatible::NoKxGroupsInCommon => "no common key exchange".to_owned(),
        PeerIncompatible::NoSignatureSchemesInCommon => {
            format!("the {peer} understands the keys of none of our certificates")
        }
        other => format!("the {peer} is not compatible: {other:?}"),
    }
}

/// What is wrong with a certificate, behind "the certificate", and what to do about it.
fn certificate(why: &CertificateError) -> (String, Option<&'static str>) {
    let clock = "renew it, or set the clock of this machine";
    match why {
        CertificateError::ExpiredContext { not_after, .. } => {
            (format!("has expired on {}", date(*not_after)), Some(clock))
        }
        CertificateError::Expired => ("has expired".to_owned(), Some(clock)),
        CertificateError::NotValidYetContext { not_before, .. } => (
            format!("is not valid before {}", date(*not_before)),
            Some(clock),
        ),
        CertificateError::NotValidYet => ("is not valid yet".to_owned(), Some(clock)),
        CertificateError::UnknownIssuer => (
            "was not issued by an authority that is trusted here".to_owned(),
            Some("name its authority as a trusted one (ca); that of a self-signed one is itself"),
        ),
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => {
            let for_whom = match presented.as_slice() {
                [] => "nobody".to_owned(),
                names => names
                    .iter()
                    .map(|name| bare(name))
                    .collect::<Vec<_>>()
                    .join(", "),
            };
            (
                format!("is not for {}, but for {for_whom}", expected.to_str()),
                Some("connect by a name that it has, or set the name (server_name)"),
            )
        }
        CertificateError::NotValidForName => ("is for another name".to_owned(), None),
        CertificateError::Revoked => ("is revoked".to_owned(), None),
        CertificateError::UnknownRevocationStatus => (
            "is of an authority without a revocation list here".to_owned(),
            Some("add the list of that authority (crl)"),
        ),
        CertificateError::ExpiredRevocationList
        | CertificateError::ExpiredRevocationListContext { .. } => (
            "may be revoked: the revocation list has expired".to_owned(),
            Some("get a newer list (crl)"),
        ),
        CertificateError::BadSignature => ("has a wrong signature".to_owned(), None),
        CertificateError::BadEncoding => ("cannot be read".to_owned(), None),
        // this one is known by its text only
        CertificateError::Other(other) if other.to_string() == "CaUsedAsEndEntity" => (
            "is that of an authority, and not of one of its servers or clients".to_owned(),
            Some("make it without CA:TRUE, which `openssl req -x509` puts in"),
        ),
        other => (format!("is not valid: {other}"), None),
    }
}

/// A name of a certificate, which rustls shows as it stands in its code: `DnsName("localhost")`.
fn bare(shown: &str) -> &str {
    let inner = shown.split_once('(').map_or(shown, |(_, rest)| rest);
    inner.trim_end_matches(')').trim_matches('"')
}

/// A moment as people write it.
fn date(time: UnixTime) -> String {
    let time = UNIX_EPOCH + Duration::from_secs(time.as_secs());
    humantime::format_rfc3339_seconds(time).to_string()
}
