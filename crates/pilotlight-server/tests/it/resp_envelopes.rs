//! `PILOTLIGHT.MGET` and `PILOTLIGHT.PUT`: the entries of `GET` and `SET`, in their envelopes.

use std::net::TcpStream;
use std::sync::Arc;

use bytes::Bytes;
use pilotlight_cache::envelope::recast::Frame;
use pilotlight_cache::envelope::{self, Bare, Sealed};
use pilotlight_cache::{
    Details, Error, ErrorKind, Kind, MemoryBackend, Metadata, Outcome, SystemClock, Verified,
};

use crate::client::{Client, Running, config};

const FX: &str = "pt2:fx-graph-v1::fabc:c1";

fn bare(artifact: Vec<u8>, frame: Option<Frame>) -> Bare {
    let details = Details {
        producer: Some("host".to_owned()),
        fingerprint: Some([7; 32]),
        components: vec![(1, 2), (3, u64::MAX)],
        variant: Some(9),
    };
    let metadata = Metadata { compile_ms: 1234, details: Some(Arc::new(details)), ..Metadata::default() };
    Bare { artifact: Verified::from_producer(artifact.into()), frame, metadata }
}

fn put(client: &mut Client<TcpStream>, key: &str, bare: &Bare) -> Vec<u8> {
    let whole = envelope::seal_bare(bare).unwrap().to_whole();
    client.call(&[b"PILOTLIGHT.PUT".as_slice(), key.as_bytes(), &whole])
}

/// What an array of one bulk holds.
fn only_bulk(reply: &[u8]) -> Bytes {
    let rest = reply.strip_prefix(b"*1\r\n$").unwrap();
    let end = rest.iter().position(|byte| *byte == b'\r').unwrap();
    Bytes::copy_from_slice(&rest[end + 2..rest.len() - 2])
}

fn got(client: &mut Client<TcpStream>, key: &str) -> Bare {
    let reply = client.call(&["PILOTLIGHT.MGET", key]);
    envelope::open_bare(&Sealed::from_whole(only_bulk(&reply)).unwrap(), u64::MAX).unwrap()
}

#[test]
fn an_envelope_comes_back_with_its_artifact_and_metadata_and_stock_clients_see_the_json() {
    let running = Running::start();
    let mut client = running.connect();
    for len in [200, 5000, 1 << 20] {
        let artifact: Vec<u8> = (0..len).map(|i: u32| (i * 31 % 251) as u8).collect();
        for frame in [None, Some(Frame::torch(1234)), Some(Frame::torch(0))] {
            let bare = bare(artifact.clone(), frame);
            assert_eq!(put(&mut client, FX, &bare), b"+OK\r\n");
            let mut found = got(&mut client, FX);
            assert!(found.metadata.created_ms > 0, "by the server's clock");
            found.metadata.created_ms = 0;
            assert_eq!(found, bare);
            let seen = bare.into_entry().artifact;
            let reply = client.call(&["GET", FX]);
            assert_eq!(reply, [format!("${}\r\n", seen.len()).as_bytes(), &seen, b"\r\n"].concat());
        }
    }
}

#[test]
fn what_a_stock_client_put_comes_without_its_json() {
    let running = Running::start();
    let mut client = running.connect();
    let stock = bare(vec![5; 1000], Some(Frame::torch(77))).into_entry().artifact;
    client.call(&[b"SET".as_slice(), FX.as_bytes(), &stock]);
    let found = got(&mut client, FX);
    assert_eq!((found.artifact.to_vec(), found.metadata.compile_ms), (vec![5; 1000], 77));
    assert_eq!(found.frame, Some(Frame::torch(77)));
}

#[test]
fn absent_keys_are_nil_and_answers_come_in_order() {
    let running = Running::start();
    let mut client = running.connect();
    assert_eq!(client.ask("PILOTLIGHT.MGET a b"), "*2\r\n$-1\r\n$-1\r\n");
    put(&mut client, "b", &bare(vec![1; 10], None));
    let reply = client.call(&["PILOTLIGHT.MGET", "a", "b", "c"]);
    assert!(reply.starts_with(b"*3\r\n$-1\r\n$") && reply.ends_with(b"\r\n$-1\r\n"));
    assert!(client.ask("PILOTLIGHT.MGET").starts_with("-ERR wrong number of arguments"));
}

#[test]
fn nx_keeps_what_is_there() {
    let running = Running::start();
    let mut client = running.connect();
    let (first, second) = (bare(vec![1; 10], None), bare(vec![2; 10], None));
    let whole = |bare| envelope::seal_bare(bare).unwrap().to_whole();
    for (bare, expected) in [(&first, b"+OK\r\n".as_slice()), (&second, b"$-1\r\n")] {
        let reply =
            client.call(&[b"PILOTLIGHT.PUT".as_slice(), b"k".as_slice(), &whole(bare), b"nx".as_slice()]);
        assert_eq!(reply, expected);
    }
    assert_eq!(got(&mut client, "k").artifact.to_vec(), vec![1; 10]);
    assert!(
        client
            .call(&[b"PILOTLIGHT.PUT".as_slice(), b"k".as_slice(), &whole(&first), b"XX".as_slice()])
            .starts_with(b"-ERR syntax")
    );
}

#[test]
fn a_bad_envelope_is_an_error_is_counted_and_changes_nothing() {
    let running = Running::start();
    let mut client = running.connect();
    let good = bare(vec![3; 1000], Some(Frame::torch(1)));
    put(&mut client, FX, &good);
    let whole = envelope::seal_bare(&good).unwrap().to_whole().to_vec();
    let mut bad = vec![Vec::new(), b"pickle".to_vec(), whole[..whole.len() - 1].to_vec()];
    for place in [0, 4, 5, 6, 8, 12, 16, 24, 32, 72, 90] {
        let mut flipped = whole.clone();
        flipped[place] ^= 1;
        bad.push(flipped);
    }
    let count = bad.len() as u64;
    for bytes in bad {
        let reply = client.call(&[b"PILOTLIGHT.PUT".as_slice(), FX.as_bytes(), &bytes]);
        assert!(reply.starts_with(b"-ERR "), "{}", String::from_utf8_lossy(&reply));
    }
    let counted = running.server.cache.stats().snapshot();
    assert_eq!(counted.cache[Kind::FxGraph as usize][Outcome::Exception as usize], count);
    assert_eq!(got(&mut client, FX).artifact, good.artifact);
}

/// What the payload of an envelope looks like with its last bit flipped, whatever its codec.
fn damaged_payload(bare: &Bare) -> Bytes {
    let mut whole = envelope::seal_bare(bare).unwrap().to_whole().to_vec();
    *whole.last_mut().unwrap() ^= 1;
    whole.into()
}

#[test]
fn a_damaged_payload_is_served_to_no_client_and_is_counted_and_set_aside() {
    let running = Running::start();
    let mut client = running.connect();
    let mut count = 0;
    // Packed and not, read on the spot and not.
    for artifact in
        [vec![3; 1000], vec![3; 100_000], (0..=255).cycle().map(|i: u8| i ^ 7).take(400_000).collect()]
    {
        for frame in [None, Some(Frame::torch(1))] {
            let good = bare(artifact.clone(), frame);
            let damaged = damaged_payload(&good);
            let reply = client.call(&[b"PILOTLIGHT.PUT".as_slice(), FX.as_bytes(), &damaged]);
            assert_eq!(reply, b"+OK\r\n");
            // Our client gets it as it is, and finds it out.
            let whole = only_bulk(&client.call(&["PILOTLIGHT.MGET", FX]));
            let opened = envelope::open_bare(&Sealed::from_whole(whole).unwrap(), u64::MAX);
            assert!(matches!(opened, Err(Error::Corrupt { .. })), "{opened:?}");
            // A stock client gets a miss, and nobody anything from then on.
            count += 1;
            assert_eq!(client.ask(&format!("GET {FX}")), "$-1\r\n");
            let counted = running.server.cache.stats().snapshot();
            assert_eq!(counted.absorbed_gets[ErrorKind::Corrupt as usize], count);
            assert_eq!(counted.backend[Outcome::Exception as usize], count);
            assert_eq!(client.ask(&format!("EXISTS {FX}")), ":0\r\n");
            assert_eq!(client.ask(&format!("PILOTLIGHT.MGET {FX}")), "*1\r\n$-1\r\n");
            // A put that follows the miss is served.
            assert_eq!(put(&mut client, FX, &good), b"+OK\r\n");
            assert_eq!(got(&mut client, FX).artifact, good.artifact);
        }
    }
}

#[test]
fn too_large_an_artifact_is_refused_with_the_limit_and_is_counted() {
    let mut config = config();
    config.entry_bytes_max = 1000;
    let running = Running::with(Arc::new(MemoryBackend::new(1 << 30)), config, Arc::new(SystemClock));
    let mut client = running.connect();
    // The one is small on the wire, the other is not.
    for (artifact, count) in
        [(vec![0; 100_000], 1), ((0..100_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect(), 2)]
    {
        for key in [FX, "other"] {
            let reply = String::from_utf8(put(&mut client, key, &bare(artifact.clone(), None))).unwrap();
            assert!(
                reply.starts_with("-TOOLARGE ")
                    && reply.contains(" expected at most 1000; raise `--max-entry-size`"),
                "{reply}"
            );
        }
        let counted = running.server.cache.stats().snapshot();
        assert_eq!(counted.refused_puts[ErrorKind::TooLarge as usize], count);
    }
}

#[test]
fn the_list_of_a_keys_variants_is_no_lookup_of_its_own() {
    let running = Running::start();
    let mut client = running.connect();
    let list = format!("{FX}#v");
    client.call(&["PILOTLIGHT.MGET", FX, &list]);
    put(&mut client, FX, &bare(vec![1; 10], None));
    put(&mut client, &list, &bare(vec![2; 10], None));
    client.call(&["PILOTLIGHT.MGET", FX, &list]);
    let counted = running.server.cache.stats().snapshot();
    for outcome in [Outcome::Hit, Outcome::Miss, Outcome::Put] {
        assert_eq!(counted.cache[Kind::FxGraph as usize][outcome as usize], 1, "{}", outcome.name());
        assert_eq!(counted.backend[outcome as usize], 1, "{}", outcome.name());
    }
}
