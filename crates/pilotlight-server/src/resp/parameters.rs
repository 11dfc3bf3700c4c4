//! The parameters that `CONFIG` knows, each declared once. In the order of their names.

use crate::Config;

pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    /// Its value until a client sets it.
    pub(crate) default: Value,
    pub(crate) takes: Takes,
}

pub(crate) enum Value {
    Fixed(&'static str),
    /// Derived from the server's own settings.
    Of(fn(&Config, Option<u64>) -> String),
}

/// What `CONFIG SET` accepts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Takes {
    Nothing,
    /// The value it has: in Redis it may be set, here it describes how the server was started.
    ItsOwn,
    /// A number from the first to the second.
    Integer(i64, i64),
    /// A number of bytes.
    Memory,
    OneOf(&'static [&'static str]),
    Anything,
}

const YES_NO: Takes = Takes::OneOf(&["yes", "no"]);
const EVICTION: Takes = Takes::OneOf(&[
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "noeviction",
]);
const INT_MAX: i64 = i32::MAX as i64;
const COUNT: Takes = Takes::Integer(0, i64::MAX);
const SMALL_COUNT: Takes = Takes::Integer(0, INT_MAX);

const fn fixed(name: &'static str, value: &'static str, takes: Takes) -> Parameter {
    Parameter { name, default: Value::Fixed(value), takes }
}

const fn of(name: &'static str, takes: Takes, value: fn(&Config, Option<u64>) -> String) -> Parameter {
    Parameter { name, default: Value::Of(value), takes }
}

pub(crate) static PARAMETERS: &[Parameter] = &[
    fixed("activedefrag", "no", YES_NO),
    fixed("active-expire-effort", "1", Takes::Integer(1, 10)),
    fixed("appendfsync", "everysec", Takes::OneOf(&["everysec", "always", "no"])),
    fixed("appendonly", "no", YES_NO),
    fixed("bind", "*", Takes::ItsOwn),
    fixed("client-query-buffer-limit", "1073741824", Takes::Memory),
    fixed("cluster-enabled", "no", Takes::Nothing),
    fixed("daemonize", "no", Takes::Nothing),
    of("databases", Takes::Nothing, |config, _| config.databases.to_string()),
    fixed("dir", "", Takes::ItsOwn),
    fixed("hash-max-listpack-entries", "128", COUNT),
    fixed("hz", "10", SMALL_COUNT),
    of("io-threads", Takes::Nothing, |config, _| config.cores.max(1).to_string()),
    fixed("latency-monitor-threshold", "0", COUNT),
    fixed("lazyfree-lazy-expire", "no", YES_NO),
    fixed("lfu-decay-time", "1", SMALL_COUNT),
    fixed("list-max-listpack-size", "-2", Takes::Integer(-1 - INT_MAX, INT_MAX)),
    of("maxclients", Takes::ItsOwn, |config, _| config.connections_max.to_string()),
    of("maxmemory", Takes::ItsOwn, |_, bound_bytes| bound_bytes.unwrap_or(0).to_string()),
    fixed("maxmemory-policy", "allkeys-lfu", EVICTION),
    fixed("maxmemory-samples", "5", Takes::Integer(1, INT_MAX)),
    fixed("min-replicas-to-write", "0", SMALL_COUNT),
    fixed("notify-keyspace-events", "", Takes::Anything),
    fixed("port", "6379", Takes::ItsOwn),
    of("proto-max-bulk-len", Takes::ItsOwn, |config, _| config.entry_bytes_max.to_string()),
    fixed("replicaof", "", Takes::Nothing),
    of("requirepass", Takes::Nothing, |config, _| {
        config.password.as_ref().map_or(String::new(), |_| "(set)".to_owned())
    }),
    fixed("save", "", Takes::Anything),
    fixed("set-max-intset-entries", "512", COUNT),
    fixed("slaveof", "", Takes::Nothing),
    fixed("slowlog-log-slower-than", "10000", Takes::Integer(-1, i64::MAX)),
    fixed("slowlog-max-len", "128", COUNT),
    of("timeout", SMALL_COUNT, |config, _| {
        config.idle_timeout.map_or(0, |limit| limit.as_secs()).to_string()
    }),
    fixed("tracking-table-max-keys", "1000000", COUNT),
    fixed("zset-max-listpack-entries", "128", COUNT),
];
