//! Publish and subscribe (RFC 9437).

mod protected;
mod publishing;
mod restart;

use super::*;
use crate::clock::Epoch;
use crate::config::Profile;
use crate::config::{Client, ItrKey, LispSec, Subscriber, SubscriptionLimits};
use crate::sec::{self, Otk};
use crate::timers::TEMPORARY_SUBSCRIPTION;
use crate::transmit::SourcePort;
use crate::view::SubscriptionView;
use crate::wire::Action;
use crate::wire::security::{EcmSecurity, EidAd};

const SECOND_RLOC: &str = "198.51.100.98";
const SITE_ID: u64 = 77;

const XTR: XtrIdentity = XtrIdentity { xtr_id: 0xabc, site_id: SITE_ID };
const OTHER_XTR: XtrIdentity = XtrIdentity { xtr_id: 0xdef, site_id: SITE_ID };

fn with_subscribers() -> MappingConfig {
    let mut config = config();
    config.subscribers.push(Subscriber {
        name: "pitr".to_owned(),
        site_id: SITE_ID,
        key: key(9, "secret-p"),
        allowed_locators: vec!["198.51.100.0/24".parse().unwrap()],
    });
    config
}

fn bench_of(config: MappingConfig) -> Bench {
    Bench { server: MapServer::new(config, [1; 32]), now: Instant::now() }
}

fn bench() -> Bench {
    bench_of(with_subscribers())
}

fn subscription(nonce: u64, eid: &str, xtr: XtrIdentity) -> MapRequest {
    let mut request = request(nonce, &[eid], &[ITR]);
    request.records[0].notify = true;
    request.identity = Some(xtr);
    request
}

fn unsubscription(nonce: u64, eid: &str, xtr: XtrIdentity) -> MapRequest {
    MapRequest { itr_rlocs: vec![Address::None], ..subscription(nonce, eid, xtr) }
}

impl Bench {
    /// Subscribes, acknowledges, and returns the acknowledging Map-Notify.
    fn subscribe(&mut self, nonce: u64, eid: &str) -> MapNotify {
        let sent = self.ask(&subscription(nonce, eid, XTR));
        assert_eq!(sent.len(), 1, "one Map-Notify to a subscription to {eid}");
        let message = verified(&sent[0]);
        assert!(self.acknowledge(&sent[0]).is_empty());
        message
    }

    fn acknowledge(&mut self, transmit: &Transmit) -> Vec<Transmit> {
        let octets = acknowledgement(transmit, "secret-p");
        self.input(ITR, CONTROL_PORT, &octets)
    }

    /// What was published of those datagrams.
    fn published(&self, sent: &[Transmit]) -> Vec<MapNotify> {
        let to_itr = sent.iter().filter(|transmit| transmit.destination.ip() == ip(ITR));
        to_itr.map(verified).collect()
    }

    fn site_registers(&mut self, nonce: u64, records: Vec<EidRecord>) -> Vec<MapNotify> {
        let sent = self.register(&register(nonce, records));
        let published = self.published(&sent);
        for transmit in sent.iter().filter(|transmit| transmit.destination.ip() == ip(ITR)) {
            self.acknowledge(transmit);
        }
        published
    }

    fn subscriptions(&self) -> Vec<SubscriptionView> {
        self.server.subscriptions_view(self.now)
    }
}

fn verified(transmit: &Transmit) -> MapNotify {
    assert_eq!(transmit.destination.port(), CONTROL_PORT);
    let secret = Secret::new(b"secret-p".to_vec());
    auth::verify(&transmit.payload, &secret, &[Algorithm::HmacSha256]).unwrap();
    notify(transmit)
}

fn acknowledgement(transmit: &Transmit, secret: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    MapNotifyAck(notify(transmit)).encode(&mut octets);
    let secret = Secret::new(secret.as_bytes().to_vec());
    auth::sign(&mut octets, &secret, Algorithm::HmacSha256).unwrap();
    octets
}

fn shown(notify: &MapNotify) -> Vec<(String, u32, Vec<IpAddr>)> {
    let records = notify.records.iter();
    records.map(|r| (r.eid.prefix().unwrap().to_string(), r.ttl_minutes, rlocs_of(r))).collect()
}

fn mapping(prefix: &str, rloc: &str) -> Vec<(String, u32, Vec<IpAddr>)> {
    vec![(prefix.to_owned(), 1_440, vec![ip(rloc)])]
}

fn gone(prefix: &str) -> Vec<(String, u32, Vec<IpAddr>)> {
    vec![(prefix.to_owned(), 0, Vec::new())]
}

#[test]
fn ps_02_identity_that_is_not_there_is_malformed() {
    let mut bench = bench();
    let mut request = ecm(&subscription(5, "10.1.0.1/32", XTR));
    request.message.truncate(request.message.len() - 24);
    assert!(bench.input(ITR, 40_001, &request.to_octets()).is_empty());
    assert_eq!(bench.discarded(Discard::Truncated), 1);
    assert!(bench.subscriptions().is_empty());
}

#[test]
fn ps_04_a_nonce_that_is_not_greater_is_dropped_silently() {
    let mut bench = bench();
    bench.register(&register(1, vec![record("10.1.0.0/16", &[ETR])]));
    bench.subscribe(50, "10.1.0.1/32");
    for nonce in [50, 49, 0] {
        assert!(bench.ask(&subscription(nonce, "10.1.0.1/32", XTR)).is_empty(), "{nonce}");
        assert!(bench.ask(&unsubscription(nonce, "10.1.0.0/16", XTR)).is_empty(), "{nonce}");
    }
    assert_eq!(bench.discarded(Discard::SubscriptionReplayed), 6);
    assert_eq!(bench.subscriptions().len(), 1);
    // Another xTR, and another prefix, have nonces of their own.
    assert_eq!(bench.ask(&subscription(3, "10.1.0.1/32", OTHER_XTR)).len(), 1);
    bench.subscribe(4, "10.2.0.1/32");
}

#[test]
fn ps_05_a_newer_subscription_overwrites_the_older_one() {
    let mut bench = bench();
    bench.register(&register(1, vec![record("10.1.0.0/16", &[ETR])]));
    bench.subscribe(50, "10.1.0.1/32");
    let mut again = subscription(51, "10.1.7.7/32", XTR);
    again.itr_rlocs = vec![Address::from(ip(SECOND_RLOC))];
    let sent = bench.ask(&again);
    assert_eq!(sent[0].destination.ip(), ip(SECOND_RLOC));
    let view = bench.subscriptions();
    assert_eq!(view.len(), 1);
    assert_eq!(view[0].prefix, eid_prefix("10.1.0.0/16"));
    assert_eq!(view[0].itr_rlocs, [ip(SECOND_RLOC)]);
    assert_eq!((view[0].nonce.as_str(), view[0].unacknowledged), ("0000000000000033", 1));
    assert_eq!(view[0].subscriber.as_deref(), Some("pitr"));
}

#[test]
fn ps_06_success_is_acknowledged_by_an_authenticated_map_notify() {
    let mut bench = bench();
    bench.register(&register(1, vec![record("10.1.0.0/16", &[ETR])]));
    let sent = bench.ask(&subscription(50, "10.1.0.1/32", XTR));
    let [only] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((only.source, only.source_port), (ip(OWN), SourcePort::Control));
    let message = verified(only);
    assert_eq!((message.nonce, message.authentication.key_id), (50, 9));
    assert_eq!(shown(&message), mapping("10.1.0.0/16", ETR));
    assert_eq!(
        &bench.advance(3)[..],
        std::slice::from_ref(only),
        "repeated until it is acknowledged"
    );
    bench.acknowledge(only);
    assert!(bench.advance(100).is_empty());
    assert_eq!(bench.server.get(Count::PublicationAcks), 1);
}

#[test]
fn ps_06_records_without_the_n_bit_are_answered_by_map_reply() {
    let mut bench = bench();
    bench
        .register(&register(1, vec![record("10.1.0.0/16", &[ETR]), record("10.9.0.0/16", &[ETR])]));
    let mut both = subscription(50, "10.1.0.1/32", XTR);
    both.records.push(RequestedEid::new(eid_prefix("10.9.0.1/32")));
    let sent = bench.ask(&both);
    assert_eq!(sent.len(), 2);
    let reply = sent.iter().find_map(|t| MapReply::parse(&t.payload).ok()).unwrap();
    assert_eq!(reply.records[0].eid.prefix(), Some(eid_prefix("10.9.0.0/16")));
    assert_eq!(bench.subscriptions().len(), 1);
}

#[test]
fn ps_08_a_silent_xtr_loses_its_subscription_and_is_told_once() {
    let mut bench = bench();
    bench.register(&register(1, vec![record("10.9.0.0/16", &[ETR])]).edit(|m| m.use_ttl = true));
    bench.ask(&subscription(50, "10.9.0.1/32", XTR));
    let sent = bench.advance(200);
    let farewell = verified(sent.last().unwrap());
    assert_eq!(sent.len(), 7, "six retransmissions");
    let record = &farewell.records[0];
    assert_eq!((farewell.nonce, record.locators.len()), (50, 0));
    assert_eq!(record.action, Action::DropAuthFailure);
    assert_eq!(record.eid.prefix(), Some(eid_prefix("10.9.0.0/16")));
    assert!(bench.subscriptions().is_empty());
    assert_eq!(bench.server.get(Count::SubscriptionsLost), 1);
    bench.subscribe(51, "10.9.0.1/32");
}

#[test]
fn ps_09_itr_rlocs_outside_the_policy_are_denied() {
    let mut bench = bench();
    bench.register(&register(1, vec![record("10.1.0.0/16", &[ETR])]));
    let mut foreign = subscription(50, "10.1.0.1/32", XTR);
    foreign.itr_rlocs = vec![Address::from(ip("203.0.113.77"))];
    let sent = bench.ask(&foreign);
    let answer = &reply(&sent[0]).records[0];
    assert_eq!((answer.action, answer.locators.len()), (Action::DropPolicyDenied, 0));
    assert_eq!(bench.discarded(Discard::SubscriptionRefused), 1);
    assert!(bench.subscriptions().is_empty());
}

#[test]
fn ps_09_without_a_security_association_the_answer_is_the_ordinary_one() {
    let mut bench = bench();
    bench.register(&register(1, vec![record("10.1.0.0/16", &[ETR])]));
    let stranger = XtrIdentity { xtr_id: 1, site_id: 1 };
    let sent = bench.ask(&subscription(50, "10.1.0.1/32", stranger));
    assert_eq!(rlocs_of(&reply(&sent[0]).records[0]), [ip(ETR)]);
    assert_eq!(bench.discarded(Discard::SubscriptionUnkeyed), 1);
    // So it is without I-bit, and when the ETR answers for itself.
    let mut anonymous = subscription(51, "10.1.1.1/32", XTR);
    anonymous.identity = None;
    bench.advance(5);
    assert_eq!(reply(&bench.ask(&anonymous)[0]).nonce, 51);
    bench.register(
        &register(2, vec![record("10.1.0.0/16", &[ETR])]).edit(|m| m.proxy_reply = false),
    );
    let forwarded = bench.ask(&subscription(52, "10.1.0.1/32", XTR));
    assert_eq!(forwarded[0].destination.ip(), ip(ETR));
    assert!(bench.subscriptions().is_empty());
}

#[test]
fn ps_09_a_subscription_ends_when_an_etr_answers_its_renewal() {
    let mut bench = bench();
    bench.subscribe(40, "10.1.0.0/16");
    bench.site_registers(1, vec![record("10.1.7.0/24", &[ETR])]);
    bench.subscribe(50, "10.1.7.0/24");
    let no_proxy = |nonce| {
        register(nonce, vec![record("10.1.7.0/24", &[OTHER_ETR])]).edit(|m| m.proxy_reply = false)
    };
    let sent = bench.register(&no_proxy(2));
    let published = bench.published(&sent);
    assert_eq!(published[0].nonce, 51, "what changed is published all the same");
    for transmit in sent.iter().filter(|transmit| transmit.destination.ip() == ip(ITR)) {
        bench.acknowledge(transmit);
    }
    // A copy of an earlier one ends nothing.
    bench.ask(&subscription(50, "10.1.7.0/24", XTR));
    assert_eq!(bench.subscriptions().len(), 2);
    let sent = bench.ask(&subscription(52, "10.1.7.0/24", XTR));
    assert_eq!(sent[0].destination.ip(), ip(OTHER_ETR), "the ETR is to answer");
    let left: Vec<_> = bench.subscriptions().iter().map(|view| view.prefix).collect();
    assert_eq!(left, [eid_prefix("10.1.0.0/16")]);
    let published = bench.site_registers(3, vec![record("10.1.7.0/24", &[ETR])]);
    assert_eq!(published.len(), 1);
    assert!(published[0].nonce < 50, "by the subscription that is left");
}

#[test]
fn ps_10_a_subscription_to_a_hole_is_temporary_and_learns_what_appears_in_it() {
    let mut bench = bench();
    let hole = bench.subscribe(50, "10.200.0.1/32");
    assert_eq!(shown(&hole), [("10.128.0.0/9".to_owned(), 15, Vec::new())]);
    assert_eq!(hole.records[0].action, Action::NativelyForward);
    assert_eq!(bench.subscriptions()[0].ends_seconds, Some(TEMPORARY_SUBSCRIPTION.as_secs()));
    // A configured prefix that nobody registered yet.
    let silent = bench.subscribe(51, "10.2.0.1/32");
    assert_eq!(shown(&silent), [("10.2.0.0/16".to_owned(), 15, Vec::new())]);
    let moved = register(1, vec![record("10.2.0.0/16", &[OTHER_ETR])])
        .signed_by("secret-b")
        .edit(|message| message.use_ttl = true);
    let sent = bench.register(&moved);
    let published = bench.published(&sent);
    assert_eq!(shown(&published[0]), mapping("10.2.0.0/16", OTHER_ETR));
    sent.iter().filter(|t| t.destination.ip() == ip(ITR)).for_each(|t| drop(bench.acknowledge(t)));
    assert_eq!(bench.subscriptions()[1].prefix, eid_prefix("10.128.0.0/9"));
    assert_eq!(bench.subscriptions()[0].ends_seconds, None, "it exists now");
    bench.advance(TEMPORARY_SUBSCRIPTION.as_secs() - 1);
    let expired = bench.subscriptions();
    assert_eq!(expired.len(), 2);
    bench.advance(1);
    assert_eq!(bench.subscriptions().len(), 1, "the one to the hole has ended");
}

#[test]
fn ps_10_the_lifetime_is_configurable() {
    let mut config = with_subscribers();
    config.subscriptions =
        SubscriptionLimits { lifetime: Duration::from_secs(120), ..config.subscriptions };
    let mut bench = bench_of(config);
    assert_eq!(bench.subscribe(50, "10.200.0.1/32").records[0].ttl_minutes, 2);
    bench.advance(120);
    assert!(bench.subscriptions().is_empty());
}

#[test]
fn ps_16_unsubscription_ends_it_and_is_confirmed_to_its_source() {
    let mut bench = bench();
    bench.site_registers(1, vec![record("10.1.0.0/16", &[ETR])]);
    bench.subscribe(50, "10.1.0.1/32");
    let sent = bench.ask(&unsubscription(51, "10.1.0.0/16", XTR));
    let [only] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((only.destination.ip(), verified(only).nonce), (ip(ITR), 51));
    assert!(bench.subscriptions().is_empty());
    assert!(bench.site_registers(2, vec![record("10.1.0.0/16", &[OTHER_ETR])]).is_empty());
    assert_eq!(&bench.advance(3)[..], std::slice::from_ref(only), "repeated until acknowledged");
    bench.acknowledge(only);
    assert!(bench.advance(60).is_empty());
    // It may have been lost: asking again is confirmed again.
    assert_eq!(bench.ask(&unsubscription(52, "10.1.0.0/16", XTR)).len(), 1);
}

#[test]
fn ps_16_what_is_on_its_way_ends_with_the_subscription() {
    let mut bench = bench();
    bench.site_registers(1, vec![record("10.1.0.0/16", &[ETR])]);
    bench.subscribe(50, "10.1.0.1/32");
    bench.register(&register(2, vec![record("10.1.0.0/16", &[OTHER_ETR])]));
    let sent = bench.ask(&unsubscription(60, "10.1.0.0/16", XTR));
    bench.acknowledge(&sent[0]);
    assert!(bench.advance(100).is_empty());
}

#[test]
fn ps_17_the_last_nonce_outlives_the_subscription() {
    let mut bench = bench();
    bench.site_registers(1, vec![record("10.1.0.0/16", &[ETR])]);
    bench.subscribe(50, "10.1.0.1/32");
    bench.ask(&unsubscription(51, "10.1.0.0/16", XTR));
    assert!(bench.ask(&subscription(50, "10.1.0.1/32", XTR)).is_empty());
    assert!(bench.ask(&subscription(51, "10.1.0.1/32", XTR)).is_empty());
    assert_eq!(bench.discarded(Discard::SubscriptionReplayed), 2);
    bench.subscribe(52, "10.1.0.1/32");
}

#[test]
fn ps_18_a_muted_more_specific_is_not_published_until_it_is_subscribed() {
    let mut bench = bench();
    bench.site_registers(1, vec![record("10.1.0.0/16", &[ETR])]);
    bench.subscribe(50, "10.1.0.1/32");
    let sent = bench.ask(&subscription(70, "10.1.0.1/32", OTHER_XTR));
    bench.acknowledge(&sent[0]);
    assert_eq!(bench.ask(&unsubscription(51, "10.1.7.0/24", XTR)).len(), 1);
    let published = bench.site_registers(2, vec![record("10.1.7.0/24", &[OTHER_ETR])]);
    assert_eq!(published.iter().map(|n| n.nonce).collect::<Vec<_>>(), [71], "the other xTR only");
    assert_eq!(bench.site_registers(3, vec![record("10.1.8.0/24", &[OTHER_ETR])]).len(), 2);
    bench.subscribe(52, "10.1.7.1/32");
    assert_eq!(bench.site_registers(4, vec![record("10.1.7.0/24", &[ETR])]).len(), 2);
    // What is muted in it goes with the covering subscription.
    bench.ask(&unsubscription(53, "10.1.9.0/24", XTR));
    bench.ask(&unsubscription(60, "10.1.0.0/16", XTR));
    let left: Vec<_> = bench.subscriptions().iter().map(|s| s.prefix.to_string()).collect();
    assert_eq!(left, ["10.1.0.0/16", "10.1.7.0/24"]);
}

#[test]
fn ps_19_beyond_the_limit_the_answer_is_a_map_reply() {
    let mut config = with_subscribers();
    config.subscriptions.max = 1;
    let mut bench = bench_of(config);
    bench.site_registers(1, vec![record("10.1.0.0/16", &[ETR]), record("10.9.0.0/16", &[ETR])]);
    bench.subscribe(50, "10.1.0.1/32");
    let sent = bench.ask(&subscription(60, "10.9.0.1/32", XTR));
    assert_eq!(reply(&sent[0]).records[0].eid.prefix(), Some(eid_prefix("10.9.0.0/16")));
    assert_eq!(bench.discarded(Discard::SubscriptionLimit), 1);
    bench.subscribe(61, "10.1.0.1/32");
    // What is muted takes room too.
    bench.ask(&unsubscription(62, "10.1.7.0/24", XTR));
    assert_eq!((bench.subscriptions().len(), bench.discarded(Discard::SubscriptionLimit)), (1, 2));
}

#[test]
fn ps_19_publications_are_paced() {
    let mut config = with_subscribers();
    config.subscriptions.notifies_per_second = 10;
    let mut bench = bench_of(config);
    bench.site_registers(1, vec![record("10.1.0.0/16", &[ETR])]);
    bench.subscribe(50, "10.1.0.1/32");
    let records = (0..30).map(|n| record(&format!("10.1.{n}.0/24"), &[OTHER_ETR])).collect();
    let sent = bench.register(&register(2, records));
    let at_once = bench.published(&sent).len();
    assert!(at_once <= 10, "{at_once}");
    let sent = bench.advance(1);
    let later = bench.published(&sent).len();
    assert!((9..=11).contains(&later), "{later} in a second");
    let sent = bench.advance(2);
    assert!(bench.published(&sent).len() + later + at_once >= 30);
    assert_eq!(bench.server.subscriptions.queued(), 0);
}

#[test]
fn ps_20_another_itr_rloc_is_tried() {
    let mut bench = bench();
    bench.register(&register(1, vec![record("10.9.0.0/16", &[ETR])]));
    let mut two = subscription(50, "10.9.0.1/32", XTR);
    two.itr_rlocs = vec![Address::from(ip(ITR)), Address::from(ip(SECOND_RLOC))];
    let first = bench.ask(&two).remove(0);
    assert_eq!(first.destination.ip(), ip(ITR));
    let sent = bench.advance(100);
    let second: Vec<_> =
        sent.iter().filter(|t| t.destination.ip() == ip(SECOND_RLOC)).cloned().collect();
    assert_eq!(sent.iter().filter(|t| t.destination.ip() == ip(ITR)).count(), 6);
    assert_eq!(second[0].payload, first.payload, "the same octets");
    bench.acknowledge(&second[0]);
    assert_eq!(bench.server.subscriptions.pending(), 0);
    assert_eq!(bench.subscriptions().len(), 1);
}

#[test]
fn ms_09_acknowledgements_of_others_change_nothing() {
    let mut bench = bench();
    bench.register(&register(1, vec![record("10.9.0.0/16", &[ETR])]));
    let sent = bench.ask(&subscription(50, "10.9.0.1/32", XTR));
    bench.input(ITR, CONTROL_PORT, &acknowledgement(&sent[0], "guess"));
    assert_eq!(bench.discarded(Discard::AuthenticationFailed), 1);
    assert_eq!(bench.server.subscriptions.pending(), 1);
}

/// Frame 7 of `lispers-pubsub-encrreg.pcap`: xTR-ID without Site-ID, no authentication, no inner UDP checksum.
const LISPERS_NET: &str = "800000004500005e000000008011df5aac10010aac10020af03610f6004a0000\
    1010010182fe45f4802221610001ac10010a00010a4d02020002fd77000200000000000000000000000280200001ac10020abf1362a16f43c31389351c5520553b37";

#[test]
fn ps_01_lispers_net_subscribes_without_site_id_where_its_profile_says_so() {
    let octets: Vec<u8> = (0..LISPERS_NET.len() / 2)
        .map(|at| u8::from_str_radix(&LISPERS_NET[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    let mapping_of = |rloc| vec![record("172.16.2.0/24", &[rloc])];
    let bench_with = |profile| {
        let mut config = with_subscribers();
        let prefix =
            SitePrefix { prefix: eid_prefix("172.16.2.0/24"), accept_more_specifics: false };
        config.sites[0].eid_prefixes.push(prefix);
        config.clients = vec![Client {
            prefix: "0.0.0.0/0".parse().unwrap(),
            profile,
            plain_map_requests: false,
        }];
        let mut bench = bench_of(config);
        bench.register(&register(1, mapping_of(ETR)).edit(|message| message.use_ttl = true));
        bench
    };
    let mut strict = bench_with(Profile::Rfc9301);
    assert!(strict.input("10.77.2.2", 51_908, &octets).is_empty());
    let mut bench = bench_with(Profile::LispersNet);
    let sent = bench.input("10.77.2.2", 51_908, &octets);
    let [only] = &sent[..] else { panic!("{sent:?}") };
    let message = notify(only);
    assert_eq!((message.nonce, message.authentication.algorithm_id), (0x82fe_45f4_8022_2161, 0));
    assert_eq!(only.destination, SocketAddr::new(ip("10.77.2.2"), 61_494), "where it listens");
    bench.advance(200);
    assert_eq!(bench.subscriptions().len(), 1, "it acknowledges nothing");
    let sent = bench.register(&register(2, mapping_of(OTHER_ETR)));
    let published = sent.iter().find(|t| t.destination.ip() == ip("10.77.2.2")).unwrap();
    assert_eq!(rlocs_of(&notify(published).records[0]), [ip(OTHER_ETR)]);
}
