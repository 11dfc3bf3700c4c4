//! Keeps the commands of a transaction together.

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// One lock a core: an ordinary command holds its own core's for reading, which no other core touches; a transaction
/// and a command that writes several keys hold all of them for writing. So isolation costs those who ask for it.
///
/// What is absent: HTTP. Its requests are single operations, and the backend keeps each of those whole.
#[derive(Debug)]
pub(crate) struct Gate {
    shards: Vec<RwLock<()>>,
}

/// Ends with the command that holds it.
#[derive(Debug)]
pub(crate) enum Pass<'a> {
    Shared { _guard: Option<RwLockReadGuard<'a, ()>> },
    Alone { _guards: Vec<RwLockWriteGuard<'a, ()>> },
}

impl Gate {
    pub(crate) fn new(cores: usize) -> Self {
        Self { shards: std::iter::repeat_with(RwLock::default).take(cores.max(1)).collect() }
    }

    /// For a command that may run beside others, if it need not wait.
    pub(crate) fn try_shared(&self, core: usize) -> Option<Pass<'_>> {
        let guard = self.shards.get(core)?.try_read().ok()?;
        Some(Pass::Shared { _guard: Some(guard) })
    }

    /// For a command that may run beside others.
    pub(crate) async fn shared(&self, core: usize) -> Pass<'_> {
        let guard = match self.shards.get(core) {
            Some(shard) => Some(shard.read().await),
            None => None,
        };
        Pass::Shared { _guard: guard }
    }

    /// For commands that no other may come between. All take the shards in one order, so they cannot deadlock.
    pub(crate) async fn alone(&self) -> Pass<'_> {
        let mut guards = Vec::with_capacity(self.shards.len());
        for shard in &self.shards {
            guards.push(shard.write().await);
        }
        Pass::Alone { _guards: guards }
    }
}
