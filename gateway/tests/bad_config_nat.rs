//! What `isthmus check` says of NAT traversal: `[nat]` of a Map-Server, `nat-traversal` of an xTR, `nat` of an RTR.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

const MAPPING: &str = "[mapping]\nlisten = [\"198.51.100.2\"]\n\n[nat]\n";

/// What is said of a Map-Server with these lines in `[nat]`.
fn findings(lines: &str) -> Vec<String> {
    findings_in(&format!("{MAPPING}{lines}\n"))
}

fn findings_in(text: &str) -> Vec<String> {
    let directory = TempDir::new().expect("temporary directory");
    fs::write(directory.path().join("file.toml"), text).expect("write");
    let output = Command::new(env!("CARGO_BIN_EXE_isthmus"))
        .current_dir(directory.path())
        .args(["check", "--offline", "file.toml"])
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

/// An xTR with these lines in its `[xtr]`.
fn xtr(lines: &str) -> String {
    format!(
        "[xtr]\nrlocs = {{ core4 = {{ address = \"192.168.1.2\" }} }}\n\
         map-servers = [{{ address = \"198.51.100.2\", key-id = 1, key-file = \"k\" }}]\n\
         map-resolvers = [\"198.51.100.2\"]\n{lines}\n\n\
         [[eid]]\nprefix = \"203.0.113.0/26\"\ninterfaces = [\"lan0\"]\n"
    )
}

const NAMED: &str = "xtr-id = \"a1\"\nsite-id = 1\n";

#[test]
fn nt_10_an_xtr_needs_a_name_and_a_keepalive_below_two_minutes() {
    for right in [
        "nat-traversal = true",
        "nat-traversal = false",
        "nat-traversal = { keepalive = \"119s\" }",
    ] {
        assert_eq!(findings_in(&xtr(&format!("{NAMED}{right}"))), [""; 0], "{right}");
    }
    for (lines, about) in [
        ("nat-traversal = true".to_owned(), "xtr.nat-traversal: needs a name for this router"),
        (format!("{NAMED}nat-traversal = {{ keepalive = \"2m\" }}"), "xtr.nat-traversal.keepalive"),
        (format!("{NAMED}nat-traversal = {{ keep = 1 }}"), "xtr.nat-traversal.keep"),
        (format!("{NAMED}nat-traversal = \"yes\""), "xtr.nat-traversal"),
    ] {
        let found = findings_in(&xtr(&lines));
        assert!(found.iter().any(|line| line.contains(about)), "{lines}: {found:?}");
    }
}

#[test]
fn nt_08_an_rtr_needs_map_servers_with_secrets() {
    let gateway = |nat: &str| {
        findings_in(&format!(
            "[gateway]\nrlocs = [\"198.51.100.1\"]\nmap-resolvers = [\"198.51.100.2\"]\n\
             [petr]\naccept-from = {{ eids = [\"203.0.113.0/24\"] }}\n\
             [rtr]\neid-prefixes = [\"203.0.113.0/24\"]\nnat = {nat}\n"
        ))
    };
    let server = "address = \"198.51.100.2\", key-id = 1, key-file = \"k\"";
    assert_eq!(gateway(&format!("{{ map-servers = [{{ {server} }}] }}")), [""; 0]);
    assert_eq!(
        gateway(&format!("{{ map-servers = [{{ {server} }}], timeout = \"30s\" }}")),
        [""; 0]
    );
    for (nat, about) in [
        ("true".to_owned(), "rtr.nat"),
        ("{ }".to_owned(), "map-servers"),
        ("{ map-servers = [] }".to_owned(), "is an empty list"),
        (
            "{ map-servers = [{ address = \"198.51.100.2\", key-id = 1 }] }".to_owned(),
            "has no secret",
        ),
        (format!("{{ map-servers = [{{ {server} }}, {{ {server} }}] }}"), "given twice"),
        (format!("{{ map-servers = [{{ {server} }}], timeout = \"2s\" }}"), "rtr.nat.timeout"),
        (
            format!("{{ map-servers = [{{ {server}, algorithm = \"hmac-sha-256-128-hkdf\" }}] }}"),
            "is not defined",
        ),
    ] {
        let found = gateway(&nat);
        assert!(found.iter().any(|line| line.contains(about)), "{nat}: {found:?}");
    }
}
