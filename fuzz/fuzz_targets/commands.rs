//! Whatever a client sends, the server answers in RESP, with no more replies than there were requests, and is there for the next.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use pilotlight_fuzz::{replies, server};

/// Mostly commands, since few bytes drawn at random are one.
#[derive(Debug, Arbitrary)]
enum Sent {
    Command { name: u8, args: Vec<Argument> },
    Bytes(Vec<u8>),
}

#[derive(Debug, Arbitrary)]
enum Argument {
    Bytes(Vec<u8>),
    Key(u8),
    Number(i64),
    Word(u8),
}

const WORDS: &[&str] = &[
    "NX",
    "XX",
    "GET",
    "EX",
    "PX",
    "EXAT",
    "PXAT",
    "KEEPTTL",
    "PERSIST",
    "MATCH",
    "COUNT",
    "TYPE",
    "DB",
    "REPLACE",
    "AUTH",
    "SETNAME",
    "ASYNC",
    "SYNC",
    "AGAIN",
    "WITHMATCHLEN",
    "LIST",
    "INFO",
    "ID",
    "ON",
    "OFF",
    "SKIP",
    "DOCS",
    "ENCODING",
    "USAGE",
    "FREQ",
    "*",
    "pt2:fx-graph-v1::f:c1",
    "triton:abc:k.json",
    "string",
    "3",
    "2",
    "default",
];
const KEYS: &[&str] =
    &["a", "b", "pt2:fx-graph-v1::f:c1", "pt2:fx-graph-v1::f:c1#v", "pt2:autograd-experimental::x:c1", ""];

fn pick<'a>(from: &[&'a str], at: u8) -> &'a str {
    from[usize::from(at) % from.len()]
}

fuzz_target!(|sent: Vec<Sent>| {
    let commands = pilotlight_server::fuzzing::command_names();
    let mut input = Vec::new();
    let mut has_bytes = false;
    for part in &sent {
        match part {
            Sent::Bytes(bytes) => {
                has_bytes = true;
                input.extend_from_slice(bytes);
            }
            Sent::Command { name, args } => {
                input.extend_from_slice(format!("*{}\r\n", args.len() + 1).as_bytes());
                let mut push = |arg: &[u8]| {
                    input.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
                    input.extend_from_slice(arg);
                    input.extend_from_slice(b"\r\n");
                };
                push(commands[usize::from(*name) % commands.len()].as_bytes());
                for arg in args {
                    match arg {
                        Argument::Bytes(bytes) => push(bytes),
                        Argument::Key(at) => push(pick(KEYS, *at).as_bytes()),
                        Argument::Number(number) => push(number.to_string().as_bytes()),
                        Argument::Word(at) => push(pick(WORDS, *at).as_bytes()),
                    }
                }
            }
        }
    }
    let running = server();
    let found = replies(&running.resp(&input));
    if !has_bytes {
        assert!(found <= sent.len(), "{found} replies to {} requests", sent.len());
    }
    assert_eq!(running.resp(b"*2\r\n$4\r\nECHO\r\n$5\r\nthere\r\n"), b"$5\r\nthere\r\n");
});
