//! Gets and puts of single entries.

use std::sync::Arc;

use bytes::Bytes;

use super::core::{Core, now_ms};
use super::counters::Counters;
use super::engine::{Answer, Request};
use super::trouble::Sort;
use super::wire::BULK_LEN_MAX;
use super::{Client, Label};
use crate::envelope::recast::{self, Frame};
use crate::envelope::{self, Bare, Sealed};
use crate::trust::Vetted;
use crate::{Details, Error, Metadata, Result, Verified};

impl Client {
    /// The entries under `keys`, in order, in one round trip, whatever fingerprint they carry.
    #[must_use]
    pub fn get_many(&self, keys: &[&[u8]]) -> Vec<Option<Bare>> {
        self.core.get_many(keys)
    }

    /// Stores one entry in place of whatever stands under `key`; whether it was stored.
    #[must_use]
    pub fn put(&self, key: &[u8], artifact: Bytes, label: Label) -> bool {
        self.core.put_one(key, bare(artifact, label, None))
    }
}

/// An entry as the client makes it.
pub(super) fn bare(artifact: Bytes, label: Label, variant: Option<u64>) -> Bare {
    let Label { is_torch_json, compile_ms, details } = label;
    let details = Details { variant, ..details };
    let details = (details != Details::default()).then(|| Arc::new(details));
    let metadata = Metadata { created_ms: now_ms(), expires_ms: None, compile_ms, details };
    let frame = is_torch_json.then(|| Frame::torch(compile_ms));
    Bare { artifact: Verified::from_producer(artifact), frame, metadata }
}

/// What is in an envelope that came from outside, and was let pass.
pub(super) fn open(vetted: &Vetted) -> Result<Bare> {
    let bare = vetted.open(BULK_LEN_MAX)?;
    // Of something short the server does not take the JSON off.
    if bare.frame.is_none() && bare.artifact.len() < recast::WORTH_IT_LEN_MIN {
        let entry = bare.into_entry();
        return Ok(Bare::of(&entry));
    }
    Ok(bare)
}

impl Core {
    /// What is sent for `key`, signed if we sign, unless it is too long.
    pub(super) fn seal(&self, key: &[u8], bare: &Bare) -> Result<Sealed> {
        let size_bytes = bare.artifact.len() as u64;
        if size_bytes > BULK_LEN_MAX {
            return Err(Error::TooLarge { what: "artifact", size_bytes, max_bytes: BULK_LEN_MAX });
        }
        let sealed = envelope::seal_bare(bare)?;
        match &self.signer {
            Some(signer) => signer.sign(key, sealed),
            None => Ok(sealed),
        }
    }

    /// What came for a get of `key`, checked: one that is damaged, or that the policy refuses, is none, and is counted.
    pub(super) fn opened(&self, key: &[u8], answer: Result<Answer>) -> Lookup {
        match answer {
            Ok(Answer::Found(whole)) => match self.vetted(key, whole).and_then(|vetted| open(&vetted)) {
                Ok(bare) => Lookup::Hit(Box::new(bare)),
                Err(error) => {
                    self.refuse(&error);
                    Lookup::Failed
                }
            },
            Ok(_) => Lookup::Miss,
            Err(_) => Lookup::Failed,
        }
    }

    fn get_many(&self, keys: &[&[u8]]) -> Vec<Option<Bare>> {
        if keys.is_empty() {
            return Vec::new();
        }
        let requests: Vec<_> = keys.iter().map(|key| Request::Get(key)).collect();
        let answers = self.exchange(Sort::Get, keys.len(), &requests);
        Counters::add(&self.counters.gets, keys.len() as u64);
        let Some(answers) = answers else { return vec![None; keys.len()] };
        keys.iter().zip(answers).map(|(key, answer)| self.counted(key, answer)).collect()
    }

    fn counted(&self, key: &[u8], answer: Result<Answer>) -> Option<Bare> {
        match self.opened(key, answer) {
            Lookup::Hit(bare) => {
                Counters::add(&self.counters.hits, 1);
                Some(*bare)
            }
            Lookup::Miss => {
                Counters::add(&self.counters.misses, 1);
                None
            }
            Lookup::Failed => None,
        }
    }

    fn put_one(&self, key: &[u8], bare: Bare) -> bool {
        let answers = match self.seal(key, &bare) {
            Ok(sealed) => self.exchange(Sort::Put, 1, &[Request::Put(key, &sealed)]),
            Err(error) => {
                self.refuse(&error);
                None
            }
        };
        self.count_put(answers.as_deref().and_then(<[_]>::last))
    }

    /// Counts a put by what was answered to it; whether it was stored.
    pub(super) fn count_put(&self, answer: Option<&Result<Answer>>) -> bool {
        let is_stored = matches!(answer, Some(Ok(Answer::Done)));
        let counter = if is_stored { &self.counters.puts } else { &self.counters.dropped };
        Counters::add(counter, 1);
        is_stored
    }

    pub(super) fn get_raw(&self, key: &[u8]) -> Option<Bytes> {
        let bare = self.get_many(&[key]).pop()??;
        Some(bare.into_entry().artifact.into_bytes())
    }

    pub(super) fn put_raw(&self, key: &[u8], value: Bytes, compile_ms: u32) -> bool {
        let compile_ms = if compile_ms == 0 { recast::time_taken_ms(&value) } else { compile_ms };
        let metadata = Metadata { created_ms: now_ms(), compile_ms, ..Metadata::default() };
        let entry = crate::Entry { artifact: Verified::from_producer(value), metadata };
        self.put_one(key, Bare::of(&entry))
    }
}

/// What a get came to.
pub(super) enum Lookup {
    /// What is in the envelope.
    Hit(Box<Bare>),
    Miss,
    /// Counted already.
    Failed,
}
