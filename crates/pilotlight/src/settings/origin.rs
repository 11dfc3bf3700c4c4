//! The settings of the origin, which make sense together or not at all.

use std::path::PathBuf;
use std::time::Duration;

use pilotlight_cache::origin::{ObjectSettings, OnError, Write};

use super::resolve::Resolved;
use super::{table, values};
use crate::failure::Failure;

/// What is behind the disk.
#[derive(Debug, Clone)]
pub(crate) struct OriginSettings {
    /// Without what the environment and the file of credentials say.
    pub(crate) objects: ObjectSettings,
    pub(crate) credentials: Option<PathBuf>,
    pub(crate) timeout: Duration,
    pub(crate) write: Write,
    pub(crate) on_error: OnError,
    pub(crate) is_read_only: bool,
    pub(crate) queue_max: usize,
    pub(crate) fresh: Duration,
    /// Not at all when zero.
    pub(crate) miss: Duration,
    pub(crate) keep: Option<Duration>,
}

/// The origin that is set, if one is. `request_timeout` is what all of a request may take.
pub(super) fn origin(found: &Resolved, request_timeout: Duration) -> Result<Option<OriginSettings>, Failure> {
    let Some(mut objects) = found.many(table::ORIGIN, ObjectSettings::of_url)?.pop() else {
        let others = [table::ORIGIN_ENDPOINT, table::ORIGIN_REGION, table::ORIGIN_CREDENTIALS];
        return match others.into_iter().find(|other| found.maybe(other).is_some()) {
            None => Ok(None),
            Some(other) => Err(Failure::new(format!("there is a `--{}` and no origin", other.name))
                .with_hint("name one with `--origin s3://BUCKET/PREFIX`")),
        };
    };
    objects.endpoint = found.many(table::ORIGIN_ENDPOINT, endpoint)?.pop();
    objects.region = found.maybe(table::ORIGIN_REGION).map(str::to_owned);
    let settings = OriginSettings {
        objects,
        credentials: found.maybe(table::ORIGIN_CREDENTIALS).map(PathBuf::from),
        timeout: found.one(table::ORIGIN_TIMEOUT, values::positive_duration)?,
        write: found
            .one(table::ORIGIN_WRITE, |text| named(text, [Write::Behind, Write::Through], Write::name))?,
        on_error: found.one(table::ORIGIN_ON_ERROR, |text| {
            named(text, [OnError::Ignore, OnError::FailTier, OnError::All], OnError::name)
        })?,
        is_read_only: found.one(table::ORIGIN_READ_ONLY, values::switch)?,
        queue_max: found.one(table::ORIGIN_QUEUE, |text| values::count(text, 1, 10_000_000))? as usize,
        fresh: found.one(table::ORIGIN_FRESH, values::duration)?,
        miss: found.one(table::ORIGIN_MISS, or_off)?.unwrap_or(Duration::ZERO),
        keep: found.one(table::ORIGIN_KEEP, or_off)?,
    };
    if settings.on_error == OnError::All && settings.write == Write::Behind && !settings.is_read_only {
        return Err(Failure::new(
            "`--origin-on-error all` cannot be told of puts that do not wait for the origin",
        )
        .with_hint("let them wait with `--origin-write through`, or choose `fail-tier`"));
    }
    if settings.timeout >= request_timeout {
        return Err(Failure::new(format!(
            "`--origin-timeout` is {} ms, expected less than `--request-timeout`, {} ms",
            settings.timeout.as_millis(),
            request_timeout.as_millis(),
        ))
        .with_hint(
            "a lookup that the origin holds up would end in the request's timeout, and not in a miss",
        ));
    }
    Ok(Some(settings))
}

fn endpoint(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.contains('@') => Ok(text.to_owned()),
        _ => Err("expected http://HOST:PORT or https://HOST, without credentials".to_owned()),
    }
}

fn or_off(text: &str) -> Result<Option<Duration>, String> {
    match text {
        "off" => Ok(None),
        _ => values::positive_duration(text).map(Some),
    }
}

fn named<T: Copy, const N: usize>(text: &str, all: [T; N], name: fn(T) -> &'static str) -> Result<T, String> {
    let names = || all.map(name).join(", ");
    all.into_iter().find(|one| name(*one) == text).ok_or_else(|| format!("expected one of {}", names()))
}
