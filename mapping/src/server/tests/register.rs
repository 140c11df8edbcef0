//! Map-Register: authentication, policy, lifetime, merging.

use super::*;

#[test]
fn ms_01_a_site_registers_its_own_prefixes_only() {
    let mut bench = Bench::new();
    let records = vec![
        record("10.9.0.0/16", &[ETR]),
        record("10.2.0.0/16", &[ETR]),
        record("192.0.2.0/24", &[ETR]),
    ];
    let sent = bench.register(&register(1, records));
    assert_eq!(bench.prefixes(), ["10.9.0.0/16"]);
    assert_eq!(bench.discarded(Discard::OtherSite), 1);
    assert_eq!(bench.discarded(Discard::NotASite), 1);
    assert_eq!(notify(&sent[0]).records.len(), 1, "the accepted record alone is acknowledged");
    let refused: Vec<_> = bench
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Refused(refusal) => Some(refusal),
            _ => None,
        })
        .collect();
    assert_eq!(refused.len(), 2);
    assert_eq!(refused[0].site.as_deref(), Some("a"));
    assert_eq!(refused[0].prefix, Some(eid_prefix("10.2.0.0/16")));
    assert_eq!(refused[0].source, ip(ETR));
    let site = &bench.server.sites_view(bench.now)[0];
    assert_eq!((site.registered, site.accepted, site.refused), (1, 1, 2));
    assert!(site.last_refusal.as_ref().unwrap().contains("192.0.2.0/24"));
}

#[test]
fn ms_01_an_unknown_prefix_alone_is_refused_without_a_site() {
    let mut bench = Bench::new();
    assert!(bench.register(&register(1, vec![record("192.0.2.0/24", &[ETR])])).is_empty());
    assert_eq!(bench.discarded(Discard::NotASite), 1);
    assert!(bench.register(&register(2, vec![])).is_empty());
    assert_eq!(bench.discarded(Discard::Malformed), 1);
}

#[test]
fn ms_02_more_specifics_need_permission() {
    let mut bench = Bench::new();
    bench.register(&register(1, vec![record("10.1.2.0/24", &[ETR])]));
    bench.register(&register(2, vec![record("10.9.2.0/24", &[ETR])]));
    assert_eq!(bench.prefixes(), ["10.1.2.0/24"]);
    assert_eq!(bench.discarded(Discard::MoreSpecificRefused), 1);
}

#[test]
fn ms_22_the_longest_configured_prefix_decides_the_site() {
    let mut bench = Bench::new();
    let own = register(1, vec![record("10.9.200.0/24", &[OTHER_ETR])]);
    bench.register(&own.clone());
    assert!(bench.prefixes().is_empty(), "inside a prefix of a, but it is b's");
    assert_eq!(bench.discarded(Discard::AuthenticationFailed), 1);
    bench.register(&own.signed_by("secret-b"));
    assert_eq!(bench.prefixes(), ["10.9.200.0/24"]);
    let negative = bench.reply_to(9, "10.9.0.1/32");
    assert!(negative[0].is_negative());
}

#[test]
fn ms_22_an_unregistered_longer_prefix_of_another_site_hides_the_registered_one() {
    let mut bench = Bench::new();
    bench.register(&register(1, vec![record("10.9.0.0/16", &[ETR])]));
    let hidden = bench.reply_to(1, "10.9.200.1/32");
    assert!(hidden[0].is_negative());
    assert_eq!(hidden[0].eid.prefix(), Some(eid_prefix("10.9.200.0/24")));
    assert_eq!(bench.reply_to(2, "10.9.1.1/32")[0].eid.prefix(), Some(eid_prefix("10.9.0.0/16")));
}

#[test]
fn ms_01_locators_must_be_allowed() {
    let mut bench = Bench::new();
    let refused = register(1, vec![record("10.2.0.0/16", &["192.0.2.1"])]).signed_by("secret-b");
    assert!(bench.register(&refused).is_empty());
    assert_eq!(bench.discarded(Discard::LocatorRefused), 1);
    let allowed = register(2, vec![record("10.2.0.0/16", &[ETR])]).signed_by("secret-b");
    assert_eq!(bench.register(&allowed).len(), 1);
}

#[test]
fn ms_03_a_registration_lives_three_minutes() {
    let mut bench = Bench::new();
    bench.register(&register(1, vec![record("10.1.0.0/16", &[ETR])]));
    bench.advance(179);
    assert_eq!(bench.prefixes().len(), 1);
    bench.register(&register(2, vec![record("10.1.0.0/16", &[ETR])]));
    bench.advance(179);
    assert_eq!(bench.prefixes().len(), 1, "refreshed");
    bench.events();
    bench.advance(1);
    assert!(bench.prefixes().is_empty());
    assert!(matches!(bench.events()[..], [Event::Expired { .. }]));
    assert_eq!(bench.server.poll_timeout(), None);
}

#[test]
fn ms_04_with_the_t_bit_the_record_ttl_is_the_lifetime() {
    let mut bench = Bench::new();
    let mut short = record("10.1.0.0/16", &[ETR]);
    short.ttl_minutes = 10;
    bench.register(&register(1, vec![short]).edit(|message| message.use_ttl = true));
    bench.advance(599);
    assert_eq!(bench.prefixes().len(), 1);
    bench.advance(1);
    assert!(bench.prefixes().is_empty());
}

#[test]
fn ms_05_ms_06_ms_07_the_acknowledging_map_notify() {
    let mut bench = Bench::new();
    let registration = register(0x1122, vec![record("10.1.0.0/16", &[ETR])]).xtr(5);
    let sent = bench.register(&registration);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].destination, SocketAddr::new(ip(ETR), CONTROL_PORT));
    assert_eq!(sent[0].source, ip(OWN));
    assert_eq!(sent[0].source_port, crate::transmit::SourcePort::Control);
    let acknowledged = notify(&sent[0]);
    assert_eq!(acknowledged.nonce, 0x1122);
    assert_eq!(acknowledged.records, registration.message.records);
    assert_eq!(acknowledged.authentication.algorithm_id, 3);
    let secret = Secret::new(b"secret-a".to_vec());
    auth::verify(&sent[0].payload, &secret, &[Algorithm::HmacSha256Hkdf]).unwrap();
    assert!(bench.advance(100).is_empty(), "never retransmitted");
    let silent = register(0x1123, vec![record("10.1.0.0/16", &[ETR])])
        .xtr(5)
        .edit(|message| message.want_map_notify = false);
    assert!(bench.register(&silent).is_empty());
}

#[test]
fn au_09_two_secrets_are_valid_at_a_time() {
    let mut bench = Bench::new();
    let second = register(1, vec![record("10.9.0.0/16", &[ETR])])
        .signed_by("secret-a2")
        .edit(|message| message.authentication.key_id = 2);
    assert_eq!(bench.register(&second).len(), 1);
    let first = register(1, vec![record("10.9.0.0/16", &[ETR])]);
    assert_eq!(bench.register(&first).len(), 1, "nonces count per key");
    let unknown = first.edit(|message| message.authentication.key_id = 3);
    assert!(bench.register(&unknown).is_empty());
    assert_eq!(bench.discarded(Discard::KeyUnknown), 1);
}

#[test]
fn au_11_a_wrong_mac_changes_nothing() {
    let mut bench = Bench::new();
    let good = register(1, vec![record("10.9.0.0/16", &[ETR])]);
    assert!(bench.register(&good.clone().signed_by("guess")).is_empty());
    assert_eq!(bench.discarded(Discard::AuthenticationFailed), 1);
    assert!(bench.prefixes().is_empty());
    assert_eq!(bench.register(&good).len(), 1, "the nonce was not burnt");
}

#[test]
fn au_15_no_downgrade_to_another_algorithm() {
    let mut config = config();
    config.sites[0].keys[0].algorithms = vec![Algorithm::HmacSha256Hkdf];
    let mut bench = Bench { server: MapServer::new(config, [1; 32]), now: Instant::now() };
    let mut weaker = register(1, vec![record("10.9.0.0/16", &[ETR])]);
    weaker.algorithm = Algorithm::HmacSha256;
    assert!(bench.register(&weaker).is_empty());
    assert_eq!(bench.discarded(Discard::AlgorithmRefused), 1);
}

#[test]
fn au_16_a_nonce_that_does_not_grow_is_a_replay() {
    let mut bench = Bench::new();
    let at = |nonce| register(nonce, vec![record("10.9.0.0/16", &[ETR])]).xtr(1);
    assert_eq!(bench.register(&at(10)).len(), 1);
    assert!(bench.register(&at(9)).is_empty());
    let other = register(10, vec![record("10.9.0.0/16", &[OTHER_ETR])]).xtr(1);
    assert!(bench.register(&other).is_empty(), "same nonce, other octets");
    assert_eq!(bench.discarded(Discard::Replayed), 2);
    assert_eq!(bench.rlocs("10.9.0.0/16"), [ip(ETR)]);
    assert!(!bench.register(&at(10).xtr(2)).is_empty(), "another xTR counts on its own");
    let elsewhere = at(5).from(OTHER_ETR);
    assert!(bench.register(&elsewhere).is_empty(), "the xTR-ID counts, not the source");
}

#[test]
fn au_16_an_identity_outside_the_mac_is_not_believed() {
    let mut bench = Bench::new();
    let mut first = register(10, vec![record("10.9.0.0/16", &[ETR])]).xtr(1);
    first.covered = auth::Covered::Records;
    assert_eq!(bench.register(&first).len(), 1);
    let mut replayed = first.octets();
    let end = replayed.len();
    replayed[end - 9] ^= 1;
    let sent = bench.input(ETR, 40_000, &replayed);
    assert_eq!(bench.server.get(Count::Retransmissions), 1, "the same peer whatever the trailer");
    assert_eq!(sent.len(), 1);
}

#[test]
fn au_18_a_retransmission_is_acknowledged_again_and_changes_nothing() {
    let mut bench = Bench::new();
    let registration = register(10, vec![record("10.9.0.0/16", &[ETR])]);
    let first = bench.register(&registration);
    bench.advance(30);
    assert_eq!(bench.register(&registration), first);
    bench.advance(150);
    assert!(bench.prefixes().is_empty(), "it did not refresh the registration");
    assert!(bench.register(&registration).is_empty(), "too late for a retransmission");
    assert_eq!(bench.discarded(Discard::Replayed), 1);
}

#[test]
fn ms_23_a_retransmission_makes_no_source_known() {
    const SPOOFED: &str = "198.51.100.66";
    let mut bench = Bench::new();
    let registration = register(10, vec![record("10.9.0.0/16", &[ETR])]).xtr(1);
    bench.register(&registration);
    bench.register(&registration.from(SPOOFED));
    assert_eq!(bench.server.get(Count::Retransmissions), 1);
    let (now, admission) = (bench.now, &mut bench.server.admission);
    let mut strangers = (0x0a00_0000..).map(|n| IpAddr::from(std::net::Ipv4Addr::from_bits(n)));
    while admission.register(now, strangers.next().unwrap()).is_ok() {}
    assert_eq!(admission.register(now, ip(SPOOFED)), Err(Discard::StrangersRateLimited));
    assert_eq!(admission.register(now, ip(ETR)), Ok(()));
}

#[test]
fn ms_17_with_the_a_bit_from_all_locators_are_merged() {
    let mut bench = Bench::new();
    let part = |nonce, xtr, rloc| {
        register(nonce, vec![record("10.1.0.0/16", &[rloc])])
            .xtr(xtr)
            .edit(|message| message.merge = true)
    };
    bench.register(&part(1, 1, ETR));
    bench.advance(60);
    bench.register(&part(1, 2, OTHER_ETR));
    assert_eq!(bench.rlocs("10.1.0.0/16"), [ip(ETR), ip(OTHER_ETR)]);
    bench.register(&part(2, 2, "198.51.100.13"));
    assert_eq!(bench.rlocs("10.1.0.0/16"), [ip(ETR), ip("198.51.100.13")], "its part replaced");
    bench.advance(121);
    assert_eq!(bench.rlocs("10.1.0.0/16"), [ip("198.51.100.13")], "the first timed out alone");
}

#[test]
fn ms_18_without_the_a_bit_the_newest_replaces() {
    let mut bench = Bench::new();
    bench.register(&register(1, vec![record("10.1.0.0/16", &[ETR])]).xtr(1));
    let merging = register(1, vec![record("10.1.0.0/16", &[OTHER_ETR])])
        .xtr(2)
        .edit(|message| message.merge = true);
    bench.register(&merging);
    assert_eq!(bench.rlocs("10.1.0.0/16"), [ip(OTHER_ETR)], "not all ask for merging");
    bench.register(&register(2, vec![record("10.1.0.0/16", &[ETR])]).xtr(1));
    assert_eq!(bench.rlocs("10.1.0.0/16"), [ip(ETR)]);
    assert_eq!(bench.server.registry.len(), 1);
    bench.advance(180);
    assert_eq!(bench.server.registry.len(), 0);
}

#[test]
fn ms_19_an_older_map_version_is_dropped() {
    let mut bench = Bench::new();
    let version = |nonce, version, rloc| {
        let mut record = record("10.9.0.0/16", &[rloc]);
        record.map_version = version;
        register(nonce, vec![record])
    };
    bench.register(&version(1, 5, ETR));
    assert!(bench.register(&version(2, 4, OTHER_ETR)).is_empty());
    assert_eq!(bench.discarded(Discard::MapVersionOlder), 1);
    assert_eq!(bench.rlocs("10.9.0.0/16"), [ip(ETR)]);
    assert_eq!(bench.register(&version(3, 6, OTHER_ETR)).len(), 1);
}

#[test]
fn ms_20_mr_06_map_replies_are_discarded_and_never_cached() {
    let mut bench = Bench::new();
    let mut octets = Vec::new();
    MapReply::new(1, vec![record("10.9.0.0/16", &[ETR])]).encode(&mut octets);
    assert!(bench.input(ETR, CONTROL_PORT, &octets).is_empty());
    assert_eq!(bench.discarded(Discard::UnexpectedMessage), 1);
    assert!(bench.reply_to(2, "10.9.0.1/32").iter().all(EidRecord::is_negative));
}

#[test]
fn ms_21_ttl_zero_withdraws_at_once() {
    let mut bench = Bench::new();
    bench.register(&register(1, vec![record("10.1.0.0/16", &[ETR])]));
    let mut gone = record("10.1.0.0/16", &[]);
    gone.ttl_minutes = 0;
    let sent = bench.register(&register(2, vec![gone]));
    assert!(bench.prefixes().is_empty());
    assert_eq!(notify(&sent[0]).records[0].ttl_minutes, 0, "acknowledged");
    assert_eq!(bench.server.poll_timeout(), None);
}

#[test]
fn ms_23_a_source_is_limited_before_any_mac() {
    let mut bench = Bench::new();
    let forged = register(1, vec![record("10.9.0.0/16", &[ETR])]).signed_by("guess").octets();
    for _ in 0..timers::REGISTERS_BURST + 5 {
        bench.input(OTHER_ETR, 40_000, &forged);
    }
    assert_eq!(bench.discarded(Discard::SourceRateLimited), 5);
    assert_eq!(bench.register(&register(1, vec![record("10.9.0.0/16", &[ETR])])).len(), 1);
}

#[test]
fn cw_03_one_port_must_be_4342() {
    let mut bench = Bench::new();
    let octets = register(1, vec![record("10.9.0.0/16", &[ETR])]).octets();
    let from = |port| SocketAddr::new(ip(ETR), port);
    let local = SocketAddr::new(ip(OWN), 50_000);
    bench.server.handle_input(bench.now, local, from(40_000), &octets);
    assert_eq!(bench.discarded(Discard::WrongPort), 1);
    bench.server.handle_input(bench.now, local, from(CONTROL_PORT), &octets);
    assert_eq!(bench.prefixes().len(), 1);
}

#[test]
fn cw_13_unsupported_types_are_counted_without_reply() {
    let mut bench = Bench::new();
    for kind in [0_u8, 9, 14, 15] {
        assert!(bench.input(ETR, CONTROL_PORT, &[kind << 4; 32]).is_empty());
    }
    assert_eq!(bench.discarded(Discard::UnsupportedType), 4);
    assert!(bench.input(ETR, CONTROL_PORT, &[]).is_empty());
    assert_eq!(bench.discarded(Discard::Truncated), 1);
}

#[test]
fn au_20_secrets_are_in_no_debug_output() {
    let mut bench = Bench::new();
    bench.register(&register(1, vec![record("10.9.0.0/16", &[ETR])]));
    assert!(!format!("{:?}", bench.server).contains("secret-a"));
    assert!(!format!("{:?}", bench.events()).contains("secret"));
}

#[test]
fn ms_17_merged_registrations_count_against_the_bound_too() {
    let mut bench = Bench::new();
    bench.server.registry = Registry::with_bounds(2, 1 << 20);
    let part = |xtr, rloc| {
        register(1, vec![record("10.1.0.0/16", &[rloc])])
            .xtr(xtr)
            .edit(|message| message.merge = true)
    };
    bench.register(&part(1, ETR));
    bench.register(&part(2, OTHER_ETR));
    assert!(bench.register(&part(3, "198.51.100.13")).is_empty());
    assert_eq!(bench.discarded(Discard::RegistryFull), 1);
    assert_eq!(bench.server.registry.len(), 2);
}

#[test]
fn au_18_what_was_refused_is_not_acknowledged_when_it_comes_again() {
    let mut bench = Bench::new();
    bench.server.registry = Registry::with_bounds(1, 1 << 20);
    let both = vec![record("10.1.0.0/16", &[ETR]), record("10.9.0.0/16", &[ETR])];
    let registration = register(1, both);
    let first = bench.register(&registration);
    assert_eq!(notify(&first[0]).records.len(), 1);
    assert_eq!(bench.register(&registration), first);
}

#[test]
fn ms_01_any_number_of_sites_may_share_a_prefix() {
    let mut config = config();
    let shared = config.sites[0].eid_prefixes[0].clone();
    for number in 0..20 {
        config.sites.push(Site::new(
            format!("roaming-{number}"),
            vec![key(1, &format!("secret-{number}"))],
            vec![shared.clone()],
        ));
    }
    let mut bench = Bench { server: MapServer::new(config, [1; 32]), now: Instant::now() };
    let last = register(1, vec![record("10.1.0.7/32", &[ETR])]).signed_by("secret-19");
    assert_eq!(bench.register(&last).len(), 1);
    assert_eq!(bench.server.registrations_view(bench.now)[0].site, "roaming-19");
}

#[test]
fn ms_05_rp_14_the_action_is_zero_in_a_map_notify() {
    let mut bench = Bench::new();
    let mut none = record("10.1.0.0/16", &[]);
    none.action = crate::wire::Action::Drop;
    let sent = bench.register(&register(1, vec![none]));
    assert_eq!(notify(&sent[0]).records[0].action, crate::wire::Action::NoAction);
}

#[test]
fn cw_33_what_is_nobodys_address_is_no_locator() {
    let mut bench = Bench::new();
    for rloc in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "ff02::1", "::"] {
        let nonce = bench.server.get(Count::MapRegisters) + 1;
        let refused = register(nonce, vec![record("10.9.0.0/16", &[rloc])]);
        assert!(bench.register(&refused).is_empty(), "{rloc}");
    }
    assert_eq!(bench.discarded(Discard::LocatorRefused), 5);
}

#[test]
fn cw_10_an_eid_that_is_no_prefix_is_told_as_such() {
    let mut bench = Bench::new();
    let mac = crate::wire::EidField::new(Address::Mac([2, 0, 0, 0, 0, 1]), 48).unwrap();
    let unsupported = EidRecord { eid: mac, ..record("10.9.0.0/16", &[ETR]) };
    assert!(bench.register(&register(1, vec![unsupported])).is_empty());
    assert_eq!(bench.discarded(Discard::UnsupportedEid), 1);
    assert_eq!(bench.discarded(Discard::NotASite), 0);
}

#[test]
fn ms_01_registered_locators_are_bounded_in_octets() {
    let mut bench = Bench::new();
    bench.server.registry = Registry::with_bounds(100, 2_000);
    let rlocs: Vec<_> = (1..=200).map(|host| format!("198.51.100.{host}")).collect();
    let of = |count: usize| -> Vec<&str> { rlocs[..count].iter().map(String::as_str).collect() };
    bench.register(&register(1, vec![record("10.1.0.0/16", &of(50))]));
    bench.register(&register(2, vec![record("10.1.0.0/16", &of(200))]));
    assert_eq!(bench.discarded(Discard::RegistryFull), 1, "not by growing either");
    assert_eq!(bench.rlocs("10.1.0.0/16").len(), 50);
    bench.register(&register(3, vec![record("10.1.0.0/16", &of(100))]));
    bench.register(&register(4, vec![record("10.1.1.0/24", &of(1))]));
    assert_eq!(bench.discarded(Discard::RegistryFull), 2);
    bench.advance(180);
    bench.register(&register(5, vec![record("10.1.1.0/24", &of(1))]));
    assert_eq!(bench.prefixes(), ["10.1.1.0/24"]);
}

#[test]
fn op_01_a_long_list_of_registrations_comes_in_parts() {
    let mut bench = Bench::new();
    let prefixes: Vec<String> = (0..5).map(|n| format!("10.1.{n}.0/24")).collect();
    let records = prefixes.iter().map(|prefix| record(prefix, &[ETR])).collect();
    bench.register(&register(1, records));
    let all = bench.server.registrations_view(bench.now);
    assert_eq!(all.len(), 5);
    let (mut views, mut after, mut parts) = (Vec::new(), None, 0);
    loop {
        let (part, next) = bench.server.registrations_part(bench.now, after, 2);
        parts += 1;
        views.extend(part);
        // What is withdrawn in between changes nothing for the others.
        let mut gone = record("10.1.1.0/24", &[ETR]);
        gone.ttl_minutes = 0;
        bench.register(&register(1 + parts, vec![gone]));
        match next {
            Some(_) => after = next,
            None => break,
        }
    }
    assert_eq!((views, parts), (all, 3));
}

#[test]
fn op_01_the_migration_of_sites_is_told_in_any_number_of_parts() {
    use crate::migration::{Offer, RegistryMigrationView};
    let mut bench = Bench::new();
    let rlocs: [&[&str]; 3] = [&[ETR], &[ETR, "2001:db8:c0::13"], &["2001:db8:c0::13"]];
    let records = rlocs.iter().zip(0..).map(|(rlocs, n)| record(&format!("10.1.{n}.0/24"), rlocs));
    bench.register(&register(1, records.collect()));
    let report = |most| {
        let (mut parts, mut after) = (Vec::new(), None);
        loop {
            let (part, next) = bench.server.migration_part(after, most);
            parts.push(part);
            after = next;
            if after.is_none() {
                return RegistryMigrationView::of(parts);
            }
        }
    };
    let whole = report(100);
    assert_eq!(whole.registered, 3);
    let offers: Vec<_> = whole.offers.iter().map(|o| (o.locators, o.mappings)).collect();
    assert_eq!(offers, [(Offer::Ipv4, 1), (Offer::Ipv6, 1), (Offer::Both, 1)]);
    assert_eq!((whole.by_site.len(), &whole.by_site[0].offers), (1, &whole.offers));
    for most in 1..4 {
        assert_eq!(report(most), whole, "{most} at a time");
    }
}
