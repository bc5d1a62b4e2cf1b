//! The settings of the admin listener: [`AdminSettings`].

use serde::{Deserialize, Serialize};

use super::keys;
use crate::failure::{Failure, Result};

/// Where the admin listener is, and who may use it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AdminSettings {
    /// An address, or a URL. Default: empty, there is none.
    pub listen: String,
    /// The file with the bearer token. Default: empty, there is none.
    pub token_file: String,
}

impl AdminSettings {
    /// The URL to listen on.
    pub fn url(&self) -> Option<String> {
        let text = &*self.listen;
        if text.starts_with("http://") || text.starts_with("https://") {
            return Some(text.to_owned());
        }
        let text = text
            .strip_prefix("localhost:")
            .map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
        let address: std::net::SocketAddr = text.parse().ok()?;
        Some(format!("http://{address}"))
    }

    /// The token.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn token(&self) -> Result<Option<String>> {
        if self.token_file.is_empty() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&self.token_file).map_err(|error| {
            Failure::usage(format_args!(
                "the admin token in {} cannot be read: {error}",
                self.token_file
            ))
        })?;
        Ok(Some(
            text.lines().next().unwrap_or_default().trim().to_owned(),
        ))
    }

    pub(super) fn validate(&self) -> Result<()> {
        if self.listen.is_empty() || self.url().is_some() {
            return Ok(());
        }
        Err(Failure::usage(format_args!(
            "`{}` is no address for admin.listen; allowed: {}",
            self.listen,
            keys::allowed("admin.listen").unwrap_or_default()
        )))
    }
}
