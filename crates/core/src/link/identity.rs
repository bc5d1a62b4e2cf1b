//! What TLS knows about a link: [`TlsInfo`], and who the peer is: [`PeerCertificate`].

use std::fmt;

use bytes::Bytes;

use crate::config::TlsVersion;

/// What was agreed on in the handshake of a link with TLS, and who the peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsInfo {
    /// The version.
    pub version: TlsVersion,
    /// The cipher suite by its registered name, such as `TLS13_AES_256_GCM_SHA384`.
    pub cipher: String,
    /// The application protocol (ALPN), where both sides have named the same one.
    pub alpn: Option<String>,
    /// The name of the server that the client asked for (SNI), or checked.
    pub server_name: Option<String>,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// The peer's certificate. It has been verified, unless this side was told to
    /// [trust anybody](crate::config::TlsClientConfig::danger_trust_any_certificate). `None` where
    /// the peer, a client, has shown none.
    pub peer: Option<PeerCertificate>,
}

impl TlsInfo {
    /// A version and a cipher suite, and nothing else.
    #[must_use]
    pub fn new(version: TlsVersion, cipher: impl Into<String>) -> Self {
        Self {
            version,
            cipher: cipher.into(),
            alpn: None,
            server_name: None,
            resumed: false,
            peer: None,
        }
    }
}

/// The certificate of a peer: its identity.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerCertificate {
    /// The distinguished name that it was issued to, such as `CN=alice, O=Example`; what is special in
    /// a value has a `\` before it, as in RFC 4514.
    pub subject: String,
    /// The distinguished name of its authority.
    pub issuer: String,
    /// The other names that it is for (subject alternative names): host names, IP addresses, mail
    /// addresses and URIs as text, which does not tell of which kind each is: an authority that lets
    /// people choose one of them freely must be asked for the kind, in [`der`](Self::der).
    pub names: Vec<String>,
    /// The SHA-256 of the whole certificate, which nobody else's has.
    pub fingerprint: [u8; 32],
    /// The certificate itself, in DER form.
    pub der: Bytes,
}

impl PeerCertificate {
    /// The certificate in DER form and its SHA-256, without names.
    #[must_use]
    pub fn new(der: Bytes, fingerprint: [u8; 32]) -> Self {
        Self {
            subject: String::new(),
            issuer: String::new(),
            names: Vec::new(),
            fingerprint,
            der,
        }
    }

    /// The fingerprint as `openssl x509 -fingerprint -sha256` prints it: `AB:CD:…`.
    #[must_use]
    pub fn fingerprint_text(&self) -> String {
        let pairs = self.fingerprint.iter().map(|byte| format!("{byte:02X}"));
        pairs.collect::<Vec<_>>().join(":")
    }
}

impl fmt::Debug for PeerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerCertificate")
            .field("subject", &self.subject)
            .field("issuer", &self.issuer)
            .field("names", &self.names)
            .field("fingerprint", &self.fingerprint_text())
            .finish_non_exhaustive()
    }
}
