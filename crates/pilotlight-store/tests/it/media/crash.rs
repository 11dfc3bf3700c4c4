//! What a kill and a power cut leave of a [`FileSystem`].
//!
//! A kill leaves all that the kernel was told, and of the call that was under way a part. A power cut leaves what was synced,
//! and of everything else any part in any order: a name without its file's bytes, a later write without an earlier one, a
//! block that is half old, a length without what it is the length of. Renames are whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::content::{BLOCK, Content, pieces};
pub(crate) use super::file_system::Change;
use super::file_system::{Edit, FileSystem, Inode, Node};
use crate::setup::Dice;

/// What a disk writes whole.
const SECTOR: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    Kill,
    PowerCut,
}

/// A file system and the change that was under way when it crashed.
#[derive(Debug, Clone)]
pub(crate) struct Moment {
    pub(crate) files: FileSystem,
    pub(crate) change: Change,
}

impl Moment {
    /// What a `crash` now may leave: one of many states, as the dice fall.
    pub(crate) fn after(&self, crash: Crash, dice: &mut Dice) -> FileSystem {
        let mut files = self.files.clone();
        let begun = match &self.change {
            Change::Write { file, bytes, offset } => {
                let len = [0, dice.below(bytes.len() + 1), bytes.len()][dice.below(3)];
                let bytes = bytes[..len].into();
                Some(Change::Write { file: *file, bytes, offset: *offset })
            }
            change => dice.percent(50).then(|| change.clone()),
        };
        if let Some(change) = begun {
            // What the medium refuses it refuses in part, too.
            let _ = files.apply(&change);
        }
        match crash {
            Crash::Kill => files,
            Crash::PowerCut => {
                let (names, data) = (ODDS[dice.below(ODDS.len())], ODDS[dice.below(ODDS.len())]);
                cut_power(&files, names, data, dice)
            }
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = |file: &u64| self.files.path(*file).unwrap_or_default();
        match &self.change {
            Change::Write { file, bytes, offset } => {
                write!(f, "write {} bytes at {offset} of {}", bytes.len(), path(file).display())
            }
            Change::SetLen { file, len } => write!(f, "set the length of {} to {len}", path(file).display()),
            Change::Sync { file } => write!(f, "sync {}", path(file).display()),
            change => write!(f, "{change:?}"),
        }
    }
}

/// How likely something that was not synced survives, in percent: mostly, rarely, or all of it, or nothing.
const ODDS: [u64; 5] = [0, 10, 50, 90, 100];

/// What a power cut leaves where so many percent of the changes of names and of what is in files survive that were not synced.
pub(crate) fn cut_power(files: &FileSystem, names: u64, data: u64, dice: &mut Dice) -> FileSystem {
    let names = surviving_names(files, names, dice);
    let survive = |node: &Node| match node {
        Node::Dir => None,
        Node::File(file) => {
            let content = surviving_content(&files.files[file], data, dice);
            Some((*file, Arc::new(Inode { now: content.clone(), synced: content, edits: Vec::new() })))
        }
    };
    let inodes: BTreeMap<_, _> = names.values().filter_map(survive).collect();
    let names = Arc::new(names);
    FileSystem {
        names: names.clone(),
        synced_names: names,
        renamings: Vec::new(),
        files: Arc::new(inodes),
        capacity: files.capacity,
        is_read_only: files.is_read_only,
    }
}

/// A change of a name is lost with any that it builds upon.
fn surviving_names(files: &FileSystem, odds: u64, dice: &mut Dice) -> BTreeMap<PathBuf, Node> {
    let mut names = (*files.synced_names).clone();
    let mut lost: BTreeSet<&Path> = BTreeSet::new();
    for renaming in &files.renamings {
        let is_lost = renaming.paths().any(|path| lost.contains(path.as_path()));
        if is_lost || !dice.percent(odds) {
            lost.extend(renaming.paths().map(PathBuf::as_path));
        } else {
            renaming.apply(&mut names);
        }
    }
    // What was in a directory whose own name is lost. Directories come before what is in them.
    let mut reached = BTreeSet::from([PathBuf::from("/")]);
    names.retain(|path, node| {
        let is_reached = path.parent().is_some_and(|parent| reached.contains(parent));
        if is_reached && *node == Node::Dir {
            reached.insert(path.clone());
        }
        is_reached
    });
    names
}

fn surviving_content(inode: &Inode, odds: u64, dice: &mut Dice) -> Content {
    let mut content = inode.synced.clone();
    for edit in &inode.edits {
        match edit {
            Edit::SetLen(len) => {
                if dice.percent(odds) {
                    content.set_len(*len);
                }
            }
            Edit::Write { bytes, offset } => {
                for (at, piece) in pieces(bytes, *offset, BLOCK) {
                    if dice.percent(odds) {
                        content.write(piece, at);
                    } else if odds > 0 {
                        tear(&mut content, piece, at, dice);
                    }
                }
            }
        }
    }
    content
}

/// Leaves nothing of a block that was written, or some of its sectors, or only the length that it gave the file.
fn tear(content: &mut Content, piece: &[u8], at: usize, dice: &mut Dice) {
    match dice.below(4) {
        0 => {
            for (at, sector) in pieces(piece, at, SECTOR) {
                if dice.percent(50) {
                    content.write(sector, at);
                }
            }
        }
        1 => content.set_len(content.len().max(at + piece.len())),
        _ => {}
    }
}
