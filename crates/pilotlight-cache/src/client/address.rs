//! Where a remote cache is, as a person writes it.

use std::fmt;
use std::path::PathBuf;

/// A URL that was understood. Its `Display` has no secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// Where to connect.
    pub place: Place,
    /// Whom to connect as.
    pub login: Option<Login>,
    /// Redis' database, which is Pilotlight's namespace.
    pub database: u16,
    shown: String,
}

/// Where a cache is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A server.
    Tcp {
        /// A name or an address, without brackets.
        host: String,
        /// From 1.
        port: u16,
        /// Whether it is spoken to through TLS.
        is_tls: bool,
    },
    /// A server on this host.
    Unix {
        /// Its socket.
        path: PathBuf,
    },
    /// No server: a directory that its users keep themselves.
    Directory {
        /// The directory.
        path: PathBuf,
    },
}

/// A user and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// None when only a password is given: the default user.
    pub user: Option<String>,
    /// Never empty.
    pub password: String,
}

/// A URL that cannot be understood. Never quotes it: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}\nhint: {hint}")]
pub struct AddressError {
    problem: String,
    hint: &'static str,
}

const PORT: u16 = 6379;
const FORMS: &str = "write pilotlight://host:6379, redis://user:password@host:6379/0, pilotlights:// or rediss://host for TLS, \
                     unix:///path/to/socket or file:///directory";

fn refuse<T>(problem: impl Into<String>, hint: &'static str) -> Result<T, AddressError> {
    Err(AddressError { problem: problem.into(), hint })
}

impl AddressError {
    /// What is wrong.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }

    /// What to write instead.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        self.hint
    }
}

impl Address {
    /// The address in `url`.
    ///
    /// # Errors
    /// For a URL that cannot be understood, with a hint, and without quoting it.
    pub fn parse(url: &str) -> Result<Self, AddressError> {
        let Some((scheme, rest)) = url.trim().split_once("://") else {
            return refuse("the URL has no scheme", FORMS);
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let is_tls = ["rediss", "pilotlights"].iter().any(|secure| scheme.eq_ignore_ascii_case(secure));
        match scheme.to_ascii_lowercase().as_str() {
            "pilotlight" | "pilotlights" | "redis" | "rediss" => Self::tcp(scheme, rest, query, is_tls),
            "unix" => Self::unix(rest, query),
            "file" => Self::directory(rest, query),
            _ => refuse(format!("unknown scheme `{}`", scheme.escape_debug()), FORMS),
        }
    }

    fn tcp(scheme: &str, rest: &str, query: &str, is_tls: bool) -> Result<Self, AddressError> {
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, host_and_port) = login(authority)?;
        let (host, port) = match host_and_port.strip_prefix('[') {
            Some(rest) => {
                let Some((host, rest)) = rest.split_once(']') else {
                    return refuse("the IPv6 address has no closing bracket", FORMS);
                };
                (host, rest.strip_prefix(':'))
            }
            None => match host_and_port.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (host_and_port, None),
            },
        };
        if host.is_empty() {
            return refuse("the URL names no host", FORMS);
        }
        let port = match port {
            None | Some("") => PORT,
            Some(port) => match port.parse() {
                Ok(port) if port != 0 => port,
                Ok(_) | Err(_) => {
                    return refuse(
                        "the port is not a number from 1 to 65535",
                        "write it behind the host: redis://host:6379",
                    );
                }
            },
        };
        let database = database(path, query)?;
        let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let shown =
            format!("{scheme}://{}{bracketed}:{port}{}", shown_login(&login), shown_database(database));
        let place = Place::Tcp { host: host.to_owned(), port, is_tls };
        Ok(Self { place, login, database, shown })
    }

    fn unix(rest: &str, query: &str) -> Result<Self, AddressError> {
        let Some(at) = rest.find('/') else {
            return refuse("the URL names no socket", "write unix:///path/to/socket");
        };
        let (authority, path) = rest.split_at(at);
        let login = login(authority)?.0;
        let database = database("", query)?;
        let path = PathBuf::from(decoded(path)?);
        let shown = format!("unix://{}{}", shown_login(&login), path.display());
        Ok(Self { place: Place::Unix { path }, login, database, shown })
    }

    fn directory(rest: &str, query: &str) -> Result<Self, AddressError> {
        let path = rest.strip_prefix("localhost").unwrap_or(rest);
        if !path.starts_with('/') || path.len() < 2 || !query.is_empty() {
            return refuse("the URL names no directory", "write file:///directory, with its whole path");
        }
        let path = PathBuf::from(decoded(path)?);
        let shown = format!("file://{}", path.display());
        Ok(Self { place: Place::Directory { path }, login: None, database: 0, shown })
    }
}

fn login(authority: &str) -> Result<(Option<Login>, &str), AddressError> {
    // A password may hold an `@` that nobody encoded; a host cannot.
    let Some((login, host)) = authority.rsplit_once('@') else { return Ok((None, authority)) };
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let (user, password) = (decoded(user)?, decoded(password)?);
    if password.is_empty() {
        return refuse("the URL names a user and no password", "write redis://user:password@host");
    }
    Ok((Some(Login { user: Some(user).filter(|user| !user.is_empty()), password }), host))
}

fn database(path: &str, query: &str) -> Result<u16, AddressError> {
    let queried = query.split('&').find_map(|pair| pair.strip_prefix("db="));
    if queried.is_none() && !query.is_empty() {
        return refuse("the URL has options", "leave out what stands behind the `?`; only `db=N` is known");
    }
    match queried.unwrap_or_else(|| path.trim_end_matches('/')) {
        "" => Ok(0),
        number => number.parse().or_else(|_| {
            refuse("the database is not a number", "write it behind the host: redis://host:6379/0")
        }),
    }
}

fn decoded(text: &str) -> Result<String, AddressError> {
    match percent_encoding::percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => refuse("the URL is not UTF-8", "encode other bytes as %XX of UTF-8"),
    }
}

fn shown_login(login: &Option<Login>) -> String {
    login.as_ref().map_or_else(String::new, |login| format!("{}:***@", login.user.as_deref().unwrap_or("")))
}

fn shown_database(database: u16) -> String {
    if database == 0 { String::new() } else { format!("/{database}") }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_understood_and_shown_without_secrets() {
        for (url, shown) in [
            ("pilotlight://cache", "pilotlight://cache:6379"),
            ("redis://cache:7000/3", "redis://cache:7000/3"),
            ("pilotlights://cache", "pilotlights://cache:6379"),
            ("redis://:secret@cache", "redis://:***@cache:6379"),
            ("rediss://me:se%40cret@[::1]:1/", "rediss://me:***@[::1]:1"),
            ("redis://me:se@cret@cache?db=2", "redis://me:***@cache:6379/2"),
            ("unix:///run/a%20b.sock?db=1", "unix:///run/a b.sock"),
            ("unix://me:secret@/run/s", "unix://me:***@/run/s"),
            ("file:///var/cache", "file:///var/cache"),
        ] {
            assert_eq!(Address::parse(url).unwrap().to_string(), shown, "{url}");
        }
        let login = Address::parse("rediss://me:se%40c%2Fret@h").unwrap().login.unwrap();
        assert_eq!((login.user.as_deref(), login.password.as_str()), (Some("me"), "se@c/ret"));
        for (url, expected) in
            [("pilotlights://h", true), ("REDISS://h", true), ("pilotlight://h", false), ("redis://h", false)]
        {
            let place = Address::parse(url).unwrap().place;
            assert!(matches!(place, Place::Tcp { is_tls, .. } if is_tls == expected), "{url}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_with_a_hint_and_without_the_password() {
        for url in [
            "",
            "cache:6379",
            "http://u:hunter2@cache",
            "redis://",
            "redis://u:hunter2@:6379",
            "redis://u:hunter2@cache:0",
            "redis://u:hunter2@cache:65536",
            "redis://u:hunter2@cache/x",
            "redis://u:hunter2@cache?ssl=1",
            "redis://hunter2@cache",
            "redis://[::1",
            "redis://u:%ff@cache",
            "unix://",
            "file://",
            "file:///",
            "file://relative/path",
        ] {
            let error = Address::parse(url).expect_err(url).to_string();
            assert!(error.contains("\nhint: ") && !error.contains("hunter2"), "{url}: {error}");
        }
    }
}
