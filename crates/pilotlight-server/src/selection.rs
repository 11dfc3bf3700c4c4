//! Which entries an export takes.

use pilotlight_cache::{Head, Key};
use serde::{Deserialize, Serialize};

use crate::resp::glob;

/// Which entries are wanted: all of them, or those that meet every condition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Of one of these kinds; of any if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
    /// Whose key matches this pattern: `*`, `?` and `[a-z]`, as in Redis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// Put at or after this time, milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
}

impl Selection {
    /// Whether the entry is wanted.
    #[must_use]
    pub fn holds(&self, key: &Key, head: &Head) -> bool {
        let is_of_kind = self.kinds.is_empty() || self.kinds.iter().any(|kind| kind == key.kind().name());
        is_of_kind
            && self.pattern.as_ref().is_none_or(|pattern| glob::matches(pattern.as_bytes(), key.bytes()))
            && self.since_ms.is_none_or(|since_ms| head.created_ms >= since_ms)
    }
}

#[cfg(test)]
mod tests {
    use pilotlight_cache::Version;

    use super::*;

    #[test]
    fn every_condition_must_hold() {
        let head = Head {
            version: Version(1),
            artifact_len: 1,
            stored_bytes: 1,
            created_ms: 100,
            expires_ms: None,
            accessed_ms: 100,
            hits: 0,
            compile_ms: 0,
            is_pinned: false,
            group: None,
        };
        let key = Key::new("pt2:fx-graph-v1::f:c1");
        let selection = |kinds: &[&str], pattern: Option<&str>, since_ms| Selection {
            kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
            pattern: pattern.map(str::to_owned),
            since_ms,
        };
        let holds = |selection: Selection| selection.holds(&key, &head);
        assert!(holds(Selection::default()));
        assert!(holds(selection(&["triton", "fx-graph"], Some("pt2:*:c?"), Some(100))));
        assert!(!holds(selection(&["triton"], Some("pt2:*"), Some(100))));
        assert!(!holds(selection(&[], Some("pt3:*"), None)));
        assert!(!holds(selection(&[], None, Some(101))));
    }
}
