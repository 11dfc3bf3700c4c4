//! Where settings come from, and which one counts.

use crate::harness::{Home, expect};

/// The line of `--validate-config` about one setting.
fn row(home: &Home, arguments: &[&str], name: &str) -> String {
    let text = home.run(&[&["serve", "--validate-config"], arguments].concat());
    assert!(text.starts_with("exit 0\n"), "{text}");
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("out: {name} "))).unwrap();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    assert_eq!(row(&Home::new(), &[], "max-size"), "10GiB default");
    let home = Home::new();
    home.write(
        ".config/pilotlight/pilotlight.toml",
        "max_size = '1GiB'\nlisten = ['127.0.0.1:1', '127.0.0.1:2']\n",
    );
    assert_eq!(row(&home, &[], "max-size"), "1GiB [HOME]/.config/pilotlight/pilotlight.toml");
    assert_eq!(
        row(&home, &[], "listen"),
        "127.0.0.1:1, 127.0.0.1:2 [HOME]/.config/pilotlight/pilotlight.toml"
    );
    let home = home.with("PILOTLIGHT_MAX_SIZE", "2GiB").with("PILOTLIGHT_LISTEN", "127.0.0.1:3,unix:/s");
    assert_eq!(row(&home, &[], "max-size"), "2GiB environment");
    assert_eq!(row(&home, &[], "listen"), "127.0.0.1:3, unix:/s environment");
    assert_eq!(row(&home, &["--max-size", "3GiB"], "max-size"), "3GiB flag");
}

#[test]
fn a_named_file_replaces_the_usual_one_and_must_exist() {
    let home = Home::new();
    home.write(".config/pilotlight/pilotlight.toml", "max_size = 1000000000\n");
    let named = home.write("named.toml", "memory = 0\nstrict = true\n");
    assert_eq!(row(&home, &["--config", &named], "max-size"), "10GiB default");
    assert_eq!(row(&home, &["--config", &named], "strict"), "true [HOME]/named.toml");
    let by_variable = Home::new().with("PILOTLIGHT_CONFIG", &named);
    assert!(row(&by_variable, &[], "memory").starts_with("0 "));
    expect(
        &home.run(&["serve", "--config", "/no/such.toml"]),
        "
exit 2
err: error: could not read the configuration file `/no/such.toml`
err:   caused by: No such file or directory (os error 2)",
    );
}

#[test]
fn the_data_directory_follows_the_platform() {
    let home = Home::new();
    assert_eq!(row(&home, &[], "data-dir"), "[HOME]/.local/share/pilotlight default");
    let home = home.with("XDG_DATA_HOME", "/data");
    assert_eq!(row(&home, &[], "data-dir"), "/data/pilotlight default");
}

#[test]
fn an_unknown_key_is_an_error_that_names_the_nearest() {
    let home = Home::new();
    let file = home.write("c.toml", "max_sise = '1GiB'\n");
    expect(
        &home.run(&["serve", "--validate-config", "--config", &file]),
        "
exit 2
err: error: unknown key `max_sise` in `[HOME]/c.toml`
err:
err: hint: did you mean `max_size`?",
    );
}

#[test]
fn a_misspelt_variable_is_told_and_a_foreign_one_is_not() {
    let home = Home::new().with("PILOTLIGHT_MAX_SISE", "1GiB").with("PILOTLIGHT_SERVICE_HOST", "10.0.0.1");
    for command in [&["serve", "--validate-config"][..], &["stats", "--data-dir", "nothing"]] {
        let text = home.run(command);
        let warnings: Vec<&str> = text.lines().filter(|line| line.contains("warning")).collect();
        assert_eq!(
            warnings,
            [
                "err: warning: PILOTLIGHT_MAX_SISE is no variable of pilotlight's; did you mean PILOTLIGHT_MAX_SIZE?"
            ]
        );
    }
}

#[test]
fn a_file_that_is_no_toml_is_an_error_with_its_place() {
    let home = Home::new();
    let file = home.write("c.toml", "max_size 1GiB\n");
    let text = home.run(&["serve", "--config", &file]);
    assert!(text.contains("could not understand the configuration file `[HOME]/c.toml`"), "{text}");
    assert!(text.contains("line 1"), "{text}");
}

#[test]
fn secrets_are_masked() {
    let home = Home::new().with("PILOTLIGHT_PASSWORD", "hunter2");
    assert_eq!(row(&home, &[], "password"), "****** environment");
    assert!(!home.run(&["serve", "--validate-config"]).contains("hunter2"));
    assert!(home.run(&["serve", "--password", "x"]).contains("unexpected argument"));
}

#[test]
fn an_invalid_configuration_is_shown_and_exits_2() {
    let text = Home::new().run(&["serve", "--validate-config", "--max-size", "lots"]);
    assert!(text.starts_with("exit 2\nout: listen "), "{text}");
    assert!(text.contains("--max-size is `lots`: expected a size such as `10GiB`"), "{text}");
}

#[test]
fn the_example_file_is_valid_as_it_is_and_uncommented() {
    let home = Home::new();
    let example = String::from_utf8(home.output(&["config", "--example"], b"").stdout).unwrap();
    let is_key = |line: &str| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
    let uncommented: String = example
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if is_key(rest) => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert_ne!(example, uncommented);
    for text in [example, uncommented] {
        let file = home.write("example.toml", text);
        assert!(row(&home, &["--config", &file], "max-size").starts_with("10GiB "));
    }
}
