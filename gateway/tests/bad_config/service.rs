//! `[log]`, `[metrics]` and `[web]`.

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

#[test]
fn a_page_nowhere() {
    refused_offline(
        "gateway.toml",
        &format!(
            "{GATEWAY}\n[web]\nlisten = \"8043\"\naccept-from = [\"everybody\"]\nhosts = [\"http://pxtr\"]\npassword = \"x\"\n"
        ),
        &[
            "gateway.toml:9: web.listen: \"8043\" is no address with a port; write \"127.0.0.1:8043\" or \"[::1]:8043\"",
            "gateway.toml:10: web.accept-from[0]: \"everybody\" is no prefix; write \"192.0.2.0/24\" or \"2001:db8::/32\"",
            "gateway.toml:11: web.hosts[0]: \"http://pxtr\" is no name of a host; write what stands in the browser between http:// and the port: \"pxtr1.example.net\"",
            "gateway.toml:12: web.password: unknown key; known here: accept-from, hosts, listen",
        ],
    );
    refused_offline(
        "gateway.toml",
        &format!("{GATEWAY}\n[web]\nhosts = [\"pxtr\"]\n"),
        &["gateway.toml:8: web.listen: missing; write listen = \"127.0.0.1:8043\""],
    );
}

#[test]
fn a_page_for_other_hosts_is_not_served_unless_it_says_for_whom() {
    for listen in ["0.0.0.0:8043", "[::]:8043", "192.0.2.1:8043"] {
        refused_offline(
            "gateway.toml",
            &format!("{GATEWAY}\n[web]\nlisten = \"{listen}\"\n"),
            &[
                "gateway.toml:9: web.listen: other hosts reach this address, and the page has no password; listen on 127.0.0.1 or [::1], or name in `accept-from` who may read EID-prefixes, RLOCs and traffic: accept-from = [\"192.0.2.0/24\"]",
            ],
        );
    }
    let directory = TempDir::new().expect("temporary directory");
    let check = |web: &str| {
        let text = format!("{GATEWAY}\n[web]\n{web}\n");
        fs::write(directory.path().join("gateway.toml"), text).expect("write");
        let output = isthmus(directory.path(), &["check", "--offline", "gateway.toml"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout)
    };
    let said =
        check("listen = \"0.0.0.0:8043\"\naccept-from = [\"192.0.2.0/24\", \"2001:db8::1\"]");
    assert!(
        said.contains("gateway.toml:9: web.listen: warning: whoever is in `accept-from`"),
        "{said}"
    );
    let said = check("listen = \"127.0.0.1:8043\"\naccept-from = [\"192.0.2.0/24\"]");
    assert!(said.contains("gateway.toml:10: web.accept-from: warning: is of no use"), "{said}");
    assert!(!check("listen = \"[::1]:8043\"\nhosts = [\"pxtr1.example.net\"]").contains("web."));
}
