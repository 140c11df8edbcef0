//! Whole files, as operators have them: what becomes of them is without mistakes, and loses no line silently.

use std::path::Path;

use super::*;
use crate::config::{Environment, RoleConfig};

const OOR: &str = r#"# site A
debug                  = 1
map-request-retries    = 2
log-file               = /var/log/oor.log
operating-mode         = xTR
encapsulation          = LISP
nat_traversal_support  = off
map-resolver = {
    198.51.100.2,   # first
    2001:db8:c0::2
}
rloc-probing {
    rloc-probe-interval         = 30
    rloc-probe-retries          = 2
    rloc-probe-retries-interval = 5
}
map-server {
    address     = 198.51.100.2
    key-type    = 1
    key         = "s3cret#1"
    proxy-reply = on
}
proxy-etr-ipv4 {
    address  = 198.51.100.1
    priority = 1
    weight   = 100
}
proxy-etr-ipv6 {
    address  = 198.51.100.1
    priority = 1
    weight   = 100
}
proxy-itrs = { 198.51.100.1 }
database-mapping {
    eid-prefix = 203.0.113.0/26
    iid        = 0
    ttl        = 10
    rloc-iface {
        interface  = eth1
        ip_version = 4
        priority   = 1
        weight     = 50
    }
    rloc-address {
        address  = 198.51.100.11
        priority = 1
        weight   = 50
    }
}
database-mapping {
    eid-prefix = 2001:db8:e001::/48
    iid        = 7
    ttl        = 20
    rloc-iface {
        interface  = eth1
        ip_version = 4
        priority   = 2
        weight     = 50
    }
}
"#;

const LISPERS: &str = r#"#
# lispers.net lisp.config file
# (1) Only commands between the first pair of dotted lines will be processed.
#-----------------------------------------------------------------------------#
lisp enable {
    itr = yes
    etr = yes
    map-server = yes
    map-resolver = no
}
lisp debug {
    itr = no
}
lisp user-account {
    username = root
    password = toor
}
lisp xtr-parameters {
    rloc-probing = yes
    nonce-echoing = yes
    nat-traversal = no
}
lisp map-resolver {
    dns-name = mr.example.net
}
lisp map-server {
    address = 198.51.100.2
    authentication-type = sha2
    authentication-key = [3]s3cret
    want-map-notify = yes
}
lisp database-mapping {
    prefix {
        instance-id = 0
        eid-prefix = 203.0.113.64/26
    }
    prefix {
        instance-id = 0
        eid-prefix = 'hostname'
    }
    rloc {
        interface = eth0
        priority = 1
        weight = 100
    }
}
lisp map-cache {
    prefix {
        instance-id = 0
        eid-prefix = 0.0.0.0/0
    }
    rloc {
        address = 198.51.100.1
        priority = 1
        weight = 50
    }
}
lisp geo-coordinates {
    geo-name = here
}
lisp site {
    site-name = b
    authentication-key = other
    allowed-prefix {
        instance-id = 7
        eid-prefix = 2001:db8:e002::/48
        accept-more-specifics = yes
    }
    allowed-rloc {
        address = 198.51.100.12
    }
}
#-----------------------------------------------------------------------------#
lisp map-resolver {
    address = 192.0.2.99
}
"#;

const IOS: &str = r#"!
hostname xtr-m
!
interface GigabitEthernet0/1
 ip address 172.16.4.1 255.255.255.0
 lisp mobility VMS
!
router lisp
 locator-table default
 locator-set DC
  198.51.100.21 priority 1 weight 70
  IPv4-interface GigabitEthernet0/0 priority 1 weight 30
  exit
 !
 eid-table default instance-id 0
  database-mapping 203.0.113.128/26 locator-set DC
  dynamic-eid VMS
   database-mapping 172.16.4.0/24 locator-set DC
   exit
  !
  exit
 !
 eid-table vrf BLUE instance-id 102
  database-mapping 2001:db8:e007::/48 198.51.100.21 priority 1 weight 70
  exit
 !
 site B
  description of no use
  authentication-key 0 other
  eid-prefix instance-id 102 10.2.0.0/16 accept-more-specifics
  eid-prefix 203.0.113.192/26
  allowed-locator 198.51.100.0/24
  exit
 !
 loc-reach-algorithm rloc-probing
 ipv4 map-server
 ipv4 map-resolver
 ipv4 itr map-resolver 198.51.100.2
 ipv4 itr
 ipv4 etr map-server 198.51.100.2 key 0 s3cret
 ipv4 etr map-server 198.51.100.2 proxy-reply
 ipv4 etr map-server 198.51.100.3 key 7 0822455D0A16 hash-function sha2
 ipv4 etr
 ipv4 use-petr 198.51.100.1 priority 2 weight 20
 ipv4 map-cache-limit 5000
 ipv6 solicit-map-request ignore
 exit
!
router bgp 64500
 neighbor 192.0.2.1 remote-as 64501
"#;

const OLD_IOS: &str = r#"ip lisp database-mapping 203.0.113.0/26 198.51.100.11 priority 1 weight 100
ip lisp itr map-resolver 198.51.100.2
ip lisp etr map-server 198.51.100.2 key s3cret
ip lisp itr-etr
ip lisp alt-vrf lisp
lisp site A
 eid-prefix 10.0.0.0/8
 authentication-key 6 ABCDEF
"#;

const PITR: &str = r#"router lisp
 eid-table default instance-id 0
  map-cache 203.0.113.0/24 map-request
  map-cache 2001:db8:e000::/36 map-request
  exit
 ipv4 map-request-source 198.51.100.1
 ipv4 proxy-etr
 ipv4 proxy-itr 198.51.100.1 2001:db8:c0::1
 ipv4 itr map-resolver 198.51.100.2
 exit
"#;

/// What becomes of a file; that of each role is without mistakes.
fn converted(text: &str) -> Vec<Written> {
    let written = toml::write(&read(guess(text), text), "file");
    for one in &written {
        let environment = Environment { directory: Path::new("/").to_path_buf(), host: None };
        match config::parse(Path::new("out.toml"), &one.text, &environment) {
            Ok(loaded) => assert_eq!(loaded.config.role(), one.part.name()),
            Err(refused) => panic!("{:#?}\n{}", refused.errors, one.text),
        }
        for secret in ["s3cret", "other", "toor", "0822455D0A16", "ABCDEF"] {
            assert!(!one.text.contains(secret), "{secret} in {}", one.text);
        }
    }
    written
}

fn only(text: &str, part: Part) -> Written {
    let written = converted(text);
    written.into_iter().find(|one| one.part == part).expect("of that role")
}

fn has(written: &Written, lines: &[&str]) {
    for line in lines {
        assert!(written.text.lines().any(|found| found == *line), "{line}\n{}", written.text);
    }
}

#[test]
fn a_site_of_oor() {
    assert_eq!(guess(OOR), Dialect::Oor);
    let xtr = only(OOR, Part::Xtr);
    has(
        &xtr,
        &[
            "rlocs = { eth1 = { interface = \"eth1\", family = \"ipv4\", priority = 1, weight = 50 }, rloc2 = { address = \"198.51.100.11\", priority = 1, weight = 50 } }",
            "map-servers = [{ address = \"198.51.100.2\", key-id = 0, key-file = \"map-server-1.key\", algorithm = \"hmac-sha-1-96\", profile = \"oor\" }]",
            "map-resolvers = [\"198.51.100.2\", \"2001:db8:c0::2\"]",
            "use-petr = [{ address = \"198.51.100.1\", priority = 1, weight = 100 }]",
            "proxy-itrs = [\"198.51.100.1\"]",
            "proxy-reply = true",
            "record-ttl = \"10m\"",
            "probe = { interval = \"30s\", idle-interval = \"30s\", tries = 3 }",
            "prefix = \"2001:db8:e001::/48\"",
            "instance-id = 7",
            "locator-set = [\"eth1\"]",
            "# line 3: map-request-retries = 2: the tries are those of RFC 9301",
            "# line 15: rloc-probe-retries-interval = 5: probes are repeated by the round-trip time",
            "# line 53: ttl = 20: all mappings have one record-ttl",
            "# line 54: priority 2, weight 50: a locator has the same for all EID-prefixes: priority 1, weight 50 stay",
        ],
    );
    assert_eq!(xtr.keys, [("map-server-1.key".to_owned(), "s3cret#1".to_owned())]);
}

#[test]
fn a_map_server_of_oor() {
    let text = "operating-mode = MS\ncontrol-iface = eth0\n\
        lisp-site {\n eid-prefix = 10.1.0.0/16\n key-type = 1\n key = s3cret\n iid = 0\n accept-more-specifics = true\n}\n\
        lisp-site {\n eid-prefix = 2001:db8::/48\n key-type = 1\n key = s3cret\n iid = 5\n}\n";
    let mapping = only(text, Part::Mapping);
    has(
        &mapping,
        &[
            "eid-prefixes = [{ prefix = \"10.1.0.0/16\", instance-id = 0, accept-more-specifics = true }, { prefix = \"2001:db8::/48\", instance-id = 5, accept-more-specifics = false }]",
            "keys = [{ id = 0, file = \"site-site-1.key\", algorithms = [\"hmac-sha-1-96\"] }]",
            "# line 2: control-iface = eth0: no equivalent",
        ],
    );
}

#[test]
fn a_router_of_lispers_net_with_two_roles() {
    assert_eq!(guess(LISPERS), Dialect::Lispers);
    let xtr = only(LISPERS, Part::Xtr);
    has(
        &xtr,
        &[
            "map-resolvers = [\"mr.example.net\"]",
            "probe = { interval = \"10s\", idle-interval = \"10s\", tries = 3 }",
            "map-servers = [{ address = \"198.51.100.2\", key-id = 3, key-file = \"map-server-1.key\", algorithm = \"hmac-sha-256-128\", profile = \"lispers.net\" }]",
            "use-petr = [{ address = \"198.51.100.1\", priority = 1, weight = 50 }]",
            "prefix = \"203.0.113.64/26\"",
            "# line 20: nonce-echoing = yes: echo-noncing is for a trusted core: [data] trusted-core, with the RLOCs of it",
            "# line 14: lisp user-account: the admin socket asks for no password: its group may use it",
            "# line 39: eid-prefix = hostname: only addresses are EIDs of an xTR here",
            "# line 58: lisp geo-coordinates: no equivalent",
        ],
    );
    assert!(!xtr.text.contains("192.0.2.99"), "below the dotted line: {}", xtr.text);
    let mapping = only(LISPERS, Part::Mapping);
    has(
        &mapping,
        &[
            "name = \"b\"",
            "profile = \"lispers.net\"",
            "allowed-locators = [\"198.51.100.12/32\"]",
            "eid-prefixes = [{ prefix = \"2001:db8:e002::/48\", instance-id = 7, accept-more-specifics = true }]",
        ],
    );
}

#[test]
fn a_cisco_router_with_two_roles() {
    assert_eq!(guess(IOS), Dialect::Ios);
    let xtr = only(IOS, Part::Xtr);
    has(
        &xtr,
        &[
            "name = \"xtr-m\"",
            "rlocs = { rloc1 = { address = \"198.51.100.21\", priority = 1, weight = 70 }, Gi0-0 = { interface = \"Gi0-0\", family = \"ipv4\", priority = 1, weight = 30 } }",
            "prefix = \"203.0.113.128/26\"",
            "prefix = \"2001:db8:e007::/48\"",
            "instance-id = 102",
            "locator-set = [\"rloc1\"]",
            "range = \"172.16.4.0/24\"",
            "interfaces = [\"Gi0-1\"]",
            "# interface GigabitEthernet0/1 is written as Gi0-1: write this host's",
            "use-petr = [{ address = \"198.51.100.1\", priority = 2, weight = 20 }]",
            "proxy-reply = true",
            "map-cache-limit = 5000",
            "# line 42: key: type 7 is not clear text: write the secret into the key file",
            "# line 46: ipv6 solicit-map-request ignore: no equivalent for ipv6",
            "# TO BE FILLED IN: map-server-2.key: the secret is not told in clear text",
        ],
    );
    let mapping = only(IOS, Part::Mapping);
    has(
        &mapping,
        &[
            "name = \"B\"",
            "eid-prefixes = [{ prefix = \"10.2.0.0/16\", instance-id = 102, accept-more-specifics = true }, \"203.0.113.192/26\"]",
            "allowed-locators = [\"198.51.100.0/24\"]",
        ],
    );
}

#[test]
fn an_old_cisco_router_and_a_proxy() {
    let xtr = only(OLD_IOS, Part::Xtr);
    has(
        &xtr,
        &[
            "prefix = \"203.0.113.0/26\"",
            "# line 5: ip lisp alt-vrf lisp: there is no ALT any more: map-resolvers",
        ],
    );
    only(OLD_IOS, Part::Mapping);
    let gateway = only(PITR, Part::Gateway);
    has(
        &gateway,
        &[
            "rlocs = [\"198.51.100.1\", \"2001:db8:c0::1\"]",
            "eid-aggregates = [\"203.0.113.0/24\", \"2001:db8:e000::/36\"]",
            "accept-from = { eids = [\"203.0.113.0/24\", \"2001:db8:e000::/36\"] }",
        ],
    );
    assert_eq!(converted(PITR).len(), 1);
}

#[test]
fn files_are_written_once_and_secrets_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("oor.conf");
    fs::write(&source, OOR).unwrap();
    let out = directory.path().join("out");
    let args = ConvertArgs { file: source, from: None, role: None, out: Some(out.clone()) };
    run(&args).unwrap();
    assert_eq!(fs::read_to_string(out.join("map-server-1.key")).unwrap(), "s3cret#1\n");
    let mode = fs::metadata(out.join("map-server-1.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let loaded = config::load(&out.join("xtr.toml"), None).unwrap();
    assert!(matches!(loaded.config, RoleConfig::Xtr(_)));
    assert!(run(&args).is_err(), "what is there stays");
}

#[test]
fn what_is_nothing_of_theirs_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("motd");
    fs::write(&source, "welcome\n\u{0}{}{}}}= \"\n{").unwrap();
    for from in [None, Some(Dialect::Oor), Some(Dialect::Lispers), Some(Dialect::Ios)] {
        let args = ConvertArgs { file: source.clone(), from, role: None, out: None };
        assert!(matches!(run(&args), Err(Failure::Failed(_))), "{from:?}");
    }
}
