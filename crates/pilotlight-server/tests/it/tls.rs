//! TLS: who gets in, who does not, and that neither holds up the others.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use pilotlight_cache::{Cache, MemoryBackend, SystemClock};
use pilotlight_server::access::Access;
use pilotlight_server::{
    ClientCertificates, Config, Listeners, SecureListeners, Server, Tls, TlsError, TlsFiles, run,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio::sync::oneshot;

use crate::client::{Client, array, config};
use crate::users::UsersFile;
use crate::weight;

const PATIENCE: Duration = Duration::from_secs(30);

/// An authority, as an administrator has one.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, PEM.
struct Pair {
    certificate: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    fn server(&self) -> Pair {
        self.issue(|_| {})
    }

    fn client(&self, name: &str) -> Pair {
        self.issue(|params| {
            params.distinguished_name.push(DnType::CommonName, name);
            params.distinguished_name.push(DnType::OrganizationName, "Example Org");
            params.subject_alt_names =
                vec![SanType::URI(format!("spiffe://example/{name}").try_into().unwrap())];
        })
    }
}

impl Pair {
    fn files<'a>(&'a self, clients: ClientCertificates<'a>) -> TlsFiles<'a> {
        TlsFiles { certificates: self.certificate.as_bytes(), key: self.key.as_bytes(), clients }
    }
}

/// A server with a plain port and one with TLS, for RESP and for HTTP each.
struct Running {
    server: Arc<Server>,
    tls: Arc<Tls>,
    plain: SocketAddr,
    resp: SocketAddr,
    http: SocketAddr,
    shutdown: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Running {
    fn start(tls: Tls, config: Config) -> Self {
        let access = Access::of_password(config.password.as_deref());
        Self::for_users(tls, access, config)
    }

    fn for_users(tls: Tls, access: Access, config: Config) -> Self {
        let cache = Arc::new(Cache::new(Arc::new(MemoryBackend::new(1 << 30))));
        let tls = Arc::new(tls);
        let mut server = Server::new(cache, config, Arc::new(SystemClock));
        server.tls = Some(Arc::clone(&tls));
        server.access = Arc::new(access);
        let server = Arc::new(server);
        let [plain, resp, http] = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [at_plain, at_resp, at_http] =
            [&plain, &resp, &http].map(|listener| listener.local_addr().unwrap());
        let (shutdown, is_over) = oneshot::channel();
        let thread = {
            let server = Arc::clone(&server);
            let secure = SecureListeners { tls: Arc::clone(&tls), resp: vec![resp], http: vec![http] };
            let listeners = Listeners { resp: vec![plain], secure: Some(secure), ..Listeners::default() };
            std::thread::spawn(move || {
                run(server, listeners, async {
                    let _ = is_over.await;
                })
            })
        };
        Self {
            server,
            tls,
            plain: at_plain,
            resp: at_resp,
            http: at_http,
            shutdown: Some(shutdown),
            thread: Some(thread),
        }
    }

    fn failures(&self) -> u64 {
        self.server.stats.tls_failures_total.load(Relaxed)
    }

    fn wait_for_failures(&self, count: u64) {
        while self.failures() < count {
            std::thread::yield_now();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.shutdown.take());
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

fn connect_tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A client's TLS over `stream`: believes `authority`, and shows `own`.
fn secure(
    stream: TcpStream,
    authority: &Authority,
    own: Option<&Pair>,
    change: impl FnOnce(&mut ClientConfig),
) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let chain =
                CertificateDer::pem_slice_iter(pair.certificate.as_bytes()).map(Result::unwrap).collect();
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    change(&mut config);
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

type Secure = Client<StreamOwned<ClientConnection, TcpStream>>;

fn client(address: SocketAddr, authority: &Authority, own: Option<&Pair>) -> Secure {
    Client::new(secure(connect_tcp(address), authority, own, |_| {}).unwrap())
}

fn simple() -> (Authority, Running) {
    let authority = Authority::new("authority");
    let tls = Tls::new(&authority.server().files(ClientCertificates::Ignored)).unwrap();
    (authority, Running::start(tls, config()))
}

#[test]
fn entries_of_every_size_travel_whole_over_both_versions_of_tls() {
    let (authority, running) = simple();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let session =
            ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
        let mut client = Client::new(StreamOwned::new(session, connect_tcp(running.resp)));
        for len in [0_usize, 1, 1000, 16_383, 16_384, 16_385, 65_536, 300_000, 5 << 20] {
            let value: Vec<u8> = (0..len).map(|at| (at * 7 % 251) as u8).collect();
            assert_eq!(client.call(&[b"SET".as_slice(), b"k", &value]), b"+OK\r\n", "{len}");
            let mut expected = format!("${len}\r\n").into_bytes();
            expected.extend(&value);
            expected.extend(b"\r\n");
            assert_eq!(client.call(&["GET", "k"]), expected, "{len}");
        }
        // A pipeline whose replies are far more than a socket's buffers, sent before any is read.
        let batch: Vec<u8> = (0..8).flat_map(|_| array(&["GET", "k"])).collect();
        client.send(&batch);
        for _ in 0..8 {
            assert_eq!(client.reply().len(), (5 << 20) + "$5242880\r\n\r\n".len());
        }
    }
}

#[test]
fn plain_and_tls_stand_side_by_side_and_a_mix_up_ends_at_once() {
    let (authority, running) = simple();
    assert_eq!(Client::new(connect_tcp(running.plain)).ask("PING"), "+PONG\r\n");
    assert_eq!(client(running.resp, &authority, None).ask("PING"), "+PONG\r\n");
    // Plain bytes, and noise, on the port with TLS: an alert at most, and the end.
    for bytes in ["PING\r\n", "*1\r\n$4\r\nPING\r\n", "GET / HTTP/1.1\r\n\r\n", "\0\0\0\0\0\0\0\0"] {
        for address in [running.resp, running.http] {
            let before = running.failures();
            let mut stream = connect_tcp(address);
            stream.write_all(bytes.as_bytes()).unwrap();
            let mut answer = Vec::new();
            // A reset is an end as well.
            let _ = stream.read_to_end(&mut answer);
            assert!(answer.len() <= 7, "{answer:?}");
            running.wait_for_failures(before + 1);
        }
    }
    // TLS on the plain port.
    let error = secure(connect_tcp(running.plain), &authority, None, |_| {}).unwrap_err();
    assert!(!matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
}

#[test]
fn half_handshakes_hold_up_nobody() {
    let (authority, running) = simple();
    let half = |_| {
        let mut stream = connect_tcp(running.resp);
        // The beginning of a record that is said to be long, and then nothing.
        stream.write_all(&[0x16, 3, 1, 2, 0, 1]).unwrap();
        stream
    };
    let held: Vec<TcpStream> = (0..100).map(half).collect();
    let started = Instant::now();
    for _ in 0..5 {
        assert_eq!(client(running.resp, &authority, None).ask("PING"), "+PONG\r\n");
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    drop(held);
    running.wait_for_failures(100);
    assert_eq!(running.server.stats.connections_open.load(Relaxed), 0);
}

#[test]
fn a_handshake_that_is_not_through_in_time_is_cut_off() {
    let authority = Authority::new("authority");
    let tls = Tls::new(&authority.server().files(ClientCertificates::Ignored)).unwrap();
    let running = Running::start(tls, Config { client_grace: Duration::from_millis(50), ..config() });
    for address in [running.resp, running.http] {
        let mut stream = connect_tcp(address);
        stream.write_all(&[0x16, 3, 1, 2, 0, 1]).unwrap();
        assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 0);
    }
    running.wait_for_failures(2);
}

#[test]
fn a_client_is_who_its_certificate_says_and_needs_no_password() {
    let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
    let (pem, pair) = (clients.pem(), authority.server());
    let required = ClientCertificates::Required(pem.as_bytes());
    let tls = Tls::new(&pair.files(required)).unwrap();
    let running = Running::start(tls, Config { password: Some("secret".to_owned()), ..config() });
    let own = clients.client("trainer");
    let mut named = client(running.resp, &authority, Some(&own));
    assert_eq!(named.ask("SET k v"), "+OK\r\n");
    let list = named.ask("CLIENT LIST");
    assert!(list.contains(" cert=O=Example\\20Org,CN=trainer\n"), "{list}");
    // A password still counts, and a reset takes nothing away.
    assert_eq!(named.ask("RESET"), "+RESET\r\n");
    assert_eq!(named.ask("GET k"), "$1\r\nv\r\n");
    // On the plain port it is the password alone.
    let mut plain = Client::new(connect_tcp(running.plain));
    assert!(plain.ask("GET k").starts_with("-NOAUTH"));
    assert!(!plain.ask("HELLO 3 AUTH default secret").contains("cert="));
    assert_eq!(plain.ask("GET k"), "$1\r\nv\r\n");
}

#[test]
fn a_certificate_is_the_user_that_names_it_and_nobody_else() {
    let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
    let (pem, pair) = (clients.pem(), authority.server());
    let tls = Tls::new(&pair.files(ClientCertificates::Required(pem.as_bytes()))).unwrap();
    let users = UsersFile::new(
        "[users.trainer]\ncertificate = \"O=Example Org,CN=trainer\"\nhome = \"ci\"\ngrants = [\"rw ci\"]\n\
         [users.reader]\ncertificate = \"reader\"\nhome = \"ci\"\ngrants = [\"r ci\"]\n",
        &[],
    );
    let access = Access::of_file(&users.path(), None).unwrap();
    let running = Running::for_users(tls, access, config());
    let connect = |own: &Pair| client(running.resp, &authority, Some(own));
    let mut trainer = connect(&clients.client("trainer"));
    assert_eq!(trainer.ask("SET k v"), "+OK\r\n");
    assert_eq!(trainer.ask("RESET"), "+RESET\r\n");
    assert_eq!(trainer.ask("GET k"), "$1\r\nv\r\n", "it is who it was");
    let mut reader = connect(&clients.client("reader"));
    assert_eq!(reader.ask("GET k"), "$1\r\nv\r\n");
    assert!(reader.ask("SET k w").starts_with("-NOPERM"));
    // A common name that is written like another's whole name is not that.
    let posing = clients.issue(|params| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "O=Example Org,CN=trainer");
    });
    for stranger in [&posing, &clients.client("somebody")] {
        assert!(connect(stranger).ask("GET k").starts_with("-NOAUTH"));
    }
    // Who is taken out of the file is nobody from then on.
    users.write("[users.reader]\ncertificate = \"reader\"\nhome = \"ci\"\ngrants = [\"r ci\"]\n");
    running.server.access.reload().unwrap();
    assert!(trainer.ask("GET k").starts_with("-NOAUTH"));
    assert_eq!(reader.ask("GET k"), "$1\r\nv\r\n");
}

#[test]
fn whoever_cannot_prove_who_it_is_stays_outside_where_that_is_required() {
    let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
    let (pem, pair) = (clients.pem(), authority.server());
    let tls = Tls::new(&pair.files(ClientCertificates::Required(pem.as_bytes()))).unwrap();
    let running = Running::start(tls, config());
    let expired = clients.issue(|params| {
        params.not_before = (SystemTime::now() - Duration::from_secs(3 * 86_400)).into();
        params.not_after = (SystemTime::now() - Duration::from_secs(86_400)).into();
    });
    let foreign = Authority::new("clients").client("trainer");
    for (number, own) in [None, Some(&expired), Some(&foreign)].into_iter().enumerate() {
        // TLS 1.3 tells a client whom it refused with what it would have read first.
        let outcome = secure(connect_tcp(running.resp), &authority, own, |_| {}).and_then(|mut stream| {
            stream.write_all(b"PING\r\n")?;
            stream.flush()?;
            stream.read_exact(&mut [0])
        });
        assert!(outcome.is_err());
        running.wait_for_failures(number as u64 + 1);
    }
    assert_eq!(running.server.stats.commands_total.load(Relaxed), 0);
    assert_eq!(client(running.resp, &authority, Some(&clients.client("x"))).ask("PING"), "+PONG\r\n");
}

#[test]
fn where_certificates_are_optional_those_without_need_the_password() {
    let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
    let (pem, pair) = (clients.pem(), authority.server());
    let tls = Tls::new(&pair.files(ClientCertificates::Optional(pem.as_bytes()))).unwrap();
    let running = Running::start(tls, Config { password: Some("secret".to_owned()), ..config() });
    let mut nobody = client(running.resp, &authority, None);
    assert!(nobody.ask("PING").starts_with("-NOAUTH"));
    assert_eq!(nobody.ask("AUTH secret"), "+OK\r\n");
    assert_eq!(nobody.ask("PING"), "+PONG\r\n");
    assert_eq!(client(running.resp, &authority, Some(&clients.client("x"))).ask("PING"), "+PONG\r\n");
    // One that is shown must be right.
    let foreign = Authority::new("clients").client("trainer");
    let outcome = secure(connect_tcp(running.resp), &authority, Some(&foreign), |_| {})
        .and_then(|mut stream| stream.read_exact(&mut [0]));
    assert!(outcome.is_err());
}

#[test]
fn http_agrees_on_its_version_inside_the_handshake_and_knows_the_client() {
    let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
    let (pem, pair) = (clients.pem(), authority.server());
    let tls = Tls::new(&pair.files(ClientCertificates::Optional(pem.as_bytes()))).unwrap();
    let running = Running::start(tls, Config { password: Some("secret".to_owned()), ..config() });
    let ask = |own: Option<&Pair>, header: &str| {
        let mut stream = secure(connect_tcp(running.http), &authority, own, |config| {
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
        })
        .unwrap();
        assert_eq!(stream.conn.alpn_protocol(), Some(b"http/1.1".as_slice()));
        let request = format!("GET /api/stats HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{header}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(ask(None, ""), "401");
    assert_eq!(ask(None, "authorization: Bearer secret\r\n"), "200");
    assert_eq!(ask(Some(&clients.client("trainer")), ""), "200");
    let both = |config: &mut ClientConfig| config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut stream = secure(connect_tcp(running.http), &authority, None, both).unwrap();
    assert_eq!(stream.conn.alpn_protocol(), Some(b"h2".as_slice()));
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).unwrap();
    assert_eq!(frame[3], 4, "the server's settings come first: {frame:?}");
}

#[test]
fn new_certificates_are_for_new_connections_and_bad_ones_change_nothing() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let tls = Tls::new(&old.server().files(ClientCertificates::Ignored)).unwrap();
    let running = Running::start(tls, config());
    let mut standing = client(running.resp, &old, None);
    let (one, other) = (new.server(), new.server());
    let mixed = Pair { certificate: one.certificate.clone(), key: other.key.clone() };
    let refused = running.tls.replace(&mixed.files(ClientCertificates::Ignored)).unwrap_err();
    assert!(matches!(refused, TlsError::KeyMismatch), "{refused}");
    assert_eq!(client(running.resp, &old, None).ask("PING"), "+PONG\r\n");
    // Under load: whoever connects meanwhile gets one or the other, and is served.
    std::thread::scope(|scope| {
        let connecting: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let is_served = [&old, &new].into_iter().any(|authority| {
                            let stream = secure(connect_tcp(running.resp), authority, None, |_| {});
                            stream.is_ok_and(|stream| Client::new(stream).ask("PING") == "+PONG\r\n")
                        });
                        assert!(is_served);
                    }
                })
            })
            .collect();
        // In the end it is the new one, so that who tried the old one first finds the new one next.
        for pair in [old.server(), new.server()] {
            running.tls.replace(&pair.files(ClientCertificates::Ignored)).unwrap();
        }
        connecting.into_iter().for_each(|thread| thread.join().unwrap());
    });
    assert_eq!(standing.ask("PING"), "+PONG\r\n");
    assert!(secure(connect_tcp(running.resp), &old, None, |_| {}).is_err());
    assert_eq!(client(running.resp, &new, None).ask("PING"), "+PONG\r\n");
}

#[test]
fn what_is_wrong_with_the_files_is_named_with_a_hint() {
    let authority = Authority::new("authority");
    let pair = authority.server();
    let day = Duration::from_secs(86_400);
    let dated = |from: SystemTime, to: SystemTime| {
        authority.issue(|params| (params.not_before, params.not_after) = (from.into(), to.into()))
    };
    let now = SystemTime::now();
    let mixed = Pair { certificate: pair.certificate.clone(), key: authority.server().key };
    let swapped = Pair { certificate: pair.key.clone(), key: pair.certificate.clone() };
    let encrypted = Pair {
        certificate: pair.certificate.clone(),
        key: "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n".to_owned(),
    };
    let keyless = Pair { certificate: pair.certificate.clone(), key: pair.certificate.clone() };
    let damaged = Pair {
        certificate: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
        key: pair.key.clone(),
    };
    for (files, expected) in [
        (&mixed, "does not belong"),
        (&swapped, "there is no certificate in it"),
        (&encrypted, "is encrypted"),
        (&keyless, "there is no private key in it"),
        (&damaged, "damaged or no X.509"),
        (&dated(now - 9 * day, now - 2 * day - day / 2), "expired 2 days ago"),
        (&dated(now + 3 * day + day / 2, now + 9 * day), "not valid yet, it will be 3 days from now"),
    ] {
        let error = Tls::new(&files.files(ClientCertificates::Ignored)).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.hint().is_some(), "{error}");
        assert!(!format!("{error:?} {error}").contains("PRIVATE KEY-----\nM"));
    }
    let no_authority = pair.files(ClientCertificates::Required(b"nothing"));
    assert!(Tls::new(&no_authority).unwrap_err().to_string().contains("there is no authority in it"));
}

#[test]
fn an_idle_tls_connection_costs_under_32_kib_at_each_end() {
    weight::alone("tls::weigh_idle_tls_connections");
}

#[test]
#[ignore = "run by an_idle_tls_connection_costs_under_32_kib_at_each_end, alone in its process"]
fn weigh_idle_tls_connections() {
    let (authority, running) = simple();
    let each = weight::of_idle(&running.server, 300, || client(running.resp, &authority, None));
    println!("{each} bytes each, both ends");
    assert!(each < 64 * 1024, "{each} bytes each");
}
