use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

use super::{Operation, Watched};

/// Whether a medium that failed goes on failing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lasting {
    Once,
    ForEver,
}

/// How a medium fails, and at which calls it may.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failure {
    pub(crate) kind: io::ErrorKind,
    pub(crate) befalls: fn(Operation) -> bool,
}

/// It is broken; reads fail as well.
pub(crate) const BROKEN: Failure = Failure { kind: io::ErrorKind::Other, befalls: |_| true };
/// It takes no changes, for whatever reason.
pub(crate) const UNWRITABLE: Failure =
    Failure { kind: io::ErrorKind::Other, befalls: |operation| !operation.is_look() };
/// It takes no changes any longer.
pub(crate) const READ_ONLY: Failure =
    Failure { kind: io::ErrorKind::ReadOnlyFilesystem, befalls: |operation| !operation.is_look() };
/// It has no room: what is there can still be removed, cut and synced.
pub(crate) const FULL: Failure = Failure {
    kind: io::ErrorKind::StorageFull,
    befalls: |operation| {
        matches!(operation, Operation::Create | Operation::CreateDir | Operation::Rename | Operation::Write)
    },
};
/// It has no room, and does not even give any back.
pub(crate) const STUCK: Failure =
    Failure { kind: io::ErrorKind::StorageFull, befalls: |operation| !operation.is_look() };

/// Has the call fail that its count comes down to.
#[derive(Debug)]
pub(crate) struct Fuse(AtomicI64);

impl Fuse {
    /// Lets `calls` of the calls of `media` pass that `failure` may befall, and then one fail, or all.
    pub(crate) fn set(media: &Watched, calls: i64, failure: Failure, lasting: Lasting) -> Arc<Self> {
        let fuse = Arc::new(Self(AtomicI64::new(calls)));
        let burning = fuse.clone();
        media.set(move |call| {
            if !(failure.befalls)(call.operation) {
                return Ok(());
            }
            let left = burning.0.fetch_sub(1, SeqCst);
            let is_failing = left == 0 || (left < 0 && lasting == Lasting::ForEver);
            if is_failing { Err(failure.kind.into()) } else { Ok(()) }
        });
        fuse
    }

    /// Whether a call failed.
    pub(crate) fn is_burnt(&self) -> bool {
        self.0.load(SeqCst) < 0
    }
}
