//! PEM to what rustls takes: certificates with their keys, authorities, revocation lists. Errors
//! name the file.

use std::sync::Arc;

use network_system_core::config::{CertificateFiles, Pem, TlsVersion};
use network_system_core::{Error, ErrorKind, Result};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore, SupportedProtocolVersion, version};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The cryptography: the same one whatever else a program has set for its process.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The versions from `oldest` on.
pub(super) fn versions(oldest: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
    const NEW: &[&SupportedProtocolVersion] = &[&version::TLS13];
    match oldest {
        TlsVersion::Tls12 => BOTH,
        _ => NEW,
    }
}

/// Application protocols as bytes.
pub(super) fn protocols(names: &[String]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.clone().into_bytes()).collect()
}

/// An error of the settings of TLS.
pub(super) fn wrong(why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidArgument, "use the TLS settings").because(why)
}

fn bad(what: &str, pem: &Pem, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("use the {what}"))
        .peer(pem)
        .because(why)
}

/// Reads all sections of one kind.
fn read<T: PemObject>(what: &str, pem: &Pem) -> Result<Vec<T>> {
    let bytes = pem.read().map_err(|error| {
        Error::from_io(format!("read the {what}"), error)
            .into_kind(ErrorKind::InvalidArgument)
            .peer(pem)
    })?;
    let found: Result<Vec<T>, pem::Error> = T::pem_slice_iter(&bytes).collect();
    if !matches!(&found, Ok(found) if !found.is_empty()) && is_encrypted(&bytes) {
        let error = bad(what, pem, "it is encrypted");
        return Err(error.advice("take the passphrase off: openssl pkey -in FILE -out NEW"));
    }
    let found = found.map_err(|error| bad(what, pem, format_args!("it is broken: {error}")))?;
    if found.is_empty() {
        return Err(bad(what, pem, "there is none in it (in PEM form)"));
    }
    Ok(found)
}

/// Whether a passphrase is needed: of PKCS #8, or as older keys say it in a line of their own.
fn is_encrypted(pem: &[u8]) -> bool {
    let lines = pem.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines.into_iter().any(|line| {
        line == b"-----BEGIN ENCRYPTED PRIVATE KEY-----" || line == b"Proc-Type: 4,ENCRYPTED"
    })
}

/// A certificate with its key, which fit each other.
pub(super) fn pair(files: &CertificateFiles, provider: &CryptoProvider) -> Result<CertifiedKey> {
    let CertificateFiles { certificate, key } = files;
    let chain: Vec<CertificateDer<'static>> = read("certificate", certificate)?;
    let mut keys: Vec<PrivateKeyDer<'static>> = read("private key", key)?;
    let first = keys.swap_remove(0);
    let pair = CertifiedKey::from_der(chain, first, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => bad(
            "private key",
            key,
            format_args!("it is not the key of the certificate {certificate}"),
        ),
        rustls::Error::InvalidCertificate(error) => bad("certificate", certificate, error),
        error => bad("private key", key, error),
    })?;
    warn_of_dates(certificate, &pair);
    Ok(pair)
}

/// Says so when the certificate is of no use now: peers will say no, and the cause is here.
fn warn_of_dates(file: &Pem, pair: &CertifiedKey) {
    let Some((_, certificate)) = pair
        .cert
        .first()
        .and_then(|der| X509Certificate::from_der(der).ok())
    else {
        return;
    };
    let validity = certificate.validity();
    if !validity.is_valid() {
        tracing::warn!(
            certificate = %file, from = %validity.not_before, until = %validity.not_after,
            "TLS: the certificate is not valid at this time"
        );
    }
}

/// The authorities in these.
pub(super) fn authorities(pems: &[Pem]) -> Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    for pem in pems {
        for certificate in read::<CertificateDer<'static>>("authority", pem)? {
            let added = roots.add(certificate);
            added.map_err(|error| bad("authority", pem, error))?;
        }
    }
    Ok(Arc::new(roots))
}

/// The revocation lists in these.
pub(super) fn revoked(pems: &[Pem]) -> Result<Vec<CertificateRevocationListDer<'static>>> {
    let mut lists = Vec::new();
    for pem in pems {
        lists.extend(read("revocation list", pem)?);
    }
    Ok(lists)
}
