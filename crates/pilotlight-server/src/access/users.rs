//! Users and the rules of namespaces, as they are in force.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use pilotlight_cache::{Namespace, ReadThrough};

use super::grants::{Grant, Grants, Place, Right};
use super::pace::Rate;
use super::secret::SecretHash;
use crate::tls::PeerIdentity;

/// The name of clients that say none.
pub(crate) const DEFAULT: &str = "default";

/// Somebody who may do something.
#[derive(Debug)]
pub struct User {
    pub(super) name: Arc<str>,
    /// What database 0 means.
    pub(super) home: Namespace,
    pub(super) secrets: Vec<SecretHash>,
    pub(super) certificate: Option<Box<str>>,
    pub(super) grants: Grants,
    pub(super) rate: Option<Arc<Rate>>,
    pub(super) is_disabled: bool,
}

/// How a user proved to be one: what must still hold after the users were exchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// In no way: it is the user that stands for everybody.
    Nothing,
    /// By a secret with this hash.
    Secret(SecretHash),
    /// By a TLS certificate with this subject.
    Certificate(Box<str>),
}

/// A user who proved to be one.
#[derive(Debug, Clone)]
pub struct Login {
    /// Who.
    pub user: Arc<User>,
    /// How.
    pub proof: Proof,
}

/// What holds in a namespace, whoever asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rules {
    /// Who puts first, wins.
    pub(super) is_low_trust: bool,
    /// Where a lookup goes on that misses.
    pub(super) reads: Vec<Namespace>,
    pub(super) quota_bytes: Option<u64>,
}

/// All users, and the rules of namespaces.
#[derive(Debug, Default)]
pub struct Users {
    by_name: BTreeMap<Arc<str>, Arc<User>>,
    by_secret: HashMap<SecretHash, Arc<User>>,
    by_certificate: HashMap<Box<str>, Arc<User>>,
    /// Who anybody is with a certificate that was checked: where there are no users, whom else should it name?
    certified: Option<Arc<User>>,
    rules: BTreeMap<Namespace, Rules>,
}

impl User {
    /// The user that clients without a name are, with all rights.
    pub(super) fn of_password(secret: Option<SecretHash>) -> Self {
        Self {
            name: DEFAULT.into(),
            home: Namespace::default(),
            secrets: secret.into_iter().collect(),
            certificate: None,
            grants: Grants(vec![Grant::EVERYTHING]),
            rate: None,
            is_disabled: false,
        }
    }

    /// The name it logs in with.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The namespace that it calls database `number`: its home, and `HOME/dbN` beside that.
    #[must_use]
    pub fn namespace(&self, number: u16) -> Namespace {
        match (number, self.home.as_str()) {
            (0, _) => self.home.clone(),
            (number, "") => Namespace::database(number),
            // A home is short enough: the users file was checked for that.
            (number, home) => {
                Namespace::new(&format!("{home}/db{number}")).unwrap_or_else(|_| self.home.clone())
            }
        }
    }

    /// What it was granted.
    #[must_use]
    pub fn grants(&self) -> &Grants {
        &self.grants
    }

    /// How many secrets it has.
    #[must_use]
    pub fn secrets(&self) -> usize {
        self.secrets.len()
    }

    /// The subject of the certificate that proves it.
    #[must_use]
    pub fn certificate(&self) -> Option<&str> {
        self.certificate.as_deref()
    }

    /// Whether it may not log in.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        self.is_disabled
    }

    /// How often it may ask, as it is written.
    #[must_use]
    pub fn rate(&self) -> Option<&dyn fmt::Display> {
        self.rate.as_deref().map(|rate| rate as &dyn fmt::Display)
    }

    /// How often it may ask, counted over all of its connections.
    pub(crate) fn pace(&self) -> Option<&Rate> {
        self.rate.as_deref()
    }

    /// Whether it may everything everywhere.
    pub(crate) fn is_unrestricted(&self) -> bool {
        [Right::Read, Right::Write, Right::Admin].into_iter().all(|right| self.grants.everywhere(right))
    }

    /// Whether it stands for clients that prove nothing.
    fn is_anybody(&self) -> bool {
        &*self.name == DEFAULT && self.secrets.is_empty() && self.certificate.is_none() && !self.is_disabled
    }
}

impl Users {
    /// Of a server without a users file: `default`, with all rights, who needs the password if there is one.
    #[must_use]
    pub fn of_password(password: Option<&str>) -> Self {
        let user = User::of_password(password.map(|password| SecretHash::of(password.as_bytes())));
        let users = Self::new(vec![user], BTreeMap::new());
        Self { certified: users.by_name(DEFAULT).cloned(), ..users }
    }

    pub(super) fn new(users: Vec<User>, rules: BTreeMap<Namespace, Rules>) -> Self {
        let mut all = Self { rules, ..Self::default() };
        for user in users.into_iter().map(Arc::new) {
            // Who may not log in proves nothing by a secret.
            if !user.is_disabled {
                all.by_secret.extend(user.secrets.iter().map(|secret| (*secret, Arc::clone(&user))));
                all.by_certificate
                    .extend(user.certificate.iter().map(|own| (own.clone(), Arc::clone(&user))));
            }
            all.by_name.insert(Arc::clone(&user.name), user);
        }
        all
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &User> {
        self.by_name.values().map(|user| &**user)
    }

    /// The user called `name`.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Arc<User>> {
        self.by_name.get(name)
    }

    /// The user that this secret proves; each secret is one user's alone.
    #[must_use]
    pub fn by_secret(&self, secret: &[u8]) -> Option<Login> {
        let hash = SecretHash::of(secret);
        let user = Arc::clone(self.by_secret.get(&hash)?);
        Some(Login { user, proof: Proof::Secret(hash) })
    }

    /// The user that a certificate with this name proves.
    #[must_use]
    pub fn by_certificate(&self, name: &str) -> Option<Login> {
        let user = Arc::clone(self.by_certificate.get(name).or(self.certified.as_ref())?);
        Some(Login { user, proof: Proof::Certificate(name.into()) })
    }

    /// Who a connection is before it logs in: whom its certificate proves, the most telling of its names first, or who stands for
    /// everybody.
    #[must_use]
    pub fn stranger(&self, identity: Option<&PeerIdentity>) -> Option<Login> {
        let mut names = identity.into_iter().flat_map(PeerIdentity::names);
        names.find_map(|name| self.by_certificate(name)).or_else(|| self.anybody())
    }

    /// The user that `name` and `secret` prove together. Whoever stands for everybody needs no secret, so any will do, as in Redis.
    #[must_use]
    pub fn by_name_and_secret(&self, name: &str, secret: &[u8]) -> Option<Login> {
        let anybody = self.anybody().filter(|login| &*login.user.name == name);
        anybody.or_else(|| self.by_secret(secret).filter(|login| &*login.user.name == name))
    }

    /// The user that stands for clients that prove nothing, if there is one.
    #[must_use]
    pub fn anybody(&self) -> Option<Login> {
        let user = self.by_name.get(DEFAULT).filter(|user| user.is_anybody())?;
        Some(Login { user: Arc::clone(user), proof: Proof::Nothing })
    }

    /// What has become of a login that other users than these granted; `None` if it would not be granted now.
    #[must_use]
    pub fn renewed(&self, login: &Login) -> Option<Login> {
        let user = self.by_name.get(&login.user.name).filter(|user| !user.is_disabled)?;
        let is_proved = match &login.proof {
            Proof::Nothing => user.is_anybody(),
            Proof::Secret(hash) => user.secrets.contains(hash),
            Proof::Certificate(subject) => user.certificate.as_ref() == Some(subject),
        };
        is_proved.then(|| Login { user: Arc::clone(user), proof: login.proof.clone() })
    }

    /// What `user` may in `namespace`.
    #[must_use]
    pub fn place(&self, user: &User, namespace: &Namespace) -> Place {
        let is_low_trust = self.rules.get(namespace).is_some_and(|rules| rules.is_low_trust);
        Place::new(user.grants.within(namespace), is_low_trust)
    }

    /// Where lookups of `user` go on that miss in `namespace`: what is listed there, as far as the user may read it.
    #[must_use]
    pub fn through(&self, user: &User, namespace: &Namespace) -> Option<ReadThrough> {
        let reads = &self.rules.get(namespace)?.reads;
        ReadThrough::new(|kind| {
            let may_read = |next: &&Namespace| self.place(user, next).may(Right::Read, kind);
            reads.iter().filter(may_read).cloned().collect()
        })
    }

    /// What namespaces may take, in bytes.
    pub fn quotas(&self) -> impl Iterator<Item = (&Namespace, u64)> {
        self.rules.iter().filter_map(|(namespace, rules)| Some((namespace, rules.quota_bytes?)))
    }

    /// Whether somebody who proves nothing may put entries, which is to run code where they are read.
    #[must_use]
    pub fn anybody_writes(&self) -> bool {
        self.anybody().is_some_and(|login| login.user.grants.anywhere(Right::Write))
    }

    /// Lets those who were here before keep what counts for them: how much they asked for lately.
    pub(super) fn succeed(&self, earlier: &Self) {
        for user in self.by_name.values() {
            let before = earlier.by_name.get(&user.name).and_then(|before| before.rate.as_deref());
            if let (Some(rate), Some(before)) = (user.rate.as_deref(), before) {
                rate.succeed(before);
            }
        }
    }
}
