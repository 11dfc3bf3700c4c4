//! `Range: bytes=`, one range at a time (RFC 9110, section 14).

use std::ops::Range;

/// What a range header asks of an artifact of a given length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// All of it: no header, a unit we do not know, several ranges, or text that is no range. All may be ignored.
    Whole,
    /// These bytes, at least one.
    Part(Range<usize>),
    /// Bytes that are not there: 416.
    Nothing,
}

/// Reads the header's `value`, if any, against an artifact of `len` bytes.
pub(super) fn asked(value: Option<&str>, len: usize) -> Asked {
    let Some((unit, spec)) = value.and_then(|value| value.split_once('=')) else { return Asked::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") || spec.contains(',') {
        return Asked::Whole;
    }
    let Some((first, last)) = spec.trim().split_once('-') else { return Asked::Whole };
    match (position(first), position(last)) {
        (Position::Absent, Position::At(0)) => Asked::Nothing,
        (Position::Absent, Position::At(suffix)) if len > 0 => Asked::Part(len.saturating_sub(suffix)..len),
        (Position::Absent, Position::At(_)) => Asked::Nothing,
        (Position::At(first), Position::Absent) if first < len => Asked::Part(first..len),
        (Position::At(first), Position::At(last)) if first <= last && first < len => {
            Asked::Part(first..last.saturating_add(1).min(len))
        }
        (Position::At(first), Position::At(last)) if first > last => Asked::Whole,
        (Position::At(_), Position::At(_) | Position::Absent) => Asked::Nothing,
        (Position::Absent, Position::Absent) | (Position::Senseless, _) | (_, Position::Senseless) => {
            Asked::Whole
        }
    }
}

enum Position {
    Absent,
    At(usize),
    Senseless,
}

fn position(text: &str) -> Position {
    if text.is_empty() {
        return Position::Absent;
    }
    // `parse` would take a plus sign.
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Position::Senseless;
    }
    // Digits that do not fit name a place beyond any artifact.
    Position::At(text.parse().unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_range_is_read_and_anything_else_is_the_whole() {
        for (value, expected) in [
            ("bytes=0-0", Asked::Part(0..1)),
            ("bytes=0-9", Asked::Part(0..10)),
            ("bytes=2-5", Asked::Part(2..6)),
            ("bytes=2-", Asked::Part(2..10)),
            ("bytes=9-", Asked::Part(9..10)),
            ("bytes=-3", Asked::Part(7..10)),
            ("bytes=-30", Asked::Part(0..10)),
            ("bytes=5-99999999999999999999999", Asked::Part(5..10)),
            ("Bytes=1-2", Asked::Part(1..3)),
            ("bytes=10-", Asked::Nothing),
            ("bytes=10-12", Asked::Nothing),
            ("bytes=-0", Asked::Nothing),
            ("bytes=99999999999999999999999-", Asked::Nothing),
            ("bytes=5-2", Asked::Whole),
            ("bytes=-", Asked::Whole),
            ("bytes=", Asked::Whole),
            ("bytes=+1-2", Asked::Whole),
            ("bytes=0-1,3-4", Asked::Whole),
            ("lines=0-1", Asked::Whole),
            ("nonsense", Asked::Whole),
        ] {
            assert_eq!(asked(Some(value), 10), expected, "{value}");
        }
        assert_eq!(asked(None, 10), Asked::Whole);
        assert_eq!(asked(Some("bytes=0-"), 0), Asked::Nothing);
        assert_eq!(asked(Some("bytes=-5"), 0), Asked::Nothing);
    }
}
