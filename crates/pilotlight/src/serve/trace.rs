//! A file of what was asked of the cache, for `make bench-eviction ARGS='--replay FILE'`.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pilotlight_cache::{TraceSink, Use, Used};

use crate::failure::Failure;

/// The columns, as `bench/simulator/src/trace.rs` reads them.
const COLUMNS: &str = "time_ms,op,key,size_bytes,cost_ms,group";
/// What a kill may lose.
const WRITTEN_EVERY: Duration = Duration::from_secs(1);

/// A trace on its way into a file.
#[derive(Debug)]
pub(crate) struct TraceFile {
    started: Instant,
    /// None once it could not be written.
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    file: BufWriter<File>,
    written: Instant,
}

impl TraceFile {
    /// Begins a trace in a new file.
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let create = || -> io::Result<_> {
            let mut file = BufWriter::new(OpenOptions::new().write(true).create_new(true).open(path)?);
            writeln!(file, "{COLUMNS}")?;
            file.flush()?;
            Ok(file)
        };
        let file = create().map_err(|error| {
            let failure = Failure::new(format!("could not begin a trace in `{}`", path.display()));
            let is_there = error.kind() == io::ErrorKind::AlreadyExists;
            let failure = failure.because(&error);
            if is_there {
                failure.with_hint("name a file that is not there yet: --record-trace FILE")
            } else {
                failure
            }
        })?;
        let started = Instant::now();
        Ok(Self { started, open: Mutex::new(Some(Open { file, written: started })) })
    }
}

impl TraceSink for TraceFile {
    fn note(&self, used: Used) {
        let operation = match used.done {
            Use::Get => "get",
            Use::Put => "put",
            Use::Delete => "delete",
        };
        let Used { key_hash, stored_bytes, compile_ms, group, .. } = used;
        let mut open = self.open.lock();
        let Some(Open { file, written }) = &mut *open else { return };
        // Under the lock: times never fall.
        let now = Instant::now();
        let time_ms = (now - self.started).as_millis();
        let mut write = || {
            writeln!(file, "{time_ms},{operation},{key_hash:016x},{stored_bytes},{compile_ms},{group:x}")?;
            if now - *written >= WRITTEN_EVERY {
                *written = now;
                file.flush()?;
            }
            io::Result::Ok(())
        };
        if let Err(error) = write() {
            tracing::warn!(%error, "the trace ends here: it cannot be written");
            *open = None;
        }
    }
}
