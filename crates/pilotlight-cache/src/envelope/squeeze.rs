//! Smaller payloads for artifacts that nobody waits for: zstd at a high level, or what differs from another artifact.
//!
//! A delta is a zstd frame that was written as if its base, another entry's artifact, stood in front of it: whatever occurs there
//! costs a few bytes. Recompiles of one model differ in names and hashes, and shrink by hundreds; see docs/compression.md for
//! what was measured. Nobody is sent a delta: [`super::seal`] makes a payload that stands for itself of it.

use bytes::Bytes;
use zstd::zstd_safe::{CCtx, CParameter, DCtx, compress_bound};

use super::codec::{self, Codec, looks_random};
use super::head::{self, Head};
use super::{ARTIFACT_LEN_MAX, Sealed};
use crate::{Digest, Result, Verified};

/// Nothing shorter is worth a look: the record around it takes as much.
pub(crate) const LEN_MIN: u64 = 4 << 10;
/// Longer artifacts stay as they are: up to here compressing one takes some 100 MiB of memory, and reading a delta twice 16.
pub(crate) const LEN_MAX: u64 = 16 << 20;
/// zstd's level up to [`LEVEL_LEN_MAX`], and above it, where the first would take seconds.
const LEVEL: i32 = 19;
const LEVEL_LONG: i32 = 12;
const LEVEL_LEN_MAX: usize = 4 << 20;
/// Of deltas of what is nearly the same: the first makes them no smaller, and takes twenty times as long.
const LEVEL_DELTA: i32 = 12;
/// To find out which of two bases is better.
const LEVEL_TRIAL: i32 = 3;
/// zstd takes no smaller window.
const WINDOW_LOG_MIN: u32 = 10;

/// An entry's artifact out of its envelope, with the head that it came under.
#[derive(Debug)]
pub(crate) struct Squeezable {
    head: Bytes,
    codec: Codec,
    payload_len: usize,
    digest: Digest,
    artifact: Verified,
}

impl Squeezable {
    /// Takes apart an envelope that is no delta, checking all of it.
    pub(crate) fn of(sealed: &Sealed) -> Result<Self> {
        let (packed, _) = super::take_apart(sealed, None, ARTIFACT_LEN_MAX)?;
        let Head { codec, digest, .. } = Head::decode(&sealed.head)?;
        let (head, payload_len) = (sealed.head.clone(), sealed.payload.len());
        Ok(Self { head, codec, payload_len, digest, artifact: packed.artifact()? })
    }

    pub(crate) fn artifact(&self) -> &[u8] {
        &self.artifact
    }

    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }

    pub(crate) fn payload_len(&self) -> usize {
        self.payload_len
    }

    /// Whether it is not worth a try.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.codec == Codec::Raw && looks_random(&self.artifact)
    }

    /// The envelope with the artifact compressed as well as we can.
    pub(crate) fn squeezed(&self) -> Option<Sealed> {
        let window_log = codec::window_log(self.artifact.len());
        let payload = compress(&self.artifact, None, window_log, self.level())?;
        Some(self.sealed(Codec::Zstd, payload))
    }

    /// The envelope with what differs from another artifact. It takes that to be read.
    pub(crate) fn against(&self, base: &[u8]) -> Option<Sealed> {
        let payload = compress(&self.artifact, Some(base), self.window_log(base), LEVEL_DELTA)?;
        Some(self.sealed(Codec::Delta, payload))
    }

    /// The same, compressed as well as we can: worth it where much differs.
    pub(crate) fn squeezed_against(&self, base: &[u8]) -> Option<Sealed> {
        let payload = compress(&self.artifact, Some(base), self.window_log(base), self.level())?;
        Some(self.sealed(Codec::Delta, payload))
    }

    /// About how long that would be, for a comparison: it takes a third of the time.
    pub(crate) fn len_against(&self, base: &[u8]) -> Option<usize> {
        compress(&self.artifact, Some(base), self.window_log(base), LEVEL_TRIAL).map(|payload| payload.len())
    }

    /// To look back over all of both, as a power of two.
    fn window_log(&self, base: &[u8]) -> u32 {
        let whole_len = self.artifact.len() + base.len();
        (usize::BITS - whole_len.saturating_sub(1).leading_zeros()).max(WINDOW_LOG_MIN)
    }

    fn level(&self) -> i32 {
        if self.artifact.len() <= LEVEL_LEN_MAX { LEVEL } else { LEVEL_LONG }
    }

    fn sealed(&self, codec: Codec, payload: Bytes) -> Sealed {
        let head = head::for_payload(&self.head, codec, payload.len() as u64);
        Sealed { head: head.into(), payload, payload_digest: None }
    }
}

/// A compressor that fails costs space, not the entry.
fn compress(artifact: &[u8], base: Option<&[u8]>, window_log: u32, level: i32) -> Option<Bytes> {
    let mut context = CCtx::try_create()?;
    context.set_parameter(CParameter::CompressionLevel(level)).ok()?;
    context.set_parameter(CParameter::WindowLog(window_log)).ok()?;
    if let Some(base) = base {
        context.ref_prefix(base).ok()?;
    }
    let mut payload = Vec::with_capacity(compress_bound(artifact.len()));
    context.compress2(&mut payload, artifact).ok()?;
    payload.shrink_to_fit();
    Some(payload.into())
}

/// The artifact that was stored against `base`. The digest tells whether it is that.
pub(super) fn expand(payload: &[u8], artifact_len: usize, base: &[u8]) -> Result<Bytes> {
    let expand = || {
        let mut context = DCtx::try_create()?;
        context.ref_prefix(base).ok()?;
        let mut artifact = Vec::with_capacity(artifact_len);
        context.decompress(&mut artifact, payload).ok()?;
        Some(artifact)
    };
    let corrupt = || crate::Error::Corrupt { what: "zstd: not a delta of its base".to_owned() };
    expand().map(Bytes::from).ok_or_else(corrupt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{self, open_bare, seal_bare};
    use crate::envelope::{Bare, recast::Frame};
    use crate::{Details, Error, Metadata};

    /// A graph as torch might write it, of many lines that only their numbers tell apart.
    fn graph(number: u64) -> Vec<u8> {
        let line =
            |i: u64| format!("    mul_{i} = aten.mul(arg{}_1, {})\n", i * 7 % 13, i * 2_654_435_761 % 9973);
        let lines = (0..2000).map(|i| if i % 500 == 0 { line(i + number) } else { line(i) });
        lines.collect::<String>().into_bytes()
    }

    fn sealed(artifact: Vec<u8>) -> (Bare, Sealed) {
        let details = Details { producer: Some("torch 2.15".to_owned()), ..Details::default() };
        let metadata =
            Metadata { created_ms: 5, compile_ms: 6, details: Some(details.into()), expires_ms: None };
        let artifact = Verified::from_producer(artifact.into());
        let bare = Bare { artifact, frame: Some(Frame::torch(6)), metadata };
        let sealed = seal_bare(&bare).unwrap();
        (bare, sealed)
    }

    #[test]
    fn an_artifact_stored_against_a_sibling_takes_a_hundredth_and_is_sent_whole() {
        let (_, base) = sealed(graph(1));
        let (bare, plain) = sealed(graph(2));
        let squeezable = Squeezable::of(&plain).unwrap();
        let squeezed = squeezable.squeezed().unwrap();
        assert!(squeezed.payload.len() < plain.payload.len());
        assert_eq!(open_bare(&squeezed, u64::MAX).unwrap(), bare);
        let delta = squeezable.against(Squeezable::of(&base).unwrap().artifact()).unwrap();
        assert!(delta.payload.len() * 100 < squeezed.payload.len(), "{}", delta.payload.len());
        // To whoever has no base it is no envelope.
        assert!(matches!(envelope::read(&delta, u64::MAX), Err(Error::Corrupt { .. })));
        let entry = envelope::read_stored(&delta, Some(&base)).unwrap();
        assert!(!entry.artifact.is_portable());
        let sent = envelope::seal(&entry).unwrap();
        assert!(entry.artifact.is_portable());
        assert_eq!(open_bare(&sent, u64::MAX).unwrap(), bare);
        assert_eq!(entry.artifact.verify().unwrap(), bare.into_entry().artifact);
    }

    #[test]
    fn with_another_base_or_a_damaged_one_a_delta_is_never_read() {
        let (_, base) = sealed(graph(1));
        let (_, plain) = sealed(graph(2));
        let delta = Squeezable::of(&plain).unwrap().against(&graph(1)).unwrap();
        let (_, other) = sealed([&graph(1)[..], b"# longer\n"].concat());
        let mut damaged = base.clone();
        damaged.payload = damaged.payload.slice(..damaged.payload.len() - 1);
        for wrong in [&other, &plain, &damaged, &delta] {
            let read = envelope::read_stored(&delta, Some(wrong)).and_then(|entry| entry.artifact.verify());
            assert!(matches!(read, Err(Error::Corrupt { .. })), "{read:?}");
            let sent = envelope::read_stored(&delta, Some(wrong)).and_then(|entry| envelope::seal(&entry));
            assert!(sent.is_err());
        }
        assert!(envelope::read_stored(&delta, Some(&base)).unwrap().artifact.verify().is_ok());
    }

    #[test]
    fn a_base_that_looks_like_a_dictionary_is_taken_as_it_is() {
        let dictionary = [&0xEC30_A437u32.to_le_bytes()[..], &graph(1)].concat();
        let (_, plain) = sealed(graph(2));
        let delta = Squeezable::of(&plain).unwrap().against(&dictionary).unwrap();
        let (_, base) = sealed(dictionary);
        assert!(envelope::read_stored(&delta, Some(&base)).unwrap().artifact.verify().is_ok());
    }

    #[test]
    fn a_head_for_another_form_keeps_everything_else() {
        let (_, plain) = sealed(graph(1));
        let squeezed = Squeezable::of(&plain).unwrap().squeezed().unwrap();
        let (before, after) = (Head::decode(&plain.head).unwrap(), Head::decode(&squeezed.head).unwrap());
        assert_eq!(Head { payload_len: before.payload_len, ..after }, before);
        assert_eq!(plain.head.len(), squeezed.head.len());
    }
}
