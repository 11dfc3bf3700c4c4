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

/// Decimals that are printed, and read.
const PLACES: u32 = 17;
const ONE: u128 = 10_u128.pow(PLACES);

/// A number as C's 80-bit `long double` holds it, for `INCRBYFLOAT`: Redis computes with those and prints 17 decimals.
///
/// Rust has no such type, and with `f64` 3.0 + 1.1 would read 4.09999999999999964. This one has the same 64 bits of
/// mantissa and rounds as the processor does, so that replies are Redis' own to the last digit. Its range is smaller:
/// up to about 10^21, and no digits beyond the 17th decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LongDouble {
    is_negative: bool,
    /// With its highest bit set, unless the number is 0.
    mantissa: u64,
    /// The number is `mantissa * 2^exponent`.
    exponent: i32,
}

/// What a client wrote where a decimal is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParsedFloat {
    Finite(LongDouble),
    /// An infinity, or beyond the range of [`LongDouble`].
    Infinite,
    NotANumber,
}

impl LongDouble {
    pub(crate) fn parse(bytes: &[u8]) -> ParsedFloat {
        let Some(text) = std::str::from_utf8(bytes).ok().filter(|text| is_float(text)) else {
            return ParsedFloat::NotANumber;
        };
        let text = text.to_ascii_lowercase();
        let unsigned = text.trim_start_matches(['+', '-']);
        if unsigned.starts_with('i') {
            return ParsedFloat::Infinite;
        }
        let (mantissa, exponent) = unsigned.split_once('e').unwrap_or((unsigned, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(if exponent.starts_with('-') { -9999 } else { 9999 });
        match places_of(mantissa, exponent) {
            Some(places) => {
                let number = Self::from_places(places);
                ParsedFloat::Finite(Self { is_negative: text.starts_with('-'), ..number })
            }
            None => ParsedFloat::Infinite,
        }
    }

    /// The nearest to `places / 10^17`.
    fn from_places(places: u128) -> Self {
        let Some(log) = places.checked_ilog2() else { return Self::default() };
        // 10^17 lies between 2^56 and 2^57. So this shift gives 64 bits or one more, and never exceeds 128 in between.
        let mut shift = 120 - i64::from(log);
        loop {
            let mantissa = match u32::try_from(shift) {
                Ok(left) => divide(places << left, ONE),
                Err(_) => divide(places, ONE << shift.unsigned_abs()),
            };
            if let (Ok(mantissa), Ok(exponent)) = (u64::try_from(mantissa), i32::try_from(-shift)) {
                return Self { is_negative: false, mantissa, exponent };
            }
            shift -= 1;
        }
    }

    /// The sum, rounded once; `None` beyond the range.
    pub(crate) fn checked_add(self, other: Self) -> Option<Self> {
        if self.mantissa == 0 || other.mantissa == 0 {
            return Some(if self.mantissa == 0 { other } else { self });
        }
        let (large, small) = if self.exponent >= other.exponent { (self, other) } else { (other, self) };
        // Beyond 64 the smaller number is less than half of the larger one's last bit.
        let (distance, addend) = match large.exponent.abs_diff(small.exponent) {
            distance @ ..=63 => (distance, small.mantissa),
            // Its last bit must not get lost: it may decide a tie.
            64 => (63, small.mantissa >> 1 | small.mantissa & 1),
            _ => return Some(large),
        };
        let unit = large.exponent - i32::try_from(distance).ok()?;
        let (base, addend) = (u128::from(large.mantissa) << distance, u128::from(addend));
        let is_same_sign = large.is_negative == small.is_negative;
        let magnitude = if is_same_sign { base + addend } else { base.abs_diff(addend) };
        // At equal exponents the "smaller" one may be the larger by its mantissa.
        let is_negative = if is_same_sign || base >= addend { large.is_negative } else { small.is_negative };
        let Some(log) = magnitude.checked_ilog2() else { return Some(Self::default()) };
        let mut shift = i64::from(log) - 63;
        loop {
            let mantissa = match u32::try_from(shift) {
                Ok(right) => divide(magnitude, 1 << right),
                Err(_) => magnitude << shift.unsigned_abs(),
            };
            if let Ok(mantissa) = u64::try_from(mantissa) {
                let exponent = i64::from(unit) + shift;
                let number = Self { is_negative, mantissa, exponent: i32::try_from(exponent).ok()? };
                return (number.exponent <= EXPONENT_MAX).then_some(number);
            }
            // Rounding up gave one bit too many.
            shift += 1;
        }
    }

    /// The nearest number of 10^-17.
    fn to_places(self) -> u128 {
        let scaled = u128::from(self.mantissa) * ONE;
        match u32::try_from(self.exponent) {
            Ok(left) => scaled << left.min(EXPONENT_MAX.unsigned_abs()),
            Err(_) if self.exponent > -128 => divide(scaled, 1 << self.exponent.unsigned_abs()),
            Err(_) => 0,
        }
    }
}

/// 2^70 is above 10^21, and 2^70 * 10^17 still fits 128 bits.
const EXPONENT_MAX: i32 = 6;

/// Division that rounds to nearest, ties to even, as processors and C libraries do.
fn divide(dividend: u128, divisor: u128) -> u128 {
    let (quotient, rest) = (dividend / divisor, dividend % divisor);
    let is_up = match rest.cmp(&(divisor - rest)) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => quotient % 2 == 1,
        std::cmp::Ordering::Greater => true,
    };
    quotient + u128::from(is_up)
}

/// `mantissa * 10^exponent` in units of 10^-17, digits below that dropped; `None` when it is out of range.
fn places_of(mantissa: &str, exponent: i32) -> Option<u128> {
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    // The place of the last digit, in powers of ten of our unit.
    let mut place = i64::from(exponent) + i64::from(PLACES) + i64::try_from(whole.len()).ok()?;
    let mut places: u128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        place -= 1;
        let digit = u128::from(digit - b'0');
        if place < 0 || digit == 0 {
            continue;
        }
        let unit = 10_u128.checked_pow(u32::try_from(place).ok()?)?;
        places = places.checked_add(digit.checked_mul(unit)?)?;
    }
    // What `to_places` can give back.
    (places >> 126 == 0).then_some(places)
}

impl std::fmt::Display for LongDouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let places = self.to_places();
        let sign = if self.is_negative && places > 0 { "-" } else { "" };
        let fraction = format!("{:017}", places % ONE);
        write!(f, "{sign}{}", places / ONE)?;
        match fraction.trim_end_matches('0') {
            "" => Ok(()),
            fraction => write!(f, ".{fraction}"),
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

    fn finite(text: &str) -> LongDouble {
        match LongDouble::parse(text.as_bytes()) {
            ParsedFloat::Finite(number) => number,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn floats_add_and_print_as_c_long_doubles_do() {
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
            // What Redis 7.0 prints for these.
            ("100.1", "1e2", "200.10000000000000001"),
            ("9223372036854775807", "0.1", "9223372036854775807"),
            ("18446744073709551615", "1", "18446744073709551616"),
            ("-1e20", "1e20", "0"),
        ] {
            assert_eq!(finite(left).checked_add(finite(right)).unwrap().to_string(), expected);
        }
        for text in ["", "a", "1a", " 1", "1 ", "nan", "0x10", "--1", "e3", "."] {
            assert_eq!(LongDouble::parse(text.as_bytes()), ParsedFloat::NotANumber, "{text}");
        }
        for text in ["inf", "-Infinity", "1e400"] {
            assert_eq!(LongDouble::parse(text.as_bytes()), ParsedFloat::Infinite, "{text}");
        }
    }
}
