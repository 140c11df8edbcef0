//! `[log]` and `[metrics]`.

use std::fs;

use tempfile::TempDir;

use super::{GATEWAY, isthmus, refused_offline, stderr_lines};

#[test]
fn logs_that_are_none() {
    refused_offline(
        "gateway.toml",
        &format!("{GATEWAY}\n[log]\nformat = \"xml\"\nlevel = \"=loud=\"\nfile = \"/x\"\n"),
        &[
            "gateway.toml:9: log.format: \"xml\" is no format; write \"human\" or \"json\"",
            "gateway.toml:10: log.level: \"=loud=\" is no level: invalid filter directive; write error, warn, info, debug or trace, or levels by module such as \"info,xtr=debug\"",
            "gateway.toml:11: log.file: unknown key; known here: format, level",
        ],
    );
}

#[test]
fn metrics_nowhere() {
    for listen in ["9643", "localhost:9643", "127.0.0.1", "127.0.0.1:0"] {
        refused_offline(
            "gateway.toml",
            &format!("{GATEWAY}\n[metrics]\nlisten = \"{listen}\"\n"),
            &[&format!(
                "gateway.toml:9: metrics.listen: \"{listen}\" is no address with a port; write \"127.0.0.1:9643\" or \"[::1]:9643\""
            )],
        );
    }
}

#[test]
fn metrics_for_everybody_are_warned_of() {
    let directory = TempDir::new().expect("temporary directory");
    let check = |listen: &str| {
        let text = format!("{GATEWAY}\n[metrics]\nlisten = \"{listen}\"\n");
        fs::write(directory.path().join("gateway.toml"), text).expect("write");
        isthmus(directory.path(), &["check", "--offline", "gateway.toml"])
    };
    for listen in ["127.0.0.1:9643", "[::1]:9643"] {
        let output = check(listen);
        assert_eq!((stderr_lines(&output), output.status.code()), (vec![], Some(0)), "{listen}");
    }
    for listen in ["0.0.0.0:9643", "[2001:db8::1]:9643"] {
        let output = check(listen);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("gateway.toml:9: metrics.listen: "), "{said}");
        assert!(said.contains("metrics have no password"), "{said}");
    }
}
