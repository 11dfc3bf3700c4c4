//! Bytes that claim to be an envelope: refused, or an entry that is sealed to the same again. Nothing is unpacked above the limit.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pilotlight_cache::envelope::{self, Sealed};

const ARTIFACT_MAX: u64 = 1 << 20;

/// With the check of the head put right, so that what lies behind it is reached.
fn mended(input: &[u8]) -> Bytes {
    const MAGIC: &[u8] = b"PLEv\x01";
    const CHECK: std::ops::Range<usize> = 72..80;
    let mut bytes = input.to_vec();
    if bytes.len() < 80 {
        return bytes.into();
    }
    bytes[..MAGIC.len()].copy_from_slice(MAGIC);
    bytes[CHECK].fill(0);
    let fields_len = u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes")) as usize;
    let signature_len = if bytes[7] & 1 == 1 { 96 } else { 0 };
    let head_len = (80 + fields_len + signature_len).min(bytes.len());
    let check = xxhash_rust::xxh3::xxh3_64(&bytes[..head_len]);
    bytes[CHECK].copy_from_slice(&check.to_le_bytes());
    bytes.into()
}

fuzz_target!(|input: &[u8]| {
    for whole in [Bytes::copy_from_slice(input), mended(input)] {
        let Ok(sealed) = Sealed::from_whole(whole) else { continue };
        let read = envelope::read(&sealed, ARTIFACT_MAX);
        let Ok(bare) = envelope::open_bare(&sealed, ARTIFACT_MAX) else { continue };
        assert!(read.is_ok(), "what opens can be read");
        assert!(bare.artifact.len() as u64 <= ARTIFACT_MAX);
        let again = envelope::seal_bare(&bare).expect("it is short enough");
        let reopened = envelope::open_bare(&again, ARTIFACT_MAX).expect("it was sealed here");
        assert_eq!(reopened, bare);
    }
});
