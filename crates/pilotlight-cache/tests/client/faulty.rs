//! A server that misbehaves as it is told, one connection after the other.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a connection does with each command after the greeting.
#[derive(Debug, Clone)]
pub(crate) enum Does {
    /// Answers these bytes.
    Answers(Vec<u8>),
    /// Answers these bytes, one at a time with this pause between.
    Drips(Vec<u8>, Duration),
    /// Answers these bytes, so many at a time with this pause between.
    Paces(Vec<u8>, usize, Duration),
    /// Answers these bytes, then nothing more.
    Stalls(Vec<u8>),
    /// Answers these bytes, then closes the connection.
    Closes(Vec<u8>),
}

/// Closed when dropped; its threads end with their connections.
pub(crate) struct Faulty {
    pub(crate) port: u16,
    connections: Arc<AtomicUsize>,
    does: Arc<Mutex<Script>>,
    /// Stalled connections wait for this to close.
    _open: Sender<()>,
}

struct Script {
    greeting: Does,
    command: Does,
}

pub(crate) const KNOWN: &[u8] = b"-ERR wrong number of arguments for 'pilotlight.mget' command\r\n";

impl Faulty {
    /// Greets as a Pilotlight does, and then answers every command in this way.
    pub(crate) fn that(does: Does) -> Self {
        Self::that_greets(Does::Answers(KNOWN.to_vec()), does)
    }

    pub(crate) fn that_greets(greeting: Does, command: Does) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let does = Arc::new(Mutex::new(Script { greeting, command }));
        let (open, closed) = channel();
        let closed = Arc::new(Mutex::new(closed));
        let (counter, script) = (connections.clone(), does.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                counter.fetch_add(1, Ordering::SeqCst);
                let (stream, script, closed) = (stream.unwrap(), script.clone(), closed.clone());
                std::thread::spawn(move || serve(&stream, &script, &closed));
            }
        });
        Self { port, connections, does, _open: open }
    }

    pub(crate) fn now(&self, does: Does) {
        self.does.lock().unwrap().command = does;
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn serve(stream: &TcpStream, script: &Mutex<Script>, closed: &Mutex<Receiver<()>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut is_greeting = true;
    loop {
        command(&mut reader)?;
        let does = {
            let script = script.lock().unwrap();
            if is_greeting { script.greeting.clone() } else { script.command.clone() }
        };
        is_greeting = false;
        let mut writer = stream;
        match does {
            Does::Answers(bytes) => writer.write_all(&bytes).ok()?,
            Does::Drips(bytes, pause) => {
                for byte in bytes {
                    writer.write_all(&[byte]).ok()?;
                    std::thread::sleep(pause);
                }
            }
            Does::Paces(bytes, len, pause) => {
                for part in bytes.chunks(len) {
                    writer.write_all(part).ok()?;
                    std::thread::sleep(pause);
                }
            }
            Does::Stalls(bytes) => {
                writer.write_all(&bytes).ok()?;
                let _ = closed.lock().unwrap().recv();
                return None;
            }
            Does::Closes(bytes) => {
                writer.write_all(&bytes).ok()?;
                return None;
            }
        }
    }
}

/// Reads one command, whatever it is.
fn command(reader: &mut impl BufRead) -> Option<()> {
    for _ in 0..length(reader)? {
        let len = length(reader)?;
        std::io::copy(&mut reader.take(len + 2), &mut std::io::sink()).ok()?;
    }
    Some(())
}

fn length(reader: &mut impl BufRead) -> Option<u64> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    line.trim_end().get(1..)?.parse().ok()
}
