//! `isthmus check` says what is wrong with a configuration: every mistake at once, one line each, exit status 78.

mod cluster_and_ddt;
mod data;
mod data_plane;
mod gateway;
mod locators;
mod mapping;
mod mobility;
mod probe;
mod registration;
mod service;
mod trusted_core;
mod xtr;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// Runs `isthmus` in `directory`.
fn isthmus(directory: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_isthmus"))
        .current_dir(directory)
        .args(args)
        .env_remove("ISTHMUS_TEST_ABSENT")
        .output()
        .expect("isthmus runs")
}

fn stderr_lines(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect()
}

/// Writes `text` to `file` and expects exactly `lines` and exit status 78.
fn refused(file: &str, text: &str, flags: &[&str], lines: &[&str]) {
    let directory = TempDir::new().expect("temporary directory");
    fs::write(directory.path().join(file), text).expect("write");
    let args: Vec<&str> = ["check"].iter().chain(flags).chain(&[file]).copied().collect();
    let output = isthmus(directory.path(), &args);
    assert_eq!(stderr_lines(&output), lines, "{text}");
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

fn refused_offline(file: &str, text: &str, lines: &[&str]) {
    refused(file, text, &["--offline"], lines);
}

const XTR: &str = r#"[xtr]
rlocs = { core4 = { address = "198.51.100.11" } }
map-servers = [{ address = "198.51.100.2", key-id = 1, key-file = "a.key" }]
map-resolvers = ["198.51.100.2"]

[[eid]]
prefix = "2001:db8:e001::/48"
"#;

const GATEWAY: &str = r#"[gateway]
rlocs = ["198.51.100.1"]
map-resolvers = ["198.51.100.2"]

[pitr]
eid-aggregates = ["203.0.113.0/24"]
"#;

const MAPPING: &str = r#"[mapping]
listen = ["127.0.0.1"]

[[site]]
name = "a"
keys = [{ id = 1, file = "a.key" }]
eid-prefixes = ["2001:db8:e001::/48"]
"#;

#[test]
fn the_minimal_files_are_right() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("xtr.toml"), XTR).unwrap();
    fs::write(directory.path().join("gateway.toml"), GATEWAY).unwrap();
    let output = isthmus(directory.path(), &["check", "--offline", "xtr.toml", "gateway.toml"]);
    assert_eq!(stderr_lines(&output), [""; 0]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "xtr.toml: ok (xtr)\ngateway.toml: ok (gateway)\n"
    );
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_file_that_is_not_there() {
    let directory = TempDir::new().unwrap();
    let output = isthmus(directory.path(), &["check", "none.toml"]);
    assert_eq!(
        stderr_lines(&output),
        [
            "none.toml: cannot be read: No such file or directory (os error 2); name a file that this user may read"
        ]
    );
    assert_eq!(output.status.code(), Some(78));
}

#[test]
fn a_file_that_is_no_toml() {
    refused_offline(
        "xtr.toml",
        "[xtr]\nname = \"a\"\nrlocs = [\n",
        &["xtr.toml:3: not TOML: unclosed array, expected `]`"],
    );
}

#[test]
fn a_key_given_twice() {
    refused_offline(
        "gateway.toml",
        "[gateway]\nname = \"a\"\nname = \"b\"\n",
        &["gateway.toml:3: not TOML: duplicate key"],
    );
}

#[test]
fn no_role_or_two() {
    refused_offline(
        "a.toml",
        "[data]\ncopy-ecn = true\n",
        &["a.toml:1: no role; add one of the sections [gateway], [xtr], [mapping]"],
    );
    refused_offline(
        "a.toml",
        "[gateway]\n[mapping]\n",
        &["a.toml:1: [gateway], [mapping] in one file; give every role a file of its own"],
    );
}

#[test]
fn unknown_keys_with_a_suggestion() {
    let text = GATEWAY.replace("map-resolvers", "map_resolver").replace("[pitr]", "[ptir]");
    refused_offline(
        "gateway.toml",
        &text,
        &[
            "gateway.toml:1: gateway: the gateway has no role; add [pitr] with eid-aggregates or [petr] with accept-from",
            "gateway.toml:3: gateway.map_resolver: unknown key; did you mean \"map-resolvers\"?",
            "gateway.toml:5: ptir: unknown key; did you mean \"pitr\"?",
        ],
    );
    refused_offline(
        "gateway.toml",
        &format!("{GATEWAY}announce = {{ colour = 3 }}\n"),
        &[
            "gateway.toml:7: pitr.announce.colour: unknown key; known here: table, metric, withdraw-when-unhealthy, after, drain",
        ],
    );
}

#[test]
fn required_keys_that_are_missing() {
    refused_offline(
        "xtr.toml",
        "[xtr]\nname = \"a\"\n",
        &[
            "xtr.toml:1: eid: missing; write eid = [{ prefix = \"ADDRESS/LENGTH\" }], or better a section [[eid]]",
            "xtr.toml:1: xtr.map-resolvers: missing; write map-resolvers = [\"ADDRESS\"]",
            "xtr.toml:1: xtr.map-servers: missing; write map-servers = [{ address = \"ADDRESS\", key-id = 1, key-file = \"PATH\" }]",
            "xtr.toml:1: xtr.rlocs: missing; write rlocs = { core = { address = \"ADDRESS\" } }",
        ],
    );
}

#[test]
fn wrong_types() {
    let text = GATEWAY
        .replace("rlocs = [\"198.51.100.1\"]", "name = 5\nrlocs = \"198.51.100.1\"\ntun = []")
        .replace(
            "eid-aggregates = [",
            "reject-source-in-aggregates = \"no\"\neid-aggregates = [7, ",
        );
    refused_offline(
        "gateway.toml",
        &text,
        &[
            "gateway.toml:2: gateway.name: is a number (5); write text in quotes",
            "gateway.toml:3: gateway.rlocs: is text (\"198.51.100.1\"); write a list in [ ]",
            "gateway.toml:4: gateway.tun: is a list; write a table",
            "gateway.toml:8: pitr.reject-source-in-aggregates: is text (\"no\"); write true or false",
            "gateway.toml:9: pitr.eid-aggregates[0]: is a number (7); write text in quotes",
        ],
    );
}

#[test]
fn bad_prefixes() {
    let text = XTR.to_owned()
        + r#"
[[eid]]
prefix = "2001:db8::/200"

[[eid]]
prefix = "203.0.113.5/26"

[[eid]]
prefix = "203.0.113.77"

[[eid]]
prefix = "fe80::/64"

[[eid]]
prefix = "224.0.0.0/8"
"#;
    refused_offline(
        "xtr.toml",
        &text,
        &[
            "xtr.toml:10: eid[1].prefix: \"2001:db8::/200\" is no IP prefix; write ADDRESS/LENGTH",
            "xtr.toml:13: eid[2].prefix: \"203.0.113.5/26\" has host bits set; write 203.0.113.0/26",
            "xtr.toml:16: eid[3].prefix: \"203.0.113.77\" has no length; write 203.0.113.77/32",
            "xtr.toml:19: eid[4].prefix: fe80::/64 is link-local; an EID-prefix holds unicast host addresses",
            "xtr.toml:22: eid[5].prefix: 224.0.0.0/8 is multicast; an EID-prefix holds unicast host addresses",
        ],
    );
}

#[test]
fn empty_lists() {
    let text = GATEWAY.replace("[\"198.51.100.2\"]", "[]").replace("[\"203.0.113.0/24\"]", "[]");
    let end =
        "is an empty list; write at least one element, or leave the key out where it is optional";
    refused_offline(
        "gateway.toml",
        &text,
        &[
            &format!("gateway.toml:3: gateway.map-resolvers: {end}"),
            &format!("gateway.toml:6: pitr.eid-aggregates: {end}"),
        ],
    );
}

#[test]
fn names_that_are_neither_address_nor_host() {
    let text = GATEWAY.replace("[\"198.51.100.2\"]", "[\"198.51.100.256\", \"mr.example.net\"]");
    refused_offline(
        "gateway.toml",
        &text,
        &[
            "gateway.toml:3: gateway.map-resolvers[0]: \"198.51.100.256\" is neither an IP address nor a DNS name; write one of them",
        ],
    );
}

#[test]
fn words_out_of_a_fixed_list() {
    let text = XTR.replace("key-file = \"a.key\"", "key-file = \"a.key\", algorithm = \"md5\"")
        + "\n[data]\nudp-checksum = \"none\"\nsource-ports = 0\n";
    let text = text.replace("[xtr]", "[xtr]\ntun = { name = \"a name\", queues = \"many\" }");
    refused_offline(
        "xtr.toml",
        &text,
        &[
            "xtr.toml:2: xtr.tun.name: \"a name\" is no interface name; write 1 to 15 letters without space, '/' or ':'",
            "xtr.toml:2: xtr.tun.queues: \"many\" is no number of queues; write \"auto\" or 1 to 256",
            "xtr.toml:4: xtr.map-servers[0].algorithm: \"md5\" is no algorithm of this product; \
             write \"hmac-sha-256-128-hkdf\" or \"hmac-sha-256-128\"",
            "xtr.toml:11: data.udp-checksum: \"none\" is no way to fill the checksum; write \"computed\" or \"zero\"",
            "xtr.toml:12: data.source-ports: 0 is out of range; write 1 to 1024",
        ],
    );
}

#[test]
fn a_list_of_sections_in_single_brackets() {
    refused_offline(
        "mapping.toml",
        &MAPPING.replace("[[site]]", "[site]"),
        &["mapping.toml:4: site: is a table; write [[site]] in double brackets"],
    );
}

#[test]
fn secrets_in_the_file_and_secrets_missing() {
    let text = MAPPING.replace("file = \"a.key\"", "key = \"hunter2\"")
        + "\n[[site]]\nname = \"b\"\nkeys = [{ id = 1, env = \"ISTHMUS_TEST_ABSENT\" }]\neid-prefixes = [\"203.0.113.0/26\"]\n";
    refused(
        "mapping.toml",
        &text,
        &[],
        &[
            "mapping.toml:6: site[0].keys[0]: has no secret; write file = \"PATH\" or env = \"VARIABLE\"",
            "mapping.toml:6: site[0].keys[0].key: a secret must not be in this file; \
             put it in a file of its own, readable by the daemon only, and name the file",
            "mapping.toml:11: site[1].keys[0].env: the environment has no variable ISTHMUS_TEST_ABSENT; \
             set it to the shared secret, or use a key file",
        ],
    );
}

#[test]
fn key_files_missing_empty_and_open() {
    refused(
        "mapping.toml",
        MAPPING,
        &[],
        &["mapping.toml:6: site[0].keys[0].file: key file a.key does not exist; \
           create it with the secret shared with the other side"],
    );
    let directory = TempDir::new().unwrap();
    let key = directory.path().join("a.key");
    fs::write(directory.path().join("mapping.toml"), MAPPING).unwrap();
    fs::write(&key, "\n").unwrap();
    let output = isthmus(directory.path(), &["check", "mapping.toml"]);
    assert_eq!(
        stderr_lines(&output),
        [
            "mapping.toml:6: site[0].keys[0].file: key file a.key is empty; write the shared secret into it"
        ]
    );
    assert_eq!(output.status.code(), Some(78));
    fs::write(&key, "secret\n").unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let output = isthmus(directory.path(), &["check", "mapping.toml"]);
    assert_eq!(
        stderr_lines(&output),
        [
            "mapping.toml:6: site[0].keys[0].file: warning: key file a.key is open to everybody (mode 0644); chmod o-rwx it"
        ]
    );
    assert_eq!(output.status.code(), Some(0));
    fs::set_permissions(&key, Permissions::from_mode(0o640)).unwrap();
    let output = isthmus(directory.path(), &["check", "mapping.toml"]);
    assert_eq!(stderr_lines(&output), [""; 0]);
}

#[test]
fn a_daemon_refuses_what_check_refuses() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("mapping.toml"), MAPPING).unwrap();
    let output = isthmus(
        directory.path(),
        &["mapping", "--config", "mapping.toml", "--socket", "mapping.sock"],
    );
    assert_eq!(
        stderr_lines(&output),
        [
            "mapping.toml:6: site[0].keys[0].file: key file a.key does not exist; create it with the secret shared with the other side"
        ]
    );
    assert_eq!(output.status.code(), Some(78));
    fs::write(directory.path().join("a.key"), "secret").unwrap();
    fs::set_permissions(directory.path().join("a.key"), Permissions::from_mode(0o600)).unwrap();
    let output = isthmus(directory.path(), &["xtr", "--config", "mapping.toml"]);
    assert_eq!(
        stderr_lines(&output),
        [
            "isthmus: mapping.toml configures the role mapping; run `isthmus mapping --config mapping.toml`"
        ]
    );
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn check_in_json_lists_the_same() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("gateway.toml"), GATEWAY.replace("rlocs", "rloc")).unwrap();
    let output = isthmus(directory.path(), &["check", "--offline", "--json", "gateway.toml"]);
    assert_eq!(output.status.code(), Some(78));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json[0]["role"], serde_json::Value::Null);
    assert_eq!(json[0]["errors"][0]["key"], "gateway.rloc");
    assert_eq!(json[0]["errors"][0]["line"], 2);
}
