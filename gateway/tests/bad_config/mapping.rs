//! `[mapping]`, `[[site]]`, `[[subscriber]]`, `[lisp-sec]`.
use super::*;

#[test]
fn a_state_directory_that_is_none() {
    for (value, line) in [
        (
            "none",
            "mapping.toml:3: mapping.state-dir: none cannot be used: No such file or directory (os error 2); \
             make it with `install -d -m 0700 none`",
        ),
        (
            "mapping.toml",
            "mapping.toml:3: mapping.state-dir: mapping.toml is not a directory; name a directory",
        ),
        ("", "mapping.toml:3: mapping.state-dir: is empty; write text or leave the key out"),
    ] {
        let text = format!("[mapping]\nlisten = [\"127.0.0.1\"]\nstate-dir = \"{value}\"\n");
        refused("mapping.toml", &text, &[], &[line]);
    }
}

#[test]
fn ms_13_au_03_what_is_wrong_with_a_site() {
    let text = MAPPING.replace(
        "eid-prefixes",
        "profile = \"cisco\"\nadmin-down = \"yes\"\nmax-registrations = 0\neid-prefixes",
    );
    refused_offline(
        "mapping.toml",
        &text,
        &[
            "mapping.toml:7: site[0].profile: \"cisco\" is no profile; \
             write one of \"rfc9301\", \"oor\", \"lispers.net\", \"vpp\"",
            "mapping.toml:8: site[0].admin-down: is text (\"yes\"); write true or false",
            "mapping.toml:9: site[0].max-registrations: 0 is out of range; write 1 to 2000000",
        ],
    );
    let named = MAPPING.to_owned() + "eid-names = [\"0123456789012345678901234567890123\", 7]\n";
    refused_offline(
        "mapping.toml",
        &named,
        &[
            "mapping.toml:8: site[0].eid-names[0]: is no distinguished name (RFC 9735); write up to 31 octets without NUL",
            "mapping.toml:8: site[0].eid-names[1]: is a number (7); write text in quotes",
        ],
    );
    let weak = MAPPING.replace("a.key\"", "a.key\", algorithms = [\"hmac-sha-1-96\"]");
    refused_offline(
        "mapping.toml",
        &weak,
        &[
            "mapping.toml:6: site[0].keys[0].algorithms[0]: HMAC-SHA-1 is not for a peer of the profile rfc9301 (RFC 9301 §1.1); \
             give the peer's profile: \"oor\", \"lispers.net\" or \"vpp\"",
        ],
    );
}

#[test]
fn au_10_two_sites_of_one_secret_are_warned_of() {
    let directory = TempDir::new().unwrap();
    let second = MAPPING.split_once("[[site]]").unwrap().1;
    let second = second.replace("\"a\"", "\"b\"").replace("e001", "e002");
    let text = format!("{MAPPING}\n[[site]]{second}");
    fs::write(directory.path().join("mapping.toml"), text).unwrap();
    let key = directory.path().join("a.key");
    fs::write(&key, "secret\n").unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o640)).unwrap();
    let output = isthmus(directory.path(), &["check", "mapping.toml"]);
    assert_eq!(
        stderr_lines(&output),
        ["mapping.toml:9: site[1]: warning: a secret is the same as one of site \"a\": \
             who has it can register for both; give every site its own"]
    );
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn sites_that_collide() {
    let text = MAPPING.to_owned()
        + r#"
[[site]]
name = "a"
keys = [{ id = 1, file = "b.key" }, { id = 1, file = "c.key" }, { id = 1, file = "d.key" }]
eid-prefixes = ["2001:db8:e001:7::/64", "2001:db8:e001::/48", "203.0.113.0/26", "203.0.113.0/27"]
"#;
    refused_offline(
        "mapping.toml",
        &text,
        &[
            "mapping.toml:10: site[1].name: \"a\" is already the name of the site in line 5; give every site its own name",
            "mapping.toml:11: site[1].keys[2].id: key ID 1 is given more than twice; keep the old secret and the new one",
            "mapping.toml:12: site[1].eid-prefixes[0]: 2001:db8:e001:7::/64 overlaps 2001:db8:e001::/48 in line 7 (site \"a\"); \
             give every address to one site only",
            "mapping.toml:12: site[1].eid-prefixes[1]: 2001:db8:e001::/48 is already given in line 7 (site \"a\"); give it once",
        ],
    );
}

#[test]
fn a_site_id_belongs_to_one_section() {
    let mapping = "[mapping]
listen = [\"198.51.100.2\"]

[[site]]
name = \"a\"
site-id = 5
keys = [{ id = 1, file = \"a.key\" }]
eid-prefixes = [\"2001:db8:e001::/48\"]

[[subscriber]]
name = \"pitr\"
site-id = 5
key-id = 1
key-file = \"p.key\"

[subscriptions]
lifetime = \"5s\"
";
    refused_offline(
        "mapping.toml",
        mapping,
        &[
            "mapping.toml:12: subscriber[0].site-id: Site-ID 5 is already given in line 6; give every site and subscriber its own: it \
             chooses the key",
            "mapping.toml:17: subscriptions.lifetime: \"5s\" is out of range; write 60s to 86400s",
        ],
    );
}

#[test]
fn se_07_the_itrs_secret_is_no_sites() {
    let text = r#"[mapping]
listen = ["198.51.100.2"]

[[site]]
name = "a"
keys = [{ id = 1, file = "a.key" }]
eid-prefixes = ["2001:db8:e001::/48"]

[lisp-sec]
itr-keys = [{ id = 1, file = "itr.key" }, { id = 2, file = "same.key" }]
"#;
    let xtr = format!(
        "{XTR}\n[data]\n",
        XTR =
            XTR.replace("[[eid]]", "lisp-sec = { key-id = 1, key-file = \"same.key\" }\n\n[[eid]]")
    );
    let directory = TempDir::new().unwrap();
    for (name, secret) in
        [("a.key", "of a site"), ("same.key", "of a site"), ("itr.key", "of ITRs")]
    {
        fs::write(directory.path().join(name), secret).unwrap();
        fs::set_permissions(directory.path().join(name), Permissions::from_mode(0o600)).unwrap();
    }
    fs::write(directory.path().join("mapping.toml"), text).unwrap();
    fs::write(directory.path().join("xtr.toml"), xtr).unwrap();
    let output = isthmus(directory.path(), &["check", "mapping.toml", "xtr.toml"]);
    let lines = stderr_lines(&output);
    let has = |line: &str| assert!(lines.iter().any(|found| found == line), "{lines:#?}");
    has(
        "mapping.toml:10: lisp-sec.itr-keys[1].file: is the secret of site \"a\" too; give the ITRs a secret of their own, or the \
         ETRs could vouch for prefixes that are not theirs",
    );
    has(
        "xtr.toml:6: xtr.lisp-sec.key-file: is the secret of a Map-Server too; use the secret of the Map-Resolver's itr-keys, or the \
         ETRs could vouch for prefixes that are not theirs",
    );
    assert_eq!(output.status.code(), Some(78));
}

#[test]
fn lisp_sec_and_clients_are_checked() {
    refused_offline(
        "mapping.toml",
        r#"[mapping]
listen = ["198.51.100.2"]
clients = ["198.51.100.0/24", { prefix = "192.0.2.0/24", profile = "oor" }, "198.51.100.0/24"]

[lisp-sec]
required = 1
itr-keys = [{ id = 256, file = "itr.key" }]
"#,
        &[
            "mapping.toml:3: mapping.clients[1].profile: \"oor\" is no profile of a client; write \"rfc9301\" or \"lispers.net\"",
            "mapping.toml:3: mapping.clients[2]: 198.51.100.0/24 is already given in line 3; give it once",
            "mapping.toml:6: lisp-sec.required: is a number (1); write true or false",
            "mapping.toml:7: lisp-sec.itr-keys[0].id: 256 is out of range; write 0 to 255",
        ],
    );
    refused_offline(
        "gateway.toml",
        &GATEWAY.replace("[pitr]", "lisp-sec = { key-id = 1, secret = \"x\" }\n\n[pitr]"),
        &[
            "gateway.toml:5: gateway.lisp-sec: has no secret; write key-file = \"PATH\" or key-env = \"VARIABLE\"",
            "gateway.toml:5: gateway.lisp-sec.secret: a secret must not be in this file; put it in a file of its own, readable by the \
             daemon only, and name the file",
        ],
    );
}
