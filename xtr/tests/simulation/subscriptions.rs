//! Publish and subscribe from end to end (RFC 9437): the map-caches follow the registry.
use super::*;
use mapping::auth::{self, Covered};
use mapping::config::Subscriber;
use mapping::wire::{
    AuthenticationData, EidRecord, LocatorRecord, MapRegister, Message, XtrIdentity,
};
use xtr::config::{NotifyKey, Subscribe};
use xtr::view::SubscriptionState;

const PITR: &str = "192.0.2.3";
const XTR: &str = "192.0.2.1";
const ETR: &str = "192.0.2.9";

fn subscriber_key() -> Secret {
    Secret::new(b"the key of the PITR".to_vec())
}

/// The xTRs of both sites and the PITR subscribe; 10.3.0.0/16 is registered by the script of the test.
fn network(seed: u8, weather: Weather) -> Network {
    let server = |config: &mut MappingConfig| {
        for (site, id) in config.sites.iter_mut().zip(1..) {
            site.site_id = Some(id);
        }
        let key = SiteKey { id: 1, secret: key(), algorithms: vec![Algorithm::HmacSha256] };
        let prefixes =
            vec![SitePrefix { prefix: prefix("10.3.0.0/16"), accept_more_specifics: true }];
        config.sites.push(Site::new("c", vec![key], prefixes));
        config.subscribers.push(Subscriber {
            name: "pitr".to_owned(),
            site_id: 3,
            key: SiteKey {
                id: 1,
                secret: subscriber_key(),
                algorithms: vec![Algorithm::HmacSha256Hkdf],
            },
            allowed_locators: Vec::new(),
        });
    };
    let router = |number: u64, config: &mut ControlConfig| {
        config.identity = Some(XtrIdentity { xtr_id: number.into(), site_id: number });
        // The locators of the script answer no probes.
        config.probe = None;
        let pitr = config.role == Role::Proxy;
        let key =
            NotifyKey { key_id: 1, secret: subscriber_key(), algorithm: Algorithm::HmacSha256Hkdf };
        config.subscribe = Some(Subscribe { key: pitr.then_some(key), accept_unsubscribed: false });
    };
    let mut network = Network::with(seed, weather, true, 1440, server, router);
    network.run(Duration::from_secs(20));
    network
}

impl Network {
    /// The script registers, without loss; no locators = withdrawn.
    fn script(&mut self, nonce: u64, eid: &str, rlocs: &[&str]) {
        let locators = rlocs.iter().map(|rloc| {
            let mut locator = LocatorRecord::new(ip(rloc), 1, 100);
            locator.reachable = true;
            locator
        });
        let ttl = if rlocs.is_empty() { 0 } else { 1440 };
        let register = MapRegister {
            proxy_reply: true,
            security_capable: false,
            eid_notify: false,
            use_ttl: true,
            merge: false,
            want_map_notify: false,
            nonce,
            authentication: AuthenticationData::zeroed(1, Algorithm::HmacSha256.id(), 16),
            records: vec![EidRecord::new(prefix(eid), ttl, locators.collect())],
            identity: None,
        };
        let mut octets = Message::MapRegister(register).to_vec();
        auth::sign_covering(&mut octets, &key(), Algorithm::HmacSha256, Covered::Message)
            .expect("signed");
        let (to, from) = (ip(SERVER), ip(ETR));
        let now = self.now;
        let server = self.nodes.get_mut(&to).expect("the Map-Server runs");
        let port = |address| SocketAddr::new(address, CONTROL_PORT);
        server.handle_input(now, port(to), port(from), &octets);
        self.collect();
    }

    fn server(&self) -> &MapServer {
        match &self.nodes[&ip(SERVER)] {
            Node::Server(server) => server,
            Node::Router(..) => panic!("no Map-Server"),
        }
    }

    /// Where the registry says that packets to `eid` go; empty = nowhere.
    fn registered(&self, eid: &str) -> Vec<IpAddr> {
        let eid = Eid::new(InstanceId::DEFAULT, ip(eid));
        let views = self.server().registrations_view(self.now);
        let longest = views
            .iter()
            .filter(|view| view.prefix.is_some_and(|prefix| prefix.contains(eid)))
            .max_by_key(|view| view.prefix.map(|prefix| prefix.mask_len()));
        longest.map_or_else(Vec::new, |view| view.locators.iter().map(|l| l.rloc).collect())
    }

    /// Where a router sends packets to `eid`; `None` = it would ask.
    fn forwarded(&mut self, router: &str, eid: &str) -> Option<Vec<IpAddr>> {
        let eid = Eid::new(InstanceId::DEFAULT, ip(eid));
        let longest = self
            .router(router)
            .1
            .iter()
            .filter(|(prefix, _)| prefix.contains(eid))
            .max_by_key(|(prefix, _)| prefix.mask_len())?;
        Some(match longest.1 {
            Verdict::Encapsulate(set) => set.adjacencies.iter().map(|a| a.destination).collect(),
            _ => Vec::new(),
        })
    }

    fn agrees(&mut self, router: &str, eid: &str) -> bool {
        let registered = self.registered(eid);
        self.forwarded(router, eid).is_none_or(|forwarded| forwarded == registered)
    }
}

#[test]
fn ps_15_traffic_follows_a_change_without_waiting() {
    let mut network = network(1, FAIR);
    network.script(1, "10.3.0.0/16", &[ETR]);
    for router in [XTR, PITR] {
        network.miss(router, "10.3.0.7");
    }
    network.run(Duration::from_secs(1));
    for (nonce, rloc) in [(2, "192.0.2.10"), (3, "192.0.2.11")] {
        network.script(nonce, "10.3.0.0/16", &[rloc]);
        network.run(Duration::from_millis(2));
        for router in [XTR, PITR] {
            assert_eq!(network.destinations(router, "10.3.0.0/16"), [ip(rloc)], "{router}");
        }
    }
    network.script(4, "10.3.7.0/24", &[ETR]);
    network.run(Duration::from_millis(2));
    for router in [XTR, PITR] {
        assert_eq!(network.forwarded(router, "10.3.7.7"), Some(vec![ip(ETR)]));
    }
    network.script(5, "10.3.0.0/16", &[]);
    network.run(Duration::from_millis(2));
    assert_eq!(network.forwarded(PITR, "10.3.0.7"), None, "it has to ask now");
}

/// Appendix A.2: a site that registers later does not wait for the end of a negative entry.
#[test]
fn ps_10_a_site_that_registers_later_is_reached_at_once() {
    let mut network = network(2, FAIR);
    network.miss(PITR, "10.3.0.7");
    network.miss(PITR, "10.77.0.7");
    network.run(Duration::from_secs(1));
    assert_eq!(network.forwarded(PITR, "10.3.0.7"), Some(Vec::new()));
    network.script(1, "10.3.0.0/16", &[ETR]);
    network.run(Duration::from_millis(2));
    assert_eq!(network.forwarded(PITR, "10.3.0.7"), Some(vec![ip(ETR)]));
    // And it is followed beyond the life of the hole.
    for clock in 1..=40 {
        match network.router(PITR).1.get(&prefix("10.3.0.0/16")) {
            Some(Verdict::Encapsulate(set)) => set.last_used.store(clock, Ordering::Relaxed),
            other => panic!("{other:?} in minute {clock}"),
        }
        network.run(Duration::from_secs(60));
    }
    network.script(2, "10.3.0.0/16", &["192.0.2.10"]);
    network.run(Duration::from_secs(1));
    assert_eq!(network.forwarded(PITR, "10.3.0.7"), Some(vec![ip("192.0.2.10")]));
}

#[test]
fn ps_05_a_map_server_that_restarts_with_its_state_goes_on_publishing() {
    let mut network = network(3, FAIR);
    network.script(1, "10.3.0.0/16", &[ETR]);
    network.miss(PITR, "10.3.0.7");
    network.run(Duration::from_secs(1));
    // It dies with a publication that nobody got.
    network.cut.push(ip(PITR));
    network.script(2, "10.3.0.0/16", &["192.0.2.10"]);
    network.kill_server();
    network.run(Duration::from_secs(5));
    network.cut.clear();
    network.restore_server();
    network.run(Duration::from_secs(5));
    assert_eq!(network.forwarded(PITR, "10.3.0.7"), Some(vec![ip("192.0.2.10")]));
    network.script(3, "10.3.0.0/16", &["192.0.2.11"]);
    network.run(Duration::from_millis(10));
    assert_eq!(network.forwarded(PITR, "10.3.0.7"), Some(vec![ip("192.0.2.11")]));
}

#[test]
fn ps_05_a_map_server_that_lost_everything_is_subscribed_to_again() {
    let mut network = network(4, FAIR);
    network.script(1, "10.3.0.0/16", &[ETR]);
    network.miss(PITR, "10.3.0.7");
    network.run(Duration::from_secs(1));
    network.kill_server();
    network.start_server();
    network.script(2, "10.3.0.0/16", &["192.0.2.10"]);
    network.run(Duration::from_secs(700));
    assert_eq!(network.forwarded(PITR, "10.3.0.7"), Some(vec![ip("192.0.2.10")]));
    assert_eq!(network.server().subscriptions_view(network.now).len(), 1);
}

/// Random changes over a network that loses, delays and doubles; in the end everybody agrees with the registry.
#[test]
fn ps_11_ps_14_map_caches_converge_to_the_registry_over_a_foul_network() {
    let prefixes = ["10.3.0.0/16", "10.3.0.0/18", "10.3.64.0/18", "10.3.7.0/24", "10.3.7.128/25"];
    let eids = ["10.3.0.1", "10.3.7.1", "10.3.7.200", "10.3.65.1", "10.3.200.1"];
    for seed in 50..70 {
        let mut network = network(seed, FOUL);
        let mut rng = StdRng::from_seed([seed; 32]);
        for nonce in 1..=60 {
            let eid = prefixes[rng.random_range(0..prefixes.len())];
            let rloc = format!("192.0.2.{}", rng.random_range(20..30));
            let withdrawn = rng.random_range(0..4) == 0;
            let rlocs = [rloc.as_str()];
            network.script(nonce, eid, if withdrawn { &[] } else { &rlocs });
            for router in [XTR, PITR] {
                let eid = eids[rng.random_range(0..eids.len())];
                if network.forwarded(router, eid).is_none() {
                    network.miss(router, eid);
                }
            }
            network.run(Duration::from_millis(rng.random_range(1..20_000)));
        }
        // At worst a subscription is given up and its end lost: renewal mends that.
        network.run(Duration::from_secs(800));
        for router in [XTR, PITR] {
            for eid in eids {
                assert!(
                    network.agrees(router, eid),
                    "seed {seed}: {router} sends {eid} to {:?}, registered is {:?}",
                    network.forwarded(router, eid),
                    network.registered(eid)
                );
            }
            let now = network.now;
            let views = network.router(router).0.subscriptions_view(now);
            let state = |state| views.iter().any(|view| view.state == state);
            assert!(state(SubscriptionState::Subscribed) || state(SubscriptionState::Temporary));
        }
    }
}
