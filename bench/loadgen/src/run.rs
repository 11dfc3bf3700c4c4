//! Runs the clients and measures a window of what they do.

use std::io;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::connection::{Check, Connection, GetReply, PutReply};
use crate::histogram::Histogram;
use crate::options::{Operation, Options};
use crate::payload::{Payloads, Random, key};

/// What a run measured, all clients together.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) operations: u64,
    pub(crate) bytes: u64,
    pub(crate) misses: u64,
    pub(crate) refused: u64,
    pub(crate) verified: u64,
    pub(crate) elapsed: Duration,
    pub(crate) latency: Histogram,
    /// CPU time of the server within the window.
    pub(crate) server_cpu: Option<Duration>,
}

/// When the measured part begins and ends, and how much may still be moved in it.
#[derive(Debug)]
struct Window {
    begin: Instant,
    end: Instant,
    bytes_left: AtomicU64,
}

impl Window {
    /// Whether there is still something to do after `bytes` more have been moved.
    fn take(&self, bytes: u64) -> bool {
        self.bytes_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes))
            .is_ok()
    }
}

pub(crate) fn run(options: &Options) -> io::Result<Measured> {
    let payloads = match &options.corpus {
        Some(directory) => Payloads::corpus(directory)?,
        None => Payloads::random(options.size),
    };
    let connections =
        (0..options.clients).map(|_| Connection::open(&options.addr)).collect::<io::Result<Vec<_>>>()?;
    if options.operation == Operation::Fill {
        return fill(options, &payloads, connections);
    }

    let begin = Instant::now() + options.warmup;
    let window =
        Window { begin, end: begin + options.duration, bytes_left: AtomicU64::new(options.bytes_max) };
    let start = Barrier::new(options.clients);
    thread::scope(|scope| {
        let clients: Vec<_> = connections
            .into_iter()
            .enumerate()
            .map(|(index, connection)| {
                let (payloads, window, start) = (&payloads, &window, &start);
                let client = Client::new(options, payloads, connection, index as u64);
                scope.spawn(move || {
                    start.wait();
                    client.run(window)
                })
            })
            .collect();
        thread::sleep(window.begin.saturating_duration_since(Instant::now()));
        let cpu_before = options.server_pid.map(cpu_time).transpose()?;
        let mut all = Measured::empty();
        let mut last = window.begin;
        for client in clients {
            let (measured, ended) =
                client.join().map_err(|_| io::Error::other("a client thread panicked"))??;
            all.add(&measured);
            last = last.max(ended);
        }
        all.elapsed = last.saturating_duration_since(window.begin);
        if let (Some(pid), Some(before)) = (options.server_pid, cpu_before) {
            all.server_cpu = Some(cpu_time(pid)?.saturating_sub(before));
        }
        Ok(all)
    })
}

/// Puts every key once; the clients share them.
fn fill(options: &Options, payloads: &Payloads, connections: Vec<Connection>) -> io::Result<Measured> {
    let begin = Instant::now();
    let next = AtomicU64::new(0);
    let mut all = Measured::empty();
    thread::scope(|scope| {
        let clients: Vec<_> = connections
            .into_iter()
            .map(|mut connection| {
                let next = &next;
                scope.spawn(move || -> io::Result<Measured> {
                    let mut measured = Measured::empty();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= options.keys {
                            return Ok(measured);
                        }
                        let payload = payloads.get(number, 0);
                        connection.queue_set(&key(number), &payload)?;
                        connection.flush()?;
                        measured.refused += u64::from(connection.put_reply()? == PutReply::Refused);
                        measured.operations += 1;
                        measured.bytes += payload.len() as u64;
                    }
                })
            })
            .collect();
        for client in clients {
            all.add(&client.join().map_err(|_| io::Error::other("a client thread panicked"))??);
        }
        all.elapsed = begin.elapsed();
        Ok(all)
    })
}

impl Measured {
    fn empty() -> Self {
        Self {
            operations: 0,
            bytes: 0,
            misses: 0,
            refused: 0,
            verified: 0,
            elapsed: Duration::ZERO,
            latency: Histogram::new(),
            server_cpu: None,
        }
    }

    fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.bytes += other.bytes;
        self.misses += other.misses;
        self.refused += other.refused;
        self.verified += other.verified;
        self.latency.merge(&other.latency);
    }
}

/// One connection and what its thread needs.
struct Client<'a> {
    options: &'a Options,
    payloads: &'a Payloads,
    connection: Connection,
    random: Random,
    index: u64,
    /// Puts made, over all keys; makes the next one's bytes new.
    generation: u64,
    /// Replies seen, to choose which are compared.
    replies: u64,
}

impl<'a> Client<'a> {
    fn new(options: &'a Options, payloads: &'a Payloads, connection: Connection, index: u64) -> Self {
        let random = Random::new(options.seed.wrapping_mul(1_000_003).wrapping_add(index));
        // Generations of different runs and clients must differ too, or their puts would be of the same bytes.
        let generation = (options.seed << 40) | (index << 32) | 1;
        Self { options, payloads, connection, random, index, generation, replies: 0 }
    }

    /// Works until the window ends; returns what fell into it and when the last of that ended.
    fn run(mut self, window: &Window) -> io::Result<(Measured, Instant)> {
        let mut measured = Measured::empty();
        let mut ended = window.begin;
        loop {
            let sent = Instant::now();
            // At least one batch each: a window that every batch outlasts would otherwise measure nothing.
            if sent >= window.end && measured.operations > 0 {
                break;
            }
            let is_measured = sent >= window.begin;
            let mut batch = Batch::default();
            match self.options.operation {
                Operation::Get => self.get_batch(&mut batch)?,
                Operation::Set | Operation::Fill => self.set_batch(&mut batch)?,
            }
            if is_measured {
                ended = Instant::now();
                measured.latency.record(ended - sent, batch.operations);
                measured.operations += batch.operations;
                measured.bytes += batch.bytes;
                measured.misses += batch.misses;
                measured.refused += batch.refused;
                measured.verified += batch.verified;
                if !window.take(batch.bytes) {
                    break;
                }
            }
        }
        if self.options.operation == Operation::Set {
            measured.verified += self.verify_last_put()?;
        }
        Ok((measured, ended))
    }

    fn get_batch(&mut self, batch: &mut Batch) -> io::Result<()> {
        let numbers: Vec<u64> =
            (0..self.options.pipeline).map(|_| self.random.below(self.options.keys)).collect();
        for &number in &numbers {
            self.connection.queue_get(&key(number));
        }
        self.connection.flush()?;
        for &number in &numbers {
            let expected = self.payloads.get(number, 0);
            self.replies += 1;
            let check = if self.replies.is_multiple_of(self.options.verify_every) {
                Check::Bytes
            } else {
                Check::Length
            };
            match self.connection.get_reply(&expected, check)? {
                GetReply::Hit => {
                    batch.bytes += expected.len() as u64;
                    batch.verified += u64::from(check == Check::Bytes);
                }
                GetReply::Miss => batch.misses += 1,
            }
            batch.operations += 1;
        }
        Ok(())
    }

    fn set_batch(&mut self, batch: &mut Batch) -> io::Result<()> {
        for _ in 0..self.options.pipeline {
            self.generation += 1;
            let number = self.own_number();
            let payload = self.payloads.get(number, self.generation);
            self.connection.queue_set(&key(number), &payload)?;
            batch.bytes += payload.len() as u64;
            batch.operations += 1;
        }
        self.connection.flush()?;
        for _ in 0..self.options.pipeline {
            batch.refused += u64::from(self.connection.put_reply()? == PutReply::Refused);
        }
        Ok(())
    }

    /// Clients put different keys, so that each knows what must be under its own.
    fn own_number(&self) -> u64 {
        let clients = self.options.clients as u64;
        let own = (self.options.keys / clients).max(1);
        self.generation.checked_rem(own).unwrap_or(0) * clients + self.index
    }

    /// Reads back what this client put last; one more check than the reply's OK.
    fn verify_last_put(&mut self) -> io::Result<u64> {
        let number = self.own_number();
        self.connection.queue_get(&key(number));
        self.connection.flush()?;
        let expected = self.payloads.get(number, self.generation);
        match self.connection.get_reply(&expected, Check::Bytes)? {
            GetReply::Hit => Ok(1),
            // A cache may evict, and may have refused.
            GetReply::Miss => Ok(0),
        }
    }
}

/// What one batch did.
#[derive(Debug, Default)]
struct Batch {
    operations: u64,
    bytes: u64,
    misses: u64,
    refused: u64,
    verified: u64,
}

/// User and system time of a process. The kernel counts in hundredths of a second on every Linux there is.
fn cpu_time(pid: u32) -> io::Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold spaces; field 3 follows it, user and system time are fields 14 and 15.
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}
