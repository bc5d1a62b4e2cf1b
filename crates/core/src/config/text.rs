//! How settings look in configuration files: durations as `30s`, framings as `length:4be`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// A duration as text, such as `1m 30s`.
pub(super) mod duration {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(value: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&humantime::format_duration(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(d)?;
        humantime::parse_duration(&text).map_err(|e| {
            D::Error::custom(format_args!("'{text}' is not a duration such as 30s: {e}"))
        })
    }
}

/// A path, or `off`.
pub(super) mod optional_path {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        value: &Option<String>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.serialize_str(value.as_deref().unwrap_or("off"))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
        let text = String::deserialize(d)?;
        Ok((text != "off").then_some(text))
    }
}

/// A duration as text, or `off`.
pub(super) mod optional_duration {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => duration::serialize(value, s),
            None => s.serialize_str("off"),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = String::deserialize(d)?;
        if text == "off" {
            return Ok(None);
        }
        humantime::parse_duration(&text).map(Some).map_err(|e| {
            D::Error::custom(format_args!(
                "'{text}' is neither \"off\" nor a duration such as 30s: {e}"
            ))
        })
    }
}

/// A framing by its name.
pub(super) mod framing {
    use super::*;
    use network_system_wire::Framing;

    pub(crate) fn serialize<S: Serializer>(value: &Framing, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(value)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Framing, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}
