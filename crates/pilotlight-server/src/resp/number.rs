//! Numbers as Redis reads and writes them.

/// An integer as Redis accepts one: decimal, no leading zeros, no plus, no spaces.
pub(crate) fn parse_i64(bytes: &[u8]) -> Option<i64> {
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    match digits {
        [b'0'] if digits.len() == bytes.len() => Some(0),
        [b'1'..=b'9', ..] => std::str::from_utf8(bytes).ok()?.parse().ok(),
        _ => None,
    }
}

/// Decimals kept by [`Decimal`], and the most that Redis prints.
const SCALE: u32 = 17;
const ONE: i128 = 10_i128.pow(SCALE);

/// A decimal number with 17 places, for `INCRBYFLOAT`.
///
/// Redis computes with C's 80-bit `long double` and prints 17 decimals without trailing zeros. Rust has no such type, and
/// with `f64` 3.0 + 1.1 would read 4.09999999999999964. Exact decimals print what Redis prints as long as a number
/// has at most 19 digits; beyond that Redis' own result carries binary noise, which is absent here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Decimal(i128);

/// What a client wrote where a decimal is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParsedDecimal {
    Finite(Decimal),
    /// An infinity, or beyond what [`Decimal`] holds (about 10^21).
    Infinite,
    NotANumber,
}

impl Decimal {
    pub(crate) fn parse(bytes: &[u8]) -> ParsedDecimal {
        let Some(text) = std::str::from_utf8(bytes).ok().filter(|text| is_float(text)) else {
            return ParsedDecimal::NotANumber;
        };
        let text = text.to_ascii_lowercase();
        let unsigned = text.trim_start_matches(['+', '-']);
        if unsigned.starts_with('i') {
            return ParsedDecimal::Infinite;
        }
        let (mantissa, exponent) = unsigned.split_once('e').unwrap_or((unsigned, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(if exponent.starts_with('-') { -9999 } else { 9999 });
        match Self::shifted(mantissa, exponent) {
            Some(magnitude) if text.starts_with('-') => ParsedDecimal::Finite(Self(-magnitude)),
            Some(magnitude) => ParsedDecimal::Finite(Self(magnitude)),
            None => ParsedDecimal::Infinite,
        }
    }

    /// `mantissa * 10^exponent` in units of 10^-17, digits below that dropped; `None` when it does not fit.
    fn shifted(mantissa: &str, exponent: i32) -> Option<i128> {
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        // The place of the last digit, in powers of ten of our unit.
        let mut place = i64::from(exponent) + i64::from(SCALE) + i64::try_from(whole.len()).ok()?;
        let mut value: i128 = 0;
        for digit in whole.bytes().chain(fraction.bytes()) {
            place -= 1;
            let digit = i128::from(digit - b'0');
            if place < 0 || digit == 0 {
                continue;
            }
            let unit = 10_i128.checked_pow(u32::try_from(place).ok()?)?;
            value = value.checked_add(digit.checked_mul(unit)?)?;
        }
        Some(value)
    }

    pub(crate) fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }
}

impl std::fmt::Display for Decimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let magnitude = self.0.unsigned_abs();
        let (whole, fraction) = (magnitude / ONE.unsigned_abs(), magnitude % ONE.unsigned_abs());
        let fraction = format!("{fraction:017}");
        match fraction.trim_end_matches('0') {
            "" => write!(f, "{sign}{whole}"),
            fraction => write!(f, "{sign}{whole}.{fraction}"),
        }
    }
}

/// Whether the whole of `text` is a decimal floating-point number, as C's `strtold` reads one (hexadecimal excepted).
fn is_float(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if unsigned.eq_ignore_ascii_case("inf") || unsigned.eq_ignore_ascii_case("infinity") {
        return true;
    }
    // Rust's own grammar is C's, once infinities and NaN are out.
    unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        && unsigned.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_strictly_as_redis_does() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("01", None),
            ("+1", None),
            (" 1", None),
            ("1 ", None),
            ("1.0", None),
        ] {
            assert_eq!(parse_i64(text.as_bytes()), expected, "{text}");
        }
    }

    fn finite(text: &str) -> Decimal {
        match Decimal::parse(text.as_bytes()) {
            ParsedDecimal::Finite(decimal) => decimal,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn decimals_add_and_print_without_binary_noise() {
        for (left, right, expected) in [
            ("3.0", "1.1", "4.1"),
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("0.1", "0.2", "0.3"),
            ("-1", "1", "0"),
            ("0", "-0.5", "-0.5"),
            ("1e-17", "0", "0.00000000000000001"),
            ("1e-18", "0", "0"),
            (".5", "1.", "1.5"),
        ] {
            assert_eq!(finite(left).checked_add(finite(right)).unwrap().to_string(), expected);
        }
        for text in ["", "a", "1a", " 1", "1 ", "nan", "0x10", "--1", "e3", "."] {
            assert_eq!(Decimal::parse(text.as_bytes()), ParsedDecimal::NotANumber, "{text}");
        }
        for text in ["inf", "-Infinity", "1e400"] {
            assert_eq!(Decimal::parse(text.as_bytes()), ParsedDecimal::Infinite, "{text}");
        }
    }
}
