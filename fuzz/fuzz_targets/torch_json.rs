//! PyTorch's JSON is taken apart so that it is put together byte for byte, or stored as it came; through the envelope too.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pilotlight_cache::envelope::{self, recast};
use pilotlight_cache::{Artifact, Entry, Verified};

fn check(value: &[u8]) {
    _ = recast::time_taken_ms(value);
    if let Some((artifact, frame)) = recast::split(value) {
        assert_eq!(recast::joined_len(artifact.len() as u64, &frame), value.len() as u64);
        assert_eq!(recast::join(&artifact, &frame), value);
    }
    let artifact: Artifact = Verified::from_producer(Bytes::copy_from_slice(value)).into();
    let sealed = envelope::seal(&Entry { artifact, metadata: Default::default() }).expect("short enough");
    let read = envelope::read(&sealed, u64::MAX).expect("sealed here");
    assert_eq!(read.artifact.len(), value.len() as u64);
    assert_eq!(&read.artifact.verify().expect("whole")[..], value);
}

fuzz_target!(|input: (&[u8], &[u8], u8)| {
    let (head, tail, repeated) = input;
    check(head);
    // Long enough to be worth it, and nearly what PyTorch writes.
    let mut value = b"{\"data\": \"".to_vec();
    for _ in 0..repeated {
        value.extend_from_slice(head);
    }
    value.extend_from_slice(tail);
    check(&value);
    value.extend_from_slice(b"\", \"time_taken_ms\": 12}");
    check(&value);
});
