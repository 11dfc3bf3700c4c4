//! From texts to a value that is right or is not there.

use std::path::{Path, PathBuf};

use pilotlight_cache::{Durability, Namespace};
use pilotlight_server::Config;
use pilotlight_server::access::{Access, Users};

use super::addresses::{self, Listen, Locks, is_reachable, refuse_open_doors};
use super::origin::{OriginSettings, origin};
use super::resolve::{Resolved, Row};
use super::table::{self, Form, Setting};
use super::values;
use crate::failure::Failure;

/// What `serve` runs with.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) listen: Vec<Listen>,
    pub(crate) http: Vec<Listen>,
    pub(crate) tls: Option<TlsSettings>,
    pub(crate) data_dir: PathBuf,
    pub(crate) bytes_max: u64,
    /// By namespace.
    pub(crate) quotas: Vec<(Namespace, u64)>,
    pub(crate) memory_bytes: u64,
    /// What is behind the disk, if anything.
    pub(crate) origin: Option<OriginSettings>,
    pub(crate) durability: Durability,
    pub(crate) log_level: String,
    pub(crate) log_format: LogFormat,
    /// The trust file of those whose entries are taken.
    pub(crate) signers: Option<PathBuf>,
    pub(crate) port_file: Option<PathBuf>,
    pub(crate) trace_file: Option<PathBuf>,
    pub(crate) users_file: Option<PathBuf>,
    /// Whether it is logins that keep other machines from writing: then they must stay needed.
    pub(crate) keeps_strangers_out: bool,
    pub(crate) audit_log: Option<PathBuf>,
    /// What the front-ends are told.
    pub(crate) server: Config,
}

/// What TLS needs: PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsSettings {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Who signs the certificates of clients; they show none where there is none.
    pub(crate) client_authority: Option<PathBuf>,
    pub(crate) are_clients_required: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

impl Settings {
    /// The settings, or what is wrong with the first wrong one.
    pub(crate) fn parse(found: &Resolved) -> Result<Self, Failure> {
        let listen = found.many(table::LISTEN, addresses::listen)?;
        let http: Vec<Listen> = found.many(table::HTTP, addresses::http)?.into_iter().flatten().collect();
        let doors = || listen.iter().chain(&http);
        let tls = tls(found, doors().any(|door| matches!(door, Listen::Tls(_))))?;
        let password = password(found)?;
        let users_file = found.maybe(table::USERS).map(PathBuf::from);
        let users = access(users_file.as_deref(), password.as_deref())?.users();
        let mut keeps_strangers_out = false;
        if !found.one(table::INSECURE, values::switch)? {
            let locks = Locks {
                are_logins_needed: !users.anybody_writes(),
                are_certificates_required: tls
                    .as_ref()
                    .is_some_and(|tls| tls.client_authority.is_some() && tls.are_clients_required),
            };
            refuse_open_doors(doors(), locks, users_file.is_some())?;
            let without_logins = Locks { are_logins_needed: false, ..locks };
            keeps_strangers_out = refuse_open_doors(doors(), without_logins, true).is_err();
        }
        let quotas = quotas(found.many(table::QUOTA, quota)?, &users)?;
        let cores = found.one(table::CORES, |text| match text {
            "auto" => Ok(Config::default().cores),
            _ => values::count(text, 1, 1024).map(|cores| cores as usize),
        })?;
        let server = Config {
            cores,
            request_timeout: found.one(table::REQUEST_TIMEOUT, values::positive_duration)?,
            entry_bytes_max: found.one(table::MAX_ENTRY_SIZE, values::size)?,
            connections_max: found.one(table::MAX_CONNECTIONS, |text| values::count(text, 1, 1 << 20))?
                as usize,
            connections_per_address_max: found.one(
                table::MAX_CONNECTIONS_PER_ADDRESS,
                |text| match text {
                    "off" => Ok(None),
                    _ => values::count(text, 1, 1 << 20).map(|count| Some(count as usize)),
                },
            )?,
            connection_memory_bytes: found.one(table::CONNECTION_MEMORY, values::size)?,
            idle_timeout: found.one(table::IDLE_TIMEOUT, |text| match text {
                "off" => Ok(None),
                _ => values::positive_duration(text).map(Some),
            })?,
            drain_timeout: found.one(table::DRAIN_TIMEOUT, values::duration)?,
            password,
            lease_wait: found.one(table::LEASE_WAIT, |text| match text {
                "off" => Ok(std::time::Duration::ZERO),
                _ => values::positive_duration(text),
            })?,
            recompress_after: found.one(table::RECOMPRESS_AFTER, |text| match text {
                "off" => Ok(None),
                _ => values::positive_duration(text).map(Some),
            })?,
            is_strict: found.one(table::STRICT, values::switch)?,
            databases: found.one(table::DATABASES, |text| values::count(text, 1, u64::from(u16::MAX)))?
                as u16,
            ..Config::default()
        };
        Ok(Self {
            listen,
            http,
            tls,
            data_dir: data_dir(found)?,
            bytes_max: found.one(table::MAX_SIZE, values::size)?,
            quotas,
            memory_bytes: found.one(table::MEMORY, values::size)?,
            origin: origin(found, server.request_timeout)?,
            durability: found.one(table::DURABILITY, |text| match text {
                "relaxed" => Ok(Durability::Relaxed),
                "batch" => Ok(Durability::Batch),
                "always" => Ok(Durability::Always),
                _ => Err(choices(table::DURABILITY)),
            })?,
            log_level: found.one(table::LOG_LEVEL, |text| choice(table::LOG_LEVEL, text))?,
            log_format: found.one(table::LOG_FORMAT, |text| match text {
                "text" => Ok(LogFormat::Text),
                "json" => Ok(LogFormat::Json),
                _ => Err(choices(table::LOG_FORMAT)),
            })?,
            signers: found.maybe(table::SIGNERS).map(PathBuf::from),
            port_file: found.maybe(table::PORT_FILE).map(PathBuf::from),
            trace_file: found.maybe(table::RECORD_TRACE).map(PathBuf::from),
            users_file,
            keeps_strangers_out,
            audit_log: found.maybe(table::AUDIT_LOG).map(PathBuf::from),
            server,
        })
    }

    /// Who may do what, read from the users file, if there is one.
    pub(crate) fn access(&self) -> Result<Access, Failure> {
        access(self.users_file.as_deref(), self.server.password.as_deref())
    }
}

fn access(users_file: Option<&Path>, password: Option<&str>) -> Result<Access, Failure> {
    let Some(path) = users_file else { return Ok(Access::of_password(password)) };
    Access::of_file(path, password)
        .map_err(|error| Failure::new(error.to_string()).because(&error).with_hint_if(error.hint()))
}

/// The quotas of the settings and of the users file: a namespace has one.
fn quotas(mut quotas: Vec<(Namespace, u64)>, users: &Users) -> Result<Vec<(Namespace, u64)>, Failure> {
    for (namespace, bytes) in users.quotas() {
        if quotas.iter().any(|(other, _)| other == namespace) {
            return Err(Failure::new(format!(
                "namespace `{}` has two quotas: one of `--quota`, one of the users file",
                namespace.as_str()
            ))
            .with_hint("keep one of them"));
        }
        quotas.push((namespace.clone(), bytes));
    }
    Ok(quotas)
}

impl Settings {
    /// What is allowed and yet unwise.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let is_plain = |door: &&Listen| matches!(door, Listen::Tcp(address) if is_reachable(*address));
        let plain = self.listen.iter().chain(&self.http).find(is_plain);
        match plain {
            Some(Listen::Tcp(address)) if self.server.password.is_some() || self.users_file.is_some() => {
                vec![format!(
                    "secrets and entries cross the network in clear text to {address}; `tls:HOST:PORT` hides them"
                )]
            }
            _ => Vec::new(),
        }
    }
}

impl Resolved {
    fn row(&self, setting: &Setting) -> Option<&Row> {
        self.rows.iter().find(|row| row.setting.name == setting.name)
    }

    pub(super) fn maybe(&self, setting: &Setting) -> Option<&str> {
        self.row(setting)?.values.last().map(String::as_str)
    }

    pub(super) fn many<T>(
        &self,
        setting: &Setting,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, Failure> {
        let Some(row) = self.row(setting) else { return Ok(Vec::new()) };
        let parsed = row.values.iter().map(|text| {
            parse(text).map_err(|expected| Failure::new(format!("{} is `{text}`: {expected}", row.source())))
        });
        parsed.collect()
    }

    pub(super) fn one<T>(
        &self,
        setting: &Setting,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Failure> {
        let missing = || Failure::new(format!("--{} has no value", setting.name));
        self.many(setting, parse)?.pop().ok_or_else(missing)
    }
}

fn choices(setting: &Setting) -> String {
    let Form::Choice(choices) = setting.form else { return String::new() };
    format!("expected one of {}", choices.join(", "))
}

fn choice(setting: &Setting, text: &str) -> Result<String, String> {
    match setting.form {
        Form::Choice(known) if known.contains(&text) => Ok(text.to_owned()),
        _ => Err(choices(setting)),
    }
}

fn quota(text: &str) -> Result<(Namespace, u64), String> {
    let expected = || "expected NAMESPACE=SIZE, as in `db1=2GiB`".to_owned();
    let (name, size) = text.rsplit_once('=').ok_or_else(expected)?;
    // Database 0 is the namespace without a name.
    let name = if name == "db0" { "" } else { name };
    let namespace = Namespace::new(name).map_err(|error| error.to_string())?;
    Ok((namespace, values::size(size)?))
}

/// What TLS needs, if an address or a file asks for it. One without the other is a mistake that would leave a door open.
fn tls(found: &Resolved, is_used: bool) -> Result<Option<TlsSettings>, Failure> {
    let file = |setting| found.maybe(setting).map(PathBuf::from);
    let certificate = file(table::TLS_CERT);
    let others = [table::TLS_KEY, table::TLS_CLIENT_CA];
    if let (None, Some(other)) = (&certificate, others.into_iter().find(|other| found.maybe(other).is_some()))
    {
        return Err(Failure::new(format!("there is a `--{}` and no certificate", other.name))
            .with_hint("give the server's own certificate with `--tls-cert FILE`"));
    }
    match (certificate, is_used) {
        (None, false) => Ok(None),
        (None, true) => Err(Failure::new("an address with `tls:` needs a certificate")
            .with_hint("give it with `--tls-cert FILE` and `--tls-key FILE`")),
        (Some(_), false) => Err(Failure::new("there is a certificate and no address with TLS")
            .with_hint("write `tls:` in front of one: `--listen tls:HOST:PORT` or `--http tls:HOST:PORT`")),
        (Some(certificate), true) => Ok(Some(TlsSettings {
            certificate,
            key: file(table::TLS_KEY).ok_or_else(|| {
                Failure::new("there is a certificate and no key").with_hint("give it with `--tls-key FILE`")
            })?,
            client_authority: file(table::TLS_CLIENT_CA),
            are_clients_required: found
                .one(table::TLS_CLIENT_AUTH, |text| choice(table::TLS_CLIENT_AUTH, text))?
                == "required",
        })),
    }
}

fn data_dir(found: &Resolved) -> Result<PathBuf, Failure> {
    found.maybe(table::DATA_DIR).map(PathBuf::from).ok_or_else(|| {
        Failure::new("there is no directory to keep entries in: neither XDG_DATA_HOME nor HOME is set")
            .with_hint("choose one with `--data-dir DIR`")
    })
}

fn password(found: &Resolved) -> Result<Option<String>, Failure> {
    let direct = found.maybe(table::PASSWORD).map(str::to_owned);
    let Some(path) = found.maybe(table::PASSWORD_FILE) else { return Ok(direct) };
    if direct.is_some() {
        return Err(Failure::new("there are two passwords: `password` and `password-file` are both set")
            .with_hint("keep one of PILOTLIGHT_PASSWORD and --password-file"));
    }
    password_in(path).map(Some)
}

/// The password in the file at `path`.
pub(crate) fn password_in(path: &str) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("could not read the password in `{path}`")).because(&error))?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(Failure::new(format!("the password in `{path}` is empty")));
    }
    Ok(password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::resolve::{Flags, resolve};
    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<Settings, Failure> {
        let variables = [&[("PILOTLIGHT_DATA_DIR", "/data")], variables].concat();
        let find =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Settings::parse(&resolve(&Flags::default(), find, None)?)
    }

    #[test]
    fn defaults_are_the_servers_own() {
        let settings = parse(&[]).unwrap();
        assert_eq!(format!("{:?}", settings.server), format!("{:?}", Config::default()));
        assert_eq!(settings.bytes_max, 10 << 30);
        assert_eq!(settings.http, [Listen::Tcp("127.0.0.1:6380".parse().unwrap())]);
    }

    #[test]
    fn what_is_wrong_and_where_it_was_said_is_told() {
        for (name, value, expected) in [
            ("PILOTLIGHT_MAX_SIZE", "big", "PILOTLIGHT_MAX_SIZE is `big`: expected a size"),
            ("PILOTLIGHT_LISTEN", "6379", "PILOTLIGHT_LISTEN is `6379`: expected HOST:PORT"),
            ("PILOTLIGHT_LISTEN", "unix:", "expected a path after `unix:`"),
            ("PILOTLIGHT_DURABILITY", "never", "expected one of relaxed, batch, always"),
            ("PILOTLIGHT_LOG_LEVEL", "loud", "expected one of off, error"),
            ("PILOTLIGHT_CORES", "0", "expected a whole number from 1"),
            ("PILOTLIGHT_REQUEST_TIMEOUT", "0s", "expected more than 0"),
            ("PILOTLIGHT_STRICT", "perhaps", "expected `true` or `false`"),
            ("PILOTLIGHT_HTTP", "x", "expected HOST:PORT, or `off`"),
            ("PILOTLIGHT_HTTP", "unix:/s", "expected HOST:PORT"),
            ("PILOTLIGHT_LISTEN", "tls:127.0.0.1:1", "an address with `tls:` needs a certificate"),
            ("PILOTLIGHT_TLS_CERT", "cert.pem", "there is a certificate and no address with TLS"),
            ("PILOTLIGHT_TLS_CLIENT_CA", "ca.pem", "there is a `--tls-client-ca` and no certificate"),
            ("PILOTLIGHT_ORIGIN", "bucket", "PILOTLIGHT_ORIGIN is `bucket`: expected s3://BUCKET"),
            ("PILOTLIGHT_ORIGIN_REGION", "eu-1", "there is a `--origin-region` and no origin"),
        ] {
            let text = parse(&[(name, value)]).unwrap_err().to_string();
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn settings_of_an_origin_that_contradict_each_other_are_refused() {
        let with = |name: &str, value: &str| parse(&[("PILOTLIGHT_ORIGIN", "s3://bucket/a"), (name, value)]);
        assert!(with("PILOTLIGHT_ORIGIN_ENDPOINT", "https://host").unwrap().origin.is_some());
        for (name, value, expected) in [
            ("PILOTLIGHT_ORIGIN_ENDPOINT", "host:9000", "expected http://HOST:PORT"),
            ("PILOTLIGHT_ORIGIN_ENDPOINT", "http://user:secret@host", "without credentials"),
            ("PILOTLIGHT_ORIGIN_ON_ERROR", "all", "hint: let them wait with `--origin-write through`"),
            (
                "PILOTLIGHT_ORIGIN_TIMEOUT",
                "4s",
                "is 4000 ms, expected less than `--request-timeout`, 4000 ms",
            ),
            ("PILOTLIGHT_ORIGIN_WRITE", "around", "expected one of behind, through"),
            ("PILOTLIGHT_ORIGIN_QUEUE", "0", "expected a whole number from 1"),
            ("PILOTLIGHT_ORIGIN_KEEP", "0s", "expected more than 0"),
        ] {
            let text = with(name, value).unwrap_err().to_string();
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn other_machines_are_let_in_only_with_a_password_or_on_purpose() {
        for address in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
            for name in ["PILOTLIGHT_LISTEN", "PILOTLIGHT_HTTP"] {
                assert!(parse(&[(name, address)]).is_err(), "{name} {address}");
                assert!(parse(&[(name, address), ("PILOTLIGHT_PASSWORD", "x")]).is_ok());
                assert!(parse(&[(name, address), ("PILOTLIGHT_INSECURE", "true")]).is_ok());
            }
        }
        for address in ["127.0.0.1:1", "[::1]:1", "127.9.9.9:1", "unix:/tmp/socket"] {
            assert!(parse(&[("PILOTLIGHT_LISTEN", address)]).is_ok(), "{address}");
        }
    }

    #[test]
    fn tls_with_client_certificates_is_a_lock_and_tls_alone_is_not() {
        let tls = [
            ("PILOTLIGHT_LISTEN", "tls:0.0.0.0:1"),
            ("PILOTLIGHT_TLS_CERT", "cert.pem"),
            ("PILOTLIGHT_TLS_KEY", "key.pem"),
        ];
        let authority = ("PILOTLIGHT_TLS_CLIENT_CA", "ca.pem");
        let optional = ("PILOTLIGHT_TLS_CLIENT_AUTH", "optional");
        assert!(parse(&tls).is_err());
        assert!(parse(&[&tls[..], &[authority]].concat()).unwrap().tls.unwrap().are_clients_required);
        assert!(parse(&[&tls[..], &[authority, optional]].concat()).is_err());
        assert!(parse(&[&tls[..], &[authority, optional, ("PILOTLIGHT_PASSWORD", "x")]].concat()).is_ok());
        assert!(parse(&tls[..2]).unwrap_err().to_string().contains("no key"));
    }

    #[test]
    fn a_password_in_clear_text_is_warned_of() {
        let warned = |address| {
            let set = [
                ("PILOTLIGHT_LISTEN", address),
                ("PILOTLIGHT_PASSWORD", "x"),
                ("PILOTLIGHT_TLS_CERT", "cert.pem"),
                ("PILOTLIGHT_TLS_KEY", "key.pem"),
                ("PILOTLIGHT_HTTP", "tls:127.0.0.1:2"),
            ];
            !parse(&set).unwrap().warnings().is_empty()
        };
        assert!(warned("0.0.0.0:1"));
        assert!(!warned("127.0.0.1:1"));
        assert!(!warned("tls:0.0.0.0:1"));
    }

    #[test]
    fn users_who_must_log_in_are_as_good_as_a_password() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users.toml");
        let file = path.to_str().unwrap();
        let reached = ("PILOTLIGHT_LISTEN", "0.0.0.0:1");
        for (text, is_let_in) in [
            ("", true),
            ("[users.default]\ngrants = [\"r *\"]\n", true),
            ("[users.default]\ngrants = [\"rw ci\"]\n", false),
            ("[users.default]\ngrants = [\"rw *\"]\ndisabled = true\n", true),
        ] {
            std::fs::write(&path, text).unwrap();
            let parsed = parse(&[reached, ("PILOTLIGHT_USERS", file)]);
            assert_eq!(parsed.is_ok(), is_let_in, "{text}");
            assert!(parse(&[reached, ("PILOTLIGHT_USERS", file), ("PILOTLIGHT_INSECURE", "true")]).is_ok());
        }
        std::fs::write(&path, "[namespaces.db1]\nquota = \"1GiB\"\n").unwrap();
        let both = [("PILOTLIGHT_USERS", file), ("PILOTLIGHT_QUOTA", "db1=2GiB")];
        assert!(parse(&both).unwrap_err().to_string().contains("`db1` has two quotas"));
        assert_eq!(parse(&both[..1]).unwrap().quotas, [(Namespace::database(1), 1 << 30)]);
        std::fs::write(&path, "[users.a]\n").unwrap();
        let text = parse(&both[..1]).unwrap_err().to_string();
        assert!(
            text.contains("caused by: line 1: user `a` has no way to log in") && text.contains("hint: "),
            "{text}"
        );
    }
}
