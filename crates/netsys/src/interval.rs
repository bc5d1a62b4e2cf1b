//! Durations on the command line: `5s`, `1m30s`, and words for none.

use std::time::Duration;

/// A duration, or none where a word such as `off` says so. A type of its own, because clap reads
/// more into an `Option`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval(pub Option<Duration>);

/// A duration of more than nothing.
///
/// # Errors
/// Says what is wrong and what is allowed.
pub fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration.is_zero() => Err("it must be larger than 0".into()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!(
            "{error}; allowed: a duration such as 500ms, 10s or 1m30s"
        )),
    }
}

/// A duration, or `off`.
///
/// # Errors
/// As [`duration`].
pub fn or_off(text: &str) -> Result<Interval, String> {
    or(text, "off")
}

/// A duration, or `forever`.
///
/// # Errors
/// As [`duration`].
pub fn or_forever(text: &str) -> Result<Interval, String> {
    or(text, "forever")
}

fn or(text: &str, word: &str) -> Result<Interval, String> {
    if text == word {
        return Ok(Interval(None));
    }
    let found = duration(text).map_err(|error| format!("{error}, or {word}"))?;
    Ok(Interval(Some(found)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_words() {
        assert_eq!(
            or_off("500ms"),
            Ok(Interval(Some(Duration::from_millis(500))))
        );
        assert_eq!(or_off("off"), Ok(Interval(None)));
        assert_eq!(or_forever("forever"), Ok(Interval(None)));
        for bad in ["0s", "5", "soon", "-1s", "", "forever"] {
            assert!(or_off(bad).is_err(), "{bad}");
        }
    }
}
