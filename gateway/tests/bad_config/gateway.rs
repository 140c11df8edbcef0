//! `[gateway]`, `[pitr]`, `[petr]`, `[rtr]`.
use super::*;

#[test]
fn cw_33_cw_34_addresses_that_cannot_be_locators() {
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
    let end = "write \"main\" or a table number other than 0, 255 and 4341 to 4343";
    for (table, what) in [
        (255, "255 is the kernel's local table"),
        (4341, "4341 to 4343 are this product's own tables"),
        (4342, "4341 to 4343 are this product's own tables"),
        (4343, "4341 to 4343 are this product's own tables"),
    ] {
        let text = format!("{GATEWAY}announce = {{ table = {table} }}\n");
        let line = format!("gateway.toml:7: pitr.announce.table: {what}; {end}");
        refused_offline("gateway.toml", &text, &[&line]);
    }
}

#[test]
fn a_gateway_drains_for_ten_minutes_at_most() {
    refused_offline(
        "gateway.toml",
        &format!("{GATEWAY}announce = {{ drain = \"11m\" }}\n"),
        &["gateway.toml:7: pitr.announce.drain: \"11m\" is out of range; write 0ns to 600s"],
    );
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
