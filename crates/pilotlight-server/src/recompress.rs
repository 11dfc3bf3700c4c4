//! When entries are recompressed: as long as nobody asks for anything, and else hardly ever.
//!
//! One thread, with the lowest priority there is, which rests after every entry: as long as it worked while hardly a request
//! came, and nineteen times as long while some did. So it takes half of a core at most, and a twentieth while others work.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use pilotlight_cache::{Error, Maintenance, RecompressReport};

use crate::Server;

/// More requests a second than monitors make: somebody is at work.
const BUSY_PER_S: f64 = 10.0;
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
        let mut pace = Pace::new(Instant::now(), requests(server));
        let mut progress = |_: &RecompressReport| stop.wait(pace.rest(Instant::now(), requests(server)));
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
#[derive(Debug)]
struct Pace {
    /// When the last rest began, how long it was to be, and how much was asked for until then.
    rested: Instant,
    rest: Duration,
    requests: u64,
}

impl Pace {
    fn new(now: Instant, requests: u64) -> Self {
        Self { rested: now, rest: Duration::ZERO, requests }
    }

    /// How long to rest now, by what was asked for since the last rest began.
    fn rest(&mut self, now: Instant, requests: u64) -> Duration {
        let since = now.saturating_duration_since(self.rested);
        let asked = requests.saturating_sub(self.requests) as f64;
        let factor = if asked > BUSY_PER_S * since.as_secs_f64().max(0.1) { REST_BUSY } else { REST_IDLE };
        let rest = (since.saturating_sub(self.rest) * factor).min(REST_MAX);
        *self = Self { rested: now, rest, requests };
        rest
    }
}

/// Asked of the server so far.
fn requests(server: &Server) -> u64 {
    server.stats.commands_total.load(Relaxed) + server.stats.http_requests_total.load(Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rests_as_long_as_it_worked_and_much_longer_while_others_work() {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let mut pace = Pace::new(begin, 100);
        assert_eq!(pace.rest(at(300), 100), Duration::from_millis(300), "nobody asked");
        // It rested until 600 and worked until 1000; a monitor came by.
        assert_eq!(pace.rest(at(1000), 102), Duration::from_millis(400));
        // It rested until 1400 and worked until 1500, and 50 requests came.
        assert_eq!(pace.rest(at(1500), 152), Duration::from_millis(1900));
        // It rested until 3400 and worked until 3500, and then it was quiet again.
        assert_eq!(pace.rest(at(3500), 155), Duration::from_millis(100));
        assert_eq!(pace.rest(at(1_000_000), 155), REST_MAX);
    }

    #[test]
    fn a_stop_ends_a_rest() {
        let stop = Arc::new(Stop::default());
        assert!(stop.wait(Duration::ZERO).is_continue());
        let other = Arc::clone(&stop);
        let resting = std::thread::spawn(move || other.wait(Duration::from_secs(3600)));
        *stop.is_over.lock() = true;
        stop.changed.notify_all();
        assert!(resting.join().unwrap().is_break());
    }
}
