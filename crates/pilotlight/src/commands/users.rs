//! `pilotlight users`.

use std::path::{Path, PathBuf};

use pilotlight_server::access::{Right, Secret, User, Users as All};
use serde::Serialize;

use crate::cli::{Users, UsersAdd, UsersCheck, UsersFileOption, UsersList, UsersRemove, UsersRotate};
use crate::environment;
use crate::failure::Failure;
use crate::output::{self, Answer, Last};
use crate::users_file::{NewUser, UsersFile, checked};

pub(super) fn run(action: &Users) -> Result<Answer, Failure> {
    match action {
        Users::Add(arguments) => add(arguments),
        Users::List(arguments) => list(arguments),
        Users::Remove(arguments) => remove(arguments),
        Users::Rotate(arguments) => rotate(arguments),
        Users::Check(arguments) => check(arguments),
    }
}

/// A secret that was just made. It is told here and never again.
#[derive(Serialize)]
struct Made<'a> {
    name: &'a str,
    secret: &'a str,
    file: &'a Path,
}

fn add(arguments: &UsersAdd) -> Result<Answer, Failure> {
    let UsersAdd { name, home, grants, certificate, rate, file } = arguments;
    let mut users = UsersFile::open(&path(file)?)?;
    let new =
        NewUser { home: home.as_deref(), grants, certificate: certificate.as_deref(), rate: rate.as_deref() };
    let secret = users.add(name, &new)?;
    users.save()?;
    tell(&users, name, &secret, file.json)?;
    if !file.json && grants.is_empty() {
        output::note("it may nothing yet: `--grant \"rw NAMESPACE\"` grants something");
    }
    Ok(Answer::Yes)
}

fn rotate(arguments: &UsersRotate) -> Result<Answer, Failure> {
    let UsersRotate { name, drop_old, file } = arguments;
    let mut users = UsersFile::open(&path(file)?)?;
    if *drop_old {
        #[derive(Serialize)]
        struct Dropped {
            dropped: usize,
        }
        let dropped = users.drop_old(name)?;
        users.save()?;
        if file.json {
            output::json(&Dropped { dropped })?;
        } else {
            output::note(format_args!("dropped {}", output::count(dropped as u64, "old secret")));
        }
        return Ok(Answer::Yes);
    }
    let secret = users.rotate(name)?;
    users.save()?;
    tell(&users, name, &secret, file.json)?;
    if !file.json {
        output::note(format_args!("the old one works until `pilotlight users rotate {name} --drop-old`"));
    }
    Ok(Answer::Yes)
}

fn tell(users: &UsersFile, name: &str, secret: &Secret, is_json: bool) -> Result<(), Failure> {
    let secret = secret.as_str();
    if is_json {
        return output::json(&Made { name, secret, file: users.path() });
    }
    output::line(secret)?;
    output::note(format_args!(
        "this is the secret of user `{name}`, shown this once; `{}` has its hash",
        users.path().display()
    ));
    output::note(format_args!("for jobs: PILOTLIGHT_URL=pilotlight://{name}:SECRET@HOST"));
    Ok(())
}

fn remove(arguments: &UsersRemove) -> Result<Answer, Failure> {
    #[derive(Serialize)]
    struct Removed<'a> {
        removed: &'a str,
    }
    let UsersRemove { name, file } = arguments;
    let mut users = UsersFile::open(&path(file)?)?;
    users.remove(name)?;
    users.save()?;
    if file.json {
        output::json(&Removed { removed: name })?;
    } else {
        output::note(format_args!("removed user `{name}`; a running server notices within seconds"));
    }
    Ok(Answer::Yes)
}

/// A user as it is listed: never its secrets, nor what is kept of them.
#[derive(Serialize)]
struct Listed {
    name: String,
    home: String,
    grants: Vec<String>,
    secrets: usize,
    certificate: Option<String>,
    rate: Option<String>,
    is_disabled: bool,
}

impl Listed {
    fn of(user: &User) -> Self {
        Self {
            name: user.name().to_string(),
            home: user.namespace(0).as_str().to_owned(),
            grants: user.grants().iter().map(ToString::to_string).collect(),
            secrets: user.secrets(),
            certificate: user.certificate().map(str::to_owned),
            rate: user.rate().map(ToString::to_string),
            is_disabled: user.is_disabled(),
        }
    }

    fn row(&self) -> Vec<String> {
        let grants = if self.grants.is_empty() { "nothing".to_owned() } else { self.grants.join(", ") };
        let login = match (self.is_disabled, self.secrets, self.certificate.is_some()) {
            (true, _, _) => "disabled".to_owned(),
            (false, 0, true) => "certificate".to_owned(),
            (false, 0, false) => "anybody".to_owned(),
            (false, count, false) => output::count(count as u64, "secret"),
            (false, count, true) => output::count(count as u64, "secret") + ", certificate",
        };
        let home = if self.home.is_empty() { "''".to_owned() } else { self.home.clone() };
        let rate = self.rate.clone().unwrap_or_else(|| "-".to_owned());
        vec![self.name.clone(), home, login, rate, grants]
    }
}

fn list(arguments: &UsersList) -> Result<Answer, Failure> {
    let path = path(&arguments.file)?;
    let listed: Vec<Listed> = read(&path)?.iter().map(Listed::of).collect();
    if arguments.file.json {
        output::json(&listed)?;
    } else if listed.is_empty() {
        output::note(format_args!("no users in `{}`", path.display()));
    } else {
        let head = ["name", "home", "logs in by", "rate", "grants"].map(str::to_owned).to_vec();
        let rows: Vec<_> = std::iter::once(head).chain(listed.iter().map(Listed::row)).collect();
        output::data(output::table(&rows, Last::Text).as_bytes())?;
    }
    Ok(Answer::Yes)
}

fn check(arguments: &UsersCheck) -> Result<Answer, Failure> {
    #[derive(Serialize)]
    struct Checked {
        users: usize,
        notes: Vec<String>,
    }
    let users = read(&arguments.file)?;
    let report = Checked { users: users.iter().count(), notes: notes(&users) };
    if arguments.json {
        output::json(&report)?;
    } else {
        report.notes.iter().for_each(|note| output::note(format_args!("note: {note}")));
        output::note(format_args!("the file is right: {}", output::count(report.users as u64, "user")));
    }
    Ok(Answer::Yes)
}

/// What is right and may still not be meant.
fn notes(users: &All) -> Vec<String> {
    let mut notes = Vec::new();
    for user in users.iter().filter(|user| !user.is_disabled()) {
        let (name, home) = (user.name(), user.namespace(0));
        let place = users.place(user, &home);
        if !place.may_some(Right::Read) && !place.may_some(Right::Write) {
            let home = if home.as_str().is_empty() { "''" } else { home.as_str() };
            notes.push(format!("user `{name}` may neither read nor write in its home, {home}"));
        }
    }
    if users.anybody_writes() {
        notes.push(
            "user `default` may write without a secret: whoever connects can run code in your jobs"
                .to_owned(),
        );
    }
    notes
}

fn read(path: &Path) -> Result<All, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(format!("could not read the users file `{}`", path.display()))
            .because(&error)
            .with_hint("`pilotlight users add NAME` begins one")
    })?;
    checked(path, &text)
}

/// The file that was named, or the usual one.
fn path(named: &UsersFileOption) -> Result<PathBuf, Failure> {
    let usual =
        || environment::variable("PILOTLIGHT_USERS").map(PathBuf::from).or_else(environment::users_file);
    named.file.clone().or_else(usual).ok_or_else(|| {
        Failure::new("there is no usual place for a users file: neither XDG_CONFIG_HOME nor HOME is set")
            .with_hint("name one with `--file FILE`")
    })
}
