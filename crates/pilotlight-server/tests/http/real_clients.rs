//! curl, over HTTP/1.1 and HTTP/2, and ccache.

use std::process::{Command, Stdio};

use crate::harness::start;

/// What curl prints, or `None` where there is no curl.
fn curl(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("curl").args(["--silent", "--show-error"]).args(arguments).stdin(Stdio::null()).output();
    match output {
        Ok(output) => Some(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()),
        Err(error) => {
            eprintln!("SKIPPED: no curl here ({error})");
            None
        }
    }
}

#[test]
fn curl_puts_and_gets_over_both_versions_on_one_port() {
    let server = start();
    let url = format!("http://{}/cache/from-curl", server.address);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("artifact");
    std::fs::write(&file, "artifact ".repeat(1 << 17)).unwrap();
    let file = file.to_str().unwrap();
    for (version, protocol) in [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")] {
        let write_out = "%{http_code} %{http_version}";
        let Some(put) = curl(&[version, "-w", write_out, "-T", file, &url]) else { return };
        assert!(put == format!("201 {protocol}") || put == format!("204 {protocol}"), "{put}");
        let size = "%{http_code} %{http_version} %{size_download}";
        let got = curl(&[version, "-w", size, "-o", "/dev/null", &url]).unwrap();
        assert_eq!(got, format!("200 {protocol} {}", 9 << 17));
        let part = curl(&[version, "-r", "0-7", &url]).unwrap();
        assert_eq!(part, "artifact");
    }
    let other = format!("http://{}/cache/other", server.address);
    let refused = curl(&["-f", &other]).unwrap();
    assert!(refused.contains("404"), "{refused}");
}

/// Runs the compiler through ccache with a local cache of its own; `None` where there is no ccache.
fn ccache(storage: &str, local: &std::path::Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("ccache")
        .env("CCACHE_DIR", local)
        .env("CCACHE_REMOTE_STORAGE", storage)
        .env("CCACHE_NOHASHDIR", "1")
        .current_dir(local)
        .args(arguments)
        .output();
    match output {
        Ok(output) => {
            let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(output.status.success(), "{text}");
            Some(text)
        }
        Err(error) => {
            eprintln!("SKIPPED: no ccache here ({error})");
            None
        }
    }
}

/// The value of one of ccache's counters.
fn counter(statistics: &str, name: &str) -> u64 {
    let line = statistics.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
    line.trim().parse().unwrap()
}

#[test]
fn ccache_hits_in_a_fresh_cache_directory() {
    if Command::new("cc").arg("--version").output().is_err() {
        eprintln!("SKIPPED: no C compiler here");
        return;
    }
    let server = start();
    // Both of ccache's layouts that go through plain HTTP: its own and Bazel's.
    for layout in ["subdirs", "bazel", "flat"] {
        let storage = format!("http://{}/cache/{layout}|layout={layout}", server.address);
        let mut hits = Vec::new();
        for _ in 0..2 {
            let local = tempfile::tempdir().unwrap();
            std::fs::write(local.path().join("one.c"), "int one(void) { return 1; }\n").unwrap();
            let arguments = ["cc", "-c", "one.c", "-o", "one.o"];
            if ccache(&storage, local.path(), &arguments).is_none() {
                return;
            }
            let statistics = ccache(&storage, local.path(), &["--print-stats"]).unwrap();
            assert_eq!(counter(&statistics, "remote_storage_error"), 0, "{statistics}");
            hits.push(counter(&statistics, "remote_storage_hit"));
        }
        assert_eq!(hits.first(), Some(&0), "{layout}");
        assert!(hits.last() > Some(&0), "{layout}: the second build did not hit");
    }
}
