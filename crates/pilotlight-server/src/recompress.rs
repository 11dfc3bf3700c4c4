//! When entries are recompressed: as long as nobody asks for anything, and else hardly ever.
//!
//! One thread, with the lowest priority there is, which rests after every entry: as long as it worked while no request came,
//! and nineteen times as long while some did. So it takes half of a core at most, and a twentieth of one that is in use.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use pilotlight_cache::{Error, Maintenance, RecompressReport};

use crate::Server;

/// Rests as long as it worked, times this.
const REST_IDLE: u32 = 1;
const REST_BUSY: u32 = 19;
/// One long entry must not stop it for minutes.
const REST_MAX: Duration = Duration::from_secs(30);
/// Between two runs, at least and at most.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(60);
const LOWEST_PRIORITY: i32 = 19;

/// The thread that recompresses; dropped, it ends after the entry it is at.
#[derive(Debug)]
pub(crate) struct Recompression {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Stop {
    is_over: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Waits for so long or until it is over, and says whether it is.
    fn wait(&self, duration: Duration) -> ControlFlow<()> {
        let mut is_over = self.is_over.lock();
        let until = Instant::now() + duration;
        while !*is_over {
            if self.changed.wait_until(&mut is_over, until).timed_out() {
                return ControlFlow::Continue(());
            }
        }
        ControlFlow::Break(())
    }
}

impl Recompression {
    /// Starts the thread, where there is a disk and [`crate::Config::recompress_after`].
    pub(crate) fn start(server: &Arc<Server>) -> io::Result<Self> {
        let stop = Arc::new(Stop::default());
        let (Some(maintenance), Some(after)) = (server.maintenance.clone(), server.config.recompress_after)
        else {
            return Ok(Self { stop, thread: None });
        };
        let (server, stopped) = (Arc::clone(server), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("recompress".to_owned())
            .spawn(move || run(&server, &*maintenance, after, &stopped))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Recompression {
    fn drop(&mut self) {
        *self.stop.is_over.lock() = true;
        self.stop.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

fn run(server: &Server, maintenance: &dyn Maintenance, after: Duration, stop: &Stop) {
    // Of this thread alone, on Linux.
    if let Err(error) = rustix::process::nice(LOWEST_PRIORITY) {
        tracing::warn!(%error, "cannot lower the priority of recompression");
    }
    let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
    while stop.wait((after / 4).clamp(PAUSE_MIN, PAUSE_MAX)).is_continue() {
        let mut pace = Pace::new(server);
        let mut progress = |_: &RecompressReport| stop.wait(pace.rest(server));
        let idle_before_ms = server.clock.now_ms().saturating_sub(after_ms);
        match maintenance.recompress(idle_before_ms, &mut progress) {
            Ok(report) if report.entries_rewritten > 0 => {
                let RecompressReport { entries_rewritten, deltas, bytes_saved, .. } = report;
                tracing::debug!(entries_rewritten, deltas, bytes_saved, "recompressed");
            }
            Ok(_) => {}
            // Nor will it be writable before it is opened again.
            Err(Error::ReadOnly { .. }) => return,
            Err(error) => tracing::warn!(%error, "cannot recompress"),
        }
    }
}

/// How long to rest after how much work.
struct Pace {
    since: Instant,
    requests: u64,
}

impl Pace {
    fn new(server: &Server) -> Self {
        Self { since: Instant::now(), requests: requests(server) }
    }

    /// How long to rest now; the work that follows begins then.
    fn rest(&mut self, server: &Server) -> Duration {
        let requests = requests(server);
        let factor = if requests == self.requests { REST_IDLE } else { REST_BUSY };
        let rest = (self.since.elapsed() * factor).min(REST_MAX);
        *self = Self { since: Instant::now() + rest, requests };
        rest
    }
}

/// Asked of the server so far.
fn requests(server: &Server) -> u64 {
    server.stats.commands_total.load(Relaxed) + server.stats.http_requests_total.load(Relaxed)
}
