//! What `isthmus check` says of workers, rate limits and the intake by ring; what `explain` and `tap` say of wrong usage.
use super::*;

/// On this host.
const HERE: &str = r#"[gateway]
rlocs = ["127.0.0.1"]
map-resolvers = ["198.51.100.2"]

[pitr]
eid-aggregates = ["203.0.113.0/24"]
"#;

fn isthmus_with(args: &[&str], text: &str) -> Output {
    let directory = TempDir::new().expect("temporary directory");
    fs::write(directory.path().join("gateway.toml"), text).expect("write");
    isthmus(directory.path(), args)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Whether checking `text` on this host says `expected` in one of its lines.
#[track_caller]
fn says(text: &str, expected: &str) {
    let output = isthmus_with(&["check", "gateway.toml"], text);
    assert!(stderr(&output).lines().any(|line| line.contains(expected)), "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(78));
}

#[test]
fn cpus_have_to_be_there_and_are_given_once() {
    let with =
        |cpus: &str| HERE.replace("[pitr]", &format!("workers = {{ cpus = {cpus} }}\n\n[pitr]"));
    says(&with("[0, 0]"), "gateway.workers.cpus[1]: CPU 0 is given twice");
    says(&with("[1023]"), "gateway.workers.cpus[0]: this host has no CPU 1023 on-line");
    let text = HERE.replace("[pitr]", "workers = 2\n\n[pitr]");
    says(&text, "gateway.workers: is a number (2); write a table such as { count = \"auto\"");
}

#[test]
fn a_ring_needs_ethernet() {
    let text =
        HERE.replace("[pitr]", "intake = \"ring\"\n\n[pitr]") + "native-interfaces = [\"lo\"]\n";
    says(&text, "gateway.intake: \"ring\" takes Ethernet frames, and lo has none");
}

#[test]
fn a_rate_limit_limits_something() {
    let data = |value: &str| format!("{HERE}\n[data]\nrate-limit = {value}\n");
    says(&data("{}"), "data.rate-limit: limits nothing; write { per-locator = 1000000 }");
    says(&data("7"), "data.rate-limit: is a number (7); write { per-locator = 1000000 }");
}

#[test]
fn what_may_be_text_or_a_table_names_both() {
    says(
        &format!("{HERE}\n[data]\npath-mtu = 7\n"),
        "data.path-mtu: is a number (7); write \"stateless\" or { icmp = true, probe = true }",
    );
    says(
        &format!("{HERE}\n[petr]\naccept-from = 7\n"),
        "petr.accept-from: is a number (7); write \"registered\" or { eids",
    );
}

#[test]
fn explain_and_tap_tell_wrong_usage_from_a_dropped_packet() {
    for (args, expected) in [
        (&["explain", "192.0.2.1", "192.0.2.2", "--length", "10"][..], "at least 28 octets"),
        (&["explain", "2001:db8::1", "2001:db8::2", "--df"], "--df is for IPv4"),
        (&["explain", "192.0.2.1", "192.0.2.2", "--role", "mapping"], "possible values"),
        (&["tap", "--role", "mapping"], "possible values"),
    ] {
        let output = isthmus_with(args, "");
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{args:?}: {}", stderr(&output));
    }
}
