use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pilotlight_store::{Condition, OpenError, Options, PutRequest, Store, StoreError};

use crate::layout::{self, Part, Structure};
use crate::media::{FileSystem, Simulated};
use crate::setup::{Dice, noise, options, original, put, request, seed, store_against};

const BOUND: u64 = 9 << 20;
/// Flips in all parts of one structure.
const FLIPS: usize = 40;

type Entries = BTreeMap<(Vec<u8>, Vec<u8>), Vec<u8>>;

fn options_in(media: Arc<Simulated>) -> Options {
    Options { media, ..options(Path::new("/store"), BOUND).0 }
}

/// What was put, deleted and cleared, once into a segment that is sealed and once into one that is not.
struct Filled {
    files: FileSystem,
    entries: Entries,
    /// What must not be there, unless what says so was hit.
    gone: Vec<(Vec<u8>, Vec<u8>)>,
}

fn filled() -> Filled {
    let media = Simulated::holding(FileSystem::default());
    let store = Store::open(options_in(media.clone())).unwrap();
    let (mut entries, mut gone) = (Entries::new(), Vec::new());
    let mut put_in = |space: &[u8], key: &str, payload: Vec<u8>| {
        let request = PutRequest { space, ..request(key.as_bytes(), &payload) };
        store.put(&request, Condition::Always).unwrap();
        entries.insert((space.to_vec(), key.as_bytes().to_vec()), payload);
    };
    for (number, part) in ["sealed", "active"].into_iter().enumerate() {
        for (at, len) in [0, 1, 300, 5000].into_iter().enumerate() {
            put_in(b"", &format!("{part} inline {at}"), noise(at as u64, len));
            put_in(b"db1", &format!("{part} inline {at}"), noise(at as u64 + 10, len));
        }
        put_in(b"", &format!("{part} external"), noise(30 + number as u64, 40_000));
        put_in(b"", &format!("{part} shares"), noise(30 + number as u64, 40_000));
        put_in(b"", &format!("{part} deleted"), noise(20, 500));
        put_in(b"cleared", part, noise(21, 500));
        let deleted = format!("{part} deleted").into_bytes();
        assert!(store.delete(b"", &deleted, Condition::Always).unwrap());
        assert_eq!(store.clear(b"cleared").unwrap(), 1);
        gone.push((Vec::new(), deleted));
        gone.push((b"cleared".to_vec(), part.as_bytes().to_vec()));
        put_in(b"", &format!("{part} base"), noise(40 + number as u64, 20_000));
        put_in(b"", &format!("{part} delta"), noise(50, 3000));
        let (delta, base) = (format!("{part} delta"), format!("{part} base"));
        assert!(store_against(&store, b"", delta.as_bytes(), base.as_bytes()).unwrap());
        if part == "sealed" {
            (0..32).for_each(|filler| put_in(b"", &format!("filler {filler}"), noise(filler, 32_000)));
        }
    }
    entries.retain(|name, _| !gone.contains(name));
    drop(store);
    Filled { files: media.files(), entries, gone }
}

/// Every part of every file, with the file it is in.
fn parts(files: &FileSystem) -> Vec<(PathBuf, Part)> {
    let segments = files.paths(Path::new("/store/log")).into_iter();
    let segments = segments.map(|path| (layout::segment(&files.read(&path)), path));
    let payloads = files.paths(Path::new("/store/blobs")).into_iter();
    let payloads = payloads.map(|path| (layout::payload_file(&files.read(&path)), path));
    let named = |(parts, path): (Vec<Part>, PathBuf)| {
        parts.into_iter().map(move |part| (path.clone(), part)).collect::<Vec<_>>()
    };
    segments.chain(payloads).flat_map(named).filter(|(_, part)| !part.range.is_empty()).collect()
}

/// Opens the store twice and looks at everything: gives what is missing and what came back; never anything else is there.
fn look(media: &Arc<Simulated>, filled: &Filled, what: &str) -> (Vec<Vec<u8>>, usize) {
    let mut last = None;
    for _ in 0..2 {
        let store = Store::open(options_in(media.clone())).unwrap_or_else(|error| panic!("{what}: {error}"));
        let holds = |space: &[u8], key: &[u8]| match store.get(space, key) {
            Ok(stored) => stored.map(|stored| original(&stored)),
            Err(StoreError::Corrupt { .. }) => {
                assert!(store.get(space, key).unwrap().is_none(), "{what}: after one error it is a miss");
                None
            }
            Err(error) => panic!("{what}: {error}"),
        };
        let mut missing = Vec::new();
        for ((space, key), payload) in &filled.entries {
            match holds(space, key) {
                Some(found) => assert_eq!(&found, payload, "{what}"),
                None => missing.push([&[space.len() as u8], &space[..], key].concat()),
            }
        }
        let back = filled.gone.iter().filter(|(space, key)| holds(space, key).is_some()).count();
        put(&store, b"new", b"entry").unwrap();
        let found = (missing, back);
        assert!(
            last.is_none_or(|last| last == found),
            "{what}: a reopen finds what the open before it found"
        );
        last = Some(found);
    }
    last.unwrap()
}

#[test]
fn a_flipped_bit_costs_what_it_hit_and_is_never_served() {
    let filled = filled();
    let parts = parts(&filled.files);
    let seed = seed();
    let mut dice = Dice::new(seed);
    for structure in Structure::ALL {
        let parts: Vec<_> = parts.iter().filter(|(_, part)| part.structure == structure).collect();
        assert!(!parts.is_empty(), "{structure:?}");
        let mut noticed = 0;
        for _ in 0..FLIPS {
            let (path, part) = parts[dice.below(parts.len())];
            let (at, bit) = (part.range.start + dice.below(part.range.len()), dice.below(8));
            let mut bytes = filled.files.read(path);
            bytes[at] ^= 1 << bit;
            let mut files = filled.files.clone();
            files.overwrite(path, &bytes);
            let what = format!("seed {seed}, {structure:?}, bit {bit} of byte {at} of {}", path.display());
            let (missing, back) = look(&Simulated::holding(files), &filled, &what);
            noticed += usize::from(!missing.is_empty() || back > 0);
            check(structure, part, &missing, back, &what);
        }
        let is_entry =
            matches!(structure, Structure::Payload | Structure::FilePayload | Structure::Reference);
        assert!(noticed > 0 || !is_entry, "{structure:?}: no flip was noticed");
    }
}

fn check(structure: Structure, part: &Part, missing: &[Vec<u8>], back: usize, what: &str) {
    match structure {
        Structure::InlineHeader
        | Structure::ExternalHeader
        | Structure::Key
        | Structure::Head
        | Structure::Payload
        | Structure::Base
        | Structure::Reference => {
            assert!(missing.iter().all(|key| *key == part.key), "{what}: {} missing", missing.len());
            assert_eq!(back, 0, "{what}");
        }
        // Two entries need each file.
        Structure::FilePayload => {
            assert!(missing.len() == 2 && back == 0, "{what}: {} missing", missing.len())
        }
        Structure::Tombstone | Structure::Clear => assert!(missing.is_empty() && back <= 1, "{what}"),
        Structure::SegmentHeader
        | Structure::Names
        | Structure::Row
        | Structure::RowBase
        | Structure::Trailer => {
            assert!(missing.is_empty() && back == 0, "{what}: {} missing", missing.len())
        }
        // What is stored against a payload needs to know what that is.
        Structure::FileHeader if part.key.ends_with(b"base") => {
            assert!(missing.len() <= 2 && back == 0, "{what}: {} missing", missing.len())
        }
        Structure::FileHeader => {
            assert!(missing.is_empty() && back == 0, "{what}: {} missing", missing.len())
        }
    }
}

#[test]
fn a_flipped_bit_in_format_is_refused_or_harmless_and_nothing_is_lost() {
    let filled = filled();
    let path = Path::new("/store/FORMAT");
    let pristine = filled.files.read(path);
    let mut refused = 0;
    for at in 0..pristine.len() * 8 {
        let mut bytes = pristine.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        let mut files = filled.files.clone();
        files.overwrite(path, &bytes);
        let media = Simulated::holding(files);
        match Store::open(options_in(media.clone())) {
            Ok(store) => {
                let known = |((space, key), _): (&(Vec<u8>, Vec<u8>), _)| store.stat(space, key).is_some();
                assert!(filled.entries.iter().all(known), "bit {at}: opened, and entries are lost");
            }
            Err(error @ (OpenError::NotAStore { .. } | OpenError::TooNew { .. })) => {
                assert!(!error.hint().is_empty());
                refused += 1;
                media.alter(|files| files.overwrite(path, &pristine));
                let (missing, back) = look(&media, &filled, &format!("bit {at} flipped back"));
                assert!(missing.is_empty() && back == 0, "bit {at}: refused, and yet changed");
            }
            Err(error) => panic!("bit {at}: {error}"),
        }
    }
    assert!(refused > pristine.len(), "{refused} refused");
}
