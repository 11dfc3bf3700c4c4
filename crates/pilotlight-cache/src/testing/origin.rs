//! An origin in this process' memory, that fails as it is told to.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::Clock;
use crate::origin::{About, Fetched, FirstPut, Listing, ObjectName, Origin, OriginError, Tag};

/// What goes wrong, with every request until another is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    None,
    /// Every answer comes late.
    Delay(Duration),
    /// No answer comes, ever.
    Hang,
    /// Every request fails.
    Fail(OriginError),
    /// So many requests fail, those after them do not.
    FailNext(u32, OriginError),
    /// What writes fails, what reads does not.
    FailWrites(OriginError),
}

/// How often what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the methods of `Origin`")]
pub struct Asked {
    pub gets: u64,
    pub heads: u64,
    pub puts: u64,
    pub deletes: u64,
    pub lists: u64,
}

/// Objects in memory, in the order of their names. Shared by whoever holds it, as nodes share a bucket.
#[derive(Debug)]
pub struct MemoryOrigin {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    offers_first_puts: bool,
}

#[derive(Debug)]
struct State {
    objects: BTreeMap<ObjectName, (Bytes, About)>,
    last_tag: u64,
    trouble: Trouble,
    asked: Asked,
}

impl MemoryOrigin {
    /// An empty one.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let state =
            State { objects: BTreeMap::new(), last_tag: 0, trouble: Trouble::None, asked: Asked::default() };
        Self { state: Mutex::new(state), clock, offers_first_puts: true }
    }

    /// The same for one that cannot put only where nothing is, as some engines cannot.
    #[must_use]
    pub fn without_first_puts(mut self) -> Self {
        self.offers_first_puts = false;
        self
    }

    /// From here on this goes wrong.
    pub fn set_trouble(&self, trouble: Trouble) {
        self.state.lock().trouble = trouble;
    }

    /// How often what was asked so far.
    pub fn asked(&self) -> Asked {
        self.state.lock().asked
    }

    /// The names of all objects.
    pub fn names(&self) -> Vec<ObjectName> {
        self.state.lock().objects.keys().cloned().collect()
    }

    /// The bytes of an object.
    pub fn object(&self, name: &ObjectName) -> Option<Bytes> {
        self.state.lock().objects.get(name).map(|(bytes, _)| bytes.clone())
    }

    /// Puts these bytes there, past everything that may go wrong.
    pub fn place(&self, name: &ObjectName, bytes: impl Into<Bytes>) {
        self.insert(&mut self.state.lock(), name, bytes.into());
    }

    fn insert(&self, state: &mut State, name: &ObjectName, bytes: Bytes) -> Option<Tag> {
        state.last_tag += 1;
        let tag = Some(Tag(state.last_tag.to_string()));
        let about =
            About { size_bytes: bytes.len() as u64, modified_ms: self.clock.now_ms(), tag: tag.clone() };
        state.objects.insert(name.clone(), (bytes, about));
        tag
    }

    /// What goes wrong, before anything is done: also what fails may not have taken place.
    async fn suffer(&self, is_write: bool, count: impl FnOnce(&mut Asked)) -> Result<(), OriginError> {
        let trouble = {
            let mut state = self.state.lock();
            count(&mut state.asked);
            match &mut state.trouble {
                Trouble::FailNext(0, _) => Trouble::None,
                Trouble::FailNext(left, error) => {
                    *left -= 1;
                    Trouble::Fail(error.clone())
                }
                Trouble::FailWrites(_) if !is_write => Trouble::None,
                Trouble::FailWrites(error) => Trouble::Fail(error.clone()),
                trouble => trouble.clone(),
            }
        };
        match trouble {
            Trouble::Fail(error) => Err(error),
            Trouble::Hang => std::future::pending().await,
            Trouble::Delay(delay) => {
                tokio::time::sleep(delay).await;
                Ok(())
            }
            Trouble::None | Trouble::FailNext(..) | Trouble::FailWrites(_) => Ok(()),
        }
    }
}

#[async_trait]
impl Origin for MemoryOrigin {
    async fn get(
        &self,
        name: &ObjectName,
        max_bytes: u64,
        unless: Option<&Tag>,
    ) -> Result<Fetched, OriginError> {
        self.suffer(false, |asked| asked.gets += 1).await?;
        let state = self.state.lock();
        let Some((bytes, about)) = state.objects.get(name) else { return Ok(Fetched::Absent) };
        if unless.is_some() && about.tag.as_ref() == unless {
            return Ok(Fetched::Unchanged);
        }
        if about.size_bytes > max_bytes {
            return Err(OriginError::TooLarge { size_bytes: about.size_bytes, max_bytes });
        }
        Ok(Fetched::Object { bytes: bytes.clone(), about: about.clone() })
    }

    async fn head(&self, name: &ObjectName) -> Result<Option<About>, OriginError> {
        self.suffer(false, |asked| asked.heads += 1).await?;
        Ok(self.state.lock().objects.get(name).map(|(_, about)| about.clone()))
    }

    async fn put(&self, name: &ObjectName, object: Vec<Bytes>) -> Result<Option<Tag>, OriginError> {
        self.suffer(true, |asked| asked.puts += 1).await?;
        Ok(self.insert(&mut self.state.lock(), name, object.concat().into()))
    }

    async fn put_if_absent(&self, name: &ObjectName, object: Vec<Bytes>) -> Result<FirstPut, OriginError> {
        self.suffer(true, |asked| asked.puts += 1).await?;
        if !self.offers_first_puts {
            return Err(OriginError::Unsupported { what: "puts where nothing is" });
        }
        let mut state = self.state.lock();
        if state.objects.contains_key(name) {
            return Ok(FirstPut::Taken);
        }
        Ok(FirstPut::Stored(self.insert(&mut state, name, object.concat().into())))
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), OriginError> {
        self.suffer(true, |asked| asked.deletes += 1).await?;
        self.state.lock().objects.remove(name);
        Ok(())
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectName>,
        limit: usize,
    ) -> Result<Listing, OriginError> {
        self.suffer(false, |asked| asked.lists += 1).await?;
        let state = self.state.lock();
        let mut behind = state
            .objects
            .iter()
            .filter(|(name, _)| name.as_str().starts_with(prefix) && after.is_none_or(|after| *name > after));
        let objects = behind.by_ref().take(limit);
        let objects = objects.map(|(name, (_, about))| (name.clone(), about.clone())).collect();
        Ok(Listing { objects, is_truncated: behind.next().is_some() })
    }
}

impl fmt::Display for MemoryOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory origin")
    }
}
