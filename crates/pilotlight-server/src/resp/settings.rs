//! `CONFIG GET` and `SET`: what Redis' clients and test suites ask for.
//!
//! Most values only describe: a limit that is not Redis' own has no switch here. Those that a client may set are kept
//! and shown, and change nothing, as with any Redis that has enough memory.

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::Mutex;

use super::glob;
use super::number::parse_i64;
use crate::Config;

/// Values set by `CONFIG SET`.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    set: Mutex<BTreeMap<&'static str, Bytes>>,
}

struct Parameter {
    name: &'static str,
    default: Value,
    takes: Takes,
}

enum Value {
    Fixed(&'static str),
    /// Derived from the server's own settings.
    Of(fn(&Config, Option<u64>) -> String),
}

/// What `CONFIG SET` accepts.
enum Takes {
    Nothing,
    Integer,
    OneOf(&'static [&'static str]),
    Anything,
}

const YES_NO: Takes = Takes::OneOf(&["yes", "no"]);
const EVICTION: Takes = Takes::OneOf(&[
    "noeviction",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
]);

const fn fixed(name: &'static str, value: &'static str, takes: Takes) -> Parameter {
    Parameter { name, default: Value::Fixed(value), takes }
}

const fn of(name: &'static str, value: fn(&Config, Option<u64>) -> String) -> Parameter {
    Parameter { name, default: Value::Of(value), takes: Takes::Nothing }
}

static PARAMETERS: &[Parameter] = &[
    fixed("activedefrag", "no", YES_NO),
    fixed("active-expire-effort", "1", Takes::Integer),
    fixed("appendfsync", "everysec", Takes::OneOf(&["everysec", "always", "no"])),
    fixed("appendonly", "no", YES_NO),
    fixed("bind", "*", Takes::Nothing),
    fixed("client-query-buffer-limit", "1073741824", Takes::Integer),
    of("databases", |config, _| config.databases.to_string()),
    fixed("dir", "", Takes::Nothing),
    fixed("hash-max-listpack-entries", "128", Takes::Integer),
    fixed("hz", "10", Takes::Integer),
    of("io-threads", |config, _| config.cores.max(1).to_string()),
    fixed("latency-monitor-threshold", "0", Takes::Integer),
    fixed("lazyfree-lazy-expire", "no", YES_NO),
    fixed("lfu-decay-time", "1", Takes::Integer),
    fixed("list-max-listpack-size", "-2", Takes::Integer),
    of("maxclients", |config, _| config.connections_max.to_string()),
    of("maxmemory", |_, bound_bytes| bound_bytes.unwrap_or(0).to_string()),
    fixed("maxmemory-policy", "allkeys-lfu", EVICTION),
    fixed("maxmemory-samples", "5", Takes::Integer),
    fixed("min-replicas-to-write", "0", Takes::Integer),
    fixed("notify-keyspace-events", "", Takes::Anything),
    fixed("port", "6379", Takes::Nothing),
    of("proto-max-bulk-len", |config, _| config.entry_bytes_max.to_string()),
    of("requirepass", |config, _| config.password.as_ref().map_or(String::new(), |_| "(set)".to_owned())),
    fixed("save", "", Takes::Anything),
    fixed("set-max-intset-entries", "512", Takes::Integer),
    fixed("slowlog-log-slower-than", "10000", Takes::Integer),
    fixed("slowlog-max-len", "128", Takes::Integer),
    of("timeout", |config, _| config.idle_timeout.map_or(0, |limit| limit.as_secs()).to_string()),
    fixed("tracking-table-max-keys", "1000000", Takes::Integer),
    fixed("zset-max-listpack-entries", "128", Takes::Integer),
];

/// Why a parameter was not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsettable {
    Unknown,
    /// It describes the server.
    Immutable,
    Invalid(&'static str),
}

impl Settings {
    /// Names and values of the parameters that match one of `patterns`.
    pub(crate) fn matching(
        &self,
        patterns: &[Bytes],
        config: &Config,
        bound_bytes: Option<u64>,
    ) -> Vec<(&'static str, Bytes)> {
        let set = self.set.lock();
        let patterns: Vec<Vec<u8>> = patterns.iter().map(|pattern| pattern.to_ascii_lowercase()).collect();
        let value = |parameter: &Parameter| match (&parameter.default, set.get(parameter.name)) {
            (_, Some(value)) => value.clone(),
            (Value::Fixed(value), None) => Bytes::from_static(value.as_bytes()),
            (Value::Of(value), None) => value(config, bound_bytes).into(),
        };
        PARAMETERS
            .iter()
            .filter(|parameter| patterns.iter().any(|one| glob::matches(one, parameter.name.as_bytes())))
            .map(|parameter| (parameter.name, value(parameter)))
            .collect()
    }

    /// Checks that `name` may be set to `value`, and returns the name as the table has it.
    pub(crate) fn check(name: &[u8], value: &[u8]) -> Result<&'static str, Unsettable> {
        let mut known = PARAMETERS.iter();
        let parameter = known.find(|parameter| name.eq_ignore_ascii_case(parameter.name.as_bytes()));
        let parameter = parameter.ok_or(Unsettable::Unknown)?;
        match &parameter.takes {
            Takes::Nothing => Err(Unsettable::Immutable),
            Takes::Anything => Ok(parameter.name),
            Takes::Integer if parse_i64(value).is_some() => Ok(parameter.name),
            Takes::Integer => Err(Unsettable::Invalid("argument couldn't be parsed into an integer")),
            Takes::OneOf(words) if words.iter().any(|word| value.eq_ignore_ascii_case(word.as_bytes())) => {
                Ok(parameter.name)
            }
            Takes::OneOf(["yes", "no"]) => Err(Unsettable::Invalid("argument must be 'yes' or 'no'")),
            Takes::OneOf(_) => Err(Unsettable::Invalid("argument(s) must be one of the values it knows")),
        }
    }

    /// Sets a parameter that was checked.
    pub(crate) fn set(&self, name: &'static str, value: Bytes) {
        self.set.lock().insert(name, value);
    }
}
