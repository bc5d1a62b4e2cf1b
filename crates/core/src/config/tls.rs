//! Settings of TLS, in terms of files, names and versions: what a build with TLS makes of them is its
//! own matter, and a build without it refuses to use them.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::pem::Pem;
use super::{check, positive, text};
use crate::error::Result;

/// TLS of a server's listeners: of all with the scheme `tls`, and of those whose address has
/// `?tls=true`. The files are read when the server starts, and again when they change or when
/// [`Server::reload`](crate::Server::reload) is called.
///
/// ```
/// use network_system_core::config::{ClientAuth, TlsServerConfig, TlsVersion};
///
/// let tls = TlsServerConfig::new("site.pem", "site.key")
///     .certificate("other.pem", "other.key")
///     .client_ca("clients.pem")
///     .min_version(TlsVersion::Tls13);
/// assert_eq!(tls.client_auth, ClientAuth::Required);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TlsServerConfig {
    /// Certificates with their keys. A client gets the first one that has the name that it asks for
    /// (SNI) and whose key it understands; one that asks for another name, or for none, the first of
    /// all. Default: none, and then no listener may use TLS.
    pub certificates: Vec<CertificateFiles>,
    /// Whether clients must have a certificate. Default: they are not asked.
    pub client_auth: ClientAuth,
    /// The authorities that clients' certificates must come from. Default: none.
    pub client_ca: Vec<Pem>,
    /// Lists of revoked client certificates, from the same authorities. Default: none.
    pub crl: Vec<Pem>,
    /// Application protocols (ALPN), the preferred one first. A client that offers protocols and none
    /// of these is refused. Default: none, and what clients offer is ignored.
    pub alpn: Vec<String>,
    /// The oldest version. Default: 1.2.
    pub min_version: TlsVersion,
    /// Whether clients that come back may resume their session, which saves both sides most of the
    /// handshake. Not where [`client_auth`](Self::client_auth) asks for certificates: those are looked
    /// at each time, since one may have expired or been revoked since. Default: yes.
    pub resumption: bool,
    /// How often it is looked, while connections come, whether the files have changed. Default: 5 s.
    #[serde(with = "text::optional_duration")]
    pub reload_interval: Option<Duration>,
}

impl Default for TlsServerConfig {
    fn default() -> Self {
        Self {
            certificates: Vec::new(),
            client_auth: ClientAuth::Off,
            client_ca: Vec::new(),
            crl: Vec::new(),
            alpn: Vec::new(),
            min_version: TlsVersion::Tls12,
            resumption: true,
            reload_interval: Some(RELOAD_INTERVAL),
        }
    }
}

/// How often files are looked at.
const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

impl TlsServerConfig {
    /// A server with one certificate, whose chain may follow in the same file, and its key.
    pub fn new(certificate: impl Into<Pem>, key: impl Into<Pem>) -> Self {
        Self::default().certificate(certificate, key)
    }

    /// Adds a certificate, for clients that ask for a name in it.
    #[must_use]
    pub fn certificate(mut self, certificate: impl Into<Pem>, key: impl Into<Pem>) -> Self {
        self.certificates
            .push(CertificateFiles::new(certificate, key));
        self
    }

    /// Adds an authority of clients' certificates, and makes them [required](ClientAuth::Required)
    /// unless they are optional already.
    #[must_use]
    pub fn client_ca(mut self, ca: impl Into<Pem>) -> Self {
        self.client_ca.push(ca.into());
        if self.client_auth == ClientAuth::Off {
            self.client_auth = ClientAuth::Required;
        }
        self
    }

    /// Whether clients must have a certificate.
    #[must_use]
    pub fn client_auth(mut self, auth: ClientAuth) -> Self {
        self.client_auth = auth;
        self
    }

    /// Adds a list of revoked client certificates.
    #[must_use]
    pub fn crl(mut self, crl: impl Into<Pem>) -> Self {
        self.crl.push(crl.into());
        self
    }

    /// Application protocols, the preferred one first.
    #[must_use]
    pub fn alpn<P: Into<String>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.alpn = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// The oldest version.
    #[must_use]
    pub fn min_version(mut self, version: TlsVersion) -> Self {
        self.min_version = version;
        self
    }

    /// Checks that the settings make sense; `path` is where they stand, such as `tls.`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) names the key.
    pub fn validate(&self, path: &str) -> Result<()> {
        let asks = self.client_auth != ClientAuth::Off;
        check(
            asks != self.client_ca.is_empty(),
            path,
            if asks { "client_ca" } else { "client_auth" },
            if asks {
                "must name the authorities of the certificates that client_auth asks for"
            } else {
                "must be \"optional\" or \"required\" where client_ca is given"
            },
        )?;
        check(
            asks || self.crl.is_empty(),
            path,
            "crl",
            "is about clients' certificates, which client_auth does not ask for",
        )?;
        check_common(path, &self.alpn, self.reload_interval)
    }
}

/// TLS of a client: for all addresses with the scheme `tls`, and those with `?tls=true`.
///
/// By default the server's certificate must come from an authority that the system trusts, be valid
/// now, and be for the host in the address.
///
/// ```
/// use network_system_core::config::TlsClientConfig;
///
/// let tls = TlsClientConfig::default()
///     .ca("our-ca.pem")
///     .identity("me.pem", "me.key")
///     .server_name("service.internal");
/// # let _ = tls;
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TlsClientConfig {
    /// The authorities to trust in place of the system's. Default: none, which is the system's.
    pub ca: Vec<Pem>,
    /// Lists of revoked server certificates, from the authorities in [`ca`](Self::ca). Default: none.
    pub crl: Vec<Pem>,
    /// The certificate and key for servers that ask for one. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<CertificateFiles>,
    /// The name that the server's certificate must have. Default: the host of the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Application protocols (ALPN) to offer, the preferred one first. Default: none.
    pub alpn: Vec<String>,
    /// The oldest version. Default: 1.2.
    pub min_version: TlsVersion,
    /// Whether to resume sessions with servers that were connected to before. Default: yes.
    pub resumption: bool,
    /// How often it is looked, while connections are made, whether the files have changed. Default:
    /// 5 s.
    #[serde(with = "text::optional_duration")]
    pub reload_interval: Option<Duration>,
    /// **Dangerous.** Takes any certificate of anybody, so that everybody on the way can read and
    /// change everything. For tests only, and hence not to be had from a configuration file; each
    /// use is logged as a warning. Default: no.
    #[serde(skip)]
    pub danger_trust_any_certificate: bool,
}

impl Default for TlsClientConfig {
    fn default() -> Self {
        Self {
            ca: Vec::new(),
            crl: Vec::new(),
            identity: None,
            server_name: None,
            alpn: Vec::new(),
            min_version: TlsVersion::Tls12,
            resumption: true,
            reload_interval: Some(RELOAD_INTERVAL),
            danger_trust_any_certificate: false,
        }
    }
}

impl TlsClientConfig {
    /// Adds an authority to trust, in place of the system's.
    #[must_use]
    pub fn ca(mut self, ca: impl Into<Pem>) -> Self {
        self.ca.push(ca.into());
        self
    }

    /// Adds a list of revoked server certificates.
    #[must_use]
    pub fn crl(mut self, crl: impl Into<Pem>) -> Self {
        self.crl.push(crl.into());
        self
    }

    /// The certificate and key for servers that ask for one.
    #[must_use]
    pub fn identity(mut self, certificate: impl Into<Pem>, key: impl Into<Pem>) -> Self {
        self.identity = Some(CertificateFiles::new(certificate, key));
        self
    }

    /// The name that the server's certificate must have.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Application protocols to offer, the preferred one first.
    #[must_use]
    pub fn alpn<P: Into<String>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.alpn = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// The oldest version.
    #[must_use]
    pub fn min_version(mut self, version: TlsVersion) -> Self {
        self.min_version = version;
        self
    }

    /// **Dangerous**: see [`danger_trust_any_certificate`](Self::danger_trust_any_certificate).
    #[must_use]
    pub fn danger_trust_any_certificate_for_tests_only(mut self) -> Self {
        self.danger_trust_any_certificate = true;
        self
    }

    /// Checks that the settings make sense; `path` is where they stand, such as `tls.`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) names the key.
    pub fn validate(&self, path: &str) -> Result<()> {
        check(
            self.crl.is_empty() || !self.ca.is_empty(),
            path,
            "crl",
            "needs the authorities that it is of, in ca",
        )?;
        check_common(path, &self.alpn, self.reload_interval)
    }
}

fn check_common(path: &str, alpn: &[String], reload: Option<Duration>) -> Result<()> {
    check(
        alpn.iter().all(|name| (1..=255).contains(&name.len())),
        path,
        "alpn",
        "must have names of 1 to 255 bytes",
    )?;
    check(
        positive(reload),
        path,
        "reload_interval",
        "must be larger than 0, or \"off\"",
    )
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateFiles {
    /// The certificate, and behind it the chain up to its authority.
    pub certificate: Pem,
    /// The private key: PKCS #8, PKCS #1 or SEC 1, not encrypted.
    pub key: Pem,
}

impl CertificateFiles {
    /// A certificate and its key.
    pub fn new(certificate: impl Into<Pem>, key: impl Into<Pem>) -> Self {
        Self {
            certificate: certificate.into(),
            key: key.into(),
        }
    }
}

/// Whether clients must have a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAuth {
    /// They are not asked for one.
    #[default]
    Off,
    /// They may have none; one that they have must be right.
    Optional,
    /// Without a right one they are refused.
    Required,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2.
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    Tls13,
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_contradict_each_other_are_named() {
        let server = || TlsServerConfig::new("c", "k");
        for (wrong, key) in [
            (server().client_auth(ClientAuth::Required), "client_ca"),
            (
                server().client_ca("x").client_auth(ClientAuth::Off),
                "client_auth",
            ),
            (server().crl("x"), "crl"),
            (server().alpn([""]), "alpn"),
        ] {
            let error = wrong.validate("tls.").unwrap_err().to_string();
            assert!(error.contains(&format!("tls.{key} ")), "{error}");
        }
        server().validate("tls.").unwrap();
        server().client_ca("x").crl("y").validate("tls.").unwrap();
        let error = TlsClientConfig::default().crl("x").validate("tls.");
        assert!(error.unwrap_err().to_string().contains("tls.crl needs"));
    }
}
