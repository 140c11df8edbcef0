//! A trusted core: versions of own and remote mappings (MV), Locator-Status-Bits (DH-17 to DH-22); `echo_nonce` has the nonces.
use super::*;
use crate::config::{KeptVersion, TrustedCore};
use crate::marks::{HeaderMarks, Nonces, StatusBits, Tag, TrustedMarks};
use mapping::eid::MapVersion;
use mapping::wire::{MapRegister, RequestedEid};

/// Remote locators, both in the core.
pub(super) const A: &str = "198.51.100.20";
pub(super) const B: &str = "198.51.100.21";
pub(super) const SITE: &str = "10.2.0.0/16";
pub(super) const OWN: &str = "10.1.0.0/16";
pub(super) const SECOND: &str = "192.0.2.2";

pub(super) fn core() -> TrustedCore {
    TrustedCore {
        rlocs: ["198.51.100.0/24", "192.0.2.0/24"].map(|net| net.parse().expect("prefix")).into(),
        map_versioning: true,
        status_bits: true,
        echo_nonce: true,
        use_lsb_timer: timers::USE_LSB_TIMER,
        versions: [(prefix(OWN), version(5))].into(),
        kept: BTreeMap::new(),
    }
}

pub(super) fn version(number: u16) -> MapVersion {
    MapVersion::from_bits(number)
}

pub(super) fn versions(source: u16, destination: u16) -> HeaderMarks {
    let tag = Tag::Versions { source: version(source), destination: version(destination) };
    HeaderMarks { tag, status_bits: None }
}

pub(super) fn trusting(core: TrustedCore) -> ControlConfig {
    ControlConfig { trusted_core: Some(core), ..config() }
}

/// Two own RLOCs; the site at version 9 behind two locators.
pub(super) fn node_with(change: impl FnOnce(&mut ControlConfig)) -> Node {
    let mut config = trusting(core());
    config.rlocs = vec![own("a", OWN_V4), own("b", SECOND)];
    change(&mut config);
    let mut node = Node::new(config);
    learn(&mut node, 9);
    node
}

pub(super) fn node() -> Node {
    node_with(|_| {})
}

pub(super) fn site(number: u16) -> EidRecord {
    EidRecord { map_version: number, ..record(SITE, 60, &[A, B]) }
}

pub(super) fn learn(node: &mut Node, number: u16) {
    node.learn("10.2.0.9", vec![site(number)]);
    node.advance(seconds(4));
    node.sent.clear();
}

/// A header that the data plane tells of, of a packet from the site for an own EID.
pub(super) fn hear(node: &mut Node, rloc: &str, marks: HeaderMarks) {
    let punt = Punt::Marked {
        rloc: ip(rloc),
        source: eid("10.2.0.9"),
        destination: ip("10.1.0.5"),
        marks,
    };
    node.control.handle_punt(node.now, &punt);
    node.control.handle_timeout(node.now);
    node.drain();
}

pub(super) fn bits(number: u16, bits: u32) -> HeaderMarks {
    HeaderMarks { status_bits: Some(StatusBits::of_word(bits)), ..versions(number, 5) }
}

pub(super) fn marks(node: &mut Node) -> TrustedMarks {
    std::iter::from_fn(|| node.control.poll_marks()).last().expect("something to tell the workers")
}

pub(super) fn own_version(node: &Node, text: &str) -> u16 {
    let all: BTreeMap<_, _> = node.control.map_versions().collect();
    all[&prefix(text)].get()
}

pub(super) fn smrs(node: &mut Node) -> Vec<(IpAddr, MapRequest)> {
    let sent = node.take_sent().into_iter();
    sent.filter_map(|transmit| match Message::parse(&transmit.payload) {
        Ok(Message::MapRequest(request)) if request.smr => {
            Some((transmit.destination.ip(), request))
        }
        _ => None,
    })
    .collect()
}

pub(super) fn registered(node: &mut Node) -> MapRegister {
    let mut registers = node.take_sent().into_iter().filter_map(|transmit| {
        match Message::parse(&transmit.payload) {
            Ok(Message::MapRegister(register)) => Some(register),
            _ => None,
        }
    });
    registers.next_back().expect("a Map-Register")
}

pub(super) fn nonces(node: &Node, rloc: &str) -> Arc<Nonces> {
    let set = node.set(SITE);
    let marks = set.marks.as_ref().expect("a trusted core");
    let found = marks.trusted.iter().find(|(trusted, _)| *trusted == ip(rloc));
    Arc::clone(&found.expect("a trusted locator").1)
}

/// Probing, with the first probes answered; whoever answers echoes nonces.
pub(super) fn probed() -> Node {
    let config = ControlConfig { probe: Some(Default::default()), ..trusting(core()) };
    let mut node = Node::new(config);
    node.learn("10.2.0.9", vec![site(9)]);
    node.advance(seconds(1));
    answer_probes(&mut node);
    node.advance(seconds(3));
    node.sent.clear();
    node
}

pub(super) fn answer_probes(node: &mut Node) {
    for transmit in node.take_sent() {
        let Ok(Message::MapRequest(request)) = Message::parse(&transmit.payload) else { continue };
        let mut record = site(9);
        for locator in &mut record.locators {
            locator.probed = locator.address.rloc() == Some(transmit.destination.ip());
        }
        let mut reply = MapReply::new(request.nonce, vec![record]);
        (reply.probe, reply.echo_nonce) = (true, true);
        node.receive(transmit.destination, &Message::MapReply(reply));
    }
}

#[test]
fn mv_17_without_a_trusted_core_there_are_no_versions_and_nothing_to_tell() {
    let mut node = Node::new(config());
    learn(&mut node, 9);
    assert!(node.set(SITE).marks.is_none());
    assert!(node.control.poll_marks().is_none());
    hear(&mut node, A, bits(10, 0));
    assert_eq!((node.take_sent().len(), node.destinations(SITE).len()), (0, 2));
    assert_eq!(node.control.map_versions().count(), 0);
}

#[test]
fn mv_04_a_version_begins_as_configured_or_random_and_never_with_0() {
    let node = node();
    assert_eq!(own_version(&node, OWN), 5);
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let control = ControlPlane::new(trusting(core()), Instant::now(), [seed; 32], NONCE_BASE);
        let all: BTreeMap<_, _> = control.map_versions().collect();
        let other = all[&prefix("2001:db8:e001::/48")];
        assert!(!other.is_null());
        assert_eq!(all[&prefix(OWN)].get(), 5, "after a restart, too");
        seen.insert(other.get());
    }
    assert!(seen.len() > 40, "random");
    let null = TrustedCore { versions: [(prefix(OWN), MapVersion::NULL)].into(), ..core() };
    let node = Node::new(trusting(null));
    assert_ne!(own_version(&node, OWN), 0);
}

#[test]
fn mv_03_rp_17_each_change_makes_the_next_version_and_every_record_says_it() {
    let rlocs = vec![own("a", OWN_V4), own("b", SECOND)];
    let config = ControlConfig { rlocs, map_servers: vec![server()], ..trusting(core()) };
    let mut node = Node::new(config);
    let first = |register: MapRegister| {
        let found = register.records.into_iter().find(|r| r.eid.prefix() == Some(prefix(OWN)));
        found.expect("the prefix").map_version
    };
    node.advance(seconds(60));
    assert_eq!(first(registered(&mut node)), 5, "nothing changed");
    node.control.set_own_rloc(node.now, ip(SECOND), false, 0);
    node.drain();
    assert_eq!(first(registered(&mut node)), 6);
    node.control.set_own_rloc(node.now, ip(SECOND), true, 0);
    node.drain();
    assert_eq!(first(registered(&mut node)), 7);
    assert_eq!(marks(&mut node).own.get(&prefix(OWN)).expect("own").version, version(7));
    node.receive(control_port(PEER), &Message::MapRequest(request(1, OWN)));
    let transmit = node.take_one();
    let Ok(Message::MapReply(reply)) = Message::parse(&transmit.payload) else { panic!("a reply") };
    assert_eq!(reply.records[0].map_version, 7);
}

#[test]
fn mv_03_the_version_after_4095_is_1() {
    let last = TrustedCore { versions: [(prefix(OWN), version(4095))].into(), ..core() };
    let mut node = node_with(|config| config.trusted_core = Some(last));
    node.control.set_own_rloc(node.now, ip(SECOND), false, 0);
    node.control.update_own_versions(node.now);
    assert_eq!(own_version(&node, OWN), 1);
}

#[test]
fn rp_17_no_version_without_map_versioning() {
    let mut node = node_with(|config| {
        config.trusted_core = Some(TrustedCore { map_versioning: false, ..core() });
    });
    node.receive(control_port(PEER), &Message::MapRequest(request(1, OWN)));
    let transmit = node.take_one();
    let Ok(Message::MapReply(reply)) = Message::parse(&transmit.payload) else { panic!("a reply") };
    assert_eq!(reply.records[0].map_version, 0);
    assert!(node.set(SITE).marks.as_ref().expect("trusted").version.is_null(), "nor of others");
    assert!(marks(&mut node).own.get(&prefix(OWN)).expect("own").version.is_null());
}

#[test]
fn mv_05_the_version_of_a_mapping_goes_to_the_workers_beside_its_trusted_locators() {
    let mut node = node_with(|config| {
        let only_a = vec![format!("{A}/32").parse().expect("prefix")];
        config.trusted_core = Some(TrustedCore { rlocs: only_a, ..core() });
    });
    let marks = node.set(SITE).marks.clone().expect("a trusted core");
    assert_eq!(marks.version, version(9));
    assert!(marks.nonces(ip(A)).is_some() && marks.nonces(ip(B)).is_none());
    learn_again(&mut node, 10);
    assert_eq!(node.set(SITE).marks.as_ref().expect("trusted").version, version(10));
}

/// The mapping as refreshed by an SMR.
fn learn_again(node: &mut Node, number: u16) {
    let mut smr = MapRequest::new(1, vec![], vec![RequestedEid::new(prefix(OWN))]);
    (smr.smr, smr.dont_map_reply) = (true, true);
    smr.source_eid = Address::from(&mapping::wire::EidField::from(eid("10.2.0.9").host_prefix()));
    node.sent.clear();
    node.receive(control_port(A), &Message::MapRequest(smr));
    node.answer(vec![site(number)]);
    node.advance(seconds(4));
    node.sent.clear();
}

#[test]
fn mv_10_an_itr_with_an_old_version_is_solicited_once_in_three_seconds() {
    let mut node = node();
    for _ in 0..8 {
        hear(&mut node, A, versions(9, 4));
    }
    let sent = smrs(&mut node);
    let [(to, request)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(*to, ip(A));
    assert_eq!(request.source_eid.eid(), Some(prefix(OWN).first()), "what changed");
    assert_eq!(request.records[0].eid.prefix(), Some(prefix(SITE)));
    node.advance(seconds(2));
    hear(&mut node, A, versions(9, 4));
    assert!(smrs(&mut node).is_empty());
    node.advance(seconds(1));
    hear(&mut node, A, versions(9, 4));
    assert_eq!(smrs(&mut node).len(), 1);
    hear(&mut node, A, versions(9, 5));
    hear(&mut node, "203.0.113.9", versions(9, 4));
    node.advance(seconds(4));
    assert!(smrs(&mut node).is_empty(), "the current version, and somebody outside the core");
}

#[test]
fn mv_11_after_ten_smrs_the_itr_is_refused_and_told_every_30_seconds() {
    let mut node = node();
    let mut sent = 0;
    let is_refused = |node: &mut Node| {
        let marks = std::iter::from_fn(|| node.control.poll_marks()).last();
        marks.is_some_and(|marks| marks.refused.contains(&(ip(A), prefix(OWN))))
    };
    while sent < 10 {
        hear(&mut node, A, versions(9, 4));
        sent += smrs(&mut node).len();
        assert!(!is_refused(&mut node), "{sent}");
        node.advance(seconds(1));
    }
    for _ in 0..3 {
        hear(&mut node, A, versions(9, 4));
        node.advance(seconds(1));
    }
    assert!(is_refused(&mut node));
    node.take_sent();
    let mut told = 0;
    for _ in 0..60 {
        hear(&mut node, A, versions(9, 4));
        told += smrs(&mut node).len();
        node.advance(seconds(1));
    }
    assert_eq!(told, 2);
    // Another change gives everybody another chance.
    node.control.set_own_rloc(node.now, ip(SECOND), false, 0);
    node.control.update_own_versions(node.now);
    assert!(marks(&mut node).refused.is_empty());
}

#[test]
fn mv_10_itrs_beyond_the_bound_are_told_too_and_counted() {
    let wide = TrustedCore { rlocs: ["11.0.0.0/8".parse().expect("prefix")].into(), ..core() };
    let mut node = node_with(|config| config.trusted_core = Some(wide));
    let itr =
        |number: usize| std::net::Ipv4Addr::from_bits(0x0b00_0000 + number as u32).to_string();
    for number in 1..=timers::TRACKED_STALE_ITRS {
        hear(&mut node, &itr(number), versions(9, 4));
        if number % 500 == 0 {
            node.advance(seconds(1));
        }
    }
    node.advance(seconds(2));
    node.take_sent();
    let beyond = itr(timers::TRACKED_STALE_ITRS + 1);
    for _ in 0..4 {
        hear(&mut node, &beyond, versions(9, 4));
    }
    assert_eq!(smrs(&mut node).len(), 1, "once in three seconds");
    assert_eq!(node.control.counters_view()["stale_map_versions_untracked"], 4);
}

#[test]
fn mv_12_after_the_ttl_of_the_older_mapping_it_is_refused_without_smr() {
    let mut node = node_with(|config| config.record_ttl_minutes = 2);
    assert!(!marks(&mut node).own.get(&prefix(OWN)).expect("own").refuses_older);
    node.advance(seconds(120));
    assert!(marks(&mut node).own.get(&prefix(OWN)).expect("own").refuses_older);
    node.take_sent();
    hear(&mut node, A, versions(9, 4));
    assert!(smrs(&mut node).is_empty());
    node.control.set_own_rloc(node.now, ip(SECOND), false, 0);
    node.control.update_own_versions(node.now);
    let own = *marks(&mut node).own.get(&prefix(OWN)).expect("own");
    assert!(!own.refuses_older, "there is an older one again");
}

#[test]
fn mv_09_an_impossible_version_is_told_the_operator_at_a_bounded_rate() {
    let mut node = node();
    node.events.clear();
    for _ in 0..5 {
        hear(&mut node, A, versions(9, 6));
        node.advance(seconds(1));
    }
    let told = |event: &&Event| matches!(event, Event::ImpossibleMapVersion { .. });
    assert_eq!(node.events.iter().filter(told).count(), 1);
    assert!(node.take_sent().is_empty(), "and nobody else");
}

#[test]
fn mv_14_a_newer_source_version_has_the_mapping_asked_for_at_a_bounded_rate() {
    let mut node = node();
    for _ in 0..50 {
        hear(&mut node, A, versions(10, 5));
    }
    assert_eq!(node.take_sent().len(), 1);
    let mut node = self::node();
    for source in [9, 8, 0] {
        hear(&mut node, A, versions(source, 5));
    }
    assert!(node.take_sent().is_empty(), "MV-13, MV-15: the current one, an older one, none");
}

#[test]
fn mv_16_mc_30_a_source_that_nobody_asked_for_stays_unknown() {
    let mut node = node();
    let punt = Punt::Marked {
        rloc: ip(A),
        source: eid("10.77.0.1"),
        destination: ip("10.1.0.5"),
        marks: bits(10, 0),
    };
    node.control.handle_punt(node.now, &punt);
    node.drain();
    assert!(node.take_sent().is_empty());
    assert_eq!(
        node.cached(),
        [SITE],
        "nothing is gleaned from packets, so nothing has to be verified"
    );
}

#[test]
fn dh_19_a_cleared_bit_takes_the_locator_out_for_this_prefix_until_it_returns() {
    let mut node = node();
    let other = EidRecord { map_version: 3, ..record("10.3.0.0/16", 60, &[A, B]) };
    node.learn("10.3.0.9", vec![other]);
    assert_eq!(node.destinations(SITE), [A, B]);
    hear(&mut node, A, bits(9, 0b01));
    assert_eq!(node.destinations(SITE), [A]);
    assert_eq!(node.destinations("10.3.0.0/16"), [A, B], "per EID-prefix");
    node.advance(seconds(300));
    assert_eq!(node.destinations(SITE), [A], "only the bit brings it back");
    hear(&mut node, A, bits(9, 0b11));
    assert_eq!(node.destinations(SITE), [A, B]);
    // All of them; and back though the workers have no set to compare with.
    node.advance(seconds(1));
    hear(&mut node, A, bits(9, 0));
    assert_eq!(node.dropped(SITE), crate::drops::DropReason::NoUsableLocator);
    node.advance(seconds(1));
    hear(&mut node, A, bits(9, 0b11));
    assert_eq!(node.destinations(SITE), [A, B]);
}

#[test]
fn dh_17_bits_are_numbered_by_the_place_in_the_map_reply() {
    let mut node = Node::new(trusting(core()));
    // The first locator is none we can use: a name, say. It has its number all the same.
    let mut mapping = record(SITE, 60, &["127.0.0.1", A, B]);
    mapping.map_version = 9;
    node.learn("10.2.0.9", vec![mapping]);
    assert_eq!(node.destinations(SITE), [A, B]);
    hear(&mut node, A, bits(9, 0b101));
    assert_eq!(node.destinations(SITE), [B]);
}

#[test]
fn dh_20_changes_of_bits_act_at_most_once_a_second() {
    let mut node = node();
    hear(&mut node, A, bits(9, 0b01));
    for _ in 0..100 {
        hear(&mut node, A, bits(9, 0b11));
        hear(&mut node, A, bits(9, 0b01));
    }
    assert_eq!(node.destinations(SITE), [A]);
    assert_eq!(node.control.counters_view()["status_bits_changes"], 1);
}

#[test]
fn dh_19_what_went_is_probed_at_once() {
    let mut node = probed();
    hear(&mut node, A, bits(9, 0b01));
    let sent = node.take_sent();
    assert_eq!(sent.iter().filter(|one| one.destination.ip() == ip(B)).count(), 1, "{sent:?}");
}

#[test]
fn dh_21_bits_beside_another_version_say_nothing() {
    let mut node = node();
    hear(&mut node, A, bits(8, 0));
    hear(&mut node, A, HeaderMarks { tag: Tag::None, ..bits(9, 0) });
    hear(&mut node, A, bits(10, 0));
    assert_eq!(node.destinations(SITE), [A, B]);
    // Without Map-Versioning they have to do.
    let mut node = node_with(|config| {
        config.trusted_core = Some(TrustedCore { map_versioning: false, ..core() });
    });
    hear(&mut node, A, HeaderMarks { tag: Tag::None, ..bits(9, 0b10) });
    assert_eq!(node.destinations(SITE), [B]);
}

#[test]
fn dh_21_a_new_version_starts_with_all_locators_up() {
    let mut node = node();
    hear(&mut node, A, bits(9, 0b01));
    learn_again(&mut node, 9);
    assert_eq!(node.destinations(SITE), [A], "the same mapping");
    learn_again(&mut node, 10);
    assert_eq!(node.destinations(SITE), [A, B]);
}

#[test]
fn dh_18_dh_22_own_bits_follow_own_locators_and_rest_when_one_comes_or_goes() {
    let mut node = node();
    let own_bits = |node: &mut Node| marks(node).own.get(&prefix(OWN)).expect("own").status_bits;
    assert_eq!(own_bits(&mut node), Some(StatusBits { bits: 0b11, known: 0b11 }));
    node.control.set_own_rloc(node.now, ip(SECOND), false, 0);
    node.control.update_own_versions(node.now);
    assert_eq!(own_bits(&mut node), Some(StatusBits { bits: 0b01, known: 0b11 }));
    // A locator goes.
    let mut eids = node.control.config.eids.clone();
    eids[0].locator_set = vec!["a".to_owned()];
    node.control.set_configured_mappings(node.now, &eids);
    assert_eq!(own_bits(&mut node), None);
    node.advance(seconds(299));
    assert!(
        node.control.poll_marks().is_none_or(|marks| {
            marks.own.get(&prefix(OWN)).expect("own").status_bits.is_none()
        })
    );
    node.advance(seconds(1));
    assert_eq!(own_bits(&mut node), Some(StatusBits { bits: 0b1, known: 0b1 }));
}

#[test]
fn mv_04_versions_go_on_after_a_restart() {
    let mut node = node();
    node.control.set_own_rloc(node.now, ip(SECOND), false, 0);
    node.control.update_own_versions(node.now);
    let kept = node.control.poll_map_versions().expect("changed");
    assert_eq!(kept[&prefix(OWN)].version, version(6));
    assert!(node.control.poll_map_versions().is_none(), "only changes");
    let again = |kept: BTreeMap<EidPrefix, KeptVersion>, configured: u16| {
        let versions = [(prefix(OWN), version(configured))].into();
        let node = node_with(|config| {
            config.trusted_core = Some(TrustedCore { kept, versions, ..core() });
        });
        own_version(&node, OWN)
    };
    assert_eq!(again(kept.clone(), 5), 22, "both RLOCs are up: another mapping");
    let mut node = self::node();
    let same = node.control.poll_map_versions().expect("changed");
    assert_eq!(again(same.clone(), 1), 5, "the same mapping");
    assert_eq!(again(same.clone(), 100), 100, "a newer one is configured");
    let mut crashed = same;
    crashed.values_mut().for_each(|kept| kept.locators.clear());
    assert_eq!(again(crashed, 5), 21, "what a crash may have lost is skipped");
}

#[test]
fn mv_01_a_host_that_is_here_has_no_version_of_its_own() {
    let mut node = node();
    let local = |text: &str| LocalEid { prefix: prefix(text), locator_set: Vec::new() };
    for text in ["10.1.0.77/32", "10.9.0.7/32"] {
        node.control.set_own_mapping(node.now, OwnMapping::dynamic(local(text)));
    }
    let own = marks(&mut node).own;
    assert!(own.get(&prefix("10.1.0.77/32")).is_none(), "the site's mapping counts");
    assert!(own.get(&prefix("10.9.0.7/32")).expect("no other").version.is_null(), "MV-06");
    assert_eq!(node.control.map_version(&prefix("10.1.0.77/32")), 0, "MS-19 is for sites");
    // An ITR that has the site's old mapping hears of it, whichever host it sends to.
    node.take_sent();
    let punt = Punt::Marked {
        rloc: ip(A),
        source: eid("10.2.0.9"),
        destination: ip("10.1.0.77"),
        marks: versions(9, 4),
    };
    node.control.handle_punt(node.now, &punt);
    node.drain();
    assert_eq!(smrs(&mut node).len(), 1);
}

#[test]
fn mv_04_a_newer_version_that_is_configured_at_run_time_is_taken_over() {
    let mut node = node();
    let configured = |number: u16| {
        let versions = [(prefix(OWN), version(number))].into();
        let mut config = trusting(TrustedCore { versions, ..core() });
        config.rlocs = vec![own("a", OWN_V4), own("b", SECOND)];
        config
    };
    node.control.reconfigure(node.now, &configured(40));
    assert_eq!(own_version(&node, OWN), 40);
    node.control.reconfigure(node.now, &configured(30));
    assert_eq!(own_version(&node, OWN), 40, "none goes back");
    assert_eq!(marks(&mut node).own.get(&prefix(OWN)).expect("own").version, version(40));
}

#[test]
fn mv_12_own_mappings_that_come_and_go_leave_no_timers_behind() {
    let mut node = node();
    let host = LocalEid { prefix: prefix("10.9.0.7/32"), locator_set: Vec::new() };
    for round in 0..50 {
        node.control.set_own_mapping(node.now, OwnMapping::dynamic(host.clone()));
        node.control.set_own_rloc(node.now, ip(SECOND), round % 2 == 1, 0);
        node.control.update_own_versions(node.now);
        node.advance(seconds(1));
        node.control.remove_own_mapping(node.now, &host.prefix);
        node.drain();
    }
    let trust = node.control.trust.as_ref().expect("a trusted core");
    assert_eq!(trust.own_timers.len(), trust.own.len(), "one timer for each mapping");
}

#[test]
fn mv_15_an_etr_that_answers_a_probe_with_an_older_mapping_changes_nothing() {
    let mut node = probed();
    let answered = |node: &mut Node, number: u16, weight: u8| {
        node.control.verify_locator(node.now, ip(A));
        node.advance(Duration::ZERO);
        for transmit in node.take_sent() {
            let Ok(Message::MapRequest(request)) = Message::parse(&transmit.payload) else {
                continue;
            };
            let mut record = site(number);
            for locator in &mut record.locators {
                locator.weight = weight;
                locator.probed = locator.address.rloc() == Some(transmit.destination.ip());
            }
            let mut reply = MapReply::new(request.nonce, vec![record]);
            reply.probe = true;
            node.receive(transmit.destination, &Message::MapReply(reply));
        }
        let entry = node.control.cache.get(&prefix(SITE)).expect("cached");
        (entry.version, entry.mapping.locators()[0].weight)
    };
    assert_eq!(answered(&mut node, 10, 70), (version(10), 70));
    assert_eq!(answered(&mut node, 9, 30), (version(10), 70), "a change is not taken back");
}
