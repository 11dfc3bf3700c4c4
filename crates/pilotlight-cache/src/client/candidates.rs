//! Looking up and storing variants. See [`super::variants`] for how they are kept.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::core::{Core, now_ms};
use super::counters::Counters;
use super::engine::{Answer, Request};
use super::operations::{Lookup, bare, open};
use super::trouble::Sort;
use super::variants::{Listed, Table, table_key, variant_key};
use super::wire::BULK_LEN_MAX;
use super::{Client, Label};
use crate::envelope::{self, Bare, Sealed};
use crate::trust::Reason;
use crate::{Digest, Entry, Error, Metadata, Result, Verified};

impl Client {
    /// The variants under `key` whose fingerprint is `fingerprint` or absent, newest first. Asks when it is asked.
    #[must_use]
    pub fn candidates(&self, key: &[u8], fingerprint: Option<[u8; 32]>) -> Candidates {
        let key = Bytes::copy_from_slice(key);
        Candidates { core: self.core.clone(), key, fingerprint, stage: Stage::Start, is_counted: false }
    }

    /// Stores one variant as the newest, and keeps the others; whether it was stored.
    #[must_use]
    pub fn put_variant(&self, key: &[u8], variant: u64, artifact: Bytes, label: Label) -> bool {
        self.core.put_variant(key, variant, bare(artifact, label, Some(variant)))
    }

    /// Counts `entry`, which was got under `key` and was of no use although its digest was right, and deletes it: the newest
    /// variant or an older one, and no other.
    pub fn quarantine_variant(&self, key: &[u8], entry: &Bare) {
        self.core.quarantine_variant(key, name_of(entry));
    }
}

/// See [`Client::candidates`]. The first comes with the list of the others in one round trip, all the others in a second.
#[derive(Debug)]
pub struct Candidates {
    core: Arc<Core>,
    key: Bytes,
    fingerprint: Option<[u8; 32]>,
    stage: Stage,
    /// Whether the lookup is counted as a hit or a miss already.
    is_counted: bool,
}

#[derive(Debug)]
enum Stage {
    Start,
    /// Those left to ask for.
    Listed(Vec<u64>),
    Fetched(VecDeque<Bare>),
}

impl Iterator for Candidates {
    type Item = Bare;

    fn next(&mut self) -> Option<Bare> {
        let found = loop {
            match &mut self.stage {
                Stage::Start => {
                    if let Some(primary) = self.start() {
                        break Some(primary);
                    }
                }
                Stage::Listed(variants) => {
                    let variants = std::mem::take(variants);
                    self.stage = Stage::Fetched(self.fetch(&variants));
                }
                Stage::Fetched(fetched) => break fetched.pop_front(),
            }
        };
        if !std::mem::replace(&mut self.is_counted, true) {
            let counters = &self.core.counters;
            Counters::add(if found.is_some() { &counters.hits } else { &counters.misses }, 1);
        }
        found
    }
}

impl Candidates {
    /// Asks for the primary and the table.
    fn start(&mut self) -> Option<Bare> {
        self.stage = Stage::Fetched(VecDeque::new());
        Counters::add(&self.core.counters.gets, 1);
        let table_key = table_key(&self.key);
        let requests = [Request::Get(&self.key), Request::Get(&table_key)];
        let Some(mut answers) = self.core.exchange(Sort::Get, 1, &requests) else {
            // Counted by its reason.
            self.is_counted = true;
            return None;
        };
        let table = match answers.pop().map(|answer| self.core.opened(&table_key, answer)) {
            Some(Lookup::Hit(table)) => Table::decode(&table.artifact),
            _ => Table::default(),
        };
        let primary = answers.pop().map(|answer| self.core.opened(&self.key, answer));
        let seen = match &primary {
            Some(Lookup::Hit(primary)) => Some(name_of(primary)),
            _ => None,
        };
        let others = table.0.into_iter().filter(|(variant, _)| seen != Some(*variant));
        let (fitting, misfits): (Vec<_>, Vec<_>) =
            others.partition(|(_, fingerprint)| self.fits(*fingerprint));
        self.core.counters.add_misfits(misfits.len());
        if !fitting.is_empty() {
            self.stage = Stage::Listed(fitting.into_iter().map(|(variant, _)| variant).collect());
        }
        match primary {
            Some(Lookup::Hit(primary)) => self.fitting(*primary),
            Some(Lookup::Failed) => {
                // Counted by its reason, unless another variant makes it a hit after all.
                self.is_counted = matches!(self.stage, Stage::Fetched(_));
                None
            }
            Some(Lookup::Miss) | None => None,
        }
    }

    fn fetch(&self, variants: &[u64]) -> VecDeque<Bare> {
        let keys: Vec<_> = variants.iter().map(|variant| variant_key(&self.key, *variant)).collect();
        let requests: Vec<_> = keys.iter().map(|key| Request::Get(key)).collect();
        let answers = self.core.exchange(Sort::Get, 1, &requests).unwrap_or_default();
        let entries =
            keys.iter().zip(answers).filter_map(|(key, answer)| match self.core.opened(key, answer) {
                Lookup::Hit(bare) => self.fitting(*bare),
                Lookup::Miss | Lookup::Failed => None,
            });
        entries.collect()
    }

    /// The entry, if it fits here by what it says itself.
    fn fitting(&self, bare: Bare) -> Option<Bare> {
        if self.fits(fingerprint(&bare)) {
            return Some(bare);
        }
        self.core.counters.add_misfits(1);
        None
    }

    fn fits(&self, fingerprint: Option<[u8; 32]>) -> bool {
        fingerprint.is_none() || fingerprint == self.fingerprint
    }
}

fn fingerprint(bare: &Bare) -> Option<[u8; 32]> {
    bare.metadata.details.as_ref().and_then(|details| details.fingerprint)
}

/// The number of a variant. One that was put without (by a stock client) is called by its digest, so that it is kept too.
fn name_of(bare: &Bare) -> u64 {
    let said = bare.metadata.details.as_ref().and_then(|details| details.variant);
    said.unwrap_or_else(|| number_of(&Digest::of(&bare.artifact)))
}

fn number_of(digest: &Digest) -> u64 {
    digest.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// What stands under the key itself: as it came, and which variant it is.
type Standing = (Sealed, Listed);

impl Core {
    /// What stands under a key and its table, for whoever writes there.
    fn variants(&self, key: &[u8], table_key: &[u8]) -> Option<(Option<Standing>, Table)> {
        let mut answers = self.exchange(Sort::Put, 1, &[Request::Get(key), Request::Get(table_key)])?;
        let table = match answers.pop().map(|answer| self.opened(table_key, answer)) {
            Some(Lookup::Hit(table)) => Table::decode(&table.artifact),
            _ => Table::default(),
        };
        let standing = match answers.pop() {
            Some(Ok(Answer::Found(whole))) => self.standing(key, whole),
            _ => None,
        };
        Some((standing, table))
    }

    /// An entry that may have to give way. One that we do not take is kept for those who may: what its head says is enough for
    /// that, and nothing of it is decoded.
    fn standing(&self, key: &[u8], whole: Bytes) -> Option<Standing> {
        let listed = |sealed: &Sealed| match self.verifier.vet(key, sealed.clone(), now_ms()) {
            Ok(vetted) => open(&vetted).map(|bare| Some((name_of(&bare), fingerprint(&bare)))),
            Err(Error::Unverified(refusal)) => match refusal.reason() {
                Reason::BadSignature | Reason::Revoked | Reason::Expired => Ok(None),
                Reason::Unsigned | Reason::UnknownSigner | Reason::OutOfScope => {
                    listed_by_head(sealed).map(Some)
                }
            },
            Err(error) => Err(error),
        };
        match Sealed::from_whole(whole).and_then(|sealed| Ok(listed(&sealed)?.map(|listed| (sealed, listed))))
        {
            Ok(standing) => standing,
            Err(error) => {
                self.refuse(&error);
                None
            }
        }
    }

    fn quarantine_variant(&self, key: &[u8], variant: u64) {
        Counters::add(&self.counters.quarantined, 1);
        let (table_key, variant_key) = (table_key(key), variant_key(key, variant));
        let Some((primary, mut table)) = self.variants(key, &table_key) else { return };
        // It may be both: one that was displaced and came back left a copy.
        let mut requests = vec![Request::Delete(&variant_key)];
        if primary.is_some_and(|(_, (standing, _))| standing == variant) {
            requests.push(Request::Delete(key));
        }
        let is_listed = table.remove(variant);
        let sealed_table =
            if is_listed && !table.0.is_empty() { self.seal_table(&table_key, &table).ok() } else { None };
        match &sealed_table {
            Some(sealed) => requests.push(Request::Put(&table_key, sealed)),
            None if is_listed => requests.push(Request::Delete(&table_key)),
            None => {}
        }
        self.exchange(Sort::Put, 1, &requests);
    }

    fn put_variant(&self, key: &[u8], variant: u64, bare: Bare) -> bool {
        let sealed = match self.seal(key, &bare) {
            Ok(sealed) => sealed,
            Err(error) => {
                self.refuse(&error);
                return self.count_put(None);
            }
        };
        let table_key = table_key(key);
        let Some((primary, mut table)) = self.variants(key, &table_key) else { return self.count_put(None) };
        let displaced = primary.filter(|(_, (standing, _))| *standing != variant);
        self.write_variants(key, &table_key, &mut table, displaced, (variant, fingerprint(&bare)), &sealed)
    }

    /// Makes room for the newest variant and puts it, in one round trip. In this order: what is displaced is kept before
    /// it is overwritten, and listed before it is looked for.
    fn write_variants(
        &self,
        key: &[u8],
        table_key: &[u8],
        table: &mut Table,
        displaced: Option<Standing>,
        newest: Listed,
        sealed: &Sealed,
    ) -> bool {
        let before = table.clone();
        let mut dropped = Vec::new();
        if let Some((_, listed)) = &displaced {
            dropped.extend(table.add(*listed));
        }
        dropped.extend(table.add(newest));
        let displaced = displaced.map(|(sealed, (variant, _))| (variant_key(key, variant), sealed));
        let dropped: Vec<_> = dropped.iter().map(|(variant, _)| variant_key(key, *variant)).collect();
        // One variant alone needs no table, and most keys have no more.
        let sealed_table = (*table != before && (table.0.len() > 1 || !before.0.is_empty()))
            .then(|| self.seal_table(table_key, table))
            .transpose();
        let Ok(sealed_table) = sealed_table else { return self.count_put(None) };
        let mut requests = Vec::new();
        if let Some((key, sealed)) = &displaced {
            requests.push(Request::Put(key, sealed));
        }
        if let Some(sealed) = &sealed_table {
            requests.push(Request::Put(table_key, sealed));
        }
        requests.extend(dropped.iter().map(|key| Request::Delete(key)));
        requests.push(Request::Put(key, sealed));
        let answers = self.exchange(Sort::Put, 1, &requests);
        self.count_put(answers.as_deref().and_then(<[_]>::last))
    }

    fn seal_table(&self, table_key: &[u8], table: &Table) -> Result<Sealed> {
        let metadata = Metadata { created_ms: now_ms(), ..Metadata::default() };
        let artifact = Verified::from_producer(table.encode());
        self.seal(table_key, &Bare { artifact, frame: None, metadata })
    }
}

/// Which variant an envelope says that it holds.
fn listed_by_head(sealed: &Sealed) -> Result<Listed> {
    let Entry { artifact, metadata } = envelope::read(sealed, BULK_LEN_MAX)?;
    let details = metadata.details.as_deref();
    let said = details.and_then(|details| details.variant);
    let digest = artifact.digest().map_or(0, number_of);
    Ok((said.unwrap_or(digest), details.and_then(|details| details.fingerprint)))
}
