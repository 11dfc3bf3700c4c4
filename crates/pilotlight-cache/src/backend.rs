//! The contract between the controller and whatever keeps entries.

use std::fmt::{Debug, Display};

use async_trait::async_trait;

use crate::{Entry, Found, Head, Key, Namespace, Put, Result, Version, When};

/// Keeps entries under keys. A *layer* is a backend that wraps one.
///
/// The numbered sentences are the contract; [`crate::testing::conformance`] has a check of the same name for each, and
/// every backend and every layer in this crate passes it. No method has a default body: a layer that forgets one
/// must not compile, rather than quietly lose what its inner backend does better.
///
/// 1. `absent_key_is_none`: a key nobody put is `Ok(None)`, never an error.
/// 2. `get_returns_what_was_put`: the whole artifact and its metadata, or nothing.
/// 3. `put_is_last_writer_wins`: the newest accepted put is the one that answers.
/// 4. `empty_artifact_is_an_entry`: an artifact of no bytes is a hit.
/// 5. `get_many_answers_in_order`: one answer a key, in the order asked, repeated keys included.
/// 6. `get_many_isolates_failures`: a key that fails does not spoil the others (checked where faults can be injected).
/// 7. `unmet_precondition_changes_nothing`: `When` is tested and acted on in one step.
/// 8. `versions_grow`: each accepted put gets a version above all earlier ones.
/// 9. `deleting_an_absent_key_succeeds`: and says that nothing was there.
/// 10. `expired_entry_is_absent`: from the moment of its expiry, in every method.
/// 11. `scan_visits_every_entry_once`: an entry there from first page to last is seen exactly once.
/// 12. `namespaces_are_isolated`: no method sees or touches another namespace.
/// 13. `clear_leaves_other_namespaces`: and everything of its own is gone.
/// 14. `touch_notes_a_use`: as a get does, and changes nothing else.
/// 15. `staged_put_is_seen_and_settles`: every reader sees it at once, and settled it is as sure as a put.
/// 16. `a_stack_prints_itself`: `Display` names the backend and its limits, without secrets.
///
/// # Cancellation
/// Dropping a future leaves the old entry or the new one, whole, and nothing locked.
#[async_trait]
pub trait Backend: Send + Sync + Debug + Display {
    /// The name in counters (`backend:<name>`), as PyTorch names its backend classes.
    fn name(&self) -> &'static str;

    /// The entries under `keys`. The primitive is plural because Triton's client asks for a whole group in one MGET and
    /// no tier may turn that into as many round trips.
    async fn get_many(&self, keys: &[Key]) -> Vec<Result<Option<Found>>>;

    /// What is known of the entry under `key`, without reading its artifact.
    async fn head(&self, key: &Key) -> Result<Option<Head>>;

    /// The same, noting a use: for a hit that a faster tier serves, so that eviction knows of it.
    async fn touch(&self, key: &Key) -> Result<Option<Head>>;

    /// Stores `entry` under `key` if `when` holds. `created_ms` 0 is replaced by now.
    async fn put(&self, key: &Key, entry: Entry, when: When) -> Result<Put>;

    /// A put whose acknowledgement waits for [`Backend::settle_many`], so that many of them cost the medium one write. Until
    /// then a crash may lose the entry, and a write that fails may take it back.
    async fn stage(&self, key: &Key, entry: Entry, when: When) -> Result<Put>;

    /// Makes the staged puts that were given these versions as sure as [`Backend::put`] makes one; one answer a version.
    async fn settle_many(&self, versions: &[Version]) -> Vec<Result<()>>;

    /// Makes the entry under `key` expire at `expires_ms` (never, if `None`) if `when` holds; `Unmet` also when absent.
    async fn set_expiry(&self, key: &Key, expires_ms: Option<u64>, when: When) -> Result<Put>;

    /// Deletes the entry under `key` if `when` holds, and says whether one was deleted.
    async fn delete(&self, key: &Key, when: When) -> Result<bool>;

    /// Up to about `limit` keys of `namespace`, from `cursor` on.
    async fn scan(&self, namespace: &Namespace, cursor: Cursor, limit: usize) -> Result<Page>;

    /// Deletes every entry of `namespace`, and says how many there were.
    async fn clear(&self, namespace: &Namespace) -> Result<u64>;

    /// How much is kept: of `namespace`, or of all when `None`.
    async fn usage(&self, namespace: Option<&Namespace>) -> Result<Usage>;

    /// Makes every put acknowledged so far survive a power cut, where the backend can.
    async fn sync(&self) -> Result<()>;
}

/// What users of a backend want besides what implementors must write.
#[async_trait]
pub trait BackendExt: Backend {
    /// The entry under one key.
    async fn get(&self, key: &Key) -> Result<Option<Found>> {
        self.get_many(std::slice::from_ref(key)).await.pop().unwrap_or(Ok(None))
    }
}

impl<B: Backend + ?Sized> BackendExt for B {}

/// A place in a scan. A scan starts at, and has ended when it is back at, [`Cursor::START`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Cursor(pub u64);

impl Cursor {
    /// The start of a scan, and its end.
    pub const START: Self = Self(0);
}

/// A part of a scan.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The keys, in no meaningful order.
    pub keys: Vec<(Key, Head)>,
    /// Where to go on; [`Cursor::START`] after the last page.
    pub next: Cursor,
}

/// How much a backend keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Entries, as many as there are keys.
    pub entries: u64,
    /// Artifact bytes as the clients put them.
    pub logical_bytes: u64,
    /// Bytes it all takes where it is kept, overhead and free lists included. Of a namespace: without the overhead.
    pub stored_bytes: u64,
    /// The bound on `stored_bytes`; none when `None`.
    pub bound_bytes: Option<u64>,
    /// Entries evicted for space since the backend was opened.
    pub evicted: u64,
    /// Entries that expired since the backend was opened.
    pub expired: u64,
    /// Entries set aside since the backend was opened because they failed their check.
    pub quarantined: u64,
    /// Puts whose artifact was there already and was stored once, since the backend was opened.
    pub deduplicated: u64,
    /// Entries recompressed since the backend was opened.
    pub recompressed: u64,
    /// Bytes that this saved.
    pub recompressed_bytes: u64,
    /// Entries stored against a sibling, now.
    pub deltas: u64,
    /// Payload files that a crash left and that were removed since the backend was opened.
    pub orphans: u64,
    /// How far the search for those is, until it is through.
    pub sweep: Option<SweepProgress>,
    /// Gets that were answered by another's fetch of the same entry, since the backend was opened.
    pub shared_fetches: u64,
}

/// How far a backend is with looking for what a crash left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SweepProgress {
    /// Payload files that it has looked at.
    pub looked_at: u64,
    /// Those of entries; what a crash left comes on top.
    pub files: u64,
}
