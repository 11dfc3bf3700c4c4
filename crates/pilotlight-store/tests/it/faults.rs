use pilotlight_store::{Options, Store, StoreError};

use crate::media::{BROKEN, Failure, Fuse, Lasting, READ_ONLY, STUCK, UNWRITABLE, Watched};
use crate::setup::{noise, open, options};

/// Puts, overwrites and deletes through a disk that fails; what was acknowledged must be there after a reopen.
fn run(calls: i64, lasting: Lasting, failure: Failure) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let media = Watched::disk();
    let fuse = Fuse::set(&media, calls, failure, lasting);
    let options = Options { media, ..options(dir.path(), 16 << 20).0 };
    let what = format!("call {calls}, {failure:?}, {lasting:?}");
    let mut acknowledged = std::collections::BTreeMap::new();
    {
        let Ok(store) = Store::open(options) else { return true };
        for index in 0..24u64 {
            let key = (index % 7).to_le_bytes();
            let payload = noise(index, [100, 40_000, 3000][index as usize % 3]);
            match crate::setup::put(&store, &key, &payload) {
                Ok(_) => _ = acknowledged.insert(key, payload),
                Err(error) => assert!(!matches!(error, StoreError::Corrupt { .. }), "{error}"),
            }
            if let Ok(found) = store.get(b"", &key) {
                let found = found.map(|stored| stored.payload.to_vec());
                assert_eq!(
                    found.as_ref(),
                    acknowledged.get(&key),
                    "{what}: a failed put leaves the old entry"
                );
            }
        }
    }
    let store = open(dir.path());
    for (key, payload) in &acknowledged {
        let found = store.get(b"", key).unwrap().map(|stored| stored.payload.to_vec());
        assert_eq!(found.as_ref(), Some(payload), "{what}");
    }
    fuse.is_burnt()
}

#[test]
fn a_failing_medium_loses_no_acknowledged_entry() {
    for failure in [BROKEN, STUCK, READ_ONLY, UNWRITABLE] {
        for lasting in [Lasting::Once, Lasting::ForEver] {
            // The call at which it fails moves on until a run is through before it does.
            let runs = (0..).take_while(|calls| run(*calls, lasting, failure)).count();
            assert!(runs > 30, "{runs} runs");
        }
    }
}
