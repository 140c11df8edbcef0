//! What subscribers are told of changes: which prefixes, once, in order.
use super::*;

#[test]
fn ps_11_every_change_is_published_with_the_next_nonce() {
    let mut bench = bench();
    bench.site_registers(1, vec![record("10.1.0.0/16", &[ETR])]);
    bench.subscribe(50, "10.1.0.1/32");
    for (nonce, rloc) in [(2, "198.51.100.21"), (3, "198.51.100.22"), (4, "198.51.100.23")] {
        let published = bench.site_registers(nonce, vec![record("10.1.0.0/16", &[rloc])]);
        assert_eq!(published.len(), 1);
        assert_eq!(published[0].nonce, 49 + nonce);
        assert_eq!(shown(&published[0]), mapping("10.1.0.0/16", rloc));
    }
    let refreshed = bench.site_registers(5, vec![record("10.1.0.0/16", &["198.51.100.23"])]);
    assert!(refreshed.is_empty(), "a refresh is no change");
}

#[test]
fn ps_11_the_publication_that_counts_is_the_newest() {
    let mut bench = bench();
    bench.site_registers(1, vec![record("10.1.0.0/16", &[ETR])]);
    bench.subscribe(50, "10.1.0.1/32");
    bench.register(&register(2, vec![record("10.1.0.0/16", &["198.51.100.21"])]));
    bench.register(&register(3, vec![record("10.1.0.0/16", &["198.51.100.22"])]));
    let again = bench.advance(3);
    assert_eq!(again.len(), 1, "the older one is not repeated");
    assert_eq!(shown(&verified(&again[0])), mapping("10.1.0.0/16", "198.51.100.22"));
    assert_eq!(verified(&again[0]).nonce, 52);
}

#[test]
fn ps_12_more_specifics_are_published_to_the_subscribers_of_the_covering_prefix() {
    let mut bench = bench();
    bench.site_registers(1, vec![record("10.1.0.0/16", &[ETR])]);
    bench.subscribe(50, "10.1.0.1/32");
    let published = bench.site_registers(2, vec![record("10.1.7.0/24", &[OTHER_ETR])]);
    assert_eq!(shown(&published[0]), mapping("10.1.7.0/24", OTHER_ETR));
    assert_eq!(published[0].nonce, 51);
    // Who subscribed to both hears of it once, by the longer subscription.
    bench.subscribe(500, "10.1.7.1/32");
    let published = bench.site_registers(3, vec![record("10.1.7.0/24", &[ETR])]);
    assert_eq!(published.iter().map(|notify| notify.nonce).collect::<Vec<_>>(), [501]);
}

#[test]
fn ps_12_a_lookup_of_a_prefix_that_holds_several_subscribes_to_all_of_them() {
    let mut bench = bench();
    bench.site_registers(1, vec![record("10.1.0.0/16", &[ETR]), record("10.9.0.0/16", &[ETR])]);
    let all = bench.subscribe(50, "10.0.0.0/8");
    assert_eq!(all.records.len(), 2);
    assert_eq!(bench.subscriptions()[0].prefix, eid_prefix("10.0.0.0/8"));
    let published = bench.site_registers(2, vec![record("10.1.3.0/24", &[ETR])]);
    assert_eq!(shown(&published[0]), mapping("10.1.3.0/24", ETR));
}

#[test]
fn ps_12_what_does_not_fit_in_the_first_map_notify_is_published_once_it_is_acknowledged() {
    let mut bench = bench();
    let prefixes: Vec<String> = (0..30).map(|n| format!("10.1.{n}.0/24")).collect();
    bench.site_registers(1, prefixes.iter().map(|prefix| record(prefix, &[ETR])).collect());
    let mut sent = bench.ask(&subscription(50, "10.0.0.0/8", XTR));
    assert_eq!(sent.len(), 1);
    sent.extend(bench.acknowledge(&sent[0].clone()));
    let mut told: Vec<String> =
        sent.iter().flat_map(|t| shown(&verified(t))).map(|(prefix, ..)| prefix).collect();
    assert!(sent.len() > 1 && verified(&sent[0]).nonce == 50);
    told.sort_unstable();
    told.dedup();
    let mut expected = prefixes;
    expected.sort_unstable();
    assert_eq!(told, expected);
    assert!(bench.acknowledge(&sent[1]).is_empty(), "told once");
}

/// A Map-Request that subscribes can be spoofed by whoever knows a Site-ID: it must not call a flood down on an ITR-RLOC.
#[test]
fn ps_19_who_acknowledges_nothing_is_sent_one_map_notify_and_its_repetitions() {
    let mut bench = bench();
    let records = (0..30).map(|n| record(&format!("10.1.{n}.0/24"), &[ETR])).collect();
    bench.site_registers(1, records);
    let mut spoofed = subscription(50, "10.0.0.0/8", XTR);
    spoofed.itr_rlocs = vec![Address::from(ip(ITR)); 20];
    let mut sent = bench.ask(&spoofed);
    sent.extend(bench.advance(1_000));
    assert!(sent.len() <= 8, "{} Map-Notifies", sent.len());
    assert!(bench.subscriptions().is_empty());
}

#[test]
fn ps_12_the_rest_leaves_out_what_is_muted_or_subscribed_apart() {
    let mut bench = bench();
    let records = (0..30).map(|n| record(&format!("10.1.{n}.0/24"), &[ETR])).collect();
    bench.site_registers(1, records);
    bench.subscribe(40, "10.1.28.1/32");
    let sent = bench.ask(&subscription(50, "10.0.0.0/8", XTR));
    bench.ask(&unsubscription(60, "10.1.29.0/24", XTR));
    let rest = bench.acknowledge(&sent[0]);
    let told: Vec<String> =
        rest.iter().flat_map(|t| shown(&verified(t))).map(|(prefix, ..)| prefix).collect();
    assert!(told.contains(&"10.1.27.0/24".to_owned()));
    assert!(
        !told.contains(&"10.1.28.0/24".to_owned()) && !told.contains(&"10.1.29.0/24".to_owned())
    );
}

#[test]
fn ps_12_parts_of_a_registered_prefix_follow_it() {
    let mut bench = bench();
    bench.site_registers(1, vec![record("10.1.0.0/24", &[OTHER_ETR])]);
    // Nothing is registered where it asks, within a configured prefix.
    let hole = bench.subscribe(50, "10.1.200.1/32");
    assert_eq!(shown(&hole), [("10.1.128.0/17".to_owned(), 15, Vec::new())]);
    let published = bench.site_registers(2, vec![record("10.1.0.0/16", &[ETR])]);
    assert_eq!(shown(&published[0]), mapping("10.1.128.0/17", ETR), "the covering one came");
    assert_eq!(bench.subscriptions()[0].ends_seconds, None);
    let mut withdrawn = record("10.1.0.0/16", &[ETR]);
    withdrawn.ttl_minutes = 0;
    let published = bench.site_registers(3, vec![withdrawn]);
    assert_eq!(shown(&published[0]), gone("10.1.128.0/17"), "and went");
    assert!(bench.subscriptions()[0].ends_seconds.is_some());
}

#[test]
fn ps_13_removal_is_published_with_ttl_0() {
    let mut bench = bench();
    bench.site_registers(1, vec![record("10.1.0.0/16", &[ETR]), record("10.9.0.0/16", &[ETR])]);
    bench.subscribe(50, "10.1.0.1/32");
    bench.subscribe(60, "10.9.0.1/32");
    let mut withdrawn = record("10.1.0.0/16", &[ETR]);
    withdrawn.ttl_minutes = 0;
    let published = bench.site_registers(2, vec![withdrawn]);
    assert_eq!(shown(&published[0]), gone("10.1.0.0/16"));
    let sent = bench.advance(181);
    assert_eq!(shown(&verified(&sent[0])), gone("10.9.0.0/16"), "not refreshed");
    // It may come back within the lifetime of a temporary subscription.
    let published = bench.site_registers(3, vec![record("10.1.0.0/16", &[OTHER_ETR])]);
    assert_eq!(shown(&published[0]), mapping("10.1.0.0/16", OTHER_ETR));
    let view = bench.subscriptions();
    assert_eq!((view[0].ends_seconds, view[1].ends_seconds.is_some()), (None, true));
}

#[test]
fn ps_11_a_renewal_leaves_nothing_untold() {
    let mut bench = bench();
    bench.site_registers(1, vec![record("10.1.0.0/16", &[ETR]), record("10.1.7.0/24", &[ETR])]);
    bench.subscribe(50, "10.1.0.1/32");
    // The publication is lost, and the xTR renews before it is repeated.
    bench.register(&register(2, vec![record("10.1.7.0/24", &[OTHER_ETR])]));
    let sent = bench.ask(&subscription(52, "10.1.0.0/16", XTR));
    let told: Vec<MapNotify> = sent.iter().map(verified).collect();
    assert_eq!(told.iter().map(|notify| notify.nonce).collect::<Vec<_>>(), [52, 53]);
    assert_eq!(shown(&told[1]), mapping("10.1.7.0/24", OTHER_ETR));
}
