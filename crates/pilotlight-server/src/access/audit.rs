//! Who did what, one JSON object a line, in a file of its own.
//!
//! Whoever notes something hands it over and goes on: the queue is bounded, and what does not fit is counted. A thread writes.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use pilotlight_cache::Namespace;
use serde::Serialize;

/// Lines that may wait for the disk: some 10 MB, and a tenth of a second of puts at most.
const WAITING_MAX: usize = 65_536;

/// Where to note who did what; nowhere, unless it was opened.
#[derive(Debug, Default)]
pub struct Audit {
    sender: Option<SyncSender<Message>>,
    dropped: AtomicU64,
    /// Whether a new file is to be begun, where the channel had no room for that.
    is_renamed: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

enum Message {
    Event(Box<Event>),
    /// The file was renamed: begin a new one.
    Reopen,
    Close,
}

/// One line.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Event {
    pub(crate) time_ms: u64,
    /// Who, as far as that is known: of a login that failed, who was claimed.
    #[serde(serialize_with = "shared")]
    pub(crate) user: Arc<str>,
    /// Where from.
    #[serde(serialize_with = "shared")]
    pub(crate) peer: Arc<str>,
    /// What: a command, a request, `login`, `reload`.
    #[serde(serialize_with = "shared")]
    pub(crate) action: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "text")]
    pub(crate) namespace: Option<Namespace>,
    /// On which key, by its hash in hexadecimal, as in logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    pub(crate) outcome: Deed,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Deed {
    Ok,
    /// Not allowed.
    Denied,
    /// Allowed, and not done: there was nothing to do, or no room.
    Unmet,
    /// An error.
    Failed,
}

/// Serde has shared text under a feature of its own alone.
fn shared<S: serde::Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

fn text<S: serde::Serializer>(namespace: &Option<Namespace>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(namespace.as_ref().map_or("", Namespace::as_str))
}

impl Audit {
    /// Notes in the file at `path` from now on, behind what it holds. Only its owner may read it.
    ///
    /// # Errors
    /// When the file cannot be opened, or the system has no thread to give.
    pub fn open(path: &Path) -> io::Result<Self> {
        let is_renamed = Arc::new(AtomicBool::new(false));
        let log = Log { path: path.to_owned(), file: open(path)?, is_renamed: Arc::clone(&is_renamed) };
        let (sender, receiver) = sync_channel(WAITING_MAX);
        let spawned =
            std::thread::Builder::new().name("audit".to_owned()).spawn(move || log.write(&receiver));
        Ok(Self {
            sender: Some(sender),
            dropped: AtomicU64::new(0),
            is_renamed,
            thread: Mutex::new(Some(spawned?)),
        })
    }

    /// Whether anything is noted: else what would be need not be gathered.
    pub(crate) fn is_on(&self) -> bool {
        self.sender.is_some()
    }

    /// Notes an event, unless too many wait.
    pub(crate) fn note(&self, event: Event) {
        if let Some(sender) = &self.sender
            && sender.try_send(Message::Event(Box::new(event))).is_err()
        {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// How many events were not noted since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Begins a new file under the same name: the old one was renamed. Waits for nothing, however many events wait to be written.
    pub fn reopen(&self) {
        if let Some(sender) = &self.sender
            && sender.try_send(Message::Reopen).is_err()
        {
            self.is_renamed.store(true, Relaxed);
        }
    }

    /// Waits until everything noted so far is written. Nothing is noted afterwards.
    pub(crate) fn close(&self) {
        if let Some(sender) = &self.sender {
            let _ = sender.send(Message::Close);
        }
        if let Some(thread) = self.thread.lock().take() {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.close();
    }
}

fn open(path: &Path) -> io::Result<BufWriter<File>> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(BufWriter::new)
}

struct Log {
    path: PathBuf,
    file: BufWriter<File>,
    is_renamed: Arc<AtomicBool>,
}

impl Log {
    fn reopen(&mut self) {
        match open(&self.path) {
            Ok(file) => self.file = file,
            Err(error) => {
                tracing::error!(%error, "cannot open the audit log anew; it goes on in the old file")
            }
        }
    }

    fn write(mut self, messages: &Receiver<Message>) {
        let mut is_failing = false;
        loop {
            let message = match messages.try_recv() {
                Ok(message) => message,
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {
                    self.tell(&mut is_failing, Write::flush);
                    match messages.recv() {
                        Ok(message) => message,
                        Err(_) => break,
                    }
                }
            };
            if self.is_renamed.swap(false, Relaxed) {
                self.tell(&mut is_failing, Write::flush);
                self.reopen();
            }
            match message {
                Message::Event(event) => {
                    let mut line = serde_json::to_vec(&event).unwrap_or_default();
                    line.push(b'\n');
                    self.tell(&mut is_failing, |file| file.write_all(&line));
                }
                Message::Reopen => {
                    self.tell(&mut is_failing, Write::flush);
                    self.reopen();
                }
                Message::Close => break,
            }
        }
        self.tell(&mut is_failing, Write::flush);
    }

    /// Does something to the file. That it fails is logged once, until it does not.
    fn tell(&mut self, is_failing: &mut bool, act: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) {
        match act(&mut self.file) {
            Ok(()) => *is_failing = false,
            Err(error) => {
                if !std::mem::replace(is_failing, true) {
                    tracing::error!(%error, "cannot write the audit log");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &str) -> Event {
        Event {
            time_ms: 7,
            user: "ci".into(),
            peer: "10.0.0.1:5".into(),
            action: action.into(),
            namespace: Some(Namespace::new("ci").unwrap()),
            key: Some("00ff".to_owned()),
            outcome: Deed::Ok,
        }
    }

    #[test]
    fn lines_are_json_and_go_on_in_a_new_file_after_a_rename() {
        let directory = tempfile::tempdir().unwrap();
        let (path, old) = (directory.path().join("audit"), directory.path().join("audit.1"));
        let audit = Audit::open(&path).unwrap();
        audit.note(event("set"));
        std::fs::rename(&path, &old).unwrap();
        audit.note(event("del"));
        audit.reopen();
        audit.note(event("get"));
        audit.close();
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        let line = |action: &str| {
            format!(
                "{{\"time_ms\":7,\"user\":\"ci\",\"peer\":\"10.0.0.1:5\",\"action\":\"{action}\",\
                 \"namespace\":\"ci\",\"key\":\"00ff\",\"outcome\":\"ok\"}}\n"
            )
        };
        assert_eq!(read(&old), line("set") + &line("del"));
        assert_eq!(read(&path), line("get"));
        assert_eq!(audit.dropped(), 0);
    }

    #[test]
    fn what_does_not_fit_is_counted_and_holds_nobody_up() {
        let (sender, receiver) = sync_channel(2);
        let mut audit = Audit::default();
        audit.sender = Some(sender);
        for _ in 0..5 {
            audit.note(event("set"));
        }
        assert_eq!(audit.dropped(), 3);
        drop(receiver);
    }

    #[test]
    fn an_audit_that_is_off_notes_nothing() {
        let audit = Audit::default();
        audit.note(event("set"));
        assert!(!audit.is_on() && audit.dropped() == 0);
    }
}
