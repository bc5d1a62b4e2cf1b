//! PEM as settings name it: [`Pem`], a file or its content.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Certificates, a key or a revocation list in PEM form. As text it is the path of a file, unless it
/// has a line that begins with `-----BEGIN`: then it is the content itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem(Source);

#[derive(Clone, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Text(Arc<str>),
}

impl Pem {
    /// A file, which may change.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Source::File(path.into()))
    }

    /// The content itself.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self(Source::Text(text.into()))
    }

    /// The file, where it is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Source::File(path) => Some(path),
            Source::Text(_) => None,
        }
    }

    /// The content; a file is read now.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self) -> std::io::Result<Cow<'_, [u8]>> {
        match &self.0 {
            Source::File(path) => std::fs::read(path).map(Cow::Owned),
            Source::Text(text) => Ok(Cow::Borrowed(text.as_bytes())),
        }
    }
}

impl From<String> for Pem {
    fn from(text: String) -> Self {
        match text.contains("-----BEGIN ") {
            true => Self::text(text),
            false => Self::file(text),
        }
    }
}

impl From<&str> for Pem {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<&Path> for Pem {
    fn from(path: &Path) -> Self {
        Self::file(path)
    }
}

impl From<PathBuf> for Pem {
    fn from(path: PathBuf) -> Self {
        Self::file(path)
    }
}

impl fmt::Display for Pem {
    /// The path; of content only that it is some, since it may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::File(path) => path.display().fmt(f),
            Source::Text(_) => f.write_str("(PEM text)"),
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Pem {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Source::File(path) => path.serialize(s),
            Source::Text(text) => s.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Pem {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_is_a_path_or_the_content() {
        let text = "# mine\n-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
        assert_eq!(Pem::from("a/b.pem").path(), Some(Path::new("a/b.pem")));
        assert_eq!(Pem::from(text).path(), None);
        assert_eq!(&*Pem::from(text).read().unwrap(), text.as_bytes());
        // a key must not get into a log
        assert_eq!(format!("{:?}", Pem::from(text)), "(PEM text)");
        assert!(Pem::from("/no/such/file").read().is_err());
    }
}
