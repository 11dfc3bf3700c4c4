//! Who signs what a client puts, and whose signatures it asks for.

use std::path::{Path, PathBuf};

use super::Client;
use super::core::now_ms;
use super::engine::{Answer, Request};
use super::trouble::Sort;
use crate::envelope::Sealed;
use crate::trust::{Policy, Signed, Signer, SigningKey, TrustFile, Verifier};
use crate::{Namespace, Result};

/// Who signs what is put, and whose signatures are asked for of what is got. By default nobody, and nobody's.
#[derive(Debug, Default)]
pub struct Signing {
    /// What this client calls its namespace; that of the URL's database if absent.
    pub namespace: Option<Namespace>,
    /// What is put is signed with it.
    pub key: Option<SigningKey>,
    /// What becomes of entries that nobody trusted signed.
    pub policy: Policy,
    /// Who is trusted.
    pub trusted: TrustFile,
    /// What is wrong with the names that it was made from; the client says it first.
    pub problems: Vec<String>,
}

/// The same as it is said in the environment, in texts and names of files.
#[derive(Debug, Clone, Default)]
pub struct SigningNames {
    /// `PILOTLIGHT_NAMESPACE`.
    pub namespace: Option<String>,
    /// `PILOTLIGHT_SIGNING_KEY`.
    pub key: Option<PathBuf>,
    /// `PILOTLIGHT_VERIFY`: `off`, `warn` or `require`.
    pub verify: Option<String>,
    /// `PILOTLIGHT_TRUST`.
    pub trust: Option<PathBuf>,
}

impl Signing {
    /// What `names` stand for. It never fails, since a compiler waits: a key that cannot be read signs nothing, a trust file that
    /// cannot be read trusts nobody, and a policy that is not understood is the strictest; each is among the problems then.
    #[must_use]
    pub fn of_names(names: &SigningNames) -> Self {
        let mut signing = Self::default();
        signing.take_namespace(names.namespace.as_deref());
        signing.take_key(names.key.as_deref());
        signing.take_policy(names.verify.as_deref());
        signing.take_trust(names.trust.as_deref());
        signing
    }

    fn take_namespace(&mut self, name: Option<&str>) {
        match name.map(Namespace::new).transpose() {
            Ok(namespace) => self.namespace = namespace,
            Err(error) => self.problems.push(format!("PILOTLIGHT_NAMESPACE is left aside: {error}")),
        }
    }

    fn take_key(&mut self, path: Option<&Path>) {
        match path.map(SigningKey::read).transpose() {
            Ok(key) => self.key = key,
            Err(error) => {
                let error = with_source(&error);
                self.problems.push(format!("PILOTLIGHT_SIGNING_KEY: {error}; what is put is not signed"));
            }
        }
    }

    fn take_policy(&mut self, name: Option<&str>) {
        let Some(name) = name else { return };
        self.policy = Policy::named(name).unwrap_or_else(|| {
            let name = name.escape_debug();
            self.problems.push(format!(
                "PILOTLIGHT_VERIFY is `{name}`, expected `off`, `warn` or `require`; it is taken for `require`"
            ));
            Policy::Require
        });
    }

    fn take_trust(&mut self, path: Option<&Path>) {
        let comes_of_it = match self.policy {
            Policy::Off => return,
            Policy::Warn => "nobody is trusted, and of every entry that is said",
            Policy::Require => "nobody is trusted, and no entry is used: everything is compiled here",
        };
        match path.map(TrustFile::read) {
            Some(Ok(trusted)) => self.trusted = trusted,
            Some(Err(error)) => {
                let error = with_source(&error);
                self.problems.push(format!("PILOTLIGHT_TRUST: {error}; {comes_of_it}"));
            }
            None => self.problems.push(format!(
                "there is no trust file: {comes_of_it}; `pilotlight keys trust` makes one, PILOTLIGHT_TRUST names another"
            )),
        }
    }

    pub(super) fn in_database(self, number: u16) -> (Option<Signer>, Verifier) {
        let namespace = self.namespace.unwrap_or_else(|| Namespace::database(number));
        let signer = self.key.map(|key| Signer::new(key, namespace.clone()));
        (signer, Verifier::new(self.policy, namespace, self.trusted))
    }
}

impl Client {
    /// Who signed what stands under each of `keys`, whatever the policy is, or why nobody trusted did; `None` for what is not there
    /// or did not come. For whoever explains: neither counted as a get nor refused.
    #[must_use]
    pub fn signers_of(&self, keys: &[&[u8]]) -> Vec<Option<Result<Signed>>> {
        let requests: Vec<_> = keys.iter().map(|key| Request::Get(key)).collect();
        let answers = self.core.exchange(Sort::Get, keys.len(), &requests).unwrap_or_default();
        let mut answers = answers.into_iter();
        let signer = |key: &&[u8]| match answers.next()? {
            Ok(Answer::Found(whole)) => {
                let sealed = Sealed::from_whole(whole);
                Some(sealed.and_then(|sealed| self.core.verifier.signer_of(key, &sealed, now_ms())))
            }
            Ok(_) | Err(_) => None,
        };
        keys.iter().map(signer).collect()
    }

    /// The namespace that its entries are signed for.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        self.core.verifier.namespace()
    }
}

fn with_source(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_or_understood_is_said_and_errs_on_the_safe_side() {
        let dir = tempfile::tempdir().unwrap();
        let absent = Some(dir.path().join("absent"));
        let names = SigningNames {
            namespace: Some("n".repeat(300)),
            key: absent.clone(),
            verify: Some("requre".to_owned()),
            trust: absent.clone(),
        };
        let signing = Signing::of_names(&names);
        assert!(signing.key.is_none() && signing.namespace.is_none());
        assert_eq!((signing.policy, signing.trusted), (Policy::Require, TrustFile::default()));
        let said = signing.problems.join("\n");
        for word in ["NAMESPACE", "SIGNING_KEY", "VERIFY is `requre`", "TRUST", "No such file"] {
            assert!(said.contains(word), "{said}");
        }
        for (verify, problems) in [(None, 0), (Some("off"), 0), (Some("warn"), 1), (Some("require"), 1)] {
            let verify = verify.map(str::to_owned);
            let signing = Signing::of_names(&SigningNames { verify, ..SigningNames::default() });
            assert_eq!(signing.problems.len(), problems, "{:?}", signing.problems);
        }
    }
}
