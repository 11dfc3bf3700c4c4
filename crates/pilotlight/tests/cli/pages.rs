//! Help, reference pages, completions, manual.

use std::path::Path;

use crate::harness::Home;

/// Every command below `command`, each followed by its own, as the help lists them.
fn commands(command: &str) -> Vec<String> {
    let help = help(command);
    let Some((_, listed)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    let names =
        listed.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
    let below =
        names.filter(|name| *name != "help").map(|name| format!("{command} {name}").trim().to_owned());
    below.flat_map(|name| [vec![name.clone()], commands(&name)].concat()).collect()
}

fn help(command: &str) -> String {
    stdout(&command.split_whitespace().chain(["--help"]).collect::<Vec<_>>())
}

fn stdout(arguments: &[&str]) -> String {
    let output = Home::new().output(arguments, b"");
    assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Compares with the committed page; `PILOTLIGHT_UPDATE_DOCS=1` writes it instead.
fn is_current(page: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference").join(page);
    if std::env::var_os("PILOTLIGHT_UPDATE_DOCS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "docs/reference/{page} is stale: run this test with PILOTLIGHT_UPDATE_DOCS=1");
}

#[test]
fn the_configuration_reference_is_current() {
    is_current("configuration.md", &stdout(&["config", "--reference"]));
}

#[test]
fn the_command_reference_is_current() {
    let mut text = String::from(
        "# Commands\n\n<!-- Generated from `--help` by crates/pilotlight/tests/cli/pages.rs, which also compares. -->\n",
    );
    let commands = commands("");
    assert!(
        ["run", "pin", "quarantine purge"].iter().all(|name| commands.iter().any(|command| command == name))
    );
    for command in std::iter::once(String::new()).chain(commands) {
        let name = format!("pilotlight {command}");
        let help: Vec<String> = help(&command).lines().map(|line| line.trim_end().to_owned()).collect();
        text += &format!("\n## {}\n\n```text\n{}\n```\n", name.trim_end(), help.join("\n"));
    }
    is_current("commands.md", &text);
}

#[test]
fn completions_exist_for_every_shell_and_know_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = stdout(&["completions", shell]);
        for command in commands("") {
            let name = command.split_whitespace().last().unwrap();
            assert!(script.contains(name), "{shell}: {command}");
        }
        assert!(script.contains("max-size"), "{shell}");
    }
}

#[test]
fn the_manual_is_printed_or_written_page_by_page() {
    let page = stdout(&["man"]);
    assert!(page.contains(".TH pilotlight 1") && page.contains("Exit codes"), "{page}");
    let home = Home::new();
    let directory = home.path("man");
    assert_eq!(home.run(&["man", "--out", directory.to_str().unwrap()]), "exit 0\n");
    for command in commands("") {
        let command = command.replace(' ', "-");
        let page = std::fs::read_to_string(directory.join(format!("pilotlight-{command}.1"))).unwrap();
        assert!(page.contains(&format!(".TH pilotlight-{command} 1")), "{page}");
    }
}

#[test]
fn the_version_is_one_line() {
    assert_eq!(stdout(&["--version"]), format!("pilotlight {}\n", env!("CARGO_PKG_VERSION")));
}
