//! `pilotlight users`, and a server that goes by its file.

use std::os::unix::fs::PermissionsExt;

use crate::harness::{Home, expect};

/// The secret on stdout.
fn secret(text: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix("out: "));
    line.filter(|line| line.starts_with("pls_")).unwrap_or_else(|| panic!("no secret in {text}")).to_owned()
}

#[test]
fn a_user_is_added_listed_rotated_and_removed() {
    let home = Home::new();
    let added = home.run(&[
        "users",
        "add",
        "ci",
        "--home",
        "ci",
        "--grant",
        "rw ci",
        "--grant",
        "r release:fx-graph",
    ]);
    let first = secret(&added);
    expect(
        &added.replace(&first, "[SECRET]"),
        "
exit 0
out: [SECRET]
err: this is the secret of user `ci`, shown this once; `[HOME]/.config/pilotlight/users.toml` has its hash
err: for jobs: PILOTLIGHT_URL=pilotlight://ci:SECRET@HOST",
    );
    let path = home.path(".config/pilotlight/users.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("[users.ci]\nsecret = \"blake3:") && !text.contains(&first), "{text}");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let again = home.run(&["users", "add", "ci"]);
    assert!(again.contains("error: user `ci` is there already") && again.contains("rotate ci"), "{again}");
    // A person's comments stay.
    std::fs::write(&path, format!("# Ours.\n{text}# Behind.\n")).unwrap();
    let second = secret(&home.run(&["users", "rotate", "ci"]));
    assert_ne!(first, second);
    home.run(&["users", "add", "dev", "--rate", "100/s", "--certificate", "CN=dev"]);
    expect(
        &home.run(&["users", "list"]),
        "
exit 0
out: name  home             logs in by   rate  grants
out: ci      ci              2 secrets      -  rw ci, r release:fx-graph
out: dev     ''  1 secret, certificate  100/s  nothing",
    );
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("# Ours.\n") && text.contains("# Behind.\n"), "{text}");
    expect(&home.run(&["users", "rotate", "ci", "--drop-old"]), "exit 0\nerr: dropped 1 old secret");
    expect(&home.run(&["users", "rotate", "ci", "--drop-old"]), "exit 0\nerr: dropped 0 old secrets");
    let removed = home.run(&["users", "remove", "dev"]);
    assert!(removed.starts_with("exit 0\nerr: removed user `dev`"), "{removed}");
    assert!(home.run(&["users", "remove", "dev"]).contains("error: there is no user `dev`"));
    let listed: serde_json::Value =
        serde_json::from_slice(&home.output(&["users", "list", "--json"], b"").stdout).unwrap();
    assert_eq!(listed[0]["secrets"], 1);
    assert_eq!(listed[0]["grants"][1], "r release:fx-graph");
    assert!(listed.get(1).is_none());
}

#[test]
fn nothing_is_written_that_a_server_would_not_take() {
    let home = Home::new();
    let file = home.write("users.toml", "");
    let text = home.run(&["users", "add", "ci", "--grant", "rw", "--file", &file]);
    expect(
        &text,
        "
exit 2
err: error: could not understand the users file `[HOME]/users.toml`
err:   caused by: line 3: `rw` is no grant: expected rights and a namespace
err:
err: hint: write a grant as `rw NAMESPACE` or `r NAMESPACE:KIND`, `*` for every namespace",
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "");
    assert_eq!(std::fs::read_dir(home.directory.path()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn a_file_is_checked_with_what_may_not_be_meant() {
    let home = Home::new();
    let file = home.write("users.toml", "[users.default]\ngrants = [\"rw other\"]\n");
    expect(
        &home.run(&["users", "check", &file]),
        "
exit 0
err: note: user `default` may neither read nor write in its home, ''
err: note: user `default` may write without a secret: whoever connects can run code in your jobs
err: the file is right: 1 user",
    );
    let file = home.write("users.toml", "[users.default]\n\ngrant = []\n");
    let text = home.run(&["users", "check", &file]);
    assert!(
        text.starts_with("exit 2") && text.contains("caused by: line 3: unknown field `grant`"),
        "{text}"
    );
}

#[test]
fn a_server_goes_by_the_file_and_by_what_becomes_of_it() {
    let home = Home::new();
    let file = home.path("users.toml");
    let file = file.to_str().unwrap();
    let ci = secret(&home.run(&["users", "add", "ci", "--home", "ci", "--grant", "rw ci", "--file", file]));
    let root = secret(&home.run(&["users", "add", "root", "--grant", "rwa *", "--file", file]));
    let audit = home.path("audit.jsonl");
    let server = home.serve(&["--users", file, "--audit-log", audit.to_str().unwrap()]);
    assert!(server.announced.contains("  users       2, in "), "{}", server.announced);
    assert!(server.announced.contains("PILOTLIGHT_URL=pilotlight://USER:SECRET@"), "{}", server.announced);
    let url = server.url();
    let as_user = |secret: &str, arguments: &[&str]| {
        let file = home.write("secret", secret);
        home.run_with(&[arguments, &["--server", &url, "--password-file", &file]].concat(), b"v\n")
    };
    assert!(as_user(&ci, &["put", "k"]).starts_with("exit 0"));
    // Each finds what it calls its own.
    expect(&as_user(&ci, &["get", "k"]), "exit 0\nout: v");
    assert!(as_user(&root, &["get", "k"]).starts_with("exit 1"));
    expect(&as_user(&root, &["get", "k", "--namespace", "ci"]), "exit 0\nout: v");
    let denied = as_user(&ci, &["ls", "--namespace", ""]);
    assert!(denied.starts_with("exit 2\nerr: error: user `ci` may not read here"), "{denied}");
    assert!(as_user(&ci, &["verify"]).contains("may not do what administrators"), "{denied}");
    // In place of a log rotation, and of waiting for the server to notice.
    std::fs::rename(&audit, home.path("audit.1")).unwrap();
    home.run(&["users", "remove", "ci", "--file", file]);
    server.signal("HUP");
    while !as_user(&ci, &["get", "k"]).contains("wrong password") {}
    while !audit.exists() {
        std::thread::yield_now();
    }
    assert!(as_user(&root, &["put", "k"]).starts_with("exit 0"));
    server.signal("TERM");
    let (code, said) = server.end();
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("the users file is in force"), "{said}");
    let (old, new) =
        (std::fs::read_to_string(home.path("audit.1")).unwrap(), std::fs::read_to_string(&audit).unwrap());
    assert!(old.contains("\"user\":\"ci\"") && new.contains("\"action\":\"PUT /cache\""), "{old}\n{new}");
    for text in [old, new, said] {
        assert!(!text.contains(&ci) && !text.contains(&root));
    }
}

#[test]
fn without_users_or_a_log_a_hangup_ends_the_server_as_ever() {
    let home = Home::new();
    let server = home.serve(&[]);
    server.signal("HUP");
    assert_eq!(server.end_by_signal(), Some(1));
}
