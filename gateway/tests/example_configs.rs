//! The files in `configs/` are right, and their commented-out keys too.

use std::fs;
use std::path::{Path, PathBuf};

use gateway::config::{self, Environment, Loaded, RoleConfig};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs")
}

fn load(path: &Path, text: &str) -> Loaded {
    let environment = Environment { directory: directory(), host: None };
    config::parse(path, text, &environment).unwrap_or_else(|refused| {
        let lines: Vec<String> = refused.errors.iter().map(ToString::to_string).collect();
        panic!("{}", lines.join("\n"))
    })
}

fn example(name: &str) -> RoleConfig {
    let path = directory().join(name);
    load(&path, &fs::read_to_string(&path).expect("example")).config
}

#[test]
fn every_example_is_accepted_without_warning() {
    let mut seen = 0;
    for entry in fs::read_dir(directory()).expect("configs") {
        let path = entry.expect("entry").path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let loaded = load(&path, &fs::read_to_string(&path).expect("example"));
            assert_eq!(loaded.warnings, [], "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 4, "only {seen} examples found");
}

/// An example with its commented-out keys in force.
fn with_commented_keys(text: &str) -> String {
    let is_key = |rest: &&str| {
        rest.starts_with("[[")
            || rest
                .split_once(" = ")
                .is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
    };
    let on = text.lines().map(|line| match line.strip_prefix("# ").filter(is_key) {
        // The second way to write `rlocs` stands beside the first.
        Some(key) if !key.starts_with("rlocs") => key,
        _ => line,
    });
    on.collect::<Vec<_>>().join("\n")
}

/// `# key = value` in an example is a key with its default, under `# [[table]]` where that is left out too: the reader must
/// know all of them.
#[test]
fn commented_keys_are_known_and_right() {
    let names = [
        "gateway.toml",
        "xtr-ipv4-core.toml",
        "mapping.toml",
        "mapping-ddt.toml",
        "mapping-cluster.toml",
    ];
    for name in names {
        let path = directory().join(name);
        let text = fs::read_to_string(&path).expect("example");
        let on = with_commented_keys(&text);
        assert!(on.lines().count() == text.lines().count() && on != text, "{name}");
        load(&path, &on);
    }
}

/// The examples say that every key is in them. A key that nobody knows makes the reader list those it knows.
#[test]
fn every_key_is_in_the_examples() {
    let environment = Environment { directory: directory(), host: None };
    for (name, least) in [("gateway.toml", 19), ("xtr-ipv4-core.toml", 24), ("mapping.toml", 9)] {
        let path = directory().join(name);
        let text = with_commented_keys(&fs::read_to_string(&path).expect("example"));
        let probed: Vec<String> = text
            .lines()
            .map(|line| match line {
                header if header.starts_with('[') => format!("{header}\nqqqqqqqqqqqq = 1"),
                line => line.replace("{ ", "{ qqqqqqqqqqqq = 1, "),
            })
            .collect();
        let probed = probed.join("\n");
        let refused = config::parse(&path, &probed, &environment).expect_err("refused");
        let (mut seen, mut missing) = (0, Vec::new());
        for finding in &refused.errors {
            // The others are about the names of locators, which are the operator's own.
            let Some((_, known)) = finding.message.split_once("known here: ") else { continue };
            let section = section_of(&probed, finding.line.expect("a line"));
            for key in known.split(", ") {
                seen += 1;
                if !section.contains(key) {
                    missing.push(format!("{name}: {key} of {}", finding.key));
                }
            }
        }
        assert!(missing.is_empty(), "{missing:#?}");
        assert!(seen >= least, "{name}: {seen} keys");
    }
}

/// The sections with the name of the one that a line is in, each with the comment above it.
fn section_of(text: &str, line: usize) -> String {
    let is_header = |line: &&str| line.starts_with('[');
    let header = text.lines().take(line).filter(is_header).last().expect("a section");
    let (mut section, mut above, mut within) = (Vec::new(), Vec::new(), false);
    for line in text.lines() {
        if is_header(&line) {
            within = line == header;
            section.extend(above.iter().filter(|_| within));
        }
        if within {
            section.push(line);
        }
        match line.starts_with('#') {
            true => above.push(line),
            false => above.clear(),
        }
    }
    section.join("\n")
}

#[test]
fn the_interface_form_of_a_locator_is_right() {
    let path = directory().join("xtr-ipv4-core.toml");
    let text = fs::read_to_string(&path).expect("example");
    let swapped: Vec<String> = text
        .lines()
        .map(|line| match line {
            line if line.starts_with("rlocs = ") => format!("# {line}"),
            line => {
                line.strip_prefix("# ").filter(|l| l.starts_with("rlocs")).unwrap_or(line).into()
            }
        })
        .collect();
    load(&path, &swapped.join("\n"));
}

#[test]
fn pi_12_pi_13_a_gateway_has_no_mapping_and_registers_nothing() {
    let RoleConfig::Gateway(gateway) = example("gateway.toml") else { panic!("no gateway") };
    let control = &gateway.router.control;
    assert_eq!(control.role, xtr::config::Role::Proxy);
    assert!(control.eids.is_empty() && control.map_servers.is_empty());
    assert_eq!(control.rlocs.len(), 2);
}

#[test]
fn pi_01_the_aggregates_are_what_is_announced() {
    let RoleConfig::Gateway(gateway) = example("gateway.toml") else { panic!("no gateway") };
    let pitr = gateway.proxy.pitr.as_ref().expect("pitr");
    assert_eq!(gateway.router.host.announce, pitr.eid_aggregates);
    assert_eq!(
        (gateway.router.host.announce_table, gateway.router.host.announce_metric),
        (254, 120)
    );
}

#[test]
fn pi_07_an_interface_with_an_rloc_is_native_only_where_the_file_says_so() {
    let path = directory().join("gateway.toml");
    let text = fs::read_to_string(&path).expect("example");
    let one_armed = text.replace("# native-interfaces = ", "native-interfaces = ");
    let expected: [(&str, &[&str]); 2] = [(&text, &[]), (&one_armed, &["eth0"])];
    for (text, interfaces) in expected {
        let RoleConfig::Gateway(gateway) = load(&path, text).config else { panic!("no gateway") };
        assert_eq!(gateway.router.host.native_interfaces, interfaces);
    }
}

#[test]
fn a_site_s_file_becomes_its_router() {
    let RoleConfig::Xtr(router) = example("xtr-ipv4-core.toml") else { panic!("no xtr") };
    assert_eq!(router.name, "xtr-a");
    assert_eq!(router.host.site_interfaces, ["lan0"]);
    let prefixes: Vec<String> = router.host.site_prefixes.iter().map(ToString::to_string).collect();
    assert_eq!(prefixes, ["2001:db8:e001::/48", "203.0.113.0/26"]);
    assert_eq!(router.control.use_petr.len(), 1);
    assert_eq!(router.control.record_ttl_minutes, 1440);
    assert_eq!(router.data.source_ports, 64);
    assert!(router.control.proxy_reply && router.data.copy_ecn);
    assert!(router.control.path_mtu.probe && router.data.path_mtu_icmp);
}

#[test]
fn a_mapping_file_becomes_its_sites() {
    let RoleConfig::Mapping(mapping) = example("mapping.toml") else { panic!("no mapping") };
    assert_eq!(mapping.name, "ms1");
    let names: Vec<&str> = mapping.sites.iter().map(|site| site.name.as_str()).collect();
    assert_eq!(names, ["a", "c"]);
    let more: Vec<bool> =
        mapping.sites[0].eid_prefixes.iter().map(|prefix| prefix.accept_more_specifics).collect();
    assert_eq!(more, [false, true]);
    assert_eq!(mapping.sites[1].keys[0].algorithms.len(), 2);
}

#[test]
fn a_cluster_s_file_names_its_members() {
    let RoleConfig::Mapping(mapping) = example("mapping-cluster.toml") else {
        panic!("no mapping")
    };
    let cluster = mapping.cluster.expect("cluster");
    assert_eq!(cluster.endpoints.len(), 3);
    assert_eq!((cluster.prefix.as_str(), cluster.user), ("/isthmus/", None));
}

#[test]
fn dd_10_a_ddt_file_becomes_a_place_in_the_tree() {
    let RoleConfig::Mapping(mapping) = example("mapping-ddt.toml") else { panic!("no mapping") };
    let ddt = &mapping.ddt;
    assert!(ddt.resolver && ddt.roots.len() == 2);
    assert!(ddt.authoritative[0].complete && ddt.authoritative[0].peers.len() == 1);
    assert!(ddt.delegations[0].map_server && !ddt.hints[0].map_server);
    let RoleConfig::Mapping(alone) = example("mapping.toml") else { panic!("no mapping") };
    assert!(alone.ddt.is_empty());
}
