//! Numbers with units, as settings and the users file write them.

/// Bytes: `10GiB`, `500 MB`, `4096`. Units of 1024 with an i, of 1000 without.
///
/// # Errors
/// What was expected, for a person.
pub fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err("expected a size such as `10GiB`, `500MB` or `4096`".to_owned()),
    };
    scaled(number, factor).ok_or_else(|| "expected a size such as `10GiB`, `500MB` or `4096`".to_owned())
}

/// A number and its unit.
#[must_use]
pub fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim())
}

/// `number` times `factor`, exactly for whole numbers. A fraction is fine where the result has none worth keeping.
#[must_use]
pub fn scaled(number: &str, factor: u64) -> Option<u64> {
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let fraction: f64 = number.parse().ok()?;
    let value = fraction * factor as f64;
    (factor > 1 && value.is_finite() && value >= 0.0 && value < 2f64.powi(63)).then_some(value as u64)
}
