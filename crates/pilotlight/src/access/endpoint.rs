//! Which server to ask over HTTP, from what a person has set: its HTTP address, or the URL that jobs use.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use pilotlight_cache::client::{Address, Login, Place};

use super::tls;
use crate::cli::Target;
use crate::environment;
use crate::failure::Failure;
use crate::settings;

const DEFAULT: &str = "http://127.0.0.1:6380";
/// For the connection, and for each wait: a server that is there answers `INFO` at once.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than any `INFO`, in bytes.
const INFO_LEN_MAX: u64 = 64 << 10;

/// A server's HTTP interface.
pub(super) struct Endpoint {
    pub(super) url: String,
    pub(super) password: Option<String>,
}

/// A server as it was named.
pub(super) enum Named {
    /// By what is, or is not, an HTTP address.
    Http(String),
    /// As jobs are told, by this flag or variable.
    AsForJobs(&'static str, Address),
}

impl Named {
    /// The number of its database.
    pub(super) fn database(&self) -> u16 {
        match self {
            Self::Http(_) => 0,
            Self::AsForJobs(_, address) => address.database,
        }
    }
}

/// The server that `target` or else the environment names.
pub(super) fn named(target: &Target) -> Result<Option<Named>, Failure> {
    let all = [
        ("--server", target.server.clone()),
        ("PILOTLIGHT_HTTP_URL", environment::variable("PILOTLIGHT_HTTP_URL")),
        ("PILOTLIGHT_URL", environment::variable("PILOTLIGHT_URL")),
    ];
    let Some((name, url)) = all.into_iter().find_map(|(name, url)| Some((name, url?))) else {
        return Ok(None);
    };
    // What is no URL of a job's is for the HTTP client to judge.
    let is_of_jobs = ["pilotlight://", "pilotlights://", "redis://", "rediss://", "unix://", "file://"]
        .iter()
        .any(|scheme| url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    if name != "PILOTLIGHT_URL" && !is_of_jobs {
        return Ok(Some(Named::Http(url)));
    }
    match Address::parse(&url) {
        Ok(address) => Ok(Some(Named::AsForJobs(name, address))),
        Err(error) => Err(Failure::of_address(name, &error)),
    }
}

/// Where to ask that server, or the usual one.
pub(super) fn of(target: &Target) -> Result<Endpoint, Failure> {
    let in_file = target.password_file.as_deref().map(settings::password_in).transpose()?;
    let (name, address) = match named(target)? {
        Some(Named::AsForJobs(name, address)) => (name, address),
        Some(Named::Http(url)) => return Ok(Endpoint { url, password: or_usual(in_file)? }),
        None => return Ok(Endpoint { url: DEFAULT.to_owned(), password: or_usual(in_file)? }),
    };
    let own = address.login.as_ref().map(|login| login.password.clone());
    let password = or_usual(in_file.or(own))?;
    Ok(Endpoint { url: http(name, &address, password.as_deref())?, password })
}

fn or_usual(password: Option<String>) -> Result<Option<String>, Failure> {
    if let Some(password) = password.or_else(|| environment::variable("PILOTLIGHT_PASSWORD")) {
        return Ok(Some(password));
    }
    environment::variable("PILOTLIGHT_PASSWORD_FILE").map(|path| settings::password_in(&path)).transpose()
}

/// Asks the server at `address` where it answers HTTP.
fn http(name: &str, address: &Address, password: Option<&str>) -> Result<String, Failure> {
    let elsewhere = "name the HTTP address of a server with `--server http://HOST:PORT`";
    let login = address.login.as_ref();
    let (info, host) = match &address.place {
        Place::Directory { path } => {
            let directory = path.display();
            return Err(Failure::new(format!("{name} is the directory `{directory}`, and no server to ask"))
                .with_hint(format!("jobs keep that directory by themselves; {elsewhere}")));
        }
        Place::Tcp { host, port, is_tls } => {
            (over_tcp(host, *port, *is_tls, login, password), Some(host.as_str()))
        }
        Place::Unix { path } => (over_unix(path, login, password), None),
    };
    let is_tls = matches!(address.place, Place::Tcp { is_tls: true, .. });
    let info = info.map_err(|error| {
        Failure::new(format!("could not reach the server of {name}, {address}")).because(&error).with_hint(format!(
            "start one with `pilotlight serve`, {elsewhere}, or look into the directory of a stopped one with \
             `--data-dir DIR`"
        ))
    })?;
    let info = info.map_err(|refusal| refused(address, &refusal))?;
    let field = |name: &str| info.lines().find_map(|line| line.trim_end().strip_prefix(name));
    if field("pilotlight_version:").is_none() {
        return Err(Failure::new(format!("the server of {name}, {address}, is no Pilotlight"))
            .with_hint(format!("a Redis has none of this; {elsewhere}")));
    }
    // Who hides what is said hides it here too: a secret never goes out in clear text because nobody answers HTTPS.
    let schemes: &[(&str, &str)] = match is_tls {
        true => &[("https", "pilotlight_https:")],
        false => &[("http", "pilotlight_http:"), ("https", "pilotlight_https:")],
    };
    let bound = schemes.iter().find_map(|&(scheme, name)| {
        let bound: SocketAddr = field(name)?.parse().ok()?;
        Some((scheme, bound))
    });
    let Some((scheme, bound)) = bound else {
        return Err(Failure::new(format!(
            "the server of {name}, {address}, answers no {}",
            if is_tls { "HTTPS" } else { "HTTP" }
        ))
        .with_hint(if is_tls {
            "start it with `--http tls:HOST:PORT`"
        } else {
            "start it without `--http off`"
        }));
    };
    Ok(match host {
        // It may be known here by another address than to itself.
        Some(host) if host.contains(':') => format!("{scheme}://[{host}]:{}", bound.port()),
        Some(host) => format!("{scheme}://{host}:{}", bound.port()),
        None if bound.ip().is_unspecified() => {
            format!("{scheme}://{}", SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), bound.port()))
        }
        None => format!("{scheme}://{bound}"),
    })
}

fn refused(address: &Address, refusal: &str) -> Failure {
    let failure = Failure::new(format!("the server at {address} refuses: {}", refusal.escape_debug()));
    if refusal.starts_with("HTTP/") {
        return Failure::new(format!("{address} names the HTTP port of a server"))
            .with_hint("jobs need the other one, 6379 by default: `serve` says both at its start");
    }
    let is_about_password = refusal.starts_with("NOAUTH") || refusal.starts_with("WRONGPASS");
    let form = match address.place {
        Place::Unix { .. } => "`unix://:PASSWORD@/PATH`",
        _ => "`pilotlight://:PASSWORD@HOST`",
    };
    let hint = format!(
        "write the password into the URL, {form}, or give it with PILOTLIGHT_PASSWORD or `--password-file FILE`"
    );
    failure.with_hint_if(is_about_password.then_some(hint))
}

/// What `INFO` says, or else the refusal.
type Info = io::Result<Result<String, String>>;

fn over_tcp(host: &str, port: u16, is_tls: bool, login: Option<&Login>, password: Option<&str>) -> Info {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(stream) => {
                stream.set_read_timeout(Some(TIMEOUT))?;
                if is_tls {
                    return ask(tls::over(host, stream)?, login, password);
                }
                return ask(stream, login, password);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn over_unix(path: &Path, login: Option<&Login>, password: Option<&str>) -> Info {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    ask(stream, login, password)
}

fn ask(mut stream: impl Read + Write, login: Option<&Login>, password: Option<&str>) -> Info {
    let mut request = Vec::new();
    if let Some(password) = password {
        let user = login.and_then(|login| login.user.as_deref());
        push_command(&mut request, &[Some("AUTH"), user, Some(password)]);
    }
    push_command(&mut request, &[Some("INFO"), Some("server")]);
    stream.write_all(&request)?;
    let mut replies = BufReader::new(stream.take(INFO_LEN_MAX));
    // A server without a password refuses one, and answers all the same.
    let login_reply = if password.is_some() { Some(line(&mut replies)?) } else { None };
    let reply = line(&mut replies)?;
    let Some(len) = reply.strip_prefix('$').and_then(|len| len.parse().ok()) else {
        return Ok(Err(login_reply.unwrap_or(reply).trim_start_matches('-').to_owned()));
    };
    let mut info = Vec::new();
    replies.take(len).read_to_end(&mut info)?;
    Ok(Ok(String::from_utf8_lossy(&info).into_owned()))
}

/// As an array of bulks, without the words that are absent.
fn push_command(request: &mut Vec<u8>, words: &[Option<&str>]) {
    let words: Vec<&str> = words.iter().copied().flatten().collect();
    request.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        request.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
}

fn line(replies: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    if replies.read_until(b'\n', &mut line)? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection"));
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}
