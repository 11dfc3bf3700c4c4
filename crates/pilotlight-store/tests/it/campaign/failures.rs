use pilotlight_store::Durability;

use super::check::Wreck;
use super::expected::Expected;
use super::workload::Client;
use super::{ALL, empty_store};
use crate::media::crash::{Change, Crash, Moment};
use crate::media::{BROKEN, FULL, Failure, FileSystem, Fuse, Lasting, READ_ONLY, STUCK, Simulated, Watched};
use crate::setup::{Dice, seed};

/// Steps of a client under which a medium fails: puts, deletes, evictions and cleanings among them.
const STEPS: usize = 25;

/// A store that is full up to its bound, and closed.
pub(super) fn full_store(durability: Durability, seed: u64) -> (FileSystem, Expected) {
    let media = Simulated::holding(empty_store(seed));
    let mut client = Client::new(media.clone(), durability, seed);
    assert!(client.open());
    (0..280).for_each(|_| client.step());
    client.close();
    let mut expected = client.expected().clone();
    expected.sync();
    (media.files(), expected)
}

/// Has a client go on while the medium fails after so many calls; says whether it did. What was acknowledged is there
/// afterwards, and what was synced when it works again survives a power cut.
pub(super) fn fail(
    start: &(FileSystem, Expected),
    calls: i64,
    failure: Failure,
    lasting: Lasting,
    seed: u64,
) -> bool {
    let (files, expected) = start;
    let medium = Simulated::holding(files.clone());
    let media = Watched::over(medium.clone());
    let mut client = Client::after(media.clone(), expected.clone(), seed);
    let fuse = Fuse::set(&media, calls, failure, lasting);
    let what = format!("seed {seed}, {:?}, {failure:?} {lasting:?} after {calls}", expected.durability);
    client.open();
    for _ in 0..STEPS {
        if client.is_open() {
            client.step();
        }
    }
    // What it leaves if it is killed now.
    let opens = |client: &Client, crash: Crash, files: FileSystem| {
        let expected = client.expected();
        Wreck { files, expected, crash, what: format!("{what}, then {crash:?}") }.survives_once();
    };
    opens(&client, Crash::Kill, medium.files());
    media.unset();
    if client.is_open() {
        assert!(client.sync(), "{what}: it works again");
        let moment = Moment { files: medium.files(), change: Change::SyncDir("/".into()) };
        opens(&client, Crash::PowerCut, moment.after(Crash::PowerCut, &mut Dice::new(seed)));
    }
    client.close();
    fuse.is_burnt()
}

/// Lets it fail at every call in turn, or at each `stride`th, until a run is through before it does.
fn fail_at_every_call(failure: Failure, stride: i64, seed: u64) -> usize {
    let mut runs = 0;
    for durability in ALL {
        let start = full_store(durability, seed);
        for lasting in [Lasting::Once, Lasting::ForEver] {
            let first = Dice::new(seed).below(stride as usize) as i64;
            runs +=
                (0i64..).take_while(|run| fail(&start, first + run * stride, failure, lasting, seed)).count();
        }
    }
    runs
}

/// How many calls apart a medium fails in CI; a full one is asked less often.
const STRIDE: i64 = 31;
const STRIDE_FULL: i64 = 12;

#[test]
fn a_broken_medium_loses_nothing_acknowledged() {
    let runs = fail_at_every_call(BROKEN, STRIDE, seed());
    println!("{runs} runs");
    assert!(runs > 8, "{runs} runs");
}

#[test]
fn a_full_medium_loses_nothing_acknowledged() {
    let runs = fail_at_every_call(FULL, STRIDE_FULL, seed());
    println!("{runs} runs");
    assert!(runs > 8, "{runs} runs");
}

#[test]
fn a_full_medium_that_gives_nothing_back_loses_nothing_acknowledged() {
    let runs = fail_at_every_call(STUCK, STRIDE, seed());
    println!("{runs} runs");
    assert!(runs > 8, "{runs} runs");
}

#[test]
fn a_medium_that_turns_read_only_loses_nothing_acknowledged() {
    let runs = fail_at_every_call(READ_ONLY, STRIDE, seed());
    println!("{runs} runs");
    assert!(runs > 8, "{runs} runs");
}
