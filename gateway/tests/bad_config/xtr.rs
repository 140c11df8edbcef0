//! `[xtr]` and `[[eid]]`.
use super::*;

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
fn cw_26_an_instance_id_has_24_bits_so_that_no_two_share_them() {
    let text =
        |instance: u32| XTR.replacen("[[eid]]", &format!("[[eid]]\ninstance-id = {instance}"), 1);
    // 0x0100_0007 and 7 would be the same in a data header.
    let line = XTR.lines().take_while(|line| !line.contains("[[eid]]")).count() + 2;
    refused_offline(
        "xtr.toml",
        &text(0x0100_0007),
        &[&format!(
            "xtr.toml:{line}: eid[0].instance-id: 16777223 is out of range; write 0 to 16777215"
        )],
    );
}
