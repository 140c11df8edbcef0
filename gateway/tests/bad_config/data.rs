//! `[data]`, `workers`, `intake`.
use super::*;

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
