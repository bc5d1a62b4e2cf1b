//! Making certificates, with rcgen: an [`Authority`] and what it issues.

use std::time::{Duration, SystemTime};

use network_system::ErrorKind;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::failure::{Exit, Failure, Result};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long an authority is valid.
const AUTHORITY_DAYS: u32 = 3650;
/// How long a certificate that is made for one run is valid.
const RUN_DAYS: u32 = 90;

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be shown by a server.
    Server,
    /// To be shown by a client.
    Client,
}

/// The first line of the authority's file, by which it is known again.
const MADE_HERE: &str = "# development authority, made by `netsys cert`";

/// Issues certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn new() -> Result<Self> {
        let issuer = issuer(KeyPair::generate().map_err(failed)?)?;
        let mut params = authority()?;
        let now = SystemTime::now();
        params.not_before = (now - DAY).into();
        params.not_after = (now + DAY * AUTHORITY_DAYS).into();
        let certificate = params.self_signed(issuer.key()).map_err(failed)?.pem();
        Ok(Self {
            certificate: format!("{MADE_HERE}\n{certificate}"),
            issuer,
        })
    }

    /// The one in these files, which a run before has made.
    ///
    /// # Errors
    /// They are of another authority, or no certificate and key.
    pub fn read(certificate: &str, key: &str) -> Result<Self> {
        if !certificate.starts_with(MADE_HERE) {
            return Err(Failure::usage(
                "the authority in the folder (ca.pem) was not made by `netsys cert`; \
                 take another folder with --out",
            ));
        }
        Ok(Self {
            issuer: issuer(KeyPair::from_pem(key).map_err(failed)?)?,
            certificate: certificate.to_owned(),
        })
    }

    /// Its certificate in PEM form.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Its key in PEM form.
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate for these names and its key, in PEM form.
    ///
    /// # Errors
    /// A name is none that a certificate can have.
    pub fn issue(&self, names: &[String], purpose: Purpose, days: u32) -> Result<(String, String)> {
        let key = KeyPair::generate().map_err(failed)?;
        let params = end(names, purpose, days)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

/// What is always the same in an authority, but for its key.
fn authority() -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
    params
        .distinguished_name
        .push(DnType::CommonName, "netsys development authority");
    // it issues, and nothing that it issues does
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn issuer(key: KeyPair) -> Result<Issuer<'static, KeyPair>> {
    Ok(Issuer::new(authority()?, key))
}

/// A server's certificate that is its own authority, and its key, in PEM form.
///
/// # Errors
/// A name is none that a certificate can have.
pub fn self_signed(names: &[String]) -> Result<(String, String)> {
    let key = KeyPair::generate().map_err(failed)?;
    let params = end(names, Purpose::Server, RUN_DAYS)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn end(names: &[String], purpose: Purpose, days: u32) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(names.to_vec()).map_err(failed)?;
    // from a day ago, for clocks that are late
    let now = SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + DAY * days).into();
    let name = names.first().map_or("netsys", String::as_str);
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match purpose {
        Purpose::Server => ExtendedKeyUsagePurpose::ServerAuth,
        Purpose::Client => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn failed(error: rcgen::Error) -> Failure {
    let text = format!("could not make a certificate: {error}");
    Failure::new(Exit::General, ErrorKind::InvalidArgument, text)
}
