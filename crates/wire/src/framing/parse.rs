//! Framings as text: the names that configuration files and URL queries use.

use std::fmt;
use std::str::FromStr;

use super::Framing;
use crate::{ByteOrder, Delimiter, LengthPrefix, Lines, Raw, Width};

const ALLOWED: &str = "allowed are: length (4 bytes, big endian), length:1|2|4|8 with an optional \
    be or le (length:2le), varint, lines, delimiter:HEX (delimiter:0d0a), raw";

/// Why a text is not the name of a [`Framing`]. Its message says what was wrong and lists what is
/// allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {ALLOWED}")]
pub struct ParseFramingError {
    problem: String,
}

impl ParseFramingError {
    fn new(problem: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
        }
    }
}

impl FromStr for Framing {
    type Err = ParseFramingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, argument) = match text.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (text, None),
        };
        let framing = match (name, argument) {
            ("length", None) => LengthPrefix::new().into(),
            ("length", Some(layout)) => parse_length(layout)?.into(),
            ("delimiter", Some(hex)) => parse_delimiter(hex)?.into(),
            ("delimiter", None) => {
                return Err(ParseFramingError::new(
                    "framing `delimiter` needs the delimiter in hexadecimal",
                ));
            }
            ("varint", None) => LengthPrefix::varint().into(),
            ("lines", None) => Lines::new().into(),
            ("raw", None) => Raw::new().into(),
            ("varint" | "lines" | "raw", Some(argument)) => {
                return Err(ParseFramingError::new(format!(
                    "framing `{name}` takes nothing behind its name, not `:{argument}`"
                )));
            }
            ("custom", _) => {
                return Err(ParseFramingError::new(
                    "framing `custom` is a codec written in Rust; it can be set in code only",
                ));
            }
            ("", None) => return Err(ParseFramingError::new("the framing is empty")),
            _ => {
                return Err(ParseFramingError::new(format!(
                    "there is no framing `{text}`"
                )));
            }
        };
        Ok(framing)
    }
}

fn parse_length(layout: &str) -> Result<LengthPrefix, ParseFramingError> {
    let (width, order) = if let Some(width) = layout.strip_suffix("le") {
        (width, ByteOrder::Little)
    } else {
        (layout.strip_suffix("be").unwrap_or(layout), ByteOrder::Big)
    };
    let width = match width {
        "1" => Width::U8,
        "2" => Width::U16,
        "4" => Width::U32,
        "8" => Width::U64,
        _ => {
            return Err(ParseFramingError::new(format!(
                "`{layout}` is no layout of a length: it has 1, 2, 4 or 8 bytes, \
                 then be, le or nothing"
            )));
        }
    };
    Ok(LengthPrefix::new().with_width(width).with_order(order))
}

fn parse_delimiter(hex: &str) -> Result<Delimiter, ParseFramingError> {
    let mut bytes = Vec::with_capacity(hex.len() / 2);
    for pair in hex.as_bytes().chunks(2) {
        let digit = |at: usize| pair.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (digit(0), digit(1)) {
            (Some(high), Some(low)) => bytes.push((high << 4 | low) as u8),
            _ => {
                return Err(ParseFramingError::new(format!(
                    "delimiter `{hex}` is not hexadecimal: two digits (0-9, a-f) per byte"
                )));
            }
        }
    }
    Delimiter::new(bytes).map_err(|error| ParseFramingError::new(error.to_string()))
}

impl fmt::Display for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codec = match self {
            Self::LengthPrefix(codec) => codec,
            Self::Lines(_) => return f.pad("lines"),
            Self::Delimiter(codec) => {
                let hex: String = codec
                    .delimiter()
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                return f.pad(&format!("delimiter:{hex}"));
            }
            Self::Raw(_) => return f.pad("raw"),
            Self::Custom(_) => return f.pad("custom"),
        };
        f.pad(match (codec.width, codec.order) {
            (Width::U8, _) => "length:1",
            (Width::U16, ByteOrder::Big) => "length:2",
            (Width::U16, ByteOrder::Little) => "length:2le",
            (Width::U32, ByteOrder::Big) => "length",
            (Width::U32, ByteOrder::Little) => "length:4le",
            (Width::U64, ByteOrder::Big) => "length:8",
            (Width::U64, ByteOrder::Little) => "length:8le",
            (Width::Varint, _) => "varint",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Codec, DEFAULT_MAX_MESSAGE};

    #[test]
    fn texts_that_name_a_framing() {
        let layout = |width, order| {
            LengthPrefix::new()
                .with_width(width)
                .with_order(order)
                .into()
        };
        let (big, little) = (ByteOrder::Big, ByteOrder::Little);
        let delimiter = |bytes: &'static [u8]| Delimiter::new(bytes).unwrap().into();
        for (text, framing, shown) in [
            ("length", Framing::default(), "length"),
            ("length:4", Framing::default(), "length"),
            ("length:4be", Framing::default(), "length"),
            ("length:4le", layout(Width::U32, little), "length:4le"),
            ("length:1", layout(Width::U8, big), "length:1"),
            ("length:1le", layout(Width::U8, little), "length:1"),
            ("length:2be", layout(Width::U16, big), "length:2"),
            ("length:8le", layout(Width::U64, little), "length:8le"),
            ("varint", LengthPrefix::varint().into(), "varint"),
            ("lines", Lines::new().into(), "lines"),
            ("raw", Raw::new().into(), "raw"),
            ("delimiter:0d0A", delimiter(b"\r\n"), "delimiter:0d0a"),
            ("delimiter:00", delimiter(b"\0"), "delimiter:00"),
        ] {
            let parsed: Framing = text.parse().unwrap();
            assert_eq!(parsed, framing, "{text}");
            assert_eq!(parsed.to_string(), shown);
            assert_eq!(
                parsed.max_message() as u64,
                match text.split_at(7.min(text.len())) {
                    ("length:", rest) if rest.starts_with('1') => 255,
                    ("length:", rest) if rest.starts_with('2') => 65535,
                    _ => DEFAULT_MAX_MESSAGE as u64,
                }
            );
        }
    }

    #[test]
    fn errors_say_what_is_wrong_and_what_is_allowed() {
        for (text, problem) in [
            ("", "the framing is empty"),
            ("line", "there is no framing `line`"),
            ("Lines", "there is no framing `Lines`"),
            ("length:", "`` is no layout"),
            ("length:3", "`3` is no layout"),
            ("length:4xe", "`4xe` is no layout"),
            ("length:4 be", "`4 be` is no layout"),
            ("varint:4", "framing `varint` takes nothing behind its name"),
            ("raw:", "takes nothing behind its name"),
            ("delimiter", "needs the delimiter in hexadecimal"),
            ("delimiter:", "the delimiter is empty"),
            ("delimiter:0", "delimiter `0` is not hexadecimal"),
            ("delimiter:0d0", "is not hexadecimal"),
            ("delimiter:\\n", "is not hexadecimal"),
            ("delimiter:ä", "is not hexadecimal"),
            ("custom", "can be set in code only"),
        ] {
            let error = text.parse::<Framing>().unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
            assert!(
                error.ends_with("delimiter:HEX (delimiter:0d0a), raw"),
                "{error}"
            );
            assert!(!error.contains("  "), "{error}");
        }
    }

    #[test]
    fn display_obeys_width() {
        assert_eq!(format!("[{:>8}]", Framing::default()), "[  length]");
    }
}
