//! `isthmus check` on `probe`: what is wrong with it, by line and key.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

/// Checks an xTR whose second line is `probe = `, and expects these complaints about it.
fn refused(probe: &str, complaints: &[&str]) {
    let directory = TempDir::new().expect("temporary directory");
    let text = format!(
        "[xtr]\nprobe = {probe}\n\
         rlocs = {{ core4 = {{ address = \"198.51.100.11\" }} }}\n\
         map-servers = [{{ address = \"198.51.100.2\", key-id = 1, key-file = \"a.key\" }}]\n\
         map-resolvers = [\"198.51.100.2\"]\n[[eid]]\nprefix = \"2001:db8:e001::/48\"\n"
    );
    fs::write(directory.path().join("xtr.toml"), text).expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_isthmus"))
        .current_dir(directory.path())
        .args(["check", "--offline", "xtr.toml"])
        .output()
        .expect("isthmus runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let expected: Vec<String> =
        complaints.iter().map(|complaint| format!("xtr.toml:2: xtr.probe{complaint}")).collect();
    assert_eq!(stderr.lines().collect::<Vec<_>>(), expected, "{probe}");
    let code = if complaints.is_empty() { 0 } else { 78 };
    assert_eq!(output.status.code(), Some(code), "{probe}");
}

#[test]
fn pb_10_what_can_be_said_of_probing() {
    for right in [
        r#""off""#,
        "{}",
        r#"{ interval = "100ms" }"#,
        r#"{ interval = "1s", idle-interval = "1s", tries = 10, hold-down = 1 }"#,
        // Then the usual interval of idle locators, a minute, would be the shorter one.
        r#"{ interval = "5m" }"#,
    ] {
        refused(right, &[]);
    }
}

#[test]
fn pb_10_what_is_wrong_is_named() {
    refused(
        r#""5s""#,
        &[r#": "5s" is no way to probe; write "off" or { interval = "1s", tries = 3 }"#],
    );
    refused("5", &[": is a number (5); write a table"]);
    refused(
        r#"{ interval = "99ms", idle-interval = 60, tries = 0, hold-down = "3" }"#,
        &[
            r#".hold-down: is text ("3"); write 1 to 100"#,
            r#".idle-interval: is a number (60); write a duration in quotes, such as "15s""#,
            r#".interval: "99ms" is out of range; write 100ms to 3600s"#,
            ".tries: 0 is out of range; write 1 to 10",
        ],
    );
    refused(
        r#"{ interval = "10s", idle-interval = "9s" }"#,
        &[
            ".idle-interval: is shorter than interval; locators without traffic are probed as often as the others at most",
        ],
    );
    refused(r#"{ intervall = "1s" }"#, &[r#".intervall: unknown key; did you mean "interval"?"#]);
}
