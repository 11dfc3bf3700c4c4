//! From texts to a value that is right or is not there.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use pilotlight_cache::{Durability, Namespace};
use pilotlight_server::Config;

use super::resolve::{Resolved, Row};
use super::table::{self, Form, Setting};
use super::values;
use crate::failure::Failure;

/// What `serve` runs with.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) listen: Vec<Listen>,
    pub(crate) http: Http,
    pub(crate) data_dir: PathBuf,
    pub(crate) bytes_max: u64,
    /// By namespace.
    pub(crate) quotas: Vec<(Namespace, u64)>,
    pub(crate) memory_bytes: u64,
    pub(crate) durability: Durability,
    pub(crate) log_level: String,
    pub(crate) log_format: LogFormat,
    /// The trust file of those whose entries are taken.
    pub(crate) signers: Option<PathBuf>,
    pub(crate) port_file: Option<PathBuf>,
    pub(crate) trace_file: Option<PathBuf>,
    /// What the front-ends are told.
    pub(crate) server: Config,
}

/// Where to take Redis clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Where to take HTTP; nowhere when empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Http(pub(crate) Vec<SocketAddr>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

impl Settings {
    /// The settings, or what is wrong with the first wrong one.
    pub(crate) fn parse(found: &Resolved) -> Result<Self, Failure> {
        let listen = found.many(table::LISTEN, listen)?;
        let http = http(found)?;
        let password = password(found)?;
        let is_insecure = found.one(table::INSECURE, values::switch)?;
        if password.is_none() && !is_insecure {
            refuse_open_doors(&listen, &http)?;
        }
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
        };
        Ok(Self {
            listen,
            http,
            data_dir: data_dir(found)?,
            bytes_max: found.one(table::MAX_SIZE, values::size)?,
            quotas: found.many(table::QUOTA, quota)?,
            memory_bytes: found.one(table::MEMORY, values::size)?,
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
            server,
        })
    }
}

impl Resolved {
    fn row(&self, setting: &Setting) -> Option<&Row> {
        self.rows.iter().find(|row| row.setting.name == setting.name)
    }

    fn maybe(&self, setting: &Setting) -> Option<&str> {
        self.row(setting)?.values.last().map(String::as_str)
    }

    fn many<T>(
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

    fn one<T>(&self, setting: &Setting, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, Failure> {
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

fn listen(text: &str) -> Result<Listen, String> {
    match text.strip_prefix("unix:") {
        Some("") => Err("expected a path after `unix:`".to_owned()),
        Some(path) => Ok(Listen::Unix(PathBuf::from(path))),
        None => address(text).map(Listen::Tcp),
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

fn address(text: &str) -> Result<SocketAddr, String> {
    const EXPECTED: &str = "expected HOST:PORT";
    if !text.contains(':') {
        return Err(EXPECTED.to_owned());
    }
    let mut addresses = text.to_socket_addrs().map_err(|error| format!("{EXPECTED}: {error}"))?;
    addresses.next().ok_or_else(|| format!("{EXPECTED}: the host has no address"))
}

fn http(found: &Resolved) -> Result<Http, Failure> {
    let addresses = found.many(table::HTTP, |text| match text {
        "off" => Ok(None),
        _ => address(text).map(Some).map_err(|error| format!("{error}, or `off`")),
    })?;
    Ok(Http(addresses.into_iter().flatten().collect()))
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

/// Whoever writes an entry can run code where it is read, so a port that others can reach needs a password.
fn refuse_open_doors(listen: &[Listen], http: &Http) -> Result<(), Failure> {
    let tcp = listen.iter().filter_map(|listen| match listen {
        Listen::Tcp(address) => Some(address),
        Listen::Unix(_) => None,
    });
    let is_open = |address: &&SocketAddr| match address.ip() {
        IpAddr::V4(ip) => !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.to_canonical().is_loopback(),
    };
    match tcp.chain(&http.0).find(is_open) {
        None => Ok(()),
        Some(address) => Err(Failure::new(format!(
            "{address} can be reached from other machines, and there is no password"
        ))
        .with_hint(
            "set one with PILOTLIGHT_PASSWORD or `--password-file FILE`, or accept that everybody who can connect \
             can run code in your jobs: `--insecure`",
        )),
    }
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
        assert_eq!(settings.http, Http(vec!["127.0.0.1:6380".parse().unwrap()]));
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
        ] {
            let text = parse(&[(name, value)]).unwrap_err().to_string();
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
}
