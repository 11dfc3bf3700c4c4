//! Every setting, once: flags, environment variables, TOML keys, help and the reference page all come from here.

/// One setting.
#[derive(Debug)]
pub(crate) struct Setting {
    /// `max-size`: the flag is `--max-size`, the variable `PILOTLIGHT_MAX_SIZE`, the TOML key `max_size`.
    pub(crate) name: &'static str,
    /// What stands for the value in help.
    pub(crate) value: &'static str,
    /// The value when nobody says another; empty for none.
    pub(crate) default: &'static str,
    pub(crate) form: Form,
    /// One line, then details; both for help and for the reference page.
    pub(crate) help: &'static str,
}

/// What a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One value.
    One,
    /// Several values: the flag repeats, the variable holds commas, the key a list.
    Many,
    /// One of these.
    Choice(&'static [&'static str]),
    /// `true` or `false`; the flag alone is `true`.
    Switch,
    /// One value that is never shown, and has no flag: other users see flags in the list of processes.
    Secret,
}

impl Setting {
    pub(crate) fn variable(&self) -> String {
        format!("PILOTLIGHT_{}", self.name.replace('-', "_").to_uppercase())
    }

    pub(crate) fn toml_key(&self) -> String {
        self.name.replace('-', "_")
    }

    pub(crate) fn has_flag(&self) -> bool {
        self.form != Form::Secret
    }
}

macro_rules! settings {
    ($($id:ident: $name:literal $value:literal = $default:literal, $form:expr, $help:literal;)*) => {
        $(pub(crate) const $id: &Setting =
            &Setting { name: $name, value: $value, default: $default, form: $form, help: $help };)*
        /// In the order of help and the reference page.
        pub(crate) const ALL: &[&Setting] = &[$($id),*];
    };
}

settings! {
    LISTEN: "listen" "ADDR" = "127.0.0.1:6379", Form::Many,
        "Address for Redis clients: HOST:PORT, tls:HOST:PORT, or unix:/PATH for a Unix socket, whose permissions are 0600 or \
         as in unix:/PATH?mode=0660&group=NAME (repeatable)";
    HTTP: "http" "ADDR" = "127.0.0.1:6380", Form::Many,
        "Address for HTTP: HOST:PORT, tls:HOST:PORT, or `off` (repeatable)";
    TLS_CERT: "tls-cert" "FILE" = "", Form::One,
        "The server's certificate and those that lead to its authority (PEM), for addresses with `tls:`; read again at SIGHUP \
         and when it or the key changes";
    TLS_KEY: "tls-key" "FILE" = "", Form::One,
        "The private key of that certificate (PEM, not encrypted)";
    TLS_CLIENT_CA: "tls-client-ca" "FILE" = "", Form::One,
        "Authorities that sign the certificates of clients (PEM); with it, clients are asked for one";
    TLS_CLIENT_AUTH: "tls-client-auth" "RULE" = "required", Form::Choice(&["required", "optional"]),
        "Whether a client without a certificate is let in, where `tls-client-ca` is set";
    DATA_DIR: "data-dir" "DIR" = "", Form::One,
        "Directory to keep entries in [default: $XDG_DATA_HOME/pilotlight or ~/.local/share/pilotlight]";
    MAX_SIZE: "max-size" "SIZE" = "10GiB", Form::One,
        "Most disk space to take, overhead included; beyond it, entries are evicted";
    QUOTA: "quota" "NAMESPACE=SIZE" = "", Form::Many,
        "Most that the entries of a namespace may take, without overhead; beyond it, entries of this namespace are \
         evicted and no others. Redis' database N is `dbN` (repeatable)";
    MEMORY: "memory" "SIZE" = "256MiB", Form::One,
        "Memory for hot entries, ready to send; 0 for none";
    ORIGIN: "origin" "URL" = "", Form::One,
        "Object storage behind the disk, which other servers share: s3://BUCKET or s3://BUCKET/PREFIX. Credentials come from \
         AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the like, or `origin-credentials`. See docs/origin.md";
    ORIGIN_ENDPOINT: "origin-endpoint" "URL" = "", Form::One,
        "Where that is, if not at AWS: http://HOST:PORT or https://HOST [default: AWS_ENDPOINT_URL]";
    ORIGIN_REGION: "origin-region" "REGION" = "", Form::One,
        "Its region [default: AWS_REGION or us-east-1]";
    ORIGIN_CREDENTIALS: "origin-credentials" "FILE" = "", Form::One,
        "File of credentials as AWS' tools keep it, of which the profile AWS_PROFILE counts, or `default`";
    ORIGIN_TIMEOUT: "origin-timeout" "DURATION" = "2s", Form::One,
        "Longest a lookup waits for the origin, retries included, and a put where `origin-write` is `through`; below \
         `request-timeout`";
    ORIGIN_WRITE: "origin-write" "HOW" = "behind", Form::Choice(&["behind", "through"]),
        "Whether a put is done when the disk has it, and the origin has it some moments later (behind), or waits for the origin \
         (through)";
    ORIGIN_ON_ERROR: "origin-on-error" "POLICY" = "fail-tier", Form::Choice(&["ignore", "fail-tier", "all"]),
        "When a put fails: if neither disk nor origin take it (ignore), if the disk does not (fail-tier), if either does not \
         (all, which needs `through`)";
    ORIGIN_READ_ONLY: "origin-read-only" "BOOL" = "false", Form::Switch,
        "Never write to the origin";
    ORIGIN_QUEUE: "origin-queue" "COUNT" = "100000", Form::One,
        "Most puts that may wait to be sent to the origin; those beyond it stay on the disk alone";
    ORIGIN_FRESH: "origin-fresh" "DURATION" = "1m", Form::One,
        "For how long entries that are replaced over time (profiles, autotune results, lists of variants, keys that are no \
         compiler's) may differ from the origin's";
    ORIGIN_MISS: "origin-miss" "DURATION" = "off", Form::One,
        "For how long to remember that the origin lacks an entry, or `off`: until then what other servers put is not seen";
    ORIGIN_KEEP: "origin-keep" "DURATION" = "7d", Form::One,
        "Put objects again that are in use and older than that, for rules of the bucket that delete by age, or `off`";
    DURABILITY: "durability" "LEVEL" = "relaxed", Form::Choice(&["relaxed", "batch", "always"]),
        "When a put is acknowledged: once the kernel has it (relaxed, synced every second), after a sync shared \
         with other puts (batch), after a sync of its own (always)";
    RECOMPRESS_AFTER: "recompress-after" "DURATION" = "10m", Form::One,
        "Store entries that nobody used for as long smaller, in the background and while little else is to be done, \
         or `off`";
    LEASE_WAIT: "lease-wait" "DURATION" = "3s", Form::One,
        "Longest a lookup of PyTorch's own client waits for another that compiles the same graph, or `off`; more than 3 s \
         needs clients whose socket timeout is longer than that";
    MAX_ENTRY_SIZE: "max-entry-size" "SIZE" = "512MiB", Form::One,
        "Largest artifact that may be put";
    REQUEST_TIMEOUT: "request-timeout" "DURATION" = "4s", Form::One,
        "Longest a request may take; below the 5 s after which stock clients give up";
    MAX_CONNECTIONS: "max-connections" "COUNT" = "20000", Form::One,
        "Most connections at a time, for Redis clients and for HTTP each";
    MAX_CONNECTIONS_PER_ADDRESS: "max-connections-per-address" "COUNT" = "off", Form::One,
        "Most connections from one address at a time, for Redis clients and for HTTP each, or `off`; others are closed at once, \
         over which stock PyTorch fails a compile";
    CONNECTION_MEMORY: "connection-memory" "SIZE" = "1GiB", Form::One,
        "Memory for large requests and replies in flight, of all connections together, and room for two of the largest entries at \
         least; beyond it gets are misses and puts are refused";
    IDLE_TIMEOUT: "idle-timeout" "DURATION" = "off", Form::One,
        "Close Redis connections that are idle for longer, or `off`";
    DRAIN_TIMEOUT: "drain-timeout" "DURATION" = "10s", Form::One,
        "Longest to wait for running requests at shutdown";
    CORES: "cores" "COUNT" = "auto", Form::One,
        "Threads that serve Redis clients, or `auto` for one a core";
    DATABASES: "databases" "COUNT" = "16", Form::One,
        "Databases that SELECT knows";
    PASSWORD: "password" "PASSWORD" = "", Form::Secret,
        "Password that clients must give, as user `default` with all rights; without one and without users, everybody who can \
         connect may read and write";
    PASSWORD_FILE: "password-file" "FILE" = "", Form::One,
        "File that holds the password; its last line end does not count";
    USERS: "users" "FILE" = "", Form::One,
        "File of users, with their rights and the rules of namespaces; read again when it changes. See `pilotlight users` and \
         docs/users.md";
    AUDIT_LOG: "audit-log" "FILE" = "", Form::One,
        "File to note logins, refusals, puts, deletes and what administrators do in, as JSON lines; SIGHUP begins it anew after \
         a rename";
    INSECURE: "insecure" "BOOL" = "false", Form::Switch,
        "Listen on other than loopback addresses with neither a password, nor users, nor required client certificates";
    STRICT: "strict" "BOOL" = "false", Form::Switch,
        "Answer errors as Redis does, also for compile-cache entries: stock PyTorch then fails a compile over a \
         failed put";
    SIGNERS: "signers" "FILE" = "", Form::One,
        "Trust file (TOML) of the signers whose entries are taken, as `pilotlight keys trust` writes it: what none of them \
         signed is refused at the put, for keys of compilers; without it anybody's is taken. Read again at SIGHUP";
    LOG_LEVEL: "log-level" "LEVEL" = "info", Form::Choice(&["off", "error", "warn", "info", "debug", "trace"]),
        "Least important message to log";
    LOG_FORMAT: "log-format" "FORMAT" = "text", Form::Choice(&["text", "json"]),
        "How to log, on stderr";
    PORT_FILE: "port-file" "FILE" = "", Form::One,
        "File to write the addresses in use to, as JSON, once they accept connections: for port 0";
    RECORD_TRACE: "record-trace" "FILE" = "", Form::One,
        "New file to note every get, put and delete in, by hashes of their keys, to simulate eviction with; some 50 \
         bytes each";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_well_formed() {
        for (index, setting) in ALL.iter().enumerate() {
            assert!(ALL[..index].iter().all(|other| other.name != setting.name), "{} twice", setting.name);
            assert!(!setting.help.ends_with('.') && !setting.help.is_empty(), "{}", setting.name);
            if let Form::Choice(choices) = setting.form {
                assert!(choices.contains(&setting.default), "{}", setting.name);
            }
        }
    }
}
