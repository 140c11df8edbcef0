//! Publish and subscribe, the xTR's side (RFC 9437).
use super::*;
use crate::config::{LispSec, NotifyKey, Subscribe};
use crate::view::SubscriptionState;
use mapping::auth::{self, Covered};
use mapping::sec;
use mapping::wire::security::EcmSecurity;
use mapping::wire::{AuthenticationData, MapNotify, MapNotifyAck, MapRegister, XtrIdentity};

const XTR: XtrIdentity = XtrIdentity { xtr_id: 0xabc, site_id: 77 };
const SECRET: &str = "subscriber key";

fn subscribing() -> ControlConfig {
    let secret = Secret::new(SECRET.as_bytes().to_vec());
    let key = NotifyKey { key_id: 9, secret, algorithm: Algorithm::HmacSha256 };
    ControlConfig {
        identity: Some(XTR),
        subscribe: Some(Subscribe { key: Some(key), accept_unsubscribed: false }),
        ..config()
    }
}

fn notify(nonce: u64, records: Vec<EidRecord>) -> Vec<u8> {
    signed_by(SECRET, nonce, records)
}

fn signed_by(secret: &str, nonce: u64, records: Vec<EidRecord>) -> Vec<u8> {
    let authentication = AuthenticationData::zeroed(9, Algorithm::HmacSha256.id(), 16);
    let message = MapNotify { nonce, authentication, records, identity: None };
    let mut octets = Message::MapNotify(message).to_vec();
    let secret = Secret::new(secret.as_bytes().to_vec());
    auth::sign(&mut octets, &secret, Algorithm::HmacSha256).unwrap();
    octets
}

fn ends(eid: &str) -> EidRecord {
    record(eid, 0, &[])
}

impl Node {
    fn publish(&mut self, octets: &[u8]) -> Vec<Transmit> {
        self.sent.clear();
        self.receive_octets(control_port(OWN_V4), control_port(SERVER), octets);
        self.take_sent()
    }

    /// Leaves what was sent for [`Node::lookups`].
    fn publish_quietly(&mut self, octets: &[u8]) {
        self.sent.clear();
        self.receive_octets(control_port(OWN_V4), control_port(SERVER), octets);
    }

    /// Subscribes with a packet to `destination`; returns the nonce.
    fn subscribe(&mut self, destination: &str, records: Vec<EidRecord>) -> u64 {
        self.sent.clear();
        self.miss(destination);
        let (_, _, request) = self.take_lookup();
        let sent = self.publish(&notify(request.nonce, records));
        acknowledged(&sent[0], request.nonce);
        request.nonce
    }

    fn state(&self, text: &str) -> Option<SubscriptionState> {
        let views = self.control.subscriptions_view(self.now);
        views.iter().find(|view| view.prefix == prefix(text).prefix()).map(|view| view.state)
    }

    fn lookups(&mut self) -> Vec<MapRequest> {
        let sent = self.take_sent();
        let ecms = sent.iter().filter_map(|t| match Message::parse(&t.payload) {
            Ok(Message::Encapsulated(ecm)) => ecm.map_request().ok(),
            _ => None,
        });
        ecms.collect()
    }
}

fn acknowledged(transmit: &Transmit, nonce: u64) {
    assert_eq!(transmit.destination, control_port(SERVER));
    let Ok(Message::MapNotifyAck(MapNotifyAck(ack))) = Message::parse(&transmit.payload) else {
        panic!("no Map-Notify-Ack: {transmit:?}");
    };
    assert_eq!((ack.nonce, ack.authentication.key_id), (nonce, 9));
    let secret = Secret::new(SECRET.as_bytes().to_vec());
    auth::verify(&transmit.payload, &secret, &[Algorithm::HmacSha256]).unwrap();
}

#[test]
fn ps_01_a_lookup_carries_n_bit_and_identity() {
    let mut node = Node::new(subscribing());
    node.miss("10.9.0.1");
    let (_, _, request) = node.take_lookup();
    assert_eq!(request.identity, Some(XTR));
    assert!(request.records[0].notify && !request.itr_rlocs.is_empty());
    // Without the option, neither.
    let mut node = Node::new(ControlConfig { subscribe: None, ..subscribing() });
    node.miss("10.9.0.1");
    let (_, _, request) = node.take_lookup();
    assert_eq!(request.identity, None);
    assert!(!request.records[0].notify);
}

#[test]
fn ps_03_the_nonce_counts_on_for_what_is_subscribed() {
    let mut node = Node::new(subscribing());
    let nonce = node.subscribe("10.9.0.1", vec![record("10.9.0.0/16", 1440, &[PEER])]);
    node.publish(&notify(nonce + 4, vec![record("10.9.0.0/16", 1440, &["192.0.2.78"])]));
    node.control.start_lookup(node.now, prefix("10.9.0.0/16"), super::super::itr::Purpose::Refresh);
    node.drain();
    node.advance(seconds(4));
    let nonces: Vec<u64> = node.lookups().iter().map(|request| request.nonce).collect();
    assert_eq!(nonces[..3], [nonce + 5, nonce + 6, nonce + 7]);
    assert!(nonces[3] > nonce + 1_000, "the Map-Server must have had a later one: {nonces:?}");
}

#[test]
fn ps_03_nonces_after_a_restart_are_greater_than_before() {
    let now = Instant::now();
    let fresh = |seconds_since_1970: u64, later: u64| {
        let base = seconds_since_1970 * 1_000_000_000;
        let mut control = ControlPlane::new(subscribing(), now, [7; 32], base);
        let punt = Punt::Miss { destination: eid("10.9.0.1"), source: ip("10.1.0.5") };
        control.handle_punt(now + seconds(later), &punt);
        let transmit = control.poll_transmit().unwrap();
        let Ok(Message::Encapsulated(ecm)) = Message::parse(&transmit.payload) else { panic!() };
        ecm.map_request().unwrap().nonce
    };
    let before = fresh(1_800_000_000, 500);
    assert!(fresh(1_800_000_501, 0) > before);
}

#[test]
fn ps_07_the_acknowledgement_fills_the_map_cache_and_is_acknowledged() {
    let mut node = Node::new(subscribing());
    node.subscribe("10.9.0.1", vec![record("10.9.0.0/16", 1440, &[PEER])]);
    assert_eq!(node.destinations("10.9.0.0/16"), [PEER]);
    assert_eq!(node.state("10.9.0.0/16"), Some(SubscriptionState::Subscribed));
    assert_eq!(node.control.lookups.len(), 0);
}

#[test]
fn ps_07_a_false_acknowledgement_changes_nothing() {
    let mut node = Node::new(subscribing());
    node.miss("10.9.0.1");
    let (_, _, request) = node.take_lookup();
    let mapping = vec![record("10.9.0.0/16", 1440, &[PEER])];
    assert!(node.publish(&signed_by("guess", request.nonce, mapping.clone())).is_empty());
    assert_eq!(node.discarded(Discard::AuthenticationFailed), 1);
    let elsewhere = vec![record("10.8.0.0/16", 1440, &[PEER])];
    assert!(node.publish(&notify(request.nonce, elsewhere)).is_empty());
    assert!(node.cached().is_empty());
    // Nor is the lookup over.
    let sent = node.publish(&notify(request.nonce, mapping));
    acknowledged(&sent[0], request.nonce);
}

#[test]
fn ps_07_without_subscription_the_map_reply_counts() {
    let mut node = Node::new(subscribing());
    node.learn("10.9.0.1", vec![record("10.9.0.0/16", 1440, &[PEER])]);
    assert_eq!(node.destinations("10.9.0.0/16"), [PEER]);
    assert_eq!(node.state("10.9.0.0/16"), None);
}

#[test]
fn ps_08_a_subscription_that_was_given_up_is_made_again() {
    let mut node = Node::new(subscribing());
    let nonce = node.subscribe("10.9.0.1", vec![record("10.9.0.0/16", 1440, &[PEER])]);
    node.advance(seconds(5));
    let farewell = negative("10.9.0.0/16", 15, Action::DropAuthFailure);
    node.publish_quietly(&notify(nonce, vec![farewell]));
    let again = node.lookups();
    assert_eq!(again.len(), 1);
    assert!(again[0].records[0].notify && again[0].nonce == nonce + 1);
    assert_eq!(node.destinations("10.9.0.0/16"), [PEER], "traffic goes on");
}

#[test]
fn ps_08_what_a_given_up_subscription_missed_in_a_hole_is_looked_up() {
    let mut node = Node::new(subscribing());
    let hole = negative("10.8.0.0/13", 15, Action::NativelyForward);
    let nonce = node.subscribe("10.9.0.1", vec![hole]);
    node.advance(seconds(5));
    let farewell = negative("10.9.0.0/16", 15, Action::DropAuthFailure);
    node.publish_quietly(&notify(nonce, vec![farewell]));
    let again = node.lookups();
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].records[0].eid.prefix(), Some(prefix("10.9.0.0/16")));
    node.publish(&notify(again[0].nonce, vec![record("10.9.0.0/16", 1440, &[PEER])]));
    assert_eq!(node.destinations("10.9.0.0/16"), [PEER]);
    // Where nothing is known of it, nothing is asked.
    let farewell = negative("10.77.0.0/16", 15, Action::DropAuthFailure);
    node.publish_quietly(&notify(nonce, vec![farewell]));
    assert!(node.lookups().is_empty());
}

#[test]
fn ps_09_refused_the_lookup_is_made_without_subscribing() {
    let mut node = Node::new(subscribing());
    node.miss("10.9.0.1");
    let (_, _, request) = node.take_lookup();
    node.reply(request.nonce, vec![negative("10.9.0.1/32", 15, Action::DropPolicyDenied)]);
    assert!(node.cached().is_empty());
    node.advance(seconds(1));
    let (_, _, plain) = node.take_lookup();
    assert!(!plain.records[0].notify && plain.identity.is_none());
    node.reply(plain.nonce, vec![record("10.9.0.0/16", 1440, &[PEER])]);
    assert_eq!(node.destinations("10.9.0.0/16"), [PEER]);
    assert!(node.events.contains(&Event::SubscriptionRefused(prefix("10.9.0.1/32"))));
}

#[test]
fn ps_10_what_appears_in_a_hole_gets_a_subscription_of_its_own() {
    let mut node = Node::new(subscribing());
    let hole = negative("10.8.0.0/13", 15, Action::NativelyForward);
    let nonce = node.subscribe("10.9.0.1", vec![hole]);
    assert_eq!(node.state("10.8.0.0/13"), Some(SubscriptionState::Temporary));
    assert!(matches!(node.fib[&prefix("10.8.0.0/13")], Verdict::Native));
    node.advance(seconds(5));
    node.sent.clear();
    node.publish_quietly(&notify(nonce + 1, vec![record("10.9.0.0/16", 1440, &[PEER])]));
    assert_eq!(node.destinations("10.9.0.0/16"), [PEER], "at once");
    let lookups = node.lookups();
    let own = lookups.iter().find(|r| r.records[0].eid.prefix() == Some(prefix("10.9.0.0/16")));
    let nonce = own.expect("a subscription to it").nonce;
    node.publish(&notify(nonce, vec![record("10.9.0.0/16", 1440, &[PEER])]));
    assert_eq!(node.state("10.9.0.0/16"), Some(SubscriptionState::Subscribed));
    // The one to the hole ends by itself, without a word.
    node.sent.clear();
    node.advance(timers::TEMPORARY_SUBSCRIPTION);
    assert_eq!(node.state("10.8.0.0/13"), None);
    assert!(node.lookups().iter().all(|request| !request.unsubscribes()));
}

#[test]
fn ps_14_a_publication_that_is_not_newer_is_dropped_and_told() {
    let mut node = Node::new(subscribing());
    let nonce = node.subscribe("10.9.0.1", vec![record("10.9.0.0/16", 1440, &[PEER])]);
    node.publish(&notify(nonce + 2, vec![record("10.9.0.0/16", 1440, &["192.0.2.78"])]));
    for old in [nonce, nonce + 1, nonce + 2] {
        let replay = notify(old, vec![record("10.9.0.0/16", 1440, &["192.0.2.66"])]);
        assert!(node.publish(&replay).is_empty(), "no acknowledgement");
    }
    assert_eq!(node.destinations("10.9.0.0/16"), ["192.0.2.78"]);
    assert_eq!(node.discarded(Discard::PublicationReplayed), 3);
    let told = |event: &Event| matches!(event, Event::PublicationReplayed { .. });
    assert_eq!(node.events.iter().filter(|event| told(event)).count(), 3);
}

#[test]
fn ps_14_a_copy_is_acknowledged_again_and_changes_nothing() {
    let mut node = Node::new(subscribing());
    let nonce = node.subscribe("10.9.0.1", vec![record("10.9.0.0/16", 1440, &[PEER])]);
    let first = notify(nonce + 1, vec![record("10.9.0.0/16", 1440, &["192.0.2.78"])]);
    for _ in 0..2 {
        acknowledged(&node.publish(&first)[0], nonce + 1);
    }
    assert_eq!(node.control.counters_view()["publications_received"], 1);
    assert_eq!(node.control.counters_view()["publications_repeated"], 1);
}

#[test]
fn ps_14_publications_of_two_prefixes_may_overtake_each_other() {
    let mut node = Node::new(subscribing());
    let nonce = node.subscribe("10.9.0.1", vec![record("10.9.0.0/16", 1440, &[PEER])]);
    node.publish(&notify(nonce + 2, vec![record("10.9.2.0/24", 1440, &["192.0.2.72"])]));
    node.publish(&notify(nonce + 1, vec![record("10.9.1.0/24", 1440, &["192.0.2.71"])]));
    assert_eq!(node.destinations("10.9.1.0/24"), ["192.0.2.71"]);
    assert_eq!(node.destinations("10.9.2.0/24"), ["192.0.2.72"]);
    assert_eq!(node.destinations("10.9.0.0/16"), [PEER]);
}

#[test]
fn ps_15_a_publication_updates_the_map_cache_at_once() {
    let mut node = Node::new(subscribing());
    let nonce = node.subscribe("10.9.0.1", vec![record("10.9.0.0/16", 1440, &[PEER])]);
    let sent = node.publish(&notify(nonce + 1, vec![record("10.9.0.0/16", 1440, &["192.0.2.78"])]));
    acknowledged(&sent[0], nonce + 1);
    assert_eq!(node.destinations("10.9.0.0/16"), ["192.0.2.78"]);
    // Removal; the next packet asks again, and the prefix may come back.
    node.publish(&notify(nonce + 2, vec![ends("10.9.0.0/16")]));
    assert!(node.cached().is_empty());
    assert_eq!(node.state("10.9.0.0/16"), Some(SubscriptionState::Temporary));
    node.publish(&notify(nonce + 3, vec![record("10.9.0.0/16", 1440, &[PEER])]));
    assert_eq!(node.destinations("10.9.0.0/16"), [PEER]);
    assert_eq!(node.state("10.9.0.0/16"), Some(SubscriptionState::Subscribed));
}

#[test]
fn ps_15_a_forged_publication_changes_nothing() {
    let mut node = Node::new(subscribing());
    let nonce = node.subscribe("10.9.0.1", vec![record("10.9.0.0/16", 1440, &[PEER])]);
    let forged = signed_by("guess", nonce + 1, vec![record("10.9.0.0/16", 1440, &["192.0.2.66"])]);
    assert!(node.publish(&forged).is_empty());
    assert_eq!(node.discarded(Discard::AuthenticationFailed), 1);
    assert_eq!(node.destinations("10.9.0.0/16"), [PEER]);
}

#[test]
fn ps_15_own_eid_prefixes_are_never_learned() {
    let mut node = Node::new(subscribing());
    let whole = vec![record("10.0.0.0/8", 1440, &[PEER])];
    let nonce = node.subscribe("10.9.0.1", whole);
    let own = record("10.1.7.0/24", 1440, &["192.0.2.66"]);
    let other = record("10.9.7.0/24", 1440, &["192.0.2.78"]);
    node.publish(&notify(nonce + 1, vec![other, own]));
    assert_eq!(node.cached(), ["10.0.0.0/8", "10.9.7.0/24"]);
}

#[test]
fn ps_16_what_leaves_the_map_cache_is_unsubscribed() {
    let mut node = Node::new(subscribing());
    let nonce = node.subscribe("10.9.0.1", vec![record("10.9.0.0/16", 2, &[PEER])]);
    node.advance(seconds(119));
    assert!(node.lookups().is_empty(), "nobody used it");
    node.advance(seconds(1));
    assert!(node.cached().is_empty());
    let requests = node.lookups();
    let [request] = &requests[..] else { panic!("{requests:?}") };
    assert!(request.unsubscribes());
    assert_eq!((request.nonce, request.identity), (nonce + 1, Some(XTR)));
    assert_eq!(node.state("10.9.0.0/16"), Some(SubscriptionState::Unsubscribing));
    // Lost; repeated with the next nonce, until confirmed.
    node.advance(seconds(2));
    let again = node.lookups();
    assert_eq!((again.len(), again[0].nonce), (1, nonce + 2));
    let confirmed = node.publish(&notify(nonce + 2, vec![record("10.9.0.0/16", 2, &[PEER])]));
    acknowledged(&confirmed[0], nonce + 2);
    assert_eq!(node.state("10.9.0.0/16"), None);
    node.advance(seconds(60));
    assert!(node.take_sent().is_empty() && node.cached().is_empty());
}

#[test]
fn ps_16_an_unanswered_unsubscription_is_given_up() {
    let mut node = Node::new(subscribing());
    node.subscribe("10.9.0.1", vec![record("10.9.0.0/16", 2, &[PEER])]);
    node.advance(seconds(300));
    assert_eq!(node.lookups().len(), 3);
    assert_eq!(node.state("10.9.0.0/16"), None);
}

#[test]
fn ps_18_a_part_of_something_subscribed_is_not_unsubscribed() {
    let mut node = Node::new(subscribing());
    node.subscribe("10.9.7.1", vec![record("10.9.7.0/24", 2, &["192.0.2.78"])]);
    node.subscribe("10.9.0.1", vec![record("10.9.0.0/16", 1440, &[PEER])]);
    node.sent.clear();
    node.advance(seconds(200));
    assert!(node.lookups().is_empty());
    // Without its entry, its packets would go where the covering one says.
    assert_eq!(node.destinations("10.9.7.0/24"), ["192.0.2.78"]);
}

#[test]
fn ps_05_subscriptions_are_renewed_without_keeping_idle_entries() {
    let mut node = Node::new(subscribing());
    let nonce = node.subscribe("10.9.0.1", vec![record("10.9.0.0/16", 30, &[PEER])]);
    let start = node.now;
    while node.sent.is_empty() {
        node.advance(Duration::from_millis(500));
    }
    let minutes = (node.now - start).as_secs() / 60;
    assert!((9..=11).contains(&minutes), "{minutes}");
    let renewal = node.lookups();
    assert_eq!((renewal.len(), renewal[0].nonce), (1, nonce + 1));
    node.publish(&notify(nonce + 1, vec![record("10.9.0.0/16", 30, &[PEER])]));
    let view = node.control.map_cache_view(node.now);
    let life = view[0].uptime_seconds + view[0].expires_seconds.unwrap();
    assert!(life <= 1_800, "as before: {view:?}");
}

#[test]
fn ps_05_new_own_rlocs_are_told_at_once() {
    let rlocs = vec![own("core4", OWN_V4), own("core6", OWN_V6)];
    let mut node = Node::new(ControlConfig { rlocs, ..subscribing() });
    node.subscribe("10.9.0.1", vec![record("10.9.0.0/16", 1440, &[PEER])]);
    node.advance(seconds(5));
    node.sent.clear();
    node.control.set_own_rloc(node.now, ip(OWN_V6), false, 5);
    node.drain();
    let renewal = node.lookups();
    assert_eq!(renewal.len(), 1);
    assert_eq!(renewal[0].itr_rlocs, [Address::from(ip(OWN_V4))]);
}

#[test]
fn ps_12_what_a_covering_subscription_kept_fresh_does_not_outlive_it() {
    let mut node = Node::new(subscribing());
    let nonce = node.subscribe("10.9.0.1", vec![record("10.9.0.0/16", 2, &[PEER])]);
    node.publish(&notify(nonce + 1, vec![record("10.9.7.0/24", 1440, &["192.0.2.78"])]));
    node.advance(seconds(121));
    assert!(node.cached().is_empty(), "{:?}", node.cached());
}

#[test]
fn ps_23_publications_that_were_not_asked_for_are_an_option() {
    let surprise = |nonce| notify(nonce, vec![record("10.9.0.0/16", 1440, &[PEER])]);
    let mut node = Node::new(subscribing());
    assert!(node.publish(&surprise(5)).is_empty());
    assert_eq!(node.discarded(Discard::PublicationUnsubscribed), 1);
    assert!(node.cached().is_empty());
    let mut config = subscribing();
    config.subscribe.as_mut().unwrap().accept_unsubscribed = true;
    let mut node = Node::new(config);
    acknowledged(&node.publish(&surprise(5))[0], 5);
    assert_eq!(node.destinations("10.9.0.0/16"), [PEER]);
    assert_eq!(node.state("10.9.0.0/16"), Some(SubscriptionState::Foreign));
    assert!(node.publish(&surprise(4)).is_empty(), "its nonces count too");
}

#[test]
fn rg_09_registrations_carry_the_identity_and_their_mac_covers_it() {
    let mut site = server();
    for covers in [Covered::Message, Covered::Records] {
        site.covers = covers;
        let map_servers = vec![site.clone()];
        let mut node = Node::new(ControlConfig { map_servers, identity: Some(XTR), ..config() });
        node.control.handle_timeout(node.now);
        node.drain();
        let transmit = node.take_one();
        let Ok(Message::MapRegister(MapRegister { identity, .. })) =
            Message::parse(&transmit.payload)
        else {
            panic!("{transmit:?}");
        };
        assert_eq!(identity, Some(XTR));
        let verified = auth::verify(&transmit.payload, &site.secret, &[site.algorithm]);
        assert_eq!(verified, Ok(covers));
    }
}

#[test]
fn rg_08_merging_is_an_option() {
    let map_servers = vec![server()];
    let mut node = Node::new(ControlConfig { map_servers, merge: true, ..config() });
    node.control.handle_timeout(node.now);
    node.drain();
    let register = Message::parse(&node.take_one().payload);
    assert!(matches!(register, Ok(Message::MapRegister(MapRegister { merge: true, .. }))));
}

#[test]
fn ps_21_the_one_time_key_of_the_lookup_verifies_what_is_published() {
    let secret = Secret::new(b"secret of the ITRs".to_vec());
    let lisp_sec = LispSec { key_id: 5, secret: secret.clone(), required: false };
    let mut node = Node::new(ControlConfig {
        lisp_sec: Some(lisp_sec),
        subscribe: Some(Subscribe::default()),
        ..subscribing()
    });
    node.miss("10.9.0.1");
    let (_, ecm, request) = node.take_lookup();
    let security = EcmSecurity::parse(ecm.security.as_ref().unwrap()).unwrap();
    let otk = sec::unwrap(&security, request.nonce, &secret).unwrap();
    let key = sec::pubsub_key(&otk, request.nonce, security.wrapping_id).unwrap();
    let signed = |nonce, key: &Secret, rloc| {
        let authentication = AuthenticationData::zeroed(0, Algorithm::HmacSha256.id(), 16);
        let records = vec![record("10.9.0.0/16", 1440, &[rloc])];
        let message = MapNotify { nonce, authentication, records, identity: None };
        let mut octets = Message::MapNotify(message).to_vec();
        auth::sign(&mut octets, key, Algorithm::HmacSha256).unwrap();
        octets
    };
    let forged = signed(request.nonce, &secret, "192.0.2.66");
    assert!(node.publish(&forged).is_empty() && node.cached().is_empty());
    assert_eq!(node.publish(&signed(request.nonce, &key, PEER)).len(), 1, "acknowledged");
    assert_eq!(node.destinations("10.9.0.0/16"), [PEER]);
    assert!(node.publish(&signed(request.nonce + 1, &secret, "192.0.2.66")).is_empty());
    let sent = node.publish(&signed(request.nonce + 1, &key, "192.0.2.78"));
    auth::verify(&sent[0].payload, &key, &[Algorithm::HmacSha256]).unwrap();
    assert_eq!(node.destinations("10.9.0.0/16"), ["192.0.2.78"]);
}

#[test]
fn rg_10_nobody_goes_by_an_xtr_id_that_is_not_configured() {
    let config = ControlConfig { map_servers: vec![server()], ..config() };
    let mut node = Node::new(config);
    node.control.handle_timeout(node.now);
    node.drain();
    let register = Message::parse(&node.take_one().payload);
    assert!(matches!(register, Ok(Message::MapRegister(MapRegister { identity: None, .. }))));
}
