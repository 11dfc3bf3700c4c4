//! How a payload is compressed.

use bytes::Bytes;

use super::ARTIFACT_LEN_MAX;
use crate::{Error, Result};

/// How a payload is compressed. The number stands in envelopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// Not at all.
    Raw = 0,
    /// As one zstd frame.
    Zstd = 1,
}

impl Codec {
    pub(super) fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Raw),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// zstd's level: 1 compresses pickles at over a gigabyte a second and within a few per cent of level 3.
const LEVEL: i32 = 1;
/// Below this there is nothing to gain.
const LEN_MIN: usize = 256;
/// Large artifacts are judged by a sample first: random bytes cost a probe, not a pass.
const PROBE_LEN: usize = 16 << 10;

/// The payload for an artifact: compressed if that saves a tenth.
pub(super) fn encode(artifact: &Bytes) -> (Codec, Bytes) {
    if artifact.len() < LEN_MIN || !probe(artifact) {
        return (Codec::Raw, artifact.clone());
    }
    match zstd::bulk::compress(artifact, LEVEL) {
        Ok(payload) if is_worth_it(payload.len(), artifact.len()) => (Codec::Zstd, payload.into()),
        // A compressor that fails costs space, not the entry.
        Ok(_) | Err(_) => (Codec::Raw, artifact.clone()),
    }
}

/// Whether a look at start, middle and end says that compression is worth trying.
fn probe(artifact: &[u8]) -> bool {
    if artifact.len() <= 8 * PROBE_LEN {
        return true;
    }
    let middle = artifact.len() / 2;
    [0, middle, artifact.len() - PROBE_LEN].into_iter().any(|from| {
        artifact.get(from..from + PROBE_LEN).is_some_and(|sample| {
            zstd::bulk::compress(sample, LEVEL).is_ok_and(|packed| is_worth_it(packed.len(), sample.len()))
        })
    })
}

fn is_worth_it(packed_len: usize, len: usize) -> bool {
    packed_len <= len - len / 10
}

/// The artifact of a payload. Allocates what the head declares, once, and no more.
pub(super) fn decode(codec: Codec, payload: &Bytes, artifact_len: u64) -> Result<Bytes> {
    let artifact = match codec {
        Codec::Raw => payload.clone(),
        Codec::Zstd => {
            // The head's check vouches for the length; the frame's own header must agree before anything is allocated.
            let declared = zstd::zstd_safe::get_frame_content_size(payload).ok().flatten();
            if declared != Some(artifact_len) || artifact_len > ARTIFACT_LEN_MAX {
                return Err(Error::Corrupt {
                    what: format!("zstd frame of {declared:?} bytes, expected {artifact_len}"),
                });
            }
            let len = usize::try_from(artifact_len)
                .map_err(|_| Error::Corrupt { what: "artifact longer than memory".to_owned() })?;
            zstd::bulk::decompress(payload, len)
                .map_err(|error| Error::Corrupt { what: format!("zstd: {error}") })?
                .into()
        }
    };
    if artifact.len() as u64 != artifact_len {
        return Err(Error::Corrupt {
            what: format!("artifact of {} bytes, expected {artifact_len}", artifact.len()),
        });
    }
    Ok(artifact)
}
