//! What happens to the messages of our implementation on their way, where it is measured with a pipeline:
//! [`Way`], and the key for it.

use network_system::LinkInfo;
use network_system::config::{Compression, Noise, Pipeline};

use super::error::{Error, Result};

/// A pipeline as the two roles are told of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Way {
    /// How messages are compressed.
    pub compress: Option<Compression>,
    /// The key that both sides share, in hexadecimal; made for one measurement, and known to all who can
    /// see the processes of this machine.
    pub psk: Option<String>,
}

impl Way {
    /// The settings; `None` without a pipeline.
    pub fn pipeline(&self) -> Result<Option<Pipeline>> {
        if *self == Self::default() {
            return Ok(None);
        }
        let compress = self.compress.unwrap_or_default();
        let pipeline = Pipeline::new().compress(compress);
        let Some(psk) = &self.psk else {
            return Ok(Some(pipeline));
        };
        let key = key(psk).ok_or_else(|| Error::Usage("--psk is no key".into()))?;
        Ok(Some(pipeline.noise(Noise::psk(key))))
    }

    /// Whether this is what was agreed on for a link: if it is not, the figures are those of something
    /// else.
    pub fn check(&self, info: &LinkInfo) -> Result<()> {
        let agreed = info.pipeline.as_deref();
        let compression = agreed.map(|agreed| agreed.compression);
        let is_encrypted = agreed.is_some_and(|agreed| agreed.noise.is_some());
        let wanted = self.compress.unwrap_or_default();
        if compression.unwrap_or_default() == wanted && is_encrypted == self.psk.is_some() {
            return Ok(());
        }
        Err(Error::Failed(format!(
            "messages go another way than was asked for: {agreed:?}"
        )))
    }
}

/// A new key.
pub fn new_psk() -> Result<String> {
    let made = network_system::noise_key();
    let (key, _) = made.map_err(|error| Error::Failed(error.to_string()))?;
    Ok(key.to_string())
}

fn key(digits: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else {
        return None;
    };
    if pairs.len() != key.len() {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(pairs) {
        let text = std::str::from_utf8(pair).ok()?;
        *byte = u8::from_str_radix(text, 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use network_system::Endpoint;
    use network_system::config::LinkConfig;

    use super::*;

    #[test]
    fn a_link_that_goes_another_way_is_an_error() {
        let end = || Endpoint::Memory("plain".into());
        let plain = LinkInfo::new("memory", end(), end(), &LinkConfig::default());
        Way::default().check(&plain).unwrap();
        let compress = Some("lz4".parse().unwrap());
        let psk = Some(new_psk().unwrap());
        for way in [
            Way {
                compress,
                psk: None,
            },
            Way {
                compress: None,
                psk,
            },
        ] {
            let error = way.check(&plain).unwrap_err().to_string();
            assert!(error.contains("another way"), "{error}");
        }
    }

    #[test]
    fn keys_are_read_as_they_are_made() {
        let made = new_psk().unwrap();
        let key = key(&made).unwrap();
        let back: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(back, made);
        for wrong in ["", "ab", "0g", &made[1..], &format!("{made}00")] {
            assert_eq!(super::key(wrong), None, "{wrong}");
        }
    }
}
