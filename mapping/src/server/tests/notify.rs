//! Unsolicited Map-Notifies.

use super::*;
use crate::timers::{MAP_NOTIFY_BACKOFF_RETRIES, MAP_NOTIFY_STEADY_RETRIES};

/// The EID moves from one xTR to another; returns what was sent when it did.
fn moved() -> (Bench, Vec<Transmit>) {
    let mut bench = Bench::new();
    bench.register(&register(1, vec![record("10.1.0.7/32", &[ETR])]).xtr(1));
    let to = register(1, vec![record("10.1.0.7/32", &[OTHER_ETR])])
        .xtr(2)
        .from(OTHER_ETR)
        .signed_by("secret-b");
    let sent = bench.register(&to);
    (bench, sent)
}

fn to(sent: &[Transmit], etr: &str) -> Vec<Transmit> {
    sent.iter().filter(|transmit| transmit.destination.ip() == ip(etr)).cloned().collect()
}

fn acknowledgement(transmit: &Transmit, secret: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    MapNotifyAck(notify(transmit)).encode(&mut octets);
    let secret = Secret::new(secret.as_bytes().to_vec());
    auth::sign(&mut octets, &secret, Algorithm::HmacSha256Hkdf).unwrap();
    octets
}

#[test]
fn ms_08_the_previous_etr_is_told_with_its_own_key() {
    let (_, sent) = moved();
    assert_eq!(sent.len(), 2, "an acknowledgement and a notification");
    let told = &to(&sent, ETR)[0];
    assert_eq!(told.destination.port(), CONTROL_PORT);
    let message = notify(told);
    assert_eq!(rlocs_of(&message.records[0]), [ip(OTHER_ETR)]);
    let secret = Secret::new(b"secret-a".to_vec());
    auth::verify(&told.payload, &secret, &[Algorithm::HmacSha256Hkdf]).unwrap();
    assert_eq!(notify(&to(&sent, OTHER_ETR)[0]).nonce, 1);
}

#[test]
fn ms_08_retransmitted_three_times_steadily_and_three_times_backing_off() {
    let (mut bench, sent) = moved();
    let (told, start) = (to(&sent, ETR).remove(0), bench.now);
    let mut at = Vec::new();
    bench.events();
    // The registration is kept alive by nothing here, so look only at what is before its end.
    while let Some(due) =
        bench.server.poll_timeout().filter(|due| *due < start + Duration::from_secs(170))
    {
        bench.server.handle_timeout(due);
        for again in bench.sent() {
            assert_eq!(again, told, "the same octets");
            at.push(due.duration_since(start).as_secs());
        }
    }
    assert_eq!(at, [3, 6, 9, 15, 27, 51]);
    let given_up = bench.events();
    assert!(
        matches!(given_up[..], [Event::NotifyUnacknowledged { destination, .. }] if destination == ip(ETR))
    );
}

#[test]
fn ms_08_an_acknowledgement_ends_the_retransmission() {
    let (mut bench, sent) = moved();
    let ack = acknowledgement(&to(&sent, ETR)[0], "secret-a");
    assert!(bench.input(ETR, CONTROL_PORT, &ack).is_empty());
    assert_eq!(bench.server.get(Count::MapNotifyAcks), 1);
    assert!(bench.advance(100).is_empty());
}

#[test]
fn ms_09_a_false_or_unexpected_acknowledgement_is_dropped() {
    let (mut bench, sent) = moved();
    let told = to(&sent, ETR).remove(0);
    bench.input(ETR, CONTROL_PORT, &acknowledgement(&told, "guess"));
    assert_eq!(bench.discarded(Discard::AuthenticationFailed), 1);
    let mut other = notify(&told);
    other.nonce ^= 1;
    let mut octets = Vec::new();
    MapNotifyAck(other).encode(&mut octets);
    bench.input(ETR, CONTROL_PORT, &octets);
    assert_eq!(bench.discarded(Discard::AckNotExpected), 1);
    assert_eq!(bench.advance(3), [told], "still retransmitted");
}

#[test]
fn ms_08_a_more_specific_elsewhere_is_told_to_the_covering_registration() {
    let mut bench = Bench::new();
    bench.register(&register(1, vec![record("10.1.0.0/16", &[ETR])]).xtr(1));
    let vm = |nonce, ttl| {
        let mut record = record("10.1.0.7/32", &[OTHER_ETR]);
        record.ttl_minutes = ttl;
        register(nonce, vec![record]).xtr(2).from(OTHER_ETR)
    };
    let sent = bench.register(&vm(1, 1_440));
    assert_eq!(notify(&to(&sent, ETR)[0]).records[0].eid.prefix(), Some(eid_prefix("10.1.0.7/32")));
    assert_eq!(bench.rlocs("10.1.0.0/16"), [ip(ETR)], "the aggregate is unchanged");
    let sent = bench.register(&vm(2, 0));
    let gone = notify(&to(&sent, ETR)[0]);
    assert_eq!((gone.records[0].ttl_minutes, gone.records[0].locators.len()), (0, 0));
    let repeated = bench.advance(3);
    assert_eq!(repeated.len(), 1, "the newer notification took the place of the older one");
    assert_eq!(notify(&repeated[0]).nonce, gone.nonce);
}

#[test]
fn ms_08_an_etr_is_not_told_of_its_own_changes() {
    let mut bench = Bench::new();
    bench.register(&register(1, vec![record("10.1.0.0/16", &[ETR])]).xtr(1));
    assert_eq!(bench.register(&register(2, vec![record("10.1.0.7/32", &[ETR])]).xtr(1)).len(), 1);
    assert_eq!(
        bench.register(&register(3, vec![record("10.1.0.0/16", &["198.51.100.13"])]).xtr(1)).len(),
        1
    );
}

#[test]
fn ms_17_the_others_of_a_merged_set_are_told() {
    let mut bench = Bench::new();
    let part = |nonce, xtr, rloc, ttl| {
        let mut record = record("10.1.0.0/16", &[rloc]);
        record.ttl_minutes = ttl;
        register(nonce, vec![record]).xtr(xtr).edit(|message| message.merge = true)
    };
    bench.register(&part(1, 1, ETR, 1_440));
    let sent = bench.register(&part(1, 2, OTHER_ETR, 1_440).from(OTHER_ETR));
    assert_eq!(rlocs_of(&notify(&to(&sent, ETR)[0]).records[0]).len(), 2);
    let sent = bench.register(&part(2, 2, OTHER_ETR, 1_440).from(OTHER_ETR));
    assert!(to(&sent, ETR).is_empty(), "a refresh changes nothing");
    let sent = bench.register(&part(3, 2, OTHER_ETR, 0).from(OTHER_ETR));
    assert_eq!(rlocs_of(&notify(&to(&sent, ETR)[0]).records[0]), [ip(ETR)]);
}

#[test]
fn ms_08_rg_06_nobody_is_told_of_the_same_mapping_from_another_etr() {
    let mut bench = Bench::new();
    let whole = |xtr, own: usize| {
        let mut record = record("10.1.0.0/16", &[ETR, OTHER_ETR]);
        record.locators[1 - own].local = false;
        register(1, vec![record]).xtr(xtr)
    };
    bench.register(&whole(1, 0));
    bench.events();
    let sent = bench.register(&whole(2, 1).from(OTHER_ETR));
    assert!(to(&sent, ETR).is_empty(), "every ETR registers every RLOC");
    assert!(bench.events().is_empty());
    assert_eq!(bench.server.registry.len(), 1, "it was replaced all the same");
}

#[test]
fn dy_02_the_covering_registration_follows_an_eid_from_site_to_site() {
    const THIRD_ETR: &str = "198.51.100.13";
    let mut bench = Bench::new();
    bench.register(&register(1, vec![record("10.1.0.0/16", &[ETR])]).xtr(1));
    let vm = |xtr, nonce, at| register(nonce, vec![record("10.1.0.7/32", &[at])]).xtr(xtr).from(at);
    bench.register(&vm(2, 1, OTHER_ETR));
    let sent = bench.register(&vm(3, 1, THIRD_ETR));
    for told in [ETR, OTHER_ETR] {
        let told = to(&sent, told);
        assert_eq!(told.len(), 1);
        assert_eq!(rlocs_of(&notify(&told[0]).records[0]), [ip(THIRD_ETR)]);
    }
    // Home again: whoever has the covering prefix registered the EID itself.
    let sent = bench.register(&vm(1, 2, ETR));
    assert_eq!(rlocs_of(&notify(&to(&sent, THIRD_ETR)[0]).records[0]), [ip(ETR)]);
    assert_eq!(to(&sent, ETR).len(), 1, "the acknowledgement alone");
}

#[test]
fn dy_02_an_etr_that_got_the_eid_back_hears_no_more_of_its_leaving() {
    let (mut bench, sent) = moved();
    let left = to(&sent, ETR).remove(0);
    let back = register(2, vec![record("10.1.0.7/32", &[ETR])]).xtr(1);
    bench.register(&back);
    for _ in 0..60 {
        assert!(!bench.advance(1).contains(&left), "old news");
    }
}

#[test]
fn dy_02_a_covering_registration_that_comes_later_learns_which_eids_are_elsewhere() {
    let mut bench = Bench::new();
    let at = |xtr, rloc, eid| register(1, vec![record(eid, &[rloc])]).xtr(xtr).from(rloc);
    bench.register(&at(2, OTHER_ETR, "10.1.0.7/32"));
    let home = at(1, ETR, "10.1.0.0/16");
    let sent = bench.register(&home);
    let told: Vec<_> = to(&sent, ETR).iter().map(notify).collect();
    assert_eq!(told.len(), 2, "the acknowledgement and the news");
    let news = told.iter().find(|told| told.nonce != 1).unwrap();
    assert_eq!(news.records[0].eid.prefix(), Some(eid_prefix("10.1.0.7/32")));
    assert_eq!(rlocs_of(&news.records[0]), [ip(OTHER_ETR)]);
    // A refresh is no news, nor is what it has registered itself.
    let again = register(2, vec![record("10.1.0.0/16", &[ETR]), record("10.1.0.8/32", &[ETR])]);
    assert_eq!(to(&bench.register(&again.xtr(1)), ETR).len(), 1);
}

#[test]
fn dy_02_who_asks_for_its_own_eid_prefix_is_told_which_eids_are_elsewhere() {
    let mut bench = Bench::new();
    let at = |xtr, rloc, eid| register(1, vec![record(eid, &[rloc])]).xtr(xtr).from(rloc);
    bench.register(&at(1, ETR, "10.1.0.0/16"));
    let left = bench.register(&at(2, OTHER_ETR, "10.1.0.7/32"));
    let ack = acknowledgement(&to(&left, ETR)[0], "secret-a");
    bench.input(ETR, CONTROL_PORT, &ack);
    let news = |sent: &[Transmit]| -> Vec<Option<EidPrefix>> {
        let notifies = to(sent, ETR).into_iter().filter_map(|t| MapNotify::parse(&t.payload).ok());
        notifies.map(|notify| notify.records[0].eid.prefix()).collect()
    };
    let ask = |bench: &mut Bench, nonce, eid: &str, rloc: &str| {
        let octets = ecm(&request(nonce, &[eid], &[rloc])).to_octets();
        bench.input(rloc, 40_001, &octets)
    };
    // Neither another one, nor about something else.
    for (nonce, eid, rloc) in
        [(1, "10.1.0.0/16", ITR), (2, "10.1.0.0/17", ETR), (3, "10.1.0.7/32", ETR)]
    {
        assert!(news(&ask(&mut bench, nonce, eid, rloc)).is_empty(), "{eid} {rloc}");
    }
    let vm = Some(eid_prefix("10.1.0.7/32"));
    assert_eq!(news(&ask(&mut bench, 4, "10.1.0.0/16", ETR)), [vm]);
    for nonce in 5..50 {
        assert!(news(&ask(&mut bench, nonce, "10.1.0.0/16", ETR)).is_empty(), "at a pace");
    }
    // Once more for those, besides what is repeated for want of an acknowledgement.
    let told = bench.advance(60);
    let repeated = MAP_NOTIFY_STEADY_RETRIES + MAP_NOTIFY_BACKOFF_RETRIES;
    let fresh: std::collections::BTreeSet<u64> =
        to(&told, ETR).iter().map(|told| notify(told).nonce).collect();
    assert_eq!(fresh.len(), 2, "{fresh:?}");
    assert!(news(&told).len() <= 2 * repeated as usize);
}

#[test]
fn dy_02_what_is_elsewhere_is_told_at_a_pace() {
    const ELSEWHERE: u32 = 1_000;
    let mut bench = Bench::new();
    bench.register(&register(1, vec![record("10.1.0.0/16", &[ETR])]).xtr(1));
    let own = register(2, vec![record("10.1.255.1/32", &[ETR])]).xtr(1);
    bench.register(&own);
    let ask = |bench: &mut Bench, nonce| {
        let octets = ecm(&request(nonce, &["10.1.0.0/16"], &[ETR])).to_octets();
        bench.input(ETR, 40_001, &octets)
    };
    let news = |sent: &[Transmit]| -> std::collections::BTreeSet<u64> {
        let notifies = to(sent, ETR).into_iter().filter_map(|t| MapNotify::parse(&t.payload).ok());
        notifies.map(|notify| notify.nonce).collect()
    };
    assert!(news(&ask(&mut bench, 1)).is_empty());
    assert_eq!(bench.server.elsewhere.remembered(), 0, "nothing is elsewhere");
    let vms: Vec<EidRecord> = (1..=ELSEWHERE)
        .map(|number| record(&format!("10.1.{}.{}/32", number >> 8, number & 255), &[OTHER_ETR]))
        .collect();
    for (nonce, records) in (1..).zip(vms.chunks(16)) {
        let left = register(nonce, records.to_vec()).xtr(2).from(OTHER_ETR);
        for told in to(&bench.register(&left), ETR) {
            bench.input(ETR, CONTROL_PORT, &acknowledgement(&told, "secret-a"));
        }
        bench.now += Duration::from_millis(20);
    }
    let first = news(&ask(&mut bench, 2));
    assert!(!first.is_empty() && first.len() <= 32, "{} at once", first.len());
    assert_eq!(bench.server.elsewhere.remembered(), 1);
    let mut told = first;
    for _ in 0..1_000 {
        let Some(at) = bench.server.poll_timeout() else { break };
        bench.now = bench.now.max(at);
        bench.server.handle_timeout(bench.now);
        let sent = bench.sent();
        let fresh: Vec<u64> = news(&sent).into_iter().filter(|one| !told.contains(one)).collect();
        assert!(fresh.len() <= 32, "{} in one step", fresh.len());
        told.extend(fresh);
        for told in to(&sent, ETR) {
            bench.input(ETR, CONTROL_PORT, &acknowledgement(&told, "secret-a"));
        }
        if told.len() >= ELSEWHERE as usize {
            break;
        }
    }
    assert_eq!(told.len(), ELSEWHERE as usize, "all of them, each once");
}
