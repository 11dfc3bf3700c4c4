//! Tells how far something is: a bar at a terminal, now and then a line in a log.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

/// How often a log is told.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// How far something is.
#[derive(Debug)]
pub(crate) struct Progress {
    /// What is counted, in the plural.
    noun: &'static str,
    bar: Option<ProgressBar>,
    told: Instant,
}

impl Progress {
    pub(crate) fn of(noun: &'static str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            // The template is a constant; without it the bar's own style does.
            let template = format!("{{wide_bar}} {{pos}} of {{len}} {noun}, {{eta}} to go");
            if let Ok(style) = ProgressStyle::with_template(&template) {
                bar.set_style(style);
            }
            bar
        });
        Self { noun, bar, told: Instant::now() }
    }

    pub(crate) fn at(&mut self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        } else if self.told.elapsed() >= LINE_EVERY {
            self.told = Instant::now();
            output::note(format_args!("{done} of {total} {}", self.noun));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
