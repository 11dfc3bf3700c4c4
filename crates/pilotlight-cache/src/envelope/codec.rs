//! How a payload is compressed.

use std::cell::RefCell;

use bytes::Bytes;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::CParameter;

use super::{ARTIFACT_LEN_MAX, squeeze};
use crate::reused::Reused;
use crate::{Error, Result};

/// How a payload is compressed. The number stands in envelopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// Not at all.
    Raw = 0,
    /// As one zstd frame.
    Zstd = 1,
    /// As one zstd frame that goes on where another entry's artifact ends, its base. Never on a wire.
    Delta = 2,
}

impl Codec {
    pub(super) fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Raw),
            1 => Some(Self::Zstd),
            2 => Some(Self::Delta),
            _ => None,
        }
    }
}

/// zstd's level: 1 compresses pickles at over a gigabyte a second and within a few per cent of level 3.
const LEVEL: i32 = 1;
/// zstd at level 1 looks back 512 KiB at most, however long its input is. Looking back over all of a longer artifact made 1 MiB of
/// real entries a sixth smaller, and packing and unpacking a tenth faster each. Up to 8 MiB, what every decoder must take.
const WINDOW_LOGS: std::ops::RangeInclusive<u32> = 20..=23;
/// Below this a compressor costs more than the store does, and saves less than a block.
const LEN_MIN: usize = 4 << 10;
/// How much is looked at in each of a few places before compression is tried.
const PROBE_LEN: usize = 256;
/// Of 256 random bytes about 162 are different, give or take five; of text under 100, of machine code under 140.
const DISTINCT_RANDOM: u32 = 148;

thread_local! {
    // Making a context costs ten times what compressing a kilobyte does.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = RefCell::new(Compressor::new(LEVEL).ok());
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = RefCell::new(Decompressor::new().ok());
}

/// The payload for an artifact: compressed if that saves a tenth.
pub(super) fn encode(artifact: &Bytes) -> (Codec, Bytes) {
    if artifact.len() < LEN_MIN || looks_random(artifact) {
        return (Codec::Raw, artifact.clone());
    }
    let packed = COMPRESSOR.with_borrow_mut(|compressor| {
        let compressor = compressor.as_mut()?;
        compressor.set_parameter(CParameter::WindowLog(window_log(artifact.len()))).ok()?;
        compressor.compress(artifact).ok()
    });
    match packed {
        Some(packed) if is_worth_it(packed.len(), artifact.len()) => (Codec::Zstd, packed.into()),
        // A compressor that fails costs space, not the entry.
        Some(_) | None => (Codec::Raw, artifact.clone()),
    }
}

/// How far back to look in an artifact, as a power of two; 0 is the level's own.
pub(super) fn window_log(len: usize) -> u32 {
    let covering = usize::BITS - len.saturating_sub(1).leading_zeros();
    if covering < *WINDOW_LOGS.start() { 0 } else { covering.min(*WINDOW_LOGS.end()) }
}

/// Whether the bytes in a few places are as different as random ones: what is compressed already is not tried again.
pub(super) fn looks_random(artifact: &[u8]) -> bool {
    let last = artifact.len().saturating_sub(PROBE_LEN);
    [0, last / 4, last / 2, last / 4 * 3, last].into_iter().all(|from| {
        let mut seen = [0u64; 4];
        for byte in artifact.iter().skip(from).take(PROBE_LEN) {
            if let Some(word) = seen.get_mut(usize::from(byte >> 6)) {
                *word |= 1 << (byte & 63);
            }
        }
        seen.iter().map(|word| word.count_ones()).sum::<u32>() >= DISTINCT_RANDOM
    })
}

fn is_worth_it(packed_len: usize, len: usize) -> bool {
    packed_len <= len - len / 10
}

/// Whether a payload says of itself that it holds an artifact of this length, without unpacking it.
pub(super) fn check_len(codec: Codec, payload: &[u8], artifact_len: u64) -> Result<()> {
    let declared = match codec {
        Codec::Raw => Some(payload.len() as u64),
        Codec::Zstd | Codec::Delta => zstd::zstd_safe::get_frame_content_size(payload).ok().flatten(),
    };
    if declared != Some(artifact_len) || artifact_len > ARTIFACT_LEN_MAX {
        let what = format!("{codec:?} payload of {declared:?} bytes, expected {artifact_len}");
        return Err(Error::Corrupt { what });
    }
    Ok(())
}

/// The artifact of a payload, which may need that of its base. Allocates what the head declares, once, and no more.
pub(super) fn decode(codec: Codec, payload: &Bytes, artifact_len: u64, base: Option<&[u8]>) -> Result<Bytes> {
    // The head's check vouches for the length; the payload must agree before anything is allocated.
    check_len(codec, payload, artifact_len)?;
    let len = usize::try_from(artifact_len)
        .map_err(|_| Error::Corrupt { what: "artifact longer than memory".to_owned() })?;
    let artifact = match codec {
        Codec::Raw => payload.clone(),
        Codec::Delta => {
            let base = base.ok_or_else(|| Error::Corrupt { what: "a delta without its base".to_owned() })?;
            squeeze::expand(payload, len, base)?
        }
        Codec::Zstd => {
            let mut artifact = Reused::for_len(len);
            let decompress = |decompressor: &mut Option<Decompressor<'static>>| match decompressor {
                Some(decompressor) => decompressor.decompress_to_buffer(payload, artifact.buffer()),
                None => Decompressor::new()?.decompress_to_buffer(payload, artifact.buffer()),
            };
            let decompressed = DECOMPRESSOR.with_borrow_mut(decompress);
            decompressed.map_err(|error| Error::Corrupt { what: format!("zstd: {error}") })?;
            Bytes::from_owner(artifact)
        }
    };
    if artifact.len() as u64 != artifact_len {
        return Err(Error::Corrupt {
            what: format!("artifact of {} bytes, expected {artifact_len}", artifact.len()),
        });
    }
    Ok(artifact)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Bytes {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"noise");
        let mut bytes = vec![0; len];
        hasher.finalize_xof().fill(&mut bytes);
        bytes.into()
    }

    #[test]
    fn what_compresses_is_compressed_and_what_does_not_is_left() {
        let text: Bytes =
            b"def forward(self, arg0_1: \"f32[8, 8]\"):\n    mul = aten.mul(arg0_1, 2)\n".repeat(100).into();
        let mixed: Bytes = [noise(4096), text.clone(), noise(4096)].concat().into();
        for (artifact, expected) in [
            (text, Codec::Zstd),
            (Bytes::from(vec![0; 1 << 20]), Codec::Zstd),
            (noise(1000), Codec::Raw),
            (noise(1 << 20), Codec::Raw),
            (mixed, Codec::Zstd),
            (Bytes::from_static(b"short"), Codec::Raw),
            (Bytes::new(), Codec::Raw),
        ] {
            let (codec, payload) = encode(&artifact);
            assert_eq!(codec, expected, "{} bytes", artifact.len());
            assert_eq!(decode(codec, &payload, artifact.len() as u64, None).unwrap(), artifact);
        }
    }

    #[test]
    fn what_recurs_at_the_other_end_of_a_long_artifact_is_found_and_short_ones_are_as_before() {
        let half = noise(600 << 10);
        // Not so random that it is not tried.
        let artifact: Bytes = [vec![b'a'; 4096], half.to_vec(), half.to_vec()].concat().into();
        let (codec, payload) = encode(&artifact);
        assert!(payload.len() < artifact.len() * 6 / 10, "{} of {} bytes", payload.len(), artifact.len());
        assert_eq!(decode(codec, &payload, artifact.len() as u64, None).unwrap(), artifact);
        for (len, expected) in
            [(1, 0), (512 << 10, 0), ((512 << 10) + 1, 20), (1 << 20, 20), (5 << 20, 23), (1 << 30, 23)]
        {
            assert_eq!(window_log(len), expected, "{len} bytes");
        }
        // The window of a long one is not the next one's.
        let short: Bytes = b"text ".repeat(2000).into();
        let alone = zstd::bulk::compress(&short, LEVEL).unwrap();
        assert_eq!(encode(&short).1, alone);
    }

    #[test]
    fn a_frame_that_declares_another_length_is_refused_before_anything_is_allocated() {
        let payload: Bytes = zstd::bulk::compress(&vec![0; 1 << 20], 1).unwrap().into();
        assert!(decode(Codec::Zstd, &payload, 1 << 40, None).is_err());
        assert!(decode(Codec::Zstd, &Bytes::from_static(b"not zstd"), 8, None).is_err());
    }
}
