//! Binds the sockets, with errors a person can act on.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use pilotlight_server::Listeners;

use crate::failure::Failure;
use crate::settings::{Listen, Settings};

/// Connections that may wait to be accepted: a job's ranks connect all at once, and the standard library's 128 makes
/// some of them wait a second for their SYN to be sent again. The kernel caps it (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// Bound sockets and where they are.
#[derive(Debug, Default)]
pub(super) struct Bound {
    listeners: Listeners,
    pub(super) resp: Vec<SocketAddr>,
    pub(super) http: Vec<SocketAddr>,
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

/// Binds everything that `settings` name.
pub(super) fn bind(settings: &Settings) -> Result<Bound, Failure> {
    let mut bound = Bound::default();
    for listen in &settings.listen {
        match listen {
            Listen::Tcp(address) => {
                let (listener, address) = tcp(*address, "--listen")?;
                bound.listeners.resp.push(listener);
                bound.resp.push(address);
            }
            Listen::Unix(path) => {
                bound.listeners.resp_unix.push(unix(path)?);
                bound.files.0.push(path.clone());
            }
        }
    }
    for address in &settings.http.0 {
        let (listener, address) = tcp(*address, "--http")?;
        bound.listeners.http.push(listener);
        bound.http.push(address);
    }
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
fn unix(path: &Path) -> Result<UnixListener, Failure> {
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
    let listener = UnixListener::bind(path).map_err(|error| fail(&error))?;
    rustix::net::listen(&listener, BACKLOG).map_err(|error| fail(&error.into()))?;
    listener.set_nonblocking(true).map_err(|error| fail(&error))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let first = unix(&path).unwrap();
        let failure = unix(&path).unwrap_err().to_string();
        assert!(failure.contains("another server listens on"), "{failure}");
        drop(first);
        unix(&path).unwrap();
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious");
        std::fs::write(&path, "data").unwrap();
        assert!(unix(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"data");
    }

    #[test]
    fn socket_files_are_removed_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = unix(&path).unwrap();
        drop((listener, SocketFiles(vec![path.clone()])));
        assert!(!path.exists());
    }
}
