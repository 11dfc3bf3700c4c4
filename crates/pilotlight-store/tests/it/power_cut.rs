use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pilotlight_store::{Condition, Durability, Options, Store};

use crate::media::crash::{Change, Moment, cut_power};
use crate::media::{FileSystem, Simulated};
use crate::setup::{Dice, get, noise, options, put};

const BOUND: u64 = 9 << 20;

fn open(media: Arc<Simulated>, durability: Durability) -> Store {
    // No work in the background, which would come between.
    let tick = Duration::from_secs(3600);
    let options = Options { media, durability, tick, ..options(Path::new("/made/store"), BOUND).0 };
    Store::open(options).unwrap()
}

fn reopen(files: FileSystem) -> Store {
    open(Simulated::holding(files), Durability::Relaxed)
}

/// What power cuts now may leave: nothing that was not synced, all of it, one of names and bytes without the other, or some.
fn cuts(moment: &Moment, seed: u64) -> Vec<FileSystem> {
    let mut dice = Dice::new(seed);
    [(0, 0), (100, 100), (100, 0), (0, 100), (50, 50), (50, 100), (50, 100), (100, 50)]
        .map(|(names, data)| cut_power(&moment.files, names, data, &mut dice))
        .into()
}

#[test]
fn a_new_store_survives_a_power_cut_right_after_its_first_entry() {
    let media = Simulated::holding(FileSystem::default());
    let store = open(media.clone(), Durability::Always);
    put(&store, b"key", b"payload").unwrap();
    let moment = Moment { files: media.files(), change: Change::SyncDir("/".into()) };
    for files in cuts(&moment, 1) {
        assert_eq!(get(&reopen(files), b"key"), Some(b"payload".to_vec()));
    }
}
