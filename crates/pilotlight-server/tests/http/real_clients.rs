//! curl, over HTTP/1.1 and HTTP/2.

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
