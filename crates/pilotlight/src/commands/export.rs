//! `pilotlight export`.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use pilotlight_cache::portable::{Frame, FrameType, Mark, Reader, Totals, Trouble, preamble};
use pilotlight_cache::{Clock, Cursor, Namespace, SystemClock};
use pilotlight_server::Selection;
use pilotlight_server::report::StoreReport;
use serde::{Deserialize, Serialize};

use crate::access::{self, Access};
use crate::cli::Export;
use crate::failure::Failure;
use crate::open::Purpose;
use crate::output::{self, Answer};
use crate::progress::Progress;

/// What is gathered before it is written, in bytes.
const BUFFER_LEN: usize = 1 << 20;

/// What a file tells of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct About {
    producer: String,
    created_ms: u64,
    /// The store that it is of: an export goes on only with the same.
    store: String,
    namespaces: Vec<String>,
    selection: Selection,
}

/// An export that goes on from some place.
struct Begun {
    about: About,
    output: Box<dyn Write>,
    totals: Totals,
    at: Option<Mark>,
    damaged: u64,
}

#[derive(Serialize)]
struct Report {
    entries: u64,
    bytes: u64,
    /// Entries that were damaged, and are not in the file.
    damaged: u64,
}

pub(super) fn run(arguments: &Export) -> Result<Answer, Failure> {
    let path = Some(&*arguments.file).filter(|file| *file != Path::new("-"));
    if path.is_none() && (arguments.resume || arguments.target.json) {
        return Err(Failure::new("an export to stdout cannot go on later, and prints no report")
            .with_hint("name a file, or leave `--resume` and `--json` out"));
    }
    if let Some(path) = path.filter(|path| path.exists() && !arguments.force) {
        return Err(Failure::new(format!("`{}` is there already", path.display())).with_hint(
            "name another file, or have it replaced with `--force`, once the export is complete",
        ));
    }
    let access = access::open_for(&arguments.target, Purpose::Look)?;
    let store = access.about()?;
    let partial = path.map(partial);
    let begun = match &partial {
        None => begin(about(arguments, store)?, Box::new(io::stdout())),
        Some(partial) if arguments.resume => go_on(partial, &store),
        Some(partial) => {
            create(partial, arguments.force).and_then(|file| begin(about(arguments, store)?, file))
        }
    };
    let report = write(&*access, begun?).map_err(|failure| match path {
        Some(_) if !failure.is_broken_pipe() => failure.with_hint_added(
            "what is done so far is kept: go on with the same command and `--resume` instead of a selection",
        ),
        _ => failure,
    })?;
    if let (Some(path), Some(partial)) = (path, &partial) {
        complete(partial, path).map_err(|error| cannot_write(partial, &error))?;
    }
    tell(&report, arguments)?;
    Ok(if report.damaged > 0 { Answer::No } else { Answer::Yes })
}

fn tell(report: &Report, arguments: &Export) -> Result<(), Failure> {
    if arguments.target.json {
        return output::json(report);
    }
    let (count, bytes) = (output::count(report.entries, "entry"), output::bytes(report.bytes));
    let damaged = match report.damaged {
        0 => String::new(),
        damaged => format!("; left out {}: they were damaged", output::count(damaged, "entry")),
    };
    output::note(format_args!("exported {count}, {bytes}{damaged}"));
    Ok(())
}

/// Where an export is until it is complete.
fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

fn about(arguments: &Export, store: StoreReport) -> Result<About, Failure> {
    let now_ms = SystemClock.now_ms();
    for name in &arguments.namespaces {
        Namespace::new(name)?;
    }
    let age_ms = arguments.since.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    let is_all = arguments.namespaces.is_empty();
    Ok(About {
        producer: concat!("pilotlight ", env!("CARGO_PKG_VERSION")).to_owned(),
        created_ms: now_ms,
        store: store.store,
        namespaces: if is_all { store.namespaces } else { arguments.namespaces.clone() },
        selection: Selection {
            kinds: arguments.kinds.clone(),
            pattern: arguments.pattern.clone(),
            since_ms: age_ms.map(|age_ms| now_ms.saturating_sub(age_ms)),
        },
    })
}

fn create(partial: &Path, is_forced: bool) -> Result<Box<dyn Write>, Failure> {
    let mut options = OpenOptions::new();
    // Whoever can change it can run code on every reader of the store that takes it in: the owner alone may even look.
    options.write(true).mode(0o600);
    if is_forced {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    match options.open(partial) {
        Ok(file) => Ok(Box::new(BufWriter::with_capacity(BUFFER_LEN, file))),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(Failure::new(format!("`{}` is there: an export that was interrupted", partial.display()))
                .with_hint("go on with it with `--resume`, or begin anew with `--force`"))
        }
        Err(error) => Err(cannot_write(partial, &error)),
    }
}

fn begin(about: About, mut output: Box<dyn Write>) -> Result<Begun, Failure> {
    let text = serde_json::to_vec(&about).map_err(|error| Failure::new("could not begin").because(&error))?;
    let frame = Frame::new(FrameType::About, text, Vec::new().into());
    let written = output.write_all(&preamble()).and_then(|()| frame.write(&mut output));
    written.map_err(|error| unwritten(&error))?;
    Ok(Begun { about, output, totals: Totals::default(), at: None, damaged: 0 })
}

/// Reads an interrupted export up to its last mark that is whole, cuts off what is behind, and goes on there.
fn go_on(partial: &Path, store: &StoreReport) -> Result<Begun, Failure> {
    let unread = |what: &str| Failure::new(format!("could not go on with `{}`: {what}", partial.display()));
    let file = OpenOptions::new().read(true).write(true).open(partial);
    let mut file = file.map_err(|error| {
        unread("it cannot be opened").because(&error).with_hint("without `--resume` an export begins anew")
    })?;
    let begin_anew = "begin anew with `--force`";
    let mut reader = Reader::of_file(BufReader::with_capacity(BUFFER_LEN, &file))
        .map_err(|trouble| unread("it has no beginning").because(&trouble).with_hint(begin_anew))?;
    let (mut about, mut at, mut damaged) = (None, None, 0);
    let mut good = (reader.offset(), Totals::default());
    loop {
        let frame = match reader.next_frame() {
            Ok(Some(frame)) => frame,
            Err(trouble @ Trouble::Io { .. }) => return Err(unread("reading failed").because(&trouble)),
            // What was being written when it was interrupted.
            Ok(None) | Err(_) => break,
        };
        match frame.frame_type() {
            FrameType::About => about = serde_json::from_slice::<About>(&frame.fields).ok(),
            FrameType::Mark => {
                let mark = Mark::of_frame(&frame)?;
                damaged += u64::from(mark.damaged);
                at = Some(mark);
            }
            FrameType::Entry => continue,
            // It was complete but for its name: the last page is written again, which is as good.
            FrameType::End => break,
        }
        good = (reader.offset(), reader.totals().clone());
    }
    drop(reader);
    let about = about.ok_or_else(|| unread("it does not say what it is of").with_hint(begin_anew))?;
    if about.store != store.store {
        return Err(unread("it is of another store")
            .with_hint("name the store that it was begun with, or begin anew with `--force`"));
    }
    let (offset, totals) = good;
    let cut = file.set_len(offset).and_then(|()| file.seek(SeekFrom::Start(offset)));
    cut.map_err(|error| cannot_write(partial, &error))?;
    output::note(format_args!("going on behind {}", output::count(totals.entries, "entry")));
    let output = Box::new(BufWriter::with_capacity(BUFFER_LEN, file));
    Ok(Begun { about, output, totals, at, damaged })
}

fn write(access: &dyn Access, begun: Begun) -> Result<Report, Failure> {
    let Begun { about, mut output, mut totals, at, mut damaged } = begun;
    let entries_total = access.stats()?.usage.entries;
    let mut progress = Progress::of("entries exported");
    let names = about.namespaces.iter().map(|name| Namespace::new(name)).collect::<Result<Vec<_>, _>>()?;
    let (mut first, mut cursor) = (0, Cursor::START);
    if let Some(mark) = at {
        first = names.iter().position(|name| *name == mark.namespace).unwrap_or(0);
        first += usize::from(mark.next == Cursor::START);
        cursor = mark.next;
    }
    for namespace in names.iter().skip(first) {
        loop {
            let mark = access.export_page(namespace, cursor, &about.selection, &mut |frame| {
                totals.count(frame);
                progress.at(totals.entries, entries_total.max(totals.entries));
                frame.write(&mut output).map_err(|error| unwritten(&error))
            })?;
            let written = mark.to_frame().write(&mut output).and_then(|()| output.flush());
            written.map_err(|error| unwritten(&error))?;
            damaged += u64::from(mark.damaged);
            cursor = mark.next;
            if cursor == Cursor::START {
                break;
            }
        }
    }
    let written = totals.end().write(&mut output).and_then(|()| output.flush());
    written.map_err(|error| unwritten(&error))?;
    Ok(Report { entries: totals.entries, bytes: totals.bytes, damaged })
}

/// Only a file that is complete, and down, gets its name.
fn complete(partial: &Path, path: &Path) -> io::Result<()> {
    File::open(partial)?.sync_all()?;
    std::fs::rename(partial, path)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

fn unwritten(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::broken_pipe();
    }
    Failure::new("could not write the export").because(error)
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("could not write `{}`", path.display()))
        .because(error)
        .with_hint("check that the directory is there, is writable and has room")
}
