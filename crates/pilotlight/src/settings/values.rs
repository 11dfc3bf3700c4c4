//! Texts to values: sizes, durations, counts.

use std::time::Duration;

pub(crate) use pilotlight_server::quantity::size;
use pilotlight_server::quantity::{scaled, split};

/// A duration: `4s`, `250ms`, `2m`, `1h`, `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let expected = || "expected a duration such as `4s`, `250ms` or `2m`".to_owned();
    let (number, unit) = split(text);
    let factor_ms = match unit {
        // Whether seconds or minutes were meant is nobody's guess.
        "" if !number.is_empty() => {
            return Err(format!("expected a unit as well: `{number}s` or `{number}m`"));
        }
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(expected()),
    };
    scaled(number, factor_ms).map(Duration::from_millis).ok_or_else(expected)
}

/// The same, but for one that is no time at all.
pub(crate) fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("expected more than 0".to_owned()),
        duration => Ok(duration),
    }
}

/// A whole number within `from` and `to`.
pub(crate) fn count(text: &str, from: u64, to: u64) -> Result<u64, String> {
    match text.trim().parse() {
        Ok(number) if (from..=to).contains(&number) => Ok(number),
        _ => Err(format!("expected a whole number from {from} to {to}")),
    }
}

/// `true` or `false`, and what else people write for them.
pub(crate) fn switch(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("expected `true` or `false`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, expected) in [
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("10GiB", Some(10 << 30)),
            ("1.5 GiB", Some(3 << 29)),
            ("500MB", Some(500_000_000)),
            ("2tib", Some(2 << 40)),
            ("1k", Some(1024)),
            ("7b", Some(7)),
            ("", None),
            ("GiB", None),
            ("-1", None),
            ("1.5", None),
            ("1 XB", None),
            ("1.2.3k", None),
            ("99999999999999999999", None),
            ("99999999TiB", None),
        ] {
            assert_eq!(size(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn durations_are_read_with_their_units() {
        for (text, expected_ms) in [
            ("4s", Some(4000)),
            ("250ms", Some(250)),
            ("2", None),
            ("", None),
            ("1.5s", Some(1500)),
            ("2 m", Some(120_000)),
            ("7d", Some(604_800_000)),
            ("soon", None),
            ("1y", None),
            ("-1s", None),
        ] {
            assert_eq!(duration(text).ok(), expected_ms.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn a_duration_without_a_unit_is_told_what_to_write() {
        assert_eq!(duration("60").unwrap_err(), "expected a unit as well: `60s` or `60m`");
        assert_eq!(positive_duration("0s").unwrap_err(), "expected more than 0");
    }

    #[test]
    fn counts_and_switches_stay_in_range() {
        assert_eq!(count("16", 1, 16), Ok(16));
        assert!(count("17", 1, 16).is_err());
        assert!(count("x", 1, 16).is_err());
        assert_eq!(switch("YES"), Ok(true));
        assert_eq!(switch("off"), Ok(false));
        assert!(switch("maybe").is_err());
    }
}
