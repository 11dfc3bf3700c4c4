//! A server that takes only what its signers signed: nobody signs over HTTP.

use std::sync::Arc;

use pilotlight_cache::trust::{NewKey, Signers};
use pilotlight_cache::{DiskBackend, DiskOptions, Durability, Inline};
use pilotlight_server::Config;

use crate::harness::start_with;

#[test]
fn a_put_for_a_compiler_is_forbidden_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("signers.toml");
    let public = NewKey::generate().unwrap().public();
    std::fs::write(&file, format!("[[signer]]\nname = \"ci\"\npublic_key = \"{public}\"\n")).unwrap();
    let server = start_with(
        Config::default(),
        |clock| {
            let options = DiskOptions {
                dir: dir.path().join("data"),
                max_bytes: 64 << 20,
                durability: Durability::Relaxed,
                clock,
                blocking: Arc::new(Inline),
                signers: Some(Arc::new(Signers::read(&file).unwrap())),
            };
            DiskBackend::open(options).unwrap()
        },
        |_| {},
    );
    let answer = server.put("/cache/pt2:fx-graph-v1::fabc:c1", &[], b"graph");
    assert_eq!((answer.status, &answer.json()["error"]), (403, &"the entry was not kept: unsigned".into()));
    assert!(answer.json()["hint"].as_str().unwrap().contains("PILOTLIGHT_SIGNING_KEY"));
    assert_eq!(server.get("/cache/pt2:fx-graph-v1::fabc:c1", &[]).status, 404);
    assert_eq!(server.put("/cache/anything", &[], b"object file").status, 201);
    let stats = server.get("/api/stats", &[]).json();
    assert_eq!(stats["refused_puts"]["unverified"], 1, "{stats}");
}
