//! The options of `netsys connect` about TLS.

use std::path::PathBuf;

use clap::Args;
use network_system::config::{ClientConfig, TlsClientConfig};

/// Who is trusted, and who we are.
#[derive(Args, Clone, Debug, Default)]
pub struct TlsArgs {
    /// TLS: trust this authority, and not those that the system trusts
    #[arg(long, value_name = "FILE")]
    ca: Vec<PathBuf>,

    /// TLS: our certificate, for servers that ask for one
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,

    /// TLS: the key of --cert
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,

    /// TLS: the name that the server's certificate must have [default: the host of the URL]
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,

    /// TLS: DANGER: trust any certificate of anybody, so that everybody on the way can read and
    /// change everything; for tests only
    #[arg(long, conflicts_with = "ca")]
    danger_trust_any_certificate: bool,
}

impl TlsArgs {
    /// The settings of a client with these.
    pub fn client_config(&self) -> ClientConfig {
        let mut tls = TlsClientConfig::default();
        for ca in &self.ca {
            tls = tls.ca(&**ca);
        }
        if let (Some(certificate), Some(key)) = (&self.cert, &self.key) {
            tls = tls.identity(&**certificate, &**key);
        }
        tls.server_name.clone_from(&self.server_name);
        tls.danger_trust_any_certificate = self.danger_trust_any_certificate;
        ClientConfig {
            tls,
            ..ClientConfig::default()
        }
    }
}
