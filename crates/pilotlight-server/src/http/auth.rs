//! Who asks: what an `Authorization` header proves.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use axum::http::{HeaderMap, StatusCode, header};

use super::problem::Refusal;
use crate::Server;
use crate::access::{DEFAULT, Deed, Event, Login, Turn};
use crate::tls::PeerIdentity;

/// The other end of a connection.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: Option<IpAddr>,
    /// Who its certificate says that it is.
    pub(super) identity: Option<Arc<PeerIdentity>>,
}

/// What a header offers.
#[derive(Debug, PartialEq, Eq)]
struct Offered {
    /// Empty with `Bearer`.
    user: String,
    secret: Vec<u8>,
}

/// The user that the `Authorization` header proves: `Bearer SECRET`, since a secret is one user's alone, or `Basic` with the user's
/// name, or without one. Where others failed before from the same address, it waits first.
pub(super) async fn log_in(server: &Server, headers: &HeaderMap, peer: &Peer) -> Result<Login, Refusal> {
    let users = server.access.users();
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return users.stranger(peer.identity.as_deref()).ok_or_else(|| {
            Refusal::new(StatusCode::UNAUTHORIZED, "a password is needed")
                .with_hint("send `Authorization: Bearer PASSWORD`, or the password with any user name")
        });
    };
    // Who stands for everybody needs no secret, and one that is sent all the same is no mistake.
    if let Some(login) = users.anybody().filter(|_| users.iter().count() == 1) {
        return Ok(login);
    }
    let offered = offered(value.as_bytes());
    let secret = offered.as_ref().map_or(&b""[..], |offered| &offered.secret);
    let attempts = &server.access.attempts;
    let turn = attempts.turn(peer.address, secret, Instant::now());
    if turn != Turn::Now {
        server.stats.logins_delayed_total.fetch_add(1, Relaxed);
    }
    if let Turn::After(wait) = turn {
        tokio::time::sleep(wait).await;
    }
    let login = users.by_secret(secret).filter(|login| {
        let claimed = offered.as_ref().map_or("", |offered| &offered.user);
        // Programs that take no password without a name send some name: it may be that of nobody.
        let is_nobody = users.by_name(claimed).is_none() && &**login.user.name() == DEFAULT;
        turn != Turn::Never && (claimed.is_empty() || claimed == &**login.user.name() || is_nobody)
    });
    if let Some(login) = login {
        return Ok(login);
    }
    attempts.failed(peer.address, Instant::now());
    server.stats.logins_failed_total.fetch_add(1, Relaxed);
    note_failure(server, offered, peer);
    Err(Refusal::new(StatusCode::UNAUTHORIZED, "wrong password"))
}

/// Notes the failure alone: every request logs in, and those that change something are noted themselves.
fn note_failure(server: &Server, offered: Option<Offered>, peer: &Peer) {
    if server.access.audit.is_on() {
        // What was claimed may be anything, a secret in the wrong place too.
        let users = server.access.users();
        let known =
            offered.and_then(|offered| users.by_name(&offered.user).map(|user| Arc::clone(user.name())));
        server.access.audit.note(Event {
            time_ms: server.clock.now_ms(),
            user: known.unwrap_or_else(|| "?".into()),
            peer: text(peer).into(),
            action: "login".into(),
            namespace: None,
            key: None,
            outcome: Deed::Denied,
        });
    }
}

/// The peer as it is noted.
pub(super) fn text(peer: &Peer) -> String {
    peer.address.map_or_else(|| "?".to_owned(), |address| address.to_string())
}

fn offered(value: &[u8]) -> Option<Offered> {
    let space = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = value.split_at(space);
    let rest = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(Offered { user: String::new(), secret: rest.to_vec() });
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let pair = base64_simd::STANDARD.decode_to_vec(rest).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    let user = String::from_utf8_lossy(pair.get(..colon)?).into_owned();
    Some(Offered { user, secret: pair.get(colon + 1..)?.to_vec() })
}

#[cfg(test)]
mod tests {
    use pilotlight_cache::{Cache, MemoryBackend, SystemClock};

    use super::*;
    use crate::Config;
    use crate::access::{Access, Secret};

    fn server(access: Option<Access>) -> Server {
        let config = Config { password: Some("s3:cret".to_owned()), ..Config::default() };
        let mut server =
            Server::new(Arc::new(Cache::new(Arc::new(MemoryBackend::new(1)))), config, Arc::new(SystemClock));
        if let Some(access) = access {
            server.access = Arc::new(access);
        }
        server
    }

    fn ask(server: &Server, value: &str) -> Result<String, StatusCode> {
        let mut headers = HeaderMap::new();
        if !value.is_empty() {
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        }
        // Each from an address of its own: failures are not what is tested here.
        let address = value.bytes().fold(0, |sum: u32, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let peer = Peer { address: Some(IpAddr::V4(address.into())), identity: None };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let login = runtime.block_on(log_in(server, &headers, &peer));
        login.map(|login| login.user.name().to_string()).map_err(|refusal| refusal.status)
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", base64_simd::STANDARD.encode_to_string(pair))
    }

    #[test]
    fn bearer_and_basic_carry_the_password() {
        let server = server(None);
        for right in ["Bearer s3:cret", "bearer  s3:cret", &basic("anyone:s3:cret"), &basic(":s3:cret")] {
            assert_eq!(ask(&server, right), Ok("default".to_owned()), "{right}");
        }
        for wrong in
            ["Bearer s3:creT", "Bearer", "Bearer s3", "Digest s3:cret", "Basic !!!", &basic("s3cret"), ""]
        {
            assert_eq!(ask(&server, wrong), Err(StatusCode::UNAUTHORIZED), "{wrong}");
        }
    }

    #[test]
    fn a_secret_says_whose_it_is_and_a_name_must_fit_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users.toml");
        let [ci, dev] = [Secret::generate().unwrap(), Secret::generate().unwrap()];
        let users =
            format!("[users.ci]\nsecret = \"{}\"\n[users.dev]\nsecret = \"{}\"\n", ci.hash(), dev.hash());
        std::fs::write(&path, users).unwrap();
        let server = server(Some(Access::of_file(&path, Some("s3:cret")).unwrap()));
        for (value, expected) in [
            (format!("Bearer {}", ci.as_str()), Some("ci")),
            (basic(&format!("ci:{}", ci.as_str())), Some("ci")),
            (basic(&format!(":{}", dev.as_str())), Some("dev")),
            (basic(&format!("dev:{}", ci.as_str())), None),
            (basic(&format!("nobody:{}", ci.as_str())), None),
            (basic("ci:s3:cret"), None),
            (basic("anyone:s3:cret"), Some("default")),
            (String::new(), None),
        ] {
            assert_eq!(ask(&server, &value).ok().as_deref(), expected, "{value}");
        }
    }
}
