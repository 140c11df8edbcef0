//! What a site may: profiles of peers that deviate, shutdown, limits, and how a refusal is told.

use super::*;
use crate::config::Profile;
use crate::wire::Action;

/// A Map-Server whose first site is edited.
fn bench_with(edit: impl FnOnce(&mut Site)) -> Bench {
    let mut config = config();
    edit(&mut config.sites[0]);
    Bench { server: MapServer::new(config, [1; 32]), now: Instant::now() }
}

fn of_profile(profile: Profile, algorithms: &[Algorithm]) -> Bench {
    bench_with(|site| {
        site.profile = profile;
        site.keys[0].algorithms = algorithms.to_vec();
    })
}

/// HMAC-SHA-1 with 20 octets, as OOR and lispers.net sign.
fn sha1(nonce: u64) -> Register {
    let mut register = register(nonce, vec![record("10.1.0.0/16", &[ETR])]);
    register.algorithm = Algorithm::HmacSha1;
    let length = auth::UNTRUNCATED_SHA1_MAC_LEN;
    register.edit(|message| {
        message.authentication = AuthenticationData::zeroed(1, 1, length);
    })
}

#[test]
fn au_03_cw_36_hmac_sha_1_is_for_legacy_profiles_only() {
    let sha1_only = [Algorithm::HmacSha1];
    let mut strict = of_profile(Profile::Rfc9301, &sha1_only);
    assert!(strict.register(&sha1(1)).is_empty(), "whatever the key lists");
    assert_eq!(strict.discarded(Discard::AlgorithmRefused), 1);
    assert!(strict.server.sites_view(strict.now)[0].notes.is_empty());
    let mut legacy = of_profile(Profile::Oor, &sha1_only);
    let warned = legacy.events();
    assert!(matches!(&warned[0], Event::WeakAlgorithm { site } if &**site == "a"), "{warned:?}");
    let sent = legacy.register(&sha1(1));
    assert_eq!(notify(&sent[0]).authentication.mac.len(), 20, "answered as it was signed");
    assert!(legacy.server.sites_view(legacy.now)[0].notes[0].contains("HMAC-SHA-1"));
    let mut unlisted = of_profile(Profile::Oor, &[Algorithm::HmacSha256]);
    assert!(unlisted.register(&sha1(1)).is_empty(), "AU-15: not with this key");
}

#[test]
fn au_19_what_a_profile_spares_a_site_is_told_at_the_start() {
    let told = |profile| {
        let events = of_profile(profile, &[Algorithm::HmacSha256]).events();
        events.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(told(Profile::Rfc9301).is_empty());
    for profile in [Profile::Oor, Profile::LispersNet, Profile::Vpp] {
        let told = told(profile);
        let [only] = &told[..] else { panic!("{told:?}") };
        assert!(only.contains(profile.name()) && only.contains("nonces"), "{only}");
    }
}

#[test]
fn ms_01_refusals_name_the_locator_and_the_algorithm() {
    let mut bench = of_profile(Profile::Rfc9301, &Algorithm::STRONG);
    bench.register(&sha1(1));
    bench.register(&register(1, vec![record("10.9.0.0/16", &[ETR, "224.0.0.9"])]));
    let told = bench.server.refusals_view(bench.now);
    let subjects: Vec<_> = told.iter().map(|r| r.subject.as_deref()).collect();
    assert_eq!(subjects, [Some("locator 224.0.0.9"), Some("algorithm 1 (hmac-sha-1-96)")]);
}

#[test]
fn au_04_cw_36_no_authentication_is_refused() {
    let mut bench = of_profile(Profile::Oor, &Algorithm::ALL);
    let mut octets = register(1, vec![record("10.9.0.0/16", &[ETR])]).octets();
    octets[13] = 0;
    assert!(bench.input(ETR, 40_000, &octets).is_empty());
    assert_eq!(bench.discarded(Discard::AlgorithmRefused), 1);
}

#[test]
fn au_12_an_unknown_algorithm_is_stepped_over_then_refused() {
    let mut bench = Bench::new();
    let mut unknown = register(1, vec![record("10.9.0.0/16", &[ETR])]).octets();
    unknown[13] = 99;
    assert!(bench.input(ETR, 40_000, &unknown).is_empty());
    assert_eq!(bench.discarded(Discard::AlgorithmRefused), 1);
    assert_eq!(bench.discarded(Discard::Truncated), 0);
}

#[test]
fn au_19_random_nonces_are_accepted_of_oor_and_vpp() {
    for profile in [Profile::Oor, Profile::Vpp] {
        let mut bench = of_profile(profile, &[Algorithm::HmacSha256Hkdf]);
        let at = |nonce| register(nonce, vec![record("10.1.0.0/16", &[ETR])]);
        for nonce in [u64::MAX, 7, 0x8000_0000_0000_0000, 3] {
            bench.now += Duration::from_secs(60);
            assert_eq!(bench.register(&at(nonce)).len(), 1, "{nonce:x}");
        }
        assert_eq!(bench.register(&at(3)).len(), 1, "AU-18: a retransmission");
        assert_eq!(bench.server.get(Count::Retransmissions), 1);
        bench.advance(100);
        assert!(bench.register(&at(3)).is_empty(), "but the last one is no news later");
        assert_eq!(bench.discarded(Discard::Replayed), 1);
    }
    let mut strict = Bench::new();
    let at = |nonce| register(nonce, vec![record("10.1.0.0/16", &[ETR])]);
    strict.register(&at(9));
    assert!(strict.register(&at(3)).is_empty(), "strict is the default");
}

#[test]
fn au_19_a_constant_nonce_refreshes_for_lispers_net() {
    let mut bench = of_profile(Profile::LispersNet, &[Algorithm::HmacSha256Hkdf]);
    let same = register(0x01df_dfdf_ddcc_bbaa, vec![record("10.1.0.0/16", &[ETR])]).xtr(5);
    for _ in 0..6 {
        assert_eq!(bench.register(&same).len(), 1);
        bench.advance(60);
    }
    assert_eq!(bench.prefixes(), ["10.1.0.0/16"], "each counts as a refresh");
}

#[test]
fn ms_07_lispers_net_is_answered_to_its_source_port() {
    let mut bench = of_profile(Profile::LispersNet, &[Algorithm::HmacSha256Hkdf]);
    let registration = register(1, vec![record("10.1.0.0/16", &[ETR])]).xtr(5);
    let sent = bench.register(&registration);
    assert_eq!(sent[0].destination, SocketAddr::new(ip(ETR), 40_000));
    assert_eq!(sent[0].source_port, crate::transmit::SourcePort::Control);
    let echoed = notify(&sent[0]).identity;
    assert_eq!(echoed, registration.message.identity, "with its xTR-ID and Site-ID");
}

#[test]
fn ms_09_an_acknowledged_acknowledgement_of_lispers_net_is_no_error() {
    let bare = MapNotifyAck(MapNotify {
        nonce: 0x01df_dfdf_ddcc_bbaa,
        authentication: AuthenticationData::zeroed(1, 2, auth::UNTRUNCATED_MAC_LEN),
        records: Vec::new(),
        identity: Some(XtrIdentity { xtr_id: 5, site_id: 0 }),
    });
    let mut octets = Vec::new();
    bare.encode(&mut octets);
    let mut bench = of_profile(Profile::LispersNet, &[Algorithm::HmacSha256]);
    assert!(bench.input(ETR, 40_000, &octets).is_empty());
    assert_eq!(bench.discarded(Discard::AckNotExpected), 0);
    assert_eq!(bench.server.get(Count::NeedlessMapNotifyAcks), 1);
    let mut strict = Bench::new();
    strict.input(ETR, CONTROL_PORT, &octets);
    assert_eq!(strict.discarded(Discard::AckNotExpected), 1);
}

#[test]
fn au_09_one_key_id_may_name_two_secrets_while_one_replaces_the_other() {
    let mut bench = bench_with(|site| site.keys.push(key(1, "secret-new")));
    let at = |nonce| register(nonce, vec![record("10.1.0.0/16", &[ETR])]).xtr(1);
    let first = bench.register(&at(1));
    let second = bench.register(&at(2).signed_by("secret-new"));
    for (sent, secret) in [(first, "secret-a"), (second, "secret-new")] {
        let secret = Secret::new(secret.as_bytes().to_vec());
        let allowed = [Algorithm::HmacSha256Hkdf];
        auth::verify(&sent[0].payload, &secret, &allowed).expect("answered with the key it used");
    }
    assert!(bench.register(&at(2)).is_empty(), "AU-16: one count of nonces for both");
    assert_eq!(bench.register(&at(3)).len(), 1, "and back, if the change is undone");
    assert_eq!(bench.prefixes().len(), 1);
}

#[test]
fn au_10_sites_of_one_secret_are_found() {
    let mut config = config();
    assert_eq!(config.shared_secret(), None);
    config.sites[1].keys.push(key(9, "secret-a2"));
    assert_eq!(config.shared_secret(), Some((0, 1)));
    config.sites.iter_mut().for_each(|site| site.site_id = Some(4));
    assert_eq!(config.shared_secret(), None, "unique per Site-ID");
}

#[test]
fn au_05_an_identity_beyond_the_mac_is_not_trusted() {
    let mut bench = Bench::new();
    let mut uncovered = register(5, vec![record("10.1.0.0/16", &[ETR])]).xtr(1);
    uncovered.covered = auth::Covered::Records;
    let sent = bench.register(&uncovered);
    assert_eq!(notify(&sent[0]).identity, uncovered.message.identity, "given back all the same");
    let view = &bench.server.registrations_view(bench.now)[0];
    assert_eq!((&view.xtr_id, view.source), (&None, ip(ETR)));
    let mut forged = uncovered.clone().octets();
    let end = forged.len();
    forged[end - 20] ^= 1;
    bench.advance(100);
    assert!(bench.input(ETR, 40_000, &forged).is_empty(), "AU-16: nor does it start a new count");
    assert_eq!(bench.discarded(Discard::Replayed), 1);
}

#[test]
fn ms_13_a_site_that_is_shut_down_registers_nothing() {
    let mut bench = bench_with(|site| site.admin_down = true);
    assert!(bench.register(&register(1, vec![record("10.9.0.0/16", &[ETR])])).is_empty());
    assert_eq!(bench.discarded(Discard::SiteDown), 1);
    assert_eq!(bench.reply_to(1, "10.9.0.1/32")[0].action, Action::DropPolicyDenied);
}

#[test]
fn ms_14_forced_proxy_reply() {
    let mut bench = bench_with(|site| site.force_proxy_reply = true);
    let unasked = register(1, vec![record("10.9.0.0/16", &[ETR])])
        .edit(|message| message.proxy_reply = false);
    bench.register(&unasked);
    assert_eq!(rlocs_of(&bench.reply_to(1, "10.9.0.1/32")[0]), [ip(ETR)]);
}

#[test]
fn ms_01_registrations_of_a_site_are_bounded() {
    let mut bench = bench_with(|site| site.max_registrations = 2);
    let at = |nonce, prefixes: &[&str]| {
        register(nonce, prefixes.iter().map(|prefix| record(prefix, &[ETR])).collect())
    };
    let sent = bench.register(&at(1, &["10.1.1.0/24", "10.1.2.0/24", "10.1.3.0/24"]));
    assert_eq!(notify(&sent[0]).records.len(), 2);
    assert_eq!(bench.discarded(Discard::SiteFull), 1);
    assert_eq!(bench.register(&at(2, &["10.1.1.0/24", "10.1.2.0/24"])).len(), 1, "refreshed");
    let other = register(1, vec![record("10.2.0.0/16", &[ETR])]).signed_by("secret-b");
    assert_eq!(bench.register(&other).len(), 1, "of this site only");
    let mut gone = record("10.1.1.0/24", &[]);
    gone.ttl_minutes = 0;
    bench.register(&register(3, vec![gone]));
    assert_eq!(bench.register(&at(4, &["10.1.3.0/24"])).len(), 1, "room again");
    bench.advance(180);
    assert_eq!(bench.register(&at(5, &["10.1.4.0/24", "10.1.5.0/24"])).len(), 1);
    assert_eq!(bench.discarded(Discard::SiteFull), 1);
}

#[test]
fn ms_01_what_is_refused_is_told_by_site_source_prefix_and_rule() {
    let mut bench = Bench::new();
    let refused = register(1, vec![record("10.9.2.0/24", &[ETR])]);
    for nonce in 1..=3 {
        bench.register(&refused.clone().edit(|message| message.nonce = nonce));
    }
    bench.advance(10);
    bench.register(&refused.signed_by("guess"));
    let told = bench.server.refusals_view(bench.now + Duration::from_secs(2));
    let shown: Vec<_> = told.iter().map(|r| (r.reason.as_str(), r.count, r.age_seconds)).collect();
    assert_eq!(shown, [("authentication_failed", 1, 2), ("more_specific_refused", 3, 12)]);
    assert_eq!(told[0].site.as_deref(), Some("a"));
    assert_eq!(told[0].source, ip(ETR));
    assert_eq!(told[0].prefix, Some(eid_prefix("10.9.2.0/24")));
    assert!(told[0].help.contains("keys at both ends"));
    let site = &bench.server.sites_view(bench.now)[0];
    assert_eq!(site.refused, 4);
    assert_eq!(site.refused_by["more_specific_refused"], 3);
    assert_eq!(site.refused_by["authentication_failed"], 1);
}

#[test]
fn ms_01_the_memory_of_refusals_is_bounded() {
    let mut bench = Bench::new();
    for host in 0..2_000_u32 {
        let source = std::net::Ipv4Addr::from_bits(0xc633_6400 + host);
        let octets = register(1, vec![record("192.0.2.0/24", &[ETR])]).octets();
        bench.input(&source.to_string(), 40_000, &octets);
    }
    assert!(bench.server.refusals_view(bench.now).len() <= timers::MAX_REFUSALS);
}

#[test]
fn rp_10_an_action_is_registered_and_answered() {
    let mut bench = Bench::new();
    let mut dropped = record("10.1.0.7/32", &[]);
    dropped.action = Action::Drop;
    let sent = bench.register(&register(1, vec![record("10.1.0.0/16", &[ETR]), dropped.clone()]));
    let actions: Vec<_> = notify(&sent[0]).records.iter().map(|record| record.action).collect();
    assert_eq!(actions, [Action::NoAction; 2], "RP-14: only a Map-Reply has ACT");
    let answer = bench.reply_to(1, "10.1.0.7/32");
    assert_eq!((answer[0].action, answer[0].ttl_minutes), (Action::Drop, 1_440));
    assert_eq!(answer[0].eid.prefix(), Some(eid_prefix("10.1.0.7/32")));
    bench.events();
    dropped.action = Action::NativelyForward;
    bench.register(&register(2, vec![dropped]));
    assert!(matches!(bench.events()[..], [Event::Changed { .. }]), "another action is a change");
}

#[test]
fn rg_20_an_eid_notify_registration_is_as_any_other() {
    let mut bench = Bench::new();
    let from_first_hop =
        register(1, vec![record("10.1.0.7/32", &[ETR])]).edit(|message| message.eid_notify = true);
    assert_eq!(bench.register(&from_first_hop).len(), 1);
    assert_eq!(bench.prefixes(), ["10.1.0.7/32"]);
}

#[test]
fn rg_03_quick_registration_is_accepted() {
    let mut bench = Bench::new();
    for nonce in 1..=15 {
        let quick = register(nonce, vec![record("10.1.0.0/16", &[ETR])]);
        assert_eq!(bench.register(&quick).len(), 1, "every 20 seconds for 5 minutes");
        bench.advance(20);
    }
}

#[test]
fn rg_18_etrs_of_one_anycast_rloc_are_told_apart_by_their_xtr_id() {
    let mut bench = Bench::new();
    let of = |xtr, nonce| {
        register(nonce, vec![record("10.1.0.0/16", &[ETR])])
            .xtr(xtr)
            .edit(|message| message.merge = true)
    };
    bench.register(&of(1, 50));
    assert_eq!(bench.register(&of(2, 7)).len(), 1, "each counts its own nonces");
    assert_eq!(bench.server.registry.len(), 2);
    assert_eq!(bench.rlocs("10.1.0.0/16"), [ip(ETR)], "and the locator is told once");
}

#[test]
fn dy_02_the_previous_xtr_learns_the_new_locators() {
    let mut bench = Bench::new();
    bench.register(&register(1, vec![record("10.1.0.7/32", &[ETR])]).xtr(1));
    let moved = register(1, vec![record("10.1.0.7/32", &[OTHER_ETR])]).xtr(2).from(OTHER_ETR);
    let sent = bench.register(&moved);
    let told = sent.iter().find(|transmit| transmit.destination.ip() == ip(ETR)).unwrap();
    assert_eq!(rlocs_of(&notify(told).records[0]), [ip(OTHER_ETR)]);
}

#[test]
fn ms_22_instances_are_apart() {
    let mut config = config();
    let in_instance =
        |id: u32, text: &str| EidPrefix::new(InstanceId::new(id).unwrap(), text.parse().unwrap());
    let largest = InstanceId::MAX;
    for (site, id) in [(0, 7), (1, largest)] {
        let prefix = in_instance(id, "10.1.0.0/16");
        config.sites[site].eid_prefixes.push(SitePrefix { prefix, accept_more_specifics: true });
    }
    let mut bench = Bench { server: MapServer::new(config, [1; 32]), now: Instant::now() };
    let at = |id, rloc| {
        let locators = vec![locator(rloc)];
        let of_b = EidRecord::new(in_instance(id, "10.1.0.0/16"), 1_440, locators);
        register(u64::from(id) + 1, vec![of_b])
    };
    bench.register(&at(0, ETR));
    bench.register(&at(7, OTHER_ETR));
    bench.register(&at(largest, "198.51.100.13").signed_by("secret-b"));
    assert_eq!(bench.prefixes(), ["10.1.0.0/16", "[7]10.1.0.0/16", "[16777215]10.1.0.0/16"]);
    for (id, rloc) in [(0, ETR), (7, OTHER_ETR), (largest, "198.51.100.13")] {
        let eid = in_instance(id, "10.1.2.3/32");
        let request =
            MapRequest::new(u64::from(id), vec![ip(ITR).into()], vec![RequestedEid::new(eid)]);
        let sent = bench.ask(&request);
        assert_eq!(rlocs_of(&reply(&sent[0]).records[0]), [ip(rloc)], "instance {id}");
    }
    assert!(bench.register(&at(largest, ETR)).is_empty(), "not with the key of another site");
}
