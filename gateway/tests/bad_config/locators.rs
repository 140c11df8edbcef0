//! What may be written of own locators, and what is said when it is wrong.
use super::*;
use ::gateway::config::{self, Environment, RoleConfig};

fn parse(rloc: &str) -> Result<RoleConfig, Vec<String>> {
    let text = XTR.replace("198.51.100.11\"", &format!("198.51.100.11\"{rloc}"));
    let environment = Environment { directory: "/etc/isthmus".into(), host: None };
    let loaded = config::parse(Path::new("xtr.toml"), &text, &environment);
    loaded
        .map(|loaded| loaded.config)
        .map_err(|refused| refused.errors.iter().map(ToString::to_string).collect())
}

#[test]
fn multicast_priority_and_weight_are_read() {
    let Ok(RoleConfig::Xtr(config)) = parse(", mpriority = 7, mweight = 8") else {
        panic!("accepted");
    };
    let rloc = &config.control.rlocs[0];
    assert_eq!((rloc.multicast_priority, rloc.multicast_weight), (7, 8));
    assert_eq!((rloc.priority, rloc.weight), (1, 100));
    let Ok(RoleConfig::Xtr(config)) = parse("") else { panic!("accepted") };
    let rloc = &config.control.rlocs[0];
    assert_eq!((rloc.multicast_priority, rloc.multicast_weight), (255, 0));
}

#[test]
fn what_is_no_octet_is_refused_by_its_line() {
    let errors = parse(", mpriority = 256, mweight = -1").unwrap_err();
    assert_eq!(
        errors,
        [
            "xtr.toml:2: xtr.rlocs.core4.mpriority: 256 is out of range; write 0 to 255",
            "xtr.toml:2: xtr.rlocs.core4.mweight: -1 is out of range; write 0 to 255",
        ]
    );
    let errors = parse(", mprio = 1").unwrap_err();
    assert!(errors[0].starts_with("xtr.toml:2: xtr.rlocs.core4.mprio: "), "{errors:?}");
}

#[test]
fn cw_37_without_a_word_of_it_a_map_register_is_signed_by_algorithm_3() {
    let Ok(RoleConfig::Xtr(config)) = parse("") else { panic!("accepted") };
    assert!(!XTR.contains("algorithm"));
    let algorithms: Vec<u8> =
        config.control.map_servers.iter().map(|server| server.algorithm.id()).collect();
    assert_eq!(algorithms, [3], "HMAC-SHA256-128+HKDF-SHA256 (RFC 9301 \u{a7}12.5)");
}
