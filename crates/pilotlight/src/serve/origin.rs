//! The origin: its credentials, the thread that talks to it, and whether it is what was meant.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use pilotlight_cache::origin::{ObjectOrigin, Origin, OriginError};
use pilotlight_cache::{Blocking, SystemClock, Tiered, TieredOptions};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::environment;
use crate::failure::Failure;
use crate::output;
use crate::settings::{OriginSettings, Settings};

/// What `tiered` keeps beside the store: see docs/reference/origin.md.
const QUEUE_DIR: &str = "origin";
/// Longest to wait at the start for an origin that may only be slow.
const LOOKED_AT: Duration = Duration::from_secs(5);

/// The thread on which all talk with the origin takes place, so that it takes none of those that serve.
#[derive(Debug)]
pub(super) struct OriginThread {
    runtime: Handle,
    origin: Arc<dyn Origin>,
    /// Dropped, it ends the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl OriginThread {
    /// Starts it, and looks whether the origin is there. One that does not answer is waited for while serving from the disk; one
    /// that answers and cannot be used is a mistake to be told at once.
    pub(super) fn start(settings: &OriginSettings) -> Result<Self, Failure> {
        let mut objects = settings.objects.clone();
        objects.variables = environment::aws_variables();
        if let Some(path) = &settings.credentials {
            objects.variables.extend(credentials(path)?);
        }
        let origin = ObjectOrigin::open(objects)
            .map_err(|error| Failure::new(format!("the origin cannot be used: {error}")))?;
        let fail =
            |error: std::io::Error| Failure::new("could not start the thread for the origin").because(&error);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fail)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("pilotlight-origin".to_owned()).spawn(move || {
            // Whether it was sent or dropped.
            _ = runtime.block_on(stopped);
            // A look-up of a name may hang; nobody waits for it.
            runtime.shutdown_background();
        });
        let thread = Some(thread.map_err(fail)?);
        let started = Self { runtime: handle, origin: Arc::new(origin), stop: Some(stop), thread };
        started.look()?;
        Ok(started)
    }

    fn look(&self) -> Result<(), Failure> {
        let origin = &self.origin;
        let looking = async { tokio::time::timeout(LOOKED_AT, origin.list("v1/", None, 1)).await };
        let looked = self.runtime.block_on(looking);
        match looked.unwrap_or(Err(OriginError::Timeout { after: LOOKED_AT })) {
            Ok(_) => Ok(()),
            Err(error) if error.is_misconfigured() => {
                Err(Failure::new(format!("the origin {origin} cannot be used"))
                    .because(&error)
                    .with_hint_if(error.hint()))
            }
            Err(error) => {
                tracing::warn!(%origin, %error, "the origin does not answer: serving from the disk until it does");
                Ok(())
            }
        }
    }

    /// What [`crate::open`] stacks.
    pub(super) fn tier(
        &self,
        settings: &Settings,
        origin: &OriginSettings,
        blocking: Arc<dyn Blocking>,
    ) -> (Arc<dyn Origin>, TieredOptions) {
        let options = TieredOptions {
            write: origin.write,
            on_error: origin.on_error,
            is_read_only: origin.is_read_only,
            timeout: origin.timeout,
            fresh: origin.fresh,
            miss: origin.miss,
            keep: origin.keep,
            queue_max: origin.queue_max,
            queue_dir: Some(settings.data_dir.join(QUEUE_DIR)),
            entry_bytes_max: settings.server.entry_bytes_max,
            clock: Arc::new(SystemClock),
            blocking,
            runtime: self.runtime.clone(),
            // Seeded by the operating system.
            seed: RandomState::new().hash_one(std::process::id()),
        };
        (self.origin.clone(), options)
    }

    /// Sends what is left, for a while.
    pub(super) fn drain(&self, tiers: &Tiered, longest: Duration) {
        if !self.runtime.block_on(tiers.drain(longest)) {
            let left = output::count(tiers.state().queued, "put");
            output::note(format_args!("{left} did not reach the origin yet, and will after the next start"));
        }
    }
}

impl Drop for OriginThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It only waits for that.
            _ = thread.join();
        }
    }
}

/// What a file of AWS' tools says for one profile: lines `name = value` below `[profile]`.
fn credentials(path: &Path) -> Result<Vec<(String, String)>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(format!("could not read the credentials in `{}`", path.display())).because(&error)
    })?;
    let profile = environment::variable("AWS_PROFILE").unwrap_or_else(|| "default".to_owned());
    let found = of_profile(&text, &profile);
    if found.is_empty() {
        return Err(Failure::new(format!("there is no profile `{profile}` in `{}`", path.display()))
            .with_hint(
                "write `[default]`, and below it `aws_access_key_id = ...` and `aws_secret_access_key = ...`",
            ));
    }
    Ok(found)
}

fn of_profile(text: &str, profile: &str) -> Vec<(String, String)> {
    let mut is_within = false;
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            let name = name.trim();
            is_within = name.strip_prefix("profile ").unwrap_or(name).trim() == profile;
        } else if let Some((name, value)) =
            line.split_once('=').filter(|_| is_within && !line.starts_with(['#', ';']))
        {
            found.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_that_is_asked_for_is_read_and_no_other() {
        let text = "# mine\n[default]\naws_access_key_id = a\naws_secret_access_key=b=c\n; x = y\n\n[ci]\nregion = r\n[profile dev]\nk = v\n";
        let found = |profile| of_profile(text, profile);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(found("default"), [pair("aws_access_key_id", "a"), pair("aws_secret_access_key", "b=c")]);
        assert_eq!((found("ci"), found("dev")), (vec![pair("region", "r")], vec![pair("k", "v")]));
        assert_eq!(found("nobody"), []);
    }
}
