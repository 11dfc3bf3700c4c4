//! Keys: made, shown, trusted, revoked, replaced.

use std::os::unix::fs::PermissionsExt;

use crate::harness::{Home, expect};

/// Makes a key and gives its public half and its id.
fn new(home: &Home, name: &str) -> (String, String) {
    let output = home.output(&["keys", "new", "--name", name], b"");
    assert!(output.status.success(), "{output:?}");
    let public = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let told = String::from_utf8(output.stderr).unwrap();
    let id = told.strip_prefix("made signer ").unwrap().split(',').next().unwrap().to_owned();
    (public, id)
}

fn shown(home: &Home) -> serde_json::Value {
    let output = home.output(&["keys", "show", "--json"], b"");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn trust_file(home: &Home) -> String {
    std::fs::read_to_string(home.path(".config/pilotlight/keys/trusted.toml")).unwrap()
}

#[test]
fn a_key_is_made_once_is_its_owners_alone_and_is_never_printed() {
    let home = Home::new();
    let (public, id) = new(&home, "ci");
    let path = home.path(".config/pilotlight/keys/ci.key");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let private = std::fs::read_to_string(&path).unwrap();
    let base64 = private.lines().nth(1).unwrap();
    let again = home.run(&["keys", "new", "--name", "ci"]);
    assert!(again.starts_with("exit 2\nerr: error: the key was not made"), "{again}");
    assert!(again.contains("hint: choose another `--name`, or `pilotlight keys rotate`"), "{again}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), private);
    let page = home.run(&["keys", "show"]);
    assert!(page.contains(&public) && page.contains(&id) && page.contains("not trusted"), "{page}");
    assert!(![again, page].concat().contains(base64));
    expect(
        &home.run(&["keys", "new", "--name", "../x"]),
        "
exit 2
err: error: the name `../x` cannot be a file's
err:
err: hint: use letters, digits, `-`, `_`, `.` and `@`",
    );
}

#[test]
fn without_keys_that_is_said() {
    expect(
        &Home::new().run(&["keys", "show"]),
        "exit 0\nout: no keys, and nobody is trusted; `pilotlight keys new` makes one",
    );
}

#[test]
fn who_is_trusted_is_shown_until_it_is_revoked() {
    let home = Home::new();
    let (public, id) = new(&home, "ci");
    let trust = ["keys", "trust", &public, "--name", "the \"ci\"", "--expires", "2999-01-31"];
    let trusted = home.run(&[&trust[..], &["--namespace", "", "--namespace", "a", "--kind", "pgo"]].concat());
    assert!(
        trusted.starts_with(&format!("exit 0\nerr: signer {id} is trusted as `the \"ci\"`")),
        "{trusted}"
    );
    let report = shown(&home);
    let signer = &report["signers"][0];
    assert_eq!((&signer["name"], &signer["id"]), (&"the \"ci\"".into(), &id.clone().into()));
    assert_eq!(signer["standing"], "trusted until 2999-01-31");
    assert_eq!((&signer["namespaces"][1], &signer["kinds"][0]), (&"a".into(), &"pgo".into()));
    assert_eq!(report["keys"][0]["standing"], "trusted until 2999-01-31");
    let twice = home.run(&trust);
    assert!(twice.contains(&format!("signer {id} is trusted already")), "{twice}");

    std::fs::write(home.path(".config/pilotlight/keys/trusted.toml"), trust_file(&home) + "# a word of mine")
        .unwrap();
    let revoked = home.run(&["keys", "revoke", &id, "--reason", "lost"]);
    assert!(revoked.starts_with(&format!("exit 0\nerr: signer {id} is revoked")), "{revoked}");
    assert_eq!(shown(&home)["signers"][0]["standing"], "revoked: lost");
    assert_eq!(shown(&home)["revoked"][0]["id"], id);
    assert!(trust_file(&home).contains("# a word of mine"));
    assert!(home.run(&["keys", "revoke", &id]).contains("revoked already"));
}

#[test]
fn a_key_is_replaced_by_one_that_nobody_signs_with_before_all_know_it() {
    let home = Home::new();
    let (public, id) = new(&home, "ci");
    let unknown = home.run(&["keys", "rotate", "--name", "ci"]);
    assert!(unknown.contains("is not trusted, so nobody takes what it signs"), "{unknown}");
    home.run(&["keys", "trust", &public, "--name", "ci", "--namespace", "a"]);
    let rotated = home.run(&["keys", "rotate", "--name", "ci", "--overlap", "365000d"]);
    assert!(rotated.starts_with("exit 0\nout: ed25519:"), "{rotated}");
    assert!(
        rotated.contains("1. distribute the trust file") && rotated.contains("2. then sign"),
        "{rotated}"
    );
    let report = shown(&home);
    assert_eq!(report["keys"].as_array().unwrap().len(), 2);
    let signers = report["signers"].as_array().unwrap();
    assert_eq!((signers.len(), &signers[0]["id"]), (2, &id.into()));
    assert!(signers[0]["standing"].as_str().unwrap().starts_with("trusted until 30"), "{report}");
    assert_eq!(signers[1]["standing"], "trusted");
    assert_eq!(signers[1]["namespaces"], signers[0]["namespaces"]);
    // A second time: the old key is replaced once more, and lasts no longer for it.
    home.run(&["keys", "rotate", "--name", "ci", "--overlap", "1d"]);
    assert_eq!(shown(&home)["signers"].as_array().unwrap().len(), 3);
}

#[test]
fn what_is_mistyped_is_said() {
    let home = Home::new();
    let (public, _) = new(&home, "ci");
    for (arguments, expected) in [
        (&["keys", "trust", "ed25519:x", "--name", "a"][..], "a public key is `ed25519:` and 44 characters"),
        (&["keys", "trust", &public, "--name", "a", "--expires", "soon"], "`--expires` is `soon`"),
        (&["keys", "trust", &public, "--name", "a", "--expires", "2001-01-01"], "which has passed"),
        (&["keys", "revoke", "12"], "a signer's id has 16 hex digits"),
        (&["keys", "rotate", "--name", "none"], "could not read the key to replace"),
    ] {
        let text = home.run(arguments);
        assert!(text.starts_with("exit 2") && text.contains(expected), "{text}");
    }
    home.write(".config/pilotlight/keys/trusted.toml", "[[signers]]\n");
    let text = home.run(&["keys", "trust", &public, "--name", "a"]);
    assert!(text.starts_with("exit 2") && text.contains("could not understand"), "{text}");
}

#[test]
fn a_server_that_cannot_read_its_signers_does_not_start() {
    let home = Home::new();
    let text = home.run(&["serve", "--signers", "absent.toml", "--listen", "127.0.0.1:0", "--http", "off"]);
    assert!(text.starts_with("exit 2\nerr: error: could not find out whose entries to take"), "{text}");
}

#[test]
fn the_doctor_says_who_may_read_a_key_and_whether_it_is_trusted() {
    let home = Home::new();
    let (public, id) = new(&home, "ci");
    let key = home.path(".config/pilotlight/keys/ci.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let home =
        home.with("PILOTLIGHT_SIGNING_KEY", key.to_str().unwrap()).with("PILOTLIGHT_VERIFY", "require");
    let server = home.serve(&[]);
    let text = home.run(&["doctor", "--server", &server.url()]);
    assert!(text.contains("others may read the signing key") && text.contains("mode 644"), "{text}");
    assert!(text.contains("there is no trust file"), "{text}");
    let expected = format!("signed by {id}, which is not trusted here");
    assert!(text.contains(&expected) && text.contains(&format!("keys trust {public} --name NAME")), "{text}");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    home.run(&["keys", "trust", &public, "--name", "ci"]);
    let text = home.run(&["doctor", "--server", &server.url()]);
    assert!(!text.contains("signatures:"), "{text}");
}
