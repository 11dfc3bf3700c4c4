use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use pilotlight_store::media::{Disk, Media, MediaFile};
use pilotlight_store::{Options, Store, StoreError};

use crate::setup::{noise, open, options};

/// The disk, failing the write-like call number `fuse` counts down to, and all after it if `is_lasting`.
#[derive(Debug)]
pub(crate) struct Faulty {
    pub(crate) fuse: AtomicI64,
    pub(crate) is_lasting: bool,
    pub(crate) kind: io::ErrorKind,
    /// Writes so far.
    pub(crate) writes: AtomicI64,
}

impl Faulty {
    fn burn(&self) -> io::Result<()> {
        let left = self.fuse.fetch_sub(1, Ordering::Relaxed);
        if left == 0 || (left < 0 && self.is_lasting) { Err(self.kind.into()) } else { Ok(()) }
    }
}

#[derive(Debug)]
pub(crate) struct FaultyMedia(pub(crate) Arc<Faulty>);

#[derive(Debug)]
struct FaultyFile(Arc<dyn MediaFile>, Arc<Faulty>);

impl Media for FaultyMedia {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn MediaFile>> {
        self.0.burn()?;
        Ok(Arc::new(FaultyFile(Disk.create(path)?, self.0.clone())))
    }
    fn open(&self, path: &Path, writable: bool) -> io::Result<Arc<dyn MediaFile>> {
        Ok(Arc::new(FaultyFile(Disk.open(path, writable)?, self.0.clone())))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.burn()?;
        Disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.burn()?;
        Disk.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        Disk.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        Disk.create_dir(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.burn()?;
        Disk.sync_dir(dir)
    }
}

impl MediaFile for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buffer, offset)
    }
    fn read_at_nowait(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        self.0.read_at_nowait(buffer, offset)
    }
    fn write_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        self.1.writes.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.1.burn() {
            // A write that fails may have written a part.
            let bytes = parts.concat();
            self.0.write_at(&[&bytes[..bytes.len() / 2]], offset)?;
            return Err(error);
        }
        self.0.write_at(parts, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.1.burn()?;
        self.0.set_len(len)
    }
    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }
    fn sync_data(&self) -> io::Result<()> {
        self.1.burn()?;
        self.0.sync_data()
    }
}

/// Puts, overwrites and deletes through a disk that fails; what was acknowledged must be there after a reopen.
fn run(fuse: i64, is_lasting: bool, kind: io::ErrorKind) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let faulty = Arc::new(Faulty { fuse: AtomicI64::new(fuse), is_lasting, kind, writes: AtomicI64::new(0) });
    let options = Options { media: Arc::new(FaultyMedia(faulty.clone())), ..options(dir.path(), 16 << 20).0 };
    let mut acknowledged = std::collections::BTreeMap::new();
    {
        let Ok(store) = Store::open(options) else { return true };
        for index in 0..24u64 {
            let key = (index % 7).to_le_bytes();
            let payload = noise(index, [100, 40_000, 3000][index as usize % 3]);
            match crate::setup::put(&store, &key, &payload) {
                Ok(_) => {
                    acknowledged.insert(key, payload);
                }
                Err(error) => assert!(!matches!(error, StoreError::Corrupt { .. }), "{error}"),
            }
            let expected = acknowledged.get(&key);
            let found = store.get(b"", &key).unwrap().map(|stored| stored.payload.to_vec());
            assert_eq!(found.as_ref(), expected, "fuse {fuse}: a failed put leaves the old entry");
        }
    }
    let store = open(dir.path());
    for (key, payload) in &acknowledged {
        let found = store.get(b"", key).unwrap().map(|stored| stored.payload.to_vec());
        assert_eq!(found.as_ref(), Some(payload), "fuse {fuse}, {kind:?}, lasting {is_lasting}");
    }
    faulty.fuse.load(Ordering::Relaxed) < 0
}

#[test]
fn a_failing_medium_loses_no_acknowledged_entry() {
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::Other] {
        for is_lasting in [false, true] {
            // The call at which it fails moves on until a run is through before it does.
            let runs = (0..).take_while(|fuse| run(*fuse, is_lasting, kind)).count();
            assert!(runs > 30, "{runs} runs");
        }
    }
}
