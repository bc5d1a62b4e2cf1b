//! Settings of the pipeline: how messages are compressed and encrypted on their way.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use network_system_wire::Framing;
use network_system_wire::pipeline::{Algorithm, Pattern};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize, Zeroizing};

use super::check;
use crate::error::{Error, ErrorKind, Result};

/// What happens to messages between the session and the framing. Both sides need a pipeline; each
/// decides how it compresses what it sends, and both must insist on the same encryption.
///
/// ```
/// use network_system_core::config::{Compression, Noise, Pipeline};
///
/// let pipeline = Pipeline::new()
///     .compress(Compression::Zstd { level: 3 })
///     .threshold(1024)
///     .noise(Noise::psk("shared.key"));
/// # let _ = pipeline;
/// ```
///
/// Compressing before encrypting tells who watches the line how well a message could be compressed.
/// Where somebody else can put text beside a secret in one message, that gives the secret away
/// piece by piece (as CRIME and BREACH did): send such messages uncompressed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pipeline {
    /// How messages that are sent are compressed, where the peer can undo it. What comes in may be
    /// compressed in any way. Default: none.
    pub compress: Compression,
    /// Messages of fewer bytes are sent as they are, and so are those that would not get smaller.
    /// Default: 512.
    pub threshold: usize,
    /// Encryption. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise: Option<Noise>,
}

impl Default for Pipeline {
    fn default() -> Self {
        Self {
            compress: Compression::None,
            threshold: 512,
            noise: None,
        }
    }
}

impl Pipeline {
    /// One that does nothing to messages, but takes compressed ones.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How messages that are sent are compressed.
    #[must_use]
    pub fn compress(mut self, compression: Compression) -> Self {
        self.compress = compression;
        self
    }

    /// The size in bytes from which on they are.
    #[must_use]
    pub fn threshold(mut self, bytes: usize) -> Self {
        self.threshold = bytes;
        self
    }

    /// Encrypts everything.
    #[must_use]
    pub fn noise(mut self, noise: Noise) -> Self {
        self.noise = Some(noise);
        self
    }

    /// Checks that the settings make sense; `path` is where they stand, such as `pipeline.`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] names the key.
    pub fn validate(&self, path: &str, framing: &Framing) -> Result<()> {
        let prefixed = matches!(framing, Framing::LengthPrefix(_));
        check(
            prefixed,
            path,
            "compress",
            "and all of the pipeline needs a length-prefixed framing",
        )?;
        let levels = self.compress.levels();
        check(
            levels.is_none_or(|(level, range)| range.contains(&level)),
            path,
            "compress",
            "has a level that does not exist: zstd has 1 to 22, deflate 1 to 9",
        )?;
        match &self.noise {
            Some(noise) => noise.validate(&format!("{path}noise.")),
            None => Ok(()),
        }
    }
}

/// How messages are compressed. As text `none`, `lz4`, `deflate`, `zstd`, or with a level
/// `deflate:9`, `zstd:19`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// lz4: the quickest.
    Lz4,
    /// Deflate: the most common.
    Deflate {
        /// 1 (quick) to 9 (small). Default: 6.
        level: u32,
    },
    /// zstd: quick and small.
    Zstd {
        /// 1 (quick) to 22 (small, and slow). Default: 3.
        level: i32,
    },
}

impl Compression {
    /// What undoes it.
    #[must_use]
    pub fn algorithm(self) -> Option<Algorithm> {
        match self {
            Self::None => None,
            Self::Lz4 => Some(Algorithm::Lz4),
            Self::Deflate { .. } => Some(Algorithm::Deflate),
            Self::Zstd { .. } => Some(Algorithm::Zstd),
        }
    }

    /// Its level, and those that exist.
    fn levels(self) -> Option<(i64, std::ops::RangeInclusive<i64>)> {
        match self {
            Self::None | Self::Lz4 => None,
            Self::Deflate { level } => Some((level.into(), 1..=9)),
            Self::Zstd { level } => Some((level.into(), 1..=22)),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Lz4 => f.write_str("lz4"),
            Self::Deflate { level: 6 } => f.write_str("deflate"),
            Self::Deflate { level } => write!(f, "deflate:{level}"),
            Self::Zstd { level: 3 } => f.write_str("zstd"),
            Self::Zstd { level } => write!(f, "zstd:{level}"),
        }
    }
}

impl FromStr for Compression {
    type Err = ParseCompressionError;

    fn from_str(text: &str) -> Result<Self, ParseCompressionError> {
        let wrong = || ParseCompressionError(text.to_owned());
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, Some(level.parse().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let found = match (name, level) {
            ("none", None) => Self::None,
            ("lz4", None) => Self::Lz4,
            ("deflate", level) => Self::Deflate {
                level: level.unwrap_or(6),
            },
            ("zstd", level) => Self::Zstd {
                level: i32::try_from(level.unwrap_or(3)).map_err(|_| wrong())?,
            },
            _ => return Err(wrong()),
        };
        match found.levels() {
            Some((level, range)) if !range.contains(&level) => Err(wrong()),
            _ => Ok(found),
        }
    }
}

/// A text that names no compression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no compression: use none, lz4, deflate (or deflate:1 to deflate:9) or zstd (or zstd:1 to zstd:22)"
)]
pub struct ParseCompressionError(String);

impl Serialize for Compression {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Compression {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Encryption with the [Noise protocol](https://noiseprotocol.org/noise.html), where TLS cannot be
/// had: nobody on the way can read or change a message, or send one again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noise {
    /// Which handshake: `NNpsk0`, `XX` or `IK`.
    #[serde(with = "pattern")]
    pub pattern: Pattern,
    /// The file with the key that both sides share, for `NNpsk0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub psk: Option<NoiseKey>,
    /// The file with our own private key, for `XX` and `IK`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<NoiseKey>,
    /// The public keys of the peers that are accepted, for `XX` and `IK`. A client with `IK` needs
    /// exactly one, the server's.
    #[serde(default)]
    pub peers: Vec<PublicKey>,
    /// **Dangerous.** Accepts every peer, whatever its key: what it sends is protected from others,
    /// but nothing says who it is, and somebody on the way can be the peer of both sides. Logged as a
    /// warning. Default: no.
    #[serde(default)]
    pub danger_accept_any_peer: bool,
    /// The sender takes another key after so many messages. Default: 65 536.
    #[serde(default = "rekey_messages")]
    pub rekey_messages: u64,
    /// The sender takes another key after so many bytes. Default: 1 GiB.
    #[serde(default = "rekey_bytes")]
    pub rekey_bytes: u64,
}

fn rekey_messages() -> u64 {
    65_536
}

fn rekey_bytes() -> u64 {
    1 << 30
}

impl Noise {
    fn new(pattern: Pattern) -> Self {
        Self {
            pattern,
            psk: None,
            key: None,
            peers: Vec::new(),
            danger_accept_any_peer: false,
            rekey_messages: rekey_messages(),
            rekey_bytes: rekey_bytes(),
        }
    }

    /// `NNpsk0`: both sides have the same secret key.
    pub fn psk(key: impl Into<NoiseKey>) -> Self {
        Self {
            psk: Some(key.into()),
            ..Self::new(Pattern::NNpsk0)
        }
    }

    /// `XX`: both sides have a private key of their own, and learn each other's public key, which must
    /// be among the [peers](Self::peer).
    pub fn xx(key: impl Into<NoiseKey>) -> Self {
        Self {
            key: Some(key.into()),
            ..Self::new(Pattern::XX)
        }
    }

    /// `IK`: as [`xx`](Self::xx), with one message less, since the client knows the server's key.
    pub fn ik(key: impl Into<NoiseKey>) -> Self {
        Self {
            key: Some(key.into()),
            ..Self::new(Pattern::IK)
        }
    }

    /// Accepts the peer with this key.
    #[must_use]
    pub fn peer(mut self, key: PublicKey) -> Self {
        self.peers.push(key);
        self
    }

    /// **Dangerous**: see [`danger_accept_any_peer`](Self::danger_accept_any_peer).
    #[must_use]
    pub fn danger_accept_any_peer(mut self) -> Self {
        self.danger_accept_any_peer = true;
        self
    }

    /// After how many messages, or bytes, the sender takes another key.
    #[must_use]
    pub fn rekey(mut self, messages: u64, bytes: u64) -> Self {
        (self.rekey_messages, self.rekey_bytes) = (messages, bytes);
        self
    }

    fn validate(&self, path: &str) -> Result<()> {
        let shared = self.pattern == Pattern::NNpsk0;
        for (key, name) in [(&self.psk, "psk"), (&self.key, "key")] {
            check(
                key.as_ref().is_none_or(|key| !key.is_misplaced()),
                path,
                name,
                "must be the path of a file that has the key, and not the key itself",
            )?;
        }
        check(
            self.psk.is_some() == shared,
            path,
            "psk",
            "must be given with NNpsk0, and only there",
        )?;
        check(
            self.key.is_none() == shared,
            path,
            "key",
            "must be given with XX and IK, and only there",
        )?;
        check(
            shared || self.danger_accept_any_peer || !self.peers.is_empty(),
            path,
            "peers",
            "must list the public keys of the peers to accept",
        )?;
        check(
            !(self.danger_accept_any_peer && (shared || !self.peers.is_empty())),
            path,
            "danger_accept_any_peer",
            "contradicts the peers that are given, or needs XX or IK",
        )?;
        check(
            self.rekey_messages > 0 && self.rekey_bytes > 0,
            path,
            "rekey_messages",
            "and rekey_bytes must be larger than 0",
        )
    }
}

/// A pattern by its name.
mod pattern {
    use super::*;

    pub(super) fn serialize<S: Serializer>(value: &Pattern, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("{value:?}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Pattern, D::Error> {
        match String::deserialize(d)?.as_str() {
            "NNpsk0" => Ok(Pattern::NNpsk0),
            "XX" => Ok(Pattern::XX),
            "IK" => Ok(Pattern::IK),
            other => Err(serde::de::Error::custom(format_args!(
                "'{other}' is none of NNpsk0, XX and IK"
            ))),
        }
    }
}

/// A secret key of 32 bytes: a file that has it as 64 hexadecimal digits (as `netsys noise-key` makes
/// it), or the key itself. It is never printed, and overwritten when it is no longer needed.
#[derive(Clone, PartialEq, Eq)]
pub struct NoiseKey(Source);

#[derive(Clone, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Bytes(Zeroizing<[u8; 32]>),
}

impl NoiseKey {
    /// A file, which is read for each address that is bound, again when
    /// [`Server::reload`](crate::Server::reload) is called, and for each connect.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Source::File(path.into()))
    }

    /// The key itself.
    #[must_use]
    pub fn bytes(key: [u8; 32]) -> Self {
        Self(Source::Bytes(Zeroizing::new(key)))
    }

    /// Whether the path is no path but a key, which must not show in an error or a log.
    fn is_misplaced(&self) -> bool {
        match &self.0 {
            Source::File(path) => {
                let text = Zeroizing::new(path.as_os_str().as_encoded_bytes().to_vec());
                from_hex(text.trim_ascii(), &mut Zeroizing::new([0; 32])).is_some()
            }
            Source::Bytes(_) => false,
        }
    }

    /// The key; a file is read now.
    ///
    /// # Errors
    /// The file cannot be read, or has something else in it.
    pub fn read(&self) -> Result<Zeroizing<[u8; 32]>> {
        let path = match &self.0 {
            Source::Bytes(key) => return Ok(key.clone()),
            Source::File(_) if self.is_misplaced() => {
                return Err(Error::new(ErrorKind::InvalidArgument, "read the Noise key")
                    .because("the path of its file is a key itself")
                    .advice("put the key into a file, or use NoiseKey::bytes"));
            }
            Source::File(path) => path,
        };
        let text = std::fs::read(path).map(Zeroizing::new);
        let text = text
            .map_err(|error| Error::from_io("read the Noise key in", error).peer(path.display()))?;
        let mut key = Zeroizing::new([0; 32]);
        let digits = text.trim_ascii();
        if from_hex(digits, &mut key).is_none() {
            return Err(
                Error::new(ErrorKind::InvalidArgument, "read the Noise key in")
                    .peer(path.display())
                    .because("it is not 64 hexadecimal digits")
                    .advice("make one with `netsys noise-key`"),
            );
        }
        Ok(key)
    }
}

impl From<&str> for NoiseKey {
    fn from(path: &str) -> Self {
        Self::file(path)
    }
}

impl From<String> for NoiseKey {
    fn from(path: String) -> Self {
        Self::file(path)
    }
}

impl From<&Path> for NoiseKey {
    fn from(path: &Path) -> Self {
        Self::file(path)
    }
}

impl From<PathBuf> for NoiseKey {
    fn from(path: PathBuf) -> Self {
        Self::file(path)
    }
}

impl From<[u8; 32]> for NoiseKey {
    fn from(mut key: [u8; 32]) -> Self {
        let copy = Self::bytes(key);
        key.zeroize();
        copy
    }
}

impl fmt::Debug for NoiseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::File(path) if !self.is_misplaced() => path.display().fmt(f),
            _ => f.write_str("(secret)"),
        }
    }
}

impl Serialize for NoiseKey {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Source::File(path) if !self.is_misplaced() => path.serialize(s),
            _ => Err(serde::ser::Error::custom(
                "a Noise key that is not in a file is not written anywhere",
            )),
        }
    }
}

impl<'de> Deserialize<'de> for NoiseKey {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        PathBuf::deserialize(d).map(Self::file)
    }
}

/// The public key of somebody who uses Noise: who it is. As text 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = ParsePublicKeyError;

    fn from_str(text: &str) -> Result<Self, ParsePublicKeyError> {
        let mut key = [0; 32];
        from_hex(text.trim().as_bytes(), &mut key).ok_or(ParsePublicKeyError)?;
        Ok(Self(key))
    }
}

/// A text that is no public key. What it is is not said: it may be a secret in the wrong place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a public key, which is 64 hexadecimal digits")]
pub struct ParsePublicKeyError;

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn from_hex(digits: &[u8], into: &mut [u8; 32]) -> Option<()> {
    if digits.len() != 2 * into.len() {
        return None;
    }
    let value = |digit: u8| char::from(digit).to_digit(16);
    for (byte, pair) in into.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = u8::try_from(value(*high)? << 4 | value(*low)?).ok()?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressions_have_names() {
        for text in ["none", "lz4", "deflate", "deflate:9", "zstd", "zstd:19"] {
            assert_eq!(text.parse::<Compression>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "gzip",
            "zstd:0",
            "zstd:23",
            "zstd:-1",
            "lz4:1",
            "deflate:10",
        ] {
            let error = text.parse::<Compression>().unwrap_err().to_string();
            assert!(error.contains(&format!("'{text}'")), "{error}");
        }
    }

    #[test]
    fn noise_settings_that_make_no_sense_are_named() {
        let key = || [7; 32];
        let peer = PublicKey([1; 32]);
        let framing = Framing::default();
        let both = Noise {
            psk: Some(key().into()),
            ..Noise::xx(key()).peer(peer)
        };
        for (noise, name) in [
            (Noise::xx(key()), "peers"),
            (Noise::ik(key()), "peers"),
            (both, "psk"),
            (
                Noise {
                    key: None,
                    ..Noise::xx(key()).peer(peer)
                },
                "key",
            ),
            (
                Noise::xx(key()).peer(peer).danger_accept_any_peer(),
                "danger_accept_any_peer",
            ),
            (
                Noise::psk(key()).danger_accept_any_peer(),
                "danger_accept_any_peer",
            ),
            (Noise::psk(key()).rekey(0, 1), "rekey_messages"),
        ] {
            let error = Pipeline::new().noise(noise).validate("pipeline.", &framing);
            let error = error.unwrap_err().to_string();
            assert!(
                error.contains(&format!("pipeline.noise.{name} ")),
                "{error}"
            );
        }
        for noise in [
            Noise::psk(key()),
            Noise::xx(key()).peer(peer),
            Noise::ik(key()).danger_accept_any_peer(),
        ] {
            Pipeline::new().noise(noise).validate("", &framing).unwrap();
        }
        let lines = "lines".parse().unwrap();
        assert!(Pipeline::new().validate("", &lines).is_err());
    }

    #[test]
    fn secrets_are_not_printed() {
        let noise = Noise::psk([0xab; 32]);
        let text = format!("{noise:?}");
        assert!(text.contains("(secret)") && !text.contains("171"), "{text}");
        // where somebody has put a key in the place of its file's path
        let digits = "ab".repeat(32);
        let noise = Noise::psk(&*digits);
        let key = noise.psk.as_ref().unwrap();
        let pipeline = Pipeline::new().noise(noise.clone());
        let error = pipeline.validate("", &Framing::default()).unwrap_err();
        let texts = [
            format!("{noise:?}"),
            error.to_string(),
            key.read().unwrap_err().to_string(),
        ];
        for text in texts {
            assert!(!text.contains(&digits), "{text}");
        }
        let error = "ab".parse::<PublicKey>().unwrap_err().to_string();
        assert!(!error.contains("ab'"), "{error}");
        let key = PublicKey([0x0f; 32]);
        assert_eq!(key.to_string().parse(), Ok(key));
    }
}
