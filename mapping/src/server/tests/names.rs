//! Distinguished names, and instances that are none.

use super::*;
use crate::config::SiteName;
use crate::eid::NamePrefix;
use crate::wire::{EidField, Lcaf};

fn name(text: &str) -> NamePrefix {
    NamePrefix::whole(InstanceId::DEFAULT, text).unwrap()
}

/// Site `a` has the name `ietf` and all that begin with `lab-`, `b` the name `lab-b`.
fn config_with_names() -> MappingConfig {
    let mut config = config();
    let of = |text, accept_more_specifics| SiteName { name: name(text), accept_more_specifics };
    config.sites[0].eid_names = vec![of("ietf", false), of("lab-", true)];
    config.sites[1].eid_names = vec![of("lab-b", false)];
    config
}

fn bench() -> Bench {
    let server = MapServer::new(config_with_names(), [1; 32]);
    Bench { server, now: Instant::now() }
}

fn named(text: &str, rlocs: &[&str]) -> EidRecord {
    EidRecord { eid: EidField::from(&name(text)), ..record("10.1.0.0/16", rlocs) }
}

fn ask(bench: &mut Bench, nonce: u64, text: &str) -> Vec<EidRecord> {
    let eid = RequestedEid::new(EidField::from(&name(text)));
    let sent = bench.ask(&MapRequest::new(nonce, vec![ip(ITR).into()], vec![eid]));
    assert_eq!(sent.len(), 1, "{text}: {:?}", bench.server.drops_view());
    let reply = reply(&sent[0]);
    assert_eq!(reply.nonce, nonce);
    reply.records
}

fn shown(bench: &Bench) -> Vec<String> {
    let views = bench.server.registrations_view(bench.now);
    views.into_iter().filter_map(|view| view.name).collect()
}

#[test]
fn cw_32_a_registered_name_answers_what_begins_with_it() {
    let mut bench = bench();
    let sent = bench.register(&register(1, vec![named("ietf", &[ETR])]));
    assert_eq!(notify(&sent[0]).records, [named("ietf", &[ETR])], "acknowledged as it came");
    for (nonce, asked) in [(1, "ietf"), (2, "ietf.lisp")] {
        let records = ask(&mut bench, nonce, asked);
        assert_eq!(records[0].eid, EidField::from(&name("ietf")), "{asked}");
        assert_eq!(records[0].eid.mask_len(), 40, "with its NUL");
        assert_eq!(rlocs_of(&records[0]), [ip(ETR)]);
        assert!(!records[0].locators[0].local, "RP-11");
    }
    assert_eq!(shown(&bench), ["'ietf'"]);
    bench.register(&register(2, vec![named("lab-", &[ETR]), named("lab-7", &[OTHER_ETR])]));
    assert_eq!(rlocs_of(&ask(&mut bench, 3, "lab-71")[0]), [ip(OTHER_ETR)], "the longest");
    assert_eq!(rlocs_of(&ask(&mut bench, 4, "lab-8")[0]), [ip(ETR)]);
}

#[test]
fn ms_10_ms_11_a_name_that_nobody_registered() {
    let mut bench = bench();
    for (nonce, asked, ttl) in [(1, "nobody", 15), (2, "ietf", 1), (3, "iet", 15)] {
        let records = ask(&mut bench, nonce, asked);
        assert!(records[0].is_negative());
        assert_eq!(records[0].action, crate::wire::Action::NativelyForward);
        assert_eq!((records[0].ttl_minutes, &records[0].eid), (ttl, &EidField::from(&name(asked))));
    }
}

#[test]
fn ms_01_ms_02_ms_22_names_have_their_sites_too() {
    let mut bench = bench();
    let refused = [
        ("ietf.lisp", "secret-a", Discard::MoreSpecificRefused),
        ("nobody", "secret-a", Discard::NotASite),
        ("lab-b", "secret-a", Discard::AuthenticationFailed),
    ];
    for (nonce, (text, secret, reason)) in (1..).zip(refused) {
        let sent = bench.register(&register(nonce, vec![named(text, &[ETR])]).signed_by(secret));
        assert!(sent.is_empty(), "{text}");
        assert_eq!(bench.discarded(reason), 1, "{text}");
    }
    let own = register(1, vec![named("lab-b", &[ETR])]).signed_by("secret-b");
    assert_eq!(bench.register(&own).len(), 1);
    assert_eq!(shown(&bench), ["'lab-b'"]);
}

#[test]
fn ms_03_ms_17_ms_21_names_live_merge_and_go_like_prefixes() {
    let mut bench = bench();
    let part = |xtr, nonce, rloc| {
        register(nonce, vec![named("ietf", &[rloc])]).xtr(xtr).edit(|message| message.merge = true)
    };
    bench.register(&part(1, 1, ETR));
    bench.advance(60);
    bench.register(&part(2, 1, OTHER_ETR));
    assert_eq!(rlocs_of(&ask(&mut bench, 1, "ietf")[0]), [ip(ETR), ip(OTHER_ETR)]);
    bench.advance(120);
    assert_eq!(rlocs_of(&ask(&mut bench, 2, "ietf")[0]), [ip(OTHER_ETR)]);
    let mut gone = named("ietf", &[]);
    gone.ttl_minutes = 0;
    bench.register(&register(2, vec![gone]).xtr(2));
    assert!(shown(&bench).is_empty());
    let told: Vec<_> = bench.events().iter().map(ToString::to_string).collect();
    let last = told.last().unwrap();
    assert_eq!(last, "'ietf' of site a withdrawn by 198.51.100.11");
    assert_eq!(bench.server.poll_timeout(), None);
}

#[test]
fn ms_24_names_survive_a_crash() {
    let now = Instant::now();
    let epoch = Epoch::new(now, Duration::from_secs(1_800_000_000));
    let mut first = Bench { server: MapServer::durable(config_with_names(), [1; 32], epoch), now };
    first.register(&register(1, vec![named("ietf", &[ETR]), named("lab-7", &[ETR])]));
    let mut gone = named("lab-7", &[]);
    gone.ttl_minutes = 0;
    first.register(&register(2, vec![gone]));
    let batch = first.server.take_batch().unwrap();
    let server = MapServer::durable(config_with_names(), [1; 32], epoch);
    let mut second = Bench { server, now: now + Duration::from_secs(5) };
    for (key, value) in batch.changes.iter() {
        second.server.apply(second.now, key, value).unwrap();
    }
    assert_eq!(shown(&second), ["'ietf'"]);
    assert_eq!(rlocs_of(&ask(&mut second, 1, "ietf.lisp")[0]), [ip(ETR)]);
}

#[test]
fn cw_25_cw_27_wide_instances_and_ranges_are_refused_by_their_own_rule() {
    let mut bench = Bench::new();
    let in_instance = |mask_len, instance_id, address: Address| {
        let address = Box::new(address);
        Address::Lcaf(Lcaf::InstanceId { mask_len, instance_id, address })
    };
    let wide = EidField::new(in_instance(32, 1 << 24, ip("10.1.0.0").into()), 16).unwrap();
    let range = EidField::new(in_instance(24, 0x700, Address::None), 0).unwrap();
    for (nonce, eid) in [(1, wide), (2, range)] {
        let refused = EidRecord { eid, ..record("10.1.0.0/16", &[ETR]) };
        assert!(bench.register(&register(nonce, vec![refused])).is_empty());
        assert_eq!(bench.discarded(Discard::InstanceUnsupported), nonce);
    }
    assert!(bench.prefixes().is_empty());
}

#[test]
fn ms_19_an_older_map_version_of_a_name_is_dropped() {
    let mut bench = bench();
    let version = |map_version| vec![EidRecord { map_version, ..named("ietf", &[ETR]) }];
    bench.register(&register(1, version(8)));
    assert!(bench.register(&register(2, version(7))).is_empty());
    assert_eq!(bench.discarded(Discard::MapVersionOlder), 1);
    assert_eq!(bench.register(&register(3, version(9))).len(), 1);
}

#[test]
fn ms_01_names_count_among_the_registrations_of_a_site() {
    let mut config = config_with_names();
    config.sites[0].max_registrations = 2;
    let server = MapServer::new(config, [1; 32]);
    let mut bench = Bench { server, now: Instant::now() };
    let all = vec![named("lab-1", &[ETR]), record("10.9.0.0/16", &[ETR]), named("lab-2", &[ETR])];
    let sent = bench.register(&register(1, all.clone()));
    assert_eq!(notify(&sent[0]).records.len(), 2);
    assert_eq!(shown(&bench), ["'lab-1'"]);
    assert_eq!(bench.discarded(Discard::SiteFull), 1);
    let again = bench.register(&register(1, all));
    assert_eq!(notify(&again[0]).records.len(), 2, "AU-18: what was refused is not acknowledged");
    let mut gone = named("lab-1", &[]);
    gone.ttl_minutes = 0;
    bench.register(&register(2, vec![gone]));
    let refreshed = vec![named("lab-2", &[ETR]), record("10.9.0.0/16", &[ETR])];
    let sent = bench.register(&register(3, refreshed));
    assert_eq!(notify(&sent[0]).records.len(), 2, "room again");
    let more = bench.register(&register(4, vec![record("10.1.1.0/24", &[ETR])]));
    assert!(more.is_empty(), "names take of the room for EID-prefixes");
    bench.advance(180);
    assert_eq!(bench.register(&register(5, vec![record("10.1.1.0/24", &[ETR])])).len(), 1);
}
