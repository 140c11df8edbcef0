//! `isthmus check` says what is wrong with a configuration: every mistake at once, one line each, exit status 78.

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
            "none.toml: cannot be read: No such file or directory (os error 2); name a TOML file that this user may read"
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
fn intake_by_ring_needs_interfaces() {
    let ring = "map-resolvers = [\"198.51.100.2\"]\nintake = \"ring\"";
    let with = |text: &str| text.replace("map-resolvers = [\"198.51.100.2\"]", ring);
    refused_offline(
        "gateway.toml",
        &with(GATEWAY),
        &[
            "gateway.toml:4: gateway.intake: \"ring\" needs pitr.native-interfaces; name there the interfaces that the packets come from, or write \"tun\"",
        ],
    );
    refused_offline(
        "xtr.toml",
        &with(XTR),
        &[
            "xtr.toml:5: xtr.intake: \"ring\" needs eid.interfaces; name there the interfaces that the packets come from, or write \"tun\"",
        ],
    );
    refused_offline(
        "xtr.toml",
        &with(XTR).replace("\"ring\"", "\"rings\""),
        &["xtr.toml:5: xtr.intake: \"rings\" is no intake; write \"tun\" or \"ring\""],
    );
    let names: Vec<String> = (0..17).map(|number| format!("eth{number}")).collect();
    refused_offline(
        "gateway.toml",
        &format!("{}native-interfaces = {names:?}\n", with(GATEWAY)),
        &[
            "gateway.toml:4: gateway.intake: pitr.native-interfaces names more than 16 interfaces; write \"tun\": rings are for a few interfaces",
        ],
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
            "gateway.toml:7: pitr.announce.colour: unknown key; known here: table, metric, withdraw-when-unhealthy, after",
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
fn addresses_that_cannot_be_locators() {
    let text = GATEWAY.replace(
        "[\"198.51.100.1\"]",
        "[\n  \"224.0.0.1\",\n  \"fe80::1\",\n  \"0.0.0.0\",\n  \"127.0.0.1\",\n  \"255.255.255.255\",\n  \"eth0\",\n]",
    );
    let end = "an RLOC is a unicast address that the core routes";
    refused_offline(
        "gateway.toml",
        &text,
        &[
            &format!("gateway.toml:3: gateway.rlocs[0]: 224.0.0.1 is multicast; {end}"),
            &format!("gateway.toml:4: gateway.rlocs[1]: fe80::1 is link-local; {end}"),
            &format!("gateway.toml:5: gateway.rlocs[2]: 0.0.0.0 is the unspecified address; {end}"),
            &format!("gateway.toml:6: gateway.rlocs[3]: 127.0.0.1 is loopback; {end}"),
            &format!(
                "gateway.toml:7: gateway.rlocs[4]: 255.255.255.255 is reserved or broadcast; {end}"
            ),
            "gateway.toml:8: gateway.rlocs[5]: \"eth0\" is no IP address; write an IPv4 or IPv6 address without length",
        ],
    );
}

#[test]
fn a_site_interface_that_is_not_of_this_host() {
    let text = XTR.replace("address = \"198.51.100.11\"", "interface = \"lo\"");
    let text = text.replace("key-file = \"a.key\"", "key-env = \"PATH\"");
    let directory = TempDir::new().expect("temporary directory");
    let text = format!("{text}interfaces = [\"lost\"]\n");
    fs::write(directory.path().join("xtr.toml"), text).expect("write");
    let output = isthmus(directory.path(), &["check", "xtr.toml"]);
    let line = "xtr.toml:8: eid[0].interfaces[0]: this host has no interface lost; \
                write one that `ip link` lists";
    assert!(stderr_lines(&output).contains(&line.to_owned()), "{output:?}");
    assert_eq!(output.status.code(), Some(78));
}

#[test]
fn a_locator_that_is_not_of_this_host() {
    refused(
        "gateway.toml",
        GATEWAY,
        &[],
        &["gateway.toml:2: gateway.rlocs[0]: 198.51.100.1 is not an address of this host; \
           assign it to an interface first, or write one that `ip address` lists"],
    );
    let text = XTR.replace("address = \"198.51.100.11\"", "interface = \"lost\"");
    let text = text.replace("key-file = \"a.key\"", "key-env = \"PATH\"");
    refused(
        "xtr.toml",
        &text,
        &[],
        &["xtr.toml:2: xtr.rlocs.core4.interface: this host has no interface lost; \
           write one that `ip link` lists"],
    );
    let text = text.replace("\"lost\"", "\"lo\"");
    refused(
        "xtr.toml",
        &text,
        &[],
        &["xtr.toml:2: xtr.rlocs.core4.interface: lo has no address that can be an RLOC; \
           assign one, or write address = \"ADDRESS\""],
    );
}

#[test]
fn priorities_weights_and_key_ids_out_of_range() {
    let text = XTR
        .replace("\"198.51.100.11\"", "\"198.51.100.11\", priority = 300, weight = -1")
        .replace("key-id = 1", "key-id = 256");
    refused_offline(
        "xtr.toml",
        &text,
        &[
            "xtr.toml:2: xtr.rlocs.core4.priority: 300 is out of range; write 0 to 255",
            "xtr.toml:2: xtr.rlocs.core4.weight: -1 is out of range; write 0 to 255",
            "xtr.toml:3: xtr.map-servers[0].key-id: 256 is out of range; write 0 to 255",
        ],
    );
}

#[test]
fn durations() {
    let text = XTR.replace(
        "[xtr]\n",
        "[xtr]\nregistration-interval = \"60\"\nprobe = 5\nrecord-ttl = \"90s\"\n",
    );
    refused_offline(
        "xtr.toml",
        &text,
        &[
            "xtr.toml:2: xtr.registration-interval: \"60\" is no duration; write a number with ms, s, m or h, such as \"15s\"",
            "xtr.toml:3: xtr.probe: is a number (5); write a table",
            "xtr.toml:4: xtr.record-ttl: is not whole minutes; the Record TTL counts minutes, so write \"1440m\" or \"24h\"",
        ],
    );
}

#[test]
fn overlaps_within_an_xtr() {
    let text = XTR.to_owned()
        + r#"
[[eid]]
prefix = "2001:db8:e001::/48"

[[eid]]
prefix = "2001:db8:e001:7::/64"

[[eid]]
prefix = "2001:db8:e001:8::/64"
instance-id = 7

[[eid]]
prefix = "198.51.100.0/24"
"#;
    refused_offline(
        "xtr.toml",
        &text,
        &[
            "xtr.toml:10: eid[1].prefix: 2001:db8:e001::/48 is already given in line 7 (instance 0); give it once",
            "xtr.toml:16: eid[3].prefix: 2001:db8:e001:8::/64 overlaps 2001:db8:e001::/48 in line 7 (instance 0); \
             give every address to one instance only",
            "xtr.toml:20: eid[4].prefix: 198.51.100.0/24 contains the own RLOC 198.51.100.11; \
             EIDs and RLOCs are separate address spaces: correct one of them",
        ],
    );
}

#[test]
fn overlapping_aggregates() {
    let text = GATEWAY.replace(
        "[\"203.0.113.0/24\"]",
        "[\n  \"203.0.113.0/24\",\n  \"203.0.113.64/26\",\n  \"198.51.0.0/16\",\n]",
    );
    refused_offline(
        "gateway.toml",
        &text,
        &[
            "gateway.toml:8: pitr.eid-aggregates[1]: 203.0.113.64/26 overlaps 203.0.113.0/24 in line 7; keep the shorter one only",
            "gateway.toml:9: pitr.eid-aggregates[2]: 198.51.0.0/16 contains the own RLOC 198.51.100.1; \
             EIDs and RLOCs are separate address spaces: correct one of them",
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
fn pi_07_native_interfaces_that_are_none() {
    let text = format!("{GATEWAY}native-interfaces = [\"eth0:1\", 7]\n");
    refused_offline(
        "gateway.toml",
        &text,
        &[
            "gateway.toml:7: pitr.native-interfaces[0]: \"eth0:1\" is no interface name; \
             write 1 to 15 letters without space, '/' or ':'",
            "gateway.toml:7: pitr.native-interfaces[1]: is a number (7); write text in quotes",
        ],
    );
    let text = format!("{GATEWAY}native-interfaces = [\"lo\", \"lost\"]\n");
    refused(
        "gateway.toml",
        &text,
        &[],
        &[
            "gateway.toml:2: gateway.rlocs[0]: 198.51.100.1 is not an address of this host; \
             assign it to an interface first, or write one that `ip address` lists",
            "gateway.toml:7: pitr.native-interfaces[1]: this host has no interface lost; \
             write one that `ip link` lists",
        ],
    );
}

#[test]
fn tables_that_aggregates_cannot_be_announced_in() {
    let end = "write \"main\" or a table number other than 0, 255, 4341 and 4342";
    for (table, what) in [
        (255, "255 is the kernel's local table"),
        (4341, "4341 and 4342 are this product's own tables"),
        (4342, "4341 and 4342 are this product's own tables"),
    ] {
        let text = format!("{GATEWAY}announce = {{ table = {table} }}\n");
        let line = format!("gateway.toml:7: pitr.announce.table: {what}; {end}");
        refused_offline("gateway.toml", &text, &[&line]);
    }
}

#[test]
fn pe_03_a_petr_without_sites_is_refused() {
    let text = GATEWAY.replace("[pitr]\neid-aggregates = [\"203.0.113.0/24\"]", "[petr]");
    refused_offline(
        "gateway.toml",
        &text,
        &[
            "gateway.toml:5: petr.accept-from: missing; write accept-from = { eids = [\"ADDRESS/LENGTH\"] }: \
           without it the PETR would relay for everybody",
        ],
    );
}

#[test]
fn an_rtr_does_not_serve_its_own_rloc() {
    let text = format!(
        "{GATEWAY}\n[petr]\naccept-from = {{ eids = [\"203.0.113.0/24\"] }}\n[rtr]\neid-prefixes = [\"198.51.0.0/16\"]\n"
    );
    refused_offline(
        "gateway.toml",
        &text,
        &[
            "gateway.toml:11: rtr.eid-prefixes[0]: 198.51.0.0/16 contains the own RLOC 198.51.100.1; \
           EIDs and RLOCs are separate address spaces: correct one of them",
        ],
    );
}

#[test]
fn an_rtr_without_petr_is_refused() {
    let text = format!("{GATEWAY}\n[rtr]\neid-prefixes = [\"203.0.113.0/24\"]\n");
    refused_offline(
        "gateway.toml",
        &text,
        &["gateway.toml:8: rtr: an RTR needs [petr]; add [petr] accept-from: \
           packets are decapsulated by its rules before they are re-encapsulated"],
    );
}

#[test]
fn locator_sets_that_name_no_locator() {
    let text = format!("{XTR}locator-set = \"core6\"\n");
    refused_offline(
        "xtr.toml",
        &text,
        &[
            "xtr.toml:8: eid[0].locator-set: no locator is named \"core6\" in xtr.rlocs; did you mean \"core4\"?",
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
fn workers_on_cores_that_are_none() {
    let text = XTR.replace(
        "[xtr]",
        "[xtr]\ntun = { queues = 2 }\nworkers = { count = 3, cpus = [0, -1, \"a\"], pin = true }",
    );
    refused_offline(
        "xtr.toml",
        &text,
        &[
            "xtr.toml:3: xtr.workers.count: 3 workers cannot have 2 queues; every worker has one queue: leave tun.queues out",
            "xtr.toml:3: xtr.workers.cpus[1]: -1 is out of range; write 0 to 1023",
            "xtr.toml:3: xtr.workers.cpus[2]: is text (\"a\"); write 0 to 1023",
            "xtr.toml:3: xtr.workers.pin: unknown key; known here: count, cpus",
        ],
    );
}

const MAPPING: &str = r#"[mapping]
listen = ["127.0.0.1"]

[[site]]
name = "a"
keys = [{ id = 1, file = "a.key" }]
eid-prefixes = ["2001:db8:e001::/48"]
"#;

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
fn a_list_of_sections_in_single_brackets() {
    refused_offline(
        "mapping.toml",
        &MAPPING.replace("[[site]]", "[site]"),
        &["mapping.toml:4: site: is a table; write [[site]] in double brackets"],
    );
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
fn au_03_au_14_hmac_sha_1_only_for_a_legacy_map_server() {
    let key = "key-file = \"a.key\"";
    let weak = XTR.replace(key, &format!("{key}, algorithm = \"hmac-sha-1-96\""));
    refused_offline(
        "xtr.toml",
        &weak,
        &[
            "xtr.toml:3: xtr.map-servers[0].algorithm: HMAC-SHA-1 is not for a peer of the profile rfc9301 (RFC 9301 §1.1); \
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

#[test]
fn a_subscribing_router_needs_a_name_and_a_key() {
    let xtr = |lines: &str| XTR.replacen("[xtr]\n", &format!("[xtr]\n{lines}\n"), 1);
    refused_offline(
        "xtr.toml",
        &xtr("xtr-id = \"12 34\"\nsite-id = 0"),
        &[
            "xtr.toml:2: xtr.xtr-id: is no xTR-ID; write up to 32 hexadecimal digits, such as those of /etc/machine-id",
            "xtr.toml:3: xtr.site-id: 0 is out of range; write 1 to 9223372036854775807",
        ],
    );
    refused_offline(
        "xtr.toml",
        &xtr("xtr-id = \"1234\""),
        &["xtr.toml:2: xtr.xtr-id: is half an identity; add site-id = 1"],
    );
    refused_offline(
        "xtr.toml",
        &xtr("subscribe = true"),
        &[
            "xtr.toml:2: xtr.subscribe: needs a name for this router; add xtr-id = \"HEXADECIMAL DIGITS\", which no other router of the \
           Site-ID has, and site-id = 1",
        ],
    );
    let gateway = GATEWAY.replacen(
        "[gateway]\n",
        "[gateway]\nxtr-id = \"ab\"\nsite-id = 7\nsubscribe = true\n",
        1,
    );
    refused_offline(
        "gateway.toml",
        &gateway,
        &[
            "gateway.toml:4: gateway.subscribe: has no key for Map-Notifies; write subscribe = { key-id = 1, key-file = \"PATH\" }, or \
           add lisp-sec",
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

#[test]
fn path_mtu_rules() {
    refused_offline(
        "xtr.toml",
        &format!("{XTR}\n[data]\nmtu = {{ ipv4 = 400, ipv6 = 1279 }}\npath-mtu = \"guess\"\n"),
        &[
            "xtr.toml:10: data.mtu.ipv4: 400 is out of range; write 576 to 65535",
            "xtr.toml:10: data.mtu.ipv6: 1279 is out of range; write 1280 to 65535",
            "xtr.toml:11: data.path-mtu: \"guess\" is no way to know the path MTU; write \"stateless\" or { icmp = true, probe = true }",
        ],
    );
    refused_offline(
        "xtr.toml",
        &format!("{XTR}\n[data]\npath-mtu = {{ icmp = 1, ask = true }}\n"),
        &[
            "xtr.toml:10: data.path-mtu.ask: unknown key; known here: icmp, probe",
            "xtr.toml:10: data.path-mtu.icmp: is a number (1); write true or false",
        ],
    );
}

#[test]
fn header_rules() {
    refused_offline(
        "xtr.toml",
        &format!(
            "{XTR}\n[data]\ndscp = 64\nicmp-errors = {{ per-second = 0, burst = 5 }}\nlog-unusual-ecn = \"no\"\n"
        ),
        &[
            "xtr.toml:10: data.dscp: 64 is out of range; write 0 to 63",
            "xtr.toml:11: data.icmp-errors.per-second: 0 is out of range; write 1 to 1000000",
            "xtr.toml:12: data.log-unusual-ecn: is text (\"no\"); write true or false",
        ],
    );
    refused_offline(
        "xtr.toml",
        &format!("{XTR}\n[data]\ndscp = \"ef\"\n"),
        &["xtr.toml:10: data.dscp: \"ef\" is no DSCP; write \"copy\" or a code point, 0 to 63"],
    );
}

#[test]
fn policy_of_a_gateway() {
    refused_offline(
        "gateway.toml",
        &format!(
            "{GATEWAY}accept-from = [\"10.0.0.1\"]\n\n[petr]\naccept-from = \"anybody\"\n\n[data]\n\
             rate-limit = {{ per-locator = 0, per-host = 1 }}\n"
        )
        .replace("[gateway]", "[gateway]\ninstance-id = 16777216"),
        &[
            "gateway.toml:2: gateway.instance-id: 16777216 is out of range; write 0 to 16777215",
            "gateway.toml:8: pitr.accept-from[0]: \"10.0.0.1\" has no length; write 10.0.0.1/32",
            "gateway.toml:11: petr.accept-from: \"anybody\" is not whom packets are taken from; \
             write \"registered\" or { eids = [\"ADDRESS/LENGTH\"] }",
            "gateway.toml:14: data.rate-limit.per-host: unknown key; known here: per-locator, per-site",
            "gateway.toml:14: data.rate-limit.per-locator: 0 is out of range; write 1 to 1000000000",
        ],
    );
}
