//! What is wrong, in words: one finding a line, each with what to do about it.

use pilotlight_cache::{Checkup, Examination};
use serde::{Deserialize, Serialize};

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingReport {
    /// Whether it is wrong; else it is worth knowing.
    pub is_problem: bool,
    /// What it is about: `log`, `payload files`, `disk` and their like.
    pub subject: String,
    /// What was found.
    pub finding: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether `pilotlight doctor --repair` mends it.
    pub is_mendable: bool,
}

/// What a repair did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MendedReport {
    /// Entries that were rebuilt from their payload files.
    pub rebuilt: u64,
    /// Entries that were damaged, and are set aside.
    pub set_aside: u64,
    /// Files that were removed, since no entry held them.
    pub orphans: u64,
    /// Segments of the log that were written anew.
    pub segments: u64,
    /// Whether others than the owner could write the directory, and cannot any longer.
    pub are_permissions_mended: bool,
}

/// Below so much of a disk, or so many bytes, it counts as full.
const FREE_SHARE_MIN: u64 = 100;
const FREE_BYTES_MIN: u64 = 64 << 20;

impl FindingReport {
    /// Something wrong.
    pub fn problem(subject: &str, finding: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            is_problem: true,
            subject: subject.to_owned(),
            finding: finding.into(),
            hint: Some(hint.into()),
            is_mendable: false,
        }
    }

    /// Something worth knowing.
    pub fn note(subject: &str, finding: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { is_problem: false, ..Self::problem(subject, finding, hint) }
    }

    /// The same, where a repair mends it.
    #[must_use]
    pub fn mendable(self) -> Self {
        Self { is_mendable: true, ..self }
    }

    /// What a checkup of an open store found.
    #[must_use]
    pub fn of_checkup(checkup: &Checkup) -> Vec<Self> {
        let Checkup {
            is_read_only,
            orphans,
            orphan_bytes,
            lost_files,
            damaged_segments,
            set_aside,
            disk_room,
            stored_bytes,
            bound_bytes,
        } = checkup;
        let mut found = Vec::new();
        if *is_read_only {
            let hint = "mount the disk so that it can be written, then start the server again";
            found.push(Self::problem("disk", "it was read-only at the start: every put is refused", hint));
        }
        found.extend(
            disk_room.and_then(|room| Self::of_room(room, bound_bytes.saturating_sub(*stored_bytes))),
        );
        if *damaged_segments > 0 {
            let finding = format!("{} damaged", are(*damaged_segments, "segment"));
            let hint = "stop the server, then run `pilotlight doctor --repair --data-dir DIR`";
            found.push(Self::problem("log", finding, hint));
        }
        if *lost_files > 0 {
            let finding = format!("{} not there that entries hold", are(*lost_files, "file"));
            found.push(Self::problem("payload files", finding, VERIFY).mendable());
        }
        found.extend(Self::of_orphans(*orphans, *orphan_bytes));
        found.extend(Self::of_quarantine(*set_aside));
        found
    }

    /// What is found of a disk with so many bytes free and in all, where a store may still grow by so many.
    #[must_use]
    pub fn of_room((free, total): (u64, u64), growth: u64) -> Option<Self> {
        let mib = free >> 20;
        if free < FREE_BYTES_MIN || free < total / FREE_SHARE_MIN {
            let hint =
                "free some space, or give the store less with `--max-size`: it evicts for want of room now";
            return Some(Self::problem("disk", format!("{mib} MiB are free"), hint));
        }
        // A bound that is not known is not a growth to come.
        let is_bounded = growth < total.saturating_mul(1 << 10);
        (is_bounded && free < growth).then(|| {
            let finding =
                format!("{mib} MiB are free, {} MiB less than `--max-size` leaves", (growth - free) >> 20);
            Self::note(
                "disk",
                finding,
                "the store evicts earlier then; free some space, or lower `--max-size`",
            )
        })
    }

    fn of_orphans(orphans: u64, bytes: u64) -> Option<Self> {
        let finding = format!("{} held by no entry, {} KiB", are(orphans, "file"), bytes >> 10);
        let hint = "remove them with `pilotlight gc`";
        (orphans > 0).then(|| Self::problem("payload files", finding, hint).mendable())
    }

    /// What is found of so many entries that are set aside.
    #[must_use]
    pub fn of_quarantine(set_aside: u64) -> Option<Self> {
        let finding = format!("{} set aside, since they were damaged", are(set_aside, "entry"));
        let hint =
            "`pilotlight quarantine ls` says which and why, `pilotlight quarantine purge --all` removes them";
        (set_aside > 0).then(|| Self::note("quarantine", finding, hint))
    }

    /// What an examination of a directory found.
    #[must_use]
    pub fn of_examination(examination: &Examination) -> Vec<Self> {
        let Examination {
            entries: _,
            segments: _,
            unreadable_segments,
            damaged_segments,
            lost_before,
            damaged_records,
            mendable_records,
            lost_files,
            orphans,
            orphan_bytes,
            rebuildable,
            waiting,
            foreign,
        } = examination;
        let mut found = Vec::new();
        let mut add = |is_found: bool, finding: Self| {
            if is_found {
                found.push(finding);
            }
        };
        let ids = |ids: &[u32]| ids.iter().map(|id| format!("{id:010}.seg")).collect::<Vec<_>>().join(", ");
        add(
            !unreadable_segments.is_empty(),
            Self::problem(
                "log",
                format!("the medium does not give {}", ids(unreadable_segments)),
                "check the disk, and who may read the files; a repair changes nothing before they can be read",
            ),
        );
        add(
            !damaged_segments.is_empty(),
            Self::problem("log", format!("the headers of {} are damaged", ids(damaged_segments)), REPAIR)
                .mendable(),
        );
        add(
            !lost_before.is_empty(),
            Self::problem(
                "log",
                format!("segments before {} are missing, and the records in them", ids(lost_before)),
                "put them back from a backup before a server is started, or repair without them",
            )
            .mendable(),
        );
        add(
            *damaged_records > 0,
            Self::problem(
                "log",
                format!(
                    "{} damaged; {mendable_records} can be had from payload files",
                    are(*damaged_records, "record")
                ),
                REPAIR,
            )
            .mendable(),
        );
        add(
            *rebuildable > 0,
            Self::problem(
                "payload files",
                format!("{} all that is left of an entry that can be rebuilt", are(*rebuildable, "file")),
                "repair before a server is started, which removes them",
            )
            .mendable(),
        );
        add(
            *lost_files > 0,
            Self::problem("payload files", format!("{} without its own", are(*lost_files, "entry")), REPAIR)
                .mendable(),
        );
        let (orphans, bytes) = (orphans - rebuildable, if *rebuildable > 0 { 0 } else { *orphan_bytes });
        found.extend(Self::of_orphans(orphans, bytes));
        if *waiting > 0 {
            let finding = format!("a repair was interrupted: {} to be looked at", are(*waiting, "file"));
            found.push(Self::problem("quarantine", finding, "repair again: it goes on").mendable());
        }
        if !foreign.is_empty() {
            let names: Vec<String> = foreign.iter().map(|name| name.escape_debug().to_string()).collect();
            let hint = "move them away if nothing else needs them there: they count for no bound";
            found.push(Self::note(
                "directory",
                format!("it holds what is not the store's: {}", names.join(", ")),
                hint,
            ));
        }
        found
    }
}

const VERIFY: &str = "`pilotlight verify` sets such entries aside: they will be compiled again";
const REPAIR: &str = "run `pilotlight doctor --repair`";

/// `1 file is`, `2 files are`.
fn are(count: u64, noun: &str) -> String {
    match (count, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun} is"),
        (_, Some(stem)) => format!("{count} {stem}ies are"),
        (_, None) => format!("{count} {noun}s are"),
    }
}
