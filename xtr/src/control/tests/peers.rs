//! Another configuration of those whom we talk to, and map-cache entries that the operator wants forgotten.
use super::soliciting::{multihomed, registers};
use super::*;

const OTHER_SERVER: &str = "198.51.100.10";

fn reconfigure(node: &mut Node, config: &ControlConfig) {
    node.control.reconfigure(node.now, config);
    node.drain();
}

/// As `multihomed` begins, with these Map-Servers.
fn with_servers(servers: Vec<MapServer>) -> ControlConfig {
    let rlocs = vec![own("a", OWN_V4), own("b", "192.0.2.2")];
    ControlConfig { rlocs, map_servers: servers, ..config() }
}

fn other_server() -> MapServer {
    MapServer { endpoint: Endpoint::Address(ip(OTHER_SERVER)), ..server() }
}

/// Where Map-Registers went, with the TTLs of their records.
fn registered(node: &mut Node) -> Vec<(IpAddr, Vec<u32>)> {
    let sent = node.take_sent().into_iter();
    sent.filter_map(|transmit| match Message::parse(&transmit.payload) {
        Ok(Message::MapRegister(register)) => {
            let ttls = register.records.iter().map(|record| record.ttl_minutes).collect();
            Some((transmit.destination.ip(), ttls))
        }
        _ => None,
    })
    .collect()
}

#[test]
fn rg_01_a_map_server_that_comes_gets_everything_at_once() {
    let mut node = multihomed();
    reconfigure(&mut node, &with_servers(vec![other_server(), server()]));
    node.advance(Duration::ZERO);
    assert_eq!(registered(&mut node), [(ip(OTHER_SERVER), vec![1440, 1440])], "the other knows it");
    let views = node.control.registrations_view(node.now);
    let servers: BTreeSet<String> = views.iter().map(|view| view.map_server.clone()).collect();
    assert_eq!(servers, BTreeSet::from([SERVER.to_owned(), OTHER_SERVER.to_owned()]));
}

#[test]
fn rg_17_a_map_server_that_goes_forgets_the_site_by_itself_as_others_may_share_its_store() {
    let mut node = multihomed();
    reconfigure(&mut node, &with_servers(vec![other_server()]));
    node.advance(Duration::ZERO);
    assert_eq!(registered(&mut node), [(ip(OTHER_SERVER), vec![1440, 1440])]);
    node.advance(seconds(300));
    assert!(registered(&mut node).iter().all(|(to, _)| *to == ip(OTHER_SERVER)));
}

#[test]
fn rg_17_the_last_map_server_that_goes_is_told_once() {
    let mut node = multihomed();
    reconfigure(&mut node, &with_servers(Vec::new()));
    node.advance(seconds(300));
    assert_eq!(registered(&mut node), [(ip(SERVER), vec![0, 0])]);
}

#[test]
fn au_09_another_key_signs_at_once() {
    let mut node = multihomed();
    let secret = Secret::new(b"another key".to_vec());
    reconfigure(
        &mut node,
        &with_servers(vec![MapServer { secret: secret.clone(), key_id: 2, ..server() }]),
    );
    node.advance(Duration::ZERO);
    let octets = node.take_sent().into_iter().map(|transmit| transmit.payload);
    let signed = octets.filter_map(|octets| match Message::parse(&octets) {
        Ok(Message::MapRegister(register)) => Some((register.authentication.key_id, octets)),
        _ => None,
    });
    let signed: Vec<_> = signed.collect();
    assert_eq!(signed.len(), 1);
    assert_eq!(signed[0].0, 2);
    assert!(mapping::auth::verify(&signed[0].1, &secret, &[Algorithm::HmacSha256Hkdf]).is_ok());
    // The same again is no change.
    reconfigure(&mut node, &with_servers(vec![MapServer { secret, key_id: 2, ..server() }]));
    assert!(registers(&mut node).is_empty());
}

#[test]
fn rq_21_other_map_resolvers_are_asked_from_the_first_on() {
    let mut node = Node::new(config());
    node.miss("10.2.0.9");
    node.take_sent();
    // Ten tries in vain, and the pause that follows.
    node.advance(seconds(15));
    node.take_sent();
    let third = "198.51.100.4";
    let resolvers = [third, RESOLVER].map(|text| Endpoint::Address(ip(text))).to_vec();
    reconfigure(&mut node, &ControlConfig { map_resolvers: resolvers, ..config() });
    node.advance(Duration::ZERO);
    let (transmit, _, request) = node.take_lookup();
    assert_eq!(transmit.destination, control_port(third), "RQ-13: nobody asked it before");
    node.reply(request.nonce, vec![record("10.2.0.0/16", 60, &[PEER])]);
    assert_eq!(node.cached(), ["10.2.0.0/16"]);
}

#[test]
fn pe_11_petrs_come_and_go_with_what_leads_to_them() {
    let mut node = Node::new(config());
    node.learn("192.0.2.200", vec![negative("192.0.2.128/25", 15, Action::NativelyForward)]);
    assert!(matches!(node.fib.get(&prefix("192.0.2.128/25")), Some(Verdict::Native)));
    reconfigure(&mut node, &ControlConfig { use_petr: vec![petr(PEER)], ..config() });
    assert_eq!(node.destinations("192.0.2.128/25"), [PEER]);
    reconfigure(&mut node, &ControlConfig { use_petr: vec![petr("192.0.2.78")], ..config() });
    assert_eq!(node.destinations("192.0.2.128/25"), ["192.0.2.78"]);
    reconfigure(&mut node, &config());
    assert!(matches!(node.fib.get(&prefix("192.0.2.128/25")), Some(Verdict::Native)));
}

#[test]
fn pb_10_probing_begins_goes_faster_and_ends() {
    let probes = |node: &mut Node| {
        let sent = node.take_sent().into_iter();
        let is_probe = |transmit: &Transmit| matches!(Message::parse(&transmit.payload), Ok(Message::MapRequest(r)) if r.probe);
        sent.filter(is_probe).count()
    };
    let probing = |interval| ProbeConfig {
        interval,
        idle_interval: interval,
        tries: 3,
        ..ProbeConfig::default()
    };
    let with = |probe| ControlConfig { probe, ..config() };
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 1440, &[PEER])]);
    node.advance(seconds(30));
    assert_eq!(probes(&mut node), 0);
    reconfigure(&mut node, &with(Some(probing(seconds(600)))));
    node.advance(seconds(1));
    assert_eq!(probes(&mut node), 1, "at once");
    // Nobody answers: it is given up, and probed rarely then.
    node.advance(seconds(10));
    assert!(node.events.contains(&Event::LocatorDown(ip(PEER))));
    probes(&mut node);
    reconfigure(&mut node, &with(Some(probing(seconds(2)))));
    node.advance(seconds(9));
    assert!(probes(&mut node) >= 2, "soon");
    assert!(matches!(node.fib.get(&prefix("10.2.0.0/16")), Some(Verdict::Drop(_))));
    reconfigure(&mut node, &config());
    node.advance(seconds(60));
    assert_eq!(probes(&mut node), 0);
    assert_eq!(node.destinations("10.2.0.0/16"), [PEER], "nobody would find out that it is back");
}

#[test]
fn mc_27_a_smaller_map_cache_forgets_what_was_used_longest_ago() {
    let mut node = Node::new(config());
    for net in 2..=6 {
        let record = record(&format!("10.{net}.0.0/16"), 60, &[PEER]);
        node.learn(&format!("10.{net}.0.9"), vec![record]);
        let set = node.set(&format!("10.{net}.0.0/16"));
        set.last_used.store(100 - net, std::sync::atomic::Ordering::Relaxed);
    }
    reconfigure(&mut node, &ControlConfig { map_cache_limit: 2, ..config() });
    assert_eq!(node.cached(), ["10.2.0.0/16", "10.3.0.0/16"]);
    node.learn("10.7.0.9", vec![record("10.7.0.0/16", 60, &[PEER])]);
    assert_eq!(node.cached().len(), 2);
}

/// Three entries: one within another, one apart.
fn three() -> Node {
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 60, &[PEER])]);
    node.learn("10.3.0.9", vec![record("10.3.0.0/16", 60, &[PEER])]);
    node.advance(seconds(2));
    node.sent.clear();
    let inner = record("10.2.7.0/24", 60, &["192.0.2.78"]);
    node.control.start_lookup(node.now, prefix("10.2.7.0/24"), super::super::itr::Purpose::Refresh);
    node.drain();
    let request = node.take_one();
    let nonce = match Message::parse(&request.payload) {
        Ok(Message::MapRequest(request)) => request.nonce,
        Ok(Message::Encapsulated(ecm)) => ecm.map_request().expect("a Map-Request").nonce,
        other => panic!("{other:?}"),
    };
    node.reply(nonce, vec![inner]);
    assert_eq!(node.cached(), ["10.2.0.0/16", "10.2.7.0/24", "10.3.0.0/16"]);
    node
}

#[test]
fn what_is_cleared_is_asked_for_anew() {
    let mut node = three();
    assert_eq!(node.control.clear_map_cache(node.now, Some(&prefix("10.3.0.9/32"))), 1);
    node.drain();
    assert_eq!(node.cached(), ["10.2.0.0/16", "10.2.7.0/24"]);
    assert!(!node.fib.contains_key(&prefix("10.3.0.0/16")));
    node.advance(seconds(2));
    node.take_sent();
    node.miss("10.3.0.9");
    node.answer(vec![record("10.3.0.0/16", 60, &[PEER])]);
    assert_eq!(node.cached().len(), 3);
    // What covers it would take its traffic.
    assert_eq!(node.control.clear_map_cache(node.now, Some(&prefix("10.2.7.0/24"))), 2);
    assert_eq!(node.cached(), ["10.3.0.0/16"]);
    assert_eq!(node.control.clear_map_cache(node.now, Some(&prefix("10.9.0.0/16"))), 0);
    assert_eq!(node.control.clear_map_cache(node.now, None), 1);
    node.drain();
    assert!(node.cached().is_empty());
    assert_eq!(node.fib.len(), 2, "own EID-prefixes stay: {:?}", node.fib.keys());
}

#[test]
fn rq_13_clearing_ends_the_pause_after_tries_in_vain() {
    let mut node = Node::new(config());
    node.miss("10.2.0.9");
    node.advance(seconds(15));
    node.take_sent();
    assert_eq!(node.control.clear_map_cache(node.now, None), 0);
    node.advance(Duration::ZERO);
    node.take_lookup();
}
