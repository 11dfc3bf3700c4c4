//! `CONFIG GET` and `SET`: what Redis' clients and test suites ask for.
//!
//! Most values only describe: a limit that is not Redis' own has no switch here. Those that a client may set are kept
//! and shown, and change nothing, as with any Redis that has enough memory; `timeout` alone is obeyed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::glob;
use super::number::parse_i64;
use super::parameters::{PARAMETERS, Parameter, Takes, Value};
use crate::Config;

/// Values set by `CONFIG SET`, for as long as the server runs.
#[derive(Debug)]
pub(crate) struct Settings {
    set: Mutex<BTreeMap<&'static str, Bytes>>,
    /// `timeout`, for connections to read without a lock; [`UNSET`] until a client sets it.
    idle_seconds: AtomicI64,
}

const UNSET: i64 = -1;

impl Default for Settings {
    fn default() -> Self {
        Self { set: Mutex::default(), idle_seconds: AtomicI64::new(UNSET) }
    }
}

/// Why a parameter was not set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unsettable {
    Unknown,
    /// It describes the server.
    Immutable,
    Invalid(Cow<'static, str>),
}

impl Settings {
    /// Names and values of the parameters that match one of `patterns`.
    pub(crate) fn matching(
        &self,
        patterns: &[Bytes],
        config: &Config,
        bound_bytes: Option<u64>,
    ) -> Vec<(&'static str, Bytes)> {
        let patterns: Vec<Vec<u8>> = patterns.iter().map(|pattern| pattern.to_ascii_lowercase()).collect();
        PARAMETERS
            .iter()
            .filter(|parameter| patterns.iter().any(|one| glob::matches(one, parameter.name.as_bytes())))
            .map(|parameter| (parameter.name, self.value(parameter, config, bound_bytes)))
            .collect()
    }

    fn value(&self, parameter: &Parameter, config: &Config, bound_bytes: Option<u64>) -> Bytes {
        match (&parameter.default, self.set.lock().get(parameter.name)) {
            (_, Some(value)) => value.clone(),
            (Value::Fixed(value), None) => Bytes::from_static(value.as_bytes()),
            (Value::Of(value), None) => value(config, bound_bytes).into(),
        }
    }

    /// Checks that `name` may be set to `value`. Returns both as they will be shown.
    pub(crate) fn check(
        &self,
        (name, value): (&[u8], &[u8]),
        config: &Config,
        bound_bytes: Option<u64>,
    ) -> Result<(&'static str, Bytes), Unsettable> {
        let mut known = PARAMETERS.iter();
        let parameter = known.find(|parameter| name.eq_ignore_ascii_case(parameter.name.as_bytes()));
        let parameter = parameter.ok_or(Unsettable::Unknown)?;
        let shown = match parameter.takes {
            Takes::Nothing => return Err(Unsettable::Immutable),
            // Test suites and tools put back what they found.
            Takes::ItsOwn if self.value(parameter, config, bound_bytes) == value => {
                Bytes::copy_from_slice(value)
            }
            Takes::ItsOwn => return Err(Unsettable::Immutable),
            Takes::Anything => Bytes::copy_from_slice(value),
            Takes::Integer(min, max) => integer(value, min, max)?,
            Takes::Memory => memory(value)?,
            Takes::OneOf(words) => one_of(value, words)?,
        };
        Ok((parameter.name, shown))
    }

    /// Sets a parameter to what was checked.
    pub(crate) fn set(&self, name: &'static str, value: Bytes) {
        if name == "timeout" {
            self.idle_seconds.store(parse_i64(&value).unwrap_or(UNSET), Relaxed);
        }
        self.set.lock().insert(name, value);
    }

    /// How long a connection may be idle; for ever when `None`.
    pub(crate) fn idle_timeout(&self, config: &Config) -> Option<Duration> {
        match self.idle_seconds.load(Relaxed) {
            0 => None,
            seconds => u64::try_from(seconds).map_or(config.idle_timeout, |s| Some(Duration::from_secs(s))),
        }
    }
}

fn integer(value: &[u8], min: i64, max: i64) -> Result<Bytes, Unsettable> {
    const INVALID: Unsettable =
        Unsettable::Invalid(Cow::Borrowed("argument couldn't be parsed into an integer"));
    let number = parse_i64(value).ok_or(INVALID)?;
    if (min..=max).contains(&number) {
        return Ok(number.to_string().into());
    }
    Err(Unsettable::Invalid(format!("argument must be between {min} and {max} inclusive").into()))
}

/// Bytes, with Redis' units: `k` is 1000, `kb` is 1024.
fn memory(value: &[u8]) -> Result<Bytes, Unsettable> {
    const INVALID: Unsettable = Unsettable::Invalid(Cow::Borrowed("argument must be a memory value"));
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, unit) = value.split_at_checked(digits).ok_or(INVALID)?;
    let factor: i64 = match unit.to_ascii_lowercase().as_slice() {
        b"" | b"b" => 1,
        b"k" => 1000,
        b"kb" => 1 << 10,
        b"m" => 1_000_000,
        b"mb" => 1 << 20,
        b"g" => 1_000_000_000,
        b"gb" => 1 << 30,
        _ => return Err(INVALID),
    };
    let bytes = parse_i64(number).and_then(|number| number.checked_mul(factor)).ok_or(INVALID)?;
    Ok(bytes.to_string().into())
}

fn one_of(value: &[u8], words: &'static [&'static str]) -> Result<Bytes, Unsettable> {
    let known = words.iter().find(|word| value.eq_ignore_ascii_case(word.as_bytes()));
    known.map(|word| Bytes::from_static(word.as_bytes())).ok_or_else(|| {
        Unsettable::Invalid(match words {
            ["yes", "no"] => "argument must be 'yes' or 'no'".into(),
            words => format!("argument(s) must be one of the following: {}", words.join(", ")).into(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_with_the_units_of_redis() {
        for (value, expected) in [
            ("0", Some("0")),
            ("10m", Some("10000000")),
            ("10MB", Some("10485760")),
            ("1gb", Some("1073741824")),
            ("7b", Some("7")),
            ("", None),
            ("mb", None),
            ("1tb", None),
            ("-1", None),
            ("9223372036854775807k", None),
        ] {
            let bytes = memory(value.as_bytes()).ok();
            assert_eq!(bytes.as_deref(), expected.map(str::as_bytes), "{value}");
        }
    }

    #[test]
    fn the_idle_timeout_is_what_was_set_last() {
        let limit = Some(Duration::from_secs(5));
        let config = Config { idle_timeout: limit, ..Config::default() };
        let settings = Settings::default();
        assert_eq!(settings.idle_timeout(&config), limit);
        settings.set("timeout", Bytes::from_static(b"0"));
        assert_eq!(settings.idle_timeout(&config), None);
        settings.set("timeout", Bytes::from_static(b"70"));
        assert_eq!(settings.idle_timeout(&config), Some(Duration::from_secs(70)));
    }
}
