//! Binds the sockets, with errors a person can act on.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pilotlight_server::{Listeners, SecureListeners, Tls};

use crate::failure::Failure;
use crate::settings::{Listen, Settings, UnixSocket};

/// Connections that may wait to be accepted: a job's ranks connect all at once, and the standard library's 128 makes
/// some of them wait a second for their SYN to be sent again. The kernel caps it (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// Bound sockets and where they are.
#[derive(Debug, Default)]
pub(super) struct Bound {
    listeners: Listeners,
    pub(super) resp: Vec<SocketAddr>,
    pub(super) http: Vec<SocketAddr>,
    pub(super) resp_tls: Vec<SocketAddr>,
    pub(super) http_tls: Vec<SocketAddr>,
    files: SocketFiles,
}

/// The socket files that were made here; removed when dropped.
#[derive(Debug, Default)]
pub(super) struct SocketFiles(pub(super) Vec<PathBuf>);

impl Drop for SocketFiles {
    fn drop(&mut self) {
        for path in &self.0 {
            // If it is gone already, so much the better.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Bound {
    pub(super) fn unix(&self) -> &[PathBuf] {
        &self.files.0
    }

    pub(super) fn into_parts(self) -> (Listeners, SocketFiles) {
        (self.listeners, self.files)
    }
}

/// Binds everything that `settings` name; with `tls` where they say so.
pub(super) fn bind(settings: &Settings, tls: Option<&Arc<Tls>>) -> Result<Bound, Failure> {
    let mut bound = Bound::default();
    let (mut secure_resp, mut secure_http) = (Vec::new(), Vec::new());
    for listen in &settings.listen {
        match listen {
            Listen::Tcp(address) => {
                let (listener, address) = tcp(*address, "--listen")?;
                bound.listeners.resp.push(listener);
                bound.resp.push(address);
            }
            Listen::Tls(address) => {
                let (listener, address) = tcp(*address, "--listen")?;
                secure_resp.push(listener);
                bound.resp_tls.push(address);
            }
            Listen::Unix(socket) => {
                bound.listeners.resp_unix.push(unix(socket)?);
                bound.files.0.push(socket.path.clone());
            }
        }
    }
    for listen in &settings.http {
        match listen {
            Listen::Tcp(address) => {
                let (listener, address) = tcp(*address, "--http")?;
                bound.listeners.http.push(listener);
                bound.http.push(address);
            }
            Listen::Tls(address) => {
                let (listener, address) = tcp(*address, "--http")?;
                secure_http.push(listener);
                bound.http_tls.push(address);
            }
            // `--http` takes none.
            Listen::Unix(_) => {}
        }
    }
    bound.listeners.secure =
        tls.map(|tls| SecureListeners { tls: Arc::clone(tls), resp: secure_resp, http: secure_http });
    Ok(bound)
}

fn tcp(address: SocketAddr, flag: &str) -> Result<(TcpListener, SocketAddr), Failure> {
    let bind = || -> io::Result<(TcpListener, SocketAddr)> {
        let listener = TcpListener::bind(address)?;
        rustix::net::listen(&listener, BACKLOG)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bind().map_err(|error| {
        let failure = Failure::new(format!("could not listen on {address}")).because(&error);
        match error.kind() {
            io::ErrorKind::AddrInUse => failure.with_hint(format!(
                "another server has this port, maybe another Pilotlight or a Redis; choose one with `{flag} HOST:PORT`"
            )),
            io::ErrorKind::PermissionDenied => {
                failure.with_hint(format!("ports below 1024 need a privilege; choose one with `{flag} HOST:PORT`"))
            }
            io::ErrorKind::AddrNotAvailable => {
                failure.with_hint(format!("this machine has no such address; choose one with `{flag} HOST:PORT`"))
            }
            _ => failure,
        }
    })
}

/// Binds a Unix socket. A file that an ended server left is replaced; one that somebody listens on is not.
fn unix(socket: &UnixSocket) -> Result<UnixListener, Failure> {
    let path = socket.path.as_path();
    let fail = |error: &io::Error| {
        Failure::new(format!("could not listen on unix:{}", path.display())).because(error)
    };
    match std::fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => {
            return Err(Failure::new(format!("`{}` exists and is no socket", path.display()))
                .with_hint("choose another path with `--listen unix:/PATH`"));
        }
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(|error| fail(&error))?;
            }
            Err(error) => return Err(fail(&error)),
            Ok(_) => {
                return Err(Failure::new(format!("another server listens on unix:{}", path.display()))
                    .with_hint("stop it, or choose another path with `--listen unix:/PATH`"));
            }
        },
        Err(_) => {}
    }
    let group = socket.group.as_deref().map(group_id).transpose()?;
    let listener = bind_privately(path).map_err(|error| fail(&error))?;
    let opened_up = chown(path, None, group)
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(socket.mode)));
    opened_up.map_err(|error| {
        let _ = std::fs::remove_file(path);
        fail(&error).with_hint("only a member of a group can give a socket to it")
    })?;
    rustix::net::listen(&listener, BACKLOG).map_err(|error| fail(&error.into()))?;
    listener.set_nonblocking(true).map_err(|error| fail(&error))?;
    Ok(listener)
}

/// Until its permissions are set, nobody but the owner may connect. The mask is the process', which has one thread yet that
/// makes files.
fn bind_privately(path: &Path) -> io::Result<UnixListener> {
    use rustix::fs::Mode;
    let usual = rustix::process::umask(Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(usual);
    listener
}

/// The number of a group: itself, or what `/etc/group` says.
fn group_id(group: &str) -> Result<u32, Failure> {
    if let Ok(id) = group.parse() {
        return Ok(id);
    }
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let id = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_it = fields.next()? == group;
        fields.nth(1)?.parse().ok().filter(|_| is_it)
    });
    id.ok_or_else(|| {
        Failure::new(format!("there is no group `{group}` in /etc/group"))
            .with_hint("a group from elsewhere can be given by its number: `id -g` tells")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &Path) -> UnixSocket {
        UnixSocket { path: path.to_owned(), mode: 0o600, group: None }
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_socket_has_the_permissions_that_were_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let own_group = rustix::process::getgid().as_raw().to_string();
        for (expected, group) in [(0o600, None), (0o660, Some(own_group))] {
            let listener = unix(&UnixSocket { mode: expected, group, ..at(&path) }).unwrap();
            assert_eq!(mode(&path), expected);
            drop(listener);
        }
        let unknown = UnixSocket { group: Some("no such group".to_owned()), ..at(&path) };
        assert!(unix(&unknown).unwrap_err().to_string().contains("there is no group `no such group`"));
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let first = unix(&at(&path)).unwrap();
        let failure = unix(&at(&path)).unwrap_err().to_string();
        assert!(failure.contains("another server listens on"), "{failure}");
        drop(first);
        unix(&at(&path)).unwrap();
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious");
        std::fs::write(&path, "data").unwrap();
        assert!(unix(&at(&path)).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"data");
    }

    #[test]
    fn socket_files_are_removed_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = unix(&at(&path)).unwrap();
        drop((listener, SocketFiles(vec![path.clone()])));
        assert!(!path.exists());
    }
}
