//! `pilotlight run`: a command with the plug-in switched on, and what it gained.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

use pilotlight_cache::client::Address;
use pilotlight_cache::trust::{Policy, Reason};
use rustix::process;
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::Run;
use crate::environment;
use crate::failure::Failure;
use crate::output::{self, Answer};

const URL_DEFAULT: &str = "pilotlight://127.0.0.1:6379";
/// What shells answer for a command that is not there.
const NOT_FOUND: u8 = 127;

/// Counts by kind and reason.
type Counts = BTreeMap<String, BTreeMap<String, u64>>;

/// What one process says of itself, or all of them together. Written by the plug-in (`python/pilotlight/_summary.py`).
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Report {
    /// How many processes used the cache.
    processes: u64,
    hit: Counts,
    miss: Counts,
    put: Counts,
    /// Puts that did not reach the cache.
    drop: Counts,
    /// Entries that were there and could not be used.
    refused: Counts,
    /// Graphs that torch does not cache.
    bypass: Counts,
    /// Entries of torch's local cache that the cache lacked.
    backfill: Counts,
    /// Compiles of others that were waited for.
    wait: Counts,
    /// How long, in milliseconds.
    waited_ms: u64,
    /// What the processes' clients counted (docs/plugin.md). For the summary alone.
    #[serde(skip_serializing)]
    client: BTreeMap<String, u64>,
    /// Compile time that the hits took when they were made, in milliseconds.
    saved_ms: u64,
}

pub(super) fn run(arguments: &Run) -> Result<Answer, Failure> {
    let url = url(arguments)?;
    let directory = std::env::temp_dir().join(format!("pilotlight-run-{}", std::process::id()));
    std::fs::create_dir(&directory)
        .map_err(|error| Failure::new(format!("cannot make {}", directory.display())).because(&error))?;
    let lines = directory.join("report.jsonl");
    let result = run_with(arguments, &url, &lines);
    let report = Report::read(&lines);
    // It lies in the directory for temporary files: whoever cleans that up finds it.
    let _ = std::fs::remove_dir_all(&directory);
    let status = result?;
    if let Some(path) = &arguments.report {
        let text = serde_json::to_string_pretty(&report).unwrap_or_default() + "\n";
        std::fs::write(path, text)
            .map_err(|error| Failure::new(format!("cannot write {}", path.display())).because(&error))?;
    }
    if !arguments.quiet {
        report.lines(status.success()).iter().for_each(output::note);
    }
    Ok(Answer::Code(code(status)))
}

/// The cache to use, if that is one: a wrong one would merely make every compile a cold one.
fn url(arguments: &Run) -> Result<String, Failure> {
    let (name, url) = match (&arguments.url, environment::variable("PILOTLIGHT_URL")) {
        (Some(url), _) => ("--url", url.clone()),
        (None, Some(url)) => ("PILOTLIGHT_URL", url),
        (None, None) => return Ok(URL_DEFAULT.to_owned()),
    };
    match Address::parse(&url) {
        Ok(_) => Ok(url),
        Err(error) => Err(Failure::of_address(name, &error)),
    }
}

fn run_with(arguments: &Run, url: &str, lines: &Path) -> Result<ExitStatus, Failure> {
    let (program, rest) = arguments.command.split_first().ok_or_else(|| Failure::new("no command"))?;
    if std::env::var_os("TORCH_DEVICE_BACKEND_AUTOLOAD").is_some_and(|value| value == "0") {
        output::note("warning: TORCH_DEVICE_BACKEND_AUTOLOAD=0 keeps torch from loading the plug-in");
        output::note("hint: unset it, or put `import pilotlight.torch` before torch is used");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("cannot start").because(&error))?;
    runtime.block_on(async {
        // Before the child is there: what comes a moment after its start must not end this process without it.
        let signals =
            Signals::listen().map_err(|error| Failure::new("cannot listen for signals").because(&error))?;
        let mut command = Command::new(program);
        // One summary for all processes, below, instead of one each.
        command
            .args(rest)
            .env("PILOTLIGHT_URL", url)
            .env("PILOTLIGHT_REPORT", lines)
            .env("PILOTLIGHT_SUMMARY", "0");
        if arguments.quiet {
            command.env("PILOTLIGHT_QUIET", "1");
        }
        let child = command.spawn().map_err(|error| {
            let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_FOUND - 1 };
            Failure::new(format!("cannot run `{}`", program.display())).because(&error).with_code(code)
        })?;
        signals.wait(child).await.map_err(|error| Failure::new("cannot wait for the command").because(&error))
    })
}

/// What a person or a supervisor ends a command with.
#[derive(Debug)]
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the child, passing signals on to it: it ends in its own way, and then the summary comes.
    async fn wait(mut self, mut child: Child) -> io::Result<ExitStatus> {
        loop {
            let pass_on = tokio::select! {
                status = child.wait() => return status,
                // The terminal sends it to the child as well.
                _ = self.interrupt.recv() => continue,
                _ = self.terminate.recv() => process::Signal::TERM,
                _ = self.hang_up.recv() => process::Signal::HUP,
            };
            let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(process::Pid::from_raw);
            if let Some(pid) = pid {
                // It may have ended just now.
                let _ = process::kill_process(pid, pass_on);
            }
        }
    }
}

/// As a shell gives it: 128 and the signal for a command that a signal ended.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

impl Report {
    /// All lines that can be read, together; none if no process wrote one.
    fn read(path: &Path) -> Self {
        let mut sum = Self::default();
        let text = std::fs::read_to_string(path).unwrap_or_default();
        for report in text.lines().filter_map(|line| serde_json::from_str::<Self>(line).ok()) {
            sum.processes += 1;
            sum.saved_ms += report.saved_ms;
            sum.waited_ms += report.waited_ms;
            for (into, from) in [
                (&mut sum.hit, report.hit),
                (&mut sum.miss, report.miss),
                (&mut sum.put, report.put),
                (&mut sum.drop, report.drop),
                (&mut sum.refused, report.refused),
                (&mut sum.bypass, report.bypass),
                (&mut sum.backfill, report.backfill),
                (&mut sum.wait, report.wait),
            ] {
                add(into, from);
            }
            report.client.into_iter().for_each(|(name, count)| *sum.client.entry(name).or_default() += count);
        }
        sum
    }

    /// What became of entries that nobody trusted signed, if there were any: a cache that lets nothing through must not look like an
    /// empty one.
    fn signature_lines(&self, policy: Policy) -> Vec<String> {
        let count_of = |name: &str| self.client.get(name).copied().unwrap_or_default();
        let counts = Reason::ALL.map(|reason| (reason, count_of(&reason.name().replace('-', "_"))));
        let total: u64 = counts.iter().map(|(_, count)| count).sum();
        if total == 0 {
            return Vec::new();
        }
        let told: Vec<String> = counts
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| format!("{count} {reason}"))
            .collect();
        let what = if policy == Policy::Warn {
            "used that nobody trusted signed"
        } else {
            "not used for their signature"
        };
        let mut lines = vec![format!("  {} {what} ({})", output::count(total, "entry"), told.join(", "))];
        if policy != Policy::Warn && count_of("hits") == 0 {
            lines.push(
                "  hint: none was used; `pilotlight doctor` says whose signatures are missing, docs/signing.md how to switch \
                 them on"
                    .to_owned(),
            );
        }
        lines
    }

    fn lines(&self, is_success: bool) -> Vec<String> {
        if self.processes == 0 {
            let mut lines = vec!["pilotlight: no process of this command used the cache".to_owned()];
            if is_success {
                lines.push(
                    "hint: it must compile with torch, from an environment in which `pilotlight` is installed"
                        .to_owned(),
                );
            }
            return lines;
        }
        let mut lines = vec![format!(
            "pilotlight: {}, {}{}, {}; {:.1} s of compiling saved in {}",
            output::count(total(&self.hit), "hit"),
            output::count(total(&self.miss), "miss"),
            reasons(&self.miss),
            output::count(total(&self.put), "put"),
            self.saved_ms as f64 / 1000.0,
            output::count(self.processes, "process"),
        )];
        if total(&self.wait) > 0 {
            lines.push(format!(
                "  waited {:.1} s for {} of others{}",
                self.waited_ms as f64 / 1000.0,
                output::count(total(&self.wait), "compile"),
                reasons(&self.wait),
            ));
        }
        for (counts, what) in [
            (&self.drop, "dropped: puts that did not reach the cache"),
            (&self.refused, "refused: entries that could not be used"),
            (&self.bypass, "bypassed: graphs that torch does not cache"),
        ] {
            if total(counts) > 0 {
                lines.push(format!("  {} {what}{}", total(counts), reasons(counts)));
            }
        }
        let policy =
            environment::signing().verify.map(|name| Policy::named(&name).unwrap_or(Policy::Require));
        lines.extend(self.signature_lines(policy.unwrap_or_default()));
        lines
    }
}

fn add(into: &mut Counts, from: Counts) {
    for (kind, reasons) in from {
        let sums = into.entry(kind).or_default();
        reasons.into_iter().for_each(|(reason, count)| *sums.entry(reason).or_default() += count);
    }
}

fn total(counts: &Counts) -> u64 {
    counts.values().flat_map(BTreeMap::values).sum()
}

/// The most frequent reasons first, in brackets.
fn reasons(counts: &Counts) -> String {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for (reason, count) in counts.values().flatten().filter(|(reason, _)| !reason.is_empty()) {
        *sums.entry(reason).or_default() += count;
    }
    if sums.is_empty() {
        return String::new();
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let told: Vec<String> =
        sums.into_iter().take(4).map(|(reason, count)| format!("{count} {reason}")).collect();
    format!(" ({})", told.join(", "))
}
