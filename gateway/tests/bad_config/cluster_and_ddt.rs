//! `[cluster]` and `[ddt]`.
use super::*;

const DDT: &str = r#"[mapping]
listen = ["192.0.2.11"]

[ddt]
roots = ["192.0.2.1"]

[[ddt.authoritative]]
prefix = "10.0.0.0/8"
"#;

#[test]
fn dd_03_delegations_that_cannot_be_right() {
    let text = DDT.to_owned()
        + r#"
[[ddt.delegation]]
prefix = "172.16.0.0/12"
rlocs = ["192.0.2.12"]

[[ddt.delegation]]
prefix = "10.0.0.0/8"
rlocs = ["192.0.2.11", "192.0.2.12", "192.0.2.12"]

[[ddt.delegation]]
prefix = "10.1.0.0/16"
instance-id = 7
rlocs = ["224.0.0.1"]

[[ddt.delegation]]
prefix = "10.2.0.0/16"

[[ddt.hint]]
prefix = "10.3.0.0/16"
rlocs = ["192.0.2.13"]

[[site]]
name = "a"
keys = [{ id = 1, file = "a.key" }]
eid-prefixes = ["10.5.0.0/16"]
"#;
    refused_offline(
        "mapping.toml",
        &text,
        &[
            "mapping.toml:11: ddt.delegation[0].prefix: 172.16.0.0/12 is in no [[ddt.authoritative]] prefix; \
             delegate what this node is authoritative for, or make it a [[ddt.hint]]",
            "mapping.toml:15: ddt.delegation[1].prefix: 10.0.0.0/8 is all that this node is authoritative for there; delegate more-specifics of it",
            "mapping.toml:15: ddt.delegation[1].prefix: 10.0.0.0/8 holds 10.5.0.0/16 of a [[site]] here; delegate what is registered elsewhere",
            "mapping.toml:16: ddt.delegation[1].rlocs[0]: 192.0.2.11 is an own address; name the other nodes",
            "mapping.toml:16: ddt.delegation[1].rlocs[2]: 192.0.2.12 is given twice; give every address once",
            "mapping.toml:19: ddt.delegation[2].prefix: [7]10.1.0.0/16 is in no [[ddt.authoritative]] prefix; \
             delegate what this node is authoritative for, or make it a [[ddt.hint]]",
            "mapping.toml:21: ddt.delegation[2].rlocs[0]: 224.0.0.1 is multicast; an RLOC is a unicast address that the core routes",
            "mapping.toml:23: ddt.delegation[3].rlocs: missing; write rlocs = [\"ADDRESS\"]",
            "mapping.toml:27: ddt.hint[0].prefix: this node is authoritative for 10.3.0.0/16; write it as [[ddt.delegation]]",
        ],
    );
}

#[test]
fn dd_03_delegations_that_overlap() {
    let text = DDT.to_owned()
        + r#"
[[ddt.authoritative]]
prefix = "0.0.0.0/0"
instance-id = "all"

[[ddt.authoritative]]
prefix = "10.0.0.0/8"
instance-id = "every"

[[ddt.authoritative]]
prefix = "10.0.0.0/8"

[[ddt.delegation]]
prefix = "10.1.0.0/16"
rlocs = ["192.0.2.12"]

[[ddt.delegation]]
prefix = "10.1.2.0/24"
rlocs = ["192.0.2.13"]

[[ddt.delegation]]
prefix = "10.1.2.0/24"
instance-id = 7
rlocs = ["192.0.2.13"]
"#;
    refused_offline(
        "mapping.toml",
        &text,
        &[
            "mapping.toml:16: ddt.authoritative[2].instance-id: is text (\"every\"); write \"all\", or 0 to 16777215 without quotes",
            "mapping.toml:19: ddt.authoritative[3].prefix: 10.0.0.0/8 is already given in line 8; give it once",
            "mapping.toml:26: ddt.delegation[1].prefix: 10.1.2.0/24 overlaps 10.1.0.0/16 in line 22; delegate every address once",
        ],
    );
}

#[test]
fn dd_06_a_site_that_nobody_is_referred_to_is_warned_of() {
    let directory = TempDir::new().unwrap();
    let site = "\n[[site]]\nname = \"a\"\nkeys = [{ id = 1, file = \"a.key\" }]\neid-prefixes = [\"172.16.0.0/16\"]\n";
    fs::write(directory.path().join("mapping.toml"), DDT.to_owned() + site).unwrap();
    let output = isthmus(directory.path(), &["check", "--offline", "mapping.toml"]);
    assert_eq!(
        stderr_lines(&output),
        [
            "mapping.toml:10: site[0]: warning: 172.16.0.0/16 is in no [[ddt.authoritative]] prefix: nobody is referred here for it"
        ]
    );
    assert!(output.status.success());
}

#[test]
fn dd_10_a_resolver_begins_somewhere() {
    let alone = "[mapping]\nlisten = [\"192.0.2.11\"]\n\n[ddt]\nresolver = true\n";
    refused_offline(
        "mapping.toml",
        alone,
        &[
            "mapping.toml:5: ddt.resolver: there is no node to begin a lookup with; name the tree's roots = [\"ADDRESS\"]",
        ],
    );
    refused_offline(
        "mapping.toml",
        &DDT.replace("[ddt]", "[ddt]\nresolver = false"),
        &[
            "mapping.toml:5: ddt.resolver: false, but there are roots; leave one of them out: only a resolver has roots",
        ],
    );
    refused_offline(
        "mapping.toml",
        &DDT.replace("\"192.0.2.1\"", "\"192.0.2.11\""),
        &["mapping.toml:5: ddt.roots[0]: 192.0.2.11 is an own address; name the other nodes"],
    );
}

#[test]
fn dd_20_signing_is_refused_and_said_to_be_missing() {
    refused_offline(
        "mapping.toml",
        &DDT.replace("[ddt]", "[ddt]\nsigning-key = \"ddt.pem\""),
        &[
            "mapping.toml:5: ddt.signing-key: Map-Referrals are neither signed nor verified by this product; \
           leave it out, and keep the path to the other nodes safe",
        ],
    );
}

#[test]
fn a_cluster_is_checked_key_by_key() {
    let cluster = |lines: &str| format!("{MAPPING}\n[cluster]\n{lines}");
    for right in [
        "endpoints = [\"192.0.2.1:2379\", \"[2001:db8::1]:2379\", \"http://etcd-3.example.net:2379\"]\n",
        "endpoints = [\"192.0.2.1:2379\"]\nprefix = \"/a/b/\"\nuser = \"ms\"\npassword-env = \"P\"\n",
    ] {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("mapping.toml"), cluster(right)).unwrap();
        let output = isthmus(directory.path(), &["check", "--offline", "mapping.toml"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    refused_offline(
        "mapping.toml",
        &cluster(
            "endpoints = [\"192.0.2.1\", \"2001:db8::1:2379\", \"a:1\", \"a:1\", \"https://b:2379\"]\n\
             prefix = \"isthmus\"\nca-file = \"ca.pem\"\npassword-env = \"x\"\n",
        ),
        &[
            "mapping.toml:10: cluster.endpoints[0]: \"192.0.2.1\" is no endpoint of etcd; \
             write HOST:PORT, such as \"192.0.2.1:2379\" or \"[2001:db8::1]:2379\"",
            "mapping.toml:10: cluster.endpoints[1]: \"2001:db8::1:2379\" is no endpoint of etcd; \
             write HOST:PORT, such as \"192.0.2.1:2379\" or \"[2001:db8::1]:2379\"",
            "mapping.toml:10: cluster.endpoints[3]: a:1 is given twice; name each member once",
            "mapping.toml:10: cluster.endpoints[4]: TLS to etcd is not spoken; \
             reach etcd over a network of its own or a tunnel, by HOST:PORT",
            "mapping.toml:11: cluster.prefix: \"isthmus\" is no prefix of keys; \
             write one that ends with a slash, such as \"/isthmus/\", up to 256 octets",
            "mapping.toml:12: cluster.ca-file: TLS to etcd is not spoken; \
             reach etcd over a network of its own or a tunnel, by HOST:PORT",
            "mapping.toml:13: cluster.password-env: has no user; write user = \"NAME\" too",
        ],
    );
    refused_offline(
        "mapping.toml",
        &cluster(""),
        &["mapping.toml:9: cluster.endpoints: missing; write endpoints = [\"HOST:PORT\"]"],
    );
}
