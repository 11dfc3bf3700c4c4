//! Runs the built binary, and shows what came of it as one text to compare.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use tempfile::TempDir;

/// A home of its own: nothing of the machine's settings reaches a test.
pub(crate) struct Home {
    pub(crate) directory: TempDir,
    variables: Vec<(String, String)>,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), variables: Vec::new() }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pilotlight"));
        command.env_clear().env("HOME", self.directory.path()).current_dir(self.directory.path());
        command.envs(self.variables.iter().cloned()).args(arguments);
        command
    }

    pub(crate) fn output(&self, arguments: &[&str], stdin: &[u8]) -> Output {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that fails early does not read it.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        child.wait_with_output().unwrap()
    }

    /// Exit code, stdout and stderr in one text, with this home's path as `[HOME]`.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        self.run_with(arguments, b"")
    }

    pub(crate) fn run_with(&self, arguments: &[&str], stdin: &[u8]) -> String {
        let output = self.output(arguments, stdin);
        let mut text = format!("exit {}\n", output.status.code().unwrap());
        for (name, bytes) in [("out", output.stdout), ("err", output.stderr)] {
            for line in String::from_utf8(bytes).unwrap().lines() {
                text += format!("{name}: {line}").trim_end();
                text += "\n";
            }
        }
        text.replace(self.directory.path().to_str().unwrap(), "[HOME]")
    }

    /// Starts `serve` on free ports and waits until it takes connections.
    pub(crate) fn serve(&self, arguments: &[&str]) -> Serving {
        let ports = self.path("ports.json");
        let _ = std::fs::remove_file(&ports);
        let mut all = vec!["serve", "--http", "127.0.0.1:0", "--port-file", ports.to_str().unwrap()];
        if !arguments.contains(&"--listen") {
            all.extend(["--listen", "127.0.0.1:0"]);
        }
        all.extend(arguments);
        let mut child = self.command(&all).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut announced = String::new();
        // An empty line after the variables ends the announcement; the port file follows.
        while !(announced.contains("  export ") && announced.ends_with("\n\n")) {
            let read = stderr.read_line(&mut announced).unwrap();
            assert!(read > 0, "serve ended: {announced}");
        }
        wait_for(&ports, &mut child);
        let addresses = serde_json::from_slice(&std::fs::read(&ports).unwrap()).unwrap();
        Serving { child, stderr, announced, addresses }
    }
}

/// Waits for a file that a running process is about to rename into place.
fn wait_for(path: &Path, child: &mut Child) {
    while !path.exists() {
        assert!(child.try_wait().unwrap().is_none(), "serve ended early");
        std::thread::yield_now();
    }
}

pub(crate) struct Serving {
    child: Child,
    stderr: BufReader<ChildStderr>,
    pub(crate) announced: String,
    pub(crate) addresses: serde_json::Value,
}

impl Serving {
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addresses["http"][0].as_str().unwrap())
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// The next line that is said.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Waits for the end: exit code, and what was said since the announcement.
    pub(crate) fn end(mut self) -> (i32, String) {
        let mut text = String::new();
        self.stderr.read_to_string(&mut text).unwrap();
        (self.child.wait().unwrap().code().unwrap(), text)
    }

    /// Waits for the end, and says which signal it was.
    pub(crate) fn end_by_signal(mut self) -> Option<i32> {
        std::os::unix::process::ExitStatusExt::signal(&self.child.wait().unwrap())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Ended already, in most tests.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Compares line by line, so that a difference shows in context.
#[track_caller]
pub(crate) fn expect(found: &str, expected: &str) {
    assert_eq!(found.trim_end(), expected.trim(), "\nfound:\n{found}");
}
