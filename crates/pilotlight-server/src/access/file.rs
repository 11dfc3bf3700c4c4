//! Reads a users file: TOML, every key known, every error with its line.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pilotlight_cache::{NAMESPACE_LEN_MAX, Namespace};
use serde::Deserialize;
use toml::Spanned;

use super::grants::{self, Grant, Grants};
use super::pace::Rate;
use super::secret::SecretHash;
use super::users::{DEFAULT, Rules, User, Users};
use crate::quantity;

/// The longest name, in bytes.
const NAME_LEN_MAX: usize = 64;
/// The longest home, in bytes: its databases have longer names.
const HOME_LEN_MAX: usize = NAMESPACE_LEN_MAX - "/db65535".len();

/// What is wrong with a users file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct UsersError {
    line: usize,
    what: String,
    hint: Option<String>,
}

impl UsersError {
    /// What to write instead, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    users: BTreeMap<Spanned<String>, UserTable>,
    #[serde(default)]
    namespaces: BTreeMap<Spanned<String>, NamespaceTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserTable {
    secret: Option<Spanned<String>>,
    #[serde(default)]
    secrets: Vec<Spanned<String>>,
    home: Option<Spanned<String>>,
    #[serde(default)]
    grants: Vec<Spanned<String>>,
    certificate: Option<Spanned<String>>,
    rate: Option<Spanned<String>>,
    #[serde(default)]
    disabled: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamespaceTable {
    trust: Option<Spanned<String>>,
    #[serde(default)]
    reads: Vec<Spanned<String>>,
    quota: Option<Spanned<String>>,
}

impl Users {
    /// The users of a users file with this text. With a password, `default` is who gives it, and has all rights.
    ///
    /// # Errors
    /// What is wrong first, and in which line.
    pub fn parse(text: &str, password: Option<&str>) -> Result<Self, UsersError> {
        let lines = Lines(text);
        let document: Document = toml::from_str(text).map_err(|error| lines.of_toml(&error))?;
        let mut seen = Seen::default();
        let mut users = Vec::with_capacity(document.users.len() + 1);
        for (name, table) in document.users {
            if name.get_ref() == DEFAULT && password.is_some() {
                let hint =
                    "give that user a secret instead (`pilotlight users rotate default`), or rename it";
                return Err(lines.error(&name, "the password is of user `default`, who is here too", hint));
            }
            users.push(lines.user(&name, table, &mut seen)?);
        }
        users.extend(password.map(|password| User::of_password(Some(SecretHash::of(password.as_bytes())))));
        let mut rules = BTreeMap::new();
        for (name, table) in document.namespaces {
            let (namespace, of_namespace) = lines.namespace(&name, table)?;
            if rules.insert(namespace, of_namespace).is_some() {
                return Err(lines.error(
                    &name,
                    "the namespace is there twice, under two names",
                    "keep one of them",
                ));
            }
        }
        Ok(Self::new(users, rules))
    }
}

/// What may be only once in a file.
#[derive(Default)]
struct Seen {
    secrets: BTreeSet<SecretHash>,
    certificates: BTreeSet<String>,
}

/// The text, to find lines in.
struct Lines<'a>(&'a str);

impl Lines<'_> {
    fn line_at(&self, offset: usize) -> usize {
        self.0.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
    }

    fn error<T>(&self, at: &Spanned<T>, what: impl Into<String>, hint: impl Into<String>) -> UsersError {
        UsersError { line: self.line_at(at.span().start), what: what.into(), hint: Some(hint.into()) }
    }

    fn of_toml(&self, error: &toml::de::Error) -> UsersError {
        let line = self.line_at(error.span().map_or(0, |span| span.start));
        // The parser lists what it expected over several lines.
        let what = error.message().lines().map(str::trim).collect::<Vec<_>>().join(", ");
        let hint = what
            .contains("unknown field")
            .then(|| "docs/users.md lists what a users file may hold".to_owned());
        UsersError { line, what, hint }
    }

    fn user(&self, name: &Spanned<String>, table: UserTable, seen: &mut Seen) -> Result<User, UsersError> {
        self.check_name(name)?;
        let mut secrets = Vec::new();
        for text in table.secret.iter().chain(&table.secrets) {
            let secret: SecretHash = text.get_ref().parse().map_err(|expected: &str| {
                let hint = "a file holds hashes alone: `pilotlight users rotate NAME` makes a secret and writes its hash here";
                // What stands here may be the secret itself, so it is not repeated.
                self.error(text, format!("this is no hash of a secret: {expected}"), hint)
            })?;
            if !seen.secrets.insert(secret) {
                let hint = "every secret is one user's alone: `pilotlight users rotate NAME` makes a new one";
                return Err(self.error(text, "the secret is there twice", hint));
            }
            secrets.push(secret);
        }
        if let Some(certificate) = &table.certificate
            && !seen.certificates.insert(certificate.get_ref().clone())
        {
            return Err(self.error(
                certificate,
                "the certificate is there twice",
                "a certificate is one user's alone",
            ));
        }
        if secrets.is_empty() && table.certificate.is_none() && !table.disabled && name.get_ref() != DEFAULT {
            let hint = "`pilotlight users rotate NAME` makes a secret; `default` alone may be without: it is whoever does not log in";
            return Err(self.error(name, format!("user `{}` has no way to log in", name.get_ref()), hint));
        }
        Ok(User {
            name: name.get_ref().as_str().into(),
            home: self.home(table.home.as_ref())?,
            secrets,
            certificate: table.certificate.map(|certificate| certificate.into_inner().into()),
            grants: self.grants(&table.grants)?,
            rate: self.rate(table.rate.as_ref())?,
            is_disabled: table.disabled,
        })
    }

    /// A name stands in lines of `CLIENT LIST` and in URLs.
    fn check_name(&self, name: &Spanned<String>) -> Result<(), UsersError> {
        let text = name.get_ref();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if (1..=NAME_LEN_MAX).contains(&text.len()) && text.bytes().all(is_plain) {
            return Ok(());
        }
        let hint = format!("letters, digits, `-`, `_` and `.`, {NAME_LEN_MAX} of them at most");
        Err(self.error(name, format!("{text:?} cannot be the name of a user"), hint))
    }

    fn home(&self, home: Option<&Spanned<String>>) -> Result<Namespace, UsersError> {
        let Some(home) = home else { return Ok(Namespace::default()) };
        let hint = format!("a home is a namespace, with a name of at most {HOME_LEN_MAX} bytes");
        if home.get_ref().len() > HOME_LEN_MAX || home.get_ref() == "*" {
            return Err(self.error(home, "this cannot be a home", hint));
        }
        grants::namespace(home.get_ref()).map_err(|error| self.error(home, error, hint))
    }

    fn grants(&self, texts: &[Spanned<String>]) -> Result<Grants, UsersError> {
        let parse = |text: &Spanned<String>| {
            Grant::parse(text.get_ref()).map_err(|(what, hint)| self.error(text, what, hint))
        };
        texts.iter().map(parse).collect::<Result<_, _>>().map(Grants)
    }

    fn rate(&self, rate: Option<&Spanned<String>>) -> Result<Option<Arc<Rate>>, UsersError> {
        let Some(rate) = rate else { return Ok(None) };
        let expected = || {
            let hint = "write requests in a second or a minute: `200/s`, `600/min`";
            self.error(rate, format!("`{}` is no rate", rate.get_ref()), hint)
        };
        Rate::parse(rate.get_ref()).map(|rate| Some(Arc::new(rate))).ok_or_else(expected)
    }

    fn namespace(
        &self,
        name: &Spanned<String>,
        table: NamespaceTable,
    ) -> Result<(Namespace, Rules), UsersError> {
        const HINT: &str =
            "`[namespaces.NAME]` is of one namespace; `[namespaces.\"\"]` of the one without a name";
        if name.get_ref() == "*" {
            return Err(self.error(name, "`*` is no namespace", HINT));
        }
        let own = grants::namespace(name.get_ref()).map_err(|error| self.error(name, error, HINT))?;
        let is_low_trust = match table.trust.as_ref().map(|trust| (trust, trust.get_ref().as_str())) {
            None | Some((_, "full")) => false,
            Some((_, "low")) => true,
            Some((trust, text)) => {
                let hint = "`low`: who puts first, wins; `full` is what holds otherwise";
                return Err(self.error(trust, format!("`{text}` is no trust"), hint));
            }
        };
        let read = |text: &Spanned<String>| {
            let hint = "list namespaces by their names, not this one";
            let next = grants::namespace(text.get_ref()).map_err(|error| self.error(text, error, hint))?;
            if next == own || text.get_ref() == "*" {
                return Err(self.error(text, "a lookup cannot go on here", hint));
            }
            Ok(next)
        };
        let reads = table.reads.iter().map(read).collect::<Result<_, _>>()?;
        let quota = table.quota.as_ref().map(|quota| {
            quantity::size(quota.get_ref()).map_err(|expected| {
                self.error(quota, format!("`{}` is no quota: {expected}", quota.get_ref()), "as in `--quota`")
            })
        });
        Ok((own, Rules { is_low_trust, reads, quota_bytes: quota.transpose()? }))
    }
}

#[cfg(test)]
mod tests {
    use pilotlight_cache::Kind;

    use super::*;
    use crate::access::{Proof, Right, Secret};

    fn parse(text: &str) -> Result<Users, UsersError> {
        Users::parse(text, None)
    }

    #[test]
    fn a_whole_file_is_understood() {
        let (one, two) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        let text = format!(
            r#"
            # A person's comment.
            [users.ci]
            secrets = ["{}", "{}"]
            home = "ci"
            grants = ["rw ci", "r release:fx-graph"]
            certificate = "CN=ci,O=example"
            rate = "200/s"
            [users.default]
            grants = ["r ''"]
            [users.gone]
            disabled = true
            [namespaces.ci]
            trust = "low"
            reads = ["release", "other"]
            quota = "10GiB"
            "#,
            one.hash(),
            two.hash()
        );
        let users = parse(&text).unwrap();
        let space = |name: &str| Namespace::new(name).unwrap();
        for secret in [&one, &two] {
            let login = users.by_name_and_secret("ci", secret.as_str().as_bytes()).unwrap();
            assert_eq!(login.proof, Proof::Secret(secret.hash()));
            assert_eq!(&**login.user.name(), "ci");
            assert!(users.by_name_and_secret("default", b"").is_some(), "whoever does not log in");
            assert!(users.by_name_and_secret("gone", secret.as_str().as_bytes()).is_none());
        }
        let ci = &users.by_certificate("CN=ci,O=example").unwrap().user;
        assert_eq!(
            ["ci", "ci/db1"],
            [0, 1].map(|number| ci.namespace(number)).each_ref().map(Namespace::as_str)
        );
        let place = users.place(ci, &space("ci"));
        assert!(place.may(Right::Write, Kind::Triton) && !place.may_replace(Kind::Triton));
        let next = |kind| if kind == Kind::FxGraph { vec![space("release")] } else { Vec::new() };
        assert_eq!(
            users.through(ci, &space("ci")),
            ReadThrough::new(next),
            "what is granted of what is listed"
        );
        assert_eq!(users.through(ci, &space("release")), None);
        assert_eq!(users.quotas().collect::<Vec<_>>(), [(&space("ci"), 10 << 30)]);
        assert!(!users.anybody_writes());
    }

    use pilotlight_cache::ReadThrough;

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let hash = SecretHash::of(b"x");
        for (text, expected) in [
            (
                "[users.a]\nsecret = \"pls_x\"\n".to_owned(),
                "line 2: this is no hash of a secret: expected `blake3:` and 64 hexadecimal digits",
            ),
            ("\n[users.a]\ngrants = []\n".to_owned(), "line 2: user `a` has no way to log in"),
            (
                format!("[users.a]\nsecret = \"{hash}\"\n[users.b]\nsecrets = [\n\"{hash}\"]\n"),
                "line 5: the secret is there twice",
            ),
            (
                "[users.default]\ngrants = [\"r *\",\n\"q *\"]\n".to_owned(),
                "line 3: `q` is no set of rights: expected some of `r`, `w` and `a`",
            ),
            ("[users.default]\nrate = \"fast\"\n".to_owned(), "line 2: `fast` is no rate"),
            ("[users.\"a b\"]\n".to_owned(), "line 1: \"a b\" cannot be the name of a user"),
            ("[namespaces.ci]\ntrust = \"none\"\n".to_owned(), "line 2: `none` is no trust"),
            ("[namespaces.ci]\nreads = [\"ci\"]\n".to_owned(), "line 2: a lookup cannot go on here"),
            (
                "[namespaces.ci]\nquota = \"big\"\n".to_owned(),
                "line 2: `big` is no quota: expected a size such as `10GiB`, `500MB` or `4096`",
            ),
            (
                "[namespaces.\"\"]\n[namespaces.db0]\n".to_owned(),
                "line 2: the namespace is there twice, under two names",
            ),
        ] {
            let error = parse(&text).unwrap_err();
            assert_eq!(error.to_string(), expected, "{text}");
            assert!(error.hint().is_some(), "{text}");
        }
        let unknown = parse("[users.default]\n\ngrant = []\n").unwrap_err();
        assert!(unknown.to_string().starts_with("line 3: unknown field `grant`"), "{unknown}");
        let broken = parse("[users.a\n").unwrap_err();
        assert!(broken.to_string().starts_with("line 1: "), "{broken}");
        let twice = Users::parse("[users.default]\n", Some("password")).unwrap_err();
        assert!(twice.to_string().contains("the password is of user `default`"), "{twice}");
    }

    #[test]
    fn no_error_repeats_what_may_be_a_secret() {
        let secret = Secret::generate().unwrap();
        let error = parse(&format!("[users.a]\nsecret = \"{}\"\n", secret.as_str())).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(secret.as_str()));
    }

    #[test]
    fn an_empty_file_lets_nobody_in() {
        let users = parse("").unwrap();
        assert!(users.anybody().is_none() && users.by_name_and_secret("default", b"").is_none());
        let users = Users::parse("", Some("password")).unwrap();
        assert!(
            users
                .by_name_and_secret("default", b"password")
                .is_some_and(|login| login.user.is_unrestricted())
        );
        assert!(users.by_name_and_secret("default", b"Password").is_none() && users.anybody().is_none());
    }

    #[test]
    fn a_login_lasts_as_long_as_what_proved_it() {
        let (one, two) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        let of = |secrets: &[&Secret], more: &str| {
            let hashes: Vec<_> = secrets.iter().map(|secret| format!("\"{}\"", secret.hash())).collect();
            parse(&format!("[users.a]\nsecrets = [{}]\n{more}\n", hashes.join(","))).unwrap()
        };
        let login = of(&[&one], "").by_secret(one.as_str().as_bytes()).unwrap();
        assert!(
            of(&[&two, &one], "grants = [\"r *\"]")
                .renewed(&login)
                .unwrap()
                .user
                .grants()
                .anywhere(Right::Read)
        );
        assert!(of(&[&two], "").renewed(&login).is_none());
        assert!(of(&[&one], "disabled = true").renewed(&login).is_none());
        assert!(parse("").unwrap().renewed(&login).is_none());
        let anybody = parse("[users.default]\n").unwrap().anybody().unwrap();
        assert!(of(&[&one], "").renewed(&anybody).is_none());
        assert!(parse("[users.default]\ngrants = [\"r *\"]\n").unwrap().renewed(&anybody).is_some());
    }
}
