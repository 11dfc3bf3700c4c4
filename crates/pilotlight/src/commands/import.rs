//! `pilotlight import`.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use pilotlight_cache::Conflict;
use pilotlight_cache::portable::{Frame, FrameType, Reader, Trouble};
use pilotlight_server::report::ImportedReport;
use serde::Serialize;

use crate::access::{self, Access};
use crate::cli::Import;
use crate::failure::Failure;
use crate::open::Purpose;
use crate::output::{self, Answer};
use crate::progress::Progress;

/// What is sent at a time, in bytes, unless one entry is larger.
const BATCH_BYTES: u64 = 4 << 20;
/// What is read at a time, in bytes.
const BUFFER_LEN: usize = 1 << 20;

#[derive(Serialize)]
struct Report {
    /// In the file.
    entries: u64,
    bytes: u64,
    /// Entries of the store that were evicted meanwhile, for want of space.
    evicted: u64,
    #[serde(flatten)]
    imported: ImportedReport,
}

/// An import under way.
struct Importing<'a> {
    access: &'a dyn Access,
    conflict: Conflict,
    /// A stopped directory is under no bound: what leaves it leaves because the disk is full.
    is_unbounded: bool,
    evicted_before: u64,
    batch: Vec<Frame>,
    batch_bytes: u64,
    report: ImportedReport,
}

pub(super) fn run(arguments: &Import) -> Result<Answer, Failure> {
    let path = Some(&*arguments.file).filter(|file| *file != Path::new("-"));
    let report = match path {
        None if arguments.dry_run => check(io::stdin().lock(), 0)?,
        None => import(arguments, io::stdin().lock(), 0)?,
        Some(path) => {
            let len = path.metadata().map_or(0, |metadata| metadata.len());
            // Before anything is changed.
            let report = check(open(path)?, len)?;
            if arguments.dry_run { report } else { import(arguments, open(path)?, len)? }
        }
    };
    if arguments.target.json {
        output::json(&report)?;
    } else {
        tell(&report, arguments.dry_run);
    }
    Ok(if report.imported.refused.is_empty() { Answer::Yes } else { Answer::No })
}

fn tell(report: &Report, is_dry_run: bool) {
    let (count, bytes) = (output::count(report.entries, "entry"), output::bytes(report.bytes));
    if is_dry_run {
        output::note(format_args!("the file is whole: {count}, {bytes}"));
        return;
    }
    let ImportedReport { imported, replaced, unchanged, newer_stayed, expired, refused } = &report.imported;
    output::note(format_args!("imported {} of {count}, {bytes}", imported + replaced));
    for (count, what) in [
        (*replaced, "took the place of another"),
        (*unchanged, "there already"),
        (*newer_stayed, "stayed out: what is there is newer (`--replace` replaces it)"),
        (*expired, "expired"),
        (refused.len() as u64, "refused"),
    ] {
        if count > 0 {
            output::note(format_args!("  {count} {what}"));
        }
    }
    for refused in refused {
        output::note(format_args!("  {}: {}", refused.key.escape_debug(), refused.reason));
    }
    if report.evicted > 0 {
        let evicted = output::count(report.evicted, "entry");
        output::note(format_args!(
            "the server evicted {evicted} meanwhile: raise its `--max-size` to keep all"
        ));
    }
}

fn open(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|error| {
        Failure::new(format!("could not open `{}`", path.display()))
            .because(&error)
            .with_hint("name a file that `pilotlight export` wrote")
    })
}

/// Reads all of it, and gives what is in it.
fn check(from: impl Read, len: u64) -> Result<Report, Failure> {
    let mut progress = Progress::of("bytes checked");
    let mut reader = begin(from)?;
    while reader.next_of_file().map_err(|trouble| refused(&trouble))?.is_some() {
        progress.at(reader.offset(), len.max(reader.offset()));
    }
    let totals = reader.totals();
    let imported = ImportedReport::default();
    Ok(Report { entries: totals.entries, bytes: totals.bytes, evicted: 0, imported })
}

fn import(arguments: &Import, from: impl Read, len: u64) -> Result<Report, Failure> {
    let access = access::open_for(&arguments.target, Purpose::Fill)?;
    let mut importing = Importing {
        access: &*access,
        conflict: if arguments.replace { Conflict::Replace } else { Conflict::NewerStays },
        is_unbounded: arguments.target.data_dir.is_some(),
        evicted_before: access.stats()?.usage.evicted,
        batch: Vec::new(),
        batch_bytes: 0,
        report: ImportedReport::default(),
    };
    let mut reader = begin(from)?;
    let mut progress = Progress::of("bytes imported");
    loop {
        let frame = reader.next_of_file().map_err(|trouble| {
            // What was read before it is whole.
            let failure = refused(&trouble);
            match importing.send(true) {
                Ok(()) => failure.with_hint(format!(
                    "the {} before it were taken in; {}",
                    output::count(reader_entries(&importing.report), "entry"),
                    trouble.hint(),
                )),
                Err(_) => failure,
            }
        })?;
        let Some(frame) = frame else { break };
        importing.take(frame).map_err(interrupted)?;
        progress.at(reader.offset(), len.max(reader.offset()));
    }
    importing.send(true).map_err(interrupted)?;
    drop(progress);
    let evicted = importing.evicted()?;
    let totals = reader.totals();
    Ok(Report { entries: totals.entries, bytes: totals.bytes, evicted, imported: importing.report })
}

fn reader_entries(report: &ImportedReport) -> u64 {
    let ImportedReport { imported, replaced, unchanged, newer_stayed, expired, refused } = report;
    imported + replaced + unchanged + newer_stayed + expired + refused.len() as u64
}

impl Importing<'_> {
    fn take(&mut self, frame: Frame) -> Result<(), Failure> {
        if frame.frame_type() != FrameType::Entry {
            return Ok(());
        }
        if !self.batch.is_empty() && self.batch_bytes + frame.len() > BATCH_BYTES {
            self.send(false)?;
        }
        self.batch_bytes += frame.len();
        self.batch.push(frame);
        Ok(())
    }

    fn send(&mut self, is_last: bool) -> Result<(), Failure> {
        self.report.add(self.access.import(&self.batch, self.conflict, is_last)?);
        self.batch.clear();
        self.batch_bytes = 0;
        if self.is_unbounded && self.evicted()? > 0 {
            return Err(Failure::new("the disk is full: old entries leave for what is imported")
                .with_hint("free some space, then import the same file again: it goes on where it stopped"));
        }
        Ok(())
    }

    fn evicted(&self) -> Result<u64, Failure> {
        Ok(self.access.stats()?.usage.evicted.saturating_sub(self.evicted_before))
    }
}

fn begin<R: Read>(from: R) -> Result<Reader<BufReader<R>>, Failure> {
    Reader::of_file(BufReader::with_capacity(BUFFER_LEN, from)).map_err(|trouble| refused(&trouble))
}

/// Damage is a finding; everything else an error.
fn refused(trouble: &Trouble) -> Failure {
    let failure = Failure::new("the file is not taken in").because(trouble).with_hint(trouble.hint());
    if trouble.is_damage() { failure.with_code(1) } else { failure }
}

fn interrupted(failure: Failure) -> Failure {
    failure.with_hint_added(
        "what is imported so far is kept: import the same file again, and what is there already is passed over",
    )
}
