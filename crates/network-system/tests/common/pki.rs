//! Certificates for tests: authorities, what they issue, and lists of what they have revoked, as PEM
//! files that others read too.

use std::path::{Path, PathBuf};

use network_system::config::{Pem, TlsClientConfig, TlsServerConfig};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};

/// An authority with a folder for its files.
pub struct Pki {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
    serial: SerialNumber,
}

impl Pair {
    pub fn server(&self) -> TlsServerConfig {
        TlsServerConfig::new(&*self.certificate, &*self.key)
    }

    /// The paths as text, for command lines.
    pub fn paths(&self) -> (&str, &str) {
        (
            self.certificate.to_str().unwrap(),
            self.key.to_str().unwrap(),
        )
    }

    /// Puts another certificate and key in the place of this one's files.
    pub fn replace_with(&self, other: &Self) {
        // as operators do it: a new file in place of the old one, the key first
        for (from, to) in [
            (&other.key, &self.key),
            (&other.certificate, &self.certificate),
        ] {
            let next = to.with_extension("next");
            std::fs::copy(from, &next).unwrap();
            std::fs::rename(&next, to).unwrap();
        }
    }
}

impl Pki {
    pub fn new() -> Self {
        Self::named("Test CA")
    }

    pub fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The certificate of the authority.
    pub fn ca(&self) -> PathBuf {
        self.folder().join("ca.pem")
    }

    /// What a client that trusts this authority needs.
    pub fn client(&self) -> TlsClientConfig {
        TlsClientConfig::default().ca(self.ca())
    }

    /// A certificate for these names, with the first as the subject.
    pub fn issue(&self, names: &[&str]) -> Pair {
        self.issue_with(names, |_| {})
    }

    /// As `issue`, with a change.
    pub fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let (pair, params, key) = self.prepare(names, change);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(&pair.certificate, certificate.pem()).unwrap();
        pair
    }

    /// A certificate that no authority has issued.
    pub fn self_signed(&self, names: &[&str]) -> Pair {
        self.self_signed_with(names, |_| {})
    }

    /// The same, which says that it is an authority.
    pub fn self_signed_authority(&self, names: &[&str]) -> Pair {
        self.self_signed_with(names, |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        })
    }

    fn self_signed_with(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let (pair, params, key) = self.prepare(names, change);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(&pair.certificate, certificate.pem()).unwrap();
        pair
    }

    fn prepare(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> (Pair, CertificateParams, KeyPair) {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let all: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(all).unwrap();
        let name = names.first().copied().unwrap_or("nobody");
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(number.into());
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let file = |end| self.folder().join(format!("{number}.{end}"));
        let pair = Pair {
            certificate: file("pem"),
            key: file("key"),
            serial: number.into(),
        };
        std::fs::write(&pair.key, key.serialize_pem()).unwrap();
        (pair, params, key)
    }

    /// A certificate that has expired.
    pub fn expired(&self, names: &[&str]) -> Pair {
        self.issue_with(names, |params| {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 2, 3);
        })
    }

    /// A certificate of the future.
    pub fn early(&self, names: &[&str]) -> Pair {
        self.issue_with(names, |params| {
            params.not_before = date_time_ymd(2990, 1, 1)
        })
    }

    /// The list of what is revoked.
    pub fn revoke(&self, pairs: &[&Pair]) -> Pem {
        let revoked = |pair: &&Pair| RevokedCertParams {
            serial_number: pair.serial.clone(),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2990, 1, 1),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: pairs.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Pem::text(list.signed_by(&self.issuer).unwrap().pem().unwrap())
    }
}
