//! Where the client commands find entries: at a server, or in the directory of a stopped one.

mod checkup;
mod directory;
mod endpoint;
mod server;
mod tls;

use std::time::Duration;

use pilotlight_cache::portable::{Frame, Mark};
use pilotlight_cache::{Collect, Conflict, Cursor, Key, Namespace};
use pilotlight_server::Selection;
use pilotlight_server::report::{
    CheckedReport, CollectedReport, EntriesReport, FindingReport, ImportedReport, MendedReport, PurgedReport,
    SetAsideReport, StatsReport, StoreReport,
};

use crate::cli::Target;
use crate::failure::Failure;
use crate::open::{self, Purpose};

/// Entries exported at a time: as many are exported twice, at most, by one that is interrupted and goes on.
const EXPORT_PAGE: usize = 256;

/// What the client commands need. Blocking: a command does one thing at a time.
pub(crate) trait Access {
    fn stats(&self) -> Result<StatsReport, Failure>;
    fn entries(&self, namespace: &Namespace, cursor: u64, limit: usize) -> Result<EntriesReport, Failure>;
    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, Failure>;
    fn put(&self, key: &Key, artifact: Vec<u8>, ttl: Option<Duration>) -> Result<(), Failure>;
    /// Whether there was one.
    fn delete(&self, key: &Key) -> Result<bool, Failure>;
    /// Whether there is one.
    fn pin(&self, key: &Key) -> Result<bool, Failure>;
    /// Whether there is one.
    fn unpin(&self, key: &Key) -> Result<bool, Failure>;
    /// How many there were.
    fn clear(&self, namespace: &Namespace) -> Result<u64, Failure>;
    fn verify(&self, progress: &mut dyn FnMut(&CheckedReport)) -> Result<CheckedReport, Failure>;
    fn about(&self) -> Result<StoreReport, Failure>;
    /// Gives the frames of up to about [`EXPORT_PAGE`] entries, and says where the next ones begin.
    fn export_page(
        &self,
        namespace: &Namespace,
        cursor: Cursor,
        selection: &Selection,
        each: &mut dyn FnMut(&Frame) -> Result<(), Failure>,
    ) -> Result<Mark, Failure>;
    /// Takes in the entries of these frames; the last batch of an import is synced.
    fn import(&self, batch: &[Frame], conflict: Conflict, is_last: bool) -> Result<ImportedReport, Failure>;
    fn quarantine(&self) -> Result<Vec<SetAsideReport>, Failure>;
    /// What was set aside before then, or all of it.
    fn purge_quarantine(&self, before_ms: Option<u64>) -> Result<PurgedReport, Failure>;
}

/// What `target` names.
pub(crate) fn open(target: &Target) -> Result<Box<dyn Access>, Failure> {
    open_for(target, Purpose::Use)
}

/// What `target` names, for some other purpose than to use it.
pub(crate) fn open_for(target: &Target, purpose: Purpose) -> Result<Box<dyn Access>, Failure> {
    Ok(match &target.data_dir {
        Some(directory) => Box::new(directory::Directory::open(directory, purpose)?),
        None => Box::new(server(target)?),
    })
}

/// The namespace that `target` stands for where none is said: what the user calls the database in a URL.
pub(crate) fn namespace(target: &Target) -> Result<Namespace, Failure> {
    if target.data_dir.is_some() {
        return Ok(Namespace::default());
    }
    let number = endpoint::named(target)?.map_or(0, |named| named.database());
    let endpoint = endpoint::of(target)?;
    // Who needs no secret has no name either, and so no home.
    let named = match endpoint.password {
        Some(_) => server::Server::new(&endpoint.url, endpoint.password)?.namespace(number)?,
        None => None,
    };
    Ok(named.unwrap_or_else(|| Namespace::database(number)))
}

/// Collects what nobody needs where `target` says.
pub(crate) fn collect(
    target: &Target,
    what: Collect,
    progress: &mut dyn FnMut(&CollectedReport),
) -> Result<CollectedReport, Failure> {
    match &target.data_dir {
        Some(directory) => directory::collect(directory, what, progress),
        None => server(target)?.collect(what, progress),
    }
}

/// Says what is wrong where `target` says.
pub(crate) fn examine(target: &Target) -> Result<Vec<FindingReport>, Failure> {
    match &target.data_dir {
        Some(directory) => checkup::examine(directory),
        None => server(target)?.examine(),
    }
}

/// Mends what can be mended where `target` says: a running server checks every entry and collects what nobody needs, a stopped
/// directory is mended whole.
pub(crate) fn mend(
    target: &Target,
    progress: &mut dyn FnMut(&CheckedReport),
) -> Result<MendedReport, Failure> {
    let Some(directory) = &target.data_dir else {
        let server = server(target)?;
        let verified = server.verify(progress)?;
        let collected = server.collect(Collect::Run, &mut |_| {})?;
        return Ok(MendedReport {
            set_aside: verified.damaged_count,
            orphans: collected.orphans,
            ..MendedReport::default()
        });
    };
    checkup::refuse_others(directory)?;
    let are_permissions_mended = checkup::mend_permissions(directory)?;
    let mended = open::repair(directory, &mut |report| progress(&CheckedReport::progress(report)))?;
    Ok(MendedReport {
        rebuilt: mended.repaired.rebuilt,
        set_aside: mended.verified.damaged.len() as u64,
        orphans: mended.repaired.dropped + mended.collected.orphans,
        segments: mended.rewritten,
        are_permissions_mended,
    })
}

fn server(target: &Target) -> Result<server::Server, Failure> {
    let endpoint = endpoint::of(target)?;
    server::Server::new(&endpoint.url, endpoint.password)
}
