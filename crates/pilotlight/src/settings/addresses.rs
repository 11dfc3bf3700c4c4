//! Where to listen, in words: `HOST:PORT`, `tls:HOST:PORT`, `unix:/PATH?mode=0660&group=NAME`.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use crate::failure::Failure;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listen {
    Tcp(SocketAddr),
    Tls(SocketAddr),
    Unix(UnixSocket),
}

/// A Unix socket, and who may connect to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnixSocket {
    pub(crate) path: PathBuf,
    pub(crate) mode: u32,
    /// Its group: a number or a name.
    pub(crate) group: Option<String>,
}

/// The owner alone: whoever can connect can put entries, which are code.
const UNIX_MODE: u32 = 0o600;

/// What protects the doors that others can reach.
#[derive(Debug, Clone, Copy)]
pub(super) struct Locks {
    /// Whether nobody who proves nothing may put entries.
    pub(super) are_logins_needed: bool,
    /// Whether TLS connections need a client certificate.
    pub(super) are_certificates_required: bool,
}

pub(super) fn listen(text: &str) -> Result<Listen, String> {
    match text.strip_prefix("unix:") {
        Some(socket) => unix(socket).map(Listen::Unix),
        None => tcp(text),
    }
}

/// The same without Unix sockets; none for `off`.
pub(super) fn http(text: &str) -> Result<Option<Listen>, String> {
    match text {
        "off" => Ok(None),
        _ => tcp(text).map(Some).map_err(|error| format!("{error}, or `off`")),
    }
}

fn tcp(text: &str) -> Result<Listen, String> {
    match text.strip_prefix("tls:") {
        Some(address) => socket_address(address, "expected HOST:PORT after `tls:`").map(Listen::Tls),
        None => socket_address(text, "expected HOST:PORT").map(Listen::Tcp),
    }
}

fn socket_address(text: &str, expected: &str) -> Result<SocketAddr, String> {
    if !text.contains(':') {
        return Err(expected.to_owned());
    }
    let mut addresses = text.to_socket_addrs().map_err(|error| format!("{expected}: {error}"))?;
    addresses.next().ok_or_else(|| format!("{expected}: the host has no address"))
}

fn unix(text: &str) -> Result<UnixSocket, String> {
    let (path, options) = text.split_once('?').unwrap_or((text, ""));
    if path.is_empty() {
        return Err("expected a path after `unix:`".to_owned());
    }
    let mut socket = UnixSocket { path: PathBuf::from(path), mode: UNIX_MODE, group: None };
    for option in options.split('&').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("mode", mode)) => {
                let mode = u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o777);
                socket.mode = mode.ok_or("expected a mode such as `mode=0660`")?;
            }
            Some(("group", group)) if !group.is_empty() => socket.group = Some(group.to_owned()),
            _ => return Err("expected `unix:/PATH?mode=0660&group=NAME`".to_owned()),
        }
    }
    Ok(socket)
}

/// Whoever writes an entry can run code where it is read, so a port that others can reach needs a lock: logins, or client
/// certificates. TLS by itself is none: it hides what is said, from everybody but whoever connects.
pub(super) fn refuse_open_doors<'a>(
    doors: impl IntoIterator<Item = &'a Listen>,
    locks: Locks,
    has_users: bool,
) -> Result<(), Failure> {
    if locks.are_logins_needed {
        return Ok(());
    }
    let is_open = |door: &&Listen| match door {
        Listen::Tls(_) if locks.are_certificates_required => false,
        Listen::Tcp(address) | Listen::Tls(address) => is_reachable(*address),
        Listen::Unix(_) => false,
    };
    let (address, advice) = match doors.into_iter().find(is_open) {
        Some(Listen::Tcp(address)) => (address, ""),
        Some(Listen::Tls(address)) => (address, "ask for client certificates with `--tls-client-ca FILE`, "),
        Some(Listen::Unix(_)) | None => return Ok(()),
    };
    if has_users {
        return Err(Failure::new(format!(
            "{address} can be reached from other machines, and user `default`, who needs no secret, may write"
        ))
        .with_hint(format!(
            "{advice}take the right `w` from it in the users file, or accept that everybody who can connect can run code in \
             your jobs: `--insecure`"
        )));
    }
    Err(Failure::new(format!("{address} can be reached from other machines, and there is no password")).with_hint(
        format!(
            "{advice}set one with PILOTLIGHT_PASSWORD or `--password-file FILE`, name users with `--users FILE`, or accept that \
             everybody who can connect can run code in your jobs: `--insecure`"
        ),
    ))
}

/// Whether other machines may reach the address.
pub(super) fn is_reachable(address: SocketAddr) -> bool {
    match address.ip() {
        IpAddr::V4(ip) => !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.to_canonical().is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_understood() {
        let address = || "127.0.0.1:1".parse().unwrap();
        let socket = |mode, group: Option<&str>| UnixSocket {
            path: "/s".into(),
            mode,
            group: group.map(str::to_owned),
        };
        for (text, expected) in [
            ("127.0.0.1:1", Some(Listen::Tcp(address()))),
            ("tls:127.0.0.1:1", Some(Listen::Tls(address()))),
            ("unix:/s", Some(Listen::Unix(socket(0o600, None)))),
            ("unix:/s?mode=0660", Some(Listen::Unix(socket(0o660, None)))),
            ("unix:/s?mode=660&group=jobs", Some(Listen::Unix(socket(0o660, Some("jobs"))))),
            ("unix:", None),
            ("unix:?mode=0660", None),
            ("unix:/s?mode=rw", None),
            ("unix:/s?mode=1777", None),
            ("unix:/s?group=", None),
            ("unix:/s?user=x", None),
            ("tls:6379", None),
            ("tls:", None),
            ("6379", None),
        ] {
            assert_eq!(listen(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn only_logins_or_required_certificates_lock_a_door() {
        let doors = |text: &str| [listen(text).unwrap()];
        for (door, are_logins_needed, are_certificates_required, is_fine) in [
            ("0.0.0.0:1", false, false, false),
            ("0.0.0.0:1", true, false, true),
            ("0.0.0.0:1", false, true, false),
            ("tls:0.0.0.0:1", false, false, false),
            ("tls:0.0.0.0:1", true, false, true),
            ("tls:0.0.0.0:1", false, true, true),
            ("tls:127.0.0.1:1", false, false, true),
            ("unix:/s", false, false, true),
        ] {
            let locks = Locks { are_logins_needed, are_certificates_required };
            for has_users in [false, true] {
                assert_eq!(
                    refuse_open_doors(&doors(door), locks, has_users).is_ok(),
                    is_fine,
                    "{door} {locks:?}"
                );
            }
        }
    }
}
