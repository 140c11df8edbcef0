//! DD-01, DD-10 to DD-20: how a DDT client finds its way.

use super::*;
use crate::ddt::cache::{Kind, Origin};
use crate::ddt::client::{Client, Failure, Negative};
use crate::discard::Discard;
use crate::resolver::{Lookup, OwnAddresses};
use crate::timers::{
    DDT_TRIES, MAX_REFERRALS, PENDING_LOOKUPS_PER_NONCE, PENDING_LOOKUPS_PER_SOURCE,
};
use crate::wire::{ReferralSignature, Tolerance};

const ROOT: &str = "192.0.2.1";
const ROOT2: &str = "192.0.2.2";
const NODE: &str = "192.0.2.11";
const MAP_SERVER: &str = "192.0.2.101";
const MAP_SERVER2: &str = "192.0.2.102";
/// LISP-SEC data as an ITR sends it, with an EID-AD of 4 octets (RFC 9303 §6.4).
pub(super) const SECURITY: &[u8] = &[
    1, 0, 0, 2, 0, 24, 1, 2, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 1, 2, 3, 4, 5, 6, 7,
    8, 9, 10, 11, 12, 13, 14, 15, 16, 0, 4, 0, 2,
];

struct Bench {
    client: Client,
    now: Instant,
}

impl Bench {
    fn new(roots: &[&str]) -> Self {
        Self::with(DdtConfig { resolver: true, roots: ips(roots), ..DdtConfig::default() })
    }

    fn with(config: DdtConfig) -> Self {
        Self { client: Client::new(&config, ips(&[RESOLVER])), now: Instant::now() }
    }

    fn lookup(nonce: u64, eid: &str, security: Option<&[u8]>) -> Lookup {
        let own = OwnAddresses::new(ips(&[RESOLVER]));
        let ecm = ecm(nonce, host(eid), ITR);
        let mut lookup = Lookup::new(ecm, &own, ip(RESOLVER), Tolerance::default()).unwrap();
        lookup.security = security.map(<[u8]>::to_vec);
        lookup
    }

    fn ask(&mut self, nonce: u64, eid: &str) -> Vec<Transmit> {
        self.ask_secured(nonce, eid, None)
    }

    fn ask_secured(&mut self, nonce: u64, eid: &str, security: Option<&[u8]>) -> Vec<Transmit> {
        let lookup = Self::lookup(nonce, eid, security);
        self.client.handle_request(self.now, ip(ITR), lookup, host(eid)).unwrap();
        self.sent()
    }

    fn hear(&mut self, from: &str, nonce: u64, record: ReferralRecord) -> Vec<Transmit> {
        let refused = self.hear_refused(from, nonce, record);
        assert_eq!(refused, [], "from {from}");
        self.sent()
    }

    fn hear_refused(&mut self, from: &str, nonce: u64, record: ReferralRecord) -> Vec<Discard> {
        let referral = MapReferral { nonce, records: vec![record] };
        self.client.handle_referral(self.now, ip(from), true, &referral)
    }

    fn sent(&mut self) -> Vec<Transmit> {
        std::iter::from_fn(|| self.client.poll_transmit()).collect()
    }

    fn wait(&mut self, period: Duration) -> Vec<Transmit> {
        let end = self.now + period;
        let mut sent = Vec::new();
        while let Some(at) = self.client.poll_timeout().filter(|at| *at <= end) {
            self.now = at;
            self.client.handle_timeout(at);
            sent.extend(self.sent());
        }
        self.now = end;
        sent
    }

    fn negative(&mut self) -> Option<(EidPrefix, u32)> {
        let Negative { prefix, ttl_minutes, .. } = self.client.poll_negative()?;
        Some((prefix, ttl_minutes))
    }

    fn failure(&mut self) -> Option<Discard> {
        let Failure { reason, .. } = self.client.poll_failure()?;
        Some(reason)
    }

    fn cached(&self, text: &str) -> Option<Kind> {
        let about = Some(prefix(text));
        self.client.cache().iter().find(|entry| entry.prefix == about).map(|entry| entry.kind)
    }

    fn pending(&self) -> usize {
        self.client.pending().len()
    }
}

fn node_referral(about: &str, rlocs: &[&str]) -> ReferralRecord {
    record(ReferralAction::NodeReferral, prefix(about), 1_440, rlocs)
}

fn ms_referral(about: &str, rlocs: &[&str]) -> ReferralRecord {
    record(ReferralAction::MsReferral, prefix(about), 1_440, rlocs)
}

fn ms_ack(about: &str, rlocs: &[&str]) -> ReferralRecord {
    record(ReferralAction::MsAck, prefix(about), 1_440, rlocs)
}

fn not_registered(about: &str) -> ReferralRecord {
    record(ReferralAction::MsNotRegistered, prefix(about), 1, &[MAP_SERVER])
}

fn hole(about: &str) -> ReferralRecord {
    record(ReferralAction::DelegationHole, prefix(about), 15, &[])
}

fn destinations(sent: &[Transmit]) -> Vec<IpAddr> {
    sent.iter().map(|transmit| transmit.destination.ip()).collect()
}

#[test]
fn dd_01_the_original_map_request_goes_out_with_the_d_bit_and_without_authentication_data() {
    let mut bench = Bench::new(&[ROOT]);
    let sent = bench.ask_secured(7, "10.1.2.3", Some(SECURITY));
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].destination, SocketAddr::new(ip(ROOT), CONTROL_PORT));
    assert_eq!(sent[0].source, ip(RESOLVER));
    let request = ddt_request(&sent[0]);
    let original = ecm(7, host("10.1.2.3"), ITR);
    assert_eq!(request.security, None);
    assert_eq!(request.message, original.message, "octet for octet");
    assert_eq!((request.source, request.destination), (original.source, original.destination));
}

#[test]
fn dd_10_referrals_are_cached_for_their_ttl() {
    let mut bench = Bench::new(&[ROOT]);
    bench.ask(1, "10.1.2.3");
    let mut referral = node_referral("10.0.0.0/8", &[NODE]);
    referral.ttl_minutes = 2;
    bench.hear(ROOT, 1, referral);
    assert_eq!(bench.cached("10.0.0.0/8"), Some(Kind::Node));
    assert_eq!(destinations(&bench.ask(2, "10.9.9.9")), ips(&[NODE]), "not by the root again");
    bench.wait(seconds(119));
    assert_eq!(bench.cached("10.0.0.0/8"), Some(Kind::Node));
    bench.wait(seconds(1));
    assert_eq!(bench.cached("10.0.0.0/8"), None);
    assert_eq!(destinations(&bench.ask(3, "10.8.8.8")), ips(&[ROOT]));
}

#[test]
fn dd_10_no_referral_is_kept_longer_than_a_day() {
    let mut bench = Bench::new(&[ROOT]);
    bench.ask(1, "10.1.2.3");
    let mut referral = node_referral("10.0.0.0/8", &[NODE]);
    referral.ttl_minutes = u32::MAX;
    bench.hear(ROOT, 1, referral);
    bench.wait(seconds(86_400));
    assert_eq!(bench.cached("10.0.0.0/8"), None);
}

#[test]
fn dd_10_an_incomplete_referral_is_followed_but_not_cached() {
    let mut bench = Bench::new(&[ROOT]);
    bench.ask(1, "10.1.2.3");
    let mut referral = ms_referral("10.0.0.0/8", &[MAP_SERVER]);
    referral.incomplete = true;
    assert_eq!(destinations(&bench.hear(ROOT, 1, referral)), ips(&[MAP_SERVER]));
    let mut ack = ms_ack("10.1.0.0/16", &[MAP_SERVER]);
    ack.incomplete = true;
    bench.hear(MAP_SERVER, 1, ack);
    assert_eq!((bench.client.cache().len(), bench.pending()), (0, 0));
}

#[test]
fn dd_10_the_cache_begins_with_the_configured_entries() {
    let mut bench = Bench::with(DdtConfig {
        resolver: true,
        roots: ips(&[ROOT]),
        hints: vec![delegation("10.0.0.0/8", &[NODE], false)],
        delegations: vec![delegation("10.1.0.0/16", &[MAP_SERVER], true)],
        ..DdtConfig::default()
    });
    assert_eq!(destinations(&bench.ask(1, "11.0.0.1")), ips(&[ROOT]));
    assert_eq!(destinations(&bench.ask(2, "10.0.0.1")), ips(&[NODE]));
    assert_eq!(destinations(&bench.ask(3, "10.1.0.1")), ips(&[MAP_SERVER]));
    let origins: Vec<_> = bench.client.cache().iter().map(|entry| entry.origin).collect();
    assert_eq!(origins, [Origin::Root, Origin::Root, Origin::Hint]);
}

/// Whoever asks knows the nonce, and may know a node's address: what it sends in its name must not answer others.
#[test]
fn dd_10_what_anybody_may_have_sent_is_followed_but_not_cached() {
    let mut bench = Bench::new(&[ROOT]);
    bench.ask(1, "10.1.2.3");
    let records = vec![node_referral("10.0.0.0/8", &[NODE])];
    let referral = MapReferral { nonce: 1, records };
    assert_eq!(bench.client.handle_referral(bench.now, ip(ROOT), false, &referral), []);
    assert_eq!(destinations(&bench.sent()), ips(&[NODE]));
    assert_eq!(bench.cached("10.0.0.0/8"), None);
}

#[test]
fn dd_11_without_a_match_the_answer_is_negative_at_once() {
    let mut bench = Bench::with(DdtConfig {
        resolver: true,
        hints: vec![delegation("10.0.0.0/8", &[NODE], false)],
        ..DdtConfig::default()
    });
    assert!(bench.ask(1, "192.168.0.1").is_empty());
    assert_eq!(bench.negative(), Some((prefix("128.0.0.0/1"), 15)));
    assert_eq!(bench.pending(), 0);
}

#[test]
fn dd_11_a_negative_match_is_answered_at_once_for_the_time_that_is_left() {
    let mut bench = Bench::new(&[ROOT]);
    bench.ask(1, "10.1.2.3");
    bench.hear(ROOT, 1, hole("10.0.0.0/8"));
    assert_eq!(bench.negative(), Some((prefix("10.0.0.0/8"), 15)));
    bench.wait(seconds(600));
    assert!(bench.ask(2, "10.200.0.1").is_empty());
    assert_eq!(bench.negative(), Some((prefix("10.0.0.0/8"), 5)));
    bench.wait(seconds(300));
    assert_eq!(destinations(&bench.ask(3, "10.200.0.1")), ips(&[ROOT]));
}

#[test]
fn dd_12_only_longer_prefixes_are_followed() {
    for about in ["10.0.0.0/8", "8.0.0.0/5"] {
        let mut bench = Bench::new(&[ROOT]);
        bench.ask(1, "10.1.2.3");
        bench.hear(ROOT, 1, node_referral("10.0.0.0/8", &[NODE]));
        let back = node_referral(about, &[ROOT2]);
        assert_eq!(bench.hear_refused(NODE, 1, back), [Discard::ReferralLoop]);
        assert!(bench.sent().is_empty(), "{about}: the root was asked already");
        assert_eq!(bench.negative(), Some((host("10.1.2.3"), 1)));
        assert_eq!(bench.client.cache().len(), 1, "the loop is not cached");
        assert_eq!(bench.pending(), 0);
    }
}

#[test]
fn dd_12_a_loop_behind_a_cached_referral_is_searched_again_from_the_root() {
    let mut bench = Bench::new(&[ROOT]);
    bench.ask(1, "10.1.2.3");
    bench.hear(ROOT, 1, node_referral("10.0.0.0/8", &[NODE]));
    bench.hear(NODE, 1, ms_ack("10.1.0.0/16", &[NODE]));
    assert_eq!(destinations(&bench.ask(2, "10.2.0.1")), ips(&[NODE]));
    bench.hear(NODE, 2, node_referral("10.2.0.0/16", &[ROOT2]));
    let looped = bench.hear_refused(ROOT2, 2, node_referral("10.2.0.0/16", &[NODE]));
    assert_eq!(looped, [Discard::ReferralLoop]);
    assert_eq!(destinations(&bench.sent()), ips(&[ROOT]));
    assert_eq!(bench.cached("10.0.0.0/8"), None, "what led there is forgotten");
}

#[test]
fn dd_12_a_node_is_not_believed_beyond_what_it_was_asked_about() {
    let mut bench = Bench::with(DdtConfig {
        resolver: true,
        hints: vec![delegation("10.0.0.0/8", &[NODE], false)],
        ..DdtConfig::default()
    });
    bench.ask(1, "10.1.2.3");
    assert!(bench.hear_refused(NODE, 1, hole("0.0.0.0/0")).contains(&Discard::ReferralMismatch));
    assert_eq!(bench.client.cache().len(), 0);
    assert_eq!(bench.negative(), None);
}

#[test]
fn dd_12_referrals_that_answer_nothing_are_refused() {
    let mut bench = Bench::new(&[ROOT]);
    bench.ask(1, "10.1.2.3");
    let good = || node_referral("10.0.0.0/8", &[NODE]);
    assert_eq!(bench.hear_refused(ROOT, 2, good()), [Discard::NonceUnknown]);
    assert_eq!(bench.hear_refused(ROOT2, 1, good()), [Discard::ReferralNotAsked]);
    let elsewhere = node_referral("11.0.0.0/8", &[NODE]);
    assert_eq!(bench.hear_refused(ROOT, 1, elsewhere), [Discard::ReferralMismatch]);
    let other_instance =
        record(ReferralAction::NodeReferral, in_instance(3, "10.0.0.0/8"), 1_440, &[NODE]);
    assert_eq!(bench.hear_refused(ROOT, 1, other_instance), [Discard::ReferralMismatch]);
    let unassigned = record(ReferralAction::Unassigned(6), prefix("10.0.0.0/8"), 1, &[NODE]);
    assert_eq!(bench.hear_refused(ROOT, 1, unassigned), [Discard::ReferralUnusable]);
    assert!(bench.sent().is_empty() && bench.client.cache().len() == 0);
    assert_eq!(destinations(&bench.hear(ROOT, 1, good())), ips(&[NODE]), "still waiting");
}

#[test]
fn dd_12_a_referral_without_a_usable_rloc_is_not_followed() {
    for rloc in ["224.0.0.1", "127.0.0.1", RESOLVER, "2001:db8::1", "0.0.0.0"] {
        let mut bench = Bench::new(&[ROOT]);
        bench.ask(1, "10.1.2.3");
        bench.hear_refused(ROOT, 1, node_referral("10.0.0.0/8", &[rloc]));
        assert_eq!(bench.failure(), Some(Discard::ReferralUnusable), "{rloc}");
        assert_eq!((bench.pending(), bench.client.cache().len()), (0, 0));
    }
}

#[test]
fn dd_13_map_servers_get_the_lisp_sec_data_and_nodes_do_not() {
    let mut bench = Bench::new(&[ROOT]);
    bench.ask_secured(1, "10.1.2.3", Some(SECURITY));
    let to_node = bench.hear(ROOT, 1, node_referral("10.0.0.0/8", &[NODE]));
    assert_eq!(ddt_request(&to_node[0]).security, None);
    let to_map_server = bench.hear(NODE, 1, ms_referral("10.1.0.0/16", &[MAP_SERVER]));
    assert_eq!(ddt_request(&to_map_server[0]).security.as_deref(), Some(SECURITY));
    bench.hear(MAP_SERVER, 1, ms_ack("10.1.2.0/24", &[MAP_SERVER]));
    assert_eq!(bench.pending(), 0);
    let from_cache = bench.ask_secured(2, "10.1.2.4", Some(SECURITY));
    assert_eq!(ddt_request(&from_cache[0]).security.as_deref(), Some(SECURITY));
}

#[test]
fn dd_14_an_ack_ends_the_lookup_unless_the_lisp_sec_data_was_not_sent_yet() {
    let mut bench = Bench::new(&[ROOT]);
    bench.ask(1, "10.1.2.3");
    assert!(bench.hear(ROOT, 1, ms_ack("10.1.0.0/16", &[ROOT])).is_empty());
    assert_eq!(bench.pending(), 0);
    let mut bench = Bench::new(&[ROOT]);
    bench.ask_secured(2, "10.1.2.3", Some(SECURITY));
    let again = bench.hear(ROOT, 2, ms_ack("10.1.0.0/16", &[ROOT]));
    assert_eq!(destinations(&again), ips(&[ROOT]));
    assert_eq!(ddt_request(&again[0]).security.as_deref(), Some(SECURITY));
    assert_eq!(bench.pending(), 1);
    assert!(bench.hear(ROOT, 2, ms_ack("10.1.0.0/16", &[ROOT])).is_empty());
    assert_eq!(bench.pending(), 0);
    assert_eq!(bench.cached("10.1.0.0/16"), Some(Kind::Acknowledged));
}

#[test]
fn dd_15_other_map_servers_are_tried_before_the_negative_answer() {
    let mut bench = Bench::new(&[ROOT]);
    bench.ask(2, "10.1.2.3");
    let sent = bench.hear(ROOT, 2, ms_referral("10.0.0.0/8", &[MAP_SERVER, MAP_SERVER2]));
    assert_eq!(destinations(&sent), ips(&[MAP_SERVER]));
    let sent = bench.hear(MAP_SERVER, 2, not_registered("10.1.2.0/24"));
    assert_eq!(destinations(&sent), ips(&[MAP_SERVER2]));
    assert_eq!(bench.negative(), None);
    assert!(bench.hear(MAP_SERVER2, 2, not_registered("10.1.2.0/24")).is_empty());
    assert_eq!(bench.negative(), Some((prefix("10.1.2.0/24"), 1)));
    assert_eq!(bench.cached("10.1.2.0/24"), Some(Kind::NotRegistered));
    assert!(bench.ask(3, "10.1.2.4").is_empty());
    assert_eq!(bench.negative(), Some((prefix("10.1.2.0/24"), 1)));
    bench.wait(seconds(60));
    assert!(!bench.ask(4, "10.1.2.4").is_empty(), "a minute is over");
}

#[test]
fn dd_15_a_second_map_server_may_know_the_registration() {
    let mut bench = Bench::new(&[ROOT]);
    bench.ask(2, "10.1.2.3");
    bench.hear(ROOT, 2, ms_referral("10.0.0.0/8", &[MAP_SERVER, MAP_SERVER2]));
    bench.hear(MAP_SERVER, 2, not_registered("10.1.2.0/24"));
    bench.hear(MAP_SERVER2, 2, ms_ack("10.1.2.0/24", &[MAP_SERVER2]));
    assert_eq!((bench.pending(), bench.negative()), (0, None));
}

#[test]
fn dd_15_a_silent_map_server_does_not_keep_the_negative_answer_back() {
    let mut bench = Bench::new(&[ROOT]);
    bench.ask(2, "10.1.2.3");
    bench.hear(ROOT, 2, ms_referral("10.0.0.0/8", &[MAP_SERVER, MAP_SERVER2]));
    bench.hear(MAP_SERVER, 2, not_registered("10.1.2.0/24"));
    bench.wait(seconds(u64::from(DDT_TRIES)));
    assert_eq!(bench.negative(), Some((prefix("10.1.2.0/24"), 1)));
    assert_eq!(bench.failure(), None);
}

#[test]
fn dd_16_a_hole_is_answered_and_kept_for_a_quarter_of_an_hour() {
    let mut bench = Bench::new(&[ROOT]);
    bench.ask(1, "10.1.2.3");
    bench.hear(ROOT, 1, hole("10.0.0.0/12"));
    assert_eq!(bench.negative(), Some((prefix("10.0.0.0/12"), 15)));
    assert_eq!(bench.cached("10.0.0.0/12"), Some(Kind::Hole));
    assert_eq!(bench.pending(), 0);
    bench.wait(seconds(900));
    assert_eq!(bench.cached("10.0.0.0/12"), None);
}

#[test]
fn dd_17_after_old_referrals_the_search_begins_at_the_root_again() {
    let mut bench = Bench::new(&[ROOT]);
    bench.ask(1, "10.1.2.3");
    bench.hear(ROOT, 1, ms_referral("10.0.0.0/8", &[MAP_SERVER]));
    bench.hear(MAP_SERVER, 1, ms_ack("10.1.0.0/16", &[MAP_SERVER]));
    assert_eq!(destinations(&bench.ask(2, "10.2.0.1")), ips(&[MAP_SERVER]));
    let mut lame = record(ReferralAction::NotAuthoritative, host("10.2.0.1"), 0, &[]);
    lame.incomplete = true;
    let reasons = bench.hear_refused(MAP_SERVER, 2, lame.clone());
    assert_eq!(reasons, [Discard::ReferralNotAuthoritative]);
    assert_eq!(destinations(&bench.sent()), ips(&[ROOT]));
    assert_eq!(bench.cached("10.0.0.0/8"), None);
    bench.hear(ROOT, 2, ms_referral("10.2.0.0/16", &[MAP_SERVER2]));
    bench.hear_refused(MAP_SERVER2, 2, lame);
    assert!(bench.sent().is_empty());
    assert_eq!((bench.pending(), bench.negative()), (0, None), "silently");
    assert_eq!(bench.failure(), Some(Discard::ReferralNotAuthoritative));
}

#[test]
fn dd_18_the_next_rloc_is_asked_and_in_the_end_nobody_is_answered() {
    let mut bench = Bench::new(&[ROOT, ROOT2]);
    let mut asked = destinations(&bench.ask(2, "10.1.2.3"));
    asked.extend(destinations(&bench.wait(seconds(60))));
    let turns = [ROOT, ROOT2].repeat(DDT_TRIES as usize);
    assert_eq!(asked, ips(&turns));
    assert_eq!((bench.pending(), bench.negative()), (0, None));
    assert_eq!(bench.failure(), Some(Discard::DdtUnanswered));
    assert_eq!(bench.client.poll_timeout(), None);
}

#[test]
fn dd_18_a_dead_node_is_asked_last_by_the_next_lookup() {
    let mut bench = Bench::new(&[ROOT, ROOT2]);
    assert_eq!(destinations(&bench.ask(2, "10.1.2.3")), ips(&[ROOT]));
    assert_eq!(destinations(&bench.wait(seconds(1))), ips(&[ROOT2]));
    bench.hear(ROOT2, 2, ms_referral("10.0.0.0/8", &[MAP_SERVER]));
    assert_eq!(destinations(&bench.ask(4, "11.0.0.1")), ips(&[ROOT2]));
    bench.hear(ROOT2, 4, hole("11.0.0.0/8"));
    bench.wait(seconds(61));
    assert_eq!(destinations(&bench.ask(6, "12.0.0.1")), ips(&[ROOT]), "given another chance");
}

#[test]
fn dd_18_lower_priorities_are_asked_first_and_255_never() {
    let mut bench = Bench::new(&[ROOT]);
    bench.ask(3, "10.1.2.3");
    let mut referral = ms_referral("10.0.0.0/8", &[MAP_SERVER, MAP_SERVER2, NODE]);
    referral.referrals[0].priority = 255;
    referral.referrals[1].priority = 9;
    let mut asked = destinations(&bench.hear(ROOT, 3, referral));
    asked.extend(destinations(&bench.wait(seconds(60))));
    assert_eq!(asked, ips(&[NODE, MAP_SERVER2].repeat(DDT_TRIES as usize)));
}

#[test]
fn dd_19_the_referrals_of_one_lookup_are_bounded() {
    let mut bench = Bench::new(&[ROOT]);
    bench.ask(1, "2001:db8::1");
    let (mut from, mut followed) = (ROOT.to_owned(), 0);
    for length in 1..=128 {
        let about =
            EidPrefix::new(InstanceId::DEFAULT, format!("2001:db8::1/{length}").parse().unwrap());
        let next = format!("192.0.2.{}", 10 + length);
        let referral = record(ReferralAction::NodeReferral, about, 1_440, &[&next]);
        let refused = bench.hear_refused(&from, 1, referral);
        if !refused.is_empty() {
            assert_eq!(refused, [Discard::ReferralLimit]);
            break;
        }
        bench.sent();
        (from, followed) = (next, followed + 1);
    }
    assert_eq!(followed, MAX_REFERRALS);
    assert_eq!(bench.pending(), 0);
}

#[test]
fn dd_19_lookups_under_way_are_bounded_per_client() {
    let mut bench = Bench::new(&[ROOT]);
    for at in 0..PENDING_LOOKUPS_PER_SOURCE {
        bench.ask(at as u64, &format!("10.{}.{}.1", at / 250, at % 250));
    }
    let lookup = Bench::lookup(1 << 40, "11.0.0.1", None);
    let refused = bench.client.handle_request(bench.now, ip(ITR), lookup.clone(), host("11.0.0.1"));
    assert_eq!(refused, Err(Discard::PendingFull));
    let other =
        bench.client.handle_request(bench.now, ip("198.51.100.1"), lookup, host("11.0.0.1"));
    assert_eq!(other, Ok(()), "another client has its own share");
    bench.wait(seconds(60));
    assert_eq!(bench.pending(), 0, "every lookup ends");
    assert!(!bench.ask(2 << 40, "11.0.0.2").is_empty());
}

/// Each record of a Map-Referral is held against all lookups with its nonce.
#[test]
fn dd_19_lookups_under_way_are_bounded_per_nonce() {
    let mut bench = Bench::new(&[ROOT]);
    for at in 0..PENDING_LOOKUPS_PER_NONCE {
        bench.ask(7, &format!("10.1.{at}.1"));
    }
    let lookup = Bench::lookup(7, "11.0.0.1", None);
    let refused = bench.client.handle_request(bench.now, ip(ITR), lookup, host("11.0.0.1"));
    assert_eq!(refused, Err(Discard::PendingFull));
    // A record that is about one of them is no mismatch of the others.
    bench.hear(ROOT, 7, ms_ack("10.1.3.0/24", &[ROOT]));
    assert_eq!(bench.pending(), PENDING_LOOKUPS_PER_NONCE - 1);
    assert_eq!(bench.hear_refused(ROOT, 7, hole("12.0.0.0/8")), [Discard::ReferralMismatch]);
}

#[test]
fn rfc8111_8_1_a_new_request_of_the_itr_replaces_the_old_one() {
    let mut bench = Bench::new(&[ROOT]);
    bench.ask(1, "10.1.2.3");
    assert!(bench.ask(2, "10.1.2.3").is_empty(), "one search is enough");
    assert_eq!(bench.pending(), 1);
    let sent = bench.hear(ROOT, 1, node_referral("10.0.0.0/8", &[NODE]));
    assert_eq!(ddt_request(&sent[0]).map_request().unwrap().nonce, 2);
    bench.hear(NODE, 2, ms_ack("10.1.0.0/16", &[NODE]));
    assert_eq!(bench.pending(), 0);
}

#[test]
fn dd_20_signed_referrals_are_followed_and_their_keys_looked_past() {
    use crate::wire::Lcaf;
    let mut bench = Bench::new(&[ROOT]);
    bench.ask(1, "10.1.2.3");
    let mut referral = node_referral("10.0.0.0/8", &[]);
    let mut body = vec![1, 0, 2, 0, 0, 4, 0xde, 0xad, 0xbe, 0xef, 0, 1];
    body.extend_from_slice(&[192, 0, 2, 11]);
    let key = Lcaf::Unknown { rsvd1: 0, flags: 0, kind: 11, rsvd2: 0, body };
    referral.referrals = vec![LocatorRecord::new(Address::Lcaf(key), 1, 100)];
    referral.signatures = vec![ReferralSignature {
        original_ttl_minutes: 1_440,
        expiration: 1,
        inception: 0,
        key_tag: 7,
        algorithm: 2,
        signature: vec![0xab; 256],
    }];
    let mut wire = Vec::new();
    MapReferral { nonce: 1, records: vec![referral] }.encode(&mut wire);
    let Ok(Message::MapReferral(parsed)) = Message::parse(&wire) else { panic!("no Map-Referral") };
    assert_eq!(parsed.records[0].signatures.len(), 1);
    assert_eq!(bench.client.handle_referral(bench.now, ip(ROOT), true, &parsed), []);
    assert_eq!(destinations(&bench.sent()), ips(&[NODE]));
}

#[test]
fn dd_10_an_ack_without_a_way_to_its_rlocs_is_not_kept() {
    let mut bench = Bench::new(&[ROOT]);
    bench.ask(1, "10.1.2.3");
    bench.hear(ROOT, 1, ms_ack("10.1.0.0/16", &["2001:db8::1", RESOLVER]));
    assert_eq!((bench.pending(), bench.client.cache().len()), (0, 0));
}

#[test]
fn cw_06_a_request_too_long_to_be_passed_on_is_refused() {
    let mut bench = Bench::new(&[ROOT]);
    bench.ask(1, "10.1.2.3");
    for octets in [600, 2_000] {
        let mut lookup = Bench::lookup(2, "10.1.2.3", None);
        lookup.security = Some(vec![0; octets]);
        let taken = bench.client.handle_request(bench.now, ip(ITR), lookup, host("10.1.2.3"));
        assert_eq!(taken.is_ok(), octets == 600);
    }
    let mut other = Bench::lookup(3, "10.9.9.9", None);
    other.ecm.message.resize(700, 0);
    let refused = bench.client.handle_request(bench.now, ip(ITR), other, host("10.9.9.9"));
    assert_eq!(refused, Err(Discard::RequestTooLong), "too long for IPv4");
    assert!(bench.hear(ROOT, 1, ms_referral("10.0.0.0/8", &[MAP_SERVER])).is_empty());
}
