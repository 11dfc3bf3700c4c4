//! What is granted: rights, in a namespace, to a kind.

use std::fmt;

use pilotlight_cache::{Kind, Namespace};

const KINDS: usize = Kind::ALL.len();
/// Stands for every namespace, or every kind.
const ANY: &str = "*";

/// One thing that may be granted. None contains another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Right {
    /// To look entries up, and to list them.
    Read = 1,
    /// To put entries, and to delete them.
    Write = 2,
    /// What operators do: pins, exports, and replacing what others put first; of all namespaces, the server's settings.
    Admin = 4,
}

impl Right {
    const ALL: [(Self, char); 3] = [(Self::Read, 'r'), (Self::Write, 'w'), (Self::Admin, 'a')];
}

/// A set of rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rights(u8);

impl Rights {
    const ALL: Self = Self(7);

    /// Whether `right` is among them.
    #[must_use]
    pub fn has(self, right: Right) -> bool {
        self.0 & right as u8 != 0
    }

    fn parse(text: &str) -> Option<Self> {
        let mut rights = Self::default();
        for letter in text.chars() {
            let (right, _) = Right::ALL.into_iter().find(|(_, known)| *known == letter)?;
            rights.0 |= right as u8;
        }
        (rights != Self::default()).then_some(rights)
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Right::ALL
            .iter()
            .filter(|(right, _)| self.has(*right))
            .try_for_each(|(_, letter)| write!(f, "{letter}"))
    }
}

/// One line of a user's grants: `rw ci`, `r release:fx-graph`, `a *`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    rights: Rights,
    /// Of every one when `None`.
    namespace: Option<Namespace>,
    /// Every one when `None`.
    kind: Option<Kind>,
}

impl Grant {
    /// Everything, everywhere.
    pub(super) const EVERYTHING: Self = Self { rights: Rights::ALL, namespace: None, kind: None };

    /// Reads a grant: rights (`r`, `w`, `a`), a namespace (its name, `''` for the one without, or `*`), and perhaps a kind.
    ///
    /// # Errors
    /// What is wrong with it, and what to write.
    pub fn parse(text: &str) -> Result<Self, (String, String)> {
        let form =
            || "write a grant as `rw NAMESPACE` or `r NAMESPACE:KIND`, `*` for every namespace".to_owned();
        let (rights, place) = text
            .trim()
            .split_once(' ')
            .ok_or_else(|| (format!("`{text}` is no grant: expected rights and a namespace"), form()))?;
        let rights = Rights::parse(rights).ok_or_else(|| {
            (format!("`{rights}` is no set of rights: expected some of `r`, `w` and `a`"), form())
        })?;
        let (name, kind) = match place.trim().rsplit_once(':') {
            None => (place.trim(), None),
            Some((name, ANY)) => (name, None),
            Some((name, kind)) => {
                let known = Kind::ALL.into_iter().find(|known| known.name() == kind);
                let kind = known.ok_or_else(|| {
                    let names = Kind::ALL.map(Kind::name).join(", ");
                    let hint = format!(
                        "the kinds are {names}; of a namespace with a colon in its name, say the kind too, as in `a:b:*`"
                    );
                    (format!("`{kind}` is no kind"), hint)
                })?;
                (name, Some(kind))
            }
        };
        let namespace = match name {
            ANY => None,
            "" => {
                return Err((
                    format!("`{text}` names no namespace"),
                    "`''` is the one without a name".to_owned(),
                ));
            }
            name => Some(namespace(name).map_err(|error| (error, form()))?),
        };
        Ok(Self { rights, namespace, kind })
    }

    fn covers(&self, namespace: &Namespace) -> bool {
        self.namespace.as_ref().is_none_or(|own| own == namespace)
    }
}

/// The namespace that a person calls `name`: that without a name is `''`, or `db0` as Redis' databases go.
pub(super) fn namespace(name: &str) -> Result<Namespace, String> {
    let name = if matches!(name, "''" | "db0") { "" } else { name };
    Namespace::new(name).map_err(|error| error.to_string())
}

/// The same way back.
pub(super) fn name_of(namespace: &Namespace) -> &str {
    if namespace.as_str().is_empty() { "''" } else { namespace.as_str() }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.namespace.as_ref().map_or(ANY, name_of);
        write!(f, "{} {name}", self.rights)?;
        match self.kind {
            Some(kind) => write!(f, ":{kind}"),
            None if name.contains(':') => write!(f, ":{ANY}"),
            None => Ok(()),
        }
    }
}

/// All that a user was granted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grants(pub(super) Vec<Grant>);

impl Grants {
    /// The grants, in the order in which they were written.
    pub fn iter(&self) -> impl Iterator<Item = &Grant> {
        self.0.iter()
    }

    /// The rights to each kind in `namespace`.
    pub(super) fn within(&self, namespace: &Namespace) -> [Rights; KINDS] {
        self.union(|grant| grant.covers(namespace))
    }

    /// Whether `right` holds for every kind of every namespace.
    #[must_use]
    pub fn everywhere(&self, right: Right) -> bool {
        self.union(|grant| grant.namespace.is_none()).iter().all(|rights| rights.has(right))
    }

    /// Whether `right` holds for something somewhere.
    #[must_use]
    pub fn anywhere(&self, right: Right) -> bool {
        self.0.iter().any(|grant| grant.rights.has(right))
    }

    fn union(&self, counts: impl Fn(&Grant) -> bool) -> [Rights; KINDS] {
        let mut rights = [Rights::default(); KINDS];
        for grant in self.0.iter().filter(|grant| counts(grant)) {
            for (kind, of_kind) in Kind::ALL.into_iter().zip(&mut rights) {
                if grant.kind.is_none_or(|own| own == kind) {
                    of_kind.0 |= grant.rights.0;
                }
            }
        }
        rights
    }
}

/// What a user may in one namespace: an array lookup a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    rights: [Rights; KINDS],
    /// Who puts first, wins; but for administrators.
    is_low_trust: bool,
}

impl Place {
    pub(super) fn new(rights: [Rights; KINDS], is_low_trust: bool) -> Self {
        Self { rights, is_low_trust }
    }

    /// Whether `right` holds for entries of this kind.
    #[must_use]
    pub fn may(&self, right: Right, kind: Kind) -> bool {
        self.rights.get(kind as usize).is_some_and(|rights| rights.has(right))
    }

    /// Whether what is there may be replaced, deleted or made to expire, by who may write it.
    #[must_use]
    pub fn may_replace(&self, kind: Kind) -> bool {
        !self.is_low_trust || self.may(Right::Admin, kind)
    }

    /// Whether `right` holds for some kind.
    #[must_use]
    pub fn may_some(&self, right: Right) -> bool {
        self.rights.iter().any(|rights| rights.has(right))
    }

    /// Whether `right` holds for every kind.
    #[must_use]
    pub fn may_all(&self, right: Right) -> bool {
        self.rights.iter().all(|rights| rights.has(right))
    }

    /// Whether every entry may be deleted.
    #[must_use]
    pub fn may_clear(&self) -> bool {
        self.may_all(Right::Write) && Kind::ALL.into_iter().all(|kind| self.may_replace(kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_read_and_written_alike() {
        for text in
            ["rw ci", "r release:fx-graph", "a *", "rwa *", "w *:triton", "r ''", "r a:b:*", "r a:b:pgo"]
        {
            let grant = Grant::parse(text).unwrap();
            assert_eq!(grant.to_string(), text);
            assert_eq!(Grant::parse(&grant.to_string()), Ok(grant));
        }
        assert_eq!(Grant::parse(" wr  db0 ").unwrap().to_string(), "rw ''");
        for (text, problem) in [
            ("rw", "`rw` is no grant: expected rights and a namespace"),
            ("x ci", "`x` is no set of rights: expected some of `r`, `w` and `a`"),
            ("r ci:fxgraph", "`fxgraph` is no kind"),
            ("r :fx-graph", "`r :fx-graph` names no namespace"),
        ] {
            assert_eq!(Grant::parse(text).unwrap_err().0, problem);
        }
    }

    #[test]
    fn rights_hold_where_they_were_granted_and_nowhere_else() {
        let grants = ["rw ci", "r release:fx-graph", "a *:triton"].map(|text| Grant::parse(text).unwrap());
        let grants = Grants(grants.to_vec());
        let place = |name: &str| Place::new(grants.within(&namespace(name).unwrap()), false);
        assert!(place("ci").may(Right::Write, Kind::Other));
        assert!(place("release").may(Right::Read, Kind::FxGraph));
        assert!(!place("release").may(Right::Read, Kind::Triton));
        assert!(!place("release").may(Right::Write, Kind::FxGraph));
        assert!(place("").may(Right::Admin, Kind::Triton));
        // A name that begins like another is another.
        for other in ["", "c", "ci/db1", "ci:fx-graph", "CI", "releases"] {
            let place = place(other);
            assert!(!place.may_some(Right::Read) && !place.may_some(Right::Write), "{other}");
        }
        assert!(place("ci").may_all(Right::Write) && place("ci").may_clear());
        assert!(!place("release").may_all(Right::Read) && place("release").may_some(Right::Read));
        assert!(!grants.everywhere(Right::Read) && grants.anywhere(Right::Read));
        assert!(Grants(vec![Grant::EVERYTHING]).everywhere(Right::Admin));
    }

    #[test]
    fn in_a_namespace_of_low_trust_only_administrators_replace() {
        let grants = Grants(vec![Grant::parse("rw ci").unwrap(), Grant::parse("a ci:pgo").unwrap()]);
        let place = Place::new(grants.within(&namespace("ci").unwrap()), true);
        assert!(place.may(Right::Write, Kind::FxGraph) && !place.may_replace(Kind::FxGraph));
        assert!(place.may_replace(Kind::Pgo));
        assert!(!place.may_clear());
    }
}
