//! `pilotlight serve`: resolve, bind, open, announce, run, sum up.

mod announce;
mod certificates;
pub(crate) mod logging;
mod origin;
pub(crate) mod signals;
mod sockets;
mod trace;

use std::path::PathBuf;
use std::sync::Arc;

use pilotlight_cache::trust::Signers;
use pilotlight_cache::{Blocking, Cache, FailurePolicy, SystemClock, TraceSink};
use pilotlight_server::access::{Access, Audit};
use pilotlight_server::{Server, ThreadPool};

use self::certificates::Certificates;
use self::origin::OriginThread;
use crate::cli::Serve;
use crate::environment;
use crate::failure::Failure;
use crate::open::{Opened, Purpose, Store, open};
use crate::output::{self, Answer};
use crate::settings::{self, Flags, Settings};

pub(crate) fn run(arguments: &Serve) -> Result<Answer, Failure> {
    let file = configuration_file(arguments);
    let mut resolved = settings::resolve(&arguments.flags, environment::variable, file.as_deref())?;
    let data_dir = environment::data_directory().map(|path| path.display().to_string());
    resolved.or_default(settings::table::DATA_DIR, data_dir);
    if arguments.validate_config {
        // What is in effect is shown also when it is wrong: that is when one looks.
        output::data(settings::effective(&resolved).as_bytes())?;
        Settings::parse(&resolved)?;
        return Ok(Answer::Yes);
    }
    let settings = Settings::parse(&resolved)?;
    logging::start(&settings.log_level, settings.log_format)?;
    raise_file_limit();
    for warning in settings.warnings() {
        tracing::warn!("{warning}");
    }
    let certificates = settings.tls.as_ref().map(Certificates::open).transpose()?.map(Arc::new);
    let tls = certificates.as_ref().map(|certificates| certificates.tls());
    // Ports first: they fail fast, and a second server on one machine fails over them before it touches the store.
    let bound = sockets::bind(&settings, tls)?;
    let blocking = ThreadPool::for_this_machine()
        .map_err(|error| Failure::new("could not start the threads for the disk").because(&error))?;
    let blocking: Arc<dyn Blocking> = Arc::new(blocking);
    let signers = signers(&settings)?;
    let origin = settings.origin.as_ref().map(OriginThread::start).transpose()?;
    let tier = origin.as_ref().zip(settings.origin.as_ref());
    let tier = tier.map(|(origin, how)| origin.tier(&settings, how, Arc::clone(&blocking)));
    let opened = open(Store {
        dir: settings.data_dir.clone(),
        bytes_max: settings.bytes_max,
        quotas: settings.quotas.clone(),
        memory_bytes: settings.memory_bytes,
        durability: settings.durability,
        blocking: Arc::clone(&blocking),
        signers: signers.clone(),
        origin: tier,
        purpose: Purpose::Use,
        trace: trace(&settings)?,
    })?;
    let mut server = server(opened, blocking, &settings);
    server.http.clone_from(&bound.http);
    server.https.clone_from(&bound.http_tls);
    server.tls = tls.cloned();
    server.access = access(&settings)?;
    let shutdown = signals::listen(hang_up(&settings, &server.access, signers), certificates)?;
    let server = Arc::new(server);
    announce::started(&settings, &bound, &server);
    if let Some(path) = &settings.port_file {
        announce::write_port_file(path, &bound)?;
    }
    let (listeners, socket_files) = bound.into_parts();
    let served = pilotlight_server::run(Arc::clone(&server), listeners, shutdown);
    // Whatever happened, nobody listens there any more.
    drop(socket_files);
    if let Some((origin, tiers)) = origin.as_ref().zip(server.tiers.as_ref()) {
        origin.drain(tiers, settings.server.drain_timeout);
    }
    served.map_err(|error| Failure::new("the server stopped").because(&error))?;
    announce::ended(&server);
    Ok(Answer::Yes)
}

/// Whether `serve` could go by the configuration that it finds without being told more.
pub(crate) fn check_configuration() -> Result<(), Failure> {
    let file = environment::variable("PILOTLIGHT_CONFIG")
        .map(PathBuf::from)
        .or_else(|| environment::configuration_file().filter(|path| path.exists()));
    let mut resolved = settings::resolve(&Flags::default(), environment::variable, file.as_deref())?;
    let data_dir = environment::data_directory().map(|path| path.display().to_string());
    resolved.or_default(settings::table::DATA_DIR, data_dir);
    Settings::parse(&resolved).map(|_| ())
}

/// The file that was named, or the usual one where it exists.
fn configuration_file(arguments: &Serve) -> Option<PathBuf> {
    let named = arguments.config.clone();
    named
        .or_else(|| environment::variable("PILOTLIGHT_CONFIG").map(PathBuf::from))
        .or_else(|| environment::configuration_file().filter(|path| path.exists()))
}

fn signers(settings: &Settings) -> Result<Option<Arc<Signers>>, Failure> {
    let Some(path) = &settings.signers else { return Ok(None) };
    let signers = Signers::read(path).map_err(|error| {
        Failure::new("could not find out whose entries to take").because(&error).with_hint(
            "`pilotlight keys trust PUBLIC_KEY --name NAME --file FILE` writes such a file; see docs/signing.md",
        )
    })?;
    if signers.count() == 0 {
        tracing::warn!("no signer is trusted: no entry of a compiler will be taken");
    }
    Ok(Some(Arc::new(signers)))
}

fn trace(settings: &Settings) -> Result<Option<Arc<dyn TraceSink>>, Failure> {
    let Some(path) = &settings.trace_file else { return Ok(None) };
    Ok(Some(Arc::new(trace::TraceFile::create(path)?)))
}

/// Who may do what, and where that is noted.
fn access(settings: &Settings) -> Result<Arc<Access>, Failure> {
    let access = settings.access()?;
    if settings.keeps_strangers_out {
        access.keep_strangers_out();
    }
    let Some(path) = &settings.audit_log else { return Ok(Arc::new(access)) };
    let audit = Audit::open(path).map_err(|error| {
        Failure::new(format!("could not open the audit log `{}`", path.display())).because(&error)
    })?;
    Ok(Arc::new(access.with_audit(audit)))
}

/// What `SIGHUP` does. Where there is nothing to be read or opened anew it ends the server, as it does any program whose terminal
/// is gone.
fn hang_up(
    settings: &Settings,
    access: &Arc<Access>,
    signers: Option<Arc<Signers>>,
) -> Option<signals::HangUp> {
    let is_of_use = settings.users_file.is_some() || settings.audit_log.is_some() || signers.is_some();
    let access = Arc::clone(access);
    let act = move || {
        access.hang_up();
        match signers.as_ref().map(|signers| (signers.reload(), signers.count())) {
            None => {}
            Some((Ok(()), count)) => tracing::info!(count, "the signers were read again"),
            Some((Err(error), _)) => tracing::error!(%error, "the signers stay as they were"),
        }
    };
    is_of_use.then(|| Box::new(act) as signals::HangUp)
}

fn server(opened: Opened, blocking: Arc<dyn Blocking>, settings: &Settings) -> Server {
    let policy = if settings.server.is_strict { FailurePolicy::Raise } else { FailurePolicy::Absorb };
    let cache = Cache::new(opened.backend)
        .with_policy(policy)
        .with_blocking(blocking)
        .with_maintenance(opened.maintenance.clone());
    let mut server = Server::new(Arc::new(cache), settings.server.clone(), Arc::new(SystemClock));
    server.maintenance = opened.maintenance;
    server.tiers = opened.tiers;
    server
}

/// Stock PyTorch opens a connection per compiled graph, and the usual soft limit is 1024 files.
pub(crate) fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "could not raise the limit of open files");
    }
}
