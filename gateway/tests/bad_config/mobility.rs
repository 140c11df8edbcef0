//! What `isthmus check` says of mistakes in `[[dynamic-eid]]`: file, line, key, and what would be right.
use super::*;

/// `[[dynamic-eid]]` is line 18 of it.
const XTR: &str = r#"[xtr]
name = "dc"
map-resolvers = ["198.51.100.2"]

[xtr.rlocs]
core4 = { address = "198.51.100.11" }

[[xtr.map-servers]]
address = "198.51.100.2"
key-id = 1
key-file = "key"

[[eid]]
prefix = "192.0.2.0/24"
instance-id = 7
interfaces = ["lo"]

[[dynamic-eid]]
range = "172.16.4.0/24"
interfaces = ["lo"]
"#;

/// What is said of the file, and whether it is refused. With `offline` the host is not asked.
fn check(text: &str, offline: bool) -> (Vec<String>, bool) {
    let directory = TempDir::new().expect("temporary directory");
    let key = directory.path().join("key");
    fs::write(&key, "0123456789abcdef").expect("write");
    fs::set_permissions(&key, Permissions::from_mode(0o600)).expect("permissions");
    fs::write(directory.path().join("xtr.toml"), text).expect("write");
    let flags: &[&str] = if offline { &["--offline"] } else { &[] };
    let args: Vec<&str> = ["check"].iter().chain(flags).chain(&["xtr.toml"]).copied().collect();
    let output = isthmus(directory.path(), &args);
    (stderr_lines(&output), output.status.code() == Some(78))
}

/// Whether the file with `from` made `to` is refused with just this line.
#[track_caller]
fn says(from: &str, to: &str, expected: &str) {
    assert_eq!(XTR.matches(from).count(), 1, "{from}");
    let (said, refused) = check(&XTR.replace(from, to), true);
    assert!(said.iter().any(|line| line == expected), "{expected}\nin {said:#?}");
    assert!(refused, "{said:#?}");
}

const RANGE: &str = "range = \"172.16.4.0/24\"";
/// The last line of the section.
const ON: &str = "range = \"172.16.4.0/24\"\ninterfaces = [\"lo\"]\n";

fn with(more: &str) -> String {
    format!("{ON}{more}\n")
}

#[test]
fn what_is_right_is_accepted() {
    let gateway = "gateway = { mac = \"00:00:5e:00:01:01\", addresses = [\"172.16.4.1\"] }";
    let more = format!(
        "timeout = \"3s\"\nlimit = 10\nlocator-set = [\"core4\"]\n{gateway}\nleases = \"/x\""
    );
    for text in [XTR.to_owned(), XTR.replace(ON, &with(&more))] {
        let (said, refused) = check(&text, true);
        assert!(!refused && said.iter().all(|line| !line.contains("dynamic-eid")), "{said:#?}");
    }
}

#[test]
fn a_range_is_a_prefix_of_unicast_addresses() {
    for (range, expected) in [
        ("172.16.4.0", "\"172.16.4.0\" has no length; write 172.16.4.0/32"),
        ("172.16.4.7/24", "\"172.16.4.7/24\" has host bits set; write 172.16.4.0/24"),
        ("the VMs", "\"the VMs\" is no IP prefix; write ADDRESS/LENGTH"),
        ("224.0.0.0/24", "224.0.0.0/24 is multicast; an EID-prefix holds unicast host addresses"),
    ] {
        let line = format!("xtr.toml:19: dynamic-eid[0].range: {expected}");
        says(RANGE, &format!("range = \"{range}\""), &line);
    }
    says(
        RANGE,
        "limit = 3",
        "xtr.toml:18: dynamic-eid[0].range: missing; write range = \"ADDRESS/LENGTH\"",
    );
    says(
        RANGE,
        "range = \"198.51.100.0/24\"",
        "xtr.toml:19: dynamic-eid[0].range: 198.51.100.0/24 contains the own RLOC 198.51.100.11; \
         EIDs and RLOCs are separate address spaces: correct one of them",
    );
}

#[test]
fn every_address_is_of_one_range_and_one_instance() {
    let second = "\n[[dynamic-eid]]\nrange = \"172.16.4.128/25\"\ninterfaces = [\"lo\"]";
    says(
        ON,
        &with(second),
        "xtr.toml:23: dynamic-eid[1].range: 172.16.4.128/25 overlaps 172.16.4.0/24 in line 19 (another range); give every address to one range only",
    );
    says(
        ON,
        &with(&second.replace(".128/25", ".0/24")),
        "xtr.toml:23: dynamic-eid[1].range: 172.16.4.0/24 is already given in line 19 (another range); give it once",
    );
    says(
        RANGE,
        "range = \"192.0.2.128/25\"",
        "xtr.toml:19: dynamic-eid[0].range: 192.0.2.128/25 shares addresses with the [[eid]] 192.0.2.0/24 of instance 7; write instance-id = 7, or another range",
    );
}

#[test]
fn its_interfaces_are_there() {
    let text = XTR.replace(ON, &with("").replace("\"lo\"", "\"lan77\""));
    let (said, _) = check(&text, false);
    let expected = "xtr.toml:20: dynamic-eid[0].interfaces[0]: this host has no interface lan77";
    assert!(said.iter().any(|line| line.starts_with(expected)), "{said:#?}");
    says(
        ON,
        "range = \"172.16.4.0/24\"\ninterfaces = []\n",
        "xtr.toml:20: dynamic-eid[0].interfaces: is an empty list; write at least one element, or leave the key out where it is optional",
    );
    says(
        ON,
        "range = \"172.16.4.0/24\"\n",
        "xtr.toml:18: dynamic-eid[0].interfaces: missing; write interfaces = [\"NAME\"]",
    );
}

#[test]
fn a_gateway_is_a_station_with_addresses_of_the_range() {
    let gateway = |mac: &str, addresses: &str| {
        with(&format!("gateway = {{ mac = \"{mac}\", addresses = [{addresses}] }}"))
    };
    let right = "00:00:5e:00:01:01";
    for (mac, expected) in [
        ("00:00:5e:00:01", "\"00:00:5e:00:01\" is no MAC; write one like \"00:00:5e:00:01:01\""),
        ("gw", "\"gw\" is no MAC; write one like \"00:00:5e:00:01:01\""),
        (
            "01:00:5e:00:00:01",
            "01:00:5e:00:00:01 is the MAC of no single station; write one like \"00:00:5e:00:01:01\" (RFC 5798)",
        ),
        (
            "00:00:00:00:00:00",
            "00:00:00:00:00:00 is the MAC of no single station; write one like \"00:00:5e:00:01:01\" (RFC 5798)",
        ),
    ] {
        let line = format!("xtr.toml:21: dynamic-eid[0].gateway.mac: {expected}");
        says(ON, &gateway(mac, "\"172.16.4.1\""), &line);
    }
    let instead = "write an address of 172.16.4.0/24, which its hosts have as default gateway";
    for (address, what) in [
        ("2001:db8::1", "2001:db8::1 is not of the family of 172.16.4.0/24"),
        ("172.16.4.0", "172.16.4.0 is the address of all of 172.16.4.0/24"),
        ("172.16.4.255", "172.16.4.255 is the address of all of 172.16.4.0/24"),
        ("224.0.0.1", "224.0.0.1 is no host's address"),
    ] {
        let line = format!("xtr.toml:21: dynamic-eid[0].gateway.addresses[0]: {what}; {instead}");
        says(ON, &gateway(right, &format!("\"{address}\"")), &line);
    }
    says(
        ON,
        &gateway(right, "\"172.16.4.1\", \"172.16.4.1\""),
        "xtr.toml:21: dynamic-eid[0].gateway.addresses[1]: 172.16.4.1 is given twice; give every address once",
    );
    says(
        ON,
        &gateway(right, ""),
        "xtr.toml:21: dynamic-eid[0].gateway.addresses: is an empty list; write at least one element, or leave the key out where it is optional",
    );
    // The range may be a part of its hosts' subnet.
    let (said, refused) = check(&XTR.replace(ON, &gateway(right, "\"172.16.9.1\"")), true);
    let expected = "xtr.toml:21: dynamic-eid[0].gateway.addresses[0]: warning: 172.16.9.1 is outside the range 172.16.4.0/24";
    assert!(!refused && said.iter().any(|line| line.contains(expected)), "{said:#?}");
}

#[test]
fn an_interface_has_one_gateway_mac() {
    let second = "gateway = { mac = \"00:00:5e:00:01:01\", addresses = [\"172.16.4.1\"] }\n\n\
                  [[dynamic-eid]]\nrange = \"172.16.5.0/24\"\ninterfaces = [\"lo\"]\n\
                  gateway = { mac = \"00:00:5e:00:01:02\", addresses = [\"172.16.5.1\"] }";
    says(
        ON,
        &with(second),
        "xtr.toml:26: dynamic-eid[1].gateway: lo has the gateway 00:00:5e:00:01:01 in another section; write one gateway MAC per interface",
    );
}

#[test]
fn numbers_and_times_are_within_their_bounds() {
    for (line, key, expected) in [
        ("limit = 0", "limit", "0 is out of range; write 1 to 1000000"),
        ("limit = 1000001", "limit", "1000001 is out of range; write 1 to 1000000"),
        ("timeout = \"0s\"", "timeout", "\"0s\" is out of range; write 1s to 86400s"),
        (
            "timeout = 15",
            "timeout",
            "is a number (15); write a duration in quotes, such as \"15s\"",
        ),
        (
            "timeout = \"soon\"",
            "timeout",
            "\"soon\" is no duration; write a number with ms, s, m or h, such as \"15s\"",
        ),
        (
            "locator-set = [\"core5\"]",
            "locator-set[0]",
            "no locator is named \"core5\" in xtr.rlocs; did you mean \"core4\"?",
        ),
        ("extended-subnet = \"yes\"", "extended-subnet", "is text (\"yes\"); write true or false"),
    ] {
        says(ON, &with(line), &format!("xtr.toml:21: dynamic-eid[0].{key}: {expected}"));
    }
    let (said, refused) = check(&XTR.replace(ON, &with("gatway = 1")), true);
    let expected = "xtr.toml:21: dynamic-eid[0].gatway: ";
    assert!(refused && said.iter().any(|line| line.starts_with(expected)), "{said:#?}");
}
