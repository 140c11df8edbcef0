//! What `isthmus check` says of `[nat]`.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

const MAPPING: &str = "[mapping]\nlisten = [\"198.51.100.2\"]\n\n[nat]\n";

/// What is said of a Map-Server with these lines in `[nat]`.
fn findings(lines: &str) -> Vec<String> {
    let directory = TempDir::new().expect("temporary directory");
    fs::write(directory.path().join("mapping.toml"), format!("{MAPPING}{lines}\n")).expect("write");
    let output = Command::new(env!("CARGO_BIN_EXE_isthmus"))
        .current_dir(directory.path())
        .args(["check", "--offline", "mapping.toml"])
        .output()
        .expect("isthmus runs");
    String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect()
}

#[test]
fn nt_07_an_rtr_needs_an_address_and_a_secret() {
    let rtr = |more: &str| format!("rtrs = [{{ address = \"198.51.100.9\", key-id = 1{more} }}]");
    assert_eq!(findings(&rtr(", key-file = \"rtr.key\"")), [""; 0]);
    for (lines, key, about) in [
        (String::new(), "nat.rtrs", "rtrs"),
        (rtr(""), "nat.rtrs[0]", "has no secret"),
        (rtr(", key-file = \"k\", port = 1"), "nat.rtrs[0].port", "known here"),
        (
            rtr(", key-file = \"k\", algorithm = \"hmac-sha-256-128-hkdf\""),
            "nat.rtrs[0].algorithm",
            "is not defined between a Map-Server and an RTR",
        ),
        (
            rtr(", key-file = \"k\", algorithm = \"hmac-sha-1-96\""),
            "nat.rtrs[0].algorithm",
            "profile",
        ),
    ] {
        let found = findings(&lines);
        let is_said = |line: &String| line.contains(key) && line.contains(about);
        assert!(found.iter().any(is_said), "{lines}: {found:?}");
    }
    let twice = "rtrs = [{ address = \"198.51.100.9\", key-id = 1, key-file = \"k\" }, \
        { address = \"198.51.100.9\", key-id = 1, key-file = \"k\" }]";
    assert!(findings(twice)[0].contains("198.51.100.9 is given twice"));
}
