//! The same commands to a real Redis and to us must get the same bytes.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use crate::client::{Client, Running};

/// A `redis-server` on a Unix socket in a directory of its own.
struct Redis {
    child: Child,
    directory: tempfile::TempDir,
}

impl Redis {
    /// `None`, loudly, where Redis is not installed.
    fn start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--unixsocket", "redis.sock", "--dir"])
            .arg(directory.path())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                eprintln!("SKIPPED: no differential test without redis-server: {error}");
                return None;
            }
        };
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let is_ready = |line: &String| line.contains("Ready to accept") || line.contains("ready to accept");
        while !is_ready(&lines.next().expect("redis-server ended before it was ready").unwrap()) {}
        // Whatever it still logs must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { child, directory })
    }

    fn connect(&self) -> Client<UnixStream> {
        Client::new(UnixStream::connect(self.directory.path().join("redis.sock")).unwrap())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Commands whose replies depend on nothing but the commands before them. `"` quotes as in inline commands.
const TABLE: &str = include_str!("resp_differential.txt");

/// Splits a line of the table into arguments.
fn words(line: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').expect("balanced quotes"),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(word.replace("\\r", "\r").replace("\\n", "\n").into_bytes());
        rest = after.trim_start();
    }
    words
}

fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// Sends one command to both and compares.
fn compare(
    redis: &mut Client<impl Read + Write>,
    ours: &mut Client<impl Read + Write>,
    args: &[Vec<u8>],
    differences: &mut Vec<String>,
) {
    let (theirs, ours) = (redis.call(args), ours.call(args));
    if theirs != ours && !is_a_moment_apart(&args[0], &theirs, &ours) {
        let line: Vec<String> = args.iter().map(|arg| show(arg)).collect();
        differences.push(format!("{}\n  redis: {}\n  ours:  {}", line.join(" "), show(&theirs), show(&ours)));
    }
}

/// Whether two times differ only by when they were asked for.
fn is_a_moment_apart(command: &[u8], theirs: &[u8], ours: &[u8]) -> bool {
    let number =
        |reply: &[u8]| std::str::from_utf8(reply).ok()?.strip_prefix(':')?.trim().parse::<i64>().ok();
    let tolerance = match command {
        b"TTL" | b"EXPIRETIME" => 1,
        b"PTTL" | b"PEXPIRETIME" => 1000,
        _ => return false,
    };
    let (Some(theirs), Some(ours)) = (number(theirs), number(ours)) else { return false };
    theirs > 0 && ours > 0 && theirs.abs_diff(ours) <= tolerance
}

fn report(differences: &[String]) {
    assert!(differences.is_empty(), "{} differences\n{}", differences.len(), differences.join("\n"));
}

fn table_in(hello: &str) {
    let Some(redis) = Redis::start() else { return };
    let running = Running::start();
    let (mut redis, mut ours) = (redis.connect(), running.connect());
    redis.ask(hello);
    ours.ask(hello);
    let mut differences = Vec::new();
    for line in TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        compare(&mut redis, &mut ours, &words(line), &mut differences);
    }
    report(&differences);
}

#[test]
fn the_table_answers_as_redis_in_resp2() {
    table_in("HELLO 2");
}

#[test]
fn the_table_answers_as_redis_in_resp3() {
    table_in("HELLO 3");
}

/// What ends a connection: each on one of its own, and the end compared too.
#[test]
fn protocol_errors_answer_as_redis_and_close() {
    let Some(redis) = Redis::start() else { return };
    let running = Running::start();
    let long = "9".repeat(70_000);
    let mut differences = Vec::new();
    for input in [
        "*x\r\n",
        "*99999999999999999999\r\n",
        "*1\r\n$x\r\n",
        "*1\r\n$-2\r\n",
        "*1\r\n$999999999999\r\n",
        "*1\r\nx\r\n",
        "*1\r\n\r\n",
        "*1\r\n+OK\r\n",
        "GET \"a\r\n",
        "GET 'a'b\r\n",
        "QUIT\r\n",
        "\r\n\r\n*0\r\n*-5\r\nPING\r\nQUIT\r\n",
        "PING \"\\x41\\n\"\r\nPING 'it\\'s'\r\nQUIT\r\n",
        "SET k v\nGET k\nQUIT\n",
        &format!("*{long}"),
        &format!("*1\r\n${long}"),
        &long,
    ] {
        let mut theirs = redis.connect();
        let mut ours = running.connect();
        theirs.send(input.as_bytes());
        ours.send(input.as_bytes());
        let (theirs, ours) = (theirs.until_closed(), ours.until_closed());
        if theirs != ours {
            let input = show(&input.as_bytes()[..input.len().min(60)]);
            differences.push(format!("{input}\n  redis: {}\n  ours:  {}", show(&theirs), show(&ours)));
        }
    }
    report(&differences);
}

/// A small generator of our own: the same seed, the same commands, on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    /// A template with its places filled: `k` a key, `v` a value, `i` an integer, `o` options of `SET`.
    fn command(&mut self) -> Vec<Vec<u8>> {
        const TEMPLATES: &[&str] = &[
            "GET k",
            "SET k v",
            "SET k v o",
            "SET k v o o",
            "SETNX k v",
            "GETSET k v",
            "GETDEL k",
            "APPEND k v",
            "STRLEN k",
            "GETRANGE k i i",
            "SETRANGE k i v",
            "INCR k",
            "DECR k",
            "INCRBY k i",
            "DECRBY k i",
            "DEL k k",
            "EXISTS k k",
            "MSET k v k v",
            "MSETNX k v k v",
            "MGET k k k",
            "RENAME k k",
            "RENAMENX k k",
            "COPY k k",
            "COPY k k REPLACE",
            "MOVE k i",
            "SELECT 0",
            "SELECT 1",
            "TYPE k",
            "PERSIST k",
            "EXPIRE k p",
            "EXPIRE k 1000 r",
            "EXPIRE k p r",
            "EXPIREAT k 99999999999 e",
            "EXPIREAT k 88888888888 e",
            "TTL k",
            "EXPIRETIME k",
            "GETEX k",
            "GETEX k EX 5000",
            "GETEX k PERSIST",
            "DBSIZE",
            "MULTI",
            "EXEC",
            "DISCARD",
            "UNWATCH",
            "UNLINK k",
            "TOUCH k",
            "SETEX k 500 v",
            "PSETEX k p v",
            "SUBSTR k i i",
            "INCRBYFLOAT decimal f",
            "FLUSHDB",
            "NOSUCH k",
            "GET",
            "SET k",
        ];
        let template = self.of(TEMPLATES);
        let words = template.split(' ').map(|word| match word {
            "k" => self.of(&["a", "b", "c", "d"]),
            "v" => self.of(&["", "v", "12", "-7", "9223372036854775807", "3.5", "hello world", "007"]),
            "i" => self.of(&[
                "0",
                "1",
                "2",
                "-1",
                "-3",
                "5",
                "x",
                "",
                "9223372036854775807",
                "-9223372036854775808",
            ]),
            // Times that do not come while the test runs; relative ones are never compared, since both clocks move on.
            "p" => self.of(&["0", "-1", "x", "", "1000000", "9223372036854775807", "-9223372036854775808"]),
            "r" => self.of(&["NX", "XX", "NX XX", "BAD"]),
            "f" => self.of(&["0.1", "-2.5", "1e2", "x", "3"]),
            "o" => self.of(&[
                "NX",
                "XX",
                "GET",
                "KEEPTTL",
                "EX 100",
                "EX 0",
                "PX -1",
                "EXAT 99999999999",
                "BAD",
                "EX",
            ]),
            "e" => self.of(&["NX", "XX", "GT", "LT", "XX GT", "NX XX", "BAD"]),
            other => other,
        });
        // Values may hold spaces; options are split at theirs.
        words
            .flat_map(|word| if word == "hello world" { vec![word] } else { word.split(' ').collect() })
            .map(|word| word.as_bytes().to_vec())
            .collect()
    }
}

#[test]
fn random_commands_answer_as_redis() {
    let Some(redis) = Redis::start() else { return };
    let running = Running::start();
    for (seed, hello) in [(1, "HELLO 2"), (2, "HELLO 3"), (3, "HELLO 2")] {
        let (mut redis, mut ours) = (redis.connect(), running.connect());
        redis.ask(hello);
        ours.ask(hello);
        let mut random = Random(seed);
        let mut differences = Vec::new();
        for _ in 0..10_000 {
            let args = random.command();
            compare(&mut redis, &mut ours, &args, &mut differences);
            if differences.len() > 20 {
                break;
            }
        }
        report(&differences);
    }
}
