//! Numbers as people read them: three digits and a unit.

use std::time::Duration;

/// A number with `k`, `M` or `G`, such as `1.23M`.
pub fn count(number: f64) -> String {
    if number < 999.5 {
        return format!("{number:.0}");
    }
    scaled(number, "")
}

/// Bytes with a decimal unit, such as `77.2 MB`.
pub fn bytes(number: f64) -> String {
    if number < 999.5 {
        return format!("{number:.0} B");
    }
    format!("{}B", scaled(number, " "))
}

fn scaled(number: f64, space: &str) -> String {
    let units = [(1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T")];
    let fits = |(unit, _): &(f64, &str)| number / unit < 999.5;
    let (unit, name) = units.into_iter().find(fits).unwrap_or((1e12, "T"));
    format!("{}{space}{name}", three_digits(number / unit))
}

/// A duration with one unit, such as `14.5 µs`, or hours, minutes and seconds from a minute up.
pub fn duration(duration: Duration) -> String {
    if duration.is_zero() {
        return "0 s".to_owned();
    }
    let seconds = duration.as_secs_f64();
    if seconds >= 59.95 {
        let whole = seconds.round() as u64;
        let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
        return if hours > 0 {
            format!("{hours}h {minutes:02}m {seconds:02}s")
        } else {
            format!("{minutes}m {seconds:02}s")
        };
    }
    let units = [(1e-9, "ns"), (1e-6, "µs"), (1e-3, "ms")];
    let fits = |(unit, _): &(f64, &str)| seconds / unit < 999.5;
    let (unit, name) = units.into_iter().find(fits).unwrap_or((1.0, "s"));
    format!("{} {name}", three_digits(seconds / unit))
}

/// Three significant digits, without zeros after the point that say nothing.
fn three_digits(number: f64) -> String {
    let digits = match number {
        n if n < 9.995 => 2,
        n if n < 99.95 => 1,
        _ => 0,
    };
    let text = format!("{number:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        let cases = [
            (0.0, "0", "0 B"),
            (999.4, "999", "999 B"),
            (999.6, "1k", "1 kB"),
            (1234.0, "1.23k", "1.23 kB"),
            (77_190_000.0, "77.2M", "77.2 MB"),
            (999_600.0, "1M", "1 MB"),
            (2e15, "2000T", "2000 TB"),
        ];
        for (number, want_count, want_bytes) in cases {
            assert_eq!(count(number), want_count);
            assert_eq!(bytes(number), want_bytes);
        }
    }

    #[test]
    fn durations_have_one_unit_up_to_a_minute() {
        for (nanoseconds, want) in [
            (0, "0 s"),
            (870, "870 ns"),
            (14_540, "14.5 µs"),
            (1_200_000, "1.2 ms"),
            (5_000_000_000, "5 s"),
            (61_000_000_000, "1m 01s"),
            (3_725_000_000_000, "1h 02m 05s"),
        ] {
            assert_eq!(duration(Duration::from_nanos(nanoseconds)), want);
        }
    }
}
